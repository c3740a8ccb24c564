/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/write_model.h"

#include "lib/base/file.h"
#include "lib/base/str.h"
#include "lib/model/save_gguf.h"

#include <string.h>
#include <sys/stat.h>

static const char *const k_names[BAL_QUANT_COUNT] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k"};

bal_status write_file_check(const char *out, const char *input, bool overwrite)
{
    struct stat a, b;
    if (bal_folder_exists(out))
        return bal_fail(BAL_EINVAL, "--out %s is a folder; a GGUF file is written", out);
    if (!bal_file_exists(out))
        return BAL_OK;
    if (stat(out, &a) == 0 && stat(input, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return bal_fail(BAL_EINVAL, "--out %s is the file that is read; give another one", out);
    return overwrite ? BAL_OK
                     : bal_fail(BAL_EINVAL, "--out %s is there already; give another file or --overwrite", out);
}

bal_status write_model_begin(write_model_target *t, const char *out, const char *input, const char *dtype,
                             int64_t shard_mib, bool overwrite)
{
    *t = (write_model_target){.keep = strcmp(dtype, "auto") == 0, .shard_bytes = (uint64_t)shard_mib << 20};
    (void)bal_quant_parse(dtype, &t->quant); /* the table of choices holds known names only */
    if (bal_ends_with(out, ".gguf")) {
        t->file = out;
        return write_file_check(out, input, overwrite);
    }
    if (t->quant > BAL_QUANT_BF16)
        return bal_fail(BAL_EINVAL, "--dtype %s is a type of GGUF files; for a folder give f32, f16 or bf16", dtype);
    return bal_out_folder_begin(&t->folder, out, input, "config.json", overwrite);
}

static bal_dtype dtype_of(bal_quant q)
{
    return q == BAL_QUANT_F16 ? BAL_DTYPE_F16 : q == BAL_QUANT_BF16 ? BAL_DTYPE_BF16 : BAL_DTYPE_F32;
}

bal_status write_model(write_model_target *t, const bal_model *m, const bal_log *log)
{
    bal_gguf_report report = {0};
    bal_status status;
    if (t->keep) {
        bal_dtype own = bal_model_dtype(m);
        t->quant = own == BAL_DTYPE_F16 ? BAL_QUANT_F16 : own == BAL_DTYPE_BF16 ? BAL_QUANT_BF16 : BAL_QUANT_F32;
    }
    t->dtype = k_names[t->quant];
    if (t->file == NULL)
        status = bal_model_save_sharded(m, t->folder.beside, dtype_of(t->quant), t->shard_bytes, report.note,
                                        sizeof report.note);
    else
        status = bal_model_save_gguf(m, t->file, t->quant, &report);
    if (status == BAL_OK && report.note[0] != '\0')
        bal_log_line(log, BAL_LOG_WARN, "%s", report.note);
    if (status == BAL_OK && report.n_replaced > 0)
        bal_log_line(log, BAL_LOG_WARN,
                     "the rows of %zu of %zu tensors are no whole %s blocks of %zu; they were written as %s",
                     report.n_replaced, report.n_tensors, bal_quant_of(t->quant)->name, bal_quant_of(t->quant)->block,
                     report.replaced_by);
    return status;
}

bal_status write_model_end(write_model_target *t, bal_status status)
{
    return t->file != NULL ? status : bal_out_folder_end(&t->folder, status);
}
