/* Python's white space and small letters; its regular expressions over PCRE2.  Expected values are CPython 3.11's.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/text/pattern.h"
#include "lib/text/spaces.h"

#include <string.h>

static const struct {
    const char *text, *stripped, *lower;
} k_texts[] = {
#include "tests/unit/data/spaces.inc"
};

TEST(strip_and_lower)
{
    for (size_t i = 0; i < sizeof k_texts / sizeof k_texts[0]; i++) {
        const char *s = k_texts[i].text;
        size_t n = strlen(s);
        bal_buf out = {0};
        CHECK_OK(bal_lower(s, n, &out));
        CHECK_TEXT(bal_buf_cstr(&out), k_texts[i].lower);
        bal_buf_clear(&out);
        bal_strip(&s, &n);
        CHECK_OK(bal_buf_append(&out, s, n));
        CHECK_TEXT(bal_buf_cstr(&out), k_texts[i].stripped);
        bal_buf_dispose(&out);
    }
}

/* What lm-eval's regex filter extracts with group_select 0 and -1, and re.sub(pattern, "-", text). */
static const struct {
    const char *pattern, *text, *first, *last, *replaced;
} k_patterns[] = {
#include "tests/unit/data/patterns.inc"
};

static void check_selected(const bal_pattern *p, size_t i, int select, const char *want)
{
    const char *text = k_patterns[i].text, *at = "[invalid]";
    size_t n = strlen(at);
    bal_match m;
    bal_buf out = {0};
    if (bal_pattern_select(p, text, strlen(text), select, &m) && !m.all_empty) {
        at = text + m.group_start;
        n = m.group_end - m.group_start;
        bal_strip(&at, &n);
    }
    CHECK_OK(bal_buf_append(&out, at, n));
    CHECK_MSG(strcmp(bal_buf_cstr(&out), want) == 0, "'%s' on '%s', %d: '%s', not '%s'", k_patterns[i].pattern, text,
              select, bal_buf_cstr(&out), want);
    bal_buf_dispose(&out);
}

TEST(patterns_are_pythons)
{
    for (size_t i = 0; i < sizeof k_patterns / sizeof k_patterns[0]; i++) {
        bal_pattern *p = NULL;
        bal_buf out = {0};
        if (!CHECK_OK(bal_pattern_compile(&p, k_patterns[i].pattern, "test")))
            continue;
        check_selected(p, i, 0, k_patterns[i].first);
        check_selected(p, i, -1, k_patterns[i].last);
        CHECK_OK(bal_pattern_replace(p, k_patterns[i].text, strlen(k_patterns[i].text), "-", &out));
        CHECK_MSG(strcmp(bal_buf_cstr(&out), k_patterns[i].replaced) == 0, "'%s' on '%s': '%s', not '%s'",
                  k_patterns[i].pattern, k_patterns[i].text, bal_buf_cstr(&out), k_patterns[i].replaced);
        bal_buf_dispose(&out);
        bal_pattern_free(p);
    }
}
