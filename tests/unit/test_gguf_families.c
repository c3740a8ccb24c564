/* Every family that has a GGUF form: folder -> GGUF -> folder gives the same logits, and the file holds what llama.cpp
 * expects of it (1 + w, turned matrices, F32 positions, the window, the caps).  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/adapter/adapter.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/gguf.h"
#include "lib/io/gguf_write.h"
#include "lib/model/config.h"
#include "lib/model/families.h"
#include "lib/model/pass.h"
#include "lib/model/save_gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 14, VOCAB = 23 };

#define SIZES                                                                                                          \
    "\"num_hidden_layers\": 3, \"hidden_size\": 32, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "          \
    "\"head_dim\": 6, \"intermediate_size\": 40, \"vocab_size\": 23, \"initializer_range\": 0.3, "                     \
    "\"rms_norm_eps\": 0.001, \"max_position_embeddings\": 32"

static const struct {
    const char *architecture, *config;
    bool noted; /* the window goes lost, which is said */
} k_cases[] = {
    {"llama", "{\"model_type\": \"llama\", " SIZES ", \"attention_bias\": true}", false},
    {"llama", "{\"model_type\": \"mistral\", " SIZES ", \"sliding_window\": 20}", true},
    {"llama", "{\"model_type\": \"mistral\", " SIZES ", \"sliding_window\": null}", false},
    {"qwen2", "{\"model_type\": \"qwen2\", " SIZES ", \"rope_theta\": 1000000.0}", false},
    {"qwen3", "{\"model_type\": \"qwen3\", " SIZES ", \"tie_word_embeddings\": true}", false},
    {"phi3", "{\"model_type\": \"phi3\", " SIZES ", \"sliding_window\": 5}", false},
    {"gemma", "{\"model_type\": \"gemma\", " SIZES "}", false},
    {"gemma2", "{\"model_type\": \"gemma2\", " SIZES ", \"sliding_window\": 4, \"query_pre_attn_scalar\": 24}", false},
    {"gemma2",
     "{\"model_type\": \"gemma2\", " SIZES ", \"sliding_window\": 4, \"attn_logit_softcapping\": 2.5, "
     "\"final_logit_softcapping\": 1.5, \"layer_types\": [\"sliding_attention\", \"sliding_attention\", "
     "\"full_attention\"]}",
     false},
    {"gemma3",
     "{\"model_type\": \"gemma3_text\", " SIZES ", \"sliding_window\": 4, \"query_pre_attn_scalar\": 9, "
     "\"sliding_window_pattern\": 2, \"rope_local_base_freq\": 500}",
     false},
    {"gemma3",
     "{\"model_type\": \"gemma3_text\", " SIZES ", \"sliding_window\": 4, \"final_logit_softcapping\": 3, "
     "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0}}",
     false},
    {"gpt2",
     "{\"model_type\": \"gpt2\", \"n_layer\": 3, \"n_embd\": 32, \"n_head\": 4, \"n_inner\": 40, \"vocab_size\": 23, "
     "\"n_positions\": 32, \"initializer_range\": 0.3, \"layer_norm_epsilon\": 0.001}",
     false},
    {"smollm3", "{\"model_type\": \"smollm3\", " SIZES ", \"no_rope_layers\": [1, 1, 1]}", false},
    {"stablelm", "{\"model_type\": \"stablelm\", " SIZES ", \"partial_rotary_factor\": 0.7, \"use_qkv_bias\": true}",
     false},
    {"stablelm",
     "{\"model_type\": \"stablelm\", " SIZES ", \"partial_rotary_factor\": 0.4, \"use_parallel_residual\": true}",
     false},
    {"phi3",
     "{\"model_type\": \"phi3\", " SIZES ", \"original_max_position_embeddings\": 10, \"rope_scaling\": {\"type\": "
     "\"longrope\", \"short_factor\": [1, 2, 3], \"long_factor\": [1.5, 4, 9]}}",
     false},
};
enum { N_CASES = sizeof k_cases / sizeof *k_cases };

static bool logits_of(bal_model *m, double out[TOKENS * VOCAB])
{
    static const int32_t ids[TOKENS] = {1, 5, 16, 0, 7, 3, 3, 2, 11, 22, 4, 4, 9, 8};
    const bal_pass_options o = {.max_tokens = TOKENS, .max_seqs = 1, .max_seq_len = TOKENS};
    bal_pass *p = NULL;
    bal_batch b;
    real_t row[32];
    bool done = false;
    if (!CHECK_OK(bal_batch_init(&b, TOKENS, 1)))
        return false;
    bal_batch_clear(&b);
    CHECK_OK(bal_batch_add(&b, ids, NULL, TOKENS));
    bal_batch_finish(&b, false);
    if (CHECK_OK(bal_pass_new(&p, m, &o)) && CHECK_OK(bal_pass_forward(p, &b, BAL_STUDENT)) &&
        CHECK(m->config.vocab == VOCAB && m->config.hidden == 32)) {
        double cap = m->config.logit_softcap;
        for (size_t v = 0; v < VOCAB; v++) {
            bal_view_dequant(&m->head.w, v, 1, row, 32);
            for (size_t t = 0; t < TOKENS; t++) {
                double sum = 0;
                for (size_t i = 0; i < 32; i++)
                    sum += (double)bal_pass_final(p, BAL_STUDENT)[t * 32 + i] * (double)row[i];
                out[t * VOCAB + v] = cap > 0 ? cap * tanh(sum / cap) : sum;
            }
        }
        done = true;
    }
    bal_pass_free(p);
    bal_batch_dispose(&b);
    return done;
}

static double distance(const double *x, const double *y)
{
    double d = 0, size = 0;
    for (size_t i = 0; i < (size_t)TOKENS * VOCAB; i++) {
        d += (x[i] - y[i]) * (x[i] - y[i]);
        size += x[i] * x[i];
    }
    return sqrt(d / size);
}

static bal_model *make(const char *config, const char *dir)
{
    bal_model *made = NULL, *m = NULL;
    bal_rng rng;
    bal_rng_init(&rng, 8, "test");
    CHECK_OK(bal_folder_remove(dir));
    if (CHECK_OK(bal_model_new(&made, config, 5))) {
        for (size_t i = 0; i < made->params.n; i++) /* norms and biases away from 1 and 0 */
            made->params.values[i] += (real_t)(0.1 * bal_rng_normal(&rng));
        if (CHECK_OK(bal_model_save(made, dir, BAL_DTYPE_F32)))
            CHECK_OK(bal_model_load(&m, dir));
    }
    bal_model_free(made);
    return m;
}

static void paths(char dir[600], char file[600], char back[600])
{
    (void)snprintf(dir, 600, "%.500s/hf", test_folder());
    (void)snprintf(file, 600, "%.500s/model.gguf", test_folder());
    (void)snprintf(back, 600, "%.500s/back", test_folder());
}

static void check_case(size_t c)
{
    static double want[TOKENS * VOCAB], got[TOKENS * VOCAB];
    char dir[600], file[600], back[600];
    bal_gguf_report report;
    paths(dir, file, back);
    CHECK_OK(bal_folder_remove(back));
    bal_model *m = make(k_cases[c].config, dir), *g = NULL, *h = NULL;
    if (m != NULL && logits_of(m, want) && CHECK_OK(bal_model_save_gguf(m, file, BAL_QUANT_F32, &report)) &&
        CHECK_OK(bal_model_load(&g, file)) && logits_of(g, got)) {
        CHECK_MSG(distance(want, got) <= 1e-5, "case %zu: GGUF logits differ by %g", c, distance(want, got));
        CHECK_MSG((strstr(report.note, "window of 20") != NULL) == k_cases[c].noted, "case %zu: '%s'", c, report.note);
        CHECK(g->config.max_positions == 32 && g->config.tied_head == m->config.tied_head);
        if (CHECK_OK(bal_model_save(g, back, BAL_DTYPE_F32)) && CHECK_OK(bal_model_load(&h, back)) && logits_of(h, got))
            CHECK_MSG(distance(want, got) <= 1e-5, "case %zu: logits of the folder differ by %g", c,
                      distance(want, got));
    }
    bal_model_free(m);
    bal_model_free(g);
    bal_model_free(h);
}

TEST(every_family_to_gguf_and_back)
{
    for (size_t c = 0; c < N_CASES; c++)
        check_case(c);
}

/* The tensor's element, and its size against the model's in memory. */
static double element(const bal_gguf *g, const char *name, size_t rows, size_t cols, size_t at)
{
    const bal_tensor *t = bal_gguf_tensor(g, name);
    if (!CHECK_MSG(t != NULL && t->dtype == BAL_DTYPE_F32 && t->n_elements == rows * cols, "%s", name))
        return NAN;
    CHECK_MSG(t->shape[t->n_dims - 1] == (t->n_dims == 1 ? rows * cols : cols), "%s", name);
    return (double)((const float *)t->data)[at];
}

TEST(what_the_file_holds)
{
    for (size_t c = 0; c < N_CASES; c++) {
        char dir[600], file[600], back[600];
        bal_gguf_report report;
        bal_gguf *g = NULL;
        double value = 0;
        paths(dir, file, back);
        bal_model *m = make(k_cases[c].config, dir);
        if (m == NULL || !CHECK_OK(bal_model_save_gguf(m, file, BAL_QUANT_F16, &report)) ||
            !CHECK_OK(bal_gguf_open(&g, file)))
            return;
        const char *type = m->config.model_type;
        CHECK_TEXT(bal_gguf_text_of(g, "general.architecture"), k_cases[c].architecture);
        double norm = element(g, "blk.1.attn_norm.weight", 1, 32, 3);
        CHECK_NEAR(norm, (double)m->blocks[1].norm[BAL_NORM_ATTENTION_IN].w[3] + (strstr(type, "gemma") != NULL), 1e-6);
        if (strcmp(type, "gpt2") == 0) {
            const bal_tensor *t = bal_gguf_tensor(g, "blk.2.attn_qkv.weight");
            CHECK(t != NULL && t->shape[0] == 96 && t->shape[1] == 32);
            CHECK_NEAR(element(g, "position_embd.weight", 32, 32, 40), ((const float *)m->positions.w.data)[40], 0);
            CHECK_NEAR(element(g, "blk.2.attn_qkv.bias", 1, 96, 95), m->blocks[2].linear[BAL_SLOT_Q].bias[95], 0);
            CHECK_OK(bal_gguf_f64(g, "gpt2.attention.layer_norm_epsilon", &value, NULL));
            CHECK_NEAR(value, 0.001, 1e-9);
        }
        if (m->config.rope.kind == BAL_ROPE_LONGROPE) /* without it llama.cpp reads the divisors in phi3 files alone */
            CHECK_TEXT(bal_gguf_text_of(g, "phi3.rope.scaling.type"), "longrope");
        if (strcmp(type, "gemma2") == 0) {
            CHECK_NEAR(element(g, "blk.0.post_ffw_norm.weight", 1, 32, 5),
                       (double)m->blocks[0].norm[BAL_NORM_MLP_OUT].w[5] + 1, 1e-6);
            CHECK_OK(bal_gguf_f64(g, "gemma2.attn_logit_softcapping", &value, NULL));
            CHECK_NEAR(value, m->config.attention_softcap, 1e-6);
            CHECK_OK(bal_gguf_f64(g, "gemma2.attention.sliding_window", &value, NULL));
            CHECK(value == 4);
        }
        bal_gguf_close(g);
        bal_model_free(m);
    }
}

/* What a form cannot say is refused by name, never written differently. */
TEST(what_cannot_be_said)
{
    static const char *const cases[][2] = {
        {"{\"model_type\": \"opt\", \"num_hidden_layers\": 1, \"hidden_size\": 32, \"num_attention_heads\": 4, "
         "\"ffn_dim\": 8, \"vocab_size\": 23}",
         "models of the type opt"},
        {"{\"model_type\": \"gemma2\", " SIZES ", \"attn_logit_softcapping\": null}", "soft cap of null"},
        {"{\"model_type\": \"gemma3_text\", " SIZES ", \"layer_types\": [\"full_attention\", \"sliding_attention\", "
         "\"full_attention\"]}",
         "irregular places"},
        {"{\"model_type\": \"llama\", " SIZES ", \"hidden_act\": \"relu\"}", "another activation"},
        {"{\"model_type\": \"llama\", " SIZES ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 2.0, "
         "\"truncate\": false}}",
         "truncate false"},
        {"{\"model_type\": \"llama\", " SIZES ", \"rope_scaling\": {\"rope_type\": \"dynamic\", \"factor\": 2.0}}",
         "dynamic rope"},
        {"{\"model_type\": \"gpt2\", \"n_layer\": 1, \"n_embd\": 32, \"n_head\": 4, \"vocab_size\": 23, "
         "\"scale_attn_weights\": false}",
         "scale_attn_weights"}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char dir[600], file[600], back[600];
        bal_gguf_report report;
        bal_model *m = NULL;
        paths(dir, file, back);
        if (CHECK_OK(bal_model_new(&m, cases[c][0], 5))) {
            CHECK_STATUS(bal_model_save_gguf(m, file, BAL_QUANT_F32, &report), BAL_EUNSUPPORTED);
            CHECK_MSG(strstr(bal_error_message(), cases[c][1]) != NULL, "case %zu: %s", c, bal_error_message());
        }
        bal_model_free(m);
    }
}

static bal_status fill_zero(void *context, size_t row0, size_t n_rows, real_t *out)
{
    (void)context;
    (void)row0;
    memset(out, 0, n_rows * 32 * sizeof *out);
    return BAL_OK;
}

/* A file with the given values and an embedding, as a configuration. */
static bal_status read_values(const char *const (*texts)[2], const char *const *keys, const double *numbers, size_t n,
                              bal_model_config *c)
{
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"block_count", 2},
                 {"embedding_length", 32},
                 {"feed_forward_length", 24},
                 {"attention.head_count", 4},
                 {"context_length", 64}};
    static const size_t shape[2] = {VOCAB, 32};
    char file[600], key[96];
    const bal_family *family = NULL;
    bal_gguf_writer *w = NULL;
    bal_gguf *g = NULL;
    bal_status status;
    (void)snprintf(file, sizeof file, "%.500s/values.gguf", test_folder());
    BAL_TRY(bal_gguf_writer_new(&w));
    BAL_TRY(bal_gguf_writer_text(w, "general.architecture", "llama"));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        (void)snprintf(key, sizeof key, "llama.%s", sizes[i].key);
        BAL_TRY(bal_gguf_writer_u32(w, key, sizes[i].value));
    }
    for (size_t i = 0; texts[i][0] != NULL; i++)
        BAL_TRY(bal_gguf_writer_text(w, texts[i][0], texts[i][1]));
    for (size_t i = 0; i < n; i++)
        BAL_TRY(numbers[i] == 0 ? bal_gguf_writer_bool(w, keys[i], false)
                                : bal_gguf_writer_f32(w, keys[i], numbers[i]));
    BAL_TRY(bal_gguf_writer_tensor(w, "token_embd.weight", BAL_QUANT_F32, 2, shape, fill_zero, NULL));
    BAL_TRY(bal_gguf_writer_commit(w, file));
    BAL_TRY(bal_gguf_open(&g, file));
    status = bal_config_from_gguf(c, &family, g, "file");
out:
    bal_gguf_writer_free(w);
    bal_gguf_close(g);
    return status;
}

/* llama.cpp scales linearly when only a factor is said. */
TEST(values_of_a_gguf_file)
{
    static const char *const none[][2] = {{NULL, NULL}};
    static const char *const yarn[][2] = {{"llama.rope.scaling.type", "yarn"}, {NULL, NULL}};
    static const char *const off[][2] = {{"llama.rope.scaling.type", "none"}, {NULL, NULL}};
    const char *const factor[] = {"llama.rope.scaling.factor"}, *const causal[] = {"llama.attention.causal"};
    const char *const split[] = {"split.count"}, *const old[] = {"llama.rope.scale_linear"};
    bal_model_config c = {0};
    CHECK_OK(read_values(none, factor, (const double[]){4}, 1, &c));
    CHECK(c.rope.kind == BAL_ROPE_LINEAR && c.rope.factor == 4);
    CHECK_OK(read_values(none, factor, (const double[]){1}, 1, &c));
    CHECK(c.rope.kind == BAL_ROPE_DEFAULT);
    CHECK_OK(read_values(none, old, (const double[]){3}, 1, &c));
    CHECK(c.rope.kind == BAL_ROPE_LINEAR && c.rope.factor == 3);
    CHECK_OK(read_values(off, factor, (const double[]){4}, 1, &c));
    CHECK(c.rope.kind == BAL_ROPE_DEFAULT);
    CHECK_OK(read_values(yarn, factor, (const double[]){4}, 1, &c));
    CHECK(c.rope.kind == BAL_ROPE_YARN && c.rope.factor == 4);
    CHECK_STATUS(read_values(none, causal, (const double[]){0}, 1, &c), BAL_EUNSUPPORTED);
    CHECK(strstr(bal_error_message(), "llama.attention.causal") != NULL);
    CHECK_STATUS(read_values(none, split, (const double[]){3}, 1, &c), BAL_EUNSUPPORTED);
    CHECK(strstr(bal_error_message(), "one of 3 parts") != NULL);
}

/* Divisors of the frequencies and a factor: the new file says both once. */
TEST(divisors_and_factor)
{
    static double want[TOKENS * VOCAB], got[TOKENS * VOCAB];
    char dir[600], file[600], again[600];
    bal_gguf_report report;
    paths(dir, file, again);
    (void)snprintf(again, sizeof again, "%.500s/again.gguf", test_folder());
    bal_model *m = make("{\"model_type\": \"llama\", " SIZES
                        ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}",
                        dir),
              *g = NULL, *h = NULL;
    if (m != NULL && CHECK((m->rope_factors = bal_alloc(3, sizeof *m->rope_factors)) != NULL)) {
        for (size_t i = 0; i < 3; i++)
            m->rope_factors[i] = 1.5 + (double)i;
        if (logits_of(m, want) && CHECK_OK(bal_model_save_gguf(m, file, BAL_QUANT_F32, &report)) &&
            CHECK_OK(bal_model_load(&g, file)) && CHECK_OK(bal_model_save_gguf(g, again, BAL_QUANT_F32, &report)) &&
            CHECK_OK(bal_model_load(&h, again)) && logits_of(h, got))
            CHECK_MSG(distance(want, got) <= 1e-5, "logits differ by %g", distance(want, got));
    }
    bal_model_free(m);
    bal_model_free(g);
    bal_model_free(h);
}

/* Half precision ends at 65504. */
TEST(too_large_for_halves)
{
    char dir[600], file[600], back[600];
    bal_gguf_report report;
    bal_model *m = NULL;
    paths(dir, file, back);
    if (!CHECK_OK(bal_model_new(&m, "{\"model_type\": \"llama\", " SIZES "}", 5)))
        return;
    ((real_t *)m->params.values)[7] = 70000;
    CHECK_OK(bal_model_save_gguf(m, file, BAL_QUANT_F32, &report));
    CHECK_OK(bal_model_save_gguf(m, file, BAL_QUANT_BF16, &report));
    CHECK_STATUS(bal_model_save_gguf(m, file, BAL_QUANT_F16, &report), BAL_ENUMERIC);
    CHECK(strstr(bal_error_message(), "70000, too large for F16") != NULL);
    bal_model_free(m);
}

/* A Gemma file without a window, as a folder: transformers needs a window, so that it is one of no layer. */
TEST(gemma_without_window)
{
    bal_model *m = NULL;
    bal_buf text = {0};
    if (CHECK_OK(bal_model_new(&m, "{\"model_type\": \"gemma3_text\", " SIZES ", \"sliding_window\": null}", 5)) &&
        CHECK(m->config.window == 0) && CHECK_OK(bal_config_to_json(&text, &m->config, "float32"))) {
        CHECK(strstr(bal_buf_cstr(&text), "\"sliding_window\": 32,") != NULL);
        CHECK(strstr(bal_buf_cstr(&text),
                     "\"layer_types\": [\"full_attention\", \"full_attention\", \"full_attention\"]") != NULL);
    }
    bal_buf_dispose(&text);
    bal_model_free(m);
}

/* transformers takes a Mistral with layer_types for another type, so they are written only where they differ. */
TEST(mistral_has_no_layer_types)
{
    bal_model *m = NULL;
    bal_buf text = {0};
    if (CHECK_OK(bal_model_new(&m, "{\"model_type\": \"mistral\", " SIZES ", \"sliding_window\": 5}", 5)) &&
        CHECK(m->config.window == 5) && CHECK_OK(bal_config_to_json(&text, &m->config, "float32"))) {
        CHECK(strstr(bal_buf_cstr(&text), "\"sliding_window\": 5,") != NULL);
        CHECK(strstr(bal_buf_cstr(&text), "layer_types") == NULL);
    }
    bal_buf_dispose(&text);
    bal_model_free(m);
}

/* transformers refuses a whole number where a configuration has a real one, and the other way round. */
TEST(reals_are_written_as_reals)
{
    static const char *const wanted[] = {"\"attn_logit_softcapping\": 50.0,", "\"final_logit_softcapping\": 30.0,",
                                         "\"query_pre_attn_scalar\": 24,", "\"initializer_range\": 1.0,"};
    char dir[600], file[600], back[600];
    bal_model *m = NULL, *again = NULL;
    bal_buf text = {0};
    paths(dir, file, back);
    CHECK_OK(bal_folder_remove(dir));
    CHECK_OK(bal_folder_remove(back));
    if (CHECK_OK(bal_model_new(&m,
                               "{\"model_type\": \"gemma2\", \"num_hidden_layers\": 1, \"hidden_size\": 32, "
                               "\"num_attention_heads\": 4, \"intermediate_size\": 8, \"vocab_size\": 23, "
                               "\"head_dim\": 24, \"query_pre_attn_scalar\": 24, \"initializer_range\": 1}",
                               5)) &&
        CHECK_OK(bal_config_to_json(&text, &m->config, "float32"))) {
        for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
            CHECK_MSG(strstr(bal_buf_cstr(&text), wanted[i]) != NULL, "%s: %s", wanted[i], bal_buf_cstr(&text));
        /* a folder's own numbers keep their spelling */
        (void)snprintf(file, sizeof file, "%.500s/config.json", dir);
        if (CHECK_OK(bal_model_save(m, dir, BAL_DTYPE_F32)) && CHECK_OK(bal_model_load(&again, dir)) &&
            CHECK_OK(bal_model_save(again, back, BAL_DTYPE_BF16))) {
            bal_buf_clear(&text);
            (void)snprintf(file, sizeof file, "%.500s/config.json", back);
            CHECK_OK(bal_file_read(file, 1 << 20, &text));
            for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
                CHECK_MSG(strstr(bal_buf_cstr(&text), wanted[i]) != NULL, "%s: %s", wanted[i], bal_buf_cstr(&text));
        }
    }
    bal_buf_dispose(&text);
    bal_model_free(m);
    bal_model_free(again);
}
