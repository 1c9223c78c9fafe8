//! The identity of a mount. A path does not identify it: one mount may go and another come at the same path. Nothing
//! here asks the file system that is mounted, so it works on dead mounts and on those that hang.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;

/// The identity of one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountId {
    /// The id of mountinfo and fdinfo. The kernel hands it out again once the mount is gone.
    pub id: u64,
    /// The id that is never used twice, from Linux 6.8 on.
    pub unique: Option<u64>,
}

impl MountId {
    /// Whether it is the same mount; by the id that is never reused, if both sides know it.
    pub fn same(self, other: MountId) -> bool {
        match (self.unique, other.unique) {
            (Some(a), Some(b)) => a == b,
            _ => self.id == other.id,
        }
    }
}

/// A directory held by O_PATH: it pins the mount that the path leads to now, and asks the file system nothing.
#[derive(Debug)]
pub struct Pinned {
    file: File,
}

impl Pinned {
    /// Pins the topmost mount at a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Not std's: where musl is the C library it leaves O_PATH out, and then the mount is asked.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { file: open(path, flags, Mode::empty())?.into() })
    }

    /// A path for system calls that leads to exactly the pinned directory.
    pub fn magic_link(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The absolute path of the pinned directory, without symbolic links.
    pub fn canonical(&self) -> io::Result<PathBuf> {
        std::fs::read_link(self.magic_link())
    }

    /// Which mount it belongs to.
    pub fn mount_id(&self) -> io::Result<MountId> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.file.as_raw_fd()))?;
        let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        let id = id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no mnt_id in fdinfo"))?;
        Ok(MountId { id, unique: self.unique_id() })
    }

    fn unique_id(&self) -> Option<u64> {
        const EMPTY: &CStr = c"";
        let mut answer = MaybeUninit::<libc::statx>::zeroed();
        // DONT_SYNC: the attributes in the cache will do. Without it the call would wait for the daemon.
        let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
        // SAFETY: the descriptor is open, the path is a C string, and `answer` has room for one struct statx.
        let rc = unsafe {
            libc::statx(
                self.file.as_raw_fd(),
                EMPTY.as_ptr(),
                flags,
                libc::STATX_MNT_ID_UNIQUE,
                answer.as_mut_ptr(),
            )
        };
        if rc != 0 {
            return None;
        }
        // SAFETY: all fields are integers, zeroed above and filled by the call that succeeded.
        let answer = unsafe { answer.assume_init() };
        (answer.stx_mask & libc::STATX_MNT_ID_UNIQUE != 0).then_some(answer.stx_mnt_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_an_identity() {
        let root = Pinned::open(Path::new("/")).unwrap();
        let again = Pinned::open(Path::new("/")).unwrap();
        let id = root.mount_id().unwrap();
        assert!(id.same(again.mount_id().unwrap()));
        assert_eq!(root.canonical().unwrap(), Path::new("/"));
        assert!(!id.same(Pinned::open(Path::new("/proc")).unwrap().mount_id().unwrap()));
    }

    #[test]
    fn the_unique_id_decides_where_both_have_one() {
        let old = MountId { id: 5, unique: Some(100) };
        let new = MountId { id: 5, unique: Some(101) };
        assert!(!old.same(new));
        assert!(old.same(MountId { id: 5, unique: None }));
        assert!(!old.same(MountId { id: 6, unique: None }));
    }

    #[test]
    fn a_file_is_no_directory() {
        let error = Pinned::open(Path::new("/proc/version")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    }
}
