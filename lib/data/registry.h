/* Data sets by name, and what --data may say: a file, a registered name, or org/name[:part][@revision] of a hub
 * (lib/io/hub.h).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_DATA_REGISTRY_H
#define BAL_DATA_REGISTRY_H

#include "lib/io/hub.h"

#include <stddef.h>

typedef struct bal_data_entry {
    const char *name;
    const char *hub;     /* where it comes from; NULL: not from a hub */
    const char *file;    /* under BALORA_DATA [data], %s is the split; NULL: none */
    const char *format;  /* of its records, as --format takes it */
    const char *licence; /* as its page states it */
    const char *about;
} bal_data_entry;

/* The table, *n entries, in the order of their names. */
const bal_data_entry *bal_data_registry(size_t *n);
const bal_data_entry *bal_data_entry_find(const char *name); /* NULL: no such name */

/* The files of `what`, in order: a path is itself ("-" too); a registered name is its file under BALORA_DATA, else its
 * set of the hub, fetched where the cache lacks it.  split: as bal_hub_data().  Free with bal_hub_files_dispose(). */
bal_status bal_data_files(const char *what, const char *split, const bal_hub_options *o, bal_hub_files *out);

#endif
