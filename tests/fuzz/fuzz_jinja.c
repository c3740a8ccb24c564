/* Any bytes as a chat template, a NUL byte, and the JSON object that it is rendered with (without one, a conversation).
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static const char k_context[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"hello\"},{\"role\":"
    "\"assistant\",\"content\":\"w\\u00f6rld\"}],\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"eos_token\":"
    "\"</s>\",\"tools\":[{\"name\":\"f\",\"parameters\":{\"a\":[1,2.5,null,true]}}],\"n\":3,\"x\":{\"b\":1,\"a\":2}}";

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    uint64_t held = bal_mem_bytes();
    const char *text = (const char *)data, *end = n > 0 ? memchr(text, '\0', n) : NULL;
    size_t length = end != NULL ? (size_t)(end - text) : n;
    cJSON *context = NULL;
    bal_buf out = {0};
    bal_stretches generation = {0};
    if (end == NULL || bal_json_parse(&context, end + 1, n - length - 1, "input") != BAL_OK ||
        !cJSON_IsObject(context)) {
        cJSON_Delete(context);
        if (bal_json_parse(&context, k_context, sizeof k_context - 1, "context") != BAL_OK)
            abort();
    }
    bal_status status = bal_jinja_render(text, length, context, 1700000000, &out, &generation);
    if (status != BAL_OK && bal_error_message()[0] == '\0')
        abort();
    for (size_t i = 0; status == BAL_OK && i < generation.n; i++)
        if (generation.items[i].begin > generation.items[i].end || generation.items[i].end > out.len)
            abort();
    bal_stretches_dispose(&generation);
    bal_buf_dispose(&out);
    cJSON_Delete(context);
    if (bal_mem_bytes() != held)
        abort();
    return 0;
}
