/* The sandbox against programs that mean harm (hostile_programs.txt): all are contained and judged right, by each kind of
 * sandbox that this machine allows.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/sandbox.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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
}

static void hostile_by(const char *kind, bool cold)
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
        const sandbox_limits limits = {.cpu_seconds = slow ? 1 : 4,
                                       .wall_seconds = slow ? 2.5 : 25,
                                       .memory_bytes = (size_t)256 << 20,
                                       .cold = cold};
        sandbox *s = NULL;
        bal_status status = sandbox_open(&s, kind, &limits);
        if (status == BAL_EUNSUPPORTED) {
            (void)snprintf(why, sizeof why, "%.500s", bal_error_message());
            test_skip(why);
            break;
        }
        if (CHECK_OK(status)) {
            CHECK_TEXT(sandbox_kind(s), kind);
            if (!cold && !sandbox_is_warm(s)) {
                test_skip("no waiting interpreters here");
                sandbox_close(s);
                break;
            }
            judge_those(s, programs, n, slow == 1, limits.wall_seconds);
        }
        sandbox_close(s);
        CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD); /* nobody is left */
    }
    bal_buf_dispose(&text);
    bal_threads_stop();
}

TEST(hostile_by_bubblewrap)
{
    hostile_by("bubblewrap", false);
}

TEST(hostile_by_bubblewrap_cold)
{
    hostile_by("bubblewrap", true);
}

TEST(hostile_by_own_namespaces)
{
    hostile_by("namespaces", false);
}

TEST(hostile_by_own_namespaces_cold)
{
    hostile_by("namespaces", true);
}

/* What a program leaves must not be there for the next one, which the same worker runs. */
TEST(nothing_is_left_for_the_next)
{
    static const char leave[] = "import os, sys, threading, builtins, random, math\n"
                                "open('/tmp/left', 'w').write('x'); os.mkdir('/tmp/d'); math.pi = 3\n"
                                "builtins.left = 1; sys.modules['left'] = sys; os.environ['LEFT'] = '1'\n"
                                "threading.Thread(target=lambda: open('/tmp/left').read(), daemon=True).start()\n"
                                "def f(x): return random.random()\n";
    static const char look[] =
        "import os, sys, builtins, random, math\n"
        "def f(x):\n"
        "    return [os.listdir('/tmp'), hasattr(builtins, 'left'), 'left' in sys.modules, 'LEFT' in os.environ,\n"
        "            os.getpid(), math.pi > 3, sorted(os.listdir('/')), random.random()]\n";
    static const char none[] = "r = f(1); assert r[:6] == [[], False, False, False, 1, True] and 'proc' not in r[6]";
    static const char says[] = "assert 0, repr(f(1)[-1] if isinstance(f(1), list) else f(1))"; /* in the message */
    for (int cold = 0; cold < 2; cold++) {
        const sandbox_limits limits = {.cpu_seconds = 10, .wall_seconds = 60, .cold = cold == 1};
        const sandbox_job jobs[] = {{leave, "f(1)", sizeof leave - 1, 4},
                                    {look, none, sizeof look - 1, sizeof none - 1},
                                    {look, says, sizeof look - 1, sizeof says - 1},
                                    {look, says, sizeof look - 1, sizeof says - 1}};
        sandbox_result results[4];
        sandbox *s = NULL;
        if (sandbox_open(&s, NULL, &limits) == BAL_EUNSUPPORTED)
            SKIP("no sandbox here");
        CHECK(sandbox_is_warm(s) || cold == 1);
        CHECK_OK(sandbox_run(s, jobs, 4, results, NULL, NULL)); /* one thread: one worker, one after the other */
        CHECK_MSG(results[0].verdict == SANDBOX_PASSED, "%s", results[0].message);
        CHECK_MSG(results[1].verdict == SANDBOX_PASSED, "%s", results[1].message);
        CHECK_MSG(strcmp(results[2].message, results[3].message) != 0, "both draw %s", results[2].message);
        sandbox_close(s);
    }
}

/* Kills every child of this process: workers, or boxes that are at work. */
static void kill_children(void *context)
{
    DIR *all = *(int *)context > 0 ? opendir("/proc") : NULL;
    const struct dirent *e;
    while (all != NULL && (e = readdir(all)) != NULL) {
        char path[300], text[512] = "";
        (void)snprintf(path, sizeof path, "/proc/%.20s/stat", e->d_name);
        FILE *f = e->d_name[0] >= '1' && e->d_name[0] <= '9' ? fopen(path, "r") : NULL;
        size_t n = f == NULL ? 0 : fread(text, 1, sizeof text - 1, f);
        const char *close = n == 0 ? NULL : strrchr(text, ')');
        if (close != NULL && strtol(close + 4, NULL, 10) == (long)getpid()) /* ") S 123": the parent */
            (void)kill((pid_t)strtol(e->d_name, NULL, 10), SIGKILL);
        if (f != NULL)
            (void)fclose(f);
    }
    if (all != NULL)
        (void)closedir(all);
    --*(int *)context;
}

TEST(killed_workers_are_replaced)
{
    static const char program[] = "import time\ndef f(x):\n    time.sleep(x)\n    return x\n";
    static const char right[] = "assert f(0.3) == 0.3", quick[] = "assert f(0) == 0", wrong[] = "assert f(0) == 1";
    for (int cold = 0; cold < 2; cold++) {
        const sandbox_limits limits = {.cpu_seconds = 10, .wall_seconds = 60, .cold = cold == 1};
        sandbox_job jobs[12];
        sandbox_result results[12];
        sandbox *s = NULL;
        int times = 2;
        for (int i = 0; i < 12; i++) {
            const char *checks = i % 3 == 0 ? quick : i % 3 == 1 ? right : wrong;
            jobs[i] = (sandbox_job){program, checks, sizeof program - 1, strlen(checks)};
        }
        if (sandbox_open(&s, NULL, &limits) == BAL_EUNSUPPORTED)
            SKIP("no sandbox here");
        (void)bal_threads_start(2);
        CHECK_OK(sandbox_run(s, jobs, 12, results, kill_children, &times));
        CHECK(times < 2);
        for (int i = 0; i < 12; i++)
            CHECK_MSG(results[i].verdict == (i % 3 == 2 ? SANDBOX_FAILED : SANDBOX_PASSED) &&
                          strstr(results[i].message, "outside") == NULL,
                      "%d: %s", i, results[i].message);
        bal_threads_stop();
        sandbox_close(s);
    }
}

TEST(no_sandbox_no_run)
{
    sandbox *s = NULL;
    CHECK_STATUS(sandbox_open(&s, "none of them", NULL), BAL_EUNSUPPORTED);
    CHECK(s == NULL && strstr(bal_error_message(), "no sandbox can be made here") != NULL);
}
