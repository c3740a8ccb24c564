/* A small HTTP server on the loopback for tests of clients: one thread a connection, each request answered by the test's
 * own function, which may answer wrongly.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TESTS_LOOPBACK_H
#define BAL_TESTS_LOOPBACK_H

#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct loopback loopback;

/* head: the request's first line and headers, NUL-terminated; body likewise. */
typedef void loopback_fn(loopback *l, int fd, const char *head, const char *body);

struct loopback {
    int fd, port;
    loopback_fn *answer;
    void *context;
    pthread_t thread;
    atomic_int requests, now, with_key;
};

typedef struct loopback_visit {
    loopback *l;
    int fd;
} loopback_visit;

static void loopback_send(int fd, const char *text, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        text += sent;
        n -= (size_t)sent;
    }
}

/* A whole answer; headers: more lines, each ending in \r\n, or "". */
static inline void loopback_reply(int fd, int code, const char *headers, const char *body)
{
    char head[1024];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n", code,
                     strlen(body), headers);
    loopback_send(fd, head, (size_t)n);
    loopback_send(fd, body, strlen(body));
}

static void *loopback_visitor(void *context)
{
    enum { MOST = 1 << 20 };
    loopback_visit *v = context;
    char *text = calloc(1, MOST + 1);
    size_t used = 0, need = 0;
    char *body = NULL;
    while (text != NULL && used < MOST) {
        ssize_t n = recv(v->fd, text + used, MOST - used, 0);
        if (n <= 0)
            break;
        used += (size_t)n;
        if (body == NULL && (body = strstr(text, "\r\n\r\n")) != NULL) {
            const char *length = strstr(text, "Content-Length: ");
            *body = '\0';
            body += 4;
            need = (size_t)(body - text) + (length != NULL ? (size_t)strtoul(length + 16, NULL, 10) : 0);
        }
        if (body != NULL && used >= need)
            break;
    }
    if (body != NULL) {
        atomic_fetch_add(&v->l->now, 1);
        atomic_fetch_add(&v->l->requests, 1);
        atomic_fetch_add(&v->l->with_key, strstr(text, "Authorization: Bearer ") != NULL);
        v->l->answer(v->l, v->fd, text, body);
        atomic_fetch_sub(&v->l->now, 1);
    }
    (void)close(v->fd);
    free(text);
    free(v);
    return NULL;
}

static void *loopback_main(void *context)
{
    loopback *l = context;
    for (;;) {
        int fd = accept(l->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        loopback_visit *v = malloc(sizeof *v);
        pthread_t t;
        if (v == NULL) {
            (void)close(fd);
            continue;
        }
        *v = (loopback_visit){l, fd};
        if (pthread_create(&t, NULL, loopback_visitor, v) == 0)
            (void)pthread_detach(t);
    }
}

/* False if no socket can be had. */
static inline int loopback_start(loopback *l, loopback_fn *answer, void *context)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    memset(l, 0, sizeof *l);
    l->answer = answer;
    l->context = context;
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(l->fd, 64) != 0 ||
        getsockname(l->fd, (struct sockaddr *)&a, &n) != 0)
        return 0;
    l->port = ntohs(a.sin_port);
    return pthread_create(&l->thread, NULL, loopback_main, l) == 0;
}

static inline void loopback_stop(loopback *l)
{
    (void)shutdown(l->fd, SHUT_RDWR);
    (void)pthread_join(l->thread, NULL);
    (void)close(l->fd);
    for (int i = 0; i < 500 && atomic_load(&l->now) > 0; i++)
        (void)usleep(10000);
}

#endif
