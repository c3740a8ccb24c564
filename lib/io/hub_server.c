/* The hub's server: where it is, what it says of a repository, what its refusals mean.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub_impl.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_TOKEN = 4096, MAX_ANSWER = 64 << 20, MAX_PAGES = 1000 };

static const char *set(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool is_true(const char *variable)
{
    static const char *const words[] = {"1", "on", "yes", "true"};
    const char *value = set(variable);
    for (size_t i = 0; value != NULL && i < sizeof words / sizeof *words; i++)
        if (strcasecmp(value, words[i]) == 0)
            return true;
    return false;
}

bool hub_offline(void)
{
    return is_true("HF_HUB_OFFLINE") || (set("HF_HUB_OFFLINE") == NULL && is_true("TRANSFORMERS_OFFLINE"));
}

static bal_status token_path(bal_buf *out)
{
    if (set("HF_TOKEN_PATH") != NULL)
        return bal_buf_text(out, set("HF_TOKEN_PATH"));
    if (set("HF_HOME") != NULL)
        return bal_buf_printf(out, "%s/token", set("HF_HOME"));
    if (set("XDG_CACHE_HOME") != NULL)
        return bal_buf_printf(out, "%s/huggingface/token", set("XDG_CACHE_HOME"));
    return bal_buf_printf(out, "%s/.cache/huggingface/token", set("HOME") != NULL ? set("HOME") : "");
}

static void wipe(char *text)
{
    if (text != NULL)
        memset(text, 0, strlen(text));
    bal_free(text);
}

/* Without white space around it; NULL when nothing is left. */
static bal_status keep_token(hub_server *s, const char *text, const char *from)
{
    size_t n = strlen(text);
    while (n > 0 && isspace((unsigned char)text[0])) {
        text++;
        n--;
    }
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        n--;
    if (n == 0)
        return BAL_OK;
    s->token = bal_strndup(text, n);
    s->token_from = bal_strdup(from);
    return s->token == NULL || s->token_from == NULL ? BAL_ENOMEM : BAL_OK;
}

static bal_status find_token(hub_server *s)
{
    static const char *const variables[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"};
    bal_buf path = {0}, text = {0};
    bal_status status = BAL_OK;
    if (is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"))
        return BAL_OK;
    for (size_t i = 0; i < 2 && s->token == NULL; i++)
        if (set(variables[i]) != NULL)
            BAL_TRY(keep_token(s, set(variables[i]), variables[i]));
    if (s->token == NULL) {
        BAL_TRY(token_path(&path));
        if (bal_file_exists(path.data)) {
            BAL_TRY(bal_file_read(path.data, MAX_TOKEN, &text));
            BAL_TRY(keep_token(s, bal_buf_cstr(&text), path.data));
        }
    }
out:
    if (text.data != NULL)
        memset(text.data, 0, text.len);
    bal_buf_dispose(&text);
    bal_buf_dispose(&path);
    return status;
}

static bal_status find_endpoint(hub_server *s)
{
    const char *url = set("HF_ENDPOINT") != NULL ? set("HF_ENDPOINT") : "https://huggingface.co";
    const char *host = strstr(url, "://");
    size_t n = strlen(url);
    if ((!bal_starts_with(url, "http://") && !bal_starts_with(url, "https://")) || host[3] == '\0' ||
        strpbrk(url, "@?# \t\r\n") != NULL)
        return bal_fail(BAL_EINVAL, "HF_ENDPOINT must be an address as https://huggingface.co, without a user's name");
    while (n > 0 && url[n - 1] == '/')
        n--;
    s->endpoint = bal_strndup(url, n);
    bal_http_host(url, s->host, sizeof s->host);
    return s->endpoint == NULL ? BAL_ENOMEM : BAL_OK;
}

bal_status hub_server_open(hub_server *s, const bal_hub_options *o)
{
    bal_status status;
    *s = (hub_server){0};
    if (o != NULL)
        s->o = *o;
    s->o.tries = s->o.tries > 0 ? s->o.tries : 5;
    s->o.at_once = s->o.at_once > 0 ? s->o.at_once : 4;
    if (!(s->o.silent > 0) && set("HF_HUB_DOWNLOAD_TIMEOUT") != NULL &&
        bal_parse_f64(set("HF_HUB_DOWNLOAD_TIMEOUT"), 0.1, 86400, &s->o.silent) != BAL_OK)
        return bal_fail_note(BAL_EINVAL, "HF_HUB_DOWNLOAD_TIMEOUT");
    BAL_TRY(find_endpoint(s));
    BAL_TRY(find_token(s));
    const bal_http_options http = {.key = s->token,
                                   .key_name = s->token_from,
                                   .tries = s->o.tries,
                                   .back_off = s->o.back_off,
                                   .silent_seconds = s->o.silent,
                                   .log = s->o.log};
    status = bal_http_open(&s->http, &http);
out:
    if (status != BAL_OK)
        hub_server_close(s);
    return status;
}

void hub_server_close(hub_server *s)
{
    bal_http_close(s->http);
    bal_free(s->endpoint);
    wipe(s->token);
    bal_free(s->token_from);
    *s = (hub_server){0};
}

static bal_status put_escaped(bal_buf *out, const char *text, bool slash)
{
    bal_status status = BAL_OK;
    for (const unsigned char *c = (const unsigned char *)text; *c != '\0' && status == BAL_OK; c++)
        status = (isalnum(*c) && *c < 128) || strchr("-._~", *c) != NULL || (slash && *c == '/')
                     ? bal_buf_append(out, c, 1)
                     : bal_buf_printf(out, "%%%02X", *c);
    return status;
}

bal_status hub_server_url(const hub_server *s, const hub_name *name, bal_hub_kind kind, bool api, const char *what,
                          const char *revision, const char *file, bal_buf *out)
{
    bal_status status;
    bool data = kind == BAL_HUB_DATA;
    bal_buf_clear(out);
    BAL_TRY(bal_buf_printf(out, "%s%s%s/%s/%s/", s->endpoint, api ? "/api" : "",
                           data  ? "/datasets"
                           : api ? "/models"
                                 : "",
                           name->id, what));
    BAL_TRY(put_escaped(out, revision, false));
    if (file != NULL) {
        BAL_TRY(bal_buf_text(out, "/"));
        BAL_TRY(put_escaped(out, file, true));
    }
out:
    return status;
}

bal_status hub_server_refusal(const hub_server *s, const hub_name *name, bal_hub_kind kind, const char *file, long code,
                              const char *error_code, bal_status status)
{
    const char *sort = kind == BAL_HUB_DATA ? "data set" : kind == BAL_HUB_ADAPTER ? "adapter" : "model";
    const char *folder = kind == BAL_HUB_DATA ? "datasets/" : "";
    bool token = s->token != NULL;
    if (strcmp(error_code, "GatedRepo") == 0 || (code == 403 && strcmp(error_code, "DisabledRepo") != 0))
        return token ? bal_fail(BAL_ENOENT,
                                "'%s' is not open to the token from %s (%ld): accept its terms at %s/%s%s, or give "
                                "the token of an account that has",
                                name->id, s->token_from, code, s->endpoint, folder, name->id)
                     : bal_fail(BAL_ENOENT,
                                "'%s' asks for its terms to be accepted (%ld): do so at %s/%s%s, then set HF_TOKEN to "
                                "your account's token",
                                name->id, code, s->endpoint, folder, name->id);
    if (code == 401 && token && strcmp(error_code, "RepoNotFound") != 0)
        return bal_fail(BAL_ENOENT, "%s does not take the token from %s (401): make a new one at %s/settings/tokens",
                        s->host, s->token_from, s->endpoint);
    if (code == 401 ||
        (code == 404 && (strcmp(error_code, "RepoNotFound") == 0 || (error_code[0] == '\0' && file == NULL))))
        return bal_fail(BAL_ENOENT, "%s has no %s '%s'%s (%ld)%s", s->host, sort, name->id,
                        token ? " that the token may see" : "", code,
                        token ? "" : "; if it is private or its terms must be accepted, set HF_TOKEN");
    if (code == 404 && strcmp(error_code, "RevisionNotFound") == 0)
        return bal_fail(BAL_ENOENT, "'%s' has no revision '%s' (404)", name->id, name->revision);
    if (code == 404 && file != NULL)
        return bal_fail(BAL_ENOENT, "'%s' has no file '%s' (404)", name->id, file);
    if (code == 429)
        return bal_fail(BAL_EIO, "%s asks to wait, there were too many requests (429)%s; try later", s->host,
                        token ? "" : "; with a token in HF_TOKEN more are allowed");
    return status;
}

static bal_status take(void *context, const void *data, size_t n)
{
    return bal_buf_append(context, data, n);
}

static bal_status again(void *context)
{
    bal_buf_clear(context);
    return BAL_OK;
}

enum { ERROR_CODE, LINK, N_NAMES };
static const char *const k_names[] = {"X-Error-Code", "Link", NULL};

static bal_status get(hub_server *s, const hub_name *name, bal_hub_kind kind, const char *url, bal_buf *body,
                      char (*values)[BAL_HTTP_VALUE_BYTES])
{
    bal_http_download d = {
        .url = url, .take = take, .restart = again, .context = body, .names = k_names, .values = values, .soon = true};
    bal_buf_clear(body);
    body->limit = MAX_ANSWER;
    bal_status status = bal_http_download_run(s->http, &d);
    if (status == BAL_ELIMIT)
        return bal_fail(BAL_ELIMIT, "'%s': the answer of %s is longer than %d bytes", name->id, s->host, MAX_ANSWER);
    if (status == BAL_OK || status == BAL_EINTERRUPT || status == BAL_ENOMEM)
        return status;
    return hub_server_refusal(s, name, kind, NULL, d.code, values[ERROR_CODE], status);
}

/* The address of the next page in <...>; rel="next": of this server only.  False: there is none. */
static bool next_page(const hub_server *s, const char *link, bal_buf *url)
{
    const char *from = strchr(link, '<'), *to = from != NULL ? strchr(from, '>') : NULL;
    if (to == NULL || strstr(to, "rel=\"next\"") == NULL)
        return false;
    size_t n = (size_t)(to - from - 1), own = strlen(s->endpoint);
    bool same = n > own && strncmp(from + 1, s->endpoint, own) == 0 && from[1 + own] == '/';
    bal_buf_clear(url);
    return same && bal_buf_append(url, from + 1, n) == BAL_OK;
}

/* Asked when the first answer left sizes or hashes out. */
static bal_status list_tree(hub_server *s, const hub_name *name, bal_hub_kind kind, hub_list *l)
{
    char values[N_NAMES][BAL_HTTP_VALUE_BYTES] = {{0}};
    bal_buf url = {0}, body = {0};
    hub_list tree = {0};
    bal_status status;
    bool more = true;
    BAL_TRY(hub_server_url(s, name, kind, true, "tree", l->commit, NULL, &url));
    BAL_TRY(bal_buf_text(&url, "?recursive=true"));
    for (int page = 0; more; page++) {
        if (page == MAX_PAGES)
            BAL_TRY(bal_fail(BAL_ELIMIT, "'%s': more than %d pages of files", name->id, MAX_PAGES));
        BAL_TRY(get(s, name, kind, bal_buf_cstr(&url), &body, values));
        BAL_TRY(hub_parse_tree(&tree, bal_buf_cstr(&body), body.len, s->host));
        more = next_page(s, values[LINK], &url);
    }
    (void)snprintf(tree.commit, sizeof tree.commit, "%s", l->commit);
    tree.whole = true;
    hub_list_sort(&tree);
    hub_list_dispose(l);
    *l = tree;
    tree = (hub_list){0};
out:
    hub_list_dispose(&tree);
    bal_buf_dispose(&url);
    bal_buf_dispose(&body);
    return status;
}

bal_status hub_server_list(hub_server *s, const hub_name *name, bal_hub_kind kind, const char *revision, hub_list *l)
{
    char values[N_NAMES][BAL_HTTP_VALUE_BYTES] = {{0}};
    bal_buf url = {0}, body = {0};
    bool whole = true;
    bal_status status;
    BAL_TRY(hub_server_url(s, name, kind, true, "revision", revision, NULL, &url));
    BAL_TRY(bal_buf_text(&url, "?blobs=true"));
    BAL_TRY(get(s, name, kind, bal_buf_cstr(&url), &body, values));
    BAL_TRY(hub_parse_info(l, bal_buf_cstr(&body), body.len, s->host));
    for (size_t i = 0; i < l->n; i++)
        whole = whole && l->files[i].hash[0] != '\0';
    if (!whole || l->n == 0)
        BAL_TRY(list_tree(s, name, kind, l));
out:
    bal_buf_dispose(&url);
    bal_buf_dispose(&body);
    return status;
}
