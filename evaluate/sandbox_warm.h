/* Warm workers: a boxed interpreter that has started already and forks one process for each program.  What a program
 * finds is what a box of its own gives it (new process, mount and message namespaces, an empty /tmp, no capabilities, the
 * filter of system calls, the limits); the interpreter's start and its usual modules are not paid again.  The worker
 * itself runs none of the programs' code (sandbox/warm.py).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_SANDBOX_WARM_H
#define BAL_EVALUATE_SANDBOX_WARM_H

#include "evaluate/sandbox_box.h"

typedef struct warm_worker {
    pid_t pid;  /* of the worker; 0: none */
    int socket; /* commands there, ends back */
} warm_worker;

/* How a boxed process ended. */
typedef struct box_end {
    bool by_itself; /* before it was told to */
    bool gone;      /* with its worker: nothing is known of it */
    int how;        /* as waitpid() tells it */
    double cpu_seconds;
} box_end;

/* Starts a worker of a plan with `warm` set; code: the compiled text that ends in warm.py.  BAL_EUNSUPPORTED when it
 * does not get as far as to wait for programs. */
bal_status warm_start(const box_plan *p, const char *text, int code, warm_worker *out);
/* Ends the worker and what it runs. */
void warm_stop(warm_worker *w);
/* Has it fork a process with these descriptors.  false: the worker is no more. */
bool warm_run(const warm_worker *w, const box_fds *fds, int cpu_seconds, size_t memory_bytes);
/* Waits for the end of that process, which is killed after `grace` seconds. */
box_end warm_wait(const warm_worker *w, double grace);

#endif
