/* What methods built on LoRA's factors take from it.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_LORA_H
#define BAL_ADAPTER_LORA_H

#include "lib/adapter/methods.h"

/* The tensors lora_A.weight and lora_B.weight. */
bal_status bal_lora_describe(bal_site *s);
/* Y(M, out) += s (Xa A^T) B^T [- s (Xa A0^T) B0^T] by products that are right in training and inference.  The call's h
 * receives Xa A^T (and Xa A0^T): M x bal_lora_hidden(), needed by bal_lora_backward(). */
void bal_lora_site_forward(const bal_site_call *c, real_t *y, size_t ldy);

/* On an embedding (tokens are columns of A): A = 0 and B normal, as peft; h(M, r) = the columns of the tokens; rows row0..
 * (tokens) of W += s (B A)^T; dA += g(M, r) at the columns of the tokens. */
void bal_lora_embedding_init(const bal_lora *l, bal_rng *rng);
void bal_lora_look_up(const bal_lora *l, size_t M, const int32_t *tokens, real_t *h);
void bal_lora_embedding_rows(const bal_lora *l, size_t row0, size_t n_rows, real_t *out, size_t ld);
void bal_lora_add_columns(const bal_lora *l, size_t M, const int32_t *tokens, const real_t *g);

#endif
