/* Quantisers, written GGUF files, and models that go from one kind of file to the other and back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/gguf_write.h"
#include "lib/model/model.h"
#include "lib/model/pass.h"
#include "lib/model/save_gguf.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N = 512 };

/* The layouts once more, element by element: what a reader of the format does. */
static float half_at(const unsigned char *p)
{
    return bal_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

static float element(bal_quant q, const unsigned char *row, size_t i)
{
    const bal_quant_info *info = bal_quant_of(q);
    const unsigned char *p = row + i / info->block * info->bytes;
    size_t k = i % info->block;
    float f;
    switch (q) {
    case BAL_QUANT_F16:
        return half_at(p);
    case BAL_QUANT_BF16:
        return bal_bf16_to_f32((uint16_t)(p[0] | p[1] << 8));
    case BAL_QUANT_Q8_0:
        return half_at(p) * (float)(signed char)p[2 + k];
    case BAL_QUANT_Q4_0:
        return half_at(p) * (float)((k < 16 ? p[2 + k] & 15 : p[2 + k - 16] >> 4) - 8);
    case BAL_QUANT_Q4_1:
        return half_at(p) * (float)(k < 16 ? p[4 + k] & 15 : p[4 + k - 16] >> 4) + half_at(p + 2);
    case BAL_QUANT_Q4_K: {
        size_t b = k / 32;
        const unsigned char *s = p + 4;
        int scale = b < 4 ? s[b] & 63 : (s[b + 4] & 15) | (s[b - 4] >> 6) << 4;
        int minimum = b < 4 ? s[b + 4] & 63 : s[b + 4] >> 4 | (s[b] >> 6) << 4;
        unsigned char byte = p[16 + k / 64 * 32 + k % 32];
        int v = b % 2 == 0 ? byte & 15 : byte >> 4;
        return half_at(p) * (float)scale * (float)v - half_at(p + 2) * (float)minimum;
    }
    case BAL_QUANT_Q6_K: {
        size_t h = k / 128, l = k % 128;
        int low = p[h * 64 + l % 64];
        low = l < 64 ? low & 15 : low >> 4;
        int high = p[128 + h * 32 + l % 32] >> (2 * (l / 32)) & 3;
        return half_at(p + 208) * (float)(signed char)p[192 + k / 16] * (float)((low | high << 4) - 32);
    }
    default:
        memcpy(&f, p, sizeof f);
        return f;
    }
}

static double relative_error(bal_quant q, const float *x)
{
    static unsigned char row[N * 4];
    double error = 0, norm = 0;
    bal_quantize_row(q, x, N, row);
    for (size_t i = 0; i < N; i++) {
        double e = (double)x[i] - (double)element(q, row, i);
        error += e * e;
        norm += (double)x[i] * (double)x[i];
    }
    return norm > 0 ? sqrt(error / norm) : sqrt(error);
}

/* Bounds: what llama.cpp's own functions reach on normal numbers (gguf 0.17 quants.py for the four that it has). */
TEST(quantisers_keep_normal_numbers)
{
    static const double most[BAL_QUANT_COUNT] = {
        [BAL_QUANT_F32] = 0,       [BAL_QUANT_F16] = 4e-4,    [BAL_QUANT_BF16] = 3e-3,   [BAL_QUANT_Q8_0] = 0.0062,
        [BAL_QUANT_Q4_0] = 0.0900, [BAL_QUANT_Q4_1] = 0.0735, [BAL_QUANT_Q4_K] = 0.0740, [BAL_QUANT_Q6_K] = 0.0200};
    static float x[N];
    bal_rng rng;
    for (int trial = 0; trial < 20; trial++) {
        bal_rng_init(&rng, (uint64_t)trial, "quantise");
        for (size_t i = 0; i < N; i++)
            x[i] = (float)(bal_rng_normal(&rng) * 0.05);
        for (int q = 0; q < BAL_QUANT_COUNT; q++) {
            double error = relative_error((bal_quant)q, x);
            CHECK_MSG(error <= most[q], "%s: %g", bal_quant_of((bal_quant)q)->name, error);
            CHECK(q <= BAL_QUANT_BF16 || error > most[q] / 4); /* it is a quantisation */
        }
    }
}

TEST(quantisers_meet_unusual_rows)
{
    static float x[N];
    for (int kind = 0; kind < 6; kind++)
        for (int q = 0; q < BAL_QUANT_COUNT; q++) {
            for (size_t i = 0; i < N; i++)
                x[i] = kind == 0   ? 0
                       : kind == 1 ? 0.25F
                       : kind == 2 ? -0.25F
                       : kind == 3 ? (i == 37 ? 8.0F : 0)
                       : kind == 4 ? (float)i / N
                                   : (i % 2 == 0 ? 1e-6F : -1e-6F);
            double error = relative_error((bal_quant)q, x);
            CHECK_MSG(error <= (kind == 5 ? 1.0 : 0.09), "%s, row %d: %g", bal_quant_of((bal_quant)q)->name, kind,
                      error);
        }
    bal_quant q;
    CHECK(bal_quant_parse("q4_k", &q) && q == BAL_QUANT_Q4_K && !bal_quant_parse("q3_k", &q));
}

static bal_status fill(void *context, size_t row0, size_t n_rows, real_t *out)
{
    size_t cols = *(size_t *)context;
    for (size_t i = 0; i < n_rows * cols; i++)
        out[i] = (real_t)sin((double)(row0 * cols + i));
    return BAL_OK;
}

static bal_status fill_nan(void *context, size_t row0, size_t n_rows, real_t *out)
{
    bal_status status = fill(context, row0, n_rows, out);
    out[0] = (real_t)NAN;
    return status;
}

TEST(written_file_is_read)
{
    char path[600];
    bal_gguf_writer *w = NULL;
    bal_gguf *g = NULL;
    size_t cols = 64, each = 1, n = 64, shape[2] = {5, 64}, odd[2] = {5, 33};
    const int32_t numbers[3] = {1, -2, 3};
    const bal_gguf_text texts[2] = {{"ab", 2}, {"", 0}};
    (void)snprintf(path, sizeof path, "%.500s/x.gguf", test_folder());
    CHECK_OK(bal_gguf_writer_new(&w));
    CHECK_OK(bal_gguf_writer_text(w, "general.architecture", "llama"));
    CHECK_OK(bal_gguf_writer_u32(w, "a.u", 7));
    CHECK_OK(bal_gguf_writer_f32(w, "a.f", 0.5));
    CHECK_OK(bal_gguf_writer_bool(w, "a.b", true));
    CHECK_OK(bal_gguf_writer_i32s(w, "a.i", numbers, 3));
    CHECK_OK(bal_gguf_writer_texts(w, "a.t", texts, 2));
    CHECK_OK(bal_gguf_writer_tensor(w, "m.weight", BAL_QUANT_Q4_1, 2, shape, fill, &cols));
    CHECK_OK(bal_gguf_writer_tensor(w, "v.weight", BAL_QUANT_F32, 1, &n, fill, &each));
    CHECK_STATUS(bal_gguf_writer_tensor(w, "odd", BAL_QUANT_Q8_0, 2, odd, fill, &cols), BAL_EINVAL);
    if (CHECK_OK(bal_gguf_writer_commit(w, path)) && CHECK_OK(bal_gguf_open(&g, path))) {
        int64_t u = 0;
        CHECK_OK(bal_gguf_i64(g, "a.u", &u, NULL));
        CHECK(u == 7 && bal_gguf_element(bal_gguf_find(g, "a.i"), 1) == -2);
        CHECK(bal_gguf_find(g, "a.t")->n == 2 && bal_gguf_find(g, "a.t")->texts[0].n == 2);
        CHECK_TEXT(bal_gguf_text_of(g, "general.architecture"), "llama");
        const bal_tensor *m = bal_gguf_tensor(g, "m.weight"), *v = bal_gguf_tensor(g, "v.weight");
        if (CHECK(m != NULL && v != NULL && m->shape[0] == 5 && m->shape[1] == 64 && v->shape[0] == 64)) {
            bal_view view;
            real_t row[64];
            CHECK_OK(bal_tensor_view(m, &view));
            bal_view_dequant(&view, 4, 1, row, 64);
            for (size_t i = 0; i < 64; i++)
                CHECK_NEAR(row[i], sin((double)(4 * 64 + i)), 0.08);
        }
    }
    bal_gguf_close(g);
    bal_gguf_writer_free(w);
    w = NULL;
    CHECK_OK(bal_gguf_writer_new(&w));
    CHECK_OK(bal_gguf_writer_tensor(w, "m.weight", BAL_QUANT_F16, 2, shape, fill_nan, &cols));
    CHECK_STATUS(bal_gguf_writer_commit(w, path), BAL_ENUMERIC);
    bal_gguf_writer_free(w);
}

static const char k_config[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 32, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"head_dim\": 8, \"intermediate_size\": 64, \"vocab_size\": 19, "
    "\"attention_bias\": false, \"tie_word_embeddings\": %s, \"initializer_range\": 0.3, \"eos_token_id\": 2, "
    "\"max_position_embeddings\": 8192%s}";

static double fingerprint(bal_model *m)
{
    const bal_pass_options o = {.max_tokens = 9, .max_seqs = 1, .max_seq_len = 9};
    const int32_t ids[9] = {1, 5, 16, 0, 7, 3, 3, 2, 11};
    bal_pass *p = NULL;
    bal_batch b;
    double sum = 0;
    if (!CHECK_OK(bal_batch_init(&b, 9, 1)))
        return NAN;
    bal_batch_clear(&b);
    CHECK_OK(bal_batch_add(&b, ids, NULL, 9));
    bal_batch_finish(&b, false);
    if (CHECK_OK(bal_pass_new(&p, m, &o)) && CHECK_OK(bal_pass_forward(p, &b, BAL_STUDENT)))
        for (size_t i = 0; i < 9 * m->config.hidden; i++)
            sum += (double)bal_pass_final(p, BAL_STUDENT)[i] * (i % 3 == 0 ? -1 : 1 + 0.01 * (double)i);
    bal_pass_free(p);
    bal_batch_dispose(&b);
    return sum;
}

static bal_model *new_model(bool tied, const char *more)
{
    char text[900];
    bal_model *m = NULL;
    (void)snprintf(text, sizeof text, k_config, tied ? "true" : "false", more);
    CHECK_OK(bal_model_new(&m, text, 5));
    return m;
}

/* Folder -> GGUF -> folder: the same function, to the precision of the type. */
static void check_round_trip(bool tied, const char *rope, bal_quant quant, double tolerance)
{
    char dir[600], file[600], back[600];
    bal_gguf_report report;
    bal_model *made = new_model(tied, rope), *m = NULL, *g = NULL, *h = NULL;
    (void)snprintf(dir, sizeof dir, "%.500s/hf", test_folder());
    (void)snprintf(file, sizeof file, "%.500s/model.gguf", test_folder());
    (void)snprintf(back, sizeof back, "%.500s/back", test_folder());
    CHECK_OK(bal_folder_remove(dir));
    CHECK_OK(bal_folder_remove(back));
    if (made != NULL && CHECK_OK(bal_model_save(made, dir, BAL_DTYPE_F32)) && CHECK_OK(bal_model_load(&m, dir)) &&
        CHECK_OK(bal_model_save_gguf(m, file, quant, &report)) && CHECK_OK(bal_model_load(&g, file))) {
        CHECK(report.n_tensors == 2 * 9 + (tied ? 2U : 3U) && report.note[0] != '\0'); /* no tokenizer here */
        CHECK_NEAR(fingerprint(g), fingerprint(m), tolerance);
        CHECK(g->config.tied_head == tied && g->config.max_positions == 8192);
        if (CHECK_OK(bal_model_save(g, back, BAL_DTYPE_F32)) && CHECK_OK(bal_model_load(&h, back)))
            CHECK_NEAR(fingerprint(h), fingerprint(g), 1e-4);
    }
    bal_model_free(made);
    bal_model_free(m);
    bal_model_free(g);
    bal_model_free(h);
}

TEST(model_to_gguf_and_back)
{
    check_round_trip(true, "", BAL_QUANT_F32, 1e-4);
    check_round_trip(false, "", BAL_QUANT_F32, 1e-4);
    check_round_trip(false, "", BAL_QUANT_F16, 1);
    check_round_trip(
        false,
        ",\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
        "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}",
        BAL_QUANT_F32, 1e-4);
    check_round_trip(false, ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":4.0}", BAL_QUANT_F32, 1e-4);
}

TEST(quantised_model_is_near)
{
    char file[600];
    bal_gguf_report report;
    bal_model *m = new_model(false, ""), *g = NULL;
    (void)snprintf(file, sizeof file, "%.500s/q.gguf", test_folder());
    if (m != NULL && CHECK_OK(bal_model_save_gguf(m, file, BAL_QUANT_Q8_0, &report)) &&
        CHECK_OK(bal_model_load(&g, file))) {
        CHECK(g->blocks[0].linear[BAL_SLOT_K].w.dtype == BAL_DTYPE_Q8_0 && report.n_replaced == 0);
        double a = fingerprint(m), b = fingerprint(g);
        CHECK(fabs(a - b) < 30 && a != b);
    }
    bal_model_free(g);
    g = NULL;
    /* 32 and 64 columns are no blocks of 256 */
    if (m != NULL && CHECK_OK(bal_model_save_gguf(m, file, BAL_QUANT_Q4_K, &report)) &&
        CHECK_OK(bal_model_load(&g, file)))
        CHECK(report.n_replaced == 16 && g->embed.w.dtype == BAL_DTYPE_Q8_0);
    bal_model_free(g);
    bal_model_free(m);
}

TEST(shards_and_their_index)
{
    char dir[600], path[700], note[256];
    bal_model *m = new_model(false, ""), *read = NULL;
    (void)snprintf(dir, sizeof dir, "%.500s/shards", test_folder());
    if (m != NULL && CHECK_OK(bal_model_save_sharded(m, dir, BAL_DTYPE_F32, 20000, note, sizeof note)) &&
        CHECK_OK(bal_model_load(&read, dir)))
        CHECK_NEAR(fingerprint(read), fingerprint(m), 1e-5);
    (void)snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    CHECK(bal_file_exists(path));
    (void)snprintf(path, sizeof path, "%s/model.safetensors", dir);
    CHECK(!bal_file_exists(path));
    bal_model_free(read);
    bal_model_free(m);
}

/* The factors of the file, as llama.cpp applies them (alpha / rank, rows in the file's order), are the update. */
TEST(adapter_to_gguf)
{
    for (int rslora = 0; rslora < 2; rslora++) {
        char file[600], target[] = "all-linear", *targets[] = {target};
        bal_model *m = new_model(false, "");
        bal_adapter *a = NULL;
        bal_gguf *g = NULL;
        bal_adapter_config c = {.r = 4,
                                .lora_alpha = 6,
                                .use_rslora = rslora == 1,
                                .init = "lora",
                                .target_modules = targets,
                                .n_target_modules = 1};
        (void)snprintf(file, sizeof file, "%.500s/a.gguf", test_folder());
        if (m == NULL || !CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 3, false)))
            return;
        for (size_t i = 0; i < a->params.n; i++)
            a->params.values[i] += (real_t)0.05 * (real_t)((double)(i % 7) - 3);
        if (CHECK_OK(bal_adapter_save_gguf(a, m, file, BAL_QUANT_F32)) && CHECK_OK(bal_gguf_open(&g, file))) {
            const bal_tensor *ta = bal_gguf_tensor(g, "blk.1.attn_k.weight.lora_a");
            const bal_tensor *tb = bal_gguf_tensor(g, "blk.1.attn_k.weight.lora_b");
            const bal_lora *l = bal_adapter_find(a, "model.layers.1.self_attn.k_proj");
            double alpha = 0;
            static real_t D[16 * 32];
            memset(D, 0, sizeof D);
            CHECK_OK(bal_gguf_f64(g, "adapter.lora.alpha", &alpha, NULL));
            CHECK_TEXT(bal_gguf_text_of(g, "general.type"), "adapter");
            CHECK_TEXT(bal_gguf_text_of(g, "adapter.type"), "lora");
            CHECK(bal_gguf_count_tensors(g) == 2 * a->n_loras);
            if (CHECK(ta != NULL && tb != NULL && l != NULL && ta->shape[0] == 4 && tb->shape[0] == 16)) {
                bal_lora_add_delta(l, 0, 16, D, 32);
                for (size_t i = 0; i < 16; i++)
                    for (size_t j = 0; j < 32; j++) {
                        /* of each head of 8, file row 2i holds i and 2i + 1 holds i + 4 */
                        size_t k = i % 8, at = i - k + (k < 4 ? 2 * k : 2 * (k - 4) + 1);
                        double sum = 0;
                        for (size_t r = 0; r < 4; r++)
                            sum += (double)((const float *)tb->data)[at * 4 + r] *
                                   (double)((const float *)ta->data)[r * 32 + j];
                        CHECK_NEAR(alpha / 4 * sum, D[i * 32 + j], 1e-5);
                    }
            }
        }
        bal_gguf_close(g);
        bal_adapter_free(a);
        bal_model_free(m);
    }
}
