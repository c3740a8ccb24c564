/* Files and the run database when memory or disk gives out, when another process holds the lock, and after kill -9:
 * one status with its sentence, nothing leaked, what was there before stays whole.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/io/safetensors.h"
#include "lib/io/store.h"
#include "tools/runs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 3000, N_VALUES = 4000 };

static const char *path_of(const char *name)
{
    static char path[4][200];
    static size_t turn;
    char *p = path[turn++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", test_folder(), name);
    return p;
}

/* Runs `body` with the 1st, 2nd, ... allocation failing until it succeeds. */
static void fail_each_allocation(const char *what, bal_status (*body)(void))
{
    CHECK_OK(body()); /* SQLite and zlib keep nothing in our memory: what is held now is held after */
    uint64_t held = bal_mem_bytes();
    uint64_t n = 1;
    for (; n < MOST; n++) {
        bal_mem_fail_nth(n);
        bal_status status = body();
        bal_mem_fail_nth(0);
        if (!CHECK_MSG(bal_mem_bytes() == held, "%s: allocation %d failing leaks", what, (int)n) || status == BAL_OK)
            break;
        CHECK_MSG(status == BAL_ENOMEM, "%s: allocation %d failing gives status %d: %s", what, (int)n, (int)status,
                  bal_error_message());
    }
    CHECK_MSG(n > 1 && n < MOST, "%s: %d allocations", what, (int)n);
}

static bal_status parse_json(void)
{
    static const char text[] = "{\"a\": [1, 2, {\"b\": \"\\u00e4\\u0000\"}], // c\n \"d\": null,}";
    cJSON *json = NULL;
    bal_buf b = {0};
    bal_status status = bal_json_parse_relaxed(&json, text, sizeof text - 1, "x");
    if (status == BAL_OK)
        status = bal_json_put(&b, json, true);
    cJSON_Delete(json);
    bal_buf_dispose(&b);
    return status;
}

static bal_status read_lines(void)
{
    bal_lines *l = NULL;
    cJSON *json = NULL;
    bal_table t = {0};
    bal_status status = bal_lines_open(&l, path_of("x.jsonl"));
    for (bool more = true; more && status == BAL_OK;) {
        status = bal_jsonl_next(l, &json);
        more = json != NULL;
        cJSON_Delete(json);
    }
    bal_lines_close(l);
    if (status == BAL_OK)
        status = bal_table_read(&t, path_of("x.jsonl"), ',');
    bal_table_dispose(&t);
    return status;
}

static float g_values[N_VALUES];

static bal_status write_tensors(void)
{
    bal_safetensors_writer *w = NULL;
    size_t shape[] = {2, N_VALUES / 2};
    bal_status status = bal_safetensors_writer_new(&w);
    if (status == BAL_OK)
        status = bal_safetensors_writer_add(w, "a.weight", BAL_DTYPE_F32, 2, shape, g_values);
    if (status == BAL_OK)
        status = bal_safetensors_writer_metadata(w, "format", "pt");
    if (status == BAL_OK)
        status = bal_safetensors_writer_commit(w, path_of("x.safetensors"));
    bal_safetensors_writer_free(w);
    return status;
}

static bal_status read_tensors(void)
{
    bal_safetensors *s = NULL;
    bal_status status = bal_safetensors_open(&s, path_of("x.safetensors"));
    bal_safetensors_close(s);
    return status;
}

static bal_status fill_store(bal_store *s)
{
    static const char *const names[] = {"stable_rank", "erank"};
    static const double values[] = {1, 2}, sv[] = {3, 2, 1};
    int64_t run = 0;
    bal_run_spec spec = {.kind = "train", .config_json = "{\"r\": 8, \"t\": [\"a\"], \"o\": {\"x\": true}}"};
    bal_eval_item item = {.task = "t", .correct = 1, .output = "text"};
    bal_matrix_stat m = {.module = "q_proj", .target = "delta"};
    bal_status status = BAL_OK;
    BAL_TRY(bal_run_begin(s, &spec, &run));
    for (int64_t step = 1; step <= 20; step++)
        BAL_TRY(bal_run_metric(s, run, "loss/total", step, 1.0 / (double)step));
    BAL_TRY(bal_run_metric(s, run, "loss/total", 3, 7));
    BAL_TRY(bal_run_item(s, run, &item));
    BAL_TRY(bal_run_matrix(s, run, &m, names, values, 2, sv, 3));
    BAL_TRY(bal_run_artifact(s, run, path_of("x.jsonl"), "data"));
    BAL_TRY(bal_run_end(s, run, "finished", 0, NULL));
    BAL_TRY(bal_run_find(s, "last", &run));
out:
    return status;
}

static bal_status use_store(void)
{
    bal_store *s = NULL;
    bal_status status = bal_store_open(&s, path_of("torture.db"), true);
    if (status == BAL_OK)
        status = fill_store(s);
    bal_store_close(s);
    return status;
}

static bal_status export_store(void)
{
    static const char *const words[] = {"1"};
    static const runs_config config = {.table = "runs", .csv = true, .limit = 2};
    static bal_status (*const verbs[])(runs_context *) = {runs_list, runs_show, runs_export};
    runs_context c = {.config = &config, .words = words};
    bal_status status = bal_store_open(&c.store, path_of("torture.db"), false);
    for (size_t i = 0; i < 6 && status == BAL_OK; i++) {
        c.n_words = i % 3 > 0;
        c.json = i >= 3;
        status = verbs[i % 3](&c);
    }
    bal_buf_dispose(&c.out);
    bal_store_close(c.store);
    return status;
}

static void prepare_files(void)
{
    static const char lines[] = "{\"a\": 1}\n{\"a\": \"x,y\"}\n";
    CHECK_OK(bal_file_replace(path_of("x.jsonl"), lines, sizeof lines - 1));
    for (size_t i = 0; i < N_VALUES; i++)
        g_values[i] = (float)i;
}

TEST(each_allocation_may_fail)
{
    prepare_files();
    fail_each_allocation("JSON", parse_json);
    fail_each_allocation("lines and tables", read_lines);
    fail_each_allocation("writing safetensors", write_tensors);
    fail_each_allocation("reading safetensors", read_tensors);
    fail_each_allocation("the run database", use_store);
    fail_each_allocation("runs list, show, export", export_store);
}

/* SQLite's own memory: the limit grows until all goes well. */
TEST(sqlite_may_lack_memory)
{
    size_t refused = 0;
    bal_status status = BAL_ENOMEM;
    prepare_files();
    CHECK_OK(use_store());
    for (sqlite3_int64 bytes = 4096; bytes < (8 << 20) && status != BAL_OK; bytes += bytes < 400000 ? 9973 : 200000) {
        (void)sqlite3_hard_heap_limit64(bytes);
        status = use_store();
        (void)sqlite3_hard_heap_limit64(0);
        refused += status != BAL_OK;
        CHECK_MSG(status == BAL_OK || status == BAL_ENOMEM, "with %d bytes: status %d: %s", (int)bytes, (int)status,
                  bal_error_message());
    }
    CHECK(status == BAL_OK && refused > 3);
}

static int64_t count_in_store(const char *sql)
{
    bal_store *s = NULL;
    sqlite3_stmt *st = NULL;
    int64_t n = -1;
    if (CHECK_OK(bal_store_open(&s, path_of("torture.db"), false)) && CHECK_OK(bal_store_prepare(s, sql, &st)) &&
        sqlite3_step(st) == SQLITE_ROW)
        n = sqlite3_column_int64(st, 0);
    (void)sqlite3_finalize(st);
    bal_store_close(s);
    return n;
}

/* In a child, so that the limit and the signal are its own: exit status 0 done, 10 refused with BAL_EIO. */
static int with_file_limit(rlim_t bytes, bal_status (*body)(void))
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {bytes, bytes};
        (void)signal(SIGXFSZ, SIG_IGN);
        bal_status status = setrlimit(RLIMIT_FSIZE, &limit) == 0 ? body() : BAL_EINVAL;
        if (status != BAL_OK && status != BAL_EIO)
            (void)fprintf(stderr, "limit %ld: status %d: %s\n", (long)bytes, (int)status, bal_error_message());
        _exit(status == BAL_OK ? 0 : status == BAL_EIO && bal_error_message()[0] != '\0' ? 10 : 11);
    }
    int code = -1;
    if (child < 0 || waitpid(child, &code, 0) != child || !WIFEXITED(code))
        return -1;
    return WEXITSTATUS(code);
}

TEST(each_write_may_fail)
{
    bal_buf before = {0}, after = {0};
    int refused = 0, code = 10;
    prepare_files();
    CHECK_OK(write_tensors());
    CHECK_OK(bal_file_read(path_of("x.safetensors"), 1 << 20, &before));
    g_values[0] = 77; /* what the refused writes would put there */
    for (rlim_t bytes = 0; bytes < before.len; bytes += 499) {
        code = with_file_limit(bytes, write_tensors);
        CHECK_MSG(code == 10, "safetensors with a limit of %d bytes: code %d", (int)bytes, code);
        bal_buf_clear(&after);
        CHECK_OK(bal_file_read(path_of("x.safetensors"), 1 << 20, &after));
        CHECK_MSG(after.len == before.len && memcmp(after.data, before.data, before.len) == 0,
                  "the file changed with a limit of %d bytes", (int)bytes);
    }
    bal_buf_dispose(&before);
    bal_buf_dispose(&after);
    (void)remove(path_of("torture.db"));
    CHECK_OK(use_store());
    for (rlim_t bytes = 0; bytes < (4 << 20) && code != 0; bytes += 16384) {
        int64_t runs = count_in_store("SELECT count(*) FROM run");
        code = with_file_limit(bytes, use_store);
        CHECK_MSG(code == 0 || code == 10, "database with a limit of %d bytes: code %d", (int)bytes, code);
        refused += code == 10;
        CHECK(count_in_store("SELECT count(*) FROM run") >= runs);
        CHECK(count_in_store("SELECT count(*) = 1 FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1);
    }
    CHECK(code == 0 && refused > 2);
}

TEST(a_locked_database_is_waited_for_then_named)
{
    bal_store *s = NULL;
    int64_t run = 0;
    int ready[2], done[2];
    char byte = 0;
    prepare_files();
    CHECK_OK(use_store());
    if (!CHECK(pipe(ready) == 0 && pipe(done) == 0))
        return;
    pid_t child = fork();
    if (child == 0) {
        bal_store *mine = NULL;
        bool locked = bal_store_open(&mine, path_of("torture.db"), true) == BAL_OK && bal_store_begin(mine) == BAL_OK;
        (void)!write(ready[1], locked ? "y" : "n", 1);
        (void)!read(done[0], &byte, 1);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1 && byte == 'y');
    if (CHECK_OK(bal_store_open(&s, path_of("torture.db"), false))) /* readers are not held up */
        CHECK_OK(bal_run_find(s, "1", &run));
    bal_store_close(s);
    if (CHECK_OK(bal_store_open(&s, path_of("torture.db"), true))) {
        (void)sqlite3_busy_timeout(bal_store_handle(s), 30); /* not the whole 5 s */
        CHECK_STATUS(bal_run_metric(s, 1, "x", 1, 1), BAL_EBUSY);
        CHECK(strstr(bal_error_message(), "another process has locked the database") != NULL);
        CHECK(strchr(bal_error_message(), '\n') == NULL);
    }
    CHECK(write(done[1], "x", 1) == 1);
    CHECK(waitpid(child, NULL, 0) == child);
    CHECK_OK(bal_run_metric(s, 1, "x", 1, 1)); /* the lock went with its process */
    bal_store_close(s);
    for (size_t i = 0; i < 2; i++) {
        (void)close(ready[i]);
        (void)close(done[i]);
    }
}

/* Writes until it is killed; says so after the third step. */
static void write_for_ever(int told)
{
    bal_store *s = NULL;
    if (bal_store_open(&s, path_of("torture.db"), true) != BAL_OK)
        _exit(1);
    for (int64_t step = 1;; step++) { /* a step's two metrics in one transaction */
        bool bad = bal_store_begin(s) != BAL_OK || bal_run_metric(s, 1, "a", step, 1) != BAL_OK ||
                   bal_run_metric(s, 1, "b", step, 1) != BAL_OK || bal_store_commit(s) != BAL_OK;
        if (bad || (step == 3 && write(told, "x", 1) != 1))
            _exit(2);
    }
}

/* A file in the making has no name where the file system can do that; where it cannot (NFS), one stays behind. */
TEST(a_killed_writer_leaves_no_temporary_file)
{
    char folder[200], path[256];
    (void)snprintf(folder, sizeof folder, "%s", path_of("killed"));
    (void)snprintf(path, sizeof path, "%s/x.jsonl", folder);
    CHECK_OK(bal_folder_make(folder));
    int fd = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        SKIP("the file system has no files without a name");
    (void)close(fd);
    pid_t child = fork();
    if (child == 0) {
        bal_writer w = {0};
        if (bal_writer_open(&w, path) != BAL_OK || bal_writer_printf(&w, "%099999d", 1) != BAL_OK)
            _exit(1);
        (void)fflush(w.file);
        (void)kill(getpid(), SIGKILL);
    }
    int how = 0;
    CHECK(waitpid(child, &how, 0) == child && WIFSIGNALED(how));
    CHECK(rmdir(folder) == 0); /* it is empty */
    CHECK_OK(bal_folder_make(folder));
    CHECK_OK(bal_file_replace(path, "ab", 2));
    CHECK_OK(bal_file_replace(path, "abc", 3));
    bal_buf b = {0};
    CHECK_OK(bal_file_read(path, 10, &b));
    CHECK_TEXT(bal_buf_cstr(&b), "abc");
    bal_buf_dispose(&b);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
}

TEST(a_killed_writer_leaves_whole_steps)
{
    static const char halves[] = "SELECT sum(key = 'a') = sum(key = 'b') FROM v_metrics_long WHERE key IN ('a', 'b')";
    int told[2];
    char byte = 0;
    (void)remove(path_of("torture.db"));
    prepare_files();
    CHECK_OK(use_store());
    for (int round = 0; round < 5 && CHECK(pipe(told) == 0); round++) {
        pid_t child = fork();
        if (child == 0)
            write_for_ever(told[1]);
        (void)close(told[1]);
        CHECK(read(told[0], &byte, 1) == 1);
        (void)close(told[0]);
        (void)usleep(7000 * (useconds_t)round);
        CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
        CHECK(count_in_store("SELECT count(*) = 1 FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1);
        CHECK(count_in_store(halves) == 1);
    }
    CHECK(count_in_store("SELECT count(*) FROM v_metrics_long WHERE key = 'a'") > 2);
}
