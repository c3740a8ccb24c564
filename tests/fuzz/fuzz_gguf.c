/* Any bytes as a GGUF file; what is accepted can be read to its last byte.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/io/gguf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

/* Sums the bytes, so that each is read. */
static unsigned touch(const void *p, size_t n)
{
    unsigned sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((const unsigned char *)p)[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    static volatile unsigned sink;
    uint64_t held = bal_mem_bytes();
    bal_gguf *g;
    if (bal_gguf_parse(&g, data, n) == BAL_OK) {
        for (size_t i = 0; i < bal_gguf_count_values(g); i++) {
            const bal_gguf_value *v = bal_gguf_value_at(g, i);
            for (size_t j = 0; j < v->n; j++)
                sink += v->texts != NULL ? touch(v->texts[j].data, v->texts[j].n) : bal_gguf_element(v, j) > 0;
        }
        for (size_t i = 0; i < bal_gguf_count_tensors(g); i++)
            sink += touch(bal_gguf_tensor_at(g, i)->data, bal_gguf_tensor_at(g, i)->n_bytes);
        bal_gguf_close(g);
    }
    (void)sink;
    if (bal_mem_bytes() != held)
        abort();
    return 0;
}
