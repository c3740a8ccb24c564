/* An adapter on disk, and its modules' true updates: s(BA), or s(BA - B0A0) with a residual start.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ANALYZE_UPDATE_H
#define BAL_ANALYZE_UPDATE_H

#include "lib/adapter/adapter.h"
#include "lib/base/log.h"
#include "lib/model/model.h"

#include <stddef.h>
#include <stdint.h>

/* Module names and shapes as the adapter's own file tells them, without weights. */
typedef struct own_modules {
    bal_module *modules;
    bal_view *views;
    char **names;
    size_t n;
} own_modules;

typedef struct analyzed {
    bal_adapter *adapter;
    bal_model *model; /* NULL without a base */
    own_modules own;
} analyzed;

/* dir: a PEFT folder; initial (its factors A0, B0) and base may be NULL.  BAL_EINVAL for a PiSSA adapter whose start is
 * neither at hand nor can be computed again. */
bal_status analyzed_open(analyzed *a, const char *dir, const char *initial, const char *base, const bal_log *log);
void analyzed_close(analyzed *a);
/* The base weight of a module, NULL without a base. */
const bal_view *analyzed_base(const analyzed *a, const char *module);

/* s[0..r) descending, U (out, r), V (in, r), r = bal_lora_hidden(l); U and V may both be NULL.  BAL_ENUMERIC when a factor
 * holds NaN or infinity. */
bal_status update_directions(const bal_lora *l, double *s, double *U, double *V);

/* 12 of "model.layers.12.mlp.up_proj", -1 without layers; and "up_proj". */
int64_t module_layer(const char *module);
const char *module_short(const char *module);

#endif
