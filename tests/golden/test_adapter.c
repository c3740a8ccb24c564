/* lib/adapter against peft's files: conversion of PiSSA, the SVD start, what is read and what is refused.  Modules
 * come straight from the model's tensor file, so every family counts.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/adapter/adapter.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_MODULES = 64 };

typedef struct base {
    bal_safetensors *file;
    bal_view views[MAX_MODULES];
    bal_module modules[MAX_MODULES];
    char names[MAX_MODULES][128];
    size_t n;
} base;

static const char *in_case(const char *name, const char *part)
{
    char path[256];
    (void)snprintf(path, sizeof path, "golden/decoder/%s/%s", name, part);
    return test_shared(path);
}

static bool base_open(base *b, const char *name)
{
    *b = (base){0};
    if (!CHECK_OK(bal_safetensors_open(&b->file, in_case(name, "model"))))
        return false;
    for (size_t i = 0; i < bal_safetensors_count(b->file) && b->n < MAX_MODULES; i++) {
        const bal_tensor *t = bal_safetensors_at(b->file, i);
        if (t->n_dims != 2 || strstr(t->name, "embed") != NULL || !bal_ends_with(t->name, ".weight"))
            continue;
        (void)snprintf(b->names[b->n], sizeof b->names[0], "%.*s", (int)(strlen(t->name) - 7), t->name);
        CHECK_OK(bal_tensor_view(t, &b->views[b->n]));
        b->modules[b->n] = (bal_module){.name = b->names[b->n], .w = &b->views[b->n]};
        b->n++;
    }
    return true;
}

static double product(const bal_lora *l, const real_t *b, const real_t *a, size_t row, size_t col)
{
    double sum = 0;
    for (size_t k = 0; k < l->r; k++)
        sum += (double)b[row * l->r + k] * (double)a[k * l->in + col];
    return l->scale * sum;
}

static double delta(const bal_lora *l, size_t row, size_t col)
{
    return product(l, l->b, l->a, row, col) - (l->a0 != NULL ? product(l, l->b0, l->a0, row, col) : 0);
}

/* largest |x - y| over largest |x| of the updates of all modules */
static double difference(const bal_adapter *x, const bal_adapter *y)
{
    double worst = 0, scale = 0;
    if (x->n_loras != y->n_loras)
        return HUGE_VAL;
    for (size_t m = 0; m < x->n_loras; m++) {
        const bal_lora *p = &x->loras[m], *q = bal_adapter_find(y, p->module);
        if (q == NULL)
            return HUGE_VAL;
        for (size_t i = 0; i < p->out; i++)
            for (size_t j = 0; j < p->in; j++) {
                double d = delta(p, i, j);
                worst = fmax(worst, fabs(d - delta(q, i, j)));
                scale = fmax(scale, fabs(d));
            }
    }
    return worst / scale;
}

static const char *const k_pissa[] = {"adp_pissa_llama", "adp_pissa_gemma2", "adp_pissa_mistral_rslora"};

TEST(conversion_is_pefts)
{
    if (in_case(k_pissa[0], "adapter") == NULL)
        SKIP("../shared/golden is not there");
    for (size_t c = 0; c < 3; c++) {
        static base b;
        bal_adapter *ours = NULL, *plain = NULL, *theirs = NULL;
        if (!base_open(&b, k_pissa[c]))
            continue;
        CHECK_OK(bal_adapter_load(&ours, in_case(k_pissa[c], "adapter"), in_case(k_pissa[c], "initial_adapter"),
                                  b.modules, b.n, false, NULL, 0));
        CHECK_OK(
            bal_adapter_load(&theirs, in_case(k_pissa[c], "converted_adapter"), NULL, b.modules, b.n, false, NULL, 0));
        if (ours != NULL && theirs != NULL && CHECK_OK(bal_adapter_to_plain(&plain, ours))) {
            CHECK(difference(theirs, ours) <= 1e-6);
            CHECK(difference(theirs, plain) <= 1e-6);
            CHECK(plain->config.r == theirs->config.r && plain->initial == NULL);
            CHECK_NEAR(plain->config.lora_alpha, theirs->config.lora_alpha, 1e-9);
            CHECK(memcmp(plain->params.values, theirs->params.values, plain->params.n * sizeof(real_t)) ==
                  0); /* same order */
        }
        bal_adapter_free(ours);
        bal_adapter_free(plain);
        bal_adapter_free(theirs);
        bal_safetensors_close(b.file);
    }
}

/* s B0 A0 of our SVD against peft's; without stored factors the start is redone. */
TEST(pissa_start_is_pefts)
{
    static const double tolerance[] = {1e-5, 2e-4, 1.3e-5}; /* case.json: tolerance_svd.product_rel */
    if (in_case(k_pissa[0], "adapter") == NULL)
        SKIP("../shared/golden is not there");
    for (size_t c = 0; c < 3; c++) {
        static base b;
        bal_adapter *a = NULL;
        bal_safetensors *want = NULL;
        char note[256];
        if (!base_open(&b, k_pissa[c]))
            continue;
        CHECK_OK(bal_adapter_load(&a, in_case(k_pissa[c], "adapter"), NULL, b.modules, b.n, true, note, sizeof note));
        CHECK(strstr(note, "redone") != NULL);
        CHECK_OK(bal_safetensors_open(&want, in_case(k_pissa[c], "expected_svd.safetensors")));
        size_t compared = 0;
        for (size_t m = 0; a != NULL && want != NULL && m < a->n_loras; m++) {
            const bal_lora *l = &a->loras[m];
            char name[160];
            (void)snprintf(name, sizeof name, "%s.product", l->module);
            const bal_tensor *t = bal_safetensors_find(want, name);
            if (t == NULL || !CHECK(t->n_elements == l->out * l->in))
                continue;
            double worst = 0, scale = 0;
            for (size_t i = 0; i < t->n_elements; i++) {
                float w;
                memcpy(&w, (const char *)t->data + i * sizeof w, sizeof w);
                worst = fmax(worst, fabs(product(l, l->b0, l->a0, i / l->in, i % l->in) - (double)w));
                scale = fmax(scale, fabs((double)w));
            }
            CHECK_MSG(worst <= tolerance[c] * scale, "%s: %s differs by %g of %g", k_pissa[c], name, worst, scale);
            compared++;
        }
        CHECK(compared >= 3);
        bal_adapter_free(a);
        bal_safetensors_close(want);
        bal_safetensors_close(b.file);
    }
}

TEST(pefts_folders)
{
    static const struct {
        const char *name;
        bal_status status;
        size_t loras;
    } cases[] = {{"adp_lora", BAL_OK, 14},        {"adp_rslora", BAL_OK, 6},
                 {"adp_bf16_base", BAL_OK, 0},    {"adp_gemma2_lora", BAL_OK, 0},
                 {"adp_mistral_lora", BAL_OK, 0}, {"adp_subset_layers", BAL_OK, 2},
                 {"adp_dora", BAL_OK, 14},        {"adp_lora_bias", BAL_OK, 0},
                 {"adp_patterns", BAL_OK, 14},    {"adp_embedding", BAL_EUNSUPPORTED, 0}};
    if (in_case("adp_lora", "adapter") == NULL)
        SKIP("../shared/golden is not there");
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        static base b;
        bal_adapter *a = NULL;
        if (!base_open(&b, cases[c].name))
            continue;
        bal_status status =
            bal_adapter_load(&a, in_case(cases[c].name, "adapter"), NULL, b.modules, b.n, true, NULL, 0);
        CHECK_MSG(status == cases[c].status, "%s: status %d, %s", cases[c].name, (int)status, bal_error_message());
        if (status == BAL_OK && cases[c].loras > 0)
            CHECK_MSG(a->n_loras == cases[c].loras, "%s: %zu modules", cases[c].name, a->n_loras);
        bal_adapter_free(a);
        bal_safetensors_close(b.file);
    }
}

/* An adapter of one base on the matrices of another. */
TEST(another_base_is_noticed)
{
    static base b;
    bal_adapter *a = NULL;
    if (in_case("adp_lora", "adapter") == NULL)
        SKIP("../shared/golden is not there");
    if (!base_open(&b, "adp_gemma2_lora"))
        return;
    CHECK_STATUS(bal_adapter_load(&a, in_case("adp_lora", "adapter"), NULL, b.modules, b.n, false, NULL, 0),
                 BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "another base") != NULL);
    bal_safetensors_close(b.file);
}
