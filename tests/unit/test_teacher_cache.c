/* The file of the teacher's rows: what goes in comes out, and nothing else is taken for it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/rng.h"
#include "train/teacher_cache.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HIDDEN = 8, RECORDS = 3, LENGTH = 5 };

static const char k_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":8,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":31,\"rms_norm_eps\":1e-5,"
    "\"max_position_embeddings\":64,\"tie_word_embeddings\":true}";

typedef struct world {
    bal_model *model;
    bal_dataset data;
    bal_batch batch;
    real_t final[RECORDS * LENGTH * HIDDEN], read[RECORDS * LENGTH * HIDDEN];
    char path[512];
} world;

static const uint32_t k_records[RECORDS] = {2, 0, 1}; /* the order of the batch */

static bool build(world *w, uint64_t seed)
{
    int32_t ids[LENGTH] = {1, 2, 3, 4, 5}, labels[LENGTH] = {-100, -100, 3, 4, 5};
    bal_rng rng;
    bal_rng_init(&rng, seed, "rows");
    *w = (world){0};
    (void)snprintf(w->path, sizeof w->path, "%s/teacher.bin", test_folder());
    if (!CHECK_OK(bal_model_new(&w->model, k_config, seed)) || !CHECK_OK(bal_batch_init(&w->batch, 64, RECORDS)))
        return false;
    for (size_t r = 0; r < RECORDS; r++) {
        labels[4] = r == 1 ? -100 : 5;
        ids[0] = (int32_t)r;
        if (!CHECK_OK(bal_dataset_add(&w->data, ids, labels, LENGTH)))
            return false;
    }
    bal_batch_clear(&w->batch);
    for (size_t i = 0; i < RECORDS; i++) {
        size_t at = w->data.start[k_records[i]];
        if (!CHECK_OK(bal_batch_add(&w->batch, w->data.ids + at, w->data.labels + at, LENGTH)))
            return false;
    }
    bal_batch_finish(&w->batch, false);
    for (size_t i = 0; i < sizeof w->final / sizeof *w->final; i++)
        w->final[i] = (real_t)bal_rng_normal(&rng);
    return CHECK(w->batch.n_reg_rows == 8);
}

static void destroy(world *w)
{
    bal_batch_dispose(&w->batch);
    bal_dataset_dispose(&w->data);
    bal_model_free(w->model);
    (void)unlink(w->path);
}

static bool rows_are_equal(const world *w)
{
    bool equal = true;
    for (size_t m = 0; m < w->batch.n_reg_rows; m++) {
        size_t at = (size_t)w->batch.reg_rows[m] * HIDDEN;
        equal = equal && memcmp(w->final + at, w->read + at, HIDDEN * sizeof(real_t)) == 0;
    }
    return equal;
}

static void round_trip(bool bf16)
{
    world w;
    teacher_cache *c = NULL, *second = NULL;
    bool found = true;
    if (build(&w, 1) && CHECK_OK(teacher_cache_open(&c, w.path, w.model, &w.data, false, bf16))) {
        CHECK_OK(teacher_cache_load(c, k_records, &w.batch, w.read, &found));
        CHECK(!found);
        real_t before = w.final[w.batch.reg_rows[0] * HIDDEN];
        CHECK_OK(teacher_cache_save(c, k_records, &w.batch, w.final));
        real_t after = w.final[w.batch.reg_rows[0] * HIDDEN];
        CHECK(bf16 ? after != before && after == (real_t)bal_bf16_to_f32(bal_f32_to_bf16((float)before))
                   : after == before);
        CHECK_STATUS(teacher_cache_open(&second, w.path, w.model, &w.data, false, bf16), BAL_EBUSY);
        teacher_cache_close(c);
        CHECK_OK(teacher_cache_open(&c, w.path, w.model, &w.data, false, bf16));
        CHECK_OK(teacher_cache_load(c, k_records, &w.batch, w.read, &found));
        CHECK(found && rows_are_equal(&w));
        w.read[w.batch.reg_rows[7] * HIDDEN + 3] += 1; /* the comparison can fail */
        CHECK(!rows_are_equal(&w));
    }
    teacher_cache_close(c);
    destroy(&w);
}

TEST(rows_come_back)
{
    round_trip(false);
    round_trip(true);
}

TEST(a_damaged_record_is_made_again)
{
    world w;
    teacher_cache *c = NULL;
    bool found = true;
    if (build(&w, 1) && CHECK_OK(teacher_cache_open(&c, w.path, w.model, &w.data, false, false))) {
        CHECK_OK(teacher_cache_save(c, k_records, &w.batch, w.final));
        int fd = open(w.path, O_WRONLY);
        uint64_t bytes = 0;
        CHECK_OK(bal_file_size(w.path, &bytes));
        CHECK(fd >= 0 && pwrite(fd, "x", 1, (off_t)bytes - 3) == 1);
        CHECK_OK(teacher_cache_load(c, k_records, &w.batch, w.read, &found));
        CHECK(!found);
        CHECK_OK(teacher_cache_save(c, k_records, &w.batch, w.final));
        CHECK_OK(teacher_cache_load(c, k_records, &w.batch, w.read, &found));
        CHECK(found && rows_are_equal(&w));
        CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes - 3) == 0);
        CHECK_OK(teacher_cache_load(c, k_records, &w.batch, w.read, &found));
        CHECK(!found);
        (void)close(fd);
    }
    teacher_cache_close(c);
    destroy(&w);
}

TEST(what_belongs_to_something_else_is_refused)
{
    world w, other;
    teacher_cache *c = NULL;
    if (build(&w, 1) && build(&other, 2) && CHECK_OK(teacher_cache_open(&c, w.path, w.model, &w.data, false, false))) {
        teacher_cache_close(c);
        CHECK_STATUS(teacher_cache_open(&c, w.path, other.model, &w.data, false, false), BAL_EFORMAT);
        CHECK_STATUS(teacher_cache_open(&c, w.path, w.model, &w.data, true, false), BAL_EFORMAT);
        CHECK_STATUS(teacher_cache_open(&c, w.path, w.model, &w.data, false, true), BAL_EFORMAT);
        w.data.labels[3] = BAL_LABEL_NONE;
        CHECK_STATUS(teacher_cache_open(&c, w.path, w.model, &w.data, false, false), BAL_EFORMAT);
        w.data.labels[3] = 4;
        CHECK_OK(teacher_cache_open(&c, w.path, w.model, &w.data, false, false));
        teacher_cache_close(c);
        CHECK_OK(bal_file_replace(w.path, "something else", 14));
        CHECK_STATUS(teacher_cache_open(&c, w.path, w.model, &w.data, false, false), BAL_EFORMAT);
        CHECK(c == NULL);
    }
    destroy(&w);
    destroy(&other);
}
