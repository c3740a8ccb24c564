/* adapter_config.json key by key: what peft's class of a method has not is dropped as peft does, what peft would refuse is
 * not written, what would change nothing is refused.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/modules.h"

#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"

#include <stdio.h>
#include <string.h>

static char g_q[] = "q_proj", g_down[] = "down_proj", g_full[] = "model.layers.0.self_attn.q_proj",
            g_e[] = "embed_tokens";

static bal_adapter_config config_for(const char *method, char **targets, size_t n)
{
    bal_adapter_config c = config_of(targets, n, "lora");
    c.method = bal_method_named(method);
    bal_adapter_config_defaults(&c);
    make_modules();
    return c;
}

/* A new adapter of the configuration, saved in a folder; the caller's to free. */
static char *saved(const bal_adapter_config *c)
{
    bal_adapter *a = NULL;
    char *dir = bal_path_join(test_folder(), "keys");
    if (CHECK_OK(bal_adapter_new(&a, c, g_modules, 3, 1, true)))
        CHECK_OK(bal_adapter_save(a, dir));
    bal_adapter_free(a);
    return dir;
}

static bool config_has(const char *dir, const char *text)
{
    bal_buf b = {0};
    char *path = bal_path_join(dir, "adapter_config.json");
    bool there = bal_file_read(path, 100000, &b) == BAL_OK && strstr(bal_buf_cstr(&b), text) != NULL;
    if (!there)
        (void)fprintf(stderr, "no %s in:\n%s\n", text, bal_buf_cstr(&b));
    bal_buf_dispose(&b);
    bal_free(path);
    return there;
}

/* The folder with another configuration; NULL: refused, with the message in bal_error_message(). */
static bal_adapter *read_with(const char *dir, const char *json)
{
    bal_adapter *a = NULL;
    char *path = bal_path_join(dir, "adapter_config.json");
    CHECK_OK(bal_file_replace(path, json, strlen(json)));
    (void)bal_adapter_load(&a, dir, NULL, g_modules, 3, false, NULL, 0);
    bal_free(path);
    return a;
}

TEST(keys_that_a_method_has_not_are_dropped)
{
    char *q[] = {g_q};
    bal_adapter_config c = config_for("vera", q, 1);
    char *dir = saved(&c);
    bal_adapter *a =
        read_with(dir, "{\"peft_type\":\"VERA\",\"r\":3,\"target_modules\":[\"q_proj\"],\"use_rslora\":true,"
                       "\"rank_pattern\":{\"q_proj\":50},\"exclude_modules\":[\"q_proj\"]}");
    if (CHECK_MSG(a != NULL, "%s", bal_error_message())) /* r of a site above the shared matrices' would leave them */
        CHECK(a->n_sites == 1 && a->sites[0].r == 3 && a->config.n_rank_pattern == 0);
    bal_adapter_free(a);
    bal_free(dir);

    c = config_for("loha", q, 1);
    c.r = 4;
    dir = saved(&c);
    a = read_with(dir,
                  "{\"peft_type\":\"LOHA\",\"r\":4,\"alpha\":6,\"target_modules\":[\"q_proj\"],\"use_rslora\":true}");
    if (CHECK_MSG(a != NULL, "%s", bal_error_message()))
        CHECK_NEAR(a->sites[0].scale, 1.5, 0);
    bal_adapter_free(a);
    bal_free(dir);

    c = config_for("ia3", q, 1);
    dir = saved(&c);
    a = read_with(dir, "{\"peft_type\":\"IA3\",\"target_modules\":[\"q_proj\"],\"feedforward_modules\":[],"
                       "\"layers_to_transform\":[3],\"ensure_weight_tying\":true}");
    if (CHECK_MSG(a != NULL, "%s", bal_error_message()))
        CHECK(a->n_sites == 1 && a->config.n_layers_to_transform == 0 && !a->config.ensure_weight_tying);
    bal_adapter_free(a);
    bal_free(dir);
}

/* Which tensors a module has depends on its own rank. */
TEST(ranks_of_lokr)
{
    char *both[] = {g_q, g_down};
    bal_pattern_value rank = {g_q, 1};
    bal_adapter_config c = config_for("lokr", both, 2);
    bal_adapter *a = NULL;
    c.r = 5;
    c.rank_pattern = &rank;
    c.n_rank_pattern = 1;
    char *dir = saved(&c);
    if (CHECK_OK(bal_adapter_load(&a, dir, NULL, g_modules, 3, false, NULL, 0)))
        CHECK(a->sites[0].n_tensors == 3 && a->sites[1].n_tensors == 2);
    bal_adapter_free(a);
    bal_free(dir);
}

/* peft wants a whole number, and 3.1e+09 is none in Python. */
TEST(seeds_are_whole_numbers)
{
    char *q[] = {g_q};
    bal_adapter_config c = config_for("vera", q, 1);
    c.keys[1].number = 3123456700;
    char *dir = saved(&c);
    CHECK(config_has(dir, "\"projection_prng_key\": 3123456700,"));
    bal_free(dir);
}

TEST(an_absent_rank_is_the_methods_own)
{
    char *q[] = {g_q};
    bal_adapter_config c = config_for("vera", q, 1);
    c.r = 256;
    char *dir = saved(&c);
    bal_adapter *a = read_with(dir, "{\"peft_type\":\"VERA\",\"target_modules\":[\"q_proj\"]}");
    CHECK_MSG(a != NULL && a->config.r == 256, "%s", bal_error_message());
    bal_adapter_free(a);
    bal_free(dir);
}

/* peft: "feedforward_modules should be a subset of target_modules", and null means its own choice. */
TEST(feedforward_modules_are_among_the_targets)
{
    char *both[] = {g_q, g_down}, *full[] = {g_full};
    bal_adapter_config c = config_for("ia3", both, 2);
    bal_key_value *f = &c.keys[0];
    char *down[] = {g_down}, mlp[] = "mlp.down_proj", *path[] = {mlp};
    f->list = down;
    f->n_list = 1;
    char *dir = saved(&c);
    CHECK(config_has(dir, "\"feedforward_modules\": [\n    \"down_proj\"\n  ]"));
    CHECK(config_has(dir, "\"target_modules\": [\n    \"down_proj\",\n    \"q_proj\"\n  ]"));
    bal_free(dir);
    f->list = path;
    dir = saved(&c);
    CHECK(config_has(dir, "\"feedforward_modules\": [\n    \"model.layers.0.mlp.down_proj\"\n  ]"));
    CHECK(config_has(dir, "\"target_modules\": [\n    \"model.layers.0.mlp.down_proj\",\n    "
                          "\"model.layers.0.self_attn.q_proj\"\n  ]"));
    bal_free(dir);
    c.target_modules = full; /* of which none is a feed-forward module */
    c.n_target_modules = 1;
    dir = saved(&c);
    CHECK(config_has(dir, "\"feedforward_modules\": []"));
    bal_free(dir);
    f->list = NULL;
    f->n_list = 0;
    dir = saved(&c);
    CHECK(config_has(dir, "\"feedforward_modules\": []"));
    bal_free(dir);
}

static void refused(const bal_adapter_config *c, const char *key)
{
    bal_adapter *a = NULL;
    CHECK_STATUS(bal_adapter_new(&a, c, g_modules, 3, 1, true), BAL_EINVAL);
    CHECK_MSG(strstr(bal_error_message(), key) != NULL, "%s", bal_error_message());
    bal_adapter_free(a);
}

/* peft refuses such files, too. */
TEST(layers_that_would_be_ignored_are_refused)
{
    char *q[] = {g_q}, layers[] = "layers", *pattern[] = {layers}, expression[] = ".*q_proj";
    size_t zero[] = {0};
    bal_adapter_config c = config_for("lora", q, 1);
    c.layers_pattern = pattern;
    c.n_layers_pattern = 1;
    refused(&c, "layers_pattern");
    c = config_for("lora", NULL, 0);
    c.target_pattern = expression;
    c.layers_to_transform = zero;
    c.n_layers_to_transform = 1;
    refused(&c, "layers_to_transform");
}

TEST(lora_bias_is_read_by_peft_with_init_true_alone)
{
    char *q[] = {g_q};
    bal_adapter_config c = config_for("lora", q, 1);
    (void)snprintf(c.init, sizeof c.init, "gaussian");
    char *dir = saved(&c);
    CHECK(config_has(dir, "\"init_lora_weights\": \"gaussian\""));
    bal_free(dir);
    c.keys[0].number = 1;
    dir = saved(&c);
    CHECK(config_has(dir, "\"init_lora_weights\": true") && config_has(dir, "\"lora_bias\": true"));
    bal_free(dir);
}

TEST(lora_bias_is_not_for_embeddings)
{
    char *e[] = {g_e};
    bal_adapter_config c = config_for("lora", e, 1);
    g_modules[1] = (bal_module){.name = "model.embed_tokens", .w = &g_views[2], .kind = BAL_MODULE_EMBEDDING};
    c.keys[0].number = 1;
    refused(&c, "lora_bias");
}

/* peft says nothing of a pattern's key that no adapted module has; we say it and go on. */
TEST(keys_of_patterns_without_a_module)
{
    char *q[] = {g_q}, note[256];
    bal_adapter_config c = config_for("lora", q, 1);
    char *dir = saved(&c), *path = bal_path_join(dir, "adapter_config.json");
    static const char json[] = "{\"peft_type\":\"LORA\",\"r\":3,\"target_modules\":[\"q_proj\"],\"rank_pattern\":"
                               "{\"other\":7}}";
    bal_adapter *a = NULL;
    CHECK_OK(bal_file_replace(path, json, sizeof json - 1));
    CHECK_OK(bal_adapter_load(&a, dir, NULL, g_modules, 3, false, note, sizeof note));
    CHECK(strstr(note, "rank_pattern names 'other'") != NULL);
    bal_adapter_free(a);
    bal_free(path);
    bal_free(dir);
}

/* The base weight that peft puts beside an adapted head: the model's, or the adapter is of another base. */
static bal_status load_beside(real_t change, size_t rows)
{
    char *head[] = {(char[]){"lm_head"}};
    static real_t w[21 * IN0];
    bal_adapter_config c = config_for("lora", head, 1);
    bal_adapter *a = NULL, *back = NULL;
    bal_safetensors_writer *out = NULL;
    const size_t shape[2] = {rows, IN0}, shape_a[2] = {3, IN0}, shape_b[2] = {20, 3};
    for (size_t i = 0; i < 20 * IN0; i++)
        g_head[i] = (real_t)(i % 13) - 5;
    memcpy(w, g_head, sizeof g_head);
    w[17] += change;
    char *dir = saved(&c), *path = bal_path_join(dir, "adapter_model.safetensors");
    CHECK_OK(bal_adapter_new(&a, &c, g_modules, 3, 1, false));
    CHECK_OK(bal_safetensors_writer_new(&out));
    CHECK_OK(bal_safetensors_writer_add_real(out, "base_model.model.lm_head.base_layer.weight", 2, shape, w));
    CHECK_OK(bal_safetensors_writer_add_real(out, "base_model.model.lm_head.lora_A.weight", 2, shape_a, a->loras[0].a));
    CHECK_OK(bal_safetensors_writer_add_real(out, "base_model.model.lm_head.lora_B.weight", 2, shape_b, a->loras[0].b));
    CHECK_OK(bal_safetensors_writer_commit(out, path));
    bal_status status = bal_adapter_load(&back, dir, NULL, g_modules, 3, false, NULL, 0);
    bal_safetensors_writer_free(out);
    bal_adapter_free(a);
    bal_adapter_free(back);
    bal_free(path);
    bal_free(dir);
    return status;
}

TEST(base_weights_beside_an_adapter)
{
    CHECK_OK(load_beside(0, 20));
    CHECK_OK(load_beside(REAL(0.01), 20)); /* as another type rounds */
    CHECK_STATUS(load_beside(20, 20), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "another base") != NULL);
    CHECK_STATUS(load_beside(0, 21), BAL_EFORMAT);
}

/* peft's adapter of a tied pair is the same factors on both: read it is two adapters; it is not trained. */
TEST(tied_adapters_are_read)
{
    char *e[] = {g_e, (char[]){"lm_head"}};
    bal_adapter_config c = config_for("lora", e, 2);
    bal_adapter *a = NULL;
    g_modules[1] = (bal_module){.name = "model.embed_tokens", .w = &g_views[2], .kind = BAL_MODULE_EMBEDDING};
    g_modules[2].is_head = true;
    char *dir = saved(&c);
    static const char json[] = "{\"peft_type\":\"LORA\",\"r\":3,\"target_modules\":[\"model.embed_tokens\"],"
                               "\"ensure_weight_tying\":true}";
    a = read_with(dir, json);
    CHECK_MSG(a != NULL && a->n_sites == 2, "%s", bal_error_message());
    bal_adapter_free(a);
    a = NULL;
    CHECK_STATUS(bal_adapter_load(&a, dir, NULL, g_modules, 3, true, NULL, 0), BAL_EUNSUPPORTED);
    CHECK(strstr(bal_error_message(), "ensure_weight_tying") != NULL);
    c.ensure_weight_tying = true;
    CHECK_STATUS(bal_adapter_new(&a, &c, g_modules, 3, 1, true), BAL_EUNSUPPORTED);
    bal_free(dir);
}
