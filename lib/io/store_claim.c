/* A run goes on in one process at a time: the tag "process" names it.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"
#include "lib/io/store_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 200 };
static const int64_t k_lost_ms = 15 * 60 * 1000; /* not heard of for so long: lost, as `balora runs` says it */

/* Word n (from 0) of a text of words with single spaces; "" when there are fewer. */
static const char *word_at(const char *text, int n)
{
    while (n > 0 && *text != '\0')
        n -= *text++ == ' ';
    return text;
}

/* When process pid was started, in clock ticks after boot; -1 if there is none, or only what is left of one. */
static long long started(long long pid)
{
    enum { STATE = 1, START = 20 }; /* words after the name in parentheses, which may hold anything */
    char path[64], line[1024] = "";
    (void)snprintf(path, sizeof path, "/proc/%lld/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return -1;
    const char *rest = fgets(line, sizeof line, f) != NULL ? strrchr(line, ')') : NULL;
    (void)fclose(f);
    if (rest == NULL || *word_at(rest, STATE) == 'Z' || *word_at(rest, STATE) == 'X')
        return -1;
    const char *word = word_at(rest, START);
    return *word >= '0' && *word <= '9' ? strtoll(word, NULL, 10) : -1;
}

/* "BOOT SPACE PID STARTED": this start of this machine, the name space of its process numbers, and the process. */
static void own_name(char out[NAME_BYTES])
{
    char boot[64] = "-", space[64] = "-";
    long long pid = (long long)getpid();
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f != NULL && fgets(boot, sizeof boot, f) != NULL)
        boot[strcspn(boot, "\n")] = '\0';
    if (f != NULL)
        (void)fclose(f);
    ssize_t n = readlink("/proc/self/ns/pid", space, sizeof space - 1);
    if (n > 0)
        space[n] = '\0';
    (void)snprintf(out, NAME_BYTES, "%s %s %lld %lld", boot, space, pid, started(pid));
}

/* Does the process of this tag live, and is it another one?  One of another machine is believed while its run is heard
 * of. */
static bool held_by_other(const char *tag, const char *own, int64_t heartbeat_ms)
{
    size_t same = (size_t)(word_at(own, 2) - own); /* machine and name space */
    if (strcmp(tag, own) == 0)
        return false;
    if (strncmp(tag, own, same) != 0)
        return bal_clock_unix_ms() - heartbeat_ms < k_lost_ms;
    long long pid = strtoll(word_at(tag, 2), NULL, 10), start = strtoll(word_at(tag, 3), NULL, 10);
    return pid > 0 && start >= 0 && started(pid) == start;
}

bal_status bal_run_claim(bal_store *s, int64_t run, bool *claimed)
{
    sqlite3_stmt *st = NULL;
    char own[NAME_BYTES];
    bool row = false, held = false;
    bal_status status = bal_store_begin(s);
    *claimed = false;
    if (status != BAL_OK)
        return status;
    own_name(own);
    BAL_TRY(bal_store_cached(s,
                             "SELECT value, heartbeat_ms FROM tag JOIN run ON run.id = run_id WHERE run_id = ?1 AND "
                             "key = 'process' AND status = 'running'",
                             &st));
    (void)sqlite3_bind_int64(st, 1, run);
    BAL_TRY(bal_store_step(s, st, &row));
    held = row && held_by_other((const char *)sqlite3_column_text(st, 0), own, sqlite3_column_int64(st, 1));
    (void)sqlite3_reset(st);
    if (!held) {
        BAL_TRY(bal_run_tag(s, run, "process", own));
        BAL_TRY(bal_store_cached(s,
                                 "UPDATE run SET status = 'running', end_ms = NULL, exit_code = NULL, error = NULL, "
                                 "heartbeat_ms = ?2 WHERE id = ?1",
                                 &st));
        (void)sqlite3_bind_int64(st, 1, run);
        (void)sqlite3_bind_int64(st, 2, bal_clock_unix_ms());
        BAL_TRY(bal_store_run(s, st, "continue a run"));
    }
    BAL_TRY(bal_store_commit(s));
    *claimed = !held;
    return BAL_OK;
out:
    bal_store_rollback(s);
    return status;
}
