/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/isa.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#ifdef BAL_HAVE_ISA_avx512
#include <cpuid.h>
#endif

static const char *const k_names[] = {"base", "avx2", "avx512"};

#ifdef BAL_HAVE_ISA_avx512
/* Half-precision conversion, which not every compiler's __builtin_cpu_supports() knows. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

static bal_isa detect(void)
{
    bal_isa level = BAL_ISA_LEVEL_BASE;
#ifdef BAL_HAVE_ISA_avx512
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        level = BAL_ISA_LEVEL_AVX2;
    if (level == BAL_ISA_LEVEL_AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        level = BAL_ISA_LEVEL_AVX512;
#endif
    const char *wanted = getenv("BALORA_ISA");
    for (int i = 0; wanted != NULL && i < (int)level; i++)
        if (strcmp(wanted, k_names[i]) == 0)
            return (bal_isa)i;
    return level;
}

bal_isa bal_isa_level(void)
{
    static atomic_int known; /* level + 1; detecting twice gives the same */
    int level = atomic_load_explicit(&known, memory_order_relaxed);
    if (level == 0) {
        level = (int)detect() + 1;
        atomic_store_explicit(&known, level, memory_order_relaxed);
    }
    return (bal_isa)(level - 1);
}

const char *bal_isa_name(void)
{
    return k_names[bal_isa_level()];
}
