/* PEFT folders: what we write, what we read, what we refuse.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/modules.h"

#include "lib/adapter/adapter.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static char g_all[] = "all-linear";

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
    CHECK_STATUS(load_with(CONFIG(",\"use_dora\":true")), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "lora_magnitude_vector") != NULL);
    CHECK_STATUS(load_with(CONFIG(",\"rank_pattern\":{\"q_proj\":2}")), BAL_EFORMAT); /* the file has 3 */
    CHECK_OK(load_with(CONFIG(",\"rank_pattern\":{\"q_proj\":3}")));
    CHECK_STATUS(load_with(CONFIG(",\"rank_pattern\":{\"q_proj\":1.5}")), BAL_EFORMAT);
    CHECK_STATUS(load_with(CONFIG(",\"alpha_pattern\":{\"q_(proj\":1}")), BAL_EFORMAT); /* no expression */
    CHECK_STATUS(load_with(CONFIG(",\"modules_to_save\":[\"lm_head\"]")), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "lacks tensor 'base_model.model.lm_head.weight'") != NULL);
    CHECK_STATUS(load_with(CONFIG(",\"bias\":\"some\"")), BAL_EFORMAT);
    CHECK_STATUS(load_with(CONFIG(",\"init_lora_weights\":\"lora_ga\"")), BAL_EUNSUPPORTED);
    CHECK_STATUS(load_with(CONFIG(",\"init_lora_weights\":\"pissa_niter_4\"")), BAL_EINVAL);
    CHECK(strstr(bal_error_message(), "--initial-adapter") != NULL);
    CHECK_STATUS(load_with("{\"peft_type\":\"LOHA\",\"r\":3}"), BAL_EUNSUPPORTED);
    CHECK_STATUS(load_with("{\"peft_type\":\"LORA\",\"r\":4,\"target_modules\":[\"q_proj\"]}"),
                 BAL_EFORMAT); /* shapes */
    CHECK_STATUS(load_with("{\"peft_type\":\"LORA\",\"r\":-4}"), BAL_EFORMAT);
    CHECK_STATUS(load_with("[1]"), BAL_EFORMAT);
    CHECK_STATUS(load_with(CONFIG(",\"target_modules\":[\"q_proj\"]")), BAL_EFORMAT); /* a key twice */
}
