/* What the two readers of configurations share.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_CONFIG_IMPL_H
#define BAL_MODEL_CONFIG_IMPL_H

#include "lib/model/families.h"

/* Bounds on everything that decides the size of something. */
enum {
    BAL_CONFIG_MAX_LAYERS = 1024,
    BAL_CONFIG_MAX_HIDDEN = 65536,
    BAL_CONFIG_MAX_HEADS = 4096,
    BAL_CONFIG_MAX_HEAD_DIM = 4096,
    BAL_CONFIG_MAX_INTERMEDIATE = 1 << 20,
    BAL_CONFIG_MAX_VOCAB = 1 << 22,
    BAL_CONFIG_MAX_POSITIONS = 1 << 24
};

void bal_config_defaults(bal_model_config *c, const bal_family *f);
bal_status bal_config_act(const char *name, const char *where, bal_act_kind *out);
/* What must hold whatever the file was. */
bal_status bal_config_check(const bal_model_config *c, const char *where);

#endif
