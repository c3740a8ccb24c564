/* What the files of lib/adapter share; nobody else includes this.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_ADAPTER_IMPL_H
#define BAL_ADAPTER_ADAPTER_IMPL_H

#include "lib/adapter/adapter.h"
#include "lib/adapter/start.h"

/* An adapter with room for all factors (values 0) on modules[picked[0..n_picked)), in that order; config is copied. */
bal_status bal_adapter_build(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules,
                             const size_t *picked, size_t n_picked, bool train);
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
