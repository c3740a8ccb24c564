/* Any bytes as a GGUF file with a vocabulary; what is accepted encodes and decodes.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer.h"
#include "tests/fuzz/fuzz_file.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static void encode(const bal_tokenizer *t, const char *text, size_t n)
{
    bal_ids ids = {0};
    bal_buf back = {0};
    if (bal_tokenizer_encode(t, text, n, true, &ids) == BAL_OK) {
        for (size_t i = 0; i < ids.n; i++)
            if (ids.data[i] < 0 || (size_t)ids.data[i] >= bal_tokenizer_vocab_size(t))
                abort();
        (void)bal_tokenizer_decode(t, ids.data, ids.n, true, &back);
    }
    bal_ids_dispose(&ids);
    bal_buf_dispose(&back);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    static const char text[] = "The quick br\xC3\xB6wn fox, 12345 x  \n\n\xE2\x96\x81 and <s> \xFF.";
    uint64_t held = bal_mem_bytes();
    char path[200];
    bal_tokenizer *t = NULL;
    (void)snprintf(path, sizeof path, "%s/x.gguf", fuzz_folder("x.gguf", data, n));
    if (bal_tokenizer_load(&t, path) == BAL_OK) {
        encode(t, text, sizeof text - 1);
        encode(t, (const char *)data + (n > 60 ? n - 60 : 0), n > 60 ? 60 : n);
        bal_tokenizer_free(t);
    }
    if (bal_mem_bytes() != held)
        abort();
    return 0;
}
