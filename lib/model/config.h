/* The configuration of a model: from config.json (keys of transformers 5 and of older hub files) or the metadata of a
 * GGUF file, and back to config.json.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_CONFIG_H
#define BAL_MODEL_CONFIG_H

#include "lib/base/str.h"
#include "lib/io/gguf.h"
#include "lib/io/json.h"
#include "lib/model/families.h"

/* where: the file, for messages.  BAL_EUNSUPPORTED for a family or feature that is not there, BAL_EFORMAT for a
 * missing key or a value out of its bounds. */
bal_status bal_config_from_json(bal_model_config *c, const bal_family **family, const cJSON *json, const char *where);
bal_status bal_config_from_gguf(bal_model_config *c, const bal_family **family, const bal_gguf *g, const char *where);
/* Appends config.json for c; dtype as in transformers ("float32"). */
bal_status bal_config_to_json(bal_buf *out, const bal_model_config *c, const char *dtype);

#endif
