/* balora score for code: judges the answers of a file in the sandbox.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/code_score.h"

#include "evaluate/code.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"
#include "lib/stats/pass_at_k.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

enum { MAX_ANSWERS = 1000000 };

/* Answers of a file: the program, the checks and the problem of each. */
typedef struct answers {
    sandbox_job *jobs;
    const cJSON **problems;
    cJSON **ids;
    size_t n, cap;
} answers;

static void answers_dispose(answers *a)
{
    for (size_t i = 0; i < a->n; i++) {
        bal_free((char *)(uintptr_t)a->jobs[i].program);
        bal_free((char *)(uintptr_t)a->jobs[i].checks);
        cJSON_Delete(a->ids[i]);
    }
    bal_free(a->jobs);
    bal_free(a->problems);
    bal_free(a->ids);
}

static bal_status answers_grow(answers *a)
{
    size_t cap = a->cap == 0 ? 256 : 2 * a->cap;
    sandbox_job *jobs = bal_realloc(a->jobs, cap, sizeof *jobs);
    if (jobs != NULL)
        a->jobs = jobs;
    const cJSON **problems = bal_realloc(a->problems, cap, sizeof *problems);
    if (problems != NULL)
        a->problems = problems;
    cJSON **ids = bal_realloc(a->ids, cap, sizeof *ids);
    if (ids != NULL)
        a->ids = ids;
    if (jobs == NULL || problems == NULL || ids == NULL)
        return BAL_ENOMEM;
    a->cap = cap;
    return BAL_OK;
}

/* "task_id" or "id"; "completion", "solution" or "output". */
static bal_status add_answer(answers *a, const code_task *task, const code_problems *problems, const cJSON *line,
                             const char *where)
{
    static const char *const keys[] = {"output", "completion", "solution"};
    const cJSON *id = bal_json_member(line, "task_id");
    const char *text = NULL;
    char name[64];
    bool found = false;
    bal_buf program = {0}, checks = {0};
    bal_status status = BAL_OK;
    id = id != NULL ? id : bal_json_member(line, "id");
    if (cJSON_IsNumber(id))
        (void)snprintf(name, sizeof name, "%.0f", id->valuedouble);
    else if (cJSON_IsString(id))
        (void)snprintf(name, sizeof name, "%.60s", id->valuestring);
    else
        return bal_fail(BAL_EFORMAT, "%s: key 'task_id' is missing", where);
    const cJSON *row = code_problems_find(problems, name);
    if (row == NULL)
        return bal_fail(BAL_EFORMAT, "%s: '%s' holds no problem '%s'", where, problems->path, name);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0] && !found; i++)
        BAL_TRY(bal_json_text(line, where, keys[i], &text, &found));
    if (!found) {
        status = bal_fail(BAL_EFORMAT, "%s: key 'output' is missing", where);
        goto out;
    }
    if (a->n == MAX_ANSWERS) {
        status = bal_fail(BAL_ELIMIT, "%s: more than %d answers", where, MAX_ANSWERS);
        goto out;
    }
    BAL_TRY(code_program(task, row, where, text, strlen(text), &program, &checks));
    if (a->n == a->cap)
        BAL_TRY(answers_grow(a));
    cJSON *copy = cJSON_Duplicate(id, true);
    if (copy == NULL) {
        status = bal_fail(BAL_ENOMEM, "out of memory");
        goto out;
    }
    a->ids[a->n] = copy;
    a->problems[a->n] = row;
    a->jobs[a->n++] = (sandbox_job){program.data, checks.data, program.len, checks.len};
    return BAL_OK;
out:
    bal_buf_dispose(&program);
    bal_buf_dispose(&checks);
    return status;
}

static bal_status read_answers(answers *a, const code_task *task, const code_problems *problems, const char *input)
{
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    char where[512];
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, input));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &line));
        if (line == NULL)
            break;
        (void)snprintf(where, sizeof where, "%.400s, line %zu", input, bal_lines_number(lines));
        BAL_TRY(add_answer(a, task, problems, line, where));
        cJSON_Delete(line);
        line = NULL;
    }
    if (a->n == 0)
        status = bal_fail(BAL_EFORMAT, "'%s' holds no answers", input);
out:
    cJSON_Delete(line);
    bal_lines_close(lines);
    return status;
}

static bal_status write_verdicts(const answers *a, const sandbox_result *results, FILE *to)
{
    bal_buf out = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < a->n; i++) {
        BAL_TRY(bal_buf_text(&out, "{\"id\": "));
        BAL_TRY(bal_json_put(&out, a->ids[i], false));
        BAL_TRY(bal_buf_printf(&out, ", \"filter\": \"create_test\", \"verdict\": \"%s\", \"message\": ",
                               sandbox_verdict_name(results[i].verdict)));
        BAL_TRY(bal_json_put_text(&out, results[i].message));
        BAL_TRY(bal_buf_printf(&out, ", \"score\": %d}\n", results[i].verdict == SANDBOX_PASSED));
    }
    if (fwrite(bal_buf_cstr(&out), 1, out.len, to) != out.len)
        status = bal_fail(BAL_EIO, "the verdicts cannot be written");
out:
    bal_buf_dispose(&out);
    return status;
}

/* pass@k for each k of 1, 2, 4, 5, 8, 10 ... that every problem has answers for. */
static bal_status log_figures(const answers *a, const sandbox_result *results, const char *task, const bal_log *log,
                              double seconds)
{
    static const size_t ks[] = {1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200};
    size_t *n = bal_alloc(a->n, sizeof *n), *c = bal_alloc(a->n, sizeof *c), problems = 0, least = SIZE_MAX;
    double *values = bal_alloc(a->n, sizeof *values);
    bal_status status = BAL_OK;
    if (n == NULL || c == NULL || values == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    for (size_t i = 0; i < a->n; i++) { /* the answers of a problem, at its first */
        size_t first = 0;
        while (a->problems[first] != a->problems[i])
            first++;
        n[first]++;
        c[first] += results[i].verdict == SANDBOX_PASSED;
    }
    for (size_t i = 0; i < a->n; i++)
        if (n[i] > 0) {
            n[problems] = n[i];
            c[problems++] = c[i];
            least = n[i] < least ? n[i] : least;
        }
    for (size_t j = 0; j < sizeof ks / sizeof ks[0] && ks[j] <= least; j++) {
        for (size_t i = 0; i < problems; i++)
            values[i] = bal_pass_at_k(n[i], c[i], ks[j]);
        bal_log_line(log, BAL_LOG_INFO, "%s,create_test: pass@%zu %.4f +- %.4f of %zu", task, ks[j],
                     bal_mean(values, problems), problems > 1 ? bal_mean_stderr(values, problems) : (double)NAN,
                     problems);
    }
    bal_log_line(log, BAL_LOG_DEBUG, "%zu programs in %.2f s: %.1f a second", a->n, seconds, (double)a->n / seconds);
out:
    bal_free(n);
    bal_free(c);
    bal_free(values);
    return status;
}

/* Progress from the threads that judge. */
typedef struct ticker {
    bal_progress bar;
    pthread_mutex_t lock;
    size_t done;
} ticker;

static void tick(void *context)
{
    ticker *t = context;
    (void)pthread_mutex_lock(&t->lock);
    bal_progress_update(&t->bar, ++t->done, NULL);
    (void)pthread_mutex_unlock(&t->lock);
}

bal_status code_score(const code_score_config *c, const bal_common *common, FILE *to)
{
    const code_task *task = code_task_find(c->task);
    code_problems problems = {0};
    answers a = {0};
    sandbox *s = NULL;
    sandbox_result *results = NULL;
    ticker t = {.lock = PTHREAD_MUTEX_INITIALIZER};
    bal_status status;
    BAL_TRY(code_problems_read(&problems, task, c->data));
    BAL_TRY(read_answers(&a, task, &problems, c->input));
    sandbox_limits limits = {.cpu_seconds = (int)c->timeout};
    status = sandbox_open(&s, c->sandbox, &limits);
    if (status != BAL_OK) {
        status = bal_fail_note(status, "not run");
        goto out;
    }
    bal_log_line(&common->log, BAL_LOG_INFO, "%zu programs, sandbox: %s", a.n, sandbox_kind(s));
    results = bal_alloc(a.n, sizeof *results);
    if (results == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    double start = bal_clock_seconds();
    bal_progress_start(&t.bar, &common->log, "judging", "programs", a.n, common->progress);
    status = sandbox_run(s, a.jobs, a.n, results, tick, &t);
    bal_progress_done(&t.bar);
    if (status != BAL_OK)
        goto out;
    BAL_TRY(write_verdicts(&a, results, to));
    status = log_figures(&a, results, c->task, &common->log, bal_clock_seconds() - start);
out:
    sandbox_close(s);
    bal_free(results);
    answers_dispose(&a);
    code_problems_dispose(&problems);
    (void)pthread_mutex_destroy(&t.lock);
    return status;
}
