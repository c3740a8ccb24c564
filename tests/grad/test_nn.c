/* Every layer of lib/nn: the gradient of sum(dy * y), dy random, by central differences of each input element, and
 * mutations of the gradients that must be noticed.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/nn/activations.h"
#include "lib/nn/attention.h"
#include "lib/nn/embedding.h"
#include "lib/nn/layer_norm.h"
#include "lib/nn/norm.h"
#include "lib/nn/rope.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

#define STEP  1e-5
#define BOUND 1e-7

enum { MAX_VALUES = 4096, MAX_INPUTS = 3 };

typedef enum mutation { NONE, SIGN, TENTH, DROPPED, OVERWRITTEN, MUTATIONS } mutation;

typedef struct input {
    real_t x[MAX_VALUES], dx[MAX_VALUES];
    size_t n;
    bool accumulates;
} input;

/* The operation under test. */
static struct {
    input in[MAX_INPUTS];
    size_t n_inputs, n_out;
    real_t y[MAX_VALUES], dy[MAX_VALUES];
    void (*forward)(void), (*backward)(void);
    mutation mutation;
    size_t mutated;
} g;

static void begin(size_t n_inputs, const size_t *sizes, size_t n_out, void (*forward)(void), void (*backward)(void))
{
    bal_rng rng;
    bal_rng_init(&rng, 11, "nn");
    memset(&g, 0, sizeof g);
    g.n_inputs = n_inputs;
    g.n_out = n_out;
    g.forward = forward;
    g.backward = backward;
    for (size_t k = 0; k < n_inputs; k++) {
        g.in[k].n = sizes[k];
        for (size_t i = 0; i < sizes[k]; i++)
            g.in[k].x[i] = (real_t)bal_rng_normal(&rng);
    }
    for (size_t i = 0; i < n_out; i++)
        g.dy[i] = (real_t)bal_rng_normal(&rng);
}

static double projection(void)
{
    double sum = 0;
    g.forward();
    for (size_t i = 0; i < g.n_out; i++)
        sum += (double)g.y[i] * (double)g.dy[i];
    return sum;
}

static void mutate(input *in)
{
    for (size_t i = 0; i < in->n; i++) {
        if (g.mutation == SIGN)
            in->dx[i] = -in->dx[i];
        else if (g.mutation == TENTH)
            in->dx[i] *= (real_t)1.1;
        else if (g.mutation == DROPPED && i % 2 == 0)
            in->dx[i] = 0;
        else if (g.mutation == OVERWRITTEN)
            in->dx[i] -= (real_t)0.25;
    }
}

static void check_gradients(void)
{
    for (size_t k = 0; k < g.n_inputs; k++)
        for (size_t i = 0; i < g.in[k].n; i++)
            g.in[k].dx[i] = (real_t)0.25; /* what accumulates must keep it, what is set must lose it */
    g.forward();
    g.backward();
    for (size_t k = 0; k < g.n_inputs; k++) {
        input *in = &g.in[k];
        double difference = 0, size = 0;
        if (k == g.mutated)
            mutate(in);
        for (size_t i = 0; i < in->n; i++) {
            real_t keep = in->x[i];
            in->x[i] = keep + (real_t)STEP;
            double up = projection();
            in->x[i] = keep - (real_t)STEP;
            double down = projection();
            in->x[i] = keep;
            double want = (up - down) / (2 * STEP), got = (double)in->dx[i] - (in->accumulates ? 0.25 : 0);
            difference += (got - want) * (got - want);
            size += got * got + want * want;
        }
        CHECK_MSG(sqrt(difference) <= BOUND * sqrt(size), "input %zu: relative difference %g", k,
                  sqrt(difference / size));
    }
}

/* The gradients are right, and wrong ones are seen. */
static void check_operation(void)
{
    check_gradients();
    for (g.mutated = 0; g.mutated < g.n_inputs; g.mutated++) {
        for (g.mutation = SIGN; g.mutation < MUTATIONS; g.mutation++) {
            size_t failures = test_count_failures(check_gradients);
            CHECK_MSG(failures == 1, "mutation %d of input %zu gave %zu failures", (int)g.mutation, g.mutated,
                      failures);
        }
    }
    g.mutation = NONE;
}

#define NEEDS_DOUBLE                                                                                                   \
    if (!BAL_REAL_IS_DOUBLE)                                                                                           \
    SKIP("finite differences need MODE=f64")

/* ---- norm ---- */

enum { T = 5, D = 7 };
static real_t s_offset, s_reciprocal[T];

static void norm_forward(void)
{
    bal_rms_forward(T, D, g.in[0].x, g.in[1].x, s_offset, 0.05, g.y);
}

static void norm_backward(void)
{
    bal_rms_backward(T, D, g.in[0].x, g.in[1].x, s_offset, 0.05, g.dy, g.in[0].dx, g.in[1].dx, s_reciprocal);
}

TEST(rms_norm)
{
    const size_t sizes[2] = {(size_t)T * D, D};
    NEEDS_DOUBLE;
    for (int offset = 0; offset < 2; offset++) {
        s_offset = (real_t)offset;
        begin(2, sizes, (size_t)T * D, norm_forward, norm_backward);
        g.in[0].accumulates = g.in[1].accumulates = true;
        check_operation();
    }
}

static bool s_wrong; /* the backward is given another operation than the forward */

static void layer_norm_forward(void)
{
    bal_layer_norm_forward(T, D, g.in[0].x, g.in[1].x, g.in[2].x, 0.05, g.y);
}

static void layer_norm_backward(void)
{
    real_t moments[2 * T];
    bal_layer_norm_backward(T, D, g.in[0].x, g.in[1].x, s_wrong ? 0.06 : 0.05, g.dy, g.in[0].dx, g.in[1].dx, g.in[2].dx,
                            moments);
}

TEST(layer_norm)
{
    const size_t sizes[3] = {(size_t)T * D, D, D};
    NEEDS_DOUBLE;
    begin(3, sizes, (size_t)T * D, layer_norm_forward, layer_norm_backward);
    g.in[0].accumulates = g.in[1].accumulates = g.in[2].accumulates = true;
    check_operation();
    s_wrong = true;
    CHECK(test_count_failures(check_gradients) == 2); /* x and w; the bias does not see epsilon */
    s_wrong = false;
    layer_norm_forward();
    for (size_t t = 0; t < T; t++) { /* (y - b) / w has mean 0 and variance var / (var + eps) */
        double mean = 0, variance = 0, own = 0, own_mean = 0;
        for (size_t i = 0; i < D; i++) {
            mean += ((double)g.y[t * D + i] - (double)g.in[2].x[i]) / (double)g.in[1].x[i] / D;
            own_mean += (double)g.in[0].x[t * D + i] / D;
        }
        for (size_t i = 0; i < D; i++) {
            double n = ((double)g.y[t * D + i] - (double)g.in[2].x[i]) / (double)g.in[1].x[i] - mean;
            double x = (double)g.in[0].x[t * D + i] - own_mean;
            variance += n * n / D;
            own += x * x / D;
        }
        CHECK_NEAR(mean, 0, 1e-12);
        CHECK_NEAR(variance, own / (own + 0.05), 1e-12);
    }
}

/* ---- gated activations ---- */

static bal_act_kind s_act;

static void glu_forward(void)
{
    bal_glu_forward(s_act, g.n_out, g.in[0].x, g.in[1].x, g.y);
}

static void glu_backward(void)
{
    bal_glu_backward(s_act, g.n_out, g.in[0].x, g.in[1].x, g.dy, g.in[0].dx, g.in[1].dx);
}

TEST(gated_activations)
{
    const size_t sizes[2] = {33, 33};
    NEEDS_DOUBLE;
    for (s_act = BAL_ACT_SILU; s_act <= BAL_ACT_RELU; s_act++) {
        begin(2, sizes, 33, glu_forward, glu_backward);
        check_operation();
    }
}

static void act_forward(void)
{
    bal_glu_forward(s_act, g.n_out, g.in[0].x, NULL, g.y);
}

static void act_backward(void)
{
    bal_act_kind kind = s_wrong && s_act == BAL_ACT_GELU ? BAL_ACT_GELU_TANH : s_act;
    bal_glu_backward(kind, g.n_out, g.in[0].x, NULL, g.dy, g.in[0].dx, NULL);
}

TEST(activations_without_a_gate)
{
    const size_t sizes[1] = {33};
    NEEDS_DOUBLE;
    for (s_act = BAL_ACT_SILU; s_act <= BAL_ACT_RELU; s_act++) {
        begin(1, sizes, 33, act_forward, act_backward);
        check_operation();
        act_forward();
        for (size_t i = 0; i < 33; i++) {
            double x = (double)g.in[0].x[i];
            double want = s_act == BAL_ACT_SILU   ? x / (1 + exp(-x))
                          : s_act == BAL_ACT_GELU ? x * erfc(-x / sqrt(2)) / 2
                          : s_act == BAL_ACT_RELU ? fmax(x, 0)
                                                  : x / (1 + exp(-2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
            CHECK_NEAR(g.y[i], want, 1e-13);
        }
    }
    s_act = BAL_ACT_GELU; /* the two forms of GELU are near each other, and told apart */
    s_wrong = true;
    CHECK(test_count_failures(check_gradients) == 1);
    s_wrong = false;
}

/* ---- rotary embedding ---- */

enum { HEADS = 3, HEAD_DIM = 6 };
static real_t s_cosines[16 * HEAD_DIM / 2], s_sines[16 * HEAD_DIM / 2];
static const uint32_t k_rows[T] = {0, 1, 2, 9, 4};

static void rope_forward(void)
{
    memcpy(g.y, g.in[0].x, g.n_out * sizeof *g.y);
    bal_rope_apply(g.y, HEADS * HEAD_DIM, T, HEADS, HEAD_DIM, HEAD_DIM, s_cosines, s_sines, k_rows, false);
}

static void rope_backward(void)
{
    memcpy(g.in[0].dx, g.dy, g.n_out * sizeof *g.dy);
    bal_rope_apply(g.in[0].dx, HEADS * HEAD_DIM, T, HEADS, HEAD_DIM, HEAD_DIM, s_cosines, s_sines, k_rows, true);
}

TEST(rotary_embedding)
{
    const size_t sizes[1] = {(size_t)T * HEADS * HEAD_DIM};
    NEEDS_DOUBLE;
    for (bal_rope_kind kind = BAL_ROPE_DEFAULT; kind <= BAL_ROPE_LLAMA3; kind++) {
        const bal_rope_config c = {.kind = kind,
                                   .theta = 100,
                                   .factor = 3,
                                   .low_freq_factor = 1,
                                   .high_freq_factor = 4,
                                   .original_max_positions = 8,
                                   .beta_fast = 2,
                                   .beta_slow = 1};
        double frequencies[HEAD_DIM / 2];
        double scale = bal_rope_frequencies(&c, HEAD_DIM, 16, NULL, frequencies);
        CHECK((scale != 1) == (kind == BAL_ROPE_YARN));
        bal_rope_table(frequencies, HEAD_DIM / 2, scale, 0, 16, s_cosines, s_sines);
        begin(1, sizes, sizes[0], rope_forward, rope_backward);
        check_operation();
    }
}

/* ---- embedding ---- */

static const int32_t k_tokens[T] = {3, 0, 3, 8, 3};

static void embedding_forward(void)
{
    bal_view table = {.dtype = BAL_DTYPE_F64, .rows = 9, .cols = D, .row_bytes = D * sizeof(real_t), .data = g.in[0].x};
    bal_embedding_forward(&table, T, k_tokens, REAL(1.5), g.y);
}

static void embedding_backward(void)
{
    bal_embedding_backward(T, D, k_tokens, REAL(1.5), g.dy, g.in[0].dx);
}

TEST(embedding)
{
    const size_t sizes[1] = {9 * D};
    NEEDS_DOUBLE;
    begin(1, sizes, (size_t)T * D, embedding_forward, embedding_backward);
    g.in[0].accumulates = true;
    check_operation();
}

/* ---- attention ---- */

enum { TOKENS = 77, H = 4, KV = 2, DH = 3 };
static bal_attention s_attention;
static real_t s_lse[TOKENS * H], s_delta[TOKENS * H], s_scratch[64 * (3 * 64 * 64 + 128)];
static bal_attention_block s_blocks[8];
static const uint32_t k_starts[4] = {0, 3, 76, 77}; /* 3 tokens, 73 (two blocks), 1 */

static void attention_forward(void)
{
    bal_attention_forward(&s_attention, g.in[0].x, g.in[1].x, g.in[2].x, g.y, s_lse);
}

static void attention_backward(void)
{
    bal_attention a = s_attention;
    if (s_wrong)
        a.softcap *= 1.01;
    bal_attention_backward(&a, TOKENS, g.in[0].x, g.in[1].x, g.in[2].x, g.y, s_lse, g.dy, g.in[0].dx, g.in[1].dx,
                           g.in[2].dx, s_delta);
}

static size_t sequence_of(size_t t)
{
    size_t s = 0;
    while (t >= k_starts[s + 1])
        s++;
    return s;
}

/* y of one query and head by the definition. */
static void attention_definition(size_t t, size_t h, double out[DH])
{
    size_t begin_key = k_starts[sequence_of(t)], kv = h / (H / KV);
    double sum = 0, p[TOKENS];
    memset(out, 0, DH * sizeof *out);
    size_t last_key = s_attention.both_ways ? k_starts[sequence_of(t) + 1] - 1 : t;
    if (s_attention.window != 0 && t + 1 > begin_key + s_attention.window)
        begin_key = t + 1 - s_attention.window;
    for (size_t j = begin_key; j <= last_key; j++) {
        double s = 0;
        for (size_t i = 0; i < DH; i++)
            s += (double)g.in[0].x[(t * H + h) * DH + i] * (double)g.in[1].x[(j * KV + kv) * DH + i];
        s *= s_attention.scale;
        p[j] = exp(s_attention.softcap > 0 ? s_attention.softcap * tanh(s / s_attention.softcap) : s);
        sum += p[j];
    }
    for (size_t j = begin_key; j <= last_key; j++)
        for (size_t i = 0; i < DH; i++)
            out[i] += p[j] / sum * (double)g.in[2].x[(j * KV + kv) * DH + i];
}

static void begin_attention(size_t window, double softcap)
{
    const size_t sizes[3] = {(size_t)TOKENS * H * DH, (size_t)TOKENS * KV * DH, (size_t)TOKENS * KV * DH};
    size_t n = bal_attention_split(k_starts, 3, s_blocks);
    CHECK(n == 4 && bal_attention_max_blocks(TOKENS, 3) >= n &&
          bal_threads_count() * bal_attention_scratch() <= sizeof s_scratch / sizeof *s_scratch);
    s_attention = (bal_attention){.n_heads = H,
                                  .n_kv_heads = KV,
                                  .d = DH,
                                  .window = window,
                                  .scale = 0.6,
                                  .softcap = softcap,
                                  .blocks = s_blocks,
                                  .n_blocks = n,
                                  .scratch = s_scratch};
    begin(3, sizes, sizes[0], attention_forward, attention_backward);
}

static void compare_definition(const char *what, size_t window)
{
    const double bound = BAL_REAL_IS_DOUBLE ? 1e-13 : 2e-6;
    double worst = 0, want[DH];
    attention_forward();
    for (size_t t = 0; t < TOKENS; t++) {
        for (size_t h = 0; h < H; h++) {
            attention_definition(t, h, want);
            for (size_t i = 0; i < DH; i++) {
                double d = fabs((double)g.y[(t * H + h) * DH + i] - want[i]);
                worst = d <= worst ? worst : d;
            }
        }
    }
    CHECK_MSG(worst <= bound, "%s, window %zu: %g", what, window, worst);
}

TEST(attention_definition)
{
    for (size_t window = 0; window <= 70; window += 5) {
        begin_attention(window, window % 2 == 1 ? 1.5 : 0);
        compare_definition("before", window);
    }
    begin_attention(0, 0);
    s_attention.both_ways = true;
    compare_definition("both ways", 0);
}

TEST(attention)
{
    NEEDS_DOUBLE;
    begin_attention(0, 0);
    check_operation();
    begin_attention(5, 0);
    check_gradients();
    begin_attention(67, 0);
    check_gradients();
}

TEST(attention_both_ways)
{
    NEEDS_DOUBLE;
    begin_attention(0, 1.5);
    s_attention.both_ways = true;
    check_operation();
    s_wrong = true;
    CHECK(test_count_failures(check_gradients) >= 2); /* q and k */
    s_wrong = false;
}

TEST(soft_capped_attention)
{
    NEEDS_DOUBLE;
    begin_attention(0, 1.5);
    check_operation();
    begin_attention(5, 0.7);
    check_gradients();
    s_wrong = true;
    CHECK(test_count_failures(check_gradients) >= 2); /* q and k */
    s_wrong = false;
}
