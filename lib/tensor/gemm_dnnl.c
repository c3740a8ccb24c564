/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/gemm_dnnl.h"

#include "lib/tensor/gemm.h"
#include "lib/tensor/isa.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* oneDNN's C interface, the same from version 1 to 3; dnnl_dim_t is int64_t, status 0 is success. */
typedef int sgemm_fn(char transa, char transb, int64_t M, int64_t N, int64_t K, float alpha, const float *A,
                     int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc);
typedef int bf16gemm_fn(char transa, char transb, int64_t M, int64_t N, int64_t K, float alpha, const uint16_t *A,
                        int64_t lda, const uint16_t *B, int64_t ldb, float beta, float *C, int64_t ldc);
typedef struct dnnl_version {
    int major, minor, patch;
    const char *hash;
    unsigned cpu_runtime, gpu_runtime;
} dnnl_version;
typedef const dnnl_version *version_fn(void);
typedef void set_threads_fn(int n);

static struct {
    pthread_once_t once;
    sgemm_fn *sgemm;
    bf16gemm_fn *bf16gemm;
    set_threads_fn *set_threads; /* of OpenMP, when the library was built on it: a setting of each thread */
    char version[32];
    bool aside;
} g_dnnl = {.once = PTHREAD_ONCE_INIT};

static _Thread_local bool g_one_thread;

static void use_one_thread(void)
{
    if (!g_one_thread && g_dnnl.set_threads != NULL)
        g_dnnl.set_threads(1); /* the tiles are ours: no second pool inside one */
    g_one_thread = true;
}

static bool call(bool ta, bool tb, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda,
                 const float *B, size_t ldb, float beta, float *C, size_t ldc)
{
    use_one_thread();
    return g_dnnl.sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', (int64_t)M, (int64_t)N, (int64_t)K, alpha, A, (int64_t)lda, B,
                        (int64_t)ldb, beta, C, (int64_t)ldc) == 0;
}

/* Small whole numbers, so that the sums are exact. */
static bool product_is_right(void)
{
    enum { M = 19, N = 37, K = 23 };
    static float a[M * K], b[N * K], c[M * N];
    for (int i = 0; i < M * K; i++)
        a[i] = (float)(i % 7 - 3);
    for (int i = 0; i < N * K; i++)
        b[i] = (float)(i % 11 - 5);
    for (int i = 0; i < M * N; i++)
        c[i] = 2.0F;
    if (!call(false, true, M, N, K, 2.0F, a, K, b, K, 1.0F, c, N))
        return false;
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            double sum = 2;
            for (int k = 0; k < K; k++)
                sum += 2 * (double)a[i * K + k] * (double)b[j * K + k];
            if (!(fabs((double)c[i * N + j] - sum) == 0.0))
                return false;
        }
    }
    return true;
}

static void *symbol(void *library, const char *name)
{
    return library == NULL ? NULL : dlsym(library, name);
}

static void dnnl_start(void)
{
    static const char *const names[] = {"libdnnl.so.3", "libdnnl.so.2"};
    const char *choice = getenv("BALORA_GEMM");
    void *library = NULL;
    version_fn *version;
    if (choice != NULL && strcmp(choice, "openblas") == 0)
        return;
    for (size_t i = 0; i < sizeof names / sizeof names[0] && library == NULL; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    *(void **)&g_dnnl.sgemm = symbol(library, "dnnl_sgemm");
    *(void **)&g_dnnl.bf16gemm = symbol(library, "dnnl_gemm_bf16bf16f32");
    *(void **)&g_dnnl.set_threads = symbol(library, "omp_set_num_threads");
    *(void **)&version = symbol(library, "dnnl_version");
    if (g_dnnl.sgemm == NULL || version == NULL || !product_is_right()) {
        g_dnnl.sgemm = NULL;
        return;
    }
    (void)snprintf(g_dnnl.version, sizeof g_dnnl.version, "oneDNN %d.%d.%d", version()->major, version()->minor,
                   version()->patch);
}

bool bal_dnnl_open(void)
{
    (void)pthread_once(&g_dnnl.once, dnnl_start);
    return g_dnnl.sgemm != NULL && !g_dnnl.aside;
}

void bal_dnnl_use(bool use)
{
    g_dnnl.aside = !use;
}

bool bal_dnnl_wanted(bool ta, bool tb, size_t M, size_t N, size_t K)
{
    (void)ta;
    if (bal_isa_level() < BAL_ISA_LEVEL_AVX2)
        return false;
    return tb || M > 64 || N > 64 || K > 64; /* the other library has kernels for small squares that pack nothing */
}

bool bal_dnnl_sgemm(bool ta, bool tb, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda,
                    const float *B, size_t ldb, float beta, float *C, size_t ldc)
{
    return bal_dnnl_open() && call(ta, tb, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc);
}

bool bal_dnnl_has_bf16(void)
{
    return bal_dnnl_open() && g_dnnl.bf16gemm != NULL;
}

void bal_dnnl_bf16gemm(bool tb, size_t M, size_t N, size_t K, const uint16_t *A, size_t lda, const uint16_t *B,
                       size_t ldb, float beta, float *C, size_t ldc)
{
    use_one_thread();
    (void)g_dnnl.bf16gemm('N', tb ? 'T' : 'N', (int64_t)M, (int64_t)N, (int64_t)K, 1.0F, A, (int64_t)lda, B,
                          (int64_t)ldb, beta, C, (int64_t)ldc);
}

bool bal_bf16_is_native(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512bf16") != 0 && bal_dnnl_has_bf16();
#else
    return false;
#endif
}

const char *bal_dnnl_version(void)
{
    return bal_dnnl_open() ? g_dnnl.version : NULL;
}
