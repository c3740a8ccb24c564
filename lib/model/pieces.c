/* The small pieces of a block: norms of either kind, and matrices that are one in the file and several in use.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/threads.h"
#include "lib/model/pass_impl.h"
#include "lib/nn/layer_norm.h"
#include "lib/nn/norm.h"
#include "lib/nn/ops.h"

#include <string.h>

void bal_pass_norm(const bal_pass *p, const bal_norm *n, bool adapted, size_t rows, size_t D, const real_t *x,
                   real_t *y)
{
    const bal_model_config *m = &p->m->config;
    bool own = n->replaced && !adapted;
    const real_t *w = own ? n->own_w : n->w, *b = own ? n->own_b : n->b;
    if (m->norm == BAL_NORM_LAYER)
        bal_layer_norm_forward(rows, D, x, w, b, m->norm_eps, y);
    else
        bal_rms_forward(rows, D, x, w, m->norm == BAL_NORM_RMS_PLUS_ONE, m->norm_eps, y);
}

void bal_pass_norm_back(const bal_pass *p, const bal_norm *n, size_t rows, size_t D, const real_t *x, const real_t *dy,
                        real_t *dx)
{
    const bal_model_config *m = &p->m->config;
    if (m->norm == BAL_NORM_LAYER)
        bal_layer_norm_backward(rows, D, x, n->w, m->norm_eps, dy, dx, n->dw, n->db, p->back.moments);
    else
        bal_rms_backward(rows, D, x, n->w, m->norm == BAL_NORM_RMS_PLUS_ONE, m->norm_eps, dy, dx, n->dw,
                         p->back.moments);
}

typedef struct parts_job {
    real_t *whole;
    real_t *const *part;
    const size_t *width;
    size_t n_parts, total;
    bool join;
} parts_job;

static void parts_range(void *context, size_t begin, size_t end, size_t thread)
{
    const parts_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        real_t *row = j->whole + t * j->total;
        for (size_t i = 0; i < j->n_parts; row += j->width[i++]) {
            real_t *part = j->part[i] + t * j->width[i];
            memcpy(j->join ? row : part, j->join ? part : row, j->width[i] * sizeof *row);
        }
    }
}

void bal_pass_parts(size_t T, real_t *whole, real_t *const *part, const size_t *width, size_t n_parts, bool join)
{
    parts_job j = {.whole = whole, .part = part, .width = width, .n_parts = n_parts, .join = join};
    for (size_t i = 0; i < n_parts; i++)
        j.total += width[i];
    bal_parallel_for(T, 32, parts_range, &j);
}

typedef struct add_job {
    const real_t *x;
    real_t *y;
    size_t n;
    const bal_nn_ops *ops;
} add_job;

static void add_range(void *context, size_t begin, size_t end, size_t thread)
{
    const add_job *j = context;
    (void)thread;
    j->ops->add(j->x + begin, j->y + begin, end - begin);
}

void bal_pass_add(size_t n, const real_t *x, real_t *y)
{
    add_job j = {.x = x, .y = y, .n = n, .ops = BAL_ISA_PICK(bal_nn_ops)};
    bal_parallel_for(n, 4096, add_range, &j);
}
