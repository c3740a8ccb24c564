/* What the files of lib/adapter share; nobody else includes this.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_ADAPTER_IMPL_H
#define BAL_ADAPTER_ADAPTER_IMPL_H

#include "lib/adapter/adapter.h"
#include "lib/adapter/start.h"

/* Copies of tensors before there are values. */
typedef struct bal_copies {
    bal_copy *of;
    size_t n;
} bal_copies;

/* An adapter with room for all factors and copies (values 0) on modules[picked[0..n_picked)), in that order; config and
 * copies (v and d aside) are copied. */
bal_status bal_adapter_build(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules,
                             const size_t *picked, size_t n_picked, const bal_copies *copies, bool train);

/* copies.c: the tensors that bias and modules_to_save name; trains: as against only read. */
bal_status bal_copies_choose(bal_copies *out, const bal_adapter_config *c, const bal_module *modules, size_t n,
                             const size_t *picked, size_t n_picked, bool trains);
bal_status bal_copies_duplicate(bal_copies *out, const bal_copies *from);
void bal_copies_dispose(bal_copies *c);
/* The values of the model's own tensors. */
void bal_copies_start(bal_adapter *a, const bal_module *modules);
/* What a name in the tensor file is, when the configuration trains copies: one of a tensor of modules[0..n); BAL_COPY_AGAIN:
 * the same once more, or the base's own, as peft writes with bias "all". */
typedef enum bal_copy_name { BAL_COPY_NONE, BAL_COPY_TENSOR, BAL_COPY_AGAIN } bal_copy_name;
bal_copy_name bal_copies_name(const bal_adapter_config *c, const char *rest, const bal_module *modules, size_t n);
/* An adapter with config c (of any method) on the modules of a, values 0 but for the copies; without_rank: also on modules
 * where a has no rank. */
bal_status bal_adapter_rebuild(bal_adapter **out, const bal_adapter *a, const bal_adapter_config *c, bool without_rank);
void bal_kept_dispose(bal_kept *list, size_t n); /* accepts NULL and entries of NULL */
/* Makes room for the initial factors and points the loras at them. */
bal_status bal_adapter_make_initial(bal_adapter *a);

/* Fills A (and B) of every module as config.init says, for starts without a residual. */
bal_status bal_adapter_init_plain(bal_adapter *a, uint64_t seed);
/* Writes A0, B0 of every module to out, laid out like a->params, and sets a->captured_energy.
 * views[i] is the frozen matrix of a->loras[i]; covariances[i] (CorDA, else NULL) the in x in second moments of its
 * inputs. */
bal_status bal_adapter_init_residual(bal_adapter *a, bal_start start, const bal_view *const *views,
                                     const double *const *covariances, bool minor, uint64_t seed, real_t *out);
/* A generator of the module's own: the start depends neither on other modules nor on the number of threads. */
void bal_adapter_stream(bal_rng *rng, uint64_t seed, const char *use, const char *module);

#endif
