/* DoRA on an embedding, for dora.c.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_DORA_H
#define BAL_ADAPTER_DORA_H

#include "lib/adapter/lora.h"

enum { DORA_NORM_ROWS = 256, DORA_MAGNITUDE = 2 }; /* rows made at once for their norms; the tensor of m */

/* The functions of bal_method for a site with s->embedding; scratch: bal_dora_embed_scratch(). */
bal_status bal_dora_embed_init(bal_site *s, const bal_view *w, bal_rng *rng);
size_t bal_dora_embed_scratch(const bal_site *s, size_t M);
size_t bal_dora_embed_prepare_scratch(const bal_site *s);
void bal_dora_embed_prepare(const bal_site *s, const bal_view *w, real_t *scratch);
void bal_dora_embed(const bal_site_call *c, const int32_t *tokens, real_t scale);
void bal_dora_embed_back(const bal_site_call *c, const int32_t *tokens, real_t scale);
/* Needs what prepare() made: the norms are those of all tokens. */
void bal_dora_embed_effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld);

#endif
