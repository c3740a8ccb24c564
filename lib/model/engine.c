/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/engine.h"

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/model/decode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    DEFAULT_BATCH = 32,
    STEP_ROWS = 256,
    HEAD_ROWS = 32,
    MIN_SHARED = 4,  /* tokens; to copy keys and values costs much less than to compute them */
    LOOK_AHEAD = 64, /* requests that are looked at for one that need not wait */
    TEXT_BYTES_PER_TOKEN = 16
};
static const size_t k_max_cache = (size_t)2 << 30;

typedef enum slot_state { SLOT_FREE, SLOT_PROMPT, SLOT_DECODE } slot_state;

typedef struct slot {
    slot_state state;
    size_t request;
    int32_t *tokens; /* [capacity + 1] prompt, then what was generated (or the continuation) */
    size_t n_ready;  /* tokens whose keys and values are there, also after the request is done */
    size_t n_cached; /* the same after the step that is being put together */
    size_t n_tokens, n_prompt, n_dropped;
    size_t n_input; /* tokens that are known and have to be run */
    double *nll;    /* SCORE */
    double sum;
    bool greedy;
    size_t n_scored, scored_top; /* tokens whose probabilities stand below, with so many alternatives */
    double *log_probability;     /* [capacity + 1] */
    int32_t *top;                /* [(capacity + 1) * options.top] */
    double *top_log_probability;
    bal_rng rng;
    bal_buf text;
    double start;
} slot;

struct bal_engine {
    const bal_model *m;
    const bal_engine_options *o;
    bal_engine_options own; /* o of an engine whose requests come one by one */
    const bal_request *requests;
    bal_request *table;                /* the same, own: [n_requests], or NULL */
    bool *taken;                       /* [n_requests] places of the table */
    size_t *waiting, first, n_waiting; /* requests in their order: waiting[first ...] */
    size_t n_requests, n_slots, capacity, max_length, max_nll;
    bal_decoder *decoder;
    slot *slots;
    bal_decode_row rows[STEP_ROWS];
    size_t n_rows;
    uint32_t head_row[STEP_ROWS]; /* rows of this step whose logits are needed */
    uint32_t head_slot[STEP_ROWS];
    size_t n_head;
    bal_sample_item *items;
    bal_engine_stats stats;
};
typedef bal_engine engine;

/* Tokens to keep of the prompt, and cached positions needed. */
static bal_status plan(const engine *e, size_t i, size_t *keep, size_t *positions)
{
    const bal_request *r = &e->requests[i];
    size_t tail = r->kind == BAL_REQUEST_SCORE ? r->n_continuation : r->max_new_tokens;
    /* The last token of a continuation is not run, so one more fits (as in lm-eval: the last max_length + 1 ids). */
    size_t room = e->max_length + (r->kind == BAL_REQUEST_SCORE ? 1 : 0);
    if (r->n_prompt == 0)
        return bal_fail(BAL_EINVAL, "request %zu has no prompt; at least one token (BOS) is needed", i + 1);
    if (r->kind == BAL_REQUEST_SCORE && r->n_continuation == 0)
        return bal_fail(BAL_EINVAL, "request %zu has an empty continuation", i + 1);
    if (tail >= room)
        return bal_fail(BAL_ELIMIT, "request %zu needs %zu tokens after its prompt, but the model's context is %zu",
                        i + 1, tail, e->max_length);
    if ((r->probabilities || r->prompt_probabilities) && (r->n_top > e->o->top || e->o->top == 0))
        return bal_fail(BAL_EINVAL, "request %zu asks for %zu likeliest tokens, but at most %zu are kept", i + 1,
                        r->n_top, e->o->top);
    *keep = r->n_prompt < room - tail ? r->n_prompt : room - tail;
    *positions = *keep + tail;
    return BAL_OK;
}

static bal_status size_slots(engine *e)
{
    size_t budget = e->o->cache_bytes, batch = e->o->batch == 0 ? DEFAULT_BATCH : e->o->batch, longest = 0;
    bal_status status;
    if (batch > STEP_ROWS / 2)
        batch = STEP_ROWS / 2;
    e->max_length = e->m->config.max_positions;
    if (e->m->config.rope.kind == BAL_ROPE_LONGROPE && /* a longer sequence would turn what is cached otherwise */
        e->m->config.rope.original_max_positions < (double)e->max_length)
        e->max_length = (size_t)e->m->config.rope.original_max_positions;
    if (e->o->max_length != 0 && e->o->max_length < e->max_length)
        e->max_length = e->o->max_length;
    for (size_t i = 0; e->table == NULL && i < e->n_requests; i++) {
        size_t keep = 0, positions = 0;
        BAL_TRY(plan(e, i, &keep, &positions));
        longest = positions > longest ? positions : longest;
        if (e->requests[i].kind == BAL_REQUEST_SCORE && e->requests[i].n_continuation > e->max_nll)
            e->max_nll = e->requests[i].n_continuation;
    }
    if (e->table != NULL) /* any may come */
        longest = e->max_nll = e->max_length + 1;
    e->capacity = (longest + 15) / 16 * 16;
    if (budget == 0) {
        int64_t available = bal_free_memory_bytes();
        budget = available < 0 ? k_max_cache / 4 : (size_t)available / 4;
        budget = budget > k_max_cache ? k_max_cache : budget;
    }
    size_t slots = budget / (e->capacity * bal_decoder_position_bytes(e->m));
    slots = slots > batch ? batch : slots;
    slots = slots > e->n_requests ? e->n_requests : slots;
    e->n_slots = slots == 0 ? 1 : slots;
    status = BAL_OK;
out:
    return status;
}

/* Room for the probabilities of a slot's tokens. */
static bal_status prepare_scores(const engine *e, slot *s)
{
    s->log_probability = bal_alloc(e->capacity + 1, sizeof *s->log_probability);
    s->top = bal_alloc((e->capacity + 1) * e->o->top, sizeof *s->top);
    s->top_log_probability = bal_alloc((e->capacity + 1) * e->o->top, sizeof *s->top_log_probability);
    if (s->log_probability == NULL || s->top == NULL || s->top_log_probability == NULL)
        return BAL_ENOMEM;
    s->log_probability[0] = (double)NAN; /* nothing precedes the first token */
    for (size_t k = 0; k < e->o->top; k++) {
        s->top[k] = -1;
        s->top_log_probability[k] = (double)NAN;
    }
    return BAL_OK;
}

static bal_status prepare(engine *e)
{
    bal_status status;
    BAL_TRY(size_slots(e));
    bal_decoder_options o = {
        .slots = e->n_slots, .capacity = e->capacity, .rows = STEP_ROWS, .logits = HEAD_ROWS, .compute = e->o->compute};
    BAL_TRY(bal_decoder_new(&e->decoder, e->m, &o));
    e->slots = bal_alloc(e->n_slots, sizeof *e->slots);
    e->items = bal_alloc(e->m->config.vocab, sizeof *e->items);
    e->waiting = bal_alloc(e->n_requests, sizeof *e->waiting);
    if (e->slots == NULL || e->items == NULL || e->waiting == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < e->n_slots; i++) {
        e->slots[i].tokens = bal_alloc(e->capacity + 1, sizeof *e->slots[i].tokens);
        e->slots[i].nll = bal_alloc(e->max_nll + 1, sizeof *e->slots[i].nll);
        if (e->slots[i].tokens == NULL || e->slots[i].nll == NULL)
            return BAL_ENOMEM;
        if (e->o->tokenizer != NULL) { /* room now, so that decoding does not allocate */
            char blank[256] = {0};
            for (size_t done = 0; done < e->capacity * TEXT_BYTES_PER_TOKEN; done += sizeof blank)
                BAL_TRY(bal_buf_append(&e->slots[i].text, blank, sizeof blank));
            bal_buf_clear(&e->slots[i].text);
        }
        if (e->o->top > 0)
            BAL_TRY(prepare_scores(e, &e->slots[i]));
    }
out:
    return status;
}

static void dispose(engine *e)
{
    for (size_t i = 0; e->slots != NULL && i < e->n_slots; i++) {
        bal_free(e->slots[i].tokens);
        bal_free(e->slots[i].nll);
        bal_free(e->slots[i].log_probability);
        bal_free(e->slots[i].top);
        bal_free(e->slots[i].top_log_probability);
        bal_buf_dispose(&e->slots[i].text);
    }
    bal_free(e->slots);
    bal_free(e->items);
    bal_free(e->waiting);
    bal_free(e->table);
    bal_free(e->taken);
    bal_decoder_free(e->decoder);
}

/* What the slots know of a prompt's beginning. */
typedef struct shared_start {
    size_t slot, ready; /* the slot with the longest common start in its cache, and its tokens */
    size_t coming; /* the longest common start that some slot will have in its cache after this step or a later one */
} shared_start;

static bool wants_prompt_scores(const bal_request *r)
{
    return r->kind == BAL_REQUEST_GENERATE && r->prompt_probabilities;
}

/* r: for whose prompt tokens[0..n) a beginning is looked for.  One that asks for the prompt's probabilities can use only
 * what such a one has computed, and without its last position, whose logits are needed for another token. */
static shared_start find_shared(const engine *e, const bal_request *r, const int32_t *tokens, size_t n)
{
    shared_start best = {0};
    bool scored = wants_prompt_scores(r);
    for (size_t i = 0; i < e->n_slots; i++) {
        const slot *s = &e->slots[i];
        size_t same = 0, known = s->state == SLOT_PROMPT ? s->n_input : s->n_ready, limit = known < n ? known : n;
        if (scored && s->scored_top < r->n_top)
            continue;
        if (scored && s->state != SLOT_PROMPT && s->n_scored < limit)
            limit = s->n_scored;
        while (same < limit && s->tokens[same] == tokens[same])
            same++;
        size_t ready = same < s->n_ready ? same : s->n_ready;
        if (scored) {
            bool will = s->state != SLOT_PROMPT || wants_prompt_scores(&e->requests[s->request]);
            ready = ready < s->n_scored ? ready : s->n_scored;
            ready -= ready > 0;
            same = will && same > 0 ? same - 1 : ready;
        }
        if (ready > best.ready) {
            best.ready = ready;
            best.slot = i;
        }
        best.coming = same > best.coming ? same : best.coming;
    }
    return best;
}

/* The free slot whose cache is worth least: the one with the fewest tokens, so that long prefixes stay. */
static slot *pick_free(engine *e)
{
    slot *best = NULL;
    for (size_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].state == SLOT_FREE && (best == NULL || e->slots[i].n_ready < best->n_ready))
            best = &e->slots[i];
    return best;
}

/* The probabilities of tokens 0 .. common of a beginning of `common` cached positions, with n_top alternatives. */
static void copy_scores(const engine *e, const slot *from, slot *to, size_t common, size_t n_top)
{
    size_t top = e->o->top, n = common + 1;
    if (top == 0)
        return;
    if (common > 0 && from != to) {
        memcpy(to->log_probability + 1, from->log_probability + 1, common * sizeof *to->log_probability);
        memcpy(to->top + top, from->top + top, common * top * sizeof *to->top);
        memcpy(to->top_log_probability + top, from->top_log_probability + top,
               common * top * sizeof *to->top_log_probability);
    }
    to->scored_top = common > 0 ? from->scored_top : n_top;
    to->n_scored = n;
}

/* Only the prompt's probabilities are asked for: its last token need not be run. */
static bool only_scored(const bal_request *r, size_t n_prompt)
{
    return wants_prompt_scores(r) && r->max_new_tokens == 0 && n_prompt > 1;
}

/* Puts request i into the slot that has most of its prompt, or a free one with a copy of that. */
static void admit_as(engine *e, size_t i, const int32_t *prompt, size_t keep, shared_start shared)
{
    const bal_request *r = &e->requests[i];
    size_t n_known = keep, common = shared.ready, from = shared.slot;
    slot *s = e->slots[from].state == SLOT_FREE && common > 0 ? &e->slots[from] : pick_free(e);
    size_t to = (size_t)(s - e->slots);
    if (r->kind == BAL_REQUEST_SCORE)
        n_known += r->n_continuation;
    if (common < MIN_SHARED && from != to)
        common = 0;
    bal_decoder_copy(e->decoder, from, to, common);
    copy_scores(e, &e->slots[from], s, wants_prompt_scores(r) ? common : 0, r->n_top);
    memcpy(s->tokens, prompt, keep * sizeof *prompt);
    if (r->kind == BAL_REQUEST_SCORE)
        memcpy(s->tokens + keep, r->continuation, r->n_continuation * sizeof *prompt);
    s->state = SLOT_PROMPT;
    s->request = i;
    s->n_cached = s->n_ready = common;
    s->n_prompt = keep;
    s->n_dropped = r->n_prompt - keep;
    s->n_tokens = n_known;
    s->n_input = r->kind == BAL_REQUEST_SCORE || only_scored(r, keep) ? n_known - 1 : n_known;
    s->sum = 0;
    s->greedy = true;
    s->start = bal_clock_seconds();
    bal_buf_clear(&s->text);
    char stream[48];
    (void)snprintf(stream, sizeof stream, "sampling %llu", (unsigned long long)r->stream);
    bal_rng_init(&s->rng, r->seed, stream);
    e->stats.prompt_tokens += keep;
    e->stats.continuation_tokens += r->kind == BAL_REQUEST_SCORE ? r->n_continuation : 0;
    e->stats.shared_tokens += common;
}

/* Admits the first of the next requests whose beginning is not just being computed for another one: the answers to one
 * question, or prompts with the same examples, wait for the first of them and start from its copy. */
static bool admit(engine *e)
{
    if (pick_free(e) == NULL)
        return false;
    for (size_t seen = 0; seen < e->n_waiting && seen < LOOK_AHEAD; seen++) {
        size_t keep = 0, positions = 0, i = e->waiting[e->first + seen];
        if (plan(e, i, &keep, &positions) != BAL_OK) /* which cannot be: all were planned before */
            continue;
        const bal_request *r = &e->requests[i];
        const int32_t *prompt = r->prompt + (r->n_prompt - keep);
        shared_start shared = find_shared(e, r, prompt, keep - 1);
        if (shared.coming >= MIN_SHARED && shared.coming > shared.ready)
            continue;
        admit_as(e, i, prompt, keep, shared);
        for (size_t k = e->first + seen; k > e->first; k--)
            e->waiting[k] = e->waiting[k - 1];
        e->first++;
        e->n_waiting--;
        return true;
    }
    return false;
}

static void add_row(engine *e, size_t slot_index, bool head)
{
    slot *s = &e->slots[slot_index];
    if (head) {
        e->head_row[e->n_head] = (uint32_t)e->n_rows;
        e->head_slot[e->n_head++] = (uint32_t)slot_index;
    }
    e->rows[e->n_rows++] = (bal_decode_row){s->tokens[s->n_cached], (uint32_t)slot_index, (uint32_t)s->n_cached};
    s->n_cached++;
}

/* One token of each decoding slot, then pieces of prompts, one prompt after the other. */
static void compose(engine *e)
{
    e->n_rows = e->n_head = 0;
    for (size_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].state == SLOT_DECODE)
            add_row(e, i, true);
    for (;;) {
        for (size_t i = 0; i < e->n_slots; i++) {
            slot *s = &e->slots[i];
            const bal_request *r = &e->requests[s->request];
            bool score = s->state == SLOT_PROMPT && r->kind == BAL_REQUEST_SCORE;
            bool all = s->state == SLOT_PROMPT && wants_prompt_scores(r);
            while (s->state == SLOT_PROMPT && s->n_cached < s->n_input && e->n_rows < STEP_ROWS)
                add_row(e, i, all || (s->n_cached + 1 >= s->n_prompt && (score || s->n_cached + 1 == s->n_input)));
        }
        if (e->n_rows >= STEP_ROWS || !admit(e))
            return;
    }
}

/* What has become of a request so far. */
static bal_answer answer_of(const engine *e, const slot *s, const char *reason)
{
    const bal_request *r = &e->requests[s->request];
    bal_answer a = {.ids = s->tokens + s->n_prompt,
                    .n_ids = s->n_tokens - s->n_prompt,
                    .text = bal_buf_cstr(&s->text),
                    .n_text = s->text.len,
                    .finish_reason = reason,
                    .log_likelihood = s->sum,
                    .is_greedy = s->greedy,
                    .nll = s->nll,
                    .n_prompt = s->n_prompt,
                    .n_dropped = s->n_dropped,
                    .seconds = bal_clock_seconds() - s->start};
    if (r->kind == BAL_REQUEST_GENERATE && (r->probabilities || r->prompt_probabilities))
        a.probabilities = (bal_probabilities){s->log_probability, s->top, s->top_log_probability, e->o->top};
    return a;
}

static bal_status finish(engine *e, slot *s, const char *reason)
{
    bal_answer a = answer_of(e, s, reason);
    s->state = SLOT_FREE;
    if (e->taken != NULL)
        e->taken[s->request] = false;
    return e->o->answer(e->o->context, s->request, &a);
}

static bool is_eos(const engine *e, int32_t token)
{
    const bal_model_config *c = &e->m->config;
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == token)
            return true;
    return e->o->tokenizer != NULL && bal_tokenizer_eos(e->o->tokenizer) == token;
}

/* A model's vocabulary may be padded beyond the tokenizer's: such ids have no text. */
static bal_status decode_known(const bal_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, bal_buf *out)
{
    size_t known = bal_tokenizer_vocab_size(t);
    bal_status status = BAL_OK;
    for (size_t i = 0, end; status == BAL_OK && i < n; i = end + 1) {
        for (end = i; end < n && (size_t)ids[end] < known; end++)
            continue;
        if (end > i)
            status = bal_tokenizer_decode(t, ids + i, end - i, skip_special, out);
    }
    return status;
}

/* The text of what was generated, cut before the first stop; *stopped if there is one. */
static bal_status read_text(engine *e, slot *s, bool *stopped)
{
    const bal_request *r = &e->requests[s->request];
    *stopped = false;
    if (e->o->tokenizer == NULL)
        return BAL_OK;
    bal_buf_clear(&s->text);
    bal_status status =
        decode_known(e->o->tokenizer, s->tokens + s->n_prompt, s->n_tokens - s->n_prompt, !r->ignore_eos, &s->text);
    if (status != BAL_OK)
        return status;
    size_t cut = s->text.len;
    for (size_t i = 0; i < r->n_stops; i++) {
        size_t n = strlen(r->stops[i]);
        const char *hit = n == 0 || s->text.len == 0 ? NULL : memmem(s->text.data, cut, r->stops[i], n);
        if (hit != NULL) {
            cut = (size_t)(hit - s->text.data);
            *stopped = true;
        }
    }
    if (*stopped) {
        s->text.len = cut;
        s->text.data[cut] = '\0';
    }
    return BAL_OK;
}

/* The probabilities of token i of the slot, given the logits before it. */
static void note_scores(const engine *e, slot *s, size_t i, const real_t *logits)
{
    const bal_request *r = &e->requests[s->request];
    size_t vocab = e->m->config.vocab, at = i * e->o->top;
    s->log_probability[i] = bal_logits_score(logits, vocab, s->tokens[i]).log_probability;
    bal_logits_top(logits, vocab, s->scored_top > r->n_top ? s->scored_top : r->n_top, s->top + at,
                   s->top_log_probability + at);
    if (i < s->n_prompt && s->n_scored == i)
        s->n_scored = i + 1;
}

static bal_status next_token(engine *e, slot *s, const real_t *logits)
{
    const bal_request *r = &e->requests[s->request];
    size_t vocab = e->m->config.vocab, made;
    bool stopped = false;
    bal_status status;
    int32_t token = bal_sample(logits, vocab, &r->sampling, &s->rng, e->items);
    s->tokens[s->n_tokens++] = token;
    s->n_input = s->n_tokens;
    s->state = SLOT_DECODE;
    made = s->n_tokens - s->n_prompt;
    e->stats.new_tokens++;
    if (r->probabilities)
        note_scores(e, s, s->n_tokens - 1, logits);
    if (e->o->progress != NULL) {
        const bal_answer so_far = answer_of(e, s, "");
        e->o->progress(e->o->context, s->request, &so_far);
    }
    if (e->o->token != NULL)
        e->o->token(e->o->context, s->request, s->tokens + s->n_prompt, made);
    bool ended = !r->ignore_eos && is_eos(e, token), full = made >= r->max_new_tokens;
    if (r->n_stops > 0 || ended || full) {
        if (ended) { /* the text is what comes before it, whatever the tokenizer calls special */
            s->n_tokens--;
            status = read_text(e, s, &stopped);
            s->n_tokens++;
        } else {
            status = read_text(e, s, &stopped);
        }
        if (status != BAL_OK)
            return status;
    }
    return ended || stopped || full ? finish(e, s, ended || stopped ? "stop" : "length") : BAL_OK;
}

/* Whether row i of the wanted ones belongs to a continuation that is scored. */
static bool is_scored(const engine *e, size_t i)
{
    const slot *s = &e->slots[e->head_slot[i]];
    return s->state != SLOT_FREE && e->requests[s->request].kind == BAL_REQUEST_SCORE;
}

/* Rows first .. first + n - 1 of the wanted ones; each predicts the token after it. */
static bal_status use_scores(engine *e, size_t first, size_t n)
{
    int32_t token[STEP_ROWS] = {0};
    bal_token_score score[STEP_ROWS];
    for (size_t i = 0; i < n; i++)
        token[i] = e->slots[e->head_slot[first + i]].tokens[e->rows[e->head_row[first + i]].position + 1];
    bal_status status = bal_decoder_scores(e->decoder, first, n, token, score);
    for (size_t i = 0; status == BAL_OK && i < n; i++) {
        slot *s = &e->slots[e->head_slot[first + i]];
        size_t position = e->rows[e->head_row[first + i]].position;
        s->nll[position + 1 - s->n_prompt] = -score[i].log_probability;
        s->sum += score[i].log_probability;
        s->greedy = s->greedy && score[i].best == token[i];
        if (position + 1 == s->n_input)
            status = finish(e, s, "stop");
    }
    return status;
}

/* The same for rows of texts that are being made, at most HEAD_ROWS. */
static bal_status use_logits(engine *e, size_t first, size_t n)
{
    size_t vocab = e->m->config.vocab;
    const real_t *logits = NULL;
    bal_status status = bal_decoder_logits(e->decoder, first, n, &logits);
    for (size_t i = 0; status == BAL_OK && i < n; i++) {
        slot *s = &e->slots[e->head_slot[first + i]];
        size_t position = e->rows[e->head_row[first + i]].position;
        if (s->state == SLOT_FREE) /* was answered without a token */
            continue;
        if (position + 1 < s->n_prompt)
            note_scores(e, s, position + 1, logits + i * vocab);
        if (position + 1 >= s->n_prompt)
            status = next_token(e, s, logits + i * vocab);
        else if (position + 1 == s->n_input)
            status = finish(e, s, "length");
    }
    return status;
}

static bal_status use_rows(engine *e)
{
    bal_status status = BAL_OK;
    for (size_t begin = 0, end; status == BAL_OK && begin < e->n_head; begin = end) {
        bool scored = is_scored(e, begin);
        size_t most = scored ? STEP_ROWS : HEAD_ROWS;
        for (end = begin + 1; end < e->n_head && end - begin < most && is_scored(e, end) == scored; end++)
            continue;
        status = scored ? use_scores(e, begin, end - begin) : use_logits(e, begin, end - begin);
    }
    return status;
}

/* Requests for no new token are answered without the model. */
static bal_status answer_empty(engine *e, slot *s)
{
    const bal_request *r = &e->requests[s->request];
    return r->kind == BAL_REQUEST_GENERATE && r->max_new_tokens == 0 ? finish(e, s, "length") : BAL_OK;
}

bal_status bal_engine_step(bal_engine *e, bool *idle)
{
    bal_status status;
    compose(e);
    for (size_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].state == SLOT_PROMPT && e->slots[i].n_cached == e->slots[i].n_prompt)
            BAL_TRY(answer_empty(e, &e->slots[i]));
    *idle = e->n_rows == 0;
    if (*idle)
        return BAL_OK;
    BAL_TRY(bal_decoder_step(e->decoder, e->rows, e->n_rows, e->head_row, e->n_head));
    for (size_t i = 0; i < e->n_slots; i++)
        e->slots[i].n_ready = e->slots[i].n_cached;
    BAL_TRY(use_rows(e));
    e->stats.steps++;
out:
    return status;
}

bal_status bal_engine_run(const bal_model *m, const bal_engine_options *o, const bal_request *requests, size_t n,
                          bal_engine_stats *stats)
{
    bal_status status;
    engine *e = bal_alloc(1, sizeof *e);
    if (e == NULL)
        return BAL_ENOMEM;
    *e = (engine){.m = m, .o = o, .requests = requests, .n_requests = n};
    double start = bal_clock_seconds();
    if (n > 0)
        BAL_TRY(prepare(e));
    status = BAL_OK;
    for (e->n_waiting = 0; e->n_waiting < n; e->n_waiting++)
        e->waiting[e->n_waiting] = e->n_waiting;
    for (bool idle = n == 0; !idle;) {
        if (bal_interrupted()) {
            status = bal_fail(BAL_EINTERRUPT, "interrupted");
            goto out;
        }
        BAL_TRY(bal_engine_step(e, &idle));
    }
    e->stats.slots = e->n_slots;
    e->stats.seconds = bal_clock_seconds() - start;
    if (stats != NULL)
        *stats = e->stats;
out:
    dispose(e);
    bal_free(e);
    return status;
}

/* --- requests that come one by one --- */

bal_status bal_engine_open(bal_engine **out, const bal_model *m, const bal_engine_options *o, size_t most)
{
    bal_status status;
    *out = NULL;
    engine *e = bal_alloc(1, sizeof *e);
    if (e == NULL)
        return BAL_ENOMEM;
    *e = (engine){.m = m, .own = *o, .n_requests = most};
    e->o = &e->own;
    e->table = bal_alloc(most, sizeof *e->table);
    e->taken = bal_alloc(most, sizeof *e->taken);
    e->requests = e->table;
    BAL_TRY(e->table == NULL || e->taken == NULL ? BAL_ENOMEM : BAL_OK);
    BAL_TRY(prepare(e));
    e->stats.slots = e->n_slots;
    *out = e;
    e = NULL;
out:
    bal_engine_close(e);
    return status;
}

void bal_engine_close(bal_engine *e)
{
    if (e == NULL)
        return;
    dispose(e);
    bal_free(e);
}

static bal_status check_ids(const bal_model *m, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= m->config.vocab)
            return bal_fail(BAL_EFORMAT, "token id %d is outside the model's vocabulary of %zu", (int)ids[i],
                            m->config.vocab);
    return BAL_OK;
}

bal_status bal_engine_add(bal_engine *e, const bal_request *r, size_t *id)
{
    size_t i = 0, keep = 0, positions = 0;
    bal_status status;
    while (i < e->n_requests && e->taken[i])
        i++;
    if (i == e->n_requests)
        return bal_fail(BAL_EBUSY, "%zu requests are waiting or answered already", e->n_requests);
    BAL_TRY(check_ids(e->m, r->prompt, r->n_prompt));
    BAL_TRY(check_ids(e->m, r->continuation, r->kind == BAL_REQUEST_SCORE ? r->n_continuation : 0));
    e->table[i] = *r;
    BAL_TRY(plan(e, i, &keep, &positions));
    if (e->first + e->n_waiting == e->n_requests) {
        memmove(e->waiting, e->waiting + e->first, e->n_waiting * sizeof *e->waiting);
        e->first = 0;
    }
    e->waiting[e->first + e->n_waiting++] = i;
    e->taken[i] = true;
    *id = i;
out:
    return status;
}

void bal_engine_cancel(bal_engine *e, size_t id)
{
    if (id >= e->n_requests || !e->taken[id])
        return;
    for (size_t k = 0; k < e->n_waiting; k++)
        if (e->waiting[e->first + k] == id) {
            memmove(e->waiting + e->first + k, e->waiting + e->first + k + 1,
                    (e->n_waiting - k - 1) * sizeof *e->waiting);
            e->n_waiting--;
            break;
        }
    for (size_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].state != SLOT_FREE && e->slots[i].request == id)
            e->slots[i].state = SLOT_FREE;
    e->taken[id] = false;
}

size_t bal_engine_max_length(const bal_engine *e)
{
    return e->max_length;
}

size_t bal_engine_slots(const bal_engine *e)
{
    return e->n_slots;
}

const bal_engine_stats *bal_engine_statistics(const bal_engine *e)
{
    return &e->stats;
}
