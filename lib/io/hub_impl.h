/* What the files of the hub share; not for others.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_HUB_IMPL_H
#define BAL_IO_HUB_IMPL_H

#include "lib/base/hash.h"
#include "lib/base/str.h"
#include "lib/io/hub.h"
#include "lib/net/http.h"

#include <stdint.h>

enum { HUB_MAX_NAME = 300, HUB_MAX_PATH = 512, HUB_MAX_FILES = 100000, HUB_MAX_COMMIT = 64 };

/* --- hub_name.c --- */

typedef struct hub_name {
    char id[HUB_MAX_NAME], part[HUB_MAX_NAME], revision[HUB_MAX_NAME]; /* part may be "" */
} hub_name;
bool hub_parse_name(const char *text, hub_name *out);
/* A path that a server may name: relative, no "..", no empty or hidden-from-sight part, no control characters. */
bool hub_path_is_safe(const char *path);
bool hub_is_commit(const char *text); /* 40 or 64 hexadecimal digits */

/* --- hub_list.c: what is in a repository --- */

typedef struct hub_file {
    char *path;
    char hash[BAL_HASH_HEX]; /* SHA-256 of an LFS file (64 digits), git's SHA-1 (40), "" not known */
    uint64_t size;
} hub_file;
typedef struct hub_list {
    hub_file *files; /* in the order of their paths */
    size_t n, cap;
    char commit[HUB_MAX_COMMIT + 1];
    bool whole; /* all that the repository has; else what happens to be in the cache */
} hub_list;
void hub_list_dispose(hub_list *l);
bal_status hub_list_add(hub_list *l, const char *path, const char *hash, uint64_t size);
void hub_list_sort(hub_list *l);
const hub_file *hub_list_find(const hub_list *l, const char *path); /* NULL: not there */
/* The answer to /api/models/ORG/NAME/revision/REVISION?blobs=true: commit and files; host for messages.  A file without
 * its hash is kept without one. */
bal_status hub_parse_info(hub_list *l, const char *text, size_t n, const char *host);
/* A page of /api/models/ORG/NAME/tree/COMMIT?recursive=true: adds its files. */
bal_status hub_parse_tree(hub_list *l, const char *text, size_t n, const char *host);
/* Our record of a listing, in the cache; BAL_ENOENT if there is none that can be used. */
bal_status hub_list_save(const hub_list *l, const char *path);
bal_status hub_list_load(hub_list *l, const char *path);
/* What lies in a snapshot's folder. */
bal_status hub_list_folder(hub_list *l, const char *folder);

/* --- hub_choose.c: what of it is needed --- */

typedef struct hub_choice {
    const hub_file **files;
    size_t n, cap;
    const hub_file *single; /* the GGUF file that stands for the model; NULL: the folder */
    const hub_file *index;  /* the index whose shards are needed, too */
} hub_choice;
void hub_choice_dispose(hub_choice *c);
bal_status hub_choose(hub_choice *c, const hub_list *l, const hub_name *name, bal_hub_kind kind);
/* The shards that the index (a file of the snapshot) names. */
bal_status hub_choose_shards(hub_choice *c, const hub_list *l, const hub_name *name, const char *index_path);
bal_status hub_choose_data(hub_choice *c, const hub_list *l, const hub_name *name, const char *split);

/* --- hub_cache.c: where it lies --- */

typedef struct hub_place {
    char *folder, *locks; /* CACHE/models--ORG--NAME, CACHE/.locks/models--ORG--NAME */
    char *cache;
} hub_place;
bal_status hub_place_open(hub_place *p, const hub_name *name, bal_hub_kind kind);
void hub_place_dispose(hub_place *p);
/* The commit of a revision; "" when the cache does not know it. */
bal_status hub_place_commit(const hub_place *p, const char *revision, char commit[HUB_MAX_COMMIT + 1]);
/* folder/kind/COMMIT[/FILE], to be freed by bal_free(); kind: "snapshots", ".no_exist", "listings". */
char *hub_place_path(const hub_place *p, const char *kind, const char *commit, const char *file);
bool hub_place_has(const hub_place *p, const char *commit, const hub_file *f);
/* snapshots/COMMIT/FILE -> ../../blobs/HASH, in one step. */
bal_status hub_place_link(const hub_place *p, const char *commit, const hub_file *f);
bal_status hub_place_refer(const hub_place *p, const char *revision, const char *commit);
bal_status hub_place_note_absent(const hub_place *p, const char *commit, const char *file);
/* A lock on a blob; waits for whoever holds it.  *fd is -1 where the file system has no locks. */
bal_status hub_place_lock(const hub_place *p, const hub_file *f, const bal_log *log, int *fd);
void hub_place_unlock(int fd);

/* --- hub_server.c, hub_fetch.c: how it comes --- */

typedef struct hub_server {
    bal_http *http;
    bal_hub_options o;
    char *endpoint, *token, *token_from;
    char host[200];
} hub_server;
bool hub_offline(void);
bal_status hub_server_open(hub_server *s, const bal_hub_options *o);
void hub_server_close(hub_server *s);
/* Commit and files of a revision. */
bal_status hub_server_list(hub_server *s, const hub_name *name, bal_hub_kind kind, const char *revision, hub_list *l);
/* The chosen files into the cache, several at a time. */
bal_status hub_server_fetch(hub_server *s, const hub_place *p, const hub_name *name, bal_hub_kind kind,
                            const char *commit, const hub_choice *c);
/* The one sentence for an answer of the hub that is a refusal; status and message are those of the HTTP client. */
bal_status hub_server_refusal(const hub_server *s, const hub_name *name, bal_hub_kind kind, const char *file, long code,
                              const char *error_code, bal_status status);
/* ENDPOINT[/api]/[models|datasets]/ORG/NAME/WHAT/REVISION/FILE, the last two escaped; file may be NULL. */
bal_status hub_server_url(const hub_server *s, const hub_name *name, bal_hub_kind kind, bool api, const char *what,
                          const char *revision, const char *file, bal_buf *out);

#endif
