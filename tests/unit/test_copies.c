/* Tensors of the model that an adapter trains copies of: files, conversion, several adapters over one model, refusals.
 * Numbers of peft are in test_methods.c, gradients in tests/grad/test_copies.c.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/rng.h"
#include "lib/io/safetensors.h"
#include "lib/loss/lm_loss.h"
#include "lib/model/pass.h"
#include "lib/model/save_gguf.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define DATA "tests/unit/data/methods/"
enum { TOKENS = 7, VOCAB = 32 };

static const int32_t k_ids[TOKENS] = {5, 5, 0, 17, 22, 8, 11};

/* Logits of the ids with whatever is attached. */
static bool run(bal_model *m, bal_role role, real_t *out)
{
    const bal_pass_options o = {.max_tokens = TOKENS, .max_seqs = 1, .teacher = true};
    uint32_t rows[TOKENS];
    bal_pass *p = NULL;
    bal_batch b = {0};
    for (uint32_t i = 0; i < TOKENS; i++)
        rows[i] = i;
    bool ok = CHECK_OK(bal_pass_new(&p, m, &o)) && CHECK_OK(bal_batch_init(&b, TOKENS, 1));
    if (ok) {
        bal_batch_clear(&b);
        ok = CHECK_OK(bal_batch_add(&b, k_ids, NULL, TOKENS));
        bal_batch_finish(&b, false);
    }
    ok = ok && CHECK_OK(bal_pass_forward(p, &b, role)) &&
         CHECK_OK(bal_lm_logits(m, bal_pass_final(p, role), rows, TOKENS, role == BAL_STUDENT, out));
    bal_pass_free(p);
    bal_batch_dispose(&b);
    return ok;
}

static double distance(const real_t *a, const real_t *b)
{
    double worst = 0;
    for (size_t i = 0; i < (size_t)TOKENS * VOCAB; i++)
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    return worst;
}

static bool same(const real_t *a, const real_t *b)
{
    return memcmp(a, b, TOKENS * VOCAB * sizeof *a) == 0;
}

static bal_status load(bal_adapter **a, const bal_model *m, const char *dir, char note[256])
{
    return bal_adapter_load(a, dir, NULL, m->modules, m->n_modules, false, note, 256);
}

/* A new adapter with its numbers moved. */
static bal_adapter *fresh(const bal_model *m, const char *method, const char *init, char *target,
                          void (*more)(bal_adapter_config *c))
{
    char *targets[] = {target};
    bal_rng rng;
    bal_adapter *a = NULL;
    bal_adapter_config c = {.method = bal_method_named(method),
                            .r = 2,
                            .lora_alpha = 3,
                            .target_modules = targets,
                            .n_target_modules = 1,
                            .task_type = "CAUSAL_LM"};
    (void)snprintf(c.init, sizeof c.init, "%s", init);
    bal_adapter_config_defaults(&c);
    more(&c);
    if (!CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 3, false)))
        return NULL;
    bal_rng_init(&rng, 4, "copies");
    for (size_t i = 0; i < a->params.n; i++)
        a->params.values[i] += (real_t)(0.2 * bal_rng_normal(&rng));
    return a;
}

static void all_biases(bal_adapter_config *c)
{
    c->bias = BAL_BIAS_ALL;
}

static void adapted_biases(bal_adapter_config *c)
{
    c->bias = BAL_BIAS_LORA_ONLY;
}

/* Attached: the student moves, teacher and list of modules do not; detached: the model as it was. */
static void check_places(const char *base, const char *adapter)
{
    static real_t before[TOKENS * VOCAB], with[TOKENS * VOCAB], teacher[TOKENS * VOCAB], after[TOKENS * VOCAB];
    bal_model *m = NULL;
    bal_adapter *a = NULL;
    char note[256];
    if (CHECK_OK(bal_model_load(&m, base)) && run(m, BAL_STUDENT, before) && CHECK_OK(load(&a, m, adapter, note)) &&
        CHECK_OK(bal_model_attach(m, a)) && run(m, BAL_STUDENT, with) && run(m, BAL_TEACHER, teacher)) {
        CHECK(a->n_copies > 0 && distance(with, before) > 0.01);
        CHECK(same(teacher, before));
        for (size_t i = 0; i < a->n_copies; i++) {
            const bal_copy *c = &a->copies[i];
            const bal_module *module = &m->modules[c->module];
            const real_t *own = c->is_bias ? module->bias : module->w->data;
            CHECK_MSG(own != NULL && own != c->v, "%s", c->tensor);
        }
        CHECK_OK(bal_model_attach(m, NULL));
        CHECK(run(m, BAL_STUDENT, after) && same(after, before));
        CHECK_OK(bal_model_attach(m, a)); /* and is freed with it */
    }
    bal_model_free(m);
    bal_adapter_free(a);
}

TEST(in_their_places)
{
    check_places(DATA "base", DATA "lora_bias");
    check_places(DATA "base", DATA "vera_bias");
    check_places(DATA "gpt2", DATA "gpt2_bias");
    check_places(DATA "gpt2", DATA "gpt2_bitfit");
    check_places(DATA "base", DATA "lora_save");
    check_places(DATA "base", DATA "loha_save");
    check_places(DATA "gpt2", DATA "gpt2_save");
    check_places(DATA "gpt2", DATA "gpt2_tied");
}

/* Two adapters over one model, and the model alone, each as if by itself. */
static void check_shared(const char *base, const char *one, const char *two)
{
    static real_t want[3][TOKENS * VOCAB], got[TOKENS * VOCAB];
    bal_model *m = NULL, *views[3] = {NULL};
    bal_adapter *a[3] = {NULL};
    char note[256];
    bool ok = CHECK_OK(bal_model_load(&m, base)) && CHECK_OK(load(&a[0], m, one, note)) &&
              CHECK_OK(load(&a[1], m, two, note));
    for (size_t i = 0; ok && i < 3; i++)
        ok = CHECK_OK(bal_model_attach(m, a[i])) && run(m, BAL_STUDENT, want[i]);
    ok = ok && CHECK_OK(bal_model_attach(m, a[0])); /* what is shared has an adapter itself */
    for (size_t i = 0; ok && i < 3; i++)
        ok = CHECK_OK(bal_model_share(&views[i], m, a[i]));
    for (size_t i = 0; ok && i < 3; i++)
        CHECK_MSG(run(views[i], BAL_STUDENT, got) && same(got, want[i]), "view %zu", i);
    if (ok)
        CHECK(run(m, BAL_STUDENT, got) && same(got, want[0]) && !same(want[0], want[1]) && !same(want[0], want[2]));
    for (size_t i = 0; i < 3; i++)
        bal_model_free(views[i]);
    if (ok)
        CHECK(run(m, BAL_STUDENT, got) && same(got, want[0]));
    bal_model_free(m);
    bal_adapter_free(a[0]);
    bal_adapter_free(a[1]);
}

TEST(several_over_one_model)
{
    check_shared(DATA "base", DATA "lora_bias", DATA "vera_bias");
    check_shared(DATA "gpt2", DATA "gpt2_bitfit", DATA "gpt2_bias");
    check_shared(DATA "base", DATA "lora_save", DATA "loha_save");
    check_shared(DATA "gpt2", DATA "gpt2_tied", DATA "gpt2_save");
}

static char g_save[2][32] = {"lm_head", "layers.1.mlp"};
static char *g_saved[] = {g_save[0], g_save[1]};

static void saved(bal_adapter_config *c)
{
    c->modules_to_save = g_saved;
    c->n_modules_to_save = 2;
}

static void saved_as_one(bal_adapter_config *c)
{
    saved(c);
    c->ensure_weight_tying = true;
}

/* A tied model with an adapter: tied when it is merged, or not. */
static void check_tie(void (*more)(bal_adapter_config *c), bool stays)
{
    static real_t want[TOKENS * VOCAB], got[TOKENS * VOCAB];
    char dir[512], target[] = "c_attn";
    bal_model *m = NULL, *merged = NULL;
    bal_adapter *a = NULL;
    (void)snprintf(dir, sizeof dir, "%s/merged%d", test_folder(), stays);
    (void)snprintf(g_save[1], sizeof g_save[1], "c_fc");
    bool ok = CHECK_OK(bal_model_load(&m, DATA "gpt2")) && (a = fresh(m, "lora", "lora", target, more)) != NULL &&
              CHECK_OK(bal_model_attach(m, a)) && run(m, BAL_STUDENT, want) &&
              CHECK_OK(bal_model_save(m, dir, BAL_DTYPE_F32));
    if (ok && CHECK_OK(bal_model_load(&merged, dir)) && run(merged, BAL_STUDENT, got)) {
        CHECK_MSG(distance(want, got) < 2e-5, "%g", distance(want, got));
        CHECK(merged->config.tied_head == stays && m->config.tied_head);
    }
    bal_model_free(merged);
    bal_model_free(m);
    bal_adapter_free(a);
    (void)snprintf(g_save[1], sizeof g_save[1], "layers.1.mlp");
}

TEST(tied_models)
{
    check_tie(all_biases, true);
    check_tie(saved, false);
    check_tie(saved_as_one, true);
}

/* The pair is written under both names, whichever of them was given. */
TEST(a_tied_pair_is_read_again)
{
    char dir[512], target[] = "c_attn", head[] = "lm_head", wte[] = "wte", note[256];
    char *names[] = {head, wte};
    for (int i = 0; i < 2; i++) {
        static char *one[1];
        bal_model *m = NULL;
        bal_adapter *a = NULL, *back = NULL;
        bal_adapter_config c = {.r = 2,
                                .lora_alpha = 2,
                                .target_modules = (char *[]){target},
                                .n_target_modules = 1,
                                .modules_to_save = one,
                                .n_modules_to_save = 1,
                                .ensure_weight_tying = true,
                                .init = "lora"};
        one[0] = names[i];
        (void)snprintf(dir, sizeof dir, "%s/pair%d", test_folder(), i);
        if (CHECK_OK(bal_model_load(&m, DATA "gpt2")) &&
            CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, true))) {
            a->copies[0].v[3] += 1;
            if (CHECK_OK(bal_adapter_save(a, dir)) && CHECK_OK(load(&back, m, dir, note)))
                CHECK(back->n_copies == 1 && back->copies[0].twin != NULL &&
                      (float)back->copies[0].v[3] == (float)a->copies[0].v[3]);
        }
        bal_adapter_free(a);
        bal_adapter_free(back);
        bal_model_free(m);
    }
}

/* peft ties no "wte", and writes no head then: the copy is the embedding's alone, whatever the key says. */
TEST(a_pair_that_peft_has_not_tied)
{
    char dir[512], path[600], target[] = "c_attn", wte[] = "wte", note[256], *one[] = {wte};
    bal_model *m = NULL;
    bal_adapter *a = NULL, *back = NULL;
    bal_buf text = {0};
    bal_adapter_config c = {.r = 2,
                            .lora_alpha = 2,
                            .target_modules = (char *[]){target},
                            .n_target_modules = 1,
                            .modules_to_save = one,
                            .n_modules_to_save = 1,
                            .init = "lora"};
    (void)snprintf(dir, sizeof dir, "%s/untied", test_folder());
    (void)snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    if (CHECK_OK(bal_model_load(&m, DATA "gpt2")) &&
        CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, true)) && CHECK_OK(bal_adapter_save(a, dir)) &&
        CHECK_OK(bal_file_read(path, 100000, &text))) {
        bal_buf tied = {0};
        CHECK_OK(bal_buf_printf(&tied, "{\"ensure_weight_tying\": true,%s", strchr(bal_buf_cstr(&text), '{') + 1));
        CHECK_OK(bal_file_replace(path, tied.data, tied.len));
        if (CHECK_OK(load(&back, m, dir, note)))
            CHECK(back->n_copies == 1 && back->copies[0].twin == NULL);
        bal_buf_dispose(&tied);
    }
    bal_buf_dispose(&text);
    bal_adapter_free(a);
    bal_adapter_free(back);
    bal_model_free(m);
}

/* A residual start: its folder for anybody, its pair, and the start itself. */
static void check_converted(const char *base, char *target, void (*more)(bal_adapter_config *c))
{
    static real_t want[TOKENS * VOCAB], got[TOKENS * VOCAB];
    bal_model *m = NULL;
    char dir[512], pair[600], note[256];
    (void)snprintf(dir, sizeof dir, "%s/pissa", test_folder());
    (void)snprintf(pair, sizeof pair, "%s/pissa", dir);
    if (!CHECK_OK(bal_model_load(&m, base)))
        return;
    bal_adapter *a = fresh(m, "lora", "pissa", target, more), *plain = NULL, *again = NULL;
    if (a != NULL && CHECK_OK(bal_model_attach(m, a)) && run(m, BAL_STUDENT, want) &&
        CHECK_OK(bal_adapter_save_final(a, dir)) && CHECK_OK(bal_model_attach(m, NULL)) &&
        CHECK_OK(load(&plain, m, dir, note)) && CHECK_OK(bal_model_attach(m, plain)) && run(m, BAL_STUDENT, got)) {
        CHECK(plain->config.r == 4 && plain->initial == NULL && plain->n_copies == a->n_copies);
        CHECK_MSG(distance(want, got) < 2e-5, "plain: %g", distance(want, got));
    }
    CHECK_OK(bal_model_attach(m, NULL));
    if (a != NULL && CHECK_OK(load(&again, m, pair, note)) && CHECK_OK(bal_model_attach(m, again)) &&
        run(m, BAL_STUDENT, got))
        /* files hold f32: the double build reads rounded factors */
        CHECK(again->initial != NULL && (BAL_REAL_IS_DOUBLE ? distance(want, got) < 2e-5 : same(want, got)));
    bal_model_free(m);
    bal_adapter_free(a);
    bal_adapter_free(plain);
    bal_adapter_free(again);
}

TEST(converted)
{
    char q[] = "q_proj", c[] = "c_attn";
    check_converted(DATA "base", q, all_biases);
    check_converted(DATA "gpt2", c, adapted_biases);
    check_converted(DATA "base", q, saved);
}

/* Copies one adapter folder, leaving out tensors whose names hold `without`, and with another shape where they hold
 * `cut`. */
static bool copy_without(const char *from, const char *to, const char *without, const char *cut)
{
    char path[600];
    bal_buf text = {0};
    bal_safetensors *s = NULL;
    bal_safetensors_writer *w = NULL;
    (void)snprintf(path, sizeof path, "%s/adapter_config.json", from);
    bool ok = CHECK_OK(bal_folder_make(to)) && CHECK_OK(bal_file_read(path, 1 << 16, &text));
    (void)snprintf(path, sizeof path, "%s/adapter_config.json", to);
    ok = ok && CHECK_OK(bal_file_replace(path, text.data, text.len)) && CHECK_OK(bal_safetensors_open(&s, from)) &&
         CHECK_OK(bal_safetensors_writer_new(&w));
    for (size_t i = 0; ok && i < bal_safetensors_count(s); i++) {
        const bal_tensor *t = bal_safetensors_at(s, i);
        size_t shape[2] = {t->shape[0], t->n_dims == 2 ? t->shape[1] : 1};
        if (cut != NULL && strstr(t->name, cut) != NULL)
            shape[0]--;
        if (without == NULL || strstr(t->name, without) == NULL)
            ok = CHECK_OK(bal_safetensors_writer_add(w, t->name, t->dtype, t->n_dims, shape, t->data));
    }
    (void)snprintf(path, sizeof path, "%s/adapter_model.safetensors", to);
    ok = ok && CHECK_OK(bal_safetensors_writer_commit(w, path));
    bal_safetensors_writer_free(w);
    bal_safetensors_close(s);
    bal_buf_dispose(&text);
    return ok;
}

TEST(what_a_file_lacks)
{
    bal_model *m = NULL;
    bal_adapter *a = NULL;
    char note[256], to[512];
    (void)snprintf(to, sizeof to, "%s/lacking", test_folder());
    if (!CHECK_OK(bal_model_load(&m, DATA "base")))
        return;
    if (copy_without(DATA "lora_bias", to, "layers.1.self_attn.q_proj.base_layer.bias", NULL)) {
        CHECK_STATUS(load(&a, m, to, note), BAL_EFORMAT);
        CHECK_MSG(strstr(bal_error_message(), "layers.1.self_attn.q_proj.base_layer.bias") != NULL, "%s",
                  bal_error_message());
    }
    if (copy_without(DATA "lora_bias", to, NULL, "layers.1.self_attn.q_proj.base_layer.bias")) {
        CHECK_STATUS(load(&a, m, to, note), BAL_EFORMAT);
        CHECK_MSG(strstr(bal_error_message(), "15") != NULL, "%s", bal_error_message());
    }
    /* as older versions of peft wrote it */
    if (copy_without(DATA "lora_bias", to, ".bias", NULL) && CHECK_OK(load(&a, m, to, note))) {
        CHECK_MSG(strstr(note, "lora_only") != NULL, "%s", note);
        for (size_t i = 0; i < a->n_copies; i++)
            CHECK(memcmp(a->copies[i].v, m->modules[a->copies[i].module].bias, a->copies[i].rows * sizeof(real_t)) ==
                  0);
        bal_adapter_free(a);
    }
    bal_model_free(m);
}

static size_t count_copies(const bal_model *m, char *name, bool all)
{
    char q[] = "q_proj", *targets[] = {q}, *names[] = {name};
    bal_adapter *a = NULL;
    bal_adapter_config c = {.r = 2,
                            .lora_alpha = 2,
                            .init = "lora",
                            .target_modules = targets,
                            .n_target_modules = 1,
                            .modules_to_save = names,
                            .n_modules_to_save = 1,
                            .bias = all ? BAL_BIAS_ALL : BAL_BIAS_NONE};
    bal_status status = bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, false);
    size_t n = status == BAL_OK ? a->n_copies : 1000 + (size_t)(status == BAL_EINVAL);
    bal_adapter_free(a);
    return n;
}

static double log_sum(const real_t *z)
{
    double sum = 0;
    for (size_t i = 0; i < VOCAB; i++)
        sum += exp((double)z[i]);
    return log(sum);
}

/* The consistency term of the batch by its definition, from the two logits. */
static double divergence(const real_t *student, const real_t *teacher)
{
    double sum = 0;
    for (size_t t = 0; t + 1 < TOKENS; t++) {
        const real_t *z = student + t * VOCAB, *zt = teacher + t * VOCAB;
        double a = log_sum(z), b = log_sum(zt);
        for (size_t i = 0; i < VOCAB; i++)
            sum += exp((double)zt[i] - b) * ((double)zt[i] - b - (double)z[i] + a);
    }
    return sum / (TOKENS - 1);
}

/* The loss's teacher has the model's own head, and its student the copy. */
static void check_head(const char *base, const char *adapter)
{
    static real_t student[TOKENS * VOCAB], teacher[TOKENS * VOCAB];
    const bal_pass_options o = {.max_tokens = TOKENS, .max_seqs = 1, .teacher = true};
    const bal_loss_config c = {.lambda_consistency = 1, .temperature = 1};
    const bal_loss_weights w = {1, 0, 0};
    bal_loss_values v;
    bal_model *m = NULL;
    bal_adapter *a = NULL;
    bal_pass *p = NULL;
    bal_lm_loss *l = NULL;
    bal_batch b = {0};
    char note[256];
    bal_loss_values_zero(&v, &c);
    bool ok = CHECK_OK(bal_model_load(&m, base)) && CHECK_OK(load(&a, m, adapter, note)) &&
              CHECK_OK(bal_model_attach(m, a)) && run(m, BAL_STUDENT, student) && run(m, BAL_TEACHER, teacher) &&
              CHECK_OK(bal_pass_new(&p, m, &o)) && CHECK_OK(bal_lm_loss_new(&l, m, &c, TOKENS)) &&
              CHECK_OK(bal_batch_init(&b, TOKENS, 1));
    if (ok) {
        bal_batch_clear(&b);
        ok = CHECK_OK(bal_batch_add(&b, k_ids, k_ids, TOKENS));
        bal_batch_finish(&b, false);
    }
    if (ok && CHECK_OK(bal_pass_forward(p, &b, BAL_STUDENT)) && CHECK_OK(bal_pass_forward(p, &b, BAL_TEACHER)) &&
        CHECK_OK(bal_lm_loss_run(l, &b, bal_pass_final(p, BAL_STUDENT), bal_pass_final(p, BAL_TEACHER), b.n_rows,
                                 b.n_reg_rows, &w, &v, NULL, NULL))) {
        double want = divergence(student, teacher);
        CHECK_MSG(want > 0.05 && fabs(v.consistency - want) < 1e-4 * want, "%g, not %g", v.consistency, want);
    }
    bal_lm_loss_free(l);
    bal_pass_free(p);
    bal_batch_dispose(&b);
    bal_model_free(m);
    bal_adapter_free(a);
}

TEST(the_teachers_head)
{
    check_head(DATA "base", DATA "lora_save");
    check_head(DATA "gpt2", DATA "gpt2_tied");
    check_head(DATA "gpt2", DATA "gpt2_bias");
}

/* As peft: by the end of the path, of the module or of what it lies in. */
TEST(what_is_saved)
{
    static struct {
        char name[40];
        bool all;
        size_t n;
    } cases[] = {
        {"lm_head", false, 1},          {"norm", false, 5},          {"model.norm", false, 1}, {"mlp", false, 6},
        {"layers.0.mlp", false, 3},     {"k_proj", false, 4}, /* with its biases */
        {"layers.1", false, 7 + 4 + 2}, {"k_proj", true, 4 + 2 * 3}, {"lm", false, 1001},      {"layers", false, 1001}};
    bal_model *m = NULL;
    if (!CHECK_OK(bal_model_load(&m, DATA "base")))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_MSG(count_copies(m, cases[i].name, cases[i].all) == cases[i].n, "%s: %zu", cases[i].name,
                  count_copies(m, cases[i].name, cases[i].all));
    bal_model_free(m);
}

TEST(refused)
{
    char q[] = "q_proj", *targets[] = {q}, path[512];
    bal_model *m = NULL;
    bal_adapter *a = NULL;
    bal_adapter_config c = {.method = bal_method_named("loha"),
                            .r = 2,
                            .lora_alpha = 2,
                            .init = "lora",
                            .target_modules = targets,
                            .n_target_modules = 1,
                            .bias = BAL_BIAS_ALL};
    if (!CHECK_OK(bal_model_load(&m, DATA "base")))
        return;
    bal_adapter_config_defaults(&c);
    CHECK_STATUS(bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, false), BAL_EINVAL);
    m->modules[0].bias = NULL; /* a model without biases but for one is one with biases */
    c = (bal_adapter_config){.method = bal_method_named("bitfit"), .r = 1, .lora_alpha = 1, .init = "lora"};
    if (CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, false)))
        CHECK(a->n_sites == 0 && a->n_copies == 2 * 4 - 1);
    bal_adapter_free(a);
    for (size_t i = 0; i < m->n_modules; i++)
        m->modules[i].bias = NULL;
    CHECK_STATUS(bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, false), BAL_EINVAL);
    CHECK_MSG(strstr(bal_error_message(), "no biases") != NULL, "%s", bal_error_message());
    bal_model_free(m);
    if (!CHECK_OK(bal_model_load(&m, DATA "base")))
        return;
    a = fresh(m, "lora", "lora", q, adapted_biases);
    (void)snprintf(path, sizeof path, "%s/a.gguf", test_folder());
    if (a != NULL)
        CHECK_STATUS(bal_adapter_save_gguf(a, m, path, BAL_QUANT_F32), BAL_EUNSUPPORTED);
    CHECK_MSG(strstr(bal_error_message(), "q_proj.bias") != NULL, "%s", bal_error_message());
    bal_adapter_free(a);
    bal_model_free(m);
}
