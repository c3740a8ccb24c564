/* adapter_config.json, for lib/adapter/peft_load.c and peft_save.c only.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_PEFT_H
#define BAL_ADAPTER_PEFT_H

#include "lib/adapter/adapter.h"

typedef struct peft_config {
    bal_adapter_config config; /* owned; target_modules empty when the file gives a pattern */
    bool residual, redo;       /* init_lora_weights is a residual start; one that can be made again */
    bool unknown_start;        /* another start that changes the frozen weights */
    bool exact_targets;        /* every module that target_modules names must be in the tensor file */
} peft_config;

/* Reads dir/adapter_config.json; refuses features that would change what the factors mean (one sentence). */
bal_status bal_peft_config_read(peft_config *out, const char *dir);
void bal_peft_config_dispose(peft_config *c);
/* Writes the portable keys, sorted, indent 2.  initial: of the start of a residual adapter, as plain LoRA. */
bal_status bal_peft_config_write(const bal_adapter *a, bool initial, const char *path);

#endif
