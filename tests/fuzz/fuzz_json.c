/* Any bytes as a recipe: refused with a sentence, or written again as JSON that means the same.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/json.h"

#include "lib/base/mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static void round_trip(const cJSON *json)
{
    bal_buf first = {0}, second = {0};
    cJSON *again = NULL;
    if (bal_json_put(&first, json, true) != BAL_OK ||
        bal_json_parse(&again, bal_buf_cstr(&first), first.len, "again") != BAL_OK ||
        bal_json_put(&second, again, true) != BAL_OK)
        abort();
    for (size_t i = 0; i <= first.len; i++)
        if (bal_buf_cstr(&first)[i] != bal_buf_cstr(&second)[i])
            abort();
    cJSON_Delete(again);
    bal_buf_dispose(&first);
    bal_buf_dispose(&second);
}

/* Bytes that are no UTF-8 are written as U+FFFD: two keys may become the same. */
static bool is_utf8(const unsigned char *data, size_t n)
{
    uint32_t cp;
    for (size_t i = 0, len; i < n; i += len)
        if ((len = bal_utf8_decode(data + i, n - i, &cp)) == 0)
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    uint64_t held = bal_mem_bytes();
    cJSON *json = NULL;
    bal_status status = bal_json_parse_relaxed(&json, (const char *)data, n, "x");
    if (status == BAL_OK && is_utf8(data, n))
        round_trip(json);
    else if (status != BAL_OK && (json != NULL || bal_error_message()[0] == '\0'))
        abort();
    cJSON_Delete(json);
    if (bal_mem_bytes() != held)
        abort();
    return 0;
}
