/* The run database: metrics, evaluated items, matrices with their spectra.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/store.h"
#include "lib/io/store_impl.h"

#include <math.h>
#include <string.h>

enum { HEARTBEAT_MS = 30000 };

static void bind_text(sqlite3_stmt *st, int at, const char *text)
{
    if (text == NULL)
        (void)sqlite3_bind_null(st, at);
    else
        (void)sqlite3_bind_text(st, at, text, -1, SQLITE_STATIC); /* stepped before the caller's text can change */
}

static int kind_of(double value)
{
    if (isnan(value))
        return 1;
    if (isinf(value))
        return value > 0 ? 2 : 3;
    return 0;
}

/* NULL for what SQLite's REAL cannot hold; the kind column tells which it was. */
static void bind_value(sqlite3_stmt *st, int value_at, int kind_at, double value)
{
    int kind = kind_of(value);
    if (kind == 0)
        (void)sqlite3_bind_double(st, value_at, value);
    else
        (void)sqlite3_bind_null(st, value_at);
    (void)sqlite3_bind_int(st, kind_at, kind);
}

static bal_status metric_key(bal_store *s, const char *name, int64_t *id)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    for (size_t i = 0; i < s->n_names; i++)
        if (strcmp(s->names[i].name, name) == 0) {
            *id = s->names[i].id;
            return BAL_OK;
        }
    bal_status status = bal_store_cached(
        s, "INSERT INTO metric_key(name) VALUES(?1) ON CONFLICT(name) DO UPDATE SET name = excluded.name RETURNING id",
        &st);
    if (status != BAL_OK)
        return status;
    bind_text(st, 1, name);
    status = bal_store_step(s, st, &row);
    *id = row ? sqlite3_column_int64(st, 0) : 0;
    (void)sqlite3_reset(st);
    if (status == BAL_OK && s->n_names < BAL_STORE_METRIC_NAMES) {
        char *copy = bal_strdup(name);
        if (copy == NULL)
            return BAL_ENOMEM;
        s->names[s->n_names].name = copy;
        s->names[s->n_names++].id = *id;
    }
    return status;
}

/* Rebuilds metric_last from metric; key 0: all keys of the run. */
static bal_status rebuild_last(bal_store *s, int64_t run, int64_t key)
{
    static const char clear[] = "DELETE FROM metric_last WHERE run_id = ?1 AND (?2 = 0 OR key_id = ?2)";
    static const char fill[] =
        "INSERT INTO metric_last(run_id, key_id, step, t_ms, value, kind, min, min_step, max, max_step, n) "
        "SELECT m.run_id, m.key_id, m.step, m.t_ms, m.value, m.kind, "
        "(SELECT min(value) FROM metric x WHERE x.run_id = m.run_id AND x.key_id = m.key_id), "
        "(SELECT step FROM metric x WHERE x.run_id = m.run_id AND x.key_id = m.key_id AND value IS NOT NULL "
        "ORDER BY value, step LIMIT 1), "
        "(SELECT max(value) FROM metric x WHERE x.run_id = m.run_id AND x.key_id = m.key_id), "
        "(SELECT step FROM metric x WHERE x.run_id = m.run_id AND x.key_id = m.key_id AND value IS NOT NULL "
        "ORDER BY value DESC, step LIMIT 1), "
        "(SELECT count(*) FROM metric x WHERE x.run_id = m.run_id AND x.key_id = m.key_id) "
        "FROM metric m WHERE m.run_id = ?1 AND (?2 = 0 OR m.key_id = ?2) AND m.step = "
        "(SELECT max(step) FROM metric x WHERE x.run_id = m.run_id AND x.key_id = m.key_id)";
    const char *const both[] = {clear, fill};
    for (size_t i = 0; i < 2; i++) {
        sqlite3_stmt *st = NULL;
        bal_status status = bal_store_cached(s, both[i], &st);
        if (status != BAL_OK)
            return status;
        (void)sqlite3_bind_int64(st, 1, run);
        (void)sqlite3_bind_int64(st, 2, key);
        status = bal_store_run(s, st, "write metrics");
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status replace_metric(bal_store *s, int64_t run, int64_t key, int64_t step, int64_t now, double value)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_cached(s,
                                         "UPDATE metric SET t_ms = ?4, value = ?5, kind = ?6 WHERE run_id = ?1 AND "
                                         "key_id = ?2 AND step = ?3 AND seq = 0",
                                         &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_int64(st, 2, key);
    (void)sqlite3_bind_int64(st, 3, step);
    (void)sqlite3_bind_int64(st, 4, now);
    bind_value(st, 5, 6, value);
    status = bal_store_run(s, st, "write a metric");
    return status == BAL_OK ? rebuild_last(s, run, key) : status;
}

static bal_status update_last(bal_store *s, int64_t run, int64_t key, int64_t step, int64_t now, double value)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_cached(
        s,
        "INSERT INTO metric_last AS l(run_id, key_id, step, t_ms, value, kind, min, min_step, max, max_step, n) "
        "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?5, iif(?5 IS NULL, NULL, ?3), ?5, iif(?5 IS NULL, NULL, ?3), 1) "
        "ON CONFLICT(run_id, key_id) DO UPDATE SET n = n + 1, "
        "value = iif(?3 >= step, ?5, value), kind = iif(?3 >= step, ?6, kind), t_ms = iif(?3 >= step, ?4, t_ms), "
        "step = max(step, ?3), "
        "min_step = iif(?5 IS NOT NULL AND (min IS NULL OR ?5 < min), ?3, min_step), "
        "min = iif(?5 IS NOT NULL AND (min IS NULL OR ?5 < min), ?5, min), "
        "max_step = iif(?5 IS NOT NULL AND (max IS NULL OR ?5 > max), ?3, max_step), "
        "max = iif(?5 IS NOT NULL AND (max IS NULL OR ?5 > max), ?5, max)",
        &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_int64(st, 2, key);
    (void)sqlite3_bind_int64(st, 3, step);
    (void)sqlite3_bind_int64(st, 4, now);
    bind_value(st, 5, 6, value);
    return bal_store_run(s, st, "write a metric");
}

static bal_status put_metric(bal_store *s, int64_t run, const char *name, int64_t step, double value)
{
    sqlite3_stmt *st = NULL;
    int64_t key = 0, now = bal_clock_unix_ms();
    bal_status status = metric_key(s, name, &key);
    if (status == BAL_OK)
        status = bal_store_cached(s,
                                  "INSERT INTO metric(run_id, key_id, step, seq, t_ms, value, kind) VALUES(?1, ?2, ?3, "
                                  "0, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                                  &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_int64(st, 2, key);
    (void)sqlite3_bind_int64(st, 3, step);
    (void)sqlite3_bind_int64(st, 4, now);
    bind_value(st, 5, 6, value);
    status = bal_store_run(s, st, "write a metric");
    if (status != BAL_OK)
        return status;
    return sqlite3_changes(s->db) == 0 ? replace_metric(s, run, key, step, now, value)
                                       : update_last(s, run, key, step, now, value);
}

bal_status bal_run_metric(bal_store *s, int64_t run, const char *name, int64_t step, double value)
{
    bal_status status = bal_store_begin(s);
    if (status != BAL_OK)
        return status;
    status = put_metric(s, run, name, step, value);
    if (status == BAL_OK)
        return bal_store_commit(s);
    bal_store_rollback(s);
    return status;
}

bal_status bal_run_truncate_metrics(bal_store *s, int64_t run, int64_t step)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_begin(s);
    if (status != BAL_OK)
        return status;
    BAL_TRY(bal_store_cached(s, "DELETE FROM metric WHERE run_id = ?1 AND step > ?2", &st));
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_int64(st, 2, step);
    BAL_TRY(bal_store_run(s, st, "remove metrics"));
    BAL_TRY(rebuild_last(s, run, 0));
    return bal_store_commit(s);
out:
    bal_store_rollback(s);
    return status;
}

bal_status bal_run_item(bal_store *s, int64_t run, const bal_eval_item *item)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_cached(
        s,
        "INSERT OR REPLACE INTO eval_item(run_id, task, item, repeat, filter, correct, score, extracted, "
        "gold, group_id, prompt_sha256, output, prompt_tokens, output_tokens, seconds, finish_reason) "
        "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    bind_text(st, 2, item->task);
    (void)sqlite3_bind_int64(st, 3, item->item);
    (void)sqlite3_bind_int64(st, 4, item->repeat);
    bind_text(st, 5, item->filter != NULL ? item->filter : "none");
    if (item->correct >= 0)
        (void)sqlite3_bind_int(st, 6, item->correct);
    if (isfinite(item->score))
        (void)sqlite3_bind_double(st, 7, item->score);
    bind_text(st, 8, item->extracted);
    bind_text(st, 9, item->gold);
    bind_text(st, 10, item->group);
    bind_text(st, 11, item->prompt_sha256);
    bind_text(st, 12, item->output);
    (void)sqlite3_bind_int64(st, 13, item->prompt_tokens);
    (void)sqlite3_bind_int64(st, 14, item->output_tokens);
    if (isfinite(item->seconds))
        (void)sqlite3_bind_double(st, 15, item->seconds);
    bind_text(st, 16, item->finish_reason);
    status = bal_store_run(s, st, "write an item");
    int64_t now = bal_clock_unix_ms();
    if (status != BAL_OK || (now >= s->heard_ms && now - s->heard_ms < HEARTBEAT_MS))
        return status;
    s->heard_ms = now;
    return bal_run_heartbeat(s, run);
}

static bal_status put_matrix(bal_store *s, int64_t run, const bal_matrix_stat *m, int64_t *id)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status = bal_store_cached(
        s,
        "INSERT INTO matrix_stat(run_id, checkpoint_step, layer, module, target, convention, m, n, r, "
        "scaling, dtype, status, n_nonfinite) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, "
        "?13) ON CONFLICT(run_id, checkpoint_step, layer, module, target, convention) DO UPDATE SET "
        "m = excluded.m, n = excluded.n, r = excluded.r, scaling = excluded.scaling, "
        "dtype = excluded.dtype, status = excluded.status, n_nonfinite = excluded.n_nonfinite "
        "RETURNING id",
        &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_int64(st, 2, m->step);
    (void)sqlite3_bind_int64(st, 3, m->layer);
    bind_text(st, 4, m->module != NULL ? m->module : "");
    bind_text(st, 5, m->target != NULL ? m->target : "");
    bind_text(st, 6, m->convention != NULL ? m->convention : "");
    (void)sqlite3_bind_int64(st, 7, m->m);
    (void)sqlite3_bind_int64(st, 8, m->n);
    (void)sqlite3_bind_int64(st, 9, m->r);
    if (isfinite(m->scaling))
        (void)sqlite3_bind_double(st, 10, m->scaling);
    bind_text(st, 11, m->dtype);
    bind_text(st, 12, m->status != NULL ? m->status : "ok");
    (void)sqlite3_bind_int64(st, 13, m->n_nonfinite);
    status = bal_store_step(s, st, &row);
    *id = row ? sqlite3_column_int64(st, 0) : 0;
    (void)sqlite3_reset(st);
    return status;
}

static bal_status forget_matrix_values(bal_store *s, int64_t id)
{
    static const char values[] = "DELETE FROM matrix_value WHERE matrix_stat_id = ?1";
    static const char spectrum[] = "DELETE FROM spectrum WHERE matrix_stat_id = ?1";
    const char *const both[] = {values, spectrum};
    for (size_t i = 0; i < 2; i++) {
        sqlite3_stmt *st = NULL;
        bal_status status = bal_store_cached(s, both[i], &st);
        if (status != BAL_OK)
            return status;
        (void)sqlite3_bind_int64(st, 1, id);
        status = bal_store_run(s, st, "write a matrix");
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status put_matrix_value(bal_store *s, int64_t id, const char *name, double value)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_cached(
        s, "INSERT OR REPLACE INTO matrix_value(matrix_stat_id, name, value, kind) VALUES(?1, ?2, ?3, ?4)", &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, id);
    bind_text(st, 2, name);
    bind_value(st, 3, 4, value);
    return bal_store_run(s, st, "write a matrix");
}

static bal_status put_spectrum(bal_store *s, int64_t id, const double *sv, size_t n)
{
    sqlite3_stmt *st = NULL;
    char hash[65];
    size_t bytes;
    if (!bal_mul_size(n, sizeof *sv, &bytes) || bytes > (size_t)INT32_MAX)
        return bal_fail(BAL_ELIMIT, "a spectrum of %zu values is too long for the database", n);
    bal_status status = bal_store_cached(
        s, "INSERT OR REPLACE INTO spectrum(matrix_stat_id, n, sv, sha256) VALUES(?1, ?2, ?3, ?4)", &st);
    if (status != BAL_OK)
        return status;
    bal_sha256_hex(sv, bytes, hash);
    (void)sqlite3_bind_int64(st, 1, id);
    (void)sqlite3_bind_int64(st, 2, (sqlite3_int64)n);
    (void)sqlite3_bind_blob(st, 3, sv, (int)bytes, SQLITE_STATIC); /* doubles, little endian as the machine */
    bind_text(st, 4, hash);
    return bal_store_run(s, st, "write a spectrum");
}

bal_status bal_run_matrix(bal_store *s, int64_t run, const bal_matrix_stat *stat, const char *const *names,
                          const double *values, size_t n_values, const double *sv, size_t n_sv)
{
    int64_t id = 0;
    bal_status status = bal_store_begin(s);
    if (status != BAL_OK)
        return status;
    BAL_TRY(put_matrix(s, run, stat, &id));
    BAL_TRY(forget_matrix_values(s, id));
    for (size_t i = 0; i < n_values; i++)
        BAL_TRY(put_matrix_value(s, id, names[i], values[i]));
    if (sv != NULL && n_sv > 0)
        BAL_TRY(put_spectrum(s, id, sv, n_sv));
    return bal_store_commit(s);
out:
    bal_store_rollback(s);
    return status;
}
