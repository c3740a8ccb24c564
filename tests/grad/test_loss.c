/* The losses of lib/loss against a plain reference in double: values directly, gradients by central differences of the
 * reference.  Every term alone and summed, every form and path, and mutations of the reference that must be noticed.
 * With MODE=f64 the bound is 1e-7; in the product's f32 it is what f32 allows.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/loss/lm_loss.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_T = 40, MAX_D = 8, MAX_V = 60 };
#define STEP  1e-5
#define BOUND (BAL_REAL_IS_DOUBLE ? 1e-7 : 2e-4)

typedef enum mutation {
    NONE,
    TASK_SIGN,
    TASK_MEAN, /* mean over the micro-batch instead of the step */
    KL_NO_T2,
    KL_SWAPPED,
    KL_T_FORGOTTEN,
    MSE_RAW,
    ENTROPY_SIGN,
    ENTROPY_K, /* one logit more */
    ENTROPY_NO_SOFTMAX,
    SVD_K,
    SVD_NORM,
    SVD_UNWEIGHTED,
    CAP_FORGOTTEN,
    BIAS_FORGOTTEN,
    MUTATIONS
} mutation;

typedef struct problem {
    size_t T, D, V, n_rows, n_reg, N, R;
    uint32_t rows[MAX_T], reg[MAX_T];
    int32_t target[MAX_T];
    real_t E[MAX_V * MAX_D], bias[MAX_V], final[MAX_T * MAX_D], teacher[MAX_T * MAX_D], dw[MAX_V * MAX_D], dbias[MAX_V];
    bool with_bias;
    double cap;
    bal_loss_config config;
    bal_loss_weights weights;
    mutation mutation;
} problem;

static problem g_p; /* one at a time: mutations run it again through test_count_failures() */

static void fill(real_t *x, size_t n, double scale, bal_rng *rng)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (real_t)(scale * bal_rng_normal(rng));
}

/* A ragged batch of T tokens with labels here and there; the step has more rows than this micro-batch. */
static void set_up(size_t T, size_t D, size_t V, size_t n_rows)
{
    problem *p = &g_p;
    bal_rng rng;
    bal_rng_init(&rng, 11, "loss");
    *p = (problem){.T = T, .D = D, .V = V, .n_rows = n_rows, .n_reg = n_rows, .N = n_rows + 3, .R = n_rows + 3};
    fill(p->E, V * D, 1, &rng);
    fill(p->bias, V, 0.5, &rng);
    fill(p->final, T * D, 1, &rng);
    fill(p->teacher, T * D, 1, &rng);
    for (size_t i = 0; i < n_rows; i++) {
        p->rows[i] = p->reg[i] = (uint32_t)(i * T / n_rows);
        p->target[i] = (int32_t)bal_rng_below(&rng, V);
    }
    p->config = (bal_loss_config){.temperature = 2, .top_k_entropy = 4, .svd_top_k = 3};
}

static void use(double consistency, double diversity, double svd)
{
    g_p.config.lambda_consistency = g_p.weights.consistency = consistency;
    g_p.config.lambda_diversity = g_p.weights.diversity = diversity;
    g_p.config.lambda_svd = g_p.weights.svd = svd;
}

/* ---- the reference ---- */

static void ref_logits(const double *x, double *z)
{
    const problem *p = &g_p;
    for (size_t v = 0; v < p->V; v++) {
        double sum = p->with_bias && p->mutation != BIAS_FORGOTTEN ? (double)p->bias[v] : 0;
        for (size_t d = 0; d < p->D; d++)
            sum += x[d] * (double)p->E[v * p->D + d];
        z[v] = p->cap > 0 && p->mutation != CAP_FORGOTTEN ? p->cap * tanh(sum / p->cap) : sum;
    }
}

static void ref_softmax(size_t n, const double *z, double T, double *out)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, z[i]);
    for (size_t i = 0; i < n; i++)
        sum += out[i] = exp((z[i] - max) / T);
    for (size_t i = 0; i < n; i++)
        out[i] /= sum;
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static double ref_consistency(const double *z, const double *z0)
{
    const problem *p = &g_p;
    double q[MAX_V], q0[MAX_V], sum = 0, norm = 0, norm0 = 0,
                                T = p->mutation == KL_T_FORGOTTEN ? 1 : p->config.temperature;
    if (p->config.consistency == BAL_CONSISTENCY_NORMALIZED_MSE) {
        for (size_t v = 0; v < p->V; v++) {
            norm += z[v] * z[v];
            norm0 += z0[v] * z0[v];
        }
        if (p->mutation == MSE_RAW)
            norm = norm0 = 1;
        for (size_t v = 0; v < p->V; v++)
            sum += pow(z[v] / sqrt(norm) - z0[v] / sqrt(norm0), 2);
        return sum / (double)p->V;
    }
    ref_softmax(p->V, z, T, q);
    ref_softmax(p->V, z0, T, q0);
    for (size_t v = 0; v < p->V; v++)
        sum += p->mutation == KL_SWAPPED ? q[v] * log(q[v] / q0[v]) : q0[v] * log(q0[v] / q[v]);
    return p->mutation == KL_NO_T2 ? sum : T * T * sum;
}

static double ref_diversity(const double *z)
{
    const problem *p = &g_p;
    double sorted[MAX_V], q[MAX_V], sum = 0;
    size_t K = p->config.top_k_entropy + (p->mutation == ENTROPY_K ? 1 : 0);
    K = p->config.top_k_entropy == 0 || K > p->V ? p->V : K;
    memcpy(sorted, z, p->V * sizeof *z);
    qsort(sorted, p->V, sizeof *sorted, descending);
    ref_softmax(p->mutation == ENTROPY_NO_SOFTMAX ? p->V : K, sorted, 1, q);
    for (size_t i = 0; i < K; i++)
        sum += q[i] * log(q[i]);
    return p->mutation == ENTROPY_SIGN ? -sum : sum;
}

static double ref_spectral(size_t M, const double *Z)
{
    const problem *p = &g_p;
    double s[MAX_V], leading = 0, square = 0, all = 0;
    if (M < 2)
        return 0;
    CHECK_OK(bal_svd(M, p->V, Z, NULL, s, NULL));
    size_t n = M < p->V ? M : p->V;
    for (size_t i = 0; i < n; i++) {
        leading += i < p->config.svd_top_k + (p->mutation == SVD_K ? 1 : 0) ? s[i] : 0;
        square += s[i] * s[i];
        all += s[i];
    }
    if (sqrt(square) <= 1e-8)
        return 0;
    bool nuclear = (p->config.svd_norm == BAL_SVD_NUCLEAR) != (p->mutation == SVD_NORM);
    return -leading / (nuclear ? all : sqrt(square));
}

static void ref_values(const double *final, const double *teacher, bal_loss_values *v)
{
    static double Z[MAX_T * MAX_V], z0[MAX_V];
    const problem *p = &g_p;
    double N = (double)(p->mutation == TASK_MEAN ? p->n_rows : p->N), R = (double)p->R;
    *v = (bal_loss_values){0};
    for (size_t i = 0; i < p->n_rows; i++) {
        double q[MAX_V];
        ref_logits(final + p->rows[i] * p->D, Z);
        ref_softmax(p->V, Z, 1, q);
        v->task -= (p->mutation == TASK_SIGN ? -1 : 1) * log(q[p->target[i]]) / N;
    }
    for (size_t i = 0; i < p->n_reg; i++) {
        ref_logits(final + p->reg[i] * p->D, Z + i * p->V);
        ref_logits(teacher + p->reg[i] * p->D, z0);
        v->consistency += ref_consistency(Z + i * p->V, z0) / R;
        v->diversity += ref_diversity(Z + i * p->V) / R;
    }
    v->spectral = ref_spectral(p->n_reg, Z) * (p->mutation == SVD_UNWEIGHTED ? 1 : (double)p->n_reg / R);
    v->total = v->task + p->weights.consistency * v->consistency + p->weights.diversity * v->diversity +
               p->weights.svd * v->spectral;
}

/* ---- the library ---- */

static void make_model(bal_model *m)
{
    problem *p = &g_p;
    static char name[] = "lm_head";
    *m = (bal_model){0};
    m->config.hidden = p->D;
    m->config.vocab = p->V;
    m->config.logit_softcap = p->cap;
    m->head.name = name;
    m->head.w = (bal_view){.dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32,
                           .rows = p->V,
                           .cols = p->D,
                           .row_bytes = p->D * sizeof(real_t),
                           .data = p->E};
    m->head.bias = p->with_bias ? p->bias : NULL;
    m->head.dw = p->config.train_head ? p->dw : NULL;
    m->head.dbias = p->config.train_head && p->with_bias ? p->dbias : NULL;
}

static bal_batch make_batch(void)
{
    problem *p = &g_p;
    return (bal_batch){.n_tokens = p->T,
                       .n_rows = p->n_rows,
                       .n_reg_rows = p->n_reg,
                       .rows = p->rows,
                       .reg_rows = p->reg,
                       .target = p->target};
}

static bal_status run_library(bal_loss_values *v, real_t *dfinal, real_t *dconsistency)
{
    problem *p = &g_p;
    bal_model m;
    bal_lm_loss *l = NULL;
    bal_batch b = make_batch();
    make_model(&m);
    uint64_t before = bal_mem_bytes();
    bal_status status = bal_lm_loss_new(&l, &m, &p->config, p->T);
    if (!CHECK_OK(status))
        return status;
    uint64_t held = bal_mem_bytes() - before, said = bal_lm_loss_bytes(&m, &p->config, p->T);
    CHECK_MSG(held <= said + 256 && said <= held + 256, "the loss holds %zu bytes and says %zu", (size_t)held,
              (size_t)said);
    bal_loss_values_zero(v, &p->config);
    uint64_t count = bal_mem_count();
    status = bal_lm_loss_run(l, &b, p->final, p->teacher, p->N, p->R, &p->weights, v, dfinal, dconsistency);
    CHECK(bal_mem_count() == count);
    bal_loss_values_finish(v, &p->weights);
    bal_lm_loss_free(l);
    return status;
}

static void check_value(const char *what, double got, double want, double lambda)
{
    if (lambda == 0)
        CHECK_MSG(isnan(got), "%s is off and not NaN", what);
    else
        CHECK_MSG(fabs(got - want) <= (BAL_REAL_IS_DOUBLE ? 1e-11 : 1e-5) * (1 + fabs(want)), "%s is %.15g, not %.15g",
                  what, got, want);
}

/* |num - ana| / (|num| + |ana|), infinite when something is not finite. */
static double distance(const double *num, const double *ana, size_t n)
{
    double d = 0, a = 0, b = 0;
    for (size_t i = 0; i < n; i++) {
        d += (num[i] - ana[i]) * (num[i] - ana[i]);
        a += num[i] * num[i];
        b += ana[i] * ana[i];
    }
    double r = sqrt(d) / (sqrt(a) + sqrt(b));
    return d == 0 ? 0 : isfinite(r) ? r : HUGE_VAL;
}

static void check_problem(void)
{
    problem *p = &g_p;
    static real_t dfinal[MAX_T * MAX_D];
    static double x[MAX_T * MAX_D], teacher[MAX_T * MAX_D], num[MAX_T * MAX_D], ana[MAX_T * MAX_D];
    size_t n = p->T * p->D;
    bal_loss_values v, want, up, down;
    memset(p->dw, 0, sizeof p->dw);
    for (size_t i = 0; i < n; i++) {
        dfinal[i] = (real_t)0.5; /* gradients are added to what is there */
        x[i] = (double)p->final[i];
        teacher[i] = (double)p->teacher[i];
    }
    if (!CHECK_OK(run_library(&v, dfinal, NULL)))
        return;
    ref_values(x, teacher, &want);
    check_value("task", v.task, want.task, 1);
    check_value("consistency", v.consistency, want.consistency, p->config.lambda_consistency);
    check_value("diversity", v.diversity, want.diversity, p->config.lambda_diversity);
    check_value("spectral", v.spectral, want.spectral, p->config.lambda_svd);
    check_value("total", v.total, want.total, 1);
    for (size_t i = 0; i < n; i++) {
        double keep = x[i];
        x[i] = keep + STEP;
        ref_values(x, teacher, &up);
        x[i] = keep - STEP;
        ref_values(x, teacher, &down);
        x[i] = keep;
        num[i] = (up.total - down.total) / (2 * STEP);
        ana[i] = (double)dfinal[i] - 0.5;
    }
    double d = distance(num, ana, n);
    CHECK_MSG(d <= BOUND, "gradient is off by %g (bound %g)", d, BOUND);
}

TEST(task_alone)
{
    set_up(9, 5, 11, 6);
    check_problem();
    g_p.with_bias = true;
    check_problem();
    g_p.cap = 3;
    check_problem();
}

TEST(consistency)
{
    set_up(9, 5, 11, 6);
    use(0.7, 0, 0);
    check_problem();
    g_p.config.temperature = 1;
    check_problem();
    g_p.config.temperature = 3.5;
    g_p.cap = 2.5;
    check_problem();
    g_p.config.chunk_rows = 4; /* 6 rows in two chunks */
    check_problem();
    g_p.config.consistency = BAL_CONSISTENCY_NORMALIZED_MSE;
    use(20, 0, 0);
    check_problem();
    g_p.config.need_teacher = true;
    check_problem();
    g_p.cap = 0;
    check_problem();
}

TEST(diversity)
{
    for (size_t k = 0; k < 14; k++) {
        set_up(9, 5, 11, 6);
        use(0, 0.9, 0);
        g_p.config.top_k_entropy = k; /* 0 and 11 and above: the whole vocabulary */
        g_p.cap = k % 3 == 1 ? 2 : 0;
        if (k != 1) /* the entropy of one value is 0 and flat */
            check_problem();
    }
}

static void check_spectral(size_t T, size_t D, size_t V, size_t rows, size_t k)
{
    for (int form = 0; form < 2; form++)
        for (int solver = 0; solver < 2; solver++)
            for (int more = 0; more < 3; more++) {
                set_up(T, D, V, rows);
                use(0, 0, 1.3);
                g_p.config.svd_top_k = k;
                g_p.config.svd_norm = form == 0 ? BAL_SVD_FROBENIUS : BAL_SVD_NUCLEAR;
                g_p.config.svd_solver = solver == 0 ? BAL_SVD_AUTO : BAL_SVD_LOGITS;
                g_p.with_bias = more > 0;
                g_p.cap = more == 2 ? 4 : 0;
                check_problem();
            }
}

TEST(spectral)
{
    check_spectral(9, 5, 11, 4, 2);   /* fewer rows than columns of H */
    check_spectral(20, 5, 11, 17, 3); /* more rows than the vocabulary */
    check_spectral(12, 7, 11, 7, 1);
    check_spectral(9, 6, 11, 5, 5);  /* k = M */
    check_spectral(9, 6, 11, 5, 40); /* k above everything */
    check_spectral(30, 3, 40, 20, 2);
}

TEST(all_terms)
{
    set_up(14, 6, 30, 10);
    use(0.6, 0.8, 1.1);
    check_problem();
    g_p.config.svd_norm = BAL_SVD_NUCLEAR;
    g_p.with_bias = true;
    check_problem();
    g_p.cap = 3;
    check_problem();
    g_p.weights.consistency = 0; /* a schedule holds a term at 0: value yes, gradient no */
    g_p.weights.svd = 0;
    check_problem();
}

TEST(regularisers_on_other_rows)
{
    set_up(14, 6, 30, 10);
    use(0.6, 0.8, 1.1);
    g_p.n_reg = 12;
    g_p.R = 15;
    for (uint32_t i = 0; i < 12; i++)
        g_p.reg[i] = i + 2;
    check_problem();
    g_p.n_reg = 10; /* as many, but others */
    check_problem();
}

TEST(few_rows)
{
    bal_loss_values v;
    static real_t dfinal[MAX_T * MAX_D];
    set_up(5, 4, 11, 1);
    use(0.6, 0.8, 1.1);
    check_problem();
    CHECK_OK(run_library(&v, NULL, NULL));
    CHECK(v.spectral == 0 && v.spectral_undefined == 1 && v.n_rows == 1);
    g_p.n_rows = g_p.n_reg = 0;
    CHECK_OK(run_library(&v, dfinal, NULL));
    CHECK(v.task == 0 && v.consistency == 0 && v.diversity == 0 && v.spectral == 0 && v.total == 0);
    g_p.n_rows = g_p.n_reg = 2;
    memset(g_p.E, 0, sizeof g_p.E); /* F = 0 */
    CHECK_OK(run_library(&v, dfinal, NULL));
    CHECK(v.spectral == 0 && v.spectral_undefined == 1);
    for (size_t i = 0; i < MAX_T * MAX_D; i++)
        CHECK(dfinal[i] == 0);
}

TEST(close_singular_values_stay_finite)
{
    bal_loss_values v;
    static real_t dfinal[MAX_T * MAX_D];
    for (int solver = 0; solver < 2; solver++)
        for (int form = 0; form < 2; form++) {
            set_up(8, 4, 12, 6);
            use(0, 0, 1);
            g_p.config.svd_solver = solver == 0 ? BAL_SVD_AUTO : BAL_SVD_LOGITS;
            g_p.config.svd_norm = form == 0 ? BAL_SVD_FROBENIUS : BAL_SVD_NUCLEAR;
            memset(g_p.E, 0, sizeof g_p.E);
            memset(g_p.final, 0, sizeof g_p.final);
            for (size_t d = 0; d < 4; d++)
                g_p.E[d * 4 + d] = 1;      /* orthonormal columns: Z has the singular values of H */
            for (size_t i = 0; i < 6; i++) /* rows 4 and 5 repeat rows 0 and 1: sigma = sqrt 2 twice, then 1 twice */
                g_p.final[g_p.rows[i] * 4 + i % 4] = 1;
            memset(dfinal, 0, sizeof dfinal);
            CHECK_OK(run_library(&v, dfinal, NULL));
            double want = form == 0 ? (2 * sqrt(2.0) + 1) / sqrt(6.0) : (2 * sqrt(2.0) + 1) / (2 * sqrt(2.0) + 2);
            CHECK_NEAR(v.spectral, -want * 6 / 9, 1e-6);
            for (size_t i = 0; i < 32; i++)
                CHECK(isfinite(dfinal[i]) && fabs((double)dfinal[i]) < 10);
        }
}

TEST(closed_forms)
{
    bal_loss_values v;
    set_up(4, 4, 8, 3);
    use(1, 1, 1);
    g_p.N = g_p.R = 3;
    g_p.config.need_teacher = true;
    memset(g_p.final, 0, sizeof g_p.final); /* uniform student; the teacher too */
    memset(g_p.teacher, 0, sizeof g_p.teacher);
    CHECK_OK(run_library(&v, NULL, NULL));
    CHECK_NEAR(v.task, log(8.0), 1e-6);
    CHECK_NEAR(v.consistency, 0, 1e-6);
    CHECK_NEAR(v.diversity, -log(4.0), 1e-6);
    CHECK_NEAR(v.teacher_entropy, log(8.0), 1e-6);
    CHECK(v.spectral == 0 && v.spectral_undefined == 1);
}

/* Two micro-batches of one step give the values and gradients of one for all terms that are means over rows. */
TEST(micro_batches_add_up)
{
    static real_t whole[MAX_T * MAX_D], parts[MAX_T * MAX_D];
    bal_loss_values one, two;
    set_up(14, 6, 30, 10);
    use(0.6, 0.8, 0);
    g_p.N = g_p.R = 10;
    memset(whole, 0, sizeof whole);
    memset(parts, 0, sizeof parts);
    CHECK_OK(run_library(&one, whole, NULL));
    bal_model m;
    bal_lm_loss *l = NULL;
    make_model(&m);
    CHECK_OK(bal_lm_loss_new(&l, &m, &g_p.config, g_p.T));
    bal_loss_values_zero(&two, &g_p.config);
    for (size_t part = 0; part < 2; part++) {
        bal_batch b = make_batch();
        b.rows += part * 4;
        b.reg_rows += part * 4;
        b.target += part * 4;
        b.n_rows = b.n_reg_rows = part == 0 ? 4 : 6;
        CHECK_OK(bal_lm_loss_run(l, &b, g_p.final, g_p.teacher, 10, 10, &g_p.weights, &two, parts, NULL));
    }
    bal_lm_loss_free(l);
    bal_loss_values_finish(&two, &g_p.weights);
    CHECK_NEAR(two.total, one.total, 1e-6);
    CHECK_NEAR(two.consistency, one.consistency, 1e-6);
    CHECK(two.n_rows == 10);
    for (size_t i = 0; i < g_p.T * g_p.D; i++)
        CHECK_NEAR(parts[i], whole[i], 1e-6);
}

/* The consistency gradient kept apart, times lambda, plus the rest is the usual gradient. */
TEST(consistency_apart)
{
    static real_t usual[MAX_T * MAX_D], rest[MAX_T * MAX_D], apart[MAX_T * MAX_D];
    bal_loss_values v;
    for (int form = 0; form < 2; form++) {
        set_up(14, 6, 30, 10);
        use(0.6, 0.8, 0.4);
        g_p.cap = form == 1 ? 3 : 0;
        g_p.config.consistency = form == 0 ? BAL_CONSISTENCY_KL : BAL_CONSISTENCY_NORMALIZED_MSE;
        g_p.config.chunk_rows = 3;
        memset(usual, 0, sizeof usual);
        memset(rest, 0, sizeof rest);
        memset(apart, 0, sizeof apart);
        CHECK_OK(run_library(&v, usual, NULL));
        CHECK_OK(run_library(&v, rest, apart));
        for (size_t i = 0; i < g_p.T * g_p.D; i++)
            CHECK_NEAR((double)rest[i] + 0.6 * (double)apart[i], usual[i], BAL_REAL_IS_DOUBLE ? 1e-12 : 1e-5);
        CHECK(apart[0] != 0);
    }
}

TEST(the_same_bits_every_time)
{
    static real_t first[MAX_T * MAX_D], again[MAX_T * MAX_D];
    bal_loss_values a, b;
    set_up(30, 8, 60, 25);
    use(0.6, 0.8, 0.4);
    for (int solver = BAL_SVD_AUTO; solver <= BAL_SVD_RANDOMISED; solver++) {
        g_p.config.svd_solver = (bal_svd_solver)solver;
        memset(first, 0, sizeof first);
        memset(again, 0, sizeof again);
        CHECK_OK(run_library(&a, first, NULL));
        CHECK_OK(run_library(&b, again, NULL));
        CHECK(memcmp(first, again, sizeof first) == 0 && a.total == b.total);
    }
}

/* Gradient of the head itself: central differences of the reference over E. */
TEST(trained_head)
{
    static double x[MAX_T * MAX_D], teacher[MAX_T * MAX_D], num[MAX_V * MAX_D], ana[MAX_V * MAX_D];
    static real_t dfinal[MAX_T * MAX_D];
    bal_loss_values v, up, down;
    set_up(9, 4, 7, 6);
    use(0, 0.8, 0.5);
    g_p.config.train_head = true;
    CHECK_OK(run_library(&v, dfinal, NULL));
    for (size_t i = 0; i < g_p.T * g_p.D; i++)
        x[i] = (double)g_p.final[i];
    for (size_t i = 0; i < g_p.V * g_p.D; i++) {
        const double step = BAL_REAL_IS_DOUBLE ? STEP : 1e-2;
        real_t keep = g_p.E[i];
        g_p.E[i] = keep + (real_t)step;
        ref_values(x, teacher, &up);
        g_p.E[i] = keep - (real_t)step;
        ref_values(x, teacher, &down);
        g_p.E[i] = keep;
        num[i] = (up.total - down.total) / (2 * step);
        ana[i] = (double)g_p.dw[i];
    }
    double d = distance(num, ana, g_p.V * g_p.D);
    CHECK_MSG(d <= (BAL_REAL_IS_DOUBLE ? 1e-7 : 2e-3), "gradient of the head is off by %g", d);
}

/* The randomised solver finds the exact term when it samples the whole space. */
TEST(randomised_solver)
{
    set_up(9, 5, 11, 6);
    use(0, 0, 1);
    g_p.config.svd_solver = BAL_SVD_RANDOMISED;
    check_problem();
    g_p.cap = 3;
    check_problem();
}

TEST(mistakes_are_named)
{
    bal_loss_values v;
    bal_model m;
    bal_lm_loss *l = NULL;
    set_up(9, 5, 11, 6);
    use(0.5, 0.5, 0.5);
    make_model(&m);
    g_p.config.svd_solver = BAL_SVD_GRAM;
    m.config.logit_softcap = 30;
    CHECK_STATUS(bal_lm_loss_new(&l, &m, &g_p.config, 9), BAL_EINVAL);
    g_p.config.svd_solver = BAL_SVD_AUTO;
    m.config.logit_softcap = 0;
    g_p.target[2] = 11;
    CHECK_OK(bal_lm_loss_new(&l, &m, &g_p.config, 9));
    bal_batch b = make_batch();
    bal_loss_values_zero(&v, &g_p.config);
    CHECK_STATUS(bal_lm_loss_run(l, &b, g_p.final, g_p.teacher, 6, 6, &g_p.weights, &v, NULL, NULL), BAL_EFORMAT);
    g_p.target[2] = 1;
    CHECK_STATUS(bal_lm_loss_run(l, &b, g_p.final, NULL, 6, 6, &g_p.weights, &v, NULL, NULL), BAL_EINVAL);
    g_p.final[g_p.rows[0] * 5] = NAN;
    CHECK_STATUS(bal_lm_loss_run(l, &b, g_p.final, g_p.teacher, 6, 6, &g_p.weights, &v, NULL, NULL), BAL_ENUMERIC);
    CHECK(isnan(v.task) && isnan(v.consistency));
    bal_lm_loss_free(l);
}

TEST(mutations_are_noticed)
{
    static const char *const names[MUTATIONS] = {"none",          "task sign",         "task mean",     "no T^2",
                                                 "KL swapped",    "T forgotten",       "raw MSE",       "entropy sign",
                                                 "K + 1",         "no second softmax", "k + 1",         "other norm",
                                                 "M/N forgotten", "cap forgotten",     "bias forgotten"};
    for (int i = 0; i < MUTATIONS; i++) {
        set_up(14, 6, 30, 10);
        use(0.6, 0.8, 1.1);
        g_p.with_bias = true;
        g_p.cap = 3;
        g_p.mutation = (mutation)i;
        if (i == MSE_RAW)
            g_p.config.consistency = BAL_CONSISTENCY_NORMALIZED_MSE;
        size_t failures = test_count_failures(check_problem);
        CHECK_MSG((failures > 0) == (i != NONE), "mutation '%s' gave %zu failures", names[i], failures);
    }
}
