/* A hub on the loopback for tests: one repository, its files, and a second server where large files lead to; it can err
 * in every way that a hub does.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TESTS_HUB_LOOPBACK_H
#define BAL_TESTS_HUB_LOOPBACK_H

#include "lib/base/hash.h"
#include "tests/loopback.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum hub_fault {
    HUB_FINE,
    HUB_GATED,         /* 401 without the token, 403 with another */
    HUB_PRIVATE,       /* 401 RepoNotFound without the token */
    HUB_NO_REPOSITORY, /* 404 */
    HUB_NO_REVISION,
    HUB_NO_FILE,      /* listed, but 404 */
    HUB_BUSY,         /* 429 twice, with Retry-After */
    HUB_BUSY_FOREVER, /* 429 */
    HUB_BROKEN,       /* 500, 503, then well */
    HUB_DOWN,         /* 502 always */
    HUB_CUT,          /* a body ends after `cut` bytes, each time */
    HUB_CUT_ONCE,     /* all bodies until `cuts_left` is 0 */
    HUB_SHORT,        /* announces and sends fewer bytes than it should */
    HUB_LONG,         /* sends more than the file has */
    HUB_WRONG,        /* one byte of the body is wrong */
    HUB_SILENT,       /* says nothing for long */
    HUB_SILENT_ONCE,  /* stops in the middle, once */
    HUB_CIRCLE,       /* redirects to itself */
    HUB_TO_FILE,      /* redirects to file:/// */
    HUB_UP_NAME,      /* lists ../../evil */
    HUB_ROOT_NAME,    /* lists /etc/evil */
    HUB_NO_JSON,      /* the listing is none */
    HUB_NO_HASH,      /* neither the listing nor the tree has hashes */
    HUB_NO_BLOBS,     /* the listing has names only, the tree all */
    HUB_NO_RANGE,     /* always the whole file */
    HUB_WRONG_RANGE,  /* another part than was asked for */
    HUB_OTHER_COMMIT, /* X-Repo-Commit of another */
    HUB_SLOW          /* waits before each file */
} hub_fault;

typedef struct hub_test_file {
    const char *path;
    const char *data;
    size_t n;
    bool lfs;
    char hash[BAL_HASH_HEX];
} hub_test_file;

typedef struct hub_test {
    loopback server, cdn;
    const char *id;
    bool is_data, redirects;
    char commit[41];
    const char *token; /* that opens a gated repository */
    hub_test_file files[24];
    size_t n;
    hub_fault fault;
    size_t cut;
    atomic_int cuts_left, lists, fetched, ranges, busy, most_at_once, at_once;
    atomic_int per_file[24];
} hub_test;

static inline void hub_test_add(hub_test *h, const char *path, const char *data, size_t n, bool lfs)
{
    hub_test_file *f = &h->files[h->n++];
    bal_hash s;
    *f = (hub_test_file){.path = path, .data = data, .n = n, .lfs = lfs};
    if (lfs)
        bal_sha256_start(&s);
    else
        bal_git_blob_start(&s, n);
    bal_hash_add(&s, data, n);
    bal_hash_finish(&s, f->hash);
}

static inline void hub_test_put(char *out, size_t n, const char *text)
{
    size_t used = strlen(out);
    (void)snprintf(out + used, n - used, "%s", text);
}

static inline void hub_test_list(hub_test *h, int fd, bool tree)
{
    static const size_t most = 32768;
    char *text = calloc(most, 1), line[700];
    bool names = h->fault == HUB_NO_HASH || (h->fault == HUB_NO_BLOBS && !tree);
    const char *odd = h->fault == HUB_UP_NAME ? "../../evil" : h->fault == HUB_ROOT_NAME ? "/etc/evil" : NULL;
    if (text == NULL)
        return;
    (void)snprintf(line, sizeof line, tree ? "[" : "{\"id\":\"%s\",\"sha\":\"%s\",\"siblings\":[", h->id, h->commit);
    hub_test_put(text, most, line);
    for (size_t i = 0; i < h->n; i++) {
        const hub_test_file *f = &h->files[i];
        (void)snprintf(line, sizeof line, "%s{%s\"%s\":\"%s\"", i > 0 ? "," : "", tree ? "\"type\":\"file\"," : "",
                       tree ? "path" : "rfilename", odd != NULL && i == 1 ? odd : f->path);
        hub_test_put(text, most, line);
        if (!names && f->lfs)
            (void)snprintf(line, sizeof line, ",\"size\":%zu,\"%s\":\"%040d\",\"lfs\":{\"%s\":\"%s\",\"size\":%zu}",
                           f->n, tree ? "oid" : "blobId", 7, tree ? "oid" : "sha256", f->hash, f->n);
        else
            (void)snprintf(line, sizeof line, ",\"size\":%zu,\"%s\":\"%s\"", f->n, tree ? "oid" : "blobId", f->hash);
        hub_test_put(text, most, names ? "" : line);
        hub_test_put(text, most, "}");
    }
    hub_test_put(text, most, tree ? "]" : "]}");
    if (h->fault == HUB_NO_JSON)
        text[1] = '\0';
    loopback_reply(fd, 200, "Content-Type: application/json\r\n", text);
    free(text);
}

/* The body of a file from `from` on, with what the fault makes of it. */
static inline void hub_test_body(hub_test *h, int fd, const hub_test_file *f, const char *head)
{
    char answer[700], *wrong = NULL;
    const char *range = strstr(head, "Range: bytes=");
    size_t from = range != NULL ? (size_t)strtoul(range + 13, NULL, 10) : 0, n = f->n, sent;
    const char *data = f->data;
    bool partial = range != NULL && h->fault != HUB_NO_RANGE;
    atomic_fetch_add(&h->ranges, range != NULL);
    if (!partial)
        from = 0;
    if (from > n || (partial && from == n)) {
        loopback_reply(fd, 416, "", "no such range");
        return;
    }
    size_t length = n - from;
    if (h->fault == HUB_SHORT)
        length = length > 10 ? length - 10 : 0;
    if (h->fault == HUB_WRONG && n > 0 && (wrong = malloc(n)) != NULL) {
        memcpy(wrong, data, n);
        wrong[n / 2] ^= 1;
        data = wrong;
    }
    (void)snprintf(answer, sizeof answer, "HTTP/1.1 %d X\r\nConnection: close\r\nETag: \"%s\"\r\nX-Repo-Commit: %s\r\n",
                   partial ? 206 : 200, f->hash,
                   h->fault == HUB_OTHER_COMMIT ? "0123456789012345678901234567890123456789" : h->commit);
    loopback_send(fd, answer, strlen(answer));
    if (h->fault == HUB_LONG)
        (void)snprintf(answer, sizeof answer, "\r\n"); /* until the connection ends */
    else if (partial)
        (void)snprintf(answer, sizeof answer, "Content-Length: %zu\r\nContent-Range: bytes %zu-%zu/%zu\r\n\r\n", length,
                       h->fault == HUB_WRONG_RANGE ? from + 1 : from, n - 1, n);
    else
        (void)snprintf(answer, sizeof answer, "Content-Length: %zu\r\n\r\n", length);
    loopback_send(fd, answer, strlen(answer));
    sent = length;
    if (h->fault == HUB_CUT && f->lfs)
        sent = length < h->cut ? length : h->cut;
    if ((h->fault == HUB_CUT_ONCE || h->fault == HUB_SILENT_ONCE) && f->lfs && atomic_fetch_sub(&h->cuts_left, 1) > 0)
        sent = length < h->cut ? length : h->cut;
    loopback_send(fd, data + from, sent);
    if (h->fault == HUB_LONG)
        loopback_send(fd, "and more, and more", 18);
    if (h->fault == HUB_SILENT_ONCE && sent < length)
        (void)usleep(3000000);
    free(wrong);
}

static inline hub_test_file *hub_test_find(hub_test *h, const char *head)
{
    const char *at = strchr(head, ' ');
    const char *end = at != NULL ? strchr(at + 1, ' ') : NULL;
    for (size_t i = 0; end != NULL && i < h->n; i++) {
        size_t n = strlen(h->files[i].path);
        if ((size_t)(end - at) > n + 1 && strncmp(end - n, h->files[i].path, n) == 0 && end[-(long)n - 1] == '/')
            return &h->files[i];
    }
    return NULL;
}

static inline void hub_test_cdn(loopback *l, int fd, const char *head, const char *body)
{
    (void)body;
    hub_test *h = l->context;
    const hub_test_file *f = hub_test_find(h, head);
    if (f != NULL)
        hub_test_body(h, fd, f, head);
    else
        loopback_reply(fd, 404, "", "nothing");
}

static inline void hub_test_file_answer(hub_test *h, int fd, hub_test_file *f, const char *head)
{
    char headers[600];
    int now = atomic_fetch_add(&h->at_once, 1) + 1, most = atomic_load(&h->most_at_once);
    while (now > most && !atomic_compare_exchange_weak(&h->most_at_once, &most, now))
        ;
    atomic_fetch_add(&h->fetched, 1);
    atomic_fetch_add(&h->per_file[f - h->files], 1);
    if (h->fault == HUB_SLOW)
        (void)usleep(200000);
    if (h->fault == HUB_NO_FILE && f->lfs) {
        loopback_reply(fd, 404, "X-Error-Code: EntryNotFound\r\n", "Entry not found");
    } else if (h->fault == HUB_SILENT && f->lfs) {
        (void)usleep(4000000);
    } else if (h->fault == HUB_CIRCLE) {
        (void)snprintf(headers, sizeof headers, "Location: %s\r\n", f->path);
        loopback_reply(fd, 302, headers, "");
    } else if (h->fault == HUB_TO_FILE) {
        loopback_reply(fd, 302, "Location: file:///etc/passwd\r\n", "");
    } else if (f->lfs && h->redirects) {
        (void)snprintf(headers, sizeof headers,
                       "Location: http://127.0.0.1:%d/signed/%s\r\nX-Repo-Commit: %s\r\nX-Linked-Etag: \"%s\"\r\n"
                       "X-Linked-Size: %zu\r\n",
                       h->cdn.port, f->path, h->commit, f->hash, f->n);
        loopback_reply(fd, 302, headers, "");
    } else {
        hub_test_body(h, fd, f, head);
    }
    atomic_fetch_sub(&h->at_once, 1);
}

static inline void hub_test_answer(loopback *l, int fd, const char *head, const char *body)
{
    (void)body;
    hub_test *h = l->context;
    char info[300], tree[300], files[300], bearer[200];
    int turn = atomic_fetch_add(&h->busy, 1);
    const char *token = h->token != NULL ? h->token : "hf_good";
    (void)snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", token);
    const char *key = strstr(head, bearer);
    bool known = key != NULL && (key[strlen(bearer)] == '\r' || key[strlen(bearer)] == '\0'),
         any = strstr(head, "Authorization:") != NULL;
    (void)snprintf(info, sizeof info, "GET /api/%s/%s/revision/", h->is_data ? "datasets" : "models", h->id);
    (void)snprintf(tree, sizeof tree, "GET /api/%s/%s/tree/%s?", h->is_data ? "datasets" : "models", h->id, h->commit);
    (void)snprintf(files, sizeof files, "GET %s/%s/resolve/%s/", h->is_data ? "/datasets" : "", h->id, h->commit);
    if (h->fault == HUB_GATED && !known)
        loopback_reply(fd, any ? 403 : 401, "X-Error-Code: GatedRepo\r\n", "Access to this is restricted");
    else if (h->fault == HUB_PRIVATE && !known)
        loopback_reply(fd, 401, "X-Error-Code: RepoNotFound\r\n", "Invalid username or password.");
    else if (h->fault == HUB_NO_REPOSITORY)
        loopback_reply(fd, 404, "X-Error-Code: RepoNotFound\r\n", "{\"error\":\"Repository not found\"}");
    else if (h->fault == HUB_NO_REVISION)
        loopback_reply(fd, 404, "X-Error-Code: RevisionNotFound\r\n", "{\"error\":\"Invalid rev id\"}");
    else if (h->fault == HUB_BUSY_FOREVER || (h->fault == HUB_BUSY && turn < 2))
        loopback_reply(fd, 429, h->fault == HUB_BUSY ? "Retry-After: 1\r\n" : "", "too many");
    else if (h->fault == HUB_DOWN || (h->fault == HUB_BROKEN && turn < 2))
        loopback_reply(fd, turn == 0 ? 500 : 502, "", "down");
    else if (strncmp(head, info, strlen(info)) == 0) {
        atomic_fetch_add(&h->lists, 1);
        hub_test_list(h, fd, false);
    } else if (strncmp(head, tree, strlen(tree)) == 0) {
        hub_test_list(h, fd, true);
    } else if (strncmp(head, files, strlen(files)) == 0 && hub_test_find(h, head) != NULL) {
        hub_test_file_answer(h, fd, hub_test_find(h, head), head);
    } else {
        loopback_reply(fd, 404, "", "nothing here");
    }
}

/* False if no socket can be had.  The counters start anew. */
static inline bool hub_test_start(hub_test *h, const char *id, bool is_data)
{
    memset(h, 0, sizeof *h);
    h->id = id;
    h->is_data = is_data;
    (void)snprintf(h->commit, sizeof h->commit, "c0ffee%032d%02d", 0, is_data ? 2 : 1);
    return loopback_start(&h->server, hub_test_answer, h) && loopback_start(&h->cdn, hub_test_cdn, h);
}

static inline void hub_test_stop(hub_test *h)
{
    loopback_stop(&h->server);
    loopback_stop(&h->cdn);
}

#endif
