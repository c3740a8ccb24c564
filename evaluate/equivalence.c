/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/equivalence.h"

#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_IN_A_ROW = 8, MAX_ANSWER = 1 << 16 };
extern char **environ;

struct equivalence {
    char *command;
    double seconds;
    pid_t pid; /* 0: not running */
    int to, from;
    bal_buf rest;                /* read, and not used yet */
    size_t failures, unanswered; /* failures: in a row */
};

size_t equivalence_unanswered(const equivalence *e)
{
    return e->unanswered;
}

bal_status equivalence_open(equivalence **out, const char *command, double seconds)
{
    equivalence *e = bal_alloc(1, sizeof *e);
    *out = NULL;
    if (e == NULL)
        return BAL_ENOMEM;
    *e = (equivalence){.command = bal_strdup(command), .seconds = seconds, .to = -1, .from = -1};
    if (e->command == NULL) {
        bal_free(e);
        return BAL_ENOMEM;
    }
    *out = e;
    return BAL_OK;
}

/* Ends the program with everything that it started; *how as waitpid() has it. */
static void stop(equivalence *e, int *how)
{
    if (e->to >= 0)
        (void)close(e->to);
    if (e->from >= 0)
        (void)close(e->from);
    e->to = e->from = -1;
    bal_buf_clear(&e->rest);
    if (e->pid <= 0)
        return;
    double until = bal_clock_seconds() + 0.2; /* what ended by itself has its own status to tell */
    pid_t got = 0;
    while ((got = waitpid(e->pid, how, WNOHANG)) == 0 && bal_clock_seconds() < until)
        (void)usleep(2000);
    (void)kill(-e->pid, SIGKILL);
    while (got == 0 && waitpid(e->pid, how, 0) < 0 && errno == EINTR)
        ;
    e->pid = 0;
}

void equivalence_close(equivalence *e)
{
    int how = 0;
    if (e == NULL)
        return;
    stop(e, &how);
    bal_buf_dispose(&e->rest);
    bal_free(e->command);
    bal_free(e);
}

static bal_status spawn(equivalence *e, const int in[2], const int out[2])
{
    char *const argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", e->command, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    (void)sigemptyset(&none);
    int bad = posix_spawn_file_actions_init(&files);
    bad |= posix_spawnattr_init(&attributes);
    bad |= posix_spawn_file_actions_adddup2(&files, in[0], 0);
    bad |= posix_spawn_file_actions_adddup2(&files, out[1], 1);
    bad |= posix_spawnattr_setsigmask(&attributes, &none);
    bad |= posix_spawnattr_setpgroup(&attributes, 0);
    bad |= posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
    if (bad == 0)
        bad = posix_spawn(&e->pid, "/bin/sh", &files, &attributes, argv, environ);
    (void)posix_spawn_file_actions_destroy(&files);
    (void)posix_spawnattr_destroy(&attributes);
    if (bad == 0)
        return BAL_OK;
    e->pid = 0;
    return bal_fail(BAL_EIO, "--equivalence-command cannot be started: %s", strerror(bad));
}

static bal_status start(equivalence *e)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    bal_status status = BAL_OK;
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        status = bal_fail(BAL_EIO, "a pipe to --equivalence-command cannot be made: %s", strerror(errno));
    else
        status = spawn(e, in, out);
    if (in[0] >= 0)
        (void)close(in[0]);
    if (out[1] >= 0)
        (void)close(out[1]);
    e->to = in[1];
    e->from = out[0];
    if (status == BAL_OK && (fcntl(e->to, F_SETFL, O_NONBLOCK) != 0 || fcntl(e->from, F_SETFL, O_NONBLOCK) != 0))
        status = bal_fail(BAL_EIO, "a pipe to --equivalence-command cannot be used: %s", strerror(errno));
    return status;
}

/* write() without the signal that a closed pipe sends. */
static ssize_t quiet_write(int fd, const char *data, size_t n)
{
    const struct timespec at_once = {0, 0};
    sigset_t pipe_signal, before, pending;
    (void)sigemptyset(&pipe_signal);
    (void)sigaddset(&pipe_signal, SIGPIPE);
    (void)sigpending(&pending);
    (void)pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t done = write(fd, data, n);
    int error = errno;
    if (done < 0 && error == EPIPE && sigismember(&pending, SIGPIPE) == 0)
        (void)sigtimedwait(&pipe_signal, NULL, &at_once);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return done;
}

/* Sends the question and reads up to the end of the answer's line, *n bytes of e->rest. */
typedef enum talk { TALK_OK, TALK_LATE, TALK_ENDED, TALK_LONG } talk;
static talk exchange(equivalence *e, const bal_buf *question, size_t *n)
{
    double until = bal_clock_seconds() + e->seconds;
    size_t sent = 0;
    char part[4096];
    for (;;) {
        const char *end = e->rest.len == 0 ? NULL : memchr(e->rest.data, '\n', e->rest.len);
        if (end != NULL && sent == question->len) {
            *n = (size_t)(end - e->rest.data);
            return TALK_OK;
        }
        if (e->rest.len > MAX_ANSWER)
            return TALK_LONG;
        double left = until - bal_clock_seconds();
        struct pollfd p[2] = {{e->from, POLLIN, 0}, {e->to, POLLOUT, 0}};
        if (left <= 0 || bal_interrupted())
            return TALK_LATE;
        if (poll(p, sent < question->len ? 2 : 1, left > 0.2 ? 200 : (int)(left * 1000) + 1) < 0 && errno != EINTR)
            return TALK_ENDED;
        if (p[0].revents != 0) {
            ssize_t got = read(e->from, part, sizeof part);
            if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR) ||
                (got > 0 && bal_buf_append(&e->rest, part, (size_t)got) != BAL_OK))
                return TALK_ENDED;
        }
        if (sent < question->len && p[1].revents != 0) {
            ssize_t done = quiet_write(e->to, question->data + sent, question->len - sent);
            if (done < 0 && errno != EAGAIN && errno != EINTR)
                return TALK_ENDED;
            sent += done > 0 ? (size_t)done : 0;
        }
    }
}

static bal_status put_question(bal_buf *out, const char *prediction, const char *gold, const char *output,
                               const cJSON *doc)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"prediction\": "));
    BAL_TRY(bal_json_put_text(out, prediction));
    BAL_TRY(bal_buf_text(out, ", \"gold\": "));
    BAL_TRY(bal_json_put_text(out, gold));
    BAL_TRY(bal_buf_text(out, ", \"output\": "));
    BAL_TRY(bal_json_put_text(out, output));
    BAL_TRY(bal_buf_text(out, ", \"doc\": "));
    BAL_TRY(doc == NULL ? bal_buf_text(out, "null") : bal_json_put(out, doc, false));
    status = bal_buf_text(out, "}\n");
out:
    return status;
}

/* The answer's line, taken off e->rest. */
static bool read_answer(equivalence *e, size_t n, bool *equal)
{
    cJSON *json = NULL;
    bool good = bal_json_parse(&json, bal_buf_cstr(&e->rest), n, "the answer") == BAL_OK;
    const cJSON *value = good ? bal_json_member(json, "equal") : NULL;
    good = cJSON_IsBool(value);
    *equal = cJSON_IsTrue(value);
    cJSON_Delete(json);
    memmove(e->rest.data, e->rest.data + n + 1, e->rest.len - n - 1);
    e->rest.len -= n + 1;
    return good && e->rest.len == 0; /* more than was asked for: the answers are out of step */
}

bal_status equivalence_ask(equivalence *e, const char *prediction, const char *gold, const char *output,
                           const cJSON *doc, bool *equal, bool *answered, bal_buf *why)
{
    bal_buf question = {0};
    size_t n = 0;
    int how = 0;
    bal_status status = BAL_OK;
    *equal = *answered = false;
    bal_buf_clear(why);
    if (e->pid == 0)
        BAL_TRY(start(e));
    BAL_TRY(put_question(&question, prediction, gold, output, doc));
    talk t = exchange(e, &question, &n);
    *answered = t == TALK_OK && read_answer(e, n, equal);
    if (*answered) {
        e->failures = 0;
        goto out;
    }
    *equal = false;
    stop(e, &how);
    if (bal_interrupted()) {
        status = bal_fail(BAL_EINTERRUPT, "stopped");
        goto out;
    }
    if (t == TALK_LATE)
        BAL_TRY(bal_buf_printf(why, "no answer within %g s", e->seconds));
    else if (t != TALK_ENDED)
        BAL_TRY(bal_buf_text(why, "the answer is not one line {\"equal\": true} or {\"equal\": false}"));
    else if (WIFSIGNALED(how))
        BAL_TRY(bal_buf_printf(why, "the program was ended by signal %d", WTERMSIG(how)));
    else
        BAL_TRY(bal_buf_printf(why, "the program ended with status %d", WEXITSTATUS(how)));
    e->unanswered++;
    if (++e->failures >= MOST_IN_A_ROW)
        status = bal_fail(BAL_EIO, "--equivalence-command gave no usable answer %d times in a row, last: %s ('%.200s')",
                          (int)MOST_IN_A_ROW, bal_buf_cstr(why), e->command);
out:
    bal_buf_dispose(&question);
    return status;
}
