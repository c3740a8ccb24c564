/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

double bal_clock_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int64_t bal_clock_unix_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The number after `key` in a file of "key: value kB" lines, in bytes; -1 if not there. */
static int64_t field_bytes(const char *path, const char *key)
{
    char line[256];
    int64_t found = -1;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return -1;
    while (found < 0 && fgets(line, sizeof line, f) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            found = strtoll(line + strlen(key), NULL, 10) * 1024;
    (void)fclose(f);
    return found;
}

int64_t bal_peak_rss_bytes(void)
{
    int64_t peak = field_bytes("/proc/self/status", "VmHWM:");
    struct rusage usage;
    if (peak < 0 && getrusage(RUSAGE_SELF, &usage) == 0)
        peak = (int64_t)usage.ru_maxrss * 1024;
    return peak;
}

static int64_t number_in(const char *path)
{
    char line[64];
    int64_t value = -1;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return -1;
    if (fgets(line, sizeof line, f) != NULL && line[0] >= '0' && line[0] <= '9')
        value = strtoll(line, NULL, 10);
    (void)fclose(f);
    return value;
}

int64_t bal_free_memory_bytes(void)
{
    int64_t available = field_bytes("/proc/meminfo", "MemAvailable:");
    int64_t limit = number_in("/sys/fs/cgroup/memory.max");
    int64_t used = number_in("/sys/fs/cgroup/memory.current");
    if (limit > 0 && used >= 0 && limit - used < available)
        available = limit - used;
    struct rlimit space;
    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur < (rlim_t)INT64_MAX) { /* ulimit -v */
        int64_t held = field_bytes("/proc/self/status", "VmSize:");
        int64_t rest = (int64_t)space.rlim_cur - (held > 0 ? held : 0);
        available = available < 0 || rest < available ? (rest > 0 ? rest : 0) : available;
    }
    return available;
}
