/* Random numbers.  bal_rng: xoshiro256** (Blackman, Vigna 2018), seeded through splitmix64 from one seed and
 * a stream name, so that each use (init, order, dropout, sampling) has its own stream.  bal_mt19937: the
 * generator of CPython's random module, for lm-eval's few-shot draws and bootstrap.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_RNG_H
#define BAL_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct bal_rng {
    uint64_t s[4];
} bal_rng;

void bal_rng_init(bal_rng *r, uint64_t seed, const char *stream);
uint64_t bal_rng_next(bal_rng *r);
double bal_rng_uniform(bal_rng *r);                          /* [0, 1), 53 bits */
double bal_rng_normal(bal_rng *r);                           /* mean 0, variance 1; two uniforms a call */
uint64_t bal_rng_below(bal_rng *r, uint64_t n);              /* 0 .. n-1, unbiased; n > 0 */
void bal_rng_shuffle(bal_rng *r, uint32_t *items, size_t n); /* Fisher-Yates */

typedef struct bal_mt19937 {
    uint32_t state[624];
    size_t index;
} bal_mt19937;

/* As the reference program's init_genrand(), which PyTorch's generator on the CPU uses. */
void bal_mt_seed(bal_mt19937 *m, uint32_t seed);
/* As random.Random(seed) of CPython for 0 <= seed. */
void bal_mt_init(bal_mt19937 *m, uint64_t seed);
uint32_t bal_mt_next(bal_mt19937 *m);
uint64_t bal_mt_bits(bal_mt19937 *m, unsigned k);  /* getrandbits(k), k <= 64 */
double bal_mt_random(bal_mt19937 *m);              /* random() */
uint64_t bal_mt_below(bal_mt19937 *m, uint64_t n); /* _randbelow(n) */
/* sample(range(n), k) into out[k]; scratch holds n entries.  k <= n. */
void bal_mt_sample(bal_mt19937 *m, size_t n, size_t k, uint32_t *out, uint32_t *scratch);
/* choices(range(n), k=k) into out[k]: with replacement, floor(random() * n).  n > 0. */
void bal_mt_choices(bal_mt19937 *m, size_t n, size_t k, uint32_t *out);
void bal_mt_shuffle(bal_mt19937 *m, uint32_t *items, size_t n); /* shuffle() */

#endif
