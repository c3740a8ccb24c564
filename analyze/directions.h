/* Where an update points: seen against the base weight W0 (amplification: Hu et al. 2021, LoRA, 7.3; intruder
 * dimensions: Shuttleworth et al. 2024, arXiv 2410.21228) and against another update (subspace similarity: LoRA, 7.2;
 * principal angles).  Matrices are row-major; singular vectors are the columns of U (m, k) and V (n, k).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ANALYZE_DIRECTIONS_H
#define BAL_ANALYZE_DIRECTIONS_H

#include "lib/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct amplification_stats {
    double base;        /* ||W0||_F */
    double in_update;   /* ||U_k^T W0 V_k||_F: what W0 does in the update's k leading directions */
    double in_own;      /* the same in W0's own: sqrt(sum of its k largest s^2) */
    double in_random;   /* and in k random orthonormal directions on each side */
    double update;      /* ||delta||_F, of all r singular values */
    double update_in_k; /* sqrt(sum of its k largest s^2) */
    double factor;      /* update / in_update; infinite where W0 does nothing there, NaN without an update */
} amplification_stats;

/* W0 (m, n); s[0..r), U (m, r), V (n, r) of the update; 1 <= k <= r.  seed: of the random directions. */
bal_status amplification_of(size_t m, size_t n, const double *W0, size_t r, const double *s, const double *U,
                            const double *V, size_t k, uint64_t seed, amplification_stats *out);

/* The base weight's singular vectors, p = min(m, n) of them, kept for all comparisons. */
typedef struct base_directions {
    size_t m, n, p;
    double *U, *s, *Vt; /* (m, p), (p), (p, n) */
} base_directions;
bal_status base_directions_init(base_directions *b, size_t m, size_t n, const double *W0);
void base_directions_dispose(base_directions *b);

/* The `count` leading singular directions of W0 + delta, against all of W0's. */
typedef struct tuned_directions {
    size_t count;
    double *s, *U, *Vt;           /* (count), (m, count), (count, n) */
    double *cos_left, *cos_right; /* max_j |u_i . u0_j|, max_j |v_i . v0_j| */
    size_t *nearest;              /* the j of cos_left */
    double *base_energy;          /* ||U0[:, :top]^T u_i||^2 */
} tuned_directions;
/* W (m, n) is W0 + delta; count and top are cut to min(m, n).  One clear order: rank order of W. */
bal_status tuned_directions_init(tuned_directions *t, const base_directions *b, const double *W, size_t count,
                                 size_t top);
void tuned_directions_dispose(tuned_directions *t);
/* Intruders among the first k: cosines below eps (of the left vectors, or of the right ones). */
size_t intruder_count(const tuned_directions *t, size_t k, double eps, bool left);
/* sum of s_i^2 over left intruders / sum over the first k; NaN when that is 0. */
double intruder_energy_share(const tuned_directions *t, size_t k, double eps);
/* W + (lambda - 1) sum s_i u_i v_i^T over the left intruders among the first k, in place: lambda 1 changes nothing, 0
 * takes them out (peft's reduce_intruder_dimension, whose documentation says it the other way round). */
void intruders_weaken(const tuned_directions *t, size_t m, size_t n, size_t k, double eps, double lambda, double *W);

/* phi(i, j) = ||A_i^T B_j||_F^2 / min(i, j), i <= ra, j <= rb, into grid[(i - 1) rb + j - 1], for orthonormal columns A
 * (n, ra) and B (n, rb): 1 nested, 0 orthogonal. */
bal_status subspace_similarity(size_t n, const double *A, size_t ra, const double *B, size_t rb, double *grid);
/* The min(ra, rb) principal angles in radians, ascending, into angles. */
bal_status principal_angles(size_t n, const double *A, size_t ra, const double *B, size_t rb, double *angles);
/* sqrt(sum sin^2) and sqrt(sum angle^2): the chordal (projection) and the geodesic distance on the Grassmannian. */
double chordal_distance(const double *angles, size_t n);
double geodesic_distance(const double *angles, size_t n);

#endif
