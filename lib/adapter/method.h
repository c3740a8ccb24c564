/* What an adapter method is: one row of a table (methods.c) and one file with its functions.  README.md of this folder
 * says how one is added.
 *
 * A module computes o = W x + b.  A method may change what goes in, what comes out, or both; lib/model/linear.c
 * (training) and decode.c (inference) call its functions in this order:
 *
 *   forward    x' = input(x);  y = W x' (+ b);  forward: y changes in place;  (+ b, with output_without_bias)
 *   backward   do = backward_output(dy);  dx' = do W;  dx += input_back(dx');  backward: dx += the adapter's share
 *
 * No function allocates; none but describe(), init() and their like can fail.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_METHOD_H
#define BAL_ADAPTER_METHOD_H

#include "lib/adapter/adapter.h"
#include "lib/tensor/gemm.h"

typedef enum bal_key_type { BAL_KEY_NUMBER, BAL_KEY_BOOL, BAL_KEY_TEXT, BAL_KEY_LIST } bal_key_type;

/* A key of adapter_config.json that this method has and LoRA has not. */
typedef struct bal_method_key {
    const char *name;
    bal_key_type type;
    double number;      /* default of a number or boolean; texts and lists: null */
    double least, most; /* of a number */
    bool when_set;      /* written only when it is not the default (older readers do not know it) */
} bal_method_key;

/* One application of an adapted module to M rows. */
typedef struct bal_site_call {
    const bal_site *site;
    const bal_view *w; /* W, out x in */
    size_t M;
    const real_t *x, *xa;  /* the module's input; the adapter's: x after dropout, else x itself */
    size_t ldx;            /* of x and xa */
    real_t *y;             /* M x out, forward: what comes in and goes out */
    size_t ldy;            /* of y and dy */
    real_t *h;             /* M x hidden(site): what the forward leaves for the backward */
    real_t *scratch;       /* scratch(site, M) values */
    bool dropout;          /* xa is not x */
    bool backward_follows; /* the forward must fill h */
    bal_compute compute;
    real_t *panel;   /* for products with W */
    real_t *rowwise; /* inference: scratch of row-invariant products; NULL in training */
    /* backward only */
    const real_t *dy;
    real_t *dx; /* gradient of xa, added to, rows ldx apart; NULL: not wanted */
} bal_site_call;

/* y(M, n) = beta y + scale x(M, k) P^T for a matrix P (n x k) of the method, or for W: the only products that input()
 * and forward() may use, since in inference the bits of a row must depend on that row alone (DESIGN section 10).
 * beta is 0 or 1, and 0 comes with scale 1. */
void bal_site_product(const bal_site_call *c, size_t n, size_t k, real_t scale, const real_t *x, size_t ldx,
                      const real_t *P, real_t beta, real_t *y, size_t ldy);
void bal_site_base_product(const bal_site_call *c, const real_t *x, size_t ldx, real_t beta, real_t *y, size_t ldy);
/* dx(M, in) = beta dx + dy(M, out) W; dx's rows are ldx of the call apart.  Training only. */
void bal_site_base_back(const bal_site_call *c, const real_t *dy, size_t ldy, real_t beta, real_t *dx);

/* Modules that a method adapts when none are named (targets.c): all but the head; peft's for LoRA's kin, for AdaLoRA,
 * for (IA)^3; those that end attention and MLP; that which ends the MLP. */
typedef enum bal_default_targets {
    BAL_TARGETS_ALL,
    BAL_TARGETS_ATTENTION,
    BAL_TARGETS_ADALORA,
    BAL_TARGETS_IA3,
    BAL_TARGETS_HALVES,
    BAL_TARGETS_MLP,
    BAL_TARGETS_COUNT
} bal_default_targets;

/* Keys that LoRA has and peft's class of another method has not: dropped where a file holds them, as peft does, and
 * refused where they are asked for. */
enum {
    BAL_NO_LAYERS = 1,   /* layers_to_transform, layers_pattern */
    BAL_NO_EXCLUDE = 2,  /* exclude_modules */
    BAL_NO_PATTERNS = 4, /* rank_pattern, alpha_pattern */
    BAL_NO_TYING = 8,    /* ensure_weight_tying */
    BAL_NO_RSLORA = 16   /* use_rslora */
};

typedef struct bal_method {
    const char *name;        /* a word of --method: "lora" */
    const char *title;       /* in messages: "LoRA" */
    const char *peft_type;   /* "LORA" */
    const char *flag;        /* boolean key that tells it from another row of the same peft_type; may be NULL */
    const char *rank_key;    /* "init_r"; NULL: "r" */
    const char *alpha_key;   /* "lora_alpha", "alpha"; NULL: no scale */
    const char *dropout_key; /* "lora_dropout"; NULL: none */
    const char *init_key;    /* "init_lora_weights"; NULL: none */
    bool no_rank;            /* there is no r */
    bool embeddings;         /* may be on an embedding (s->embedding) */
    bool not_in_peft;        /* a peft_type of our own */
    bool biases;             /* peft has the key "bias" for it */
    bool no_sites;           /* no module is adapted: copies of the model's tensors are all that is trained */
    bool low_rank;  /* tensors 0 and 1 are the factors A (r x in) and B (out x r): filled by the starts of start.h, the
                         residual ones too, before init() */
    bool additive;  /* forward() adds to y whatever y holds; else y must be the module's own output */
    bool panel;     /* y = x (W + s(BA - B0A0))^T may stand for the forward (bal_lora_add_delta()) */
    bool dense;     /* the change of W is a dense matrix that effective() adds: dense_back() instead of the others */
    bool on_stream; /* on a module that ends a half block: forward() and backward_output() work on the residual stream
                       after that half instead of the module's output */
    bool output_without_bias;    /* forward() wants y without the bias, which is added after it */
    bal_default_targets targets; /* what is adapted when nothing is named */
    size_t default_r;            /* 0: the caller's */
    unsigned lacks;              /* BAL_NO_... */
    bal_method_key keys[BAL_METHOD_KEYS];

    /* Sets tensor[] and n_tensors, n_state and variant of a site whose module, in, out, r, scale and adapter (its
     * config) are set. */
    bal_status (*describe)(bal_site *s);
    /* What all sites share (a->shared, n_shared), the sites being described.  May be NULL. */
    bal_status (*describe_shared)(bal_adapter *a);
    /* The first values; everything is 0 before.  rng is the module's (or adapter's) own.  May be NULL. */
    bal_status (*init)(bal_site *s, const bal_view *w, bal_rng *rng);
    bal_status (*init_shared)(bal_adapter *a, bal_rng *rng);
    /* After all tensors were read from a file, for what hangs together.  May be NULL. */
    bal_status (*loaded)(bal_adapter *a);

    /* Columns of h for one row; values of scratch for M rows.  NULL: 0. */
    size_t (*hidden)(const bal_site *s);
    size_t (*scratch)(const bal_site *s, size_t M);
    /* Makes s->state from the parameters: before the first forward after they changed.  scratch: prepare_scratch(). */
    void (*prepare)(const bal_site *s, const bal_view *w, real_t *scratch);
    size_t (*prepare_scratch)(const bal_site *s);

    void (*input)(const bal_site_call *c, real_t *out);             /* out(M, in), dense, instead of x */
    void (*input_back)(const bal_site_call *c, const real_t *dout); /* dout(M, in), dense; dx, gradients += */
    void (*forward)(const bal_site_call *c);                        /* changes y */
    void (*backward_output)(const bal_site_call *c, real_t *dout);  /* dout(M, out), dense, from dy; NULL: dy itself */
    void (*backward)(const bal_site_call *c);                       /* dx += the adapter's share; gradients += */
    void (*dense_back)(const bal_site *s, const real_t *G, real_t *scratch); /* from G = dL/d(change), out x in */

    /* Methods that do more in a step than pass gradients on; all NULL for the others.
     * begin: before the first of n_steps steps, in a resumed run too: checks the schedule, makes a->history and a->work.
     * penalty: once a step, what is added to the loss, before its weight (*weight, then 0: it is off); its gradients
     * are added.  after_step: after update number step (from 1), a->params.grads still being those of the update;
     * returns how many ranks are left in all modules. */
    bal_status (*begin)(bal_adapter *a, size_t n_steps);
    double (*penalty)(const bal_adapter *a, double *weight);
    size_t (*after_step)(bal_adapter *a, size_t step);
    /* What a finished run writes instead of the adapter in memory (AdaLoRA: without the ranks that are off). */
    bal_status (*finished)(bal_adapter **out, const bal_adapter *a);
    /* The change as B A of LoRA factors (scale 1) of the site's own r: a(r, in), b(out, r).  NULL: no such form, unless
     * low_rank. */
    void (*plain)(const bal_site *s, real_t *a, real_t *b);

    /* Merging: rows row0.. of W (in out) become those of the weight that computes the same; the bias likewise.
     * effective NULL: cannot be merged.  scratch: none; n_rows may be 1. */
    void (*effective)(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld);
    void (*effective_bias)(const bal_site *s, size_t from, size_t n, real_t *bias); /* n values from `from` on */

    /* On the output head, whose weight is made row block by row block with effective(): gradients += of the parameters
     * from dZ(M, n), the gradient of rows row0.. of the outputs.  scratch: rows_back_scratch().  NULL: not on a head
     * that is trained. */
    void (*rows_back)(const bal_site *s, const bal_view *w, size_t M, const real_t *X, const real_t *dZ, size_t ldz,
                      size_t row0, size_t n, real_t *scratch);
    size_t (*rows_back_scratch)(const bal_site *s, size_t M);
    /* On an embedding (embeddings): y(M, out), scale times the rows of these tokens, becomes that of the adapted rows; the
     * gradients += from dy.  scratch() values of c->scratch. */
    void (*embed)(const bal_site_call *c, const int32_t *tokens, real_t scale);
    void (*embed_back)(const bal_site_call *c, const int32_t *tokens, real_t scale);
} bal_method;

/* The table. */
size_t bal_method_count(void);
const bal_method *bal_method_at(size_t i);
const bal_method *bal_method_named(const char *name);         /* NULL if unknown */
const bal_method *bal_method_of(const bal_adapter_config *c); /* never NULL: LoRA if none is said */

/* For describe(): appends a tensor. */
void bal_site_add(bal_site *s, const char *key, size_t n_dims, size_t rows, size_t cols);
/* Value of one of the method's own keys; the name must be one. */
const bal_key_value *bal_config_key(const bal_adapter_config *c, const char *name);
/* bal_method functions or their defaults. */
size_t bal_site_hidden(const bal_site *s);
size_t bal_site_scratch(const bal_site *s, size_t M);
bool bal_site_trains(const bal_site *s);
/* Uniform in +-1/sqrt(columns): kaiming_uniform with a = sqrt 5. */
void bal_site_fill_uniform(const bal_site_tensor *t, bal_rng *rng);
/* Names, comma between, for models of a Hugging Face model_type; NULL: not known, they must be named. */
const char *bal_method_targets(const bal_method *m, const char *model_type);
const char *bal_feedforward_modules(const char *model_type); /* of those of (IA)^3 */

#endif
