/* The system calls that a boxed process is refused.  An interpreter needs most of the others, and its needs change from
 * version to version, so this names what is taken away: the network, other processes, the kernel's administration, and
 * memory that the limit on address space does not see.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/sandbox_box.h"

#include "lib/base/mem.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *const k_refused[] = {
    /* the network */
    "socket",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    /* other processes */
    "fork",
    "vfork",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "process_madvise",
    "pidfd_open",
    "pidfd_getfd",
    "pidfd_send_signal",
    "kcmp",
    "setns",
    "unshare",
    /* memory outside the address space */
    "shmget",
    "shmat",
    "msgget",
    "semget",
    "mq_open",
    "memfd_secret",
    "remap_file_pages",
    "mlock",
    "mlock2",
    "mlockall",
    "splice",
    "vmsplice",
    "tee",
    /* file systems */
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "open_by_handle_at",
    "name_to_handle_at",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "swapon",
    "swapoff",
    "quotactl",
    "quotactl_fd",
    "fanotify_init",
    "fanotify_mark",
    "mknod",
    "mknodat",
    /* the kernel */
    "bpf",
    "keyctl",
    "add_key",
    "request_key",
    "perf_event_open",
    "kexec_load",
    "kexec_file_load",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "io_setup",
    "init_module",
    "finit_module",
    "delete_module",
    "reboot",
    "sethostname",
    "setdomainname",
    "acct",
    "settimeofday",
    "clock_settime",
    "clock_settime64",
    "adjtimex",
    "clock_adjtime",
    "syslog",
    "iopl",
    "ioperm",
    "modify_ldt",
    "personality",
    "lookup_dcookie",
    "nfsservctl",
    "vhangup",
    "uselib",
    "ustat",
    "sysfs",
    "set_mempolicy",
    "mbind",
    "migrate_pages",
    "move_pages",
    "sched_setscheduler",
    "sched_setattr",
    "ioprio_set",
    "landlock_create_ruleset",
};

static bal_status add_rules(scmp_filter_ctx ctx)
{
    int bad = 0;
    for (size_t i = 0; i < sizeof k_refused / sizeof k_refused[0]; i++) {
        int number = seccomp_syscall_resolve_name(k_refused[i]);
        if (number == __NR_SCMP_ERROR)
            continue; /* newer than the library, which then knows no number to refuse */
        int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), number, 0);
        bad |= rc != 0 && rc != -EDOM;
    }
    /* threads, but no processes; clone3 hides its flags in memory, and libraries fall back to clone */
    bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EAGAIN), SCMP_SYS(clone), 1,
                            SCMP_A0(SCMP_CMP_MASKED_EQ, (scmp_datum_t)CLONE_THREAD, 0)) != 0;
    bad |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) != 0;
    return bad ? bal_fail(BAL_EUNSUPPORTED, "a filter of system calls cannot be made") : BAL_OK;
}

bal_status box_filter(struct sock_filter **filter, size_t *n)
{
    bal_status status = BAL_OK;
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    *filter = NULL;
    if (ctx == NULL || fd < 0) {
        status = bal_fail(BAL_EUNSUPPORTED, "a filter of system calls cannot be made");
        goto out;
    }
    BAL_TRY(add_rules(ctx));
    off_t bytes = seccomp_export_bpf(ctx, fd) == 0 ? lseek(fd, 0, SEEK_END) : 0;
    *n = bytes > 0 ? (size_t)bytes / sizeof **filter : 0;
    *filter = bytes > 0 ? bal_alloc(*n, sizeof **filter) : NULL;
    if (*filter == NULL || pread(fd, *filter, (size_t)bytes, 0) != (ssize_t)bytes)
        status = bal_fail(BAL_EUNSUPPORTED, "a filter of system calls cannot be made");
out:
    if (ctx != NULL)
        seccomp_release(ctx);
    if (fd >= 0)
        (void)close(fd);
    return status;
}
