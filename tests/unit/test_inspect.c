/* `balora inspect`: documents of small files, and the scan for NaN.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "tools/commands.h"
#include "tools/inspect.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *path_of(const char *name)
{
    static char path[4][300];
    static size_t turn;
    char *p = path[turn++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", test_folder(), name);
    return p;
}

static void write_text(const char *name, const char *text)
{
    CHECK_OK(bal_file_replace(path_of(name), text, strlen(text)));
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : (double)NAN;
}

static const char *text(const cJSON *object, const char *key)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return s == NULL ? "" : s;
}

static void write_adapter(float last)
{
    static const float a[] = {1, 2, 3, 4, 5, 6, 7, 8};
    const float b[] = {1, 2, 3, 4, 5, last};
    bal_safetensors_writer *w = NULL;
    CHECK_OK(bal_folder_make(path_of("adapter")));
    write_text("adapter/adapter_config.json", "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":6,\"use_rslora\":false}");
    CHECK_OK(bal_safetensors_writer_new(&w));
    CHECK_OK(bal_safetensors_writer_add(w, "base_model.model.m.0.q_proj.lora_A.weight", BAL_DTYPE_F32, 2,
                                        (const size_t[]){2, 4}, a));
    CHECK_OK(bal_safetensors_writer_add(w, "base_model.model.m.0.q_proj.lora_B.weight", BAL_DTYPE_F32, 2,
                                        (const size_t[]){3, 2}, b));
    CHECK_OK(bal_safetensors_writer_commit(w, path_of("adapter/adapter_model.safetensors")));
    bal_safetensors_writer_free(w);
}

TEST(an_adapter)
{
    bal_inspection i = {.doc = cJSON_CreateObject(), .tensors = true};
    write_adapter(6);
    CHECK_OK(bal_inspect_adapter(&i, path_of("adapter")));
    const cJSON *modules = cJSON_GetObjectItemCaseSensitive(i.doc, "modules");
    CHECK(cJSON_GetArraySize(modules) == 1 && number(i.doc, "parameters") == 14 && !i.short_memory);
    CHECK_TEXT(text(cJSON_GetArrayItem(modules, 0), "module"), "q_proj");
    CHECK(number(cJSON_GetArrayItem(modules, 0), "rank") == 2 && number(cJSON_GetArrayItem(modules, 0), "scale") == 3);
    CHECK(number(cJSON_GetArrayItem(modules, 0), "in") == 4 && number(cJSON_GetArrayItem(modules, 0), "out") == 3);
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(i.doc, "tensors")) == 2);
    FILE *to = fopen(path_of("printed"), "w");
    if (CHECK(to != NULL)) {
        bal_inspect_print(i.doc, to);
        CHECK(fclose(to) == 0);
    }
    cJSON_Delete(i.doc);
}

TEST(a_nan_is_found)
{
    bal_inspection i = {.doc = cJSON_CreateObject(), .check = true};
    write_adapter(6);
    CHECK_OK(bal_inspect_adapter(&i, path_of("adapter")));
    write_adapter(NAN);
    CHECK_STATUS(bal_inspect_adapter(&i, path_of("adapter")), BAL_ENUMERIC);
    CHECK(strstr(bal_error_message(), "q_proj.lora_B.weight' holds nan at row 2, column 1") != NULL);
    write_adapter(-INFINITY);
    CHECK_STATUS(bal_inspect_adapter(&i, path_of("adapter")), BAL_ENUMERIC);
    cJSON_Delete(i.doc);
}

TEST(data_files)
{
    bal_inspection i = {.doc = cJSON_CreateObject()};
    write_text("rows.jsonl",
               "{\"prompt\":\"a\",\"response\":\"bcd\"}\n\n{\"prompt\":\"abc\",\"response\":\"\",\"n\":1}\n");
    CHECK_OK(bal_inspect_data(&i, path_of("rows.jsonl")));
    CHECK(number(i.doc, "records") == 2);
    CHECK_TEXT(text(i.doc, "form"), "prompt and response");
    const cJSON *prompt = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(i.doc, "keys"), 0);
    CHECK(number(prompt, "shortest") == 1 && number(prompt, "longest") == 3 && number(prompt, "mean") == 2);
    cJSON_Delete(i.doc);
    i.doc = cJSON_CreateObject();
    write_text("broken.jsonl", "{\"prompt\":\"a\"}\n{\"prompt\":\n");
    CHECK_STATUS(bal_inspect_data(&i, path_of("broken.jsonl")), BAL_EFORMAT);
    CHECK_OK(bal_file_replace(path_of("binary.bin"), "\1\0\2", 3));
    CHECK_STATUS(bal_inspect_data(&i, path_of("binary.bin")), BAL_EFORMAT);
    cJSON_Delete(i.doc);
}

TEST(a_tokenizer)
{
    bal_inspection i = {.doc = cJSON_CreateObject()};
    write_text("tokenizer.json",
               "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]},"
               "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\"},"
               "{\"type\":\"ByteLevel\"}]},\"added_tokens\":[{\"content\":\"<s>\",\"special\":true}]}");
    CHECK_OK(bal_inspect_tokenizer(&i, path_of("tokenizer.json")));
    CHECK(number(i.doc, "vocabulary") == 3 && number(i.doc, "merges") == 1);
    CHECK_TEXT(text(i.doc, "pre_tokenizer"), "Sequence(Split, ByteLevel)");
    write_text("tokenizer.json", "{\"version\":\"1.0\"}");
    CHECK_STATUS(bal_inspect_tokenizer(&i, path_of("tokenizer.json")), BAL_EFORMAT);
    cJSON_Delete(i.doc);
}

/* Runs the command with its output turned away; the exit status. */
static int run_command(const char *path)
{
    char name[] = "inspect", check[] = "--check", *copy = bal_strdup(path);
    char *argv[] = {name, copy, check, NULL};
    (void)fflush(stdout);
    (void)fflush(stderr);
    int out = dup(1), err = dup(2);
    CHECK(freopen("/dev/null", "w", stdout) != NULL && freopen("/dev/null", "w", stderr) != NULL);
    int status = cmd_inspect(copy == NULL ? 1 : 3, argv);
    (void)fflush(stdout);
    (void)fflush(stderr);
    (void)dup2(out, 1);
    (void)dup2(err, 2);
    (void)close(out);
    (void)close(err);
    bal_free(copy);
    return status;
}

TEST(exit_statuses)
{
    write_adapter(6);
    CHECK(run_command(path_of("adapter")) == 0);
    write_adapter(NAN);
    CHECK(run_command(path_of("adapter")) == 3);
    CHECK(run_command("/nowhere/at/all") == 3);
    CHECK(run_command("--nonsense") == 2);
}
