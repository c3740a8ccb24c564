/* Every allocation of making, writing, reading and running a model fails once: a status each time, and no leak.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/model/model.h"
#include "lib/model/pass.h"
#include "tests/test.h"

#include <stdio.h>

static const char k_config[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 8, \"num_attention_heads\": 2, "
    "\"intermediate_size\": 6, \"vocab_size\": 11, \"attention_bias\": true, \"mlp_bias\": true}";

/* Runs fn with the n-th allocation failing, for n = 1, 2, ... until it succeeds. */
static void torture(const char *what, bal_status (*fn)(void))
{
    bal_status status = BAL_ENOMEM;
    uint64_t n = 0;
    while (status != BAL_OK && n < 10000) {
        uint64_t before = bal_mem_bytes();
        bal_mem_fail_nth(++n);
        status = fn();
        bal_mem_fail_nth(0);
        CHECK_MSG(status == BAL_OK || status == BAL_ENOMEM, "%s, allocation %d: %s", what, (int)n, bal_error_message());
        if (!CHECK_MSG(bal_mem_bytes() == before, "%s: allocation %d fails and something is not freed", what, (int)n))
            return;
    }
    CHECK_MSG(n > 3 && status == BAL_OK, "%s: ended after %d allocations", what, (int)n);
}

static const char *folder(void)
{
    static char path[600];
    (void)snprintf(path, sizeof path, "%.500s/model", test_folder());
    return path;
}

static bal_status make_and_save(void)
{
    bal_model *m = NULL;
    bal_status status = bal_model_new(&m, k_config, 1);
    if (status == BAL_OK)
        status = bal_model_save(m, folder(), BAL_DTYPE_BF16);
    bal_model_free(m);
    return status;
}

static bal_status load_and_train(void)
{
    const bal_pass_options o = {.max_tokens = 4, .max_seqs = 1, .backward = true, .teacher = true, .dropout = 0.1};
    const int32_t ids[4] = {1, 2, 3, 10};
    bal_model *m = NULL;
    bal_pass *p = NULL;
    bal_batch b = {0};
    bal_status status;
    BAL_TRY(bal_model_load(&m, folder()));
    BAL_TRY(bal_model_make_trainable(m));
    BAL_TRY(bal_pass_new(&p, m, &o));
    BAL_TRY(bal_batch_init(&b, 4, 1));
    bal_batch_clear(&b);
    BAL_TRY(bal_batch_add(&b, ids, ids, 4));
    BAL_TRY(bal_pass_forward(p, &b, BAL_STUDENT));
    bal_pass_clear_dfinal(p, 4);
    BAL_TRY(bal_pass_backward(p, &b));
    BAL_TRY(bal_model_check(m));
out:
    bal_pass_free(p);
    bal_batch_dispose(&b);
    bal_model_free(m);
    return status;
}

TEST(allocations)
{
    (void)folder(); /* made outside, it allocates too */
    torture("make and save", make_and_save);
    torture("load and train", load_and_train);
}
