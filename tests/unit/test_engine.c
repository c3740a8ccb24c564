/* The engine's queue: requests that come one by one, their probabilities, cancelling, and several adapters over one
 * model's weights: all the same bits as each request alone.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/data/embedded.h"
#include "lib/model/bundle.h"
#include "lib/model/engine.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { N = 24, PROMPT = 22, NEW = 9, TOP = 5, MOST = PROMPT + NEW + 1 };

/* A request with what came back of it. */
typedef struct one {
    bal_request request;
    size_t id, n_ids, n_progress;
    int32_t ids[NEW];
    double log_likelihood, log_probability[MOST], top_log_probability[MOST * TOP];
    int32_t top[MOST * TOP];
    bool answered, greedy;
} one;

typedef struct all {
    int32_t prompts[N][PROMPT];
    one of[N];
} all;

static one *one_of(all *a, size_t id)
{
    for (size_t i = 0; i < N; i++)
        if (a->of[i].id == id && !a->of[i].answered)
            return &a->of[i];
    return NULL;
}

static bal_status answered(void *context, size_t id, const bal_answer *answer)
{
    one *o = one_of(context, id);
    if (!CHECK(o != NULL))
        return BAL_EINVAL;
    const bal_probabilities *p = &answer->probabilities;
    o->answered = true;
    o->log_likelihood = answer->log_likelihood;
    o->greedy = answer->is_greedy;
    if (o->request.kind == BAL_REQUEST_SCORE)
        return BAL_OK;
    o->n_ids = answer->n_ids;
    memcpy(o->ids, answer->ids, answer->n_ids * sizeof *o->ids);
    CHECK((p->log_probability != NULL) == (o->request.probabilities || o->request.prompt_probabilities));
    size_t from = o->request.prompt_probabilities ? 0 : answer->n_prompt;
    size_t to = answer->n_prompt + (o->request.probabilities ? answer->n_ids : 0);
    for (size_t i = from; p->log_probability != NULL && i < to; i++) {
        o->log_probability[i] = p->log_probability[i];
        for (size_t k = 0; k < o->request.n_top; k++) {
            o->top[i * TOP + k] = p->top[i * p->stride + k];
            o->top_log_probability[i * TOP + k] = p->top_log_probability[i * p->stride + k];
        }
    }
    return BAL_OK;
}

static void progressed(void *context, size_t id, const bal_answer *a)
{
    one *o = one_of(context, id);
    if (CHECK(o != NULL))
        CHECK(a->n_ids == ++o->n_progress && (!o->request.probabilities || a->probabilities.top != NULL));
}

/* Prompts in four families that begin alike. */
static void make(all *a, size_t vocab)
{
    bal_rng r;
    memset(a, 0, sizeof *a);
    bal_rng_init(&r, 4, "prompts");
    for (size_t i = 0; i < N; i++) {
        size_t same = i < 4 ? 0 : 12 + i % 3;
        for (size_t k = 0; k < PROMPT; k++)
            a->prompts[i][k] = k < same ? a->prompts[i % 4][k] : (int32_t)bal_rng_below(&r, vocab);
        bool score = i % 5 == 1, echo = i % 5 == 2 || i % 5 == 3;
        a->of[i].request = (bal_request){.kind = score ? BAL_REQUEST_SCORE : BAL_REQUEST_GENERATE,
                                         .prompt = a->prompts[i],
                                         .n_prompt = score ? PROMPT - 3 : PROMPT,
                                         .continuation = a->prompts[i] + PROMPT - 3,
                                         .n_continuation = score ? 3 : 0,
                                         .max_new_tokens = i % 5 == 2 ? 0 : 2 + i % (NEW - 1),
                                         .sampling = {.temperature = i % 2 == 0 ? 0 : 0.8, .top_p = 0.9},
                                         .seed = i,
                                         .ignore_eos = i % 3 == 0,
                                         .probabilities = i % 5 == 3 || i % 5 == 4,
                                         .prompt_probabilities = echo,
                                         .n_top = i % 5 == 2           ? 3
                                                  : echo || i % 5 == 4 ? TOP
                                                                       : 0};
    }
}

static bool same(const one *a, const one *b)
{
    return a->n_ids == b->n_ids && memcmp(a->ids, b->ids, sizeof a->ids) == 0 &&
           memcmp(&a->log_likelihood, &b->log_likelihood, sizeof a->log_likelihood) == 0 && a->greedy == b->greedy &&
           memcmp(a->log_probability, b->log_probability, sizeof a->log_probability) == 0 &&
           memcmp(a->top, b->top, sizeof a->top) == 0 &&
           memcmp(a->top_log_probability, b->top_log_probability, sizeof a->top_log_probability) == 0;
}

/* Adds `each` requests before each step; returns the prompt tokens that were not computed. */
static size_t through_queue(const bal_model *m, all *a, size_t batch, size_t each)
{
    const bal_engine_options o = {
        .batch = batch, .max_length = 64, .top = TOP, .context = a, .answer = answered, .progress = progressed};
    bal_engine *e = NULL;
    if (!CHECK_OK(bal_engine_open(&e, m, &o, N)))
        return 0;
    for (size_t i = 0; i < N; i++)
        a->of[i].id = SIZE_MAX;
    bool idle = false;
    for (size_t next = 0; !idle || next < N;) {
        for (size_t k = 0; k < each && next < N; k++, next++)
            CHECK_OK(bal_engine_add(e, &a->of[next].request, &a->of[next].id));
        if (!CHECK_OK(bal_engine_step(e, &idle)))
            break;
    }
    size_t shared = bal_engine_statistics(e)->shared_tokens;
    bal_engine_close(e);
    return shared;
}

static void alone(const bal_model *m, all *a)
{
    for (size_t i = 0; i < N; i++) {
        const bal_engine_options o = {.top = TOP, .context = a, .answer = answered};
        for (size_t k = 0; k < N; k++)
            a->of[k].id = k == i ? 0 : SIZE_MAX;
        CHECK_OK(bal_engine_run(m, &o, &a->of[i].request, 1, NULL));
    }
}

static bool load(bal_model **m)
{
    char path[512];
    (void)snprintf(path, sizeof path, "%s/model", test_folder());
    return CHECK_OK(bal_embedded_write(path)) && CHECK_OK(bal_model_load(m, path));
}

TEST(queue_like_each_alone)
{
    static all want, got;
    static const size_t batches[] = {1, 3, 16}, each[] = {1, 5, N};
    bal_model *m = NULL;
    if (!load(&m))
        return;
    make(&want, m->config.vocab);
    alone(m, &want);
    for (size_t b = 0; b < 3; b++)
        for (size_t k = 0; k < 3; k++) {
            make(&got, m->config.vocab);
            size_t shared = through_queue(m, &got, batches[b], each[k]);
            for (size_t i = 0; i < N; i++)
                CHECK_MSG(got.of[i].answered && same(&got.of[i], &want.of[i]), "request %zu, batch %zu, %zu at a time",
                          i, batches[b], each[k]);
            CHECK_MSG(batches[b] < 16 || shared > 100, "%zu tokens shared", shared);
        }
    bal_model_free(m);
}

/* The prompt's probabilities are those of a scored continuation; the likeliest are in order, and complete. */
TEST(probabilities)
{
    static all a, b;
    bal_model *m = NULL;
    if (!load(&m))
        return;
    make(&a, m->config.vocab);
    make(&b, m->config.vocab);
    for (size_t i = 0; i < N; i++) {
        a.of[i].request = (bal_request){.kind = BAL_REQUEST_SCORE,
                                        .prompt = a.prompts[i],
                                        .n_prompt = 1,
                                        .continuation = a.prompts[i] + 1,
                                        .n_continuation = PROMPT - 1};
        b.of[i].request = (bal_request){.prompt = b.prompts[i],
                                        .n_prompt = PROMPT,
                                        .prompt_probabilities = true,
                                        .n_top = i / 4 % 2 == 0 ? 2 : TOP};
    }
    alone(m, &a);
    size_t shared = through_queue(m, &b, 16, N);
    CHECK_MSG(shared >= 150, "%zu tokens shared", shared);
    for (size_t i = 0; i < N; i++) {
        double sum = 0;
        bool greedy = true;
        for (size_t t = 1; t < PROMPT; t++) {
            const double *lp = b.of[i].top_log_probability + t * TOP;
            const int32_t *ids = b.of[i].top + t * TOP;
            sum += b.of[i].log_probability[t];
            greedy = greedy && ids[0] == b.prompts[i][t];
            for (size_t k = 0; k < b.of[i].request.n_top; k++) {
                CHECK(k == 0 || lp[k] <= lp[k - 1]);
                CHECK(ids[k] != b.prompts[i][t] || lp[k] == b.of[i].log_probability[t]);
            }
            CHECK(b.of[i].log_probability[t] <= lp[0]);
        }
        CHECK(isnan(b.of[i].log_probability[0]));
        CHECK(sum == a.of[i].log_likelihood && greedy == a.of[i].greedy);
    }
    bal_model_free(m);
}

TEST(queue_limits_and_cancelling)
{
    static all a;
    bal_model *m = NULL;
    bal_engine *e = NULL;
    const bal_engine_options o = {.batch = 2, .max_length = 40, .context = &a, .answer = answered};
    size_t id[3] = {0};
    bool idle = false;
    if (!load(&m))
        return;
    make(&a, m->config.vocab);
    bal_request r = {.prompt = a.prompts[0], .n_prompt = PROMPT, .max_new_tokens = NEW, .ignore_eos = true};
    if (!CHECK_OK(bal_engine_open(&e, m, &o, 3)))
        return;
    CHECK_OK(bal_engine_step(e, &idle));
    CHECK(idle);
    for (size_t i = 0; i < 3; i++)
        CHECK_OK(bal_engine_add(e, &r, &id[i]));
    size_t more = 0;
    CHECK_STATUS(bal_engine_add(e, &r, &more), BAL_EBUSY);
    CHECK_OK(bal_engine_step(e, &idle));
    bal_engine_cancel(e, id[2]); /* waiting */
    bal_engine_cancel(e, id[0]); /* running */
    bal_engine_cancel(e, id[0]); /* gone already */
    bal_request bad = r;
    int32_t outside[2] = {1, (int32_t)m->config.vocab};
    bad.prompt = outside;
    bad.n_prompt = 2;
    CHECK_STATUS(bal_engine_add(e, &bad, &more), BAL_EFORMAT);
    outside[1] = -1;
    CHECK_STATUS(bal_engine_add(e, &bad, &more), BAL_EFORMAT);
    bad = r;
    bad.max_new_tokens = 41;
    CHECK_STATUS(bal_engine_add(e, &bad, &more), BAL_ELIMIT);
    bad = r;
    bad.probabilities = true;
    CHECK_STATUS(bal_engine_add(e, &bad, &more), BAL_EINVAL); /* options.top is 0 */
    for (size_t i = 0; i < N; i++)
        a.of[i].id = i == 0 ? id[1] : SIZE_MAX;
    for (int i = 0; i < 100 && !idle; i++)
        CHECK_OK(bal_engine_step(e, &idle));
    CHECK(idle && a.of[0].answered && a.of[0].n_ids == NEW);
    for (size_t i = 0; i < 3; i++) /* all places are free again */
        CHECK_OK(bal_engine_add(e, &r, &id[i]));
    bal_engine_close(e);
    bal_model_free(m);
}

/* Two adapters and none over the same weights, at the same time. */
TEST(adapters_over_one_model)
{
    static all want[3], got[3];
    char all_linear[] = "all-linear", *targets[] = {all_linear};
    bal_model *m = NULL, *shared[3] = {NULL};
    bal_adapter *adapters[3] = {NULL};
    bal_rng r;
    if (!load(&m))
        return;
    bal_rng_init(&r, 9, "adapter");
    for (size_t k = 1; k < 3; k++) {
        bal_adapter_config c = {
            .r = 2 + k, .lora_alpha = 4, .init = "lora", .target_modules = targets, .n_target_modules = 1};
        if (!CHECK_OK(bal_adapter_new(&adapters[k], &c, m->modules, m->n_modules, k, false)))
            return;
        for (size_t i = 0; i < adapters[k]->params.n; i++)
            adapters[k]->params.values[i] += (real_t)(0.1 * bal_rng_normal(&r));
    }
    for (size_t k = 0; k < 3; k++) { /* attached in turn */
        make(&want[k], m->config.vocab);
        CHECK_OK(bal_model_attach(m, adapters[k]));
        alone(m, &want[k]);
    }
    CHECK_OK(bal_model_attach(m, NULL));
    for (size_t k = 0; k < 3; k++)
        CHECK_OK(bal_model_share(&shared[k], m, adapters[k]));
    for (size_t k = 0; k < 3; k++) {
        make(&got[k], m->config.vocab);
        (void)through_queue(shared[k], &got[k], 4, 7);
        for (size_t i = 0; i < N; i++)
            CHECK_MSG(same(&got[k].of[i], &want[k].of[i]), "adapter %zu, request %zu", k, i);
    }
    CHECK(!same(&want[0].of[3], &want[1].of[3]) && !same(&want[1].of[3], &want[2].of[3]));
    CHECK(m->blocks[0].linear[BAL_SLOT_Q].site == NULL);
    for (size_t k = 0; k < 3; k++) {
        bal_model_free(shared[k]);
        bal_adapter_free(adapters[k]);
    }
    bal_model_free(m);
}
