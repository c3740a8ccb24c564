/* The curve of a run: a JSON-lines file, one line a step, and rows of the database, written in bursts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static const char *const k_columns[TRAIN_COLUMNS] = {"lr",
                                                     "lr/head",
                                                     "loss/task",
                                                     "loss/consistency",
                                                     "loss/diversity",
                                                     "loss/spectral",
                                                     "loss/total",
                                                     "lambda/consistency",
                                                     "lambda/diversity",
                                                     "lambda/svd",
                                                     "grad_norm",
                                                     "rows",
                                                     "tokens",
                                                     "tokens_per_second",
                                                     "peak_rss_bytes",
                                                     "loss/orthogonality",
                                                     "ranks"};
static const double FLUSH_SECONDS = 2;

/* Lines up to `step` of a metrics file, appended to kept; a torn last line is dropped. */
static bal_status keep_lines(const char *path, uint64_t step, bal_buf *kept)
{
    bal_status status = BAL_OK;
    bal_buf all = {0};
    BAL_TRY(bal_file_read(path, (size_t)1 << 31, &all));
    for (size_t from = 0; from < all.len;) {
        const char *end = memchr(all.data + from, '\n', all.len - from);
        if (end == NULL)
            break;
        size_t n = (size_t)(end - (all.data + from));
        cJSON *line = NULL;
        double at = 0;
        bool found = false;
        if (n > 0 && bal_json_parse(&line, all.data + from, n, path) == BAL_OK &&
            bal_json_f64(line, path, "step", &at, &found) == BAL_OK && found && at <= (double)step)
            status = bal_buf_append(kept, all.data + from, n + 1);
        cJSON_Delete(line);
        BAL_TRY(status);
        from += n + 1;
    }
out:
    bal_buf_dispose(&all);
    return status;
}

bal_status metrics_open_file(trainer *t)
{
    const char *path = t->config->metrics_out;
    if (path == NULL)
        return BAL_OK;
    bal_status status = BAL_OK;
    bal_buf kept = {0};
    if (t->resume_from != NULL && bal_file_exists(path))
        BAL_TRY(keep_lines(path, t->state.step, &kept));
    BAL_TRY(bal_file_replace(path, bal_buf_cstr(&kept), kept.len));
    t->metrics.file = fopen(path, "ae");
    if (t->metrics.file == NULL)
        status = bal_fail(BAL_EIO, "cannot open %s: %s", path, strerror(errno));
    t->metrics.path = path;
out:
    bal_buf_dispose(&kept);
    return status;
}

/* The run of the checkpoint goes on: no second row. */
static bal_status reopen_run(train_metrics *m)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_prepare(
        m->store, "UPDATE run SET status = 'running', exit_code = NULL, error = NULL, end_ms = NULL WHERE id = ?1",
        &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, m->run);
    status = bal_store_run(m->store, st, "reopen the run");
    (void)sqlite3_finalize(st);
    return status == BAL_OK ? bal_run_heartbeat(m->store, m->run) : status;
}

static bal_status open_run(trainer *t)
{
    train_metrics *m = &t->metrics;
    const train_config *c = t->config;
    bal_status status = BAL_OK;
    BAL_TRY(bal_store_open(&m->store, bal_options_common(t->options)->db, true));
    if (m->uuid[0] != '\0' && bal_run_find(m->store, m->uuid, &m->run) == BAL_OK) {
        BAL_TRY(bal_run_truncate_metrics(m->store, m->run, (int64_t)t->state.step));
        return reopen_run(m);
    }
    bal_run_spec spec = {.kind = t->command,
                         .name = c->name,
                         .experiment = c->experiment,
                         .config_json = bal_options_json(t->options),
                         .argc = t->argc,
                         .argv = t->argv,
                         .seed = c->seed};
    BAL_TRY(bal_run_begin(m->store, &spec, &m->run));
    BAL_TRY(bal_run_uuid(m->store, m->run, m->uuid));
out:
    return status;
}

bal_status metrics_open_store(trainer *t)
{
    train_metrics *m = &t->metrics;
    m->rows = bal_alloc(TRAIN_BUFFERED, sizeof *m->rows);
    if (m->rows == NULL)
        return BAL_ENOMEM;
    m->cap = TRAIN_BUFFERED;
    m->last_flush = bal_clock_seconds();
    return t->config->store ? open_run(t) : BAL_OK;
}

static bal_status write_line(train_metrics *m, const train_row *r)
{
    if (m->file == NULL)
        return BAL_OK;
    bal_status status = BAL_OK;
    bal_buf b = {0};
    BAL_TRY(bal_buf_printf(&b, "{\"step\":%llu", (unsigned long long)r->step));
    for (size_t i = 0; i < TRAIN_COLUMNS; i++) {
        BAL_TRY(bal_buf_printf(&b, ",\"%s\":", k_columns[i]));
        BAL_TRY(bal_json_put_f64(&b, r->value[i]));
    }
    BAL_TRY(bal_buf_text(&b, "}\n"));
    if (fwrite(b.data, 1, b.len, m->file) != b.len || fflush(m->file) != 0)
        status = bal_fail(BAL_EIO, "cannot write %s: %s", m->path, strerror(errno));
out:
    bal_buf_dispose(&b);
    return status;
}

/* Only while the database is locked: nothing is lost when it is free again. */
static bal_status grow(train_metrics *m)
{
    train_row *rows = bal_realloc(m->rows, m->cap * 2, sizeof *rows);
    if (rows == NULL)
        return BAL_ENOMEM;
    m->rows = rows;
    m->cap *= 2;
    return BAL_OK;
}

bal_status metrics_add(trainer *t, const bal_step_result *r, const double *lr, double seconds)
{
    train_metrics *m = &t->metrics;
    bal_status status = BAL_OK;
    if (m->n_rows == m->cap)
        BAL_TRY(metrics_flush(t, true));
    if (m->n_rows == m->cap)
        BAL_TRY(grow(m));
    const bal_loss_values *v = &r->values;
    train_row *row = &m->rows[m->n_rows];
    *row = (train_row){t->state.step,
                       {lr[BAL_GROUP_BASE], lr[BAL_GROUP_HEAD], v->task, v->consistency, v->diversity, v->spectral,
                        v->total, r->weights.consistency, r->weights.diversity, r->weights.svd, r->grad_norm,
                        (double)r->rows, (double)r->tokens, seconds > 0 ? (double)r->tokens / seconds : (double)NAN,
                        (double)bal_peak_rss_bytes(), r->penalty, r->ranks},
                       0,
                       false};
    if (r->skipped)
        for (size_t i = 2; i <= 6; i++)
            row->value[i] = NAN;
    BAL_TRY(write_line(m, row));
    if (m->store != NULL)
        m->n_rows++;
out:
    return status;
}

bal_status metrics_validation(trainer *t, double loss)
{
    train_metrics *m = &t->metrics;
    if (m->store == NULL)
        return BAL_OK;
    if (m->n_rows > 0 && m->rows[m->n_rows - 1].step == t->state.step) { /* goes with the row of its step */
        m->rows[m->n_rows - 1].validation = loss;
        m->rows[m->n_rows - 1].validated = true;
        return BAL_OK;
    }
    return bal_run_metric(m->store, m->run, "loss/validation", (int64_t)t->state.step, loss);
}

static bal_status write_rows(train_metrics *m)
{
    bal_status status = bal_store_begin(m->store);
    if (status != BAL_OK)
        return status;
    for (size_t i = 0; i < m->n_rows; i++) {
        if (m->rows[i].validated)
            BAL_TRY(
                bal_run_metric(m->store, m->run, "loss/validation", (int64_t)m->rows[i].step, m->rows[i].validation));
        for (size_t j = 0; j < TRAIN_COLUMNS; j++)
            if (!isnan(m->rows[i].value[j])) /* a term that is off has no curve */
                BAL_TRY(bal_run_metric(m->store, m->run, k_columns[j], (int64_t)m->rows[i].step, m->rows[i].value[j]));
    }
    BAL_TRY(bal_run_heartbeat(m->store, m->run));
    BAL_TRY(bal_store_commit(m->store));
    m->n_rows = 0;
    return BAL_OK;
out:
    bal_store_rollback(m->store);
    return status;
}

bal_status metrics_flush(trainer *t, bool force)
{
    train_metrics *m = &t->metrics;
    double now = bal_clock_seconds();
    if (m->store == NULL || m->n_rows == 0 || (!force && m->n_rows < m->cap / 2 && now - m->last_flush < FLUSH_SECONDS))
        return BAL_OK;
    bal_status status = write_rows(m);
    m->last_flush = now;
    if (status == BAL_EBUSY && m->n_rows < TRAIN_MAX_BUFFERED) {
        bal_log_line(t->log, BAL_LOG_WARN, "%s; %zu rows of metrics wait", bal_error_message(), m->n_rows);
        return BAL_OK;
    }
    return status;
}

bal_status metrics_close(trainer *t, bal_status status)
{
    train_metrics *m = &t->metrics;
    char message[1024];
    (void)snprintf(message, sizeof message, "%s", bal_error_message());
    if (m->store != NULL && m->run != 0) {
        bal_status flushed = metrics_flush(t, true);
        const char *word = status == BAL_OK ? "finished" : status == BAL_EINTERRUPT ? "interrupted" : "failed";
        bal_status ended =
            bal_run_end(m->store, m->run, word, bal_exit_status(status), status == BAL_OK ? NULL : message);
        if (status == BAL_OK)
            status = flushed != BAL_OK ? flushed : ended;
        else
            (void)bal_fail(status, "%s", message);
    }
    bal_store_close(m->store);
    if (m->file != NULL && fclose(m->file) != 0 && status == BAL_OK)
        status = bal_fail(BAL_EIO, "cannot write %s: %s", m->path, strerror(errno));
    bal_free(m->rows);
    m->store = NULL;
    m->file = NULL;
    m->rows = NULL;
    return status;
}
