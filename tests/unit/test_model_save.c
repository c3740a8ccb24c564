/* Models that are made, trained as a whole, written and read again.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
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

static bool says(const char *dir, const char *text)
{
    char path[640];
    bal_buf b = {0};
    (void)snprintf(path, sizeof path, "%s/config.json", dir);
    bool there = CHECK_OK(bal_file_read(path, 100000, &b)) && strstr(bal_buf_cstr(&b), text) != NULL;
    bal_buf_dispose(&b);
    return there;
}

/* transformers reads no whole number where its class has a float, and none with a point where it has a whole one. */
TEST(types_of_numbers)
{
    static const char config[] =
        "{\"model_type\": \"gemma2\", \"num_hidden_layers\": 2, \"hidden_size\": 12, \"num_attention_heads\": 3, "
        "\"num_key_value_heads\": 1, \"head_dim\": 6, \"intermediate_size\": 10, \"vocab_size\": 17, "
        "\"query_pre_attn_scalar\": 12, \"sliding_window\": 4, \"max_position_embeddings\": 1000000, "
        " \"final_logit_softcapping\": 30.0}";
    char dir[600], again[620];
    bal_model *m = NULL, *read = NULL;
    (void)snprintf(dir, sizeof dir, "%.500s/types", test_folder());
    (void)snprintf(again, sizeof again, "%s_again", dir);
    if (CHECK_OK(bal_model_new(&m, config, 5)) && CHECK_OK(bal_model_save(m, dir, BAL_DTYPE_F32)) &&
        CHECK_OK(bal_model_load(&read, dir)) && CHECK_OK(bal_model_save(read, again, BAL_DTYPE_BF16)))
        for (int i = 0; i < 2; i++) {
            CHECK(says(i == 0 ? dir : again, "\"final_logit_softcapping\": 30.0,"));
            CHECK(says(i == 0 ? dir : again, "\"query_pre_attn_scalar\": 12,"));
            CHECK(says(i == 0 ? dir : again, "\"sliding_window\": 4,"));
            CHECK(says(i == 0 ? dir : again, "\"max_position_embeddings\": 1000000,"));
        }
    bal_model_free(read);
    bal_model_free(m);
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

/* Replaces the first `old` of a text file by `new`. */
static void edit_file(const char *dir, const char *name, const char *old, const char *new)
{
    char *path = bal_path_join(dir, name);
    bal_buf before = {0}, after = {0};
    if (CHECK_OK(bal_file_read(path, 1 << 20, &before))) {
        const char *text = bal_buf_cstr(&before), *at = strstr(text, old);
        if (CHECK(at != NULL)) {
            CHECK_OK(bal_buf_append(&after, text, (size_t)(at - text)));
            CHECK_OK(bal_buf_text(&after, new));
            CHECK_OK(bal_buf_text(&after, at + strlen(old)));
            CHECK_OK(bal_file_replace(path, after.data, after.len));
        }
    }
    bal_buf_dispose(&before);
    bal_buf_dispose(&after);
    bal_free(path);
}

static void save_new(bool tied, const char *name, char dir[600])
{
    bal_model *m = new_model(tied);
    (void)snprintf(dir, 600, "%.500s/%.60s", test_folder(), name);
    if (m != NULL)
        CHECK_OK(bal_model_save(m, dir, BAL_DTYPE_F32));
    bal_model_free(m);
}

static void expect_load(const char *dir, bal_status want, const char *part)
{
    bal_model *m = NULL;
    bal_status got = bal_model_load(&m, dir);
    CHECK_MSG(got == want, "status %d: %s", (int)got, bal_error_message());
    CHECK_MSG(strstr(bal_error_message(), part) != NULL, "'%s' does not say '%s'", bal_error_message(), part);
    CHECK(m == NULL);
    bal_model_free(m);
}

TEST(tied_by_the_file)
{
    char dir[600];
    bal_model *m = NULL;
    save_new(true, "tied", dir);
    edit_file(dir, "config.json", "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    expect_load(dir, BAL_EFORMAT, "'lm_head.weight' is missing");
    save_new(false, "untied", dir);
    edit_file(dir, "config.json", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    if (CHECK_OK(bal_model_load(&m, dir))) /* a different head is used although the configuration ties it */
        CHECK(!m->config.tied_head && m->head.w.data != m->embed.w.data);
    bal_model_free(m);
}

TEST(bad_folders)
{
    char dir[600], name[700];
    bal_buf weights = {0};
    save_new(false, "bad", dir);
    edit_file(dir, "config.json", "\"intermediate_size\": 10", "\"intermediate_size\": 11");
    expect_load(dir, BAL_EFORMAT, "is 10 x 12, but the configuration needs 11 x 12");
    edit_file(dir, "config.json", "\"intermediate_size\": 11", "\"intermediate_size\": 10");
    edit_file(dir, "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    expect_load(dir, BAL_EFORMAT, "'model.layers.2.input_layernorm.weight' is missing");
    edit_file(dir, "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
    edit_file(dir, "config.json", "\"vocab_size\": 17", "\"vocab_size\": 4194305");
    expect_load(dir, BAL_EFORMAT, "vocab_size");
    edit_file(dir, "config.json", "\"vocab_size\": 4194305", "\"vocab_size\": 17");
    (void)snprintf(name, sizeof name, "%s/model.safetensors", dir);
    CHECK_OK(bal_file_read(name, 1 << 20, &weights));
    CHECK_OK(bal_file_replace(name, weights.data, weights.len - 5));
    expect_load(dir, BAL_EFORMAT, "model.safetensors");
    CHECK_OK(bal_file_replace(name, weights.data, 3));
    expect_load(dir, BAL_EFORMAT, "model.safetensors");
    bal_buf_dispose(&weights);
}

TEST(tokens_out_of_range)
{
    const bal_pass_options o = {.max_tokens = 4, .max_seqs = 1};
    const int32_t bad[2] = {1, 17};
    bal_model *m = new_model(true);
    bal_pass *p = NULL;
    bal_batch b;
    if (m == NULL || !CHECK_OK(bal_batch_init(&b, 5, 2)))
        return;
    CHECK_OK(bal_pass_new(&p, m, &o));
    bal_batch_clear(&b);
    CHECK_OK(bal_batch_add(&b, bad, NULL, 2));
    CHECK_STATUS(bal_pass_forward(p, &b, BAL_STUDENT), BAL_EFORMAT);
    CHECK_STATUS(bal_pass_backward(p, &b), BAL_EINVAL);
    b.tokens[1] = 16;
    CHECK_OK(bal_pass_forward(p, &b, BAL_STUDENT));
    CHECK_STATUS(bal_pass_forward(p, &b, BAL_TEACHER), BAL_EINVAL);
    CHECK_OK(bal_batch_add(&b, bad, NULL, 1));
    CHECK_STATUS(bal_pass_forward(p, &b, BAL_STUDENT), BAL_ELIMIT);
    bal_pass_free(p);
    bal_batch_dispose(&b);
    bal_model_free(m);
}

TEST(no_allocation_in_a_pass)
{
    bal_model *m = new_model(false);
    const int32_t ids[8] = {1, 5, 16, 0, 7, 3, 3, 2};
    if (m == NULL)
        return;
    for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
        const bal_pass_options o = {.max_tokens = 8,
                                    .max_seqs = 2,
                                    .backward = true,
                                    .teacher = true,
                                    .checkpoint_activations = checkpoint != 0,
                                    .dropout = 0.1};
        bal_pass *p = NULL;
        bal_batch b;
        if (!CHECK_OK(bal_pass_new(&p, m, &o)) || !CHECK_OK(bal_batch_init(&b, 8, 2)))
            return;
        uint64_t before = bal_mem_count();
        for (int step = 0; step < 3; step++) {
            bal_batch_clear(&b);
            CHECK_OK(bal_batch_add(&b, ids, ids, 5));
            CHECK_OK(bal_batch_add(&b, ids + 5, ids + 5, 3));
            bal_batch_finish(&b, false);
            CHECK_OK(bal_pass_forward(p, &b, BAL_STUDENT));
            CHECK_OK(bal_pass_forward(p, &b, BAL_TEACHER));
            bal_pass_clear_dfinal(p, b.n_tokens);
            CHECK_OK(bal_pass_backward(p, &b));
        }
        CHECK(bal_mem_count() == before);
        bal_pass_free(p);
        bal_batch_dispose(&b);
    }
    bal_model_free(m);
}
