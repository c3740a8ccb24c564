/* Any bytes as adapter_config.json: refused with a sentence, or a configuration that makes sense.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/peft.h"
#include "lib/base/mem.h"
#include "tests/fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    uint64_t held = bal_mem_bytes();
    peft_config c;
    bal_status status = bal_peft_config_read(&c, fuzz_folder("adapter_config.json", data, n));
    if (status == BAL_OK)
        bal_peft_config_dispose(&c);
    else if (bal_error_message()[0] == '\0')
        abort();
    if (bal_mem_bytes() != held)
        abort();
    return 0;
}
