/* Tokenizers between tokenizer.json and the metadata of GGUF files (byte-level BPE).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_TOKENIZER_GGUF_H
#define BAL_TEXT_TOKENIZER_GGUF_H

#include "lib/io/gguf_write.h"

#include <stddef.h>

/* Adds the values "tokenizer.*" for the tokenizer.json (and tokenizer_config.json) in `folder`; ids up to `vocab` that
 * have no token get one of the type "unused".  A tokenizer that GGUF has no name for, or none at all, adds nothing
 * and says why in note. */
bal_status bal_tokenizer_write_gguf(const char *folder, size_t vocab, bal_gguf_writer *w, char *note,
                                    size_t note_bytes);
/* Writes tokenizer.json and tokenizer_config.json into dir from the metadata of a GGUF file; note as above. */
bal_status bal_tokenizer_export(const bal_gguf *g, const char *dir, char *note, size_t note_bytes);

#endif
