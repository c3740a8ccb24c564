/* MT-Bench answers of a model on this machine.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/mtbench.h"

#include "lib/base/mem.h"
#include "lib/model/engine.h"
#include "lib/text/chat.h"

typedef struct turn {
    mt_answers *answers;
    size_t index, *question; /* turn; question of a request */
    bal_ids *ids;
    bal_request *requests;
    size_t n;
    bal_progress bar;
} turn;

static bal_status answered(void *context, size_t i, const bal_answer *a)
{
    turn *t = context;
    char **slot = &t->answers->texts[t->question[i] * MT_TURNS + t->index];
    bal_free(*slot);
    *slot = bal_strndup(a->text, a->n_text);
    bal_progress_update(&t->bar, t->bar.done + 1, NULL);
    return *slot == NULL ? BAL_ENOMEM : BAL_OK;
}

bal_status mt_alpaca_prompt(const mt_question *q, size_t t, const char *first_answer, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "Below is an instruction that describes a task. Write a response that appropriately "
                              "completes the request."));
    BAL_TRY(bal_buf_printf(out, "\n\n### Instruction:\n%s\n\n### Response:", q->turns[0]));
    if (t > 0)
        status = bal_buf_printf(out, "%s\n\n### Instruction:\n%s\n\n### Response:", first_answer, q->turns[1]);
out:
    return status;
}

/* The conversation up to the answer of turn t->index. */
static bal_status add_request(turn *t, const mt_bench *m, size_t q, const bal_bundle *b, const mt_local_options *o)
{
    const mt_question *x = &m->questions[q];
    const bal_message messages[] = {
        {"user", x->turns[0]}, {"assistant", t->answers->texts[q * MT_TURNS]}, {"user", x->turns[1]}};
    bal_buf text = {0};
    bal_ids *ids = &t->ids[t->n];
    bal_status status;
    ids->n = 0;
    if (o->alpaca) {
        BAL_TRY(mt_alpaca_prompt(x, t->index, t->answers->texts[q * MT_TURNS], &text));
        BAL_TRY(bal_bundle_prompt(b, bal_buf_cstr(&text), text.len, ids));
    } else { /* the template has written the special tokens */
        BAL_TRY(bal_chat_render(b->tokenizer, messages, t->index == 0 ? 1 : 3, true, &text));
        BAL_TRY(bal_tokenizer_encode(b->tokenizer, bal_buf_cstr(&text), text.len, false, ids));
    }
    t->question[t->n] = q;
    t->requests[t->n++] = (bal_request){.kind = BAL_REQUEST_GENERATE,
                                        .prompt = ids->data,
                                        .n_prompt = ids->n,
                                        .max_new_tokens = o->max_new_tokens,
                                        .sampling = {.temperature = mt_temperature(x->category), .top_p = 1},
                                        .seed = 0,
                                        .stream = q};
out:
    bal_buf_dispose(&text);
    return status;
}

bal_status mt_answers_local(mt_answers *a, const mt_bench *m, const bal_bundle *b, const mt_local_options *o)
{
    turn t = {.answers = a,
              .question = bal_alloc(m->n, sizeof *t.question),
              .ids = bal_alloc(m->n, sizeof *t.ids),
              .requests = bal_alloc(m->n, sizeof *t.requests)};
    const bal_engine_options engine = {.tokenizer = b->tokenizer, .context = &t, .answer = answered};
    bal_status status = BAL_ENOMEM;
    if (t.question == NULL || t.ids == NULL || t.requests == NULL)
        goto out;
    BAL_TRY(mt_answers_init(a, m));
    bal_progress_start(&t.bar, o->log, "answering", "turns", m->n * MT_TURNS, o->progress);
    for (t.index = 0; t.index < MT_TURNS; t.index++) {
        t.n = 0;
        for (size_t q = 0; q < m->n; q++)
            BAL_TRY(add_request(&t, m, q, b, o));
        BAL_TRY(bal_engine_run(b->model, &engine, t.requests, t.n, NULL));
    }
    bal_progress_done(&t.bar);
out:
    for (size_t i = 0; t.ids != NULL && i < m->n; i++)
        bal_ids_dispose(&t.ids[i]);
    bal_free(t.ids);
    bal_free(t.question);
    bal_free(t.requests);
    return status;
}
