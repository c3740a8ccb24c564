/* Inference with a cache: against the training pass, and the same bits however the tokens were cut into steps, where
 * they lay and how many threads there were.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/io/safetensors.h"
#include "lib/model/decode.h"
#include "lib/model/engine.h"
#include "lib/model/pass.h"
#include "lib/model/sample.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    HIDDEN = 36,
    HEADS = 6,
    KV_HEADS = 2,
    HEAD_DIM = 10,
    INTER = 50,
    VOCAB = 4133,
    /* more than two of the pieces that scores are made in */ LAYERS = 2,
    LENGTH = 45,
    SEQS = 5
};

static void add(bal_safetensors_writer *w, real_t **pool, bal_rng *r, const char *name, size_t rows, size_t cols)
{
    size_t shape[2] = {rows, cols}, n = rows * (cols == 0 ? 1 : cols);
    for (size_t i = 0; i < n; i++)
        (*pool)[i] = (real_t)((cols == 0 ? 1 : 0) + 0.25 * bal_rng_normal(r));
    CHECK_OK(bal_safetensors_writer_add_real(w, name, cols == 0 ? 1 : 2, shape, *pool));
    *pool += n;
}

static bool write_model(char path[512])
{
    static const struct {
        const char *name;
        size_t rows, cols;
    } parts[] = {
        {"self_attn.q_proj.weight", HEADS * HEAD_DIM, HIDDEN},
        {"self_attn.k_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN},
        {"self_attn.v_proj.weight", KV_HEADS * HEAD_DIM, HIDDEN},
        {"self_attn.o_proj.weight", HIDDEN, HEADS * HEAD_DIM},
        {"self_attn.q_proj.bias", HEADS * HEAD_DIM, 0},
        {"self_attn.k_proj.bias", KV_HEADS * HEAD_DIM, 0},
        {"self_attn.v_proj.bias", KV_HEADS * HEAD_DIM, 0},
        {"self_attn.o_proj.bias", HIDDEN, 0},
        {"mlp.gate_proj.weight", INTER, HIDDEN},
        {"mlp.up_proj.weight", INTER, HIDDEN},
        {"mlp.down_proj.weight", HIDDEN, INTER},
        {"input_layernorm.weight", HIDDEN, 0},
        {"post_attention_layernorm.weight", HIDDEN, 0},
    };
    char file[600], name[128], config[512];
    bal_safetensors_writer *w = NULL;
    bal_rng r;
    bal_rng_init(&r, 3, "model");
    real_t *values = bal_alloc(40000 + 2 * VOCAB * HIDDEN, sizeof *values), *pool = values;
    (void)snprintf(path, 512, "%s/model", test_folder());
    (void)snprintf(file, sizeof file, "%s/model.safetensors", path);
    if (!CHECK(values != NULL) || !CHECK_OK(bal_folder_make(path)) || !CHECK_OK(bal_safetensors_writer_new(&w)))
        return false;
    add(w, &pool, &r, "model.embed_tokens.weight", VOCAB, HIDDEN);
    add(w, &pool, &r, "lm_head.weight", VOCAB, HIDDEN);
    add(w, &pool, &r, "model.norm.weight", HIDDEN, 0);
    for (int l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            (void)snprintf(name, sizeof name, "model.layers.%d.%s", l, parts[i].name);
            add(w, &pool, &r, name, parts[i].rows, parts[i].cols);
        }
    CHECK(pool <= values + 40000 + 2 * VOCAB * HIDDEN);
    bool ok = CHECK_OK(bal_safetensors_writer_commit(w, file));
    bal_safetensors_writer_free(w);
    bal_free(values);
    (void)snprintf(config, sizeof config,
                   "{\"model_type\": \"llama\", \"num_hidden_layers\": %d, \"hidden_size\": %d, "
                   "\"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, "
                   "\"intermediate_size\": %d, \"vocab_size\": %d, \"attention_bias\": true, "
                   "\"max_position_embeddings\": 64, \"tie_word_embeddings\": false}",
                   LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTER, VOCAB);
    (void)snprintf(file, sizeof file, "%s/config.json", path);
    return ok && CHECK_OK(bal_file_replace(file, config, strlen(config)));
}

static int32_t token_of(size_t seq, size_t position)
{
    return (int32_t)((seq * 31 + position * 17 + position * position % 7) % VOCAB);
}

static bal_compute g_compute;

/* Scores made in pieces are those of the whole logits, bit for bit, and those of the formula. */
static bool check_scores(bal_decoder *d, size_t n, const real_t *logits)
{
    int32_t token[LENGTH] = {0};
    bal_token_score score[LENGTH];
    for (size_t i = 0; i < n; i++)
        token[i] = (int32_t)((i * 13 + 5) % VOCAB);
    if (!CHECK_OK(bal_decoder_scores(d, 0, n, token, score)))
        return false;
    for (size_t i = 0; i < n; i++) {
        const real_t *z = logits + i * VOCAB;
        bal_token_score whole = bal_logits_score(z, VOCAB, token[i]);
        CHECK(score[i].log_probability == whole.log_probability && score[i].best == whole.best);
        double sum = 0;
        size_t best = 0;
        for (size_t v = 0; v < VOCAB; v++) {
            sum += exp((double)z[v] - (double)z[token[i]]);
            best = z[v] > z[best] ? v : best;
        }
        CHECK_NEAR(score[i].log_probability, -log(sum), 1e-5);
        CHECK((size_t)score[i].best == best);
    }
    return true;
}

/* Logits of every position of one sequence, `step` tokens at a time, in slot `slot`, beside `others` other sequences. */
static bool run(const bal_model *m, size_t seq, size_t slot, size_t step, size_t others, real_t *out)
{
    bal_decoder_options o = {.slots = 6, .capacity = LENGTH, .rows = 256, .logits = 7, .compute = g_compute};
    bal_decoder *d = NULL;
    bal_decode_row rows[256];
    bool ok = CHECK_OK(bal_decoder_new(&d, m, &o));
    for (size_t begin = 0; ok && begin < LENGTH; begin += step) {
        uint32_t mine[LENGTH];
        size_t n = 0, n_mine = 0;
        for (size_t s = 0; s <= others; s++) {
            size_t at = (slot + s) % 6;
            for (size_t p = begin; p < LENGTH && p < begin + step; p++) {
                if (s == others / 2)
                    mine[n_mine++] = (uint32_t)n;
                rows[n++] = (bal_decode_row){token_of(s == others / 2 ? seq : 10 + s, p), (uint32_t)at, (uint32_t)p};
            }
        }
        uint64_t count = bal_mem_count();
        ok = CHECK_OK(bal_decoder_step(d, rows, n, mine, n_mine));
        for (size_t i = 0; ok && i < n_mine; i += 3) {
            const real_t *logits = NULL;
            size_t some = n_mine - i < 3 ? n_mine - i : 3;
            ok = CHECK_OK(bal_decoder_logits(d, i, some, &logits));
            for (size_t j = 0; ok && j < some; j++)
                memcpy(out + (begin + i + j) * VOCAB, logits + j * VOCAB, VOCAB * sizeof *out);
        }
        ok = ok && check_scores(d, n_mine, out + begin * VOCAB);
        CHECK(bal_mem_count() == count);
    }
    bal_decoder_free(d);
    return ok;
}

static void compare_with_pass(bal_model *m, const real_t *logits)
{
    bal_pass_options o = {.max_tokens = LENGTH, .max_seqs = 1, .max_seq_len = LENGTH};
    bal_pass *pass = NULL;
    bal_batch b;
    int32_t ids[LENGTH];
    for (size_t p = 0; p < LENGTH; p++)
        ids[p] = token_of(2, p);
    if (!CHECK_OK(bal_batch_init(&b, LENGTH, 1)) || !CHECK_OK(bal_pass_new(&pass, m, &o)))
        return;
    CHECK_OK(bal_batch_add(&b, ids, NULL, LENGTH));
    bal_batch_finish(&b, false);
    if (CHECK_OK(bal_pass_forward(pass, &b, BAL_STUDENT))) {
        const real_t *final = bal_pass_final(pass, BAL_STUDENT);
        real_t row[HIDDEN];
        for (size_t v = 0; v < VOCAB; v++) {
            bal_view_dequant(&m->head.w, v, 1, row, HIDDEN);
            for (size_t p = 0; p < LENGTH; p++) {
                double sum = 0;
                for (size_t i = 0; i < HIDDEN; i++)
                    sum += (double)row[i] * (double) final[p * HIDDEN + i];
                if (!CHECK_NEAR(logits[p * VOCAB + v], sum, 2e-4))
                    return;
            }
        }
    }
    bal_pass_free(pass);
    bal_batch_dispose(&b);
}

static bal_adapter *attach(bal_model *m)
{
    char all[] = "all-linear", *targets[] = {all};
    bal_adapter_config c = {.r = 3, .lora_alpha = 6, .init = "pissa", .target_modules = targets, .n_target_modules = 1};
    bal_adapter *a = NULL;
    bal_rng r;
    bal_rng_init(&r, 9, "adapter");
    if (!CHECK_OK(bal_adapter_new(&a, &c, m->modules, m->n_modules, 1, false)))
        return NULL;
    for (size_t i = 0; i < a->params.n; i++)
        a->params.values[i] += (real_t)(0.1 * bal_rng_normal(&r));
    CHECK_OK(bal_model_attach(m, a));
    return a;
}

static void same_bits(const bal_model *m, real_t *want, real_t *got)
{
    static const struct {
        size_t slot, step, others, threads;
    } cases[] = {{0, LENGTH, 0, 1}, {3, 1, 0, 1}, {5, 7, 4, 1}, {1, LENGTH, 4, 2}, {2, 1, 5, 2}, {4, 16, 2, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_OK(bal_threads_start(cases[i].threads));
        if (!run(m, 2, cases[i].slot, cases[i].step, cases[i].others, i == 0 ? want : got))
            break;
        CHECK_MSG(i == 0 || memcmp(want, got, LENGTH * VOCAB * sizeof *want) == 0, "case %zu has other bits", i);
    }
    bal_threads_stop();
}

TEST(decode_like_pass_and_same_bits)
{
    char path[512];
    bal_model *m = NULL;
    real_t *want = bal_alloc(LENGTH * VOCAB, sizeof *want), *got = bal_alloc(LENGTH * VOCAB, sizeof *got);
    if (!CHECK(want != NULL && got != NULL) || !write_model(path) || !CHECK_OK(bal_model_load(&m, path)))
        return;
    same_bits(m, want, got);
    compare_with_pass(m, want);
    bal_adapter *a = attach(m);
    if (a != NULL) {
        same_bits(m, want, got);
        compare_with_pass(m, want);
    }
    bal_model_free(m);
    bal_adapter_free(a);
    bal_free(want);
    bal_free(got);
}

/* With bf16 products the bits do not depend on the company either, and the logits are near those of f32. */
TEST(bf16_products)
{
    char path[512];
    bal_model *m = NULL;
    real_t *plain = bal_alloc(LENGTH * VOCAB, sizeof *plain), *want = bal_alloc(LENGTH * VOCAB, sizeof *want),
           *got = bal_alloc(LENGTH * VOCAB, sizeof *got);
    if (!CHECK(plain != NULL && want != NULL && got != NULL) || !write_model(path) ||
        !CHECK_OK(bal_model_load(&m, path)))
        return;
    bal_adapter *a = attach(m);
    double difference = 0, size = 0;
    CHECK(run(m, 2, 0, LENGTH, 0, plain));
    g_compute = BAL_COMPUTE_BF16;
    same_bits(m, want, got);
    g_compute = BAL_COMPUTE_F32;
    for (size_t i = 0; i < LENGTH * VOCAB; i++) {
        difference += pow((double)want[i] - (double)plain[i], 2);
        size += pow((double)plain[i], 2);
    }
    CHECK_MSG(difference > 0 && sqrt(difference / size) < 0.02, "relative difference %g", sqrt(difference / size));
    bal_model_free(m);
    bal_adapter_free(a);
    bal_free(plain);
    bal_free(want);
    bal_free(got);
}

enum {
    QUESTIONS = 9,
    CHOICES = 4,
    CONTEXT = 14,
    HEADER = 6,
    REQUESTS = QUESTIONS * CHOICES + QUESTIONS,
    NEW_TOKENS = 5
};

typedef struct asked {
    int32_t context[QUESTIONS][CONTEXT], continuation[CHOICES][3];
    bal_request requests[REQUESTS];
    size_t order[REQUESTS]; /* place in the queue -> request */
    double log_likelihood[REQUESTS];
    int32_t ids[REQUESTS][NEW_TOKENS];
    size_t n_answers;
} asked;

/* Questions that begin alike, each with its choices, and each as a prompt of its own. */
static void ask(asked *a)
{
    for (size_t q = 0; q < QUESTIONS; q++)
        for (size_t i = 0; i < CONTEXT; i++)
            a->context[q][i] = token_of(i < HEADER ? 0 : q + 1, i);
    for (size_t c = 0; c < CHOICES; c++)
        for (size_t i = 0; i < 3; i++)
            a->continuation[c][i] = token_of(c + 20, i);
    for (size_t i = 0; i < REQUESTS; i++) {
        bool choice = i < QUESTIONS * CHOICES;
        a->requests[i] = (bal_request){.kind = choice ? BAL_REQUEST_SCORE : BAL_REQUEST_GENERATE,
                                       .prompt = a->context[choice ? i / CHOICES : i - QUESTIONS * CHOICES],
                                       .n_prompt = CONTEXT,
                                       .continuation = a->continuation[i % CHOICES],
                                       .n_continuation = choice ? 1 + i % 3 : 0,
                                       .max_new_tokens = choice ? 0 : NEW_TOKENS,
                                       .ignore_eos = true};
    }
}

static bal_status take_answer(void *context, size_t i, const bal_answer *answer)
{
    asked *a = context;
    size_t r = a->order[i];
    a->log_likelihood[r] = answer->log_likelihood;
    for (size_t t = 0; t < NEW_TOKENS && a->requests[i].kind == BAL_REQUEST_GENERATE; t++)
        a->ids[r][t] = answer->ids[t];
    a->n_answers++;
    return BAL_OK;
}

/* All requests, `apart` places between neighbours; returns the tokens that were not computed. */
static size_t answer_all(const bal_model *m, asked *a, size_t batch, size_t apart)
{
    bal_engine_options o = {.batch = batch, .context = a, .answer = take_answer};
    bal_engine_stats stats = {0};
    ask(a);
    bal_request plain[REQUESTS];
    memcpy(plain, a->requests, sizeof plain);
    for (size_t i = 0; i < REQUESTS; i++) {
        a->order[i] = i * apart % REQUESTS;
        a->requests[i] = plain[a->order[i]];
    }
    CHECK_OK(bal_engine_run(m, &o, a->requests, REQUESTS, &stats));
    CHECK(a->n_answers == REQUESTS && stats.prompt_tokens == (size_t)REQUESTS * CONTEXT);
    return stats.shared_tokens;
}

/* What prompts begin with alike is computed once, also when they come at the same time, and changes no bit. */
TEST(prompts_share_their_beginning)
{
    static asked want, got;
    char path[512];
    bal_model *m = NULL;
    if (!write_model(path) || !CHECK_OK(bal_model_load(&m, path)))
        return;
    ask(&want);
    for (size_t i = 0; i < REQUESTS; i++) { /* each alone */
        bal_engine_options o = {.batch = 1, .context = &want, .answer = take_answer};
        bal_request one = want.requests[i];
        asked *a = &got;
        *a = (asked){.requests = {one}, .order = {i}};
        o.context = a;
        CHECK_OK(bal_engine_run(m, &o, &one, 1, NULL));
        want.log_likelihood[i] = a->log_likelihood[i];
        memcpy(want.ids[i], a->ids[i], sizeof want.ids[i]);
    }
    static const size_t batches[] = {1, 3, 32}, steps[] = {1, 7};
    for (size_t b = 0; b < 3; b++)
        for (size_t s = 0; s < 2; s++) {
            got = (asked){0};
            size_t shared = answer_all(m, &got, batches[b], steps[s]);
            CHECK(memcmp(got.log_likelihood, want.log_likelihood, sizeof want.log_likelihood) == 0);
            CHECK(memcmp(got.ids, want.ids, sizeof want.ids) == 0);
            /* side by side: all but the last token of every later prompt of a question, the header of each question */
            size_t least = QUESTIONS * (CHOICES - 1) * (CONTEXT - 1) + (2 * QUESTIONS - 1) * HEADER;
            least -= batches[b] == 3 ? (2 * QUESTIONS - 1) * HEADER : 0; /* slots are too few to keep all */
            if (steps[s] == 1)
                CHECK_MSG(shared >= least, "batch %zu: %zu tokens shared, not %zu", batches[b], shared, least);
            else
                CHECK(shared >= (REQUESTS - 1) * HEADER);
        }
    bal_model_free(m);
}

TEST(scores_of_logits)
{
    real_t x[50];
    for (size_t i = 0; i < 50; i++)
        x[i] = (real_t)sin((double)(i * i));
    x[7] = x[31] = 3;
    double sum = 0;
    for (size_t i = 0; i < 50; i++)
        sum += exp((double)x[i]);
    for (int32_t t = 0; t < 50; t++) {
        bal_token_score s = bal_logits_score(x, 50, t);
        CHECK(s.best == 7);
        CHECK_NEAR(s.log_probability, (double)x[t] - log(sum), 2e-6);
    }
}

TEST(sampling)
{
    enum { N = 30, DRAWS = 20000 };
    real_t x[N];
    bal_sample_item items[N];
    int count[N] = {0};
    bal_rng r;
    bal_rng_init(&r, 5, "sampling 0");
    for (size_t i = 0; i < N; i++)
        x[i] = (real_t)(i % 10) / 2;
    bal_sampling s = {.temperature = 0};
    CHECK(bal_sample(x, N, &s, &r, items) == 9);
    s = (bal_sampling){.temperature = 1, .top_k = 4};
    for (int i = 0; i < DRAWS; i++)
        count[bal_sample(x, N, &s, &r, items)]++;
    double e = exp(4.5) * 3 + exp(4.0); /* three logits of 4.5, the first of 4 */
    for (int i = 0; i < N; i++)
        CHECK_NEAR(count[i] / (double)DRAWS, i % 10 == 9 ? exp(4.5) / e : (i == 8 ? exp(4.0) / e : 0), 0.015);
    memset(count, 0, sizeof count);
    s = (bal_sampling){.temperature = 0.5, .top_p = 0.5}; /* weights 9, 8: e^9 : e^8; 3 e^9 is 63 % of all */
    for (int i = 0; i < DRAWS; i++)
        count[bal_sample(x, N, &s, &r, items)]++;
    CHECK_NEAR((count[9] + count[19] + count[29]) / (double)DRAWS, 1, 0);
    CHECK_NEAR(count[19] / (double)DRAWS, 1.0 / 3, 0.015);
}
