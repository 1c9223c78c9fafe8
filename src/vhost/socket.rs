//! The socket of an export: a name in the file system that only the mount's owner and group can use.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};

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

fn new_socket() -> nix::Result<std::os::fd::OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// Makes a socket. EEXIST where something is there already, unless it is a socket that nobody listens at any more: that
/// is what a daemon leaves that was killed.
pub fn make(path: &Path, owner: Owner) -> io::Result<Socket> {
    let address = UnixAddr::new(path)?;
    let own = new_socket()?;
    // The name is made with at most this mode; until somebody listens, it leads nowhere.
    fchmod(&own, Mode::from_bits_truncate(MODE))?;
    match bind(own.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) if is_left_over(path, &address, owner) => {
            fs::remove_file(path)?;
            bind(own.as_raw_fd(), &address)?;
        }
        Err(Errno::EADDRINUSE) => return Err(Errno::EEXIST.into()),
        done => done?,
    }
    let meta = fs::symlink_metadata(path)?;
    let name = Name { path: path.to_owned(), file: Identity::of(&meta) };
    let opened = give(path, &meta, owner).and_then(|()| Ok(listen(&own, Backlog::new(WAITING)?)?));
    if let Err(error) = opened {
        name.remove();
        return Err(error);
    }
    Ok(Socket { listener: UnixListener::from(own), name })
}

/// Gives it to its owner, who can connect from then on.
fn give(path: &Path, meta: &fs::Metadata, owner: Owner) -> io::Result<()> {
    if (meta.uid(), meta.gid()) != (owner.uid, owner.gid) {
        lchown(path, Some(owner.uid), Some(owner.gid))?;
    }
    fs::set_permissions(path, Permissions::from_mode(MODE))
}

/// Whether this is a socket of the same owner's that nobody listens at.
fn is_left_over(path: &Path, address: &UnixAddr, owner: Owner) -> bool {
    let own = |meta: fs::Metadata| meta.file_type().is_socket() && meta.uid() == owner.uid;
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
    }
}
