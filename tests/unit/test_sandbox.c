/* The sandbox against programs that mean harm (hostile_programs.txt): all are contained and judged right, by each kind of
 * sandbox that this machine allows.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/sandbox.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "tests/test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { MAX_PROGRAMS = 200 };
static const char k_file[] = "tests/unit/hostile_programs.txt";

typedef struct hostile {
    char *name, *want, *checks, *program;
} hostile;

/* Puts path for every mark in text; the result is allocated. */
static char *put_path(const char *text, const char *mark, const char *path)
{
    bal_buf out = {0};
    const char *at;
    while ((at = strstr(text, mark)) != NULL) {
        (void)bal_buf_append(&out, text, (size_t)(at - text));
        (void)bal_buf_text(&out, path);
        text = at + strlen(mark);
    }
    (void)bal_buf_text(&out, text);
    return out.data;
}

/* Cuts text at the first " | " and returns what follows, "" if nothing does. */
static char *cut(char *text)
{
    char *bar = strstr(text, " | ");
    if (bar == NULL)
        return text + strlen(text);
    *bar = '\0';
    return bar + 3;
}

static size_t read_programs(char *text, hostile *out)
{
    size_t n = 0;
    char *section = strstr(text, "\n=== ");
    while (section != NULL && n < MAX_PROGRAMS) {
        hostile *h = &out[n++];
        char *next = strstr(section + 1, "\n=== ");
        if (next != NULL)
            *next = '\0';
        h->name = section + 5;
        h->program = strchr(h->name, '\n');
        *h->program++ = '\0';
        h->want = cut(h->name);
        h->checks = cut(h->want);
        if (h->checks[0] == '\0')
            h->checks = (char *)(uintptr_t) "assert f(1) == 2";
        section = next;
    }
    return n;
}

/* Judges the programs that should (not) time out.  seconds: the longest that one may take. */
static void judge_those(sandbox *s, const hostile *programs, size_t n, bool slow, double seconds)
{
    static sandbox_job jobs[MAX_PROGRAMS];
    static sandbox_result results[MAX_PROGRAMS];
    static size_t which[MAX_PROGRAMS];
    size_t n_jobs = 0;
    char secret[200], outside[200];
    (void)snprintf(secret, sizeof secret, "%s/secret", test_folder());
    (void)snprintf(outside, sizeof outside, "%s/outside", test_folder());
    CHECK_OK(bal_file_replace(secret, "secret", 6));
    for (size_t i = 0; i < n; i++) {
        if ((strcmp(programs[i].want, "timed out") == 0) != slow)
            continue;
        char *half = put_path(programs[i].program, "@SECRET@", secret);
        sandbox_job *j = &jobs[n_jobs];
        j->program = put_path(half, "@OUTSIDE@", outside);
        j->n_program = strlen(j->program);
        j->checks = put_path(programs[i].checks, "\\n", "\n");
        j->n_checks = strlen(j->checks);
        which[n_jobs++] = i;
        bal_free(half);
    }
    CHECK(n_jobs > 10);
    CHECK_OK(sandbox_run(s, jobs, n_jobs, results, NULL, NULL));
    for (size_t i = 0; i < n_jobs; i++) {
        const hostile *h = &programs[which[i]];
        const char *got = sandbox_verdict_name(results[i].verdict);
        CHECK_MSG(strcmp(got, h->want) == 0, "%s, '%s': %s (%s), not %s", sandbox_kind(s), h->name, got,
                  results[i].message, h->want);
        CHECK_MSG(results[i].seconds < seconds + 15, /* on a crowded machine */ "%s, '%s' took %.2f s", sandbox_kind(s),
                  h->name, results[i].seconds);
        CHECK_MSG((results[i].message[0] == '\0') == (results[i].verdict == SANDBOX_PASSED), "'%s' says '%s'", h->name,
                  results[i].message);
        bal_free((char *)(uintptr_t)jobs[i].program);
        bal_free((char *)(uintptr_t)jobs[i].checks);
    }
    CHECK(!bal_file_exists(outside));
    CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD); /* nobody is left */
}

static void hostile_by(const char *kind)
{
    static hostile programs[MAX_PROGRAMS];
    static char why[600];
    bal_buf text = {0};
    if (!CHECK_OK(bal_file_read(k_file, 1 << 20, &text)))
        return;
    size_t n = read_programs(text.data, programs);
    CHECK(n >= 60 && n < MAX_PROGRAMS);
    (void)bal_threads_start(4); /* most of the time is waiting */
    for (int slow = 0; slow < 2; slow++) {
        /* a crowded machine must not make the quick ones late */
        const sandbox_limits limits = {
            .cpu_seconds = slow ? 1 : 4, .wall_seconds = slow ? 2.5 : 25, .memory_bytes = (size_t)256 << 20};
        sandbox *s = NULL;
        bal_status status = sandbox_open(&s, kind, &limits);
        if (status == BAL_EUNSUPPORTED) {
            (void)snprintf(why, sizeof why, "%.500s", bal_error_message());
            test_skip(why);
            break;
        }
        if (CHECK_OK(status)) {
            CHECK_TEXT(sandbox_kind(s), kind);
            judge_those(s, programs, n, slow == 1, limits.wall_seconds);
        }
        sandbox_close(s);
    }
    bal_buf_dispose(&text);
    bal_threads_stop();
}

TEST(hostile_by_bubblewrap)
{
    hostile_by("bubblewrap");
}

TEST(hostile_by_own_namespaces)
{
    hostile_by("namespaces");
}

TEST(no_sandbox_no_run)
{
    sandbox *s = NULL;
    CHECK_STATUS(sandbox_open(&s, "none of them", NULL), BAL_EUNSUPPORTED);
    CHECK(s == NULL && strstr(bal_error_message(), "no sandbox can be made here") != NULL);
}
