/* The run database in the hands of another process: a command that cannot begin says so and leaves nothing; a training
 * that has begun goes on, and its curve is whole when the database is free again.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/program.h"
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/data/embedded.h"
#include "lib/io/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STEPS = 400 };
#define STEPS_TEXT "400"

static char *in_folder(const char *name)
{
    return bal_path_join(test_folder(), name);
}

/* Runs words in the scratch folder; its stderr goes into the file err of it. */
static pid_t start(const char *const *words, const char *err)
{
    char *path = in_folder(err);
    pid_t pid = path == NULL ? -1 : test_start(test_folder(), words, "/dev/null", path);
    bal_free(path);
    return pid;
}

static bool says(const char *name, const char *text, bool must)
{
    char *path = in_folder(name);
    bal_buf b = {0};
    bool ok = path != NULL && bal_file_read(path, 1 << 20, &b) == BAL_OK && strstr(bal_buf_cstr(&b), text) != NULL;
    if (!ok && must)
        (void)test_fail(__FILE__, __LINE__, "%s holds no '%s': %.300s", name, text, bal_buf_cstr(&b));
    bal_buf_dispose(&b);
    bal_free(path);
    return ok;
}

static bool there(const char *name)
{
    char *path = in_folder(name);
    bool yes = path != NULL && (bal_file_exists(path) || bal_folder_exists(path));
    bal_free(path);
    return yes;
}

static bool prepare(void)
{
    char *model = in_folder("model"), *data = in_folder("data.jsonl");
    static const char record[] = "{\"prompt\": \"What is 2 + 3?\", \"response\": \" 5\"}\n";
    bal_buf b = {0};
    bool ok = model != NULL && data != NULL && CHECK_OK(bal_embedded_write(model));
    for (int i = 0; i < 8; i++)
        (void)bal_buf_text(&b, record);
    ok = ok && CHECK_OK(bal_file_replace(data, bal_buf_cstr(&b), b.len));
    bal_buf_dispose(&b);
    bal_free(model);
    bal_free(data);
    return ok;
}

/* A connection that holds the write lock, as another process would. */
static bal_store *lock(const char *name)
{
    char *path = in_folder(name);
    bal_store *s = NULL;
    bool ok =
        path != NULL && CHECK_OK(bal_store_open(&s, path, true)) && CHECK_OK(bal_store_exec(s, "BEGIN EXCLUSIVE"));
    bal_free(path);
    return ok ? s : NULL;
}

static void pause_seconds(double seconds)
{
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    (void)nanosleep(&t, NULL);
}

TEST(commands_that_cannot_begin)
{
    bal_store *s = prepare() ? lock("held.db") : NULL;
    if (s == NULL)
        return;
    static const char *const train_words[] = {"balora",     "train", "-q",  "--model",     "model", "--data",
                                              "data.jsonl", "--r",   "2",   "--max-steps", "2",     "--db",
                                              "held.db",    "--out", "out", NULL};
    static const char *const rm_words[] = {"balora", "runs", "rm", "1", "--db", "held.db", NULL};
    static const char *const list_words[] = {"balora", "runs", "list", "--db", "held.db", NULL};
    pid_t train = start(train_words, "train.err");
    pid_t rm = start(rm_words, "rm.err"), list = start(list_words, "list.err");
    CHECK(test_wait(train) == 4);
    CHECK(test_wait(rm) == 4);
    CHECK(test_wait(list) == 0); /* reading goes on */
    (void)says("train.err", "another process", true);
    (void)says("rm.err", "another process", true);
    CHECK(!there("out"));
    CHECK_OK(bal_store_exec(s, "ROLLBACK"));
    bal_store_close(s);
}

static int64_t count(const char *db, const char *sql)
{
    char *path = in_folder(db);
    bal_store *s = NULL;
    sqlite3_stmt *st = NULL;
    bool row = false;
    int64_t n = -1;
    if (path != NULL && bal_store_open(&s, path, false) == BAL_OK && bal_store_prepare(s, sql, &st) == BAL_OK &&
        bal_store_step(s, st, &row) == BAL_OK && row)
        n = sqlite3_column_int64(st, 0);
    (void)sqlite3_finalize(st);
    bal_store_close(s);
    bal_free(path);
    return n;
}

/* Longer than the 5 s that a write waits. */
TEST(a_training_goes_on)
{
    if (!prepare())
        return;
    static const char *const words[] = {"balora",
                                        "train",
                                        "--model",
                                        "model",
                                        "--data",
                                        "data.jsonl",
                                        "--r",
                                        "2",
                                        "--batch-size",
                                        "1",
                                        "--max-steps",
                                        STEPS_TEXT,
                                        "--db",
                                        "free.db",
                                        "--out",
                                        "done",
                                        "--validation-split",
                                        "0.3",
                                        "--eval-steps",
                                        "50",
                                        NULL};
    pid_t train = start(words, "done.err");
    for (int i = 0; i < 3000 && count("free.db", "SELECT count(*) FROM run") < 1; i++)
        pause_seconds(0.01);
    bal_store *s = lock("free.db");
    for (int i = 0; i < 600 && !says("done.err", "rows of metrics wait", false); i++)
        pause_seconds(0.1); /* 5 s and what a crowded machine adds */
    if (s != NULL) {
        CHECK_OK(bal_store_exec(s, "ROLLBACK"));
        bal_store_close(s);
    }
    CHECK(test_wait(train) == 0);
    (void)says("done.err", "rows of metrics wait", true);
    CHECK(count("free.db", "SELECT count(*) FROM metric JOIN metric_key ON id = key_id WHERE name = 'loss/total'") ==
          STEPS);
    CHECK(
        count("free.db", "SELECT count(*) FROM metric JOIN metric_key ON id = key_id WHERE name = 'loss/validation'") ==
        STEPS / 50);
    CHECK(count("free.db", "SELECT count(*) FROM run WHERE status = 'finished'") == 1);
}
