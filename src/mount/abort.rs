//! Ending a FUSE connection from outside: every request that the daemon owes fails at once.
//!
//! A daemon that is killed frees its users by closing /dev/fuse. But if one of its threads waits inside the kernel for
//! a reply of that very daemon, the descriptor stays open, and kill -9 does not end that thread: only this does. The
//! kernel's switch for it is a file of the fusectl file system, named after the mount's device number.

use std::ffi::CStr;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::ptr::null;

use nix::libc;

use super::{MountId, table};

/// Where systemd mounts fusectl. Containers often lack it.
const FUSECTL: &str = "/sys/fs/fuse/connections";

/// A connection, as the kernel numbers it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connection(u32);

impl Connection {
    /// The connection behind a mount that stands in the tree.
    pub fn behind(mount: MountId) -> Option<Self> {
        Self::named(&table::find(mount.id).ok()??.device)
    }

    /// The connection of that device in the mount table.
    pub fn named(device: &str) -> Option<Self> {
        // FUSE has no device behind it: major number 0.
        device.strip_prefix("0:")?.parse().ok().map(Self)
    }

    /// Ends it. Where fusectl is mounted, the owner of the mount may do that; elsewhere it takes CAP_SYS_ADMIN.
    /// NotFound: it has ended before.
    pub fn abort(self) -> io::Result<()> {
        let file = format!("{}/abort", self.0);
        let mounted = PathBuf::from(FUSECTL).join(&file);
        match press(&mounted) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let root = fusectl()?;
                press(&PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())).join(file))
            }
            done => done,
        }
    }
}

fn press(file: &PathBuf) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(b"1")
}

/// A mount of fusectl that is in no tree of directories and ends with its descriptor.
fn fusectl() -> io::Result<OwnedFd> {
    const NAME: &CStr = c"fusectl";
    // SAFETY: the name is a C string; the call touches nothing else of ours.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, NAME.as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    let none = null::<libc::c_char>();
    // SAFETY: the descriptor is open, and this command takes neither key nor value.
    let made = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), libc::FSCONFIG_CMD_CREATE, none, none, 0)
    };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open; the other arguments are numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), libc::FSMOUNT_CLOEXEC, 0) })
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(fd) {
        // SAFETY: the kernel has just given us this descriptor, and nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
