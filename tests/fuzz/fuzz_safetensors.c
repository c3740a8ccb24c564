/* Any bytes as a safetensors file: refused or accepted, always the same way.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/safetensors.h"

#include "lib/base/mem.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    uint64_t held = bal_mem_bytes();
    bal_status first = bal_safetensors_check(data, n);
    if (bal_safetensors_check(data, n) != first || bal_mem_bytes() != held)
        abort();
    if (first != BAL_OK && bal_error_message()[0] == '\0')
        abort();
    return 0;
}
