/* What the files of this room share.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_EVALUATE_H
#define BAL_EVALUATE_EVALUATE_H

#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/io/store.h"
#include "lib/model/bundle.h"
#include "lib/model/engine.h"

typedef struct evaluate_config {
    const char *model, *adapter, *initial_adapter, *tokenizer;
    const char *requests, *out, *perplexity, *data, *log_samples, *resume, *name, *experiment;
    const char *item_range, *shard, *show, *output_path, *suite, *system_instruction, *equivalence_command, *compute;
    bal_text_list tasks, compare, rescore, across;
    const char *base_url, *key_env;
    int64_t at_once, tries, timeout;
    double back_off;
    int64_t limit, num_fewshot, max_gen_toks, batch_size, max_length, cache_mib, resamples, item, repeats, seed,
        fewshot_seed;
    int64_t equivalence_timeout, max_batch_tokens;
    bool list, apply_chat_template, fewshot_as_multiturn;
    bal_text_list adapters; /* --adapter; `adapter` is the one in work */
    bal_buf *document;      /* where the JSON of the figures goes instead of standard output; NULL: there */
} evaluate_config;

/* Engine options that the flags ask for. */
bal_engine_options evaluate_engine(const evaluate_config *c, const bal_bundle *b);

/* --requests: answers each line of the file, in its order, in --out. */
bal_status evaluate_requests(const evaluate_config *c, const bal_common *common, const bal_bundle *b);
/* --perplexity: the negative log-likelihood of every token of the texts in a file. */
bal_status evaluate_perplexity(const evaluate_config *c, const bal_common *common, const bal_bundle *b);
/* --tasks. */
bal_status evaluate_tasks(const evaluate_config *c, const bal_common *common, const bal_bundle *b, int argc,
                          char **argv);
/* Several adapters: what is asked, for the base and for each over the same weights; b is the base.  Figures side by side. */
bal_status evaluate_several(const evaluate_config *c, const bal_common *common, const bal_bundle *b, int argc,
                            char **argv);
/* --rescore: the stored outputs of runs, judged again as a new run; several runs (shards) become one. */
bal_status evaluate_rescore(const evaluate_config *c, const bal_common *common, int argc, char **argv);
/* --list: the tasks; --show TASK --item N: the exact prompt, target and requests of an item. */
bal_status evaluate_list(const evaluate_config *c, const bal_common *common);
bal_status evaluate_show(const evaluate_config *c, const bal_common *common);

/* --compare: what tells two runs of the store apart, by task and filter, pairing their items: a Markdown table or one
 * JSON document, appended to *out.  BAL_EINVAL when they share no item, or the same item has two answers. */
bal_status evaluate_compare(bal_store *store, const char *a, const char *b, size_t resamples, bool json, bal_buf *out);

/* --across: mean and standard deviation of every figure over finished runs of the same tasks, as a Markdown table or one
 * JSON document, appended to *out.  BAL_EINVAL for fewer than two, the same one twice, other tasks, data or prompts. */
bal_status evaluate_across(bal_store *store, const bal_text_list *runs, bool json, bal_buf *out);

/* Appends the ids of a JSON list; where and key are for the message. */
bal_status evaluate_read_ids(const cJSON *list, const char *where, const char *key, bal_ids *out);
/* Writes text to path ("-" or NULL: standard output), replacing the file as a whole. */
bal_status evaluate_write(const char *path, const bal_buf *text);

#endif
