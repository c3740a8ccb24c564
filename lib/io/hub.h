/* Models and data sets of a Hugging Face hub: found in its cache (what transformers has downloaded is not fetched again),
 * else downloaded into it, in the layout that huggingface_hub reads:
 *   CACHE/models--ORG--NAME/blobs/HASH                    content, named by SHA-256 (LFS) or git's SHA-1
 *                          /snapshots/COMMIT/FILE         link to a blob
 *                          /refs/REVISION                 the commit that a branch or tag stands for
 *                          /.no_exist/COMMIT/FILE         known not to be there
 *   CACHE/.locks/models--ORG--NAME/HASH.lock              held while a blob is written
 * and datasets--ORG--NAME alike.  CACHE is HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME or ~/.cache with
 * /huggingface/hub.  The server is HF_ENDPOINT [https://huggingface.co]; the token HF_TOKEN, else the file HF_TOKEN_PATH
 * [HF_HOME/token]; HF_HUB_OFFLINE keeps off the network; HF_HUB_DOWNLOAD_TIMEOUT is how long a server may be silent.
 * A file is visible only when its size and hash are right; a broken download is kept as blobs/HASH.incomplete and goes
 * on from its end.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_HUB_H
#define BAL_IO_HUB_H

#include "lib/base/log.h"
#include "lib/base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum bal_hub_kind { BAL_HUB_MODEL, BAL_HUB_TOKENIZER, BAL_HUB_ADAPTER, BAL_HUB_DATA } bal_hub_kind;

/* 0 or NULL: the value in brackets. */
typedef struct bal_hub_options {
    const bal_log *log; /* what is fetched; NULL: silent */
    bool progress;      /* a bar, on a terminal */
    bool refresh;       /* ask the server what a branch stands for even if all is there */
    int tries;          /* of a request without progress [5] */
    double back_off;    /* seconds before the second try [1] */
    double silent;      /* seconds without a byte [30, or HF_HUB_DOWNLOAD_TIMEOUT] */
    size_t at_once;     /* files at a time [4] */
} bal_hub_options;

/* True for "org/name", "org/name:part", each perhaps with "@revision" (a branch, tag or commit; default main), when no
 * file or folder has that name.  part: of a model, which GGUF file (its name, or "Q4_K_M"); of data, a configuration
 * (folder or beginning of the file's name), a split (train, validation, test), or both as "main/test". */
bool bal_hub_is_name(const char *name);

/* A model, tokenizer or adapter: *path becomes the snapshot's folder, or the one GGUF file, to be freed by bal_free().
 * Without the network when all that is needed is there.  *path stays NULL when bal_hub_is_name() says no.
 * BAL_ENOENT: no such repository, revision or file; a licence to be accepted; offline and not there.  BAL_EINVAL: several
 * files to choose from.  BAL_EUNSUPPORTED: only in a form that is not read.  BAL_EFORMAT: the server's answer, the size
 * or the hash is wrong.  BAL_EIO: network, disk.  BAL_EINTERRUPT: Ctrl-C; what has come is kept. */
bal_status bal_hub_find(const char *name, bal_hub_kind kind, const bal_hub_options *o, char **path);

typedef struct bal_hub_files {
    char **paths;
    size_t n;
    char commit[65];
} bal_hub_files;

/* The files of a data set, in the order of their names: JSON lines, JSON, CSV, TSV or text, also .gz.  split: "train",
 * "validation", "test", or NULL for all of them; a split named in `name` wins.  Errors as bal_hub_find(); a set that
 * exists as Parquet only is BAL_EUNSUPPORTED with what to do. */
bal_status bal_hub_data(const char *name, const char *split, const bal_hub_options *o, bal_hub_files *out);
void bal_hub_files_dispose(bal_hub_files *f);

/* The cache's folder, to be freed by bal_free(). */
bal_status bal_hub_cache(char **folder);

#endif
