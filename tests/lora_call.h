/* One application of LoRA's factors as the model makes it, for tests.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TESTS_LORA_CALL_H
#define BAL_TESTS_LORA_CALL_H

#include "lib/adapter/lora.h"

/* Y(M, out) += s (B A - B0 A0) X, H as the backward wants it; compute: of the products with frozen weights around it. */
static void lora_forward(bal_lora *l, size_t M, const real_t *X, size_t ldx, real_t *Y, size_t ldy, real_t *H,
                         bal_compute compute)
{
    bal_site site = {.lora = l, .in = l->in, .out = l->out, .r = l->r, .scale = l->scale};
    const bal_site_call c = {
        .site = &site, .M = M, .x = X, .xa = X, .ldx = ldx, .y = Y, .ldy = ldy, .h = H, .compute = compute};
    bal_lora_site_forward(&c, Y, ldy);
}

#endif
