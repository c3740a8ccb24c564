/* Hashes of streams, for checking downloaded files: SHA-256, and git's SHA-1 of a file ("blob <size>", a NUL, the
 * content).  bal_sha256_hex() of lib/base/file.h is the first in one call.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_HASH_H
#define BAL_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct bal_hash {
    uint32_t h[8];
    uint64_t bytes;
    unsigned char block[64]; /* bytes % 64 of them wait */
    void (*compress)(uint32_t *h, const unsigned char *block);
    size_t words; /* of the result: 8 or 5 */
} bal_hash;

enum { BAL_HASH_HEX = 65 };

void bal_sha256_start(bal_hash *s);
void bal_sha1_start(bal_hash *s); /* only to recognise files: no proof against forgery */
void bal_git_blob_start(bal_hash *s, uint64_t bytes);
void bal_hash_add(bal_hash *s, const void *data, size_t bytes);
/* Lower-case hexadecimal, NUL-terminated: 64 or 40 characters.  s is used up. */
void bal_hash_finish(bal_hash *s, char out[BAL_HASH_HEX]);

#endif
