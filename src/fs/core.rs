//! The file system without FUSE: plain arguments in, an answer through a closure.
//!
//! Every call returns at once. A call that has to ask the target puts its answer into the request, and the thread that
//! completes the request gives it; so an answer may come on any thread, with nothing locked. `handlers` turns FUSE
//! requests into these calls and answers into replies, and does nothing else.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use fuser::{PollEvents, PollNotifier};

use super::answer::{Answer, DataAnswer};
use super::context::Context;
use super::ctl::{CtlError, Top, UnitCommand};
use super::errno::Errno;
use super::file::{OpenFile, Verbs, ctl, verb};
use super::handles::Handles;
use super::metrics::Format;
use super::notify::Kernel;
use crate::engine::Device;
use crate::runtime::{Change, Deputy, Done, Observer, Runtime, Unit};
use crate::wire::Addr;

mod names;
mod opening;

pub use super::context::{Settings, WAITING_MAX};
pub use super::file::Reader;
pub use names::Found;
pub use opening::Opened;

/// A place in an open file.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The number of the open file.
    pub fh: u64,
    /// Bytes from the file's beginning.
    pub offset: u64,
}

/// The lines of the configuration file that are for targets.
pub trait Lines: Send + Sync {
    /// The commands for a target that is in no directory yet: they ask it nothing. Each with its place in the file.
    fn before_visible(&self, addr: Addr) -> Vec<(String, UnitCommand)>;
    /// The commands for a target that answers.
    fn once_up(&self, addr: Addr) -> Vec<(String, UnitCommand)>;
}

/// There is no configuration file.
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
    context: Arc<Context>,
    lines: Box<dyn Lines>,
    handles: Handles<OpenFile>,
    openings: opening::Openings,
}

impl Core {
    /// The file system over that runtime. It watches the runtime from now on; nothing is started.
    pub fn new(runtime: Arc<Runtime>, settings: Settings, lines: impl Lines + 'static) -> Arc<Self> {
        let core = Arc::new(Self {
            context: Arc::new(Context::new(runtime.clone(), settings)),
            lines: Box::new(lines),
            handles: Handles::default(),
            openings: opening::Openings::default(),
        });
        // The runtime outlives the mount and must not keep it in memory.
        runtime.set_observer(Arc::new(Watcher(Arc::downgrade(&core))));
        let weak = Arc::downgrade(&core.context);
        runtime.log().on_news(Arc::new(move || {
            if let Some(context) = weak.upgrade() {
                context.wake_pollers();
            }
        }));
        core
    }

    /// The session is there: the kernel can be told things from now on.
    pub fn connect(&self, kernel: impl Kernel + 'static) {
        self.context.kernel.connect(kernel);
    }

    /// The session has ended: ends the threads.
    pub fn close(&self) {
        self.openings.clear();
        self.context.close();
    }

    /// Ends all sockets of virtual machines, and takes no more.
    pub fn close_exports(&self) {
        self.context.close_exports();
    }

    /// The thread that has made a request receives answers until there is another one. See [`Runtime::attend`].
    pub fn attend(&self, deputy: &Deputy) {
        self.context.runtime.attend(deputy);
    }

    /// Files and directories that are open: a gauge that must fall back to zero.
    pub fn open_handles(&self) -> usize {
        self.context.open_files.load(Ordering::Relaxed)
    }

    /// What the file `metrics` has, as text in that format.
    pub fn metrics(&self, format: Format) -> String {
        self.context.metrics(format)
    }

    /// Reads: all of what was asked for, unless the file ends before.
    pub fn read(&self, fh: u64, offset: u64, size: usize, reader: Reader, answer: impl DataAnswer) {
        let Some(file) = self.handles.get(fh) else { return answer(Err(Errno::EBADF)) };
        verb!(file.read(offset, size, reader, answer));
    }

    /// Writes: all of it, unless the disk ends before. `durable`: answered after a flush, as O_DSYNC has it.
    pub fn write(&self, fh: u64, offset: u64, data: &[u8], durable: bool, answer: impl Answer<u32>) {
        let Some(file) = self.handles.get(fh) else { return answer(Err(Errno::EBADF)) };
        verb!(file.write(offset, data, durable, answer));
    }

    /// fsync(2) and fdatasync(2). Only a disk has anything to sync.
    pub fn sync(&self, fh: u64, answer: impl Answer<()>) {
        let Some(file) = self.handles.get(fh) else { return answer(Err(Errno::EBADF)) };
        verb!(file.sync(answer));
    }

    /// fallocate(2).
    pub fn fallocate(&self, fh: u64, offset: u64, len: u64, mode: i32, answer: impl Answer<()>) {
        let Some(file) = self.handles.get(fh) else { return answer(Err(Errno::EBADF)) };
        verb!(file.allocate(offset, len, mode, answer));
    }

    /// What poll(2) reports of a file. With `schedule`, a program that waits for the log is woken when there is more.
    pub fn poll(&self, fh: u64, notifier: PollNotifier, schedule: bool) -> Result<PollEvents, Errno> {
        let file = self.handles.get(fh).ok_or(Errno::EBADF)?;
        Ok(verb!(file.poll(notifier, schedule)))
    }

    /// copy_file_range(2): up to `len` bytes. EOPNOTSUPP for all but disks, and the kernel then copies itself.
    pub fn copy_range(&self, from: At, to: At, len: u64, answer: impl Answer<u32>) {
        match (self.handles.get(from.fh), self.handles.get(to.fh)) {
            (Some(OpenFile::Disk(source)), Some(OpenFile::Disk(sink))) => {
                source.copy(from.offset, &sink, to.offset, len, answer);
            }
            (Some(_), Some(_)) => answer(Err(Errno::EOPNOTSUPP)),
            _ => answer(Err(Errno::EBADF)),
        }
    }

    /// Runs one command of the configuration file that is for the top ctl: it holds for interfaces that come later,
    /// too.
    pub fn run_top_line(&self, command: &Top) -> Result<(), CtlError> {
        ctl::top::run_config_line(&self.context, command)
    }

    /// Applies to a target what the command line and the configuration file say and what needs no answer of it. Returns
    /// what the log is to say, each with the place of its line: the log is not written under the target's lock.
    fn prepare(&self, device: &mut Device<Done>) -> Vec<(String, String)> {
        let mut complaints = Vec::new();
        device.set_read_ahead(self.context.settings.read_ahead);
        for (origin, command) in self.lines.before_visible(device.addr()) {
            if let Some(Err(error)) = ctl::unit::apply_local(device, &command, self.context.settings.uncached)
            {
                complaints.push((origin, error.words));
            } else if let Some(overlap) = ctl::unit::overlap_of(device, &command) {
                complaints.push((origin, overlap));
            }
        }
        complaints
    }

    /// A target answers: runs the commands of the configuration file that ask it.
    fn greet(self: &Arc<Self>, unit: &Arc<Unit>) {
        for (origin, command) in self.lines.once_up(unit.addr) {
            let (core, addr) = (self.clone(), unit.addr);
            ctl::unit::run_config_line(&self.context, unit, command, move |done| {
                if let Err(error) = done {
                    core.complain(addr, &origin, &error.words);
                }
            });
        }
    }

    /// The configuration file was read again: its lines are run on every target that is there.
    pub fn apply_lines(self: &Arc<Self>) {
        for unit in self.context.runtime.units() {
            let complaints = self.context.runtime.with_device(&unit, |device, _, _| self.prepare(device));
            self.complain_all(unit.addr, complaints);
            self.context.refresh(&unit);
            if self.context.runtime.inspect(&unit, Device::is_up) {
                self.greet(&unit);
            }
        }
    }

    fn complain_all(&self, addr: Addr, complaints: Vec<(String, String)>) {
        complaints.iter().for_each(|(origin, why)| self.complain(addr, origin, why));
    }

    fn complain(&self, addr: Addr, origin: &str, why: &str) {
        self.context.runtime.log().warn("config", Some(addr), format_args!("{origin}: {why}"));
    }
}

/// Hears of targets from the runtime, with nothing locked.
struct Watcher(Weak<Core>);

impl Observer for Watcher {
    fn prepare(&self, device: &mut Device<Done>) {
        if let Some(core) = self.0.upgrade() {
            // The log may be written here: the target is in no table yet, so no thread can wait for its lock.
            let complaints = core.prepare(device);
            core.complain_all(device.addr(), complaints);
        }
    }

    fn changed(&self, unit: &Arc<Unit>, change: Change) {
        let Some(core) = self.0.upgrade() else { return };
        match change {
            Change::Removed => core.context.removed(unit),
            Change::Resized => core.context.refresh(unit),
            Change::Replaced => {
                core.context.refresh(unit);
                ctl::scan_unasked(&core.context, unit);
            }
            Change::Appeared => {
                ctl::scan_unasked(&core.context, unit);
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
