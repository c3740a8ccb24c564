/* Programs that nobody has read, run where they can do no harm: each in namespaces of its own (no network, no files but
 * a read-only /usr, an empty /tmp of its own, no other process), under a filter of system calls and limits of time and
 * memory.  bubblewrap makes the namespaces where it is installed, else this program does.
 *
 * Two interpreters judge one program: the program runs in the first, its checks in the second, and only plain values
 * pass between them (sandbox/peer.py).  A program passes when the second, after the last check, writes a random word to
 * a pipe that the first never had: neither an exit status, nor an object equal to everything, nor anything the program
 * finds in its own memory says "passed".  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_SANDBOX_H
#define BAL_EVALUATE_SANDBOX_H

#include "lib/base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct sandbox sandbox;

/* 0: the value in brackets. */
typedef struct sandbox_limits {
    int cpu_seconds;     /* of each of the two processes [3, as human-eval's timeout] */
    double wall_seconds; /* of the whole [cpu_seconds + 3] */
    size_t memory_bytes; /* address space of each process [1 GiB] */
    bool cold;           /* start an interpreter for each process (slow) instead of forking waiting ones */
} sandbox_limits;

typedef struct sandbox_job {
    const char *program, *checks; /* Python; checks use the program's names */
    size_t n_program, n_checks;   /* bytes */
} sandbox_job;

typedef enum sandbox_verdict { SANDBOX_FAILED, SANDBOX_PASSED, SANDBOX_TIMED_OUT } sandbox_verdict;

typedef struct sandbox_result {
    sandbox_verdict verdict;
    double seconds;    /* wall */
    char message[256]; /* why not: the exception of a check, UTF-8 */
} sandbox_result;

/* kind: "bubblewrap", "namespaces" or NULL for the first that works, tried by a real program.  BAL_EUNSUPPORTED with
 * the reasons when none does: then nothing may be run.  limits may be NULL. */
bal_status sandbox_open(sandbox **out, const char *kind, const sandbox_limits *limits);
const char *sandbox_kind(const sandbox *s);
/* Whether its processes are forked from interpreters that wait (sandbox_warm.h), not started one by one. */
bool sandbox_is_warm(const sandbox *s);
void sandbox_close(sandbox *s); /* accepts NULL */

/* Judges n programs, as many at a time as the pool has threads (lib/base/threads.h); results[i] of jobs[i].  done, if not
 * NULL, is called after each from its thread.  BAL_EINTERRUPT after Ctrl-C, BAL_EIO when a box cannot be made. */
bal_status sandbox_run(sandbox *s, const sandbox_job *jobs, size_t n, sandbox_result *results,
                       void (*done)(void *context), void *context);
/* "passed", "failed", "timed out" */
const char *sandbox_verdict_name(sandbox_verdict v);

#endif
