/* Text to ids, on one thread.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/str.h"
#include "lib/text/tokenizer.h"
#include "tools/bench.h"

enum { MAX_TEXT = 1 << 30 };

typedef struct job {
    bal_tokenizer *t;
    bal_buf text;
    bal_ids ids;
} job;

static bal_status encode_once(void *context)
{
    job *j = context;
    bal_ids_clear(&j->ids);
    return bal_tokenizer_encode(j->t, bal_buf_cstr(&j->text), j->text.len, false, &j->ids);
}

bal_status bal_bench_tokenize(cJSON *out, const bal_bench_config *c)
{
    bal_bench_times times;
    job j = {0};
    bal_status status;
    if (c->text == NULL)
        return bal_fail(BAL_EINVAL, "bench tokenize needs --text FILE");
    BAL_TRY(bal_tokenizer_load(&j.t, c->model));
    BAL_TRY(bal_file_read(c->text, MAX_TEXT, &j.text));
    BAL_TRY(bal_bench_measure(&times, c, encode_once, &j));
    bal_bench_report(out, &times, (double)j.text.len / 1e6, "MB/s", "megabytes_per_second", 0);
    (void)cJSON_AddNumberToObject(out, "bytes", (double)j.text.len);
    (void)cJSON_AddNumberToObject(out, "tokens", (double)j.ids.n);
out:
    bal_ids_dispose(&j.ids);
    bal_buf_dispose(&j.text);
    bal_tokenizer_free(j.t);
    return status;
}
