/* Adapter methods against peft's numbers (tests/peers/make_methods.py): logits, loss and the gradient of every adapter
 * tensor, the same after save and load, with a cache and after a merge.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"
#include "lib/loss/lm_loss.h"
#include "lib/model/decode.h"
#include "lib/model/pass.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define DATA "tests/unit/data/methods/"
enum { TOKENS = 13, VOCAB = 32, FIRST = 6 };

static const int32_t k_ids[TOKENS] = {3, 7, 1, 9, 30, 2, 5, 5, 0, 17, 22, 8, 11};
static const int32_t k_labels[TOKENS] = {-100, -100, 1, 9, 30, 2, -100, 5, 0, 17, -100, 8, 11};
static const char *const k_cases[] = {"loha",    "lokr",          "lokr_full", "ia3",       "vera",      "vera_key",
                                      "houlsby", "pfeiffer",      "lora_bias", "vera_bias", "gpt2_bias", "gpt2_bitfit",
                                      "adalora", "adalora_taken", "lora_save", "gpt2_save", "gpt2_tied", "loha_save"};
enum { CASES = sizeof k_cases / sizeof *k_cases };

static const char *base_of(const char *name)
{
    return strncmp(name, "gpt2", 4) == 0 ? DATA "gpt2" : DATA "base";
}

static struct {
    bal_model *model;
    bal_adapter *adapter;
    bal_batch batch;
    bal_pass *pass;
    real_t logits[TOKENS * VOCAB];
    bal_loss_values values;
    real_t spoil; /* a mutation: added to a gradient or a logit before the comparison */
    const char *name;
} g;

static void tear_down(void)
{
    bal_pass_free(g.pass);
    bal_batch_dispose(&g.batch);
    if (g.model != NULL)
        (void)bal_model_attach(g.model, NULL);
    bal_model_free(g.model);
    bal_adapter_free(g.adapter);
    memset(&g, 0, sizeof g);
}

static bool set_up(const char *base, const char *adapter)
{
    memset(&g, 0, sizeof g);
    if (!CHECK_OK(bal_model_load(&g.model, base)))
        return false;
    if (adapter != NULL &&
        (!CHECK_OK(bal_adapter_load(&g.adapter, adapter, NULL, g.model->modules, g.model->n_modules, true, NULL, 0)) ||
         !CHECK_OK(bal_model_attach(g.model, g.adapter))))
        return false;
    const bal_pass_options o = {.max_tokens = TOKENS, .max_seqs = 2, .backward = true};
    if (!CHECK_OK(bal_pass_new(&g.pass, g.model, &o)) || !CHECK_OK(bal_batch_init(&g.batch, TOKENS, 2)))
        return false;
    bal_batch_clear(&g.batch);
    bool ok = CHECK_OK(bal_batch_add(&g.batch, k_ids, k_labels, FIRST)) &&
              CHECK_OK(bal_batch_add(&g.batch, k_ids + FIRST, k_labels + FIRST, TOKENS - FIRST));
    bal_batch_finish(&g.batch, false);
    return ok;
}

static bool run_forward(void)
{
    uint32_t rows[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++)
        rows[i] = i;
    return CHECK_OK(bal_pass_forward(g.pass, &g.batch, BAL_STUDENT)) &&
           CHECK_OK(bal_lm_logits(g.model, bal_pass_final(g.pass, BAL_STUDENT), rows, TOKENS, true, g.logits));
}

static bool run_backward(void)
{
    const bal_loss_config c = {.temperature = 1};
    const bal_loss_weights w = {0, 0, 0};
    bal_lm_loss *loss = NULL;
    if (!CHECK_OK(bal_lm_loss_new(&loss, g.model, &c, TOKENS)))
        return false;
    bal_loss_values_zero(&g.values, &c);
    bal_pass_clear_dfinal(g.pass, TOKENS);
    memset(g.adapter->params.grads, 0, g.adapter->params.n * sizeof(real_t));
    bool ok = CHECK_OK(bal_lm_loss_run(loss, &g.batch, bal_pass_final(g.pass, BAL_STUDENT), NULL, g.batch.n_rows,
                                       g.batch.n_reg_rows, &w, &g.values, bal_pass_dfinal(g.pass), NULL)) &&
              CHECK_OK(bal_pass_backward(g.pass, &g.batch));
    bal_loss_values_finish(&g.values, &w);
    bal_lm_loss_free(loss);
    return ok;
}

/* |ours - theirs| of a tensor, against the size of theirs; NaN fails. */
static void compare(const bal_safetensors *want, const char *name, const real_t *got, size_t n, double tolerance)
{
    const bal_tensor *t = bal_safetensors_find(want, name);
    double worst = 0, scale = 0;
    if (!CHECK_MSG(t != NULL && t->n_elements == n, "%s: '%s' is not there or has another size", g.name, name))
        return;
    for (size_t i = 0; i < n; i++) {
        float w;
        memcpy(&w, (const char *)t->data + i * sizeof w, sizeof w);
        double d = fabs((double)(got[i] + (i == 1 ? g.spoil : 0)) - (double)w);
        worst = worst >= d ? worst : d;
        scale = fmax(scale, fabs((double)w));
    }
    CHECK_MSG(worst <= tolerance * scale, "%s: %s differs by %g of %g", g.name, name, worst, scale);
}

static void compare_all(void)
{
    char path[256], name[320];
    bal_safetensors *want = NULL;
    (void)snprintf(path, sizeof path, DATA "%s/expected.safetensors", g.name);
    if (!CHECK_OK(bal_safetensors_open(&want, path)))
        return;
    real_t task = (real_t)g.values.task;
    compare(want, "logits", g.logits, TOKENS * VOCAB, 5e-6);
    compare(want, "loss.task", &task, 1, 2e-6);
    for (size_t i = 0; i < g.adapter->params.n_segments; i++) {
        const bal_segment *s = &g.adapter->params.segments[i];
        static real_t turned[4096];
        const real_t *got = g.adapter->params.grads + s->offset;
        (void)snprintf(name, sizeof name, "grad.%s", s->name);
        if (s->turned && CHECK(s->n <= sizeof turned / sizeof *turned)) {
            for (size_t k = 0; k < s->n; k++)
                turned[k % s->cols * s->rows + k / s->cols] = got[k];
            got = turned;
        }
        compare(want, name, got, s->n, 3e-5);
    }
    bal_safetensors_close(want);
}

TEST(logits_and_gradients_are_pefts)
{
    for (size_t i = 0; i < CASES; i++) {
        char path[256];
        (void)snprintf(path, sizeof path, DATA "%s", k_cases[i]);
        if (set_up(base_of(k_cases[i]), path) && run_forward() && run_backward()) {
            g.name = k_cases[i];
            compare_all();
            g.spoil = (real_t)0.01; /* the comparison is not blind */
            CHECK(test_count_failures(compare_all) > 2);
        }
        tear_down();
    }
}

/* Logits of the second sequence with a cache, `step` tokens at a time, in slot `slot`, beside the first or not. */
static bool decode(size_t step, size_t slot, bool beside, real_t *out)
{
    const bal_decoder_options o = {.slots = 2, .capacity = 32, .rows = 16, .logits = 2};
    bal_decoder *d = NULL;
    bool ok = CHECK_OK(bal_decoder_new(&d, g.model, &o));
    for (size_t at = 0; ok && at < TOKENS - FIRST; at += step) {
        bal_decode_row rows[16];
        size_t n = 0;
        if (beside && at < FIRST)
            rows[n++] = (bal_decode_row){k_ids[at / step], (uint32_t)(1 - slot), (uint32_t)(at / step)};
        size_t mine = n;
        for (size_t i = at; i < at + step && i < TOKENS - FIRST; i++)
            rows[n++] = (bal_decode_row){k_ids[FIRST + i], (uint32_t)slot, (uint32_t)i};
        uint32_t want[16];
        for (size_t k = mine; k < n; k++)
            want[k - mine] = (uint32_t)k;
        uint64_t count = bal_mem_count();
        ok = CHECK_OK(bal_decoder_step(d, rows, n, want, n - mine));
        for (size_t k = 0; ok && k < n - mine; k++) {
            const real_t *logits = NULL;
            ok = CHECK_OK(bal_decoder_logits(d, k, 1, &logits));
            if (ok)
                memcpy(out + (at + k) * VOCAB, logits, VOCAB * sizeof *out);
        }
        CHECK(bal_mem_count() == count);
    }
    bal_decoder_free(d);
    return ok;
}

TEST(with_a_cache)
{
    static real_t one[TOKENS * VOCAB], other[TOKENS * VOCAB];
    size_t n = (TOKENS - FIRST) * VOCAB;
    for (size_t i = 0; i < CASES; i++) {
        char path[256];
        (void)snprintf(path, sizeof path, DATA "%s", k_cases[i]);
        if (set_up(base_of(k_cases[i]), path) && run_forward() && decode(1, 0, false, one)) {
            for (size_t k = 0; k < n; k++)
                CHECK_NEAR(one[k], g.logits[FIRST * VOCAB + k], 2e-5);
            CHECK(decode(4, 1, true, other) && memcmp(one, other, n * sizeof *one) == 0);
            CHECK(decode(7, 0, false, other) && memcmp(one, other, n * sizeof *one) == 0);
        }
        tear_down();
    }
}

TEST(saved_and_read_again)
{
    static real_t before[TOKENS * VOCAB];
    for (size_t i = 0; i < CASES; i++) {
        char path[256], folder[512];
        (void)snprintf(path, sizeof path, DATA "%s", k_cases[i]);
        (void)snprintf(folder, sizeof folder, "%s/%s", test_folder(), k_cases[i]);
        bool ok =
            set_up(base_of(k_cases[i]), path) && run_forward() && CHECK_OK(bal_adapter_save_final(g.adapter, folder));
        memcpy(before, g.logits, sizeof before);
        tear_down();
        if (ok && set_up(base_of(k_cases[i]), folder) && run_forward())
            CHECK_MSG(memcmp(before, g.logits, sizeof before) == 0, "%s: other logits after a save", k_cases[i]);
        tear_down();
    }
}

TEST(merged)
{
    static real_t before[TOKENS * VOCAB];
    for (size_t i = 0; i < CASES; i++) {
        char path[256], folder[512];
        (void)snprintf(path, sizeof path, DATA "%s", k_cases[i]);
        (void)snprintf(folder, sizeof folder, "%s/merged-%s", test_folder(), k_cases[i]);
        bool ok = set_up(base_of(k_cases[i]), path) && run_forward();
        if (ok && g.adapter->n_sites > 0 && bal_method_of(&g.adapter->config)->effective == NULL) {
            CHECK_STATUS(bal_model_save(g.model, folder, BAL_DTYPE_F32), BAL_EUNSUPPORTED);
            CHECK_MSG(strstr(bal_error_message(), "merged") != NULL, "%s", bal_error_message());
            tear_down();
            continue;
        }
        ok = ok && CHECK_OK(bal_model_save(g.model, folder, BAL_DTYPE_F32));
        memcpy(before, g.logits, sizeof before);
        tear_down();
        if (ok && set_up(folder, NULL) && run_forward())
            for (size_t k = 0; k < TOKENS * VOCAB; k++)
                CHECK_NEAR(g.logits[k], before[k], 2e-5);
        tear_down();
    }
}

/* The shared matrices of VeRA are peft's for the same key, bit for bit. */
TEST(vera_projections_are_pefts)
{
    if (set_up(DATA "base", DATA "vera")) {
        bal_adapter *mine = NULL;
        if (CHECK_OK(bal_adapter_new(&mine, &g.adapter->config, g.model->modules, g.model->n_modules, 3, false)))
            CHECK(mine->n_frozen == g.adapter->n_frozen &&
                  memcmp(mine->frozen, g.adapter->frozen, mine->n_frozen * sizeof(real_t)) == 0);
        CHECK(mine != NULL && mine->sites[0].tensor[1].v[0] == (real_t)0.1 && mine->sites[0].tensor[0].v[0] == 0);
        bal_adapter_free(mine);
    }
    tear_down();
}

/* The methods start as the model itself: no update before the first step (bottlenecks: a small one). */
TEST(starts)
{
    static real_t before[TOKENS * VOCAB];
    for (size_t i = 0; i < CASES; i++) {
        char path[256];
        bal_adapter *mine = NULL;
        (void)snprintf(path, sizeof path, DATA "%s", k_cases[i]);
        bool ok = set_up(base_of(k_cases[i]), NULL) && run_forward();
        memcpy(before, g.logits, sizeof before);
        tear_down();
        if (ok && set_up(base_of(k_cases[i]), path) &&
            CHECK_OK(bal_adapter_new(&mine, &g.adapter->config, g.model->modules, g.model->n_modules, 3, true)) &&
            CHECK_OK(bal_model_attach(g.model, mine)) && run_forward()) {
            double worst = 0,
                   tolerance = mine->sites != NULL && bal_method_of(&mine->config)->not_in_peft ? 0.05 : 1e-6;
            for (size_t k = 0; k < TOKENS * VOCAB; k++)
                worst = fmax(worst, fabs((double)g.logits[k] - (double)before[k]));
            CHECK_MSG(worst <= tolerance, "%s starts %g away from its model", k_cases[i], worst);
        }
        if (g.model != NULL)
            (void)bal_model_attach(g.model, NULL);
        bal_adapter_free(mine);
        tear_down();
    }
}
