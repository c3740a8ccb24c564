/* Chat templates: the texts that transformers makes of data/templates.jsonl (tests/peers/chat_templates.py --write), and
 * hostile templates.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/text/jinja.h"

#include <stdio.h>
#include <string.h>

static const char k_file[] = "tests/unit/data/templates.jsonl";

static size_t g_cases, g_refused;
static const char *g_spoil = ""; /* appended to each text: the mutation */

static void check_line(const cJSON *line, const cJSON *context)
{
    const char *template = cJSON_GetStringValue(bal_json_member(line, "template"));
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(line, "text"); /* null: refused */
    bal_buf out = {0};
    if (!CHECK(template != NULL && text != NULL))
        return;
    bal_status status = bal_jinja_render(template, strlen(template), context, 1, &out, NULL);
    if (cJSON_IsNull(text)) { /* transformers refuses it, too */
        CHECK_MSG(status != BAL_OK, "%s was rendered", template);
        CHECK(status == BAL_OK || strstr(bal_error_message(), "line") != NULL);
        g_refused++;
    } else if (CHECK_MSG(status == BAL_OK, "%s: %s", template, bal_error_message())) {
        (void)bal_buf_text(&out, g_spoil);
        CHECK_TEXT(bal_buf_cstr(&out), cJSON_GetStringValue(text));
        g_cases++;
    }
    bal_buf_dispose(&out);
}

static void check_file(void)
{
    bal_lines *lines = NULL;
    cJSON *line = NULL, *context = NULL;
    g_cases = g_refused = 0;
    if (!CHECK_OK(bal_lines_open(&lines, k_file)) || !CHECK_OK(bal_jsonl_next(lines, &context)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        check_line(line, context);
        cJSON_Delete(line);
    }
    cJSON_Delete(context);
    bal_lines_close(lines);
}

TEST(texts_of_transformers)
{
    check_file();
    CHECK(g_cases >= 60 && g_refused >= 5);
    g_spoil = " ";
    CHECK(test_count_failures(check_file) >= 60);
    g_spoil = "";
}

TEST(hostile_templates_end)
{
    static const struct {
        const char *text;
        bal_status status;
    } cases[] = {
        {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", BAL_ELIMIT},
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", BAL_ELIMIT},
        {"{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
         BAL_ELIMIT},
        {"{{ raise_exception('no system turn here') }}", BAL_EFORMAT},
        {"line one\n{% if %}", BAL_EFORMAT},
        {"{% for x in y %}", BAL_EFORMAT},
        {"{{ 'x' | nosuchfilter }}", BAL_EUNSUPPORTED},
        {"{% import 'os' as os %}", BAL_EUNSUPPORTED},
    };
    cJSON *context = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bal_buf out = {0};
        bal_status status = bal_jinja_render(cases[i].text, strlen(cases[i].text), context, 1, &out, NULL);
        CHECK_MSG(status == cases[i].status, "%s: %d, %s", cases[i].text, (int)status, bal_error_message());
        if (i == 3)
            CHECK(strstr(bal_error_message(), "no system turn here") != NULL);
        if (i == 4)
            CHECK(strstr(bal_error_message(), "line 2") != NULL);
        bal_buf_dispose(&out);
    }
    char deep[20001];
    memset(deep, '(', 10000);
    memset(deep + 10000, ')', 10000);
    memcpy(deep, "{{", 2);
    memcpy(deep + 19998, "}}", 3);
    bal_buf out = {0};
    CHECK(bal_jinja_render(deep, 20000, context, 1, &out, NULL) != BAL_OK);
    bal_buf_dispose(&out);
    cJSON_Delete(context);
}

TEST(where_the_assistant_wrote)
{
    static const char text[] = "a{% generation %}bc{% endgeneration %}d{% generation %}e{% endgeneration %}";
    cJSON *context = cJSON_CreateObject();
    bal_buf out = {0};
    bal_stretches s = {0};
    CHECK_OK(bal_jinja_render(text, strlen(text), context, 1, &out, &s));
    CHECK_TEXT(bal_buf_cstr(&out), "abcde");
    CHECK(s.n == 2 && s.items[0].begin == 1 && s.items[0].end == 3 && s.items[1].begin == 4 && s.items[1].end == 5);
    bal_stretches_dispose(&s);
    bal_buf_dispose(&out);
    cJSON_Delete(context);
}

/* What Jinja renders and this interpreter does not: a sentence, never another text. */
TEST(what_is_not_supported_is_refused)
{
    static const char *const templates[] = {
        "{{ 'ab' | map('upper') }}", /* of Python's own words for a generator, a range ... */
        "{{ range(3) }}",
        "{{ {'a': 1}.items() }}",
        "{{ cycler('a', 'b').next() }}",
        "{{ lipsum is defined }}",
        "{{ 'a'.encode() }}",
        "{{ 1 .real }}",
        "{{ 'ff' | int(0, 16) }}",
        "{{ '%(a)s' % {'a': 1} }}",
        "{{ '{0.real}'.format(1) }}",
        "{{ ('%s' | safe) % '<' }}",
        "{{ ('a' | safe).replace('a', '<') }}",
        "{{ [1, 2] | slice(2) | list }}",
        "{{ strftime_now('%f') }}",
        "{{ {'a': 1}.keys() == {'a': 1}.keys() }}",
        "{% set g = 'ab' | map('upper') %}{% for c in g %}{% break %}{% endfor %}{{ g | list }}",
        "{% block a %}{% endblock %}",
        "{% for a in [1] recursive %}{% endfor %}",
    };
    cJSON *context = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        bal_buf out = {0};
        CHECK_MSG(bal_jinja_render(templates[i], strlen(templates[i]), context, 1, &out, NULL) == BAL_EUNSUPPORTED,
                  "%s: %s", templates[i], bal_buf_cstr(&out));
        bal_buf_dispose(&out);
    }
    cJSON_Delete(context);
}

/* A message of a megabyte is cut, taken apart and looked at within the bounds. */
TEST(long_texts)
{
    static const char template[] =
        "{{ t.split() | length }} {{ t.split('x ')[1:] | length }} {{ t[1:] | length }} {{ t[:-1] | length }} "
        "{% for i in range(20) %}{{ t[i:i + 2] }}{{ t | first }}{{ t[2:] is string }}{% endfor %}{{ t.strip() | length "
        "}}";
    enum { WORDS = 1 << 19 };
    char *text = bal_alloc(2 * WORDS + 1, 1);
    cJSON *context = cJSON_CreateObject();
    bal_buf out = {0};
    if (!CHECK(text != NULL))
        return;
    for (size_t i = 0; i < WORDS; i++)
        memcpy(text + 2 * i, "x ", 2);
    CHECK(cJSON_AddStringToObject(context, "t", text) != NULL);
    CHECK_OK(bal_jinja_render(template, strlen(template), context, 1, &out, NULL));
    CHECK(strncmp(bal_buf_cstr(&out), "524288 524288 1048575 1048575 x xTrue xxTrue", 44) == 0);
    bal_buf_dispose(&out);
    cJSON_Delete(context);
    bal_free(text);
}
