/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/blas_core.h"

#include "lib/tensor/isa.h"

#include <cblas.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Exported by builds that hold several kernels (DYNAMIC_ARCH, as Debian's); absent elsewhere. */
extern void gotoblas_dynamic_init(void) __attribute__((weak));
extern void gotoblas_dynamic_quit(void) __attribute__((weak));

static bool core_is_old(const char *name)
{
    static const char *const old[] = {"Prescott", "Core2",  "Penryn",  "Dunnington",
                                      "Nehalem",  "Athlon", "Opteron", "generic"};
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        if (strncmp(name, old[i], strlen(old[i])) == 0)
            return true;
    return false;
}

static void choose(const char *core)
{
    if (core == NULL)
        (void)unsetenv("OPENBLAS_CORETYPE");
    else
        (void)setenv("OPENBLAS_CORETYPE", core, 1);
    gotoblas_dynamic_quit();
    gotoblas_dynamic_init();
}

enum { N = 37 };

/* A small product in both precisions against plain loops: small whole numbers, so the results are exact. */
static bool products_are_right(void)
{
    static float a[N * N], b[N * N], c[N * N];
    static double da[N * N], db[N * N], dc[N * N];
    for (int i = 0; i < N * N; i++) {
        da[i] = a[i] = (float)(i % 7 - 3);
        db[i] = b[i] = (float)(i % 11 - 5);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, N, N, N, 1.0F, a, N, b, N, 0.0F, c, N);
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, N, N, N, 1.0, da, N, db, N, 0.0, dc, N);
    bool right = true;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double s = 0, d = 0;
            for (int k = 0; k < N; k++) {
                s += da[i * N + k] * db[j * N + k];
                d += da[k * N + i] * db[k * N + j];
            }
            right = right && fabs((double)c[i * N + j] - s) == 0.0 && fabs(dc[i * N + j] - d) == 0.0;
        }
    return right;
}

void bal_blas_core_select(void)
{
    const char *wanted = bal_isa_level() == BAL_ISA_LEVEL_AVX512 ? "SkylakeX"
                         : bal_isa_level() == BAL_ISA_LEVEL_AVX2 ? "Haswell"
                                                                 : NULL;
    if (wanted == NULL || getenv("OPENBLAS_CORETYPE") != NULL || gotoblas_dynamic_init == NULL ||
        gotoblas_dynamic_quit == NULL || !core_is_old(openblas_get_corename()))
        return;
    choose(wanted);
    if (!products_are_right())
        choose(NULL);
    else
        (void)unsetenv("OPENBLAS_CORETYPE"); /* child programs choose for themselves */
}
