/* Messages for people, on stderr; programs own one and pass it down.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_LOG_H
#define BAL_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum bal_log_level { BAL_LOG_ERROR = 0, BAL_LOG_WARN = 1, BAL_LOG_INFO = 2, BAL_LOG_DEBUG = 3 } bal_log_level;

typedef struct bal_log {
    FILE *to; /* NULL: silent */
    bal_log_level level;
    bool color;
} bal_log;

/* stderr, info, colour if it is a terminal and NO_COLOR is unset. */
void bal_log_init(bal_log *log, bal_log_level level);
/* One line; accepts NULL.  Errors begin "balora: ", warnings "balora: warning: ". */
void bal_log_line(const bal_log *log, bal_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A progress bar on stderr: drawn only on a terminal (or forced), at most every 200 ms, with rate and ETA;
 * bal_progress_done() leaves one line. */
typedef struct bal_progress {
    FILE *to;
    const char *what, *unit;
    uint64_t total, done, before;
    double start, last;
    bool on;
    char note[96];
} bal_progress;
void bal_progress_start(bal_progress *p, const bal_log *log, const char *what, const char *unit, uint64_t total,
                        bool on);
/* note (may be NULL) is shown at the end of the bar, e.g. "loss 1.234". */
void bal_progress_update(bal_progress *p, uint64_t done, const char *note);
void bal_progress_done(bal_progress *p);
/* Ends the line of a bar that was left in the middle; bal_log_line() does so, and whoever writes to stderr itself. */
void bal_progress_break(void);

/* SIGINT and SIGTERM: the first asks the program to stop at the next safe point, the second ends it at once
 * (exit status 130, nothing half-written since files are replaced atomically). */
void bal_interrupt_install(void);
bool bal_interrupted(void);

#endif
