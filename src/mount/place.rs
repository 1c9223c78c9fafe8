//! The mount point: a directory, by its absolute path, on which nothing is mounted except dead mounts of our own.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, fork, pipe2};

use super::error::MountError;
use super::helper;
use super::identity::Pinned;
use super::table;

/// The file system type of our mounts, as `mount` and `findmnt -t` show it.
pub const KIND: &str = "fuse.aoefs";

/// How long a mount at the mount point has to prove that it lives: ms. An aoefs answers a stat of its root within 10
/// ms, whatever happens in its network; if it takes longer than this, the process is stopped.
const PROOF_OF_LIFE: u16 = 2_000;

/// How long a start waits for another one at the same mount point. fusermount3 takes 20 ms on a quiet machine.
const TURN: Duration = Duration::from_secs(5);

/// How often the lock of the other start is tried.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// The most dead mounts that are taken away; no number of crashes leaves so many.
const MAX_DEAD: usize = 64;

/// The directory to mount on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// Finds the directory and checks whether something is mounted there. A dead mount of ours is no error, since
    /// [`Place::clear`] takes it away; any other mount is.
    pub fn resolve(path: &Path) -> Result<Self, MountError> {
        let pinned = Pinned::open(path).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => MountError::Missing(path.into()),
            Some(libc::ENOTDIR) => MountError::NotADirectory(path.into()),
            Some(libc::ENOTCONN) => MountError::BelowDead(path.into()),
            _ => MountError::Unreachable(path.into(), error),
        })?;
        let path = pinned.canonical().map_err(|error| MountError::Unreachable(path.into(), error))?;
        let place = Self { path };
        place.occupied(&pinned)?;
        Ok(place)
    }

    /// The absolute path, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing is in the directory, which a mount would hide. One that cannot be read counts as empty.
    pub fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.path).map_or(true, |mut entries| entries.next().is_none())
    }

    /// Detaches the dead mounts of ours that lie there, and says how many there were. Never a living or foreign one.
    pub fn clear(&self) -> Result<usize, MountError> {
        for cleared in 0..MAX_DEAD {
            let pinned = Pinned::open(&self.path)
                .map_err(|error| MountError::Unreachable(self.path.clone(), error))?;
            if !self.occupied(&pinned)? {
                return Ok(cleared);
            }
            let detached = match umount2(&pinned.magic_link(), MntFlags::MNT_DETACH) {
                Err(Errno::EPERM) => helper::unmount(&self.path, true).map(drop),
                other => other.map_err(io::Error::from),
            };
            detached.map_err(|error| MountError::StuckDead(self.path.clone(), error))?;
        }
        Err(MountError::StuckDead(self.path.clone(), Errno::ELOOP.into()))
    }

    /// Waits until no other start is between the check of the mount point and its mount. The turn is ours until the
    /// returned lock is dropped. The directory below the mounts is locked for it. If that is not possible (a file
    /// system without locks, a directory that may not be read), or another program keeps it locked, the start goes on
    /// without. Over a dead mount there is no turn to take: the caller has cleared that before.
    pub fn take_turn(&self) -> Option<Flock<File>> {
        let pinned = Pinned::open(&self.path).ok()?;
        if !matches!(self.occupied(&pinned), Ok(false)) {
            return None;
        }
        // Through the pin: the path could lead to a mount that was made meanwhile and does not answer yet.
        let mut dir = File::open(pinned.magic_link()).ok()?;
        for _ in 0..TURN.as_millis() / TRY_AGAIN.as_millis() {
            match Flock::lock(dir, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Some(locked),
                Err((file, Errno::EWOULDBLOCK)) => dir = file,
                Err(_) => return None,
            }
            thread::sleep(TRY_AGAIN);
        }
        log::warn!("{}: locked by another program; mounting all the same", self.path.display());
        None
    }

    /// True if a dead mount of ours is on top; an error if anything else is.
    fn occupied(&self, pinned: &Pinned) -> Result<bool, MountError> {
        let unreachable = |error| MountError::Unreachable(self.path.clone(), error);
        let id = pinned.mount_id().map_err(unreachable)?.id;
        let Some(entry) = table::find(id).map_err(unreachable)? else { return Ok(false) };
        if entry.point != self.path {
            return Ok(false);
        }
        let dead = entry.kind.starts_with("fuse") && is_dead(pinned);
        match (entry.kind == KIND, dead) {
            (true, true) => Ok(true),
            (true, false) => Err(MountError::Living(self.path.clone())),
            (false, dead) => Err(MountError::Foreign { point: self.path.clone(), kind: entry.kind, dead }),
        }
    }
}

/// Whether a FUSE mount answers ENOTCONN. A process of its own asks, since it may have to wait for a stopped daemon for
/// ever; if no answer comes for a while, the mount counts as alive.
fn is_dead(pinned: &Pinned) -> bool {
    const ALIVE: i32 = 0;
    const DEAD: i32 = 1;
    // The magic link is followed by the kernel to the pinned mount, where FORCE_SYNC makes it ask the daemon.
    let Ok(path) = std::ffi::CString::new(pinned.magic_link().into_os_string().into_encoded_bytes()) else {
        return false;
    };
    let Ok((reader, writer)) = pipe2(OFlag::O_CLOEXEC) else { return false };
    // SAFETY: the child makes system calls only, and leaves through _exit.
    match unsafe { fork() } {
        Err(_) => false,
        Ok(ForkResult::Child) => {
            // SAFETY: zeroed integers are a valid struct statx, which the call fills; the path is a C string.
            let rc = unsafe {
                let mut answer: libc::statx = std::mem::zeroed();
                let flags = libc::AT_STATX_FORCE_SYNC;
                libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_BASIC_STATS, &mut answer)
            };
            let dead = rc != 0 && matches!(Errno::last(), Errno::ENOTCONN | Errno::ECONNABORTED);
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(if dead { DEAD } else { ALIVE }) }
        }
        Ok(ForkResult::Parent { child }) => {
            drop(writer);
            // The child's end of the pipe closes when it ends.
            let mut ends = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            let in_time = loop {
                match poll(&mut ends, PollTimeout::from(PROOF_OF_LIFE)) {
                    Err(Errno::EINTR) => continue,
                    other => break other.is_ok_and(|ready| ready > 0),
                }
            };
            if in_time {
                return matches!(waitpid(child, None), Ok(nix::sys::wait::WaitStatus::Exited(_, DEAD)));
            }
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert!(matches!(Place::resolve(&missing), Err(MountError::Missing(_))));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(Place::resolve(&file), Err(MountError::NotADirectory(_))));
        assert!(matches!(Place::resolve(&file.join("x")), Err(MountError::NotADirectory(_))));
    }

    #[test]
    fn it_is_known_by_its_absolute_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let place = Place::resolve(&link).unwrap();
        assert_eq!(place.path(), real);
        assert_eq!(place.clear().unwrap(), 0);
    }

    #[test]
    fn a_foreign_mount_is_refused() {
        let error = Place::resolve(Path::new("/proc")).unwrap_err();
        assert!(matches!(&error, MountError::Foreign { kind, dead: false, .. } if kind == "proc"), "{error}");
    }
}
