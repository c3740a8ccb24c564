/* Models and data sets of a hub: from the cache, from a server that errs in every way.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/hub_impl.h"
#include "tests/hub_loopback.h"
#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { BIG = 300000 };

static char g_cache[300], g_big[BIG];
static int g_turn;

/* A fresh cache, and a hub with a model of one large file. */
static bool start(hub_test *h)
{
    char endpoint[100];
    if (!CHECK(hub_test_start(h, "acme/tiny", false)))
        return false;
    for (size_t i = 0; i < BIG; i++)
        g_big[i] = (char)(i * 2654435761U >> 13);
    hub_test_add(h, ".gitattributes", "*", 1, false);
    hub_test_add(h, "README.md", "# tiny", 6, false);
    hub_test_add(h, "config.json", "{\"model_type\": \"llama\"}", 23, false);
    hub_test_add(h, "model.safetensors", g_big, BIG, true);
    hub_test_add(h, "onnx/model.onnx", g_big, 100, true);
    hub_test_add(h, "pytorch_model.bin", g_big, 200, true);
    hub_test_add(h, "tokenizer.json", "{\"a\": 1}", 8, false);
    hub_test_add(h, "tokenizer_config.json", "", 0, false);
    h->redirects = true;
    (void)snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%d", h->server.port);
    (void)snprintf(g_cache, sizeof g_cache, "%s/hub%d", test_folder(), g_turn++);
    (void)setenv("HF_ENDPOINT", endpoint, 1);
    (void)setenv("HF_HUB_CACHE", g_cache, 1);
    (void)setenv("HF_TOKEN_PATH", "/nowhere", 1);
    (void)unsetenv("HF_HUB_OFFLINE");
    (void)unsetenv("HF_TOKEN");
    return true;
}

static const char *in_cache(const char *name)
{
    static char path[4][700];
    static int turn;
    char *p = path[turn++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/models--acme--tiny/%s", g_cache, name);
    return p;
}

static const char *in_snapshot(const hub_test *h, const char *name)
{
    char inside[300];
    (void)snprintf(inside, sizeof inside, "snapshots/%s/%s", h->commit, name);
    return in_cache(inside);
}

static bal_status get_kind(const char *name, bal_hub_kind kind, char **path)
{
    const bal_hub_options o = {.tries = 4, .back_off = 0.01, .silent = 1};
    return bal_hub_find(name, kind, &o, path);
}

static bal_status get(const char *name)
{
    char *path = NULL;
    bal_status status = get_kind(name, BAL_HUB_MODEL, &path);
    CHECK((path != NULL) == (status == BAL_OK));
    bal_free(path);
    return status;
}

static bool same(const char *path, const char *data, size_t n)
{
    bal_buf b = {0};
    bool equal = bal_file_read(path, 1 << 20, &b) == BAL_OK && b.len == n && (n == 0 || memcmp(b.data, data, n) == 0);
    bal_buf_dispose(&b);
    return equal;
}

static bool link_is(const char *path, const char *want)
{
    char target[300];
    ssize_t n = readlink(path, target, sizeof target - 1);
    target[n > 0 ? n : 0] = '\0';
    return strcmp(target, want) == 0;
}

/* The model is there, each needed file was asked for once, the others never. */
static void check_model(const hub_test *h)
{
    char target[200];
    CHECK(same(in_snapshot(h, "model.safetensors"), g_big, BIG));
    CHECK(same(in_snapshot(h, "config.json"), "{\"model_type\": \"llama\"}", 23));
    CHECK(same(in_snapshot(h, "tokenizer_config.json"), "", 0));
    (void)snprintf(target, sizeof target, "../../blobs/%s", h->files[3].hash);
    CHECK(link_is(in_snapshot(h, "model.safetensors"), target));
    CHECK(same(in_cache("refs/main"), h->commit, 40));
    CHECK(!bal_file_exists(in_snapshot(h, "pytorch_model.bin")) && !bal_file_exists(in_snapshot(h, "README.md")));
    CHECK(atomic_load(&h->per_file[0]) + atomic_load(&h->per_file[1]) + atomic_load(&h->per_file[4]) +
              atomic_load(&h->per_file[5]) ==
          0);
}

TEST(fetched_once_and_found_again)
{
    hub_test h;
    char *path = NULL;
    if (!start(&h))
        return;
    (void)setenv("HF_TOKEN", " hf_secret\n", 1);
    if (!CHECK_OK(get_kind("acme/tiny", BAL_HUB_MODEL, &path)))
        return;
    CHECK_TEXT(path, in_snapshot(&h, "") == NULL ? "" : path);
    CHECK(bal_folder_exists(path) && strstr(path, h.commit) != NULL);
    bal_free(path);
    check_model(&h);
    /* the empty file needs no request; the token goes to the hub and stays there */
    CHECK(atomic_load(&h.fetched) == 3 && atomic_load(&h.lists) == 1 && atomic_load(&h.cdn.requests) == 1);
    CHECK(atomic_load(&h.server.with_key) == atomic_load(&h.server.requests) && atomic_load(&h.cdn.with_key) == 0);
    CHECK_OK(get("acme/tiny"));
    char at_commit[100];
    (void)snprintf(at_commit, sizeof at_commit, "acme/tiny@%s", h.commit);
    CHECK_OK(get(at_commit));
    CHECK(atomic_load(&h.server.requests) == 4); /* nothing more was asked */
    (void)setenv("HF_HUB_OFFLINE", "1", 1);
    CHECK_OK(get("acme/tiny"));
    CHECK_STATUS(get("acme/other"), BAL_ENOENT);
    CHECK(strstr(bal_error_message(), "HF_HUB_OFFLINE") != NULL);
    (void)unsetenv("HF_HUB_OFFLINE");
    hub_test_stop(&h);
}

/* What another program brought is used; only what is missing is fetched. */
TEST(missing_file_is_fetched)
{
    hub_test h;
    if (!start(&h) || !CHECK_OK(get("acme/tiny")))
        return;
    int before = atomic_load(&h.fetched);
    (void)unlink(in_snapshot(&h, "tokenizer.json"));
    (void)unlink(in_snapshot(&h, "config.json"));
    char blob[200];
    (void)snprintf(blob, sizeof blob, "blobs/%s", h.files[2].hash);
    (void)unlink(in_cache(blob));
    CHECK_OK(get("acme/tiny")); /* the tokenizer's blob is still there: a link is enough */
    CHECK(atomic_load(&h.fetched) == before + 1 && atomic_load(&h.per_file[3]) == 1);
    check_model(&h);
    hub_test_stop(&h);
}

/* Where only the tokenizer is wanted, no weights are fetched; a configuration alone in the cache is no tokenizer. */
TEST(tokenizer_alone)
{
    hub_test h;
    char *path = NULL;
    if (!start(&h))
        return;
    CHECK_OK(get_kind("acme/tiny", BAL_HUB_TOKENIZER, &path));
    CHECK(path != NULL && same(in_snapshot(&h, "tokenizer.json"), "{\"a\": 1}", 8));
    CHECK(!bal_file_exists(in_snapshot(&h, "model.safetensors")) && atomic_load(&h.fetched) == 1);
    bal_free(path);
    char listing[200];
    (void)snprintf(listing, sizeof listing, "listings/%s.json", h.commit);
    (void)unlink(in_cache(listing)); /* as another program leaves it */
    (void)unlink(in_snapshot(&h, "tokenizer.json"));
    CHECK_OK(get_kind("acme/tiny", BAL_HUB_TOKENIZER, &path));
    CHECK(same(in_snapshot(&h, "tokenizer.json"), "{\"a\": 1}", 8));
    bal_free(path);
    CHECK_OK(get("acme/tiny")); /* and the rest when it is wanted */
    check_model(&h);
    hub_test_stop(&h);
}

/* status and words of the message for each fault, and the number of requests for the large file. */
static void faulty(hub_fault fault, const char *name, bal_status want, const char *says)
{
    hub_test h;
    if (!start(&h))
        return;
    h.fault = fault;
    h.cut = 1000;
    bal_status got = get(name);
    const char *text = bal_error_message();
    CHECK_MSG(got == want, "fault %d: status %d, %s", (int)fault, got, text);
    CHECK_MSG(strstr(text, says) != NULL, "fault %d says '%s', not '%s'", (int)fault, text, says);
    CHECK_MSG(!bal_file_exists(in_snapshot(&h, "model.safetensors")), "fault %d: the model is visible", (int)fault);
    CHECK_MSG(!bal_file_exists(in_cache("refs/main")), "fault %d: main is known", (int)fault);
    hub_test_stop(&h);
}

TEST(refusals)
{
    faulty(HUB_GATED, "acme/tiny", BAL_ENOENT, "asks for its terms to be accepted (401): do so at http://127.0.0.1:");
    faulty(HUB_PRIVATE, "acme/tiny", BAL_ENOENT, "has no model 'acme/tiny' (401); if it is private");
    faulty(HUB_NO_REPOSITORY, "acme/tiny", BAL_ENOENT, "has no model 'acme/tiny' (404)");
    faulty(HUB_NO_REVISION, "acme/tiny@v9", BAL_ENOENT, "'acme/tiny' has no revision 'v9' (404)");
    faulty(HUB_NO_FILE, "acme/tiny", BAL_ENOENT, "'acme/tiny' has no file 'model.safetensors' (404)");
    faulty(HUB_BUSY_FOREVER, "acme/tiny", BAL_EIO, "(429); with a token in HF_TOKEN more are allowed");
    faulty(HUB_DOWN, "acme/tiny", BAL_EIO, "busy or broken (502, tried 4 times)");
}

TEST(wrong_bodies)
{
    faulty(HUB_CUT, "acme/tiny", BAL_EIO, "the file ends after");
    faulty(HUB_SHORT, "acme/tiny", BAL_EIO, "the file ends after");
    faulty(HUB_LONG, "acme/tiny", BAL_EFORMAT, "more than the");
    faulty(HUB_WRONG, "acme/tiny", BAL_EFORMAT, "it was changed on its way");
    faulty(HUB_OTHER_COMMIT, "acme/tiny", BAL_EFORMAT, "of the commit 0123456789");
    faulty(HUB_CIRCLE, "acme/tiny", BAL_EIO, "redirects");
    faulty(HUB_TO_FILE, "acme/tiny", BAL_EINVAL, "not http or https");
    faulty(HUB_SILENT, "acme/tiny", BAL_EIO, "Timeout");
}

TEST(wrong_listings)
{
    faulty(HUB_UP_NAME, "acme/tiny", BAL_EFORMAT, "'../../evil' is refused");
    faulty(HUB_ROOT_NAME, "acme/tiny", BAL_EFORMAT, "'/etc/evil' is refused");
    faulty(HUB_NO_JSON, "acme/tiny", BAL_EFORMAT, "not valid JSON");
    faulty(HUB_NO_HASH, "acme/tiny", BAL_EFORMAT, "does not say the size and the hash");
    CHECK(access("/etc/evil", F_OK) != 0 && !bal_file_exists(in_cache("../evil")));
}

/* Faults that pass: the model comes all the same. */
static void passing(hub_fault fault, int cuts)
{
    hub_test h;
    if (!start(&h))
        return;
    h.fault = fault;
    h.cut = 40000;
    atomic_store(&h.cuts_left, cuts);
    bal_status got = get("acme/tiny");
    CHECK_MSG(got == BAL_OK, "fault %d: %s", (int)fault, bal_error_message());
    check_model(&h);
    if (fault == HUB_CUT_ONCE)
        CHECK(atomic_load(&h.ranges) >= 3);
    hub_test_stop(&h);
}

TEST(tried_again)
{
    passing(HUB_BUSY, 0);
    passing(HUB_BROKEN, 0);
    passing(HUB_CUT_ONCE, 3);
    passing(HUB_SILENT_ONCE, 1);
    passing(HUB_NO_BLOBS, 0);
}

TEST(token)
{
    hub_test h;
    if (!start(&h))
        return;
    h.fault = HUB_GATED;
    (void)setenv("HF_TOKEN", "hf_wrong_secret", 1);
    CHECK_STATUS(get("acme/tiny"), BAL_ENOENT);
    CHECK(strstr(bal_error_message(), "not open to the token from HF_TOKEN (403): accept its terms at") != NULL);
    CHECK(strstr(bal_error_message(), "secret") == NULL);
    (void)unsetenv("HF_TOKEN");
    char file[400];
    (void)snprintf(file, sizeof file, "%s/token", test_folder());
    (void)setenv("HF_TOKEN_PATH", file, 1);
    CHECK_OK(bal_file_replace(file, "hf_good\n", 8));
    CHECK_OK(get("acme/tiny"));
    check_model(&h);
    CHECK(atomic_load(&h.cdn.requests) == 1 && atomic_load(&h.cdn.with_key) == 0);
    (void)setenv("HF_ENDPOINT", "http://me:hf_secret@127.0.0.1/", 1);
    CHECK_STATUS(get("acme/other"), BAL_EINVAL);
    CHECK(strstr(bal_error_message(), "secret") == NULL);
    hub_test_stop(&h);
}

/* A download that broke is gone on with, and a part that is not of this file is noticed. */
TEST(resumed)
{
    static const char rubbish[5000] = {1};
    hub_test h;
    char incomplete[200];
    uint64_t bytes = 0;
    if (!start(&h))
        return;
    h.fault = HUB_CUT;
    h.cut = 50000;
    CHECK_STATUS(get("acme/tiny"), BAL_EIO);
    (void)snprintf(incomplete, sizeof incomplete, "blobs/%s.incomplete", h.files[3].hash);
    CHECK(bal_file_size(in_cache(incomplete), &bytes) == BAL_OK && bytes == 200000); /* four tries */
    h.fault = HUB_FINE;
    int before = atomic_load(&h.ranges);
    CHECK_OK(get("acme/tiny"));
    CHECK(atomic_load(&h.ranges) == before + 1 && !bal_file_exists(in_cache(incomplete)));
    check_model(&h);
    for (int i = 0; i < 3; i++) { /* the server sends all of it; another part; and there is rubbish */
        char blob[200];
        (void)snprintf(blob, sizeof blob, "blobs/%s", h.files[3].hash);
        (void)unlink(in_cache(blob));
        CHECK_OK(bal_file_replace(in_cache(incomplete), i == 2 ? rubbish : g_big, sizeof rubbish));
        h.fault = i == 0 ? HUB_NO_RANGE : i == 1 ? HUB_WRONG_RANGE : HUB_FINE;
        if (i == 1) {
            CHECK_STATUS(get("acme/tiny"), BAL_EFORMAT);
            CHECK(strstr(bal_error_message(), "sends bytes from 5001 on where 5000 was asked for") != NULL);
        } else {
            CHECK_OK(get("acme/tiny"));
            check_model(&h);
        }
    }
    CHECK_OK(bal_file_replace(in_cache(incomplete), g_big, BIG)); /* all of it is there already */
    hub_test_stop(&h);
}

TEST(disk_full)
{
    hub_test h;
    struct rlimit old, small;
    if (!start(&h))
        return;
    (void)signal(SIGXFSZ, SIG_IGN);
    if (!CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0))
        return;
    small = old;
    small.rlim_cur = 100000;
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    bal_status status = get("acme/tiny");
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK_MSG(status == BAL_EIO &&
                  strstr(bal_error_message(), "File too large (100000 of 300000 bytes are there") != NULL,
              "%d %s", status, bal_error_message());
    CHECK_OK(get("acme/tiny")); /* with room again it goes on */
    CHECK(atomic_load(&h.ranges) == 1);
    check_model(&h);
    hub_test_stop(&h);
}

TEST(too_large_for_the_disk)
{
    hub_test h;
    if (!start(&h))
        return;
    h.files[3].n = (size_t)1 << 49; /* never sent: the room is looked at before */
    CHECK_STATUS(get("acme/tiny"), BAL_EIO);
    CHECK(strstr(bal_error_message(), "HF_HUB_CACHE names another place") != NULL && atomic_load(&h.fetched) == 0);
    hub_test_stop(&h);
}

/* Several processes fetch at once: each file comes once. */
TEST(several_processes)
{
    hub_test h;
    pid_t children[3];
    if (!start(&h))
        return;
    h.fault = HUB_SLOW;
    for (int i = 0; i < 3; i++)
        if ((children[i] = fork()) == 0) {
            char *path = NULL;
            const bal_hub_options o = {.tries = 4, .back_off = 0.01, .silent = 5};
            bool good = bal_hub_find("acme/tiny", BAL_HUB_MODEL, &o, &path) == BAL_OK;
            _exit(good ? 0 : 1);
        }
    for (int i = 0; i < 3; i++) {
        int status = -1;
        CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    CHECK(atomic_load(&h.fetched) == 3 && atomic_load(&h.per_file[3]) == 1);
    CHECK(atomic_load(&h.most_at_once) >= 2); /* of one process, in parallel */
    check_model(&h);
    hub_test_stop(&h);
}

/* A process that dies leaves a part and no lock. */
TEST(killed)
{
    hub_test h;
    if (!start(&h))
        return;
    h.fault = HUB_SILENT_ONCE;
    h.cut = 60000;
    atomic_store(&h.cuts_left, 1);
    pid_t child = fork();
    if (child == 0) {
        const bal_hub_options o = {.silent = 60};
        char *path = NULL;
        (void)bal_hub_find("acme/tiny", BAL_HUB_MODEL, &o, &path);
        _exit(0);
    }
    char incomplete[200];
    uint64_t bytes = 0;
    (void)snprintf(incomplete, sizeof incomplete, "blobs/%s.incomplete", h.files[3].hash);
    for (int i = 0; i < 500 && bytes != 60000; i++) {
        (void)usleep(10000);
        (void)bal_file_size(in_cache(incomplete), &bytes);
    }
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    CHECK(bytes == 60000 && !bal_file_exists(in_snapshot(&h, "model.safetensors")));
    CHECK_OK(get("acme/tiny"));
    CHECK(atomic_load(&h.ranges) == 1);
    check_model(&h);
    hub_test_stop(&h);
}

/* The server is away: what is in the cache is used when it will do, and what is not there is said. */
TEST(away)
{
    hub_test h;
    if (!start(&h) || !CHECK_OK(get("acme/tiny")))
        return;
    char listing[200];
    (void)snprintf(listing, sizeof listing, "listings/%s.json", h.commit);
    CHECK(bal_file_exists(in_cache(listing)));
    hub_test_stop(&h);
    CHECK_OK(get("acme/tiny"));
    (void)unlink(in_cache(listing)); /* now nobody knows whether the repository has a tokenizer */
    CHECK_OK(get("acme/tiny"));
    (void)unlink(in_snapshot(&h, "tokenizer.json"));
    CHECK_OK(get("acme/tiny"));
    (void)unlink(in_snapshot(&h, "config.json"));
    CHECK_STATUS(get("acme/tiny"), BAL_EIO);
    CHECK_STATUS(get("acme/other"), BAL_EIO);
    CHECK(strstr(bal_error_message(), "neither a path here nor in the Hugging Face cache: 127.0.0.1:") != NULL);
}
