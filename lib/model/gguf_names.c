/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/gguf_names.h"

#include <ctype.h>
#include <string.h>

enum { N_NAMES = sizeof(bal_family_names) / sizeof(const char *) };

/* name = pattern with a number for '#', followed by a dot or the end; *rest is what follows. */
static bool matches(const char *pattern, const char *name, size_t *layer, const char **rest)
{
    if (pattern == NULL)
        return false;
    const char *mark = strchr(pattern, '#');
    size_t n = mark != NULL ? (size_t)(mark - pattern) : strlen(pattern);
    if (strncmp(pattern, name, n) != 0)
        return false;
    name += n;
    *layer = 0;
    if (mark != NULL) {
        if (!isdigit((unsigned char)*name))
            return false;
        for (; isdigit((unsigned char)*name) && *layer < 1000000; name++)
            *layer = 10 * *layer + (size_t)(*name - '0');
        n = strlen(mark + 1);
        if (strncmp(mark + 1, name, n) != 0)
            return false;
        name += n;
    }
    *rest = name;
    return *name == '\0' || *name == '.';
}

bool bal_gguf_name(const bal_family *f, const char *hf, char *out, size_t n_out)
{
    const char *from[N_NAMES], *to[N_NAMES]; /* the structure holds names only */
    memcpy(from, &f->hf, sizeof from);
    memcpy(to, &f->gguf, sizeof to);
    for (size_t i = 0; i < N_NAMES; i++) {
        size_t layer;
        const char *rest;
        if (from[i] != NULL && to[i] != NULL && matches(from[i], hf, &layer, &rest))
            return bal_family_name(out, n_out, to[i], layer, rest);
    }
    return false;
}

size_t bal_gguf_turned(const bal_model *m, const bal_family *f, const char *hf)
{
    size_t layer;
    const char *rest;
    bool q_or_k =
        matches(f->hf.slot[BAL_SLOT_Q], hf, &layer, &rest) || matches(f->hf.slot[BAL_SLOT_K], hf, &layer, &rest);
    return f->gguf_permuted && q_or_k ? m->config.head_dim : 0;
}

double bal_gguf_factor(const bal_model *m, const bal_family *f, const char *hf)
{
    const char *place = f->hf.norm[BAL_NORM_Q] != NULL ? f->hf.norm[BAL_NORM_Q] : f->hf.slot[BAL_SLOT_Q];
    size_t layer;
    const char *rest;
    return f->score_scalar && matches(place, hf, &layer, &rest)
               ? m->config.attention_scale / bal_gguf_scale(f, &m->config)
               : 1;
}

size_t bal_gguf_row(size_t file_row, size_t head_dim)
{
    if (head_dim == 0)
        return file_row;
    size_t i = file_row % head_dim;
    return file_row - i + i / 2 + (i % 2) * (head_dim / 2);
}
