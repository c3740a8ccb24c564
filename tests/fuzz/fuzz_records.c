/* A letter for the form (c: CSV, t: TSV, else JSON), and any bytes as a data file: records to its end, or one sentence.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/io/records.h"
#include "tests/fuzz/fuzz_file.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    uint64_t held = bal_mem_bytes();
    bal_records *r = NULL;
    char path[200];
    if (n == 0)
        return 0;
    const char *name = data[0] == 'c' ? "x.csv" : data[0] == 't' ? "x.tsv" : "x.json";
    (void)snprintf(path, sizeof path, "%s/%s", fuzz_folder(name, data + 1, n - 1), name);
    bal_status status = bal_records_open(&r, path);
    for (size_t i = 0; status == BAL_OK; i++) {
        cJSON *o = NULL;
        status = bal_records_next(r, &o);
        if (o == NULL)
            break;
        if (status != BAL_OK || !cJSON_IsObject(o) || i > n || bal_records_where(r)[0] == '\0')
            abort();
        cJSON_Delete(o);
    }
    if (status != BAL_OK && bal_error_message()[0] == '\0')
        abort();
    bal_records_close(r);
    if (bal_mem_bytes() != held)
        abort();
    return 0;
}
