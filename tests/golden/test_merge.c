/* Merging: the model written with an adapter in it gives the logits of peft's merge_and_unload, or of the adapted model
 * for PiSSA.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"
#include "lib/loss/lm_loss.h"
#include "lib/model/pass.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *in_case(const char *name, const char *part)
{
    char path[256];
    (void)snprintf(path, sizeof path, "golden/decoder/%s/%s", name, part);
    return test_shared(path);
}

static bool read_batch(const char *path, bal_batch *b)
{
    cJSON *json = NULL;
    int32_t ids[256];
    if (!CHECK_OK(bal_json_read(&json, path, 1 << 20)) || !CHECK_OK(bal_batch_init(b, 1024, 32)))
        return false;
    const cJSON *row, *id;
    cJSON_ArrayForEach(row, bal_json_member(json, "input_ids"))
    {
        size_t n = 0;
        cJSON_ArrayForEach(id, row) if (n < 256) ids[n++] = id->valueint;
        CHECK_OK(bal_batch_add(b, ids, NULL, n));
    }
    bal_batch_finish(b, false);
    cJSON_Delete(json);
    return true;
}

/* largest difference of the logits of the model in dir from those in file, relative to the largest */
static double logits_differ(const char *dir, const bal_batch *b, const char *file)
{
    bal_model *m = NULL;
    bal_pass *pass = NULL;
    bal_safetensors *want = NULL;
    double worst = 0, scale = 0;
    bal_pass_options o = {.max_tokens = b->n_tokens, .max_seqs = b->n_seqs, .max_seq_len = b->n_tokens};
    if (!CHECK_OK(bal_model_load(&m, dir)) || !CHECK_OK(bal_pass_new(&pass, m, &o)) ||
        !CHECK_OK(bal_pass_forward(pass, b, BAL_STUDENT)) || !CHECK_OK(bal_safetensors_open(&want, file)))
        return HUGE_VAL;
    const bal_tensor *t = bal_safetensors_find(want, "logits");
    size_t n = b->n_tokens * m->config.vocab;
    real_t *logits = bal_alloc(n, sizeof *logits);
    uint32_t *rows = bal_alloc(b->n_tokens, sizeof *rows);
    if (!CHECK(t != NULL && t->n_elements == n && logits != NULL && rows != NULL))
        return HUGE_VAL;
    for (size_t i = 0; i < b->n_tokens; i++)
        rows[i] = (uint32_t)i;
    CHECK_OK(bal_lm_logits(m, bal_pass_final(pass, BAL_STUDENT), rows, b->n_tokens, true, logits));
    for (size_t i = 0; i < n; i++) {
        float w;
        memcpy(&w, (const char *)t->data + i * sizeof w, sizeof w);
        double d = fabs((double)logits[i] - (double)w);
        worst = d <= worst ? worst : d; /* NaN stays */
        scale = fmax(scale, fabs((double)w));
    }
    bal_free(logits);
    bal_free(rows);
    bal_safetensors_close(want);
    bal_pass_free(pass);
    bal_model_free(m);
    return worst / scale;
}

static void check_merge(const char *name, const char *expected, bal_dtype dtype, double bound)
{
    bal_model *m = NULL;
    bal_adapter *a = NULL;
    bal_batch b = {0};
    char *dir = bal_path_join(test_folder(), name);
    if (!read_batch(in_case(name, "input.json"), &b) || !CHECK_OK(bal_model_load(&m, in_case(name, "model"))))
        return;
    CHECK_OK(bal_adapter_load(&a, in_case(name, "adapter"), in_case(name, "initial_adapter"), m->modules, m->n_modules,
                              false, NULL, 0));
    CHECK_OK(bal_model_attach(m, a));
    CHECK_OK(bal_model_save(m, dir, dtype));
    double d = logits_differ(dir, &b, in_case(name, expected));
    CHECK_MSG(d <= bound, "%s: logits of the merged model are off by %g (bound %g)", name, d, bound);
    d = logits_differ(in_case(name, "model"), &b, in_case(name, expected)); /* the update is not lost in the bound */
    CHECK_MSG(d > 20 * bound, "%s: the base alone is only %g away", name, d);
    bal_model_free(m);
    bal_adapter_free(a);
    bal_batch_dispose(&b);
    bal_free(dir);
}

TEST(merged_models)
{
    if (in_case("adp_lora", "adapter") == NULL)
        SKIP("../shared/golden is not there");
    check_merge("adp_lora", "expected_merged.safetensors", BAL_DTYPE_F32, 1e-5);
    check_merge("adp_rslora", "expected_merged.safetensors", BAL_DTYPE_F32, 1e-5);
    check_merge("adp_bf16_base", "expected_merged.safetensors", BAL_DTYPE_F32, 1e-5);
    check_merge("adp_subset_layers", "expected_merged.safetensors", BAL_DTYPE_F32, 1e-5);
    check_merge("adp_pissa_llama", "expected.safetensors", BAL_DTYPE_F32, 1e-5);
    check_merge("adp_lora", "expected_merged.safetensors", BAL_DTYPE_F16, 5e-3);
}
