/* LoftQ and QPiSSA: the error of the packed matrix with its factors by definition, below that of packing alone, and
 * falling with the rounds; one round by closed form.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/packed_start.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/tensor/linalg.h"
#include "lib/tensor/nf4.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

enum { OUT = 48, IN = 256, R = 6, LEAST = OUT };

static real_t g_w[OUT * IN], g_a[R * IN], g_b[OUT * R], g_shift_a[R * IN], g_shift_b[OUT * R];
static unsigned char g_packed[OUT * IN * 4];
static double g_wrong; /* the mutation: the factors are scaled by 1 + this */

/* A weight as they are: noise, and a few directions that stand out. */
static bal_view new_matrix(void)
{
    bal_rng rng;
    bal_rng_init(&rng, 12, "w");
    for (size_t i = 0; i < OUT * IN; i++)
        g_w[i] = (real_t)(0.02 * bal_rng_normal(&rng));
    for (size_t k = 0; k < 8; k++) {
        double u[OUT], v[IN];
        for (size_t i = 0; i < OUT; i++)
            u[i] = bal_rng_normal(&rng);
        for (size_t j = 0; j < IN; j++)
            v[j] = 0.04 / (double)(k + 1) * bal_rng_normal(&rng);
        for (size_t i = 0; i < OUT * IN; i++)
            g_w[i] += (real_t)(u[i / IN] * v[i % IN]);
    }
    bal_dtype t = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32;
    return (bal_view){.dtype = t, .rows = OUT, .cols = IN, .row_bytes = IN * sizeof(real_t), .data = g_w};
}

static bal_packed_job job_of(bal_packed_kind kind, bal_dtype type, size_t rounds)
{
    return (bal_packed_job){.kind = kind,
                            .type = type,
                            .r = R,
                            .rounds = rounds,
                            .scale = 2,
                            .a = g_a,
                            .b = g_b,
                            .shift_a = g_shift_a,
                            .shift_b = g_shift_b,
                            .packed = g_packed};
}

static double value(const void *packed, bal_dtype type, size_t i, size_t j)
{
    static float row[IN];
    size_t bytes = 0;
    if (!CHECK_OK(bal_dtype_row_bytes(type, IN, &bytes)))
        return NAN;
    bal_row_to_f32(type, (const unsigned char *)packed + i * bytes, IN, row);
    return (double)row[j];
}

/* || W - D(Q) - s B A || / || W || from the results. */
static double error_by_definition(const bal_packed_job *job, bool factors)
{
    double sum = 0, size = 0;
    for (size_t i = 0; i < OUT; i++)
        for (size_t j = 0; j < IN; j++) {
            double e = (double)g_w[i * IN + j] - value(job->packed, job->type, i, j);
            for (size_t k = 0; factors && k < R; k++)
                e -= (1 + g_wrong) * job->scale * (double)g_b[i * R + k] * (double)g_a[k * IN + j];
            sum += e * e;
            size += (double)g_w[i * IN + j] * (double)g_w[i * IN + j];
        }
    return sqrt(sum / size);
}

static void check_kind(bal_packed_kind kind, bal_dtype type)
{
    double before = INFINITY, first = 0;
    bal_view w = new_matrix();
    for (size_t rounds = 1; rounds <= 6; rounds++) {
        bal_packed_job job = job_of(kind, type, rounds);
        static unsigned char again[sizeof g_packed];
        if (!CHECK_OK(bal_packed_start(&w, &job)))
            return;
        CHECK_NEAR(job.error, error_by_definition(&job, true), 1e-6);
        CHECK(job.best >= 1 && job.best <= rounds);
        CHECK_MSG(job.error < 0.95 * job.plain, "%s: %g, packed alone %g", bal_dtype_name(type), job.error, job.plain);
        CHECK_MSG(job.error <= before, "%s: round %zu: %g after %g", bal_dtype_name(type), rounds, job.error, before);
        before = job.error;
        first = rounds == 1 ? job.error : first;
        size_t bytes = 0;
        CHECK_OK(bal_dtype_row_bytes(type, IN, &bytes));
        CHECK_OK(bal_pack_matrix(&w, type, R, job.scale, g_shift_a, g_shift_b, again));
        CHECK(memcmp(again, g_packed, OUT * bytes) == 0); /* Q can be made again from what is saved */
    }
    CHECK_MSG(before < 0.99 * first, "%s: %g after six rounds, %g after one", bal_dtype_name(type), before, first);
}

static void check_kinds(void)
{
    static const bal_dtype types[] = {BAL_DTYPE_NF4, BAL_DTYPE_Q4_0, BAL_DTYPE_Q4_1, BAL_DTYPE_Q4_K};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        check_kind(BAL_PACKED_LOFTQ, types[t]);
        check_kind(BAL_PACKED_PISSA, types[t]);
    }
}

TEST(errors_fall_with_the_rounds)
{
    check_kinds();
}

TEST(factors_of_another_size_are_noticed)
{
    g_wrong = 0.05;
    CHECK(test_count_failures(check_kinds) > 0);
    g_wrong = 0;
}

/* A round may be worse than one before it: then the better one stays. */
TEST(the_best_round_is_kept)
{
    bal_view w = new_matrix();
    bal_packed_job job = job_of(BAL_PACKED_LOFTQ, BAL_DTYPE_NF4, 24);
    if (!CHECK_OK(bal_packed_start(&w, &job)))
        return;
    CHECK_MSG(job.best < 24, "no round was worse than one before it: another matrix is needed here");
    CHECK_NEAR(job.error, error_by_definition(&job, true), 1e-6);
    bal_packed_job fewer = job_of(BAL_PACKED_LOFTQ, BAL_DTYPE_NF4, job.best);
    CHECK_OK(bal_packed_start(&w, &fewer));
    CHECK(fewer.error == job.error && fewer.best == job.best);
}

/* One round of LoftQ: Q is what packing gives, and the factors are the leading triplets of what it lost; one of QPiSSA:
 * the factors are PiSSA's, and Q packs the rest. */
TEST(one_round_by_its_definition)
{
    static double D[OUT * IN], U[OUT * LEAST], s[LEAST], Vt[LEAST * IN];
    static unsigned char plain[sizeof g_packed];
    bal_view w = new_matrix();
    for (int pissa = 0; pissa < 2; pissa++) {
        bal_packed_job job = job_of(pissa == 1 ? BAL_PACKED_PISSA : BAL_PACKED_LOFTQ, BAL_DTYPE_NF4, 1);
        CHECK_OK(bal_pack_matrix(&w, BAL_DTYPE_NF4, 0, 1, NULL, NULL, plain));
        if (!CHECK_OK(bal_packed_start(&w, &job)))
            return;
        for (size_t i = 0; i < OUT * IN; i++)
            D[i] = (double)g_w[i] - (pissa == 1 ? 0 : value(plain, BAL_DTYPE_NF4, i / IN, i % IN));
        CHECK_OK(bal_svd(OUT, IN, D, U, s, Vt));
        for (size_t i = 0; i < OUT; i++)
            for (size_t j = 0; j < IN; j++) {
                double want = 0, got = 0;
                for (size_t k = 0; k < R; k++) {
                    want += U[i * LEAST + k] * s[k] * Vt[k * IN + j];
                    got += 2 * (double)g_b[i * R + k] * (double)g_a[k * IN + j];
                }
                CHECK_NEAR(got, want, 1e-6);
                CHECK((g_shift_b[i * R] != 0) == (pissa == 1));
            }
        CHECK((memcmp(plain, g_packed, OUT * (IN / 64 * 36)) == 0) == (pissa == 0));
        CHECK_NEAR(job.plain, 0.09, 0.02);
    }
}

/* A Q that stays: the same factors as one round of LoftQ over what packing gives. */
TEST(a_fixed_matrix)
{
    static unsigned char plain[sizeof g_packed];
    static real_t a[R * IN], b[OUT * R];
    bal_view w = new_matrix(), q = w;
    bal_packed_job job = job_of(BAL_PACKED_LOFTQ, BAL_DTYPE_Q4_0, 1), fixed = {.r = R, .scale = 2, .a = a, .b = b};
    CHECK_OK(bal_pack_matrix(&w, BAL_DTYPE_Q4_0, 0, 1, NULL, NULL, plain));
    q.dtype = BAL_DTYPE_Q4_0;
    q.data = plain;
    CHECK_OK(bal_dtype_row_bytes(q.dtype, IN, &q.row_bytes));
    if (!CHECK_OK(bal_packed_start(&w, &job)) || !CHECK_OK(bal_packed_fixed(&w, &q, &fixed)))
        return;
    CHECK(memcmp(a, g_a, sizeof a) == 0 && memcmp(b, g_b, sizeof b) == 0);
    CHECK(fixed.error == job.error && fixed.plain == job.plain && fixed.error < 0.95 * fixed.plain);
    q.rows--;
    CHECK_STATUS(bal_packed_fixed(&w, &q, &fixed), BAL_EINVAL);
}

TEST(what_cannot_be_packed)
{
    bal_view w = new_matrix();
    bal_packed_job job = job_of(BAL_PACKED_LOFTQ, BAL_DTYPE_NF4, 1);
    job.r = OUT + 1;
    CHECK_STATUS(bal_packed_start(&w, &job), BAL_EINVAL);
    job.r = R;
    w.cols = 96; /* no whole number of blocks of 64 */
    CHECK_STATUS(bal_packed_start(&w, &job), BAL_EFORMAT);
    w = new_matrix();
    g_w[5 * IN + 7] = (real_t)NAN;
    CHECK_STATUS(bal_packed_start(&w, &job), BAL_ENUMERIC);
    memset(g_w, 0, sizeof g_w);
    CHECK_OK(bal_packed_start(&w, &job));
    CHECK(job.error == 0 && g_a[0] == 0);
}
