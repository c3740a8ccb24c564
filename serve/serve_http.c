/* The HTTP side, over libmicrohttpd: addresses, keys, bounds, replies, the access log.  Nothing here reads a file.
 * SPDX-License-Identifier: Apache-2.0 */
#include "serve/serve.h"

#include "lib/base/clock.h"
#include "lib/base/mem.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { CONNECTION_MEMORY = 64 << 10, STREAM_BLOCK = 16 << 10, GRACE_TENTHS = 20 };

typedef enum page { PAGE_NONE, PAGE_HEALTH, PAGE_MODELS, PAGE_MODEL, PAGE_COMPLETIONS, PAGE_CHAT } page;

static page page_of(const char *url)
{
    if (strcmp(url, "/health") == 0)
        return PAGE_HEALTH;
    if (strcmp(url, "/v1/models") == 0)
        return PAGE_MODELS;
    if (bal_starts_with(url, "/v1/models/"))
        return PAGE_MODEL;
    if (strcmp(url, "/v1/completions") == 0)
        return PAGE_COMPLETIONS;
    return strcmp(url, "/v1/chat/completions") == 0 ? PAGE_CHAT : PAGE_NONE;
}

/* --- replies --- */

static enum MHD_Result reply(struct MHD_Connection *c, job *j, int code, const char *text, size_t n)
{
    union { /* the library takes a copy, but asks for a pointer that it could write to */
        const char *given;
        void *taken;
    } body = {.given = text};
    struct MHD_Response *r = MHD_create_response_from_buffer(n, body.taken, MHD_RESPMEM_MUST_COPY);
    if (r == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(r, "Content-Type", "application/json");
    if (code == 429 || code == 503)
        (void)MHD_add_response_header(r, "Retry-After", "1");
    if (code == 401)
        (void)MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (code == 405)
        (void)MHD_add_response_header(r, "Allow", strncmp(j->log_line, "POST", 4) == 0 ? "GET" : "POST");
    j->log_code = code;
    enum MHD_Result result = MHD_queue_response(c, (unsigned)code, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result reply_error(struct MHD_Connection *c, job *j)
{
    bal_buf text = {0};
    enum MHD_Result result = MHD_NO;
    if (j->error.code != 499 && serve_write_error(&j->error, &text) == BAL_OK)
        result = reply(c, j, j->error.code, bal_buf_cstr(&text), text.len);
    j->log_code = j->error.code;
    bal_buf_dispose(&text);
    return result;
}

static enum MHD_Result refuse(struct MHD_Connection *c, job *j, int code, const char *name, const char *message)
{
    serve_refuse(&j->error, code, name, "%s", message);
    return reply_error(c, j);
}

/* The next bytes of a stream; the connection sleeps while there are none. */
static ssize_t read_stream(void *context, uint64_t position, char *to, size_t most)
{
    job *j = context;
    ssize_t n = 0;
    (void)position;
    (void)pthread_mutex_lock(&j->s->lock);
    size_t there = j->out.len - j->out_sent;
    if (there > 0) {
        n = (ssize_t)(there < most ? there : most);
        memcpy(to, j->out.data + j->out_sent, (size_t)n);
        j->out_sent += (size_t)n;
        if (j->out_sent == j->out.len) {
            bal_buf_clear(&j->out);
            j->out_sent = 0;
        }
    } else if (j->finished) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        MHD_suspend_connection(j->connection);
        j->suspended = true;
    }
    (void)pthread_mutex_unlock(&j->s->lock);
    return n;
}

static enum MHD_Result reply_stream(struct MHD_Connection *c, job *j)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, j, NULL);
    if (r == NULL)
        return MHD_NO;
    (void)MHD_add_response_header(r, "Content-Type", "text/event-stream");
    (void)MHD_add_response_header(r, "Cache-Control", "no-cache");
    j->log_code = 200;
    enum MHD_Result result = MHD_queue_response(c, 200, r);
    MHD_destroy_response(r);
    return result;
}

/* --- who may ask --- */

/* Takes the same time for any wrong key of the right length. */
static bool same_key(const char *a, const char *b)
{
    size_t n = strlen(a);
    unsigned char different = strlen(b) != n;
    for (size_t i = 0; i < n && i < strlen(b); i++)
        different |= (unsigned char)a[i] ^ (unsigned char)b[i];
    return different == 0;
}

static bool has_key(const server *s, struct MHD_Connection *c)
{
    const char *given = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Authorization");
    return s->key == NULL || (given != NULL && strncasecmp(given, "Bearer ", 7) == 0 && same_key(s->key, given + 7));
}

/* A page of the web whose name was pointed at this machine must not read answers: it has another Host. */
static bool has_local_name(struct MHD_Connection *c)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    const char *host = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host");
    if (host == NULL)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t n = strlen(names[i]);
        if (strncasecmp(host, names[i], n) == 0 && (host[n] == '\0' || host[n] == ':'))
            return true;
    }
    return false;
}

/* Refuses what the first lines of a request tell already; false when it may go on. */
static bool refused_early(const server *s, struct MHD_Connection *c, job *j, const char *url, const char *method,
                          enum MHD_Result *result)
{
    page p = page_of(url);
    bool post = p == PAGE_COMPLETIONS || p == PAGE_CHAT;
    const char *length = MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Content-Length");
    int64_t bytes = 0, most = s->c->max_body_kib << 10;
    if (p == PAGE_NONE)
        *result = refuse(c, j, 404, "not_found", "there is no such page; see GET /v1/models");
    else if (s->key == NULL && s->loopback && !has_local_name(c))
        *result = refuse(c, j, 403, NULL, "this server answers to localhost only");
    else if (p != PAGE_HEALTH && !has_key(s, c))
        *result = refuse(c, j, 401, "invalid_api_key", "a key is needed: Authorization: Bearer KEY");
    else if (strcmp(method, post ? "POST" : "GET") != 0 && (post || strcmp(method, "HEAD") != 0))
        *result = refuse(c, j, 405, NULL, post ? "this page takes POST" : "this page takes GET");
    else if (length != NULL && (bal_parse_i64(length, 0, INT64_MAX, &bytes) != BAL_OK || bytes > most)) {
        serve_refuse(&j->error, 413, NULL, "the body may have at most %lld bytes", (long long)most);
        *result = reply_error(c, j);
    } else
        return false;
    return true;
}

static enum MHD_Result answer_get(const server *s, struct MHD_Connection *c, job *j, const char *url)
{
    bal_buf text = {0};
    enum MHD_Result result = MHD_NO;
    page p = page_of(url);
    const char *only = p == PAGE_MODEL ? url + strlen("/v1/models/") : NULL;
    bool found = only == NULL;
    for (size_t i = 0; i < s->n_models && !found; i++)
        found = strcmp(s->models[i].name, only) == 0;
    if (!found)
        return refuse(c, j, 404, "model_not_found", "this model is not served here (GET /v1/models lists them)");
    if ((p == PAGE_HEALTH ? bal_buf_text(&text, "{\"status\": \"ok\"}\n") : serve_write_models(s, only, &text)) ==
        BAL_OK)
        result = reply(c, j, 200, bal_buf_cstr(&text), text.len);
    bal_buf_dispose(&text);
    return result;
}

/* --- a request's way --- */

static void first_line(job *j, const char *method, const char *url)
{
    char clean[100];
    size_t n = 0;
    for (const char *p = url; *p != '\0' && n + 1 < sizeof clean; p++)
        clean[n++] = *p > ' ' && *p < 127 ? *p : '?';
    clean[n] = '\0';
    (void)snprintf(j->log_line, sizeof j->log_line, "%.10s %s", method, clean);
}

static bal_status take_body(job *j, const char *data, size_t n)
{
    size_t most = (size_t)j->s->c->max_body_kib << 10;
    if (j->too_large || n > most - j->body.len) { /* what goes on for ever is cut off */
        j->too_large = true;
        bal_buf_dispose(&j->body);
        j->log_code += (int)(n >> 10) + 1;
        return (size_t)j->log_code > 4 * (most >> 10) ? BAL_ELIMIT : BAL_OK;
    }
    return bal_buf_append(&j->body, data, n);
}

static enum MHD_Result whole_body(struct MHD_Connection *c, job *j)
{
    if (j->too_large) {
        serve_refuse(&j->error, 413, NULL, "the body may have at most %lld bytes",
                     (long long)j->s->c->max_body_kib << 10);
        return reply_error(c, j);
    }
    serve_read(j, bal_buf_cstr(&j->body), j->body.len);
    bal_buf_dispose(&j->body);
    if (j->error.code != 0)
        return reply_error(c, j);
    j->connection = c;
    if (!serve_submit(j))
        return reply_error(c, j);
    return j->stream ? reply_stream(c, j) : MHD_YES;
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *data, size_t *n_data, void **state)
{
    server *s = context;
    job *j = *state;
    enum MHD_Result result = MHD_YES;
    (void)version;
    if (j == NULL) {
        if ((j = bal_alloc(1, sizeof *j)) == NULL)
            return MHD_NO;
        j->s = s;
        j->chat = page_of(url) == PAGE_CHAT;
        j->start = bal_clock_seconds();
        *state = j;
        first_line(j, method, url);
        (void)refused_early(s, c, j, url, method, &result);
        return result;
    }
    if (*n_data > 0) {
        result = take_body(j, data, *n_data) == BAL_OK ? MHD_YES : MHD_NO;
        *n_data = 0;
        return result;
    }
    if (page_of(url) < PAGE_COMPLETIONS)
        return answer_get(s, c, j, url);
    if (!j->begun) {
        j->begun = true;
        return whole_body(c, j);
    }
    (void)pthread_mutex_lock(&s->lock);
    bool finished = j->finished;
    (void)pthread_mutex_unlock(&s->lock);
    if (!finished)
        return MHD_YES;
    return j->error.code != 0 ? reply_error(c, j) : reply(c, j, 200, bal_buf_cstr(&j->out), j->out.len);
}

static void log_access(const job *j, struct MHD_Connection *c)
{
    char address[INET6_ADDRSTRLEN] = "?";
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    size_t prompt = 0, made = 0;
    if (info != NULL && info->client_addr->sa_family == AF_INET)
        (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)info->client_addr)->sin_addr, address,
                        sizeof address);
    else if (info != NULL && info->client_addr->sa_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)info->client_addr)->sin6_addr, address,
                        sizeof address);
    for (size_t i = 0; i < j->n_prompts; i++)
        prompt += j->prompts[i].n;
    for (size_t i = 0; j->parts != NULL && i < j->n_parts && j->finished; i++)
        made += j->parts[i].ids.n;
    bal_log_line(&j->s->common->log, BAL_LOG_INFO, "%s %s %d%s%s, %zu + %zu tokens, %.3f s", address, j->log_line,
                 j->log_code, j->model != NULL ? " " : "", j->model != NULL ? j->model->name : "", prompt, made,
                 bal_clock_seconds() - j->start);
}

static void on_end(void *context, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode why)
{
    server *s = context;
    job *j = *state;
    *state = NULL;
    if (j == NULL)
        return;
    if (why != MHD_REQUEST_TERMINATED_COMPLETED_OK && j->log_code < 400)
        j->log_code = 499;
    (void)pthread_mutex_lock(&s->lock);
    bool in_work = j->in_work;
    j->closed = true;
    j->suspended = false;
    log_access(j, c);
    (void)pthread_mutex_unlock(&s->lock);
    if (!in_work)
        serve_job_free(j);
}

/* --- start and stop --- */

static void silent(void *context, const char *format, va_list args)
{
    (void)context, (void)format, (void)args;
}

static bal_status parse_address(server *s, struct sockaddr_storage *out)
{
    struct sockaddr_in *four = (struct sockaddr_in *)(void *)out;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)(void *)out;
    const char *host = strcmp(s->c->host, "localhost") == 0 ? "127.0.0.1" : s->c->host;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)s->c->port);
        s->loopback = ntohl(four->sin_addr.s_addr) >> 24 == 127;
    } else if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)s->c->port);
        s->loopback = IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
    } else {
        return bal_fail(BAL_EINVAL, "--host '%.60s' is no address like 127.0.0.1 or ::1", s->c->host);
    }
    if (!s->loopback && s->key == NULL)
        return bal_fail(BAL_EINVAL, "--host %s can be reached from other machines: a key is needed (--api-key-env)",
                        s->c->host);
    return BAL_OK;
}

bal_status serve_http_check(server *s)
{
    struct sockaddr_storage address;
    return parse_address(s, &address);
}

bal_status serve_http_start(server *s, int *port)
{
    struct sockaddr_storage address;
    bal_status status = parse_address(s, &address);
    if (status != BAL_OK)
        return status;
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_AUTO | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                     (address.ss_family == AF_INET6 ? MHD_USE_IPv6 : 0U);
    s->daemon = MHD_start_daemon(
        flags, (uint16_t)s->c->port, NULL, NULL, on_request, s, MHD_OPTION_EXTERNAL_LOGGER, silent, NULL,
        MHD_OPTION_SOCK_ADDR, (const struct sockaddr *)(const void *)&address, MHD_OPTION_NOTIFY_COMPLETED, on_end, s,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->c->connections, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)s->c->idle_timeout, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_END);
    if (s->daemon == NULL)
        return bal_fail(BAL_EIO, "port %lld of %s cannot be had (is it taken?)", (long long)s->c->port, s->c->host);
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_BIND_PORT);
    *port = info != NULL ? info->port : (int)s->c->port;
    return BAL_OK;
}

/* No new connections; what is being written gets a moment. */
void serve_http_stop(server *s)
{
    if (s->daemon == NULL)
        return;
    MHD_socket fd = MHD_quiesce_daemon(s->daemon);
    for (int i = 0; i < GRACE_TENTHS; i++) {
        const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
        if (info == NULL || info->num_connections == 0)
            break;
        (void)usleep(100000 / GRACE_TENTHS);
    }
    MHD_stop_daemon(s->daemon);
    s->daemon = NULL;
    if (fd != MHD_INVALID_SOCKET)
        (void)close(fd);
}
