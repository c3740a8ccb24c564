/* The table of model families: what a Hugging Face model_type or a GGUF architecture means.  A model of a known kind
 * is a row here and a golden test (README.md, "Adding a family").  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_FAMILIES_H
#define BAL_MODEL_FAMILIES_H

#include "lib/base/str.h"
#include "lib/model/model.h"

/* Names of the parts of a model in one kind of file; '#' stands for the number of the layer.  Without ".weight" and
 * ".bias".  NULL: the family has no such part. */
typedef struct bal_family_names {
    const char *embed, *positions, *final_norm, *head;
    const char *types, *embed_norm, *project;           /* of encoders: token types, norm and projection of the sum */
    const char *transform, *transform_norm, *head_bias; /* before the head that fills in masked tokens, and its bias */
    const char *norm[BAL_NORM_PLACES];
    const char *slot[BAL_SLOT_COUNT];
    const char *base_prefix; /* that files of a bare base model lack */
} bal_family_names;

/* Names of the sizes in config.json. */
typedef struct bal_family_keys {
    const char *layers, *hidden, *heads, *intermediate, *positions, *norm_eps, *act, *initializer;
} bal_family_keys;

/* Which layers have the window. */
typedef enum bal_sliding {
    BAL_SLIDING_NONE,       /* the family has no window */
    BAL_SLIDING_ALL,        /* all, when sliding_window is set */
    BAL_SLIDING_EVEN,       /* layers 0, 2, 4 ... (gemma 2) */
    BAL_SLIDING_PATTERN,    /* all but every sliding_window_pattern-th (gemma 3) */
    BAL_SLIDING_FROM_LAYER, /* with use_sliding_window, from max_window_layers on (qwen) */
    BAL_SLIDING_UNROTATED   /* with use_sliding_window, those without rotation (smollm3) */
} bal_sliding;

typedef struct bal_family {
    const char *model_type;   /* config.json: model_type */
    const char *architecture; /* GGUF: general.architecture */
    const char *class_name;   /* config.json: architectures[0], when written */
    const bal_family_keys *keys;
    bal_norm_kind norm;
    bal_rope_kind rope;       /* BAL_ROPE_NONE: no rotary embedding */
    double local_theta;       /* rotary base of the layers with the window when not said; 0: as the others */
    double theta;             /* rotary base when not said; 0: 10000 */
    double rotary_part;       /* partial_rotary_factor when not said; 0: has no such key, all of a head turns */
    double norm_eps;          /* when not said; 0: 1e-6, of a LayerNorm 1e-5 */
    size_t head_dim;          /* when not said; 0: hidden / heads */
    size_t kv_heads;          /* num_key_value_heads when not said (null is said); 0: as many as heads */
    size_t positions;         /* max_position_embeddings when not said; 0: 2048, of an encoder 512 */
    const char *act;          /* hidden_act when the configuration does not say */
    bool gelu_is_tanh;        /* hidden_act "gelu" means the tanh form (gemma) */
    bool tied_head;           /* tie_word_embeddings when the configuration does not say */
    bool bias_keys;           /* attention_bias is read */
    bool mlp_bias_key;        /* mlp_bias is read */
    const char *qkv_bias_key; /* of biases of q, k and v alone */
    unsigned always_bias;     /* bit per slot */
    bool fused_qkv;           /* slot Q holds the rows of q, k and v */
    bool fused_gate_up;       /* slot GATE holds the rows of gate and up */
    bool conv1d;              /* Hugging Face files hold the blocks' matrices as in x out */
    bool scaled_embed;        /* embeddings times sqrt(hidden) */
    bool score_scalar;        /* query_pre_attn_scalar^-1/2 scales the scores */
    bool softcaps;            /* attn_logit_softcapping, final_logit_softcapping */
    bool score_caps;          /* attn_logit_softcapping counts (gemma 3 has the key and does not use it) */
    bool nope_keys;           /* no_rope_layers, no_rope_layer_interval */
    bool parallel_key;        /* use_parallel_residual */
    bool longrope_alias;      /* rope types "su" and "yarn" mean longrope (phi3) */
    bal_sliding sliding;
    size_t default_window;   /* sliding_window when not said */
    size_t learned_offset;   /* row of position 0, when there are learned positions */
    bool gguf_permuted;      /* q and k rows of GGUF files are in the order of neighbouring pairs */
    bool gguf_norm_plus;     /* GGUF files hold 1 + w where config.json's model adds the 1 */
    bool gguf_no_window;     /* GGUF files of the architecture cannot say the window */
    bool masked;             /* an encoder with a head for masked tokens: config_encoder.c */
    bool positions_skip_pad; /* positions are counted over tokens that are not the pad id, from that id + 1 (RoBERTa) */
    bool head_gelu;          /* before the head always the exact GELU, whatever hidden_act says */
    bal_family_names hf, gguf;
} bal_family;

/* families_encoder.c: the rows of encoders. */
extern const bal_family k_bal_encoder_families[];
extern const size_t k_bal_n_encoder_families;

const bal_family *bal_family_by_model_type(const char *model_type);     /* NULL: not known */
const bal_family *bal_family_by_architecture(const char *architecture); /* NULL: not known */
/* "llama, ...": for messages; gguf: the names of GGUF architectures. */
bal_status bal_family_list(bal_buf *out, bool gguf);
/* pattern with '#' replaced by layer, then suffix; false if it does not fit. */
bool bal_family_name(char *out, size_t n_out, const char *pattern, size_t layer, const char *suffix);
/* Whether the matrix has a bias by family and configuration. */
bool bal_family_bias(const bal_family *f, const bal_model_config *c, bal_slot slot);
/* Rows (outputs) and columns (inputs) of a block's matrix. */
void bal_slot_shape(const bal_family *f, const bal_model_config *c, bal_slot slot, size_t *rows, size_t *cols);
/* The name of a block's norm in one kind of file, NULL if the model has none at that place. */
const char *bal_family_norm(const bal_family_names *n, const bal_model_config *c, bal_norm_place place);
/* Values of a norm. */
size_t bal_norm_size(const bal_model_config *c, bal_norm_place place);

#endif
