/* One pool of threads for the whole process.  OpenBLAS runs its own threads only outside our parallel
 * loops; lib/tensor/gemm.c arranges that.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_THREADS_H
#define BAL_BASE_THREADS_H

#include "lib/base/status.h"

#include <stddef.h>

/* Starts a pool of n threads (the caller counts as one); n = 0: the number of usable cores.  Call once, at
 * the start of a program; without it everything runs on the calling thread. */
bal_status bal_threads_start(size_t n);
void bal_threads_stop(void);
size_t bal_threads_count(void);

/* Calls fn(context, begin, end, thread) for disjoint ranges that cover [0, n); thread < bal_threads_count().
 * The ranges are fixed by n, grain and the thread count alone: contiguous blocks of a multiple of grain
 * items, thread i takes block i, so results do not depend on timing.  Returns when all is done.  A call
 * from inside a range runs on that thread alone.  Allocates nothing. */
typedef void bal_range_fn(void *context, size_t begin, size_t end, size_t thread);
void bal_parallel_for(size_t n, size_t grain, bal_range_fn *fn, void *context);
/* As bal_parallel_for, but items of `grain` are handed out as threads become free: for work of uneven size
 * whose result does not depend on which thread does it. */
void bal_parallel_dynamic(size_t n, size_t grain, bal_range_fn *fn, void *context);
/* 1 inside a range, 0 outside. */
int bal_threads_inside(void);

#endif
