/* libcurl, opened when the first request is about to be made: it brings some thirty libraries, whose loading would be half
 * of the start of every command.  The names below stand for its functions in the files that include this one; they may be
 * used after bal_curl_open() has said BAL_OK.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NET_CURL_OPEN_H
#define BAL_NET_CURL_OPEN_H

#include "lib/base/status.h"

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

typedef struct bal_curl {
    __typeof__(curl_global_init) *global_init;
    __typeof__(curl_easy_init) *easy_init;
    __typeof__(curl_easy_setopt) *easy_setopt;
    __typeof__(curl_easy_perform) *easy_perform;
    __typeof__(curl_easy_getinfo) *easy_getinfo;
    __typeof__(curl_easy_reset) *easy_reset;
    __typeof__(curl_easy_cleanup) *easy_cleanup;
    __typeof__(curl_easy_strerror) *easy_strerror;
    __typeof__(curl_slist_append) *slist_append;
    __typeof__(curl_slist_free_all) *slist_free_all;
} bal_curl;
extern bal_curl bal_curl_functions;

/* Opens and starts the library, once for the process.  BAL_EIO: it is not there, or does not start. */
bal_status bal_curl_open(void);

#undef curl_easy_setopt /* macros of its header, which count their arguments */
#undef curl_easy_getinfo
#define curl_easy_init      bal_curl_functions.easy_init
#define curl_easy_setopt    bal_curl_functions.easy_setopt
#define curl_easy_perform   bal_curl_functions.easy_perform
#define curl_easy_getinfo   bal_curl_functions.easy_getinfo
#define curl_easy_reset     bal_curl_functions.easy_reset
#define curl_easy_cleanup   bal_curl_functions.easy_cleanup
#define curl_easy_strerror  bal_curl_functions.easy_strerror
#define curl_slist_append   bal_curl_functions.slist_append
#define curl_slist_free_all bal_curl_functions.slist_free_all

#endif
