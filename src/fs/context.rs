//! What the open files of a mount need: the runtime, the names, what the kernel caches, and a way to give a request to
//! the engine.
//!
//! The kinds of files (`file`) stand above it, and it knows none of them. State of a kind that outlives an open file is
//! kept here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use fuser::PollNotifier;
use parking_lot::Mutex;

use super::answer::Answer;
use super::errno::Errno;
use super::kept::KeptTexts;
use super::metrics::{Format, Snapshot};
use super::notify::{KernelChannel, Pages, Waker};
use super::tree::{self, Differences, Disk, Node, Tree};
use super::worker::Worker;
use crate::bug;
use crate::engine::{Error, Handle, Io, Outcome, Output, Pool, Request, Stream};
use crate::runtime::{Done, Runtime, Unit, UnitId};

mod change;
mod exports;
mod pending;
mod truncated;

pub use change::DiskChange;
pub use exports::{ExportStatus, Sockets, note_left};
pub use pending::Pending;
pub use truncated::Truncated;

/// Requests that may wait for all targets together. Beyond it, a target that has many of them gets no more. The kernel
/// lets 65,535 wait in the background, and each target must have room among them, however many the others have.
pub const WAITING_MAX: usize = 48 << 10;

/// Each target may always have a share of them, one of so many: eight times what a loop device has under way.
const SHARES: usize = 48;

/// How this mount is to behave.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Owner of the files.
    pub uid: u32,
    /// Group of the files.
    pub gid: u32,
    /// When the files were made, as stat shows it.
    pub born: SystemTime,
    /// `data` and partitions cannot be written to.
    pub read_only: bool,
    /// `data` and partitions are not cached, unless the target's own switch says otherwise.
    pub uncached: bool,
    /// The partition table of every disk is read when the disk appears.
    pub partscan: bool,
    /// [`WAITING_MAX`], but for tests.
    pub waiting_max: usize,
    /// How far ahead of each reader the engine reads, in bytes; 0: not at all.
    pub read_ahead: u64,
}

/// What all open files of a mount share.
pub struct Context {
    /// How this mount behaves.
    pub settings: Settings,
    /// The targets.
    pub runtime: Arc<Runtime>,
    /// Names and inodes.
    pub tree: Tree,
    /// Buffers of writes.
    pub pool: Pool,
    /// The kernel's pages of disks.
    pub pages: Pages<KernelChannel>,
    /// The kernel's attributes, and programs that poll.
    pub waker: Waker,
    /// The texts that open files keep.
    pub texts: KeptTexts,
    /// The thread that renders the metrics of many targets.
    pub renderer: Worker,
    /// Files and directories that are open now.
    pub open_files: AtomicUsize,
    /// `config` files that were truncated and not written yet.
    pub truncated: Truncated,
    /// The targets whose `raw` is open.
    pub raw_open: Mutex<HashSet<UnitId>>,
    /// The targets that a `flush` of their ctl is under way for, and whether another one was asked for meanwhile.
    pub flushing: Mutex<HashMap<UnitId, bool>>,
    /// Programs that wait for more in the log, by the number of their open file.
    pub pollers: Mutex<HashMap<u64, PollNotifier>>,
    /// The way to the kernel.
    pub kernel: KernelChannel,
    /// The sockets for virtual machines.
    pub exports: Sockets,
    /// Requests that were given to the engine and are not answered yet.
    waiting: Arc<AtomicUsize>,
}

impl Context {
    /// A mount with no file open. The kernel is told nothing before it is connected.
    pub fn new(runtime: Arc<Runtime>, settings: Settings) -> Self {
        let kernel = KernelChannel::default();
        Self {
            settings,
            tree: Tree::new(settings.uid, settings.gid, settings.born, settings.read_only),
            pool: runtime.pool().clone(),
            pages: Pages::new(kernel.clone()),
            waker: Waker::new(kernel.clone()),
            texts: KeptTexts::default(),
            renderer: Worker::new("metrics"),
            open_files: AtomicUsize::new(0),
            truncated: Truncated::default(),
            raw_open: Mutex::default(),
            flushing: Mutex::default(),
            pollers: Mutex::default(),
            kernel,
            exports: Sockets::default(),
            waiting: Arc::default(),
            runtime,
        }
    }

    /// Ends the threads of the mount. Requests that are still outstanding fail.
    pub fn close(&self) {
        // Before requests fail: a virtual machine has those that were not answered done again by the next daemon.
        self.close_exports();
        // Pages that are being read cannot be dropped, and a target that is away may owe them for ever.
        self.runtime.abandon();
        self.pages.close();
        self.waker.close();
        self.renderer.close();
    }

    /// The target with that id, if it is still known.
    pub fn unit(&self, id: UnitId) -> Result<Arc<Unit>, Errno> {
        self.runtime.unit_by_id(id).ok_or(Errno::ESTALE)
    }

    /// The target that a node belongs to.
    pub fn unit_of(&self, node: &Node) -> Result<Arc<Unit>, Errno> {
        self.unit(node.unit().ok_or(Errno::ENOENT)?)
    }

    /// The whole of the disk that is there now.
    pub fn whole(&self, unit: &Unit) -> Handle {
        self.runtime.inspect(unit, |device| device.handle(None))
    }

    /// Whether a disk can be written to at all.
    pub fn writable(&self, disk: &Disk) -> Result<(), Errno> {
        if disk.is_stale() {
            return Err(Errno::ESTALE);
        }
        if self.settings.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Every counter of the mount, as text.
    pub fn metrics(&self, format: Format) -> String {
        let handles = self.open_files.load(Ordering::Relaxed);
        Snapshot::take(&self.runtime, handles, self.export_status(), self.settings.born).render(format)
    }

    /// Takes the names and sizes of a target over from the engine, and tells the kernel what is different.
    pub fn refresh(&self, unit: &Arc<Unit>) {
        // Under the target's lock, so that two views of it cannot overtake each other.
        let changes = self.runtime.inspect(unit, |device| self.tree.sync(unit.id, &tree::views(device)));
        self.tell_kernel(unit, changes);
        if self.runtime.unit_by_id(unit.id).is_none() {
            self.removed(unit);
        }
    }

    /// A target is known no more.
    pub fn removed(&self, unit: &Unit) {
        let changes = self.tree.forget_unit(unit.id);
        self.tell_kernel(unit, changes);
        self.pages.forget_unit(unit.id);
        self.truncated.forget(unit.id);
    }

    fn tell_kernel(&self, unit: &Unit, changes: Differences) {
        self.settle_exports(unit, &changes);
        for disk in changes.gone {
            self.pages.drop_inode(unit.id, disk.ino);
        }
        for disk in changes.resized {
            self.waker.attributes(disk.ino);
        }
    }

    /// Gives a request to the engine. `answer` is called exactly once, now or later.
    pub fn submit(
        &self,
        unit: &Arc<Unit>,
        handle: Handle,
        nonblock: bool,
        io: Io,
        answer: impl Answer<Output, Error>,
    ) {
        self.submit_for(None, unit, handle, nonblock, io, answer);
    }

    /// The same for a reader that the engine may read ahead of.
    pub fn submit_for(
        &self,
        stream: Option<Stream>,
        unit: &Arc<Unit>,
        handle: Handle,
        nonblock: bool,
        io: Io,
        answer: impl Answer<Output, Error>,
    ) {
        let waiting = self.waiting.clone();
        let crowded = waiting.fetch_add(1, Ordering::Relaxed) >= self.settings.waiting_max;
        let reply = done(move |outcome| {
            waiting.fetch_sub(1, Ordering::Relaxed);
            answer(outcome);
        });
        let refused = self.runtime.with_device(unit, |device, now, sink| {
            if crowded && device.requests() >= self.settings.waiting_max / SHARES {
                return Some(reply);
            }
            device.submit(now, Request { io, handle, nonblock, stream, reply }, sink);
            None
        });
        if let Some(reply) = refused {
            let words = "too many requests wait for all targets, and many of them for this one";
            self.runtime.log().warn("crowded", Some(unit.addr), words);
            reply(Err(Error::Io));
        }
    }

    /// The log has more: programs that poll it are to look again.
    pub fn wake_pollers(&self) {
        for (_, poller) in self.pollers.lock().drain() {
            self.waker.poll(poller);
        }
    }
}

/// An answer in the form in which a request carries it.
fn done(answer: impl Answer<Output, Error>) -> Done {
    Box::new(move |outcome| {
        bug::here("answer");
        answer(outcome);
    })
}

/// The end of a request whose output does not matter.
pub fn success(outcome: Outcome) -> Result<(), Errno> {
    outcome.map(|_| ()).map_err(Errno::from)
}
