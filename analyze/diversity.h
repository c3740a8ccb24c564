/* How much a set of texts repeats itself.  Tokens are split at white space unless said otherwise; n-grams stay inside
 * one text.  Sources: Li et al. 2016 (distinct-n), Liu et al. 2022 (EAD), Welleck et al. 2020 (seq-rep), Zhu et al. 2018
 * (self-BLEU, with NLTK's smoothing method 1), Shaib et al. 2024 (compression ratio, self-repetition, homogenisation).
 * Undefined is NaN.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ANALYZE_DIVERSITY_H
#define BAL_ANALYZE_DIVERSITY_H

#include "lib/base/status.h"

#include <stddef.h>

typedef struct diversity_stats {
    size_t n_texts, joined_bytes, gzip_bytes;
    double unique[4], total[4];      /* n-grams, n = 1 .. 4 */
    double distinct[4], entropy[4];  /* unique / total; Shannon entropy in nats */
    double ead;                      /* unique / (V (1 - ((V-1)/V)^total)), unigrams */
    double seq_rep_2;                /* mean over texts of 1 - unique / total bigrams */
    double self_bleu_4, self_bleu_3; /* mean over texts of BLEU against all others */
    double ngram_diversity;          /* sum over n = 1..4 of unique / total, texts joined by a space */
    double self_repetition_4;        /* mean over texts of ln(1 + other texts' shares of its 4-grams) */
    double homogenization_rouge_l;   /* mean over ordered pairs of ROUGE-L F1 */
    double compression_ratio;        /* joined bytes / bytes of one gzip member, level 9 */
    double yule_k, mean_tokens, empty_share;
} diversity_stats;

/* vocab: V of EAD (0: NaN).  max_pairs_texts: self-BLEU and ROUGE-L look at the first so many texts (their cost grows
 * with the square); 0: all. */
bal_status diversity_statistics(const char *const *texts, size_t n, size_t vocab, size_t max_pairs_texts,
                                diversity_stats *out);

enum { DIVERSITY_N_NAMED = 20 };
extern const char *const diversity_names[DIVERSITY_N_NAMED];
extern const char *const diversity_conventions[DIVERSITY_N_NAMED];
void diversity_named_values(const diversity_stats *s, double values[DIVERSITY_N_NAMED]);

#endif
