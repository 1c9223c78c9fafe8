//! Rights and properties that the process asks of the kernel, and rights that it gives up.
//!
//! Promises: everything here is best effort and describes its result in words for the log; nothing makes the start
//! fail. A process that may not do a thing runs without it. Calls that change only the calling thread, and threads that
//! it starts later, say so: `main` makes them before any other thread exists.

use std::fs;
use std::io;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, getegid, getgroups, setgroups};
use socket2::{Domain, Socket, Type};

/// Words for the log: what was done, or what was not done and why.
pub type Done = Result<String, String>;

/// Not in libc for every C library (linux/prctl.h).
const PR_SET_IO_FLUSHER: libc::c_int = 57;

/// Tells the kernel that this thread, and those that it starts, clean dirty pages: their allocations must not wait for
/// the file systems that wait for them. Needs CAP_SYS_RESOURCE.
pub fn io_flusher() -> Done {
    match prctl_call(PR_SET_IO_FLUSHER, 1) {
        Ok(_) => Ok("marked as an I/O flusher".into()),
        Err(error) => Err(format!(
            "not marked as an I/O flusher: {error}; under memory pressure file systems on loop devices may stall"
        )),
    }
}

/// Keeps memory from being paged out, as far as it is touched. Later mappings are included only if no limit can
/// make one fail: a thread's stack would be the first.
pub fn lock_memory() -> Done {
    // Without the limit, later mappings may be locked also after the privilege is gone.
    let raised = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok();
    let unlimited =
        raised || getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    let future = if unlimited { libc::MCL_FUTURE } else { 0 };
    // SAFETY: mlockall takes flags and changes no memory that Rust knows of.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT | future) } {
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

/// Makes the process a member of a group, so that it may give files to the group without a privilege later.
pub fn join(group: u32) -> Done {
    let group = Gid::from_raw(group);
    let join = || {
        let mut groups = getgroups()?;
        if group != getegid() && !groups.contains(&group) {
            groups.push(group);
            setgroups(&groups)?;
        }
        Ok::<_, Errno>(format!("in group {group}"))
    };
    join().map_err(|error| format!("not in group {group}: {error}"))
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
/// cleared and no_new_privs is set. For the calling thread and those it starts.
pub fn drop_privileges() -> Done {
    drop_to(&[Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN])
}

/// Gives up every capability: for --demo, which has no network.
pub fn drop_all_privileges() -> Done {
    drop_to(&[])
}

/// Keeps the capabilities that unmounting takes, and those that show which processes have files open; for the
/// unmounter.
pub fn drop_to_unmounting() -> Done {
    let needed = [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];
    drop_to(&needed)
}

fn drop_to(wanted: &[Capability]) -> Done {
    let held = permitted().map_err(|error| format!("no privilege dropped: {error}"))?;
    let kept: Vec<Capability> = wanted.iter().copied().filter(|cap| held.contains(cap)).collect();
    let (keep, nothing) = (CapsHashSet::from_iter(kept.iter().copied()), CapsHashSet::new());
    let mut failed = Vec::new();
    let mut note = |what: &str, done: Result<(), String>| {
        if let Err(error) = done {
            failed.push(format!("{what}: {error}"));
        }
    };
    // The bounding set first: clearing it takes CAP_SETPCAP, which is dropped with the others. A process that never had
    // CAP_SETPCAP need not be told each time: after no_new_privs no program gives what the bounding set withholds.
    if held.contains(&Capability::CAP_SETPCAP) {
        note("bounding set", caps::clear(None, CapSet::Bounding).map_err(|error| error.to_string()));
    }
    note("ambient set", caps::clear(None, CapSet::Ambient).map_err(|error| error.to_string()));
    note("no_new_privs", prctl::set_no_new_privs().map_err(|errno| errno.to_string()));
    for (set, left) in
        [(CapSet::Effective, &keep), (CapSet::Permitted, &keep), (CapSet::Inheritable, &nothing)]
    {
        note("capabilities", caps::set(None, set, left).map_err(|error| error.to_string()));
    }
    let names: Vec<String> = kept.iter().map(Capability::to_string).collect();
    let kept = if names.is_empty() { "no capability".to_owned() } else { names.join(" and ") };
    match failed.is_empty() {
        true => Ok(format!("kept {kept}")),
        false => Err(format!("kept {kept}; not dropped: {}", failed.join(", "))),
    }
}

/// The capabilities that the calling thread may use.
fn permitted() -> Result<CapsHashSet, caps::errors::CapsError> {
    caps::read(None, CapSet::Permitted)
}

fn prctl_call(what: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    let none: libc::c_ulong = 0;
    // SAFETY: the calls made in this file take numbers and no pointers; unused arguments must be zero.
    match unsafe { libc::prctl(what, argument, none, none, none) } {
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
            let before = permitted().unwrap();
            let can = |cap| before.contains(&cap);
            let said = drop_privileges();
            let kept =
                [Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN].into_iter().filter(|cap| can(*cap));
            let kept: u64 = kept.map(|cap| cap.bitmask()).sum();
            for set in ["CapEff", "CapPrm"] {
                assert_eq!(u64::from_str_radix(&status(set), 16).unwrap(), kept, "{set}: {said:?}");
            }
            assert_eq!(u64::from_str_radix(&status("CapInh"), 16).unwrap(), 0);
            assert_eq!(status("NoNewPrivs"), "1");
            if can(Capability::CAP_SETPCAP) {
                assert_eq!(u64::from_str_radix(&status("CapBnd"), 16).unwrap(), 0, "{said:?}");
            }
            assert!(said.is_ok(), "{said:?}");
            if can(Capability::CAP_NET_RAW) {
                check_net_raw().unwrap();
            }
            // The second time there is no CAP_SETPCAP, as with an ordinary user: nothing to complain about.
            assert_eq!(drop_all_privileges(), Ok("kept no capability".into()));
            assert!(permitted().unwrap().is_empty());
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
            assert_eq!(said.is_ok(), prctl_call(PR_GET_IO_FLUSHER, 0).is_ok_and(|on| on == 1), "{said:?}");
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
