/* Making one box: a child that enters its namespaces, by itself or through bubblewrap, limits itself and becomes the
 * interpreter.  Between clone and exec only system calls are made: other threads may hold any lock.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/sandbox_box.h"

#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST_FREE_FD = 20, FILTER_FD = 7, MAX_FILE = 1 << 20, MAX_FILES = 64, MAX_TASKS = 64 };
#define TMP_BYTES "16777216"

static char *const k_environment[] = {(char *)(uintptr_t) "PATH=/usr/bin:/bin", (char *)(uintptr_t) "LANG=C.UTF-8",
                                      (char *)(uintptr_t) "HOME=/tmp",          (char *)(uintptr_t) "PYTHONHASHSEED=0",
                                      (char *)(uintptr_t) "OMP_NUM_THREADS=1",  NULL};

/* --- the plan --- */

static bal_status add_bind(box_plan *p, const char *from, const char *to, bool link, bool device)
{
    if (p->n_binds == BOX_BINDS || strlen(from) >= sizeof p->binds[0].from || strlen(to) >= sizeof p->binds[0].to)
        return bal_fail(BAL_EUNSUPPORTED, "the path '%s' is too long for a sandbox", from);
    box_bind *b = &p->binds[p->n_binds++];
    (void)snprintf(b->from, sizeof b->from, "%s", from);
    (void)snprintf(b->to, sizeof b->to, "%s", to);
    b->link = link;
    b->device = device;
    return BAL_OK;
}

/* A folder of the system as it is there: as a link, read-only, or not at all. */
static bal_status add_system(box_plan *p, const char *path)
{
    struct stat st;
    char target[256];
    if (lstat(path, &st) != 0)
        return BAL_OK;
    if (!S_ISLNK(st.st_mode))
        return S_ISDIR(st.st_mode) ? add_bind(p, path, path + 1, false, false) : BAL_OK;
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n <= 0)
        return BAL_OK;
    target[n] = '\0';
    return add_bind(p, target, path + 1, true, false);
}

/* A python3 that nobody may read is of no use: the system's own comes first. */
static bal_status find_python(box_plan *p)
{
    static const char *const places[] = {"/usr/bin/python3", "/usr/local/bin/python3", "/bin/python3"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (access(places[i], X_OK) == 0) {
            (void)snprintf(p->python, sizeof p->python, "%s", places[i]);
            return BAL_OK;
        }
    return bal_fail(BAL_EUNSUPPORTED, "there is no /usr/bin/python3 (apt-get install python3)");
}

static bal_status add_arg(box_plan *p, size_t *used, const char *text)
{
    size_t n = strlen(text) + 1;
    if (p->n_args + 1 >= BOX_ARGS || *used + n > sizeof p->texts)
        return bal_fail(BAL_EUNSUPPORTED, "bubblewrap's arguments are too long");
    p->args[p->n_args++] = memcpy(p->texts + *used, text, n);
    *used += n;
    return BAL_OK;
}

static bal_status add_bubblewrap_args(box_plan *p)
{
    static const char *const before[] = {
        "bwrap",      "--unshare-all", "--unshare-user",    "--uid",         "65534",      "--gid",  "65534",
        "--cap-drop", "ALL",           "--die-with-parent", "--new-session", "--as-pid-1", "--size", TMP_BYTES,
        "--tmpfs",    "/tmp",          "--chdir",           "/tmp"};
    static const char *const cold[] = {"--seccomp", "7"};
    static const char *const warm[] = {"--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETPCAP"};
    size_t used = 0, n_more = p->warm ? sizeof warm / sizeof warm[0] : sizeof cold / sizeof cold[0];
    char path[300];
    bal_status status = BAL_OK;
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++)
        BAL_TRY(add_arg(p, &used, before[i]));
    for (size_t i = 0; i < n_more; i++)
        BAL_TRY(add_arg(p, &used, p->warm ? warm[i] : cold[i]));
    for (size_t i = 0; i < p->n_binds; i++) {
        const box_bind *b = &p->binds[i];
        (void)snprintf(path, sizeof path, "/%s", b->to);
        BAL_TRY(add_arg(p, &used, b->link ? "--symlink" : b->device ? "--dev-bind" : "--ro-bind"));
        BAL_TRY(add_arg(p, &used, b->from));
        BAL_TRY(add_arg(p, &used, path));
    }
    BAL_TRY(add_arg(p, &used, "--remount-ro"));
    status = add_arg(p, &used, "/");
out:
    return status;
}

bal_status box_plan_init(box_plan *p, const char *bubblewrap, bool drop_root, bool warm)
{
    static const char *const folders[] = {"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/urandom"};
    bal_status status;
    memset(p, 0, sizeof *p);
    p->bubblewrap = bubblewrap;
    p->drop_root = drop_root;
    p->warm = warm;
    BAL_TRY(find_python(p));
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
        BAL_TRY(add_system(p, folders[i]));
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++)
        BAL_TRY(add_bind(p, devices[i], devices[i] + 1, false, true));
    if (bubblewrap != NULL)
        BAL_TRY(add_bubblewrap_args(p));
    status = box_filter(&p->filter, &p->n_filter);
out:
    return status;
}

void box_plan_dispose(box_plan *p)
{
    bal_free(p->filter);
    p->filter = NULL;
}

/* --- the child: no allocation, no locks --- */

static void set_limit(int what, rlim_t value)
{
    struct rlimit limit = {value, value};
    (void)setrlimit((__rlimit_resource_t)what, &limit);
}

static void limit_child(const box_plan *p)
{
    if (p->warm) { /* the processes that it forks limit themselves */
        set_limit(RLIMIT_CORE, 0);
        return;
    }
    set_limit(RLIMIT_CPU, (rlim_t)p->cpu_seconds);
    set_limit(RLIMIT_AS, (rlim_t)p->memory_bytes);
    set_limit(RLIMIT_FSIZE, MAX_FILE);
    set_limit(RLIMIT_NOFILE, MAX_FILES);
    set_limit(RLIMIT_CORE, 0);
    set_limit(RLIMIT_MEMLOCK, 0);
    set_limit(RLIMIT_MSGQUEUE, 0);
    if (p->bubblewrap == NULL)
        set_limit(RLIMIT_NPROC, MAX_TASKS); /* bubblewrap itself needs a process or two of the outer user */
}

/* Puts the descriptors where the interpreter expects them and closes all others. */
static int place_fds(const box_fds *fds, int filter_fd)
{
    const int from[] = {fds->input, -1, -1, fds->receive, fds->send, fds->result, fds->code, filter_fd};
    enum { N = sizeof from / sizeof from[0] };
    int high[N], null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -1;
    for (int i = 0; i < N; i++) {
        int source = i == 1 || i == 2 ? null : from[i];
        high[i] = source < 0 ? -1 : fcntl(source, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
        if (source >= 0 && high[i] < 0)
            return -1;
    }
    for (int i = 0; i < N; i++)
        if (high[i] < 0 ? (close(i) != 0 && errno != EBADF) : dup2(high[i], i) < 0)
            return -1;
    if (syscall(SYS_close_range, (unsigned)N, ~0U, 0) != 0)
        for (int i = N; i < 4096; i++)
            (void)close(i);
    return 0;
}

static int make_file(const char *path, bool folder)
{
    if (folder)
        return mkdir(path, 0755) == 0 || errno == EEXIST ? 0 : -1;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    return close(fd);
}

/* The new root, in a tmpfs over /tmp of this mount namespace; then nothing else is left. */
static int build_root(const box_plan *p)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=1048576,nr_inodes=256,mode=755") != 0 ||
        chdir("/tmp") != 0 || mkdir("dev", 0755) != 0 || mkdir("tmp", 0755) != 0)
        return -1;
    for (size_t i = 0; i < p->n_binds; i++) {
        const box_bind *b = &p->binds[i];
        unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | (b->device ? 0UL : MS_NODEV);
        if (b->link) {
            if (symlink(b->from, b->to) != 0)
                return -1;
            continue;
        }
        if (make_file(b->to, !b->device) != 0 || mount(b->from, b->to, NULL, MS_BIND | MS_REC, NULL) != 0)
            return -1;
        /* flags that were locked from outside must stay: then the plain read-only is tried with them */
        if (!b->device && mount(NULL, b->to, NULL, flags, NULL) != 0 &&
            mount(NULL, b->to, NULL, flags | MS_NOEXEC | MS_NOATIME, NULL) != 0 &&
            mount(NULL, b->to, NULL, flags | MS_RELATIME, NULL) != 0)
            return -1;
    }
    if (mount("tmpfs", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=" TMP_BYTES ",nr_inodes=1024,mode=700") != 0 ||
        syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0 || chdir("/") != 0 ||
        mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) != 0)
        return -1;
    return chdir("/tmp");
}

/* What survives the start of the interpreter: the right to make namespaces, and to give rights up. */
static int keep_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    const unsigned keep = 1U << CAP_SYS_ADMIN | 1U << CAP_SETPCAP;
    memset(data, 0, sizeof data);
    data[0].effective = data[0].permitted = data[0].inheritable = keep;
    if (syscall(SYS_capset, &header, data) != 0 ||
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0) != 0)
        return -1;
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETPCAP, 0, 0);
}

static int apply_filter(const box_plan *p)
{
    struct sock_fprog program = {(unsigned short)p->n_filter, p->filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    for (unsigned long cap = 0; cap < 64; cap++)
        (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

/* Signals as a new program expects them. */
static void reset_signals(void)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    for (int s = 1; s < NSIG; s++)
        if (s != SIGKILL && s != SIGSTOP)
            (void)signal(s, SIG_DFL);
}

/* By plain system calls: the library's functions would wait for the threads that the child does not have. */
static int become_nobody(void)
{
    return syscall(SYS_setresgid, BOX_NOBODY, BOX_NOBODY, BOX_NOBODY) == 0 &&
                   syscall(SYS_setresuid, BOX_NOBODY, BOX_NOBODY, BOX_NOBODY) == 0
               ? 0
               : -1;
}

static void child_namespaces(const box_plan *p, char *const *args, const box_fds *fds, int go, int filter_fd)
{
    char byte;
    if (read(go, &byte, 1) != 1) /* the parent has written who we are */
        _exit(120);
    if (become_nobody() != 0)
        _exit(121);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (setsid() < 0 || place_fds(fds, filter_fd) != 0)
        _exit(122);
    if (build_root(p) != 0)
        _exit(123);
    limit_child(p);
    if ((p->warm ? keep_capabilities() : apply_filter(p)) != 0)
        _exit(124);
    (void)execve(p->python, args, k_environment);
    _exit(125);
}

static void child_bubblewrap(const box_plan *p, char *const *args, const box_fds *fds, int filter_fd)
{
    if (p->drop_root && (syscall(SYS_setgroups, 0, NULL) != 0 || become_nobody() != 0))
        _exit(121);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if (place_fds(fds, filter_fd) != 0)
        _exit(122);
    limit_child(p);
    (void)execve(p->bubblewrap, args, k_environment);
    _exit(125);
}

/* --- the parent --- */

static int write_proc(pid_t pid, const char *name, const char *text)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    (void)close(fd);
    return n == (ssize_t)strlen(text) ? 0 : -1;
}

/* nobody inside is nobody outside when this is root, else the user itself. */
static int write_maps(pid_t pid)
{
    char map[64];
    bool root = geteuid() == 0;
    (void)snprintf(map, sizeof map, "%d %ld 1\n", BOX_NOBODY, root ? (long)BOX_NOBODY : (long)geteuid());
    if (write_proc(pid, "uid_map", map) != 0)
        return -1;
    (void)snprintf(map, sizeof map, "%d %ld 1\n", BOX_NOBODY, root ? (long)BOX_NOBODY : (long)getegid());
    (void)write_proc(pid, "setgroups", "deny");
    return write_proc(pid, "gid_map", map);
}

static bal_status start_namespaces(const box_plan *p, char *const *args, const box_fds *fds, int filter, pid_t *pid)
{
    const unsigned long flags =
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | SIGCHLD;
    int go[2];
    if (pipe2(go, O_CLOEXEC) != 0)
        return bal_fail(BAL_EIO, "a pipe cannot be made: %s", strerror(errno));
    *pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (*pid == 0) {
        reset_signals();
        child_namespaces(p, args, fds, go[0], p->warm ? filter : -1);
    }
    bal_status status = *pid > 0 ? BAL_OK : bal_fail(BAL_EUNSUPPORTED, "namespaces: %s", strerror(errno));
    if (*pid > 0 && (write_maps(*pid) != 0 || write(go[1], "g", 1) != 1)) {
        status = bal_fail(BAL_EUNSUPPORTED, "namespaces: the user cannot be mapped: %s", strerror(errno));
        (void)kill(*pid, SIGKILL);
        (void)waitpid(*pid, NULL, 0);
    }
    (void)close(go[0]);
    (void)close(go[1]);
    return status;
}

static bal_status start_bubblewrap(const box_plan *p, char *const *args, const box_fds *fds, int filter, pid_t *pid)
{
    *pid = (pid_t)syscall(SYS_clone, (unsigned long)SIGCHLD, NULL, NULL, NULL, NULL);
    if (*pid == 0) {
        reset_signals();
        child_bubblewrap(p, args, fds, filter);
    }
    return *pid > 0 ? BAL_OK : bal_fail(BAL_EIO, "a process cannot be started: %s", strerror(errno));
}

bal_status box_start(const box_plan *p, const char *text, const box_fds *fds, pid_t *pid)
{
    /* no site packages, no user's folder, no byte code written; not -I, which would ignore the fixed hash seed */
    static const char *const options[] = {"-s", "-S", "-B", "-c"};
    char *args[BOX_ARGS + 8];
    size_t n = 0, bytes = p->n_filter * sizeof *p->filter;
    int filter = memfd_create("filter", MFD_CLOEXEC);
    bal_status status;
    if (filter < 0 || write(filter, p->filter, bytes) != (ssize_t)bytes || lseek(filter, 0, SEEK_SET) != 0) {
        if (filter >= 0)
            (void)close(filter);
        return bal_fail(BAL_EIO, "a file in memory cannot be made: %s", strerror(errno));
    }
    for (; n < p->n_args; n++)
        args[n] = p->args[n];
    args[n++] = (char *)(uintptr_t)p->python;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        args[n++] = (char *)(uintptr_t)options[i];
    args[n++] = (char *)(uintptr_t)text;
    args[n] = NULL;
    status = p->bubblewrap != NULL ? start_bubblewrap(p, args, fds, filter, pid)
                                   : start_namespaces(p, args, fds, filter, pid);
    (void)close(filter);
    return status;
}
