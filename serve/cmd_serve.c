/* balora serve.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/model/pack.h"
#include "serve/serve.h"
#include "tools/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(FIELD) offsetof(serve_config, FIELD)
static const bal_option k_options[] = {
    {"model", 'm', BAL_OPTION_PATH, AT(model), NULL, 0, 0, NULL, NULL, "Model", "Hugging Face folder or GGUF file"},
    {"name", 0, BAL_OPTION_TEXT, AT(name), NULL, 0, 0, NULL, NULL, "Model",
     "what requests call the base model (default: the file's or folder's name)"},
    {"adapter", 'a', BAL_OPTION_LIST, AT(adapter), NULL, 0, 0, NULL, NULL, "Model",
     "NAME=DIR: an adapter over it, chosen by the request's model; may be given several times"},
    {"tokenizer", 0, BAL_OPTION_PATH, AT(tokenizer), NULL, 0, 0, NULL, NULL, "Model",
     "tokenizer.json, its folder or a GGUF file (default: the model's)"},
    {"host", 0, BAL_OPTION_TEXT, AT(host), "127.0.0.1", 0, 0, NULL, NULL, "Server",
     "address to listen at; one that other machines reach needs --api-key-env"},
    {"port", 0, BAL_OPTION_INT, AT(port), "8080", 0, 65535, NULL, NULL, "Server", "0: any that is free"},
    {"api_key_env", 0, BAL_OPTION_TEXT, AT(api_key_env), NULL, 0, 0, NULL, NULL, "Server",
     "environment variable with the key that requests must bring"},
    {"max_length", 0, BAL_OPTION_INT, AT(max_length), "4096", 16, 1e7, NULL, NULL, "Bounds",
     "most tokens of prompt and answer (never more than the model's context)"},
    {"max_tokens", 0, BAL_OPTION_INT, AT(max_tokens), "2048", 1, 1e7, NULL, NULL, "Bounds", "most tokens of an answer"},
    {"max_waiting", 0, BAL_OPTION_INT, AT(max_waiting), "256", 1, 65536, NULL, NULL, "Bounds",
     "most answers in the making or waited for; more are refused (429)"},
    {"max_body_kib", 0, BAL_OPTION_INT, AT(max_body_kib), "4096", 1, 65536, NULL, NULL, "Bounds", "of a request (413)"},
    {"connections", 0, BAL_OPTION_INT, AT(connections), "128", 1, 4096, NULL, NULL, "Bounds", "at a time"},
    {"idle_timeout", 0, BAL_OPTION_INT, AT(idle_timeout), "30", 1, 3600, NULL, NULL, "Bounds",
     "seconds after which a connection that says nothing is closed"},
    {"answer_timeout", 0, BAL_OPTION_INT, AT(answer_timeout), "600", 1, 86400, NULL, NULL, "Bounds",
     "seconds for an answer, waiting included (503)"},
    {"batch_size", 'b', BAL_OPTION_INT, AT(batch_size), "0", 0, 128, NULL, NULL, "Speed",
     "most sequences of a model at a time; 0: as memory allows, at most 32 (changes no result)"},
    {"cache_mib", 0, BAL_OPTION_INT, AT(cache_mib), "0", 0, 1048576, NULL, NULL, "Speed",
     "memory for keys and values of all models; 0: a quarter of what is free, at most 2048"},
};

static const bal_command k_command = {
    .name = "serve",
    .usage = "--model PATH [--adapter NAME=DIR ...] [--port N] [options]",
    .summary = "an OpenAI-compatible server for a model and its adapters",
    .description =
        "  balora serve --model M --adapter mine=runs/ba-lora --port 8080\n"
        "  curl http://127.0.0.1:8080/v1/chat/completions -d '{\"model\": \"mine\", \"messages\": [...]}'\n"
        "/v1/models, /v1/completions (echo, logprobs, n, stop, seed, stream), /v1/chat/completions, /health.\n"
        "Answers of all clients are made together, and are the same bits as `balora evaluate --requests` gives.\n"
        "Prints its address on standard output, a line for each request on standard error.  Ctrl-C ends it (status 0).",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
};

/* The last part of a path, without .gguf. */
static char *base_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t from = n;
    while (from > 0 && path[from - 1] != '/')
        from--;
    if (n - from > 5 && strncmp(path + n - 5, ".gguf", 5) == 0)
        n -= 5;
    return bal_strndup(path + from, n - from);
}

static bal_status add_adapter(server *s, const char *given)
{
    served *m = &s->models[s->n_models];
    const char *equals = strchr(given, '=');
    char note[256] = "";
    bal_status status;
    if (equals == NULL || equals == given || equals[1] == '\0')
        return bal_fail(BAL_EINVAL, "--adapter must be NAME=DIR, not '%.100s'", given);
    m->name = bal_strndup(given, (size_t)(equals - given));
    if (m->name == NULL)
        return BAL_ENOMEM;
    s->n_models++;
    for (size_t i = 0; i + 1 < s->n_models; i++)
        if (strcmp(s->models[i].name, m->name) == 0)
            return bal_fail(BAL_EINVAL, "two models are called '%.100s'", m->name);
    const bal_model *base = s->base.model;
    BAL_TRY(bal_model_load_base(s->base.model, equals + 1, NULL, 0));
    BAL_TRY(bal_adapter_load(&m->adapter, equals + 1, NULL, base->modules, base->n_modules, false, note, sizeof note));
    if (note[0] != '\0')
        bal_log_line(&s->common->log, BAL_LOG_INFO, "%s: %s", m->name, note);
    status = bal_model_share(&m->model, base, m->adapter);
out:
    return status;
}

static bal_status load(server *s)
{
    const serve_config *c = s->c;
    bal_status status;
    BAL_TRY(bal_bundle_load(&s->base, c->model, NULL, NULL, c->tokenizer));
    BAL_TRY(bal_bundle_need_tokenizer(&s->base));
    s->models = bal_alloc(c->adapter.n + 1, sizeof *s->models);
    if (s->models == NULL)
        return BAL_ENOMEM;
    s->models[0] =
        (served){.name = c->name != NULL ? bal_strdup(c->name) : base_name(c->model), .model = s->base.model};
    s->n_models = 1;
    BAL_TRY(s->models[0].name == NULL ? BAL_ENOMEM : BAL_OK);
    for (size_t i = 0; i < c->adapter.n; i++)
        BAL_TRY(add_adapter(s, c->adapter.items[i]));
    status = serve_open_engines(s);
out:
    return status;
}

static void unload(server *s)
{
    serve_close_engines(s);
    for (size_t i = 0; s->models != NULL && i < s->n_models; i++) {
        if (i > 0)
            bal_model_free(s->models[i].model);
        bal_adapter_free(s->models[i].adapter);
        bal_free(s->models[i].name);
    }
    bal_free(s->models);
    bal_bundle_dispose(&s->base);
}

static bal_status announce(const server *s, int port)
{
    const char *brackets = strchr(s->c->host, ':') != NULL ? "[]" : "";
    bal_buf out = {0};
    bool first = true;
    bal_status status;
    char url[100];
    (void)snprintf(url, sizeof url, "http://%.1s%s%s:%d/v1", brackets, s->c->host, brackets[0] != '\0' ? "]" : "",
                   port);
    if (s->common->json) {
        BAL_TRY(bal_buf_text(&out, "{"));
        BAL_TRY(bal_json_put_key(&out, "url", &first));
        BAL_TRY(bal_json_put_text(&out, url));
        BAL_TRY(bal_buf_text(&out, ", \"models\": ["));
        for (size_t i = 0; i < s->n_models; i++) {
            BAL_TRY(bal_buf_text(&out, i == 0 ? "" : ", "));
            BAL_TRY(bal_json_put_text(&out, s->models[i].name));
        }
        BAL_TRY(bal_buf_text(&out, "]}\n"));
    } else {
        BAL_TRY(bal_buf_printf(&out, "%s\n", url));
    }
    if (fwrite(bal_buf_cstr(&out), 1, out.len, stdout) != out.len || fflush(stdout) != 0)
        status = bal_fail(BAL_EIO, "standard output cannot be written");
    for (size_t i = 0; i < s->n_models; i++)
        bal_log_line(&s->common->log, BAL_LOG_INFO, "model '%s': %zu sequences at a time of up to %zu tokens",
                     s->models[i].name, bal_engine_slots(s->models[i].engine),
                     bal_engine_max_length(s->models[i].engine));
out:
    bal_buf_dispose(&out);
    return status;
}

static bal_status serve(const serve_config *c, const bal_options *options)
{
    server s = {.c = c,
                .common = bal_options_common(options),
                .lock = PTHREAD_MUTEX_INITIALIZER,
                .work = PTHREAD_COND_INITIALIZER};
    int port = 0;
    bal_status status;
    if (c->model == NULL)
        return bal_fail(BAL_EINVAL, "--model is needed");
    if (c->api_key_env != NULL && ((s.key = getenv(c->api_key_env)) == NULL || s.key[0] == '\0'))
        return bal_fail(BAL_EINVAL, "the environment variable '%.100s' of --api-key-env is not set", c->api_key_env);
    BAL_TRY(serve_http_check(&s)); /* before gigabytes are read */
    BAL_TRY(bal_options_start(options));
    bal_interrupt_install();
    s.started = bal_clock_unix_ms() / 1000;
    BAL_TRY(load(&s));
    BAL_TRY(serve_http_start(&s, &port));
    BAL_TRY(announce(&s, port));
    status = serve_work(&s);
out:
    serve_http_stop(&s);
    unload(&s);
    return status;
}

int cmd_serve(int argc, char **argv)
{
    serve_config c = {0};
    bal_options *options = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &c, &help);
    if (status == BAL_OK && !help)
        status = serve(&c, options);
    status = bal_command_finish(&k_command, status);
    bal_options_free(options);
    return (int)status;
}
