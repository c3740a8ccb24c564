/* The row loops of the loss, in every instruction set that this machine has, against plain double arithmetic.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/rng.h"
#include "lib/loss/rows.h"

#include <math.h>
#include <string.h>

enum { MOST = 257 };
#define EPS (BAL_REAL_IS_DOUBLE ? 4e-16 : 1.2e-7)

static const bal_row_ops *table(int level)
{
#ifdef BAL_HAVE_ISA_avx512
    if (level > (int)bal_isa_level())
        return NULL;
    return level == 0 ? &bal_row_ops_base : level == 1 ? &bal_row_ops_avx2 : &bal_row_ops_avx512;
#else
    return level == 0 ? &bal_row_ops_base : NULL;
#endif
}

TEST(exponentials)
{
    for (int level = 0; level < 3; level++) {
        const bal_row_ops *ops = table(level);
        if (ops == NULL)
            continue;
        static real_t z[20001], g[20001];
        for (size_t i = 0; i < 20001; i++)
            z[i] = (real_t)(-86.0 * (double)i / 20000);
        ops->put_exp(20001, z, 0, 1, 1, g);
        double worst = 0;
        for (size_t i = 0; i < 20001; i++)
            worst = fmax(worst, fabs((double)g[i] / exp((double)z[i]) - 1));
        CHECK_MSG(worst <= 1.5 * EPS, "level %d: exp is off by %g", level, worst);
        CHECK(g[0] == 1);
        real_t odd[3] = {(real_t)-1e30, (real_t)-INFINITY, (real_t)NAN}, e[3];
        ops->put_exp(3, odd, 0, 1, 1, e);
        CHECK(e[0] >= 0 && (double)e[0] < 1e-37 && e[1] >= 0 && (double)e[1] < 1e-37 && isnan(e[2]));
    }
}

static void check_sums(const bal_row_ops *ops, size_t n, double T)
{
    static real_t z[MOST], zt[MOST], e[MOST], g[MOST];
    bal_rng rng;
    double one = 0, tempered = 0, moment = 0, teacher[3] = {0}, got_1, got_t, got[3];
    real_t m = -1000, mt = -1000;
    bal_rng_init(&rng, n, "rows");
    for (size_t j = 0; j < n; j++) {
        z[j] = (real_t)(5 * bal_rng_normal(&rng));
        zt[j] = e[j] = (real_t)(5 * bal_rng_normal(&rng));
        m = z[j] > m ? z[j] : m;
        mt = zt[j] > mt ? zt[j] : mt;
    }
    for (size_t j = 0; j < n; j++) {
        double d = (double)z[j] - (double)m, dt = (double)zt[j] - (double)mt, x = exp(dt / T);
        one += exp(d);
        tempered += exp(d / T);
        moment += exp(d) * d;
        teacher[0] += x;
        teacher[1] += x * ((double)zt[j] - (double)z[j]);
        teacher[2] += x * dt;
    }
    double bound = 8 * EPS * (double)n;
    CHECK(n == 0 || ops->max(n, z) == m);
    ops->exp_sums(n, z, m, T, &got_1, &got_t);
    CHECK_NEAR(got_1, one, bound);
    CHECK_NEAR(got_t, tempered, bound);
    CHECK_NEAR(ops->exp_moment(n, z, m), moment, bound);
    ops->teacher(n, z, e, mt, T, got);
    CHECK_NEAR(got[0], teacher[0], bound);
    CHECK_NEAR(got[1], teacher[1], 40 * bound);
    CHECK_NEAR(got[2], teacher[2], 40 * bound);
    memset(g, 0, sizeof g);
    ops->add_kl(n, z, m, T, 0.5, 0.25, e, g);
    for (size_t j = 0; j < n; j++)
        CHECK_NEAR(g[j], 0.5 * exp(((double)z[j] - (double)m) / T) - 0.25 * exp(((double)zt[j] - (double)mt) / T),
                   8 * EPS);
    ops->finish(n, z, g, 0);
    CHECK(n == 0 || memcmp(z, g, n * sizeof *z) == 0);
}

TEST(sums)
{
    static const size_t sizes[] = {0, 1, 7, 8, 9, 31, 33, 257};
    static const double temperatures[] = {1, 2, 3.5};
    for (int level = 0; level < 3; level++)
        for (size_t i = 0; table(level) != NULL && i < sizeof sizes / sizeof *sizes; i++)
            for (size_t t = 0; t < 3; t++)
                check_sums(table(level), sizes[i], temperatures[t]);
}
