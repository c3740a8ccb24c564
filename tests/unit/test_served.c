/* Served models under test: through balora serve the outputs of every kind of task are those of the model itself, digit by
 * digit; a server that fails, refuses or gives no probabilities is said, and nothing is lost.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/data/embedded.h"
#include "lib/io/json.h"
#include "tests/loopback.h"
#include "tests/program.h"
#include "tests/test.h"

#include <signal.h>

static const char k_rows[] =
    "{\"q\": \"Ann has 3 apples and 2 more\", \"a\": \"5\", \"b\": [\"4\", \"5 apples\"], \"l\": 1}\n"
    "{\"q\": \"Tom had 9 and lost 4\", \"a\": \"5\", \"b\": [\"5\", \"13\"], \"l\": 0}\n"
    "{\"q\": \"2 + 2 =\", \"a\": \"4\", \"b\": [\"22\", \"4\", \"2 2\"], \"l\": 1}\n"
    "{\"q\": \"\", \"a\": \"7\", \"b\": [\"7\", \" 8\"], \"l\": 0}\n"
    "{\"q\": \"How many are 12 - 7? \", \"a\": \"5\", \"b\": [\"5\", \"19\"], \"l\": 0}\n";
static const char k_choice[] =
    "{\"task\": \"choice\", \"version\": 1, \"scorer\": \"multiple_choice\", \"data\": {\"test\": \"rows.jsonl\"}, "
    "\"prompt\": \"{q}\", \"choices\": \"b\", \"label\": \"l\", \"metrics\": [\"acc\", \"acc_norm\"]}";
static const char k_text[] = "{\"task\": \"text\", \"version\": 1, \"scorer\": \"exact_match\", \"data\": {\"test\": "
                             "\"rows.jsonl\", \"train\": \"rows.jsonl\"}, "
                             "\"prompt\": \"Question: {q}\", \"target\": \"{a}\", \"num_fewshot\": 1, \"sampler\": "
                             "\"first_n\", \"max_gen_toks\": 12, "
                             "\"until\": [\"Q\", \"\\n\", \"ppp\", \"qqq\", \"rrr\", \"3\"], \"filters\": [{\"name\": "
                             "\"first\", \"regex\": \"([0-9]+)\", \"select\": 0}]}";
static const char k_whole[] =
    "{\"task\": \"whole\", \"version\": 1, \"scorer\": \"perplexity\", \"data\": {\"test\": \"pages.jsonl\"}, "
    "\"prompt\": \"{text}\", \"count\": \"text\"}";
static const char k_sampled[] =
    "{\"task\": \"sampled\", \"version\": 1, \"scorer\": \"exact_match\", \"data\": {\"test\": \"rows.jsonl\"}, "
    "\"prompt\": \"{q}!\", "
    "\"target\": \"{a}\", \"max_gen_toks\": 3, \"temperature\": 0.7, \"repeats\": 2, \"until\": [], "
    "\"filters\": [{\"name\": \"first\", \"regex\": \"([0-9]+)\", \"select\": 0}]}";

static void put(const char *name, const char *text, size_t n)
{
    char path[400];
    (void)snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    CHECK_OK(bal_file_replace(path, text, n));
}

static void write_tasks(void)
{
    bal_buf page = {0};
    put("rows.jsonl", k_rows, sizeof k_rows - 1);
    put("choice.json", k_choice, sizeof k_choice - 1);
    put("text.json", k_text, sizeof k_text - 1);
    put("whole.json", k_whole, sizeof k_whole - 1);
    put("sampled.json", k_sampled, sizeof k_sampled - 1);
    CHECK_OK(bal_buf_text(&page, "{\"text\": \""));
    for (int i = 0; i < 40; i++)
        CHECK_OK(bal_buf_printf(&page, "Ann has %d apples and Tom has %d. ", i, i * 7 % 10));
    CHECK_OK(bal_buf_text(&page, "\"}\n{\"text\": \"short\"}\n"));
    put("pages.jsonl", page.data, page.len);
    bal_buf_dispose(&page);
}

/* Runs balora evaluate with more words in the test's folder; its status, and what it said in out. */
static int run(const char *const more[16], bal_buf *out)
{
    char file[400], errors[400];
    bal_buf more_text = {0};
    const char *words[40] = {"balora", "evaluate", "--data", "."};
    size_t n = 4;
    for (size_t i = 0; i < 16 && more[i] != NULL; i++)
        words[n++] = more[i];
    (void)snprintf(file, sizeof file, "%s/said", test_folder());
    (void)snprintf(errors, sizeof errors, "%s/errors", test_folder());
    int status = test_wait(test_start(test_folder(), words, file, errors));
    bal_buf_clear(out);
    CHECK_OK(bal_file_read(file, 1 << 24, out));
    CHECK_OK(bal_file_read(errors, 1 << 24, &more_text));
    CHECK_OK(bal_buf_append(out, bal_buf_cstr(&more_text), more_text.len));
    bal_buf_dispose(&more_text);
    return status;
}

/* --- the same as the model itself --- */

static bool read_lines(const char *name, cJSON *rows[64], size_t *n)
{
    char path[400];
    bal_buf text = {0};
    *n = 0;
    (void)snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    if (!CHECK_OK(bal_file_read(path, 1 << 24, &text)))
        return false;
    for (const char *p = bal_buf_cstr(&text); *p != '\0' && *n < 64;) {
        size_t length = strcspn(p, "\n");
        if (!CHECK_OK(bal_json_parse(&rows[*n], p, length, name)))
            break;
        (*n)++;
        p += length + (p[length] == '\n');
    }
    bal_buf_dispose(&text);
    return *n > 0;
}

/* Outputs and metrics of the samples, as they were written. */
static void same_samples(const char *task, size_t want)
{
    char a[100], b[100];
    cJSON *here[64] = {NULL}, *there[64] = {NULL};
    size_t n = 0, m = 0;
    (void)snprintf(a, sizeof a, "here/samples_%s.jsonl", task);
    (void)snprintf(b, sizeof b, "there/samples_%s.jsonl", task);
    if (read_lines(a, here, &n) && read_lines(b, there, &m) &&
        CHECK_MSG(n == m && n == want, "%s: %zu, %zu", task, n, m))
        for (size_t i = 0; i < n; i++) {
            const cJSON *x = bal_json_member(here[i], "resps"), *y = bal_json_member(there[i], "resps");
            char *p = cJSON_PrintUnformatted(x), *q = cJSON_PrintUnformatted(y);
            CHECK_TEXT(q, p);
            CHECK(x != NULL && cJSON_Compare(bal_json_member(here[i], "filtered_resps"),
                                             bal_json_member(there[i], "filtered_resps"), true));
            cJSON_free(p);
            cJSON_free(q);
        }
    for (size_t i = 0; i < 64; i++) {
        cJSON_Delete(here[i]);
        cJSON_Delete(there[i]);
    }
}

/* Starts balora serve on the folder "model"; its port in *port. */
static pid_t serve(int *port)
{
    const char *const words[] = {"balora", "serve",        "--model", "model", "--port",
                                 "0",      "--max-length", "120",     "-q",    NULL};
    char path[400];
    bal_buf text = {0};
    (void)snprintf(path, sizeof path, "%s/address", test_folder());
    (void)unlink(path);
    pid_t pid = test_start(test_folder(), words, path, "/dev/null");
    *port = 0;
    for (int i = 0; i < 6000 && *port == 0; i++) {
        (void)usleep(10000);
        bal_buf_clear(&text);
        if (bal_file_read(path, 1000, &text) == BAL_OK && strstr(bal_buf_cstr(&text), "/v1\n") != NULL)
            *port = (int)strtol(strrchr(bal_buf_cstr(&text), ':') + 1, NULL, 10);
    }
    bal_buf_dispose(&text);
    CHECK(*port > 0);
    return pid;
}

TEST(same_as_the_model)
{
    char path[400], url[64];
    int port = 0;
    bal_buf here = {0}, there = {0};
    write_tasks();
    (void)snprintf(path, sizeof path, "%s/model", test_folder());
    if (!CHECK_OK(bal_embedded_write(path)))
        return;
    pid_t pid = serve(&port);
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/v1", port);
    static const char tasks[] = "choice.json,text.json,whole.json";
    const char *const local[16] = {"--model", "model",         "--tasks", tasks, "--max-length",
                                   "100",     "--log-samples", "here",    "-q"};
    const char *const served[16] = {"--model", "openai:model", "--base-url",   url,   "--tokenizer",   "model",
                                    "--tasks", tasks,          "--max-length", "100", "--log-samples", "there",
                                    "-q"};
    CHECK(run(local, &here) == 0);
    CHECK_MSG(run(served, &there) == 0, "%s", bal_buf_cstr(&there));
    CHECK_TEXT(bal_buf_cstr(&there), bal_buf_cstr(&here)); /* the tables, with their errors */
    same_samples("choice", 5);
    same_samples("text", 5);
    same_samples("whole", 2);
    /* texts instead of ids, and conversations */
    const char *const texts[16] = {"--model",   "openai:model",  "--base-url", url, "--tasks",
                                   "text.json", "--log-samples", "there",      "-q"};
    CHECK_MSG(run(texts, &there) == 0, "%s", bal_buf_cstr(&there));
    same_samples("text", 5);
    const char *const chat[16] = {"--model", "model", "--tasks", "text.json", "--log-samples", "here", "-q", "--chat"};
    const char *const served_chat[16] = {"--model", "openai:model", "--base-url",           url,
                                         "--tasks", "text.json",    "--log-samples",        "there",
                                         "-q",      "--chat",       "--system-instruction", "Be \"short\"."};
    const char *const chat_too[16] = {"--model",      "model",         "--tasks",
                                      "text.json",    "--log-samples", "here",
                                      "-q",           "--chat",        "--system-instruction",
                                      "Be \"short\"."};
    CHECK(run(chat, &here) == 0 && run(chat_too, &here) == 0);
    CHECK_MSG(run(served_chat, &there) == 0, "%s", bal_buf_cstr(&there));
    same_samples("text", 5);
    /* what the server does not have */
    const char *const other[16] = {"--model", "openai:other", "--base-url", url, "--tasks", "text.json", "-q"};
    CHECK(run(other, &there) == 3 &&
          strstr(bal_buf_cstr(&there), "the server has no model 'other'; it has model") != NULL);
    (void)kill(pid, SIGTERM);
    CHECK(test_wait(pid) == 0);
    bal_buf_dispose(&here);
    bal_buf_dispose(&there);
}

/* --- servers that fail --- */

typedef struct faults {
    bool no_models, other_models, no_logprobs, refuses_echo, miscounts;
    atomic_int broken, busy; /* replies of this kind before good ones */
    atomic_int answered, seeds[2], with_stop, with_messages;
    pthread_mutex_t lock;
    unsigned seed[64];
    size_t n_seeds;
} faults;

static void note_seed(faults *f, const char *body)
{
    const char *seed = strstr(body, "\"seed\": ");
    if (seed == NULL)
        return;
    (void)pthread_mutex_lock(&f->lock);
    if (f->n_seeds < 64)
        f->seed[f->n_seeds++] = (unsigned)strtoul(seed + 8, NULL, 10);
    (void)pthread_mutex_unlock(&f->lock);
}

/* Token i of a prompt has log probability -i; the likeliest is another where i is a multiple of 3. */
static void answer_scores(const faults *f, int fd, const char *body)
{
    bal_buf values = {0}, tops = {0}, reply = {0};
    size_t n = 1;
    const char *ids = strstr(body, "\"prompt\": [");
    for (const char *p = ids; p != NULL && *p != ']'; p++)
        n += *p == ',';
    for (size_t i = 0; i <= n; i++) {
        (void)bal_buf_printf(&values, i == 0 ? "null" : ", -%zu", i);
        (void)bal_buf_printf(&tops, i == 0 ? "null" : ", {\"a\": -%zu, \"b\": -%zu}", i, i % 3 == 0 ? i - 1 : i + 1);
    }
    (void)bal_buf_printf(
        &reply, "{\"choices\": [{\"text\": \"\", \"logprobs\": %s%s%s%s%s}], \"usage\": {\"prompt_tokens\": %zu}}",
        f->no_logprobs ? "null" : "{\"token_logprobs\": [", f->no_logprobs ? "" : bal_buf_cstr(&values),
        f->no_logprobs ? "" : "], \"top_logprobs\": [", f->no_logprobs ? "" : bal_buf_cstr(&tops),
        f->no_logprobs ? "" : "]}", n + (f->miscounts ? 1 : 0));
    loopback_reply(fd, 200, "", bal_buf_cstr(&reply));
    bal_buf_dispose(&values);
    bal_buf_dispose(&tops);
    bal_buf_dispose(&reply);
}

static void faulty(loopback *l, int fd, const char *head, const char *body)
{
    faults *f = l->context;
    if (strstr(head, "Bearer sk-served-secret") == NULL) {
        loopback_reply(fd, 401, "", "bad key");
    } else if (strstr(head, "GET /v1/models ") != NULL) {
        loopback_reply(fd, f->no_models ? 404 : 200, "",
                       f->other_models ? "{\"data\": [{\"id\": \"x\"}, {\"id\": \"y\"}]}"
                                       : "{\"data\": [{\"id\": \"m\"}]}");
    } else if (atomic_fetch_sub(&f->busy, 1) > 0) {
        loopback_reply(fd, 429, "Retry-After: 0\r\n", "busy");
    } else if (atomic_fetch_sub(&f->broken, 1) > 0) {
        loopback_reply(fd, 200, "", "{\"choices\": [");
    } else if (strstr(body, "\"echo\": true") != NULL) {
        if (f->refuses_echo)
            loopback_reply(fd, 400, "", "echo is not allowed");
        else
            answer_scores(f, fd, body);
    } else {
        atomic_fetch_add(&f->answered, 1);
        atomic_fetch_add(&f->with_stop, strstr(body, "\"stop\": [\"Q\", \"\\n\", \"ppp\", \"qqq\"]") != NULL);
        atomic_fetch_add(&f->with_messages, strstr(body, "\"messages\": [{\"role\": \"user\"") != NULL);
        note_seed(f, body);
        loopback_reply(
            fd, 200, "",
            strstr(head, "/chat/") != NULL
                ? "{\"choices\": [{\"message\": {\"content\": \"it is 513\"}, \"finish_reason\": \"length\"}]}"
                : "{\"choices\": [{\"text\": \"it is 513\", \"finish_reason\": \"length\"}], \"usage\": "
                  "{\"completion_tokens\": 4}}");
    }
}

static int ask(int port, const char *tasks, const char *const more[8], bal_buf *out)
{
    char url[64];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/v1/", port);
    const char *words[16] = {"--model", "openai:m", "--base-url",      url,        "--key-env", "SERVED_KEY",
                             "--tasks", tasks,      "--back-off=0.01", "--tries=3"};
    for (size_t i = 0; i < 6 && more != NULL && more[i] != NULL; i++)
        words[10 + i] = more[i];
    return run(words, out);
}

/* Tasks, a model for its tokenizer, and a server with these faults. */
static bool start_faulty(loopback *l, faults *f)
{
    char path[400];
    write_tasks();
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)snprintf(path, sizeof path, "%s/model", test_folder());
    return CHECK_OK(bal_embedded_write(path)) && CHECK(loopback_start(l, faulty, f));
}

TEST(servers_that_fail)
{
    static const char *const tokenizer[8] = {"--tokenizer", "model"}, *const chat[8] = {"--chat"};
    faults f = {.no_models = false};
    loopback l;
    bal_buf out = {0};
    if (!start_faulty(&l, &f))
        return;
    (void)setenv("SERVED_KEY", "wrong", 1);
    CHECK(ask(l.port, "text.json", NULL, &out) == 2 &&
          strstr(bal_buf_cstr(&out), "refuses the key (401); it came from SERVED_KEY") != NULL);
    CHECK(atomic_load(&l.requests) == 1);
    (void)setenv("SERVED_KEY", "sk-served-secret", 1);
    f.other_models = true;
    CHECK(ask(l.port, "text.json", NULL, &out) == 3 && strstr(bal_buf_cstr(&out), "no model 'm'; it has x, y") != NULL);
    f.other_models = false;
    /* refused before anything is sent */
    int before = atomic_load(&l.requests);
    CHECK(ask(l.port, "text.json,choice.json,whole.json", NULL, &out) == 2 &&
          strstr(bal_buf_cstr(&out), "choice, whole: ") != NULL && strstr(bal_buf_cstr(&out), "--tokenizer") != NULL);
    CHECK(ask(l.port, "text.json,choice.json", chat, &out) == 3 && strstr(bal_buf_cstr(&out), "choice: ") != NULL);
    CHECK(atomic_load(&l.requests) == before);
    /* no probabilities, or of other tokens: the task is named, one request was enough */
    f.no_logprobs = true;
    CHECK(ask(l.port, "choice.json", tokenizer, &out) == 3 &&
          strstr(bal_buf_cstr(&out), "task 'choice': the server gives no log probabilities") != NULL);
    f.no_logprobs = false;
    f.refuses_echo = true;
    CHECK(ask(l.port, "choice.json", tokenizer, &out) == 4 && strstr(bal_buf_cstr(&out), "task 'choice'") != NULL &&
          strstr(bal_buf_cstr(&out), "echo is not allowed") != NULL);
    f.refuses_echo = false;
    f.miscounts = true;
    CHECK(ask(l.port, "choice.json", tokenizer, &out) == 3 &&
          strstr(bal_buf_cstr(&out), "does not echo the prompt as it is") != NULL);
    f.miscounts = false;
    CHECK_MSG(atomic_load(&l.requests) == before + 6, "%d", atomic_load(&l.requests) - before);
    /* busy at first, then one reply is broken: the rest is kept, the same command asks for that one alone */
    atomic_store(&f.busy, 2);
    CHECK(ask(l.port, "text.json", NULL, &out) == 0);
    CHECK(atomic_load(&f.answered) == 5 && atomic_load(&f.with_stop) == 5);
    CHECK_MSG(strstr(bal_buf_cstr(&out), "5 requests sent") != NULL, "%s", bal_buf_cstr(&out));
    CHECK(ask(l.port, "text.json", NULL, &out) == 0 &&
          strstr(bal_buf_cstr(&out), "0 requests sent, 5 answered from the store") != NULL);
    CHECK(atomic_load(&f.answered) == 5);
    f.no_models = true;
    CHECK(ask(l.port, "text.json", chat, &out) == 0 && atomic_load(&f.answered) == 10 &&
          atomic_load(&f.with_messages) == 5);
    bal_buf_dispose(&out);
    loopback_stop(&l);
}

TEST(what_comes_back)
{
    static const char *const samples[8] = {"--log-samples", "there", "--tokenizer", "model"};
    faults f = {.no_models = false};
    loopback l;
    char path[400];
    cJSON *rows[64] = {NULL};
    size_t n = 0;
    bal_buf out = {0};
    if (!start_faulty(&l, &f))
        return;
    (void)setenv("SERVED_KEY", "sk-served-secret", 1);
    /* a reply that is broken after the first: counted, the others kept */
    const char *const one[8] = {"--log-samples", "there", "--limit", "1"};
    CHECK(ask(l.port, "text.json", one, &out) == 0);
    atomic_store(&f.broken, 1);
    const char *const again[8] = {"--log-samples", "there", "--at-once", "1"};
    CHECK_MSG(ask(l.port, "text.json", again, &out) == 4 &&
                  strstr(bal_buf_cstr(&out), "1 of 5 requests were not answered") != NULL,
              "%s", bal_buf_cstr(&out));
    CHECK(atomic_load(&f.answered) == 4);
    CHECK(ask(l.port, "text.json", again, &out) == 0 && atomic_load(&f.answered) == 5);
    CHECK_MSG(strstr(bal_buf_cstr(&out), "4 of 5 items are there already") != NULL, "%s", bal_buf_cstr(&out));
    /* cut at the stop that was not sent */
    if (read_lines("there/samples_text.jsonl", rows, &n)) {
        char *resps = cJSON_PrintUnformatted(bal_json_member(rows[0], "resps"));
        CHECK(n == 5 && strstr(resps, "it is 51") != NULL && strstr(resps, "513") == NULL);
        cJSON_free(resps);
    }
    for (size_t i = 0; i < n; i++)
        cJSON_Delete(rows[i]);
    /* another seed for each answer of each item */
    CHECK(ask(l.port, "sampled.json", samples, &out) == 0);
    CHECK(f.n_seeds == 10);
    for (size_t i = 0; i < f.n_seeds; i++)
        for (size_t k = 0; k < i; k++)
            CHECK(f.seed[i] != f.seed[k]);
    /* sums over the continuation, and whether each token was the likeliest */
    CHECK(ask(l.port, "choice.json", samples, &out) == 0);
    memset(rows, 0, sizeof rows);
    if (read_lines("there/samples_choice.jsonl", rows, &n)) {
        const cJSON *first = cJSON_GetArrayItem(cJSON_GetArrayItem(bal_json_member(rows[0], "resps"), 0), 0);
        double ll = strtod(cJSON_GetArrayItem(first, 0)->valuestring, NULL);
        CHECK_MSG(ll < 0 && ll == (double)(long)ll, "%g", ll);
    }
    for (size_t i = 0; i < n; i++)
        cJSON_Delete(rows[i]);
    /* no key anywhere */
    bal_buf database = {0};
    (void)snprintf(path, sizeof path, "%s/runs.db", test_folder());
    CHECK_OK(bal_file_read(path, 1 << 28, &database));
    CHECK(memmem(bal_buf_cstr(&database), database.len, "sk-served-secret", 16) == NULL &&
          strstr(bal_buf_cstr(&out), "sk-served") == NULL);
    bal_buf_dispose(&database);
    bal_buf_dispose(&out);
    loopback_stop(&l);
}
