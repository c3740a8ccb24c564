/* Dequantised weights and spectra of a real GGUF model against gguf.quants and LAPACK.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/gguf.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <string.h>

static const char *const k_model = "models/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf";

/* Rows of q and k are stored in pairs, per head. */
static bal_status open_view(const bal_gguf *g, const char *gguf_name, bool hf_order, bal_view *v)
{
    int64_t width = 0, heads = 1;
    const bal_tensor *t = bal_gguf_tensor(g, gguf_name);
    if (t == NULL)
        return bal_fail(BAL_ENOENT, "tensor %s is missing", gguf_name);
    bal_status status = bal_tensor_view(t, v);
    if (status == BAL_OK && hf_order &&
        (strstr(gguf_name, "attn_q.") != NULL || strstr(gguf_name, "attn_k.") != NULL)) {
        BAL_TRY(bal_gguf_i64(g, "llama.embedding_length", &width, NULL));
        BAL_TRY(bal_gguf_i64(g, "llama.attention.head_count", &heads, NULL));
        v->rope_head_dim = (uint32_t)(width / heads);
    }
out:
    return status;
}

static void check_hash(const bal_gguf *g, const cJSON *line, bool hf_order)
{
    const char *name = NULL, *want = NULL;
    char got[65];
    bal_view v;
    CHECK_OK(bal_json_text(line, "line", "gguf", &name, NULL));
    CHECK_OK(bal_json_text(line, "line", hf_order ? "sha256_f32_hf_order" : "sha256_f32_gguf_order", &want, NULL));
    if (name == NULL || want == NULL || !CHECK_OK(open_view(g, name, hf_order, &v)))
        return;
    float *out = bal_alloc(v.rows * v.cols, sizeof *out);
    for (size_t r = 0; r < v.rows; r++)
        bal_row_to_f32(v.dtype, bal_view_row(&v, r), v.cols, out + r * v.cols);
    bal_sha256_hex(out, v.rows * v.cols * sizeof *out, got);
    CHECK_MSG(strcmp(got, want) == 0, "%s in %s order: %s, not %s", name, hf_order ? "HF" : "GGUF", got, want);
    bal_free(out);
}

TEST(dequantised_values_bit_for_bit)
{
    const char *model = test_shared(k_model), *lines = test_shared("golden/real/smollm2-dequant/tensors.jsonl");
    bal_gguf *g;
    bal_lines *file = NULL;
    size_t n = 0;
    if (model == NULL || lines == NULL)
        SKIP("the shared folder is not there");
    if (!CHECK_OK(bal_gguf_open(&g, model)) || !CHECK_OK(bal_lines_open(&file, lines)))
        return;
    for (;;) {
        cJSON *line = NULL;
        if (!CHECK_OK(bal_jsonl_next(file, &line)) || line == NULL)
            break;
        const cJSON *name = bal_json_member(line, "gguf"); /* the order differs for q and k only */
        bool paired = cJSON_IsString(name) && strstr(name->valuestring, ".attn_") != NULL;
        check_hash(g, line, true);
        if (paired)
            check_hash(g, line, false);
        cJSON_Delete(line);
        n++;
    }
    CHECK(n == bal_gguf_count_tensors(g));
    bal_lines_close(file);
    bal_gguf_close(g);
}

/* The GGUF name of a Hugging Face name, from the list of tensors. */
static bool find_gguf_name(const char *hf, char *out, size_t n)
{
    bal_lines *file = NULL;
    bool found = false;
    if (!CHECK_OK(bal_lines_open(&file, test_shared("golden/real/smollm2-dequant/tensors.jsonl"))))
        return false;
    while (!found) {
        cJSON *line = NULL;
        const char *a = NULL, *b = NULL;
        if (!CHECK_OK(bal_jsonl_next(file, &line)) || line == NULL)
            break;
        CHECK_OK(bal_json_text(line, "line", "hf", &a, NULL));
        CHECK_OK(bal_json_text(line, "line", "gguf", &b, NULL));
        found = a != NULL && b != NULL && strcmp(a, hf) == 0 && strlen(b) < n;
        if (found)
            memcpy(out, b, strlen(b) + 1);
        cJSON_Delete(line);
    }
    bal_lines_close(file);
    return found;
}

enum { LEADING = 16 };

/* All singular values, and the leading ones by the quick way, within 1e-12 of the largest. */
static void check_spectrum(const bal_gguf *g, const bal_tensor *want)
{
    char name[128];
    bal_view v;
    const double *sigma = want->data;
    if (!CHECK_MSG(find_gguf_name(want->name, name, sizeof name), "%s is not in the list", want->name) ||
        !CHECK_OK(open_view(g, name, true, &v)))
        return;
    size_t k = v.rows < v.cols ? v.rows : v.cols;
    double *A = bal_alloc(v.rows * v.cols, sizeof *A), *s = bal_alloc(k, sizeof *s);
    double *U = bal_alloc(v.rows, LEADING * sizeof *U), *Vt = bal_alloc(LEADING, v.cols * sizeof *Vt);
    float *row = bal_alloc(v.cols, sizeof *row);
    for (size_t r = 0; r < v.rows; r++) {
        bal_row_to_f32(v.dtype, bal_view_row(&v, r), v.cols, row);
        for (size_t j = 0; j < v.cols; j++)
            A[r * v.cols + j] = (double)row[j];
    }
    CHECK(k == want->n_elements);
    if (CHECK_OK(bal_svd(v.rows, v.cols, A, NULL, s, NULL)))
        for (size_t i = 0; i < k; i++)
            if (!CHECK_MSG(fabs(s[i] - sigma[i]) <= 1e-12 * sigma[0], "%s: sigma %zu is %.15g, not %.15g", want->name,
                           i, s[i], sigma[i]))
                break;
    if (CHECK_OK(bal_svd_leading(v.rows, v.cols, A, LEADING, U, s, Vt)))
        for (size_t i = 0; i < LEADING; i++)
            CHECK_NEAR(s[i], sigma[i], 1e-12 * sigma[0]);
    bal_free(A);
    bal_free(s);
    bal_free(U);
    bal_free(Vt);
    bal_free(row);
}

TEST(spectra_of_real_matrices)
{
    const char *model = test_shared(k_model), *path = test_shared("golden/real/smollm2-spectra/expected.safetensors");
    bal_gguf *g;
    bal_safetensors *expected;
    if (model == NULL || path == NULL)
        SKIP("the shared folder is not there");
    if (!CHECK_OK(bal_gguf_open(&g, model)) || !CHECK_OK(bal_safetensors_open(&expected, path)))
        return;
    CHECK(bal_safetensors_count(expected) > 0);
    for (size_t i = 0; i < bal_safetensors_count(expected); i++)
        check_spectrum(g, bal_safetensors_at(expected, i));
    bal_safetensors_close(expected);
    bal_gguf_close(g);
}
