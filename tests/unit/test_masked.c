/* Masked language models: the forward pass and the scores against BERT's formulas written out, and what is refused.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/io/safetensors.h"
#include "lib/loss/lm_loss.h"
#include "lib/model/masked.h"
#include "lib/model/pass.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { V = 23, P = 90, D = 12, H = 3, DH = D / H, I = 20, L = 2, NARROW = 7, MAX_T = 80, MAX_TENSORS = 64, MASK = 4 };

/* What differs from kind to kind; names are those of the files. */
typedef struct kind {
    const char *type, *prefix, *transform, *norm, *bias, *config;
    size_t width;
    bool skip_pad, gelu_head, old_names, bare;
} kind;

static const kind k_bert = {.type = "bert",
                            .prefix = "bert.",
                            .transform = "cls.predictions.transform.dense",
                            .norm = "cls.predictions.transform.LayerNorm",
                            .bias = "cls.predictions.bias",
                            .config = "\"hidden_act\": \"relu\", \"layer_norm_eps\": 0.03, \"pad_token_id\": 0",
                            .width = D};
static const kind k_roberta = {.type = "roberta",
                               .prefix = "roberta.",
                               .transform = "lm_head.dense",
                               .norm = "lm_head.layer_norm",
                               .bias = "lm_head.bias",
                               .config = "\"hidden_act\": \"relu\", \"layer_norm_eps\": 0.03, \"pad_token_id\": 2",
                               .width = D,
                               .skip_pad = true,
                               .gelu_head = true};
static const kind k_electra = {
    .type = "electra",
    .prefix = "electra.",
    .transform = "generator_predictions.dense",
    .norm = "generator_predictions.LayerNorm",
    .bias = "generator_lm_head.bias",
    .config = "\"hidden_act\": \"relu\", \"layer_norm_eps\": 0.03, \"pad_token_id\": 0, \"embedding_size\": 7",
    .width = NARROW,
    .gelu_head = true};

typedef struct tensor {
    char name[128];
    size_t shape[2], n_dims;
    real_t values[(P > V ? P : V) * I];
} tensor;

static tensor g_tensors[MAX_TENSORS];
static size_t g_n;
static bal_rng g_rng;
static const kind *g_kind;

static const real_t *find(const char *name)
{
    for (size_t i = 0; i < g_n; i++)
        if (strcmp(g_tensors[i].name, name) == 0)
            return g_tensors[i].values;
    (void)CHECK_MSG(false, "no tensor %s", name);
    return g_tensors[0].values;
}

/* Random values (as f32, which the file holds) of mean `mean`; cols 0: a vector. */
static void make(const char *prefix, const char *name, size_t rows, size_t cols, double mean, double sd)
{
    tensor *t = &g_tensors[g_n++];
    (void)snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    t->shape[0] = rows;
    t->shape[1] = cols;
    t->n_dims = cols == 0 ? 1 : 2;
    for (size_t i = 0; i < rows * (cols == 0 ? 1 : cols); i++)
        t->values[i] = (real_t)(float)(mean + sd * bal_rng_normal(&g_rng));
}

static void make_linear(const char *prefix, const char *name, size_t rows, size_t cols)
{
    char full[128];
    (void)snprintf(full, sizeof full, "%.100s.weight", name);
    make(prefix, full, rows, cols, 0, 0.4);
    (void)snprintf(full, sizeof full, "%.100s.bias", name);
    make(prefix, full, rows, 0, 0, 0.3);
}

static void make_norm(const char *prefix, const char *name, size_t n)
{
    char full[128];
    (void)snprintf(full, sizeof full, "%.100s.weight", name);
    make(prefix, full, n, 0, 1, 0.3);
    (void)snprintf(full, sizeof full, "%.100s.bias", name);
    make(prefix, full, n, 0, 0, 0.3);
}

static const struct {
    const char *name;
    size_t rows, cols;
} k_linears[] = {{"attention.self.query", D, D},   {"attention.self.key", D, D}, {"attention.self.value", D, D},
                 {"attention.output.dense", D, D}, {"intermediate.dense", I, D}, {"output.dense", D, I}};

static void make_tensors(void)
{
    const char *p = g_kind->prefix;
    char name[128];
    size_t W = g_kind->width;
    g_n = 0;
    bal_rng_init(&g_rng, 5, "weights");
    make(p, "embeddings.word_embeddings.weight", V, W, 0, 0.8);
    make(p, "embeddings.position_embeddings.weight", P, W, 0, 0.5);
    make(p, "embeddings.token_type_embeddings.weight", 2, W, 0, 0.5);
    make_norm(p, "embeddings.LayerNorm", W);
    if (W != D)
        make_linear(p, "embeddings_project", D, W);
    for (size_t i = 0; i < L; i++) {
        for (size_t k = 0; k < sizeof k_linears / sizeof k_linears[0]; k++) {
            (void)snprintf(name, sizeof name, "encoder.layer.%zu.%s", i, k_linears[k].name);
            make_linear(p, name, k_linears[k].rows, k_linears[k].cols);
        }
        (void)snprintf(name, sizeof name, "encoder.layer.%zu.attention.output.LayerNorm", i);
        make_norm(p, name, D);
        (void)snprintf(name, sizeof name, "encoder.layer.%zu.output.LayerNorm", i);
        make_norm(p, name, D);
    }
    make_linear("", g_kind->transform, W, D);
    make_norm("", g_kind->norm, W);
    make("", g_kind->bias, V, 0, 0, 0.5);
}

/* The name in the file: without its prefix, and gamma and beta, where the kind says so. */
static void file_name(const char *name, char out[160])
{
    size_t skip =
        g_kind->bare && strncmp(name, g_kind->prefix, strlen(g_kind->prefix)) == 0 ? strlen(g_kind->prefix) : 0;
    const char *norm = strstr(name, "LayerNorm.");
    if (g_kind->old_names && norm != NULL)
        (void)snprintf(out, 160, "%.*s.%s", (int)(norm + 9 - name - (long)skip), name + skip,
                       norm[10] == 'w' ? "gamma" : "beta");
    else
        (void)snprintf(out, 160, "%.150s", name + skip);
}

static bool write_model(char dir[256])
{
    bal_safetensors_writer *w = NULL;
    char path[320], config[600], name[160];
    make_tensors();
    (void)snprintf(dir, 256, "%.200s/%s%d%d", test_folder(), g_kind->type, g_kind->old_names, g_kind->bare);
    (void)snprintf(
        config, sizeof config,
        "{\"model_type\": \"%s\", \"num_hidden_layers\": %d, \"hidden_size\": %d, \"num_attention_heads\": %d, "
        "\"intermediate_size\": %d, \"vocab_size\": %d, \"max_position_embeddings\": %d, "
        "\"type_vocab_size\": 2, %s}",
        g_kind->type, L, D, H, I, V, P, g_kind->config);
    if (!CHECK_OK(bal_folder_make(dir)) || !CHECK_OK(bal_safetensors_writer_new(&w)))
        return false;
    for (size_t i = 0; i < g_n; i++) {
        file_name(g_tensors[i].name, name);
        CHECK_OK(
            bal_safetensors_writer_add_real(w, name, g_tensors[i].n_dims, g_tensors[i].shape, g_tensors[i].values));
    }
    static const real_t zeros[V];
    const size_t shape = V; /* a second bias, which a tied head does not use */
    if (g_kind->old_names)
        CHECK_OK(bal_safetensors_writer_add_real(w, "cls.predictions.decoder.bias", 1, &shape, zeros));
    (void)snprintf(path, sizeof path, "%.250s/model.safetensors", dir);
    CHECK_OK(bal_safetensors_writer_commit(w, path));
    bal_safetensors_writer_free(w);
    (void)snprintf(path, sizeof path, "%.250s/config.json", dir);
    return CHECK_OK(bal_file_replace(path, config, strlen(config)));
}

/* ---- the formulas, in double ---- */

static const real_t *part(const char *prefix, const char *name, const char *suffix)
{
    char full[160];
    (void)snprintf(full, sizeof full, "%s%s%s", prefix, name, suffix);
    return find(full);
}

static void linear(const char *prefix, const char *name, size_t rows, size_t cols, const double *x, double *y)
{
    const real_t *w = part(prefix, name, ".weight"), *b = part(prefix, name, ".bias");
    for (size_t r = 0; r < rows; r++) {
        y[r] = (double)b[r];
        for (size_t c = 0; c < cols; c++)
            y[r] += (double)w[r * cols + c] * x[c];
    }
}

static void norm(const char *prefix, const char *name, size_t n, double *x)
{
    const real_t *w = part(prefix, name, ".weight"), *b = part(prefix, name, ".bias");
    double mean = 0, variance = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        variance += (x[i] - mean) * (x[i] - mean) / (double)n;
    for (size_t i = 0; i < n; i++)
        x[i] = (x[i] - mean) / sqrt(variance + 0.03) * (double)w[i] + (double)b[i];
}

static void attention(size_t layer, size_t n, double x[][D])
{
    static double q[MAX_T][D], k[MAX_T][D], v[MAX_T][D];
    char name[128];
    double(*const to[])[D] = {q, k, v};
    for (size_t t = 0; t < n; t++)
        for (size_t s = 0; s < 3; s++) {
            (void)snprintf(name, sizeof name, "encoder.layer.%zu.%s", layer, k_linears[s].name);
            linear(g_kind->prefix, name, D, D, x[t], to[s][t]);
        }
    for (size_t t = 0; t < n; t++) {
        double o[D] = {0}, y[D];
        for (size_t h = 0; h < H; h++) {
            double p[MAX_T], sum = 0;
            for (size_t j = 0; j < n; j++) {
                p[j] = 0;
                for (size_t i = h * DH; i < (h + 1) * DH; i++)
                    p[j] += q[t][i] * k[j][i] / sqrt(DH);
                p[j] = exp(p[j]);
                sum += p[j];
            }
            for (size_t j = 0; j < n; j++)
                for (size_t i = h * DH; i < (h + 1) * DH; i++)
                    o[i] += p[j] / sum * v[j][i];
        }
        (void)snprintf(name, sizeof name, "encoder.layer.%zu.attention.output.dense", layer);
        linear(g_kind->prefix, name, D, D, o, y);
        for (size_t i = 0; i < D; i++)
            x[t][i] += y[i];
        (void)snprintf(name, sizeof name, "encoder.layer.%zu.attention.output.LayerNorm", layer);
        norm(g_kind->prefix, name, D, x[t]);
    }
}

static void feed_forward(size_t layer, double *x)
{
    char name[128];
    double inner[I], y[D];
    (void)snprintf(name, sizeof name, "encoder.layer.%zu.intermediate.dense", layer);
    linear(g_kind->prefix, name, I, D, x, inner);
    for (size_t i = 0; i < I; i++)
        inner[i] = inner[i] > 0 ? inner[i] : 0;
    (void)snprintf(name, sizeof name, "encoder.layer.%zu.output.dense", layer);
    linear(g_kind->prefix, name, D, I, inner, y);
    for (size_t i = 0; i < D; i++)
        x[i] += y[i];
    (void)snprintf(name, sizeof name, "encoder.layer.%zu.output.LayerNorm", layer);
    norm(g_kind->prefix, name, D, x);
}

static void embed(const int32_t *ids, const int32_t *types, size_t n, double x[][D])
{
    const char *p = g_kind->prefix;
    size_t W = g_kind->width, next = g_kind->skip_pad ? 3 : 0;
    for (size_t t = 0; t < n; t++) {
        double e[D];
        size_t position = g_kind->skip_pad && ids[t] == 2 ? 2 : next++;
        for (size_t i = 0; i < W; i++)
            e[i] = (double)part(p, "embeddings.word_embeddings", ".weight")[(size_t)ids[t] * W + i] +
                   (double)part(p, "embeddings.position_embeddings", ".weight")[position * W + i] +
                   (double)part(p, "embeddings.token_type_embeddings", ".weight")[(size_t)types[t] * W + i];
        norm(p, "embeddings.LayerNorm", W, e);
        if (W != D)
            linear(p, "embeddings_project", D, W, e, x[t]);
        else
            memcpy(x[t], e, sizeof e);
    }
}

/* out: n x V */
static void definition(const int32_t *ids, const int32_t *types, size_t n, double out[][V])
{
    static double x[MAX_T][D];
    size_t W = g_kind->width;
    embed(ids, types, n, x);
    for (size_t i = 0; i < L; i++) {
        attention(i, n, x);
        for (size_t t = 0; t < n; t++)
            feed_forward(i, x[t]);
    }
    for (size_t t = 0; t < n; t++) {
        double h[D];
        linear("", g_kind->transform, W, D, x[t], h);
        for (size_t i = 0; i < W; i++)
            h[i] = !g_kind->gelu_head ? (h[i] > 0 ? h[i] : 0) : 0.5 * h[i] * (1 + erf(h[i] / sqrt(2)));
        norm("", g_kind->norm, W, h);
        for (size_t v = 0; v < V; v++) {
            out[t][v] = (double)find(g_kind->bias)[v];
            for (size_t i = 0; i < W; i++)
                out[t][v] += h[i] * (double)part(g_kind->prefix, "embeddings.word_embeddings", ".weight")[v * W + i];
        }
    }
}

static double log_softmax(const double *z, int32_t v)
{
    double sum = 0;
    for (size_t i = 0; i < V; i++)
        sum += exp(z[i]);
    return z[v] - log(sum);
}

/* ---- tests ---- */

static const size_t k_lengths[] = {1, 5, MAX_T, 9}; /* MAX_T: two blocks of attention */
enum { N_TEXTS = 4 };
static int32_t g_ids[N_TEXTS][MAX_T], g_types[N_TEXTS][MAX_T];

static void make_texts(void)
{
    bal_rng rng;
    bal_rng_init(&rng, 7, "texts");
    for (size_t s = 0; s < N_TEXTS; s++)
        for (size_t t = 0; t < k_lengths[s]; t++) {
            g_ids[s][t] = (int32_t)(bal_rng_next(&rng) % V); /* pad ids among them */
            g_types[s][t] = t >= k_lengths[s] / 2;
        }
}

static const double k_bound = BAL_REAL_IS_DOUBLE ? 1e-12 : 2e-5;

static void check_logits(bal_model *m)
{
    static double want[MAX_T][V];
    static real_t got[MAX_T * V];
    const bal_pass_options o = {.max_tokens = 200, .max_seqs = N_TEXTS};
    bal_batch b = {0};
    bal_pass *pass = NULL;
    if (CHECK_OK(bal_pass_new(&pass, m, &o)) && CHECK_OK(bal_batch_init(&b, 200, N_TEXTS))) {
        bal_batch_clear(&b);
        for (size_t s = 0; s < N_TEXTS; s++) {
            CHECK_OK(bal_batch_add(&b, g_ids[s], NULL, k_lengths[s]));
            bal_batch_types(&b, g_types[s]);
        }
        bal_batch_finish(&b, false);
        CHECK_OK(bal_pass_forward(pass, &b, BAL_STUDENT));
        for (size_t s = 0; s < N_TEXTS; s++) {
            uint32_t rows[MAX_T];
            double worst = 0;
            for (size_t t = 0; t < k_lengths[s]; t++)
                rows[t] = b.seq_start[s] + (uint32_t)t;
            CHECK_OK(bal_lm_logits(m, bal_pass_final(pass, BAL_STUDENT), rows, k_lengths[s], true, got));
            definition(g_ids[s], g_types[s], k_lengths[s], want);
            for (size_t i = 0; i < k_lengths[s] * V; i++) {
                double d = fabs((double)got[i] - want[i / V][i % V]);
                worst = d <= worst ? worst : d;
            }
            CHECK_MSG(worst <= k_bound, "%s: logits of text %zu differ by %g", g_kind->type, s, worst);
        }
    }
    bal_pass_free(pass);
    bal_batch_dispose(&b);
}

/* Each place of each text in turn, all at once. */
static size_t make_queries(bal_masked_query *q)
{
    size_t n = 0;
    for (size_t s = 0; s < N_TEXTS; s++)
        for (size_t t = 0; t < k_lengths[s]; t++)
            q[n++] = (bal_masked_query){.ids = g_ids[s],
                                        .types = g_types[s],
                                        .n = k_lengths[s],
                                        .at = t,
                                        .put = MASK,
                                        .target = (g_ids[s][t] + (int32_t)t) % V};
    return n;
}

enum { MAX_QUERIES = 1 + 5 + MAX_T + 9 };

static void check_scores(bal_model *m)
{
    static double want[MAX_T][V], got[MAX_QUERIES];
    static bal_masked_query q[MAX_QUERIES];
    bal_masked *s = NULL;
    size_t n = make_queries(q);
    if (!CHECK_OK(bal_masked_new(&s, m, 0, BAL_COMPUTE_F32)))
        return;
    CHECK_OK(bal_masked_ask(s, q, n, got));
    for (size_t i = 0; i < n; i++) {
        int32_t ids[MAX_T];
        double alone = 0;
        memcpy(ids, q[i].ids, q[i].n * sizeof *ids);
        ids[q[i].at] = MASK;
        definition(ids, q[i].types, q[i].n, want);
        CHECK_NEAR(got[i], log_softmax(want[q[i].at], q[i].target), k_bound);
        if (i % 7 == 0) { /* the same bits by itself */
            CHECK_OK(bal_masked_ask(s, &q[i], 1, &alone));
            CHECK_MSG(alone == got[i], "%s: question %zu alone gives %.17g, not %.17g", g_kind->type, i, alone, got[i]);
        }
    }
    bal_masked_free(s);
}

static void check_pll(bal_model *m)
{
    static double all[MAX_T], some[3], one;
    const uint32_t at[] = {3, 70, 8};
    bal_masked *s = NULL;
    if (!CHECK_OK(bal_masked_new(&s, m, MAX_T + 3, BAL_COMPUTE_F32))) /* one long text fits in a pass */
        return;
    CHECK_OK(bal_masked_pll(s, g_ids[2], g_types[2], MAX_T, NULL, 0, MASK, all));
    CHECK_OK(bal_masked_pll(s, g_ids[2], g_types[2], MAX_T, at, 3, MASK, some));
    for (size_t i = 0; i < 3; i++) {
        const bal_masked_query q = {g_ids[2], g_types[2], MAX_T, at[i], MASK, g_ids[2][at[i]]};
        CHECK_OK(bal_masked_ask(s, &q, 1, &one));
        CHECK(one == some[i] && one == all[at[i]] && one < 0);
    }
    bal_masked_free(s);
}

static void check_kind(const kind *k)
{
    char dir[256];
    bal_model *m = NULL;
    g_kind = k;
    make_texts();
    if (write_model(dir) && CHECK_OK(bal_model_load_any(&m, dir))) {
        size_t n = 0;
        for (size_t i = 0; i < g_n; i++)
            n += g_tensors[i].shape[0] * (g_tensors[i].n_dims == 1 ? 1 : g_tensors[i].shape[1]);
        CHECK(m->n_parameters == n);
        check_logits(m);
        check_scores(m);
        check_pll(m);
    }
    bal_model_free(m);
}

TEST(bert)
{
    check_kind(&k_bert);
}

TEST(roberta)
{
    check_kind(&k_roberta);
}

TEST(electra)
{
    check_kind(&k_electra);
}

/* Files of the first years: LayerNorm.gamma and beta, no prefix. */
TEST(old_names)
{
    kind k = k_bert;
    k.old_names = true;
    check_kind(&k);
    k.bare = true;
    check_kind(&k);
}

/* The number of threads changes no bit. */
TEST(threads)
{
    static double one[MAX_QUERIES], two[MAX_QUERIES];
    static bal_masked_query q[MAX_QUERIES];
    char dir[256];
    bal_model *m = NULL;
    bal_masked *s = NULL;
    g_kind = &k_roberta;
    make_texts();
    size_t n = make_queries(q);
    if (write_model(dir) && CHECK_OK(bal_model_load_any(&m, dir)) &&
        CHECK_OK(bal_masked_new(&s, m, 0, BAL_COMPUTE_F32)))
        CHECK_OK(bal_masked_ask(s, q, n, one));
    bal_masked_free(s);
    CHECK_OK(bal_threads_start(3));
    if (m != NULL && CHECK_OK(bal_masked_new(&s, m, 0, BAL_COMPUTE_F32))) {
        CHECK_OK(bal_masked_ask(s, q, n, two));
        CHECK(memcmp(one, two, n * sizeof *one) == 0);
        bal_masked_free(s);
    }
    bal_threads_stop();
    bal_model_free(m);
}

static void refuse_config(const char *keys, const char *part_of_message)
{
    kind k = k_bert;
    char dir[256];
    bal_model *m = NULL;
    k.config = keys;
    g_kind = &k;
    if (write_model(dir)) {
        CHECK(bal_model_load_any(&m, dir) != BAL_OK && m == NULL);
        CHECK_MSG(strstr(bal_error_message(), part_of_message) != NULL, "%s", bal_error_message());
    }
}

TEST(refused)
{
    static const int32_t ids[MAX_T + P] = {1, 2, 3};
    static const int32_t types[3] = {0, 1, 2};
    double out = 0;
    char dir[256];
    bal_model *m = NULL;
    bal_masked *s = NULL;
    g_kind = &k_bert;
    if (!write_model(dir))
        return;
    CHECK_STATUS(bal_model_load(&m, dir), BAL_EUNSUPPORTED);
    CHECK(strstr(bal_error_message(), "is a masked language model (bert)") != NULL && m == NULL);
    if (!CHECK_OK(bal_model_load_any(&m, dir)) || !CHECK_OK(bal_masked_new(&s, m, 0, BAL_COMPUTE_F32)))
        return;
    const bal_masked_query bad[] = {{ids, NULL, P + 1, 0, MASK, 1}, /* too long */
                                    {ids, NULL, 3, 3, MASK, 1},     {ids, NULL, 3, 0, MASK, V},
                                    {ids, NULL, 3, 0, V, 1},        {ids, types, 3, 0, MASK, 1},
                                    {ids, NULL, 0, 0, MASK, 1},     {ids, NULL, 3, 0, -1, 1}};
    CHECK_STATUS(bal_masked_ask(s, &bad[0], 1, &out), BAL_ELIMIT);
    for (size_t i = 1; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_STATUS(bal_masked_ask(s, &bad[i], 1, &out), BAL_EFORMAT);
    const bal_masked_query good = {ids, NULL, 3, 0, MASK, 1};
    CHECK_OK(bal_masked_ask(s, &good, 1, &out)); /* nothing of the bad ones is left */
    CHECK(out < 0);
    bal_masked_free(s);
    const bal_pass_options training = {.max_tokens = 4, .backward = true};
    bal_pass *pass = NULL;
    CHECK_STATUS(bal_pass_new(&pass, m, &training), BAL_EUNSUPPORTED);
    bal_model_free(m);
    CHECK_STATUS(bal_model_new(&m,
                               "{\"model_type\": \"bert\", \"num_hidden_layers\": 1, \"hidden_size\": 4, "
                               "\"num_attention_heads\": 1, \"intermediate_size\": 4, \"vocab_size\": 5}",
                               1),
                 BAL_EUNSUPPORTED);
    refuse_config("\"is_decoder\": true", "is_decoder");
    refuse_config("\"position_embedding_type\": \"relative_key\"", "relative_key");
    refuse_config("\"pad_token_id\": 23", "pad_token_id");
}

/* An encoder alone has hidden states and no scores. */
TEST(no_head)
{
    kind k = k_bert;
    char dir[256];
    bal_model *m = NULL;
    bal_masked *s = NULL;
    k.transform = "another.dense";
    k.bare = true;
    g_kind = &k;
    if (write_model(dir) && CHECK_OK(bal_model_load_any(&m, dir))) {
        CHECK_STATUS(bal_masked_new(&s, m, 0, BAL_COMPUTE_F32), BAL_EUNSUPPORTED);
        CHECK(strstr(bal_error_message(), "without a head for masked tokens") != NULL);
    }
    bal_model_free(m);
}
