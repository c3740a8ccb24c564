/* What the configuration of an encoder has beside a decoder's.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/config.h"
#include "lib/model/config_impl.h"

#include <string.h>

/* Options that change the numbers and are not here. */
static bal_status refuse_options(const bal_model_config *c, const cJSON *json, const char *where)
{
    bool decoder = false;
    const char *positions = "absolute";
    bal_status status;
    BAL_TRY(bal_json_bool(json, where, "is_decoder", &decoder, NULL));
    BAL_TRY(bal_json_text(json, where, "position_embedding_type", &positions, NULL));
    if (decoder)
        status =
            bal_fail(BAL_EUNSUPPORTED, "%s: is_decoder true (a %s whose attention looks back only) is not supported",
                     where, c->model_type);
    else if (strcmp(positions, "absolute") != 0)
        status = bal_fail(BAL_EUNSUPPORTED, "%s: position_embedding_type '%.40s' is not supported; absolute is", where,
                          positions);
out:
    return status;
}

static bal_status read_size(const cJSON *json, const char *where, const char *key, int64_t max, size_t *out)
{
    int64_t value = (int64_t)*out;
    bal_status status = bal_json_i64(json, where, key, 1, max, &value, NULL);
    *out = (size_t)value;
    return status;
}

bal_status bal_config_encoder_from_json(bal_model_config *c, const bal_family *f, const cJSON *json, const char *where)
{
    size_t narrow = 128; /* ELECTRA's, when not said */
    int64_t pad = f->positions_skip_pad ? 1 : 0;
    bal_status status;
    BAL_TRY(refuse_options(c, json, where));
    c->masked = c->norm_after_add = c->no_final_norm = true;
    c->head_act = f->head_gelu ? BAL_ACT_GELU : c->act;
    if (f->hf.types != NULL) {
        c->type_rows = 2;
        BAL_TRY(read_size(json, where, "type_vocab_size", BAL_CONFIG_MAX_VOCAB, &c->type_rows));
    }
    if (f->hf.project != NULL) {
        BAL_TRY(read_size(json, where, "embedding_size", BAL_CONFIG_MAX_HIDDEN, &narrow));
        c->narrow = narrow != c->hidden ? narrow : 0;
    }
    if (bal_json_member(json, "pad_token_id") != NULL) /* not null */
        BAL_TRY(bal_json_i64(json, where, "pad_token_id", 0, (int64_t)c->vocab - 1, &pad, NULL));
    c->pad = (int32_t)pad;
    if (!f->positions_skip_pad)
        goto out;
    c->skip_pad = true;
    c->position_offset = (size_t)pad + 1;
    if (c->max_positions <= c->position_offset) {
        status = bal_fail(BAL_EFORMAT, "%s: max_position_embeddings is %zu, but the first token's position is %zu",
                          where, c->max_positions, c->position_offset);
        goto out;
    }
    c->max_positions -= c->position_offset;
out:
    return status;
}
