/* `balora inspect`: each kind of file is described as one JSON document, which is printed as it is (--json) or as
 * aligned text.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TOOLS_INSPECT_H
#define BAL_TOOLS_INSPECT_H

#include "lib/base/status.h"
#include "lib/io/gguf.h"
#include "lib/io/safetensors.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct bal_inspection {
    cJSON *doc;
    bool tensors, metadata, check; /* what the user asked for */
    bool short_memory;             /* an entry could not be added */
} bal_inspection;

/* Entries of any object of the document; failures are remembered in short_memory.  A NULL text adds nothing. */
void bal_inspect_text(bal_inspection *i, cJSON *object, const char *key, const char *text);
void bal_inspect_number(bal_inspection *i, cJSON *object, const char *key, double value);
void bal_inspect_bool(bal_inspection *i, cJSON *object, const char *key, bool value);
cJSON *bal_inspect_object(bal_inspection *i, cJSON *parent, const char *key); /* parent may be an array (key NULL) */
cJSON *bal_inspect_array(bal_inspection *i, cJSON *parent, const char *key);
void bal_inspect_copy(bal_inspection *i, cJSON *object, const char *key, const cJSON *value);

/* The kinds.  Each adds to i->doc. */
bal_status bal_inspect_gguf(bal_inspection *i, const char *path);
bal_status bal_inspect_safetensors(bal_inspection *i, const char *path);
bal_status bal_inspect_model_folder(bal_inspection *i, const char *dir);
bal_status bal_inspect_adapter(bal_inspection *i, const char *dir);
bal_status bal_inspect_tokenizer(bal_inspection *i, const char *path); /* tokenizer.json, or a folder with one */
bal_status bal_inspect_data(bal_inspection *i, const char *path);

/* Totals by type, and with --tensors the table; with --check a scan for NaN and infinity (BAL_ENUMERIC).  tied: an
 * output matrix equal to the embedding is not counted again. */
bal_status bal_inspect_tensor_list(bal_inspection *i, size_t n, const bal_tensor *(*at)(const void *source, size_t k),
                                   const void *source, bool tied);

/* The document as aligned text. */
void bal_inspect_print(const cJSON *doc, FILE *to);

#endif
