/* What the files of lib/adapter share; nobody else includes this.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_ADAPTER_IMPL_H
#define BAL_ADAPTER_ADAPTER_IMPL_H

#include "lib/adapter/adapter.h"

/* An adapter with room for all factors (values 0) on modules[picked[0..n_picked)), in that order; config is copied. */
bal_status bal_adapter_build(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules,
                             const size_t *picked, size_t n_picked, bool train);
/* Makes room for the initial factors and points the loras at them. */
bal_status bal_adapter_make_initial(bal_adapter *a);

/* true when peft would adapt the module `name` for this target list. */
bool bal_adapter_targets(const bal_adapter_config *config, const char *name);

/* What "pissa" or "pissa_niter_N" asks for: *niter = 0 for the exact SVD.  false if it is neither. */
bool bal_adapter_parse_pissa(const char *init, size_t *niter);

/* Fills A (and B) of every module as config.init says, for starts without a residual. */
bal_status bal_adapter_init_plain(bal_adapter *a, uint64_t seed);
/* Writes PiSSA's A0, B0 of every module to out, laid out like a->params, and sets a->captured_energy.
 * views[i] is the frozen matrix of a->loras[i]. */
bal_status bal_adapter_init_pissa(bal_adapter *a, const bal_view *const *views, size_t niter, uint64_t seed,
                                  real_t *out);

#endif
