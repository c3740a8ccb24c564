/* Which modules an adapter is on, with which rank and alpha: against what peft does with the same keys.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/select.h"
#include "lib/base/mem.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

static const char *const k_names[] = {"model.layers.0.self_attn.q_proj",  "model.layers.0.mlp.up_proj",
                                      "model.layers.1.self_attn.q_proj",  "model.layers.1.mlp.up_proj",
                                      "model.layers.11.self_attn.q_proj", "lm_head"};
enum { N = sizeof k_names / sizeof *k_names };

/* One letter a module: '+' adapted, '-' not. */
static void picks(const bal_adapter_config *c, const char *want)
{
    static const real_t values[4];
    const bal_view w = {.dtype = BAL_DTYPE_F32, .rows = 2, .cols = 2, .row_bytes = 2 * sizeof *values, .data = values};
    bal_selector *s = NULL;
    char got[N + 1] = "";
    if (!CHECK_OK(bal_selector_new(&s, c)))
        return;
    for (size_t i = 0; i < N; i++) {
        const bal_module m = {.name = k_names[i], .w = &w, .is_head = i == N - 1};
        got[i] = bal_selector_targets(s, &m) ? '+' : '-';
    }
    CHECK_MSG(strcmp(got, want) == 0, "%s instead of %s", got, want);
    bal_selector_free(s);
}

TEST(names_and_expressions)
{
    char q[] = "q_proj", exact[] = "model.layers.1.mlp.up_proj", part[] = "proj", all[] = "all-linear",
         head[] = "lm_head";
    char *list[] = {q, exact}, *partial[] = {part}, *everything[] = {all}, *outer[] = {head};
    char pattern[] = ".*\\.[01]\\..*(q|up)_proj", short_pattern[] = "q_proj", anchored[] = "^model.layers.1.*q_proj$";
    picks(&(bal_adapter_config){.target_modules = list, .n_target_modules = 2}, "+-+++-");
    picks(&(bal_adapter_config){.target_modules = partial, .n_target_modules = 1}, "------");
    picks(&(bal_adapter_config){.target_modules = everything, .n_target_modules = 1}, "+++++-");
    picks(&(bal_adapter_config){.target_modules = outer, .n_target_modules = 1}, "-----+");
    picks(&(bal_adapter_config){.target_pattern = pattern}, "++++--");
    picks(&(bal_adapter_config){.target_pattern = short_pattern}, "------"); /* the whole path must match */
    picks(&(bal_adapter_config){.target_pattern = anchored}, "--+-+-");
}

/* A pattern may hold the whole path to the list; the first number counts, as peft. */
TEST(layers_patterns)
{
    char q[] = "q_proj", whole[] = "model.layers";
    char *list[] = {q}, *path[] = {whole};
    size_t one[] = {1};
    bal_adapter_config c = {.target_modules = list,
                            .n_target_modules = 1,
                            .layers_to_transform = one,
                            .n_layers_to_transform = 1,
                            .layers_pattern = path,
                            .n_layers_pattern = 1};
    picks(&c, "--+---");
}

TEST(excluded_and_layers)
{
    char all[] = "all-linear", q[] = "q_proj", up[] = "model.layers.1.mlp.up_proj", other[] = "blocks",
         here[] = "layers";
    char *everything[] = {all}, *no[] = {q}, *exact[] = {up, q}, *blocks[] = {other}, *layers[] = {here};
    char pattern[] = ".*layers\\.1\\..*";
    size_t one[] = {1}, two[] = {0, 11};
    bal_adapter_config c = {.target_modules = everything, .n_target_modules = 1};
    c.exclude_modules = no;
    c.n_exclude_modules = 1;
    picks(&c, "-+-+--");
    c.n_exclude_modules = 0;
    c.exclude_pattern = pattern;
    picks(&c, "++--+-");
    c.exclude_pattern = NULL;
    c.layers_to_transform = one;
    c.n_layers_to_transform = 1;
    picks(&c, "--++--");
    c.layers_to_transform = two;
    c.n_layers_to_transform = 2;
    picks(&c, "++--+-");
    c.layers_pattern = layers;
    c.n_layers_pattern = 1;
    picks(&c, "++--+-");
    c.layers_pattern = blocks;
    picks(&c, "------");
    c.layers_pattern = layers;
    c.target_modules = exact; /* a whole path counts whatever the layer, as in peft */
    c.n_target_modules = 2;
    picks(&c, "+--++-");
}

TEST(ranks_and_alphas)
{
    char all[] = "all-linear", q[] = "q_proj", layer[] = ".*1.self_attn.q_proj",
         start[] = "^model.layers.0.mlp.up_proj", end[] = "roj";
    char *everything[] = {all};
    bal_pattern_value ranks[] = {{layer, 2}, {q, 6}, {start, 3}, {end, 9}}, alphas[] = {{q, 20}};
    const bal_adapter_config c = {.r = 4,
                                  .lora_alpha = 8,
                                  .target_modules = everything,
                                  .n_target_modules = 1,
                                  .rank_pattern = ranks,
                                  .n_rank_pattern = 4,
                                  .alpha_pattern = alphas,
                                  .n_alpha_pattern = 1};
    static const size_t want[N] = {6, 3, 2, 4, 2, 4};
    bal_selector *s = NULL;
    if (!CHECK_OK(bal_selector_new(&s, &c)))
        return;
    for (size_t i = 0; i < N; i++) {
        CHECK_MSG(bal_selector_rank(s, k_names[i]) == want[i], "%s: rank %zu", k_names[i],
                  bal_selector_rank(s, k_names[i]));
        CHECK(bal_selector_alpha(s, k_names[i]) == (strstr(k_names[i], "q_proj") != NULL ? 20 : 8));
    }
    bal_selector_free(s);
}

TEST(no_expression)
{
    char bad[] = "q_(proj";
    const bal_adapter_config c = {.target_pattern = bad};
    bal_selector *s = NULL;
    CHECK_STATUS(bal_selector_new(&s, &c), BAL_EINVAL);
    CHECK(s == NULL && strstr(bal_error_message(), "target_modules") != NULL);
    CHECK(bal_targets_is_pattern(".*q_proj") && !bal_targets_is_pattern("layers.1.q_proj"));
}
