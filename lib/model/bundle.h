/* What inference works with: a model, perhaps an adapter on it, and its tokenizer; and texts as the token ids that
 * lm-evaluation-harness would feed.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_BUNDLE_H
#define BAL_MODEL_BUNDLE_H

#include "lib/model/model.h"
#include "lib/text/tokenizer.h"

typedef struct bal_bundle {
    bal_model *model;         /* NULL: it is served elsewhere, only its tokenizer is here */
    bal_adapter *adapter;     /* NULL: none */
    bal_tokenizer *tokenizer; /* NULL: the model has none; why is kept in no_tokenizer */
    char no_tokenizer[512];
    char note[256]; /* what the adapter's loading has to say, or "" */
    bool view;      /* of bal_bundle_view(): weights and tokenizer are another bundle's */
} bal_bundle;

/* adapter, initial_adapter and tokenizer (all may be NULL): folders or files; without tokenizer the model's own. */
bal_status bal_bundle_load(bal_bundle *out, const char *model, const char *adapter, const char *initial_adapter,
                           const char *tokenizer);
/* The same for masked language models too (bal_model_load_any()). */
bal_status bal_bundle_load_any(bal_bundle *out, const char *model, const char *adapter, const char *initial_adapter,
                               const char *tokenizer);
/* Makes the model what adapters[0..n) were trained on (lib/model/pack.h); BAL_EINVAL when they differ in that. */
bal_status bal_bundle_base(const bal_bundle *b, const char *const *adapters, size_t n);
/* The model of `of` with another adapter (NULL: none) over the same weights; `of` must outlive it. */
bal_status bal_bundle_view(bal_bundle *out, const bal_bundle *of, const char *adapter);
void bal_bundle_dispose(bal_bundle *b);
/* BAL_EINVAL with the reason if there is no tokenizer. */
bal_status bal_bundle_need_tokenizer(const bal_bundle *b);

/* Appends the ids of a prompt with the tokenizer's usual special tokens, unless it begins with BOS already; an empty one
 * becomes BOS, or EOS if there is no BOS. */
bal_status bal_bundle_prompt(const bal_bundle *b, const char *text, size_t n, bal_ids *out);
/* Splits context and continuation as lm-eval does: white space at the end of the context moves to the continuation,
 * both are encoded together and cut after the length of the encoded context.  An empty context becomes BOS (or EOS).
 * BAL_EINVAL if nothing is left for the continuation. */
bal_status bal_bundle_split(const bal_bundle *b, const char *context, const char *continuation, bal_ids *ids,
                            size_t *n_context);

#endif
