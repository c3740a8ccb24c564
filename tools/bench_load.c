/* How long a model takes to be ready.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "tools/bench.h"

static bal_status load_once(void *context)
{
    bal_model *m = NULL;
    bal_status status = bal_model_load(&m, context);
    bal_model_free(m);
    return status;
}

bal_status bal_bench_load(cJSON *out, const bal_bench_config *c)
{
    bal_bench_times times;
    char *path = bal_strdup(c->model);
    if (path == NULL)
        return BAL_ENOMEM;
    bal_status status = bal_bench_measure(&times, c, load_once, path);
    if (status == BAL_OK)
        bal_bench_report(out, &times, 1, "loads/s", "loads_per_second", 0);
    bal_free(path);
    return status;
}
