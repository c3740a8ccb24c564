/* MT-Bench (FastChat's llm_judge): its files, answers and judge prompts.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_MTBENCH_H
#define BAL_EVALUATE_MTBENCH_H

#include "evaluate/judge.h"
#include "lib/model/bundle.h"

enum { MT_TURNS = 2, MT_MAX_QUESTIONS = 10000 };

typedef struct mt_question {
    int64_t id;
    const char *category, *turns[MT_TURNS];
    const char *reference[MT_TURNS]; /* NULL: none */
} mt_question;

typedef struct mt_bench {
    mt_question *questions;
    size_t n, n_all; /* n: those that are used */
    cJSON **rows;    /* own the texts */
    size_t n_rows, cap_rows;
    cJSON *prompts; /* name -> {system_prompt, prompt_template} */
} mt_bench;

/* Reads question.jsonl, reference_answer_gpt-4.jsonl and judge_prompts.jsonl below data/mt_bench. */
bal_status mt_bench_read(mt_bench *m, const char *data);
void mt_bench_dispose(mt_bench *m);

/* Answers of one model: texts[question * MT_TURNS + turn], NULL where there is none; owned. */
typedef struct mt_answers {
    char **texts;
    size_t n;
    char model[128];
} mt_answers;
bal_status mt_answers_read(mt_answers *a, const mt_bench *m, const char *path);
bal_status mt_answers_write(const mt_answers *a, const mt_bench *m, const char *path);
/* Asks a served model: temperature by category, 1024 tokens, the second turn behind its own first answer. */
bal_status mt_answers_ask(mt_answers *a, const mt_bench *m, api_client *c);
/* Appends the conversation up to the answer of turn t as that wrapper: its sentence once, then each question and answer. */
bal_status mt_alpaca_prompt(const mt_question *q, size_t t, const char *first_answer, bal_buf *out);
/* Asks a model here; the same temperatures. */
typedef struct mt_local_options {
    size_t max_new_tokens;
    bool alpaca; /* not the model's chat template but the wrapper that PiSSA and BA-LoRA train on */
    const bal_log *log;
    bool progress;
} mt_local_options;
bal_status mt_answers_local(mt_answers *a, const mt_bench *m, const bal_bundle *b, const mt_local_options *o);
/* No answers yet. */
bal_status mt_answers_init(mt_answers *a, const mt_bench *m);
void mt_answers_dispose(mt_answers *a);

double mt_temperature(const char *category);
/* Appends the judge's request for question q, turn t (0, 1): single grading, or pairwise when b is not NULL. */
bal_status mt_judge_body(const mt_bench *m, size_t q, size_t t, const mt_answers *a, const mt_answers *b,
                         const api_client *judge, bal_buf *body);
/* FastChat's verdict of two games, the second with swapped answers: 'A', 'B' or 'C' (a tie unless both agree); 0 when one
 * of them said nothing. */
char mt_outcome(char first, char swapped);

#endif
