/* lib/adapter: targets, starts, PEFT folders, conversion, the side path.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/lora_call.h"
#include "tests/unit/modules.h"

#include "lib/adapter/adapter.h"
#include "lib/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 5 };

static char g_q[] = "q_proj", g_down[] = "mlp.down_proj", g_all[] = "all-linear", g_none[] = "k_proj";

TEST(targets_match_as_in_peft)
{
    char *some[] = {g_q, g_down}, *all[] = {g_all}, *none[] = {g_q, g_none};
    bal_adapter *a = new_adapter(some, 2, "lora"), *b = new_adapter(all, 1, "lora"), *c = NULL;
    if (CHECK(a != NULL && b != NULL)) {
        CHECK(a->n_loras == 2 && b->n_loras == 2);
        CHECK_TEXT(a->params.segments[1].name, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
        CHECK(a->params.n == 3 * (OUT0 + IN0 + OUT1 + IN1));
        CHECK(bal_adapter_find(a, "lm_head") == NULL && bal_adapter_find(b, "lm_head") == NULL);
    }
    bal_adapter_config bad = config_of(none, 2, "lora"), large = config_of(all, 1, "lora"),
                       word = config_of(all, 1, "pizza");
    CHECK_STATUS(bal_adapter_new(&c, &bad, g_modules, 3, 1, true), BAL_EINVAL);
    CHECK(strstr(bal_error_message(), "k_proj") != NULL && strstr(bal_error_message(), "down_proj") != NULL);
    large.r = 7;
    CHECK_STATUS(bal_adapter_new(&c, &large, g_modules, 3, 1, true), BAL_EINVAL);
    CHECK(strstr(bal_error_message(), "use r 6") != NULL);
    CHECK_STATUS(bal_adapter_new(&c, &word, g_modules, 3, 1, true), BAL_EINVAL);
    bal_adapter_free(a);
    bal_adapter_free(b);
}

TEST(plain_starts)
{
    char *all[] = {g_all};
    bal_adapter *a = new_adapter(all, 1, "lora"), *g = new_adapter(all, 1, "gaussian");
    const bal_lora *l = &a->loras[0];
    double most = 0;
    for (size_t i = 0; i < l->r * l->in; i++)
        most = fmax(most, fabs((double)l->a[i]));
    CHECK(most <= 1 / sqrt((double)IN0) && most > 0.5 / sqrt((double)IN0));
    for (size_t i = 0; i < l->out * l->r; i++)
        CHECK(l->b[i] == 0 && g->loras[0].b[i] == 0);
    CHECK(l->scale == 2 && l->a0 == NULL && g->loras[0].a[0] != 0);
    bal_adapter_free(a);
    bal_adapter_free(g);
}

/* s B0 A0 is the best approximation of rank r: the residual is orthogonal to it, and A0, B0 share the weight. */
static void check_pissa(const bal_adapter *a, double tolerance)
{
    const bal_lora *l = &a->loras[0];
    for (size_t i = 0; i < a->params.n; i++)
        CHECK(a->params.values[i] == a->initial[i]);
    for (size_t k = 0; k < l->r; k++) {
        double aa = 0, bb = 0;
        for (size_t j = 0; j < l->in; j++)
            aa += (double)l->a[k * l->in + j] * (double)l->a[k * l->in + j];
        for (size_t i = 0; i < l->out; i++)
            bb += (double)l->b[i * l->r + k] * (double)l->b[i * l->r + k];
        CHECK_NEAR(aa / bb, 1, 1e-5);
        for (size_t j = 0; j < l->in; j++) { /* (W - s B A)^T b_k = 0 */
            double dot = 0;
            for (size_t i = 0; i < l->out; i++) {
                double low = 0;
                for (size_t q = 0; q < l->r; q++)
                    low += l->scale * (double)l->b[i * l->r + q] * (double)l->a[q * l->in + j];
                dot += ((double)g_w0[i * IN0 + j] - low) * (double)l->b[i * l->r + k];
            }
            CHECK_NEAR(dot, 0, tolerance);
        }
    }
}

TEST(pissa_start)
{
    char *all[] = {g_all};
    bal_adapter *a = new_adapter(all, 1, "pissa"), *b = new_adapter(all, 1, "pissa_niter_8");
    CHECK(a->captured_energy == 1);
    check_pissa(a, 1e-5);
    check_pissa(b, 1e-2);
    CHECK(b->captured_energy > 0.99 && b->captured_energy < 1 + 1e-9);
    CHECK_NEAR(delta(&a->loras[1], 2, 3), 0, 0); /* W itself at the start */
    bal_adapter_free(a);
    bal_adapter_free(b);
}

static void check_side_path(const char *init)
{
    char *all[] = {g_all};
    bal_adapter *a = new_adapter(all, 1, init);
    disturb(a);
    bal_lora *l = &a->loras[0];
    static real_t X[TOKENS * IN0], Y[TOKENS * OUT0], dX[TOKENS * IN0], H[TOKENS * 6], scratch[TOKENS * 6],
        D[OUT0 * IN0];
    memset(D, 0, sizeof D);
    for (size_t i = 0; i < TOKENS * IN0; i++) {
        X[i] = (real_t)sin((double)i);
        dX[i] = 1;
    }
    for (size_t i = 0; i < TOKENS * OUT0; i++)
        Y[i] = (real_t)cos((double)i);
    bal_lora_add_delta(l, 0, 4, D, IN0);
    bal_lora_add_delta(l, 4, OUT0 - 4, D + 4 * IN0, IN0);
    lora_forward(l, TOKENS, X, IN0, Y, OUT0, H, BAL_COMPUTE_F32);
    real_t da0 = l->da[3] = 0.5, db0 = l->db[4] = 0.25;
    bal_lora_backward(l, TOKENS, X, IN0, Y, OUT0, H, dX, IN0, scratch); /* Y stands for dY */
    double da = (double)da0, db = (double)db0;
    for (size_t t = 0; t < TOKENS; t++) {
        double g = 0, h = 0;
        for (size_t i = 0; i < OUT0; i++) {
            double y = cos((double)(t * OUT0 + i));
            for (size_t j = 0; j < IN0; j++)
                y += delta(l, i, j) * (double)X[t * IN0 + j];
            CHECK_NEAR(Y[t * OUT0 + i], y, 1e-5);
            g += (double)Y[t * OUT0 + i] * (double)l->b[i * l->r];
        }
        for (size_t j = 0; j < IN0; j++) {
            double x = 1;
            for (size_t i = 0; i < OUT0; i++)
                x += (double)Y[t * OUT0 + i] * delta(l, i, j);
            CHECK_NEAR(dX[t * IN0 + j], x, 1e-5);
            h += (double)X[t * IN0 + j] * (double)l->a[IN0 + j];
        }
        da += l->scale * g * (double)X[t * IN0 + 3];  /* da[0][3] */
        db += l->scale * (double)Y[t * OUT0 + 1] * h; /* db[1][1] = db[4] with r 3 */
    }
    CHECK_NEAR(l->da[3], da, 1e-5);
    CHECK_NEAR(l->db[4], db, 1e-5);
    for (size_t i = 0; i < OUT0 * IN0; i++)
        CHECK_NEAR(D[i], delta(l, i / IN0, i % IN0), 1e-6);
    bal_adapter_free(a);
}

TEST(side_path)
{
    check_side_path("lora");
    check_side_path("pissa");
}

TEST(conversion_keeps_the_update)
{
    char *all[] = {g_all};
    for (int rslora = 0; rslora < 2; rslora++) {
        bal_adapter *a = NULL, *p = NULL;
        bal_adapter_config c = config_of(all, 1, "pissa");
        c.use_rslora = rslora == 1;
        make_modules();
        CHECK_OK(bal_adapter_new(&a, &c, g_modules, 3, 1, false));
        disturb(a);
        CHECK_OK(bal_adapter_to_plain(&p, a));
        CHECK(p->config.r == 6 && p->initial == NULL && p->loras[1].r == 6);
        CHECK_NEAR(p->config.lora_alpha, rslora ? 6 * sqrt(2.0) : 12, 1e-12);
        CHECK(largest_difference(a, p) <= 1e-6);
        bal_adapter_free(a);
        bal_adapter_free(p);
    }
}
