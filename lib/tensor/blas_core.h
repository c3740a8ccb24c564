/* Chooses OpenBLAS's kernels.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_BLAS_CORE_H
#define BAL_TENSOR_BLAS_CORE_H

/* OpenBLAS picks its kernels by a list of CPU models; one that is newer than the library gets the oldest kernels
 * (0.3.21 on a 2023 Xeon: "Prescott", a fifth of the rate).  When the CPU has AVX2 or AVX-512 and the library chose
 * kernels without, this makes it choose again, tries a product against plain loops, and goes back if that is wrong.
 * Does nothing when OPENBLAS_CORETYPE is set, or when the library cannot choose again.  Call once, before any
 * product and any other thread. */
void bal_blas_core_select(void);

#endif
