/* Judging programs: two boxes each, pipes between them, and the word that only the checks can say.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/sandbox.h"

#include "evaluate/sandbox_box.h"
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
PYTHON_TEXT(solution, ".incbin \"evaluate/sandbox/peer.py\"\n.incbin \"evaluate/sandbox/solution.py\"\n");
PYTHON_TEXT(checker, ".incbin \"evaluate/sandbox/peer.py\"\n.incbin \"evaluate/sandbox/checker.py\"\n");

static const char k_compile[] = "import marshal\nfrom os import read,write\nt=b''\nwhile True:\n p=read(0,65536)\n"
                                " if not p: break\n t+=p\nd=marshal.dumps(compile(t,'<sandbox>','exec'))\n"
                                "while d: d=d[write(5,d):]\n";
static const char k_start[] = "import marshal\nfrom os import pread\nexec(marshal.loads(pread(6,1<<22,0)))";

enum { WORD = 32, MAX_SAID = 1 << 20 };

struct sandbox {
    box_plan plan;
    sandbox_limits limits;
    int solution, checker; /* compiled, sealed */
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

/* Ends a box, which may take `grace` seconds to end by itself.  True when it was ended for its use of the processor: the
 * kernel counts that by ticks, so what it really used may be a good deal less than the limit. */
static bool end_box(const sandbox *s, pid_t pid, double grace)
{
    struct rusage used = {0};
    int how = 0;
    double until = bal_clock_seconds() + grace;
    pid_t got = 0;
    if (pid <= 0)
        return false;
    while (grace > 0 && (got = wait4(pid, &how, WNOHANG, &used)) == 0 && bal_clock_seconds() < until)
        (void)usleep(1000);
    bool by_itself = got == pid;
    if (got == 0) {
        (void)kill(pid, SIGKILL);
        while (wait4(pid, &how, 0, &used) < 0 && errno == EINTR)
            ;
    }
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    bool killed =
        WIFSIGNALED(how) ? WTERMSIG(how) == SIGKILL : WEXITSTATUS(how) == 128 + SIGKILL; /* bubblewrap's way */
    return by_itself && killed && cpu > s->limits.cpu_seconds / 2.0;
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

/* Everything but the limits of the two processes of a program. */
typedef struct pair {
    int program, checks, to_checks[2], to_program[2], said[2];
    pid_t solution, checker;
} pair;

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
    BAL_TRY(box_start(&s->plan, k_start, &solution, &p->solution));
    status = box_start(&s->plan, k_start, &checker, &p->checker);
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

static bal_status judge(sandbox *s, const sandbox_job *job, sandbox_result *r)
{
    pair p = {-1, -1, {-1, -1}, {-1, -1}, {-1, -1}, 0, 0};
    char word[WORD + 1];
    bal_buf said = {0};
    double start = bal_clock_seconds();
    bool in_time = true, exhausted = false;
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
out:
    exhausted = end_box(s, p.solution, in_time && r->verdict == SANDBOX_FAILED ? 0.3 : 0);
    exhausted |= end_box(s, p.checker, in_time && said.len == 0 ? 0.3 : 0);
    close_fd(&p.said[0]);
    r->seconds = bal_clock_seconds() - start;
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
    (void)end_box(s, pid, in_time ? 1 : 0);
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
    box_plan_dispose(&s->plan);
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

static bal_status open_as(sandbox *s, const char *bubblewrap, bool drop_root)
{
    bal_status status;
    sandbox_reset(s);
    BAL_TRY(box_plan_init(&s->plan, bubblewrap, drop_root));
    s->plan.cpu_seconds = s->limits.cpu_seconds;
    s->plan.memory_bytes = s->limits.memory_bytes;
    BAL_TRY(compile_text(s, bal_sandbox_solution, &s->solution));
    BAL_TRY(compile_text(s, bal_sandbox_checker, &s->checker));
    status = try_out(s);
out:
    return status;
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
    s->limits = limits != NULL ? *limits : (sandbox_limits){0};
    if (s->limits.cpu_seconds <= 0)
        s->limits.cpu_seconds = 3;
    if (s->limits.wall_seconds <= 0)
        s->limits.wall_seconds = s->limits.cpu_seconds + 3;
    if (s->limits.memory_bytes == 0)
        s->limits.memory_bytes = (size_t)1 << 30;
    if (bubblewrap != NULL && (kind == NULL || strcmp(kind, "bubblewrap") == 0)) {
        status = open_as(s, bubblewrap, geteuid() == 0);
        if (status == BAL_EUNSUPPORTED && geteuid() == 0)
            status = open_as(s, bubblewrap, false);
        (void)snprintf(why[0], sizeof why[0], "bubblewrap: %.200s", bal_error_message());
    }
    if (status == BAL_EUNSUPPORTED && (kind == NULL || strcmp(kind, "namespaces") == 0)) {
        status = open_as(s, NULL, false);
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

void sandbox_close(sandbox *s)
{
    if (s == NULL)
        return;
    sandbox_reset(s);
    bal_free(s);
}

const char *sandbox_verdict_name(sandbox_verdict v)
{
    return v == SANDBOX_PASSED ? "passed" : v == SANDBOX_TIMED_OUT ? "timed out" : "failed";
}
