/* Scorers: what a task asks of the model, and what an answer is worth.  A task file names one with the key "scorer".
 * A scorer judges stored outputs, so that a run can be judged again without the model (--rescore).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_SCORER_H
#define BAL_EVALUATE_SCORER_H

#include "evaluate/task.h"

typedef enum scorer_kind {
    SCORER_GENERATE, /* the output is a text */
    SCORER_CHOICE, /* log-likelihoods of continuations; the output is {"ll": [...], "greedy": [...], "tokens": [...]} */
    SCORER_ROLLING, /* the log-likelihood of a whole text; the output is the same, with one number */
    SCORER_MASKED /* of a masked language model: for each text of the item tokens[k] masked tokens with "ll" the sum of
                     * their log-probabilities and "probability" their mean probability */
} scorer_kind;

/* One log-likelihood request. */
typedef struct pair {
    bal_buf context, continuation;
} pair;
typedef struct pair_list {
    pair *items;
    size_t n, cap;
} pair_list;
bal_status pair_add(pair_list *list, const char *context, const char *continuation);
void pair_list_dispose(pair_list *list);

/* A question to a masked language model: ids, in which place `at` is read as the mask, and the token that is meant. */
typedef struct mask_query {
    size_t part; /* which of the item's texts it counts for */
    bal_ids ids;
    size_t at;
    int32_t target;
} mask_query;
typedef struct mask_list {
    mask_query *items;
    size_t n, cap;
} mask_list;
bal_status mask_add(mask_list *list, size_t part, const bal_ids *ids, size_t at, int32_t target);
void mask_list_dispose(mask_list *list);

/* An output with its verdict under one filter. */
typedef struct record {
    size_t item, repeat, prompt_tokens, output_tokens;
    char *output;
    char *extracted; /* NULL: nothing */
    char *finish_reason;
    double score;
} record;

/* A figure of a task.  NaN: undefined. */
typedef struct metric {
    char name[64], filter[32];
    double value, stderr_value, low, high; /* low, high: Wilson, 95 %, of a share of items */
    bool higher_is_better, lower_is_better;
    size_t n;
} metric;
typedef struct metric_list {
    metric *items;
    size_t n, cap;
} metric_list;
bal_status metric_add(metric_list *list, const char *name, const char *filter, size_t n, double value,
                      double stderr_value, int direction); /* direction 1: higher is better, -1 lower, 0 neither */
/* Mean with lm-eval's standard error and, for values 0 and 1, Wilson's interval. */
bal_status metric_add_mean(metric_list *list, const char *name, const char *filter, const double *values, size_t n,
                           int direction);
void metric_list_dispose(metric_list *list);

/* An output that waits for a slow verdict. */
typedef struct late_item {
    size_t item, repeat;
    const char *output;
    bal_buf extracted;
    bal_verdict verdict;
} late_item;

typedef struct scorer {
    const char *name, *item_metric; /* item_metric: what the score of one item is called */
    scorer_kind kind;
    /* Reads the scorer's own keys of t->json into t->state; may be NULL.  Then also dispose. */
    bal_status (*prepare)(task *t);
    void (*dispose)(task *t);
    /* Keys of the task file that are its own; ends with NULL; may be NULL. */
    const char *const *keys;
    /* Whether it can run here; else why (for "not run: ...").  May be NULL: yes. */
    bool (*available)(const task *t, char *why, size_t n_why);
    /* GENERATE: the prompt of item i instead of the task's; may be NULL. */
    /* CHOICE, ROLLING, MASKED: the requests (or texts) of item i behind its prompt (context).  May be NULL for CHOICE: the
     * choices. */
    bal_status (*requests)(const task *t, size_t i, const char *context, bool chat, pair_list *out);
    /* MASKED: what is asked about item i, whose texts are `pairs`, of a model with this tokenizer and mask token. */
    bal_status (*masks)(const task *t, size_t i, const pair_list *pairs, const bal_tokenizer *tokenizer, int32_t mask,
                        mask_list *out);
    /* Name of filter f, NULL behind the last one. */
    const char *(*filter)(const task *t, size_t f);
    /* The verdict on one output. */
    bal_status (*judge)(const task *t, size_t i, size_t f, const char *output, bal_buf *extracted, bal_verdict *v);
    /* Instead of judge, for slow verdicts: called when all outputs are there, with many at once. */
    bal_status (*judge_late)(const task *t, size_t f, late_item *items, size_t n);
    /* An item with several answers: the first votes() of them vote on the one that counts; NULL: their mean counts. */
    size_t (*votes)(const task *t, size_t f);
    /* Text for the column group of an item (category), or NULL; may be NULL. */
    const char *(*group)(const task *t, size_t i);
    /* Figures of the records of filter f, ordered by item and repeat. */
    bal_status (*measure)(const task *t, size_t f, const record *r, size_t n, metric_list *out);
} scorer;

/* NULL if there is none. */
const scorer *scorer_find(const char *name);
/* The i-th name, NULL behind the last one. */
const char *scorer_name(size_t i);
size_t scorer_n_filters(const task *t);

/* The scorers, one file each. */
extern const scorer k_scorer_rules;         /* score_rules.c: the rules of lib/text/answer.h, by their names */
extern const scorer k_scorer_rules_outside; /* the same, and an outside program (equivalence.h) */
extern const scorer k_scorer_exact_match;   /* score_regex.c: filters of the task file */
extern const scorer k_scorer_choice;        /* score_choice.c */
extern const scorer k_scorer_code;          /* score_code.c: programs, judged in the sandbox */
extern const scorer k_scorer_rolling;       /* score_rolling.c */
extern const scorer k_scorer_crows, k_scorer_crows_masked;         /* score_pairs.c */
extern const scorer k_scorer_winobias, k_scorer_winobias_pronoun;  /* score_winobias.c */
extern const scorer k_scorer_stereoset, k_scorer_stereoset_masked; /* score_stereoset.c */
extern const scorer k_scorer_bbq, k_scorer_bbq_generate;           /* score_bbq.c */

/* The log-likelihoods of an output of kind CHOICE; BAL_EFORMAT if it is none.  bal_free(*out). */
bal_status scorer_read_lls(const char *output, double **out, size_t *n);
/* Whether the first of the two stored log-likelihoods of item i is larger. */
bal_status score_first_likelier(const task *t, size_t i, const char *output, bool *first);
/* Judges that as a scorer's judge(): right if it is; extracted: the first or the second word. */
bal_status score_judge_first(const task *t, size_t i, const char *output, const char *const words[2],
                             bal_buf *extracted, bal_verdict *v);
/* Index of the first maximum, -1 for n = 0 or NaN. */
int scorer_argmax(const double *x, size_t n);
/* The one filter "none". */
const char *scorer_filter_none(const task *t, size_t f);

#endif
