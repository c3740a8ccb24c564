/* balora serve: answers of many clients at once are the bits that `balora evaluate --requests` gives; adapters by name;
 * streams; bad requests, bounds, keys, clients that go, and the end.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/peft.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/data/embedded.h"
#include "lib/io/json.h"
#include "lib/model/bundle.h"
#include "lib/net/http.h"
#include "tests/program.h"
#include "tests/test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct running {
    pid_t pid;
    int port;
    char url[64], out[300], err[300], model[300];
} running;

/* Starts balora serve on the embedded model, with two more options. */
static bool start(running *r, const char *const more[8])
{
    const char *words[32] = {"balora", "serve",        "--model", r->model,    "--port",
                             "0",      "--max-length", "200",     "--threads", "2"};
    size_t n = 10;
    bal_buf text = {0};
    (void)snprintf(r->model, sizeof r->model, "%s/base", test_folder());
    (void)snprintf(r->out, sizeof r->out, "%s/serve.out", test_folder());
    (void)snprintf(r->err, sizeof r->err, "%s/serve.err", test_folder());
    if (!CHECK_OK(bal_embedded_write(r->model)))
        return false;
    for (size_t i = 0; more != NULL && i < 8 && more[i] != NULL; i++)
        words[n++] = more[i];
    (void)unlink(r->out);
    r->pid = test_start(NULL, words, r->out, r->err);
    for (int i = 0; i < 6000; i++) {
        bal_buf_clear(&text);
        const char *colon = NULL;
        if (bal_file_read(r->out, 1000, &text) == BAL_OK)
            colon = strstr(bal_buf_cstr(&text), "http://127.0.0.1:");
        if (colon != NULL && strchr(colon, '\n') != NULL) {
            r->port = (int)strtol(colon + 17, NULL, 10);
            break;
        }
        (void)usleep(20000);
    }
    (void)snprintf(r->url, sizeof r->url, "http://127.0.0.1:%d", r->port);
    bal_buf_dispose(&text);
    if (r->port == 0)
        (void)kill(r->pid, SIGKILL);
    return CHECK(r->port > 0);
}

static int stop(const running *r)
{
    (void)kill(r->pid, SIGINT);
    return test_wait(r->pid);
}

/* One request by our own client; the reply as JSON (NULL for none). */
static long ask(const running *r, const char *page, const char *body, const char *key, cJSON **json)
{
    const bal_http_options o = {.tries = 1, .key = key, .key_name = "K", .seconds = 60};
    bal_http *h = NULL;
    bal_http_reply reply = {0};
    char url[200];
    (void)snprintf(url, sizeof url, "%s%s", r->url, page);
    const bal_http_request q = {url, body};
    if (json != NULL)
        *json = NULL;
    if (!CHECK_OK(bal_http_open(&h, &o)))
        return 0;
    (void)bal_http_send(h, &q, &reply);
    cJSON *parsed = NULL;
    (void)bal_json_parse(&parsed, bal_buf_cstr(&reply.body), reply.body.len, "reply");
    if (json != NULL)
        *json = parsed;
    else
        cJSON_Delete(parsed);
    long code = reply.code;
    bal_http_reply_dispose(&reply);
    bal_http_close(h);
    return code;
}

static const cJSON *at(const cJSON *j, const char *path)
{
    char name[64];
    while (j != NULL && *path != '\0') {
        size_t n = strcspn(path, ".");
        (void)snprintf(name, sizeof name, "%.*s", (int)n, path);
        path += n + (path[n] == '.');
        j = cJSON_IsArray(j) ? cJSON_GetArrayItem(j, (int)strtol(name, NULL, 10)) : bal_json_member(j, name);
    }
    return j;
}

static const char *text_at(const cJSON *j, const char *path)
{
    const cJSON *v = at(j, path);
    return cJSON_IsString(v) ? v->valuestring : "(none)";
}

/* Bytes sent as they are; what comes back until the server closes or `most` bytes are there.  Returns the code. */
static int raw(const running *r, const char *bytes, size_t n, char *reply, size_t most)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)r->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t used = 0;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (!CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0))
        return 0;
    for (size_t sent = 0; sent < n;) {
        ssize_t k = send(fd, bytes + sent, n - sent, MSG_NOSIGNAL);
        if (k <= 0)
            break;
        sent += (size_t)k;
    }
    for (ssize_t k; used + 1 < most && (k = recv(fd, reply + used, most - 1 - used, 0)) > 0;)
        used += (size_t)k;
    reply[used] = '\0';
    (void)close(fd);
    return strncmp(reply, "HTTP/1.1 ", 9) == 0 ? (int)strtol(reply + 9, NULL, 10) : 0;
}

/* --- the same bits --- */

enum { N = 40 };
static const char *const k_words[] = {"Ann has 3 apples", "Question: 2 + 5", "the",      "Tom buys",
                                      "12 - 7 =",         "Answer: ",        "How many", "7"};

static void prompt_of(size_t i, char out[200])
{
    (void)snprintf(out, 200, "%s and %s%s", k_words[i % 8], k_words[(i / 3 + 1) % 8], i % 5 == 0 ? ".\\n" : "");
}

static bool write_adapter(const char *folder, const char *model, uint64_t seed)
{
    char all[] = "all-linear", *targets[] = {all};
    bal_adapter_config c = {.r = 3, .lora_alpha = 6, .init = "lora", .target_modules = targets, .n_target_modules = 1};
    bal_adapter *a = NULL;
    bal_model *m = NULL;
    bal_rng r;
    bal_rng_init(&r, seed, "adapter");
    if (!CHECK_OK(bal_model_load(&m, model)) || !CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, false)))
        return false;
    for (size_t i = 0; i < a->params.n; i++)
        a->params.values[i] += (real_t)(0.05 * bal_rng_normal(&r));
    bool ok = CHECK_OK(bal_adapter_save(a, folder));
    bal_adapter_free(a);
    bal_model_free(m);
    return ok;
}

/* The lines of balora evaluate --requests for all requests. */
static bool evaluate(const running *r, const char *adapter, cJSON *lines[2 * N])
{
    char in[300], out[300], prompt[200];
    bal_buf text = {0};
    (void)snprintf(in, sizeof in, "%s/in.jsonl", test_folder());
    (void)snprintf(out, sizeof out, "%s/answers.jsonl", test_folder());
    for (size_t i = 0; i < N; i++) {
        prompt_of(i, prompt);
        CHECK_OK(bal_buf_printf(&text, "{\"prompt\": \"%s\", \"max_new_tokens\": %zu, \"until\": [\"9\"]}\n", prompt,
                                1 + i % 12));
    }
    for (size_t i = 0; i < N; i++) {
        prompt_of(i, prompt);
        CHECK_OK(bal_buf_printf(&text, "{\"context\": \"%s\", \"continuation\": \" is 5\"}\n", prompt));
    }
    CHECK_OK(bal_file_replace(in, text.data, text.len));
    const char *const words[] = {
        "balora", "evaluate", "--model", r->model, "--requests", in, "--out", out, adapter != NULL ? "--adapter" : "-q",
        adapter,  NULL};
    bool ok = CHECK(test_wait(test_start(NULL, words, "/dev/null", "/dev/null")) == 0);
    bal_buf_clear(&text);
    ok = ok && CHECK_OK(bal_file_read(out, 1 << 24, &text));
    const char *p = bal_buf_cstr(&text);
    for (size_t i = 0; ok && i < 2 * N; i++) {
        size_t n = strcspn(p, "\n");
        ok = CHECK_OK(bal_json_parse(&lines[i], p, n, "answer"));
        p += n + 1;
    }
    bal_buf_dispose(&text);
    return ok;
}

/* Sum of the last n log probabilities before the one generated token. */
static double sum_of(const cJSON *values, int n)
{
    int all = cJSON_GetArraySize(values) - 1;
    double sum = 0;
    for (int i = all - n; i < all; i++)
        sum += cJSON_GetArrayItem(values, i)->valuedouble;
    return sum;
}

static void same_as_evaluate(const running *r, const char *model, const char *adapter)
{
    static cJSON *lines[2 * N];
    bal_buf bodies[2 * N];
    bal_http_request requests[2 * N];
    bal_http_reply replies[2 * N];
    const bal_http_options o = {.tries = 1, .at_once = 24};
    bal_http *h = NULL;
    char prompt[200], url[100];
    memset(bodies, 0, sizeof bodies);
    memset(replies, 0, sizeof replies);
    (void)snprintf(url, sizeof url, "%s/v1/completions", r->url);
    for (size_t i = 0; i < 2 * N; i++) {
        prompt_of(i % N, prompt);
        CHECK_OK(bal_buf_printf(&bodies[i], "{\"model\": \"%s\", \"temperature\": 0, \"prompt\": \"%s", model, prompt));
        if (i < N)
            CHECK_OK(bal_buf_printf(&bodies[i], "\", \"max_tokens\": %zu, \"stop\": \"9\"}", 1 + i % 12));
        else
            CHECK_OK(bal_buf_text(&bodies[i], " is 5\", \"max_tokens\": 1, \"echo\": true, \"logprobs\": 1}"));
        requests[i] = (bal_http_request){url, bal_buf_cstr(&bodies[i])};
    }
    if (!evaluate(r, adapter, lines) || !CHECK_OK(bal_http_open(&h, &o)))
        return;
    CHECK_OK(bal_http_send_all(h, requests, 2 * N, replies, NULL, NULL));
    for (size_t i = 0; i < 2 * N; i++) {
        cJSON *json = NULL;
        if (!CHECK_MSG(replies[i].status == BAL_OK, "%s", replies[i].message) ||
            !CHECK_OK(bal_json_parse(&json, bal_buf_cstr(&replies[i].body), replies[i].body.len, "reply")))
            continue;
        if (i < N) {
            CHECK_TEXT(text_at(json, "choices.0.text"), text_at(lines[i], "text"));
            CHECK_TEXT(text_at(json, "choices.0.finish_reason"), text_at(lines[i], "finish_reason"));
            CHECK(at(json, "usage.completion_tokens")->valuedouble == cJSON_GetArraySize(at(lines[i], "ids")));
        } else {
            int n = (int)at(lines[i], "tokens")->valuedouble;
            CHECK(sum_of(at(json, "choices.0.logprobs.token_logprobs"), n) ==
                  at(lines[i], "loglikelihood")->valuedouble);
        }
        CHECK_TEXT(text_at(json, "model"), model);
        cJSON_Delete(json);
    }
    for (size_t i = 0; i < 2 * N; i++) {
        cJSON_Delete(lines[i]);
        bal_buf_dispose(&bodies[i]);
        bal_http_reply_dispose(&replies[i]);
    }
    bal_http_close(h);
}

TEST(same_bits_as_evaluate)
{
    running r = {0};
    char one[300], two[300], first[320], second[320];
    (void)snprintf(r.model, sizeof r.model, "%s/base", test_folder());
    (void)snprintf(one, sizeof one, "%s/one", test_folder());
    (void)snprintf(two, sizeof two, "%s/two", test_folder());
    (void)snprintf(first, sizeof first, "a=%s", one);
    (void)snprintf(second, sizeof second, "b=%s", two);
    if (!CHECK_OK(bal_embedded_write(r.model)) || !write_adapter(one, r.model, 1) || !write_adapter(two, r.model, 2))
        return;
    const char *const more[8] = {"--adapter", first, "--adapter", second, "--batch-size", "5"};
    if (!start(&r, more))
        return;
    same_as_evaluate(&r, "base", NULL);
    same_as_evaluate(&r, "a", one);
    same_as_evaluate(&r, "b", two);
    cJSON *json = NULL;
    CHECK(ask(&r, "/v1/models", NULL, NULL, &json) == 200);
    CHECK_TEXT(text_at(json, "data.0.id"), "base");
    CHECK_TEXT(text_at(json, "data.2.id"), "b");
    CHECK_TEXT(text_at(json, "data.2.parent"), "base");
    cJSON_Delete(json);
    CHECK(stop(&r) == 0);
}

/* --- forms --- */

/* The texts of the events of a stream, put together, and the last finish_reason. */
static void read_events(const char *body, bool chat, bal_buf *text, char reason[16], size_t *n_tokens)
{
    *n_tokens = 0;
    for (const char *p = strstr(body, "data: {"); p != NULL; p = strstr(p + 1, "data: {")) {
        cJSON *json = NULL;
        if (!CHECK_OK(bal_json_parse(&json, p + 6, strcspn(p + 6, "\n"), "event")))
            continue;
        const cJSON *piece = at(json, chat ? "choices.0.delta.content" : "choices.0.text"),
                    *why = at(json, "choices.0.finish_reason");
        if (cJSON_IsString(piece))
            CHECK_OK(bal_buf_text(text, piece->valuestring));
        if (cJSON_IsString(why))
            (void)snprintf(reason, 16, "%.15s", why->valuestring);
        *n_tokens +=
            (size_t)cJSON_GetArraySize(at(json, chat ? "choices.0.logprobs.content" : "choices.0.logprobs.tokens"));
        cJSON_Delete(json);
    }
}

TEST(streams_and_choices)
{
    static const struct {
        const char *page, *body;
        bool chat;
    } cases[] = {
        {"/v1/completions", "\"prompt\": \"Ann has 3 apples\", \"max_tokens\": 30, \"stop\": [\"ppl\", \"12\"]", false},
        {"/v1/completions", "\"prompt\": \"Ann has\", \"max_tokens\": 9, \"echo\": true, \"logprobs\": 2, \"seed\": 5",
         false},
        {"/v1/completions", "\"prompt\": [5, 9, 11], \"max_tokens\": 25, \"logprobs\": 0, \"ignore_eos\": true", false},
        {"/v1/chat/completions",
         "\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"2 + 3\"}]}], "
         "\"max_tokens\": 20, \"logprobs\": true, \"top_logprobs\": 3, \"seed\": 8",
         true}};
    running r = {0};
    if (!start(&r, NULL))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[700], request[1200], reply[60000], reason[16] = "";
        cJSON *json = NULL;
        bal_buf text = {0};
        size_t n_tokens = 0;
        (void)snprintf(body, sizeof body, "{\"model\": \"base\", \"seed\": 1, %s}", cases[i].body);
        if (strstr(cases[i].body, "seed") != NULL)
            (void)snprintf(body, sizeof body, "{\"model\": \"base\", %s}", cases[i].body);
        if (!CHECK_MSG(ask(&r, cases[i].page, body, NULL, &json) == 200, "%s", text_at(json, "error.message")))
            continue;
        (void)snprintf(body + strlen(body) - 1, 100,
                       ", \"stream\": true, \"stream_options\": {\"include_usage\": true}}");
        (void)snprintf(request, sizeof request,
                       "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                       cases[i].page, strlen(body), body);
        CHECK(raw(&r, request, strlen(request), reply, sizeof reply) == 200);
        read_events(reply, cases[i].chat, &text, reason, &n_tokens);
        CHECK_TEXT(bal_buf_cstr(&text), text_at(json, cases[i].chat ? "choices.0.message.content" : "choices.0.text"));
        CHECK_TEXT(reason, text_at(json, "choices.0.finish_reason"));
        CHECK(n_tokens == (size_t)cJSON_GetArraySize(
                              at(json, cases[i].chat ? "choices.0.logprobs.content" : "choices.0.logprobs.tokens")));
        CHECK(strstr(reply, "data: [DONE]") != NULL && strstr(reply, "\"usage\": {\"prompt_tokens\": ") != NULL);
        cJSON_Delete(json);
        bal_buf_dispose(&text);
    }
    /* several prompts, several answers each: the seed decides, not the place */
    cJSON *json = NULL;
    CHECK(ask(&r, "/v1/completions",
              "{\"model\": \"base\", \"prompt\": [\"Tom\", \"Ann\", \"Tom\"], \"n\": 2, \"seed\": 3, \"temperature\": "
              "2, \"max_tokens\": 12}",
              NULL, &json) == 200);
    CHECK(cJSON_GetArraySize(at(json, "choices")) == 6 && at(json, "choices.5.index")->valuedouble == 5);
    CHECK_TEXT(text_at(json, "choices.4.text"), text_at(json, "choices.0.text"));
    CHECK_TEXT(text_at(json, "choices.5.text"), text_at(json, "choices.1.text"));
    CHECK(strcmp(text_at(json, "choices.0.text"), text_at(json, "choices.1.text")) != 0);
    CHECK(strcmp(text_at(json, "choices.0.text"), text_at(json, "choices.2.text")) != 0);
    cJSON_Delete(json);
    /* the tokens spell the text, and stand where they say */
    CHECK(ask(&r, "/v1/completions",
              "{\"model\": \"base\", \"prompt\": \"Ann \\u00e9 3\", \"echo\": true, \"logprobs\": 4, \"max_tokens\": "
              "8, \"temperature\": 0}",
              NULL, &json) == 200);
    const char *text = text_at(json, "choices.0.text");
    bal_buf spelt = {0};
    const cJSON *tokens = at(json, "choices.0.logprobs.tokens"), *token = NULL;
    cJSON_ArrayForEach(token, tokens) CHECK_OK(bal_buf_text(&spelt, token->valuestring));
    CHECK_MSG(bal_starts_with(bal_buf_cstr(&spelt), text), "%s: %s", text, bal_buf_cstr(&spelt));
    CHECK(cJSON_IsNull(at(json, "choices.0.logprobs.token_logprobs")->child) &&
          cJSON_IsNull(at(json, "choices.0.logprobs.top_logprobs")->child));
    CHECK(cJSON_GetArraySize(tokens) == cJSON_GetArraySize(at(json, "choices.0.logprobs.text_offset")));
    CHECK(cJSON_GetArraySize(at(json, "choices.0.logprobs.top_logprobs.3")) >= 4);
    bal_buf_dispose(&spelt);
    cJSON_Delete(json);
    CHECK(stop(&r) == 0);
}

/* --- what is refused --- */

TEST(refusals)
{
    static const struct {
        const char *page, *body;
        int code;
        const char *says;
    } cases[] = {
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": ", 400, "not valid JSON"},
        {"/v1/completions", "[1]", 400, "must be a JSON object"},
        {"/v1/completions", "", 400, NULL},
        {"/v1/completions", "{\"prompt\": \"x\"}", 400, "'model' is missing"},
        {"/v1/completions", "{\"model\": \"other\", \"prompt\": \"x\"}", 404, "'other' is not served here"},
        {"/v1/completions", "{\"model\": \"base\"}", 400, "'prompt' must be"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": {}}", 400, "'prompt' must be"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": []}", 400, "is empty"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": [[1], \"x\"]}", 200, NULL},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": [[1], 5]}", 400, "list of texts or of lists"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": [1, 99999]}", 400, "token ids below"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": [-1]}", 400, "token ids below"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": [1.5]}", 400, "token ids below"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"max_tokens\": -4}", 400, "max_tokens"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"max_tokens\": 1.5}", 400, "max_tokens"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"max_tokens\": 100000}", 400, "at most"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"max_tokens\": 200}", 400,
         "the context holds 200"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"temperature\": \"hot\"}", 400, "temperature"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"temperature\": -1}", 400, "temperature"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"top_p\": 2}", 400, "top_p"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"n\": 0}", 400, "'n'"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"logprobs\": 21}", 400, "logprobs"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"stop\": [1]}", 400, "'stop'"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"stop\": \"\"}", 400, "'stop'"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"presence_penalty\": 1}", 400, "not supported"},
        {"/v1/completions",
         "{\"model\": \"base\", \"prompt\": \"x\", \"presence_penalty\": 0, \"logit_bias\": {}, \"best_of\": 1, "
         "\"suffix\": null, \"user\": \"u\"}",
         200, NULL},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"max_token\": 1}", 400,
         "'max_token' is not known"},
        {"/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"max_tokens\": 0}", 200, NULL},
        {"/v1/completions", "{\"model\": \"base\", \"model\": \"base\", \"prompt\": \"x\"}", 400, "model"},
        {"/v1/chat/completions", "{\"model\": \"base\", \"messages\": []}", 400, "'messages' must be"},
        {"/v1/chat/completions", "{\"model\": \"base\", \"messages\": [{\"role\": \"user\"}]}", 400, "'content'"},
        {"/v1/chat/completions", "{\"model\": \"base\", \"messages\": [{\"content\": \"x\"}]}", 400, "'role'"},
        {"/v1/chat/completions",
         "{\"model\": \"base\", \"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}", 400,
         "type 'text'"},
        {"/v1/chat/completions",
         "{\"model\": \"base\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"top_logprobs\": 2}", 400,
         "needs 'logprobs'"},
        {"/v1/chat/completions",
         "{\"model\": \"base\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"tools\": [{}]}", 400,
         "not supported"},
        {"/v1/chat/completions",
         "{\"model\": \"base\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"response_format\": "
         "{\"type\": \"json_object\"}}",
         400, "response_format"},
        {"/v1/nothing", "{}", 404, "no such page"},
        {"/v1/../etc/passwd", NULL, 404, NULL},
        {"/v1/models", "{}", 405, "takes GET"},
        {"/v1/completions", NULL, 405, "takes POST"},
        {"/v1/models/none", NULL, 404, "not served here"},
        {"/v1/models/base", NULL, 200, NULL},
        {"/health", NULL, 200, NULL},
    };
    running r = {0};
    bal_buf body = {0}, log = {0};
    if (!start(&r, NULL))
        return;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cJSON *json = NULL;
        long code = ask(&r, cases[i].page, cases[i].body, NULL, &json);
        const char *says = text_at(json, "error.message");
        CHECK_MSG(code == cases[i].code, "%s: %ld: %s", cases[i].body, code, says);
        CHECK_MSG(code == 200 || (strcmp(text_at(json, "error.type"), "invalid_request_error") == 0 &&
                                  (cases[i].says == NULL || strstr(says, cases[i].says) != NULL)),
                  "%s: %s", cases[i].body, says);
        cJSON_Delete(json);
    }
    /* deep and long bodies */
    for (size_t i = 0; i < 200000; i++)
        CHECK_OK(bal_buf_text(&body, "["));
    CHECK(ask(&r, "/v1/completions", body.data, NULL, NULL) == 400);
    bal_buf_clear(&body);
    CHECK_OK(bal_buf_text(&body, "{\"model\": \"base\", \"prompt\": \""));
    for (size_t i = 0; i < 100000; i++)
        CHECK_OK(bal_buf_text(&body, "word "));
    CHECK_OK(bal_buf_text(&body, "\"}"));
    CHECK(ask(&r, "/v1/completions", body.data, NULL, NULL) == 400); /* longer than the context */
    CHECK(ask(&r, "/health", NULL, NULL, NULL) == 200);
    CHECK(stop(&r) == 0);
    CHECK_OK(bal_file_read(r.err, 1 << 24, &log));
    CHECK(strstr(bal_buf_cstr(&log), "POST /v1/completions 400 base") != NULL);
    CHECK(strstr(bal_buf_cstr(&log), "word") == NULL && strstr(bal_buf_cstr(&log), "prompt") == NULL); /* no bodies */
    bal_buf_dispose(&log);
    bal_buf_dispose(&body);
}

/* --- bounds, keys, clients that go --- */

typedef struct slow {
    const running *r;
    long code;
    const char *body;
} slow;

static void *ask_slowly(void *context)
{
    slow *s = context;
    do
        s->code = ask(s->r, "/v1/completions", s->body, "sk-serve-secret", NULL);
    while (s->code == 429);
    return NULL;
}

TEST(bounds_and_keys)
{
    static const char endless[] =
        "{\"model\": \"base\", \"prompt\": \"x\", \"max_tokens\": 190, \"ignore_eos\": true, \"n\": 3}";
    const char *const more[8] = {"--max-waiting",   "4", "--max-body-kib", "4", "--api-key-env", "BALORA_TEST_KEY",
                                 "--idle-timeout=1"};
    running r = {0};
    char reply[4000], request[9000];
    bal_buf log = {0};
    (void)setenv("BALORA_TEST_KEY", "sk-serve-secret", 1);
    if (!start(&r, more))
        return;
    CHECK(ask(&r, "/health", NULL, NULL, NULL) == 200);
    CHECK(ask(&r, "/v1/models", NULL, NULL, NULL) == 401 &&
          ask(&r, "/v1/models", NULL, "sk-serve-secreT", NULL) == 401);
    CHECK(ask(&r, "/v1/models", NULL, "sk-serve-secret", NULL) == 200);
    CHECK(ask(&r, "/v1/completions", endless, NULL, NULL) == 401);
    /* too much at once, and too much with what others want */
    CHECK(ask(&r, "/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"n\": 5}", "sk-serve-secret", NULL) ==
          400);
    slow first = {&r, 0, endless};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, ask_slowly, &first) == 0);
    long second = 0;
    for (int i = 0; i < 200 && second != 429; i++) /* until the first is at work */
        second = ask(&r, "/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"n\": 2, \"max_tokens\": 1}",
                     "sk-serve-secret", NULL);
    (void)pthread_join(thread, NULL);
    CHECK_MSG(second == 429 && first.code == 200, "%ld, %ld", second, first.code);
    /* bodies that are too large: said before, and in pieces without a length */
    static const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
                               "sk-serve-secret\r\nConnection: close\r\n";
    (void)snprintf(request, sizeof request, "%sContent-Length: 4000000000\r\n\r\n{", head);
    CHECK(raw(&r, request, strlen(request), reply, sizeof reply) == 413 && strstr(reply, "at most 4096 bytes") != NULL);
    int n = snprintf(request, sizeof request, "%sTransfer-Encoding: chunked\r\n\r\n1800\r\n", head);
    memset(request + n, ' ', 0x1800);
    (void)snprintf(request + n + 0x1800, 20, "\r\n0\r\n\r\n");
    CHECK(raw(&r, request, (size_t)n + 0x1800 + 7, reply, sizeof reply) == 413);
    /* half a request: the connection is closed, the others are served meanwhile */
    (void)snprintf(request, sizeof request, "%sContent-Length: 50\r\n\r\n{\"mod", head);
    (void)raw(&r, request, strlen(request), reply, sizeof reply);
    CHECK(ask(&r, "/health", NULL, NULL, NULL) == 200);
    CHECK(raw(&r, "\x16\x03\x01 no HTTP\r\n\r\n", 15, reply, sizeof reply) != 200);
    /* without a host of its own, a page of the web could read what is here: with a key that is no danger */
    static const char foreign[] = "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    CHECK(raw(&r, foreign, sizeof foreign - 1, reply, sizeof reply) == 200);
    CHECK(stop(&r) == 0);
    CHECK_OK(bal_file_read(r.err, 1 << 24, &log));
    CHECK(strstr(bal_buf_cstr(&log), "secre") == NULL && strstr(bal_buf_cstr(&log), " 429 base") != NULL);
    bal_buf_dispose(&log);
    const char *const none[8] = {NULL};
    if (!start(&r, none))
        return;
    CHECK(raw(&r, foreign, sizeof foreign - 1, reply, sizeof reply) == 403);
    CHECK(stop(&r) == 0);
}

/* A client that goes leaves its place; at the end whoever waits is told. */
TEST(going)
{
    static const char body[] =
        "{\"model\": \"base\", \"prompt\": \"x\", \"max_tokens\": 190, \"ignore_eos\": true, \"n\": 100}";
    running r = {0};
    bal_buf log = {0};
    if (!start(&r, NULL))
        return;
    for (int stream = 0; stream < 2; stream++) {
        struct sockaddr_in a = {
            .sin_family = AF_INET, .sin_port = htons((uint16_t)r.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        char request[600], some[10];
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
        int n = snprintf(request, sizeof request,
                         "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n%.*s%s",
                         sizeof body - 2 + (stream ? 17 : 1), (int)sizeof body - 2, body,
                         stream ? ", \"stream\": true}" : "}");
        CHECK(send(fd, request, (size_t)n, MSG_NOSIGNAL) == n);
        if (stream)
            CHECK(recv(fd, some, sizeof some, 0) > 0);
        (void)usleep(50000);
        (void)close(fd);
    }
    long code = 429; /* 2 x 100 of 256 places were taken: 200 are free only when both are gone */
    for (int i = 0; i < 100 && code == 429; i++)
        code = ask(&r, "/v1/completions", "{\"model\": \"base\", \"prompt\": \"x\", \"n\": 128, \"max_tokens\": 1}",
                   NULL, NULL);
    CHECK(code == 200);
    slow last = {&r, 0, body};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, ask_slowly, &last) == 0);
    (void)usleep(100000);
    CHECK(stop(&r) == 0);
    (void)pthread_join(thread, NULL);
    CHECK_MSG(last.code == 503 || last.code == 200, "%ld", last.code);
    CHECK_OK(bal_file_read(r.err, 1 << 24, &log));
    const char *gone = strstr(bal_buf_cstr(&log), " 499 base");
    CHECK(gone != NULL && strstr(gone + 1, " 499 base") != NULL);
    bal_buf_dispose(&log);
}
