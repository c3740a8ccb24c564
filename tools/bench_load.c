/* How long a model takes to be ready, and an adapter on all its matrices to be started.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter.h"
#include "lib/base/mem.h"
#include "tools/bench.h"

#include <string.h>

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

typedef struct bench_init {
    bal_model *model;
    bal_adapter *adapter;
    const bal_bench_config *c;
} bench_init;

static bal_status init_once(void *context)
{
    bench_init *b = context;
    char all[] = "all-linear";
    char *targets[] = {all};
    bal_adapter_config config = {.r = (size_t)b->c->r,
                                 .lora_alpha = (double)b->c->r,
                                 .target_modules = targets,
                                 .n_target_modules = 1,
                                 .task_type = "CAUSAL_LM"};
    if (strlen(b->c->init) >= sizeof config.init)
        return bal_fail(BAL_EINVAL, "--init '%.60s' is not known", b->c->init);
    memcpy(config.init, b->c->init, strlen(b->c->init) + 1);
    bal_adapter_free(b->adapter);
    b->adapter = NULL;
    return bal_adapter_new(&b->adapter, &config, b->model->modules, b->model->n_modules, 0, true);
}

/* ||s B A||^2 = s^2 sum over i, j of (A A^T)_ij (B^T B)_ij. */
static double energy_of(const bal_lora *l)
{
    double sum = 0;
    for (size_t i = 0; i < l->r; i++)
        for (size_t j = 0; j < l->r; j++) {
            double a = 0, b = 0;
            for (size_t k = 0; k < l->in; k++)
                a += (double)l->a[i * l->in + k] * (double)l->a[j * l->in + k];
            for (size_t k = 0; k < l->out; k++)
                b += (double)l->b[k * l->r + i] * (double)l->b[k * l->r + j];
            sum += a * b;
        }
    return sum * l->scale * l->scale;
}

bal_status bal_bench_init(cJSON *out, const bal_bench_config *c)
{
    bench_init b = {.c = c};
    bal_bench_times times;
    double energy = 0;
    bal_status status;
    BAL_TRY(bal_model_load(&b.model, c->model));
    BAL_TRY(bal_bench_measure(&times, c, init_once, &b));
    bal_bench_report(out, &times, 1, "starts/s", "starts_per_second", 0);
    for (size_t i = 0; i < b.adapter->n_loras; i++)
        energy += energy_of(&b.adapter->loras[i]);
    (void)cJSON_AddStringToObject(out, "init", c->init);
    (void)cJSON_AddNumberToObject(out, "modules", (double)b.adapter->n_sites);
    (void)cJSON_AddNumberToObject(out, "energy", energy);
    (void)cJSON_AddNumberToObject(out, "least_captured", b.adapter->captured_energy);
out:
    bal_adapter_free(b.adapter);
    bal_model_free(b.model);
    return status;
}
