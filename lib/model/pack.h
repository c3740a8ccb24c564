/* Models whose frozen matrices are packed in memory when they are read (NF4 as QLoRA's, or a block type of GGUF), and
 * the starts that make up for what packing loses (lib/adapter/packed_start.h).
 *
 * All linear modules of the blocks are packed; embedding, head and norms stay.  With a start the matrix that everybody
 * sees is D(Q) + s B0 A0, close to the file's W: the packed part, and the adapter's initial factors beside it (bal_view).
 * The adapter has the residual form over that, so that its teacher, its files and its analysis are those of PiSSA.
 *
 * What an adapter was trained on is kept with it, so that it can be made again from the file's weights:
 *   balora/base.json          {"format":1, "type":"nf4"|...|null, "start":"pissa"|"loftq"|null, "shift":...}
 *   balora/base_shift/        factors that were taken off before packing, where they are not balora/initial
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_PACK_H
#define BAL_MODEL_PACK_H

#include "lib/adapter/packed_start.h"
#include "lib/model/model.h"

typedef struct bal_pack_report {
    size_t n_packed, n_left;          /* matrices; left: rows that are no whole blocks */
    char left[128];                   /* one of them */
    double bytes_before, bytes_after; /* of the packed ones */
    double plain, error; /* of a start: mean relative error over the modules, by packing alone and with it */
    bool packed_before;  /* the file's own weights are in blocks */
} bal_pack_report;

/* Packs m's matrices into `type`.  BAL_EINVAL for a model that is trained as a whole or was packed already. */
bal_status bal_model_pack(bal_model *m, bal_dtype type, bal_pack_report *report);
/* The same with a start for the modules of a (a LoRA with any values, bound to m's modules): fills its factors, which
 * become its residual start "pissa" or "loftq".  rounds: of packing and decomposing. */
bal_status bal_model_pack_start(bal_model *m, bal_dtype type, bal_packed_kind kind, size_t rounds, bal_adapter *a,
                                bal_pack_report *report);
/* LoftQ for a model whose file is packed already: reference has the weights in full.  Nothing is packed. */
bal_status bal_model_start_from(bal_model *m, const bal_model *reference, bal_adapter *a, bal_pack_report *report);

/* Writes dir/balora/base.json and what goes with it; nothing for a model as its file has it.  The initial factors are
 * the adapter's, saved with it. */
bal_status bal_model_save_base(const bal_model *m, const char *dir);
/* Makes m what the adapter in dir was trained on, if that says so; before the adapter is read.  A second adapter must
 * want the same.  note (may be NULL) says what was done, or "". */
bal_status bal_model_load_base(bal_model *m, const char *dir, char *note, size_t note_bytes);

#endif
