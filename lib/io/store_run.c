/* The run database: one run's row, parameters, tags and artifacts.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/store.h"
#include "lib/io/store_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static bal_status make_uuid(char out[33])
{
    unsigned char bytes[16];
    size_t have = 0;
    while (have < sizeof bytes) {
        ssize_t got = getrandom(bytes + have, sizeof bytes - have, 0);
        if (got < 0 && errno != EINTR)
            return bal_fail(BAL_EIO, "the system gives no random numbers: %s", strerror(errno));
        have += got > 0 ? (size_t)got : 0;
    }
    for (size_t i = 0; i < sizeof bytes; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    return BAL_OK;
}

static bal_status find_experiment(bal_store *s, const char *name, int64_t *id)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status = bal_store_cached(s,
                                         "INSERT INTO experiment(name, created_ms) VALUES(?1, ?2) ON CONFLICT(name) DO "
                                         "UPDATE SET name = excluded.name RETURNING id",
                                         &st);
    if (status != BAL_OK)
        return status;
    bal_store_bind_text(st, 1, name);
    (void)sqlite3_bind_int64(st, 2, bal_clock_unix_ms());
    status = bal_store_step(s, st, &row);
    *id = row ? sqlite3_column_int64(st, 0) : 0;
    (void)sqlite3_reset(st);
    return status;
}

static bal_status put_param(bal_store *s, int64_t run, const char *key, const char *type, const char *text,
                            const double *num)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_cached(
        s, "INSERT OR REPLACE INTO param(run_id, key, type, text, num) VALUES(?1, ?2, ?3, ?4, ?5)", &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    bal_store_bind_text(st, 2, key);
    bal_store_bind_text(st, 3, type);
    bal_store_bind_text(st, 4, text);
    if (num != NULL)
        (void)sqlite3_bind_double(st, 5, *num);
    return bal_store_run(s, st, "write a parameter");
}

static bal_status put_json_param(bal_store *s, int64_t run, const char *key, const cJSON *v)
{
    bal_buf text = {0};
    double num = v->valuedouble;
    bal_status status = BAL_OK;
    if (cJSON_IsString(v))
        return put_param(s, run, key, "text", v->valuestring, NULL);
    BAL_TRY(bal_json_put(&text, v, false));
    if (cJSON_IsBool(v)) {
        num = cJSON_IsTrue(v) ? 1 : 0;
        status = put_param(s, run, key, "bool", bal_buf_cstr(&text), &num);
    } else if (cJSON_IsNumber(v)) {
        status = put_param(s, run, key, "number", bal_buf_cstr(&text), &num);
    } else {
        status = put_param(s, run, key, "json", bal_buf_cstr(&text), NULL);
    }
out:
    bal_buf_dispose(&text);
    return status;
}

/* Objects become dotted keys; lists stay as JSON text; null is left out.  Depth is bounded by the JSON reader. */
// NOLINTNEXTLINE(misc-no-recursion)
static bal_status flatten(bal_store *s, int64_t run, const char *prefix, const cJSON *object)
{
    bal_status status = BAL_OK;
    for (const cJSON *v = object->child; v != NULL && status == BAL_OK; v = v->next) {
        bal_buf key = {0};
        status = bal_buf_printf(&key, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", v->string);
        if (status == BAL_OK && cJSON_IsObject(v))
            status = flatten(s, run, bal_buf_cstr(&key), v);
        else if (status == BAL_OK && !cJSON_IsNull(v))
            status = put_json_param(s, run, bal_buf_cstr(&key), v);
        bal_buf_dispose(&key);
    }
    return status;
}

static bal_status put_config(bal_store *s, int64_t run, const char *text)
{
    cJSON *json = NULL;
    bal_status status = bal_json_parse(&json, text, strlen(text), "configuration of the run");
    if (status == BAL_OK && cJSON_IsObject(json))
        status = flatten(s, run, "", json);
    cJSON_Delete(json);
    return status;
}

static bal_status words_json(int argc, char **argv, bal_buf *out)
{
    bal_status status = bal_buf_text(out, "[");
    for (int i = 0; i < argc && status == BAL_OK; i++) {
        if (i > 0)
            status = bal_buf_text(out, ", ");
        if (status == BAL_OK)
            status = bal_json_put_text(out, argv[i]);
    }
    return status == BAL_OK ? bal_buf_text(out, "]") : status;
}

static void default_name(const char *kind, int64_t now_ms, char *out, size_t n)
{
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc = {0};
    char stamp[32] = "";
    if (gmtime_r(&seconds, &utc) != NULL)
        (void)strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &utc);
    (void)snprintf(out, n, "%s-%s", kind, stamp);
}

static bal_status insert_run(bal_store *s, const bal_run_spec *spec, int64_t experiment, int64_t host, const char *argv,
                             int64_t *run)
{
    sqlite3_stmt *st = NULL;
    char uuid[33], name[128], cwd[PATH_MAX] = "", hash[65], commit[65];
    bool row = false;
    int64_t now = bal_clock_unix_ms();
    bal_status status = make_uuid(uuid);
    if (status == BAL_OK)
        status = bal_store_cached(
            s,
            "INSERT INTO run(uuid, experiment_id, parent_run_id, name, kind, status, start_ms, "
            "heartbeat_ms, seed, argv, cwd, tool_version, config_sha256, config, host_id, git_commit) VALUES(?1, "
            "?2, ?3, ?4, ?5, 'running', ?6, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) RETURNING id",
            &st);
    if (status != BAL_OK)
        return status;
    default_name(spec->kind, now, name, sizeof name);
    bal_store_bind_text(st, 1, uuid);
    (void)sqlite3_bind_int64(st, 2, experiment);
    if (spec->parent_run > 0)
        (void)sqlite3_bind_int64(st, 3, spec->parent_run);
    bal_store_bind_text(st, 4, spec->name != NULL && spec->name[0] != '\0' ? spec->name : name);
    bal_store_bind_text(st, 5, spec->kind);
    (void)sqlite3_bind_int64(st, 6, now);
    (void)sqlite3_bind_int64(st, 7, spec->seed);
    bal_store_bind_text(st, 8, argv);
    bal_store_bind_text(st, 9, getcwd(cwd, sizeof cwd));
    bal_store_bind_text(st, 10, BAL_VERSION);
    if (spec->config_json != NULL) {
        bal_sha256_hex(spec->config_json, strlen(spec->config_json), hash);
        bal_store_bind_text(st, 11, hash);
        bal_store_bind_text(st, 12, spec->config_json);
    }
    (void)sqlite3_bind_int64(st, 13, host);
    if (bal_git_commit(cwd, commit))
        bal_store_bind_text(st, 14, commit);
    status = bal_store_step(s, st, &row);
    *run = row ? sqlite3_column_int64(st, 0) : 0;
    (void)sqlite3_reset(st);
    return status;
}

bal_status bal_run_begin(bal_store *s, const bal_run_spec *spec, int64_t *run)
{
    int64_t experiment = 0, host = 0;
    bal_buf argv = {0};
    *run = 0;
    bal_status status = bal_store_begin(s);
    if (status != BAL_OK)
        return status;
    BAL_TRY(find_experiment(s, spec->experiment != NULL ? spec->experiment : "default", &experiment));
    BAL_TRY(bal_store_host(s, &host));
    BAL_TRY(words_json(spec->argc, spec->argv, &argv));
    BAL_TRY(insert_run(s, spec, experiment, host, bal_buf_cstr(&argv), run));
    if (spec->config_json != NULL)
        BAL_TRY(put_config(s, *run, spec->config_json));
    bal_buf_dispose(&argv);
    return bal_store_commit(s);
out:
    bal_buf_dispose(&argv);
    bal_store_rollback(s);
    return status;
}

bal_status bal_run_end(bal_store *s, int64_t run, const char *run_status, int exit_code, const char *error)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_cached(s,
                                         "UPDATE run SET status = ?2, exit_code = ?3, error = ?4, end_ms = ?5, "
                                         "heartbeat_ms = ?5 WHERE id = ?1",
                                         &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    bal_store_bind_text(st, 2, run_status);
    (void)sqlite3_bind_int(st, 3, exit_code);
    bal_store_bind_text(st, 4, error);
    (void)sqlite3_bind_int64(st, 5, bal_clock_unix_ms());
    status = bal_store_run(s, st, "end the run");
    if (status == BAL_OK)
        status = bal_store_cached(s, "DELETE FROM tag WHERE run_id = ?1 AND key = 'process'", &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    return bal_store_run(s, st, "end the run");
}

bal_status bal_run_heartbeat(bal_store *s, int64_t run)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_cached(s, "UPDATE run SET heartbeat_ms = ?2 WHERE id = ?1", &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_int64(st, 2, bal_clock_unix_ms());
    return bal_store_run(s, st, "write to it");
}

bal_status bal_run_uuid(bal_store *s, int64_t run, char out[33])
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    out[0] = '\0';
    bal_status status = bal_store_cached(s, "SELECT uuid FROM run WHERE id = ?1", &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    status = bal_store_step(s, st, &row);
    if (row)
        (void)snprintf(out, 33, "%s", (const char *)sqlite3_column_text(st, 0));
    else if (status == BAL_OK)
        status = bal_fail(BAL_ENOENT, "%s: there is no run %lld", s->path, (long long)run);
    (void)sqlite3_reset(st);
    return status;
}

bal_status bal_run_tag(bal_store *s, int64_t run, const char *key, const char *text)
{
    sqlite3_stmt *st = NULL;
    bal_status status = bal_store_cached(s, "INSERT OR REPLACE INTO tag(run_id, key, value) VALUES(?1, ?2, ?3)", &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    bal_store_bind_text(st, 2, key);
    bal_store_bind_text(st, 3, text);
    return bal_store_run(s, st, "write a tag");
}

bal_status bal_run_artifact(bal_store *s, int64_t run, const char *path, const char *role)
{
    sqlite3_stmt *st = NULL;
    uint64_t bytes = 0;
    char hash[65] = "";
    bal_status status =
        bal_store_cached(s,
                         "INSERT INTO artifact(run_id, path, role, bytes, sha256) VALUES(?1, ?2, ?3, ?4, "
                         "?5) ON CONFLICT(run_id, path) DO UPDATE SET role = excluded.role, bytes = "
                         "excluded.bytes, sha256 = excluded.sha256",
                         &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    bal_store_bind_text(st, 2, path);
    bal_store_bind_text(st, 3, role);
    if (bal_file_exists(path) && bal_file_size(path, &bytes) == BAL_OK) {
        bal_map map = {0};
        (void)sqlite3_bind_int64(st, 4, (sqlite3_int64)bytes);
        if (bytes > 0 && bal_map_open(&map, path) == BAL_OK) {
            bal_sha256_hex(map.data, map.bytes, hash);
            bal_store_bind_text(st, 5, hash);
            bal_map_close(&map);
        }
    }
    return bal_store_run(s, st, "write an artifact");
}

/* First column of the first row for `text`; *run stays 0 when there is none. */
static bal_status look_up(bal_store *s, const char *sql, const char *text, int64_t *run, size_t *n)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    *n = 0;
    bal_status status = bal_store_prepare(s, sql, &st);
    if (status != BAL_OK)
        return status;
    bal_store_bind_text(st, 1, text);
    while ((status = bal_store_step(s, st, &row)) == BAL_OK && row)
        if ((*n)++ == 0)
            *run = sqlite3_column_int64(st, 0);
    (void)sqlite3_finalize(st);
    return status;
}

static bal_status nothing_found(bal_store *s, const char *text)
{
    enum { MAX = 200 };
    char names[MAX][80];
    const char *pointers[MAX] = {NULL};
    size_t n = 0;
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status = bal_store_prepare(s, "SELECT DISTINCT name FROM run ORDER BY start_ms DESC LIMIT 200", &st);
    if (status != BAL_OK)
        return status;
    while (n < MAX && (status = bal_store_step(s, st, &row)) == BAL_OK && row) {
        (void)snprintf(names[n], sizeof names[n], "%s", (const char *)sqlite3_column_text(st, 0));
        pointers[n] = names[n];
        n++;
    }
    (void)sqlite3_finalize(st);
    if (status != BAL_OK)
        return status;
    const char *near = bal_nearest(text, pointers, n);
    if (near != NULL)
        return bal_fail(BAL_ENOENT, "%s: there is no run '%.80s'; did you mean '%s'?", s->path, text, near);
    return bal_fail(BAL_ENOENT, "%s: there is no run '%.80s'; 'balora runs list' shows what there is", s->path, text);
}

bal_status bal_run_find(bal_store *s, const char *text, int64_t *run)
{
    size_t n = 0, length = strlen(text);
    bool digits = length > 0 && length < 19 && strspn(text, "0123456789") == length;
    bool hex = length >= 4 && length <= 32 && strspn(text, "0123456789abcdef") == length;
    bal_status status = BAL_OK;
    *run = 0;
    if (digits)
        BAL_TRY(look_up(s, "SELECT id FROM run WHERE id = CAST(?1 AS INTEGER)", text, run, &n));
    if (n == 0)
        BAL_TRY(
            look_up(s, "SELECT id FROM run WHERE name = ?1 ORDER BY start_ms DESC, id DESC LIMIT 1", text, run, &n));
    if (n == 0 && strcmp(text, "last") == 0)
        BAL_TRY(look_up(s, "SELECT id FROM run WHERE ?1 <> '' ORDER BY start_ms DESC, id DESC LIMIT 1", text, run, &n));
    if (n == 0 && hex) {
        BAL_TRY(look_up(s, "SELECT id FROM run WHERE substr(uuid, 1, length(?1)) = ?1 LIMIT 2", text, run, &n));
        if (n > 1)
            return bal_fail(BAL_EINVAL, "%s: more than one run's uuid begins with '%s'; give more digits", s->path,
                            text);
    }
    if (n == 0)
        return nothing_found(s, text);
out:
    return status;
}
