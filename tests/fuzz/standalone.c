/* Replays files through a fuzz target without libFuzzer: fuzz_X FILE-OR-FOLDER...  Prints the count in the form of
 * tests/test.c; a crash or a sanitizer report ends it with another status.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static size_t g_done, g_failed;

static void replay(const char *path)
{
    bal_map map;
    if (bal_map_open(&map, path) != BAL_OK) {
        printf("%s\n", bal_error_message());
        g_failed++;
        return;
    }
    /* in a block of exactly that size, so that the address sanitizer sees a read behind the end */
    unsigned char *copy = bal_alloc(map.bytes, 1);
    if (copy != NULL && map.bytes > 0)
        memcpy(copy, map.data, map.bytes);
    if (copy != NULL && LLVMFuzzerTestOneInput(copy, map.bytes) == 0)
        g_done++;
    else
        g_failed++;
    bal_free(copy);
    bal_map_close(&map);
}

static void replay_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        printf("cannot read %s\n", path);
        g_failed++;
        return;
    }
    for (const struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        char *name = e->d_name[0] == '.' ? NULL : bal_path_join(path, e->d_name);
        if (name != NULL)
            replay(name);
        bal_free(name);
    }
    (void)closedir(folder);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (bal_folder_exists(argv[i]))
            replay_folder(argv[i]);
        else
            replay(argv[i]);
    }
    printf("%zu passed, %zu failed, 0 skipped\n", g_done, g_failed);
    return g_failed != 0 || fflush(stdout) != 0;
}
