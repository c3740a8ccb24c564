/* NF4: its levels by their definition, blocks beside bitsandbytes', every value by the nearest level.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/tensor/nf4.h"
#include "lib/tensor/quantize.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

static const float k_table[BAL_NF4_LEVELS] = BAL_NF4_TABLE;

/* The x with Phi(x) = p, by halving. */
static double normal_quantile(double p)
{
    double low = -10, high = 10;
    for (int i = 0; i < 200; i++) {
        double middle = (low + high) / 2;
        *(0.5 * erfc(-middle / sqrt(2.0)) < p ? &low : &high) = middle;
    }
    return (low + high) / 2;
}

TEST(levels_by_their_definition)
{
    const double o = 0.9677083;
    double want[BAL_NF4_LEVELS], most = normal_quantile(o);
    for (int i = 0; i < 8; i++)
        want[15 - i] = normal_quantile(o + (0.5 - o) * i / 8) / most;
    want[7] = 0;
    for (int i = 0; i < 7; i++)
        want[i] = -normal_quantile(o + (0.5 - o) * i / 7) / most;
    for (int i = 0; i < BAL_NF4_LEVELS; i++)
        CHECK_NEAR(k_table[i], want[i], 3e-7); /* the published ones were made from quantiles in f32 */
}

static unsigned level(const unsigned char *block, size_t i)
{
    unsigned char byte = block[4 + i / 32 * 16 + i % 16];
    return i % 32 < 16 ? byte & 15U : byte >> 4;
}

/* Levels and magnitudes that bitsandbytes 0.50.2 gives for the same numbers (quantize_4bit, block 64, nf4). */
TEST(blocks_of_bitsandbytes)
{
    static const char want[] = "04c16e29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05d18e2af4c1"
                               "6d18e3704c17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18"
                               "e2af4c16e18e3b05d17e29f3b05d18e2af4c16d18e3b04c17e29f3b05d17e2af";
    static const float scale[] = {1.0F, 0.25F, 3.0F}, most[] = {0.78125F, 0.1953125F, 2.34375F};
    float x[192], back[192], magnitude;
    unsigned char blocks[3 * BAL_NF4_BYTES];
    for (int i = 0; i < 192; i++)
        x[i] = (float)(i * 37 % 101 - 50) / 64 * scale[i / 64];
    x[70] = 0;
    bal_nf4_quantize_row(x, 192, blocks);
    bal_row_to_f32(BAL_DTYPE_NF4, blocks, 192, back);
    for (size_t i = 0; i < 192; i++) {
        const unsigned char *block = blocks + i / 64 * BAL_NF4_BYTES;
        memcpy(&magnitude, block, sizeof magnitude);
        CHECK(magnitude == most[i / 64]);
        if (!CHECK_MSG("0123456789abcdef"[level(block, i % 64)] == want[i], "element %zu", i))
            return;
        CHECK(back[i] == k_table[level(block, i % 64)] * most[i / 64]);
    }
}

TEST(the_nearest_level_and_nothing_else)
{
    enum { N = 4096 };
    static float x[N], back[N];
    static unsigned char blocks[N / BAL_NF4_BLOCK * BAL_NF4_BYTES];
    bal_rng rng;
    bal_rng_init(&rng, 4, "nf4");
    for (size_t i = 0; i < N; i++)
        x[i] = i / 64 == 3 ? 0 : (float)(bal_rng_normal(&rng) * 0.02);
    bal_nf4_quantize_row(x, N, blocks);
    bal_row_to_f32(BAL_DTYPE_NF4, blocks, N, back);
    double error = 0, size = 0;
    for (size_t b = 0; b < N; b += 64) {
        float most = 0;
        for (size_t i = b; i < b + 64; i++)
            most = fmaxf(most, fabsf(x[i]));
        for (size_t i = b; i < b + 64; i++) {
            double least = INFINITY;
            for (int q = 0; q < BAL_NF4_LEVELS; q++)
                least = fmin(least, fabs((double)x[i] - (double)(k_table[q] * most)));
            CHECK_NEAR(fabs((double)x[i] - (double)back[i]), least, 1e-8);
            error += pow((double)x[i] - (double)back[i], 2);
            size += (double)x[i] * (double)x[i];
        }
        if (b / 64 == 3)
            CHECK(back[b] == 0 && back[b + 63] == 0);
    }
    CHECK(sqrt(error / size) > 0.085 && sqrt(error / size) < 0.102); /* 0.09 for normal numbers in blocks of 64 */
}

TEST(packing_by_type)
{
    static const char *const names[] = {"nf4", "Q8_0", "q4_0", "q4_1", "q4_k", "Q6_K"};
    static const double bound[] = {0.11, 0.01, 0.12, 0.1, 0.1, 0.03};
    enum { N = 512 };
    static float x[N], back[N];
    static unsigned char row[4 * N];
    bal_rng rng;
    bal_rng_init(&rng, 9, "pack");
    for (size_t i = 0; i < N; i++)
        x[i] = (float)bal_rng_normal(&rng);
    for (size_t t = 0; t < sizeof names / sizeof *names; t++) {
        bal_dtype type;
        double error = 0, size = 0;
        if (!CHECK(bal_pack_parse(names[t], &type) && bal_can_pack(type)))
            continue;
        bal_pack_row(type, x, N, row);
        bal_row_to_f32(type, row, N, back);
        for (size_t i = 0; i < N; i++) {
            error += pow((double)x[i] - (double)back[i], 2);
            size += (double)x[i] * (double)x[i];
        }
        CHECK_MSG(sqrt(error / size) < bound[t], "%s: %g", names[t], sqrt(error / size));
    }
    bal_dtype none;
    CHECK(!bal_pack_parse("f16", &none) && !bal_pack_parse("", &none) && !bal_can_pack(BAL_DTYPE_F32));
    CHECK(!bal_can_pack(BAL_DTYPE_Q5_K));
}
