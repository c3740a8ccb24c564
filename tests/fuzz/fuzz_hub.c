/* Any bytes as a hub's answer: refused with a sentence, or a list of files none of which leads out of its folder, from
 * which what is needed can be chosen.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/io/hub_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static void check(const hub_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        const hub_file *f = &l->files[i];
        size_t hash = strlen(f->hash);
        if (f->path[0] == '/' || strstr(f->path, "/../") != NULL || strncmp(f->path, "../", 3) == 0 ||
            strcmp(f->path, "..") == 0 || bal_ends_with(f->path, "/..") || (hash != 0 && hash != 40 && hash != 64) ||
            strspn(f->hash, "0123456789abcdef") != hash)
            abort();
    }
}

static void choose(const hub_list *l, const char *text, bal_hub_kind kind)
{
    hub_name name;
    hub_choice c = {0};
    if (!hub_parse_name(text, &name))
        abort();
    bal_status status = kind == BAL_HUB_DATA ? hub_choose_data(&c, l, &name, NULL) : hub_choose(&c, l, &name, kind);
    if ((status == BAL_OK) != (c.n > 0) && status == BAL_OK)
        abort();
    hub_choice_dispose(&c);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    uint64_t held = bal_mem_bytes();
    hub_list info = {0}, tree = {0};
    bal_status status = hub_parse_info(&info, (const char *)data, n, "host");
    if (status == BAL_OK && !hub_is_commit(info.commit))
        abort();
    if (status == BAL_OK)
        check(&info);
    if (hub_parse_tree(&tree, (const char *)data, n, "host") == BAL_OK) {
        hub_list_sort(&tree);
        check(&tree);
    }
    const hub_list *lists[] = {&info, &tree};
    for (size_t i = 0; i < 2; i++) {
        if (i == 0 && status != BAL_OK)
            continue;
        choose(lists[i], "a/b", BAL_HUB_MODEL);
        choose(lists[i], "a/b:Q4", BAL_HUB_MODEL);
        choose(lists[i], "a/b", BAL_HUB_DATA);
        choose(lists[i], "a/b:main/test", BAL_HUB_DATA);
    }
    hub_list_dispose(&info);
    hub_list_dispose(&tree);
    if (bal_mem_bytes() != held)
        abort();
    return 0;
}
