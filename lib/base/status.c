/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 1024 };

static _Thread_local char g_message[MESSAGE_BYTES];

bal_status bal_fail(bal_status code, const char *format, ...)
{
    char text[MESSAGE_BYTES]; /* the arguments may point into g_message */
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(g_message, text, sizeof g_message);
    return code;
}

bal_status bal_fail_note(bal_status code, const char *format, ...)
{
    char note[MESSAGE_BYTES];
    char text[2 * MESSAGE_BYTES + 3];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(note, sizeof note, format, args);
    va_end(args);
    (void)snprintf(text, sizeof text, "%s: %s", note, g_message);
    text[MESSAGE_BYTES - 1] = '\0';
    memcpy(g_message, text, sizeof g_message);
    return code;
}

const char *bal_error_message(void)
{
    return g_message;
}

int bal_exit_status(bal_status code)
{
    switch (code) {
    case BAL_OK:
        return 0;
    case BAL_EGATE:
        return 1;
    case BAL_EINVAL:
        return 2;
    case BAL_ENOENT:
    case BAL_EFORMAT:
    case BAL_ELIMIT:
    case BAL_EUNSUPPORTED:
    case BAL_ENUMERIC:
        return 3;
    case BAL_EIO:
    case BAL_ENOMEM:
    case BAL_EBUSY:
        return 4;
    case BAL_EINTERRUPT:
        return 130;
    }
    return 4;
}
