/* LAPACK behind row-major shims, always in double.  Inputs are checked for NaN and infinity first
 * (BAL_ENUMERIC), since LAPACK may loop or return garbage on them.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_LINALG_H
#define BAL_TENSOR_LINALG_H

#include "lib/base/rng.h"
#include "lib/base/status.h"

#include <stddef.h>

/* A(m,n) = U diag(s) Vt, k = min(m,n): U is m x k, s descending, Vt is k x n.  U and Vt may both be NULL
 * (values only).  A is not changed.  dgesdd, dgesvd when that does not converge. */
bal_status bal_svd(size_t m, size_t n, const double *A, double *U, double *s, double *Vt);
/* Symmetric A(n,n) = Q diag(w) Q^T, w ascending, eigenvector j in column j of Q (n x n; may be NULL: values only). */
bal_status bal_eigh(size_t n, const double *A, double *w, double *Q);
/* A(m,n), m >= n: A = Q R with Q (m,n), R (n,n) upper.  Q may be NULL. */
bal_status bal_qr(size_t m, size_t n, const double *A, double *Q, double *R);
/* The k leading triplets by randomised subspace iteration (Halko, Martinsson, Tropp 2011, alg. 4.4 and 5.1):
 * test matrix of k + oversample columns, niter power steps with QR after every product.  U (m,k), s (k), Vt (k,n). */
bal_status bal_rsvd(size_t m, size_t n, const double *A, size_t k, size_t oversample, size_t niter, bal_rng *rng,
                    double *U, double *s, double *Vt);
/* The k leading triplets exactly, through the Gram matrix of the smaller side in double (relative accuracy of
 * s_i about eps (s_1/s_i)^2): what PiSSA needs, several times faster than a full SVD. */
bal_status bal_svd_leading(size_t m, size_t n, const double *A, size_t k, double *U, double *s, double *Vt);

/* The same for a small n x n matrix by one-sided Jacobi rotations (dgesvj): small singular values of a matrix with
 * graded columns keep their relative accuracy.  U, Vt n x n. */
bal_status bal_svd_graded(size_t n, const double *A, double *U, double *s, double *Vt);

#endif
