//! Mounting, and taking the mount away again, without fuser (docs/design.md#weighed-and-kept-by-hand). A mount is known
//! by its id, and is unmounted only while the mount with that id stands at the path. The descriptor goes to
//! `fuser::Session::from_fd`.

pub mod abort;
pub mod error;
pub mod helper;
pub mod holders;
pub mod identity;
pub mod place;
pub mod table;
pub mod timeout;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, umount2};

pub use abort::Connection;
pub use error::MountError;
pub use identity::MountId;
use identity::Pinned;
pub use place::{KIND, Place};

/// The most bytes that one READ asks for: the kernel's default page limit (256) allows no more.
pub const MAX_READ: u32 = 1 << 20;

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    /// The first column of the mount table: the interfaces.
    pub source: String,
    /// Other users may use it as well; file modes decide then.
    pub allow_other: bool,
    /// Nothing on it may be executed.
    pub noexec: bool,
    /// Bytes of the largest READ.
    pub max_read: u32,
}

impl Default for MountSpec {
    fn default() -> Self {
        Self { source: "aoefs".into(), allow_other: false, noexec: false, max_read: MAX_READ }
    }
}

/// A mount that stands, with the descriptor its requests come from.
#[derive(Debug)]
pub struct Mounted {
    /// The mount, to unmount it later.
    pub mount: Mount,
    /// For `Session::from_fd`.
    pub device: OwnedFd,
}

/// The result of an unmount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmount {
    /// It is gone from the tree now.
    Done,
    /// It was gone before.
    Gone,
    /// The mount at this place is in use.
    Busy(PathBuf),
    /// It cannot be reached, or a copy of it would stay: why, as the end of a sentence.
    Held(String),
}

/// One mount of ours, by its identity. It is looked up in the mount table each time: its path may have changed, if a
/// folder above was renamed, and another mount may stand at its old path.
#[derive(Debug, Clone)]
pub struct Mount {
    point: PathBuf,
    id: MountId,
    connection: Option<Connection>,
    by_helper: bool,
}

/// Mounts: by mount(2), or through fusermount3 where that takes a privilege which we do not have. Of several starts at
/// once on one mount point exactly one succeeds, although mounts stack, if its directory can be locked.
pub fn mount(place: &Place, spec: &MountSpec) -> Result<Mounted, MountError> {
    let point = place.path();
    let _turn = place.take_turn();
    // If another start had the turn before, its mount stands now, and is an error here.
    place.clear()?;
    let (device, by_helper) = match direct(point, spec) {
        Ok(device) => (device, false),
        Err(MountError::Refused(_, Errno::EPERM) | MountError::NoDevice(Errno::EACCES)) => {
            (helper::mount(point, spec)?, true)
        }
        Err(error) => return Err(error),
    };
    match Pinned::open(point).and_then(|pinned| pinned.mount_id()) {
        Ok(id) => Ok(Mounted { mount: Mount::known(point.into(), id, by_helper), device }),
        Err(error) => Err(MountError::Lost(point.into(), error)),
    }
}

/// mount(2). The data contains no strings from outside, so there is nothing to escape; the source is an argument.
fn direct(point: &Path, spec: &MountSpec) -> Result<OwnedFd, MountError> {
    let device = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/fuse")
        .map_err(|error| MountError::NoDevice(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))?;
    let mut data = format!(
        "fd={},rootmode=40755,user_id={},group_id={},default_permissions,max_read={}",
        device.as_raw_fd(),
        nix::unistd::geteuid(),
        nix::unistd::getegid(),
        spec.max_read
    );
    if spec.allow_other {
        data.push_str(",allow_other");
    }
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_NOEXEC, spec.noexec);
    nix::mount::mount(Some(spec.source.as_str()), point, Some(KIND), flags, Some(data.as_str()))
        .map_err(|errno| MountError::Refused(point.into(), errno))?;
    Ok(device.into())
}

impl Mount {
    /// The path where it was made.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Its identity.
    pub fn id(&self) -> MountId {
        self.id
    }

    /// True if unmounting goes through fusermount3.
    pub fn by_helper(&self) -> bool {
        self.by_helper
    }

    /// A mount that stands and was made by us, or by another process of ours that told us about it.
    pub fn known(point: PathBuf, id: MountId, by_helper: bool) -> Self {
        let connection = Connection::behind(&point, id);
        Self { point, id, connection, by_helper }
    }

    /// Its FUSE connection.
    pub fn connection(&self) -> Option<&Connection> {
        self.connection.as_ref()
    }

    /// Unmounts if it is not in use.
    pub fn unmount(&self) -> io::Result<Unmount> {
        let mut places = self.places()?;
        let Some(own) = places.iter().position(|entry| entry.id == self.id.id) else {
            return Ok(match places.first() {
                None => Unmount::Gone,
                Some(copy) => Unmount::Held(format!("a copy of it is mounted at {}", copy.point.display())),
            });
        };
        let own = places.swap_remove(own);
        if let Some(copy) = places.first() {
            // If ours went, only the copy would be left, and no later call would find it.
            return Ok(Unmount::Held(format!("a copy of it is mounted at {}", copy.point.display())));
        }
        // A pinned mount is busy, so the pin has to go first. In the moment between, another process may unmount ours
        // and mount another file system there: the kernel offers no way around it but a lazy unmount, see `detach`.
        match self.pin(&own)? {
            Err(held) => return Ok(held),
            Ok(pinned) => drop(pinned),
        }
        if self.by_helper {
            return helper::unmount(&own.point, false);
        }
        match umount2(&own.point, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => Ok(Unmount::Done),
            Err(Errno::EBUSY) => Ok(Unmount::Busy(own.point)),
            Err(Errno::EINVAL | Errno::ENOENT) => Ok(Unmount::Gone),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes it and its copies out of the tree at once. Open files stay open; the session ends at the last close.
    pub fn detach(&self) -> io::Result<Unmount> {
        let mut any = false;
        loop {
            let mut held = None;
            let mut went = false;
            // A copy may stand on top of it: the last in the table was mounted last.
            for place in self.places()?.iter().rev() {
                match self.detach_one(place)? {
                    Unmount::Gone => {}
                    Unmount::Done => went = true,
                    other => held = Some(other),
                }
            }
            any |= went;
            match held {
                None => return Ok(if any { Unmount::Done } else { Unmount::Gone }),
                Some(held) if !went => return Ok(held),
                Some(_) => {}
            }
        }
    }

    fn detach_one(&self, place: &table::Entry) -> io::Result<Unmount> {
        let pinned = match self.pin(place)? {
            Err(held) => return Ok(held),
            Ok(pinned) => pinned,
        };
        if self.by_helper {
            drop(pinned);
            return helper::unmount(&place.point, true);
        }
        match umount2(&pinned.magic_link(), MntFlags::MNT_DETACH) {
            Ok(()) => Ok(Unmount::Done),
            Err(Errno::EINVAL | Errno::ENOENT) => Ok(Unmount::Gone),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Where it and its copies (bind mounts) stand in the mount table of this namespace.
    fn places(&self) -> io::Result<Vec<table::Entry>> {
        let mut places = table::read()?;
        places.retain(|entry| entry.id == self.id.id || self.has_name_of(entry));
        // If the connection has its name now, it had it when the table was read.
        if !self.connection().is_some_and(Connection::is_there) {
            places.retain(|entry| entry.id == self.id.id);
        }
        Ok(places)
    }

    fn has_name_of(&self, entry: &table::Entry) -> bool {
        entry.kind == KIND && self.connection().is_some_and(|connection| connection.is_named(&entry.device))
    }

    /// [`Mount::detach`] as the last thing that this process does: it may become the program that does it. Returns if
    /// it need not, or has failed.
    pub fn detach_and_end(&self) -> io::Result<Unmount> {
        if !self.by_helper {
            return self.detach();
        }
        let mut places = self.places()?.into_iter();
        let Some(last) = places.next() else { return Ok(Unmount::Gone) };
        // Copies on top of it go first.
        for place in places.rev() {
            self.detach_one(&place)?;
        }
        match self.pin(&last)? {
            Ok(_pinned) => Err(helper::become_detacher(&last.point)),
            Err(held) => Ok(held),
        }
    }

    /// Lets the kernel read ahead up to so many KiB; its default of 128 is too little for a network. After the INIT
    /// reply, which can only lower the figure. Takes root, to whom the file belongs.
    pub fn set_read_ahead(&self, kib: u32) -> io::Result<()> {
        let entry = table::find(self.id.id)?.ok_or(Errno::ENOENT)?;
        std::fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", entry.device), kib.to_string())
    }

    /// Pins the mount at a place, if it is the one that the table names; else says what is in the way.
    fn pin(&self, place: &table::Entry) -> io::Result<Result<Pinned, Unmount>> {
        let pinned = match Pinned::open(&place.point) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(Unmount::Gone)),
            other => other?,
        };
        let there = pinned.mount_id()?;
        let entry = table::find(there.id)?;
        if there.id != place.id {
            let cover = entry.map_or_else(|| "another mount".into(), |entry| entry.kind);
            // It may have gone in between.
            let gone = table::find(place.id)?.is_none();
            let covered = format!("it is covered by {cover} at {}", place.point.display());
            return Ok(Err(if gone { Unmount::Gone } else { Unmount::Held(covered) }));
        }
        let is_it = if place.id == self.id.id {
            there.same(self.id)
        } else {
            entry.is_some_and(|entry| self.has_name_of(&entry))
                && self.connection().is_some_and(Connection::is_there)
        };
        // Ours is gone if another mount has its id.
        Ok(if is_it { Ok(pinned) } else { Err(Unmount::Gone) })
    }
}
