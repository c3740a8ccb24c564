/* What the kinds of `balora analyze` share.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ANALYZE_ANALYZE_H
#define BAL_ANALYZE_ANALYZE_H

#include "lib/base/log.h"
#include "lib/base/str.h"
#include "lib/io/options.h"
#include "lib/io/store.h"

typedef struct analyze_config {
    const char *adapter, *against, *initial_adapter, *base, *run, *input, *field, *task, *name, *modules;
    int64_t step, vocab, max_pairs, intruders;
    double intruder_eps;
    bool store;
} analyze_config;

/* store may be NULL (nothing is kept); run is the analysis's own row in it. */
bal_status analyze_spectrum(const analyze_config *c, const bal_common *common, bal_store *store, int64_t run);
/* --adapter and --against: how the directions of two updates lie to each other. */
bal_status analyze_similarity(const analyze_config *c, const bal_common *common);
/* of: the run whose outputs are read, 0 for --input. */
bal_status analyze_diversity(const analyze_config *c, const bal_common *common, bal_store *store, int64_t run,
                             int64_t of);

/* Appends {"name": ..., "convention": ..., "value": x | null, "status": ...}. */
bal_status analyze_put_number(bal_buf *b, const char *name, const char *convention, double value, const char *status,
                              bool *first);

#endif
