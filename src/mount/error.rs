//! The errors of mounting, each as one line: what failed, why, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// Why there is no mount.
#[derive(Debug)]
pub enum MountError {
    /// There is nothing at that path.
    Missing(PathBuf),
    /// The path, or a part of it, is not a directory.
    NotADirectory(PathBuf),
    /// The path could not be read.
    Unreachable(PathBuf, io::Error),
    /// A part of the path above the mount point lies on a FUSE mount without a daemon.
    BelowDead(PathBuf),
    /// aoefs is mounted there and answers, or may still answer.
    Living(PathBuf),
    /// Another file system is mounted there.
    Foreign {
        /// The mount point.
        point: PathBuf,
        /// Its file system type.
        kind: String,
        /// Its daemon is gone.
        dead: bool,
    },
    /// A dead mount of ours is there, and it does not go away.
    StuckDead(PathBuf, io::Error),
    /// No `/dev/fuse`.
    NoDevice(Errno),
    /// The kernel wants CAP_SYS_ADMIN, and there is no fusermount3 to ask.
    NoHelper(PathBuf),
    /// fusermount3 said no, with its reason.
    Helper(PathBuf, String),
    /// fusermount3 could not be run.
    HelperFailed(PathBuf, io::Error),
    /// mount(2) said no.
    Refused(PathBuf, Errno),
    /// The mount was made and could not be found again.
    Lost(PathBuf, io::Error),
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use MountError::*;
        match self {
            Missing(p) => write!(f, "mount point {0} does not exist; make it with: mkdir -p {0}", p.display()),
            NotADirectory(p) => {
                write!(f, "mount point {} is not a directory; name an empty directory", p.display())
            }
            Unreachable(p, why) => {
                write!(f, "cannot look at mount point {}: {why}; check the path and its permissions", p.display())
            }
            BelowDead(p) => write!(
                f,
                "mount point {} lies below a FUSE mount whose daemon is gone; unmount that one first (umount -l)",
                p.display()
            ),
            Living(p) => write!(
                f,
                "aoefs is mounted on {0} already; umount {0} first, or choose another directory",
                p.display()
            ),
            Foreign { point, kind, dead: false } => write!(
                f,
                "a file system of type {kind} is mounted on {0}, not touching it; umount {0} first, or choose another directory",
                point.display()
            ),
            Foreign { point, kind, dead: true } => write!(
                f,
                "a mount of type {kind} whose daemon is gone is on {0}, not touching it; umount -l {0} first",
                point.display()
            ),
            StuckDead(p, why) => write!(
                f,
                "the mount of a dead aoefs on {0} does not go away: {why}; try: umount -l {0}",
                p.display()
            ),
            NoDevice(Errno::EACCES | Errno::EPERM) => f.write_str(
                "/dev/fuse: no permission; run as root, or let this user or container open it (docker run --device /dev/fuse)",
            ),
            NoDevice(why) => write!(
                f,
                "/dev/fuse: {}; load the module (modprobe fuse), or give the container the device (docker run --device /dev/fuse)",
                why.desc()
            ),
            NoHelper(p) => write!(
                f,
                "no privilege to mount on {} and no fusermount3 in PATH; run as root, or install fuse3",
                p.display()
            ),
            Helper(p, why) if why.contains("user_allow_other") => write!(
                f,
                "fusermount3 refused to mount on {}: allow_other needs the line user_allow_other in /etc/fuse.conf; add it, or leave allow_other out",
                p.display()
            ),
            Helper(_, why) if why.contains("/dev/fuse") => {
                write!(f, "{}", NoDevice(if why.contains("denied") { Errno::EACCES } else { Errno::ENOENT }))
            }
            Helper(p, why) if why.contains("determine username") => write!(
                f,
                "fusermount3 refused to mount on {}: this user has no line in /etc/passwd; add one, or run as root",
                p.display()
            ),
            Helper(p, why) => write!(
                f,
                "fusermount3 refused to mount on {}: {why}; mount on a directory of your own, or run as root",
                p.display()
            ),
            HelperFailed(p, why) => {
                write!(f, "cannot run {}: {why}; repair fuse3, or set FUSERMOUNT_PATH", p.display())
            }
            Refused(p, Errno::EPERM) => {
                write!(f, "the kernel refuses to mount on {}; run as root", p.display())
            }
            Refused(p, Errno::ENODEV) => write!(
                f,
                "cannot mount on {}: this kernel has no FUSE; load the module (modprobe fuse)",
                p.display()
            ),
            Refused(p, why) => {
                write!(f, "cannot mount on {}: {}; check the mount point", p.display(), why.desc())
            }
            Lost(p, why) => write!(
                f,
                "mounted on {0}, but cannot find the mount again: {why}; is /proc mounted? then: umount {0}",
                p.display()
            ),
        }
    }
}

impl std::error::Error for MountError {}
