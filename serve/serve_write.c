/* Replies as OpenAI's API gives them.  SPDX-License-Identifier: Apache-2.0 */
#include "serve/serve.h"

#include "lib/base/mem.h"
#include "lib/text/spelling.h"

#include <math.h>
#include <string.h>

/* A prompt and the answer to it, with what is known of the probabilities. */
typedef struct tokens {
    const job *j;
    bal_ids ids;
    size_t n_prompt;
    bal_probabilities p;
} tokens;

static bal_status tokens_of(tokens *t, const job *j, const part *p, const int32_t *answer, size_t n,
                            bal_probabilities of)
{
    const bal_ids *prompt = &j->prompts[p->prompt];
    bal_status status = BAL_OK;
    *t = (tokens){.j = j, .n_prompt = prompt->n, .p = of};
    for (size_t i = 0; i < prompt->n; i++)
        BAL_TRY(bal_ids_append(&t->ids, prompt->data[i]));
    for (size_t i = 0; i < n; i++)
        BAL_TRY(bal_ids_append(&t->ids, answer[i]));
out:
    return status;
}

static size_t characters(const char *text, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)text[i] & 0xc0U) != 0x80U;
    return count;
}

static bal_status put_comma(bal_buf *out, size_t i)
{
    return i == 0 ? BAL_OK : bal_buf_text(out, ", ");
}

static bal_status put_log_probability(bal_buf *out, double v)
{
    return bal_json_put_f64(out, v); /* NaN, of the first token of a prompt: null */
}

/* ,"bytes": [...] */
static bal_status put_bytes(bal_buf *out, const bal_buf *text)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, ", \"bytes\": ["));
    for (size_t i = 0; i < text->len; i++)
        BAL_TRY(bal_buf_printf(out, "%s%u", i == 0 ? "" : ", ", (unsigned)(unsigned char)text->data[i]));
    status = bal_buf_text(out, "]");
out:
    return status;
}

/* The likeliest tokens at entry i as an object text -> log probability.  The token itself is among them.  Of several with
 * one text (parts of characters) only the likeliest is shown: a key may stand once. */
static bal_status put_top_object(const tokens *t, bal_spelling *pieces, size_t i, const bal_buf *own, bal_buf *out)
{
    bal_buf texts[SERVE_MAX_TOP] = {{0}};
    size_t n = 0;
    bool own_shown = false, first = true;
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{"));
    for (size_t k = 0; k < t->j->n_top; k++) {
        bool seen = false;
        BAL_TRY(bal_spelling_try(pieces, t->p.top[i * t->p.stride + k], &texts[n]));
        for (size_t m = 0; m < n && !seen; m++)
            seen = strcmp(bal_buf_cstr(&texts[m]), bal_buf_cstr(&texts[n])) == 0;
        if (seen)
            continue;
        own_shown = own_shown || strcmp(bal_buf_cstr(&texts[n]), bal_buf_cstr(own)) == 0;
        BAL_TRY(bal_json_put_key(out, bal_buf_cstr(&texts[n]), &first));
        BAL_TRY(put_log_probability(out, t->p.top_log_probability[i * t->p.stride + k]));
        n++;
    }
    if (!own_shown) {
        BAL_TRY(bal_json_put_key(out, bal_buf_cstr(own), &first));
        BAL_TRY(put_log_probability(out, t->p.log_probability[i]));
    }
    status = bal_buf_text(out, "}");
out:
    for (size_t k = 0; k < SERVE_MAX_TOP; k++)
        bal_buf_dispose(&texts[k]);
    return status;
}

/* Where token i's text stands in text[at ...]: a special token that the text leaves out has no room in it. */
static size_t advance(const tokens *t, size_t i, const char *text, size_t n_text, size_t at, const bal_buf *piece)
{
    if (piece->len <= n_text - at && memcmp(text + at, bal_buf_cstr(piece), piece->len) == 0)
        return at + piece->len;
    if (bal_tokenizer_is_special(t->j->s->base.tokenizer, t->ids.data[i]))
        return at;
    return piece->len < n_text - at ? at + piece->len : n_text;
}

typedef struct columns {
    bal_buf tokens, values, tops, offsets;
} columns;

/* "logprobs" of /v1/completions for the entries [from, to): text is that of the choice, whose byte `at` belongs to
 * entry `from`. */
static bal_status put_completion_logprobs(const tokens *t, size_t from, size_t to, const char *text, size_t n_text,
                                          size_t at, size_t n_before, bal_buf *out)
{
    bal_spelling pieces;
    bal_buf piece = {0}, own = {0};
    columns c = {{0}, {0}, {0}, {0}};
    bal_status status;
    bal_spelling_start(&pieces, t->j->s->base.tokenizer, t->ids.data, t->ids.n, from);
    for (size_t i = from; i < to; i++) {
        bool none = i == 0; /* nothing precedes it */
        BAL_TRY(bal_spelling_try(&pieces, t->ids.data[i], &own));
        BAL_TRY(put_comma(&c.tops, i - from));
        BAL_TRY(none || t->j->n_top == 0 ? bal_buf_text(&c.tops, "null")
                                         : put_top_object(t, &pieces, i, &own, &c.tops));
        BAL_TRY(bal_spelling_next(&pieces, &piece));
        BAL_TRY(put_comma(&c.tokens, i - from));
        BAL_TRY(bal_json_put_textn(&c.tokens, bal_buf_cstr(&piece), piece.len));
        BAL_TRY(put_comma(&c.values, i - from));
        BAL_TRY(none ? bal_buf_text(&c.values, "null") : put_log_probability(&c.values, t->p.log_probability[i]));
        BAL_TRY(bal_buf_printf(&c.offsets, "%s%zu", i == from ? "" : ", ", n_before + characters(text, at)));
        at = advance(t, i, text, n_text, at, &piece);
    }
    BAL_TRY(bal_buf_printf(out, "{\"tokens\": [%s], \"token_logprobs\": [%s], ", bal_buf_cstr(&c.tokens),
                           bal_buf_cstr(&c.values)));
    BAL_TRY(t->j->n_top == 0 ? bal_buf_text(out, "\"top_logprobs\": null")
                             : bal_buf_printf(out, "\"top_logprobs\": [%s]", bal_buf_cstr(&c.tops)));
    status = bal_buf_printf(out, ", \"text_offset\": [%s]}", bal_buf_cstr(&c.offsets));
out:
    bal_spelling_dispose(&pieces);
    bal_buf_dispose(&piece);
    bal_buf_dispose(&own);
    bal_buf_dispose(&c.tokens);
    bal_buf_dispose(&c.values);
    bal_buf_dispose(&c.tops);
    bal_buf_dispose(&c.offsets);
    return status;
}

static bal_status put_chat_token(const bal_buf *text, double log_probability, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"token\": "));
    BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(text), text->len));
    BAL_TRY(bal_buf_text(out, ", \"logprob\": "));
    BAL_TRY(put_log_probability(out, log_probability));
    status = put_bytes(out, text);
out:
    return status;
}

/* "logprobs" of /v1/chat/completions. */
static bal_status put_chat_logprobs(const tokens *t, size_t from, size_t to, bal_buf *out)
{
    bal_spelling pieces;
    bal_buf piece = {0};
    bal_status status;
    bal_spelling_start(&pieces, t->j->s->base.tokenizer, t->ids.data, t->ids.n, from);
    BAL_TRY(bal_buf_text(out, "{\"content\": ["));
    for (size_t i = from; i < to; i++) {
        bal_buf top = {0};
        status = BAL_OK;
        for (size_t k = 0; k < t->j->n_top && status == BAL_OK; k++) {
            status = bal_spelling_try(&pieces, t->p.top[i * t->p.stride + k], &piece);
            if (status == BAL_OK)
                status = put_comma(&top, k);
            if (status == BAL_OK)
                status = put_chat_token(&piece, t->p.top_log_probability[i * t->p.stride + k], &top);
            if (status == BAL_OK)
                status = bal_buf_text(&top, "}");
        }
        if (status == BAL_OK)
            status = bal_spelling_next(&pieces, &piece);
        if (status == BAL_OK)
            status = put_comma(out, i - from);
        if (status == BAL_OK)
            status = put_chat_token(&piece, t->p.log_probability[i], out);
        if (status == BAL_OK)
            status = bal_buf_printf(out, ", \"top_logprobs\": [%s]}", bal_buf_cstr(&top));
        bal_buf_dispose(&top);
        BAL_TRY(status);
    }
    status = bal_buf_text(out, "]}");
out:
    bal_spelling_dispose(&pieces);
    bal_buf_dispose(&piece);
    return status;
}

/* The prompt as the reply repeats it. */
static bal_status put_echo(const job *j, const part *p, bal_buf *out)
{
    const bal_buf *given = &j->prompt_texts[p->prompt];
    const bal_ids *ids = &j->prompts[p->prompt];
    if (!j->echo)
        return BAL_OK;
    if (given->len > 0)
        return bal_buf_append(out, given->data, given->len);
    return bal_tokenizer_decode(j->s->base.tokenizer, ids->data, ids->n, false, out);
}

static bal_status put_head(const job *j, const char *object, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "{\"id\": \"%s\", \"object\": \"%s\", \"created\": %lld, \"model\": ", j->id, object,
                           (long long)j->created));
    BAL_TRY(bal_json_put_text(out, j->model->name));
    status = bal_buf_text(out, ", \"system_fingerprint\": \"balora-" BAL_VERSION "\"");
out:
    return status;
}

static bal_status put_usage(const job *j, bal_buf *out)
{
    size_t prompt = 0, answer = 0;
    for (size_t i = 0; i < j->n_prompts; i++)
        prompt += j->prompts[i].n;
    for (size_t i = 0; i < j->n_parts; i++)
        answer += j->parts[i].ids.n;
    return bal_buf_printf(out,
                          ", \"usage\": {\"prompt_tokens\": %zu, \"completion_tokens\": %zu, \"total_tokens\": %zu}",
                          prompt, answer, prompt + answer);
}

static bal_status put_choice(const job *j, size_t i, bal_buf *out)
{
    const part *p = &j->parts[i];
    bal_buf text = {0};
    tokens t = {0};
    bal_status status;
    BAL_TRY(put_echo(j, p, &text));
    BAL_TRY(bal_buf_append(&text, bal_buf_cstr(&p->text), p->text.len));
    BAL_TRY(bal_buf_printf(out, "%s{\"index\": %zu, ", i == 0 ? "" : ", ", i));
    BAL_TRY(bal_buf_text(out, j->chat ? "\"message\": {\"role\": \"assistant\", \"content\": " : "\"text\": "));
    BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(&text), text.len));
    BAL_TRY(bal_buf_text(out, j->chat ? "}, \"logprobs\": " : ", \"logprobs\": "));
    if (p->log_probability == NULL) {
        BAL_TRY(bal_buf_text(out, "null"));
    } else {
        const bal_probabilities of = {p->log_probability, p->top, p->top_log_probability, j->n_top};
        BAL_TRY(tokens_of(&t, j, p, p->ids.data, p->ids.n, of));
        BAL_TRY(j->chat ? put_chat_logprobs(&t, t.n_prompt, t.ids.n, out)
                        : put_completion_logprobs(&t, j->echo ? 0 : t.n_prompt, t.ids.n, bal_buf_cstr(&text), text.len,
                                                  0, 0, out));
    }
    status = bal_buf_printf(out, ", \"finish_reason\": \"%s\"}", p->reason);
out:
    bal_buf_dispose(&text);
    bal_ids_dispose(&t.ids);
    return status;
}

bal_status serve_write_reply(const job *j, bal_buf *out)
{
    bal_status status;
    BAL_TRY(put_head(j, j->chat ? "chat.completion" : "text_completion", out));
    BAL_TRY(bal_buf_text(out, ", \"choices\": ["));
    for (size_t i = 0; i < j->n_parts; i++)
        BAL_TRY(put_choice(j, i, out));
    BAL_TRY(bal_buf_text(out, "]"));
    BAL_TRY(put_usage(j, out));
    status = bal_buf_text(out, "}\n");
out:
    return status;
}

/* --- streams --- */

static bal_status put_event(const job *j, size_t i, const bal_buf *what, const char *reason, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "data: "));
    BAL_TRY(put_head(j, j->chat ? "chat.completion.chunk" : "text_completion", out));
    BAL_TRY(bal_buf_printf(out, ", \"choices\": [{\"index\": %zu, %s, \"finish_reason\": ", i, bal_buf_cstr(what)));
    BAL_TRY(reason == NULL ? bal_buf_text(out, "null") : bal_buf_printf(out, "\"%s\"", reason));
    status = bal_buf_printf(out, "}]%s}\n\n", j->include_usage ? ", \"usage\": null" : "");
out:
    return status;
}

/* text[0..n) is new; entries [from, to) with it. */
static bal_status put_delta(const job *j, size_t i, const bal_answer *a, const char *text, size_t n, bool echoed,
                            size_t before, bal_buf *what)
{
    const part *p = &j->parts[i];
    tokens t = {0};
    bal_status status;
    BAL_TRY(bal_buf_text(what, j->chat ? "\"delta\": {\"content\": " : "\"text\": "));
    BAL_TRY(bal_json_put_textn(what, text, n));
    BAL_TRY(bal_buf_text(what, j->chat ? "}, \"logprobs\": " : ", \"logprobs\": "));
    if (!j->logprobs) {
        status = bal_buf_text(what, "null");
        goto out;
    }
    BAL_TRY(tokens_of(&t, j, p, a->ids, a->n_ids, a->probabilities));
    size_t from = echoed ? 0 : t.n_prompt + p->n_sent;
    status = j->chat ? put_chat_logprobs(&t, from, t.ids.n, what)
                     : put_completion_logprobs(&t, from, t.ids.n, text, n, 0, before, what);
out:
    bal_ids_dispose(&t.ids);
    return status;
}

bal_status serve_write_event(job *j, size_t i, const bal_answer *a, bool finished, bal_buf *out)
{
    part *p = &j->parts[i];
    bal_buf text = {0}, what = {0};
    bool stopped = false, echoed = !p->begun && j->echo;
    bal_status status = BAL_OK;
    if (!p->begun && j->chat) {
        BAL_TRY(bal_buf_text(&what, "\"delta\": {\"role\": \"assistant\", \"content\": \"\"}, \"logprobs\": null"));
        BAL_TRY(put_event(j, i, &what, NULL, out));
        bal_buf_clear(&what);
    }
    size_t n_echo = 0, end = 0;
    BAL_TRY(put_echo(j, p, &text));
    n_echo = text.len;
    if (finished)
        BAL_TRY(bal_buf_append(&text, a->text, a->n_text));
    else
        BAL_TRY(bal_tokenizer_decode(j->s->base.tokenizer, a->ids, a->n_ids, !j->ignore_eos, &text));
    end = finished || text.len == n_echo
              ? text.len
              : n_echo + bal_text_settled(text.data + n_echo, text.len - n_echo, j->stops, j->n_stops, &stopped);
    size_t from = echoed ? 0 : n_echo + p->sent;
    p->begun = true;
    if (end > from || (finished && j->logprobs && a->n_ids > p->n_sent)) {
        end = end > from ? end : from;
        BAL_TRY(put_delta(j, i, a, bal_buf_cstr(&text) + from, end - from, echoed,
                          characters(bal_buf_cstr(&text), from), &what));
        BAL_TRY(put_event(j, i, &what, NULL, out));
        p->sent = end - n_echo;
        p->n_sent = a->n_ids;
    }
    if (finished) {
        bal_buf_clear(&what);
        BAL_TRY(
            bal_buf_text(&what, j->chat ? "\"delta\": {}, \"logprobs\": null" : "\"text\": \"\", \"logprobs\": null"));
        status = put_event(j, i, &what, a->finish_reason, out);
    }
out:
    bal_buf_dispose(&text);
    bal_buf_dispose(&what);
    return status;
}

bal_status serve_write_end(const job *j, bal_buf *out)
{
    bal_status status = BAL_OK;
    if (j->include_usage) {
        BAL_TRY(bal_buf_text(out, "data: "));
        BAL_TRY(put_head(j, j->chat ? "chat.completion.chunk" : "text_completion", out));
        BAL_TRY(bal_buf_text(out, ", \"choices\": []"));
        BAL_TRY(put_usage(j, out));
        BAL_TRY(bal_buf_text(out, "}\n\n"));
    }
    status = bal_buf_text(out, "data: [DONE]\n\n");
out:
    return status;
}

/* --- the rest --- */

bal_status serve_write_error(const serve_error *e, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"error\": {\"message\": "));
    BAL_TRY(bal_json_put_text(out, e->message));
    BAL_TRY(bal_buf_printf(out, ", \"type\": \"%s\", \"param\": null, \"code\": ", e->type));
    BAL_TRY(e->name == NULL ? bal_buf_text(out, "null") : bal_json_put_text(out, e->name));
    status = bal_buf_text(out, "}}\n");
out:
    return status;
}

static bal_status put_model(const server *s, const served *m, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"id\": "));
    BAL_TRY(bal_json_put_text(out, m->name));
    BAL_TRY(bal_buf_printf(out, ", \"object\": \"model\", \"created\": %lld, \"owned_by\": \"balora\", \"parent\": ",
                           (long long)s->started));
    BAL_TRY(m == s->models ? bal_buf_text(out, "null") : bal_json_put_text(out, s->models[0].name));
    status = bal_buf_printf(out, ", \"max_model_len\": %zu}", bal_engine_max_length(m->engine));
out:
    return status;
}

bal_status serve_write_models(const server *s, const char *only, bal_buf *out)
{
    bal_status status = BAL_OK;
    if (only == NULL)
        BAL_TRY(bal_buf_text(out, "{\"object\": \"list\", \"data\": ["));
    for (size_t i = 0; i < s->n_models; i++) {
        if (only != NULL && strcmp(only, s->models[i].name) != 0)
            continue;
        BAL_TRY(put_comma(out, only == NULL ? i : 0));
        BAL_TRY(put_model(s, &s->models[i], out));
    }
    status = bal_buf_text(out, only == NULL ? "]}\n" : "\n");
out:
    return status;
}
