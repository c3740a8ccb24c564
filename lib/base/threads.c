/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

/* A thread that waits looks again SPINS times before it sleeps, some tens of microseconds: a training step has
 * thousands of short products, and to wake a sleeping thread takes longer than most of them. */
enum { MAX_THREADS = 256, SPINS = 1000 };

typedef struct worker {
    pthread_t id;
    size_t index;
} worker;

/* The pool is the one piece of process-wide state in lib/base: there is one machine to share out. */
static struct {
    worker workers[MAX_THREADS];
    size_t n;
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    atomic_uint_fast64_t generation;
    atomic_size_t n_running;
    bool stop, spin;
    bal_range_fn *fn;
    void *context;
    size_t items, grain;
    bool dynamic;
    atomic_size_t next;
} g_pool = {
    .n = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .start = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static _Thread_local int g_inside;

static void run_share(size_t index)
{
    g_inside = 1;
    if (g_pool.dynamic) {
        for (;;) {
            size_t begin = atomic_fetch_add(&g_pool.next, g_pool.grain);
            if (begin >= g_pool.items)
                break;
            size_t end = begin + g_pool.grain < g_pool.items ? begin + g_pool.grain : g_pool.items;
            g_pool.fn(g_pool.context, begin, end, index);
        }
    } else {
        size_t blocks = (g_pool.items + g_pool.grain - 1) / g_pool.grain;
        size_t begin = blocks * index / g_pool.n * g_pool.grain;
        size_t end = blocks * (index + 1) / g_pool.n * g_pool.grain;
        if (end > g_pool.items)
            end = g_pool.items;
        if (begin < end)
            g_pool.fn(g_pool.context, begin, end, index);
    }
    g_inside = 0;
}

/* Tells the core that this is a waiting loop. */
static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void *worker_main(void *argument)
{
    const worker *w = argument;
    uint64_t seen = 0;
    for (;;) {
        for (int i = 0; g_pool.spin && i < SPINS && atomic_load(&g_pool.generation) == seen; i++)
            relax();
        (void)pthread_mutex_lock(&g_pool.lock);
        while (g_pool.generation == seen && !g_pool.stop)
            (void)pthread_cond_wait(&g_pool.start, &g_pool.lock);
        seen = g_pool.generation;
        bool stop = g_pool.stop;
        (void)pthread_mutex_unlock(&g_pool.lock);
        if (stop)
            return NULL;
        run_share(w->index);
        if (atomic_fetch_sub(&g_pool.n_running, 1) == 1) {
            (void)pthread_mutex_lock(&g_pool.lock); /* so that the signal cannot fall between test and wait */
            (void)pthread_cond_signal(&g_pool.done);
            (void)pthread_mutex_unlock(&g_pool.lock);
        }
    }
}

bal_status bal_threads_start(size_t n)
{
    bal_threads_stop();
    if (n == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        n = cores < 1 ? 1 : (size_t)cores;
    }
    if (n > MAX_THREADS)
        return bal_fail(BAL_EINVAL, "%zu threads were asked for; at most %d are possible", n, MAX_THREADS);
    g_pool.stop = false;
    g_pool.generation = 0;
    g_pool.n = n;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    g_pool.spin = online > 0 && n <= (size_t)online; /* with more threads than cores, waiting must give way */
    for (size_t i = 1; i < n; i++) {
        g_pool.workers[i].index = i;
        if (pthread_create(&g_pool.workers[i].id, NULL, worker_main, &g_pool.workers[i]) != 0) {
            g_pool.n = i;
            bal_threads_stop();
            return bal_fail(BAL_ENOMEM, "thread %zu of %zu cannot be started", i + 1, n);
        }
    }
    return BAL_OK;
}

void bal_threads_stop(void)
{
    if (g_pool.n > 1) {
        (void)pthread_mutex_lock(&g_pool.lock);
        g_pool.stop = true;
        (void)pthread_cond_broadcast(&g_pool.start);
        (void)pthread_mutex_unlock(&g_pool.lock);
        for (size_t i = 1; i < g_pool.n; i++)
            (void)pthread_join(g_pool.workers[i].id, NULL);
    }
    g_pool.n = 1;
}

size_t bal_threads_count(void)
{
    return g_pool.n;
}

int bal_threads_inside(void)
{
    return g_inside;
}

static void pool_run(size_t n, size_t grain, bal_range_fn *fn, void *context, bool dynamic)
{
    if (n == 0)
        return;
    if (grain == 0)
        grain = 1;
    if (g_pool.n == 1 || g_inside || n <= grain) {
        int was_inside = g_inside;
        g_inside = 1;
        fn(context, 0, n, 0);
        g_inside = was_inside;
        return;
    }
    (void)pthread_mutex_lock(&g_pool.lock);
    g_pool.fn = fn;
    g_pool.context = context;
    g_pool.items = n;
    g_pool.grain = grain;
    g_pool.dynamic = dynamic;
    atomic_store(&g_pool.next, 0);
    g_pool.n_running = g_pool.n - 1;
    g_pool.generation++;
    (void)pthread_cond_broadcast(&g_pool.start);
    (void)pthread_mutex_unlock(&g_pool.lock);
    run_share(0);
    for (int i = 0; g_pool.spin && i < SPINS && atomic_load(&g_pool.n_running) > 0; i++)
        relax();
    if (atomic_load(&g_pool.n_running) == 0)
        return;
    (void)pthread_mutex_lock(&g_pool.lock);
    while (g_pool.n_running > 0)
        (void)pthread_cond_wait(&g_pool.done, &g_pool.lock);
    (void)pthread_mutex_unlock(&g_pool.lock);
}

void bal_parallel_for(size_t n, size_t grain, bal_range_fn *fn, void *context)
{
    pool_run(n, grain, fn, context, false);
}

void bal_parallel_dynamic(size_t n, size_t grain, bal_range_fn *fn, void *context)
{
    pool_run(n, grain, fn, context, true);
}
