/* Adapters: the numbers, their start, their files.  What a method does with them is a row of the table in method.h.
 *
 * One adapted matrix W (out x in), y = W x, becomes  y = W x + s B A x            (LoRA; Hu et al. 2021, 2106.09685)
 *                                            or      y = W x + s (B A - B0 A0) x  (residual start, PiSSA; Meng et al.
 * 2024, 2404.02948, written without a residual matrix: W stays what the file holds, see DESIGN section 5.2).
 * s = alpha / r, or alpha / sqrt(r) with use_rslora.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_ADAPTER_H
#define BAL_ADAPTER_ADAPTER_H

#include "lib/base/rng.h"
#include "lib/base/status.h"
#include "lib/tensor/params.h"
#include "lib/tensor/view.h"

#include <stdbool.h>
#include <stddef.h>

/* An adaptable matrix of a model, by its Hugging Face path ("model.layers.0.self_attn.q_proj"). */
typedef enum bal_module_kind {
    BAL_MODULE_LINEAR,
    BAL_MODULE_EMBEDDING,
    BAL_MODULE_TABLE, /* learned positions: no adapter, but perhaps a copy */
    BAL_MODULE_NORM   /* likewise */
} bal_module_kind;
typedef struct bal_module {
    const char *name;
    const bal_view *w;   /* out x in; of an embedding vocabulary x hidden; of a norm n x 1 */
    bool fan_in_fan_out; /* the model's own files hold it as in x out (GPT-2); w never is */
    bool is_head;        /* "all-linear" leaves it out */
    bal_module_kind kind;
    const real_t *bias; /* as many as w has rows; NULL: none */
    bool projected;     /* w is a product of several matrices of the file: no copy of it can be saved */
} bal_module;

struct bal_method; /* lib/adapter/method.h */

enum { BAL_METHOD_KEYS = 16, BAL_SITE_TENSORS = 8 };

/* The value of one of a method's own keys of adapter_config.json. */
typedef struct bal_key_value {
    double number; /* also of a boolean: 0 or 1 */
    char *text;    /* NULL: null */
    char **list;
    size_t n_list;
} bal_key_value;

typedef struct bal_pattern_value { /* of rank_pattern and alpha_pattern */
    char *pattern;                 /* matches (.*\\.)?(pattern)$ of a module's path */
    double value;
} bal_pattern_value;

typedef struct bal_kept { /* of a module: which of its triplets an allocation of ranks has left */
    char *module;
    bool *kept; /* n of them, true where it is there */
    size_t n;
} bal_kept;

typedef enum bal_bias_mode { BAL_BIAS_NONE, BAL_BIAS_ALL, BAL_BIAS_LORA_ONLY } bal_bias_mode;

typedef struct bal_adapter_config {
    const struct bal_method *method;     /* NULL: LoRA */
    bal_key_value keys[BAL_METHOD_KEYS]; /* in the order of the method's keys; bal_adapter_config_defaults() */
    size_t r;
    double lora_alpha;
    double lora_dropout;
    bool use_rslora;
    bool fan_in_fan_out;   /* what adapter_config.json says, set by the modules; the factors do not depend on it */
    char init[32];         /* a name of start.h */
    char **target_modules; /* names or suffixes, as peft; or "all-linear" alone */
    size_t n_target_modules;
    char *target_pattern; /* instead: an expression that must match the whole path; NULL: none */
    char **exclude_modules, *exclude_pattern;
    size_t n_exclude_modules;
    size_t *layers_to_transform;
    size_t n_layers_to_transform; /* 0: all */
    char **layers_pattern;
    size_t n_layers_pattern;
    bal_pattern_value *rank_pattern, *alpha_pattern; /* in order: the first that matches counts */
    size_t n_rank_pattern, n_alpha_pattern;
    bal_kept *kept; /* AdaLoRA's rank_pattern; a module that it does not name has all */
    size_t n_kept;
    char **modules_to_save; /* names or suffixes: whole copies are trained */
    size_t n_modules_to_save;
    bal_bias_mode bias;       /* which biases of the base are trained */
    bool ensure_weight_tying; /* the copy of a tied embedding is the head's, too */
    char *base_model;         /* base_model_name_or_path; may be NULL */
    char task_type[16];       /* "CAUSAL_LM" */
} bal_adapter_config;

typedef struct bal_lora {
    char *module;
    size_t in, out, r;
    double scale;
    real_t *a, *b;         /* A (r, in), B (out, r), in the adapter's params */
    real_t *da, *db;       /* their gradients, accumulated; NULL when not trained */
    const real_t *a0, *b0; /* the initial factors of a residual start, else NULL */
} bal_lora;

/* One tensor of a site (or one that all sites share), as it is saved. */
typedef struct bal_site_tensor {
    const char *key; /* what follows "base_model.model.<module>." in the file: "lora_A.weight" */
    size_t n_dims;   /* 2, or 1 for a vector (rows values, cols 1) */
    size_t rows, cols;
    bool frozen;    /* saved and read, but not trained: lies in a->frozen */
    bool not_saved; /* in no file: the method makes it again (loaded()) */
    bool no_decay;
    real_t *v, *d; /* values; gradients, accumulated, NULL when not trained */
} bal_site_tensor;

/* One adapted module. */
typedef struct bal_site {
    const struct bal_method *method;
    const struct bal_adapter *adapter;
    char *module;
    size_t in, out, r; /* r: its own, after rank_pattern */
    double scale;      /* of LoRA's family, after alpha_pattern */
    bal_site_tensor tensor[BAL_SITE_TENSORS];
    size_t n_tensors;
    real_t *state; /* n_state values made from the parameters by the method's prepare() */
    size_t n_state;
    bal_lora *lora; /* the factors of a low-rank method, else NULL */
    bool embedding; /* of an embedding: in = vocabulary, out = hidden */
    int variant;    /* for the method's use: set by its describe() */
} bal_site;

/* A tensor of the model of which the adapter trains a copy (biases, modules_to_save): with the adapter it stands in the
 * place of the model's own, which stays as it is for the teacher and for the model alone. */
typedef struct bal_copy {
    char *tensor;      /* the model's name of it: "lm_head.weight" */
    char *key;         /* what follows "base_model.model." in the file */
    char *twin;        /* a second tensor (and key) that it stands for: the head of a tied embedding; else NULL */
    size_t module;     /* its place in the list of modules */
    size_t rows, cols; /* as the model has it; a vector: n x 1 */
    bool vector, is_bias;
    bool turned;   /* the file holds a matrix the other way round (Conv1D) */
    bool head;     /* of the output head */
    real_t *v, *d; /* in the adapter's params; d NULL when not trained */
} bal_copy;

typedef struct bal_adapter {
    bal_adapter_config config;
    bal_site *sites;
    size_t n_sites;
    bal_lora *loras; /* one a site, in the same order, for methods with such factors; else none */
    size_t n_loras;
    bal_copy *copies;
    size_t n_copies;
    bal_params params; /* segments are named as in adapter_model.safetensors: site by site, shared, then the copies */
    size_t n_own;      /* values of params before those of the copies */
    bal_site_tensor shared[BAL_SITE_TENSORS]; /* of the whole adapter: "base_model.<key>" */
    size_t n_shared;
    real_t *frozen; /* values of the tensors that are not trained */
    size_t n_frozen;
    real_t *states; /* of all sites */
    /* n_history values that the method carries from step to step (bal_method.begin), in checkpoints; and its scratch */
    real_t *history, *work;
    size_t n_history;
    real_t *initial;        /* n_own values of the residual start, laid out like params; NULL for plain LoRA */
    double captured_energy; /* PiSSA: smallest over modules of captured / best possible energy; 1 if exact */
} bal_adapter;

/* A new adapter on those of modules[0..n) that target_modules names ("all-linear": all but the head).  train
 * allocates gradients.  BAL_EINVAL when nothing matches (message lists the module kinds) or r > min(in, out). */
bal_status bal_adapter_new(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules, size_t n,
                           uint64_t seed, bool train);
/* Reads a PEFT folder (adapter_config.json, adapter_model.safetensors; F32, F16 or BF16) and binds it to modules: a
 * missing or extra tensor, or a shape that does not fit, names tensor and both shapes.
 * initial_dir (may be NULL): PEFT folder with A0, B0; then the adapter has a residual start.  Without it, a config
 * that says "pissa" gets its start by redoing the SVD (note says so), "pissa_niter_N" is refused; balora/initial
 * inside dir (our checkpoints) supplies the initial factors by itself. */
bal_status bal_adapter_load(bal_adapter **out, const char *dir, const char *initial_dir, const bal_module *modules,
                            size_t n, bool train, char *note, size_t note_bytes);
/* What a start by data (CorDA) needs: per module (as modules[0..n)) the second moments of its inputs, in x in. */
typedef struct bal_calibration {
    const double *const *covariances;
    bool knowledge_preserved; /* corda_method "kpm": the minor triplets are trained; else "ipm" */
} bal_calibration;
/* bal_adapter_new() with data (may be NULL); BAL_EINVAL when the start needs data and there are none. */
bal_status bal_adapter_new_calibrated(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules,
                                      size_t n, const bal_calibration *data, uint64_t seed, bool train);
bal_status bal_adapter_config_copy(bal_adapter_config *to, const bal_adapter_config *from);
void bal_adapter_config_dispose(bal_adapter_config *c); /* of one that owns its parts */
/* Sets the method's own keys to their defaults (c->method is set). */
void bal_adapter_config_defaults(bal_adapter_config *c);
/* "none", "all", "lora_only". */
bool bal_bias_parse(const char *name, bal_bias_mode *out);
const char *bal_bias_name(bal_bias_mode mode);
/* The present factors become the initial ones of a residual start called init. */
bal_status bal_adapter_start_here(bal_adapter *a, const char *init);
void bal_adapter_free(bal_adapter *a);                                /* accepts NULL */
bal_lora *bal_adapter_find(const bal_adapter *a, const char *module); /* NULL if it has no such factors */
bal_site *bal_adapter_site(const bal_adapter *a, const char *module); /* NULL if not adapted */

/* Writes adapter_config.json (portable keys) and adapter_model.safetensors into dir (made if missing). */
bal_status bal_adapter_save(const bal_adapter *a, const char *dir);
/* Writes A0, B0 as a PEFT folder (init_lora_weights true), for --initial-adapter and checkpoints. */
bal_status bal_adapter_save_initial(const bal_adapter *a, const char *dir);
/* What a finished run leaves in dir: for a plain adapter the PEFT folder; for a residual start the plain LoRA of rank
 * 2r (loads anywhere), the rank-r pair in dir/pissa and its initial factors in dir/balora/initial.
 * bal_adapter_write_final() writes into dir as it is, for callers that add files of their own and then call
 * bal_folder_replace(); bal_adapter_save_final() writes beside dir and replaces the whole folder. */
bal_status bal_adapter_write_final(const bal_adapter *a, const char *dir);
bal_status bal_adapter_save_final(const bal_adapter *a, const char *dir);
/* The plain LoRA of rank 2r with the same update: A' = [A; A0], B' = [B, -B0], alpha' = 2 alpha (rsLoRA: sqrt(2)
 * alpha).  For an adapter without residual start a copy; of a method that has such a form (AdaLoRA) its factors, modules
 * without a rank left out. */
bal_status bal_adapter_to_plain(bal_adapter **out, const bal_adapter *a);

/* Rows row0.. of the copy as the file has it (turned, if it is). */
void bal_copy_rows(const bal_copy *c, size_t row0, size_t n_rows, real_t *out);

/* Columns that the side path needs in H for one application: r, or 2r with a residual start. */
size_t bal_lora_hidden(const bal_lora *l);
/* The backward of bal_lora_site_forward() (lora.h), which leaves H = X A^T (and X A0^T): dB += s dY^T H, dA += s (dY B)^T X; dX (may be NULL) += s (dY B) A [- s (dY B0) A0].  scratch: M x
 * bal_lora_hidden(l). */
void bal_lora_backward(const bal_lora *l, size_t M, const real_t *Xa, size_t ldx, const real_t *dY, size_t ldy,
                       const real_t *H, real_t *dX, size_t lddx, real_t *scratch);
/* out(n_rows, in) += rows row0.. of s (B A - B0 A0). */
void bal_lora_add_delta(const bal_lora *l, size_t row0, size_t n_rows, real_t *out, size_t ld);

#endif
