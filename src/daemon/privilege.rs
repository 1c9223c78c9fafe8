//! What the process asks of the kernel for itself, and what it gives up.
//!
//! Promises: everything here is best effort and says what happened in words for the log; nothing fails the start.
//! Whoever may not do a thing runs without it. The calls that change the calling thread only, and what it starts
//! later, say so: `main` makes them before any other thread exists.
//!
//! Capabilities are set with capset(2) by hand: one call with two small structures, which is less than a crate.

use std::fs;
use std::io;

use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// What was done, or what was not and why; both are for the log.
pub type Done = Result<String, String>;

/// Capability numbers of linux/capability.h, which are ABI.
const DAC_READ_SEARCH: u32 = 2;
const SETPCAP: u32 = 8;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;

/// The prctl(2) numbers that are asked for here.
const PR_CAPBSET_READ: libc::c_int = 23;
const PR_CAPBSET_DROP: libc::c_int = 24;
const PR_CAP_AMBIENT: libc::c_int = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: libc::c_ulong = 4;
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Locks pages when they are touched, not when they are mapped: fuser's buffers are 16 MiB a thread.
const MCL_ONFAULT: libc::c_int = 4;

/// The version of capset(2) with 64 capabilities.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Tells the kernel that this thread, and those it starts, clean dirty pages: their allocations must not wait for
/// the file systems that wait for them. Needs CAP_SYS_RESOURCE.
pub fn io_flusher() -> Done {
    match prctl_call(PR_SET_IO_FLUSHER, 1, 0) {
        Ok(_) => Ok("marked as an I/O flusher".into()),
        Err(error) => Err(format!(
            "not marked as an I/O flusher: {error}; under memory pressure file systems on loop devices may stall"
        )),
    }
}

/// Keeps memory from being paged out, as far as it is touched. Later mappings are included only if no limit can
/// make one fail: a thread's stack would be the first.
pub fn lock_memory() -> Done {
    // As a safe start: without the limit, later mappings may be locked also after the privilege is gone.
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok();
    let unlimited =
        raised || getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    let future = if unlimited { libc::MCL_FUTURE } else { 0 };
    // SAFETY: mlockall takes flags and changes no memory that Rust knows of.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | MCL_ONFAULT | future) } {
        0 if unlimited => Ok("memory is locked as it is touched".into()),
        0 => {
            Ok("memory mapped so far is locked as it is touched; later mappings are not, for RLIMIT_MEMLOCK"
                .into())
        }
        _ => Err(format!("memory is not locked: {}", io::Error::last_os_error())),
    }
}

/// Makes the kernel look elsewhere when memory runs out: killing this process would fail every disk on it.
/// Lowering needs CAP_SYS_RESOURCE.
pub fn oom_score_adj(score: i32) -> Done {
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Ok(()) => Ok(format!("oom_score_adj is {score}")),
        Err(error) => Err(format!("oom_score_adj stays: {error}")),
    }
}

/// Raises the soft limit of open files to the hard one.
pub fn raise_open_files() -> Done {
    let raise = || {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard)
    };
    match raise() {
        Ok(limit) => Ok(format!("up to {limit} open files")),
        Err(error) => Err(format!("the limit of open files stays: {error}")),
    }
}

/// Whether AoE sockets can be opened here. The error's text says what to do.
pub fn check_net_raw() -> io::Result<()> {
    match Socket::new(Domain::PACKET, Type::RAW, None) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(io::Error::new(
            error.kind(),
            "raw Ethernet needs CAP_NET_RAW: run as root, or give the file the capability (setcap \
             cap_net_raw,cap_net_admin=ep FILE), or try --demo, which needs no network",
        )),
        Err(error) => Err(io::Error::new(error.kind(), format!("no packet sockets here: {error}"))),
    }
}

/// Keeps CAP_NET_RAW, and CAP_NET_ADMIN (for the receive buffer of interfaces bound later), where they are held now;
/// gives up every other capability for good, also for what is started later: the bounding and ambient sets are
/// cleared and no_new_privs is set, except with [`Programs::Setuid`]. For the calling thread and those it starts.
pub fn drop_privileges(programs: Programs) -> Done {
    drop_to(&[NET_RAW, NET_ADMIN], programs)
}

/// Gives up every capability: for --demo, which has no network.
pub fn drop_all_privileges(programs: Programs) -> Done {
    drop_to(&[], programs)
}

/// Whether programs that this process starts may be more than it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// No.
    Plain,
    /// Setuid programs work: an ordinary user's mount is unmounted by one.
    Setuid,
}

/// Keeps what it takes to unmount, and to see who has files open; for the unmounter.
pub fn drop_to_unmounting() -> Done {
    drop_to(&[SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH], Programs::Plain)
}

fn drop_to(wanted: &[u32], programs: Programs) -> Done {
    let held = capabilities().map_err(|error| format!("no privilege dropped: {error}"))?;
    let keep = wanted.iter().map(|cap| 1u64 << cap).sum::<u64>() & held;
    let mut failed = Vec::new();
    // The bounding set first: it takes CAP_SETPCAP, which is dropped with the others. Who never had that cannot, and need not
    // be told each time: after no_new_privs no program gives what the bounding set would have withheld.
    for cap in (0..).take_while(|_| held >> SETPCAP & 1 == 1) {
        match prctl_call(PR_CAPBSET_READ, cap, 0) {
            Ok(0) => {}
            Ok(_) => {
                if let Err(error) = prctl_call(PR_CAPBSET_DROP, cap, 0) {
                    failed.push(format!("bounding set: {error}"));
                    break;
                }
            }
            // Beyond the kernel's last capability.
            Err(_) => break,
        }
    }
    if let Err(error) = prctl_call(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0) {
        failed.push(format!("ambient set: {error}"));
    }
    if programs == Programs::Plain
        && let Err(error) = prctl::set_no_new_privs()
    {
        failed.push(format!("no_new_privs: {error}"));
    }
    if let Err(error) = set_capabilities(keep) {
        failed.push(format!("capabilities: {error}"));
    }
    let names = [
        (NET_RAW, "CAP_NET_RAW"),
        (NET_ADMIN, "CAP_NET_ADMIN"),
        (SYS_ADMIN, "CAP_SYS_ADMIN"),
        (SYS_PTRACE, "CAP_SYS_PTRACE"),
        (DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    ];
    let kept: Vec<_> = names.iter().filter(|(cap, _)| keep >> cap & 1 == 1).map(|(_, name)| *name).collect();
    let kept = if kept.is_empty() { "no capability".to_owned() } else { kept.join(" and ") };
    match failed.is_empty() {
        true => Ok(format!("kept {kept}")),
        false => Err(format!("kept {kept}; not dropped: {}", failed.join(", "))),
    }
}

/// `__user_cap_header_struct` and two `__user_cap_data_struct` of linux/capability.h.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// What the calling thread is permitted, a bit a capability.
fn capabilities() -> io::Result<u64> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads one header and writes two data structures; both are valid and have C's layout.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let [low, high] = data;
    Ok(u64::from(high.permitted) << 32 | u64::from(low.permitted))
}

/// Permits the calling thread these and makes them effective; none of them is inheritable.
fn set_capabilities(sets: u64) -> io::Result<()> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |bits: u32| CapData { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(sets as u32), half((sets >> 32) as u32)];
    // SAFETY: version 3 reads one header and two data structures; both are valid and have C's layout.
    match unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn prctl_call(what: libc::c_int, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: the calls made in this file take numbers and no pointers; unused arguments must be zero.
    match unsafe { libc::prctl(what, first, second, none, none) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn status(key: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap()
            .trim_start_matches(':')
            .trim()
            .to_owned()
    }

    #[test]
    fn what_is_dropped_is_gone_for_good() {
        // Of a thread of its own: capabilities are a thread's.
        thread::spawn(|| {
            let before = capabilities().unwrap();
            let said = drop_privileges(Programs::Plain);
            let after = capabilities().unwrap();
            let allowed = 1 << NET_RAW | 1 << NET_ADMIN;
            assert_eq!(after, before & allowed, "{said:?}");
            assert_eq!(u64::from_str_radix(&status("CapEff"), 16).unwrap(), after);
            assert_eq!(status("NoNewPrivs"), "1");
            let can = |cap: u32| before >> cap & 1 == 1;
            if can(SETPCAP) {
                assert_eq!(u64::from_str_radix(&status("CapBnd"), 16).unwrap(), 0, "{said:?}");
            }
            assert!(said.is_ok(), "{said:?}");
            if can(NET_RAW) {
                check_net_raw().unwrap();
            }
            // The second time there is no CAP_SETPCAP, as with an ordinary user: nothing to complain about.
            assert_eq!(drop_all_privileges(Programs::Plain), Ok("kept no capability".into()));
            assert_eq!(capabilities().unwrap(), 0);
            let refused = check_net_raw().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            for way in ["root", "setcap", "--demo"] {
                assert!(refused.to_string().contains(way), "{refused}");
            }
            assert!(io_flusher().is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn an_io_flusher_says_so() {
        /// What PR_SET_IO_FLUSHER has set.
        const PR_GET_IO_FLUSHER: libc::c_int = 58;
        thread::spawn(|| {
            let said = io_flusher();
            assert_eq!(said.is_ok(), prctl_call(PR_GET_IO_FLUSHER, 0, 0).is_ok_and(|on| on == 1), "{said:?}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn open_files_rise_to_the_hard_limit() {
        raise_open_files().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(soft, hard);
    }
}
