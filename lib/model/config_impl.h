/* What the two readers of configurations share.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_CONFIG_IMPL_H
#define BAL_MODEL_CONFIG_IMPL_H

#include "lib/io/gguf.h"
#include "lib/io/json.h"
#include "lib/model/families.h"

/* Bounds on everything that decides the size of something. */
enum {
    BAL_CONFIG_MAX_LAYERS = BAL_MAX_LAYERS,
    BAL_CONFIG_MAX_HIDDEN = 65536,
    BAL_CONFIG_MAX_HEADS = 4096,
    BAL_CONFIG_MAX_HEAD_DIM = 4096,
    BAL_CONFIG_MAX_INTERMEDIATE = 1 << 20,
    BAL_CONFIG_MAX_VOCAB = 1 << 22,
    BAL_CONFIG_MAX_POSITIONS = 1 << 24
};

/* Layers with a window, soft caps, scales, learned positions: what a family has beside LLaMA's parts. */
bal_status bal_config_extras_from_json(bal_model_config *c, const bal_family *f, const cJSON *json, const char *where);
bal_status bal_config_extras_from_gguf(bal_model_config *c, const bal_family *f, const bal_gguf *g, const char *where);
/* config_encoder.c: token types, where positions begin, the head for masked tokens. */
bal_status bal_config_encoder_from_json(bal_model_config *c, const bal_family *f, const cJSON *json, const char *where);
/* What a rotary embedding must know of its model. */
typedef struct bal_rope_place {
    size_t max_positions, rotary_dim;
    double original;     /* original_max_position_embeddings beside the rope's values, 0: not said */
    bool longrope_alias; /* as in the family */
} bal_rope_place;
/* partial_rotary_factor into c->rotary_dim, and the place. */
bal_status bal_config_rope_place(bal_rope_place *at, bal_model_config *c, const bal_family *f, const cJSON *json,
                                 const char *where);
/* rope_theta and rope_scaling (or rope_parameters) of json into *r. */
bal_status bal_config_rope_from_json(bal_rope_config *r, const bal_rope_place *at, const cJSON *json,
                                     const char *where);
/* Layers i with (i + 1) % period != 0 slide: gemma 3's pattern (and gemma 2's with period 2). */
void bal_config_slide_by_period(bal_model_config *c, size_t period);
/* The period when a GGUF file does not say it. */
size_t bal_config_usual_period(const bal_family *f);
/* The key of norm_eps in a GGUF file, without the architecture. */
const char *bal_config_norm_key(const bal_model_config *c);
void bal_config_defaults(bal_model_config *c, const bal_family *f);
bal_status bal_config_act(const char *name, const char *where, bal_act_kind *out);
/* What must hold whatever the file was. */
bal_status bal_config_check(const bal_model_config *c, const char *where);

#endif
