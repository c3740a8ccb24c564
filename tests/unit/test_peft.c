/* PEFT folders: what we write, what we read, what we refuse.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/adapter/adapter.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OUT0 = 12, IN0 = 8, OUT1 = 6, IN1 = 10 };

static real_t g_w0[OUT0 * IN0], g_w1[OUT1 * IN1], g_head[20 * IN0];
static bal_view g_views[3];
static bal_module g_modules[3];
static char g_all[] = "all-linear";

static void make_modules(void)
{
    bal_rng rng;
    bal_rng_init(&rng, 7, "test");
    for (size_t i = 0; i < OUT0 * IN0; i++)
        g_w0[i] = (real_t)bal_rng_normal(&rng);
    for (size_t i = 0; i < OUT1 * IN1; i++)
        g_w1[i] = (real_t)bal_rng_normal(&rng);
    bal_dtype t = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32;
    g_views[0] = (bal_view){t, OUT0, IN0, IN0 * sizeof(real_t), g_w0, 0};
    g_views[1] = (bal_view){t, OUT1, IN1, IN1 * sizeof(real_t), g_w1, 0};
    g_views[2] = (bal_view){t, 20, IN0, IN0 * sizeof(real_t), g_head, 0};
    g_modules[0] = (bal_module){"model.layers.0.self_attn.q_proj", &g_views[0]};
    g_modules[1] = (bal_module){"model.layers.0.mlp.down_proj", &g_views[1]};
    g_modules[2] = (bal_module){"lm_head", &g_views[2]};
}

static bal_adapter_config config_of(char **targets, size_t n, const char *init)
{
    bal_adapter_config c = {
        .r = 3, .lora_alpha = 6, .target_modules = targets, .n_target_modules = n, .task_type = "CAUSAL_LM"};
    (void)snprintf(c.init, sizeof c.init, "%s", init);
    return c;
}

static bal_adapter *new_adapter(char **targets, size_t n, const char *init)
{
    bal_adapter *a = NULL;
    bal_adapter_config c = config_of(targets, n, init);
    make_modules();
    CHECK_OK(bal_adapter_new(&a, &c, g_modules, 3, 1, true));
    return a;
}

static void disturb(bal_adapter *a)
{
    bal_rng rng;
    bal_rng_init(&rng, 3, "disturb");
    for (size_t i = 0; i < a->params.n; i++)
        a->params.values[i] += (real_t)(0.1 * bal_rng_normal(&rng));
}

/* s (B A - B0 A0) of a lora by its definition. */
static double delta(const bal_lora *l, size_t row, size_t col)
{
    double sum = 0;
    for (size_t k = 0; k < l->r; k++) {
        sum += (double)l->b[row * l->r + k] * (double)l->a[k * l->in + col];
        if (l->a0 != NULL)
            sum -= (double)l->b0[row * l->r + k] * (double)l->a0[k * l->in + col];
    }
    return l->scale * sum;
}

static double largest_difference(const bal_adapter *a, const bal_adapter *b)
{
    double worst = 0;
    for (size_t m = 0; m < a->n_loras; m++) {
        const bal_lora *x = &a->loras[m], *y = bal_adapter_find(b, x->module);
        if (y == NULL || y->in != x->in || y->out != x->out)
            return INFINITY;
        for (size_t i = 0; i < x->out; i++)
            for (size_t j = 0; j < x->in; j++)
                worst = fmax(worst, fabs(delta(x, i, j) - delta(y, i, j)));
    }
    return worst;
}

TEST(folders_are_written_and_read)
{
    char *all[] = {g_all}, note[256];
    bal_adapter *a = new_adapter(all, 1, "pissa"), *back = NULL;
    char *dir = bal_path_join(test_folder(), "run"), *pair = bal_path_join(dir, "pissa"),
         *config = bal_path_join(dir, "adapter_config.json");
    bal_buf text = {0};
    disturb(a);
    for (int turn = 0; turn < 2; turn++) /* the second time over the first */
        CHECK_OK(bal_adapter_save_final(a, dir));
    CHECK_OK(bal_file_read(config, 10000, &text));
    CHECK_TEXT(
        bal_buf_cstr(&text),
        "{\n  \"auto_mapping\": null,\n  \"base_model_name_or_path\": null,\n  \"bias\": \"none\",\n"
        "  \"fan_in_fan_out\": false,\n  \"inference_mode\": true,\n  \"init_lora_weights\": true,\n"
        "  \"layers_pattern\": null,\n  \"layers_to_transform\": null,\n  \"lora_alpha\": 12,\n  \"lora_dropout\": 0,\n"
        "  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": 6,\n  \"revision\": null,\n"
        "  \"target_modules\": [\n    \"down_proj\",\n    \"q_proj\"\n  ],\n  \"task_type\": \"CAUSAL_LM\"\n}\n");
    if (CHECK_OK(bal_adapter_load(&back, dir, NULL, g_modules, 3, false, note, sizeof note)))
        CHECK(back->initial == NULL && back->config.r == 6 && largest_difference(a, back) <= 1e-6);
    bal_adapter_free(back);
    if (CHECK_OK(bal_adapter_load(&back, pair, NULL, g_modules, 3, true, note, sizeof note)))
        CHECK(back->initial != NULL && back->config.r == 3 && largest_difference(a, back) <= 1e-6 && note[0] == '\0');
    bal_adapter_free(back);
    char *balora = bal_path_join(dir, "balora"); /* without the initial factors, the SVD is redone and said so */
    CHECK_OK(bal_folder_remove(balora));
    if (CHECK_OK(bal_adapter_load(&back, pair, NULL, g_modules, 3, true, note, sizeof note)))
        CHECK(largest_difference(a, back) <= 1e-5 && strstr(note, "redone") != NULL);
    bal_adapter_free(back);
    CHECK_STATUS(bal_adapter_load(&back, pair, NULL, g_modules, 1, true, note, sizeof note), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "another base") != NULL);
    bal_free(balora);
    bal_buf_dispose(&text);
    bal_free(dir);
    bal_free(pair);
    bal_free(config);
    bal_adapter_free(a);
}

static bal_status load_with(const char *json)
{
    char *all[] = {g_all};
    bal_adapter *a = new_adapter(all, 1, "lora"), *back = NULL;
    char *dir = bal_path_join(test_folder(), "odd"), *config = bal_path_join(dir, "adapter_config.json");
    CHECK_OK(bal_adapter_save(a, dir));
    CHECK_OK(bal_file_replace(config, json, strlen(json)));
    bal_status status = bal_adapter_load(&back, dir, NULL, g_modules, 3, false, NULL, 0);
    bal_adapter_free(back);
    bal_adapter_free(a);
    bal_free(dir);
    bal_free(config);
    return status;
}

#define CONFIG(MORE)                                                                                                   \
    "{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":6,\"target_modules\":[\"q_proj\",\"down_proj\"]" MORE "}"

TEST(configs_of_other_programs)
{
    CHECK_OK(load_with(CONFIG("")));
    CHECK_OK(load_with(CONFIG(",\"new_key_of_peft_9\":[1,2],\"rank_pattern\":{},\"use_dora\":false")));
    CHECK_OK(load_with("{\"peft_type\":\"LORA\",\"r\":3,\"target_modules\":\".*proj\"}"));
    CHECK_STATUS(load_with(CONFIG(",\"use_dora\":true")), BAL_EUNSUPPORTED);
    CHECK(strstr(bal_error_message(), "use_dora") != NULL);
    CHECK_STATUS(load_with(CONFIG(",\"rank_pattern\":{\"q_proj\":2}")), BAL_EUNSUPPORTED);
    CHECK_STATUS(load_with(CONFIG(",\"modules_to_save\":[\"lm_head\"]")), BAL_EUNSUPPORTED);
    CHECK_STATUS(load_with(CONFIG(",\"bias\":\"all\"")), BAL_EUNSUPPORTED);
    CHECK_STATUS(load_with(CONFIG(",\"init_lora_weights\":\"olora\"")), BAL_EUNSUPPORTED);
    CHECK_STATUS(load_with(CONFIG(",\"init_lora_weights\":\"pissa_niter_4\"")), BAL_EINVAL);
    CHECK(strstr(bal_error_message(), "--initial-adapter") != NULL);
    CHECK_STATUS(load_with("{\"peft_type\":\"LOHA\",\"r\":3}"), BAL_EUNSUPPORTED);
    CHECK_STATUS(load_with("{\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":[\"q_proj\"]}"),
                 BAL_EFORMAT); /* shapes */
    CHECK_STATUS(load_with("{\"peft_type\":\"LORA\",\"r\":-4}"), BAL_EFORMAT);
    CHECK_STATUS(load_with("[1]"), BAL_EFORMAT);
    CHECK_STATUS(load_with(CONFIG(",\"target_modules\":[\"q_proj\"]")), BAL_EFORMAT); /* a key twice */
}
