/* The run database: the machine that a run is made on.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/io/store_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Bindings cannot fail but for memory, which the step then reports as a missing value or SQLite's error. */
void bal_store_bind_text(sqlite3_stmt *st, int at, const char *text)
{
    if (text == NULL)
        (void)sqlite3_bind_null(st, at);
    else
        (void)sqlite3_bind_text(st, at, text, -1, SQLITE_TRANSIENT);
}

static void cpu_name(char *out, size_t n)
{
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    out[0] = '\0';
    while (f != NULL && out[0] == '\0' && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "model name", 10) != 0)
            continue;
        const char *colon = strchr(line, ':');
        line[strcspn(line, "\n")] = '\0';
        if (colon != NULL)
            (void)snprintf(out, n, "%s", colon + 1 + (colon[1] == ' '));
    }
    if (f != NULL)
        (void)fclose(f);
}

bal_status bal_store_host(bal_store *s, int64_t *id)
{
    struct utsname u;
    char cpu[200], text[900], print[65], kernel[300];
    sqlite3_stmt *st = NULL;
    bool row = false;
    if (uname(&u) != 0)
        return bal_fail(BAL_EIO, "the system does not tell its name: %s", strerror(errno));
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long long ram = (long long)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    cpu_name(cpu, sizeof cpu);
    (void)snprintf(kernel, sizeof kernel, "%.100s %.100s", u.release, u.machine);
    (void)snprintf(text, sizeof text, "%s|%s|%s|%s|%ld|%lld", u.nodename, u.sysname, kernel, cpu, cores, ram);
    bal_sha256_hex(text, strlen(text), print);
    bal_status status = bal_store_cached(s,
                                         "INSERT INTO host(fingerprint, hostname, os, kernel, cpu, cores, ram_bytes) "
                                         "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(fingerprint) DO UPDATE SET "
                                         "hostname = excluded.hostname RETURNING id",
                                         &st);
    if (status != BAL_OK)
        return status;
    bal_store_bind_text(st, 1, print);
    bal_store_bind_text(st, 2, u.nodename);
    bal_store_bind_text(st, 3, u.sysname);
    bal_store_bind_text(st, 4, kernel);
    bal_store_bind_text(st, 5, cpu);
    (void)sqlite3_bind_int64(st, 6, cores);
    (void)sqlite3_bind_int64(st, 7, ram);
    status = bal_store_step(s, st, &row);
    *id = row ? sqlite3_column_int64(st, 0) : 0;
    (void)sqlite3_reset(st);
    return status;
}
