/* Unigram: of all ways to cut a piece into tokens the one with the largest sum of scores (Viterbi's search, forward over
 * the bytes; Kudo 2018).  A character that is no token costs 10 below the smallest score.  Time: bytes times the longest
 * token.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

typedef struct node {
    double score;  /* of the best way to here */
    int32_t id;    /* its last token */
    uint32_t from; /* where that begins; NOWHERE: not reached */
} node;

enum { SMALL = 128 };
#define NOWHERE UINT32_MAX

static bool offers(const node *to, double score)
{
    return to->from == NOWHERE || score > to->score;
}

static void offer(node *to, double score, int32_t id, size_t from)
{
    if (offers(to, score))
        *to = (node){score, id, (uint32_t)from};
}

static bal_status search(const bal_tokenizer *t, const char *piece, size_t n, node *nodes)
{
    nodes[0] = (node){0, -1, 0};
    for (size_t i = 1; i <= n; i++)
        nodes[i].from = NOWHERE;
    for (size_t at = 0; at < n;) {
        uint32_t cp, k = 0;
        size_t len = bal_utf8_decode((const unsigned char *)piece + at, n - at, &cp);
        double here = nodes[at].score;
        bool single = false;
        len = len == 0 ? 1 : len;
        for (size_t i = at; i < n && (k = bal_trie_step(&t->trie, k, (unsigned char)piece[i])) != 0; i++) {
            int32_t id = t->trie.ids[k];
            if (id < 0)
                continue;
            offer(&nodes[i + 1], t->scores[id] + here, id, at);
            single = single || i + 1 == at + len;
        }
        if (!single && t->unk < 0 && offers(&nodes[at + len], t->unk_score + here))
            return bal_fail(BAL_EFORMAT,
                            "a character is not in the vocabulary, and the tokenizer has no unknown token");
        if (!single && t->unk >= 0)
            offer(&nodes[at + len], t->unk_score + here, t->unk, at);
        at += len;
    }
    return BAL_OK;
}

/* A run of unknown characters is one text.  Its ids are appended from the last to the first. */
static bal_status put_unknown(const bal_tokenizer *t, const char *text, size_t n, bal_ids *out)
{
    int32_t id = bal_trie_find(&t->trie, text, n);
    bool bytes = t->byte_fallback && id < 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && bytes; i++)
        bytes = t->byte_ids[(unsigned char)text[i]] >= 0;
    if (!bytes)
        return bal_ids_append(out, id >= 0 ? id : t->unk);
    for (size_t i = n; i > 0 && status == BAL_OK; i--)
        status = bal_ids_append(out, t->byte_ids[(unsigned char)text[i - 1]]);
    return status;
}

bal_status bal_unigram_encode(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out)
{
    node small[SMALL + 1], *nodes = small;
    size_t mark = out->n;
    bal_status status = BAL_OK;
    if (n >= NOWHERE)
        return bal_fail(BAL_ELIMIT, "a text of %zu bytes is too long for one piece", n);
    if (n > SMALL)
        nodes = bal_alloc(n + 1, sizeof *nodes);
    BAL_TRY(nodes == NULL ? BAL_ENOMEM : BAL_OK);
    BAL_TRY(search(t, piece, n, nodes));
    for (size_t end = n; end > 0;) { /* the way back */
        size_t from = nodes[end].from;
        int32_t id = nodes[end].id;
        while (id == t->unk && from > 0 && nodes[from].id == id)
            from = nodes[from].from;
        BAL_TRY(id == t->unk ? put_unknown(t, piece + from, end - from, out) : bal_ids_append(out, id));
        end = from;
    }
    for (size_t i = mark, j = out->n; i + 1 < j; i++) {
        int32_t id = out->data[i];
        out->data[i] = out->data[--j];
        out->data[j] = id;
    }
out:
    if (nodes != small)
        bal_free(nodes);
    return status;
}
