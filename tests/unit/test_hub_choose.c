/* What is a name of the hub, what a server's listing says, and which of its files are needed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub_impl.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TEST(names)
{
    static const char *const good[] = {
        "a/b",        "org/name",           "o-r_g.1/n.a-me_2", "a/b@main",        "a/b@refs/pr/1",
        "a/b:Q4_K_M", "a/b:main/test@v1.0", "a/b:file.gguf",    "a/data.json@main"};
    static const char *const bad[] = {
        "",     "a",      "a/",          "/a/b",      "a/b/c",    "./a/b",  "../b",    "a/../b",
        "a/b@", "a/b:",   "a/b@../x",    "a/b:../x",  "a b/c",    "a/b@/x", "a/b@x/",  "a/.b",
        ".a/b", "a/b@.x", "a/data.json", "a/x.jsonl", "a/x.gguf", "a//b",   "a/b@x y", "a/b:x\nHost"};
    hub_name n;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_MSG(hub_parse_name(good[i], &n), "'%s' is a name", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(!hub_parse_name(bad[i], &n), "'%s' is no name", bad[i]);
    CHECK(hub_parse_name("a/b:main/test@v1.0", &n));
    CHECK_TEXT(n.id, "a/b");
    CHECK_TEXT(n.part, "main/test");
    CHECK_TEXT(n.revision, "v1.0");
    char folder[300], here[500];
    (void)snprintf(folder, sizeof folder, "%s/runs", test_folder());
    CHECK(mkdir(folder, 0700) == 0 && getcwd(here, sizeof here) != NULL && chdir(test_folder()) == 0);
    CHECK(!bal_hub_is_name("runs/ba-lora") && bal_hub_is_name("runs/ba-lora@main") && bal_hub_is_name("walks/ba-lora"));
    CHECK(chdir(here) == 0);
}

TEST(paths)
{
    static const char *const bad[] = {"",      "/etc/passwd", "../x", "a/../b",   "a/..", "..",   ".",
                                      "a/./b", "a//b",        "a/",   "a\\..\\b", "a\nb", "a\x7f"};
    CHECK(hub_path_is_safe("a") && hub_path_is_safe("a/b/c.json") && hub_path_is_safe("..a/b..") &&
          hub_path_is_safe("spaced name \xC3\xA4.txt"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_MSG(!hub_path_is_safe(bad[i]), "'%s' is refused", bad[i]);
    char text[700];
    memset(text, 'a', sizeof text);
    text[256] = '\0';
    CHECK(!hub_path_is_safe(text));
}

static const char k_commit[] = "0123456789abcdef0123456789abcdef01234567";
static const char k_sha[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static bal_status parse_info(const char *siblings, hub_list *l)
{
    char text[3000];
    (void)snprintf(text, sizeof text, "{\"sha\":\"%s\",\"siblings\":%s}", k_commit, siblings);
    return hub_parse_info(l, text, strlen(text), "host");
}

TEST(listings)
{
    hub_list l = {0}, again = {0};
    char text[2000], path[300];
    (void)snprintf(text, sizeof text,
                   "[{\"rfilename\":\"b\",\"size\":7,\"blobId\":\"%s\",\"lfs\":{\"sha256\":\"%s\",\"size\":70}},"
                   "{\"rfilename\":\"a/c\",\"size\":3,\"blobId\":\"%s\",\"lfs\":null},{\"rfilename\":\"d\"}]",
                   k_commit, k_sha, k_commit);
    CHECK_OK(parse_info(text, &l));
    CHECK(l.n == 3 && l.whole);
    CHECK_TEXT(l.commit, k_commit);
    CHECK_TEXT(l.files[0].path, "a/c");
    CHECK_TEXT(l.files[0].hash, k_commit);
    CHECK_TEXT(l.files[1].hash, k_sha);
    CHECK(l.files[0].size == 3 && l.files[1].size == 70 && l.files[2].hash[0] == '\0');
    CHECK(hub_list_find(&l, "b") == &l.files[1] && hub_list_find(&l, "a") == NULL && hub_list_find(&l, "e") == NULL);
    (void)snprintf(path, sizeof path, "%s/listings/x.json", test_folder());
    CHECK_OK(hub_list_save(&l, path));
    CHECK_OK(hub_list_load(&again, path));
    CHECK(again.n == 3 && again.files[1].size == 70 && strcmp(again.files[1].hash, k_sha) == 0);
    hub_list_dispose(&again);
    /* as huggingface_hub writes it */
    (void)snprintf(
        text, sizeof text,
        "{\"format_version\": 1, \"files\": {\"m\": {\"size\": 9, \"blob_id\": \"%s\", \"lfs_sha256\": \"%s\", "
        "\"lfs_size\": 9, \"xet_hash\": \"x\"}, \"n\": {\"size\": 1, \"blob_id\": \"%s\"}}}",
        k_commit, k_sha, k_commit);
    CHECK_OK(bal_file_replace(path, text, strlen(text)));
    CHECK_OK(hub_list_load(&again, path));
    CHECK(again.n == 2 && again.files[0].size == 9 && strcmp(again.files[0].hash, k_sha) == 0);
    hub_list_dispose(&again);
    CHECK_OK(bal_file_replace(path, "{\"format_version\": 2, \"files\": {}}", 34));
    CHECK_STATUS(hub_list_load(&again, path), BAL_ENOENT);
    CHECK_OK(bal_file_replace(path, "{\"format_version\": 1, \"files\": {\"../a\": {\"size\": 1}}}", 53));
    CHECK_STATUS(hub_list_load(&again, path), BAL_ENOENT);
    hub_list_dispose(&again);
    hub_list_dispose(&l);
}

TEST(broken_listings)
{
    static const char *const bad[] = {
        "7",
        "[7]",
        "[{}]",
        "[{\"rfilename\":7}]",
        "[{\"rfilename\":\"../a\"}]",
        "[{\"rfilename\":\"/a\"}]",
        "[{\"rfilename\":\"a\",\"size\":-1}]",
        "[{\"rfilename\":\"a\",\"size\":1.5}]",
        "[{\"rfilename\":\"a\",\"size\":\"1\"}]",
        "[{\"rfilename\":\"a\",\"size\":1,\"blobId\":\"xyz\"}]",
        "[{\"rfilename\":\"a\",\"size\":1,\"lfs\":7}]",
        "[{\"rfilename\":\"a\",\"size\":1,\"blobId\":\"../../../../../../../../../../../../../ab\"}]",
        "[{\"rfilename\":\"a\",\"size\":1,\"lfs\":{\"sha256\":\"0123456789abcdef0123456789abcdef01234567\"}}]"};
    static const char *const no_commit[] = {"{}", "[]", "{\"sha\":\"main\"}", "{\"sha\":\"../../../x\"}", "{\"sha\":7}",
                                            "",   "{"};
    hub_list l = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_MSG(parse_info(bad[i], &l) == BAL_EFORMAT, "%s is refused", bad[i]);
        hub_list_dispose(&l);
    }
    for (size_t i = 0; i < sizeof no_commit / sizeof *no_commit; i++) {
        CHECK_MSG(hub_parse_info(&l, no_commit[i], strlen(no_commit[i]), "host") == BAL_EFORMAT, "%s is refused",
                  no_commit[i]);
        hub_list_dispose(&l);
    }
    static const char tree[] = "[{\"type\":\"directory\",\"path\":\"a\"},{\"type\":\"file\",\"path\":\"b\",\"size\":1,"
                               "\"oid\":\"0123456789abcdef0123456789abcdef01234567\"}]";
    CHECK_OK(hub_parse_tree(&l, tree, strlen(tree), "host"));
    CHECK(l.n == 1 && strcmp(l.files[0].path, "b") == 0);
    CHECK_STATUS(hub_parse_tree(&l, "{}", 2, "host"), BAL_EFORMAT);
    hub_list_dispose(&l);
}

/* The chosen files of "a b c", or "STATUS: message" cut after 60 bytes. */
static const char *chosen(const char *name, bal_hub_kind kind, const char *split, const char *files)
{
    static char text[1000];
    hub_list l = {.whole = true};
    hub_name parsed;
    hub_choice c = {0};
    char one[300];
    for (const char *at = files; *at != '\0';) {
        size_t n = strcspn(at, " ");
        (void)snprintf(one, sizeof one, "%.*s", (int)n, at);
        CHECK_OK(hub_list_add(&l, one, k_sha, 1));
        at += n + (at[n] == ' ');
    }
    hub_list_sort(&l);
    CHECK(hub_parse_name(name, &parsed));
    bal_status status =
        kind == BAL_HUB_DATA ? hub_choose_data(&c, &l, &parsed, split) : hub_choose(&c, &l, &parsed, kind);
    text[0] = '\0';
    for (size_t i = 0; status == BAL_OK && i < c.n; i++)
        (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i > 0 ? " " : "", c.files[i]->path);
    if (status != BAL_OK)
        (void)snprintf(text, sizeof text, "%d: %.60s", status, bal_error_message());
    hub_choice_dispose(&c);
    hub_list_dispose(&l);
    return text;
}

TEST(models)
{
    CHECK_TEXT(chosen("a/b", BAL_HUB_MODEL, NULL,
                      ".gitattributes README.md config.json model.safetensors onnx/model.onnx pytorch_model.bin "
                      "tokenizer.json tokenizer_config.json generation_config.json vocab.json merges.txt"),
               "config.json generation_config.json tokenizer.json tokenizer_config.json model.safetensors");
    CHECK_TEXT(chosen("a/b", BAL_HUB_MODEL, NULL,
                      "config.json model.safetensors.index.json model-00001-of-00002.safetensors "
                      "model-00002-of-00002.safetensors consolidated.safetensors vocab.json"),
               "config.json vocab.json model.safetensors.index.json");
    CHECK_TEXT(chosen("a/b", BAL_HUB_MODEL, NULL, "README.md b.Q4_K_M.gguf"), "b.Q4_K_M.gguf");
    CHECK_TEXT(chosen("a/b:q4_k_m", BAL_HUB_MODEL, NULL, "b-Q4_K_M.gguf b-Q8_0.gguf c-IQ4_K_M.gguf"), "b-Q4_K_M.gguf");
    CHECK_TEXT(chosen("a/b:b-Q8_0.gguf", BAL_HUB_MODEL, NULL, "b-Q4_K_M.gguf b-Q8_0.gguf"), "b-Q8_0.gguf");
    CHECK_TEXT(chosen("a/b:Q8_0", BAL_HUB_MODEL, NULL, "config.json model.safetensors b-Q8_0.gguf"), "b-Q8_0.gguf");
    CHECK_TEXT(chosen("a/b:Q2_K", BAL_HUB_MODEL, NULL, "b-Q4_K_M.gguf"),
               "-3: 'a/b' has no GGUF file 'Q2_K'; it has b-Q4_K_M.gguf");
    CHECK_TEXT(chosen("a/b", BAL_HUB_MODEL, NULL, "x-Q4_K_M.gguf x-Q8_0.gguf"),
               "-1: 'a/b' has 2 GGUF files (x-Q4_K_M.gguf, x-Q8_0.gguf); name on");
    CHECK_TEXT(chosen("a/b", BAL_HUB_MODEL, NULL, "config.json pytorch_model.bin"),
               "-7: 'a/b' holds its weights only as pytorch_model.bin, which is ");
    CHECK_TEXT(chosen("a/b", BAL_HUB_MODEL, NULL, "config.json README.md"),
               "-3: 'a/b' holds no model: neither config.json with safetensors n");
    CHECK_TEXT(chosen("a/b", BAL_HUB_TOKENIZER, NULL, "config.json model.safetensors tokenizer.json"),
               "tokenizer.json");
    CHECK_TEXT(
        chosen("a/b", BAL_HUB_ADAPTER, NULL, "adapter_config.json adapter_model.safetensors tokenizer.json README.md"),
        "adapter_config.json adapter_model.safetensors");
    CHECK_TEXT(chosen("a/b", BAL_HUB_ADAPTER, NULL, "adapter_config.json adapter_model.bin"),
               "-7: 'a/b' holds its adapter only as adapter_model.bin, which is ");
}

TEST(data)
{
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "train", "README.md train.jsonl test.jsonl dataset_infos.json"),
               "train.jsonl");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, NULL, "README.md train.jsonl test.jsonl"), "test.jsonl train.jsonl");
    CHECK_TEXT(chosen("a/b:test", BAL_HUB_DATA, "train", "train.jsonl test.jsonl"), "test.jsonl");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "validation", "data/train.csv data/dev.csv"), "data/dev.csv");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "train", "MetaMathQA-395K.json README.md"), "MetaMathQA-395K.json");
    CHECK_TEXT(
        chosen("a/b", BAL_HUB_DATA, "train",
               "data/train-00000-of-00002.json.gz data/train-00001-of-00002.json.gz data/test-00000-of-00001.json.gz"),
        "data/train-00000-of-00002.json.gz data/train-00001-of-00002.json.gz");
    CHECK_TEXT(chosen("a/b:python", BAL_HUB_DATA, "train", "python/train.json python/test.json metamath/train.json"),
               "python/train.json");
    CHECK_TEXT(chosen("a/b:main/test", BAL_HUB_DATA, "train", "main-train.csv main-test.csv socratic-test.csv"),
               "main-test.csv");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "train", "python/train.json metamath/train.json"),
               "-1: 'a/b' holds several data sets, 'metamath' and 'python' among");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "train", "train.csv train.jsonl"), "train.jsonl");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "train", "main/train-00000-of-00001.parquet README.md"),
               "-7: 'a/b' holds this data only as Parquet, which is not read; co");
    CHECK_TEXT(chosen("a/b:x", BAL_HUB_DATA, "train", "train.csv y.csv"),
               "-3: 'a/b' has no data of 'x'; it has train.csv, y.csv");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "validation", "train.csv test.csv"),
               "-3: 'a/b' has no validation split; it has test.csv, train.csv");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "train", "train.csv test.csv stray.json"), "train.csv");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "train", "a/train.csv b/train.jsonl"),
               "-1: 'a/b' holds several data sets, 'a' and 'b' among them; name ");
    CHECK_TEXT(chosen("a/b", BAL_HUB_DATA, "train", "README.md picture.png"),
               "-3: 'a/b' has no data in JSON, CSV, TSV or text");
}

static bal_status shards(const char *index, size_t *n)
{
    hub_list l = {.whole = true};
    hub_name name;
    hub_choice c = {0};
    char path[300];
    (void)snprintf(path, sizeof path, "%s/index.json", test_folder());
    CHECK_OK(bal_file_replace(path, index, strlen(index)));
    CHECK_OK(hub_list_add(&l, "m-1.safetensors", k_sha, 1));
    CHECK_OK(hub_list_add(&l, "m-2.safetensors", k_sha, 1));
    CHECK(hub_parse_name("a/b", &name));
    bal_status status = hub_choose_shards(&c, &l, &name, path);
    *n = c.n;
    hub_choice_dispose(&c);
    hub_list_dispose(&l);
    return status;
}

TEST(shards_of_an_index)
{
    size_t n = 0;
    CHECK_OK(
        shards("{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-1.safetensors\"}}", &n));
    CHECK(n == 2);
    CHECK_STATUS(shards("{\"weight_map\":{\"a\":\"m-3.safetensors\"}}", &n), BAL_ENOENT);
    CHECK_STATUS(shards("{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", &n), BAL_ENOENT);
    CHECK_STATUS(shards("{\"weight_map\":{\"a\":7}}", &n), BAL_ENOENT);
    CHECK_STATUS(shards("{\"weight_map\":[]}", &n), BAL_EFORMAT);
    CHECK_STATUS(shards("[", &n), BAL_EFORMAT);
}
