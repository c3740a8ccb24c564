/* The parts of a tokenizer, shared by the files of lib/text.  Encoding runs:
 *   text -> cut at added tokens -> normalizers -> cut at added tokens of normalized text -> pre-tokenizers
 *        -> the model on each piece -> post-processor
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_TOKENIZER_IMPL_H
#define BAL_TEXT_TOKENIZER_IMPL_H

#define PCRE2_CODE_UNIT_WIDTH 8

#include "lib/io/json.h"
#include "lib/text/tokenizer.h"

#include <pcre2.h>

enum {
    BAL_MAX_VOCAB = 1 << 24,
    BAL_MAX_TOKEN_BYTES = 1 << 16,
    BAL_MAX_STEPS = 64,
    BAL_MAX_AFFIX = 64,
    BAL_MAX_ADDED = 1024
};

/* ---- hash tables (open addressing, filled at loading only) ---- */

typedef struct bal_text_map { /* text -> id; the texts belong to the vocabulary */
    uint32_t *slots;          /* id + 1, 0 = empty */
    size_t mask;
} bal_text_map;

typedef struct bal_merge {
    uint64_t key; /* left << 32 | right, +1 */
    uint32_t rank, id;
} bal_merge;

typedef struct bal_merge_map {
    bal_merge *slots;
    size_t mask;
} bal_merge_map;

typedef struct bal_token {
    const char *text; /* NUL-terminated, in the vocabulary's alphabet; NULL for a hole */
    uint32_t n;
    bool special, added;
    bool outside;      /* an added token that the model does not know */
    bool special_form; /* whether `form` is the text of a special token */
    uint32_t n_form;
    const char *form; /* what decoding sees: an added token's normalized form; NULL: text */
    float score;      /* GGUF "llama" only */
} bal_token;

typedef struct bal_added {
    const char *text; /* as it is searched for */
    uint32_t n;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized;
    char *own; /* text, when it is a normalized form; else NULL */
} bal_added;

/* Added tokens in the order of their bytes. */
typedef struct bal_added_set {
    bal_added *items;
    size_t n;
    uint32_t first[257]; /* items of byte b are first[b] .. first[b + 1] */
} bal_added_set;

/* The texts of tokens, byte by byte. */
typedef struct bal_trie {
    uint32_t *first;       /* children of node i: first[i] .. first[i + 1] */
    unsigned char *labels; /* the byte that leads to a node */
    int32_t *ids;          /* of the token that ends there, -1: none */
    size_t n;
} bal_trie;

/* ---- steps ---- */

typedef struct bal_charsmap bal_charsmap;

typedef enum bal_behavior {
    BAL_SPLIT_REMOVED,
    BAL_SPLIT_ISOLATED,
    BAL_SPLIT_MERGED_WITH_PREVIOUS,
    BAL_SPLIT_MERGED_WITH_NEXT,
    BAL_SPLIT_CONTIGUOUS
} bal_behavior;

typedef enum bal_step_kind {
    BAL_STEP_NFC,
    BAL_STEP_NFD,
    BAL_STEP_NFKC,
    BAL_STEP_NFKD,
    BAL_STEP_LOWERCASE,
    BAL_STEP_STRIP_ACCENTS,
    BAL_STEP_STRIP, /* normalizer: left, right; decoder: content, start, stop */
    BAL_STEP_REPLACE,
    BAL_STEP_PREPEND,
    BAL_STEP_SPLIT,
    BAL_STEP_BYTE_LEVEL,
    BAL_STEP_METASPACE,
    BAL_STEP_BYTE_FALLBACK,
    BAL_STEP_FUSE,
    BAL_STEP_WORDPIECE,
    BAL_STEP_BERT,
    BAL_STEP_PRECOMPILED,
    BAL_STEP_NMT,
    BAL_STEP_BPE_SUFFIX,
    BAL_STEP_CTC
} bal_step_kind;

typedef struct bal_step {
    bal_step_kind kind;
    pcre2_code *regex;          /* SPLIT, REPLACE with a pattern; NULL: literal */
    char *literal, *content;    /* SPLIT, REPLACE: what is searched; REPLACE, PREPEND, STRIP, METASPACE: text */
    bool (*is_in)(uint32_t cp); /* SPLIT: a match is one character of this set; NULL: regex or literal */
    bal_charsmap *charsmap;     /* PRECOMPILED */
    bal_behavior behavior;
    bool clean_text, handle_cjk, strip_accents, lowercase; /* BERT */
    bool invert, add_prefix_space, use_regex, left, right, split, cleanup;
    int prepend; /* METASPACE: 0 never, 1 first, 2 always */
    int start, stop;
} bal_step;

typedef struct bal_steps {
    bal_step items[BAL_MAX_STEPS];
    size_t n;
} bal_steps;

enum { BAL_NAMED_TOKENS = 7 };
extern const char *const bal_named_tokens[BAL_NAMED_TOKENS]; /* bos_token ... */

typedef enum bal_model { BAL_MODEL_BPE, BAL_MODEL_WORDPIECE, BAL_MODEL_UNIGRAM, BAL_MODEL_WORDLEVEL } bal_model;

struct bal_tokenizer {
    bal_model model;
    bal_trie trie;         /* all but BPE */
    int64_t continuing;    /* WORDPIECE: the node of "##", -1: no token begins so */
    size_t max_word_chars; /* WORDPIECE: a longer word is unknown */
    double *scores;        /* UNIGRAM: of each id */
    double unk_score;      /* UNIGRAM */
    bal_token *tokens;
    size_t n_tokens;
    char *texts; /* all token texts end to end */
    size_t n_texts, cap_texts;
    bal_text_map by_text;
    bal_merge_map merges;
    bool by_score; /* GGUF "llama": a pair merges when its text is a token, best score first */
    bool ignore_merges, fuse_unk, byte_fallback;
    unsigned char *joins_word_mark; /* BPE: a bit for each character that a token has before U+2581; NULL: never cut */
    bool unk_missing;               /* BPE: unk_token is named, but the model does not know it */
    bool first_is_marked;           /* a METASPACE "first" is there: whether a text's beginning was kept counts */
    char continuing_prefix[BAL_MAX_AFFIX], word_suffix[BAL_MAX_AFFIX]; /* BPE: of symbols inside and at the end */
    size_t n_continuing, n_word_suffix;
    int32_t unk, bos, eos, pad;
    int32_t byte_ids[256]; /* ids of <0x00> .. <0xFF>, -1 when missing */
    bal_steps normalizers, pre_tokenizers, decoders;
    bool has_decoder;
    pcre2_code *byte_level_regex;
    bal_added_set raw, normalized;  /* added tokens that are searched before and after the normalizers */
    int32_t prefix[16], suffix[16]; /* post-processor */
    size_t n_prefix, n_suffix;
    char *chat_template, *tool_template; /* the second: used when tools are given, NULL: the first */
    char *named[BAL_NAMED_TOKENS];       /* special tokens by bal_named_tokens: templates read them */
    const char *kind;
};

/* vocab.c */
bal_status bal_vocab_reserve(bal_tokenizer *t, size_t n_tokens, size_t n_bytes);
bal_status bal_vocab_add(bal_tokenizer *t, int32_t id, const char *text, size_t n);
bal_status bal_vocab_index(bal_tokenizer *t);
void bal_vocab_index_one(bal_tokenizer *t, int32_t id); /* a token that came later; room was reserved for it */
void bal_vocab_find_bytes(bal_tokenizer *t);            /* fills byte_ids */
int32_t bal_vocab_find(const bal_tokenizer *t, const char *text, size_t n);
int32_t bal_vocab_known(const bal_tokenizer *t, const char *text, size_t n); /* only tokens of the model */
bal_status bal_merges_reserve(bal_tokenizer *t, size_t n);
/* last: of equal pairs the last rank counts, not the first. */
bal_status bal_merges_add(bal_tokenizer *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t id, bool last);
const bal_merge *bal_merges_find(const bal_tokenizer *t, uint32_t left, uint32_t right);

/* added.c */
void bal_added_index(bal_added_set *s); /* sorts the items; to be called before the search */
typedef struct bal_added_scan {
    size_t at, done;    /* where the search goes on; end of what is taken */
    size_t from, begin; /* text[from..begin) stands before the token that was found */
} bal_added_scan;
/* The next added token: leftmost, of these the longest; lstrip and rstrip take the white space beside it.  NULL: none,
 * and text[from..begin) is the rest. */
const bal_added *bal_added_find(const bal_added_set *s, const char *text, size_t n, bal_added_scan *scan);

/* bpe.c: ids of one piece. */
/* Where a piece may be cut before U+2581 without a change of ids; to be called when merges and options are known. */
bal_status bal_bpe_find_cuts(bal_tokenizer *t);
/* The length of the part of piece[0..n) up to the first such place. */
size_t bal_bpe_cut(const bal_tokenizer *t, const char *piece, size_t n);
bal_status bal_bpe_encode(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out);

/* piece_cache.c: the ids of pieces, for one text. */
typedef struct bal_piece_cache bal_piece_cache;
bal_piece_cache *bal_piece_cache_new(size_t n_text); /* for a text of so many bytes; NULL: out of memory */
void bal_piece_cache_free(bal_piece_cache *c);       /* accepts NULL */
bool bal_piece_cache_get(bal_piece_cache *c, const char *piece, size_t n, bal_ids *out, bal_status *status);
void bal_piece_cache_put(bal_piece_cache *c, const char *piece, size_t n, const int32_t *ids, size_t n_ids);

/* trie.c: of the tokens that the model knows. */
bal_status bal_trie_build(bal_trie *trie, const bal_token *tokens, size_t n_tokens);
void bal_trie_dispose(bal_trie *trie);
uint32_t bal_trie_step(const bal_trie *trie, uint32_t node, unsigned char byte); /* 0: no such child; 0 is the root */
int32_t bal_trie_find(const bal_trie *trie, const char *text, size_t n);

/* wordpiece.c, unigram.c: ids of one piece. */
bal_status bal_wordpiece_encode(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out);
bal_status bal_wordlevel_encode(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out);
bal_status bal_unigram_encode(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out);

/* precompiled.c: bytes as in a SentencePiece model, or these in base64. */
bal_status bal_charsmap_read(bal_charsmap **out, const unsigned char *bytes, size_t n);
bal_status bal_charsmap_read_base64(bal_charsmap **out, const char *text);
bal_status bal_charsmap_apply(const bal_charsmap *m, const char *text, size_t n, bal_buf *out);
void bal_charsmap_free(bal_charsmap *m); /* accepts NULL */

/* char_sets.c: sets of characters as the reference has them. */
bool bal_is_space(uint32_t cp); /* the property White_Space */
bool bal_is_other(uint32_t cp); /* control, format, private use */
bool bal_is_punctuation(uint32_t cp);
bool bal_is_mark(uint32_t cp);
bool bal_is_mark_nonspacing(uint32_t cp);
bool bal_is_numeric(uint32_t cp);
bool bal_is_cjk(uint32_t cp);
bool bal_has_no_normal_form(uint32_t cp);                /* newer than the reference's tables */
size_t bal_put_lower(uint32_t cp, unsigned char out[8]); /* the small letter in UTF-8, its bytes */

/* The most that normalizers, pre-tokenizers or decoders may make of a text of n bytes: a file may name 64 steps that
 * each double it. */
static inline size_t bal_most_text(size_t n)
{
    return ((size_t)1 << 20) + 256 * n;
}

/* steps.c: a list of pieces in one text buffer. */
typedef struct bal_piece {
    size_t begin, n;
} bal_piece;
typedef struct bal_pieces {
    bal_buf text;
    bal_piece *items;
    size_t n, cap;
    bool at_zero; /* pre-tokenizers: the first piece begins where the text began */
} bal_pieces;
/* *cut (may be NULL): the first characters went, so what comes out does not begin where the text began. */
bal_status bal_normalize(const bal_tokenizer *t, const char *text, size_t n, bal_buf *out, bool *cut);
/* at_start: the piece begins the input (METASPACE "first"). */
bal_status bal_pre_tokenize(const bal_tokenizer *t, const char *text, size_t n, bool at_start, bal_pieces *out);
void bal_pieces_dispose(bal_pieces *p);
bal_status bal_replace(const bal_step *s, const char *text, size_t n, bal_buf *out);
/* *gone: it takes the text's first character away. */
bal_status bal_replaces_first(const bal_step *s, const char *text, size_t n, bool *gone);
size_t bal_space_at(const char *text, size_t n); /* bytes of the white-space character at text, 0 if there is none */

/* bytes.c: GPT-2's alphabet, in which every byte is a printable character. */
size_t bal_byte_to_char(unsigned char byte, unsigned char out[4]);
int bal_char_to_byte(uint32_t cp); /* -1: not of the alphabet */
/* Appends text with every broken part replaced by U+FFFD. */
bal_status bal_utf8_lossy(const char *text, size_t n, bal_buf *out);

/* load_steps.c: normalizer, pre_tokenizer, decoder and post_processor of a tokenizer.json. */
bal_status bal_tokenizer_read_components(bal_tokenizer *t, const cJSON *json, const char *path);
/* "path: what 'type' is not supported" */
bal_status bal_tokenizer_unknown(const char *path, const char *what, const char *type);

/* An option of a component that is true or false; otherwise: when it is not there. */
bool bal_tokenizer_flag(const cJSON *v, const char *key, bool otherwise);
bal_status bal_tokenizer_check_flags(const cJSON *v, const char *path); /* refuses an option that is neither */

/* load_json.c, load_gguf.c */
bal_status bal_tokenizer_load_json(bal_tokenizer *t, const char *path);
bal_status bal_tokenizer_read_json(bal_tokenizer *t, const cJSON *json, const char *path);
bal_status bal_tokenizer_load_gguf(bal_tokenizer *t, const char *path);
/* regex.c: a pattern in Oniguruma's dialect; where: the file, for messages. */
bal_status bal_regex_compile(pcre2_code **out, const char *pattern, const char *where);
extern const char bal_gpt2_pattern[], bal_words_pattern[];

#endif
