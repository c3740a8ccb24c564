/* WordPiece: the longest token that a word begins with, then the longest continuing one, and so on; a word that does
 * not come out is one unknown token.  WordLevel: a word is a token or unknown.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/tokenizer_impl.h"

static bal_status put_unknown(const bal_tokenizer *t, bal_ids *out)
{
    if (t->unk < 0)
        return bal_fail(BAL_EFORMAT, "a word is not in the vocabulary, and the tokenizer has no unknown token");
    return bal_ids_append(out, t->unk);
}

bal_status bal_wordpiece_encode(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out)
{
    size_t mark = out->n, chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)piece[i] & 0xC0) != 0x80;
    if (chars > t->max_word_chars)
        return put_unknown(t, out);
    for (size_t at = 0; at < n;) {
        int64_t start = at == 0 ? 0 : t->continuing;
        int32_t best = -1;
        size_t end = at;
        for (size_t i = at; start >= 0 && i < n; i++) {
            uint32_t node = bal_trie_step(&t->trie, (uint32_t)start, (unsigned char)piece[i]);
            if (node == 0)
                break;
            start = node;
            if (t->trie.ids[node] >= 0) {
                best = t->trie.ids[node];
                end = i + 1;
            }
        }
        if (best < 0) {
            out->n = mark;
            return put_unknown(t, out);
        }
        bal_status status = bal_ids_append(out, best);
        if (status != BAL_OK)
            return status;
        at = end;
    }
    return BAL_OK;
}

bal_status bal_wordlevel_encode(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out)
{
    int32_t id = bal_trie_find(&t->trie, piece, n);
    return id >= 0 ? bal_ids_append(out, id) : put_unknown(t, out);
}
