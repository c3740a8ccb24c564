/* The texts that tokens add one by one, and what of a growing text is settled.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/data/embedded.h"
#include "lib/text/spelling.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

TEST(settled)
{
    static const struct {
        const char *text, *stops[2];
        size_t end;
        bool stopped;
    } cases[] = {{"abc", {NULL}, 3, false},   {"ab\xef\xbf\xbd", {NULL}, 2, false},
                 {"abc", {"bc"}, 1, true},    {"abc", {"c", "ab"}, 0, true},
                 {"abc", {"cd"}, 2, false},   {"abab", {"abac", "bx"}, 2, false},
                 {"abc", {"xyz"}, 3, false},  {"", {"a"}, 0, false},
                 {"aaa", {"aaaa"}, 0, false}, {"q\xef\xbf\xbd", {"q!"}, 0, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = cases[i].stops[0] == NULL ? 0 : cases[i].stops[1] == NULL ? 1 : 2;
        bool stopped = !cases[i].stopped;
        size_t end = bal_text_settled(cases[i].text, strlen(cases[i].text), cases[i].stops, n, &stopped);
        CHECK_MSG(end == cases[i].end && stopped == cases[i].stopped, "'%s': %zu", cases[i].text, end);
    }
}

/* From any token on, the texts are those of the rest; characters are never cut. */
TEST(tokens_spell_the_text)
{
    static const char *const texts[] = {"Ann has 3 apples. How many?",
                                        "caf\xc3\xa9 \xe2\x82\xac 5 \xf0\x9f\x98\x80\xf0\x9f\x98\x80 !",
                                        "\xf0\x9f\x98\x80", "\n\n  x \xef\xbf\xbd y"};
    char path[300];
    bal_tokenizer *t = NULL;
    (void)snprintf(path, sizeof path, "%s/model", test_folder());
    if (!CHECK_OK(bal_embedded_write(path)) || !CHECK_OK(bal_tokenizer_load(&t, path)))
        return;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        bal_ids ids = {0};
        bal_buf all = {0}, front = {0}, piece = {0}, tried = {0};
        bal_spelling s;
        CHECK_OK(bal_tokenizer_encode(t, texts[i], strlen(texts[i]), false, &ids));
        for (size_t first = 0; first < ids.n; first++) {
            size_t back = 0;
            bal_buf_clear(&all);
            bal_buf_clear(&front);
            CHECK_OK(bal_tokenizer_decode(t, ids.data, first, false, &front));
            while (front.len >= 3 && memcmp(front.data + front.len - 3, "\xef\xbf\xbd", 3) == 0) {
                front.len -= 3; /* `first` lies inside a character */
                back++;
            }
            bal_spelling_start(&s, t, ids.data, ids.n, first);
            for (size_t k = first; k < ids.n; k++) {
                CHECK_OK(bal_spelling_try(&s, ids.data[k], &tried));
                CHECK_OK(bal_spelling_next(&s, &piece));
                CHECK(piece.len <= tried.len && memcmp(bal_buf_cstr(&piece), bal_buf_cstr(&tried), piece.len) == 0);
                CHECK(k + 1 == ids.n || piece.len < 3 || memcmp(piece.data + piece.len - 3, "\xef\xbf\xbd", 3) != 0);
                CHECK_OK(bal_buf_append(&all, bal_buf_cstr(&piece), piece.len));
            }
            if (back == 0)
                CHECK_MSG(strcmp(bal_buf_cstr(&all), texts[i] + front.len) == 0, "'%s' from token %zu: '%s'", texts[i],
                          first, bal_buf_cstr(&all));
            bal_spelling_dispose(&s);
        }
        CHECK(ids.n > 0);
        bal_ids_dispose(&ids);
        bal_buf_dispose(&all);
        bal_buf_dispose(&front);
        bal_buf_dispose(&piece);
        bal_buf_dispose(&tried);
    }
    bal_tokenizer_free(t);
}
