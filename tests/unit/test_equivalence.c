/* The outside program of --equivalence-command: answers, and all the ways in which it may fail.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/equivalence.h"
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

/* Asks about prediction "p"; returns 1 equal, 0 not, -1 no answer (why then in *why). */
static int ask(equivalence *e, const char *prediction, const char *output, bal_buf *why)
{
    bool equal = false, answered = false;
    bal_status status = equivalence_ask(e, prediction, "g", output, NULL, &equal, &answered, why);
    if (status != BAL_OK)
        return -2;
    CHECK(answered || !equal);
    return !answered ? -1 : equal ? 1 : 0;
}

TEST(one_program_answers_all)
{
    /* how often it was asked decides: a program that is started anew would begin at 1 again */
    static const char command[] = "n=0; while read -r line; do n=$((n+1)); case $line in "
                                  "*'\"prediction\": \"yes\", \"gold\": \"g\", \"output\": \"o\\n\", \"doc\": null}') "
                                  "echo '{\"equal\": true}';; *) [ $n = 3 ] && echo '{\"equal\": true}' || "
                                  "echo ' {\"equal\": false, \"note\": 1}';; esac; done";
    equivalence *e = NULL;
    bal_buf why = {0};
    CHECK_OK(equivalence_open(&e, command, 20));
    CHECK(ask(e, "yes", "o\n", &why) == 1);
    CHECK(ask(e, "no", "o\n", &why) == 0);
    CHECK(ask(e, "no", "o\n", &why) == 1);
    CHECK(ask(e, "no", "o\n", &why) == 0);
    CHECK(equivalence_unanswered(e) == 0);
    equivalence_close(e);
    bal_buf_dispose(&why);
}

TEST(long_questions)
{
    enum { N = 1 << 20 };
    char *output = bal_alloc(N + 1, 1);
    equivalence *e = NULL;
    bal_buf why = {0};
    if (!CHECK(output != NULL))
        return;
    memset(output, 'x', N);
    CHECK_OK(equivalence_open(&e,
                              "while head -n 1 | wc -c >count && [ $(cat count) -gt 1048576 ]; do "
                              "echo '{\"equal\": true}'; done",
                              20));
    CHECK(ask(e, "p", output, &why) == 1);
    equivalence_close(e);
    bal_free(output);
    bal_buf_dispose(&why);
    (void)remove("count");
}

TEST(no_usable_answer)
{
    static const struct {
        const char *command, *why;
    } cases[] = {
        {"exit 7", "status 7"},
        {"kill -9 $$", "signal 9"},
        {"read -r line; exit 0", "status 0"},
        {"sleep 100", "no answer within 0.5 s"},
        {"read -r line; sleep 100 | cat", "no answer within 0.5 s"},
        {"while read -r line; do echo yes; done", "is not one line"},
        {"while read -r line; do echo '{\"equal\": 1}'; done", "is not one line"},
        {"while read -r line; do printf '{\"equal\": true}\\n{\"equal\": true}\\n'; done", "is not one line"},
        {"yes '{' | tr -d '\\n'", "is not one line"},
        {"/nowhere/checker", "status 127"},
    };
    bal_buf why = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        equivalence *e = NULL;
        double start = bal_clock_seconds();
        CHECK_OK(equivalence_open(&e, cases[i].command, strstr(cases[i].why, "within") != NULL ? 0.5 : 20));
        CHECK_MSG(ask(e, "p", "o", &why) == -1, "'%s' has an answer", cases[i].command);
        CHECK_MSG(strstr(bal_buf_cstr(&why), cases[i].why) != NULL, "'%s': %s", cases[i].command, bal_buf_cstr(&why));
        CHECK(equivalence_unanswered(e) == 1);
        equivalence_close(e);
        CHECK_MSG(bal_clock_seconds() - start < 40, "'%s' took %.1f s", cases[i].command, bal_clock_seconds() - start);
    }
    bal_buf_dispose(&why);
}

TEST(starts_again_and_gives_up)
{
    /* every second question ends it: the answers to the others are not lost */
    static const char command[] = "read -r line; echo '{\"equal\": true}'; read -r line; exit 1";
    equivalence *e = NULL;
    bal_buf why = {0};
    CHECK_OK(equivalence_open(&e, command, 20));
    for (int i = 0; i < 6; i++)
        CHECK(ask(e, "p", "o", &why) == (i % 2 == 0 ? 1 : -1));
    equivalence_close(e);
    CHECK_OK(equivalence_open(&e, "exit 5", 20));
    for (int i = 0; i < 7; i++)
        CHECK(ask(e, "p", "o", &why) == -1);
    CHECK(ask(e, "p", "o", &why) == -2);
    CHECK(strstr(bal_error_message(), "8 times in a row") != NULL && strstr(bal_error_message(), "exit 5") != NULL);
    equivalence_close(e);
    bal_buf_dispose(&why);
}
