/* The run database: what is written comes back, steps replace, foreign and newer files stay as they are.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/store.h"
#include "lib/io/store_impl.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *fresh_path(void)
{
    static char path[200];
    static int turn;
    (void)snprintf(path, sizeof path, "%s/runs%d.db", test_folder(), turn++);
    return path;
}

/* First column of the first row; NaN for NULL, -12345 when there is no row. */
static double number_of(bal_store *s, const char *sql)
{
    sqlite3_stmt *st = NULL;
    double value = -12345;
    if (CHECK(sqlite3_prepare_v2(bal_store_handle(s), sql, -1, &st, NULL) == SQLITE_OK) &&
        sqlite3_step(st) == SQLITE_ROW)
        value = sqlite3_column_type(st, 0) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(st, 0);
    (void)sqlite3_finalize(st);
    return value;
}

static bool text_is(bal_store *s, const char *sql, const char *want)
{
    sqlite3_stmt *st = NULL;
    bool same = false;
    if (CHECK(sqlite3_prepare_v2(bal_store_handle(s), sql, -1, &st, NULL) == SQLITE_OK) &&
        sqlite3_step(st) == SQLITE_ROW)
        same = test_text(__FILE__, __LINE__, (const char *)sqlite3_column_text(st, 0), want);
    (void)sqlite3_finalize(st);
    return same;
}

static bal_store *open_fresh(int64_t *run)
{
    char word[] = "train";
    char *argv[] = {word};
    bal_store *s = NULL;
    bal_run_spec spec = {.kind = "train",
                         .name = "first",
                         .argc = 1,
                         .argv = argv,
                         .seed = 7,
                         .config_json = "{\"r\": 16, \"lr\": 2e-05, \"method\": \"pissa\", \"on\": true, \"no\": null, "
                                        "\"target_modules\": [\"q\", \"k\"], \"deep\": {\"x\": 1}}"};
    if (!CHECK_OK(bal_store_open(&s, fresh_path(), true)))
        return NULL;
    CHECK_OK(bal_run_begin(s, &spec, run));
    return s;
}

TEST(a_run_and_its_parameters)
{
    int64_t run = 0;
    char uuid[33];
    bal_store *s = open_fresh(&run);
    if (s == NULL)
        return;
    CHECK(run == 1);
    CHECK_NEAR(number_of(s, "SELECT num FROM param WHERE key = 'lr'"), 2e-5, 0);
    CHECK(text_is(s, "SELECT text FROM param WHERE key = 'r'", "16"));
    CHECK(text_is(s, "SELECT text FROM param WHERE key = 'method'", "pissa"));
    CHECK(text_is(s, "SELECT text FROM param WHERE key = 'target_modules'", "[\"q\", \"k\"]"));
    CHECK(text_is(s, "SELECT text FROM param WHERE key = 'deep.x'", "1"));
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM param"), 6, 0);
    CHECK(text_is(s, "SELECT status || ' ' || seed || ' ' || argv FROM run", "running 7 [\"train\"]"));
    CHECK_OK(bal_run_uuid(s, run, uuid));
    CHECK(strlen(uuid) == 32);
    int64_t found = 0;
    CHECK_OK(bal_run_find(s, "1", &found));
    CHECK(found == run);
    CHECK_OK(bal_run_find(s, uuid, &found));
    uuid[8] = '\0';
    CHECK_OK(bal_run_find(s, uuid, &found));
    CHECK_OK(bal_run_find(s, "first", &found));
    CHECK_OK(bal_run_find(s, "last", &found));
    CHECK_STATUS(bal_run_find(s, "firts", &found), BAL_ENOENT);
    CHECK(strstr(bal_error_message(), "did you mean 'first'?") != NULL);
    CHECK_OK(bal_run_end(s, run, "finished", 0, NULL));
    CHECK(text_is(s, "SELECT status FROM v_runs_wide", "finished"));
    CHECK(text_is(s, "SELECT method || r FROM v_runs_wide", "pissa16.0"));
    bal_store_close(s);
}

TEST(metrics_replace_and_truncate)
{
    int64_t run = 0;
    bal_store *s = open_fresh(&run);
    if (s == NULL)
        return;
    for (int64_t step = 1; step <= 5; step++)
        CHECK_OK(bal_run_metric(s, run, "loss/total", step, step == 3 ? 0.5 : (double)step));
    CHECK_NEAR(number_of(s, "SELECT value FROM metric_last"), 5, 0);
    CHECK_NEAR(number_of(s, "SELECT min FROM metric_last"), 0.5, 0);
    CHECK_NEAR(number_of(s, "SELECT min_step FROM metric_last"), 3, 0);
    CHECK_OK(bal_run_metric(s, run, "loss/total", 3, 3.25)); /* replaces: the minimum is elsewhere now */
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM metric"), 5, 0);
    CHECK_NEAR(number_of(s, "SELECT n FROM metric_last"), 5, 0);
    CHECK_NEAR(number_of(s, "SELECT min_step FROM metric_last"), 1, 0);
    CHECK_NEAR(number_of(s, "SELECT max_step FROM metric_last"), 5, 0);
    CHECK_OK(bal_run_truncate_metrics(s, run, 3));
    CHECK_NEAR(number_of(s, "SELECT value FROM metric_last"), 3.25, 0);
    CHECK_NEAR(number_of(s, "SELECT max FROM metric_last"), 3.25, 0);
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM metric"), 3, 0);
    CHECK_OK(bal_run_metric(s, run, "loss/total", 4, (double)NAN));
    CHECK_OK(bal_run_metric(s, run, "loss/total", 5, -(double)INFINITY));
    CHECK(isnan(number_of(s, "SELECT value FROM metric WHERE step = 4")));
    CHECK_NEAR(number_of(s, "SELECT kind FROM metric WHERE step = 4"), 1, 0);
    CHECK_NEAR(number_of(s, "SELECT kind FROM metric_last"), 3, 0);
    CHECK_NEAR(number_of(s, "SELECT max_step FROM metric_last"), 3, 0);
    CHECK_NEAR(number_of(s, "SELECT is_nan FROM v_metrics_long WHERE step = 4"), 1, 0);
    bal_store_close(s);
}

TEST(items_and_matrices)
{
    static const char *const names[] = {"stable_rank", "erank"};
    int64_t run = 0;
    bal_store *s = open_fresh(&run);
    if (s == NULL)
        return;
    bal_eval_item item = {.task = "gsm8k",
                          .filter = "strict-match",
                          .item = 3,
                          .gold = "4",
                          .output = "it's 4",
                          .extracted = "4",
                          .score = 1,
                          .correct = 1,
                          .output_tokens = 9,
                          .seconds = 0.25,
                          .finish_reason = "stop"};
    CHECK_OK(bal_run_item(s, run, &item));
    item.correct = 0;
    item.score = (double)NAN;
    CHECK_OK(bal_run_item(s, run, &item)); /* rescoring replaces */
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM eval_item"), 1, 0);
    CHECK_NEAR(number_of(s, "SELECT correct FROM eval_item"), 0, 0);
    CHECK(isnan(number_of(s, "SELECT score FROM eval_item")));
    double sv[] = {3, 2, 0.125}, values[] = {1.5, (double)NAN};
    bal_matrix_stat m = {.step = -1, .layer = 2, .module = "q_proj", .target = "delta", .m = 8, .n = 4, .r = 3};
    CHECK_OK(bal_run_matrix(s, run, &m, names, values, 2, sv, 3));
    CHECK_OK(bal_run_matrix(s, run, &m, names, values, 2, sv, 2));
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM matrix_stat"), 1, 0);
    CHECK_NEAR(number_of(s, "SELECT n FROM spectrum"), 2, 0);
    CHECK_NEAR(number_of(s, "SELECT length(sv) FROM spectrum"), 16, 0);
    CHECK_NEAR(number_of(s, "SELECT value FROM matrix_value WHERE name = 'stable_rank'"), 1.5, 0);
    CHECK_NEAR(number_of(s, "SELECT kind FROM matrix_value WHERE name = 'erank'"), 1, 0);
    CHECK_OK(bal_store_exec(s, "DELETE FROM run")); /* all that hangs on it goes too */
    CHECK_NEAR(number_of(s, "SELECT (SELECT count(*) FROM spectrum) + (SELECT count(*) FROM eval_item) + "
                            "(SELECT count(*) FROM param)"),
               0, 0);
    bal_store_close(s);
}

TEST(transactions_nest)
{
    int64_t run = 0;
    bal_store *s = open_fresh(&run);
    if (s == NULL)
        return;
    CHECK_OK(bal_store_begin(s));
    CHECK_OK(bal_run_metric(s, run, "a", 1, 1));
    bal_store_rollback(s);
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM metric"), 0, 0);
    CHECK_OK(bal_run_metric(s, run, "a", 1, 1)); /* its key was rolled back too */
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM v_metrics_long WHERE key = 'a'"), 1, 0);
    CHECK_OK(bal_store_begin(s));
    CHECK_OK(bal_run_metric(s, run, "a", 2, 1));
    CHECK_OK(bal_store_begin(s));
    bal_store_rollback(s); /* an inner failure forbids the outer commit */
    CHECK(bal_store_commit(s) != BAL_OK);
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM metric"), 1, 0);
    bal_store_close(s);
}

TEST(what_is_not_ours_is_refused)
{
    bal_store *s = NULL;
    const char *path = fresh_path();
    CHECK_STATUS(bal_store_open(&s, path, false), BAL_ENOENT);
    CHECK(!bal_file_exists(path));
    CHECK_STATUS(bal_store_open(&s, test_folder(), true), BAL_ENOENT);
    CHECK_STATUS(bal_store_open(&s, "/nonexistent/folder/runs.db", true), BAL_ENOENT);
    CHECK_OK(bal_file_replace(path, "this is a text file, long enough to be looked at", 48));
    CHECK_STATUS(bal_store_open(&s, path, true), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "no SQLite database") != NULL);
    sqlite3 *db = NULL;
    path = fresh_path();
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, "CREATE TABLE mine(x)", NULL, NULL, NULL) == SQLITE_OK);
    (void)sqlite3_close(db);
    CHECK_STATUS(bal_store_open(&s, path, true), BAL_EFORMAT);
    CHECK(s == NULL);
}

TEST(a_newer_database_is_read_only)
{
    int64_t run = 0, found = 0;
    char path[200];
    bal_store *s = open_fresh(&run);
    if (s == NULL)
        return;
    (void)snprintf(path, sizeof path, "%s", bal_store_path(s));
    CHECK_OK(bal_store_exec(s, "PRAGMA user_version = 999"));
    bal_store_close(s);
    CHECK_STATUS(bal_store_open(&s, path, true), BAL_EUNSUPPORTED);
    if (CHECK_OK(bal_store_open(&s, path, false)))
        CHECK_OK(bal_run_find(s, "first", &found));
    CHECK(found == run);
    CHECK_STATUS(bal_run_metric(s, run, "x", 1, 1), BAL_EIO);
    bal_store_close(s);
}

TEST(commit_of_the_working_folder)
{
    static const char hash[] = "0123456789abcdef0123456789abcdef01234567";
    char path[256], commit[65] = "";
    (void)snprintf(path, sizeof path, "%s/repo/deep/er", test_folder());
    CHECK_OK(bal_folder_make(path));
    (void)snprintf(path, sizeof path, "%s/repo/.git/refs/heads", test_folder());
    CHECK_OK(bal_folder_make(path));
    (void)snprintf(path, sizeof path, "%s/repo/.git/HEAD", test_folder());
    CHECK_OK(bal_file_replace(path, "ref: refs/heads/main\n", 21));
    (void)snprintf(path, sizeof path, "%s/repo/deep/er", test_folder());
    CHECK(!bal_git_commit(path, commit)); /* a branch without a commit */
    (void)snprintf(path, sizeof path, "%s/repo/.git/refs/heads/main", test_folder());
    CHECK_OK(bal_file_replace(path, hash, 40));
    (void)snprintf(path, sizeof path, "%s/repo/deep/er", test_folder());
    CHECK(bal_git_commit(path, commit));
    CHECK_TEXT(commit, hash);
}

static void write_text(const char *name, const char *text)
{
    char path[300];
    (void)snprintf(path, sizeof path, "%.100s/%.180s", test_folder(), name);
    char *folder = bal_path_dir(path);
    CHECK_OK(bal_folder_make(folder));
    CHECK_OK(bal_file_replace(path, text, strlen(text)));
    bal_free(folder);
}

/* As `git pack-refs` and `git worktree add` leave the files. */
TEST(commit_of_packed_references_and_linked_worktrees)
{
    static const char packed_refs[] = "# pack-refs with: peeled fully-peeled sorted\n"
                                      "1111111111111111111111111111111111111111 refs/heads/main2\n"
                                      "2222222222222222222222222222222222222222 refs/heads/main\n"
                                      "3333333333333333333333333333333333333333 refs/tags/v1\n"
                                      "^4444444444444444444444444444444444444444\n";
    char path[300], line[300], commit[65] = "";
    write_text("packed/.git/HEAD", "ref: refs/heads/main\n");
    write_text("packed/.git/packed-refs", packed_refs);
    (void)snprintf(path, sizeof path, "%.200s/packed", test_folder());
    CHECK(bal_git_commit(path, commit));
    CHECK_TEXT(commit, "2222222222222222222222222222222222222222");
    /* a reference of its own file is newer than the packed one */
    write_text("packed/.git/refs/heads/main", "5555555555555555555555555555555555555555\n");
    CHECK(bal_git_commit(path, commit));
    CHECK_TEXT(commit, "5555555555555555555555555555555555555555");
    write_text("packed/.git/worktrees/side/HEAD", "ref: refs/heads/main2\n");
    write_text("packed/.git/worktrees/side/commondir", "../..\n");
    (void)snprintf(line, sizeof line, "gitdir: %.200s/packed/.git/worktrees/side\n", test_folder());
    write_text("side/.git", line);
    write_text("side/deep/file", "");
    (void)snprintf(path, sizeof path, "%.200s/side/deep", test_folder());
    CHECK(bal_git_commit(path, commit));
    CHECK_TEXT(commit, "1111111111111111111111111111111111111111");
    write_text("packed/.git/worktrees/side/HEAD", "6666666666666666666666666666666666666666\n"); /* detached */
    CHECK(bal_git_commit(path, commit));
    CHECK_TEXT(commit, "6666666666666666666666666666666666666666");
    write_text("packed/.git/worktrees/side/HEAD", "ref: ../../../../etc/hostname\n");
    CHECK(!bal_git_commit(path, commit));
}

/* Two processes never go on with one run; a process that was killed holds nothing. */
TEST(a_run_is_claimed_by_one_process)
{
    const char *path = fresh_path();
    const bal_run_spec spec = {.kind = "evaluate"};
    int64_t run = 1;
    int ready[2];
    char byte = 0;
    bool claimed = false;
    bal_store *s = NULL;
    if (!CHECK(pipe(ready) == 0))
        return;
    pid_t child = fork(); /* before this process opens the file: SQLite's handles do not live through a fork */
    if (child == 0) {
        bool ok = bal_store_open(&s, path, true) == BAL_OK && bal_run_begin(s, &spec, &run) == BAL_OK &&
                  bal_run_claim(s, run, &claimed) == BAL_OK && claimed && run == 1;
        bal_store_close(s);
        byte = ok ? 'y' : 'n';
        if (write(ready[1], &byte, 1) == 1)
            (void)pause(); /* until it is killed */
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1 && byte == 'y');
    if (!CHECK_OK(bal_store_open(&s, path, true)))
        return;
    CHECK_OK(bal_run_claim(s, run, &claimed));
    CHECK(!claimed);
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
    CHECK_OK(bal_run_claim(s, run, &claimed));
    CHECK(claimed);
    CHECK_OK(bal_run_claim(s, run, &claimed)); /* again by the same process */
    CHECK(claimed);
    /* a process of another machine: believed while the run is heard of */
    CHECK_OK(bal_run_tag(s, run, "process", "other-boot pid:[1] 5 77"));
    CHECK_OK(bal_run_claim(s, run, &claimed));
    CHECK(!claimed);
    CHECK_OK(bal_store_exec(s, "UPDATE run SET heartbeat_ms = heartbeat_ms - 1000000"));
    CHECK_OK(bal_run_claim(s, run, &claimed));
    CHECK(claimed);
    CHECK_OK(bal_run_end(s, run, "finished", 0, NULL));
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM tag WHERE key = 'process'"), 0, 0);
    (void)close(ready[0]);
    (void)close(ready[1]);
    bal_store_close(s);
}

/* Opens the file when the pipe is closed, writes one run; the exit status is the first error's. */
static pid_t start_writer(const char *path, const int gate[2])
{
    pid_t child = fork();
    if (child != 0)
        return child;
    const bal_run_spec spec = {.kind = "evaluate"};
    int64_t run = 0;
    char byte = 0;
    bal_store *s = NULL;
    (void)close(gate[1]);
    if (read(gate[0], &byte, 1) != 0) /* its end: all are there */
        _exit(99);
    bal_status status = bal_store_open(&s, path, true);
    if (status == BAL_OK)
        status = bal_run_begin(s, &spec, &run);
    if (status == BAL_OK)
        status = bal_run_end(s, run, "finished", 0, NULL);
    bal_store_close(s);
    _exit((int)status);
}

/* SQLite refuses at once, without its time-out, when two processes turn a new file's journal to WAL. */
TEST(a_new_file_is_opened_by_several_at_once)
{
    enum { ROUNDS = 25, WRITERS = 4 };
    for (int round = 0; round < ROUNDS; round++) {
        const char *path = fresh_path();
        pid_t child[WRITERS];
        int gate[2], state = -1;
        bal_store *s = NULL;
        if (!CHECK(pipe(gate) == 0))
            return;
        for (int i = 0; i < WRITERS; i++)
            child[i] = start_writer(path, gate);
        (void)close(gate[0]);
        (void)close(gate[1]);
        for (int i = 0; i < WRITERS; i++) {
            CHECK(waitpid(child[i], &state, 0) == child[i]);
            CHECK(WIFEXITED(state) && WEXITSTATUS(state) == BAL_OK);
        }
        if (!CHECK_OK(bal_store_open(&s, path, false)))
            return;
        CHECK_NEAR(number_of(s, "SELECT count(*) FROM run WHERE status = 'finished'"), WRITERS, 0);
        bal_store_close(s);
    }
}

TEST(opening_again_keeps_all)
{
    int64_t run = 0, second = 0;
    char path[200];
    bal_store *s = open_fresh(&run);
    if (s == NULL)
        return;
    (void)snprintf(path, sizeof path, "%s", bal_store_path(s));
    bal_store_close(s);
    bal_run_spec spec = {.kind = "evaluate", .parent_run = run};
    if (!CHECK_OK(bal_store_open(&s, path, true)))
        return;
    CHECK_OK(bal_run_begin(s, &spec, &second));
    CHECK(second == 2);
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM host"), 1, 0);
    CHECK_NEAR(number_of(s, "SELECT count(*) FROM experiment"), 1, 0);
    CHECK_NEAR(number_of(s, "SELECT parent_run_id FROM run WHERE id = 2"), 1, 0);
    CHECK(text_is(s, "SELECT substr(name, 1, 9) FROM run WHERE id = 2", "evaluate-"));
    bal_store_close(s);
}
