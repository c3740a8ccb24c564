/* lib/io/options: precedence, names, ranges.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/options.h"

#include <string.h>

typedef struct config {
    int64_t r;
    double lr;
    bool merge;
    const char *method, *data;
    bal_text_list targets;
} config;

static const bal_option k_options[] = {
    {"r", 'r', BAL_OPTION_INT, offsetof(config, r), "8", 1, 65536, NULL, NULL, "Adapter", "rank"},
    {"lr", 0, BAL_OPTION_REAL, offsetof(config, lr), "1e-3", 0, 1, NULL, "learning_rate", "Optimiser", "learning rate"},
    {"merge", 0, BAL_OPTION_FLAG, offsetof(config, merge), "true", 0, 0, NULL, NULL, "Adapter", "merge"},
    {"method", 0, BAL_OPTION_CHOICE, offsetof(config, method), "lora", 0, 0, "lora|pissa|ba-lora-nlg", NULL, "Adapter", "method"},
    {"data", 0, BAL_OPTION_PATH, offsetof(config, data), NULL, 0, 0, NULL, NULL, "Data", "file"},
    {"target_modules", 0, BAL_OPTION_LIST, offsetof(config, targets), "q_proj,v_proj", 0, 0, NULL, NULL, "Adapter", "modules"},
};
static const bal_preset k_presets[] = {{"big", "{\"r\": 128, \"lr\": 2e-5}"}};
static const bal_command k_command = {.name = "t", .usage = "", .summary = "s", .options = k_options, .n_options = 6,
                                      .presets = k_presets, .n_presets = 1, .max_positional = 1};

static bal_status parse(bal_options **o, config *c, const char *a, const char *b, const char *d)
{
    char words[5][128] = {"t"};
    char *argv[5] = {words[0]};
    const char *in[] = {a, b, d};
    int argc = 1;
    bool help = false;
    *c = (config){0};
    for (size_t i = 0; i < 3; i++)
        if (in[i] != NULL) {
            (void)snprintf(words[argc], sizeof words[0], "%s", in[i]);
            argv[argc] = words[argc];
            argc++;
        }
    return bal_options_parse(o, &k_command, argc, argv, c, &help);
}

TEST(defaults_preset_recipe_flags)
{
    static const char recipe[] =
        "{// a comment\n\"lr\": 0.5, \"data\": \"x.jsonl\", \"target_modules\": [\"k_proj\"],}";
    char *path = bal_path_join(test_folder(), "recipe.json");
    char flag[128];
    bal_options *o;
    config c;
    CHECK_OK(parse(&o, &c, NULL, NULL, NULL));
    CHECK(c.r == 8 && c.merge && c.targets.n == 2);
    CHECK_TEXT(c.targets.items[1], "v_proj");
    CHECK(!bal_options_given(o, "r"));
    bal_options_free(o);
    CHECK_OK(bal_file_replace(path, recipe, sizeof recipe - 1));
    (void)snprintf(flag, sizeof flag, "--config=%s", path);
    CHECK_OK(parse(&o, &c, flag, "--preset=big", "--no-merge"));
    CHECK(c.r == 128 && c.lr == 0.5 && !c.merge && c.targets.n == 1);
    CHECK(c.data != NULL && bal_ends_with(c.data, "/x.jsonl") && c.data[0] == '/');
    CHECK(bal_options_given(o, "learning-rate"));
    CHECK(strstr(bal_options_json(o), "\"target_modules\": [\"k_proj\"]") != NULL);
    bal_options_free(o);
    bal_free(path);
}

TEST(errors_name_the_option)
{
    static const struct {
        const char *a, *b, *message;
    } cases[] = {
        {"--method=pisa", NULL, "method: 'pisa' is none of lora|pissa|ba-lora-nlg"},
        {"--r", "0", "r: 0 is outside 1 .. 65536"},
        {"--r", "4x", "r: '4x' is not a whole number"},
        {"--lr", "nan", "lr: nan is outside 0 .. 1"},
        {"--target-module", "x", "unknown option 'target-module'; did you mean 'target_modules'?"},
        {"--r", NULL, "option '--r' needs a value"},
        {"--preset", "bog", "unknown preset 'bog'; did you mean 'big'"},
        {"a", "b", "'b' is one word too many"},
    };
    bal_options *o;
    config c;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_STATUS(parse(&o, &c, cases[i].a, cases[i].b, NULL), BAL_EINVAL);
        CHECK_TEXT(bal_error_message(), cases[i].message);
        bal_options_free(o);
    }
    CHECK_STATUS(parse(&o, &c, "--r=1", "--r=2", NULL), BAL_EINVAL);
    bal_options_free(o);
    CHECK_OK(parse(&o, &c, "--target-modules=a", "--target_modules=b,c", "word"));
    size_t n = 0;
    CHECK(c.targets.n == 3);
    CHECK_TEXT(bal_options_positional(o, &n)[0], "word");
    bal_options_free(o);
}
