/* Memory: checked allocation, an arena for the buffers of one step, and the hooks that tests need.
 * All memory of the library comes from here, so that a test can make the n-th allocation fail and count
 * the allocations of a training step.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_MEM_H
#define BAL_BASE_MEM_H

#include "lib/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* count * size bytes, zeroed, 64-byte aligned.  NULL with the message set (BAL_ENOMEM) when the product
 * overflows or memory is short; never NULL for a size of 0.  Free with bal_free(). */
void *bal_alloc(size_t count, size_t size);
/* Resizes to count * size bytes, content kept; new bytes are not zeroed.  On failure NULL, and p stays valid. */
void *bal_realloc(void *p, size_t count, size_t size);
void bal_free(void *p); /* accepts NULL */
char *bal_strdup(const char *text);
char *bal_strndup(const char *text, size_t n_bytes);

/* *out = a * b, a + b.  false on overflow. */
bool bal_mul_size(size_t a, size_t b, size_t *out);
bool bal_add_size(size_t a, size_t b, size_t *out);

/* Test hooks: the number of successful allocations so far, and "the n-th allocation from now on fails
 * once" (0 = none; or BALORA_FAIL_ALLOC=n in the environment, read at the first allocation). */
uint64_t bal_mem_count(void);
void bal_mem_fail_nth(uint64_t n);
/* Bytes held by live allocations (payload). */
uint64_t bal_mem_bytes(void);

/* One block, carved in order.  `used` may be saved and set back (stack discipline). */
typedef struct bal_arena {
    unsigned char *base;
    size_t used, capacity, peak;
} bal_arena;

/* A measuring arena (base NULL) hands out no memory but counts: run the same carving code on it first to
 * learn the capacity. */
void bal_arena_measure(bal_arena *a);
bal_status bal_arena_init(bal_arena *a, size_t capacity);
void bal_arena_dispose(bal_arena *a);
/* count * size bytes, 64-byte aligned, NOT zeroed.  NULL (message set) if the arena is exhausted; for a
 * measuring arena always NULL: callers check base first. */
void *bal_arena_take(bal_arena *a, size_t count, size_t size);

#endif
