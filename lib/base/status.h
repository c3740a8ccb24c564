/* Status codes and the one error message of the current thread.
 * A function that can fail returns a bal_status: BAL_OK or one of the negative codes.  The message is made
 * only by bal_fail(), which returns the code, so that neither exists without the other.  A message is one
 * sentence: what, where, which value, what to do; no prefix, no newline.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_STATUS_H
#define BAL_BASE_STATUS_H

typedef enum bal_status {
    BAL_OK = 0,
    BAL_EINVAL = -1,       /* wrong argument, option or recipe        -> exit 2 */
    BAL_EIO = -2,          /* reading or writing failed, disk full    -> exit 4 */
    BAL_ENOENT = -3,       /* file or name not there                  -> exit 3 */
    BAL_EFORMAT = -4,      /* file content is not what it should be   -> exit 3 */
    BAL_ELIMIT = -5,       /* a bound was exceeded                    -> exit 3 */
    BAL_ENOMEM = -6,       /* out of memory                           -> exit 4 */
    BAL_EUNSUPPORTED = -7, /* known, but not supported here           -> exit 3 */
    BAL_ENUMERIC = -8,     /* NaN or infinity where none may be       -> exit 3 */
    BAL_EINTERRUPT = -9,   /* SIGINT or SIGTERM; state was saved      -> exit 130 */
    BAL_EBUSY = -10,       /* locked by another process               -> exit 4 */
    BAL_EGATE = -11        /* ran, but a gate the user asked for failed -> exit 1 */
} bal_status;

/* Sets this thread's message (printf style, cut at 1023 bytes) and returns code. */
bal_status bal_fail(bal_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "<text>: " before this thread's message; returns code unchanged. */
bal_status bal_fail_note(bal_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The message of the last bal_fail() on this thread; "" if none.  Valid until the next call of bal_fail(). */
const char *bal_error_message(void);
/* The exit status of the program for code, as documented in README ("Exit status"). */
int bal_exit_status(bal_status code);

/* Inside a function with a local `bal_status status` and a label `out`. */
#define BAL_TRY(expr)                                                                                                  \
    do {                                                                                                               \
        status = (expr);                                                                                               \
        if (status != BAL_OK)                                                                                          \
            goto out;                                                                                                  \
    } while (0)

#endif
