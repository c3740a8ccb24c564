/* Encoders against the numbers of transformers: hidden states, logits of masked tokens, pseudo-log-likelihoods.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "tests/golden/compare.h"
#include "tests/program.h"

#include <stdlib.h>

/* The case's input without its labels, which are of classifications. */
static bool write_input(const char *dir, char path[MAX_PATH])
{
    cJSON *input = read_json(dir, "input.json");
    cJSON_DeleteItemFromObject(input, "labels");
    char *text = cJSON_PrintUnformatted(input);
    (void)snprintf(path, MAX_PATH, "%.900s/input.json", test_folder());
    bool good = CHECK(text != NULL) && CHECK_OK(bal_file_replace(path, text, strlen(text)));
    free(text);
    cJSON_Delete(input);
    return good;
}

/* balora forward on a case; only: what is compared (NULL: all, with the pseudo-log-likelihoods). */
static void run_case(const char *name, const char *only, size_t least)
{
    char part[128], dir[MAX_PATH], input[MAX_PATH], out[MAX_PATH], want[MAX_PATH], mask[16];
    (void)snprintf(part, sizeof part, "golden/encoder/%.60s", name);
    const char *shared = test_shared(part);
    if (shared == NULL)
        SKIP("golden/encoder is not there");
    (void)snprintf(dir, sizeof dir, "%s", shared);
    (void)snprintf(want, sizeof want, "%.900s/expected.safetensors", dir);
    (void)snprintf(out, sizeof out, "%.900s/%.60s.safetensors", test_folder(), name);
    if (!write_input(dir, input))
        return;
    cJSON *info = read_json(dir, "case.json");
    const cJSON *id = bal_json_member(info, "mask_token_id");
    (void)snprintf(mask, sizeof mask, "%d", cJSON_IsNumber(id) ? (int)id->valuedouble : -1);
    const char *argv[] = {"balora",
                          "forward",
                          "--model",
                          "model",
                          "--input",
                          input,
                          "--out",
                          out,
                          "--quiet",
                          "--hidden-states",
                          "--mask-id",
                          mask,
                          only == NULL ? "--pll" : NULL,
                          NULL};
    int status = test_wait(test_start(dir, argv, NULL, NULL));
    if (CHECK_MSG(status == 0, "%s: balora forward ended with %d", name, status)) {
        size_t n = compare_some(name, want, out, only, bal_json_member(info, "tolerance"));
        CHECK_MSG(n >= least, "%s: %zu tensors were compared", name, n);
    }
    cJSON_Delete(info);
}

TEST(masked_bert)
{
    run_case("bert-mlm", NULL, 5);
}

TEST(masked_roberta)
{
    run_case("roberta-mlm", NULL, 5);
}

/* Models with another head: what comes before it. */
TEST(hidden_bert)
{
    run_case("bert-cls1", "hidden.", 3);
    run_case("bert-cls2", "hidden.", 3);
    run_case("bert-cls3", "hidden.", 3);
    run_case("bert-deep-cls3", "hidden.", 4);
}

TEST(hidden_roberta)
{
    run_case("roberta-cls1", "hidden.", 3);
    run_case("roberta-cls2", "hidden.", 3);
    run_case("roberta-cls3", "hidden.", 3);
}

TEST(hidden_distilbert)
{
    run_case("distilbert-cls2", "hidden.", 3);
}

TEST(hidden_electra)
{
    run_case("electra-cls3", "hidden.", 3);
}
