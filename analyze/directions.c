/* SPDX-License-Identifier: Apache-2.0 */
#include "analyze/directions.h"

#include "lib/base/mem.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <string.h>

/* sqrt(sum x^2), scaled by the largest. */
static double norm_of(const double *x, size_t n)
{
    double largest = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(x[i]));
    for (size_t i = 0; i < n && largest > 0; i++)
        sum += (x[i] / largest) * (x[i] / largest);
    return largest * sqrt(sum);
}

/* ||U_k^T W V_k||_F for the first k columns of U (m, ldu) and V (n, ldv); work holds k n + k k. */
static double projected(size_t m, size_t n, const double *W, const double *U, size_t ldu, const double *V, size_t ldv,
                        size_t k, double *work)
{
    bal_dgemm(true, false, k, n, m, 1, U, ldu, W, n, 0, work, n);
    bal_dgemm(false, false, k, k, n, 1, work, n, V, ldv, 0, work + k * n, k);
    return norm_of(work + k * n, k * k);
}

/* Q (rows, k): orthonormal, of the uniform distribution. */
static bal_status random_directions(size_t rows, size_t k, bal_rng *rng, double *Q)
{
    double *G = bal_alloc(rows * k, sizeof *G), *R = bal_alloc(k * k, sizeof *R);
    bal_status status = G == NULL || R == NULL ? BAL_ENOMEM : BAL_OK;
    for (size_t i = 0; status == BAL_OK && i < rows * k; i++)
        G[i] = bal_rng_normal(rng);
    if (status == BAL_OK)
        status = bal_qr(rows, k, G, Q, R);
    bal_free(G);
    bal_free(R);
    return status;
}

bal_status amplification_of(size_t m, size_t n, const double *W0, size_t r, const double *s, const double *U,
                            const double *V, size_t k, uint64_t seed, amplification_stats *out)
{
    size_t p = m < n ? m : n;
    bal_rng rng;
    bal_status status;
    double *work = bal_alloc(k * n + k * k, sizeof *work), *own = bal_alloc(k, sizeof *own);
    double *Q = bal_alloc((m + n) * (k + 1), sizeof *Q), *Uo = bal_alloc(m * k, sizeof *Uo),
           *Vo = bal_alloc(k * n, sizeof *Vo);
    *out = (amplification_stats){0};
    if (work == NULL || own == NULL || Q == NULL || Uo == NULL || Vo == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (k == 0 || k > r || k > p)
        BAL_TRY(bal_fail(BAL_EINVAL, "%zu directions cannot be taken of %zu in a %zu x %zu matrix", k, r, m, n));
    BAL_TRY(bal_svd_leading(m, n, W0, k, Uo, own, Vo)); /* refuses what is not finite */
    bal_rng_init(&rng, seed, "random directions");
    BAL_TRY(random_directions(m, k, &rng, Q));
    BAL_TRY(random_directions(n, k, &rng, Q + m * k));
    out->base = norm_of(W0, m * n);
    out->in_update = projected(m, n, W0, U, r, V, r, k, work);
    out->in_own = norm_of(own, k);
    out->in_random = projected(m, n, W0, Q, k, Q + m * k, k, k, work);
    out->update = norm_of(s, r);
    out->update_in_k = norm_of(s, k);
    out->factor = out->update > 0 ? out->update / out->in_update : (double)NAN;
out:
    bal_free(work);
    bal_free(own);
    bal_free(Q);
    bal_free(Uo);
    bal_free(Vo);
    return status;
}

bal_status base_directions_init(base_directions *b, size_t m, size_t n, const double *W0)
{
    size_t p = m < n ? m : n;
    *b = (base_directions){.m = m, .n = n, .p = p};
    b->U = bal_alloc(m * p, sizeof *b->U);
    b->s = bal_alloc(p, sizeof *b->s);
    b->Vt = bal_alloc(p * n, sizeof *b->Vt);
    bal_status status =
        b->U == NULL || b->s == NULL || b->Vt == NULL ? BAL_ENOMEM : bal_svd(m, n, W0, b->U, b->s, b->Vt);
    if (status != BAL_OK)
        base_directions_dispose(b);
    return status;
}

void base_directions_dispose(base_directions *b)
{
    bal_free(b->U);
    bal_free(b->s);
    bal_free(b->Vt);
    *b = (base_directions){0};
}

/* cos[i] = max_j |C(j, i)|, C (p, count) or, transposed, (count, p). */
static void largest_cosines(const double *C, size_t p, size_t count, bool transposed, double *cosines, size_t *nearest)
{
    for (size_t i = 0; i < count; i++) {
        cosines[i] = 0;
        for (size_t j = 0; j < p; j++) {
            double c = fabs(transposed ? C[i * p + j] : C[j * count + i]);
            if (c > cosines[i]) {
                cosines[i] = c;
                if (nearest != NULL)
                    nearest[i] = j;
            }
        }
        cosines[i] = fmin(cosines[i], 1); /* rounding must not make a cosine of more */
    }
}

bal_status tuned_directions_init(tuned_directions *t, const base_directions *b, const double *W, size_t count,
                                 size_t top)
{
    size_t p = b->p;
    bal_status status;
    double *C = NULL;
    count = count < p ? count : p;
    top = top < p ? top : p;
    *t = (tuned_directions){.count = count};
    t->s = bal_alloc(count, sizeof *t->s);
    t->U = bal_alloc(b->m * count, sizeof *t->U);
    t->Vt = bal_alloc(count * b->n, sizeof *t->Vt);
    t->cos_left = bal_alloc(count, sizeof *t->cos_left);
    t->cos_right = bal_alloc(count, sizeof *t->cos_right);
    t->nearest = bal_alloc(count, sizeof *t->nearest);
    t->base_energy = bal_alloc(count, sizeof *t->base_energy);
    C = bal_alloc(p * count, sizeof *C);
    if (t->s == NULL || t->U == NULL || t->Vt == NULL || t->cos_left == NULL || t->cos_right == NULL ||
        t->nearest == NULL || t->base_energy == NULL || C == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (count == p)
        BAL_TRY(bal_svd(b->m, b->n, W, t->U, t->s, t->Vt));
    else
        BAL_TRY(bal_svd_leading(b->m, b->n, W, count, t->U, t->s, t->Vt));
    bal_dgemm(true, false, p, count, b->m, 1, b->U, p, t->U, count, 0, C, count);
    largest_cosines(C, p, count, false, t->cos_left, t->nearest);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < top; j++)
            t->base_energy[i] += C[j * count + i] * C[j * count + i];
    bal_dgemm(false, true, count, p, b->n, 1, t->Vt, b->n, b->Vt, b->n, 0, C, p);
    largest_cosines(C, p, count, true, t->cos_right, NULL);
out:
    bal_free(C);
    if (status != BAL_OK)
        tuned_directions_dispose(t);
    return status;
}

void tuned_directions_dispose(tuned_directions *t)
{
    bal_free(t->s);
    bal_free(t->U);
    bal_free(t->Vt);
    bal_free(t->cos_left);
    bal_free(t->cos_right);
    bal_free(t->nearest);
    bal_free(t->base_energy);
    *t = (tuned_directions){0};
}

size_t intruder_count(const tuned_directions *t, size_t k, double eps, bool left)
{
    size_t n = 0;
    for (size_t i = 0; i < k && i < t->count; i++)
        n += (left ? t->cos_left : t->cos_right)[i] < eps;
    return n;
}

double intruder_energy_share(const tuned_directions *t, size_t k, double eps)
{
    double all = 0, intruders = 0;
    for (size_t i = 0; i < k && i < t->count && t->s[0] > 0; i++) {
        double energy = (t->s[i] / t->s[0]) * (t->s[i] / t->s[0]);
        all += energy;
        intruders += t->cos_left[i] < eps ? energy : 0;
    }
    return all > 0 ? intruders / all : (double)NAN;
}

void intruders_weaken(const tuned_directions *t, size_t m, size_t n, size_t k, double eps, double lambda, double *W)
{
    for (size_t i = 0; i < k && i < t->count; i++) {
        if (!(t->cos_left[i] < eps))
            continue;
        for (size_t row = 0; row < m; row++) {
            double u = (lambda - 1) * t->s[i] * t->U[row * t->count + i];
            for (size_t col = 0; col < n; col++)
                W[row * n + col] += u * t->Vt[i * n + col];
        }
    }
}

bal_status subspace_similarity(size_t n, const double *A, size_t ra, const double *B, size_t rb, double *grid)
{
    double *C = bal_alloc(ra * rb + 1, sizeof *C);
    if (C == NULL)
        return BAL_ENOMEM;
    bal_dgemm(true, false, ra, rb, n, 1, A, ra, B, rb, 0, C, rb);
    for (size_t i = 0; i < ra; i++) { /* sums over the rectangle, first without the division */
        double row = 0;
        for (size_t j = 0; j < rb; j++) {
            row += C[i * rb + j] * C[i * rb + j];
            grid[i * rb + j] = row + (i > 0 ? grid[(i - 1) * rb + j] : 0);
        }
    }
    for (size_t i = 0; i < ra; i++)
        for (size_t j = 0; j < rb; j++)
            grid[i * rb + j] /= (double)(i < j ? i + 1 : j + 1);
    bal_free(C);
    return BAL_OK;
}

/* An angle is acos of a singular value of A^T B; near 0 its sine, the norm of (I - A A^T) B w, keeps the digits that the
 * cosine has lost. */
bal_status principal_angles(size_t n, const double *A, size_t ra, const double *B, size_t rb, double *angles)
{
    size_t k = ra < rb ? ra : rb;
    bal_status status;
    double *C = bal_alloc(ra * rb + 1, sizeof *C), *X = bal_alloc(ra * k + 1, sizeof *X),
           *Yt = bal_alloc(k * rb + 1, sizeof *Yt), *c = bal_alloc(k + 1, sizeof *c);
    double *P = bal_alloc(n * k + 1, sizeof *P), *inside = bal_alloc(ra * k + 1, sizeof *inside);
    if (C == NULL || X == NULL || Yt == NULL || c == NULL || P == NULL || inside == NULL)
        BAL_TRY(BAL_ENOMEM);
    bal_dgemm(true, false, ra, rb, n, 1, A, ra, B, rb, 0, C, rb);
    BAL_TRY(bal_svd(ra, rb, C, X, c, Yt));
    bal_dgemm(false, true, n, k, rb, 1, B, rb, Yt, rb, 0, P, k); /* the principal vectors in B */
    bal_dgemm(true, false, ra, k, n, 1, A, ra, P, k, 0, inside, k);
    bal_dgemm(false, false, n, k, ra, -1, A, ra, inside, k, 1, P, k);
    for (size_t i = 0; i < k; i++) {
        double sine = 0, cosine = fmin(c[i], 1);
        for (size_t row = 0; row < n; row++)
            sine += P[row * k + i] * P[row * k + i];
        angles[i] = atan2(sqrt(sine), cosine);
    }
out:
    bal_free(C);
    bal_free(X);
    bal_free(Yt);
    bal_free(c);
    bal_free(P);
    bal_free(inside);
    return status;
}

double chordal_distance(const double *angles, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += sin(angles[i]) * sin(angles[i]);
    return sqrt(sum);
}

double geodesic_distance(const double *angles, size_t n)
{
    return norm_of(angles, n);
}
