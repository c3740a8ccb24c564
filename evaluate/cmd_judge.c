/* balora judge: MT-Bench answers graded by a model behind an OpenAI-compatible server.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/mtbench.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/options.h"
#include "lib/stats/stats.h"
#include "tools/commands.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct config {
    const char *answers, *baseline, *model, *base_url, *key_env, *judge, *judge_url, *judge_key_env, *data, *out;
    const char *write_answers, *name, *experiment, *adapter, *tokenizer, *prompt_form;
    int64_t limit, max_new_tokens, at_once, tries, timeout;
    double back_off;
} config;

#define AT(FIELD) offsetof(config, FIELD)
static const bal_option k_options[] = {
    {"answers", 'a', BAL_OPTION_PATH, AT(answers), NULL, 0, 0, NULL, NULL, "Input",
     "answers as FastChat writes them: question_id, choices[0].turns"},
    {"model", 'm', BAL_OPTION_TEXT, AT(model), NULL, 0, 0, NULL, NULL, "Input",
     "ask this model for the answers instead: openai:NAME, or a folder or GGUF file here"},
    {"adapter", 0, BAL_OPTION_PATH, AT(adapter), NULL, 0, 0, NULL, NULL, "Input", "adapter on a model here"},
    {"tokenizer", 0, BAL_OPTION_PATH, AT(tokenizer), NULL, 0, 0, NULL, NULL, "Input", "tokenizer of a model here"},
    {"max_new_tokens", 0, BAL_OPTION_INT, AT(max_new_tokens), "1024", 1, 100000, NULL, NULL, "Input",
     "of an answer by a model here"},
    {"prompt_form", 0, BAL_OPTION_CHOICE, AT(prompt_form), "chat", 0, 0, "chat|alpaca", NULL, "Input",
     "of a model here: its chat template, or the wrapper that PiSSA and BA-LoRA train on, turn 2 behind turn 1 in it"},
    {"base_url", 0, BAL_OPTION_TEXT, AT(base_url), "https://api.openai.com/v1", 0, 0, NULL, NULL, "Input",
     "where --model is served"},
    {"key_env", 0, BAL_OPTION_TEXT, AT(key_env), "OPENAI_API_KEY", 0, 0, NULL, NULL, "Input",
     "environment variable with the key for --base-url"},
    {"baseline", 0, BAL_OPTION_PATH, AT(baseline), NULL, 0, 0, NULL, NULL, "Input",
     "answers of another model: pairwise games, each judged twice with the order swapped"},
    {"data", 'd', BAL_OPTION_PATH, AT(data), ".", 0, 0, NULL, NULL, "Input", "folder with mt_bench/"},
    {"limit", 'l', BAL_OPTION_INT, AT(limit), "0", 0, 1e6, NULL, NULL, "Input", "first questions only; 0: all"},
    {"judge", 'j', BAL_OPTION_TEXT, AT(judge), "gpt-4", 0, 0, NULL, NULL, "Judge", "name of the judging model"},
    {"judge_url", 0, BAL_OPTION_TEXT, AT(judge_url), "https://api.openai.com/v1", 0, 0, NULL, NULL, "Judge",
     "where the judge is served"},
    {"judge_key_env", 0, BAL_OPTION_TEXT, AT(judge_key_env), "OPENAI_API_KEY", 0, 0, NULL, NULL, "Judge",
     "environment variable with the key for --judge-url"},
    {"at_once", 0, BAL_OPTION_INT, AT(at_once), "4", 1, 64, NULL, NULL, "Requests", "requests at a time"},
    {"tries", 0, BAL_OPTION_INT, AT(tries), "6", 1, 100, NULL, NULL, "Requests", "tries of a request"},
    {"timeout", 0, BAL_OPTION_INT, AT(timeout), "300", 1, 86400, NULL, NULL, "Requests", "seconds of one try"},
    {"back_off", 0, BAL_OPTION_REAL, AT(back_off), "1", 0.001, 60, NULL, NULL, "Requests",
     "seconds before the second try, doubled each time; Retry-After comes first"},
    {"write_answers", 0, BAL_OPTION_PATH, AT(write_answers), NULL, 0, 0, NULL, NULL, "Output",
     "file for the answers of --model"},
    {"out", 'o', BAL_OPTION_PATH, AT(out), NULL, 0, 0, NULL, NULL, "Output", "file for the judgements"},
    {"name", 0, BAL_OPTION_TEXT, AT(name), NULL, 0, 0, NULL, NULL, "Output", "name of the run"},
    {"experiment", 0, BAL_OPTION_TEXT, AT(experiment), NULL, 0, 0, NULL, NULL, "Output", "experiment of the run"},
};

static const bal_command k_command = {
    .name = "judge",
    .usage = "--answers FILE | --model PATH | --model openai:NAME --base-url URL  --judge NAME --judge-url URL --data "
             "DIR [options]",
    .summary = "MT-Bench by a judge behind an OpenAI-compatible server",
    .description = "Prompts, ratings and means as FastChat's llm_judge has them; invalid judgements are counted.\n"
                   "Replies are kept in the run database by the hash of their request: a rerun costs nothing.\n"
                   "  balora judge --answers model.jsonl --judge gpt-4 --data DIR",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
};

/* One judged turn (of one order, pairwise). */
typedef struct game {
    size_t question, turn;
    bool swapped;
    char *judgement, *error;
} game;

typedef struct session {
    const config *c;
    const bal_common *common;
    bal_store *store;
    int64_t run;
    mt_bench bench;
    mt_answers answers, baseline;
    api_client model, judge;
    game *games;
    size_t n_games;
} session;

static void session_dispose(session *s)
{
    for (size_t i = 0; s->games != NULL && i < s->n_games; i++) {
        bal_free(s->games[i].judgement);
        bal_free(s->games[i].error);
    }
    bal_free(s->games);
    mt_answers_dispose(&s->answers);
    mt_answers_dispose(&s->baseline);
    api_close(&s->model);
    api_close(&s->judge);
    mt_bench_dispose(&s->bench);
    bal_store_close(s->store);
}

static bal_status local_answers(session *s)
{
    const config *c = s->c;
    const mt_local_options o = {.max_new_tokens = (size_t)c->max_new_tokens,
                                .alpaca = strcmp(c->prompt_form, "alpaca") == 0,
                                .log = &s->common->log,
                                .progress = s->common->progress};
    bal_bundle b = {0};
    bal_status status;
    BAL_TRY(bal_bundle_load(&b, c->model, c->adapter, NULL, c->tokenizer));
    BAL_TRY(bal_bundle_need_tokenizer(&b));
    BAL_TRY(mt_answers_local(&s->answers, &s->bench, &b, &o));
    (void)snprintf(s->answers.model, sizeof s->answers.model, "%.60s%s%.60s", c->model, c->adapter != NULL ? " + " : "",
                   c->adapter != NULL ? c->adapter : "");
    if (c->write_answers != NULL)
        status = mt_answers_write(&s->answers, &s->bench, c->write_answers);
out:
    bal_bundle_dispose(&b);
    return status;
}

static bal_status get_answers(session *s, const bal_http_options *http)
{
    const config *c = s->c;
    bal_status status;
    if (c->answers != NULL)
        return mt_answers_read(&s->answers, &s->bench, c->answers);
    if (!bal_starts_with(c->model, "openai:"))
        return local_answers(s);
    if (strcmp(c->prompt_form, "chat") != 0)
        return bal_fail(BAL_EINVAL, "--prompt-form alpaca is for a model here; a served one has its own template");
    if (c->model[7] == '\0')
        return bal_fail(BAL_EINVAL, "--model 'openai:' needs a name behind it");
    BAL_TRY(api_open(&s->model, s->store, c->base_url, c->model + 7, c->key_env, http));
    BAL_TRY(mt_answers_ask(&s->answers, &s->bench, &s->model));
    bal_log_line(&s->common->log, BAL_LOG_INFO, "answers: %zu asked, %zu from the store", s->model.n_sent,
                 s->model.n_cached);
    if (c->write_answers != NULL)
        status = mt_answers_write(&s->answers, &s->bench, c->write_answers);
out:
    return status;
}

static bool answered(const mt_answers *a, size_t q, size_t t)
{
    for (size_t i = 0; i <= t; i++)
        if (a->texts[q * MT_TURNS + i] == NULL)
            return false;
    return true;
}

static bal_status play(session *s)
{
    bool pairwise = s->c->baseline != NULL;
    size_t orders = pairwise ? 2 : 1, most = s->bench.n * MT_TURNS * orders, n = 0;
    bal_buf *bodies = bal_alloc(most, sizeof *bodies);
    char **texts = bal_alloc(most, sizeof *texts), **errors = bal_alloc(most, sizeof *errors);
    bal_status status = BAL_ENOMEM;
    s->games = bal_alloc(most, sizeof *s->games);
    if (bodies == NULL || texts == NULL || errors == NULL || s->games == NULL)
        goto out;
    for (size_t q = 0; q < s->bench.n; q++)
        for (size_t t = 0; t < MT_TURNS; t++)
            for (size_t k = 0; k < orders; k++) {
                if (!answered(&s->answers, q, t) || (pairwise && !answered(&s->baseline, q, t)))
                    continue;
                const mt_answers *first = k == 1 ? &s->baseline : &s->answers;
                const mt_answers *second = !pairwise ? NULL : k == 1 ? &s->answers : &s->baseline;
                BAL_TRY(mt_judge_body(&s->bench, q, t, first, second, &s->judge, &bodies[n]));
                s->games[n++] = (game){q, t, k == 1, NULL, NULL};
            }
    if (n == 0) {
        status = bal_fail(BAL_EFORMAT, "there are no answers to judge");
        goto out;
    }
    status = chat_complete(&s->judge, bodies, n, texts, errors);
    s->n_games = n;
    for (size_t i = 0; i < n; i++) {
        s->games[i].judgement = texts[i];
        s->games[i].error = errors[i];
    }
    size_t failed = 0;
    const char *why = NULL;
    for (size_t i = 0; i < n; i++)
        if (errors[i] != NULL) {
            failed++;
            why = why == NULL ? errors[i] : why;
        }
    if (status == BAL_OK && failed == n)
        status = bal_fail(BAL_EIO, "no judgement was given: %s", why);
    else if (failed > 0)
        bal_log_line(&s->common->log, BAL_LOG_WARN, "%zu of %zu judgements were not given, the first: %s", failed, n,
                     why);
    bal_log_line(&s->common->log, BAL_LOG_INFO, "judgements: %zu asked, %zu from the store", s->judge.n_sent,
                 s->judge.n_cached);
out:
    for (size_t i = 0; bodies != NULL && i < most; i++)
        bal_buf_dispose(&bodies[i]);
    bal_free(bodies);
    bal_free(texts);
    bal_free(errors);
    return status;
}

/* A row in the store for each judgement; NaN: invalid. */
static bal_status store_game(session *s, const game *g, const char *filter, double score, const char *extracted)
{
    const mt_question *q = &s->bench.questions[g->question];
    char by[160]; /* what another judge says is another figure */
    (void)snprintf(by, sizeof by, "%s:%.120s", filter, s->judge.model);
    const bal_eval_item row = {.task = "mt_bench",
                               .filter = by,
                               .item = (int64_t)g->question,
                               .repeat = (int64_t)(g->turn * 2 + g->swapped),
                               .output = g->judgement != NULL ? g->judgement : g->error,
                               .extracted = extracted,
                               .group = q->category,
                               .score = score,
                               .correct = -1,
                               .finish_reason = g->judgement != NULL ? "stop" : "error"};
    return bal_run_item(s->store, s->run, &row);
}

typedef struct figures {
    double mean[MT_TURNS + 1], error[MT_TURNS + 1]; /* turns, then all */
    size_t n[MT_TURNS + 1], invalid;
} figures;

/* Ratings of turn t (MT_TURNS: of both) of a category (NULL: all). */
static void rate(const session *s, const char *category, size_t t, double *scratch, double *mean, double *error,
                 size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < s->n_games; i++) {
        const game *g = &s->games[i];
        double rating = g->judgement == NULL ? -1 : judge_rating(g->judgement);
        if (rating >= 0 && (t == MT_TURNS || g->turn == t) &&
            (category == NULL || strcmp(category, s->bench.questions[g->question].category) == 0))
            scratch[(*n)++] = rating;
    }
    *mean = *n > 0 ? bal_mean(scratch, *n) : (double)NAN;
    *error = *n > 1 ? bal_mean_stderr(scratch, *n) : (double)NAN;
}

static bal_status put_single(session *s, double *scratch, bal_buf *out)
{
    static const char *const names[] = {"turn_1", "turn_2", "overall"};
    size_t invalid = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < s->n_games; i++) {
        double rating = s->games[i].judgement == NULL ? -1 : judge_rating(s->games[i].judgement);
        char text[32];
        (void)snprintf(text, sizeof text, "%g", rating);
        invalid += rating < 0;
        BAL_TRY(store_game(s, &s->games[i], "single", rating < 0 ? (double)NAN : rating, text));
    }
    for (size_t t = 0; t <= MT_TURNS; t++) {
        double mean, error;
        size_t n;
        char name[200];
        rate(s, NULL, t, scratch, &mean, &error, &n);
        BAL_TRY(bal_buf_printf(out, "%s\"%s\": ", t == 0 ? "" : ", ", names[t]));
        BAL_TRY(bal_json_put_f64(out, mean));
        BAL_TRY(bal_buf_printf(out, ", \"%s_stderr\": ", names[t]));
        BAL_TRY(bal_json_put_f64(out, error));
        BAL_TRY(bal_buf_printf(out, ", \"%s_n\": %zu", names[t], n));
        (void)snprintf(name, sizeof name, "mt_bench/%s,%.120s", names[t], s->judge.model);
        BAL_TRY(bal_run_metric(s->store, s->run, name, 0, mean));
    }
    BAL_TRY(bal_buf_text(out, ", \"categories\": {"));
    bool first = true;
    for (size_t q = 0; q < s->bench.n; q++) {
        const char *category = s->bench.questions[q].category;
        bool seen = false;
        for (size_t k = 0; k < q && !seen; k++)
            seen = strcmp(s->bench.questions[k].category, category) == 0;
        if (seen)
            continue;
        double mean, error;
        size_t n;
        rate(s, category, MT_TURNS, scratch, &mean, &error, &n);
        BAL_TRY(bal_json_put_key(out, category, &first));
        BAL_TRY(bal_json_put_f64(out, mean));
    }
    status = bal_buf_printf(out, "}, \"invalid\": %zu", invalid);
out:
    return status;
}

static bal_status put_pairwise(session *s, bal_buf *out)
{
    size_t wins = 0, losses = 0, ties = 0, invalid = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i + 1 < s->n_games; i += 2) {
        const game *g = &s->games[i];
        char verdict[2][2] = {"", ""};
        for (int k = 0; k < 2; k++)
            verdict[k][0] = g[k].judgement == NULL ? '\0' : judge_winner(g[k].judgement);
        char outcome = mt_outcome(verdict[0][0], verdict[1][0]);
        wins += outcome == 'A';
        losses += outcome == 'B';
        ties += outcome == 'C';
        invalid += outcome == 0;
        for (int k = 0; k < 2; k++)
            BAL_TRY(store_game(s, &g[k], "pairwise",
                               outcome == 0     ? (double)NAN
                               : outcome == 'A' ? 1
                               : outcome == 'B' ? 0
                                                : 0.5,
                               verdict[k]));
    }
    size_t n = wins + losses + ties;
    BAL_TRY(bal_buf_printf(out,
                           "\"wins\": %zu, \"losses\": %zu, \"ties\": %zu, \"invalid\": %zu, "
                           "\"adjusted_win_rate\": ",
                           wins, losses, ties, invalid));
    char name[200];
    (void)snprintf(name, sizeof name, "mt_bench/adjusted_win_rate,%.120s", s->judge.model);
    double rate_of_wins = n == 0 ? (double)NAN : ((double)wins + 0.5 * (double)ties) / (double)n;
    BAL_TRY(bal_json_put_f64(out, rate_of_wins));
    status = bal_run_metric(s->store, s->run, name, 0, rate_of_wins);
out:
    return status;
}

static bal_status write_judgements(const session *s)
{
    bal_buf out = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < s->n_games; i++) {
        const game *g = &s->games[i];
        BAL_TRY(bal_buf_printf(&out, "{\"question_id\": %lld, \"turn\": %zu, \"swapped\": %s, \"model\": ",
                               (long long)s->bench.questions[g->question].id, g->turn + 1,
                               g->swapped ? "true" : "false"));
        BAL_TRY(bal_json_put_text(&out, s->answers.model));
        BAL_TRY(bal_buf_text(&out, ", \"judge\": "));
        BAL_TRY(bal_json_put_text(&out, s->judge.model));
        BAL_TRY(bal_buf_text(&out, ", \"judgment\": "));
        BAL_TRY(bal_json_put_text(&out, g->judgement != NULL ? g->judgement : "$ERROR$"));
        if (s->c->baseline == NULL) {
            BAL_TRY(bal_buf_text(&out, ", \"score\": "));
            BAL_TRY(bal_json_put_f64(&out, g->judgement == NULL ? -1 : judge_rating(g->judgement)));
        }
        if (g->error != NULL) {
            BAL_TRY(bal_buf_text(&out, ", \"error\": "));
            BAL_TRY(bal_json_put_text(&out, g->error));
        }
        BAL_TRY(bal_buf_text(&out, "}\n"));
    }
    status = bal_file_replace(s->c->out, bal_buf_cstr(&out), out.len);
out:
    bal_buf_dispose(&out);
    return status;
}

static bal_status report(session *s)
{
    bal_buf out = {0};
    double *scratch = bal_alloc(s->n_games, sizeof *scratch);
    bal_status status = scratch == NULL ? BAL_ENOMEM : BAL_OK;
    if (status != BAL_OK)
        return status;
    BAL_TRY(bal_buf_text(&out, "{\"model\": "));
    BAL_TRY(bal_json_put_text(&out, s->answers.model));
    BAL_TRY(bal_buf_text(&out, ", \"judge\": "));
    BAL_TRY(bal_json_put_text(&out, s->judge.model));
    BAL_TRY(bal_buf_text(&out, ", "));
    BAL_TRY(bal_store_begin(s->store));
    status = s->c->baseline != NULL ? put_pairwise(s, &out) : put_single(s, scratch, &out);
    if (status != BAL_OK) {
        bal_store_rollback(s->store);
        goto out;
    }
    BAL_TRY(bal_store_commit(s->store));
    BAL_TRY(bal_buf_text(&out, "}\n"));
    if (fwrite(out.data, 1, out.len, stdout) != out.len)
        status = bal_fail(BAL_EIO, "standard output cannot be written");
out:
    bal_free(scratch);
    bal_buf_dispose(&out);
    return status;
}

static bal_status judge(session *s, const bal_options *options, int argc, char **argv)
{
    const config *c = s->c;
    const bal_http_options http = {.seconds = (double)c->timeout,
                                   .back_off = c->back_off,
                                   .tries = (int)c->tries,
                                   .at_once = (size_t)c->at_once,
                                   .log = &s->common->log};
    bal_status status;
    if ((c->answers != NULL) == (c->model != NULL))
        return bal_fail(BAL_EINVAL, "one of --answers and --model is needed");
    BAL_TRY(api_check_url(c->base_url, c->key_env)); /* before anything is kept */
    BAL_TRY(api_check_url(c->judge_url, c->judge_key_env));
    BAL_TRY(bal_options_start(options));
    bal_interrupt_install();
    BAL_TRY(mt_bench_read(&s->bench, c->data));
    if (c->limit > 0 && (size_t)c->limit < s->bench.n)
        s->bench.n = (size_t)c->limit;
    BAL_TRY(bal_store_open(&s->store, s->common->db, true));
    const bal_run_spec spec = {.kind = "evaluate",
                               .name = c->name,
                               .experiment = c->experiment,
                               .config_json = bal_options_json(options),
                               .argc = argc,
                               .argv = argv};
    BAL_TRY(bal_run_begin(s->store, &spec, &s->run));
    BAL_TRY(get_answers(s, &http));
    if (c->baseline != NULL)
        BAL_TRY(mt_answers_read(&s->baseline, &s->bench, c->baseline));
    BAL_TRY(api_open(&s->judge, s->store, c->judge_url, c->judge, c->judge_key_env, &http));
    BAL_TRY(play(s));
    BAL_TRY(report(s));
    if (c->out != NULL)
        status = write_judgements(s);
out:
    if (s->run != 0)
        (void)bal_run_end(s->store, s->run,
                          status == BAL_OK           ? "finished"
                          : status == BAL_EINTERRUPT ? "interrupted"
                                                     : "failed",
                          bal_exit_status(status), status == BAL_OK ? NULL : bal_error_message());
    return status;
}

int cmd_judge(int argc, char **argv)
{
    config c = {0};
    bal_options *options = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &c, &help);
    if (status == BAL_OK && !help) {
        session s = {.c = &c, .common = bal_options_common(options)};
        status = judge(&s, options, argc, argv);
        session_dispose(&s);
    }
    status = bal_command_finish(&k_command, status);
    bal_options_free(options);
    return (int)status;
}
