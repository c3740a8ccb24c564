/* Starts by name, and those that leave the base weights as they are.
 *   lora        A = U(-1/sqrt(in), 1/sqrt(in)) (kaiming_uniform with a = sqrt 5), B = 0
 *   gaussian    A = N(0, (1/r)^2), B = 0
 *   orthogonal  Q (r x r) orthonormal; A = Q_odd^T N_a / 10, B = N_b Q_even / 10 with normal N_a, N_b of r/2 columns:
 *               neither is 0, and B A = 0 since the rows of Q are orthogonal (as peft; r even)
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter_impl.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/str.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NITER = 1000 };

bool bal_start_parse(const char *name, bal_start *out)
{
    static const struct {
        const char *name;
        bal_start_kind kind;
    } known[] = {{"lora", BAL_START_LORA},   {"gaussian", BAL_START_GAUSSIAN}, {"orthogonal", BAL_START_ORTHOGONAL},
                 {"pissa", BAL_START_PISSA}, {"olora", BAL_START_OLORA},       {"milora", BAL_START_MILORA},
                 {"corda", BAL_START_CORDA}, {"loftq", BAL_START_LOFTQ}};
    int64_t n = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i].name) == 0) {
            *out = (bal_start){.kind = known[i].kind};
            return true;
        }
    if (!bal_starts_with(name, "pissa_niter_") ||
        bal_parse_i64(name + strlen("pissa_niter_"), 1, MAX_NITER, &n) != BAL_OK)
        return false;
    *out = (bal_start){.kind = BAL_START_PISSA_NITER, .niter = (size_t)n};
    return true;
}

bool bal_start_is_residual(bal_start_kind kind)
{
    return kind >= BAL_START_PISSA;
}

bool bal_start_can_be_redone(bal_start_kind kind)
{
    return kind == BAL_START_PISSA || kind == BAL_START_OLORA || kind == BAL_START_MILORA;
}

void bal_adapter_stream(bal_rng *rng, uint64_t seed, const char *use, const char *module)
{
    char name[512];
    (void)snprintf(name, sizeof name, "adapter/%s/%s", use, module);
    bal_rng_init(rng, seed, name);
}

static bal_status start_orthogonal(const bal_lora *l, bal_rng *rng)
{
    size_t r = l->r, half = r / 2;
    bal_status status = BAL_OK;
    if (r % 2 != 0)
        return bal_fail(BAL_EINVAL, "the orthogonal start needs an even rank, not %zu", r);
    double *Q = bal_alloc(r, r * sizeof *Q), *R = bal_alloc(r, r * sizeof *R), *N = bal_alloc(half, sizeof *N);
    if (Q == NULL || R == NULL || N == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < r * r; i++)
        Q[i] = bal_rng_normal(rng);
    BAL_TRY(bal_qr(r, r, Q, Q, R));
    for (size_t j = 0; j < l->in + l->out; j++) { /* a column of A, then a row of B */
        bool of_a = j < l->in;
        for (size_t k = 0; k < half; k++)
            N[k] = bal_rng_normal(rng) / 10;
        for (size_t i = 0; i < r; i++) {
            double sum = 0;
            for (size_t k = 0; k < half; k++)
                sum += N[k] * Q[(2 * k + (of_a ? 0 : 1)) * r + i];
            *(of_a ? &l->a[i * l->in + j] : &l->b[(j - l->in) * r + i]) = (real_t)sum;
        }
    }
out:
    bal_free(Q);
    bal_free(R);
    bal_free(N);
    return status;
}

bal_status bal_adapter_init_plain(bal_adapter *a, uint64_t seed)
{
    bal_start start;
    if (!bal_start_parse(a->config.init, &start) || bal_start_is_residual(start.kind))
        return bal_fail(BAL_EINVAL, "adapter start '%s' is unknown; use " BAL_START_NAMES, a->config.init);
    bool gaussian = start.kind == BAL_START_GAUSSIAN;
    for (size_t i = 0; i < a->n_loras; i++) {
        bal_lora *l = &a->loras[i];
        bal_rng rng;
        bal_adapter_stream(&rng, seed, "init", l->module);
        if (start.kind == BAL_START_ORTHOGONAL) {
            bal_status status = start_orthogonal(l, &rng);
            if (status != BAL_OK)
                return status;
            continue;
        }
        double bound = 1 / sqrt((double)l->in), sd = 1 / (double)l->r;
        for (size_t j = 0; j < l->r * l->in; j++)
            l->a[j] = (real_t)(gaussian ? sd * bal_rng_normal(&rng) : bound * (2 * bal_rng_uniform(&rng) - 1));
    }
    return BAL_OK;
}
