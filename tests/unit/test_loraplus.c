/* Whole runs of balora train with LoRA+: AdamW's first update has the size of the rate, so that the step of each B
 * against that of its A can be read from the files; and a run that was interrupted ends with the same bits.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"
#include "lib/model/model.h"
#include "tests/program.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char k_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"vocab_size\":31,\"rms_norm_eps\":1e-5,\"initializer_range\":0.3,"
    "\"max_position_embeddings\":64,\"tie_word_embeddings\":true}";

static bool prepare(void)
{
    char model[TEST_PATH], data[TEST_PATH];
    (void)snprintf(model, sizeof model, "%s/model", test_folder());
    (void)snprintf(data, sizeof data, "%s/data.jsonl", test_folder());
    bal_model *m = NULL;
    bool ok = CHECK_OK(bal_model_new(&m, k_config, 1)) && CHECK_OK(bal_folder_make(model)) &&
              CHECK_OK(bal_model_save(m, model, BAL_DTYPE_F32));
    bal_model_free(m);
    bal_buf b = {0};
    for (int i = 0; i < 12; i++) {
        (void)bal_buf_printf(&b, "{\"input_ids\":[%d", i);
        for (int j = 1; j < 9 + i % 4; j++)
            (void)bal_buf_printf(&b, ",%d", (i * 7 + j * j * 3) % 31);
        (void)bal_buf_text(&b, "]}\n");
    }
    ok = ok && CHECK_OK(bal_file_replace(data, b.data, b.len));
    bal_buf_dispose(&b);
    return ok;
}

static int train(const char *out, const char *ratio, const char *steps, const char *key, const char *value)
{
    bool full = strcmp(key, "--dtype") == 0;
    const char *words[] = {"balora",
                           "train",
                           "--model",
                           "model",
                           "--data",
                           "data.jsonl",
                           "--method",
                           full ? "full" : "pissa",
                           "--r",
                           "3",
                           "--lr",
                           "1e-4",
                           "--order",
                           "file",
                           "--lr-scheduler",
                           "constant",
                           "--batch-size",
                           "4",
                           "--threads",
                           "2",
                           "--no-store",
                           "--adam-epsilon",
                           "1e-20",
                           "-q",
                           "--out",
                           out,
                           "--loraplus-lr-ratio",
                           ratio,
                           "--max-steps",
                           steps,
                           key,
                           value,
                           NULL};
    return test_wait(test_start(test_folder(), words, NULL, NULL));
}

/* The mean |after - before| of the tensors whose name holds `part`. */
static double mean_step(const char *out, const char *part)
{
    char path[TEST_PATH];
    bal_safetensors *now = NULL, *then = NULL;
    double sum = 0;
    size_t n = 0;
    (void)snprintf(path, sizeof path, "%s/%s/pissa/adapter_model.safetensors", test_folder(), out);
    bool ok = CHECK_OK(bal_safetensors_open(&now, path));
    (void)snprintf(path, sizeof path, "%s/%s/balora/initial/adapter_model.safetensors", test_folder(), out);
    ok = ok && CHECK_OK(bal_safetensors_open(&then, path));
    for (size_t i = 0; ok && i < bal_safetensors_count(now); i++) {
        const bal_tensor *a = bal_safetensors_at(now, i), *b = bal_safetensors_find(then, a->name);
        if (strstr(a->name, part) == NULL)
            continue;
        if (!CHECK(b != NULL && b->n_elements == a->n_elements))
            break;
        const float *x = a->data, *y = b->data;
        for (size_t j = 0; j < a->n_elements; j++, n++)
            sum += fabs((double)x[j] - (double)y[j]);
    }
    bal_safetensors_close(now);
    bal_safetensors_close(then);
    return sum / (double)n;
}

TEST(the_step_of_b_is_the_ratio_times_that_of_a)
{
    if (BAL_REAL_IS_DOUBLE)
        SKIP("the files are read as f32");
    if (!prepare() || !CHECK(train("plus", "16", "1", "--seed", "1") == 0) ||
        !CHECK(train("plain", "0", "1", "--seed", "1") == 0))
        return;
    CHECK_NEAR(mean_step("plus", "lora_A"), 1e-4, 2e-7);
    CHECK_NEAR(mean_step("plus", "lora_B"), 16e-4, 2e-7);
    CHECK_NEAR(mean_step("plain", "lora_A"), 1e-4, 2e-7);
    CHECK_NEAR(mean_step("plain", "lora_B"), 1e-4, 2e-7); /* the check sees the ratio */
    CHECK(train("no", "16", "1", "--dtype", "f32") == 2); /* method full has no B */
    CHECK(train("yes", "0", "1", "--dtype", "f32") == 0);
}

static bool same(const char *a, const char *b)
{
    char path[2][TEST_PATH];
    bal_buf text[2] = {{0}, {0}};
    const char *names[] = {a, b};
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path[i], TEST_PATH, "%s/%s/pissa/adapter_model.safetensors", test_folder(), names[i]);
        CHECK_OK(bal_file_read(path[i], (size_t)1 << 24, &text[i]));
    }
    bool equal = text[0].len > 0 && text[0].len == text[1].len && memcmp(text[0].data, text[1].data, text[0].len) == 0;
    bal_buf_dispose(&text[0]);
    bal_buf_dispose(&text[1]);
    return equal;
}

TEST(a_resumed_run_has_the_same_bits)
{
    if (BAL_REAL_IS_DOUBLE)
        SKIP("checkpoints hold f32");
    if (!prepare() || !CHECK(train("whole", "16", "6", "--seed", "1") == 0) ||
        !CHECK(train("parts", "16", "6", "--stop-after", "3") == 0))
        return;
    CHECK(!same("whole", "parts"));
    CHECK(train("parts", "4", "6", "--resume", "auto") == 2); /* another ratio is another recipe */
    CHECK(train("parts", "16", "6", "--resume", "auto") == 0);
    CHECK(same("whole", "parts"));
    CHECK(train("less", "15", "6", "--seed", "1") == 0);
    CHECK(!same("whole", "less"));
}
