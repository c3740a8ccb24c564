/* What the two files of AdaLoRA share: adalora.c (the module) and ranks.c (which ranks stay).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_ADALORA_H
#define BAL_ADAPTER_ADALORA_H

#include "lib/adapter/methods.h"

enum { ADALORA_A, ADALORA_B, ADALORA_E, ADALORA_RANKNUM }; /* tensors of a site */

/* The rank that the config leaves a module: that of its entry in config.kept, else config.r. */
size_t bal_kept_rank(const bal_adapter_config *c, const char *module);
/* Every entry of config.kept is of an adapted module and has init_r values; else BAL_EFORMAT. */
bal_status bal_kept_check(const bal_adapter *a);

/* bal_method.begin, .after_step and .finished. */
bal_status bal_ranks_begin(bal_adapter *a, size_t n_steps);
size_t bal_ranks_after_step(bal_adapter *a, size_t step);
bal_status bal_ranks_finished(bal_adapter **out, const bal_adapter *a);

#endif
