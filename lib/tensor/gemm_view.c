/* Products with a frozen matrix in its file's own layout: it is dequantised into a panel just before.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/threads.h"
#include "lib/tensor/gemm.h"

size_t bal_panel_size(bal_compute compute, const bal_view *w, size_t M)
{
    if (compute == BAL_COMPUTE_BF16)
        return w->rows * w->cols + M * (w->rows > w->cols ? w->rows : w->cols);
    return bal_view_dense(w) != NULL ? 0 : w->rows * w->cols;
}

/* The matrix as real_t: where it is, or dequantised into panel. */
static const real_t *view_panel(const bal_view *w, real_t *panel)
{
    const real_t *dense = bal_view_dense(w);
    if (dense != NULL)
        return dense;
    bal_view_dequant_parallel(w, 0, w->rows, panel, w->cols);
    return panel;
}

/* Rows to round to bf16: of a weight (view) or of activations (X); out: bf16 bits, or the rounded values as real_t. */
typedef struct round_job {
    const bal_view *view;
    const real_t *X;
    size_t ld, n;
    uint16_t *half;
    real_t *rounded;
} round_job;

enum { PART = 256 }; /* of a row at a time: stays in the first cache; whole blocks of every type */

static void put(const round_job *j, size_t at, size_t n, const float *part)
{
    uint16_t half[PART];
    float rounded[PART];
    if (j->half != NULL) {
        bal_row_to_bf16(part, n, j->half + at);
        return;
    }
    bal_row_to_bf16(part, n, half);
    bal_row_to_f32(BAL_DTYPE_BF16, half, n, rounded);
    for (size_t i = 0; i < n; i++)
        j->rounded[at + i] = (real_t)rounded[i];
}

static void add_low(const bal_view *w, size_t row, size_t at, size_t n, float *part)
{
    for (size_t k = 0; k < w->low_r; k++) {
        float b = (float)(w->low_scale * w->low_b[row * w->low_r + k]);
        const real_t *a = w->low_a + k * w->cols + at;
        for (size_t i = 0; i < n; i++)
            part[i] += b * (float)a[i];
    }
}

static void round_weights(void *context, size_t begin, size_t end, size_t thread)
{
    const round_job *j = context;
    const bal_dtype t = j->view->dtype;
    const size_t block = bal_dtype_block(t), bytes = bal_dtype_block_bytes(t);
    float part[PART];
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const unsigned char *p = bal_view_row(j->view, row);
        for (size_t at = 0; at < j->n; at += PART) {
            size_t n = j->n - at < PART ? j->n - at : PART;
            bal_row_to_f32(t, p + at / block * bytes, n, part);
            add_low(j->view, row, at, n, part);
            put(j, row * j->n + at, n, part);
        }
    }
}

static void round_rows(void *context, size_t begin, size_t end, size_t thread)
{
    const round_job *j = context;
    float part[PART];
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const real_t *x = j->X + row * j->ld;
        for (size_t at = 0; at < j->n; at += PART) {
            size_t n = j->n - at < PART ? j->n - at : PART;
            for (size_t i = 0; i < n; i++)
                part[i] = (float)x[at + i];
            put(j, row * j->n + at, n, part);
        }
    }
}

/* Y = X op(W) + beta Y with rounded operands; tb: W is taken transposed. */
static void bf16_product(bool tb, size_t M, const real_t *X, size_t ldx, const bal_view *w, real_t beta, real_t *Y,
                         size_t ldy, real_t *panel)
{
    size_t in = tb ? w->cols : w->rows, out = tb ? w->rows : w->cols;
    bool native = !BAL_REAL_IS_DOUBLE && bal_bf16_is_native();
    real_t *rows = panel + w->rows * w->cols;
    round_job weights = {.view = w, .n = w->cols, .rounded = panel},
              input = {.X = X, .ld = ldx, .n = in, .rounded = rows};
    if (native) {
        weights.half = (uint16_t *)panel;
        input.half = (uint16_t *)rows;
    }
    bal_parallel_for(w->rows, 16, round_weights, &weights);
    bal_parallel_for(M, 16, round_rows, &input);
    if (native)
        bal_gemm_bf16(tb, M, out, in, input.half, in, weights.half, w->cols, (float)beta, (float *)Y, ldy);
    else
        bal_gemm(false, tb, M, out, in, 1, rows, in, panel, w->cols, beta, Y, ldy);
}

void bal_gemm_view_nt(bal_compute compute, size_t M, const real_t *X, size_t ldx, const bal_view *w, real_t beta,
                      real_t *Y, size_t ldy, real_t *panel)
{
    if (compute == BAL_COMPUTE_BF16)
        bf16_product(true, M, X, ldx, w, beta, Y, ldy, panel);
    else
        bal_gemm(false, true, M, w->rows, w->cols, 1, X, ldx, view_panel(w, panel), w->cols, beta, Y, ldy);
}

void bal_gemm_view_nn(bal_compute compute, size_t M, const real_t *dY, size_t ldy, const bal_view *w, real_t beta,
                      real_t *dX, size_t ldx, real_t *panel)
{
    if (compute == BAL_COMPUTE_BF16)
        bf16_product(false, M, dY, ldy, w, beta, dX, ldx, panel);
    else
        bal_gemm(false, false, M, w->cols, w->rows, 1, dY, ldy, view_panel(w, panel), w->cols, beta, dX, ldx);
}
