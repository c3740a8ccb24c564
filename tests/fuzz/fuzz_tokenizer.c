/* Any bytes as a tokenizer.json, a NUL byte, and the text that it encodes and decodes.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    uint64_t held = bal_mem_bytes();
    const char *json = (const char *)data, *end = n > 0 ? memchr(json, '\0', n) : NULL;
    size_t n_json = end != NULL ? (size_t)(end - json) : n;
    const char *text = end != NULL ? end + 1 : json;
    size_t n_text = end != NULL ? n - n_json - 1 : n;
    bal_tokenizer *t = NULL;
    if (bal_tokenizer_parse(&t, json, n_json, "input") == BAL_OK) {
        bal_ids ids = {0};
        bal_buf back = {0};
        if (bal_tokenizer_encode(t, text, n_text, true, &ids) == BAL_OK) {
            for (size_t i = 0; i < ids.n; i++)
                if (ids.data[i] < 0 || (size_t)ids.data[i] >= bal_tokenizer_vocab_size(t))
                    abort();
            (void)bal_tokenizer_decode(t, ids.data, ids.n, false, &back);
        }
        bal_ids_dispose(&ids);
        bal_buf_dispose(&back);
        bal_tokenizer_free(t);
    }
    if (bal_mem_bytes() != held)
        abort();
    return 0;
}
