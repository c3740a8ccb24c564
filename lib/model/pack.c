/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/pack.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/io/json.h"
#include "lib/tensor/nf4.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SPEC_MAX_BYTES = 1 << 16 };

static const char *const k_starts[] = {"loftq", "pissa"};

/* One matrix. */
typedef struct pack_item {
    bal_linear *l;
    unsigned char *bytes; /* NULL: it stays */
    size_t row_bytes;
    bal_lora *lora;            /* to be started, or NULL */
    const bal_lora *shift;     /* taken off before packing, or NULL */
    const bal_view *reference; /* in full, for a matrix that stays */
    real_t *shift_a, *shift_b;
    double plain, error;
    bal_status status;
} pack_item;

typedef struct packing {
    bal_model *m;
    bal_dtype type;
    bal_packed_kind kind;
    size_t rounds;
    pack_item *items;
    size_t n;
} packing;

static bal_status pack_one(const packing *p, pack_item *x)
{
    bal_packed_job job = {.kind = p->kind, .type = p->type, .rounds = p->rounds};
    bal_status status;
    if (x->lora == NULL)
        return bal_pack_matrix(&x->l->w, p->type, x->shift == NULL ? 0 : x->shift->r,
                               x->shift == NULL ? 1 : x->shift->scale, x->shift == NULL ? NULL : x->shift->a,
                               x->shift == NULL ? NULL : x->shift->b, x->bytes);
    job.r = x->lora->r;
    job.scale = x->lora->scale;
    job.a = x->lora->a;
    job.b = x->lora->b;
    job.shift_a = x->shift_a;
    job.shift_b = x->shift_b;
    job.packed = x->bytes;
    status = x->reference != NULL ? bal_packed_fixed(x->reference, &x->l->w, &job) : bal_packed_start(&x->l->w, &job);
    x->plain = job.plain;
    x->error = job.error;
    return status;
}

static void pack_range(void *context, size_t begin, size_t end, size_t thread)
{
    const packing *p = context;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        if (p->items[i].bytes != NULL || p->items[i].reference != NULL)
            p->items[i].status = pack_one(p, &p->items[i]);
}

/* The matrices of the blocks, and room for what becomes of them; a: to be started.  p->type BAL_DTYPE_COUNT: all stay. */
static bal_status list_items(packing *p, bal_adapter *a, const bal_adapter *shift)
{
    bal_model *m = p->m;
    p->items = bal_alloc(m->config.n_layers * BAL_SLOT_COUNT, sizeof *p->items);
    if (p->items == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < m->config.n_layers * BAL_SLOT_COUNT; i++) {
        bal_linear *l = &m->blocks[i / BAL_SLOT_COUNT].linear[i % BAL_SLOT_COUNT];
        pack_item x = {.l = l, .status = BAL_OK};
        if (!bal_linear_there(l))
            continue;
        if (p->type == BAL_DTYPE_COUNT) {
            x.lora = bal_adapter_find(a, l->name);
        } else if (l->w.cols % bal_dtype_block(p->type) == 0) {
            bal_status status = bal_dtype_row_bytes(p->type, l->w.cols, &x.row_bytes);
            if (status != BAL_OK)
                return status;
            x.bytes = bal_alloc(l->w.rows, x.row_bytes);
            if (x.bytes == NULL)
                return BAL_ENOMEM;
            x.lora = a == NULL ? NULL : bal_adapter_find(a, l->name);
            x.shift = shift == NULL ? NULL : bal_adapter_find(shift, l->name);
        }
        p->items[p->n++] = x;
        pack_item *at = &p->items[p->n - 1];
        if (x.lora != NULL && x.bytes != NULL) {
            at->shift_a = bal_alloc(x.lora->r, x.lora->in * sizeof(real_t));
            at->shift_b = bal_alloc(x.lora->out, x.lora->r * sizeof(real_t));
            if (at->shift_a == NULL || at->shift_b == NULL)
                return BAL_ENOMEM;
        }
    }
    return BAL_OK;
}

static void packing_dispose(packing *p)
{
    for (size_t i = 0; p->items != NULL && i < p->n; i++) {
        bal_free(p->items[i].bytes);
        bal_free(p->items[i].shift_a);
        bal_free(p->items[i].shift_b);
    }
    bal_free(p->items);
}

/* Room in the list of what the model owns. */
static bal_status make_room(bal_model *m, size_t n)
{
    void **owned = bal_realloc(m->owned, m->n_owned + n, sizeof *owned); // NOLINT(bugprone-sizeof-expression): pointers
    if (owned == NULL)
        return BAL_ENOMEM;
    m->owned = owned;
    return BAL_OK;
}

/* The file's pages (or the turned copy) are not needed any more: they would count as this process's memory. */
static void let_go(bal_model *m, const bal_view *w)
{
    for (size_t i = 0; i < m->n_owned; i++)
        if (m->owned[i] == w->data) {
            bal_free(m->owned[i]);
            m->owned[i] = m->owned[--m->n_owned];
            return;
        }
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)w->data, to = from + w->rows * w->row_bytes;
    from = (from + page - 1) / page * page;
    to = to / page * page;
    if (m->source != NULL && from < to)
        (void)madvise((void *)from, to - from, MADV_DONTNEED); /* a read-only map of a file: read again if asked for */
}

/* From here on nothing fails: the views change. */
static void commit(packing *p, bal_pack_report *r)
{
    bal_model *m = p->m;
    size_t started = 0;
    for (size_t i = 0; i < p->n; i++) {
        pack_item *x = &p->items[i];
        bal_view *w = &x->l->w;
        if (x->lora != NULL) {
            r->plain += x->plain;
            r->error += x->error;
            started++;
        }
        if (x->reference != NULL)
            continue;
        if (x->bytes == NULL) {
            r->n_left++;
            (void)snprintf(r->left, sizeof r->left, "%s", x->l->name);
            continue;
        }
        r->n_packed++;
        r->packed_before = r->packed_before || bal_dtype_block(w->dtype) > 1;
        r->bytes_before += (double)w->rows * (double)w->row_bytes;
        r->bytes_after += (double)w->rows * (double)x->row_bytes;
        let_go(m, w);
        *w =
            (bal_view){.dtype = p->type, .rows = w->rows, .cols = w->cols, .row_bytes = x->row_bytes, .data = x->bytes};
        m->owned[m->n_owned++] = x->bytes;
        x->bytes = NULL;
    }
    if (started > 0) {
        r->plain /= (double)started;
        r->error /= (double)started;
    }
}

/* s B0 A0 beside the matrices of a's modules: copies, since the adapter may go before the model. */
static bal_status add_low(bal_model *m, const bal_adapter *a)
{
    bal_status status;
    BAL_TRY(make_room(m, 2 * a->n_loras));
    for (size_t i = 0; i < m->config.n_layers * BAL_SLOT_COUNT; i++) {
        bal_linear *l = &m->blocks[i / BAL_SLOT_COUNT].linear[i % BAL_SLOT_COUNT];
        const bal_lora *lora = bal_linear_there(l) ? bal_adapter_find(a, l->name) : NULL;
        if (lora == NULL)
            continue;
        real_t *low_a = bal_alloc(lora->r, lora->in * sizeof *low_a);
        real_t *low_b = bal_alloc(lora->out, lora->r * sizeof *low_b);
        if (low_a == NULL || low_b == NULL) {
            bal_free(low_a);
            bal_free(low_b);
            BAL_TRY(BAL_ENOMEM);
        }
        memcpy(low_a, lora->a, lora->r * lora->in * sizeof *low_a);
        memcpy(low_b, lora->b, lora->r * lora->out * sizeof *low_b);
        m->owned[m->n_owned++] = low_a;
        m->owned[m->n_owned++] = low_b;
        l->w.low_r = (uint32_t)lora->r;
        l->w.low_scale = (real_t)lora->scale;
        l->w.low_a = low_a;
        l->w.low_b = low_b;
    }
out:
    return status;
}

static bal_status check_model(const bal_model *m)
{
    if (m->params.values != NULL)
        return bal_fail(BAL_EINVAL, "a model whose weights are trained cannot be packed");
    if (m->base.type != BAL_DTYPE_COUNT || m->base.start != NULL)
        return bal_fail(BAL_EINVAL, "the model's weights are packed already");
    return BAL_OK;
}

static bal_status run(packing *p, bal_pack_report *r)
{
    bal_status status;
    BAL_TRY(make_room(p->m, p->n));
    bal_parallel_dynamic(p->n, 1, pack_range, p);
    for (size_t i = 0; i < p->n; i++)
        if (p->items[i].status != BAL_OK) { /* again, on this thread, for the message */
            status = pack_one(p, &p->items[i]);
            return bal_fail_note(status != BAL_OK ? status : p->items[i].status, "module '%s'", p->items[i].l->name);
        }
    commit(p, r);
out:
    return status;
}

bal_status bal_model_pack(bal_model *m, bal_dtype type, bal_pack_report *report)
{
    packing p = {.m = m, .type = type};
    bal_status status;
    *report = (bal_pack_report){0};
    BAL_TRY(check_model(m));
    BAL_TRY(list_items(&p, NULL, NULL));
    BAL_TRY(run(&p, report));
    m->base.type = type;
out:
    packing_dispose(&p);
    return status;
}

/* Every module of a is among those that are packed. */
static bal_status check_adapter(const packing *p, const bal_adapter *a)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += p->items[i].lora != NULL;
    if (a->n_loras == 0 || n != a->n_loras)
        return bal_fail(
            BAL_EINVAL,
            "a start for a packed base needs modules whose rows are whole blocks of %zu: %zu of the adapter's "
            "%zu are (the head never is)",
            bal_dtype_block(p->type), n, a->n_loras);
    return BAL_OK;
}

/* Keeps the factors that Q was made with, when they are not the adapter's start itself. */
static bal_status keep_shift(packing *p, const bal_adapter *a)
{
    bal_status status;
    bool any = false;
    bal_model *m = p->m;
    bal_adapter_config c = a->config;
    for (size_t i = 0; i < p->n; i++)
        for (size_t j = 0; p->items[i].lora != NULL && j < p->items[i].lora->r * p->items[i].lora->in; j++)
            any = any || p->items[i].shift_a[j] != 0;
    if (!any)
        return BAL_OK;
    (void)snprintf(c.init, sizeof c.init, "lora");
    BAL_TRY(bal_adapter_new(&m->base.shift, &c, m->modules, m->n_modules, 0, false));
    for (size_t i = 0; i < p->n; i++) {
        bal_lora *to = p->items[i].lora == NULL ? NULL : bal_adapter_find(m->base.shift, p->items[i].l->name);
        if (to == NULL)
            continue;
        memcpy(to->a, p->items[i].shift_a, to->r * to->in * sizeof *to->a);
        memcpy(to->b, p->items[i].shift_b, to->r * to->out * sizeof *to->b);
    }
out:
    return status;
}

bal_status bal_model_pack_start(bal_model *m, bal_dtype type, bal_packed_kind kind, size_t rounds, bal_adapter *a,
                                bal_pack_report *report)
{
    packing p = {.m = m, .type = type, .kind = kind, .rounds = rounds};
    bal_status status;
    *report = (bal_pack_report){0};
    BAL_TRY(check_model(m));
    BAL_TRY(list_items(&p, a, NULL));
    BAL_TRY(check_adapter(&p, a));
    BAL_TRY(run(&p, report));
    BAL_TRY(bal_adapter_start_here(a, k_starts[kind]));
    BAL_TRY(add_low(m, a));
    if (kind == BAL_PACKED_LOFTQ)
        BAL_TRY(keep_shift(&p, a));
    m->base.type = type;
    m->base.start = k_starts[kind];
out:
    packing_dispose(&p);
    return status;
}

bal_status bal_model_start_from(bal_model *m, const bal_model *reference, bal_adapter *a, bal_pack_report *report)
{
    packing p = {.m = m, .type = BAL_DTYPE_COUNT};
    bal_status status;
    *report = (bal_pack_report){0};
    BAL_TRY(check_model(m));
    BAL_TRY(list_items(&p, a, NULL));
    BAL_TRY(check_adapter(&p, a));
    for (size_t i = 0; i < p.n; i++) {
        pack_item *x = &p.items[i];
        for (size_t j = 0; x->lora != NULL && j < reference->n_modules; j++)
            if (strcmp(reference->modules[j].name, x->l->name) == 0)
                x->reference = reference->modules[j].w;
        if (x->lora != NULL && x->reference == NULL)
            BAL_TRY(bal_fail(BAL_EINVAL, "the reference model has no module '%s'", x->l->name));
        report->packed_before = report->packed_before || bal_dtype_block(x->l->w.dtype) > 1;
    }
    BAL_TRY(run(&p, report));
    report->n_left = 0;
    BAL_TRY(bal_adapter_start_here(a, k_starts[BAL_PACKED_LOFTQ]));
    BAL_TRY(add_low(m, a));
    m->base.start = k_starts[BAL_PACKED_LOFTQ];
out:
    packing_dispose(&p);
    return status;
}

bal_status bal_model_save_base(const bal_model *m, const char *dir)
{
    const bal_model_base *b = &m->base;
    bal_buf text = {0};
    bal_status status = BAL_OK;
    char *own = NULL, *spec = NULL, *shift = NULL;
    char type[16] = "null";
    if (b->type == BAL_DTYPE_COUNT && b->start == NULL)
        return BAL_OK;
    own = bal_path_join(dir, "balora");
    spec = bal_path_join(dir, "balora/base.json");
    shift = bal_path_join(dir, "balora/base_shift");
    if (own == NULL || spec == NULL || shift == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (b->type != BAL_DTYPE_COUNT)
        (void)snprintf(type, sizeof type, "\"%s\"", bal_dtype_name(b->type));
    const char *q = b->start == NULL ? "" : "\"", *start = b->start == NULL ? "null" : b->start;
    bool initial = b->start != NULL && strcmp(b->start, "pissa") == 0;
    BAL_TRY(bal_folder_make(own));
    if (b->shift != NULL)
        BAL_TRY(bal_adapter_save(b->shift, shift));
    BAL_TRY(bal_buf_printf(&text, "{\"format\":1,\"type\":%s,\"start\":%s%s%s,\"shift\":%s}\n", type, q, start, q,
                           initial            ? "\"initial\""
                           : b->shift != NULL ? "\"base_shift\""
                                              : "null"));
    status = bal_file_replace(spec, bal_buf_cstr(&text), text.len);
out:
    bal_buf_dispose(&text);
    bal_free(own);
    bal_free(spec);
    bal_free(shift);
    return status;
}

/* dir/balora, or its neighbour for the folders inside a finished run; NULL when there is no base.json. */
static bal_status find_spec(const char *dir, char **out)
{
    static const char *const places[] = {"balora", "../balora"};
    *out = NULL;
    for (size_t i = 0; i < 2; i++) {
        char *place = bal_path_join(dir, places[i]), *spec = place == NULL ? NULL : bal_path_join(place, "base.json");
        if (spec == NULL) {
            bal_free(place);
            return BAL_ENOMEM;
        }
        bool there = bal_file_exists(spec);
        bal_free(spec);
        if (there) {
            *out = place;
            return BAL_OK;
        }
        bal_free(place);
    }
    return BAL_OK;
}

typedef struct base_spec {
    bal_dtype type;
    const char *start;
    bal_adapter *initial, *shift; /* shift: also when it is the initial one; then not owned twice */
} base_spec;

static bal_status read_factors(const bal_model *m, const char *own, const char *name, bal_adapter **out)
{
    char *dir = bal_path_join(own, name);
    bal_status status =
        dir == NULL ? BAL_ENOMEM : bal_adapter_load(out, dir, NULL, m->modules, m->n_modules, false, NULL, 0);
    bal_free(dir);
    return status;
}

static bal_status read_spec(base_spec *out, const bal_model *m, const char *own)
{
    cJSON *json = NULL;
    const char *type = NULL, *start = NULL, *shift = NULL;
    char *path = bal_path_join(own, "base.json");
    bal_status status;
    *out = (base_spec){.type = BAL_DTYPE_COUNT};
    if (path == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_json_read(&json, path, SPEC_MAX_BYTES));
    BAL_TRY(bal_json_text(json, path, "type", &type, NULL));
    BAL_TRY(bal_json_text(json, path, "start", &start, NULL));
    BAL_TRY(bal_json_text(json, path, "shift", &shift, NULL));
    if (type != NULL && !bal_pack_parse(type, &out->type))
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: type '%.40s' is none that weights are packed into", path, type));
    for (size_t i = 0; start != NULL && i < 2; i++)
        if (strcmp(start, k_starts[i]) == 0)
            out->start = k_starts[i];
    if (start != NULL && out->start == NULL)
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: start '%.40s' is unknown", path, start));
    if (out->start != NULL)
        BAL_TRY(read_factors(m, own, "initial", &out->initial));
    if (shift != NULL && strcmp(shift, "base_shift") == 0)
        BAL_TRY(read_factors(m, own, "base_shift", &out->shift));
    else if (shift != NULL && strcmp(shift, "initial") == 0 && out->initial != NULL)
        out->shift = out->initial;
    else if (shift != NULL)
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: shift '%.40s' is unknown", path, shift));
out:
    cJSON_Delete(json);
    bal_free(path);
    return status;
}

static void spec_dispose(base_spec *s)
{
    if (s->shift != s->initial)
        bal_adapter_free(s->shift);
    bal_adapter_free(s->initial);
}

/* A second adapter over the same weights. */
static bal_status check_same(const bal_model *m, const base_spec *s, const char *dir)
{
    bool same = m->base.type == s->type && m->base.start == s->start;
    for (size_t i = 0; same && s->initial != NULL && i < m->n_modules; i++) {
        const bal_view *w = m->modules[i].w;
        const bal_lora *l = bal_adapter_find(s->initial, m->modules[i].name);
        same = (l != NULL ? l->r : 0) == w->low_r;
        if (same && l != NULL)
            same = memcmp(w->low_a, l->a, l->r * l->in * sizeof *l->a) == 0 &&
                   memcmp(w->low_b, l->b, l->r * l->out * sizeof *l->b) == 0;
    }
    return same
               ? BAL_OK
               : bal_fail(BAL_EINVAL, "%s was trained on a base packed in another way than the adapter before it", dir);
}

static bal_status apply(bal_model *m, base_spec *s)
{
    packing p = {.m = m, .type = s->type};
    bal_pack_report report = {0};
    bal_status status;
    BAL_TRY(check_model(m));
    if (s->type != BAL_DTYPE_COUNT) {
        BAL_TRY(list_items(&p, NULL, s->shift));
        BAL_TRY(run(&p, &report));
    }
    if (s->initial != NULL)
        BAL_TRY(add_low(m, s->initial));
    m->base.type = s->type;
    m->base.start = s->start;
    if (s->shift != s->initial) {
        m->base.shift = s->shift;
        s->shift = s->initial;
    }
out:
    packing_dispose(&p);
    return status;
}

bal_status bal_model_load_base(bal_model *m, const char *dir, char *note, size_t note_bytes)
{
    base_spec spec = {.type = BAL_DTYPE_COUNT};
    char *own = NULL;
    bal_status status;
    if (note != NULL && note_bytes > 0)
        note[0] = '\0';
    BAL_TRY(find_spec(dir, &own));
    if (own == NULL && (m->base.type != BAL_DTYPE_COUNT || m->base.start != NULL))
        BAL_TRY(bal_fail(BAL_EINVAL,
                         "%s was trained on the weights as the file has them, the adapter before it on a "
                         "packed base",
                         dir));
    if (own == NULL)
        goto out;
    BAL_TRY(read_spec(&spec, m, own));
    if (m->base.type != BAL_DTYPE_COUNT || m->base.start != NULL) {
        BAL_TRY(check_same(m, &spec, dir));
        goto out;
    }
    BAL_TRY(apply(m, &spec));
    if (note != NULL && m->base.type != BAL_DTYPE_COUNT)
        (void)snprintf(note, note_bytes, "the base is packed as %s in memory, as the adapter was trained",
                       bal_dtype_name(m->base.type));
out:
    spec_dispose(&spec);
    bal_free(own);
    return status;
}
