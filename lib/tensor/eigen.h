/* The largest eigenpairs of a symmetric matrix without allocating: for the spectral term, once a training step.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_EIGEN_H
#define BAL_TENSOR_EIGEN_H

#include "lib/base/status.h"

#include <stddef.h>

typedef struct bal_eigen {
    size_t max_n, max_k, n_work, n_iwork;
    double *work, *w;
    int *iwork, *support;
} bal_eigen;

/* Bytes that bal_eigen_init() allocates; 0 when max_n is 0. */
size_t bal_eigen_bytes(size_t max_n, size_t max_k);
/* Workspace for matrices up to max_n x max_n and up to max_k pairs. */
bal_status bal_eigen_init(bal_eigen *e, size_t max_n, size_t max_k);
void bal_eigen_dispose(bal_eigen *e);
/* The k <= n largest eigenvalues of symmetric A(n,n), descending, in w[0..k), and their eigenvectors as the rows of
 * Z(k,n).  A is destroyed.  BAL_ENUMERIC when A holds NaN or infinity, or LAPACK does not converge. */
bal_status bal_eigen_largest(bal_eigen *e, size_t n, double *A, size_t k, double *w, double *Z);

#endif
