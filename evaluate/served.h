/* A served model under test: the requests of tasks through an OpenAI-compatible server (--model openai:NAME).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_SERVED_H
#define BAL_EVALUATE_SERVED_H

#include "evaluate/api.h"
#include "evaluate/evaluate.h"
#include "evaluate/session.h"

/* Whether --model names one. */
bool served_named(const evaluate_config *c);
/* What can be refused without the server, and the tokenizer, if one is given. */
bal_status served_load(const evaluate_config *c, bal_bundle *b);
/* Asks the server whether it has the model and how long a context: s->served, s->served_length. */
bal_status served_open(session *s);
void served_close(session *s);
/* Refuses tasks that this server or this form of asking cannot answer, by name. */
bal_status served_check_tasks(const session *s);
/* The requests of the task that are not answered yet; answer is called for each, by one thread at a time. */
bal_status served_ask(session *s, task_run *r, bal_status (*answer)(void *context, size_t i, const bal_answer *a));

#endif
