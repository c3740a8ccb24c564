/* Byte-pair encoding (Sennrich, Haddow, Birch 2016, arXiv 1508.07909) over the bytes of words: the most frequent
 * pair of neighbours becomes a token, again and again.  Pairs are counted anew for each merge: words are few after
 * equal ones are put together, and small vocabularies are what this is for.  SPDX-License-Identifier: Apache-2.0 */
#include "datasets/datasets.h"

#include "lib/base/mem.h"
#include "lib/io/json.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const k_special[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"};
enum { SPECIALS = 4, BYTES = 256, MAX_VOCAB = 8192, MAX_WORD = 64, MAX_WORDS = 1 << 20 };

typedef struct word {
    uint16_t token[MAX_WORD]; /* byte values until training, then indices into the merged alphabet */
    uint8_t n;
    uint32_t count;
} word;

struct bpe_trainer {
    word *words;
    size_t n, cap;
    uint32_t *slots; /* open addressing: word index + 1 */
    size_t n_slots;
};

bal_status bpe_trainer_new(bpe_trainer **out)
{
    bpe_trainer *t = bal_alloc(1, sizeof *t);
    *out = t;
    if (t == NULL)
        return BAL_ENOMEM;
    t->n_slots = (size_t)MAX_WORDS * 2;
    t->slots = bal_alloc(t->n_slots, sizeof *t->slots);
    if (t->slots == NULL) {
        bpe_trainer_free(t);
        *out = NULL;
        return BAL_ENOMEM;
    }
    return BAL_OK;
}

void bpe_trainer_free(bpe_trainer *t)
{
    if (t == NULL)
        return;
    bal_free(t->words);
    bal_free(t->slots);
    bal_free(t);
}

static bal_status count_word(bpe_trainer *t, const char *text, size_t n)
{
    if (n < 2 || n > MAX_WORD)
        return BAL_OK; /* nothing to merge; or too long to recur */
    uint64_t hash = 1469598103934665603ULL;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (unsigned char)text[i]) * 1099511628211ULL;
    size_t slot = hash % t->n_slots;
    for (; t->slots[slot] != 0; slot = (slot + 1) % t->n_slots) {
        word *w = &t->words[t->slots[slot] - 1];
        size_t i = 0;
        while (w->n == n && i < n && w->token[i] == (unsigned char)text[i])
            i++;
        if (w->n == n && i == n) {
            w->count += w->count < UINT32_MAX;
            return BAL_OK;
        }
    }
    if (t->n == MAX_WORDS)
        return BAL_OK; /* the million words that came first decide */
    if (t->n == t->cap) {
        size_t cap = t->cap == 0 ? 1024 : t->cap * 2;
        word *grown = bal_realloc(t->words, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        t->words = grown;
        t->cap = cap;
    }
    word *w = &t->words[t->n++];
    *w = (word){.n = (uint8_t)n, .count = 1};
    for (size_t i = 0; i < n; i++)
        w->token[i] = (unsigned char)text[i];
    t->slots[slot] = (uint32_t)t->n;
    return BAL_OK;
}

static int class_of(unsigned char c)
{
    return isdigit(c) ? 'd' : isalpha(c) || c >= 0x80 ? 'w' : isspace(c) ? ' ' : 'p';
}

/* The GPT-2 rule for ASCII: letters or marks with the space before them; digits alone; runs of white space. */
bal_status bpe_trainer_add(bpe_trainer *t, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t from = i;
        int kind = class_of((unsigned char)text[i]);
        if (kind == 'd') {
            i++; /* single digits never join anything */
            continue;
        }
        bool space = text[i] == ' ' && i + 1 < n;
        int next = space ? class_of((unsigned char)text[i + 1]) : 0;
        if (next == 'w' || next == 'p') {
            kind = next;
            i++;
        }
        while (i < n && class_of((unsigned char)text[i]) == kind)
            i++;
        if (kind == ' ' && i < n && i - from > 1 && text[i - 1] == ' ')
            i--; /* the last space belongs to the word after it */
        bal_status status = count_word(t, text + from, i - from);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

typedef struct merge {
    uint16_t left, right;
} merge;

static bool best_pair(const bpe_trainer *t, uint32_t *counts, size_t size, merge *best)
{
    uint32_t most = 1; /* a pair must occur twice */
    for (size_t w = 0; w < t->n; w++)
        for (size_t i = 0; i + 1 < t->words[w].n; i++) {
            uint32_t *c = &counts[(size_t)t->words[w].token[i] * size + t->words[w].token[i + 1]];
            *c = *c + t->words[w].count < *c ? UINT32_MAX : *c + t->words[w].count;
        }
    for (size_t w = 0; w < t->n; w++)
        for (size_t i = 0; i + 1 < t->words[w].n; i++) {
            merge m = {t->words[w].token[i], t->words[w].token[i + 1]};
            uint32_t *c = &counts[(size_t)m.left * size + m.right];
            bool smaller = m.left < best->left || (m.left == best->left && m.right < best->right);
            if (*c > most || (*c == most && most > 1 && smaller)) { /* equal counts: the pair with the smaller ids */
                most = *c;
                *best = m;
            }
        }
    for (size_t w = 0; w < t->n; w++)
        for (size_t i = 0; i + 1 < t->words[w].n; i++)
            counts[(size_t)t->words[w].token[i] * size + t->words[w].token[i + 1]] = 0;
    return most > 1;
}

static void apply(bpe_trainer *t, merge m, uint16_t token)
{
    for (size_t w = 0; w < t->n; w++) {
        word *x = &t->words[w];
        size_t n = 0;
        for (size_t i = 0; i < x->n; n++) {
            bool both = i + 1 < x->n && x->token[i] == m.left && x->token[i + 1] == m.right;
            x->token[n] = both ? token : x->token[i];
            i += both ? 2 : 1;
        }
        x->n = (uint8_t)n;
    }
}

/* GPT-2's letters for bytes: printable ones stand for themselves, the others for U+0100 onwards in order. */
static void byte_letter(unsigned byte, bal_buf *out, bal_status *status)
{
    unsigned shown = byte, rest = 0;
    for (unsigned b = 0; b <= byte; b++) {
        bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        shown = printable ? b : 256 + rest;
        rest += !printable;
    }
    unsigned char utf8[4];
    size_t n = bal_utf8_encode(shown, utf8);
    if (*status == BAL_OK)
        *status = bal_buf_append(out, utf8, n);
}

/* The bytes of all tokens: a merged token is its two halves, at most a word long. */
typedef struct spelling {
    unsigned char byte[MAX_WORD];
    uint8_t n;
} spelling;

static void spell_all(spelling *s, const merge *merges, size_t n)
{
    for (size_t i = 0; i < BYTES; i++)
        s[i] = (spelling){.byte = {(unsigned char)i}, .n = 1};
    for (size_t i = 0; i < n; i++) {
        const spelling *l = &s[merges[i].left], *r = &s[merges[i].right];
        spelling *x = &s[BYTES + i];
        *x = *l;
        memcpy(x->byte + l->n, r->byte, r->n); /* a pair occurred inside a word, so it fits */
        x->n = (uint8_t)(l->n + r->n);
    }
}

static void put_spelling(const spelling *s, bal_buf *out, bal_status *status)
{
    for (size_t i = 0; i < s->n; i++)
        byte_letter(s->byte[i], out, status);
}

static bal_status put_head(bal_buf *json)
{
    bal_status status =
        bal_buf_text(json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    for (size_t i = 0; i < SPECIALS && status == BAL_OK; i++)
        status =
            bal_buf_printf(json,
                           "%s{\"id\":%zu,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                           "\"normalized\":false,\"special\":true}",
                           i > 0 ? "," : "", i, k_special[i]);
    if (status != BAL_OK)
        return status;
    return bal_buf_text(
        json,
        "],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
        "\"individual_digits\":true},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
        "\"use_regex\":true}]},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
        "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
        "\"ignore_merges\":false,\"vocab\":{");
}

static bal_status put_vocab(bal_buf *json, const spelling *s, size_t n)
{
    bal_status status = BAL_OK;
    bal_buf text = {0};
    for (size_t i = 0; i < SPECIALS && status == BAL_OK; i++)
        status = bal_buf_printf(json, "%s\"%s\":%zu", i > 0 ? "," : "", k_special[i], i);
    for (size_t i = 0; i < n && status == BAL_OK; i++) {
        bal_buf_clear(&text);
        put_spelling(&s[i], &text, &status);
        BAL_TRY(status);
        BAL_TRY(bal_buf_text(json, ","));
        BAL_TRY(bal_json_put_textn(json, text.data, text.len));
        BAL_TRY(bal_buf_printf(json, ":%zu", i + SPECIALS));
    }
out:
    bal_buf_dispose(&text);
    return status;
}

static bal_status put_merges(bal_buf *json, const spelling *s, const merge *merges, size_t n)
{
    bal_status status = BAL_OK;
    bal_buf text = {0};
    for (size_t i = 0; i < n; i++) {
        bal_buf_clear(&text);
        put_spelling(&s[merges[i].left], &text, &status);
        if (status == BAL_OK)
            status = bal_buf_text(&text, " ");
        put_spelling(&s[merges[i].right], &text, &status);
        BAL_TRY(status);
        BAL_TRY(bal_buf_text(json, i > 0 ? "," : ""));
        BAL_TRY(bal_json_put_textn(json, text.data, text.len));
    }
out:
    bal_buf_dispose(&text);
    return status;
}

static bal_status put_json(bal_buf *json, const merge *merges, size_t n)
{
    bal_status status = BAL_OK;
    spelling *s = bal_alloc(BYTES + n, sizeof *s);
    if (s == NULL)
        return BAL_ENOMEM;
    spell_all(s, merges, n);
    BAL_TRY(put_head(json));
    BAL_TRY(put_vocab(json, s, BYTES + n));
    BAL_TRY(bal_buf_text(json, "},\"merges\":["));
    BAL_TRY(put_merges(json, s, merges, n));
    BAL_TRY(bal_buf_text(json, "]}}\n"));
out:
    bal_free(s);
    return status;
}

bal_status bpe_trainer_finish(bpe_trainer *t, size_t vocab, bal_buf *json, size_t *size)
{
    bal_status status = BAL_OK;
    merge *merges = NULL;
    uint32_t *counts = NULL;
    if (vocab < BYTES + SPECIALS || vocab > MAX_VOCAB)
        return bal_fail(BAL_EINVAL, "a vocabulary of %zu is outside %d to %d", vocab, BYTES + SPECIALS, (int)MAX_VOCAB);
    size_t all = vocab - SPECIALS, n = 0;
    merges = bal_alloc(all, sizeof *merges);
    counts = bal_alloc(all * all, sizeof *counts);
    if (merges == NULL || counts == NULL)
        BAL_TRY(BAL_ENOMEM);
    merge best = {0, 0};
    while (BYTES + n < all && best_pair(t, counts, all, &best)) {
        merges[n] = best;
        apply(t, best, (uint16_t)(BYTES + n));
        n++;
    }
    *size = SPECIALS + BYTES + n;
    BAL_TRY(put_json(json, merges, n));
out:
    bal_free(merges);
    bal_free(counts);
    return status;
}

bal_status bpe_tokenizer_config(bal_buf *json)
{
    return bal_buf_text(
        json,
        "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"add_bos_token\":false,\"bos_token\":\"<|endoftext|>\","
        "\"eos_token\":\"<|endoftext|>\",\"pad_token\":\"<|pad|>\",\"clean_up_tokenization_spaces\":false,"
        "\"chat_template\":\"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|im_start|>assistant\\n' }}{% endif %}\"}\n");
}
