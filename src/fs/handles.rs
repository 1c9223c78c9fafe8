//! Open files: what each handle is, and what it has to remember between two calls.
//!
//! A handle is found by the number that the kernel carries for it; numbers count up and are never reused, so that a
//! late or forged one finds nothing. The table's lock is held for the lookup only.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::errno::Errno;
use super::raw::Raw;
use super::tree::{Disk, Entry};
use crate::engine;
use crate::runtime::{Unit, events};
use crate::wire::Addr;

#[path = "kept.rs"]
mod page;
#[path = "file/disk/truncation.rs"]
mod truncation;

pub use page::{Kept, Page};
pub use truncation::{Admit, Job, Truncation};

/// How a file was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mode {
    /// It may be written to.
    pub write: bool,
    /// O_APPEND: the kernel chooses the offsets.
    pub append: bool,
    /// O_NONBLOCK: fail rather than wait for a target that is away.
    pub nonblock: bool,
    /// O_DIRECT.
    pub direct: bool,
    /// O_DSYNC or O_SYNC: what changes bytes is answered after a flush.
    pub durable: bool,
}

impl Mode {
    /// From the flags of open(2).
    pub fn new(flags: i32) -> Self {
        Self {
            write: flags & libc::O_ACCMODE != libc::O_RDONLY,
            append: flags & libc::O_APPEND != 0,
            nonblock: flags & libc::O_NONBLOCK != 0,
            direct: flags & libc::O_DIRECT != 0,
            durable: flags & libc::O_DSYNC != 0,
        }
    }
}

/// Where a reader of the log is.
#[derive(Default)]
pub struct LogReader {
    /// The log's own account of it.
    pub cursor: events::Cursor,
    /// The file offset after its last read: poll does not say where it wants to go on.
    pub next: u64,
}

/// An open `data` or partition.
pub struct DiskHandle {
    /// Its target.
    pub unit: Arc<Unit>,
    /// The generation that it is pinned to.
    pub disk: Arc<Disk>,
    /// What its truncation owes.
    pub truncation: Truncation,
    /// Neither the page cache nor another writer stands between the caller and the target.
    pub uncached: bool,
    /// Nothing came through it yet.
    fresh: AtomicBool,
    /// Failed flushes of the target that it knows of.
    told: AtomicU64,
}

impl DiskHandle {
    /// A handle to that generation.
    pub fn new(unit: Arc<Unit>, disk: Arc<Disk>, uncached: bool) -> Self {
        let told = unit.failed_flushes.load(Ordering::SeqCst).into();
        Self { unit, disk, truncation: Truncation::default(), uncached, fresh: true.into(), told }
    }

    /// A flush that this handle asked for ended so; what is it told? A failure, of whoever's flush, once: data that this handle wrote may
    /// have been lost with it, and a later flush succeeds without them.
    pub fn flushed(&self, ended: Result<(), Errno>) -> Result<(), Errno> {
        let failed = &self.unit.failed_flushes;
        let all = match ended {
            Err(Errno::EIO) => failed.fetch_add(1, Ordering::SeqCst) + 1,
            _ => failed.load(Ordering::SeqCst),
        };
        let before = self.told.fetch_max(all, Ordering::SeqCst);
        if before < all { ended.and(Err(Errno::EIO)) } else { ended }
    }

    /// Something came through it.
    pub fn used(&self) {
        if self.fresh.load(Ordering::Relaxed) {
            self.fresh.store(false, Ordering::Relaxed);
        }
    }
}

/// An open `raw`.
pub struct RawHandle {
    /// Its target.
    pub unit: Arc<Unit>,
    /// The disk that was there when it was opened.
    pub disk: engine::Handle,
    /// How far the conversation has got.
    pub machine: Mutex<Raw>,
}

/// What is open.
pub enum What {
    /// `data` or a partition.
    Disk(DiskHandle),
    /// A page of text of a target: `ctl`, `config`, `ident`, `stats`, `devlink/N`.
    Page(Arc<Unit>, Page),
    /// The top `ctl`.
    Top(Page),
    /// The metrics.
    Metrics(Page),
    /// ATA and SCSI commands.
    Raw(RawHandle),
    /// The log.
    Log(Mutex<LogReader>),
    /// A directory as it was listed at its beginning.
    Dir(Mutex<Arc<[Entry]>>),
}

/// One open file.
pub struct Handle {
    /// Its number.
    pub fh: u64,
    /// Its inode.
    pub ino: u64,
    /// The thread that opened it; 0 if that lives where we cannot see it.
    pub pid: u32,
    /// How.
    pub mode: Mode,
    /// What.
    pub what: What,
}

impl Handle {
    /// The disk handle, if it is one.
    pub fn disk(&self) -> Option<&DiskHandle> {
        match &self.what {
            What::Disk(disk) => Some(disk),
            _ => None,
        }
    }
}

/// All open files.
#[derive(Default)]
pub struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<Handle>>>,
}

impl Handles {
    /// Opens one.
    pub fn open(&self, ino: u64, pid: u32, mode: Mode, what: What) -> Arc<Handle> {
        let fh = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let handle = Arc::new(Handle { fh, ino, pid, mode, what });
        self.open.write().insert(fh, handle.clone());
        handle
    }

    /// The one of that number.
    pub fn get(&self, fh: u64) -> Option<Arc<Handle>> {
        self.open.read().get(&fh).cloned()
    }

    /// Closes it. Requests under way hold it until they are answered.
    pub fn close(&self, fh: u64) -> Option<Arc<Handle>> {
        self.open.write().remove(&fh)
    }

    /// The newest handle to `ino` that `pid` can write through: the one that a truncation without a handle belongs
    /// to, since the kernel sends it right after the open. Threads of other PID namespaces all show as 0; for those
    /// only a handle counts through which nothing came yet, lest a stranger's handle get the mark.
    pub fn newest_writer(&self, ino: u64, pid: u32) -> Option<Arc<Handle>> {
        let open = self.open.read();
        let fits = |handle: &&Arc<Handle>| {
            handle.ino == ino
                && handle.pid == pid
                && handle.mode.write
                && (pid != 0 || handle.disk().is_some_and(|disk| disk.fresh.load(Ordering::Relaxed)))
        };
        open.values().filter(fits).max_by_key(|handle| handle.fh).cloned()
    }

    /// Whether anybody has this disk or partition of a target open.
    pub fn is_open(&self, place: engine::Handle, addr: Addr) -> bool {
        let of = |handle: &Arc<Handle>| {
            handle.disk().is_some_and(|open| open.disk.place == place && open.unit.addr == addr)
        };
        self.open.read().values().any(of)
    }

    /// How many are open: a gauge that must fall back to zero.
    pub fn count(&self) -> usize {
        self.open.read().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_reused() {
        let handles = Handles::default();
        let open = || handles.open(9, 1, Mode::default(), What::Top(Page::default()));
        let a = open();
        assert_eq!(handles.get(a.fh).unwrap().ino, 9);
        assert!(handles.close(a.fh).is_some());
        assert!(handles.close(a.fh).is_none());
        let b = open();
        assert_ne!(a.fh, b.fh);
        assert!(handles.get(a.fh).is_none());
        assert_eq!(handles.count(), 1);
    }

    #[test]
    fn open_flags() {
        let mode = Mode::new(libc::O_WRONLY | libc::O_APPEND | libc::O_DIRECT);
        assert_eq!(mode, Mode { write: true, append: true, direct: true, ..Mode::default() });
        assert_eq!(Mode::new(libc::O_RDONLY | libc::O_NONBLOCK), Mode { nonblock: true, ..Mode::default() });
        assert!(Mode::new(libc::O_RDWR).write && !Mode::new(libc::O_RDWR).durable);
        assert!([libc::O_SYNC, libc::O_DSYNC].iter().all(|flag| Mode::new(*flag).durable));
    }

    #[test]
    fn a_truncation_belongs_to_the_newest_writer_of_its_thread() {
        let handles = Handles::default();
        let open = |pid, flags| handles.open(9, pid, Mode::new(flags), What::Top(Page::default()));
        let newest = |pid| handles.newest_writer(9, pid).map(|handle| handle.fh);
        assert_eq!(newest(7), None);
        let _older = open(7, libc::O_WRONLY);
        let newer = open(7, libc::O_RDWR);
        let _reader = open(7, libc::O_RDONLY);
        let other = open(8, libc::O_WRONLY);
        assert_eq!(newest(7), Some(newer.fh));
        assert_eq!(newest(8), Some(other.fh));
        assert!(handles.newest_writer(10, 7).is_none());
    }
}
