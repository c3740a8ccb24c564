/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

/* Every block is preceded by one aligned header that remembers its size: alignment and the count of live
 * bytes need it. */
typedef struct block_header {
    size_t bytes;
} block_header;

static atomic_uint_fast64_t g_count, g_live_bytes, g_fail_countdown;
static atomic_int g_env_read;

static bool should_fail(void)
{
    if (atomic_exchange(&g_env_read, 1) == 0) {
        const char *text = getenv("BALORA_FAIL_ALLOC");
        if (text != NULL)
            atomic_store(&g_fail_countdown, (uint64_t)strtoull(text, NULL, 10));
    }
    if (atomic_load(&g_fail_countdown) == 0)
        return false;
    return atomic_fetch_sub(&g_fail_countdown, 1) == 1;
}

bool bal_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool bal_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static void *block_new(size_t count, size_t size, bool zero)
{
    size_t bytes, total;
    if (!bal_mul_size(count, size, &bytes) || !bal_add_size(bytes, 2 * (size_t)ALIGN, &total)) {
        (void)bal_fail(BAL_ENOMEM, "out of memory: %zu x %zu bytes were asked for", count, size);
        return NULL;
    }
    total = total / ALIGN * ALIGN;
    unsigned char *raw = should_fail() ? NULL : aligned_alloc(ALIGN, total);
    if (raw == NULL) {
        (void)bal_fail(BAL_ENOMEM, "out of memory: %zu bytes were asked for", bytes);
        return NULL;
    }
    ((block_header *)(void *)raw)->bytes = bytes;
    if (zero)
        memset(raw + ALIGN, 0, total - ALIGN);
    (void)atomic_fetch_add(&g_count, 1);
    (void)atomic_fetch_add(&g_live_bytes, bytes);
    return raw + ALIGN;
}

static block_header *header_of(void *p)
{
    return (block_header *)(void *)((unsigned char *)p - ALIGN);
}

void *bal_alloc(size_t count, size_t size)
{
    return block_new(count, size, true);
}

void *bal_realloc(void *p, size_t count, size_t size)
{
    void *fresh = block_new(count, size, false);
    if (fresh == NULL || p == NULL)
        return fresh;
    size_t old = header_of(p)->bytes;
    size_t new_bytes = header_of(fresh)->bytes;
    memcpy(fresh, p, old < new_bytes ? old : new_bytes);
    bal_free(p);
    return fresh;
}

void bal_free(void *p)
{
    if (p == NULL)
        return;
    (void)atomic_fetch_sub(&g_live_bytes, header_of(p)->bytes);
    free(header_of(p));
}

char *bal_strndup(const char *text, size_t n_bytes)
{
    char *copy = bal_alloc(n_bytes + 1, 1);
    if (copy != NULL)
        memcpy(copy, text, n_bytes);
    return copy;
}

char *bal_strdup(const char *text)
{
    return bal_strndup(text, strlen(text));
}

uint64_t bal_mem_count(void)
{
    return atomic_load(&g_count);
}

uint64_t bal_mem_bytes(void)
{
    return atomic_load(&g_live_bytes);
}

void bal_mem_fail_nth(uint64_t n)
{
    (void)atomic_exchange(&g_env_read, 1);
    atomic_store(&g_fail_countdown, n);
}

void bal_arena_measure(bal_arena *a)
{
    *a = (bal_arena){0};
}

bal_status bal_arena_init(bal_arena *a, size_t capacity)
{
    *a = (bal_arena){0};
    a->base = bal_alloc(capacity, 1);
    if (a->base == NULL)
        return BAL_ENOMEM;
    a->capacity = capacity;
    return BAL_OK;
}

void bal_arena_dispose(bal_arena *a)
{
    bal_free(a->base);
    *a = (bal_arena){0};
}

void *bal_arena_take(bal_arena *a, size_t count, size_t size)
{
    size_t bytes, end;
    if (!bal_mul_size(count, size, &bytes) || !bal_add_size(bytes, ALIGN - 1, &bytes) ||
        !bal_add_size(a->used, bytes / ALIGN * ALIGN, &end)) {
        (void)bal_fail(BAL_ENOMEM, "workspace of %zu x %zu bytes is too large", count, size);
        return NULL;
    }
    unsigned char *p = a->base + a->used;
    if (a->base != NULL && end > a->capacity) {
        (void)bal_fail(BAL_ENOMEM, "workspace exhausted: %zu of %zu bytes used, %zu more asked for", a->used,
                       a->capacity, bytes);
        return NULL;
    }
    a->used = end;
    if (end > a->peak)
        a->peak = end;
    return a->base == NULL ? NULL : p;
}
