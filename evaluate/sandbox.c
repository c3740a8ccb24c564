/* Judging programs: two boxes each, pipes between them, and the word that only the checks can say.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/sandbox.h"

#include "evaluate/sandbox_warm.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/base/threads.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* The texts of evaluate/sandbox/, put into the program by the assembler; each ends with a NUL. */
#define PYTHON_TEXT(NAME, FILES)                                                                                       \
    __asm__(".section .rodata\n.global bal_sandbox_" #NAME "\nbal_sandbox_" #NAME ":\n" FILES ".byte 0\n.previous\n"); \
    extern const char bal_sandbox_##NAME[]
#define PYTHON_FILE(NAME) ".incbin \"evaluate/sandbox/" #NAME ".py\"\n"
PYTHON_TEXT(solution, PYTHON_FILE(peer) PYTHON_FILE(solution) PYTHON_FILE(cold));
PYTHON_TEXT(checker, PYTHON_FILE(peer) PYTHON_FILE(checker) PYTHON_FILE(cold));
PYTHON_TEXT(warm_solution, PYTHON_FILE(peer) PYTHON_FILE(solution) PYTHON_FILE(warm));
PYTHON_TEXT(warm_checker, PYTHON_FILE(peer) PYTHON_FILE(checker) PYTHON_FILE(warm));

static const char k_compile[] = "import marshal\nfrom os import read,write\nt=b''\nwhile True:\n p=read(0,65536)\n"
                                " if not p: break\n t+=p\nd=marshal.dumps(compile(t,'<sandbox>','exec'))\n"
                                "while d: d=d[write(5,d):]\n";
static const char k_start[] = "import marshal\nfrom os import pread\nexec(marshal.loads(pread(6,1<<22,0)))";

enum { WORD = 32, MAX_SAID = 1 << 20, TRIES = 3 };

/* The two workers that judge one program at a time. */
typedef struct workers {
    warm_worker solution, checker;
    struct workers *next;
} workers;

struct sandbox {
    box_plan plan, warm_plan;
    sandbox_limits limits;
    int solution, checker; /* compiled, sealed */
    bool warm;
    pthread_mutex_t lock;
    workers *idle;
};

/* --- files in memory, pipes --- */

static bal_status no_fd(const char *what)
{
    return bal_fail(BAL_EIO, "%s for a sandbox cannot be made: %s", what, strerror(errno));
}

/* A file in memory with the two texts, to be read from its start. */
static bal_status memory_file(int *fd, const char *a, size_t n_a, const char *b, size_t n_b)
{
    const char *part[2] = {a, b};
    const size_t size[2] = {n_a, n_b};
    *fd = memfd_create("balora", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return no_fd("a file in memory");
    for (int i = 0; i < 2; i++)
        for (size_t at = 0; at < size[i];) {
            ssize_t n = write(*fd, part[i] + at, size[i] - at);
            if (n <= 0)
                return no_fd("a file in memory");
            at += (size_t)n;
        }
    if (lseek(*fd, 0, SEEK_SET) != 0 || fcntl(*fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) != 0)
        return no_fd("a file in memory");
    return BAL_OK;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* Reads what a box says until the end, the deadline or MAX_SAID; false when time ran out. */
static bool listen_until(int fd, double deadline, bal_buf *said)
{
    char part[4096];
    for (;;) {
        double left = deadline - bal_clock_seconds();
        struct pollfd p = {fd, POLLIN, 0};
        if (left <= 0 || bal_interrupted())
            return false;
        int rc = poll(&p, 1, left > 0.2 ? 200 : (int)(left * 1000) + 1);
        if (rc < 0 && errno != EINTR)
            return false;
        if (rc <= 0)
            continue;
        ssize_t n = read(fd, part, sizeof part);
        if (n <= 0 || said->len > MAX_SAID || bal_buf_append(said, part, (size_t)n) != BAL_OK)
            return true;
    }
}

/* Waits for a process of our own, which is killed after `grace` seconds. */
static box_end wait_cold(pid_t pid, double grace)
{
    struct rusage used = {0};
    box_end end = {.by_itself = true};
    double until = bal_clock_seconds() + grace;
    pid_t got = 0;
    while (grace > 0 && (got = wait4(pid, &end.how, WNOHANG, &used)) == 0 && bal_clock_seconds() < until)
        (void)usleep(1000);
    if (got == 0) {
        end.by_itself = false;
        (void)kill(pid, SIGKILL);
        while (wait4(pid, &end.how, 0, &used) < 0 && errno == EINTR)
            ;
    }
    end.cpu_seconds = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                      1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    return end;
}

/* What the end of a process means.  The kernel counts the use of the processor by ticks, so what was really used by a
 * process that it ended for that may be a good deal less than the limit.  A process that nobody here killed, and that
 * cannot kill itself (it is the first of its namespace), was killed by the machine's owner or for want of memory. */
typedef enum box_reason { REASON_NONE, REASON_EXHAUSTED, REASON_OUTSIDE } box_reason;
static box_reason why_ended(const sandbox *s, const box_end *end)
{
    bool killed = WIFSIGNALED(end->how) ? WTERMSIG(end->how) == SIGKILL
                                        : WEXITSTATUS(end->how) == 128 + SIGKILL; /* bubblewrap's way */
    if (end->gone)
        return REASON_OUTSIDE;
    if (!end->by_itself || !killed)
        return REASON_NONE;
    return end->cpu_seconds > s->limits.cpu_seconds / 2.0 ? REASON_EXHAUSTED : REASON_OUTSIDE;
}

/* --- workers --- */

static void workers_free(workers *w)
{
    if (w == NULL)
        return;
    warm_stop(&w->solution);
    warm_stop(&w->checker);
    bal_free(w);
}

static bal_status workers_take(sandbox *s, workers **out)
{
    bal_status status;
    (void)pthread_mutex_lock(&s->lock);
    workers *w = s->idle;
    s->idle = w == NULL ? NULL : w->next;
    (void)pthread_mutex_unlock(&s->lock);
    *out = w;
    if (w != NULL)
        return BAL_OK;
    w = bal_alloc(1, sizeof *w);
    if (w == NULL)
        return BAL_ENOMEM;
    w->solution = w->checker = (warm_worker){0, -1};
    BAL_TRY(warm_start(&s->warm_plan, k_start, s->solution, &w->solution));
    BAL_TRY(warm_start(&s->warm_plan, k_start, s->checker, &w->checker));
    *out = w;
    return BAL_OK;
out:
    workers_free(w);
    return status;
}

static void workers_give_back(sandbox *s, workers *w)
{
    (void)pthread_mutex_lock(&s->lock);
    w->next = s->idle;
    s->idle = w;
    (void)pthread_mutex_unlock(&s->lock);
}

/* --- one program --- */

static bal_status make_word(char word[WORD + 1])
{
    unsigned char bytes[WORD / 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return bal_fail(BAL_EIO, "no random bytes: %s", strerror(errno));
    for (size_t i = 0; i < sizeof bytes; i++)
        (void)snprintf(word + 2 * i, 3, "%02x", bytes[i]);
    return BAL_OK;
}

/* The two processes of a program, and what they are given. */
typedef struct pair {
    int program, checks, to_checks[2], to_program[2], said[2];
    pid_t solution, checker; /* 0: not started, or a worker's */
    workers *workers;
    bool runs[2]; /* the workers' processes */
} pair;

/* In two boxes of their own. */
static bal_status start_cold(sandbox *s, pair *p, const box_fds *solution, const box_fds *checker)
{
    bal_status status = box_start(&s->plan, k_start, solution, &p->solution);
    return status == BAL_OK ? box_start(&s->plan, k_start, checker, &p->checker) : status;
}

/* By two workers; ones that have been killed while they waited are replaced. */
static bal_status start_warm(sandbox *s, pair *p, const box_fds *solution, const box_fds *checker)
{
    const int cpu = s->limits.cpu_seconds;
    const size_t memory = s->limits.memory_bytes;
    bal_status status = BAL_OK;
    for (int i = 0; i < TRIES && !p->runs[1]; i++) {
        workers_free(p->workers);
        p->workers = NULL;
        status = workers_take(s, &p->workers);
        if (status == BAL_EUNSUPPORTED)
            continue;
        BAL_TRY(status);
        p->runs[0] = warm_run(&p->workers->solution, solution, cpu, memory);
        p->runs[1] = p->runs[0] && warm_run(&p->workers->checker, checker, cpu, memory);
    }
    status = p->runs[1] ? BAL_OK : bal_fail(BAL_EIO, "the workers of the sandbox end before they can work");
out:
    return status;
}

static bal_status pair_start(sandbox *s, pair *p, const sandbox_job *job, const char *word)
{
    char first[WORD + 2];
    bal_status status;
    (void)snprintf(first, sizeof first, "%s\n", word);
    BAL_TRY(memory_file(&p->program, job->program, job->n_program, NULL, 0));
    BAL_TRY(memory_file(&p->checks, first, WORD + 1, job->checks, job->n_checks));
    if (pipe2(p->to_checks, O_CLOEXEC) != 0 || pipe2(p->to_program, O_CLOEXEC) != 0 || pipe2(p->said, O_CLOEXEC) != 0)
        return no_fd("a pipe");
    box_fds solution = {p->program, p->to_program[0], p->to_checks[1], -1, s->solution};
    box_fds checker = {p->checks, p->to_checks[0], p->to_program[1], p->said[1], s->checker};
    status = s->warm ? start_warm(s, p, &solution, &checker) : start_cold(s, p, &solution, &checker);
out:
    for (int i = 0; i < 2; i++) {
        close_fd(&p->to_checks[i]);
        close_fd(&p->to_program[i]);
    }
    close_fd(&p->said[1]);
    close_fd(&p->program);
    close_fd(&p->checks);
    return status;
}

/* Ends both; grace: how long each may take to end by itself. */
static void pair_end(sandbox *s, pair *p, const double grace[2], box_reason why[2])
{
    const pid_t pids[2] = {p->solution, p->checker};
    bool healthy = true;
    for (int i = 0; i < 2; i++) {
        box_end end = {0};
        if (p->workers != NULL && p->runs[i])
            end = warm_wait(i == 0 ? &p->workers->solution : &p->workers->checker, grace[i]);
        else if (pids[i] > 0)
            end = wait_cold(pids[i], grace[i]);
        why[i] = why_ended(s, &end);
        healthy = healthy && !end.gone;
    }
    close_fd(&p->said[0]);
    if (p->workers != NULL && healthy)
        workers_give_back(s, p->workers);
    else
        workers_free(p->workers);
}

/* A message is one line of valid UTF-8. */
static void set_message(sandbox_result *r, const char *text, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        size_t k = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        if (used + (k == 0 ? 1 : k) >= sizeof r->message)
            break;
        if (k == 0 || cp < 32)
            r->message[used++] = k == 0 ? '?' : ' ';
        else
            memcpy(r->message + used, text + i, k), used += k;
        i += k == 0 ? 1 : k;
    }
    r->message[used] = '\0';
}

/* *outside: one of the processes was killed from outside before there was a verdict. */
static bal_status judge_once(sandbox *s, const sandbox_job *job, sandbox_result *r, bool *outside)
{
    pair p = {-1, -1, {-1, -1}, {-1, -1}, {-1, -1}, 0, 0, NULL, {false, false}};
    char word[WORD + 1];
    bal_buf said = {0};
    box_reason why[2];
    double start = bal_clock_seconds();
    bool in_time = true;
    bal_status status;
    r->verdict = SANDBOX_FAILED;
    r->message[0] = '\0';
    BAL_TRY(make_word(word));
    BAL_TRY(pair_start(s, &p, job, word));
    in_time = listen_until(p.said[0], start + s->limits.wall_seconds, &said);
    if (in_time && said.len == WORD && memcmp(said.data, word, WORD) == 0)
        r->verdict = SANDBOX_PASSED;
    else if (said.len > 0)
        set_message(r, said.data + 1, said.len - 1);
out:;
    const double grace[2] = {in_time && r->verdict == SANDBOX_FAILED ? 0.3 : 0, in_time && said.len == 0 ? 0.3 : 0};
    pair_end(s, &p, grace, why);
    r->seconds = bal_clock_seconds() - start;
    bool exhausted = why[0] == REASON_EXHAUSTED || why[1] == REASON_EXHAUSTED;
    *outside = r->verdict != SANDBOX_PASSED && (why[0] == REASON_OUTSIDE || why[1] == REASON_OUTSIDE) && !exhausted;
    if (!in_time || exhausted) {
        r->verdict = SANDBOX_TIMED_OUT;
        (void)snprintf(r->message, sizeof r->message, "%s", in_time ? "too much processor time" : "too much time");
    } else if (r->verdict == SANDBOX_FAILED && r->message[0] == '\0') {
        (void)snprintf(r->message, sizeof r->message, "the checks ended without a word");
    }
    bal_buf_dispose(&said);
    if (status == BAL_OK && bal_interrupted())
        status = bal_fail(BAL_EINTERRUPT, "stopped");
    return status;
}

/* A program whose processes are killed from outside has not been judged: it gets more chances, but not for ever, for it
 * may be what makes the machine run out of memory. */
static bal_status judge(sandbox *s, const sandbox_job *job, sandbox_result *r)
{
    bool outside = false;
    for (int i = 0; i < TRIES; i++) {
        bal_status status = judge_once(s, job, r, &outside);
        if (status != BAL_OK || !outside)
            return status;
    }
    (void)snprintf(r->message, sizeof r->message, "killed from outside the sandbox, %d times", (int)TRIES);
    r->verdict = SANDBOX_FAILED;
    return BAL_OK;
}

/* --- many programs --- */

typedef struct batch {
    sandbox *s;
    const sandbox_job *jobs;
    sandbox_result *results;
    void (*done)(void *context);
    void *context;
    pthread_mutex_t lock;
    bal_status status;
    char message[512];
} batch;

static void judge_range(void *context, size_t begin, size_t end, size_t thread)
{
    batch *b = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        (void)pthread_mutex_lock(&b->lock);
        bool go = b->status == BAL_OK;
        (void)pthread_mutex_unlock(&b->lock);
        if (!go)
            return;
        bal_status status = judge(b->s, &b->jobs[i], &b->results[i]);
        if (status != BAL_OK) {
            (void)pthread_mutex_lock(&b->lock);
            if (b->status == BAL_OK) {
                b->status = status;
                (void)snprintf(b->message, sizeof b->message, "%.500s", bal_error_message());
            }
            (void)pthread_mutex_unlock(&b->lock);
            return;
        }
        if (b->done != NULL)
            b->done(b->context);
    }
}

bal_status sandbox_run(sandbox *s, const sandbox_job *jobs, size_t n, sandbox_result *results,
                       void (*done)(void *context), void *context)
{
    batch b = {s, jobs, results, done, context, PTHREAD_MUTEX_INITIALIZER, BAL_OK, ""};
    bal_parallel_dynamic(n, 1, judge_range, &b);
    (void)pthread_mutex_destroy(&b.lock);
    return b.status == BAL_OK ? BAL_OK : bal_fail(b.status, "%s", b.message);
}

/* --- opening --- */

/* Compiles one of our texts by the interpreter that will run it, in a box. */
static bal_status compile_text(sandbox *s, const char *text, int *out)
{
    int input = -1, result[2] = {-1, -1};
    pid_t pid = 0;
    bal_buf code = {0};
    bal_status status;
    BAL_TRY(memory_file(&input, text, strlen(text), NULL, 0));
    if (pipe2(result, O_CLOEXEC) != 0) {
        status = no_fd("a pipe");
        goto out;
    }
    box_fds fds = {input, -1, -1, result[1], -1};
    BAL_TRY(box_start(&s->plan, k_compile, &fds, &pid));
    close_fd(&result[1]);
    bool in_time = listen_until(result[0], bal_clock_seconds() + 20, &code);
    (void)wait_cold(pid, in_time ? 1 : 0);
    if (code.len < 100)
        status = bal_fail(BAL_EUNSUPPORTED, "an interpreter in it does not start");
    else
        status = memory_file(out, code.data, code.len, NULL, 0);
out:
    close_fd(&input);
    close_fd(&result[0]);
    close_fd(&result[1]);
    bal_buf_dispose(&code);
    return status;
}

static void sandbox_reset(sandbox *s)
{
    while (s->idle != NULL) {
        workers *w = s->idle;
        s->idle = w->next;
        workers_free(w);
    }
    box_plan_dispose(&s->plan);
    box_plan_dispose(&s->warm_plan);
    close_fd(&s->solution);
    close_fd(&s->checker);
}

/* A real program must pass and a wrong one must not. */
static bal_status try_out(sandbox *s)
{
    static const char program[] = "import os\ndef f(x):\n return (x + 1, os.getpid(), os.path.exists('/proc/1'))\n";
    static const char right[] = "assert f(1)[:1] == (2,) and f(1)[1] == 1 and not f(1)[2]\n";
    static const char wrong[] = "assert f(1)[0] == 3\n";
    const sandbox_job jobs[2] = {{program, right, sizeof program - 1, sizeof right - 1},
                                 {program, wrong, sizeof program - 1, sizeof wrong - 1}};
    sandbox_result results[2];
    for (int i = 0; i < 2; i++) {
        bal_status status = judge(s, &jobs[i], &results[i]);
        if (status != BAL_OK)
            return status;
    }
    if (results[0].verdict != SANDBOX_PASSED || results[1].verdict == SANDBOX_PASSED)
        return bal_fail(BAL_EUNSUPPORTED, "a trial program was misjudged (%s)", results[0].message);
    return BAL_OK;
}

static bal_status open_as(sandbox *s, const char *bubblewrap, bool drop_root, bool warm)
{
    bal_status status;
    sandbox_reset(s);
    s->warm = warm;
    BAL_TRY(box_plan_init(&s->plan, bubblewrap, drop_root, false));
    if (warm)
        BAL_TRY(box_plan_init(&s->warm_plan, bubblewrap, drop_root, true));
    s->plan.cpu_seconds = s->limits.cpu_seconds;
    s->plan.memory_bytes = s->limits.memory_bytes;
    BAL_TRY(compile_text(s, warm ? bal_sandbox_warm_solution : bal_sandbox_solution, &s->solution));
    BAL_TRY(compile_text(s, warm ? bal_sandbox_warm_checker : bal_sandbox_checker, &s->checker));
    status = try_out(s);
out:
    return status;
}

/* Warm if that works, else an interpreter for each program. */
static bal_status open_kind(sandbox *s, const char *bubblewrap, bool drop_root)
{
    bal_status status = s->limits.cold ? BAL_EUNSUPPORTED : open_as(s, bubblewrap, drop_root, true);
    return status == BAL_EUNSUPPORTED ? open_as(s, bubblewrap, drop_root, false) : status;
}

static const char *find_bubblewrap(void)
{
    static const char *const places[] = {"/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (access(places[i], X_OK) == 0)
            return places[i];
    return NULL;
}

bal_status sandbox_open(sandbox **out, const char *kind, const sandbox_limits *limits)
{
    const char *bubblewrap = find_bubblewrap();
    char why[2][256] = {"bubblewrap is not installed", "not asked for"};
    sandbox *s = bal_alloc(1, sizeof *s);
    bal_status status = BAL_EUNSUPPORTED;
    *out = NULL;
    if (s == NULL)
        return BAL_ENOMEM;
    s->solution = s->checker = -1;
    (void)pthread_mutex_init(&s->lock, NULL);
    s->limits = limits != NULL ? *limits : (sandbox_limits){0};
    if (s->limits.cpu_seconds <= 0)
        s->limits.cpu_seconds = 3;
    if (s->limits.wall_seconds <= 0)
        s->limits.wall_seconds = s->limits.cpu_seconds + 3;
    if (s->limits.memory_bytes == 0)
        s->limits.memory_bytes = (size_t)1 << 30;
    if (bubblewrap != NULL && (kind == NULL || strcmp(kind, "bubblewrap") == 0)) {
        status = open_kind(s, bubblewrap, geteuid() == 0);
        if (status == BAL_EUNSUPPORTED && geteuid() == 0)
            status = open_kind(s, bubblewrap, false);
        (void)snprintf(why[0], sizeof why[0], "bubblewrap: %.200s", bal_error_message());
    }
    if (status == BAL_EUNSUPPORTED && (kind == NULL || strcmp(kind, "namespaces") == 0)) {
        status = open_kind(s, NULL, false);
        (void)snprintf(why[1], sizeof why[1], "own namespaces: %.200s", bal_error_message());
    }
    if (status == BAL_OK) {
        *out = s;
        return BAL_OK;
    }
    sandbox_close(s);
    return status == BAL_EUNSUPPORTED ? bal_fail(status, "no sandbox can be made here (%s; %s)", why[0], why[1])
                                      : status;
}

const char *sandbox_kind(const sandbox *s)
{
    return s->plan.bubblewrap != NULL ? "bubblewrap" : "namespaces";
}

bool sandbox_is_warm(const sandbox *s)
{
    return s->warm;
}

void sandbox_close(sandbox *s)
{
    if (s == NULL)
        return;
    sandbox_reset(s);
    (void)pthread_mutex_destroy(&s->lock);
    bal_free(s);
}

const char *sandbox_verdict_name(sandbox_verdict v)
{
    return v == SANDBOX_PASSED ? "passed" : v == SANDBOX_TIMED_OUT ? "timed out" : "failed";
}
