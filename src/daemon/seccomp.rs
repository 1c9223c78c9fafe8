//! The system calls that the process may still make once it serves. Whoever takes it over, by a frame or by a virtual
//! machine's descriptor, then cannot start a program, look into another process, leave a namespace, load code into the
//! kernel, or speak IP.
//!
//! Promises: a call that is refused returns an error, and never ends the process, which may have a disk's last written
//! bytes. What is on none of the lists, such as a call that is newer than this program, fails as on a kernel that does
//! not have it (ENOSYS), so that a C library falls back to the older one. What is known and never needed fails with
//! EPERM. A kernel or a processor for which there is no filter makes nothing fail; the result says so.
//!
//! Whoever adds a feature that makes a new call finds it with `strace -f -e status=failed`, as ENOSYS.

use super::privilege::Done;

/// Set to `off`, no filter is installed: for debuggers, and to find out whether a failure is the filter's.
const SWITCH: &str = "AOEFS_SECCOMP";

/// Installs the filter for the calling thread and those that it starts, for good, and sets no_new_privs. What is
/// started before, such as the unmounter, is as free as it was.
pub fn confine() -> Done {
    if std::env::var_os(SWITCH).is_some_and(|value| value == "off") {
        return Err(format!("seccomp: off, for {SWITCH} is set so"));
    }
    match filter::install() {
        Ok(()) => Ok("seccomp: on".into()),
        Err(error) => Err(format!("seccomp: off: {error}")),
    }
}

/// Elsewhere some of the calls have other names.
#[cfg(not(all(
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    target_pointer_width = "64"
)))]
mod filter {
    pub(super) fn install() -> Result<(), &'static str> {
        Err("there is no filter for this processor")
    }
}

#[cfg(all(
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    target_pointer_width = "64"
))]
mod filter {
    use std::collections::BTreeMap;
    use std::io;

    use libc::*;
    use nix::sys::prctl::set_no_new_privs;
    use seccompiler::SeccompCmpArgLen::{Dword, Qword};
    use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
    use seccompiler::{
        BackendError, BpfProgram, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule,
    };

    /// The calls that this program, the C libraries (glibc and musl) and Rust's own make while it serves, and those
    /// that a C library may use in the place of one.
    const USED: &[c_long] = &[
        // Threads and signals. Not clone3(2), whose flags a filter cannot see: C libraries do without.
        SYS_clone,
        SYS_exit,
        SYS_exit_group,
        SYS_futex,
        SYS_getcpu,
        SYS_getpid,
        SYS_gettid,
        SYS_membarrier,
        SYS_prctl,
        SYS_restart_syscall,
        SYS_rseq,
        SYS_rt_sigaction,
        SYS_rt_sigprocmask,
        SYS_rt_sigreturn,
        SYS_sched_getaffinity,
        SYS_sched_yield,
        SYS_set_robust_list,
        SYS_sigaltstack,
        SYS_tgkill,
        SYS_wait4,
        SYS_waitid,
        // Time.
        SYS_clock_getres,
        SYS_clock_gettime,
        SYS_clock_nanosleep,
        SYS_gettimeofday,
        SYS_nanosleep,
        // Memory.
        SYS_brk,
        SYS_madvise,
        SYS_memfd_create,
        SYS_mlock,
        SYS_mlock2,
        SYS_mmap,
        SYS_mprotect,
        SYS_mremap,
        SYS_munlock,
        SYS_munmap,
        // Files and devices.
        SYS_close,
        SYS_dup,
        SYS_dup3,
        SYS_faccessat,
        SYS_faccessat2,
        SYS_fadvise64,
        SYS_fallocate,
        SYS_fchmod,
        SYS_fchmodat,
        SYS_fchown,
        SYS_fchownat,
        SYS_fcntl,
        SYS_fdatasync,
        SYS_flock,
        SYS_fstat,
        SYS_fstatfs,
        SYS_fsync,
        SYS_ftruncate,
        SYS_getcwd,
        SYS_getdents64,
        SYS_ioctl,
        SYS_linkat,
        SYS_lseek,
        SYS_mkdirat,
        SYS_newfstatat,
        SYS_openat,
        SYS_pread64,
        SYS_preadv,
        SYS_preadv2,
        SYS_pwrite64,
        SYS_pwritev,
        SYS_pwritev2,
        SYS_read,
        SYS_readlinkat,
        SYS_readv,
        #[cfg(not(target_arch = "riscv64"))]
        SYS_renameat,
        SYS_renameat2,
        SYS_statfs,
        SYS_statx,
        SYS_sync_file_range,
        SYS_umask,
        SYS_unlinkat,
        SYS_write,
        SYS_writev,
        // Sockets.
        SYS_accept,
        SYS_accept4,
        SYS_bind,
        SYS_connect,
        SYS_getpeername,
        SYS_getsockname,
        SYS_getsockopt,
        SYS_listen,
        SYS_recvfrom,
        SYS_recvmmsg,
        SYS_recvmsg,
        SYS_sendmmsg,
        SYS_sendmsg,
        SYS_sendto,
        SYS_setsockopt,
        SYS_shutdown,
        SYS_socket,
        // Waiting for several things.
        SYS_epoll_create1,
        SYS_epoll_ctl,
        SYS_epoll_pwait,
        SYS_epoll_pwait2,
        SYS_eventfd2,
        SYS_pipe2,
        SYS_ppoll,
        SYS_pselect6,
        SYS_signalfd4,
        SYS_timerfd_create,
        SYS_timerfd_gettime,
        SYS_timerfd_settime,
        // Facts.
        SYS_getegid,
        SYS_geteuid,
        SYS_getgid,
        SYS_getppid,
        SYS_getrandom,
        SYS_getrusage,
        SYS_getuid,
        SYS_prlimit64,
        SYS_sysinfo,
        SYS_uname,
        // For the second filter.
        SYS_seccomp,
    ];

    /// Names that only the oldest processor has beside those above. musl uses them.
    #[cfg(target_arch = "x86_64")]
    const USED_TOO: &[c_long] = &[
        SYS_access,
        SYS_chmod,
        SYS_chown,
        SYS_dup2,
        SYS_epoll_create,
        SYS_epoll_wait,
        SYS_eventfd,
        SYS_getdents,
        SYS_getrlimit,
        SYS_lchown,
        SYS_link,
        SYS_lstat,
        SYS_mkdir,
        SYS_open,
        SYS_pause,
        SYS_pipe,
        SYS_poll,
        SYS_readlink,
        SYS_rename,
        SYS_rmdir,
        SYS_select,
        SYS_signalfd,
        SYS_stat,
        SYS_time,
        SYS_unlink,
    ];
    #[cfg(not(target_arch = "x86_64"))]
    const USED_TOO: &[c_long] = &[];

    /// What is known and never needed. None of these is on the list above, but for seccomp(2) itself; they are here for
    /// their errno, which says that the call is there and not permitted.
    const NEVER: &[c_long] = &[
        // Programs and other processes.
        SYS_execve,
        SYS_execveat,
        SYS_kcmp,
        SYS_kill,
        SYS_pidfd_getfd,
        SYS_pidfd_open,
        SYS_pidfd_send_signal,
        SYS_process_madvise,
        SYS_process_vm_readv,
        SYS_process_vm_writev,
        SYS_ptrace,
        SYS_rt_sigqueueinfo,
        SYS_rt_tgsigqueueinfo,
        SYS_tkill,
        // Rights.
        SYS_add_key,
        SYS_capset,
        SYS_keyctl,
        SYS_personality,
        SYS_request_key,
        SYS_seccomp,
        SYS_setfsgid,
        SYS_setfsuid,
        SYS_setgid,
        SYS_setgroups,
        SYS_setregid,
        SYS_setresgid,
        SYS_setresuid,
        SYS_setreuid,
        SYS_setuid,
        // Namespaces and mounts.
        SYS_chroot,
        SYS_fsconfig,
        SYS_fsmount,
        SYS_fsopen,
        SYS_fspick,
        SYS_mount,
        SYS_mount_setattr,
        SYS_move_mount,
        SYS_name_to_handle_at,
        SYS_open_by_handle_at,
        SYS_open_tree,
        SYS_pivot_root,
        SYS_setns,
        SYS_umount2,
        SYS_unshare,
        // The kernel and the machine.
        SYS_acct,
        SYS_adjtimex,
        SYS_bpf,
        SYS_clock_adjtime,
        SYS_clock_settime,
        SYS_delete_module,
        SYS_fanotify_init,
        SYS_finit_module,
        SYS_init_module,
        SYS_io_uring_enter,
        SYS_io_uring_register,
        SYS_io_uring_setup,
        SYS_kexec_load,
        SYS_perf_event_open,
        SYS_quotactl,
        SYS_reboot,
        SYS_setdomainname,
        SYS_sethostname,
        SYS_settimeofday,
        SYS_swapoff,
        SYS_swapon,
        SYS_syslog,
        SYS_userfaultfd,
    ];

    /// What makes a clone(2) more than a thread: a namespace of its own.
    const NAMESPACES: [c_int; 7] =
        [CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, CLONE_NEWUTS];

    /// Frames, news of interfaces, log and virtual machines. The listener of the metrics is there before the filter.
    const FAMILIES: [c_int; 3] = [AF_PACKET, AF_NETLINK, AF_UNIX];

    type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

    /// Where two filters refuse a call with an errno, the kernel takes that of the filter that came last.
    pub(super) fn install() -> io::Result<()> {
        let used = USED.iter().chain(USED_TOO).map(|&call| (call, Vec::new())).collect();
        let used = program(used, errno(ENOSYS), SeccompAction::Allow).map_err(io::Error::other)?;
        let refused = refused().map_err(io::Error::other)?;
        let refused = program(refused, SeccompAction::Allow, errno(EPERM)).map_err(io::Error::other)?;
        set_no_new_privs()?;
        apply(used)?;
        apply(refused)
    }

    fn apply(mut program: BpfProgram) -> io::Result<()> {
        let len = u16::try_from(program.len()).map_err(io::Error::other)?;
        let program = sock_fprog { len, filter: program.as_mut_ptr().cast() };
        // Kernels before 5.16 would slow every load down that follows a store, which is for programs that run code of
        // others. This flag, which the crate does not have, says that it is not wanted.
        let flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
        // SAFETY: the crate's instructions have the kernel's layout, there are `len` of them, and the kernel copies
        // them before the call returns.
        match unsafe { syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn errno(errno: c_int) -> SeccompAction {
        SeccompAction::Errno(errno.cast_unsigned())
    }

    fn program(rules: Rules, other: SeccompAction, those: SeccompAction) -> Result<BpfProgram, BackendError> {
        let processor = std::env::consts::ARCH.try_into()?;
        SeccompFilter::new(rules, other, those, processor)?.try_into()
    }

    /// The calls of [`NEVER`], and what is refused of those that are used.
    fn refused() -> Result<Rules, BackendError> {
        // The kernel looks at so many bits of an argument: what is in the others must not matter here either.
        let int =
            |number, op, value: c_int| SeccompCondition::new(number, Dword, op, value.cast_unsigned().into());
        let long = |number, op, value: u64| SeccompCondition::new(number, Qword, op, value);
        let has = |number, flag: c_int| int(number, MaskedEq(flag.cast_unsigned().into()), flag);
        let when = |all: Vec<SeccompCondition>| SeccompRule::new(all);

        let mut clone = vec![when(vec![int(0, MaskedEq(CLONE_THREAD.cast_unsigned().into()), 0)?])?];
        for flag in NAMESPACES {
            clone.push(when(vec![has(0, flag)?])?);
        }
        let others = FAMILIES.map(|family| int(0, Ne, family)).into_iter().collect::<Result<_, _>>()?;
        let netlink = vec![int(0, Eq, AF_NETLINK)?, int(2, Ne, NETLINK_ROUTE)?];
        let code = PROT_EXEC.cast_unsigned().into();
        let own = std::process::id().cast_signed();
        let in_part = [
            // A thread, and no process.
            (SYS_clone, clone),
            (SYS_socket, vec![when(others)?, when(netlink)?]),
            // New code.
            (SYS_mmap, vec![when(vec![long(2, MaskedEq(code), code)?])?]),
            (SYS_mprotect, vec![when(vec![long(2, MaskedEq(code), code)?])?]),
            // Typing into the terminal, or into the console's clipboard.
            (
                SYS_ioctl,
                vec![when(vec![int(1, Eq, TIOCSTI as c_int)?])?, when(vec![int(1, Eq, TIOCLINUX)?])?],
            ),
            // All but the name of a thread.
            (SYS_prctl, vec![when(vec![int(0, Ne, PR_SET_NAME)?, int(0, Ne, PR_GET_NAME)?])?]),
            // Limits are read, and never set.
            (SYS_prlimit64, vec![when(vec![long(2, Ne, 0)?])?]),
            // abort(3) sends a signal to its own thread.
            (SYS_tgkill, vec![when(vec![int(0, Ne, own)?])?]),
        ];
        let never = NEVER.iter().map(|&call| (call, Vec::new()));
        Ok(never.chain(in_part).collect())
    }

    /// TIOCLINUX of tty_ioctl(2), which libc does not have for every C library.
    const TIOCLINUX: c_int = 0x541c;
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[cfg(test)]
mod tests {
    use std::ptr::null;
    use std::thread;

    use libc::*;

    use super::*;

    /// The errno of a system call; 0 if it has succeeded.
    macro_rules! errno_of {
        ($($number_or_argument:expr),+) => {{
            // SAFETY: no pointer here leads to memory, so the kernel changes none; the arguments are such that the call
            // does no harm if it is not refused.
            match unsafe { syscall($($number_or_argument),+) } {
                -1 => std::io::Error::last_os_error().raw_os_error().unwrap(),
                _ => 0,
            }
        }};
    }

    /// Runs it on a thread of its own, since a filter is for good.
    fn confined(body: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(|| {
            assert_eq!(confine(), Ok("seccomp: on".into()));
            body();
        });
        thread.join().unwrap();
    }

    #[test]
    fn what_is_never_needed_is_refused() {
        confined(|| {
            let (none, own) = (null::<c_char>(), std::process::id());
            let nowhere = c"/nowhere".as_ptr();
            let anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
            for (what, errno) in [
                ("execve", errno_of!(SYS_execve, nowhere, none, none)),
                ("execveat", errno_of!(SYS_execveat, AT_FDCWD, nowhere, none, none, 0)),
                // Flags that do not go together: no process would come of it.
                ("a process", errno_of!(SYS_clone, CLONE_SIGHAND, 0, 0, 0, 0)),
                ("a namespace", errno_of!(SYS_clone, CLONE_THREAD | CLONE_NEWUSER, 0, 0, 0, 0)),
                ("unshare", errno_of!(SYS_unshare, CLONE_NEWUSER)),
                ("setns", errno_of!(SYS_setns, -1, 0)),
                ("ptrace", errno_of!(SYS_ptrace, PTRACE_ATTACH, 0, 0, 0)),
                ("process_vm_readv", errno_of!(SYS_process_vm_readv, own, none, 0, none, 0, 0)),
                ("process_vm_writev", errno_of!(SYS_process_vm_writev, own, none, 0, none, 0, 0)),
                ("kill", errno_of!(SYS_kill, own, 0)),
                ("tgkill", errno_of!(SYS_tgkill, 1, 1, 0)),
                ("pidfd_open", errno_of!(SYS_pidfd_open, 0, 0)),
                ("mount", errno_of!(SYS_mount, none, none, none, 0, none)),
                ("umount2", errno_of!(SYS_umount2, none, 0)),
                ("fsopen", errno_of!(SYS_fsopen, none, 0)),
                ("open_by_handle_at", errno_of!(SYS_open_by_handle_at, -1, none, 0)),
                ("bpf", errno_of!(SYS_bpf, -1, none, 0)),
                ("keyctl", errno_of!(SYS_keyctl, -1, 0, 0, 0, 0)),
                ("init_module", errno_of!(SYS_init_module, none, 0, none)),
                ("kexec_load", errno_of!(SYS_kexec_load, 0, 0, none, -1)),
                ("perf_event_open", errno_of!(SYS_perf_event_open, none, 0, 0, -1, 0)),
                ("userfaultfd", errno_of!(SYS_userfaultfd, -1)),
                ("io_uring_setup", errno_of!(SYS_io_uring_setup, 0, none)),
                ("capset", errno_of!(SYS_capset, none, none)),
                ("setresuid", errno_of!(SYS_setresuid, -1, -1, -1)),
                ("seccomp", errno_of!(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, none)),
                ("IPv6, raw", errno_of!(SYS_socket, AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)),
                ("IP", errno_of!(SYS_socket, AF_INET, SOCK_DGRAM, 0)),
                ("vsock", errno_of!(SYS_socket, AF_VSOCK, SOCK_STREAM, 0)),
                ("generic netlink", errno_of!(SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_GENERIC)),
                ("mmap of code", errno_of!(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, anonymous, -1, 0)),
                ("mprotect to code", errno_of!(SYS_mprotect, 0, 0, PROT_EXEC)),
                ("TIOCSTI", errno_of!(SYS_ioctl, -1, TIOCSTI, none)),
                ("prctl", errno_of!(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)),
                ("a limit", errno_of!(SYS_prlimit64, 0, RLIMIT_CORE, 1, none)),
            ] {
                assert_eq!(errno, EPERM, "{what}");
            }
        });
    }

    #[test]
    fn what_is_unknown_looks_like_that_of_a_later_kernel() {
        confined(|| {
            // The second argument is too short for either.
            assert_eq!(errno_of!(SYS_clone3, null::<c_char>(), 0), ENOSYS);
            assert_eq!(errno_of!(SYS_openat2, AT_FDCWD, null::<c_char>(), null::<c_char>(), 0), ENOSYS);
            assert_eq!(errno_of!(SYS_pkey_mprotect, 0, 0, PROT_EXEC, -1), ENOSYS);
            assert_eq!(errno_of!(100_000), ENOSYS);
        });
    }

    #[test]
    fn threads_that_come_later_have_it_and_serve() {
        confined(|| {
            let named = thread::Builder::new().name("later".into());
            let later = named.spawn(|| {
                let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                for line in ["Name:\tlater\n", "Seccomp:\t2\n", "NoNewPrivs:\t1\n"] {
                    assert!(status.contains(line), "{status}");
                }
                assert_eq!(errno_of!(SYS_kill, std::process::id(), 0), EPERM);
                assert_eq!(errno_of!(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), 0);
                assert_eq!(errno_of!(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), 0);
            });
            later.unwrap().join().unwrap();
        });
    }
}
