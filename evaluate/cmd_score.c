/* balora score: verdicts on stored outputs, without a model.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/code.h"
#include "evaluate/code_score.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/io/options.h"
#include "lib/text/answer.h"
#include "tools/commands.h"

#include <string.h>

typedef struct config {
    const char *task, *input, *out, *data, *sandbox;
    int64_t timeout;
} config;

static const bal_option k_options[] = {
    {"task", 't', BAL_OPTION_TEXT, offsetof(config, task), NULL, 0, 0, NULL, NULL, "Input",
     "rules to judge by: gsm8k, gsm8k_cot, gsm8k_cot_llama, gsm8k_pissa, humaneval, mbpp ..."},
    {"input", 'i', BAL_OPTION_PATH, offsetof(config, input), NULL, 0, 0, NULL, NULL, "Input",
     "JSON lines {\"id\", \"output\", \"gold\"}; for code {\"task_id\", \"output\"} ('-': standard input)"},
    {"data", 'd', BAL_OPTION_PATH, offsetof(config, data), ".", 0, 0, NULL, NULL, "Input",
     "folder with humaneval/ and mbpp/"},
    {"timeout", 0, BAL_OPTION_INT, offsetof(config, timeout), "3", 1, 600, NULL, NULL, "Sandbox",
     "seconds of processor time that a program may use"},
    {"sandbox", 0, BAL_OPTION_CHOICE, offsetof(config, sandbox), NULL, 0, 0, "bubblewrap|namespaces", NULL, "Sandbox",
     "what keeps programs from doing harm (default: the first that works)"},
    {"out", 'o', BAL_OPTION_PATH, offsetof(config, out), NULL, 0, 0, NULL, NULL, "Output",
     "file for the verdicts (default: standard output)"},
};

static const bal_command k_command = {
    .name = "score",
    .usage = "--task NAME --input FILE.jsonl [options]",
    .summary = "verdicts on stored outputs",
    .description = "Each line of the input gives one line per filter of the task: id, filter, extracted, score.\n"
                   "Programs run in a sandbox only; without one nothing is run.\n"
                   "  balora score --task gsm8k --input outputs.jsonl\n"
                   "  balora score --task humaneval --input samples.jsonl --data DIR",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
};

static bal_status need_text(const cJSON *line, const char *where, const char *key, const char **out)
{
    bool found = false;
    bal_status status = bal_json_text(line, where, key, out, &found);
    if (status == BAL_OK && !found)
        status = bal_fail(BAL_EFORMAT, "%s: key '%s' is missing", where, key);
    return status;
}

/* The gold answer may be a number in the file. */
static bal_status read_gold(const cJSON *line, const char *where, bal_buf *out)
{
    const cJSON *gold = bal_json_member(line, "gold");
    const char *text = NULL;
    if (cJSON_IsNumber(gold))
        return bal_json_put_f64(out, gold->valuedouble);
    bal_status status = need_text(line, where, "gold", &text);
    return status == BAL_OK ? bal_buf_text(out, text) : status;
}

static bal_status put_verdict(bal_buf *out, const cJSON *id, const char *filter, const bal_buf *extracted,
                              const bal_verdict *v)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"id\": "));
    if (id == NULL)
        BAL_TRY(bal_buf_text(out, "null"));
    else
        BAL_TRY(bal_json_put(out, id, false));
    BAL_TRY(bal_buf_text(out, ", \"filter\": "));
    BAL_TRY(bal_json_put_text(out, filter));
    BAL_TRY(bal_buf_text(out, ", \"extracted\": "));
    if (!v->found && extracted->len == 0)
        BAL_TRY(bal_buf_text(out, "null"));
    else
        BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(extracted), extracted->len));
    BAL_TRY(bal_buf_text(out, ", \"score\": "));
    BAL_TRY(bal_json_put_f64(out, v->score));
    BAL_TRY(bal_buf_text(out, "}\n"));
out:
    return status;
}

static bal_status score_line(const bal_scorer *scorer, const cJSON *line, const char *where, FILE *to, double *sums)
{
    bal_buf gold = {0}, extracted = {0}, text = {0};
    const char *output = NULL;
    bal_status status;
    BAL_TRY(need_text(line, where, "output", &output));
    BAL_TRY(read_gold(line, where, &gold));
    for (size_t f = 0; f < scorer->n_filters; f++) {
        bal_verdict v = {0};
        bal_buf_clear(&extracted);
        BAL_TRY(scorer->filters[f].judge(output, bal_buf_cstr(&gold), &extracted, &v));
        BAL_TRY(put_verdict(&text, bal_json_member(line, "id"), scorer->filters[f].name, &extracted, &v));
        sums[f] += v.score;
    }
    if (fwrite(text.data, 1, text.len, to) != text.len)
        status = bal_fail(BAL_EIO, "the verdicts cannot be written");
out:
    bal_buf_dispose(&gold);
    bal_buf_dispose(&extracted);
    bal_buf_dispose(&text);
    return status;
}

static bal_status score_file(const config *c, const bal_scorer *scorer, FILE *to, const bal_log *log)
{
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    char where[512];
    double sums[8] = {0};
    size_t n = 0;
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, c->input));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &line));
        if (line == NULL)
            break;
        (void)snprintf(where, sizeof where, "%.400s, line %zu", c->input, bal_lines_number(lines));
        BAL_TRY(score_line(scorer, line, where, to, sums));
        cJSON_Delete(line);
        line = NULL;
        n++;
    }
    for (size_t f = 0; n > 0 && f < scorer->n_filters; f++)
        bal_log_line(log, BAL_LOG_INFO, "%s,%s: %.4f of %zu", scorer->name, scorer->filters[f].name,
                     sums[f] / (double)n, n);
out:
    cJSON_Delete(line);
    bal_lines_close(lines);
    return status;
}

static bal_status unknown_task(const char *task)
{
    const char *names[64];
    size_t n = 0, n_rules = 0;
    const char *const *rules = bal_scorer_names(&n_rules);
    for (size_t i = 0; i < n_rules && n < 32; i++)
        names[n++] = rules[i];
    for (size_t i = 0; code_task_name(i) != NULL && n < 64; i++)
        names[n++] = code_task_name(i);
    const char *near = bal_nearest(task, names, n);
    return bal_fail(BAL_EINVAL, "task '%.60s' is not known%s%s%s", task, near != NULL ? "; did you mean '" : "",
                    near != NULL ? near : "", near != NULL ? "'?" : "");
}

int cmd_score(int argc, char **argv)
{
    config c = {0};
    bal_options *options = NULL;
    bool help = false;
    FILE *to = stdout;
    bal_status status;
    BAL_TRY(bal_options_parse(&options, &k_command, argc, argv, &c, &help));
    if (help)
        goto out;
    if (c.task == NULL || c.input == NULL) {
        status = bal_fail(BAL_EINVAL, "--task and --input are needed");
        goto out;
    }
    const bal_scorer *scorer = bal_scorer_find(c.task);
    if (scorer == NULL && code_task_find(c.task) == NULL) {
        status = unknown_task(c.task);
        goto out;
    }
    if (c.out != NULL && (to = fopen(c.out, "w")) == NULL) {
        status = bal_fail(BAL_EIO, "'%s' cannot be written", c.out);
        goto out;
    }
    if (scorer != NULL) {
        status = score_file(&c, scorer, to, &bal_options_common(options)->log);
        goto out;
    }
    const code_score_config code = {c.task, c.input, c.data, c.sandbox, c.timeout};
    BAL_TRY(bal_options_start(options));
    bal_interrupt_install();
    status = code_score(&code, bal_options_common(options), to);
out:
    if (c.out != NULL && to != NULL && to != stdout && fclose(to) != 0 && status == BAL_OK)
        status = bal_fail(BAL_EIO, "'%s' cannot be written", c.out);
    status = bal_command_finish(&k_command, status);
    bal_options_free(options);
    return (int)status;
}
