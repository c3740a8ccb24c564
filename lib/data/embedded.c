/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/data/embedded.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <stdint.h>

/* The assembler copies the file's bytes into the read-only data of the program; the paths are relative to the
 * repository's root, where make runs. */
#define EMBED(symbol, path)                                                                                            \
    __asm__(".section .rodata\n.balign 64\n.global " #symbol "_begin\n" #symbol "_begin:\n.incbin \"" path             \
            "\"\n.global " #symbol "_end\n" #symbol "_end:\n.byte 0\n.previous\n");                                    \
    extern const unsigned char symbol##_begin[], symbol##_end[]

EMBED(bal_embedded_config, "datasets/embedded/config.json");
EMBED(bal_embedded_weights, "datasets/embedded/model.safetensors");
EMBED(bal_embedded_tokenizer, "datasets/embedded/tokenizer.json");
EMBED(bal_embedded_special, "datasets/embedded/tokenizer_config.json");

enum { N_FILES = 4 };

bal_embedded bal_embedded_at(size_t i)
{
    const struct {
        const char *name;
        const unsigned char *begin, *end;
    } files[N_FILES] = {
        {"config.json", bal_embedded_config_begin, bal_embedded_config_end},
        {"model.safetensors", bal_embedded_weights_begin, bal_embedded_weights_end},
        {"tokenizer.json", bal_embedded_tokenizer_begin, bal_embedded_tokenizer_end},
        {"tokenizer_config.json", bal_embedded_special_begin, bal_embedded_special_end},
    };
    if (i >= N_FILES)
        return (bal_embedded){0};
    return (bal_embedded){files[i].name, files[i].begin, (size_t)((uintptr_t)files[i].end - (uintptr_t)files[i].begin)};
}

bal_status bal_embedded_write(const char *dir)
{
    bal_status status = bal_folder_make(dir);
    for (size_t i = 0; status == BAL_OK && i < N_FILES; i++) {
        bal_embedded f = bal_embedded_at(i);
        char *path = bal_path_join(dir, f.name);
        status = path == NULL ? BAL_ENOMEM : bal_file_replace(path, f.data, f.bytes);
        bal_free(path);
    }
    return status;
}
