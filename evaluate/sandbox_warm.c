/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/sandbox_warm.h"

#include "lib/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_SECONDS = 20, MAX_FDS = 4, NEVER = -1 };

/* One message, or the end of the worker (0), within seconds (-1: for ever); -1 when time runs out. */
static ssize_t receive(int fd, void *out, size_t n, double seconds)
{
    double until = bal_clock_seconds() + seconds;
    for (;;) {
        double left = until - bal_clock_seconds();
        struct pollfd p = {fd, POLLIN, 0};
        int rc = poll(&p, 1, seconds < 0 ? -1 : left <= 0 ? 0 : (int)(left * 1000) + 1);
        if (rc == 0)
            return -1;
        if (rc < 0) {
            if (errno == EINTR)
                continue;
            return 0;
        }
        ssize_t got = recv(fd, out, n, 0);
        return got < 0 ? 0 : got;
    }
}

bal_status warm_start(const box_plan *p, const char *text, int code, warm_worker *out)
{
    int ends[2];
    char word[8];
    *out = (warm_worker){0, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return bal_fail(BAL_EIO, "a socket for a sandbox cannot be made: %s", strerror(errno));
    const box_fds fds = {-1, ends[1], -1, -1, code};
    bal_status status = box_start(p, text, &fds, &out->pid);
    (void)close(ends[1]);
    out->socket = ends[0];
    if (status != BAL_OK)
        out->pid = 0;
    else if (receive(out->socket, word, sizeof word, START_SECONDS) != 5)
        status = bal_fail(BAL_EUNSUPPORTED, "a waiting interpreter in it does not start");
    if (status != BAL_OK)
        warm_stop(out);
    return status;
}

void warm_stop(warm_worker *w)
{
    if (w->socket >= 0)
        (void)close(w->socket);
    if (w->pid > 0) {
        (void)kill(w->pid, SIGKILL); /* the first process of its namespace: all others end with it */
        while (waitpid(w->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    *w = (warm_worker){0, -1};
}

bool warm_run(const warm_worker *w, const box_fds *fds, int cpu_seconds, size_t memory_bytes)
{
    const int all[MAX_FDS] = {fds->input, fds->receive, fds->send, fds->result};
    size_t n = fds->result < 0 ? MAX_FDS - 1 : MAX_FDS;
    union {
        char bytes[CMSG_SPACE(sizeof all)];
        struct cmsghdr align;
    } control;
    unsigned char order[12];
    int32_t cpu = cpu_seconds;
    uint64_t memory = memory_bytes;
    struct iovec part = {order, sizeof order};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_SPACE(n * sizeof *all)};
    memset(&control, 0, sizeof control);
    memcpy(order, &cpu, sizeof cpu);
    memcpy(order + 4, &memory, sizeof memory);
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(n * sizeof *all);
    memcpy(CMSG_DATA(head), all, n * sizeof *all);
    return sendmsg(w->socket, &message, MSG_NOSIGNAL) == (ssize_t)sizeof order;
}

box_end warm_wait(const warm_worker *w, double grace)
{
    unsigned char answer[12];
    box_end end = {.by_itself = true};
    int32_t how;
    ssize_t n = receive(w->socket, answer, sizeof answer, grace);
    if (n < 0) {
        end.by_itself = false;
        n = send(w->socket, "k", 1, MSG_NOSIGNAL) == 1 ? receive(w->socket, answer, sizeof answer, NEVER) : 0;
    }
    if (n != (ssize_t)sizeof answer) {
        end.gone = true;
        return end;
    }
    memcpy(&how, answer, sizeof how);
    memcpy(&end.cpu_seconds, answer + 4, sizeof end.cpu_seconds);
    end.how = how;
    return end;
}
