/* Records, templates, labels, order.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/data/dataset.h"
#include "lib/data/order.h"
#include "lib/model/batch.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

/* A tokenizer of bytes: ids 0..255 are the bytes in GPT-2's order, 256 is the end of a sequence. */
static const char *byte_tokenizer(void)
{
    static char path[256];
    bal_buf b = {0};
    (void)snprintf(path, sizeof path, "%s/tok", test_folder());
    (void)bal_folder_make(path);
    (void)bal_buf_text(&b, "{\"added_tokens\":[{\"id\":256,\"content\":\"<e>\",\"single_word\":false,\"lstrip\":false,"
                           "\"rstrip\":false,\"normalized\":false,\"special\":true}],\"normalizer\":null,"
                           "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
                           "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
                           "\"unk_token\":null,\"vocab\":{");
    unsigned rest = 0;
    for (unsigned i = 0; i < 256; i++) {
        bool printable = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        (void)bal_buf_printf(&b, "%s\"\\u%04x\":%u", i > 0 ? "," : "", printable ? i : 256 + rest, i);
        rest += !printable;
    }
    (void)bal_buf_text(&b, ",\"<e>\":256},\"merges\":[]}}");
    char file[300];
    (void)snprintf(file, sizeof file, "%s/tokenizer.json", path);
    CHECK_OK(bal_file_replace(file, b.data, b.len));
    static const char config[] = "{\"eos_token\":\"<e>\"}";
    (void)snprintf(file, sizeof file, "%s/tokenizer_config.json", path);
    CHECK_OK(bal_file_replace(file, config, sizeof config - 1));
    bal_buf_dispose(&b);
    return path;
}

static const char *data_file(const char *text)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/data.jsonl", test_folder());
    CHECK_OK(bal_file_replace(path, text, strlen(text)));
    return path;
}

/* The text of the first record with its labelled stretches in brackets. */
static void rendered(const char *json, bal_data_options o, char *out, size_t size)
{
    bal_tokenizer *t = NULL;
    bal_dataset d = {0};
    out[0] = '\0';
    if (CHECK_OK(bal_tokenizer_load(&t, byte_tokenizer())) && CHECK_OK(bal_dataset_load(&d, data_file(json), t, &o))) {
        size_t n = 0;
        bool inside = false;
        for (size_t i = 0; i < d.start[1] && n + 8 < size; i++) {
            bool labelled = d.labels[i] != BAL_LABEL_NONE;
            CHECK(!labelled || d.labels[i] == d.ids[i]);
            if (labelled != inside)
                out[n++] = labelled ? '[' : ']';
            inside = labelled;
            if (d.ids[i] == 256) {
                memcpy(out + n, "<e>", 3);
                n += 3;
            } else {
                out[n++] = (char)d.ids[i];
            }
        }
        if (inside)
            out[n++] = ']';
        out[n] = '\0';
    }
    bal_dataset_dispose(&d);
    bal_tokenizer_free(t);
}

#define ALPACA                                                                                                         \
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"    \
    "### Instruction:\n"

TEST(formats_and_templates)
{
    char got[2048];
    rendered("{\"prompt\":\"2+2=\",\"completion\":\" 4\"}", (bal_data_options){0}, got, sizeof got);
    CHECK_TEXT(got, "2+2=[ 4<e>]");
    rendered("{\"instruction\":\"Say A\",\"input\":\"\",\"output\":\"A\"}", (bal_data_options){0}, got, sizeof got);
    CHECK_TEXT(got, ALPACA "Say A\n\n### Response:[A<e>]");
    rendered("{\"instruction\":\"Add\",\"input\":\"1 2\",\"output\":\"3\"}", (bal_data_options){0}, got, sizeof got);
    CHECK(strstr(got, "paired with an input that provides further context. Write") != NULL);
    CHECK(strstr(got, "### Instruction:\nAdd\n\n### Input:\n1 2\n\n### Response:[3<e>]") != NULL);
    const char *gsm = "{\"question\":\"Q?\",\"answer\":\"1+1 = <<1+1=2>>2\\nso <<2*2=4>>4 < 5\\n#### 1,004\"}";
    rendered(gsm, (bal_data_options){0}, got, sizeof got);
    CHECK_TEXT(got, ALPACA "Q?\n\n### Response:[1+1 = <<1+1=2>>2\nso <<2*2=4>>4 < 5\n#### 1,004<e>]");
    rendered(gsm, (bal_data_options){.format = BAL_DATA_GSM8K_METAMATH, .suffix = BAL_SUFFIX_NEWLINE_EOS}, got,
             sizeof got);
    CHECK_TEXT(got, ALPACA "Q?\n\n### Response:[1+1 = 2\nso 4 < 5\nThe answer is: 1,004\n<e>]");
    rendered(gsm, (bal_data_options){.template = BAL_TEMPLATE_QUESTION}, got, sizeof got);
    CHECK_TEXT(got, "Question: Q?\nAnswer:[ 1+1 = <<1+1=2>>2\nso <<2*2=4>>4 < 5\n#### 1,004<e>]");
    rendered("{\"text\":\"abc\"}", (bal_data_options){0}, got, sizeof got);
    CHECK_TEXT(got, "[abc<e>]");
    rendered("{\"prompt\":\"a\",\"response\":\"b\"}",
             (bal_data_options){.train_on_prompt = true, .suffix = BAL_SUFFIX_NONE}, got, sizeof got);
    CHECK_TEXT(got, "[ab]");
    rendered("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"},"
             "{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\",\"content\":\"y\"}]}",
             (bal_data_options){0}, got, sizeof got);
    CHECK_TEXT(got,
               "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo<|im_end|>]\n<|im_start|>user\nx<|im_end|>\n"
               "<|im_start|>assistant\n[y<|im_end|>]\n");
}

static bal_status load(bal_dataset *d, const char *text, bal_data_options o)
{
    return bal_dataset_load(d, data_file(text), NULL, &o);
}

TEST(tokens_truncation_and_skipping)
{
    bal_dataset d;
    static const char rows[] = "{\"input_ids\":[1,2,3,4],\"labels\":[-100,-100,3,4]}\n\n"
                               "{\"input_ids\":[5,6],\"labels\":[5,-100]}\n" /* a label at position 0 has no row */
                               "{\"input_ids\":[[1,2],[3,4,5]],\"labels\":[[1,2],[3,4,5]]}\n";
    if (CHECK_OK(load(&d, rows, (bal_data_options){.max_length = 3, .vocab = 7}))) {
        CHECK(d.n == 3 && d.n_skipped == 1 && d.n_truncated == 1 && d.n_read == 3);
        CHECK(d.n_tokens == 8 && d.n_rows == 1 + 1 + 2 && d.longest == 3);
        CHECK(d.labels[1] == BAL_LABEL_NONE && d.labels[2] == 3);
        bal_dataset_dispose(&d);
    }
    if (CHECK_OK(load(&d, rows, (bal_data_options){.skip = 2, .limit = 3}))) {
        CHECK(d.n == 2 && d.ids[0] == 1);
        bal_dataset_dispose(&d);
    }
    CHECK_STATUS(load(&d, rows, (bal_data_options){.vocab = 6}), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "line 3") != NULL && strstr(bal_error_message(), "token id 6") != NULL);
    CHECK_STATUS(load(&d, "", (bal_data_options){0}), BAL_EFORMAT);
    CHECK_STATUS(load(&d, "{\"input_ids\":[1],\"labels\":[1]}", (bal_data_options){0}), BAL_EFORMAT);
    CHECK_STATUS(load(&d, "{\"input_ids\":[1,2],\"labels\":[1]}", (bal_data_options){0}), BAL_EFORMAT);
    CHECK_STATUS(load(&d, "{\"input_ids\":[1,2.5]}", (bal_data_options){0}), BAL_EFORMAT);
    CHECK_STATUS(load(&d, "{\"input_ids\":[1,2]}\n{\"input_ids\"", (bal_data_options){0}), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "2") != NULL);
    CHECK_STATUS(load(&d, "{\"nothing\":1}", (bal_data_options){0}), BAL_EFORMAT);
    CHECK_STATUS(load(&d, "{\"prompt\":\"a\",\"response\":\"b\"}", (bal_data_options){0}),
                 BAL_EINVAL); /* no tokenizer */
    CHECK_STATUS(load(&d, "{\"input_ids\":[1,2],\"labels\":[1,-7]}", (bal_data_options){0}), BAL_EFORMAT);
}

TEST(order_depends_on_seed_and_epoch_alone)
{
    enum { N = 37, BATCH = 4 };
    bal_dataset d = {0};
    int32_t ids[16] = {0}, labels[16] = {0};
    for (size_t i = 0; i < N; i++)
        CHECK_OK(bal_dataset_add(&d, ids, labels, 2 + i * 7 % 13));
    for (int kind = BAL_ORDER_FILE; kind <= BAL_ORDER_LENGTH; kind++) {
        bal_order a, b;
        if (!CHECK_OK(bal_order_init(&a, (bal_order_kind)kind, 5, BATCH, &d, NULL, 0)) ||
            !CHECK_OK(bal_order_init(&b, (bal_order_kind)kind, 5, BATCH, &d, NULL, 0)))
            return;
        bool seen[N] = {false};
        size_t moved = 0, first_epoch[N];
        for (size_t i = 0; i < N; i++) {
            first_epoch[i] = bal_order_at(&a, i);
            CHECK(!seen[first_epoch[i]]);
            seen[first_epoch[i]] = true;
            moved += first_epoch[i] != i;
        }
        CHECK((moved == 0) == (kind == BAL_ORDER_FILE));
        size_t third = bal_order_at(&a, 2 * N + 3);
        CHECK(bal_order_at(&b, 2 * N + 3) == third); /* straight there: a resumed run sees the same */
        for (size_t i = 0; i < N; i++)
            CHECK(bal_order_at(&b, i) == first_epoch[i]);
        for (size_t i = 1; kind == BAL_ORDER_LENGTH && i < N; i++)
            CHECK(bal_dataset_length(&d, first_epoch[i]) <= bal_dataset_length(&d, first_epoch[i - 1]));
        bal_order_dispose(&a);
        bal_order_dispose(&b);
    }
    uint32_t *train = NULL, *validation = NULL;
    size_t n_train = 0, n_validation = 0;
    if (CHECK_OK(bal_split(N, 0.1, 1, &train, &n_train, &validation, &n_validation))) {
        CHECK(n_validation == 4 && n_train == N - 4);
        bool seen[N] = {false};
        for (size_t i = 0; i < N; i++) {
            uint32_t x = i < 4 ? validation[i] : train[i - 4];
            CHECK(x < N && !seen[x]);
            seen[x] = true;
        }
    }
    bal_free(train);
    bal_free(validation);
    CHECK_STATUS(bal_split(1, 0.5, 1, &train, &n_train, &validation, &n_validation), BAL_EINVAL);
    bal_dataset_dispose(&d);
}
