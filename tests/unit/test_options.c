/* Options: sources and their precedence, messages, lists, the resolved document.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/options.h"

#include <stdlib.h>
#include <string.h>

typedef struct settings {
    bool bias, fast;
    int64_t r, big;
    double lr;
    const char *method, *model, *note;
    bal_text_list modules, folders;
} settings;

#define AT(f) offsetof(settings, f)
static const bal_option options[] = {
    {"r", 'r', BAL_OPTION_INT, AT(r), "8", 1, 65536, NULL, "lora_r", "Adapter", "rank"},
    {"big_number", 0, BAL_OPTION_INT, AT(big), NULL, 0, 0, NULL, NULL, "Adapter", "any whole number"},
    {"lr", 0, BAL_OPTION_REAL, AT(lr), "2e-5", 0, 10, NULL, "learning_rate", "Optimiser", "step size"},
    {"method", 0, BAL_OPTION_CHOICE, AT(method), "lora", 0, 0, "lora|pissa|ba-lora-nlg", NULL, "Adapter", "which"},
    {"model", 0, BAL_OPTION_PATH, AT(model), NULL, 0, 0, NULL, NULL, "Files", "folder"},
    {"note", 0, BAL_OPTION_TEXT, AT(note), NULL, 0, 0, NULL, NULL, "Files", "free text"},
    {"target_modules", 0, BAL_OPTION_LIST, AT(modules), "q_proj,v_proj", 0, 0, NULL, NULL, "Adapter", "names"},
    {"use_bias", 'b', BAL_OPTION_FLAG, AT(bias), NULL, 0, 0, NULL, NULL, "Adapter", "switch"},
    {"folders", 0, BAL_OPTION_PATHS, AT(folders), NULL, 0, 0, NULL, NULL, "Files", "folders"},
    {"fast", 'f', BAL_OPTION_FLAG, AT(fast), "true", 0, 0, NULL, NULL, "Adapter", "switch"},
};
static const bal_preset presets[] = {
    {"small", "{\"r\": 2, \"lr\": 0.5, \"target_modules\": [\"o_proj\"]}"},
    {"pissa", "{\"method\": \"pissa\", \"r\": 4}"},
};
static const bal_command command = {"train", "[options]", "Trains.", NULL, options, sizeof options / sizeof options[0],
                                    presets, 2,           1};

/* Splits at '|' (values may hold blanks) and parses. */
static bal_status parse(const char *line, settings *s, bal_options **o)
{
    static char text[1024];
    char *argv[40];
    int argc = 0;
    bool help = false;
    (void)snprintf(text, sizeof text, "train|%s", line);
    for (char *p = text; p != NULL && *p != '\0' && argc < 40;) {
        argv[argc++] = p;
        p = strchr(p, '|');
        if (p != NULL)
            *p++ = '\0';
    }
    *s = (settings){0};
    return bal_options_parse(o, &command, argc, argv, s, &help);
}

static void expect_error(const char *line, const char *message)
{
    settings s;
    bal_options *o = NULL;
    bal_status status = parse(line, &s, &o);
    if (CHECK_MSG(status == BAL_EINVAL, "'%s' gave status %d", line, (int)status))
        CHECK_TEXT(bal_error_message(), message);
    bal_options_free(o);
}

static const char *write_recipe(const char *text)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/recipe.json", test_folder());
    CHECK_OK(bal_file_replace(path, text, strlen(text)));
    return path;
}

static bal_status parse_recipe(const char *recipe, const char *rest, settings *s, bal_options **o)
{
    char line[600];
    (void)snprintf(line, sizeof line, "--config|%s|%s", write_recipe(recipe), rest);
    return parse(line, s, o);
}

TEST(defaults_are_live)
{
    settings s;
    bal_options *o = NULL;
    if (!CHECK_OK(parse("", &s, &o)))
        return;
    CHECK(s.r == 8 && s.lr == 2e-5 && s.big == 0 && s.model == NULL && !s.bias && s.fast);
    CHECK_TEXT(s.method, "lora");
    CHECK(s.modules.n == 2 && strcmp(s.modules.items[1], "v_proj") == 0);
    CHECK(!bal_options_given(o, "r"));
    bal_options_free(o);
}

TEST(flags_in_every_spelling)
{
    settings s;
    bal_options *o = NULL;
    size_t n;
    if (!CHECK_OK(parse("--lora_r=16|--learning-rate|1e-3|-b|--no-fast|word|--note=a b|--big-number|-5", &s, &o)))
        return;
    CHECK(s.r == 16 && s.lr == 1e-3 && s.bias && !s.fast && s.big == -5);
    CHECK_TEXT(s.note, "a b");
    const char *const *words = bal_options_positional(o, &n);
    CHECK(n == 1 && strcmp(words[0], "word") == 0);
    CHECK(bal_options_given(o, "lora-r") && !bal_options_given(o, "method"));
    bal_options_free(o);
    if (CHECK_OK(parse("-r3|-bf|--|--lr", &s, &o)))
        CHECK(s.r == 3 && s.bias && s.fast);
    bal_options_free(o);
}

TEST(lists_replace_and_grow)
{
    settings s;
    bal_options *o = NULL;
    if (CHECK_OK(parse("--target-modules|a,b|--target-modules=c", &s, &o)))
        CHECK(s.modules.n == 3 && strcmp(s.modules.items[0], "a") == 0 && strcmp(s.modules.items[2], "c") == 0);
    bal_options_free(o);
    if (CHECK_OK(parse_recipe("{\"target_modules\": [\"x,y\", 3]}", "", &s, &o)))
        CHECK(s.modules.n == 2 && strcmp(s.modules.items[0], "x,y") == 0 && strcmp(s.modules.items[1], "3") == 0);
    bal_options_free(o);
}

TEST(lists_of_paths)
{
    settings s;
    bal_options *o = NULL;
    char path[300];
    (void)snprintf(path, sizeof path, "%s/x", test_folder());
    if (CHECK_OK(parse("--folders|a,b|--folders|c", &s, &o)))
        CHECK(s.folders.n == 2 && strcmp(s.folders.items[0], "a,b") == 0); /* a name may hold a comma */
    bal_options_free(o);
    if (CHECK_OK(parse_recipe("{\"folders\": [\"x\", \"/y\"]}", "", &s, &o)) && CHECK(s.folders.n == 2)) {
        CHECK_TEXT(s.folders.items[0], path); /* relative to the recipe */
        CHECK_TEXT(s.folders.items[1], "/y");
        CHECK(strstr(bal_options_json(o), "\"/y\"]") != NULL);
    }
    bal_options_free(o);
    if (CHECK_OK(parse_recipe("{\"folders\": \"x\"}", "", &s, &o)) && CHECK(s.folders.n == 1))
        CHECK_TEXT(s.folders.items[0], path);
    bal_options_free(o);
}

TEST(precedence)
{
    settings s;
    bal_options *o = NULL;
    const char *recipe = "{ // comment\n \"preset\": \"small\", \"lr\": 0.25, \"model\": \"base/deep/m\",\n # other\n}";
    if (CHECK_OK(parse_recipe(recipe, "", &s, &o))) {
        char path[300];
        (void)snprintf(path, sizeof path, "%s/base/deep/m", test_folder());
        CHECK(s.r == 2 && s.lr == 0.25 && s.modules.n == 1);
        CHECK_TEXT(s.model, path); /* relative to the recipe */
    }
    bal_options_free(o);
    if (CHECK_OK(parse_recipe(recipe, "--lr|1|--preset|pissa", &s, &o))) {
        CHECK(s.r == 4 && s.lr == 1 && s.modules.n == 2);
        CHECK_TEXT(s.method, "pissa");
    }
    bal_options_free(o);
    if (CHECK_OK(parse_recipe("{\"preset\": \"small\", \"r\": null, \"note\": null}", "", &s, &o)))
        CHECK(s.r == 8 && s.note == NULL && !bal_options_given(o, "r"));
    bal_options_free(o);
}

TEST(messages_name_the_value_and_the_cure)
{
    expect_error("--r|0", "--r: 0 is outside 1 .. 65536");
    expect_error("--r=4x", "--r: '4x' is not a whole number");
    expect_error("--lr|nan", "--lr: 'nan' is not a number");
    expect_error("--lr|-1e-9", "--lr: -1e-09 is outside 0 .. 10");
    expect_error("--lr=1|--learning_rate=2", "--lr is given twice");
    expect_error("--fast|--no-fast", "--fast is given twice");
    expect_error("--metod|x", "unknown option '--metod'; did you mean '--method'?");
    expect_error("--target-module|x", "unknown option '--target-module'; did you mean '--target-modules'?");
    expect_error("--zzzzzzzzzz", "unknown option '--zzzzzzzzzz'");
    expect_error("-z", "unknown option '-z'");
    expect_error("--model", "--model needs a value");
    expect_error("--model|--r|2", "--model needs a value");
    expect_error("--no-r", "--no-r cannot be used: --r takes a value, it is no switch");
    expect_error("--method|dora", "--method: 'dora' is not one of lora|pissa|ba-lora-nlg");
    expect_error("a|b", "one word too many: 'b' (at most 1 are taken)");
    expect_error("--preset|smal", "no preset 'smal'; did you mean 'small'? (--help lists them)");
    expect_error("--fast=maybe", "--fast: 'maybe' is neither true nor false");
    expect_error("--threads|-1", "--threads: -1 is outside 0 .. 1024");
}

TEST(recipe_errors)
{
    static const struct {
        const char *recipe, *message;
    } cases[] = {
        {"{\"metod\": \"x\"}", "unknown option 'metod'; did you mean 'method'?"},
        {"{\"r\": 1.5}", "r: 1.5 is not a whole number of at most 2^53"},
        {"{\"r\": 0}", "r: 0 is outside 1 .. 65536"},
        {"{\"lr\": \"fast\"}", "lr: a number is needed, not a text"},
        {"{\"fast\": 1}", "fast: true or false is needed, not a number"},
        {"{\"lr\": 1, \"learning-rate\": 2}", "option 'lr' is set twice"},
        {"{\"config\": \"x\"}", "key 'config' cannot stand in a recipe"},
        {"[1]", "a recipe is one JSON object of option names and values"},
        {"{\"lr\": }", "not valid JSON at column 8"},
        {"{\"r\": 1, \"r\": 2}", "key 'r' occurs twice in one JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        settings s;
        bal_options *o = NULL;
        CHECK_STATUS(parse_recipe(cases[i].recipe, "", &s, &o), BAL_EINVAL);
        const char *message = bal_error_message();
        CHECK(strncmp(message, test_folder(), strlen(test_folder())) == 0);
        CHECK_MSG(bal_ends_with(message, cases[i].message), "'%s' does not end with '%s'", message, cases[i].message);
    }
    settings s;
    bal_options *o = NULL;
    CHECK_STATUS(parse("--config|/nonexistent/recipe.json", &s, &o), BAL_ENOENT);
}

TEST(resolved_document_is_a_recipe)
{
    settings s, t;
    bal_options *o = NULL, *p = NULL;
    cJSON *json = NULL;
    if (!CHECK_OK(parse("--preset|pissa|--lr|0.1|--note|say \"x\"|--target-modules|k", &s, &o)))
        return;
    const char *text = bal_options_json(o);
    CHECK_OK(bal_json_parse(&json, text, strlen(text), "resolved"));
    CHECK(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json, "model")));
    CHECK_NEAR(cJSON_GetObjectItemCaseSensitive(json, "lr")->valuedouble, 0.1, 0);
    if (CHECK_OK(parse_recipe(text, "", &t, &p))) {
        CHECK(t.r == 4 && t.lr == 0.1 && t.modules.n == 1);
        CHECK_TEXT(t.note, "say \"x\"");
        CHECK_TEXT(bal_options_json(p), bal_options_json(o));
    }
    cJSON_Delete(json);
    bal_options_free(o);
    bal_options_free(p);
}

TEST(database_from_environment)
{
    settings s;
    bal_options *o = NULL;
    CHECK(setenv("BALORA_DB", "/tmp/of-environment.db", 1) == 0);
    if (CHECK_OK(parse("", &s, &o)))
        CHECK_TEXT(bal_options_common(o)->db, "/tmp/of-environment.db");
    bal_options_free(o);
    if (CHECK_OK(parse("--db|mine.db|-q", &s, &o))) {
        CHECK_TEXT(bal_options_common(o)->db, "mine.db");
        CHECK(bal_options_common(o)->quiet && !bal_options_common(o)->progress);
    }
    bal_options_free(o);
    CHECK(unsetenv("BALORA_DB") == 0);
    if (CHECK_OK(parse("", &s, &o)))
        CHECK_TEXT(bal_options_common(o)->db, "runs.db");
    bal_options_free(o);
}

TEST(each_allocation_may_fail)
{
    settings s;
    bal_options *o = NULL;
    uint64_t before = bal_mem_bytes();
    const char *recipe = "{\"r\": 5, \"model\": \"m\", \"target_modules\": [\"a\", \"b\"]}";
    (void)write_recipe(recipe);
    for (uint64_t n = 1; n < 500; n++) {
        char line[400];
        (void)snprintf(line, sizeof line, "--config|%s/recipe.json|--preset|small|--note|x", test_folder());
        bal_mem_fail_nth(n);
        bal_status status = parse(line, &s, &o);
        bal_mem_fail_nth(0);
        if (status == BAL_OK) {
            bal_options_free(o);
            CHECK(n > 10);
            break;
        }
        CHECK_STATUS(status, BAL_ENOMEM);
        CHECK(o == NULL);
        CHECK_MSG(bal_mem_bytes() == before, "allocation %d leaks", (int)n);
    }
    CHECK(bal_mem_bytes() == before);
}
