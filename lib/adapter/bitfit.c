/* BitFit (Ben Zaken, Goldberg, Ravfogel 2022, 2106.10199): the biases of the model are trained and nothing else, those of
 * the norms too.  There are no sites: the copies (copies.c) are all of it.  peft has no such method, and its nearest form
 * (LoRA with bias "all") needs a pair of factors on some module: the type is our own, under the model's names
 * ("base_model.model.<module>.bias").  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/methods.h"

static bal_status describe(bal_site *s)
{
    s->n_tensors = 0;
    return BAL_OK;
}

const bal_method bal_method_bitfit = {
    .name = "bitfit",
    .title = "BitFit",
    .peft_type = "BITFIT",
    .no_rank = true,
    .no_sites = true,
    .not_in_peft = true,
    .describe = describe,
};
