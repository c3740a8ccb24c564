/* Models that are made, trained as a whole, written and read again.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/model/model.h"
#include "lib/model/pass.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char k_config[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 12, \"num_attention_heads\": 3, "
    "\"num_key_value_heads\": 1, \"head_dim\": 6, \"intermediate_size\": 10, \"vocab_size\": 17, "
    "\"attention_bias\": true, \"tie_word_embeddings\": %s, \"initializer_range\": 0.3, \"eos_token_id\": [2, 3]}";

static bal_model *new_model(bool tied)
{
    char text[512];
    bal_model *m = NULL;
    (void)snprintf(text, sizeof text, k_config, tied ? "true" : "false");
    CHECK_OK(bal_model_new(&m, text, 5));
    return m;
}

/* Sum of all final hidden values with signs, as a fingerprint. */
static double fingerprint(bal_model *m)
{
    const bal_pass_options o = {.max_tokens = 9, .max_seqs = 2};
    const int32_t ids[9] = {1, 5, 16, 0, 7, 3, 3, 2, 11};
    bal_pass *p = NULL;
    bal_batch b;
    double sum = 0;
    if (!CHECK_OK(bal_batch_init(&b, 9, 2)))
        return 0;
    bal_batch_clear(&b);
    CHECK_OK(bal_batch_add(&b, ids, NULL, 4));
    CHECK_OK(bal_batch_add(&b, ids + 4, NULL, 5));
    bal_batch_finish(&b, false);
    if (CHECK_OK(bal_pass_new(&p, m, &o)) && CHECK_OK(bal_pass_forward(p, &b, BAL_STUDENT)))
        for (size_t i = 0; i < 9 * m->config.hidden; i++)
            sum += (double)bal_pass_final(p, BAL_STUDENT)[i] * (i % 3 == 0 ? -1 : 1 + 0.01 * (double)i);
    bal_pass_free(p);
    bal_batch_dispose(&b);
    return sum;
}

TEST(new_saved_and_read_again)
{
    for (int tied = 0; tied < 2; tied++) {
        char dir[600], again[620];
        bal_model *m = new_model(tied != 0), *read = NULL;
        if (m == NULL)
            return;
        CHECK(m->params.n == m->n_parameters);
        (void)snprintf(dir, sizeof dir, "%.500s/model%d", test_folder(), tied);
        (void)snprintf(again, sizeof again, "%s_again", dir);
        double before = fingerprint(m);
        CHECK(before != 0);
        if (CHECK_OK(bal_model_save(m, dir, BAL_DTYPE_F32)) && CHECK_OK(bal_model_load(&read, dir))) {
            CHECK_NEAR(fingerprint(read), before, 1e-5);
            CHECK(read->config.tied_head == (tied != 0) && read->n_parameters == m->n_parameters);
            CHECK_OK(bal_model_make_trainable(read));
            CHECK(read->params.n == m->params.n && read->params.n_segments == m->params.n_segments);
            CHECK_NEAR(fingerprint(read), before, 1e-5);
            CHECK_STATUS(bal_model_save(read, dir, BAL_DTYPE_F32), BAL_EINVAL); /* its own files */
            CHECK_OK(bal_model_save(read, again, BAL_DTYPE_BF16));
            bal_model_free(read);
            read = NULL;
            CHECK_OK(bal_model_load(&read, again));
            CHECK(read != NULL && read->config.n_eos == 2 && read->embed.w.dtype == BAL_DTYPE_BF16);
            CHECK_NEAR(fingerprint(read), before, 3);
        }
        bal_model_free(read);
        bal_model_free(m);
    }
}

TEST(merged_adapter)
{
    bal_model *m = new_model(false), *read = NULL;
    bal_adapter *a = NULL;
    char target[] = "all-linear", dir[600], *targets[] = {target};
    bal_adapter_config c = {.r = 2,
                            .lora_alpha = 4,
                            .init = "pissa",
                            .target_modules = targets,
                            .n_target_modules = 1,
                            .task_type = "CAUSAL_LM"};
    if (m == NULL)
        return;
    if (CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 3, true)) && CHECK_OK(bal_model_attach(m, a))) {
        for (size_t i = 0; i < a->params.n; i++)
            a->params.values[i] += (real_t)0.05 * (real_t)((double)(i % 7) - 3);
        double with = fingerprint(m);
        (void)snprintf(dir, sizeof dir, "%.500s/merged", test_folder());
        if (CHECK_OK(bal_model_save(m, dir, BAL_DTYPE_F32)) && CHECK_OK(bal_model_load(&read, dir)))
            CHECK_NEAR(fingerprint(read), with, 1e-4);
        CHECK_OK(bal_model_attach(m, NULL));
        CHECK(!(fabs(fingerprint(m) - with) < 1e-2)); /* the adapter does something */
    }
    bal_model_free(read);
    bal_model_free(m);
    bal_adapter_free(a);
}

TEST(pass_bytes_are_exact)
{
    bal_model *m = new_model(true);
    if (m == NULL)
        return;
    for (unsigned bits = 0; bits < 16; bits++) {
        const bal_pass_options o = {.max_tokens = 70,
                                    .max_seqs = 3,
                                    .max_seq_len = 60,
                                    .backward = (bits & 1) != 0,
                                    .teacher = (bits & 2) != 0,
                                    .checkpoint_activations = (bits & 4) != 0,
                                    .dropout = (bits & 8) != 0 ? 0.1 : 0};
        bal_pass *p = NULL;
        uint64_t before = bal_mem_bytes();
        CHECK_OK(bal_pass_new(&p, m, &o));
        CHECK_MSG(bal_mem_bytes() - before == bal_pass_bytes(m, &o), "options %u: %zu bytes, not %zu", bits,
                  (size_t)(bal_mem_bytes() - before), bal_pass_bytes(m, &o));
        bal_pass_free(p);
    }
    bal_model_free(m);
}
