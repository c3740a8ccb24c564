/* What methods built on LoRA's factors take from it.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_LORA_H
#define BAL_ADAPTER_LORA_H

#include "lib/adapter/methods.h"

/* The tensors lora_A.weight and lora_B.weight. */
bal_status bal_lora_describe(bal_site *s);
/* Y(M, out) += s (Xa A^T) B^T [- s (Xa A0^T) B0^T] by products that are right in training and inference.  The call's h
 * receives Xa A^T (and Xa A0^T): M x bal_lora_hidden(), needed by bal_lora_backward(). */
void bal_lora_site_forward(const bal_site_call *c, real_t *y, size_t ldy);

#endif
