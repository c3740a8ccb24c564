/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/net/curl_open.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

bal_curl bal_curl_functions;

static pthread_once_t g_once = PTHREAD_ONCE_INIT;
static const char *g_trouble; /* NULL: it is open */

static void start(void)
{
    static const struct {
        const char *name;
        void **to;
    } wanted[] = {{"curl_global_init", (void **)&bal_curl_functions.global_init},
                  {"curl_easy_init", (void **)&bal_curl_functions.easy_init},
                  {"curl_easy_setopt", (void **)&bal_curl_functions.easy_setopt},
                  {"curl_easy_perform", (void **)&bal_curl_functions.easy_perform},
                  {"curl_easy_getinfo", (void **)&bal_curl_functions.easy_getinfo},
                  {"curl_easy_reset", (void **)&bal_curl_functions.easy_reset},
                  {"curl_easy_cleanup", (void **)&bal_curl_functions.easy_cleanup},
                  {"curl_easy_strerror", (void **)&bal_curl_functions.easy_strerror},
                  {"curl_slist_append", (void **)&bal_curl_functions.slist_append},
                  {"curl_slist_free_all", (void **)&bal_curl_functions.slist_free_all}};
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    g_trouble = "libcurl (libcurl.so.4) is not there; install libcurl4";
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (library == NULL || (*wanted[i].to = dlsym(library, wanted[i].name)) == NULL)
            return;
    g_trouble = bal_curl_functions.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? NULL : "libcurl cannot be started";
}

bal_status bal_curl_open(void)
{
    (void)pthread_once(&g_once, start);
    return g_trouble == NULL ? BAL_OK : bal_fail(BAL_EIO, "%s", g_trouble);
}
