/* Every allocation of an adapter's life and of the loss fails once: a status comes back, nothing leaks, and a folder
 * that was there stays whole.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/adapter/adapter.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/base/threads.h"
#include "lib/loss/lm_loss.h"

#include <stdio.h>
#include <string.h>

enum { OUT = 6, IN = 5, MOST = 4000 };

static real_t g_w[OUT * IN];
static bal_view g_view;
static bal_module g_modules[2];

static void make_modules(void)
{
    for (size_t i = 0; i < OUT * IN; i++)
        g_w[i] = (real_t)((i * 7 + i * i) % 11);
    g_view = (bal_view){.dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32,
                        .rows = OUT,
                        .cols = IN,
                        .row_bytes = IN * sizeof(real_t),
                        .data = g_w};
    g_modules[0] = (bal_module){.name = "layers.0.q_proj", .w = &g_view};
    g_modules[1] = (bal_module){.name = "layers.1.q_proj", .w = &g_view};
}

static bal_status new_adapter(bal_adapter **out, const char *init)
{
    char name[] = "q_proj", *targets[] = {name};
    bal_adapter_config c = {.r = 2, .lora_alpha = 2, .target_modules = targets, .n_target_modules = 1};
    (void)snprintf(c.init, sizeof c.init, "%s", init);
    return bal_adapter_new(out, &c, g_modules, 2, 1, true);
}

static bal_status make_and_save(const char *init, const char *dir)
{
    bal_adapter *a = NULL;
    bal_status status = new_adapter(&a, init);
    if (status == BAL_OK)
        status = bal_adapter_save_final(a, dir);
    bal_adapter_free(a);
    return status;
}

static bal_status load(const char *dir)
{
    bal_adapter *a = NULL;
    char note[100];
    bal_status status = bal_adapter_load(&a, dir, NULL, g_modules, 2, true, note, sizeof note);
    bal_adapter_free(a);
    return status;
}

TEST(an_adapter_survives_every_failed_allocation)
{
    char *dir = bal_path_join(test_folder(), "adapter"), *pair = bal_path_join(dir, "pissa");
    size_t failed = 0;
    make_modules();
    CHECK_OK(make_and_save("pissa", dir));
    for (int what = 0; what < 3; what++)
        for (uint64_t n = 1; n < MOST; n++) {
            uint64_t before = bal_mem_bytes();
            bal_mem_fail_nth(n);
            bal_status status = what == 0 ? make_and_save("pissa_niter_2", dir) : what == 1 ? load(dir) : load(pair);
            bal_mem_fail_nth(0);
            CHECK(bal_mem_bytes() == before);
            if (status == BAL_OK)
                break;
            CHECK_MSG(status == BAL_ENOMEM, "allocation %zu gave %d: %s", (size_t)n, (int)status, bal_error_message());
            if (what == 0)
                CHECK_OK(load(dir)); /* the old folder is whole */
            failed++;
            CHECK(n + 1 < MOST);
        }
    CHECK(failed > 50);
    bal_free(dir);
    bal_free(pair);
}

TEST(the_loss_survives_every_failed_allocation)
{
    bal_model m = {0};
    bal_loss_config c = {.lambda_consistency = 1,
                         .lambda_diversity = 1,
                         .lambda_svd = 1,
                         .temperature = 2,
                         .top_k_entropy = 3,
                         .svd_top_k = 2};
    make_modules();
    m.head.w = g_view;
    for (int solver = 0; solver < 4; solver++)
        for (uint64_t n = 1; n < MOST; n++) {
            bal_lm_loss *l = NULL;
            uint64_t before = bal_mem_bytes();
            c.svd_solver = (bal_svd_solver)solver;
            bal_mem_fail_nth(n);
            bal_status status = bal_lm_loss_new(&l, &m, &c, 9);
            bal_mem_fail_nth(0);
            bal_lm_loss_free(l);
            CHECK(bal_mem_bytes() == before);
            if (status == BAL_OK)
                break;
            CHECK_STATUS(status, BAL_ENOMEM);
        }
}
