/* The kinds of layers that a model family chooses from.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_KINDS_H
#define BAL_NN_KINDS_H

typedef enum bal_norm_kind { BAL_NORM_RMS, BAL_NORM_RMS_PLUS_ONE, BAL_NORM_LAYER } bal_norm_kind;
typedef enum bal_act_kind { BAL_ACT_SILU, BAL_ACT_GELU_TANH, BAL_ACT_GELU, BAL_ACT_RELU } bal_act_kind;

#endif
