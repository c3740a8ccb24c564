/* Second moments of a model's inputs: over records of one token everything that a block computes has a closed form
 * (attention gives v), over longer ones the inputs of the first matrices have.  Then CorDA starts from them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/model/pass.h"
#include "tests/test.h"
#include "train/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HIDDEN = 12, INNER = 20, VOCAB = 31, HEADS = 2, MODULES = 8, RECORDS = 5, LISTED = 32 };

static const char k_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":12,\"intermediate_size\":20,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"vocab_size\":31,\"rms_norm_eps\":1e-5,\"initializer_range\":0.4,"
    "\"max_position_embeddings\":64,\"tie_word_embeddings\":false}";

static bool g_wrong; /* the mutation: the sums are compared with those of inputs that are not scaled */

static bal_model *new_model(void)
{
    bal_model *m = NULL;
    return CHECK_OK(bal_model_new(&m, k_config, 11)) && CHECK(m->n_modules >= MODULES && m->n_modules <= LISTED) ? m
                                                                                                                 : NULL;
}

static bool records(bal_dataset *d, size_t tokens)
{
    int32_t *ids = bal_alloc(RECORDS * tokens, sizeof *ids);
    *d = (bal_dataset){.ids = ids, .start = bal_alloc(RECORDS + 1, sizeof *d->start), .n = RECORDS, .longest = tokens};
    if (!CHECK(d->ids != NULL && d->start != NULL))
        return false;
    for (size_t i = 0; i < RECORDS * tokens; i++)
        d->ids[i] = (int32_t)((i * i * 5 + 3 * i + 1) % VOCAB);
    for (size_t i = 0; i <= RECORDS; i++)
        d->start[i] = i * tokens;
    return true;
}

/* y = W x. */
static void multiply(const bal_view *w, const double *x, double *y)
{
    static real_t row[INNER];
    for (size_t i = 0; i < w->rows; i++) {
        y[i] = 0;
        bal_view_dequant(w, i, 1, row, w->cols);
        for (size_t j = 0; j < w->cols; j++)
            y[i] += (double)row[j] * x[j];
    }
}

static void rms_norm(const double *x, double *y) /* the weights of a new model's norms are 1 */
{
    double mean = 0;
    for (size_t i = 0; i < HIDDEN; i++)
        mean += x[i] * x[i] / HIDDEN;
    for (size_t i = 0; i < HIDDEN; i++)
        y[i] = x[i] / sqrt(mean + 1e-5);
}

/* The inputs of all modules for a sequence of one token, by module of the model's list. */
static void inputs_of(const bal_model *m, int32_t token, double in[MODULES][INNER])
{
    const bal_block *b = &m->blocks[0];
    double x[HIDDEN], v[HIDDEN], o[HIDDEN], gate[INNER], up[INNER], down[HIDDEN];
    static real_t row[HIDDEN];
    bal_view_dequant(&m->embed.w, (size_t)token, 1, row, HIDDEN);
    for (size_t i = 0; i < HIDDEN; i++)
        x[i] = (double)row[i];
    rms_norm(x, in[BAL_SLOT_Q]);
    memcpy(in[BAL_SLOT_K], in[BAL_SLOT_Q], sizeof in[0]);
    memcpy(in[BAL_SLOT_V], in[BAL_SLOT_Q], sizeof in[0]);
    multiply(&b->linear[BAL_SLOT_V].w, in[BAL_SLOT_V], v);
    memcpy(in[BAL_SLOT_O], v, sizeof v);
    multiply(&b->linear[BAL_SLOT_O].w, v, o);
    for (size_t i = 0; i < HIDDEN; i++)
        x[i] += o[i];
    rms_norm(x, in[BAL_SLOT_GATE]);
    memcpy(in[BAL_SLOT_UP], in[BAL_SLOT_GATE], sizeof in[0]);
    multiply(&b->linear[BAL_SLOT_GATE].w, in[BAL_SLOT_GATE], gate);
    multiply(&b->linear[BAL_SLOT_UP].w, in[BAL_SLOT_UP], up);
    for (size_t i = 0; i < INNER; i++)
        in[BAL_SLOT_DOWN][i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    multiply(&b->linear[BAL_SLOT_DOWN].w, in[BAL_SLOT_DOWN], down);
    for (size_t i = 0; i < HIDDEN; i++)
        x[i] += down[i];
    rms_norm(x, in[MODULES - 1]);
}

static void check_single_tokens(void)
{
    static double want[MODULES][INNER * INNER], in[MODULES][INNER];
    bal_model *m = new_model();
    bal_dataset d;
    calibration c;
    bool wanted[LISTED] = {false};
    memset(want, 0, sizeof want);
    memset(wanted, true, MODULES);
    wanted[BAL_SLOT_K] = false;
    if (m == NULL || !records(&d, 1) || !CHECK_OK(train_calibrate(&c, m, wanted, &d, NULL, RECORDS, NULL, false)))
        return;
    CHECK(c.n_samples == RECORDS && c.n_tokens == RECORDS);
    for (size_t r = 0; r < RECORDS; r++) {
        inputs_of(m, d.ids[r], in);
        for (size_t s = 0; s < MODULES; s++) {
            size_t n = m->modules[s].w->cols;
            double largest = -INFINITY;
            for (size_t i = 0; i < n; i++)
                largest = fmax(largest, in[s][i]);
            for (size_t i = 0; i < n * n; i++)
                want[s][i] += in[s][i / n] * in[s][i % n] / (g_wrong ? 1 : largest * largest) / RECORDS;
        }
    }
    CHECK(c.covariances[BAL_SLOT_K] == NULL);
    CHECK(c.covariances[BAL_SLOT_Q] == c.covariances[BAL_SLOT_V]); /* the same input */
    CHECK(c.covariances[BAL_SLOT_GATE] == c.covariances[BAL_SLOT_UP]);
    CHECK(c.covariances[BAL_SLOT_GATE] != c.covariances[BAL_SLOT_Q]);
    CHECK(c.covariances[BAL_SLOT_GATE] != c.covariances[BAL_SLOT_O]);
    for (size_t s = 0; s < MODULES; s++) {
        size_t n = m->modules[s].w->cols;
        double scale = 0;
        for (size_t i = 0; i < n * n; i++)
            scale = fmax(scale, fabs(want[s][i]));
        for (size_t i = 0; c.covariances[s] != NULL && i < n * n; i++)
            CHECK_NEAR(c.covariances[s][i] / scale, want[s][i] / scale, 2e-5);
    }
    calibration_dispose(&c);
    bal_dataset_dispose(&d);
    bal_model_free(m);
}

TEST(moments_of_single_tokens_by_formula)
{
    check_single_tokens();
}

TEST(unscaled_inputs_are_noticed)
{
    g_wrong = true;
    CHECK(test_count_failures(check_single_tokens) > 0);
    g_wrong = false;
}

/* Of whole sequences: the scale is one for all tokens of a record. */
TEST(moments_of_sequences)
{
    enum { TOKENS = 7 };
    static double want[HIDDEN * HIDDEN], x[TOKENS][INNER], in[MODULES][INNER];
    bal_model *m = new_model();
    bal_dataset d;
    calibration c;
    static const bool wanted[LISTED] = {[BAL_SLOT_K] = true};
    static const uint32_t items[] = {3, 1};
    memset(want, 0, sizeof want);
    if (m == NULL || !records(&d, TOKENS) || !CHECK_OK(train_calibrate(&c, m, wanted, &d, items, 2, NULL, false)))
        return;
    for (size_t r = 0; r < 2; r++) {
        double largest = -INFINITY;
        for (size_t t = 0; t < TOKENS; t++) {
            inputs_of(m, d.ids[d.start[items[r]] + t], in); /* that of k is the token's alone */
            memcpy(x[t], in[BAL_SLOT_K], sizeof x[t]);
            for (size_t i = 0; i < HIDDEN; i++)
                largest = fmax(largest, x[t][i]);
        }
        for (size_t t = 0; t < TOKENS; t++)
            for (size_t i = 0; i < HIDDEN * HIDDEN; i++)
                want[i] += x[t][i / HIDDEN] * x[t][i % HIDDEN] / (largest * largest) / 2;
    }
    for (size_t i = 0; i < HIDDEN * HIDDEN; i++)
        CHECK_NEAR(c.covariances[BAL_SLOT_K][i], want[i], 1e-5);
    for (size_t s = 0; s < MODULES; s++)
        CHECK((c.covariances[s] != NULL) == (s == BAL_SLOT_K));
    calibration_dispose(&c);
    bal_dataset_dispose(&d);
    bal_model_free(m);
}

/* The forward of a model with the new adapter is the model's own; and the two methods take different parts out. */
TEST(corda_starts_at_the_model)
{
    static char all[] = "all-linear";
    char *targets[] = {all};
    bal_adapter_config config = {.r = 3, .lora_alpha = 6, .target_modules = targets, .n_target_modules = 1};
    bal_model *m = new_model();
    bal_dataset d;
    bal_adapter *a[2] = {NULL, NULL};
    (void)snprintf(config.init, sizeof config.init, "corda");
    if (m == NULL || !records(&d, 9))
        return;
    for (int minor = 0; minor < 2; minor++)
        CHECK_OK(train_calibrated_adapter(&a[minor], &config, m, &d, NULL, RECORDS, minor == 1, 1, NULL, false));
    if (CHECK(a[0] != NULL && a[1] != NULL)) {
        CHECK(a[0]->n_loras == MODULES - 1); /* all but the head */
        for (size_t i = 0; i < a[0]->params.n; i++)
            CHECK(a[0]->params.values[i] == a[0]->initial[i] && isfinite(a[0]->initial[i]));
        double major = 0, minor = 0; /* ||W x||^2 that the parts hold on the data */
        for (size_t i = 0; i < HIDDEN * 3; i++) {
            major += pow((double)a[0]->loras[0].b[i], 2);
            minor += pow((double)a[1]->loras[0].b[i], 2);
        }
        CHECK(major > 4 * minor && minor > 0);
    }
    bal_adapter_free(a[0]);
    bal_adapter_free(a[1]);
    bal_dataset_dispose(&d);
    bal_model_free(m);
}
