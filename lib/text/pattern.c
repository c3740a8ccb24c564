/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/pattern.h"

#include "lib/base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

struct bal_pattern {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *limits;
};

enum { MATCH_LIMIT = 2000000 }; /* steps of one match: a pattern of a user may be of the exploding kind */

/* Appends the escape at p; Python's white space has the four separators of ASCII too. */
static bal_status put_escape(const char *p, bool in_class, bal_buf *out)
{
    if (p[1] == 'Z' && !in_class)
        return bal_buf_text(out, "\\z");
    if (p[1] == 's')
        return bal_buf_text(out, in_class ? "\\s\\x1c-\\x1f" : "[\\s\\x1c-\\x1f]");
    if (p[1] == 'S' && !in_class)
        return bal_buf_text(out, "[^\\s\\x1c-\\x1f]");
    return bal_buf_append(out, p, 2);
}

/* What Python writes otherwise: \Z (the very end) is \z here, {,5} is {0,5}, and \s holds more. */
static bal_status translate(const char *pattern, bal_buf *out)
{
    bool in_class = false;
    bal_status status = bal_buf_text(out, "");
    for (const char *p = pattern; *p != '\0'; p++) {
        if (p[0] == '\\' && p[1] != '\0') {
            BAL_TRY(put_escape(p, in_class, out));
            p++;
            continue;
        }
        if (in_class)
            in_class = *p != ']';
        else if (*p == '[') { /* a bracket that closes at once is a member */
            size_t head = p[1] == '^' ? 2 : 1;
            head += p[head] == ']';
            BAL_TRY(bal_buf_append(out, p, head));
            p += head - 1;
            in_class = true;
            continue;
        }
        size_t digits = !in_class && p[0] == '{' && p[1] == ',' ? strspn(p + 2, "0123456789") : 0;
        BAL_TRY(bal_buf_append(out, p, 1));
        if (digits > 0 && p[2 + digits] == '}')
            BAL_TRY(bal_buf_text(out, "0"));
    }
out:
    return status;
}

bal_status bal_pattern_compile(bal_pattern **out, const char *pattern, const char *where)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    PCRE2_UCHAR message[128] = "";
    bal_buf text = {0};
    *out = NULL;
    if (translate(pattern, &text) != BAL_OK) {
        bal_buf_dispose(&text);
        return BAL_ENOMEM;
    }
    bal_pattern *p = bal_alloc(1, sizeof *p);
    if (p == NULL) {
        bal_buf_dispose(&text);
        return BAL_ENOMEM;
    }
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    if (c != NULL)
        (void)pcre2_set_newline(c, PCRE2_NEWLINE_LF);
    p->code = pcre2_compile((PCRE2_SPTR)bal_buf_cstr(&text), text.len, PCRE2_UTF | PCRE2_UCP | PCRE2_ALT_CIRCUMFLEX,
                            &code, &at, c);
    pcre2_compile_context_free(c);
    bal_buf_dispose(&text);
    if (p->code == NULL) {
        (void)pcre2_get_error_message(code, message, sizeof message);
        bal_free(p);
        return bal_fail(BAL_EINVAL, "%s: the pattern '%.80s' is wrong at character %zu: %s", where, pattern, (size_t)at,
                        (const char *)message);
    }
    p->data = pcre2_match_data_create_from_pattern(p->code, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (p->data == NULL || p->limits == NULL) {
        bal_pattern_free(p);
        return bal_fail(BAL_ENOMEM, "no memory for a pattern");
    }
    (void)pcre2_set_match_limit(p->limits, MATCH_LIMIT);
    *out = p;
    return BAL_OK;
}

void bal_pattern_free(bal_pattern *p)
{
    if (p == NULL)
        return;
    pcre2_match_context_free(p->limits);
    pcre2_match_data_free(p->data);
    pcre2_code_free(p->code);
    bal_free(p);
}

/* The next match from byte `from` on; options: PCRE2_NOTEMPTY_ATSTART behind an empty match, which Python lets no other
 * empty one follow in its place. */
static bool find(const bal_pattern *p, const char *text, size_t n, size_t from, uint32_t options, bal_match *m)
{
    if (from > n)
        return false;
    int groups = pcre2_match(p->code, (PCRE2_SPTR)text, n, from, options, p->data, p->limits);
    if (groups <= 0)
        return false;
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->data);
    uint32_t all = pcre2_get_ovector_count(p->data);
    *m = (bal_match){at[0], at[1], at[0], at[1], all > 2};
    if (all > 1) {
        m->group_start = m->group_end = at[0]; /* a group that took no part is empty */
        for (int g = groups - 1; g >= 1; g--)
            if (at[2 * g] != PCRE2_UNSET && at[2 * g + 1] > at[2 * g]) {
                m->group_start = at[2 * g];
                m->group_end = at[2 * g + 1];
                m->all_empty = false;
            }
    }
    return true;
}

bool bal_pattern_next(const bal_pattern *p, const char *text, size_t n, size_t from, bal_match *m)
{
    return find(p, text, n, from, 0, m);
}

static bool find_after(const bal_pattern *p, const char *text, size_t n, const bal_match *before, bal_match *m)
{
    return find(p, text, n, before->end, before->end == before->start ? PCRE2_NOTEMPTY_ATSTART : 0, m);
}

bool bal_pattern_select(const bal_pattern *p, const char *text, size_t n, int select, bal_match *m)
{
    bal_match next;
    bool found = bal_pattern_next(p, text, n, 0, m);
    if (!found || select == 0)
        return found;
    while (find_after(p, text, n, m, &next))
        *m = next;
    return true;
}

static bal_status put_replacement(const bal_pattern *p, const char *text, const char *replacement, bal_buf *out)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->data);
    bal_status status = BAL_OK;
    for (const char *r = replacement; *r != '\0'; r++) {
        if (*r == '$' && r[1] >= '1' && r[1] <= '9') {
            size_t g = (size_t)(r[1] - '0');
            if (g < pcre2_get_ovector_count(p->data) && at[2 * g] != PCRE2_UNSET)
                BAL_TRY(bal_buf_append(out, text + at[2 * g], at[2 * g + 1] - at[2 * g]));
            r++;
        } else {
            BAL_TRY(bal_buf_append(out, r, 1));
            if (*r == '$' && r[1] == '$')
                r++;
        }
    }
out:
    return status;
}

bal_status bal_pattern_replace(const bal_pattern *p, const char *text, size_t n, const char *replacement, bal_buf *out)
{
    size_t done = 0;
    bal_match m;
    bal_status status;
    for (bool found = bal_pattern_next(p, text, n, 0, &m); found; found = find_after(p, text, n, &m, &m)) {
        BAL_TRY(bal_buf_append(out, text + done, m.start - done));
        BAL_TRY(put_replacement(p, text, replacement, out));
        done = m.end;
    }
    status = bal_buf_append(out, text + done, n - done);
out:
    return status;
}
