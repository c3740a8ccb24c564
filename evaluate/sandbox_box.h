/* One boxed process.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_SANDBOX_BOX_H
#define BAL_EVALUATE_SANDBOX_BOX_H

#include "lib/base/status.h"

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* How boxes are made on this machine: everything that a child needs between fork and exec, prepared before, since there
 * it may not allocate. */
enum { BOX_BINDS = 16, BOX_ARGS = 128, BOX_NOBODY = 65534, BOX_CODE_FD = 6 };

typedef struct box_bind {
    char from[256], to[256]; /* to: below the new root, without its first slash */
    bool link;               /* a symbolic link with the text `from` */
    bool device;             /* a file of /dev */
} box_bind;

typedef struct box_plan {
    const char *bubblewrap; /* its path; NULL: namespaces made here */
    bool drop_root;         /* change to nobody first */
    bool warm;              /* for interpreters that fork the programs' processes: these get filter and limits later */
    char python[256];
    box_bind binds[BOX_BINDS];
    size_t n_binds;
    struct sock_filter *filter;
    size_t n_filter;
    char *args[BOX_ARGS]; /* of bubblewrap, up to the interpreter */
    size_t n_args;
    char texts[4096]; /* of args */
    int cpu_seconds;
    size_t memory_bytes;
} box_plan;

/* Fills binds, python and filter.  BAL_EUNSUPPORTED when there is no python3 or no filter. */
bal_status box_plan_init(box_plan *p, const char *bubblewrap, bool drop_root, bool warm);
void box_plan_dispose(box_plan *p);

/* The file descriptors that a process gets as 0 and 3..6; -1: none.  1 and 2 go nowhere. */
typedef struct box_fds {
    int input, receive, send, result, code;
} box_fds;

/* Starts the interpreter with `text` as its program (-c).  *pid: of the process to wait for and to kill. */
bal_status box_start(const box_plan *p, const char *text, const box_fds *fds, pid_t *pid);

/* The system calls that are refused, compiled for this machine (sandbox_filter.c). */
bal_status box_filter(struct sock_filter **filter, size_t *n);

#endif
