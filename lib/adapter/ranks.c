/* Which ranks AdaLoRA leaves (Zhang et al. 2023, 2303.10512, section 3; when and what as peft's allocator): every
 * parameter w with the gradient g of the step has a sensitivity |w g|, w being that after the update; it and its
 * distance from its own mean are smoothed,
 *   I <- b1 I + (1 - b1) |w g|,   U <- b2 U + (1 - b2) | |w g| - I |,
 * and a triplet's score is I U of its element of E + the mean of I U over its row of A + that over its column of B.
 * The budget of step t, for all modules together, falls from the ranks at the start to target_r a module,
 *   b(t) = b0 (t <= tinit),  trunc(b1 + (b0 - b1) (1 - (t - tinit) / (total - tfinal - tinit))^3),  b1 (t > total - tfinal)
 * and every deltaT steps the elements of E of all but the b(t) best triplets become 0.  They may move again, and come
 * back, until step total - tfinal; what is off then stays off.  Steps are counted from 1, so that the budget is reached
 * with tfinal 0, too.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adalora.h"
#include "lib/adapter/adapter_impl.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/base/threads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* a->history: three flags, which of all triplets are on (1 or 0), then I and U, laid out as A, B, E site by site. */
enum { CHOSEN, CLOSED, SCORED, FLAGS, GRAIN = 4096 };

/* ---- what is left of a module, in the config ---- */

static const bal_kept *find_kept(const bal_adapter_config *c, const char *module)
{
    for (size_t i = 0; i < c->n_kept; i++)
        if (strcmp(c->kept[i].module, module) == 0)
            return &c->kept[i];
    return NULL;
}

size_t bal_kept_rank(const bal_adapter_config *c, const char *module)
{
    const bal_kept *k = find_kept(c, module);
    size_t n = 0;
    for (size_t i = 0; k != NULL && i < k->n; i++)
        n += k->kept[i];
    return k != NULL ? n : c->r;
}

bal_status bal_kept_check(const bal_adapter *a)
{
    const bal_adapter_config *c = &a->config;
    for (size_t i = 0; i < c->n_kept; i++) {
        if (bal_adapter_site(a, c->kept[i].module) == NULL)
            return bal_fail(BAL_EFORMAT, "rank_pattern names '%.200s', which is none of the %zu adapted modules",
                            c->kept[i].module, a->n_sites);
        if (c->kept[i].n != c->r)
            return bal_fail(BAL_EFORMAT, "rank_pattern has %zu entries for '%.200s', and init_r is %zu", c->kept[i].n,
                            c->kept[i].module, c->r);
    }
    return BAL_OK;
}

/* ---- the schedule ---- */

static double number(const bal_adapter *a, const char *key)
{
    return bal_config_key(&a->config, key)->number;
}

static size_t all_ranks(const bal_adapter *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n_sites; i++)
        n += a->sites[i].r;
    return n;
}

static size_t trained_values(const bal_adapter *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n_sites; i++)
        n += a->sites[i].r * (a->sites[i].in + a->sites[i].out + 1);
    return n;
}

static bal_status check_schedule(const bal_adapter *a)
{
    double total = number(a, "total_step"), tinit = number(a, "tinit"), tfinal = number(a, "tfinal");
    static const char *const betas[] = {"beta1", "beta2"};
    for (size_t i = 0; i < 2; i++)
        if (!(number(a, betas[i]) > 0 && number(a, betas[i]) < 1))
            return bal_fail(BAL_EINVAL, "%s is %g; it must be above 0 and below 1", betas[i], number(a, betas[i]));
    if (tinit + tfinal >= total)
        return bal_fail(BAL_EINVAL,
                        "tinit %g and tfinal %g leave none of the total_step %g steps to take ranks away in; make them "
                        "smaller or train for longer",
                        tinit, tfinal, total);
    if (number(a, "target_r") > (double)a->config.r)
        return bal_fail(BAL_EINVAL, "target_r %g is above init_r %zu; ranks are only taken away", number(a, "target_r"),
                        a->config.r);
    return BAL_OK;
}

bal_status bal_ranks_begin(bal_adapter *a, size_t n_steps)
{
    size_t n = trained_values(a), ranks = all_ranks(a), largest = 0, size;
    bal_key_value *total = &a->config.keys[bal_config_key(&a->config, "total_step") - a->config.keys];
    if (total->number == 0)
        total->number = (double)n_steps;
    bal_status status = check_schedule(a);
    if (status != BAL_OK)
        return status;
    for (size_t i = 0; i < a->n_sites; i++)
        largest = a->sites[i].r > largest ? a->sites[i].r : largest;
    bal_free(a->history);
    bal_free(a->work);
    a->history = a->work = NULL;
    a->n_history = FLAGS + ranks + 2 * n; /* less than the adapter's own values and gradients */
    size = largest * largest > 2 * ranks ? largest * largest : 2 * ranks;
    a->history = bal_alloc(a->n_history, sizeof *a->history);
    a->work = bal_alloc(size, sizeof *a->work);
    return a->history != NULL && a->work != NULL ? BAL_OK : BAL_ENOMEM;
}

/* Triplets that may stay after this step; *now: E of the others becomes 0. */
static size_t budget(const bal_adapter *a, size_t step, bool *now)
{
    double total = number(a, "total_step"), tinit = number(a, "tinit"), tfinal = number(a, "tfinal"), t = (double)step;
    double first = (double)all_ranks(a), last = number(a, "target_r") * (double)a->n_sites;
    *now = t > tinit && (t > total - tfinal || step % (size_t)number(a, "deltaT") == 0);
    if (t <= tinit || last >= first) /* a given adapter may have less than the target already */
        return (size_t)first;
    if (t > total - tfinal)
        return (size_t)last;
    /* rounded before the sum, as written: a fused product could fall below a whole number that it is */
    volatile double above = (first - last) * pow(1 - (t - tinit) / (total - tfinal - tinit), 3);
    return (size_t)(above + last);
}

/* ---- scores ---- */

typedef struct smooth_job {
    const real_t *v, *d;
    real_t *mean, *unsure;
    real_t keep1, fresh1, keep2, fresh2;
} smooth_job;

static void smooth(void *context, size_t begin, size_t end, size_t thread)
{
    const smooth_job *j = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        real_t s = j->v[i] * j->d[i];
        s = s < 0 ? -s : s;
        j->mean[i] = j->keep1 * j->mean[i] + j->fresh1 * s;
        real_t off = s - j->mean[i];
        j->unsure[i] = j->keep2 * j->unsure[i] + j->fresh2 * (off < 0 ? -off : off);
    }
}

static real_t *means(const bal_adapter *a)
{
    return a->history + FLAGS + all_ranks(a);
}

static void update(bal_adapter *a)
{
    size_t at = 0, n = trained_values(a);
    double beta1 = number(a, "beta1"), beta2 = number(a, "beta2");
    for (size_t i = 0; i < a->n_sites; i++)
        for (size_t k = ADALORA_A; k <= ADALORA_E; k++) {
            const bal_site_tensor *t = &a->sites[i].tensor[k];
            smooth_job job = {.v = t->v,
                              .d = t->d,
                              .mean = means(a) + at,
                              .unsure = means(a) + n + at,
                              .keep1 = (real_t)beta1,
                              .fresh1 = (real_t)(1 - beta1),
                              .keep2 = (real_t)beta2,
                              .fresh2 = (real_t)(1 - beta2)};
            bal_parallel_for(t->rows * t->cols, GRAIN, smooth, &job);
            at += t->rows * t->cols;
        }
    a->history[SCORED] = 1;
}

/* The score of triplet k of a site whose I and U begin at I and U. */
static double score(const bal_site *s, size_t k, const real_t *I, const real_t *U)
{
    size_t r = s->r, b = r * s->in, e = b + s->out * r;
    double row = 0, column = 0;
    for (size_t j = 0; j < s->in; j++)
        row += (double)I[k * s->in + j] * (double)U[k * s->in + j];
    for (size_t i = 0; i < s->out; i++)
        column += (double)I[b + i * r + k] * (double)U[b + i * r + k];
    return (double)I[e + k] * (double)U[e + k] + row / (double)s->in + column / (double)s->out;
}

static int rising(const void *x, const void *y)
{
    real_t a = *(const real_t *)x, b = *(const real_t *)y;
    return (a > b) - (a < b);
}

/* Those at or below the score that keeps `left` go; with equal scores there, all of them, as peft. */
static void choose(bal_adapter *a, size_t left)
{
    size_t n = all_ranks(a), at = 0, values = trained_values(a), done = 0;
    real_t *on = a->history + FLAGS, *scores = a->work, *sorted = scores + n;
    for (size_t i = 0; i < a->n_sites; i++) {
        const bal_site *s = &a->sites[i];
        for (size_t k = 0; k < s->r; k++)
            scores[at++] = (real_t)score(s, k, means(a) + done, means(a) + values + done);
        done += s->r * (s->in + s->out + 1);
    }
    memcpy(sorted, scores, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, rising);
    for (size_t i = 0; i < n; i++)
        on[i] = left < n && scores[i] <= sorted[n - left - 1] ? 0 : 1;
    a->history[CHOSEN] = 1;
}

/* E of what is off becomes 0. */
static void apply(bal_adapter *a)
{
    const real_t *on = a->history + FLAGS;
    for (size_t i = 0; i < a->n_sites; i++)
        for (size_t k = 0; k < a->sites[i].r; k++)
            if (*on++ == 0)
                a->sites[i].tensor[ADALORA_E].v[k] = 0;
}

size_t bal_ranks_after_step(bal_adapter *a, size_t step)
{
    double close = number(a, "total_step") - number(a, "tfinal");
    size_t n = all_ranks(a), left = 0;
    bool now = false;
    size_t most = budget(a, step, &now);
    if ((double)step < close || a->history[SCORED] == 0)
        update(a);
    if ((double)step < close && now)
        choose(a, most);
    if ((double)step >= close && a->history[CLOSED] == 0) { /* step close itself, or the first after it */
        choose(a, most);
        a->history[CLOSED] = 1;
        memset(means(a), 0, 2 * trained_values(a) * sizeof(real_t));
        now = true;
    }
    if (a->history[CHOSEN] != 0 && now)
        apply(a);
    for (size_t i = 0; i < n; i++)
        left += a->history[CHOSEN] == 0 || a->history[FLAGS + i] != 0;
    return left;
}

/* ---- the end ---- */

/* The entry of a site: of the ranks that it had been given, those that are on. */
static bal_status keep_site(const bal_adapter *a, const bal_site *s, const real_t *on, bal_kept *to)
{
    const bal_kept *before = find_kept(&a->config, s->module);
    to->kept = bal_alloc(a->config.r, sizeof *to->kept);
    to->module = bal_strdup(s->module);
    to->n = a->config.r;
    if (to->kept == NULL || to->module == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0, k = 0; i < a->config.r; i++)
        to->kept[i] = (before == NULL || before->kept[i]) && on[k++] != 0;
    return BAL_OK;
}

static void copy_site(const bal_site *from, const real_t *on, bal_site *to)
{
    size_t k = 0;
    for (size_t i = 0; i < from->r; i++) {
        if (on[i] == 0)
            continue;
        memcpy(to->tensor[ADALORA_A].v + k * to->in, from->tensor[ADALORA_A].v + i * from->in,
               from->in * sizeof(real_t));
        for (size_t o = 0; o < from->out; o++)
            to->tensor[ADALORA_B].v[o * to->r + k] = from->tensor[ADALORA_B].v[o * from->r + i];
        to->tensor[ADALORA_E].v[k++] = from->tensor[ADALORA_E].v[i];
    }
    to->tensor[ADALORA_RANKNUM].v[0] = from->tensor[ADALORA_RANKNUM].v[0];
    to->scale = from->scale;
}

bal_status bal_ranks_finished(bal_adapter **out, const bal_adapter *a)
{
    bal_status status = BAL_OK;
    bal_adapter_config c = {0};
    bal_adapter *to = NULL;
    const real_t *on = a->history != NULL ? a->history + FLAGS : NULL;
    *out = NULL;
    if (on == NULL || a->history[CHOSEN] == 0) /* nothing was taken away */
        return BAL_OK;
    bal_kept *kept = bal_alloc(a->n_sites, sizeof *kept);
    if (kept == NULL)
        return BAL_ENOMEM;
    BAL_TRY(bal_adapter_config_copy(&c, &a->config));
    for (size_t i = 0; i < a->n_sites; on += a->sites[i++].r)
        BAL_TRY(keep_site(a, &a->sites[i], on, &kept[i]));
    bal_kept_dispose(c.kept, c.n_kept);
    c.kept = kept;
    c.n_kept = a->n_sites;
    kept = NULL;
    BAL_TRY(bal_adapter_rebuild(&to, a, &c, true));
    on = a->history + FLAGS;
    for (size_t i = 0; i < a->n_sites; on += a->sites[i++].r)
        copy_site(&a->sites[i], on, &to->sites[i]);
    *out = to;
out:
    if (kept != NULL)
        bal_kept_dispose(kept, a->n_sites);
    bal_adapter_config_dispose(&c);
    return status;
}
