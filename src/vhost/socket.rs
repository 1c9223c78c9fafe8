//! The socket of an export: a name in the file system that only the mount's owner and group can use.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

/// What owner and group may do: everything, which is to connect.
const MODE: u32 = 0o660;

/// Front ends that may wait while one is served.
const WAITING: i32 = 8;

/// Who the socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A socket that listens. Its name is taken away by [`Name::remove`].
pub struct Socket {
    /// For accept(2).
    pub listener: UnixListener,
    /// Its name.
    pub name: Name,
}

/// The name of a socket, and which file that is.
#[derive(Clone, Debug)]
pub struct Name {
    path: PathBuf,
    file: Identity,
}

/// What tells a file from others that have its name later. The number of one that is gone may be used again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    /// Where the file system knows it.
    born: Option<SystemTime>,
}

impl Identity {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), born: meta.created().ok() }
    }
}

impl Name {
    /// Takes the name away, unless it belongs to another file by now.
    pub fn remove(&self) {
        let own = |meta: fs::Metadata| Identity::of(&meta) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(own)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// A directory that nobody else can look into, beside the place where a socket is to be.
struct Nest<'a> {
    beside: &'a OwnedFd,
    name: String,
    dir: OwnedFd,
}

/// The name of the socket in it.
const EGG: &str = "socket";

impl<'a> Nest<'a> {
    fn new(beside: &'a OwnedFd) -> io::Result<Self> {
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()))?;
        let name = format!(".aoefs-{:016x}", u64::from_ne_bytes(number));
        mkdirat(beside, name.as_str(), Mode::S_IRWXU)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let dir = openat(beside, name.as_str(), flags, Mode::empty())?;
        let own = fstat(&dir)?;
        let nest = Self { beside, name, dir };
        // Who can change the directory around it may have put another one there.
        let is_own = own.st_uid == geteuid().as_raw() && own.st_mode & 0o077 == 0;
        if is_own { Ok(nest) } else { Err(Errno::EPERM.into()) }
    }

    /// A name of the socket that is as short as an address must be.
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{EGG}", self.dir.as_raw_fd()).into()
    }
}

impl Drop for Nest<'_> {
    fn drop(&mut self) {
        // There may be no socket in it yet.
        let _ = unlinkat(&self.dir, EGG, UnlinkatFlags::NoRemoveDir);
        if let Err(error) = unlinkat(self.beside, self.name.as_str(), UnlinkatFlags::RemoveDir) {
            log::warn!("cannot remove {}: {error}", self.name);
        }
    }
}

/// Makes a socket. EEXIST where something is there already, unless it is a socket that nobody listens at any more: that
/// is what a daemon leaves that was killed.
///
/// The socket has its owner and its mode, and somebody listens, before it has its name: nobody who can change the
/// directory, or is faster, gets at another file, or at the socket while it is not ready.
pub fn make(path: &Path, owner: Owner) -> io::Result<Socket> {
    // Nobody could connect to a longer one.
    let address = UnixAddr::new(path)?;
    let (Some(beside), Some(file)) = (path.parent(), path.file_name()) else {
        return Err(Errno::EEXIST.into());
    };
    let beside = open(beside, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let exists = || fs::symlink_metadata(path).is_ok() && !is_left_over(path, &address, owner);
    if exists() {
        return Err(Errno::EEXIST.into());
    }
    let nest = Nest::new(&beside)?;
    let own = new_socket()?;
    bind(own.as_raw_fd(), &UnixAddr::new(&nest.path())?)?;
    let meta = fs::symlink_metadata(nest.path())?;
    give(&nest.path(), &meta, owner)?;
    fs::set_permissions(nest.path(), Permissions::from_mode(MODE))?;
    listen(&own, Backlog::new(WAITING)?)?;
    let name_it = || linkat(&nest.dir, EGG, &beside, file, AtFlags::empty());
    match name_it() {
        Err(Errno::EEXIST) if is_left_over(path, &address, owner) => {
            fs::remove_file(path)?;
            name_it()?;
        }
        done => done?,
    }
    let name = Name { path: path.to_owned(), file: Identity::of(&meta) };
    Ok(Socket { listener: UnixListener::from(own), name })
}

/// Gives a file of ours to its owner, or at least to the owner's group: that takes no privilege of a member.
fn give(path: &Path, now: &fs::Metadata, owner: Owner) -> io::Result<()> {
    if (now.uid(), now.gid()) == (owner.uid, owner.gid) {
        return Ok(());
    }
    match lchown(path, Some(owner.uid), Some(owner.gid)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && now.gid() != owner.gid => {
            lchown(path, None, Some(owner.gid))
        }
        done => done,
    }
}

/// Whether this is a socket of the same owner's, or of the daemon's, that nobody listens at.
fn is_left_over(path: &Path, address: &UnixAddr, owner: Owner) -> bool {
    let users = [owner.uid, geteuid().as_raw()];
    let own = |meta: fs::Metadata| meta.file_type().is_socket() && users.contains(&meta.uid());
    let is_socket = fs::symlink_metadata(path).is_ok_and(own);
    let refused =
        || new_socket().and_then(|own| connect(own.as_raw_fd(), address)) == Err(Errno::ECONNREFUSED);
    is_socket && refused()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn own() -> Owner {
        Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    #[test]
    fn a_socket_belongs_to_its_owner_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let socket = make(&path, own()).unwrap();
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o660, own().uid, own().gid));
        UnixStream::connect(&path).unwrap();
        socket.listener.accept().unwrap();
        socket.name.remove();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_there_stays_unless_it_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let errno = |path: &Path| make(path, own()).err().and_then(|error| error.raw_os_error());
        let path = dir.path().join("disk");
        fs::write(&path, "text").unwrap();
        assert_eq!(errno(&path), Some(libc::EEXIST));
        assert_eq!(fs::read(&path).unwrap(), b"text");
        fs::remove_file(&path).unwrap();
        let first = make(&path, own()).unwrap();
        assert_eq!(errno(&path), Some(libc::EEXIST), "somebody listens");
        // As a daemon that was killed leaves it.
        drop(first.listener);
        let second = make(&path, own()).unwrap();
        first.name.remove();
        assert!(path.exists(), "it is another one's now");
        second.name.remove();
        assert_eq!(errno(&dir.path().join("none/disk")), Some(libc::ENOENT));
        assert_eq!(errno(&dir.path().join("x".repeat(200))), Some(libc::ENAMETOOLONG));
        assert_eq!(errno(Path::new("/")), Some(libc::EEXIST));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing else is left");
    }

    /// Who can put files there could else have the daemon take those of others away.
    #[test]
    fn a_socket_that_is_left_over_of_another_user_stays() {
        // Only root can give a socket to somebody else.
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let (owner, other) = (Owner { uid: 64242, ..own() }, Owner { uid: 64243, ..own() });
        drop(make(&path, owner).unwrap().listener);
        let errno = make(&path, other).err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::EEXIST));
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), 64242);
        // That of the owner, and one that the daemon had not given away yet, are taken away.
        drop(make(&path, owner).unwrap().listener);
        lchown(&path, Some(geteuid().as_raw()), None).unwrap();
        make(&path, owner).unwrap().name.remove();
    }

    #[test]
    fn a_link_that_somebody_puts_there_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("disk"), dir.path().join("other"));
        fs::write(&other, "text").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let errno = make(&path, own()).err().and_then(|error| error.raw_os_error());
        assert_eq!(errno, Some(libc::EEXIST));
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o7777, 0o600);
    }

    #[test]
    fn it_is_ready_from_when_it_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let there = path.clone();
        let made = std::thread::spawn(move || {
            // Of this thread only: a mask that leaves nothing, or what a user who is not root needs in a directory.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            let mask = if geteuid().is_root() { 0o777 } else { 0o077 };
            nix::sys::stat::umask(Mode::from_bits_truncate(mask));
            let rounds = (0..200).map(|_| {
                let socket = make(&there, own()).unwrap();
                std::thread::yield_now();
                socket.name.remove();
                socket.listener
            });
            rounds.collect::<Vec<_>>().len()
        });
        while !made.is_finished() {
            match (fs::symlink_metadata(&path), UnixStream::connect(&path)) {
                (Ok(meta), connected) => {
                    assert_eq!(meta.mode() & 0o7777, 0o660);
                    let errno = connected.err().map(|error| error.raw_os_error().unwrap());
                    assert!(matches!(errno, None | Some(libc::ENOENT)), "{errno:?}");
                }
                (Err(error), _) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT)),
            }
        }
        assert_eq!(made.join().unwrap(), 200);
    }
}
