/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub_impl.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <string.h>

/* One search: what is asked for, what the cache has, what of it is needed. */
typedef struct search {
    hub_name name;
    bal_hub_kind kind;
    const char *split; /* of data */
    hub_place place;
    hub_list list;
    hub_choice choice;
    char *snapshot;
    bal_status why; /* the cache's snapshot will not do, and this thread's message says why */
} search;

static void search_close(search *s)
{
    hub_choice_dispose(&s->choice);
    hub_list_dispose(&s->list);
    hub_place_dispose(&s->place);
    bal_free(s->snapshot);
}

static bal_status choose(search *s)
{
    hub_choice_dispose(&s->choice);
    return s->kind == BAL_HUB_DATA ? hub_choose_data(&s->choice, &s->list, &s->name, s->split)
                                   : hub_choose(&s->choice, &s->list, &s->name, s->kind);
}

static bal_status choose_shards(search *s)
{
    bal_status status = BAL_OK;
    if (s->choice.index == NULL)
        return BAL_OK;
    char *index = hub_place_path(&s->place, "snapshots", s->list.commit, s->choice.index->path);
    status = index == NULL ? BAL_ENOMEM : hub_choose_shards(&s->choice, &s->list, &s->name, index);
    bal_free(index);
    return status;
}

static bool all_there(const search *s)
{
    for (size_t i = 0; i < s->choice.n; i++)
        if (!hub_place_has(&s->place, s->list.commit, s->choice.files[i]))
            return false;
    return true;
}

/* The listing of a commit that is in the cache: ours, huggingface_hub's, or what its snapshot holds. */
static bal_status list_cached(search *s)
{
    static const char *const kinds[] = {"listings", "trees"};
    char file[HUB_MAX_COMMIT + 8], commit[HUB_MAX_COMMIT + 1];
    (void)snprintf(commit, sizeof commit, "%s", s->list.commit);
    (void)snprintf(file, sizeof file, "%s.json", commit);
    bal_status status = BAL_ENOENT;
    for (size_t i = 0; i < 2 && status == BAL_ENOENT; i++) {
        char *path = hub_place_path(&s->place, kinds[i], file, NULL);
        if (path == NULL)
            return BAL_ENOMEM;
        hub_list_dispose(&s->list);
        status = hub_list_load(&s->list, path);
        status = status == BAL_EFORMAT ? BAL_ENOENT : status; /* a broken record is none */
        bal_free(path);
    }
    if (status == BAL_ENOENT) {
        hub_list_dispose(&s->list);
        status = hub_list_folder(&s->list, s->snapshot);
    }
    (void)snprintf(s->list.commit, sizeof s->list.commit, "%s", commit);
    return status;
}

/* A tokenizer that is not in the snapshot may be in the repository, unless we know better. */
static bool may_lack_tokenizer(const search *s)
{
    if (s->list.whole || s->kind != BAL_HUB_MODEL || s->choice.single != NULL ||
        hub_list_find(&s->list, "tokenizer.json") != NULL)
        return false;
    char *path = hub_place_path(&s->place, ".no_exist", s->list.commit, "tokenizer.json");
    bool known = path != NULL && bal_file_exists(path);
    bal_free(path);
    return !known;
}

/* "NAME-00001-of-00003": bytes of NAME-, and the 3; 0 when the path is none of such a row. */
static size_t shard_of(const char *path, int64_t *total)
{
    static const char digits[] = "0123456789";
    const char *of = strstr(path, "-of-");
    size_t n = of != NULL ? strspn(of + 4, digits) : 0, name = of != NULL ? (size_t)(of - path) : 0;
    char number[8] = "";
    if (n == 0 || n >= sizeof number)
        return 0;
    (void)snprintf(number, sizeof number, "%.*s", (int)n, of + 4);
    while (name > 0 && strchr(digits, path[name - 1]) != NULL)
        name--;
    return bal_parse_i64(number, 0, 9999999, total) == BAL_OK ? name : 0;
}

/* Is a row of shards not all there?  The files are in the order of their names, so that a row stands together. */
static bool lacks_shards(const search *s)
{
    for (size_t i = 0, row; !s->list.whole && i < s->choice.n; i += row) {
        const char *first = s->choice.files[i]->path;
        int64_t total = 0, other = 0;
        size_t name = shard_of(first, &total);
        row = 1;
        if (name == 0)
            continue;
        while (i + row < s->choice.n && shard_of(s->choice.files[i + row]->path, &other) == name && other == total &&
               strncmp(s->choice.files[i + row]->path, first, name) == 0)
            row++;
        if (row < (size_t)total)
            return true;
    }
    return false;
}

typedef enum cached { NOTHING, USABLE, COMPLETE } cached;

/* What the cache has; NOTHING leaves the reason as this thread's message where there is one. */
static bal_status look(search *s, cached *found)
{
    char commit[HUB_MAX_COMMIT + 1];
    bal_status status;
    *found = NOTHING;
    s->why = BAL_OK;
    BAL_TRY(hub_place_commit(&s->place, s->name.revision, commit));
    bal_free(s->snapshot);
    s->snapshot = hub_place_path(&s->place, "snapshots", commit, NULL);
    if (s->snapshot == NULL)
        return BAL_ENOMEM;
    if (commit[0] == '\0' || !bal_folder_exists(s->snapshot))
        return BAL_OK;
    (void)snprintf(s->list.commit, sizeof s->list.commit, "%s", commit);
    BAL_TRY(list_cached(s));
    status = choose(s);
    if (status == BAL_OK && all_there(s))
        status = choose_shards(s);
    if (status == BAL_ENOENT || status == BAL_EUNSUPPORTED || (status == BAL_EINVAL && !s->list.whole))
        s->why = status; /* the repository may have what the cache has not */
    if (s->why != BAL_OK)
        return BAL_OK;
    BAL_TRY(status);
    if (all_there(s) && !lacks_shards(s))
        *found = may_lack_tokenizer(s) ? USABLE : COMPLETE;
out:
    return status;
}

static bal_status note_listing(const search *s)
{
    char file[HUB_MAX_COMMIT + 8];
    bal_status status = BAL_OK;
    (void)snprintf(file, sizeof file, "%s.json", s->list.commit);
    char *path = hub_place_path(&s->place, "listings", file, NULL);
    if (path == NULL)
        return BAL_ENOMEM;
    if (!bal_file_exists(path))
        status = hub_list_save(&s->list, path);
    bal_free(path);
    if (status == BAL_OK && s->kind == BAL_HUB_MODEL && hub_list_find(&s->list, "tokenizer.json") == NULL)
        status = hub_place_note_absent(&s->place, s->list.commit, "tokenizer.json");
    return status;
}

static bal_status fetch(search *s, const bal_hub_options *o)
{
    hub_server server = {0};
    bal_status status = hub_server_open(&server, o);
    if (status != BAL_OK)
        return status;
    hub_list_dispose(&s->list);
    hub_choice_dispose(&s->choice);
    BAL_TRY(hub_server_list(&server, &s->name, s->kind, s->name.revision, &s->list));
    BAL_TRY(choose(s));
    BAL_TRY(bal_folder_make(s->place.folder));
    BAL_TRY(hub_server_fetch(&server, &s->place, &s->name, s->kind, s->list.commit, &s->choice));
    if (s->choice.index != NULL) {
        BAL_TRY(choose_shards(s));
        BAL_TRY(hub_server_fetch(&server, &s->place, &s->name, s->kind, s->list.commit, &s->choice));
    }
    BAL_TRY(note_listing(s));
    BAL_TRY(hub_place_refer(&s->place, s->name.revision, s->list.commit));
    bal_free(s->snapshot);
    s->snapshot = hub_place_path(&s->place, "snapshots", s->list.commit, NULL);
    status = s->snapshot == NULL ? BAL_ENOMEM : BAL_OK;
out:
    hub_server_close(&server);
    return status;
}

/* From the cache, else from the server. */
static bal_status find(search *s, const char *name, bal_hub_kind kind, const char *split, const bal_hub_options *o)
{
    bal_status status;
    cached found = NOTHING;
    bal_hub_options how = o != NULL ? *o : (bal_hub_options){0}, once = how;
    once.tries = 1;
    *s = (search){.kind = kind, .split = split};
    (void)hub_parse_name(name, &s->name);
    BAL_TRY(hub_place_open(&s->place, &s->name, kind));
    BAL_TRY(look(s, &found));
    bool fresh = !how.refresh || hub_offline();
    if (found == COMPLETE && fresh)
        goto out;
    if (found == USABLE && hub_offline())
        goto out;
    if (hub_offline()) {
        bool partly = s->choice.n > 0;
        if (s->why != BAL_OK)
            BAL_TRY(bal_fail_note(s->why, "HF_HUB_OFFLINE is set, and of what is in the cache"));
        status = bal_fail(BAL_ENOENT,
                          "'%s' is neither a path here nor %sin the Hugging Face cache '%s', and HF_HUB_OFFLINE keeps "
                          "it from being fetched",
                          name, partly ? "whole " : "", s->place.cache);
        goto out;
    }
    status = fetch(s, found == USABLE ? &once : &how);
    if (status == BAL_EIO && found != NOTHING) { /* the network is away: what the cache has will do */
        bal_log_line(how.log, BAL_LOG_WARN, "%s; using what is in the cache", bal_error_message());
        status = look(s, &found);
    } else if ((status == BAL_EIO || status == BAL_ENOENT) && !bal_folder_exists(s->place.folder)) {
        (void)bal_fail_note(status, "'%s' is neither a path here nor in the Hugging Face cache", name);
    } else if (status != BAL_OK && status != BAL_EINTERRUPT && strstr(bal_error_message(), s->name.id) == NULL) {
        (void)bal_fail_note(status, "'%s'", name);
    }
out:
    return status;
}

bal_status bal_hub_find(const char *name, bal_hub_kind kind, const bal_hub_options *o, char **path)
{
    search s = {0};
    *path = NULL;
    if (!bal_hub_is_name(name))
        return BAL_OK;
    bal_status status = find(&s, name, kind, NULL, o);
    if (status == BAL_OK) {
        *path = s.choice.single != NULL ? hub_place_path(&s.place, "snapshots", s.list.commit, s.choice.single->path)
                                        : bal_strdup(s.snapshot);
        status = *path == NULL ? BAL_ENOMEM : BAL_OK;
    }
    search_close(&s);
    return status;
}

bal_status bal_hub_data(const char *name, const char *split, const bal_hub_options *o, bal_hub_files *out)
{
    search s = {0};
    *out = (bal_hub_files){0};
    if (!bal_hub_is_name(name))
        return bal_fail(BAL_ENOENT, "'%s' is neither a file here nor the name of a data set, as org/name", name);
    bal_status status = find(&s, name, BAL_HUB_DATA, split, o);
    if (status == BAL_OK && (out->paths = bal_alloc(s.choice.n, sizeof *out->paths)) == NULL)
        status = BAL_ENOMEM;
    for (size_t i = 0; status == BAL_OK && i < s.choice.n; i++) {
        out->paths[i] = hub_place_path(&s.place, "snapshots", s.list.commit, s.choice.files[i]->path);
        status = out->paths[i] == NULL ? BAL_ENOMEM : BAL_OK;
        out->n = i + 1;
    }
    (void)snprintf(out->commit, sizeof out->commit, "%s", s.list.commit);
    search_close(&s);
    if (status != BAL_OK)
        bal_hub_files_dispose(out);
    return status;
}

void bal_hub_files_dispose(bal_hub_files *f)
{
    for (size_t i = 0; i < f->n; i++)
        bal_free(f->paths[i]);
    bal_free(f->paths);
    *f = (bal_hub_files){0};
}
