/* Models that other programs have downloaded: the cache of the Hugging Face hub.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_HUB_H
#define BAL_IO_HUB_H

#include "lib/base/status.h"

/* name "org/name" or "org/name@revision" (a branch, tag or commit; default main): *folder becomes its snapshot in the cache
 * (HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME or ~/.cache with /huggingface/hub), to be freed by bal_free().
 * *folder stays NULL for a path that exists and for what cannot be such a name; BAL_ENOENT when it is not in the cache. */
bal_status bal_hub_find(const char *name, char **folder);

#endif
