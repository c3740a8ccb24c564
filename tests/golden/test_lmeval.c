/* Likelihood tasks through the program against lm-evaluation-harness on the same model and items: contexts,
 * continuations, log-likelihoods, predictions.  A few items of each; BALORA_SLOW=1: all.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH_BYTES = 1024, MAX_WORDS = 40 };

static char *own_path(const char *name, char path[PATH_BYTES])
{
    (void)snprintf(path, PATH_BYTES, "%s/%s", test_folder(), name);
    return path;
}

/* balora evaluate WORDS, its output thrown away. */
static bool evaluate(const char *const *words, size_t n)
{
    static char program[PATH_BYTES];
    const char *all[MAX_WORDS] = {program, "evaluate"};
    char *const *args = NULL;
    int status = 0;
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 16);
    char *tests = length <= 0 ? NULL : strstr(program, "/tests/golden/");
    if (!CHECK(tests != NULL && n + 3 < MAX_WORDS))
        return false;
    (void)snprintf(tests, 9, "/balora");
    for (size_t i = 0; i < n; i++)
        all[i + 2] = words[i];
    const char *const *list = all;
    memcpy(&args, &list, sizeof args); /* execv's type says char *, it does not write */
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)execv(program, args);
        _exit(127);
    }
    return CHECK(pid > 0 && waitpid(pid, &status, 0) == pid) &&
           CHECK_MSG(WIFEXITED(status) && WEXITSTATUS(status) == 0, "balora evaluate: status %d", status);
}

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *v = bal_json_member(object, key);
    return cJSON_IsString(v) ? v->valuestring : "(none)";
}

/* The lines of a file as a list. */
static cJSON *read_list(const char *path)
{
    cJSON *list = cJSON_CreateArray(), *line = NULL;
    bal_lines *lines = NULL;
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return list;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL)
        (void)cJSON_AddItemToArray(list, line);
    bal_lines_close(lines);
    return list;
}

static void check_item(const cJSON *got, const cJSON *want)
{
    const cJSON *lls = bal_json_member(want, "loglikelihood"), *arguments = bal_json_member(got, "arguments");
    const cJSON *resps = bal_json_member(got, "filtered_resps");
    double best = -(double)INFINITY;
    int pred = -1, n = cJSON_GetArraySize(lls);
    CHECK(n > 0 && cJSON_GetArraySize(resps) == n && cJSON_GetArraySize(arguments) == n);
    for (int k = 0; k < n; k++) {
        const cJSON *pair = cJSON_GetArrayItem(resps, k), *ask = cJSON_GetArrayItem(arguments, k);
        const cJSON *ll = cJSON_GetArrayItem(pair, 0), *greedy = cJSON_GetArrayItem(pair, 1);
        CHECK_TEXT(text_of(ask, "arg_0"), text_of(want, "context"));
        CHECK_TEXT(text_of(ask, "arg_1"), cJSON_GetArrayItem(bal_json_member(want, "continuations"), k)->valuestring);
        if (!CHECK(cJSON_IsString(ll) && cJSON_IsString(greedy)))
            return;
        double value = strtod(ll->valuestring, NULL);
        CHECK_NEAR(value, cJSON_GetArrayItem(lls, k)->valuedouble, 2e-3);
        CHECK_TEXT(greedy->valuestring,
                   cJSON_IsTrue(cJSON_GetArrayItem(bal_json_member(want, "is_greedy"), k)) ? "True" : "False");
        if (value > best) {
            best = value;
            pred = k;
        }
    }
    CHECK(pred == (int)bal_json_member(want, "pred")->valuedouble);
    const cJSON *acc = bal_json_member(want, "acc"), *own = bal_json_member(got, "acc");
    CHECK(cJSON_IsNumber(own) && (acc == NULL || own->valuedouble == acc->valuedouble));
}

/* Sample lines of `task` against golden/lmeval/FILE.jsonl; returns the items compared. */
static size_t compare(const char *folder, const char *task, const char *file)
{
    char path[PATH_BYTES], name[128];
    size_t n = 0;
    (void)snprintf(name, sizeof name, "golden/lmeval/%s.jsonl", file);
    const char *golden = test_shared(name);
    if (!CHECK_MSG(golden != NULL, "%s is not there", name))
        return 0;
    cJSON *want = read_list(golden);
    (void)snprintf(path, sizeof path, "%s/samples_%s.jsonl", folder, task);
    cJSON *got = read_list(path);
    const cJSON *line = NULL;
    cJSON_ArrayForEach(line, want)
    {
        const cJSON *own = cJSON_GetArrayItem(got, (int)bal_json_member(line, "doc")->valuedouble);
        if (own == NULL)
            break;
        check_item(own, line);
        n++;
    }
    cJSON_Delete(want);
    cJSON_Delete(got);
    return n;
}

/* Where the model and the data are; false: skip. */
static bool find(const char **model, const char **data)
{
    static char paths[2][PATH_BYTES];
    const char *m = test_shared("models/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf");
    (void)snprintf(paths[0], PATH_BYTES, "%s", m == NULL ? "" : m);
    const char *d = test_shared("data");
    (void)snprintf(paths[1], PATH_BYTES, "%s", d == NULL ? "" : d);
    *model = paths[0];
    *data = paths[1];
    return m != NULL && d != NULL && test_shared("golden/lmeval/sst2.jsonl") != NULL;
}

/* Runs tasks and compares them; names: task, file, task, file ..., NULL. */
static void check(const char *tasks, const char *limit, const char *const *more, size_t n_more,
                  const char *const *names)
{
    char db[PATH_BYTES], samples[PATH_BYTES];
    const char *model = NULL, *data = NULL;
    const char *words[MAX_WORDS] = {NULL};
    size_t n = 0;
    if (!find(&model, &data))
        SKIP("../shared holds no lm-eval runs of the real model");
    (void)own_path("lmeval.db", db);
    (void)own_path("samples", samples);
    CHECK_OK(bal_folder_remove(samples));
    const char *const fixed[] = {"--model", model, "--tasks",       tasks,   "--data",  data,       "--db", db,
                                 "--limit", limit, "--log-samples", samples, "--quiet", "--resume", "never"};
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        words[n++] = fixed[i];
    for (size_t i = 0; i < n_more; i++)
        words[n++] = more[i];
    if (!evaluate(words, n))
        return;
    for (size_t i = 0; names[i] != NULL; i += 2)
        CHECK_MSG(compare(samples, names[i], names[i + 1]) >= 2, "%s: too few items were compared", names[i]);
}

static bool slow(void)
{
    return getenv("BALORA_SLOW") != NULL;
}

TEST(zero_shot)
{
    static const char *const names[] = {"sst2",    "sst2",    "rte",     "rte",     "qnli", "qnli", "mnli",
                                        "mnli",    "mrpc",    "mrpc",    "cola",    "cola", "wnli", "wnli",
                                        "anli_r1", "anli_r1", "paws_en", "paws_en", NULL};
    check("sst2,rte,qnli,mnli,mrpc,cola,wnli,anli_r1,paws_en", slow() ? "100" : "4", NULL, 0, names);
}

TEST(drawn_examples)
{
    static const char *const names[] = {"sst2", "sst2_3shot", NULL}, *const more[] = {"--num-fewshot", "3"};
    check("sst2", slow() ? "40" : "4", more, 2, names);
}

/* A task file of the user: the evaluated split is also the pool of examples. */
TEST(own_task_same_split)
{
    static const char *const names[] = {"wnli_same_split", "wnli_3shot_same_split", NULL};
    static const char file[] =
        "{ // examples from the split itself\n"
        "\"task\": \"wnli_same_split\", \"version\": 2, \"scorer\": \"multiple_choice\",\n"
        "\"data\": {\"test\": \"glue/WNLI/dev.tsv\", \"train\": \"glue/WNLI/dev.tsv\"},\n"
        "\"prompt\": \"{sentence1}\\nQuestion: {sentence2} True or False?\\nAnswer:\",\n"
        "\"choices\": [\"False\", \"True\"], \"label\": \"label\", \"num_fewshot\": 3, \"same_split\": true}\n";
    char path[PATH_BYTES];
    CHECK_OK(bal_file_replace(own_path("wnli.json", path), file, strlen(file)));
    check(path, slow() ? "71" : "6", NULL, 0, names);
}

/* The items of two parts, made one without the model, are those of one run, to the last digit. */
TEST(shards)
{
    char whole[PATH_BYTES], parts[PATH_BYTES], db[PATH_BYTES], path[PATH_BYTES + 32];
    const char *model = NULL, *data = NULL;
    if (!find(&model, &data))
        SKIP("../shared holds no lm-eval runs of the real model");
    (void)own_path("shards.db", db);
    (void)own_path("whole", whole);
    (void)own_path("parts", parts);
    const char *const runs[][2] = {{"1/1", "all"}, {"1/2", "one"}, {"2/2", "two"}};
    for (size_t i = 0; i < 3; i++) {
        const char *const words[] = {"--model", model,      "--tasks",       "sst2", "--data",  data,
                                     "--db",    db,         "--limit",       "5",    "--name",  runs[i][1],
                                     "--shard", runs[i][0], "--num-fewshot", "2",    "--quiet", "--log-samples",
                                     whole};
        if (!evaluate(words, i == 0 ? 19 : 17))
            return;
    }
    const char *const join[] = {"--rescore", "one,two", "--data", data, "--db", db, "--quiet", "--log-samples", parts};
    if (!evaluate(join, 9))
        return;
    (void)snprintf(path, sizeof path, "%s/samples_sst2.jsonl", whole);
    cJSON *a = read_list(path);
    (void)snprintf(path, sizeof path, "%s/samples_sst2.jsonl", parts);
    cJSON *b = read_list(path);
    CHECK(cJSON_GetArraySize(a) == 5 && cJSON_GetArraySize(b) == 5);
    for (int i = 0; i < cJSON_GetArraySize(a) && i < cJSON_GetArraySize(b); i++) {
        static const char *const keys[] = {"doc_id", "filtered_resps", "acc", "doc_hash"};
        for (size_t k = 0; k < 4; k++)
            CHECK_MSG(cJSON_Compare(bal_json_member(cJSON_GetArrayItem(a, i), keys[k]),
                                    bal_json_member(cJSON_GetArrayItem(b, i), keys[k]), true),
                      "item %d: other %s", i, keys[k]);
    }
    cJSON_Delete(a);
    cJSON_Delete(b);
}

TEST(chat)
{
    static const char *const names[] = {"sst2", "sst2_chat", NULL}, *const more[] = {"--apply-chat-template"};
    check("sst2", slow() ? "20" : "4", more, 1, names);
}

TEST(chat_examples)
{
    static const char *const names[] = {"sst2", "sst2_3shot_chat", NULL};
    static const char *const more[] = {"--apply-chat-template", "--num-fewshot", "3"};
    check("sst2", slow() ? "20" : "4", more, 3, names);
}
