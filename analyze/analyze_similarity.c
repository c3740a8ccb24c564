/* balora analyze similarity: do two adapters' updates point the same way?  SPDX-License-Identifier: Apache-2.0 */
#include "analyze/analyze.h"

#include "analyze/directions.h"
#include "analyze/spectrum.h"
#include "analyze/update.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"

#include <math.h>
#include <stdio.h>

/* The directions of one update in one space: count columns (numerical rank) of the width leading ones. */
typedef struct side {
    double *s, *U, *V;
    size_t r, rank;
} side;

static void side_dispose(side *x)
{
    bal_free(x->s);
    bal_free(x->U);
    bal_free(x->V);
    *x = (side){0};
}

/* Columns after `rank` are dropped, so that U is (out, rank) and V (in, rank). */
static void pack(double *Q, size_t rows, size_t r, size_t rank)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < rank; j++)
            Q[i * rank + j] = Q[i * r + j];
}

static bal_status side_of(const bal_lora *l, side *x)
{
    spectrum_stats stats;
    size_t smaller = l->in < l->out ? l->in : l->out;
    bal_status status = BAL_OK;
    x->r = bal_lora_hidden(l);
    x->s = bal_alloc(x->r, sizeof *x->s);
    x->U = bal_alloc(l->out * x->r, sizeof *x->U);
    x->V = bal_alloc(l->in * x->r, sizeof *x->V);
    if (x->s == NULL || x->U == NULL || x->V == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(update_directions(l, x->s, x->U, x->V));
    BAL_TRY(spectrum_statistics(l->out, l->in, x->s, x->r < smaller ? x->r : smaller, &stats));
    x->rank = (size_t)stats.numerical_rank;
    pack(x->U, l->out, x->r, x->rank);
    pack(x->V, l->in, x->r, x->rank);
out:
    return status;
}

/* One space (rows or columns of the weight) of one module. */
typedef struct similarity {
    double *grid, *angles; /* (ra, rb), min(ra, rb) */
    size_t ra, rb, k;
} similarity;

static bal_status similarity_of(size_t n, const double *A, size_t ra, const double *B, size_t rb, similarity *out)
{
    *out = (similarity){.ra = ra, .rb = rb, .k = ra < rb ? ra : rb};
    out->grid = bal_alloc(ra * rb + 1, sizeof *out->grid);
    out->angles = bal_alloc(out->k + 1, sizeof *out->angles);
    if (out->grid == NULL || out->angles == NULL)
        return BAL_ENOMEM;
    if (out->k == 0)
        return BAL_OK; /* an update of nothing has no directions */
    bal_status status = subspace_similarity(n, A, ra, B, rb, out->grid);
    return status == BAL_OK ? principal_angles(n, A, ra, B, rb, out->angles) : status;
}

static void similarity_dispose(similarity *x)
{
    bal_free(x->grid);
    bal_free(x->angles);
    *x = (similarity){0};
}

static double mean_angle(const similarity *x)
{
    double sum = 0;
    for (size_t i = 0; i < x->k; i++)
        sum += x->angles[i];
    return x->k > 0 ? sum / (double)x->k : (double)NAN;
}

static double phi(const similarity *x, size_t i, size_t j)
{
    return x->k > 0 ? x->grid[(i - 1) * x->rb + j - 1] : (double)NAN;
}

static bal_status put_list(bal_buf *out, const double *x, size_t n)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "["));
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(bal_buf_text(out, i > 0 ? ", " : ""));
        BAL_TRY(bal_json_put_f64(out, x[i]));
    }
    status = bal_buf_text(out, "]");
out:
    return status;
}

static bal_status put_space(bal_buf *out, const char *name, const similarity *x)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, ", \"%s\": {\"phi\": [", name));
    for (size_t i = 0; i < x->ra && x->k > 0; i++) {
        BAL_TRY(bal_buf_text(out, i > 0 ? ", " : ""));
        BAL_TRY(put_list(out, x->grid + i * x->rb, x->rb));
    }
    BAL_TRY(bal_buf_text(out, "], \"principal_angles\": "));
    BAL_TRY(put_list(out, x->angles, x->k));
    BAL_TRY(bal_buf_text(out, ", \"mean_angle\": "));
    BAL_TRY(bal_json_put_f64(out, mean_angle(x)));
    BAL_TRY(bal_buf_text(out, ", \"chordal_distance\": "));
    BAL_TRY(bal_json_put_f64(out, x->k > 0 ? chordal_distance(x->angles, x->k) : (double)NAN));
    BAL_TRY(bal_buf_text(out, ", \"geodesic_distance\": "));
    BAL_TRY(bal_json_put_f64(out, x->k > 0 ? geodesic_distance(x->angles, x->k) : (double)NAN));
    status = bal_buf_text(out, "}");
out:
    return status;
}

static bal_status put_cell(bal_buf *out, double value)
{
    return isnan(value) ? bal_buf_printf(out, " %9s", "-") : bal_buf_printf(out, " %9.4f", value);
}

static bal_status put_module(bal_buf *out, const char *module, const similarity *in, const similarity *rows, bool json,
                             bool first)
{
    bal_status status;
    if (json) {
        BAL_TRY(bal_buf_text(out, first ? "\n  {\"module\": " : ",\n  {\"module\": "));
        BAL_TRY(bal_json_put_text(out, module));
        BAL_TRY(put_space(out, "in", in));
        BAL_TRY(put_space(out, "out", rows));
        status = bal_buf_text(out, "}");
        goto out;
    }
    BAL_TRY(bal_buf_printf(out, "%-44s %4zu %4zu", module, in->ra, in->rb));
    for (int i = 0; i < 2; i++) {
        const similarity *x = i == 0 ? in : rows;
        BAL_TRY(put_cell(out, phi(x, 1, 1)));
        BAL_TRY(put_cell(out, phi(x, x->ra, x->rb)));
        BAL_TRY(put_cell(out, mean_angle(x)));
    }
    status = bal_buf_text(out, "\n");
out:
    return status;
}

static bal_status compare_module(const bal_lora *a, const bal_lora *b, bal_buf *out, bool json, bool first)
{
    side x = {0}, y = {0};
    similarity in = {0}, rows = {0};
    bal_status status;
    if (a->in != b->in || a->out != b->out)
        return bal_fail(BAL_EINVAL, "module '%s' is %zu x %zu in one adapter and %zu x %zu in the other", a->module,
                        a->out, a->in, b->out, b->in);
    BAL_TRY(side_of(a, &x));
    BAL_TRY(side_of(b, &y));
    BAL_TRY(similarity_of(a->in, x.V, x.rank, y.V, y.rank, &in));
    BAL_TRY(similarity_of(a->out, x.U, x.rank, y.U, y.rank, &rows));
    status = put_module(out, a->module, &in, &rows, json, first);
out:
    side_dispose(&x);
    side_dispose(&y);
    similarity_dispose(&in);
    similarity_dispose(&rows);
    return status;
}

static bal_status compare_all(const analyze_config *c, const analyzed *a, const analyzed *b, bool json, bal_buf *out)
{
    bal_status status;
    size_t n = 0;
    if (json) {
        BAL_TRY(bal_buf_text(out, "{\"adapter\": "));
        BAL_TRY(bal_json_put_text(out, c->adapter));
        BAL_TRY(bal_buf_text(out, ", \"against\": "));
        BAL_TRY(bal_json_put_text(out, c->against));
        BAL_TRY(bal_buf_text(out,
                             ", \"convention\": \"phi(i,j) = ||A_i^T B_j||_F^2 / min(i,j), singular vectors of the "
                             "updates; angles in radians\", \"modules\": ["));
    } else {
        BAL_TRY(bal_buf_printf(out, "%-44s %9s %29s %29s\n", "", "ranks", "in: phi(1,1)  phi(r,r)  angle",
                               "out: phi(1,1) phi(r,r)  angle"));
    }
    for (size_t i = 0; i < a->adapter->n_loras; i++) {
        const bal_lora *x = &a->adapter->loras[i], *y = bal_adapter_find(b->adapter, x->module);
        if (y == NULL)
            continue;
        BAL_TRY(compare_module(x, y, out, json, n == 0));
        n++;
    }
    if (n == 0)
        BAL_TRY(bal_fail(BAL_EINVAL, "%s and %s adapt no module in common", c->adapter, c->against));
    if (json)
        BAL_TRY(bal_buf_text(out, "\n]}\n"));
    else
        BAL_TRY(
            bal_buf_printf(out, "%zu modules; phi: 1 nested, 0 orthogonal; angle: mean principal angle, radians\n", n));
out:
    return status;
}

bal_status analyze_similarity(const analyze_config *c, const bal_common *common)
{
    analyzed a = {0}, b = {0};
    bal_buf out = {0};
    bal_status status;
    if (c->adapter == NULL || c->against == NULL)
        return bal_fail(BAL_EINVAL, "--adapter DIR and --against DIR are needed");
    BAL_TRY(analyzed_open(&a, c->adapter, c->initial_adapter, c->base, &common->log));
    BAL_TRY(analyzed_open(&b, c->against, NULL, c->base, &common->log));
    BAL_TRY(compare_all(c, &a, &b, common->json, &out));
    if (fwrite(out.data, 1, out.len, stdout) != out.len)
        status = bal_fail(BAL_EIO, "standard output cannot be written");
out:
    bal_buf_dispose(&out);
    analyzed_close(&a);
    analyzed_close(&b);
    return status;
}
