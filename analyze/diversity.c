/* SPDX-License-Identifier: Apache-2.0 */
#include "analyze/diversity.h"

#include "analyze/ngrams.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <math.h>
#include <string.h>
#include <zlib.h>

#define UNDEFINED ((double)NAN)

static double ratio(double a, double b)
{
    return b > 0 ? a / b : UNDEFINED;
}

static double table_entropy(const ngram_table *t)
{
    double h = 0;
    if (t->total == 0)
        return UNDEFINED;
    for (size_t i = 0; i <= t->mask; i++)
        if (t->slots[i].count > 0) {
            double p = (double)t->slots[i].count / (double)t->total;
            h -= p * log(p);
        }
    return h;
}

static bal_status count_ngrams(const word_table *w, diversity_stats *o)
{
    for (size_t n = 1; n <= 4; n++) {
        ngram_table t;
        bal_status status = ngrams_init(&t, n, w->n_words);
        if (status != BAL_OK)
            return status;
        for (size_t i = 0; i < w->n_texts; i++)
            ngrams_add(&t, w->words + w->start[i], w->start[i + 1] - w->start[i], (uint32_t)i);
        o->unique[n - 1] = (double)t.n_distinct;
        o->total[n - 1] = (double)t.total;
        o->distinct[n - 1] = ratio((double)t.n_distinct, (double)t.total);
        o->entropy[n - 1] = table_entropy(&t);
        if (n == 1) {
            double squares = 0;
            for (size_t i = 0; i <= t.mask; i++)
                squares += (double)t.slots[i].count * (double)t.slots[i].count;
            o->yule_k =
                t.total > 0 ? 1e4 * (squares - (double)t.total) / ((double)t.total * (double)t.total) : UNDEFINED;
        }
        if (n == 4 && w->n_texts > 0) {
            double sum = 0;
            for (size_t i = 0; i < w->n_texts; i++) { /* a 4-gram that stands twice in a text counts once */
                double shared = 0;
                size_t words = w->start[i + 1] - w->start[i];
                for (size_t j = 0; j + 4 <= words; j++) {
                    const uint32_t *gram = w->words + w->start[i] + j;
                    bool earlier = false;
                    for (size_t k = 0; k < j && !earlier; k++)
                        earlier = memcmp(gram, w->words + w->start[i] + k, 4 * sizeof *gram) == 0;
                    shared += earlier ? 0 : (double)ngrams_find(&t, gram)->texts - 1;
                }
                sum += log1p(shared);
            }
            o->self_repetition_4 = sum / (double)w->n_texts;
        }
        ngrams_dispose(&t);
    }
    return BAL_OK;
}

static bal_status repetition(const word_table *w, diversity_stats *o)
{
    ngram_table t;
    double sum = 0, defined = 0;
    bal_status status = ngrams_init(&t, 2, w->n_words);
    if (status != BAL_OK)
        return status;
    for (size_t i = 0; i < w->n_texts; i++) {
        ngrams_clear(&t);
        ngrams_add(&t, w->words + w->start[i], w->start[i + 1] - w->start[i], 0);
        if (t.total > 0) {
            sum += 1 - (double)t.n_distinct / (double)t.total;
            defined++;
        }
    }
    o->seq_rep_2 = ratio(sum, defined);
    ngrams_dispose(&t);
    return BAL_OK;
}

/* The two largest counts of an n-gram over the texts, so that "the largest over all texts but i" is at hand. */
typedef struct top_counts {
    uint32_t first, second, owner;
} top_counts;

typedef struct bleu_work {
    ngram_table all; /* numbers the n-grams */
    top_counts *top;
} bleu_work;

static bal_status bleu_prepare(bleu_work *b, const word_table *w, size_t n_texts, size_t n)
{
    size_t words = w->start[n_texts];
    *b = (bleu_work){0};
    bal_status status = ngrams_init(&b->all, n, words);
    if (status != BAL_OK)
        return status;
    b->top = bal_alloc(b->all.mask + 1, sizeof *b->top);
    if (b->top == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n_texts; i++)
        ngrams_add(&b->all, w->words + w->start[i], w->start[i + 1] - w->start[i], (uint32_t)i);
    for (size_t i = 0; i < n_texts; i++) {
        const uint32_t *text = w->words + w->start[i];
        size_t len = w->start[i + 1] - w->start[i];
        for (size_t j = 0; j + n <= len; j++) { /* count of this n-gram in this text, at its first place */
            uint32_t count = 0;
            bool earlier = false;
            for (size_t k = 0; k + n <= len; k++)
                if (memcmp(text + j, text + k, n * sizeof *text) == 0) {
                    earlier = earlier || k < j;
                    count++;
                }
            if (earlier)
                continue;
            top_counts *t = &b->top[ngrams_find(&b->all, text + j) - b->all.slots];
            if (count > t->first)
                *t = (top_counts){count, t->first, (uint32_t)i};
            else if (count > t->second)
                t->second = count;
        }
    }
    return BAL_OK;
}

/* Clipped matches of text i against the others. */
static double clipped(const bleu_work *b, const uint32_t *text, size_t len, size_t n, size_t i)
{
    double sum = 0;
    for (size_t j = 0; j + n <= len; j++) {
        const top_counts *t = &b->top[ngrams_find(&b->all, text + j) - b->all.slots];
        uint32_t limit = t->owner == i && t->first > 0 ? t->second : t->first, before = 0;
        for (size_t k = 0; k < j; k++)
            before += memcmp(text + j, text + k, n * sizeof *text) == 0;
        sum += before < limit ? 1 : 0;
    }
    return sum;
}

static size_t closest_length(const word_table *w, size_t n_texts, size_t i)
{
    size_t c = w->start[i + 1] - w->start[i], best = 0, best_gap = SIZE_MAX;
    for (size_t j = 0; j < n_texts; j++) {
        size_t r = w->start[j + 1] - w->start[j], gap = r > c ? r - c : c - r;
        if (j != i && (gap < best_gap || (gap == best_gap && r < best))) {
            best = r;
            best_gap = gap;
        }
    }
    return best;
}

/* NLTK sentence_bleu with uniform weights and SmoothingFunction().method1 (epsilon 0.1). */
static bal_status self_bleu(const word_table *w, size_t n_texts, size_t order, double *out)
{
    bleu_work work[4] = {{{0}, NULL}};
    bal_status status = BAL_OK;
    double sum = 0;
    *out = UNDEFINED;
    if (n_texts < 2)
        return BAL_OK;
    for (size_t n = 1; n <= order; n++)
        BAL_TRY(bleu_prepare(&work[n - 1], w, n_texts, n));
    for (size_t i = 0; i < n_texts; i++) {
        const uint32_t *text = w->words + w->start[i];
        size_t len = w->start[i + 1] - w->start[i], r = closest_length(w, n_texts, i);
        double logs = 0;
        bool none = len == 0;
        for (size_t n = 1; n <= order && !none; n++) {
            double match = clipped(&work[n - 1], text, len, n, i);
            double total = len >= n ? (double)(len - n + 1) : 1;
            none = n == 1 && !(match > 0);
            logs += log((match > 0 ? match : 0.1) / total) / (double)order;
        }
        if (!none)
            sum += exp(logs) * (len > r ? 1 : exp(1 - (double)r / (double)len));
    }
    *out = sum / (double)n_texts;
out:
    for (size_t n = 0; n < 4; n++) {
        ngrams_dispose(&work[n].all);
        bal_free(work[n].top);
    }
    return status;
}

static size_t common_subsequence(const uint32_t *a, size_t na, const uint32_t *b, size_t nb, uint32_t *row)
{
    memset(row, 0, (nb + 1) * sizeof *row);
    for (size_t i = 0; i < na; i++) {
        uint32_t diagonal = 0;
        for (size_t j = 0; j < nb; j++) {
            uint32_t up = row[j + 1];
            row[j + 1] = a[i] == b[j] ? diagonal + 1 : up > row[j] ? up : row[j];
            diagonal = up;
        }
    }
    return row[nb];
}

static bal_status homogenization(const char *const *texts, size_t n, double *out)
{
    word_table w;
    double sum = 0;
    *out = UNDEFINED;
    if (n < 2)
        return BAL_OK;
    bal_status status = words_build(&w, texts, n, WORDS_ALNUM);
    if (status != BAL_OK)
        return status;
    uint32_t *row = bal_alloc(w.n_words + 1, sizeof *row);
    BAL_TRY(row == NULL ? BAL_ENOMEM : BAL_OK);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++) {
            size_t a = w.start[i + 1] - w.start[i], b = w.start[j + 1] - w.start[j];
            size_t l = common_subsequence(w.words + w.start[i], a, w.words + w.start[j], b, row);
            sum += a + b > 0 ? 2 * 2.0 * (double)l / (double)(a + b) : 0; /* F1 is the same both ways */
        }
    *out = sum / ((double)n * (double)(n - 1));
out:
    bal_free(row);
    words_dispose(&w);
    return status;
}

static bal_status joined_measures(const char *const *texts, size_t n, diversity_stats *o)
{
    bal_buf joined = {0};
    unsigned char *packed = NULL;
    word_table w = {0};
    ngram_table t = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            BAL_TRY(bal_buf_text(&joined, " "));
        BAL_TRY(bal_buf_text(&joined, texts[i]));
    }
    const char *text = bal_buf_cstr(&joined);
    BAL_TRY(words_build(&w, &text, 1, WORDS_SINGLE));
    o->ngram_diversity = 0;
    for (size_t k = 1; k <= 4; k++) {
        BAL_TRY(ngrams_init(&t, k, w.n_words));
        ngrams_add(&t, w.words, w.n_words, 0);
        o->ngram_diversity += t.total > 0 ? (double)t.n_distinct / (double)t.total : 0;
        ngrams_dispose(&t);
    }
    o->joined_bytes = joined.len;
    z_stream z = {0};
    uLong bound = compressBound((uLong)joined.len) + 64;
    packed = bal_alloc(bound, 1);
    if (packed == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) /* 15 + 16: one gzip member */
        BAL_TRY(bal_fail(BAL_ENOMEM, "zlib cannot start"));
    z.next_in = (Bytef *)(uintptr_t)text;
    z.avail_in = (uInt)joined.len;
    z.next_out = packed;
    z.avail_out = (uInt)bound;
    int rc = deflate(&z, Z_FINISH);
    o->gzip_bytes = (size_t)z.total_out;
    (void)deflateEnd(&z);
    if (rc != Z_STREAM_END)
        BAL_TRY(bal_fail(BAL_ELIMIT, "texts of %zu bytes cannot be compressed", joined.len));
    o->compression_ratio = ratio((double)o->joined_bytes, (double)o->gzip_bytes);
out:
    ngrams_dispose(&t);
    words_dispose(&w);
    bal_free(packed);
    bal_buf_dispose(&joined);
    return status;
}

bal_status diversity_statistics(const char *const *texts, size_t n, size_t vocab, size_t max_pairs_texts,
                                diversity_stats *out)
{
    word_table w = {0};
    bal_status status = BAL_OK;
    size_t empty = 0, paired = max_pairs_texts > 0 && max_pairs_texts < n ? max_pairs_texts : n;
    *out = (diversity_stats){.n_texts = n, .ead = UNDEFINED, .self_repetition_4 = UNDEFINED};
    if (n == 0)
        return bal_fail(BAL_EINVAL, "no texts: diversity has no value");
    BAL_TRY(words_build(&w, texts, n, WORDS_AT_SPACE));
    BAL_TRY(count_ngrams(&w, out));
    BAL_TRY(repetition(&w, out));
    BAL_TRY(self_bleu(&w, paired, 4, &out->self_bleu_4));
    BAL_TRY(self_bleu(&w, paired, 3, &out->self_bleu_3));
    BAL_TRY(homogenization(texts, paired, &out->homogenization_rouge_l));
    BAL_TRY(joined_measures(texts, n, out));
    for (size_t i = 0; i < n; i++)
        empty += w.start[i + 1] == w.start[i];
    out->empty_share = (double)empty / (double)n;
    out->mean_tokens = (double)w.n_words / (double)n;
    if (vocab > 1 && w.n_words > 0)
        out->ead = out->unique[0] / ((double)vocab * -expm1((double)w.n_words * log1p(-1 / (double)vocab)));
out:
    words_dispose(&w);
    return status;
}

const char *const diversity_names[DIVERSITY_N_NAMED] = {"distinct_1",
                                                        "distinct_2",
                                                        "distinct_3",
                                                        "distinct_4",
                                                        "entropy_1",
                                                        "entropy_2",
                                                        "entropy_3",
                                                        "entropy_4",
                                                        "ead_1",
                                                        "seq_rep_2",
                                                        "self_bleu_4",
                                                        "self_bleu_3",
                                                        "ngram_diversity_1_4",
                                                        "self_repetition_4",
                                                        "homogenization_rouge_l",
                                                        "compression_ratio",
                                                        "yule_k",
                                                        "mean_words",
                                                        "empty_share",
                                                        "texts"};

const char *const diversity_conventions[DIVERSITY_N_NAMED] = {"unique/total unigrams",
                                                              "unique/total bigrams",
                                                              "unique/total trigrams",
                                                              "unique/total 4-grams",
                                                              "nats",
                                                              "nats",
                                                              "nats",
                                                              "nats",
                                                              "expectation-adjusted distinct-1",
                                                              "mean 1 - unique/total bigrams of a text",
                                                              "NLTK method1, others as references",
                                                              "NLTK method1, others as references",
                                                              "joined by a space, sum n=1..4",
                                                              "mean ln(1 + shared 4-grams)",
                                                              "mean pairwise F1",
                                                              "bytes / gzip -9 bytes",
                                                              "1e4 (sum i^2 V_i - N)/N^2",
                                                              "words a text, split at white space",
                                                              "share of texts without a word",
                                                              "number of texts"};

void diversity_named_values(const diversity_stats *s, double v[DIVERSITY_N_NAMED])
{
    for (size_t i = 0; i < 4; i++) {
        v[i] = s->distinct[i];
        v[4 + i] = s->entropy[i];
    }
    const double rest[12] = {s->ead,
                             s->seq_rep_2,
                             s->self_bleu_4,
                             s->self_bleu_3,
                             s->ngram_diversity,
                             s->self_repetition_4,
                             s->homogenization_rouge_l,
                             s->compression_ratio,
                             s->yule_k,
                             s->mean_tokens,
                             s->empty_share,
                             (double)s->n_texts};
    memcpy(v + 8, rest, sizeof rest);
}
