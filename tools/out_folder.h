/* The output folder of a command: refused when it is there (unless --overwrite), written beside, then renamed.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TOOLS_OUT_FOLDER_H
#define BAL_TOOLS_OUT_FOLDER_H

#include "lib/base/status.h"

#include <stdbool.h>

typedef struct bal_out_folder {
    char *dir, *beside; /* dir without a slash at its end; the folder to write into */
} bal_out_folder;

/* marker: a file that a folder of this kind holds ("adapter_config.json"); with overwrite, a folder that is there and
 * not empty must hold it, so that a slip in --out cannot remove anything else.  A folder equal to input is refused. */
bal_status bal_out_folder_begin(bal_out_folder *o, const char *dir, const char *input, const char *marker,
                                bool overwrite);
/* Moves what was written to dir when status is BAL_OK, else removes it; frees o and returns the final status. */
bal_status bal_out_folder_end(bal_out_folder *o, bal_status status);

#endif
