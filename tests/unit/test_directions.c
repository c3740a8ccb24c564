/* Amplification, intruders and subspace similarity against the vectors, and by hand.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "analyze/directions.h"
#include "analyze/spectrum.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct matrix {
    double *x;
    size_t m, n;
} matrix;

static const cJSON *at(const cJSON *o, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(o, key);
}

static double number(const cJSON *v)
{
    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static matrix read_matrix(const cJSON *o, const char *key)
{
    const cJSON *rows = at(o, key);
    matrix a = {.m = (size_t)cJSON_GetArraySize(rows)};
    a.n = a.m > 0 ? (size_t)cJSON_GetArraySize(rows->child) : 0;
    a.x = bal_alloc(a.m * a.n + 1, sizeof *a.x);
    size_t i = 0;
    for (const cJSON *r = rows != NULL ? rows->child : NULL; r != NULL; r = r->next)
        for (const cJSON *v = r->child; v != NULL; v = v->next)
            a.x[i++] = number(v);
    return a;
}

/* W0 + scale B A */
static matrix tuned(const matrix *W0, const matrix *A, const matrix *B, double scale)
{
    matrix w = {bal_alloc(W0->m * W0->n, sizeof *w.x), W0->m, W0->n};
    for (size_t i = 0; i < w.m; i++)
        for (size_t j = 0; j < w.n; j++) {
            double sum = 0;
            for (size_t k = 0; k < A->m; k++)
                sum += B->x[i * B->n + k] * A->x[k * A->n + j];
            w.x[i * w.n + j] = W0->x[i * w.n + j] + scale * sum;
        }
    return w;
}

/* Calls check for the cases whose name begins so; how many there were. */
static size_t each_case(const char *prefix, void (*check)(const cJSON *in, const cJSON *want))
{
    const char *path = test_shared("vectors/analyze_lora_delta.json");
    cJSON *json = NULL;
    size_t n = 0;
    if (path == NULL) {
        test_skip("the shared vectors are not there");
        return 1;
    }
    if (!CHECK_OK(bal_json_read(&json, path, 64 << 20)))
        return 0;
    for (const cJSON *c = at(json, "cases")->child; c != NULL; c = c->next)
        if (strncmp(cJSON_GetStringValue(at(c, "name")), prefix, strlen(prefix)) == 0) {
            check(at(c, "input"), at(c, "expected"));
            n++;
        }
    cJSON_Delete(json);
    return n;
}

static void check_amplification(const cJSON *in, const cJSON *want)
{
    matrix W0 = read_matrix(in, "W0"), A = read_matrix(in, "A"), B = read_matrix(in, "B");
    size_t r = A.m;
    double *s = bal_alloc(r, sizeof *s), *U = bal_alloc(W0.m * r, sizeof *U), *V = bal_alloc(W0.n * r, sizeof *V);
    CHECK_OK(spectrum_of_update(W0.m, W0.n, r, A.x, B.x, number(at(in, "scaling")), s, U, V));
    for (const cJSON *k = at(want, "by_k")->child; k != NULL; k = k->next) {
        amplification_stats a;
        if (!CHECK_OK(amplification_of(W0.m, W0.n, W0.x, r, s, U, V, (size_t)strtoul(k->string, NULL, 10), 1, &a)))
            break;
        CHECK_NEAR(a.base, number(at(want, "W0_frobenius")), 1e-12);
        CHECK_NEAR(a.in_update, number(at(k, "W_in_delta_directions_fro")), 1e-9);
        CHECK_NEAR(a.in_own, number(at(k, "W_in_own_top_directions_fro")), 1e-9);
        CHECK_NEAR(a.update, number(at(k, "delta_fro")), 1e-11);
        CHECK_NEAR(a.update_in_k, number(at(k, "delta_topk_fro")), 1e-11);
        CHECK_NEAR(a.factor, number(at(k, "amplification")), 1e-8);
        CHECK(a.in_random > 0 && a.in_random <= a.in_own);
    }
    bal_free(s);
    bal_free(U);
    bal_free(V);
    bal_free(W0.x);
    bal_free(A.x);
    bal_free(B.x);
}

TEST(amplification_vectors)
{
    CHECK(each_case("amplification", check_amplification) > 0);
}

static void check_list(const cJSON *want, const char *key, const double *got)
{
    size_t i = 0;
    for (const cJSON *v = at(want, key) != NULL ? at(want, key)->child : NULL; v != NULL; v = v->next, i++)
        CHECK_MSG(fabs(got[i] - number(v)) <= 1e-9, "%s[%zu] is %.17g, not %.17g", key, i, got[i], number(v));
}

/* "k=8,eps=0.6" */
static void read_key(const char *key, size_t *k, double *eps)
{
    char *end = NULL;
    *k = (size_t)strtoul(key + 2, &end, 10);
    *eps = strtod(end + 5, NULL);
}

static void check_mitigation(const cJSON *want, const tuned_directions *t, const matrix *W0, const matrix *W,
                             double scale)
{
    const cJSON *how = at(want, "mitigation");
    if (how == NULL)
        return;
    matrix weak = read_matrix(how, "W_mitigated");
    double *got = bal_alloc(W->m * W->n, sizeof *got), *s = bal_alloc(W->m, sizeof *s);
    memcpy(got, W->x, W->m * W->n * sizeof *got);
    intruders_weaken(t, W->m, W->n, (size_t)number(at(how, "k")), number(at(how, "eps")), number(at(how, "lambda")),
                     got);
    for (size_t i = 0; i < W->m * W->n; i++)
        CHECK_NEAR(got[i], weak.x[i], 1e-10);
    for (size_t i = 0; i < W->m * W->n; i++)
        got[i] = (got[i] - W0->x[i]) / scale;
    CHECK_OK(bal_svd(W->m, W->n, got, NULL, s, NULL));
    check_list(how, "delta_over_scaling_singular_values", s);
    bal_free(got);
    bal_free(s);
    bal_free(weak.x);
}

static void check_intruders(const cJSON *in, const cJSON *want)
{
    matrix W0 = read_matrix(in, "W0"), A = read_matrix(in, "A"), B = read_matrix(in, "B");
    double scale = number(at(in, "lora_alpha")) / number(at(in, "r")), eps = 0;
    matrix W = tuned(&W0, &A, &B, scale);
    base_directions base;
    tuned_directions t;
    size_t k = 0;
    if (!CHECK_OK(base_directions_init(&base, W0.m, W0.n, W0.x)))
        return;
    check_list(want, "base_singular_values", base.s);
    if (CHECK_OK(tuned_directions_init(&t, &base, W.x, W0.m, 3))) {
        check_list(want, "tuned_singular_values", t.s);
        check_list(want, "max_abs_cos_left", t.cos_left);
        check_list(want, "max_abs_cos_right", t.cos_right);
        check_list(want, "left_energy_in_base_top3", t.base_energy);
        size_t i = 0;
        for (const cJSON *v = at(want, "argmax_left") != NULL ? at(want, "argmax_left")->child : NULL; v != NULL;
             v = v->next, i++)
            CHECK_NEAR(t.nearest[i], number(v), 0);
        for (const cJSON *v = at(want, "counts_left")->child; v != NULL; v = v->next) {
            read_key(v->string, &k, &eps);
            CHECK_NEAR(intruder_count(&t, k, eps, true), number(v), 0);
        }
        for (const cJSON *v = at(want, "energy_share_left") != NULL ? at(want, "energy_share_left")->child : NULL;
             v != NULL; v = v->next) {
            read_key(v->string, &k, &eps);
            CHECK_NEAR(intruder_energy_share(&t, k, eps), number(v), 1e-9);
        }
        check_mitigation(want, &t, &W0, &W, scale);
        tuned_directions_dispose(&t);
    }
    if (CHECK_OK(tuned_directions_init(&t, &base, W.x, 2, 3))) { /* the leading two alone: another route, the same */
        CHECK_NEAR(intruder_count(&t, 2, 0.7, true),
                   at(want, "base_singular_values") == NULL ? 0
                   : W0.m == 8                              ? 2
                                                            : 1,
                   0);
        tuned_directions_dispose(&t);
    }
    base_directions_dispose(&base);
    bal_free(W0.x);
    bal_free(A.x);
    bal_free(B.x);
    bal_free(W.x);
}

TEST(intruder_vectors)
{
    CHECK(each_case("intruder", check_intruders) > 0);
}

/* The right singular vectors of a factor A (r, n), as columns. */
static double *right_vectors(const matrix *A)
{
    double *s = bal_alloc(A->m, sizeof *s), *U = bal_alloc(A->m * A->m, sizeof *U),
           *Vt = bal_alloc(A->m * A->n, sizeof *Vt), *V = bal_alloc(A->m * A->n, sizeof *V);
    CHECK_OK(bal_svd(A->m, A->n, A->x, U, s, Vt));
    for (size_t i = 0; i < A->m; i++)
        for (size_t j = 0; j < A->n; j++)
            V[j * A->m + i] = Vt[i * A->n + j];
    bal_free(s);
    bal_free(U);
    bal_free(Vt);
    return V;
}

static void check_similarity(const cJSON *in, const cJSON *want)
{
    matrix A = read_matrix(in, "A_first"), B = read_matrix(in, "A_second"), phi = read_matrix(want, "phi");
    double *Va = right_vectors(&A), *Vb = right_vectors(&B);
    double *grid = bal_alloc(A.m * B.m, sizeof *grid), angles[16];
    size_t k = A.m < B.m ? A.m : B.m;
    CHECK_OK(subspace_similarity(A.n, Va, A.m, Vb, B.m, grid));
    for (size_t i = 0; i < A.m * B.m && CHECK(phi.m == A.m && phi.n == B.m); i++)
        CHECK_NEAR(grid[i], phi.x[i], 1e-9);
    CHECK_OK(principal_angles(A.n, Va, A.m, Vb, B.m, angles));
    if (at(want, "principal_angles_rad_ascending") != NULL) {
        check_list(want, "principal_angles_rad_ascending", angles);
        CHECK_NEAR(chordal_distance(angles, k), number(at(want, "chordal")), 1e-9);
        CHECK_NEAR(chordal_distance(angles, k), number(at(want, "projection_metric_distance_d")), 1e-9);
        CHECK_NEAR(geodesic_distance(angles, k), number(at(want, "grassmann_geodesic")), 1e-9);
    }
    bal_free(A.x);
    bal_free(B.x);
    bal_free(phi.x);
    bal_free(Va);
    bal_free(Vb);
    bal_free(grid);
}

TEST(subspace_vectors)
{
    CHECK(each_case("subspace", check_similarity) > 0);
}

TEST(by_hand)
{
    /* W0 = diag(3, 2, 1); the update is 5 e3 e3^T, which W0 weakens most: 5 / 1 */
    static const double W0[] = {3, 0, 0, 0, 2, 0, 0, 0, 1}, axis[] = {0, 0, 1}, five = 5, nothing = 0;
    amplification_stats a;
    CHECK_OK(amplification_of(3, 3, W0, 1, &five, axis, axis, 1, 1, &a));
    CHECK_NEAR(a.factor, 5, 1e-14);
    CHECK_NEAR(a.in_own, 3, 1e-14);
    CHECK_OK(amplification_of(3, 3, W0, 1, &nothing, axis, axis, 1, 1, &a));
    CHECK(isnan(a.factor));
    CHECK_STATUS(amplification_of(3, 3, W0, 1, &five, axis, axis, 2, 1, &a), BAL_EINVAL);
    /* an angle of 1e-10, which acos of its cosine would call 0 */
    const double x[] = {1, 0}, y[] = {1, 1e-10};
    double angle;
    CHECK_OK(principal_angles(2, x, 1, y, 1, &angle));
    CHECK_NEAR(angle, 1e-10, 1e-20);
    CHECK_OK(principal_angles(2, x, 1, (const double[]){0, 1}, 1, &angle));
    CHECK_NEAR(angle, 1.5707963267948966, 1e-15);
}
