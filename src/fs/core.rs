//! The file system without FUSE: plain arguments in, an answer through a closure.
//!
//! Every call returns at once. What has to ask the target takes its answer along in the request, and whoever
//! completes the request gives it; so it may come on any thread, with nothing locked. `handlers` turns FUSE requests
//! into these calls and answers into replies, and does nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use fuser::PollNotifier;
use parking_lot::Mutex;

use super::ctl::UnitCommand;
use super::errno::{self, Errno};
use super::handles::{Handles, Kept};
use super::notify::{Kernel, Line, Pages, Waker};
use super::tree::{self, Changes, Tree};
use super::worker::Worker;
use crate::bug;
use crate::engine::{Device, Error, Handle, Io, Outcome, Pool, Request, Stream};
use crate::runtime::{Change, Deputy, Done, Observer, Runtime, Unit, UnitId};
use crate::wire::Addr;

mod change;
mod command;
mod config;
mod copy;
mod disk;
mod export;
mod fallocate;
mod files;
mod lists;
mod names;
mod opening;
mod partscan;
mod pending;
mod raw;
mod status;
mod zero;

pub use copy::At;
pub use disk::{Reader, Write};
pub use files::Opened;
pub use names::Found;

/// Requests that may wait for all targets together before those are refused that have many themselves. The kernel lets
/// 65,535 wait in the background, and every target must have room in it whatever others have.
pub const WAITING_MAX: usize = 48 << 10;

/// One of so many parts of that every target may have in any case: eight times a loop device's depth.
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
    /// Every disk's partition table is read when it appears.
    pub partscan: bool,
    /// [`WAITING_MAX`], but for tests.
    pub waiting_max: usize,
    /// How far ahead of each reader the engine reads, in bytes; 0: not at all.
    pub read_ahead: u64,
}

/// The lines of the configuration file that are for targets.
pub trait Lines: Send + Sync {
    /// Those for a target that nobody can see yet: they ask it nothing. Each with its place in the file.
    fn before_visible(&self, addr: Addr) -> Vec<(String, UnitCommand)>;
    /// Those for a target that answers.
    fn once_up(&self, addr: Addr) -> Vec<(String, UnitCommand)>;
}

/// No configuration file.
impl Lines for () {
    fn before_visible(&self, _: Addr) -> Vec<(String, UnitCommand)> {
        Vec::new()
    }

    fn once_up(&self, _: Addr) -> Vec<(String, UnitCommand)> {
        Vec::new()
    }
}

/// The file system of one mount.
pub struct Core {
    settings: Settings,
    lines: Box<dyn Lines>,
    runtime: Arc<Runtime>,
    tree: Tree,
    handles: Handles,
    pool: Pool,
    line: Line,
    pages: Pages<Line>,
    waker: Waker,
    /// Renders what takes long.
    renderer: Worker,
    kept: Kept,
    /// The targets that a `flush` of their ctl is under way for, and whether another one was asked for meanwhile.
    flushing: Mutex<HashMap<UnitId, bool>>,
    configs: config::Truncations,
    openings: opening::Openings,
    raws: raw::Openers,
    exports: export::Sockets,
    pollers: Mutex<HashMap<u64, PollNotifier>>,
    /// Requests that were given to the engine and are not answered yet.
    waiting: Arc<AtomicUsize>,
}

impl Core {
    /// The file system over that runtime. It watches the runtime from now on; nothing is started.
    pub fn new(runtime: Arc<Runtime>, settings: Settings, lines: impl Lines + 'static) -> Arc<Self> {
        let line = Line::default();
        let core = Arc::new(Self {
            settings,
            lines: Box::new(lines),
            tree: Tree::new(settings.uid, settings.gid, settings.born, settings.read_only),
            handles: Handles::default(),
            pool: runtime.pool().clone(),
            pages: Pages::new(line.clone()),
            waker: Waker::new(line.clone()),
            renderer: Worker::new("metrics"),
            kept: Kept::default(),
            flushing: Mutex::default(),
            line,
            configs: config::Truncations::default(),
            openings: opening::Openings::default(),
            raws: raw::Openers::default(),
            exports: export::Sockets::default(),
            pollers: Mutex::default(),
            waiting: Arc::default(),
            runtime,
        });
        // The runtime outlives the mount; it must not keep it alive.
        let weak = Arc::downgrade(&core);
        core.runtime.set_observer(Arc::new(Watcher(weak.clone())));
        core.runtime.log().on_news(Arc::new(move || {
            if let Some(core) = weak.upgrade() {
                core.wake_pollers();
            }
        }));
        core
    }

    /// The session is there: the kernel can be told things from now on.
    pub fn connect(&self, kernel: impl Kernel + 'static) {
        self.line.connect(kernel);
    }

    /// The session has ended: ends the threads.
    pub fn close(&self) {
        self.close_exports();
        self.openings.clear();
        self.pages.close();
        self.waker.close();
        self.renderer.close();
    }

    /// The thread that has made a request receives answers until there is another one. See [`Runtime::attend`].
    pub fn attend(&self, deputy: &mut Deputy) {
        self.runtime.attend(deputy);
    }

    /// Open handles: a gauge that must fall back to zero.
    pub fn open_handles(&self) -> usize {
        self.handles.count()
    }

    /// Makes the names and sizes of a target what the engine has, and tells the kernel what is different.
    fn refresh(&self, unit: &Arc<Unit>) {
        // Under the target's lock, so that two views of it cannot overtake each other.
        let changes = self.runtime.look(unit, |device| self.tree.sync(unit.id, &tree::views(device)));
        self.tell(unit, changes);
        if self.runtime.unit_by_id(unit.id).is_none() {
            self.removed(unit);
        }
    }

    fn tell(&self, unit: &Unit, changes: Changes) {
        self.settle_exports(unit, &changes);
        for disk in changes.gone {
            self.pages.drop_inode(unit.id, disk.ino);
        }
        for disk in changes.resized {
            self.waker.attributes(disk.ino);
        }
    }

    fn removed(&self, unit: &Unit) {
        let changes = self.tree.forget_unit(unit.id);
        self.tell(unit, changes);
        self.pages.forget_unit(unit.id);
        self.configs.forget(unit.id);
    }

    /// Gives a request to the engine. `answer` is called exactly once, now or later.
    fn submit(
        &self,
        unit: &Arc<Unit>,
        handle: Handle,
        nonblock: bool,
        io: Io,
        answer: impl FnOnce(Outcome) + Send + 'static,
    ) {
        self.submit_for(None, unit, handle, nonblock, io, answer);
    }

    /// The same for a reader that may be read ahead of.
    fn submit_for(
        &self,
        stream: Option<Stream>,
        unit: &Arc<Unit>,
        handle: Handle,
        nonblock: bool,
        io: Io,
        answer: impl FnOnce(Outcome) + Send + 'static,
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
            self.runtime.log().log("crowded", Some(unit.addr), words);
            reply(Err(Error::Io));
        }
    }

    /// What the command line and the configuration file say of a target that needs no answer. Returns the lines that there is
    /// something to say of, and what: the log is not written under the target's lock.
    fn prepare(&self, device: &mut Device<Done>) -> Vec<(String, String)> {
        let mut complaints = Vec::new();
        device.set_read_ahead(self.settings.read_ahead);
        for (origin, command) in self.lines.before_visible(device.addr()) {
            if let Some(Err(errno)) = command::apply_local(device, &command, self.settings.uncached) {
                complaints.push((origin, errno::words(errno)));
            } else if let Some(overlap) = command::overlap_of(device, &command) {
                complaints.push((origin, overlap));
            }
        }
        complaints
    }

    /// A target answers: what the configuration file asks of it.
    fn greet(self: &Arc<Self>, unit: &Arc<Unit>) {
        for (origin, command) in self.lines.once_up(unit.addr) {
            let (core, addr) = (self.clone(), unit.addr);
            self.run_unit_line(unit, command, move |done| {
                if let Err(error) = done {
                    core.complain(addr, &origin, &error.words);
                }
            });
        }
    }

    /// The configuration file was read again: its lines are run on every target that is there.
    pub fn apply_lines(self: &Arc<Self>) {
        for unit in self.runtime.units() {
            let complaints = self.runtime.with_device(&unit, |device, _, _| self.prepare(device));
            self.complain_all(unit.addr, complaints);
            self.refresh(&unit);
            if self.runtime.look(&unit, Device::is_up) {
                self.greet(&unit);
            }
        }
    }

    fn complain_all(&self, addr: Addr, complaints: Vec<(String, String)>) {
        complaints.iter().for_each(|(origin, why)| self.complain(addr, origin, why));
    }

    fn complain(&self, addr: Addr, origin: &str, why: &str) {
        self.runtime.log().log("config", Some(addr), format_args!("{origin}: {why}"));
    }

    fn wake_pollers(&self) {
        for (_, poller) in self.pollers.lock().drain() {
            self.waker.poll(poller);
        }
    }
}

/// What travels in a request.
fn done(answer: impl FnOnce(Outcome) + Send + 'static) -> Done {
    Box::new(move |outcome| {
        bug::here("answer");
        answer(outcome);
    })
}

/// An outcome that carries nothing.
fn nothing(outcome: Outcome) -> Result<(), Errno> {
    outcome.map(|_| ()).map_err(errno::of)
}

/// What the runtime tells: nothing is locked then.
struct Watcher(Weak<Core>);

impl Observer for Watcher {
    fn prepare(&self, device: &mut Device<Done>) {
        if let Some(core) = self.0.upgrade() {
            // Nobody has locked it: the target is in no table yet.
            let complaints = core.prepare(device);
            core.complain_all(device.addr(), complaints);
        }
    }

    fn changed(&self, unit: &Arc<Unit>, change: Change) {
        let Some(core) = self.0.upgrade() else { return };
        match change {
            Change::Removed => core.removed(unit),
            Change::Resized => core.refresh(unit),
            Change::Replaced => {
                core.refresh(unit);
                core.scan_unasked(unit);
            }
            Change::Appeared => {
                core.scan_unasked(unit);
                core.greet(unit);
            }
            Change::Up => {
                core.open_waiting(unit);
                core.greet(unit);
            }
            Change::Down => {}
        }
    }
}
