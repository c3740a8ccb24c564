/* Activations: out = act(gate) * up, or act(gate) with up NULL, elementwise on n values.  Shazeer 2020, arXiv 2002.05202 (SwiGLU, GeGLU).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_ACTIVATIONS_H
#define BAL_NN_ACTIVATIONS_H

#include "lib/nn/kinds.h"
#include "lib/tensor/real.h"

#include <stddef.h>

void bal_glu_forward(bal_act_kind kind, size_t n, const real_t *gate, const real_t *up, real_t *out);
/* dgate, dup are set; either may be dout.  dup is left alone when up is NULL. */
void bal_glu_backward(bal_act_kind kind, size_t n, const real_t *gate, const real_t *up, const real_t *dout,
                      real_t *dgate, real_t *dup);

#endif
