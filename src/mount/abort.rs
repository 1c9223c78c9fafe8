//! Ending a FUSE connection from outside: every request that the daemon owes fails at once.
//!
//! A daemon that is killed frees its users by closing /dev/fuse. But if one of its threads waits inside the kernel for
//! a reply of that very daemon, the descriptor stays open, and kill -9 does not end that thread: only this does. The
//! kernel's switch for it is a file of the fusectl file system, named after the mount's device number.
//!
//! That number is free when the last mount of the connection is gone, and the next FUSE mount of the machine gets it,
//! whosever it is. The inode of the switch is another one then: this tells them apart.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::sync::Arc;

use nix::libc;

use super::identity::Pinned;
use super::{MountId, table};

/// Where systemd mounts fusectl. Containers often lack it.
const FUSECTL: &str = "/sys/fs/fuse/connections";

/// A connection. It is there as long as a mount of it is in a tree or in use.
#[derive(Clone, Debug)]
pub struct Connection {
    number: u32,
    /// The inode of its switch. The kernel counts on, in 32 bits, before it uses one again.
    switch: u64,
    switches: Switches,
}

/// Where the switches are.
#[derive(Clone, Debug)]
enum Switches {
    /// In a mount of fusectl that is in no tree of directories. It is kept: all inodes are new when the last mount of
    /// fusectl has gone.
    Own(Arc<OwnedFd>),
    /// Where systemd mounts fusectl. Nothing of it is kept open, so that it can be unmounted.
    Mounted,
}

impl Connection {
    /// The connection behind a mount that stands in the tree, at this path. None: it does not stand there, or fusectl
    /// cannot be had.
    pub fn behind(point: &Path, mount: MountId) -> Option<Self> {
        // While it is pinned, its numbers belong to it.
        let pinned = Pinned::open(point).ok()?;
        if !pinned.mount_id().ok()?.same(mount) {
            return None;
        }
        let number = number(&table::find(mount.id).ok()??.device)?;
        // Making a mount takes CAP_SYS_ADMIN.
        let switches = fusectl().map_or(Switches::Mounted, |root| Switches::Own(Arc::new(root)));
        let switch = switches.open(number, &by_name()).and_then(|file| inode(&file)).ok()?;
        Some(Self { number, switch, switches })
    }

    /// Whether the mount table's name for its device is that of this connection. Another may have the name when this
    /// one has ended.
    pub fn is_named(&self, device: &str) -> bool {
        number(device) == Some(self.number)
    }

    /// Whether it has its name still.
    pub fn is_there(&self) -> bool {
        self.open(&by_name()).is_ok()
    }

    /// Ends it. The owner of the mount may do that. NotFound: it has ended before.
    pub fn abort(&self) -> io::Result<()> {
        self.open(OpenOptions::new().write(true))?.write_all(b"1")
    }

    /// Opens its switch, which stays its own whatever happens to the name.
    fn open(&self, options: &OpenOptions) -> io::Result<File> {
        let file = self.switches.open(self.number, options)?;
        if inode(&file)? == self.switch { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl Switches {
    fn open(&self, number: u32, options: &OpenOptions) -> io::Result<File> {
        let folder = match self {
            Self::Own(root) => PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd())),
            Self::Mounted => FUSECTL.into(),
        };
        options.open(folder.join(format!("{number}/abort")))
    }
}

/// FUSE has no device behind it: major number 0.
fn number(device: &str) -> Option<u32> {
    device.strip_prefix("0:")?.parse().ok()
}

/// For a look: the switch may be written only.
fn by_name() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH);
    options
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
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
