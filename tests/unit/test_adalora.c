/* AdaLoRA: which ranks are left, step by step, as peft's allocator (tests/peers/make_ranks.py); its schedule, its term of
 * the loss, its files.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"
#include "tests/unit/modules.h"

#include <string.h>

enum { STEPS = 12, RANK = 5 };

static char g_q[] = "q_proj", g_down[] = "down_proj";
static char *g_targets[] = {g_q, g_down};
static const char *const k_names[] = {"model.layers.0.mlp.down_proj", "model.layers.0.self_attn.q_proj"};

static void set_key(bal_adapter_config *c, const char *name, double value)
{
    c->keys[bal_config_key(c, name) - c->keys].number = value;
}

static bal_adapter_config adalora_config(size_t r)
{
    bal_adapter_config c = config_of(g_targets, 2, "lora");
    c.method = bal_method_named("adalora");
    c.r = r;
    bal_adapter_config_defaults(&c);
    set_key(&c, "target_r", 2);
    return c;
}

static bal_adapter *new_adalora(const bal_adapter_config *c)
{
    bal_adapter *a = NULL;
    make_modules();
    CHECK_OK(bal_adapter_new(&a, c, g_modules, 3, 1, true));
    return a;
}

static double number(size_t site, size_t tensor, size_t j, size_t step, size_t kind)
{
    uint32_t x = (uint32_t)((site * 1000003 + tensor * 10007 + j * 101 + step * 7919 + kind * 31) * 2654435761U);
    x ^= x >> 15;
    x *= 2246822519U;
    x ^= x >> 13;
    return (x >> 8) / 16777216.0 - 0.5;
}

/* Parameters and gradients of a step, those of make_ranks.py. */
static void give(bal_adapter *a, size_t step)
{
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < 3; k++) {
            const bal_site_tensor *t = &bal_adapter_site(a, k_names[i])->tensor[k];
            for (size_t j = 0; j < t->rows * t->cols; j++) {
                t->v[j] = (real_t)number(i, k, j, step, 0);
                t->d[j] = (real_t)number(i, k, j, step, 1);
            }
        }
}

/* "01101 10111": where E is not 0. */
static void pattern(const bal_adapter *a, char *out)
{
    for (size_t i = 0; i < 2; i++) {
        const bal_site *s = bal_adapter_site(a, k_names[i]);
        for (size_t k = 0; k < s->r; k++)
            *out++ = s->tensor[2].v[k] != 0 ? '1' : '0';
        *out++ = i == 0 ? ' ' : '\0';
    }
}

typedef struct schedule {
    double target_r, tinit, tfinal, every, beta1, beta2;
    const char *want[STEPS];
} schedule;

static const schedule k_schedules[] = {
    {2,
     0,
     0,
     1,
     0.85,
     0.85,
     {"01111 10111", "01101 10111", "00111 00111", "00111 01001", "00111 00101", "00101 00101", "00101 00101",
      "00111 00100", "01111 00000", "01111 00000", "11101 00000", "11101 00000"}},
    {2,
     2,
     3,
     2,
     0.5,
     0.85,
     {"11111 11111", "11111 11111", "11111 11111", "01111 01001", "11111 11111", "00101 00101", "11111 11111",
      "00011 01100", "00011 01100", "00011 01100", "00011 01100", "00011 01100"}},
    {1,
     0,
     4,
     1,
     0.85,
     0.95,
     {"01101 10111", "01001 00111", "00001 00011", "00011 00001", "00100 00001", "00101 00000", "00101 00000",
      "00101 00000", "00101 00000", "00101 00000", "00101 00000", "00101 00000"}},
};
enum { SCHEDULES = sizeof k_schedules / sizeof *k_schedules };

static bal_adapter_config scheduled(const schedule *s)
{
    bal_adapter_config c = adalora_config(RANK);
    set_key(&c, "target_r", s->target_r);
    set_key(&c, "tinit", s->tinit);
    set_key(&c, "tfinal", s->tfinal);
    set_key(&c, "deltaT", s->every);
    set_key(&c, "beta1", s->beta1);
    set_key(&c, "beta2", s->beta2);
    return c;
}

static size_t ones(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += *text == '1';
    return n;
}

static void check_step(bal_adapter *a, const schedule *s, size_t step)
{
    char got[2 * RANK + 2];
    give(a, step);
    size_t left = a->sites[0].method->after_step(a, step);
    pattern(a, got);
    CHECK_MSG(strcmp(got, s->want[step - 1]) == 0, "schedule %d, step %zu: %s instead of %s", (int)(s - k_schedules),
              step, got, s->want[step - 1]);
    CHECK(left <= ones(got));
    if (step == STEPS)
        CHECK(left == ones(got) && (double)left == 2 * s->target_r);
}

TEST(ranks_are_pefts)
{
    for (size_t i = 0; i < SCHEDULES; i++) {
        const bal_adapter_config c = scheduled(&k_schedules[i]);
        bal_adapter *a = new_adalora(&c);
        CHECK_OK(a->sites[0].method->begin(a, STEPS));
        for (size_t step = 1; step <= STEPS; step++)
            check_step(a, &k_schedules[i], step);
        bal_adapter_free(a);
    }
}

/* What a checkpoint keeps is all that there is to know. */
TEST(going_on_elsewhere)
{
    for (size_t stop = 1; stop < STEPS; stop++) {
        const schedule *s = &k_schedules[stop % SCHEDULES];
        const bal_adapter_config c = scheduled(s);
        bal_adapter *a = new_adalora(&c), *b = new_adalora(&c);
        CHECK_OK(a->sites[0].method->begin(a, STEPS));
        for (size_t step = 1; step <= stop; step++)
            check_step(a, s, step);
        CHECK_OK(b->sites[0].method->begin(b, STEPS));
        if (CHECK(a->n_history == b->n_history))
            memcpy(b->history, a->history, a->n_history * sizeof(real_t));
        bal_adapter_free(a);
        for (size_t step = stop + 1; step <= STEPS; step++)
            check_step(b, s, step);
        bal_adapter_free(b);
    }
}

static void refused(const char *key, double value, const char *word)
{
    bal_adapter_config c = adalora_config(RANK);
    set_key(&c, "tinit", 4);
    set_key(&c, "tfinal", 4);
    set_key(&c, key, value);
    bal_adapter *a = new_adalora(&c);
    CHECK_STATUS(a->sites[0].method->begin(a, 9), BAL_EINVAL);
    CHECK_MSG(strstr(bal_error_message(), word) != NULL, "%s", bal_error_message());
    bal_adapter_free(a);
}

TEST(schedules)
{
    refused("tfinal", 5, "tinit 4 and tfinal 5 leave none of the total_step 9 steps");
    refused("tinit", 5, "leave none");
    refused("total_step", 8, "total_step 8");
    refused("target_r", 6, "target_r 6 is above init_r 5");
    refused("beta1", 1, "beta1 is 1");
    refused("beta2", 0, "beta2 is 0");
    bal_adapter_config c = adalora_config(RANK);
    bal_adapter *a = new_adalora(&c);
    CHECK_OK(a->sites[0].method->begin(a, 9));
    CHECK(bal_config_key(&a->config, "total_step")->number == 9);
    bal_adapter_free(a);
    /* one step: nothing was looked at before the ranks are chosen for good, and yet not all go */
    a = new_adalora(&c);
    CHECK_OK(a->sites[0].method->begin(a, 1));
    give(a, 1);
    CHECK(a->sites[0].method->after_step(a, 1) == 4);
    bal_adapter_free(a);
    set_key(&c, "target_r", RANK); /* nothing to take away */
    a = new_adalora(&c);
    CHECK_OK(a->sites[0].method->begin(a, 3));
    for (size_t step = 1; step <= 3; step++) {
        give(a, step);
        CHECK(a->sites[0].method->after_step(a, step) == 2 * RANK);
    }
    bal_adapter_free(a);
}

/* A step without labels is left out: that the ranks are chosen for good must not hang on it. */
TEST(a_skipped_step)
{
    bal_adapter_config c = adalora_config(RANK);
    set_key(&c, "tfinal", 2);
    set_key(&c, "deltaT", 6);
    bal_adapter *a = new_adalora(&c);
    char text[2 * RANK + 2];
    CHECK_OK(a->sites[0].method->begin(a, 8));
    for (size_t step = 1; step <= 8; step++) {
        if (step == 6) /* = total_step - tfinal */
            continue;
        give(a, step);
        (void)a->sites[0].method->after_step(a, step);
    }
    pattern(a, text);
    CHECK(ones(text) == 4);
    bal_adapter_free(a);
}

TEST(penalty)
{
    const bal_adapter_config c = adalora_config(4);
    bal_adapter *a = new_adalora(&c);
    double weight = 0;
    CHECK_OK(a->sites[0].method->begin(a, 9));
    memset(a->params.values, 0, a->params.n * sizeof(real_t)); /* |0 - I| = sqrt 4 for every factor, no slope */
    CHECK_NEAR(a->sites[0].method->penalty(a, &weight), 2, 1e-6);
    CHECK(weight == 0.5);
    for (size_t i = 0; i < a->params.n; i++)
        CHECK(a->params.grads[i] == 0);
    for (size_t i = 0; i < a->n_sites; i++) /* orthonormal: 0, and its slope is taken as 0 */
        for (size_t k = 0; k < 4; k++) {
            a->sites[i].tensor[0].v[k * a->sites[i].in + k] = 1;
            a->sites[i].tensor[1].v[k * 4 + k] = k == 2 ? -1 : 1;
        }
    CHECK_NEAR(a->sites[0].method->penalty(a, &weight), 0, 1e-12);
    for (size_t i = 0; i < a->params.n; i++)
        CHECK(a->params.grads[i] == 0);
    a->sites[0].tensor[0].v[0] = 2; /* |4 - 1| of one of four factors; slope 2 (4 - 1) 2 / 3 / 4 times the weight */
    CHECK_NEAR(a->sites[0].method->penalty(a, &weight), 0.75, 1e-6);
    CHECK_NEAR(a->sites[0].tensor[0].d[0], 0.5, 1e-6);
    a->config.keys[bal_config_key(&a->config, "orth_reg_weight") - a->config.keys].number = 0;
    CHECK(isnan(a->sites[0].method->penalty(a, &weight)) && weight == 0);
    bal_adapter_free(a);
}

TEST(start)
{
    const bal_adapter_config c = adalora_config(4);
    bal_adapter *a = new_adalora(&c);
    double square = 0;
    size_t n = 0;
    for (size_t i = 0; i < a->n_sites; i++) {
        const bal_site *s = &a->sites[i];
        CHECK(s->r == 4 && strcmp(s->tensor[0].key, "lora_A") == 0 && s->lora == NULL);
        CHECK_NEAR(s->scale, 6 / (4 + 1e-5), 1e-12);
        for (size_t k = 0; k < 4; k++)
            CHECK(s->tensor[2].v[k] == 0);
        for (size_t k = 0; k < 2; k++)
            for (size_t j = 0; j < s->tensor[k].rows * s->tensor[k].cols; j++, n++)
                square += (double)s->tensor[k].v[j] * (double)s->tensor[k].v[j];
    }
    CHECK_NEAR(sqrt(square / (double)n), 0.02, 0.004); /* of 144 normal numbers */
    bal_adapter_free(a);
}

/* Rows of the change of W of both modules. */
static void changes(const bal_adapter *a, double *out)
{
    real_t rows[OUT0 * IN0];
    for (size_t i = 0; i < 2; i++) {
        const bal_site *s = bal_adapter_site(a, k_names[i]);
        size_t out_n = i == 0 ? OUT1 : OUT0, in = i == 0 ? IN1 : IN0;
        memset(rows, 0, sizeof rows);
        if (s != NULL)
            s->method->effective(s, 0, out_n, rows, in);
        for (size_t j = 0; j < out_n * in; j++)
            *out++ = (double)rows[j];
    }
}

enum { CHANGES = OUT0 * IN0 + OUT1 * IN1 };

static void same_changes(const bal_adapter *a, const bal_adapter *b, double tolerance)
{
    double x[CHANGES], y[CHANGES], size = 0;
    changes(a, x);
    changes(b, y);
    for (size_t i = 0; i < CHANGES; i++) {
        CHECK_NEAR(y[i], x[i], tolerance);
        size += x[i] * x[i];
    }
    CHECK(size > 1e-3);
}

/* Trained, written, read, trained again and written: the pattern is always over the ranks of the beginning. */
TEST(written_and_read)
{
    char folder[512], again[512];
    const bal_adapter_config c = adalora_config(RANK);
    bal_adapter *a = new_adalora(&c), *b = NULL, *d = NULL, *plain = NULL;
    (void)snprintf(folder, sizeof folder, "%s/one", test_folder());
    (void)snprintf(again, sizeof again, "%s/two", test_folder());
    CHECK_OK(a->sites[0].method->begin(a, STEPS));
    for (size_t step = 1; step <= STEPS; step++) {
        give(a, step);
        (void)a->sites[0].method->after_step(a, step); /* ends with "11101 00000" */
    }
    CHECK_OK(bal_adapter_save_final(a, folder));
    if (CHECK_OK(bal_adapter_load(&b, folder, NULL, g_modules, 3, true, NULL, 0))) {
        CHECK(bal_adapter_site(b, k_names[0])->r == 4 && bal_adapter_site(b, k_names[1])->r == 0);
        CHECK_NEAR(b->sites[0].scale, 6 / (RANK + 1e-5), 1e-12);
        same_changes(a, b, 0);
        if (CHECK_OK(bal_adapter_to_plain(&plain, b))) {
            CHECK(plain->n_sites == 1 && plain->loras[0].r == 4 && plain->loras[0].scale == 1);
            same_changes(a, plain, 1e-7);
        }
        b->config.keys[bal_config_key(&b->config, "target_r") - b->config.keys].number = 1;
        b->config.keys[bal_config_key(&b->config, "total_step") - b->config.keys].number = 0;
        CHECK_OK(b->sites[0].method->begin(b, 3));
        for (size_t step = 1; step <= 3; step++) {
            give(b, step);
            size_t left = b->sites[0].method->after_step(b, step);
            CHECK(step < 3 ? left <= 4 : left == 2);
        }
        CHECK_OK(bal_adapter_save_final(b, again));
    }
    if (b != NULL && CHECK_OK(bal_adapter_load(&d, again, NULL, g_modules, 3, false, NULL, 0))) {
        same_changes(b, d, 0);
        CHECK(d->n_sites == 2 && d->config.n_kept == 2);
        size_t left = 0;
        for (size_t i = 0; i < d->config.n_kept; i++)
            for (size_t k = 0; k < RANK; k++) {
                left += d->config.kept[i].kept[k];
                if (strcmp(d->config.kept[i].module, k_names[0]) != 0 || k == 3) /* were off before */
                    CHECK(d->config.kept[i].n == RANK && !d->config.kept[i].kept[k]);
            }
        CHECK(left == 2);
    }
    bal_adapter_free(a);
    bal_adapter_free(b);
    bal_adapter_free(d);
    bal_adapter_free(plain);
}

static void write_config(const char *folder, const char *rank_pattern)
{
    char path[600];
    bal_buf text = {0};
    (void)snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    CHECK_OK(bal_buf_printf(&text,
                            "{\"peft_type\": \"ADALORA\", \"init_r\": 3, \"lora_alpha\": 6, \"total_step\": 9, "
                            "\"target_modules\": [\"q_proj\"], \"rank_pattern\": %s}",
                            rank_pattern));
    CHECK_OK(bal_file_replace(path, bal_buf_cstr(&text), text.len));
    bal_buf_dispose(&text);
}

static void write_tensors(const char *folder, size_t r, bool ranknum)
{
    static const char base[] = "base_model.model.model.layers.0.self_attn.q_proj.";
    char path[600], name[200];
    const size_t a[2] = {r, IN0}, b[2] = {OUT0, r}, e[2] = {r, 1}, one[1] = {1};
    real_t values[OUT0 * 8];
    bal_safetensors_writer *w = NULL;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = (real_t)(i + 1);
    (void)snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    CHECK_OK(bal_folder_make(folder));
    CHECK_OK(bal_safetensors_writer_new(&w));
    (void)snprintf(name, sizeof name, "%slora_A", base);
    CHECK_OK(bal_safetensors_writer_add_real(w, name, 2, a, values));
    (void)snprintf(name, sizeof name, "%slora_B", base);
    CHECK_OK(bal_safetensors_writer_add_real(w, name, 2, b, values));
    (void)snprintf(name, sizeof name, "%slora_E", base);
    CHECK_OK(bal_safetensors_writer_add_real(w, name, 2, e, values));
    (void)snprintf(name, sizeof name, "%sranknum", base);
    values[0] = 4;
    if (ranknum)
        CHECK_OK(bal_safetensors_writer_add_real(w, name, 1, one, values));
    CHECK_OK(bal_safetensors_writer_commit(w, path));
    bal_safetensors_writer_free(w);
}

TEST(rank_patterns)
{
#define Q "\"model.layers.0.self_attn.q_proj.lora_E"
    static const struct {
        const char *pattern, *message; /* NULL: read */
    } cases[] = {{"{" Q "\": [true, false, true]}", NULL},
                 {"{" Q ".default\": [true, false, true]}", NULL}, /* as peft once wrote it */
                 {"{" Q "\": [true, true]}", "rank_pattern has 2 entries for 'model.layers.0.self_attn.q_proj', and "
                                             "init_r is 3"},
                 {"{\"model.layers.7.self_attn.q_proj.lora_E\": [true, false, true]}", "lora_A' in"},
                 {"{" Q "\": [true, false, true], \"other.lora_E\": [true]}", "rank_pattern names 'other'"},
                 {"{" Q "\": [true, 1, true]}", "must hold true and false alone"},
                 {"{" Q "\": []}", "must be <module>.lora_E with a list of truths"},
                 {"{" Q "\": 2}", "must be <module>.lora_E with a list of truths"},
                 {"{\"q_proj\": [true]}", "must be <module>.lora_E with a list of truths"},
                 {"[true]", "key 'rank_pattern' must be an object"},
                 {"{" Q "\": [true, true, true]}", "but rank 3 on this model's"}};
    char folder[512];
    (void)snprintf(folder, sizeof folder, "%s/given", test_folder());
    make_modules();
    write_tensors(folder, 2, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bal_adapter *a = NULL;
        write_config(folder, cases[i].pattern);
        if (cases[i].message == NULL) {
            CHECK_OK(bal_adapter_load(&a, folder, NULL, g_modules, 3, false, NULL, 0));
            CHECK(a != NULL && a->sites[0].r == 2 && fabs(a->sites[0].scale - 6 / (3 + 1e-5)) < 1e-12);
        } else {
            CHECK_STATUS(bal_adapter_load(&a, folder, NULL, g_modules, 3, false, NULL, 0), BAL_EFORMAT);
            CHECK_MSG(strstr(bal_error_message(), cases[i].message) != NULL, "%s", bal_error_message());
        }
        bal_adapter_free(a);
    }
    bal_adapter *a = NULL;
    write_tensors(folder, 3, true); /* a file that says how it was scaled */
    write_config(folder, "null");
    if (CHECK_OK(bal_adapter_load(&a, folder, NULL, g_modules, 3, false, NULL, 0)))
        CHECK_NEAR(a->sites[0].scale, 6 / (4 + 1e-5), 1e-12);
    bal_adapter_free(a);
}
