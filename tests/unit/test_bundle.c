/* Prompts as token ids: the prefix token stands once, whoever wrote it.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/model/bundle.h"
#include "lib/text/tokenizer.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

static const char k_tokenizer[] =
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"single_word\":false,"
    "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],\"normalizer\":null,\"pre_tokenizer\":{\"type\":"
    "\"Whitespace\"},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
    "\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"SpecialToken\":{\"id\":\"<s>\","
    "\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[0],\"tokens\":[\"<s>\"]}}},\"decoder\":null,\"model\":{"
    "\"type\":\"WordLevel\",\"vocab\":{\"<s>\":0,\"a\":1,\"b\":2,\"[UNK]\":3},\"unk_token\":\"[UNK]\"}}";

static bool same(const bal_ids *got, const int32_t *want, size_t n)
{
    return got->n == n && memcmp(got->data, want, n * sizeof *want) == 0;
}

TEST(the_prefix_stands_once)
{
    bal_bundle b = {0};
    bal_ids ids = {0};
    size_t n_context = 0;
    char folder[400], path[500];
    (void)snprintf(folder, sizeof folder, "%s/tokenizer", test_folder());
    CHECK_OK(bal_folder_make(folder));
    (void)snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    CHECK_OK(bal_file_replace(path, k_tokenizer, sizeof k_tokenizer - 1));
    (void)snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    CHECK_OK(bal_file_replace(path, "{\"bos_token\": \"<s>\"}", 20));
    if (!CHECK_OK(bal_tokenizer_load(&b.tokenizer, folder)))
        return;
    CHECK_OK(bal_bundle_prompt(&b, "a b", 3, &ids));
    CHECK(same(&ids, (const int32_t[]){0, 1, 2}, 3));
    bal_ids_clear(&ids);
    CHECK_OK(bal_bundle_prompt(&b, "<s> a b", 7, &ids)); /* as a chat template writes it */
    CHECK(same(&ids, (const int32_t[]){0, 1, 2}, 3));
    bal_ids_clear(&ids);
    CHECK_OK(bal_bundle_prompt(&b, "", 0, &ids));
    CHECK(same(&ids, (const int32_t[]){0}, 1));
    CHECK_OK(bal_bundle_split(&b, "a", " b", &ids, &n_context));
    CHECK(same(&ids, (const int32_t[]){0, 1, 2}, 3) && n_context == 2);
    CHECK_OK(bal_bundle_split(&b, "<s>a", " b", &ids, &n_context));
    CHECK(same(&ids, (const int32_t[]){0, 1, 2}, 3) && n_context == 2);
    CHECK_OK(bal_bundle_split(&b, "", "b", &ids, &n_context));
    CHECK(same(&ids, (const int32_t[]){0, 2}, 2) && n_context == 1);
    bal_ids_dispose(&ids);
    bal_tokenizer_free(b.tokenizer);
}
