/* What the masked tasks ask: places, masks and targets of CrowS-Pairs and StereoSet with the small BERT's word pieces.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/scorer.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bal_tokenizer *g_tokenizer;
static int32_t g_mask;

static bool begin(void)
{
    if (!CHECK_OK(bal_tokenizer_load(&g_tokenizer, "tests/cli/data/bert/tokenizer.json")))
        return false;
    g_mask = bal_tokenizer_mask(g_tokenizer);
    return CHECK(g_mask == 4);
}

/* "part:text with <masked token>" of each question, a line each. */
static void print_masks(const mask_list *l, bal_buf *out)
{
    bal_buf_clear(out);
    for (size_t i = 0; i < l->n; i++) {
        const mask_query *q = &l->items[i];
        CHECK_OK(bal_buf_printf(out, "%zu:", q->part));
        for (size_t k = 0; k < q->ids.n; k++)
            CHECK_OK(bal_buf_printf(out, k == q->at ? " <%s>" : " %s",
                                    bal_tokenizer_token(g_tokenizer, k == q->at ? q->target : q->ids.data[k])));
        CHECK_OK(bal_buf_text(out, "\n"));
    }
}

static void check_masks(const scorer *how, const char *json, const char *want)
{
    cJSON *row = cJSON_Parse(json);
    rows one = {&row, 1, 1};
    const task t = {.name = "t", .test = one, .scorer = how};
    pair_list pairs = {0};
    mask_list masks = {0};
    bal_buf out = {0};
    if (CHECK(row != NULL) && CHECK_OK(how->requests(&t, 0, "", false, &pairs)) &&
        CHECK_OK(how->masks(&t, 0, &pairs, g_tokenizer, g_mask, &masks))) {
        print_masks(&masks, &out);
        CHECK_TEXT(bal_buf_cstr(&out), want);
    }
    bal_buf_dispose(&out);
    mask_list_dispose(&masks);
    pair_list_dispose(&pairs);
    cJSON_Delete(row);
}

TEST(crows)
{
    if (!begin())
        return;
    check_masks(
        &k_scorer_crows_masked,
        "{\"sent_more\": \"The old man.\", \"sent_less\": \"The young man.\", \"stereo_antistereo\": \"stereo\"}",
        "0: [CLS] <the> old man . [SEP]\n0: [CLS] the old <man> . [SEP]\n0: [CLS] the old man <.> [SEP]\n"
        "1: [CLS] <the> young man . [SEP]\n1: [CLS] the young <man> . [SEP]\n1: [CLS] the young man <.> [SEP]\n");
    /* nothing in common but the special tokens */
    check_masks(&k_scorer_crows_masked, "{\"sent_more\": \"old\", \"sent_less\": \"man\"}", "");
    /* the order matters to difflib: of "man old" and "old man" the block that comes first in the first text counts */
    check_masks(&k_scorer_crows_masked,
                "{\"sent_more\": \"man old\", \"sent_less\": \"old man\", \"stereo_antistereo\": \"stereo\"}",
                "0: [CLS] <man> old [SEP]\n1: [CLS] old <man> [SEP]\n");
    check_masks(&k_scorer_crows_masked,
                "{\"sent_more\": \"man old\", \"sent_less\": \"old man\", \"stereo_antistereo\": \"antistereo\"}",
                "0: [CLS] man <old> [SEP]\n1: [CLS] <old> man [SEP]\n");
    bal_tokenizer_free(g_tokenizer);
}

#define CLUSTER(CONTEXT, STEREO, ANTI, UNRELATED)                                                                      \
    "{\"target\": \"t\", \"context\": \"" CONTEXT "\", \"sentences\": [{\"gold_label\": \"unrelated\", \"sentence\": " \
    "\"" UNRELATED "\"}, {\"gold_label\": \"stereotype\", \"sentence\": \"" STEREO "\"}, {\"gold_label\": "            \
    "\"anti-stereotype\", \"sentence\": \"" ANTI "\"}]}"

TEST(stereoset)
{
    if (!begin())
        return;
    /* a word of two pieces, one with punctuation, one at the end */
    check_masks(&k_scorer_stereoset_masked, CLUSTER("The BLANK, is", "The mans, is", "A 'old' is", "The man's"),
                "0: [CLS] the <man> , is [SEP]\n0: [CLS] the man <##s> , is [SEP]\n1: [CLS] the <old> , is [SEP]\n"
                "2: [CLS] the <man> , is [SEP]\n2: [CLS] the man <##s> , is [SEP]\n");
    /* of two blanks the last names the word, both are filled, the first is asked */
    check_masks(&k_scorer_stereoset_masked, CLUSTER("BLANK is BLANK", "a is mans", "a is old", "a is young"),
                "0: [CLS] <man> is [MASK] [SEP]\n0: [CLS] man <##s> is man [MASK] [SEP]\n"
                "1: [CLS] <old> is [MASK] [SEP]\n2: [CLS] <young> is [MASK] [SEP]\n");
    bal_tokenizer_free(g_tokenizer);
}

static void refuse(const char *json, const char *message)
{
    cJSON *row = cJSON_Parse(json);
    rows one = {&row, 1, 1};
    const task t = {.name = "t", .test = one, .scorer = &k_scorer_stereoset_masked};
    pair_list pairs = {0};
    CHECK_STATUS(k_scorer_stereoset_masked.requests(&t, 0, "", false, &pairs), BAL_EFORMAT);
    CHECK_MSG(strstr(bal_error_message(), message) != NULL, "%s", bal_error_message());
    pair_list_dispose(&pairs);
    cJSON_Delete(row);
}

TEST(refused)
{
    refuse(CLUSTER("The is", "a", "b", "c"), "has no BLANK");
    refuse(CLUSTER("The is BLANK", "The is", "a b c", "c"), "no word for the BLANK");
    refuse(CLUSTER("The is BLANK", "The is ...", "a b c", "c"), "no word for the BLANK");
    refuse("{\"context\": \"BLANK\", \"sentences\": []}", "has no stereotype");
}

/* Stored outputs: mean probabilities, not exponentials of means. */
TEST(figures)
{
    static char output[] = "{\"ll\": [-1, -9, -9], \"probability\": [0.2, 0.3, 0.25], \"tokens\": [1, 2, 1]}";
    cJSON *row = cJSON_Parse(CLUSTER("BLANK", "a", "b", "c"));
    rows one = {&row, 1, 1};
    const task t = {.name = "t", .test = one, .scorer = &k_scorer_stereoset_masked};
    const record r = {.output = output};
    metric_list m = {0};
    if (CHECK_OK(k_scorer_stereoset_masked.measure(&t, 0, &r, 1, &m)) && CHECK(m.n >= 3)) {
        CHECK_TEXT(m.items[0].name, "lms");
        CHECK_NEAR(m.items[0].value, 50, 0);
        CHECK_NEAR(m.items[1].value, 0, 0);
        CHECK_NEAR(m.items[2].value, 0, 0);
    }
    metric_list_dispose(&m);
    cJSON_Delete(row);
}
