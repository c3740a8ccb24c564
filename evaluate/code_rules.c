/* What the harnesses keep of an answer.  Python's str.splitlines() takes more characters for line ends than C does, so it
 * is written out here.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/code.h"

#include "lib/base/mem.h"
#include "lib/text/spaces.h"

#include <string.h>
#include <utf8proc.h>

/* str.splitlines(): length of the line end at s[0..n), 0 if it is none. */
static size_t line_end_at(const char *s, size_t n)
{
    uint32_t c = 0;
    if (n >= 2 && s[0] == '\r' && s[1] == '\n')
        return 2;
    size_t k = bal_utf8_decode((const unsigned char *)s, n, &c);
    bool end = (c >= 10 && c <= 13) || (c >= 28 && c <= 30) || c == 0x85 || c == 0x2028 || c == 0x2029;
    return k > 0 && end ? k : 0;
}

/* Position of the first `what` in s[from..n), n if there is none. */
static size_t find(const char *s, size_t n, size_t from, const char *what)
{
    const char *at = from <= n ? memmem(s + from, n - from, what, strlen(what)) : NULL;
    return at == NULL ? n : (size_t)(at - s);
}

bal_status code_cut(const char *text, size_t n, const char *const *stops, bal_buf *out)
{
    for (size_t i = 0; stops != NULL && stops[i] != NULL; i++)
        n = find(text, n, 0, stops[i]);
    return bal_buf_append(out, text, n);
}

bal_status code_rule_before_fence(const char *text, size_t n, bal_buf *out)
{
    return bal_buf_append(out, text, find(text, n, 0, "```"));
}

bal_status code_rule_block(const char *text, size_t n, bal_buf *out)
{
    size_t at = 0, k;
    uint32_t c = 0;
    while (at < n && (k = bal_utf8_decode((const unsigned char *)text + at, n - at, &c)) > 0) { /* \w+ */
        utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
        bool word = c == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
                    (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
        if (!word)
            break;
        at += k;
    }
    if (at < n && text[at] == '\n')
        at++;
    size_t end = find(text, n, at, "```");
    if (end == n)
        return BAL_OK;
    if (end > at && text[end - 1] == '\n')
        end--;
    return bal_buf_append(out, text + at, end - at);
}

/* Cuts s before what, if it is there, and strips what is left. */
static void cut_and_strip(const char **s, size_t *n, const char *what)
{
    size_t at = find(*s, *n, 0, what);
    if (at == *n)
        return;
    *n = at;
    bal_strip_left(s, n);
    bal_strip_right(*s, n);
}

bal_status code_rule_pissa(const char *text, size_t n, bal_buf *out)
{
    bal_buf plain = {0}, body = {0};
    bal_status status;
    BAL_TRY(bal_buf_put_replaced(&plain, text, n, "\r", ""));
    const char *s = bal_buf_cstr(&plain);
    size_t left = plain.len, fence = find(s, left, 0, "```python");
    if (fence < left) {
        s += fence;
        left -= fence;
        bal_strip_right(s, &left);
        BAL_TRY(bal_buf_put_replaced(&body, s, left, "```python", ""));
        s = bal_buf_cstr(&body);
        left = body.len;
        cut_and_strip(&s, &left, "\n```");
    }
    cut_and_strip(&s, &left, "if __name__ == \"__main__\":");
    cut_and_strip(&s, &left, "# Example usage");
    cut_and_strip(&s, &left, "assert");
    status = bal_buf_append(out, s, left);
out:
    bal_buf_dispose(&plain);
    bal_buf_dispose(&body);
    return status;
}

/* Appends s without triple-quoted texts (either quote; the shortest from each opening). */
static bal_status without_docstrings(const char *s, size_t n, bal_buf *out)
{
    size_t at = 0;
    bal_status status = BAL_OK;
    while (at < n) {
        size_t open = n, close = n;
        for (size_t from = at; from < n;) { /* the first opening that is closed */
            size_t a = find(s, n, from, "\"\"\""), b = find(s, n, from, "'''");
            open = a < b ? a : b;
            if (open == n)
                break;
            close = find(s, n, open + 3, a < b ? "\"\"\"" : "'''");
            if (close < n)
                break;
            from = open + 1;
            open = n;
        }
        BAL_TRY(bal_buf_append(out, s + at, open - at));
        at = open == n ? n : close + 3;
    }
out:
    return status;
}

typedef struct line {
    size_t start, n, width;
} line;

static size_t split_lines(const char *s, size_t n, line *lines)
{
    size_t count = 0, at = 0;
    while (at < n) {
        size_t end = at, k = 0;
        while (end < n && (k = line_end_at(s + end, n - end)) == 0)
            end++;
        size_t length = end - at, width = 0;
        bal_strip_right(s + at, &length);
        while (width < length && s[at + width] == ' ')
            width++;
        if (length > 0)
            lines[count++] = (line){at, length, width};
        at = end + k;
    }
    return count;
}

/* Level of each width: 0 up to `base`, then one more for each width that occurs. */
static size_t level_of(const line *lines, size_t n, size_t width, size_t base)
{
    size_t level = 0;
    for (size_t i = 0; i < n; i++) {
        if (lines[i].width <= base || lines[i].width > width)
            continue;
        bool first = true;
        for (size_t j = 0; j < i && first; j++)
            first = lines[j].width != lines[i].width;
        level += first;
    }
    return level;
}

bal_status code_rule_balora(const char *text, size_t n, bal_buf *out)
{
    enum { MOST_LINES = 20000 }; /* the levels take a time that grows with their square */
    bal_buf plain = {0}, spaces = {0}, bare = {0};
    line *lines = NULL;
    size_t count = 0, base = 0;
    bal_status status;
    BAL_TRY(bal_buf_put_replaced(&plain, text, n, "```", ""));
    BAL_TRY(bal_buf_put_replaced(&spaces, bal_buf_cstr(&plain), plain.len, "\t", "    "));
    BAL_TRY(without_docstrings(bal_buf_cstr(&spaces), spaces.len, &bare));
    const char *s = bal_buf_cstr(&bare);
    lines = bal_alloc(bare.len + 1, sizeof *lines);
    if (lines == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    count = split_lines(s, bare.len, lines);
    if (count > MOST_LINES)
        count = MOST_LINES;
    for (size_t i = 0; i < count; i++)
        if (find(s + lines[i].start, lines[i].n, 0, "def") < lines[i].n) {
            base = lines[i].width;
            break;
        }
    for (size_t i = 0; i < count; i++) {
        size_t level = level_of(lines, count, lines[i].width, base), left = lines[i].n;
        const char *body = s + lines[i].start;
        bal_strip_left(&body, &left);
        for (size_t k = 0; k < level; k++)
            BAL_TRY(bal_buf_text(out, "    "));
        BAL_TRY(bal_buf_append(out, body, left));
        if (i + 1 < count)
            BAL_TRY(bal_buf_text(out, "\n"));
    }
out:
    bal_free(lines);
    bal_buf_dispose(&plain);
    bal_buf_dispose(&spaces);
    bal_buf_dispose(&bare);
    return status;
}
