/* Records: one object of a JSON-lines file becomes pieces of text, of which some carry labels.
 *   format          fields                                        pieces
 *   prompt          prompt|query|question, response|completion|   prompt, response
 *                   answer|output
 *   alpaca          instruction, input (may be absent), output|response
 *   gsm8k           question, answer (as it is, ends "#### N")
 *   gsm8k_metamath  question, answer: the rationale without its <<...>> marks, then "The answer is: N"
 *   chat            messages (role, content) or conversations (from, value)
 *   text            text: labelled throughout
 *   tokens          input_ids, labels (may be absent): already tokenised; one row, or an array of rows
 * Templates: the model's chat template, the Alpaca text as PiSSA's and BA-LoRA's programs have it ("### Response:" and the answer follows without
 * a space), ChatML, lm-eval's question and answer, or none.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_DATA_RECORD_H
#define BAL_DATA_RECORD_H

#include "lib/base/status.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

#define BAL_DATA_FORMATS   "auto|prompt|alpaca|gsm8k|gsm8k_metamath|chat|text|tokens"
#define BAL_DATA_TEMPLATES "auto|alpaca|chat|chatml|question|none"
#define BAL_DATA_SUFFIXES  "eos|newline_eos|none"

typedef enum bal_data_format {
    BAL_DATA_AUTO,
    BAL_DATA_PROMPT,
    BAL_DATA_ALPACA,
    BAL_DATA_GSM8K,
    BAL_DATA_GSM8K_METAMATH,
    BAL_DATA_CHAT,
    BAL_DATA_TEXT,
    BAL_DATA_TOKENS,
    BAL_DATA_FORMAT_COUNT
} bal_data_format;

typedef enum bal_data_template {
    BAL_TEMPLATE_AUTO, /* alpaca for alpaca, gsm8k and gsm8k_metamath; for chat the model's chat template, chatml if it
                          has none; none for the rest */
    BAL_TEMPLATE_ALPACA,
    BAL_TEMPLATE_CHAT, /* the model's chat template; labels where the assistant speaks (lib/text/chat.h) */
    BAL_TEMPLATE_CHATML,
    BAL_TEMPLATE_QUESTION, /* "Question: ...\nAnswer:", a space, the answer: lm-eval's GSM8K prompt without shots */
    BAL_TEMPLATE_NONE
} bal_data_template;

typedef enum bal_data_suffix { BAL_SUFFIX_EOS, BAL_SUFFIX_NEWLINE_EOS, BAL_SUFFIX_NONE } bal_data_suffix;

/* The enumerators of the option texts above; BAL_EINVAL for another text. */
bal_status bal_data_parse_format(const char *text, bal_data_format *out);
bal_status bal_data_parse_template(const char *text, bal_data_template *out);
bal_status bal_data_parse_suffix(const char *text, bal_data_suffix *out);
const char *bal_data_format_name(bal_data_format f);

/* The text of a record, and where its labelled stretches begin and end. */
typedef struct bal_piece {
    size_t end; /* bytes of text up to here */
    bool labelled;
} bal_piece;
enum { BAL_MAX_PIECES = 512 };
typedef struct bal_record {
    bal_buf text;
    bal_piece pieces[BAL_MAX_PIECES];
    size_t n;
    bool whole; /* the text holds its special tokens: the tokenizer adds none */
} bal_record;

/* What a record's fields say; BAL_EFORMAT when no format fits (the message lists the fields that are known). */
bal_status bal_record_detect(const cJSON *object, const char *where, bal_data_format *out);
/* Fills r (cleared first) from an object of a format other than tokens.  where: "file, line 7" for messages.
 * eos: text of the end-of-sequence token.  tokenizer (may be NULL): its chat template may hold a default system
 * message. */
bal_status bal_record_read(bal_record *r, const cJSON *object, const char *where, bal_data_format format,
                           bal_data_template template, bal_data_suffix suffix, const char *eos,
                           const bal_tokenizer *tokenizer);
void bal_record_dispose(bal_record *r);

/* The Alpaca prompt around an instruction, and an input (NULL or "": the variant without), appended to out. */
bal_status bal_alpaca_prompt(bal_buf *out, const char *instruction, const char *input);
/* Appends text without GSM8K's calculator marks <<...>>. */
bal_status bal_gsm8k_plain(bal_buf *out, const char *text, size_t n);

#endif
