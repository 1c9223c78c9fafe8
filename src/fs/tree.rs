//! Names, inode numbers, modes: directories and attributes.
//!
//! Every file but the disks has an inode number that is computed from the target's unit id, and unit ids are never
//! reused. `data` and the partitions are [`Disk`]s: each generation of one has a number of its own, counted up and
//! never used again. What a path names now is *current*; a disk that was replaced or a partition that was deleted turns
//! *stale*, keeps its size for programs that have it open, answers ESTALE, and is dropped when the kernel forgets it.
//! [`Tree::sync`] tells the tree what the engine has; the tree never asks. Its lock is a leaf, so that `sync` can be
//! called with the target locked: two views of one target must not arrive in the wrong order.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo};
use parking_lot::Mutex;

use super::limits::REQUEST_MAX;
use crate::engine::{Device, Handle};
use crate::runtime::UnitId;
use crate::wire::SECTOR;

mod node;

#[cfg(test)]
mod tests;

pub use node::{DATA, DEVLINK, Node, TopFile, UnitFile, VHOST, is_reserved};

/// The numbers of disks begin here, far above those computed from unit ids.
const FIRST_DISK: u64 = 1 << 48;

/// Permission bits that a chmod can set. Set-id and sticky bits mean nothing on these files.
const PERM: u32 = 0o777;

/// The permission bits to write.
pub const WRITE: u32 = 0o222;

/// Files of one target whose mode or owner may be kept; only names that exist can get there, but partitions come
/// and go.
const META_MAX: usize = 1024;

/// A disk or partition as the engine has it now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DiskView {
    /// `data` or the partition's name.
    pub name: String,
    /// Which one.
    pub place: Handle,
    /// First byte on the target.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// The disks that a target shows now: `data`, then the partitions in order of declaration.
pub fn views<R>(device: &Device<R>) -> Vec<DiskView> {
    let sector = SECTOR as u64;
    let mut views = Vec::with_capacity(1 + device.partitions().count());
    views.push(DiskView { name: DATA.into(), place: device.handle(None), start: 0, size: device.size() });
    views.extend(device.partitions().map(|part| DiskView {
        name: part.name.clone(),
        place: device.handle(Some(part.id)),
        start: part.start * sector,
        size: (part.end - part.start) * sector,
    }));
    views
}

/// One generation of `data` or of a partition: an inode.
#[derive(Debug)]
pub struct Disk {
    /// Its inode number.
    pub ino: u64,
    /// Its target.
    pub unit: UnitId,
    /// Its name, while it is current.
    pub name: String,
    /// Which bytes it is.
    pub place: Handle,
    /// First byte on the target.
    pub start: u64,
    size: AtomicU64,
    stale: AtomicBool,
    /// Nanoseconds since 1970.
    mtime: AtomicU64,
    lookups: AtomicU64,
    /// Files that are open of it.
    opens: AtomicU32,
}

impl Disk {
    /// Its size in bytes; the last known one if it is stale or its target away.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Whether another disk stands in its place now.
    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// A file of it is opened. Called with the target locked, so that no partition is dropped at the same time.
    pub fn opened(&self) {
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    /// A file of it is closed.
    pub fn closed(&self) {
        self.opens.fetch_sub(1, Ordering::Relaxed);
    }

    /// It was written to, or its time was set.
    pub fn set_mtime(&self, at: SystemTime) {
        let nanos = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.mtime.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// These bytes of it as bytes of the target's whole disk.
    pub fn on_target(&self, bytes: &Range<u64>) -> Range<u64> {
        let size = self.size();
        self.start + bytes.start.min(size)..self.start + bytes.end.min(size)
    }

    fn overlaps(&self, bytes: &Range<u64>) -> bool {
        self.start < bytes.end && bytes.start < self.start.saturating_add(self.size())
    }

    fn mtime(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.mtime.load(Ordering::Relaxed))
    }
}

/// The differences that a [`Tree::sync`] found.
#[derive(Debug, Default)]
pub struct Differences {
    /// Disks that turned stale: the kernel's pages of them must go.
    pub gone: Vec<Arc<Disk>>,
    /// Disks that have another size: the kernel's attributes of them must go.
    pub resized: Vec<Arc<Disk>>,
}

/// One line of a directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Inode number.
    pub ino: u64,
    /// Directory or file.
    pub kind: FileType,
    /// Name.
    pub name: String,
}

impl Entry {
    fn dir(node: &Node, name: impl Into<String>) -> Self {
        Self { ino: node.ino(), kind: FileType::Directory, name: name.into() }
    }

    fn file(node: &Node, name: impl Into<String>) -> Self {
        Self { ino: node.ino(), kind: FileType::RegularFile, name: name.into() }
    }
}

/// The mode and the owner of a file, as far as chmod and chown changed them.
#[derive(Clone, Copy, Debug, Default)]
struct Meta {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Default)]
struct UnitNames {
    current: Vec<Arc<Disk>>,
    meta: HashMap<String, Meta>,
}

#[derive(Default)]
struct Inner {
    units: HashMap<UnitId, UnitNames>,
    disks: HashMap<u64, Arc<Disk>>,
    top: HashMap<String, Meta>,
    made: u64,
}

impl Inner {
    fn make(&mut self, unit: UnitId, view: &DiskView, mtime: u64) -> Arc<Disk> {
        let disk = Arc::new(Disk {
            ino: FIRST_DISK + self.made,
            unit,
            name: view.name.clone(),
            place: view.place,
            start: view.start,
            size: view.size.into(),
            stale: false.into(),
            mtime: mtime.into(),
            lookups: 0.into(),
            opens: 0.into(),
        });
        self.made += 1;
        self.disks.insert(disk.ino, disk.clone());
        disk
    }

    /// From now on it answers ESTALE; it stays only while the kernel knows it.
    fn retire(&mut self, disk: &Arc<Disk>) {
        disk.stale.store(true, Ordering::Release);
        if disk.lookups.load(Ordering::Relaxed) == 0 {
            self.disks.remove(&disk.ino);
        }
    }
}

/// All names and inodes of the mount.
pub struct Tree {
    uid: u32,
    gid: u32,
    born: SystemTime,
    read_only: bool,
    inner: Mutex<Inner>,
}

impl Tree {
    /// A tree whose files belong to `uid` and `gid` and were made at `born`; `read_only`: no disk can be written.
    pub fn new(uid: u32, gid: u32, born: SystemTime, read_only: bool) -> Self {
        Self { uid, gid, born, read_only, inner: Mutex::default() }
    }

    /// Makes the disks of a target what the engine has: `views` are `data`, if its size was ever known, and the
    /// partitions in order.
    pub fn sync(&self, unit: UnitId, views: &[DiskView]) -> Differences {
        let mut changes = Differences::default();
        let mut inner = self.inner.lock();
        let old = std::mem::take(&mut inner.units.entry(unit).or_default().current);
        let same = |disk: &Disk, view: &DiskView| disk.place == view.place && disk.name == view.name;
        for disk in &old {
            if !views.iter().any(|view| same(disk, view)) {
                inner.retire(disk);
                changes.gone.push(disk.clone());
            }
        }
        let born = self.born.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let mut current = Vec::with_capacity(views.len());
        for view in views {
            let disk = match old.iter().find(|disk| same(disk, view)) {
                Some(disk) => {
                    if disk.size.swap(view.size, Ordering::AcqRel) != view.size {
                        changes.resized.push(disk.clone());
                    }
                    disk.clone()
                }
                None => inner.make(unit, view, u64::try_from(born).unwrap_or(u64::MAX)),
            };
            current.push(disk);
        }
        inner.units.entry(unit).or_default().current = current;
        changes
    }

    /// The target is known no more: its disks turn stale, and the changed modes and owners of its files are forgotten.
    pub fn forget_unit(&self, unit: UnitId) -> Differences {
        let mut inner = self.inner.lock();
        let gone = inner.units.remove(&unit).map(|unit| unit.current).unwrap_or_default();
        gone.iter().for_each(|disk| inner.retire(disk));
        Differences { gone, resized: Vec::new() }
    }

    /// The current disk of that name, for a lookup: the kernel knows it from now on.
    pub fn look_up(&self, unit: UnitId, name: &str) -> Option<Arc<Disk>> {
        let inner = self.inner.lock();
        let disk = inner.units.get(&unit)?.current.iter().find(|disk| disk.name == name)?;
        disk.lookups.fetch_add(1, Ordering::Relaxed);
        Some(disk.clone())
    }

    /// The current disks of a target: `data` and the partitions.
    pub fn disks(&self, unit: UnitId) -> Vec<Arc<Disk>> {
        self.inner.lock().units.get(&unit).map(|unit| unit.current.clone()).unwrap_or_default()
    }

    /// Whether a file of that disk or partition is open.
    pub fn is_open(&self, unit: UnitId, place: Handle) -> bool {
        self.opens(unit, place) > 0
    }

    /// How many files of that disk or partition are open.
    pub fn opens(&self, unit: UnitId, place: Handle) -> usize {
        let inner = self.inner.lock();
        let Some(unit) = inner.units.get(&unit) else { return 0 };
        let disks = unit.current.iter().filter(|disk| disk.place == place);
        disks.map(|disk| disk.opens.load(Ordering::Relaxed) as usize).sum()
    }

    /// Bytes of a target's whole disk were written to at that time. Returns the inodes of the names that they lie in.
    pub fn changed(&self, unit: UnitId, bytes: &Range<u64>, at: SystemTime) -> Vec<u64> {
        let inner = self.inner.lock();
        let Some(unit) = inner.units.get(&unit) else { return Vec::new() };
        let hit = unit.current.iter().filter(|disk| disk.overlaps(bytes));
        hit.inspect(|disk| disk.set_mtime(at)).map(|disk| disk.ino).collect()
    }

    /// The kernel drops that many of the lookups that it had. Returns the disk if it has forgotten the inode now.
    pub fn forget(&self, ino: u64, lookups: u64) -> Option<Arc<Disk>> {
        if ino < FIRST_DISK {
            return None;
        }
        let mut inner = self.inner.lock();
        let disk = inner.disks.get(&ino)?.clone();
        let left = disk.lookups.load(Ordering::Relaxed).saturating_sub(lookups);
        disk.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return None;
        }
        if disk.is_stale() {
            inner.disks.remove(&ino);
        }
        Some(disk)
    }

    /// The node of an inode number. Its target may be known no more.
    pub fn node(&self, ino: u64) -> Option<Node> {
        match ino.checked_sub(FIRST_DISK) {
            Some(_) => self.inner.lock().disks.get(&ino).cloned().map(Node::Disk),
            None => Node::fixed(ino),
        }
    }

    /// The attributes of a node. `size` is the size of `config`, `ident` and `log`; a disk knows its own, and all other
    /// files show 0.
    pub fn attr(&self, node: &Node, size: u64) -> FileAttr {
        let (size, mtime) = match node {
            Node::Disk(disk) => (disk.size(), disk.mtime()),
            _ => (size, self.born),
        };
        let meta = self.meta(node);
        let (kind, perm, nlink) = match node.default_mode() {
            None if matches!(node, Node::Vhost(_)) => (FileType::Symlink, 0o777, 1),
            None => (FileType::Directory, 0o755, 2),
            Some(mode) => (FileType::RegularFile, meta.mode.unwrap_or(mode), 1),
        };
        let perm = if self.read_only && matches!(node, Node::Disk(_)) { perm & !WRITE } else { perm };
        FileAttr {
            ino: INodeNo(node.ino()),
            size,
            blocks: size.div_ceil(SECTOR as u64),
            atime: mtime,
            mtime,
            ctime: mtime,
            crtime: self.born,
            kind,
            perm: perm as u16,
            nlink,
            uid: meta.uid.unwrap_or(self.uid),
            gid: meta.gid.unwrap_or(self.gid),
            rdev: 0,
            // A good size for one read or write.
            blksize: REQUEST_MAX as u32,
            flags: 0,
        }
    }

    fn meta(&self, node: &Node) -> Meta {
        let inner = self.inner.lock();
        let table = match node.unit() {
            None => Some(&inner.top),
            Some(unit) => inner.units.get(&unit).map(|unit| &unit.meta),
        };
        table.and_then(|table| table.get(node.name()?.as_ref())).copied().unwrap_or_default()
    }

    /// chmod and chown of a file. False for directories, for stale disks, and if too many files were changed already.
    pub fn set_meta(&self, node: &Node, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>) -> bool {
        let Some(name) = node.name() else { return false };
        if matches!(node, Node::Disk(disk) if disk.is_stale()) {
            return false;
        }
        let mut inner = self.inner.lock();
        let table = match node.unit() {
            None => &mut inner.top,
            Some(unit) => &mut inner.units.entry(unit).or_default().meta,
        };
        if table.len() >= META_MAX && !table.contains_key(name.as_ref()) {
            return false;
        }
        let meta = table.entry(name.into_owned()).or_default();
        meta.mode = mode.map(|mode| mode & PERM).or(meta.mode);
        meta.uid = uid.or(meta.uid);
        meta.gid = gid.or(meta.gid);
        true
    }

    /// The top directory: its files, then the targets that `units` gives by address.
    pub fn list_root(&self, units: impl Iterator<Item = (UnitId, String)>) -> Vec<Entry> {
        let mut list = dots(&Node::Root, &Node::Root);
        list.extend(TopFile::ALL.iter().map(|file| Entry::file(&Node::Top(*file), file.name())));
        list.extend(units.map(|(unit, name)| Entry::dir(&Node::Unit(unit), name)));
        list
    }

    /// A target's directory; `linked`: it has the link `vhost`.
    pub fn list_unit(&self, unit: UnitId, linked: bool) -> Vec<Entry> {
        let mut list = dots(&Node::Unit(unit), &Node::Root);
        if linked {
            let ino = Node::Vhost(unit).ino();
            list.push(Entry { ino, kind: FileType::Symlink, name: VHOST.into() });
        }
        list.extend(UnitFile::ALL.iter().map(|file| Entry::file(&Node::File(unit, *file), file.name())));
        list.push(Entry::dir(&Node::Devlinks(unit), DEVLINK));
        list.extend(self.disks(unit).iter().map(|disk| Entry::file(&Node::Disk(disk.clone()), &disk.name)));
        list
    }

    /// A target's `devlink` directory, which holds the numbers below `count`.
    pub fn list_devlinks(&self, unit: UnitId, count: u8) -> Vec<Entry> {
        let mut list = dots(&Node::Devlinks(unit), &Node::Unit(unit));
        list.extend((0..count).map(|n| Entry::file(&Node::Devlink(unit, n), n.to_string())));
        list
    }
}

fn dots(own: &Node, parent: &Node) -> Vec<Entry> {
    vec![Entry::dir(own, "."), Entry::dir(parent, "..")]
}
