/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/nf4.h"

#include "lib/tensor/quantize.h"

#include <math.h>
#include <string.h>
#include <strings.h>

static const float k_table[BAL_NF4_LEVELS] = BAL_NF4_TABLE;

static unsigned level_of(float x)
{
    unsigned q = 0;
    while (q + 1 < BAL_NF4_LEVELS && x > (k_table[q] + k_table[q + 1]) / 2)
        q++;
    return q;
}

void bal_nf4_quantize_row(const float *x, size_t n, void *out)
{
    unsigned char *p = out;
    for (size_t b = 0; b < n; b += BAL_NF4_BLOCK, p += BAL_NF4_BYTES) {
        float most = 0;
        for (size_t i = 0; i < BAL_NF4_BLOCK; i++)
            most = fmaxf(most, fabsf(x[b + i]));
        float inverse = most > 0 ? 1 / most : 0;
        memcpy(p, &most, sizeof most);
        for (size_t half = 0; half < 2; half++)
            for (size_t i = 0; i < 16; i++) {
                const float *at = x + b + 32 * half + i;
                p[4 + 16 * half + i] = (unsigned char)(level_of(at[0] * inverse) | level_of(at[16] * inverse) << 4);
            }
    }
}

static const struct {
    const char *name;
    bal_dtype dtype;
    bal_quant quant; /* BAL_QUANT_COUNT: NF4 */
} k_packs[] = {{"nf4", BAL_DTYPE_NF4, BAL_QUANT_COUNT},  {"q8_0", BAL_DTYPE_Q8_0, BAL_QUANT_Q8_0},
               {"q4_0", BAL_DTYPE_Q4_0, BAL_QUANT_Q4_0}, {"q4_1", BAL_DTYPE_Q4_1, BAL_QUANT_Q4_1},
               {"q4_k", BAL_DTYPE_Q4_K, BAL_QUANT_Q4_K}, {"q6_k", BAL_DTYPE_Q6_K, BAL_QUANT_Q6_K}};
enum { N_PACKS = sizeof k_packs / sizeof *k_packs };

bool bal_can_pack(bal_dtype t)
{
    for (size_t i = 0; i < N_PACKS; i++)
        if (k_packs[i].dtype == t)
            return true;
    return false;
}

void bal_pack_row(bal_dtype t, const float *x, size_t n, void *out)
{
    for (size_t i = 0; i < N_PACKS; i++)
        if (k_packs[i].dtype == t && t != BAL_DTYPE_NF4)
            bal_quantize_row(k_packs[i].quant, x, n, out);
    if (t == BAL_DTYPE_NF4)
        bal_nf4_quantize_row(x, n, out);
}

bool bal_pack_parse(const char *name, bal_dtype *out)
{
    for (size_t i = 0; i < N_PACKS; i++)
        if (strcasecmp(name, k_packs[i].name) == 0) {
            *out = k_packs[i].dtype;
            return true;
        }
    return false;
}
