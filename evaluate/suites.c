/* Suites: tasks with the number of their items.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/session.h"

#include <string.h>

/* What a small table of a paper on fine-tuning prints, on a CPU in hours.  BBQ: 125 items of each category. */
static const suite_task k_paper_mini[] = {
    {"gsm8k", 200},
    {"hendrycks_math500", 100},
    {"humaneval", 164},
    {"mbpp", 100},
    {"cola", 200},
    {"sst2", 200},
    {"mrpc", 200},
    {"qqp", 200},
    {"mnli", 200},
    {"mnli_mismatch", 200},
    {"qnli", 200},
    {"rte", 200},
    {"wnli", 200},
    {"crows_pairs_english", 0},
    {"stereoset_intrasentence", 500},
    {"bbq_age", 125},
    {"bbq_disability_status", 125},
    {"bbq_gender_identity", 125},
    {"bbq_nationality", 125},
    {"bbq_physical_appearance", 125},
    {"bbq_race_ethnicity", 125},
    {"bbq_race_x_ses", 125},
    {"bbq_race_x_gender", 125},
    {"bbq_religion", 125},
    {"bbq_ses", 125},
    {"bbq_sexual_orientation", 125},
    {"wikitext", 0},
};

bal_status suite_find(const char *name, const suite_task **tasks, size_t *n)
{
    static const char *const names[] = {"paper-mini"};
    if (strcmp(name, "paper-mini") != 0 && strcmp(name, "paper_mini") != 0) {
        const char *near = bal_nearest(name, names, 1);
        return bal_fail(BAL_EINVAL, "suite '%.40s' is not known%s; there is paper-mini", name,
                        near == NULL ? "" : " (did you mean paper-mini?)");
    }
    *tasks = k_paper_mini;
    *n = sizeof k_paper_mini / sizeof k_paper_mini[0];
    return BAL_OK;
}
