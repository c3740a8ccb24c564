/* real_t: float in the product, double with MODE=f64, where the same code is gradient-checked.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_REAL_H
#define BAL_TENSOR_REAL_H

#ifdef BAL_F64
typedef double real_t;
#define BAL_REAL_IS_DOUBLE 1
#define REAL(x)            (x)
#else
typedef float real_t;
#define BAL_REAL_IS_DOUBLE 0
#define REAL(x)            (x##f)
#endif

#endif
