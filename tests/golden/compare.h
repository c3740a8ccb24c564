/* Files of expected tensors against those that balora forward wrote: what the tests of golden cases share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TESTS_GOLDEN_COMPARE_H
#define BAL_TESTS_GOLDEN_COMPARE_H

#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PATH = 1024 };

static inline cJSON *read_json(const char *dir, const char *name)
{
    char path[MAX_PATH];
    cJSON *json = NULL;
    (void)snprintf(path, sizeof path, "%.950s/%.60s", dir, name);
    CHECK_OK(bal_json_read(&json, path, 1 << 26));
    return json;
}

/* tolerance of the part of the name before the first dot */
static inline bool find_tolerance(const cJSON *all, const char *name, double *rel, double *abs)
{
    char kind[64];
    (void)snprintf(kind, sizeof kind, "%.*s", (int)strcspn(name, "."), name);
    const cJSON *one = bal_json_member(all, kind);
    return one != NULL && bal_json_f64(one, "case.json", "rel", rel, NULL) == BAL_OK &&
           bal_json_f64(one, "case.json", "abs", abs, NULL) == BAL_OK;
}

static inline void compare_tensor(const char *case_name, const bal_tensor *want, const bal_tensor *got, double rel,
                                  double abs)
{
    double largest = 0, worst = 0;
    size_t where = 0;
    if (!CHECK_MSG(got != NULL, "%s: %s is not in the output", case_name, want->name) ||
        !CHECK_MSG(got->n_elements == want->n_elements && got->n_dims == want->n_dims && got->dtype == BAL_DTYPE_F32,
                   "%s: %s has another shape", case_name, want->name))
        return;
    const float *g = got->data, *w = want->data;
    for (size_t i = 0; i < want->n_elements; i++)
        largest = fmax(largest, fabs((double)w[i]));
    for (size_t i = 0; i < want->n_elements; i++) {
        double d = fabs((double)g[i] - (double)w[i]);
        if (!(d <= worst)) {
            worst = d;
            where = i;
        }
    }
    CHECK_MSG(worst <= rel * largest + abs, "%s: %s differs by %.3g at %zu (%.3g of the largest, allowed %.3g)",
              case_name, want->name, worst, where, worst / largest, rel);
}

/* All tensors of want_path, or those whose name begins with `only`; returns their number. */
static inline size_t compare_some(const char *case_name, const char *want_path, const char *got_path, const char *only,
                                  const cJSON *tolerance)
{
    size_t n = 0;
    bal_safetensors *want = NULL, *got = NULL;
    if (CHECK_OK(bal_safetensors_open(&want, want_path)) && CHECK_OK(bal_safetensors_open(&got, got_path))) {
        for (size_t i = 0; i < bal_safetensors_count(want); i++) {
            const bal_tensor *t = bal_safetensors_at(want, i);
            double rel = 0, abs = 0;
            if (only != NULL && !bal_starts_with(t->name, only))
                continue;
            n++;
            if (CHECK_MSG(find_tolerance(tolerance, t->name, &rel, &abs), "%s: no tolerance for %s", case_name,
                          t->name))
                compare_tensor(case_name, t, bal_safetensors_find(got, t->name), rel, abs);
        }
    }
    bal_safetensors_close(want);
    bal_safetensors_close(got);
    return n;
}

#endif
