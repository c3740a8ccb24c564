/* Bases packed in memory: types and bytes, forward passes, the starts that go with them, files and back.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/model/pack.h"
#include "lib/model/pass.h"
#include "lib/tensor/nf4.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 9, VOCAB = 61, HIDDEN = 64, R = 4 };

static const char k_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":61,\"rms_norm_eps\":1e-5,"
    "\"max_position_embeddings\":64,\"initializer_range\":0.15,\"tie_word_embeddings\":true}";

static char g_all[] = "all-linear";

static void path_of(const char *name, char out[512])
{
    (void)snprintf(out, 512, "%.200s/%.200s", test_folder(), name);
}

static bal_model *load(void)
{
    char path[512];
    bal_model *m = NULL;
    path_of("model", path);
    if (!bal_folder_exists(path)) {
        if (!CHECK_OK(bal_model_new(&m, k_config, 5)) || !CHECK_OK(bal_folder_make(path)) ||
            !CHECK_OK(bal_model_save(m, path, BAL_DTYPE_F32)))
            return NULL;
        bal_model_free(m);
    }
    return CHECK_OK(bal_model_load(&m, path)) ? m : NULL;
}

static bal_adapter *new_adapter(const bal_model *m)
{
    char *targets[] = {g_all};
    bal_adapter *a = NULL;
    bal_adapter_config c = {.r = R, .lora_alpha = 2 * R, .target_modules = targets, .n_target_modules = 1};
    (void)snprintf(c.init, sizeof c.init, "lora");
    (void)snprintf(c.task_type, sizeof c.task_type, "CAUSAL_LM");
    CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, true));
    return a;
}

/* The final hidden rows of a fixed text; role TEACHER: without the adapter. */
static void run(bal_model *m, bal_role role, double out[TOKENS * HIDDEN])
{
    static const int32_t ids[TOKENS] = {3, 14, 15, 9, 26, 53, 58, 9, 7};
    bal_pass_options o = {.max_tokens = TOKENS, .max_seqs = 1, .backward = true, .teacher = true};
    bal_pass *p = NULL;
    bal_batch b;
    if (!CHECK_OK(bal_batch_init(&b, TOKENS, 1)) || !CHECK_OK(bal_batch_add(&b, ids, NULL, TOKENS)) ||
        !CHECK_OK(bal_pass_new(&p, m, &o)) || !CHECK_OK(bal_pass_forward(p, &b, role)))
        return;
    for (size_t i = 0; i < TOKENS * HIDDEN; i++)
        out[i] = (double)bal_pass_final(p, role)[i];
    bal_pass_free(p);
    bal_batch_dispose(&b);
}

static double distance(const double *a, const double *b)
{
    double sum = 0;
    for (size_t i = 0; i < TOKENS * HIDDEN; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum / (TOKENS * HIDDEN));
}

static double g_base[TOKENS * HIDDEN], g_a[TOKENS * HIDDEN], g_b[TOKENS * HIDDEN];

/* How far the views' values are from the file's, over all modules. */
static double weight_error(const bal_model *m, const bal_model *whole)
{
    static real_t x[128 * 128], y[128 * 128];
    double e = 0, size = 0;
    for (size_t i = 0; i < 14; i++) {
        const bal_view *w = m->modules[i].w;
        bal_view_dequant(w, 0, w->rows, x, w->cols);
        bal_view_dequant(whole->modules[i].w, 0, w->rows, y, w->cols);
        for (size_t j = 0; j < w->rows * w->cols; j++) {
            e += pow((double)x[j] - (double)y[j], 2);
            size += (double)y[j] * (double)y[j];
        }
    }
    return sqrt(e / size);
}

TEST(packed_matrices_take_their_bytes)
{
    bal_model *m = load(), *whole = load();
    bal_pack_report r;
    if (m == NULL || whole == NULL)
        return;
    int64_t before = (int64_t)bal_mem_bytes();
    if (!CHECK_OK(bal_model_pack(m, BAL_DTYPE_NF4, &r)))
        return;
    size_t n = 0;
    for (size_t i = 0; i < 14; i++) { /* the linears of the blocks come first */
        CHECK(m->modules[i].w->dtype == BAL_DTYPE_NF4 && m->modules[i].w->row_bytes == m->modules[i].w->cols / 64 * 36);
        n += m->modules[i].w->rows * m->modules[i].w->cols;
    }
    CHECK(r.n_packed == 14 && r.n_left == 0 && r.bytes_before == 4.0 * (double)n &&
          r.bytes_after == 0.5625 * (double)n);
    double taken = (double)((int64_t)bal_mem_bytes() - before);
    CHECK_MSG(taken < 0.5625 * (double)n + 16384, "%g bytes for %zu weights", taken, n); /* no copy in f32 is kept */
    CHECK(m->embed.w.dtype != BAL_DTYPE_NF4);
    double e = weight_error(m, whole);
    CHECK_MSG(e > 0.07 && e < 0.11, "%g", e);
    CHECK_STATUS(bal_model_pack(m, BAL_DTYPE_NF4, &r), BAL_EINVAL);
    bal_model_free(m);
    bal_model_free(whole);
}

static bool g_forget; /* the mutation: the base is not made again before the adapter is read */

/* A start over a packed base: nearer to the file's model than packing alone, equal with and without the adapter, and the
 * same model after saving and loading. */
static void check_start(bal_packed_kind kind, bal_dtype type, size_t rounds)
{
    char dir[512];
    bal_model *whole = load(), *plain = load(), *m = load(), *again = load();
    bal_pack_report r, none;
    bal_adapter *a = NULL, *b = NULL;
    bal_rng rng;
    if (whole == NULL || plain == NULL || m == NULL || again == NULL || (a = new_adapter(m)) == NULL)
        return;
    CHECK_OK(bal_model_pack(plain, type, &none));
    if (!CHECK_OK(bal_model_pack_start(m, type, kind, rounds, a, &r)) || !CHECK_OK(bal_model_attach(m, a)))
        return;
    CHECK(m->modules[0].w->dtype == type && m->modules[0].w->low_r == R && r.error < r.plain);
    CHECK_MSG(weight_error(m, whole) < 0.97 * weight_error(plain, whole), "%g, packed alone %g", weight_error(m, whole),
              weight_error(plain, whole));
    run(whole, BAL_STUDENT, g_base);
    run(m, BAL_TEACHER, g_a);
    run(m, BAL_STUDENT, g_b);
    CHECK(distance(g_a, g_b) < 1e-5); /* the start changes nothing */
    run(plain, BAL_STUDENT, g_b);
    CHECK_MSG(distance(g_a, g_base) < distance(g_b, g_base), "%g, packed alone %g", distance(g_a, g_base),
              distance(g_b, g_base));
    bal_rng_init(&rng, 2, "trained");
    for (size_t i = 0; i < a->params.n; i++)
        a->params.values[i] += (real_t)(0.05 * bal_rng_normal(&rng));
    run(m, BAL_STUDENT, g_a);
    path_of("run", dir);
    CHECK_OK(bal_adapter_save_final(a, dir));
    CHECK_OK(bal_model_save_base(m, dir));
    for (int pair = 0; pair < 2; pair++) { /* the plain form, then the pair */
        path_of(pair == 0 ? "run" : "run/pissa", dir);
        if (!g_forget)
            CHECK_OK(bal_model_load_base(again, dir, NULL, 0)); /* the second time it is there */
        if (!CHECK_OK(bal_adapter_load(&b, dir, NULL, again->modules, again->n_modules, false, NULL, 0)) ||
            !CHECK_OK(bal_model_attach(again, b)))
            return;
        run(again, BAL_STUDENT, g_b);
        CHECK_MSG(distance(g_a, g_b) < 1e-4, "%s: %g", dir, distance(g_a, g_b));
        (void)bal_model_attach(again, NULL);
        bal_adapter_free(b);
    }
    size_t bytes = m->modules[0].w->rows * m->modules[0].w->row_bytes;
    CHECK(again->modules[0].w->dtype == m->modules[0].w->dtype &&
          memcmp(again->modules[0].w->data, m->modules[0].w->data, bytes) == 0); /* the same bits */
    (void)bal_model_attach(m, NULL);
    bal_adapter_free(a);
    bal_model_free(whole);
    bal_model_free(plain);
    bal_model_free(m);
    bal_model_free(again);
}

TEST(loftq_and_qpissa)
{
    if (BAL_REAL_IS_DOUBLE)
        SKIP("the saved factors are f32");
    check_start(BAL_PACKED_LOFTQ, BAL_DTYPE_NF4, 1);
    check_start(BAL_PACKED_LOFTQ, BAL_DTYPE_NF4, 3);
    check_start(BAL_PACKED_PISSA, BAL_DTYPE_NF4, 3);
    check_start(BAL_PACKED_PISSA, BAL_DTYPE_Q4_0, 2);
}

static void forgotten(void)
{
    check_start(BAL_PACKED_LOFTQ, BAL_DTYPE_NF4, 1);
}

TEST(another_base_is_noticed)
{
    if (BAL_REAL_IS_DOUBLE)
        SKIP("the saved factors are f32");
    g_forget = true;
    CHECK(test_count_failures(forgotten) > 0);
    g_forget = false;
}

/* A base that is packed already, with the weights in full at hand. */
TEST(loftq_of_a_packed_file)
{
    bal_model *whole = load(), *m = load();
    bal_adapter *a = NULL;
    bal_pack_report r;
    if (whole == NULL || m == NULL || (a = new_adapter(m)) == NULL || !CHECK_OK(bal_model_pack(m, BAL_DTYPE_Q4_1, &r)))
        return;
    m->base.type = BAL_DTYPE_COUNT; /* as if its file were so */
    double alone = weight_error(m, whole);
    const void *data = m->modules[3].w->data;
    if (!CHECK_OK(bal_model_start_from(m, whole, a, &r)))
        return;
    CHECK(m->modules[3].w->data == data && m->modules[3].w->dtype == BAL_DTYPE_Q4_1 && r.packed_before);
    CHECK(weight_error(m, whole) < 0.97 * alone);
    CHECK_TEXT(a->config.init, "loftq");
    CHECK_OK(bal_model_attach(m, a));
    run(m, BAL_TEACHER, g_a);
    run(m, BAL_STUDENT, g_b);
    CHECK(distance(g_a, g_b) < 1e-5);
    (void)bal_model_attach(m, NULL);
    bal_adapter_free(a);
    bal_model_free(m);
    bal_model_free(whole);
}

TEST(broken_descriptions)
{
    static const struct {
        const char *text;
        bal_status want;
    } cases[] = {{"{", BAL_EFORMAT},
                 {"{\"type\":\"nf5\"}", BAL_EFORMAT},
                 {"{\"type\":\"nf4\",\"start\":\"x\"}", BAL_EFORMAT},
                 {"{\"type\":\"nf4\",\"start\":\"pissa\",\"shift\":\"initial\"}", BAL_ENOENT},
                 {"{\"type\":\"nf4\",\"start\":null,\"shift\":\"y\"}", BAL_EFORMAT},
                 {"{\"type\":null,\"start\":null}", BAL_OK}};
    char dir[512], spec[540];
    path_of("odd/balora", dir);
    CHECK_OK(bal_folder_make(dir));
    (void)snprintf(spec, sizeof spec, "%s/base.json", dir);
    path_of("odd", dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bal_model *m = load();
        CHECK_OK(bal_file_replace(spec, cases[i].text, strlen(cases[i].text)));
        bal_status status = m == NULL ? BAL_ENOMEM : bal_model_load_base(m, dir, NULL, 0);
        CHECK_MSG(status == cases[i].want, "%s: %d", cases[i].text, (int)status);
        bal_model_free(m);
    }
}
