/* The second moments of a model's inputs over calibration data, for starts that look at them (CorDA; Yang et al. 2024,
 * arXiv 2406.05223).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TRAIN_CALIBRATE_H
#define BAL_TRAIN_CALIBRATE_H

#include "lib/adapter/adapter.h"
#include "lib/base/log.h"
#include "lib/data/dataset.h"
#include "lib/model/model.h"

#include <stdbool.h>
#include <stddef.h>

/* Per module of the model (in its order): in x in sums in double, or NULL where none was asked for.  Modules with the
 * same input (q, k and v) share one. */
typedef struct calibration {
    double **covariances;
    bool *shared; /* the matrix belongs to a module before */
    size_t n_modules, n_samples, n_tokens;
} calibration;

/* Runs the frozen model over records items[0..n) of d (items NULL: the first n) and sums, for each module with
 * wanted[i], (X/x)^T (X/x) over the records, divided by their number: X (tokens x in) is the module's input for one
 * record, x the magnitude of its largest element, as peft's calib_cov_distribution() takes it.
 * BAL_ENOMEM when the sums need more than the free memory (says how much), BAL_ENUMERIC for inputs that are not finite
 * (names the module).  log may be NULL. */
bal_status train_calibrate(calibration *out, bal_model *m, const bool *wanted, const bal_dataset *d,
                           const uint32_t *items, size_t n, const bal_log *log, bool progress);
/* bal_adapter_new() with the start "corda" from such moments; minor: the knowledge-preserved form. */
bal_status train_calibrated_adapter(bal_adapter **out, const bal_adapter_config *config, bal_model *m,
                                    const bal_dataset *d, const uint32_t *items, size_t n, bool minor, uint64_t seed,
                                    const bal_log *log, bool progress);
void calibration_dispose(calibration *c); /* accepts a zeroed struct */

#endif
