/* `balora bench` on a tiny model: the counted work is what the definition says.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/model/model.h"
#include "tools/bench.h"

#include <math.h>
#include <string.h>

static const char k_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":40,"
    "\"max_position_embeddings\":64,\"tie_word_embeddings\":true,\"rms_norm_eps\":1e-5,"
    "\"rope_theta\":10000,\"hidden_act\":\"silu\"}";
/* q and o 16 x 16, k and v 8 x 16, three of 24 x 16, the head 40 x 16 */
static const double k_parameters = 2 * (2 * 256 + 2 * 128 + 3 * 384) + 640;

static char *model_folder(void)
{
    bal_model *m = NULL;
    char *dir = bal_path_join(test_folder(), "tiny");
    if (dir == NULL || !CHECK_OK(bal_model_new(&m, k_config, 1)))
        return dir;
    CHECK(bal_bench_matrix_parameters(m) == k_parameters);
    CHECK_OK(bal_model_save(m, dir, BAL_DTYPE_F32));
    bal_model_free(m);
    return dir;
}

static double number(const cJSON *object, const char *key)
{
    char *text = cJSON_PrintUnformatted(object);
    cJSON *again = text == NULL ? NULL : cJSON_Parse(text); /* raw numbers become numbers */
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(again, key);
    double value = cJSON_IsNumber(item) ? item->valuedouble : (double)NAN;
    cJSON_Delete(again);
    cJSON_free(text);
    return value;
}

static void check_figure(const cJSON *out, double counted)
{
    CHECK(number(out, "value") > 0 && number(out, "median") > 0 && number(out, "median") <= number(out, "value"));
    CHECK(number(out, "tokens_per_second") == number(out, "value"));
    CHECK_NEAR(number(out, "counted_gflop") * 1e9 / counted, 1, 1e-4);
    CHECK(number(out, "peak_rss_bytes") > 0 && isnan(number(out, "vs_sgemm"))); /* no reference was measured */
}

TEST(figures_of_a_tiny_model)
{
    char *dir = model_folder();
    bal_bench_config c = {.model = dir,
                          .method = "lora",
                          .init = "lora",
                          .compute = "f32",
                          .tokens = 12,
                          .new_tokens = 5,
                          .sequences = 3,
                          .r = 2,
                          .repeat = 2,
                          .labelled = 0.5};
    cJSON *step = cJSON_CreateObject(), *terms = cJSON_CreateObject(), *prompt = cJSON_CreateObject();
    cJSON *decode = cJSON_CreateObject(), *load = cJSON_CreateObject();
    if (CHECK_OK(bal_bench_step(step, &c, false))) {
        check_figure(step, 4 * k_parameters * 36);
        CHECK(number(step, "labelled_rows") == 18 && number(step, "tokens") == 36);
        CHECK(number(step, "last_loss") < number(step, "first_loss"));
    }
    c.method = "ba-lora-nlg";
    c.init = "pissa";
    if (CHECK_OK(bal_bench_step(terms, &c, false)))
        check_figure(terms, 6 * k_parameters * 36);
    if (CHECK_OK(bal_bench_prompt(prompt, &c)))
        check_figure(prompt, 2 * ((k_parameters - 640) * 12 + 640));
    if (CHECK_OK(bal_bench_decode(decode, &c)))
        check_figure(decode, 2 * k_parameters * 15);
    if (CHECK_OK(bal_bench_load(load, &c)))
        CHECK(number(load, "loads_per_second") > 0);
    cJSON_Delete(step);
    cJSON_Delete(terms);
    cJSON_Delete(prompt);
    cJSON_Delete(decode);
    cJSON_Delete(load);
    bal_free(dir);
}

static bal_status step_on(const char *dir, const char *rows)
{
    char *path = bal_path_join(test_folder(), "rows.jsonl");
    bal_bench_config c = {.model = dir,
                          .method = "lora",
                          .init = "lora",
                          .compute = "f32",
                          .tokens = 8,
                          .sequences = 1,
                          .r = 2,
                          .repeat = 1,
                          .labelled = 1,
                          .rows = path};
    cJSON *out = cJSON_CreateObject();
    CHECK_OK(bal_file_replace(path, rows, strlen(rows)));
    bal_status status = bal_bench_step(out, &c, false);
    if (status == BAL_OK)
        CHECK(number(out, "sequences") == 2 && number(out, "tokens") == 5 && number(out, "labelled_rows") == 2);
    cJSON_Delete(out);
    bal_free(path);
    return status;
}

TEST(real_rows)
{
    char *dir = model_folder();
    CHECK_OK(
        step_on(dir, "{\"input_ids\":[1,2,3],\"labels\":[-100,2,-100]}\n{\"input_ids\":[4,5],\"labels\":[-100,5]}\n"));
    CHECK_STATUS(step_on(dir, "{\"input_ids\":[1,2,3],\"labels\":[-100,2]}\n"), BAL_EFORMAT);
    CHECK_STATUS(step_on(dir, "{\"input_ids\":[1,2.5],\"labels\":[-100,2]}\n"), BAL_EFORMAT);
    CHECK_STATUS(step_on(dir, "{\"text\":\"a\"}\n"), BAL_EFORMAT);
    CHECK_STATUS(step_on(dir, "\n"), BAL_EFORMAT);
    CHECK_STATUS(step_on(dir, "{\"input_ids\":[1,40],\"labels\":[1,2]}\n"), BAL_EFORMAT); /* no such token */
    bal_free(dir);
}
