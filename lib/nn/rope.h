/* Rotary position embedding, half-split (element i of a head turns with element i + d/2), and its scalings.
 * Su et al. 2021, arXiv 2104.09864; linear and dynamic NTK, YaRN (Peng et al. 2023, arXiv 2309.00071) and Llama 3's
 * frequency bands with the conventions of transformers.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_ROPE_H
#define BAL_NN_ROPE_H

#include "lib/tensor/real.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum bal_rope_kind {
    BAL_ROPE_NONE,
    BAL_ROPE_DEFAULT,
    BAL_ROPE_LINEAR,
    BAL_ROPE_DYNAMIC,
    BAL_ROPE_YARN,
    BAL_ROPE_LLAMA3,
    BAL_ROPE_LONGROPE /* divisors of the frequencies, one list for short sequences and one for long ones */
} bal_rope_kind;

enum { BAL_LONGROPE_MAX = 128 };

typedef struct bal_rope_config {
    bal_rope_kind kind;
    double theta, factor, low_freq_factor, high_freq_factor, original_max_positions;
    double attention_factor, beta_fast, beta_slow; /* attention_factor 0: the default of the kind */
    bool exact_ramp; /* YaRN: the borders of the ramp are not rounded to whole dimensions */
    float short_factor[BAL_LONGROPE_MAX], long_factor[BAL_LONGROPE_MAX]; /* of the first d/2 frequencies */
} bal_rope_config;

/* Whether the frequencies of a sequence depend on its length. */
bool bal_rope_by_length(const bal_rope_config *c);
/* out[i], i < d/2: the angle per position, in radians; d: the elements of a head that turn.  factors (d/2 divisors of
 * the frequencies, as GGUF's rope_freqs) may be NULL.  length: of the sequence, where it counts (dynamic NTK, LongRoPE:
 * Ding et al. 2024, arXiv 2402.13753); 0: a short one.  Returns the factor of cos and sin (1 but for YaRN and
 * LongRoPE). */
double bal_rope_frequencies(const bal_rope_config *c, size_t d, size_t length, const double *factors, double *out);
/* cosines, sines: n x d/2; row p holds position first + p.  Angles in double. */
void bal_rope_table(const double *frequencies, size_t half, double scale, size_t first, size_t n, real_t *cosines,
                    real_t *sines);
/* Turns n tokens x heads of size d at x (row length ld) in place: token t by table row row[t].  The first `turned`
 * elements of each head turn, element i with i + turned/2; the others stay.  inverse: by minus the angle, which is the
 * backward, for the rotation is orthogonal (YaRN's factor stays). */
void bal_rope_apply(real_t *x, size_t ld, size_t n, size_t heads, size_t d, size_t turned, const real_t *cosines,
                    const real_t *sines, const uint32_t *row, bool inverse);

#endif
