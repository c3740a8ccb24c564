/* Templates and the named transforms of their fields.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/task.h"

#include "lib/text/math_text.h"
#include "lib/text/pattern.h"
#include "lib/text/spaces.h"

#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

/* A step of a transform: a literal text, or a pattern, replaced everywhere. */
typedef struct change {
    const char *from, *to;
    bool pattern;
} change;

/* lm-eval's spacing of PAWS-X sentences. */
static const change k_detokenize[] = {{" n't", "n't", false}, {" )", ")", false},   {"( ", "(", false},
                                      {"\" ", "\"", false},   {" \"", "\"", false}, {" (['.,])", "$1", true}};
/* HellaSwag: marks of WikiHow. */
static const change k_hellaswag[] = {{" [title]", ". ", false}, {"\\[.*?\\]", "", true}, {"  ", " ", false}};
/* WikiText's tokens back to text; the order is that of lm-eval. */
static const change k_wikitext[] = {{"s '", "s'", false},
                                    {"/' [0-9]/", "/'[0-9]/", true},
                                    {" @-@ ", "-", false},
                                    {" @,@ ", ",", false},
                                    {" @.@ ", ".", false},
                                    {" : ", ": ", false},
                                    {" ; ", "; ", false},
                                    {" . ", ". ", false},
                                    {" ! ", "! ", false},
                                    {" ? ", "? ", false},
                                    {" , ", ", ", false},
                                    {"\\(\\s*([^\\)]*?)\\s*\\)", "($1)", true},
                                    {"\\[\\s*([^\\]]*?)\\s*\\]", "[$1]", true},
                                    {"{\\s*([^}]*?)\\s*}", "{$1}", true},
                                    {"\"\\s*([^\"]*?)\\s*\"", "\"$1\"", true},
                                    {"'\\s*([^']*?)\\s*'", "'$1'", true},
                                    {"= = = =", "====", false},
                                    {"= = =", "===", false},
                                    {"= =", "==", false},
                                    {" \xc2\xb0 ", "\xc2\xb0", false},
                                    {" \n", "\n", false},
                                    {"\n ", "\n", false},
                                    {" N ", " 1 ", false},
                                    {" 's", "'s", false}};
static const change k_spaces[] = {{"_", " ", false}};
static const change k_tabs[] = {{"    ", "\t", false}};

#define COUNT(LIST) (sizeof(LIST) / sizeof(LIST)[0])

static bal_status apply(const change *list, size_t n_list, const char *text, size_t n, bal_buf *out)
{
    bal_buf a = {0}, b = {0};
    bal_pattern *pattern = NULL;
    bal_status status;
    BAL_TRY(bal_buf_append(&a, text, n));
    for (size_t i = 0; i < n_list; i++) {
        bal_buf_clear(&b);
        if (list[i].pattern) {
            BAL_TRY(bal_pattern_compile(&pattern, list[i].from, "transform"));
            BAL_TRY(bal_pattern_replace(pattern, bal_buf_cstr(&a), a.len, list[i].to, &b));
            bal_pattern_free(pattern);
            pattern = NULL;
        } else {
            BAL_TRY(bal_buf_put_replaced(&b, bal_buf_cstr(&a), a.len, list[i].from, list[i].to));
        }
        bal_buf swap = a;
        a = b;
        b = swap;
    }
    status = bal_buf_append(out, bal_buf_cstr(&a), a.len);
out:
    bal_pattern_free(pattern);
    bal_buf_dispose(&a);
    bal_buf_dispose(&b);
    return status;
}

static bal_status do_strip(const char *text, size_t n, bal_buf *out)
{
    bal_strip(&text, &n);
    return bal_buf_append(out, text, n);
}

/* Stripped, with a full stop at its end. */
static bal_status do_sentence(const char *text, size_t n, bal_buf *out)
{
    bal_strip(&text, &n);
    bal_status status = bal_buf_append(out, text, n);
    return status == BAL_OK && (n == 0 || text[n - 1] != '.') ? bal_buf_text(out, ".") : status;
}

/* Python's str.capitalize(), but for the few letters whose capital is two. */
static bal_status do_capitalize(const char *text, size_t n, bal_buf *out)
{
    uint32_t c = 0;
    unsigned char first[4];
    bal_buf small = {0};
    bal_status status;
    size_t k = bal_utf8_decode((const unsigned char *)text, n, &c), head;
    if (k == 0)
        return bal_lower(text, n, out);
    BAL_TRY(bal_lower(text, n, &small)); /* the whole: a sigma knows what stands before it */
    head = bal_utf8_decode((const unsigned char *)small.data, small.len, &(uint32_t){0});
    BAL_TRY(bal_buf_append(out, first, bal_utf8_encode((uint32_t)utf8proc_totitle((utf8proc_int32_t)c), first)));
    status = bal_buf_append(out, small.data + head, small.len - head);
out:
    bal_buf_dispose(&small);
    return status;
}

static bal_status do_lower_first(const char *text, size_t n, bal_buf *out)
{
    size_t at = out->len;
    bal_status status = bal_buf_append(out, text, n);
    if (status == BAL_OK && n > 0 && text[0] >= 'A' && text[0] <= 'Z')
        out->data[at] = (char)(text[0] - 'A' + 'a');
    return status;
}

static bal_status do_cut_end(const char *text, size_t n, bal_buf *out)
{
    if (n > 0 && (text[n - 1] == '.' || text[n - 1] == ',' || text[n - 1] == ';'))
        n--;
    return bal_buf_append(out, text, n);
}

static bal_status do_detokenize(const char *text, size_t n, bal_buf *out)
{
    return apply(k_detokenize, COUNT(k_detokenize), text, n, out);
}

static bal_status do_hellaswag(const char *text, size_t n, bal_buf *out)
{
    bal_strip(&text, &n);
    return apply(k_hellaswag, COUNT(k_hellaswag), text, n, out);
}

static bal_status do_wikitext(const char *text, size_t n, bal_buf *out)
{
    return apply(k_wikitext, COUNT(k_wikitext), text, n, out);
}

static bal_status do_spaces(const char *text, size_t n, bal_buf *out)
{
    return apply(k_spaces, COUNT(k_spaces), text, n, out);
}

static bal_status do_tabs(const char *text, size_t n, bal_buf *out)
{
    return apply(k_tabs, COUNT(k_tabs), text, n, out);
}

/* What is in the last box of a solution; nothing without a box. */
static bal_status do_boxed(const char *text, size_t n, bal_buf *out)
{
    bal_buf box = {0};
    bool found = false;
    bal_status status;
    (void)n;
    BAL_TRY(bal_math_last_boxed(text, true, &box, &found));
    if (found)
        status = bal_math_remove_boxed(bal_buf_cstr(&box), true, out, &found);
out:
    bal_buf_dispose(&box);
    return status;
}

static const struct {
    const char *name;
    bal_status (*run)(const char *text, size_t n, bal_buf *out);
} k_transforms[] = {{"strip", do_strip},
                    {"sentence", do_sentence},
                    {"capitalize", do_capitalize},
                    {"lower_first", do_lower_first},
                    {"cut_end", do_cut_end},
                    {"detokenize", do_detokenize},
                    {"hellaswag", do_hellaswag},
                    {"wikitext", do_wikitext},
                    {"spaces", do_spaces},
                    {"tabs", do_tabs},
                    {"boxed", do_boxed}};

bool task_transform_known(const char *name)
{
    for (size_t i = 0; i < COUNT(k_transforms); i++)
        if (strcmp(k_transforms[i].name, name) == 0)
            return true;
    return false;
}

bal_status task_transform(const char *name, const char *text, size_t n, bal_buf *out)
{
    const char *names[COUNT(k_transforms)];
    for (size_t i = 0; i < COUNT(k_transforms); i++) {
        names[i] = k_transforms[i].name;
        if (strcmp(names[i], name) == 0)
            return k_transforms[i].run(text, n, out);
    }
    const char *near = bal_nearest(name, names, COUNT(k_transforms));
    return bal_fail(BAL_EINVAL, "transform '%.40s' is not known%s%s%s", name, near == NULL ? "" : "; did you mean '",
                    near == NULL ? "" : near, near == NULL ? "" : "'?");
}

/* A value as text: numbers without a fraction as whole numbers. */
static bal_status put_value(const cJSON *value, bal_buf *out)
{
    if (cJSON_IsString(value))
        return bal_buf_text(out, value->valuestring);
    if (cJSON_IsNumber(value))
        return bal_json_put_f64(out, value->valuedouble);
    return bal_json_put(out, value, false);
}

/* One "field|transform|transform". */
static bal_status put_field(char *words, const cJSON *row, const char *where, bal_buf *out, bool *found)
{
    bal_buf a = {0}, b = {0};
    char *bar = strchr(words, '|');
    if (bar != NULL)
        *bar++ = '\0';
    const cJSON *value = task_member(row, words);
    bal_status status = BAL_OK;
    if (value == NULL || cJSON_IsNull(value)) {
        if (found != NULL)
            *found = false;
        else
            status = bal_fail(BAL_EFORMAT, "%s: an item has no '%s'", where, words);
        goto out;
    }
    BAL_TRY(put_value(value, &a));
    while (bar != NULL) {
        char *name = bar;
        bar = strchr(name, '|');
        if (bar != NULL)
            *bar++ = '\0';
        bal_buf_clear(&b);
        status = task_transform(name, bal_buf_cstr(&a), a.len, &b);
        if (status != BAL_OK) {
            status = bal_fail_note(status, "%s", where);
            goto out;
        }
        bal_buf swap = a;
        a = b;
        b = swap;
    }
    status = bal_buf_append(out, bal_buf_cstr(&a), a.len);
out:
    bal_buf_dispose(&a);
    bal_buf_dispose(&b);
    return status;
}

bal_status task_render(const char *template, const cJSON *row, const char *where, bal_buf *out, bool *found)
{
    char words[128];
    bal_status status = BAL_OK;
    for (const char *p = template; *p != '\0';) {
        size_t plain = strcspn(p, "{}");
        BAL_TRY(bal_buf_append(out, p, plain));
        p += plain;
        if (*p == '\0')
            break;
        if (p[0] == p[1] || *p == '}') { /* {{ }} and a lone } stand for themselves */
            BAL_TRY(bal_buf_append(out, p, 1));
            p += p[0] == p[1] ? 2 : 1;
            continue;
        }
        const char *close = strchr(p, '}');
        if (close == NULL || (size_t)(close - p) > sizeof words) {
            status =
                bal_fail(BAL_EFORMAT, "%s: a '{' of a template is not closed (write '{{' for the character)", where);
            goto out;
        }
        (void)snprintf(words, sizeof words, "%.*s", (int)(close - p - 1), p + 1);
        BAL_TRY(put_field(words, row, where, out, found));
        p = close + 1;
    }
out:
    return status;
}
