/* Judges: ratings against the reference vectors, prompts, and whole runs of balora judge against a server on the loopback.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/mtbench.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"
#include "tests/loopback.h"
#include "tests/program.h"
#include "tests/test.h"

TEST(ratings)
{
    static const struct {
        const char *text;
        double want;
    } cases[] = {{"[[8]]", 8},   {"[[7.]]", 7},  {"[8] and [[9]]", 9}, {"[[x]] [[3]] [[4]]", 3}, {"see [12]: [y]", 12},
                 {"[[ 5]]", -1}, {"[[08]]", -1}, {"[[08.5]]", 8.5},    {"[[-1]]", -1},           {"[[11]]", 11},
                 {"", -1},       {"[[5]", 5},    {"[[[6]]]", 6},       {"[[1.2.3]]", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_MSG(judge_rating(cases[i].text) == cases[i].want, "'%s' is %g", cases[i].text,
                  judge_rating(cases[i].text));
    CHECK(judge_winner("so [[B]]") == 'B' && judge_winner("[[B]] [[A]]") == 'A' && judge_winner("[[C]]") == 'C');
    CHECK(judge_winner("[A]") == 0);
    CHECK(mt_outcome('A', 'B') == 'A' && mt_outcome('B', 'A') == 'B' && mt_outcome('A', 'A') == 'C');
    CHECK(mt_outcome('C', 'B') == 'C' && mt_outcome('C', 'C') == 'C' && mt_outcome(0, 'B') == 0);
    CHECK(mt_temperature("writing") == 0.7 && mt_temperature("stem") == 0.1 && mt_temperature("math") == 0);
}

TEST(rating_vectors)
{
    const char *path = test_shared("vectors/mtbench_rating.jsonl");
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t n = 0;
    if (path == NULL)
        SKIP("../shared is not there");
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        const cJSON *text = bal_json_member(line, "judgment"), *score = bal_json_member(line, "score");
        if (text != NULL)
            CHECK_MSG(judge_rating(text->valuestring) == (cJSON_IsNumber(score) ? score->valuedouble : -1),
                      "'%s' is %g", text->valuestring, judge_rating(text->valuestring));
        if (bal_json_member(line, "g1") != NULL) {
            const char *g1 = bal_json_member(line, "g1")->valuestring, *g2 = bal_json_member(line, "g2")->valuestring;
            const char *want = bal_json_member(line, "outcome")->valuestring;
            char first = strcmp(g1, "model_1") == 0 ? 'A' : strcmp(g1, "model_2") == 0 ? 'B' : 'C';
            char second = strcmp(g2, "model_1") == 0 ? 'B' : strcmp(g2, "model_2") == 0 ? 'A' : 'C'; /* swapped */
            char is = strcmp(want, "model_1") == 0 ? 'A' : strcmp(want, "model_2") == 0 ? 'B' : 'C';
            if (strcmp(g1, "error") != 0 && strcmp(g2, "error") != 0)
                CHECK_MSG(mt_outcome(first, second) == is, "%s, %s are not %s", g1, g2, want);
        }
        n++;
        cJSON_Delete(line);
    }
    CHECK(n > 10);
    bal_lines_close(lines);
}

/* Two questions, one with a reference, and prompts of the same shape as the published ones. */
static void write_bench(const char *folder)
{
    static const char questions[] =
        "{\"question_id\": 1, \"category\": \"writing\", \"turns\": [\"W1 {answer}\", \"W2\"]}\n"
        "{\"question_id\": 2, \"category\": \"math\", \"turns\": [\"M1\", \"M2\"]}\n";
    static const char references[] = "{\"question_id\": 2, \"choices\": [{\"turns\": [\"R1\", \"R2\"]}]}\n";
    static const char prompts[] =
        "{\"name\": \"single-v1\", \"system_prompt\": \"S\", \"prompt_template\": \"q={question} a={answer}\"}\n"
        "{\"name\": \"single-v1-multi-turn\", \"system_prompt\": \"S2\", \"prompt_template\": "
        "\"{question_1}|{answer_1}|{question_2}|{answer_2}\"}\n"
        "{\"name\": \"single-math-v1\", \"system_prompt\": \"S\", \"prompt_template\": "
        "\"{question}|{ref_answer_1}|{answer}\"}\n"
        "{\"name\": \"single-math-v1-multi-turn\", \"system_prompt\": \"S\", \"prompt_template\": "
        "\"{ref_answer_1}|{ref_answer_2}|{answer_2}|{unknown}\"}\n"
        "{\"name\": \"pair-v2\", \"system_prompt\": \"S\", \"prompt_template\": \"{answer_a}<>{answer_b}\"}\n"
        "{\"name\": \"pair-v2-multi-turn\", \"system_prompt\": \"S\", \"prompt_template\": "
        "\"{answer_a_2}<>{answer_b_2}\"}\n"
        "{\"name\": \"pair-math-v1\", \"system_prompt\": \"S\", \"prompt_template\": "
        "\"{ref_answer_1}: {answer_a}<>{answer_b}\"}\n"
        "{\"name\": \"pair-math-v1-multi-turn\", \"system_prompt\": \"S\", \"prompt_template\": "
        "\"{ref_answer_2}: {answer_a_2}<>{answer_b_2}\"}\n";
    char path[300];
    (void)snprintf(path, sizeof path, "%s/mt_bench", folder);
    CHECK_OK(bal_folder_make(path));
    (void)snprintf(path, sizeof path, "%s/mt_bench/question.jsonl", folder);
    CHECK_OK(bal_file_replace(path, questions, sizeof questions - 1));
    (void)snprintf(path, sizeof path, "%s/mt_bench/reference_answer_gpt-4.jsonl", folder);
    CHECK_OK(bal_file_replace(path, references, sizeof references - 1));
    (void)snprintf(path, sizeof path, "%s/mt_bench/judge_prompts.jsonl", folder);
    CHECK_OK(bal_file_replace(path, prompts, sizeof prompts - 1));
}

static void says(const mt_bench *m, size_t q, size_t t, const mt_answers *a, const mt_answers *b, const char *system,
                 const char *user)
{
    api_client judge = {.model = "j\"x"};
    bal_buf body = {0};
    cJSON *json = NULL;
    if (CHECK_OK(mt_judge_body(m, q, t, a, b, &judge, &body)) &&
        CHECK_OK(bal_json_parse(&json, body.data, body.len, "body"))) {
        const cJSON *messages = bal_json_member(json, "messages");
        CHECK_TEXT(bal_json_member(cJSON_GetArrayItem(messages, 0), "content")->valuestring, system);
        CHECK_TEXT(bal_json_member(cJSON_GetArrayItem(messages, 1), "content")->valuestring, user);
        CHECK_TEXT(bal_json_member(json, "model")->valuestring, "j\"x");
        CHECK(bal_json_member(json, "max_tokens")->valuedouble == 2048 &&
              bal_json_member(json, "temperature")->valuedouble == 0);
    }
    cJSON_Delete(json);
    bal_buf_dispose(&body);
}

TEST(prompts)
{
    mt_bench m;
    char *texts[] = {(char *)(uintptr_t) "A1 {question}", (char *)(uintptr_t) "A2", (char *)(uintptr_t) "B1",
                     (char *)(uintptr_t) "B2"};
    char *others[] = {(char *)(uintptr_t) "O1", (char *)(uintptr_t) "O2", NULL, NULL};
    const mt_answers a = {.texts = texts, .n = 4}, b = {.texts = others, .n = 4};
    write_bench(test_folder());
    if (!CHECK_OK(mt_bench_read(&m, test_folder())))
        return;
    CHECK(m.n == 2);
    says(&m, 0, 0, &a, NULL, "S", "q=W1 {answer} a=A1 {question}");
    says(&m, 0, 1, &a, NULL, "S2", "W1 {answer}|A1 {question}|W2|A2");
    says(&m, 1, 0, &a, NULL, "S", "M1|R1|B1");
    says(&m, 1, 1, &a, NULL, "S", "R1|R2|B2|{unknown}");
    says(&m, 0, 0, &a, &b, "S", "A1 {question}<>O1");
    mt_bench_dispose(&m);
    CHECK_STATUS(mt_bench_read(&m, "nowhere"), BAL_ENOENT);
    mt_bench_dispose(&m);
}

/* --- a whole run --- */

/* Answers as a model when it is asked as one, else judges by what it is shown. */
static void openai(loopback *l, int fd, const char *head, const char *body)
{
    int *broken = l->context;
    const char *text;
    char reply[500];
    if (strstr(head, "POST /v1/chat/completions ") == NULL) {
        loopback_reply(fd, 404, "", "no such page");
        return;
    }
    if (strstr(head, "Bearer sk-test-key") == NULL) {
        loopback_reply(fd, 401, "", "bad key");
        return;
    }
    if (strstr(body, "\"model\": \"judge\"") == NULL) { /* by category, with what was said before */
        bool two = strstr(body, "\"role\": \"assistant\", \"content\": \"first\"") != NULL;
        const char *heat = strstr(body, "\"content\": \"W1 ") != NULL ? "\"temperature\": 0.7," : "\"temperature\": 0,";
        bool right = strstr(body, heat) != NULL && strstr(body, "\"max_tokens\": 1024") != NULL;
        text = !right ? "wrongly asked" : two ? "second" : "first";
    } else if (strstr(body, "<>") !=
               NULL) /* the own answer to the first turn wins, the other's to the second; M1 once says nothing */
        text = strstr(body, "R1: first<>") != NULL ? "hm"
               : strstr(body, "first<>") != NULL   ? "[[A]]"
               : strstr(body, "<>first") != NULL   ? "[[B]]"
               : strstr(body, "R2") != NULL        ? "[[A]] whatever is first"
               : strstr(body, "second<>") != NULL  ? "[[B]]"
                                                   : "[[A]]";
    else if (strstr(body, "M1|R1|first") != NULL)
        text = "no rating at all";
    else
        text = strstr(body, "W2") != NULL ? "Rating: [[4]]" : strstr(body, "q=W1") != NULL ? "[[8]]" : "[[3]]";
    if (*broken > 0 && strstr(body, "q=W1") != NULL) {
        loopback_reply(fd, 200, "", "{\"choices\": [");
        return;
    }
    (void)snprintf(reply, sizeof reply,
                   "{\"choices\": [{\"message\": {\"role\": \"assistant\", \"content\": \"%s\"}}]}", text);
    loopback_reply(fd, 200, "", reply);
}

/* Runs balora judge in the test's folder; returns its exit status, what it printed in out. */
static int run_judge(int port, const char *key, const char *option, const char *value, char *out, size_t n)
{
    char base[64], judge[64], db[300], file[300];
    bal_buf text = {0};
    (void)snprintf(base, sizeof base, "http://127.0.0.1:%d/v1/", port);
    (void)snprintf(judge, sizeof judge, "http://127.0.0.1:%d/v1", port);
    (void)snprintf(db, sizeof db, "%s/runs.db", test_folder());
    (void)snprintf(file, sizeof file, "%s/out", test_folder());
    (void)setenv("SK", key, 1);
    const char *const words[] = {"balora",          "judge", "--model", "openai:mine", "--base-url",  base,
                                 "--key-env",       "SK",    "--judge", "judge",       "--judge-url", judge,
                                 "--judge-key-env", "SK",    "--data",  test_folder(), "--db",        db,
                                 "--back-off",      "0.01",  "-q",      option,        value,         NULL};
    int status = test_wait(test_start(NULL, words, file, file));
    CHECK_OK(bal_file_read(file, 100000, &text));
    (void)snprintf(out, n, "%s", bal_buf_cstr(&text));
    bal_buf_dispose(&text);
    return status;
}

TEST(whole_run)
{
    loopback l;
    int broken = 1;
    char out[4000], more[300];
    bal_buf database = {0};
    write_bench(test_folder());
    if (!CHECK(loopback_start(&l, openai, &broken)))
        return;
    CHECK(run_judge(l.port, "wrong", NULL, NULL, out, sizeof out) == 2 &&
          strstr(out, "refuses the key (401); it came from SK"));
    CHECK(atomic_load(&l.requests) == 1); /* one refusal is enough */
    /* 4 answers, 4 judgements, one of them broken JSON and one without a rating */
    (void)snprintf(more, sizeof more, "%s/answers.jsonl", test_folder());
    CHECK(run_judge(l.port, "sk-test-key", "--write-answers", more, out, sizeof out) == 0);
    CHECK_MSG(strstr(out, "\"turn_1\": null") != NULL && strstr(out, "\"turn_2\": 3.5,") != NULL &&
                  strstr(out, "\"overall\": 3.5,") != NULL && strstr(out, "\"invalid\": 2") != NULL,
              "%s", out);
    CHECK(atomic_load(&l.requests) == 9);
    /* only what failed is asked again */
    broken = 0;
    CHECK(run_judge(l.port, "sk-test-key", NULL, NULL, out, sizeof out) == 0);
    CHECK(atomic_load(&l.requests) == 10);
    CHECK_MSG(strstr(out, "\"turn_1\": 8,") != NULL && strstr(out, "\"turn_2\": 3.5,") != NULL &&
                  strstr(out, "\"overall\": 5,") != NULL && strstr(out, "\"overall_n\": 3") != NULL &&
                  strstr(out, "\"writing\": 6") != NULL && strstr(out, "\"invalid\": 1") != NULL,
              "%s", out);
    CHECK(run_judge(l.port, "sk-test-key", "--limit", "1", out, sizeof out) == 0 && strstr(out, "\"overall\": 6,"));
    CHECK(atomic_load(&l.requests) == 10); /* a rerun costs nothing */
    loopback_stop(&l);
    (void)snprintf(more, sizeof more, "%s/runs.db", test_folder());
    CHECK_OK(bal_file_read(more, 1 << 28, &database));
    CHECK(memmem(bal_buf_cstr(&database), database.len, "sk-test-key", 11) == NULL); /* no key in the store */
    /* the judge is part of the figures' names */
    CHECK(memmem(bal_buf_cstr(&database), database.len, "mt_bench/overall,judge", 22) != NULL &&
          memmem(bal_buf_cstr(&database), database.len, "single:judge", 12) != NULL);
    bal_buf_dispose(&database);
}

/* Each game twice, with the answers swapped; a rerun sends nothing. */
TEST(pairwise_run)
{
    static const char baseline[] = "{\"question_id\": 1, \"choices\": [{\"turns\": [\"x\", \"y\"]}]}\n"
                                   "{\"question_id\": 2, \"choices\": [{\"turns\": [\"x\", \"y\"]}]}\n";
    loopback l;
    int broken = 0;
    char out[4000], file[300];
    write_bench(test_folder());
    (void)snprintf(file, sizeof file, "%s/baseline.jsonl", test_folder());
    if (!CHECK_OK(bal_file_replace(file, baseline, sizeof baseline - 1)) || !CHECK(loopback_start(&l, openai, &broken)))
        return;
    CHECK(run_judge(l.port, "sk-test-key", "--baseline", file, out, sizeof out) == 0);
    CHECK(atomic_load(&l.requests) == 4 + 8);
    /* writing: turn 1 won, turn 2 lost; maths: turn 1 without a verdict, turn 2 a tie, as the first place wins twice */
    CHECK_MSG(strstr(out, "\"wins\": 1, \"losses\": 1, \"ties\": 1, \"invalid\": 1, \"adjusted_win_rate\": 0.5}") !=
                  NULL,
              "%s", out);
    CHECK(run_judge(l.port, "sk-test-key", "--baseline", file, out, sizeof out) == 0);
    CHECK(atomic_load(&l.requests) == 4 + 8);
    loopback_stop(&l);
}

/* The published questions and prompts, as evaluate.md has them. */
TEST(published_prompts)
{
    const char *path = test_shared("data/mt_bench/question.jsonl");
    mt_bench m;
    char folder[600];
    if (path == NULL)
        SKIP("../shared is not there");
    (void)snprintf(folder, sizeof folder, "%.500s", path);
    *strstr(folder, "/mt_bench/") = '\0';
    if (!CHECK_OK(mt_bench_read(&m, folder)))
        return;
    size_t references = 0, by_heat[3] = {0};
    bal_buf body = {0};
    mt_answers a = {0};
    api_client judge = {.model = "gpt-4"};
    CHECK(m.n == 80 && m.questions[0].id == 81 && m.questions[79].id == 160);
    CHECK_OK(mt_answers_init(&a, &m));
    for (size_t i = 0; i < a.n; i++)
        a.texts[i] = bal_strdup(i % 2 == 0 ? "<one>" : "<two>");
    for (size_t q = 0; q < m.n; q++) {
        const mt_question *x = &m.questions[q];
        bool reference = x->reference[0] != NULL;
        double heat = mt_temperature(x->category);
        references += reference;
        by_heat[heat == 0 ? 0 : heat < 0.5 ? 1 : 2]++;
        CHECK(reference == (x->id >= 101 && x->id <= 130));
        for (size_t t = 0; t < MT_TURNS; t++) {
            cJSON *json = NULL;
            bal_buf_clear(&body);
            if (!CHECK_OK(mt_judge_body(&m, q, t, &a, NULL, &judge, &body)) ||
                !CHECK_OK(bal_json_parse(&json, body.data, body.len, "body")))
                continue;
            const cJSON *messages = bal_json_member(json, "messages");
            const char *system = bal_json_member(cJSON_GetArrayItem(messages, 0), "content")->valuestring;
            const char *user = bal_json_member(cJSON_GetArrayItem(messages, 1), "content")->valuestring;
            const char *answer = t == 0
                                     ? "[The Start of Assistant's Answer]\n<one>\n[The End of Assistant's Answer]"
                                     : "### Assistant A:\n<two>\n\n<|The End of Assistant A's Conversation with User|>";
            const char *begin = t == 0      ? "[Instruction]\nPlease act as an impartial judge"
                                : reference ? "<|The Start of Reference Answer|>\n\n### User:\n"
                                            : "<|The Start of Assistant A's Conversation with User|>\n\n### User:\n";
            CHECK(strstr(user, answer) != NULL && bal_starts_with(user, begin) && strstr(user, x->turns[t]) != NULL);
            CHECK(!reference || strstr(user, x->reference[t]) != NULL);
            CHECK(t == 0 ? strcmp(system, "You are a helpful assistant.") == 0
                         : strstr(system, "second") != NULL && bal_ends_with(system, "\n\n"));
            cJSON_Delete(json);
        }
    }
    CHECK(references == 30 && by_heat[2] == 20 && by_heat[1] == 20 && by_heat[0] == 40);
    /* the wrapper of PiSSA and BA-LoRA: its sentence once */
    bal_buf_clear(&body);
    const mt_question q = {.turns = {"Q1", "Q2"}};
    CHECK_OK(mt_alpaca_prompt(&q, 1, " A1", &body));
    CHECK_TEXT(
        bal_buf_cstr(&body),
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nQ1\n\n### Response: A1\n\n### Instruction:\nQ2\n\n### Response:");
    bal_buf_dispose(&body);
    mt_answers_dispose(&a);
    mt_bench_dispose(&m);
}
