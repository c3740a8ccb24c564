/* y1 = x1 cos - x2 sin, y2 = x2 cos + x1 sin with x1 = x[i], x2 = x[i + d/2], angle = position * frequency[i], d the
 * elements of a head that turn.
 * The gradient is the rotation by minus the angle.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/nn/rope.h"

#include "lib/base/threads.h"

#include <math.h>

static const double k_two_pi = 6.283185307179586476925;

/* The dimension whose wave turns `turns` times over `length` positions. */
static double yarn_dimension(double turns, double d, double theta, double length)
{
    return d * log(length / (turns * k_two_pi)) / (2 * log(theta));
}

static void yarn_ramp(const bal_rope_config *c, size_t d, double *low, double *high)
{
    *low = yarn_dimension(c->beta_fast, (double)d, c->theta, c->original_max_positions);
    *high = yarn_dimension(c->beta_slow, (double)d, c->theta, c->original_max_positions);
    if (!c->exact_ramp) {
        *low = floor(*low);
        *high = ceil(*high);
    }
    *low = fmax(*low, 0);
    *high = fmin(*high, (double)d - 1);
    if (*low == *high)
        *high += 0.001; /* as transformers: a step, not a division by zero */
}

static double llama3_frequency(const bal_rope_config *c, double f)
{
    double wave = k_two_pi / f, original = c->original_max_positions;
    if (wave > original / c->low_freq_factor)
        return f / c->factor;
    if (wave < original / c->high_freq_factor)
        return f;
    double smooth = (original / wave - c->low_freq_factor) / (c->high_freq_factor - c->low_freq_factor);
    return (1 - smooth) * f / c->factor + smooth * f;
}

bool bal_rope_by_length(const bal_rope_config *c)
{
    return c->kind == BAL_ROPE_DYNAMIC || c->kind == BAL_ROPE_LONGROPE;
}

double bal_rope_frequencies(const bal_rope_config *c, size_t d, size_t length, const double *factors, double *out)
{
    double theta = c->theta, low = 0, high = 1, dim = (double)d;
    if (c->kind == BAL_ROPE_DYNAMIC && (double)length > c->original_max_positions && d > 2)
        theta *= pow(c->factor * (double)length / c->original_max_positions - (c->factor - 1), dim / (dim - 2));
    if (c->kind == BAL_ROPE_YARN)
        yarn_ramp(c, d, &low, &high);
    for (size_t i = 0; i < d / 2; i++) {
        double f = pow(theta, -2 * (double)i / dim);
        if (c->kind == BAL_ROPE_LINEAR) {
            f /= c->factor;
        } else if (c->kind == BAL_ROPE_LLAMA3) {
            f = llama3_frequency(c, f);
        } else if (c->kind == BAL_ROPE_YARN) {
            double ramp = fmin(fmax(((double)i - low) / (high - low), 0), 1);
            f = f / c->factor * ramp + f * (1 - ramp);
        } else if (c->kind == BAL_ROPE_LONGROPE && i < BAL_LONGROPE_MAX) {
            f /= (double)((double)length > c->original_max_positions ? c->long_factor[i] : c->short_factor[i]);
        }
        out[i] = factors == NULL ? f : f / factors[i];
    }
    if (c->kind != BAL_ROPE_YARN && c->kind != BAL_ROPE_LONGROPE)
        return 1;
    if (c->attention_factor != 0)
        return c->attention_factor;
    if (c->factor <= 1)
        return 1;
    return c->kind == BAL_ROPE_YARN ? 0.1 * log(c->factor) + 1
                                    : sqrt(1 + log(c->factor) / log(c->original_max_positions));
}

typedef struct table_job {
    const double *frequencies;
    size_t half, first;
    double scale;
    real_t *cosines, *sines;
} table_job;

static void table_range(void *context, size_t begin, size_t end, size_t thread)
{
    const table_job *j = context;
    (void)thread;
    for (size_t p = begin; p < end; p++) {
        for (size_t i = 0; i < j->half; i++) {
            double angle = (double)(j->first + p) * j->frequencies[i];
            j->cosines[p * j->half + i] = (real_t)(j->scale * cos(angle));
            j->sines[p * j->half + i] = (real_t)(j->scale * sin(angle));
        }
    }
}

void bal_rope_table(const double *frequencies, size_t half, double scale, size_t first, size_t n, real_t *cosines,
                    real_t *sines)
{
    table_job job = {frequencies, half, first, scale, cosines, sines};
    bal_parallel_for(n, 64, table_range, &job);
}

typedef struct apply_job {
    real_t *x;
    size_t ld, heads, d, turned;
    const real_t *cosines, *sines;
    const uint32_t *row;
    real_t sign;
} apply_job;

static void apply_range(void *context, size_t begin, size_t end, size_t thread)
{
    const apply_job *j = context;
    size_t half = j->turned / 2;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const real_t *c = j->cosines + j->row[t] * half, *s = j->sines + j->row[t] * half;
        for (size_t h = 0; h < j->heads; h++) {
            real_t *restrict x1 = j->x + t * j->ld + h * j->d, *restrict x2 = x1 + half;
            for (size_t i = 0; i < half; i++) {
                real_t a = x1[i], b = x2[i], sine = j->sign * s[i];
                x1[i] = a * c[i] - b * sine;
                x2[i] = b * c[i] + a * sine;
            }
        }
    }
}

void bal_rope_apply(real_t *x, size_t ld, size_t n, size_t heads, size_t d, size_t turned, const real_t *cosines,
                    const real_t *sines, const uint32_t *row, bool inverse)
{
    apply_job job = {x, ld, heads, d, turned, cosines, sines, row, inverse ? -1 : 1};
    bal_parallel_for(n, 32, apply_range, &job);
}
