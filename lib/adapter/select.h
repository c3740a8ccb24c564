/* Which modules an adapter is on, and with which rank and scale: target_modules, exclude_modules, layers_to_transform,
 * modules_to_save, rank_pattern and alpha_pattern with peft's meaning.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_SELECT_H
#define BAL_ADAPTER_SELECT_H

#include "lib/adapter/adapter.h"

typedef struct bal_selector bal_selector;

/* config must outlive the selector.  BAL_EINVAL: a regular expression that cannot be compiled, with its key. */
bal_status bal_selector_new(bal_selector **out, const bal_adapter_config *config);
void bal_selector_free(bal_selector *s); /* accepts NULL */

/* true when peft would adapt this module. */
bool bal_selector_targets(const bal_selector *s, const bal_module *m);
/* true when modules_to_save names it, or a module that it is in, by its end as peft does ("norm" also names
 * input_layernorm): a whole copy is trained. */
bool bal_config_saves(const bal_adapter_config *c, const char *module);
/* Its own rank and alpha: of the first key of the pattern that matches (.*\.)?(KEY)$ of its path, else the config's. */
size_t bal_selector_rank(const bal_selector *s, const char *module);
double bal_selector_alpha(const bal_selector *s, const char *module);
/* BAL_EINVAL names a key of rank_pattern or alpha_pattern that matches none of a's sites; the second one also a name of
 * target_modules or modules_to_save that matches none of modules[0..n). */
bal_status bal_selector_check_patterns(const bal_selector *s, const bal_adapter *a);
bal_status bal_selector_check(const bal_selector *s, const bal_module *modules, size_t n, const bal_adapter *a);

/* "no module of the model matches KEY WHAT; the model has ..." */
bal_status bal_targets_no_match(const char *key, const char *what, const bal_module *modules, size_t n);
/* Whether the config's method can be on this kind of module. */
bool bal_module_adaptable(const bal_adapter_config *c, const bal_module *m);

/* What `text` is in peft's string form: a regular expression, which must match a whole path ("all-linear" is not). */
bool bal_targets_is_pattern(const char *text);

#endif
