/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/rng.h"

#include <math.h>

static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = (*x += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

void bal_rng_init(bal_rng *r, uint64_t seed, const char *stream)
{
    uint64_t x = seed;
    for (const char *c = stream; *c != '\0'; c++)
        x = (x ^ (unsigned char)*c) * 0x100000001B3ULL + 0x632BE59BD9B4E019ULL; /* FNV-like mix of the name */
    for (int i = 0; i < 4; i++)
        r->s[i] = splitmix64(&x);
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t bal_rng_next(bal_rng *r)
{
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double bal_rng_uniform(bal_rng *r)
{
    return (double)(bal_rng_next(r) >> 11) * 0x1.0p-53;
}

double bal_rng_normal(bal_rng *r)
{
    double u = 1.0 - bal_rng_uniform(r); /* (0, 1]: the logarithm stays finite */
    double v = bal_rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

uint64_t bal_rng_below(bal_rng *r, uint64_t n)
{
    uint64_t threshold = -n % n; /* 2^64 mod n: values below it would be over-represented */
    for (;;) {
        uint64_t x = bal_rng_next(r);
        if (x >= threshold)
            return x % n;
    }
}

void bal_rng_shuffle(bal_rng *r, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)bal_rng_below(r, i);
        uint32_t t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}

/* Matsumoto, Nishimura 1998: init_genrand. */
void bal_mt_seed(bal_mt19937 *m, uint32_t seed)
{
    uint32_t *s = m->state;
    s[0] = seed;
    for (uint32_t i = 1; i < 624; i++)
        s[i] = 1812433253U * (s[i - 1] ^ (s[i - 1] >> 30)) + i;
    m->index = 624;
}

/* Seeding as init_by_array with the 32-bit words of the seed, as CPython does. */
void bal_mt_init(bal_mt19937 *m, uint64_t seed)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    size_t n_key = key[1] != 0 ? 2 : 1;
    uint32_t *s = m->state;
    bal_mt_seed(m, 19650218U);
    uint32_t i = 1;
    size_t j = 0;
    for (int k = 624; k > 0; k--) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525U)) + key[j] + (uint32_t)j;
        i++;
        j = (j + 1) % n_key;
        if (i >= 624) {
            s[0] = s[623];
            i = 1;
        }
    }
    for (int k = 623; k > 0; k--) {
        s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941U)) - i;
        i++;
        if (i >= 624) {
            s[0] = s[623];
            i = 1;
        }
    }
    s[0] = 0x80000000U;
    m->index = 624;
}

uint32_t bal_mt_next(bal_mt19937 *m)
{
    uint32_t *s = m->state;
    if (m->index >= 624) {
        for (size_t i = 0; i < 624; i++) {
            uint32_t y = (s[i] & 0x80000000U) | (s[(i + 1) % 624] & 0x7FFFFFFFU);
            s[i] = s[(i + 397) % 624] ^ (y >> 1) ^ ((y & 1) != 0 ? 0x9908B0DFU : 0);
        }
        m->index = 0;
    }
    uint32_t y = s[m->index++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9D2C5680U;
    y ^= (y << 15) & 0xEFC60000U;
    return y ^ (y >> 18);
}

uint64_t bal_mt_bits(bal_mt19937 *m, unsigned k)
{
    if (k == 0)
        return 0;
    if (k <= 32)
        return bal_mt_next(m) >> (32 - k);
    uint64_t low = bal_mt_next(m); /* CPython fills the least significant word first */
    uint64_t high = bal_mt_next(m) >> (64 - k);
    return high << 32 | low;
}

double bal_mt_random(bal_mt19937 *m)
{
    uint32_t a = bal_mt_next(m) >> 5;
    uint32_t b = bal_mt_next(m) >> 6;
    return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}

uint64_t bal_mt_below(bal_mt19937 *m, uint64_t n)
{
    if (n == 0)
        return 0;
    unsigned k = 64 - (unsigned)__builtin_clzll(n);
    uint64_t r;
    do
        r = bal_mt_bits(m, k);
    while (r >= n);
    return r;
}

void bal_mt_sample(bal_mt19937 *m, size_t n, size_t k, uint32_t *out, uint32_t *scratch)
{
    size_t set_size = 21;
    if (k > 5) { /* 4 ** ceil(log4(3k)) */
        size_t power = 1;
        while (power < 3 * k)
            power *= 4;
        set_size += power;
    }
    if (n <= set_size) {
        for (size_t i = 0; i < n; i++)
            scratch[i] = (uint32_t)i;
        for (size_t i = 0; i < k; i++) {
            size_t j = (size_t)bal_mt_below(m, n - i);
            out[i] = scratch[j];
            scratch[j] = scratch[n - i - 1];
        }
        return;
    }
    for (size_t i = 0; i < k;) {
        uint32_t j = (uint32_t)bal_mt_below(m, n);
        size_t seen = 0;
        while (seen < i && out[seen] != j)
            seen++;
        if (seen == i) /* a repeated value is drawn again */
            out[i++] = j;
    }
}

void bal_mt_choices(bal_mt19937 *m, size_t n, size_t k, uint32_t *out)
{
    for (size_t i = 0; i < k; i++)
        out[i] = (uint32_t)(bal_mt_random(m) * (double)n);
}

void bal_mt_shuffle(bal_mt19937 *m, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)bal_mt_below(m, i);
        uint32_t t = items[i - 1];
        items[i - 1] = items[j];
        items[j] = t;
    }
}
