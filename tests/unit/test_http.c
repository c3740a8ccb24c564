/* The HTTP client against a server that errs in every way.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/net/http.h"
#include "tests/loopback.h"
#include "tests/test.h"

#include <stdbool.h>

static loopback g_other; /* where redirects lead */
static atomic_int g_waiting, g_most;

static bool asks(const char *head, const char *path)
{
    const char *at = strchr(head, ' ');
    return at != NULL && strncmp(at + 1, path, strlen(path)) == 0 && at[1 + strlen(path)] == ' ';
}

static void other(loopback *l, int fd, const char *head, const char *body)
{
    (void)l, (void)head, (void)body;
    loopback_reply(fd, 200, "", "from elsewhere");
}

static void server(loopback *l, int fd, const char *head, const char *body)
{
    char text[200];
    int turn = atomic_load(&l->requests);
    if (asks(head, "/ok")) {
        loopback_reply(fd, 200, "", body[0] != '\0' ? body : "fine");
    } else if (asks(head, "/busy")) {
        loopback_reply(fd, turn < 3 ? 429 : 200, turn < 3 ? "Retry-After: 1\r\n" : "", "at last");
    } else if (asks(head, "/broken")) {
        loopback_reply(fd, turn == 1 ? 500 : turn == 2 ? 503 : 200, "", "at last");
    } else if (asks(head, "/always")) {
        loopback_reply(fd, 502, "", "never");
    } else if (asks(head, "/key")) {
        loopback_reply(fd, 401, "", "{\"error\": \"wrong key sk-secret!\"}");
    } else if (asks(head, "/forbidden")) {
        loopback_reply(fd, 403, "", "no licence");
    } else if (asks(head, "/gone")) {
        loopback_reply(fd, 404, "", "no such model");
    } else if (asks(head, "/cut")) { /* the first body ends early */
        const char *whole = "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: 10\r\n\r\n0123456789";
        loopback_send(fd, whole, strlen(whole) - (turn == 1 ? 5 : 0));
    } else if (asks(head, "/slow")) {
        (void)usleep(turn == 1 ? 4000000 : 0);
        loopback_reply(fd, 200, "", "slow");
    } else if (asks(head, "/wait")) {
        int now = atomic_fetch_add(&g_waiting, 1) + 1, most = atomic_load(&g_most);
        while (now > most && !atomic_compare_exchange_weak(&g_most, &most, now))
            ;
        (void)usleep(100000);
        atomic_fetch_sub(&g_waiting, 1);
        loopback_reply(fd, 200, "", "waited");
    } else if (asks(head, "/nothing")) {
        (void)shutdown(fd, SHUT_RDWR);
    } else if (asks(head, "/nonsense")) {
        loopback_send(fd, "hello?\r\n\r\n", 10);
    } else if (asks(head, "/endless")) {
        const char *start = "HTTP/1.1 200 X\r\nConnection: close\r\n\r\n";
        static const char part[4096] = {'x'};
        loopback_send(fd, start, strlen(start));
        for (int i = 0; i < 1000; i++)
            loopback_send(fd, part, sizeof part);
    } else if (asks(head, "/moved")) {
        (void)snprintf(text, sizeof text, "Location: http://127.0.0.1:%d/there\r\n", g_other.port);
        loopback_reply(fd, 302, text, "");
    } else if (asks(head, "/file")) {
        loopback_reply(fd, 302, "Location: file:///etc/passwd\r\n", "");
    } else if (asks(head, "/circle")) {
        loopback_reply(fd, 302, "Location: /circle\r\n", "");
    } else {
        loopback_reply(fd, 400, "", "what?");
    }
}

/* Sends one request to a fresh server; the message must hold `says` when the status is not BAL_OK. */
static int request(const char *path, const char *body, bal_status want, const char *says)
{
    const bal_http_options o = {
        .key = "sk-secret", .key_name = "A_KEY", .back_off = 0.01, .tries = 4, .seconds = 3, .max_bytes = 100000};
    loopback l;
    bal_http *h = NULL;
    bal_http_reply r = {0};
    char url[100];
    if (!CHECK(loopback_start(&l, server, NULL)) || !CHECK_OK(bal_http_open(&h, &o)))
        return 0;
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d%s", l.port, path);
    const bal_http_request q = {url, body};
    bal_status got = bal_http_send(h, &q, &r);
    const char *text = got == BAL_OK ? bal_buf_cstr(&r.body) : bal_error_message();
    CHECK_MSG(got == want, "%s: status %d, %s", path, got, text);
    CHECK_MSG(strstr(text, says) != NULL, "%s says '%s', not '%s'", path, text, says);
    CHECK_MSG(strstr(text, "secret") == NULL, "%s: the key is in '%s'", path, text);
    CHECK_MSG(atomic_load(&l.with_key) == atomic_load(&l.requests), "%s: %d of %d with the key", path,
              atomic_load(&l.with_key), atomic_load(&l.requests));
    bal_http_reply_dispose(&r);
    bal_http_close(h);
    loopback_stop(&l);
    return atomic_load(&l.requests);
}

TEST(answers)
{
    CHECK(request("/ok", NULL, BAL_OK, "fine") == 1);
    CHECK(request("/ok", "{\"a\": 1}", BAL_OK, "{\"a\": 1}") == 1);
}

TEST(tried_again)
{
    CHECK(request("/busy", "{}", BAL_OK, "at last") == 3); /* 2 s by Retry-After */
    CHECK(request("/broken", NULL, BAL_OK, "at last") == 3);
    CHECK(request("/cut", NULL, BAL_OK, "0123456789") == 2);
    CHECK(request("/slow", NULL, BAL_OK, "slow") == 2);
    CHECK(request("/always", NULL, BAL_EIO, "502, tried 4 times") == 4);
    CHECK(request("/nothing", NULL, BAL_EIO, "tried 4 times") >=
          4); /* libcurl itself may try a dead connection again */
}

TEST(refused_at_once)
{
    CHECK(request("/key", NULL, BAL_EINVAL, "refuses the key (401); it came from A_KEY: {\"error\": \"wrong key ***") ==
          1);
    CHECK(request("/forbidden", "{}", BAL_EINVAL, "(403)") == 1);
    CHECK(request("/gone", NULL, BAL_ENOENT, "no such model") == 1);
    CHECK(request("/what", NULL, BAL_EINVAL, "(400): what?") == 1);
    CHECK(request("/endless", NULL, BAL_ELIMIT, "longer than 100000 bytes") == 1);
    CHECK(request("/nonsense", NULL, BAL_EIO, "127.0.0.1") >= 1);
    CHECK(request("/circle", NULL, BAL_EIO, "127.0.0.1") == 6);
    CHECK(request("/file", NULL, BAL_EINVAL, "not http or https") == 1);
}

TEST(nobody_there)
{
    const bal_http_options o = {.back_off = 0.01, .tries = 2, .connect_seconds = 0.5};
    loopback l;
    bal_http *h = NULL;
    bal_http_reply r = {0};
    char url[100];
    if (!CHECK(loopback_start(&l, other, NULL)) || !CHECK_OK(bal_http_open(&h, &o)))
        return;
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/ok", l.port);
    loopback_stop(&l);
    const bal_http_request q = {url, NULL}, file = {"file:///etc/passwd", NULL}, odd = {"ftp://127.0.0.1/x", NULL};
    CHECK_STATUS(bal_http_send(h, &q, &r), BAL_EIO);
    CHECK(r.tries == 2);
    CHECK_STATUS(bal_http_send(h, &file, &r), BAL_EINVAL);
    CHECK_STATUS(bal_http_send(h, &odd, &r), BAL_EINVAL);
    bal_http_reply_dispose(&r);
    bal_http_close(h);
    const bal_http_options split = {.key = "a\r\nHost: b"};
    CHECK_STATUS(bal_http_open(&h, &split), BAL_EINVAL);
}

/* The key stays with its host. */
TEST(redirected)
{
    if (!CHECK(loopback_start(&g_other, other, NULL)))
        return;
    CHECK(request("/moved", NULL, BAL_OK, "from elsewhere") == 1);
    CHECK(atomic_load(&g_other.requests) == 1 && atomic_load(&g_other.with_key) == 0);
    CHECK(request("/moved", "{}", BAL_EINVAL, "(302)") == 1); /* a POST is not sent elsewhere */
    loopback_stop(&g_other);
}

static void count(void *context, size_t i)
{
    (void)i;
    (*(int *)context)++;
}

TEST(many_at_once)
{
    enum { N = 12 };
    const bal_http_options o = {.at_once = 3};
    loopback l;
    bal_http *h = NULL;
    bal_http_reply replies[N] = {0};
    bal_http_request requests[N];
    char url[100], gone[100];
    int done = 0;
    if (!CHECK(loopback_start(&l, server, NULL)) || !CHECK_OK(bal_http_open(&h, &o)))
        return;
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%d/wait", l.port);
    (void)snprintf(gone, sizeof gone, "http://127.0.0.1:%d/gone", l.port);
    for (int i = 0; i < N; i++)
        requests[i] = (bal_http_request){i == 5 ? gone : url, NULL};
    CHECK_OK(bal_http_send_all(h, requests, N, replies, count, &done));
    CHECK(done == N && atomic_load(&g_most) <= 3 && atomic_load(&g_most) >= 2 && atomic_load(&l.with_key) == 0);
    for (int i = 0; i < N; i++) {
        CHECK(replies[i].status == (i == 5 ? BAL_ENOENT : BAL_OK));
        CHECK(i == 5 || strcmp(bal_buf_cstr(&replies[i].body), "waited") == 0);
        bal_http_reply_dispose(&replies[i]);
    }
    bal_http_close(h);
    loopback_stop(&l);
}
