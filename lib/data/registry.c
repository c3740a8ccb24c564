/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/data/registry.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const bal_data_entry k_entries[] = {
    {"alpaca-cleaned", "yahma/alpaca-cleaned", NULL, "alpaca", "CC BY 4.0", "52 k instructions, Stanford's, corrected"},
    {"code-alpaca", "sahil2801/CodeAlpaca-20k", NULL, "alpaca", "CC BY 4.0", "20 k instructions to write code"},
    {"code-feedback", "m-a-p/Code-Feedback", NULL, "chat", "Apache-2.0", "66 k conversations about code"},
    {"gsm8k", "openai/gsm8k:main", "gsm8k/%s.jsonl", "gsm8k", "MIT",
     "school mathematics, 7473 + 1319; JSON lines: github.com/openai/grade-school-math"},
    {"metamathqa", "meta-math/MetaMathQA", NULL, "prompt", "MIT", "395 k questions made from GSM8K and MATH"},
    {"pissa-conversation", "fxmeng/pissa-dataset:conversation", NULL, "alpaca", "see its page",
     "PiSSA's and BA-LoRA's conversations"},
    {"pissa-metamath", "fxmeng/pissa-dataset:metamath", NULL, "alpaca", "see its page",
     "PiSSA's and BA-LoRA's mathematics"},
    {"pissa-python", "fxmeng/pissa-dataset:python", NULL, "alpaca", "see its page", "PiSSA's and BA-LoRA's code"},
};
enum { N_ENTRIES = sizeof k_entries / sizeof *k_entries };

const bal_data_entry *bal_data_registry(size_t *n)
{
    *n = N_ENTRIES;
    return k_entries;
}

const bal_data_entry *bal_data_entry_find(const char *name)
{
    for (size_t i = 0; i < N_ENTRIES; i++)
        if (strcmp(k_entries[i].name, name) == 0)
            return &k_entries[i];
    return NULL;
}

static bal_status one_file(bal_hub_files *out, const char *path)
{
    *out = (bal_hub_files){.paths = bal_alloc(1, sizeof *out->paths)};
    if (out->paths == NULL)
        return BAL_ENOMEM;
    out->paths[0] = bal_strdup(path);
    out->n = 1;
    if (out->paths[0] != NULL)
        return BAL_OK;
    bal_hub_files_dispose(out);
    return BAL_ENOMEM;
}

/* BALORA_DATA/gsm8k/train.jsonl; "" when it is not there. */
static bal_status local_file(const bal_data_entry *e, const char *split, bal_buf *path)
{
    static const char mark[] = "%s";
    const char *folder = getenv("BALORA_DATA"), *at = e->file != NULL ? strstr(e->file, mark) : NULL;
    bal_status status = BAL_OK;
    if (at == NULL)
        return BAL_OK;
    BAL_TRY(bal_buf_printf(path, "%s/%.*s%s%s", folder != NULL && folder[0] != '\0' ? folder : "data",
                           (int)(at - e->file), e->file, split != NULL ? split : "train", at + 2));
    if (!bal_file_exists(path->data))
        bal_buf_clear(path);
out:
    return status;
}

bal_status bal_data_files(const char *what, const char *split, const bal_hub_options *o, bal_hub_files *out)
{
    const bal_data_entry *e = bal_data_entry_find(what);
    bal_buf path = {0};
    bal_status status = BAL_OK;
    *out = (bal_hub_files){0};
    if (strcmp(what, "-") == 0 || access(what, F_OK) == 0)
        return one_file(out, what);
    if (e == NULL)
        return bal_hub_is_name(what) ? bal_hub_data(what, split, o, out) : one_file(out, what);
    BAL_TRY(local_file(e, split, &path));
    status = path.len > 0 ? one_file(out, path.data) : bal_hub_data(e->hub, split, o, out);
out:
    bal_buf_dispose(&path);
    return status;
}
