/* AdamW, clipping and schedules against closed forms.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/optim/optim.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

static char seg_name[] = "w", seg_norm[] = "norm";

/* The update in double, written from the paper. */
static void reference(double *p, double *m, double *v, double g, int t, double lr, double wd)
{
    *p -= lr * wd * *p;
    *m = 0.9 * *m + 0.1 * g;
    *v = 0.999 * *v + 0.001 * g * g;
    *p -= lr * (*m / (1 - pow(0.9, t))) / (sqrt(*v / (1 - pow(0.999, t))) + 1e-8);
}

TEST(adamw_follows_the_formula)
{
    real_t values[4] = {REAL(1.0), REAL(-2.0), REAL(0.5), REAL(0.25)}, grads[4];
    bal_segment segs[2] = {{.name = seg_name, .offset = 0, .n = 2, .rows = 1, .cols = 2, .decay = true, .group = 0},
                           {.name = seg_norm, .offset = 2, .n = 2, .rows = 1, .cols = 2, .decay = false, .group = 1}};
    bal_params p = {values, grads, 4, segs, 2};
    bal_adamw o;
    bal_adamw_config c = {0.9, 0.999, 1e-8, 0.1};
    if (!CHECK_OK(bal_adamw_init(&o, &c, 4)))
        return;
    double want[4] = {1, -2, 0.5, 0.25}, m[4] = {0}, v[4] = {0};
    for (int t = 1; t <= 30; t++) {
        double lr[2] = {1e-2 * t, 5e-3};
        for (int i = 0; i < 4; i++)
            grads[i] = (real_t)(i == 3 ? 0.0 : sin(t * (i + 1)) * pow(10, -i));
        bal_adamw_step(&o, &p, lr);
        for (int i = 0; i < 4; i++)
            reference(&want[i], &m[i], &v[i], (double)grads[i], t, lr[i / 2], i < 2 ? 0.1 : 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK_NEAR(values[i], want[i], 1e-6);
    CHECK(values[3] == REAL(0.25)); /* 0 / (0 + epsilon): no gradient, no move */
    CHECK(o.t == 30);
    bal_adamw_dispose(&o);
}

TEST(adamw_first_update_is_the_rate)
{
    real_t value[1] = {0}, grad[1] = {REAL(1e-3)};
    bal_segment seg = {.name = seg_name, .n = 1, .rows = 1, .cols = 1};
    bal_params p = {value, grad, 1, &seg, 1};
    bal_adamw o;
    bal_adamw_config c = {0.9, 0.999, 1e-8, 0};
    if (!CHECK_OK(bal_adamw_init(&o, &c, 1)))
        return;
    double lr[2] = {0.25, 0};
    bal_adamw_step(&o, &p, lr);
    CHECK_NEAR(value[0], -0.25 / (1 + 1e-8 / 1e-3), 2e-7); /* 1 - 0.999f instead of 1 - 0.999 would be 1.6e-6 off */
    lr[0] = 0; /* a rate of 0 leaves the value alone, but the moments move */
    real_t before = value[0], m = o.m[0];
    bal_adamw_step(&o, &p, lr);
    CHECK(value[0] == before);
    CHECK(o.m[0] != m);
    bal_adamw_dispose(&o);
    bal_adamw_config bad = {1.0, 0.999, 1e-8, 0};
    CHECK_STATUS(bal_adamw_init(&o, &bad, 1), BAL_EINVAL);
}

TEST(norm_and_clip)
{
    enum { N = 10007 };
    static real_t values[N], grads[N];
    bal_params p = {values, grads, N, NULL, 0};
    double sum = 0;
    for (int i = 0; i < N; i++) {
        grads[i] = (real_t)(cos(i) * 0.01);
        sum += (double)grads[i] * (double)grads[i];
    }
    double norm = bal_grad_norm(&p);
    CHECK_NEAR(norm, sqrt(sum), 1e-9);
    bal_grad_clip(&p, norm, 2 * norm); /* below: untouched */
    CHECK(grads[0] == (real_t)0.01);
    bal_grad_clip(&p, norm, 0); /* off */
    CHECK(grads[0] == (real_t)0.01);
    bal_grad_clip(&p, norm, 0.1);
    CHECK_NEAR(bal_grad_norm(&p), 0.1 * norm / (norm + 1e-6), 1e-6);
    grads[5] = (real_t)NAN;
    CHECK(isnan(bal_grad_norm(&p)));
    bal_grad_zero(&p);
    CHECK(bal_grad_norm(&p) == 0);
}

TEST(learning_rate)
{
    CHECK(bal_lr_factor(BAL_LR_COSINE, 0, 3, 12) == 0);
    CHECK_NEAR(bal_lr_factor(BAL_LR_COSINE, 2, 3, 12), 2.0 / 3, 1e-15);
    CHECK(bal_lr_factor(BAL_LR_COSINE, 3, 3, 12) == 1);
    CHECK_NEAR(bal_lr_factor(BAL_LR_COSINE, 6, 3, 12), 0.75, 1e-12); /* a third of the way: (1 + cos 60) / 2 */
    CHECK_NEAR(bal_lr_factor(BAL_LR_COSINE, 12, 3, 12), 0, 1e-15);
    CHECK(bal_lr_factor(BAL_LR_LINEAR, 0, 2, 10) == 0);
    CHECK_NEAR(bal_lr_factor(BAL_LR_LINEAR, 6, 2, 10), 0.5, 1e-15);
    CHECK(bal_lr_factor(BAL_LR_LINEAR, 10, 2, 10) == 0);
    CHECK(bal_lr_factor(BAL_LR_CONSTANT, 0, 0, 10) == 1);
    CHECK(bal_lr_factor(BAL_LR_CONSTANT, 99, 2, 10) == 1);
    CHECK(bal_lr_factor(BAL_LR_COSINE, 5, 5, 5) == 1); /* all warm-up */
}

TEST(lambda_schedules)
{
    /* 12 steps, .2, .05: warm-up int(2.4) = 2, ramp max(int(0.6), 1) = 1 */
    const double two_phase[] = {0, 0, 0, 1, 1};
    for (uint64_t t = 0; t < 5; t++)
        CHECK(bal_focus_factor(BAL_FOCUS_TWO_PHASE, t, 12, .2, .05) == two_phase[t]);
    /* 3125 steps: 0 until 625, then a ramp of 156 */
    CHECK(bal_focus_factor(BAL_FOCUS_TWO_PHASE, 624, 3125, .2, .05) == 0);
    CHECK_NEAR(bal_focus_factor(BAL_FOCUS_TWO_PHASE, 625 + 39, 3125, .2, .05), 0.25, 1e-12);
    CHECK(bal_focus_factor(BAL_FOCUS_TWO_PHASE, 625 + 156, 3125, .2, .05) == 1);
    CHECK_NEAR(bal_focus_factor(BAL_FOCUS_LINEAR, 1, 10, .25, 0), 0.4, 1e-12); /* not truncated */
    CHECK_NEAR(bal_focus_factor(BAL_FOCUS_QUADRATIC, 1, 10, .25, 0), 0.16, 1e-12);
    CHECK(bal_focus_factor(BAL_FOCUS_LINEAR, 3, 10, .25, 0) == 1);
    CHECK(bal_focus_factor(BAL_FOCUS_LINEAR, 0, 10, 0, 0) == 1);
    CHECK(bal_focus_factor(BAL_FOCUS_NONE, 0, 10, .5, .5) == 1);
    CHECK_NEAR(bal_lambda1_factor(1, 0, 12), 1, 1e-15);
    CHECK_NEAR(0.25 * bal_lambda1_factor(1, 1, 12), 0.24616665545752017, 1e-15);
    CHECK_NEAR(bal_lambda1_factor(1, 12, 12), 0.1, 1e-12);
    CHECK(bal_lambda1_factor(0, 7, 12) == 1);
    CHECK_NEAR(bal_lambda1_adaptive(0.1, 1, 0, 100), 1, 1e-15);
    CHECK_NEAR(bal_lambda1_adaptive(0.1, 1, log(100), 100), 0.1, 1e-12);
    CHECK_NEAR(bal_lambda1_adaptive(0.1, 1, log(10), 100), 0.55, 1e-12);
    CHECK_NEAR(bal_lambda1_adaptive(0.1, 1, 99, 100), 0.1, 1e-12); /* clamped */
}

TEST(same_bits_for_any_thread_count)
{
    enum { N = 100003 };
    static real_t values[2][N], grads[N];
    double norms[2];
    bal_segment seg = {.name = seg_name, .n = N, .rows = 1, .cols = N, .decay = true};
    bal_adamw_config c = {0.9, 0.999, 1e-8, 0.01};
    for (int run = 0; run < 2; run++) {
        if (run == 1 && !CHECK_OK(bal_threads_start(3)))
            return;
        bal_params p = {values[run], grads, N, &seg, 1};
        bal_adamw o;
        if (!CHECK_OK(bal_adamw_init(&o, &c, N)))
            return;
        for (int i = 0; i < N; i++)
            grads[i] = (real_t)sin(i * 0.37);
        norms[run] = bal_grad_norm(&p);
        bal_grad_clip(&p, norms[run], 1);
        double lr[2] = {1e-3, 1e-3};
        bal_adamw_step(&o, &p, lr);
        bal_adamw_dispose(&o);
    }
    bal_threads_stop();
    CHECK(norms[0] == norms[1]);
    CHECK(memcmp(values[0], values[1], sizeof values[0]) == 0);
}

/* LoRA+ (arXiv 2402.12354): which tensor belongs to which group, and B's step is `ratio` times A's. */
TEST(loraplus_groups)
{
    enum { N = 8 };
    static char names[N][64] = {"base_model.model.a.q_proj.lora_A.weight",
                                "base_model.model.a.q_proj.lora_B.weight",
                                "base_model.model.embed.lora_embedding_A",
                                "base_model.model.embed.lora_embedding_B",
                                "base_model.model.a.q_proj.base_layer.bias",
                                "base_model.model.a.q_proj.lora_magnitude_vector",
                                "base_model.model.score.weight",
                                "base_model.model.a.r1.lora_A.weight"};
    static const bal_group want[N] = {BAL_GROUP_BASE,   BAL_GROUP_LORA_B, BAL_GROUP_EMBEDDING, BAL_GROUP_EMBEDDING,
                                      BAL_GROUP_LORA_B, BAL_GROUP_LORA_B, BAL_GROUP_HEAD,      BAL_GROUP_BASE};
    bal_segment segs[N];
    real_t values[N] = {0}, grads[N];
    for (size_t i = 0; i < N; i++) {
        grads[i] = (real_t)(i % 2 == 0 ? 0.5 : -0.25);
        segs[i] =
            (bal_segment){.name = names[i], .offset = i, .n = 1, .rows = i >= 4 ? 1 : 2, .cols = 1, .decay = i != 4};
    }
    segs[6].group = BAL_GROUP_HEAD;
    bal_params p = {values, grads, N, segs, N};
    CHECK(bal_loraplus_groups(&p) == 1);
    for (size_t i = 0; i < N; i++)
        CHECK_MSG(segs[i].group == want[i], "%s is in group %d", names[i], (int)segs[i].group);
    bal_adamw o;
    bal_adamw_config c = {0.9, 0.999, 1e-12, 0};
    if (!CHECK_OK(bal_adamw_init(&o, &c, N)))
        return;
    const double lr[BAL_GROUP_COUNT] = {1e-3, 2e-3, 16e-3, 1e-6};
    bal_adamw_step(&o, &p, lr); /* the first update is lr g / |g| */
    for (size_t i = 0; i < N; i++)
        CHECK_NEAR(values[i], (i % 2 == 0 ? -1 : 1) * lr[want[i]], 1e-6 * lr[want[i]]);
    bal_adamw_dispose(&o);
}
