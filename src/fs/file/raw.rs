//! The file `raw`: runs its state machine, and drops from the kernel's caches the bytes that a command may have
//! changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::{Mode, Reader, Verbs};
use crate::engine::{Error, Handle, Io, Outcome, Output};
use crate::fs::answer::{Answer, DataAnswer};
use crate::fs::context::{Context, DiskChange};
use crate::fs::errno::Errno;
use crate::runtime::Unit;
use crate::runtime::clock::wall;
use crate::wire::SECTOR;

mod machine;

use machine::{Facts, Raw, Step};

/// An open `raw`.
pub struct OpenRaw {
    context: Arc<Context>,
    unit: Arc<Unit>,
    /// The disk that was there when it was opened.
    disk: Handle,
    nonblock: bool,
    /// How far the conversation has got.
    machine: Mutex<Raw>,
}

impl OpenRaw {
    /// Opens a target's `raw`, for one program at a time: ENXIO while the target is down.
    pub fn open(context: &Arc<Context>, unit: Arc<Unit>, mode: Mode) -> Result<Arc<Self>, Errno> {
        let (up, disk) = context.runtime.inspect(&unit, |device| (device.is_up(), device.handle(None)));
        if !up {
            return Err(Errno::ENXIO);
        }
        if !context.raw_open.lock().insert(unit.id) {
            return Err(Errno::EBUSY);
        }
        let machine = Mutex::new(Raw::new(context.pool.clone()));
        Ok(Arc::new(Self { context: context.clone(), unit, disk, nonblock: mode.nonblock, machine }))
    }

    fn facts(&self) -> Facts {
        self.context.runtime.inspect(&self.unit, |device| Facts {
            identify: *device.info(),
            sectors: device.size() / SECTOR as u64,
            frame: u8::try_from(device.status().maxbcnt / SECTOR).unwrap_or(u8::MAX),
            up: device.is_up(),
            read_only: self.context.settings.read_only,
        })
    }

    /// Asks the engine for what the machine wants, until it has an answer.
    fn go_on(self: &Arc<Self>, step: Step, then: Box<dyn FnOnce(Step) + Send>) {
        let Step::Submit { io, changes } = step else { return then(step) };
        let flush = match &io {
            Io::Flush => true,
            Io::Ata { ata, .. } => ata.is_flush(),
            _ => false,
        };
        let change = DiskChange {
            unit: self.unit.clone(),
            place: self.disk,
            nonblock: self.nonblock,
            io,
            bytes: changes.clone(),
        };
        let file = self.clone();
        self.context.change(change, move |outcome| {
            if flush && failed(&outcome) {
                // Data of other programs may be lost: their next fsync says so.
                file.unit.failed_flushes.fetch_add(1, Ordering::SeqCst);
            }
            // Also after a failure: some of it may have been done. The files that these bytes lie in have a new mtime.
            for ino in file.context.tree.changed(file.unit.id, &changes, wall()) {
                file.context.waker.attributes(ino);
            }
            let step = file.machine.lock().answered(outcome);
            file.go_on(step, then);
        });
    }
}

fn failed(outcome: &Outcome) -> bool {
    match outcome {
        Ok(Output::Ata { ata, .. }) => ata.failed(),
        outcome => matches!(outcome, Err(Error::Io)),
    }
}

impl Verbs for OpenRaw {
    fn read(self: &Arc<Self>, _: u64, len: usize, _: Reader, answer: impl DataAnswer) {
        let step = self.machine.lock().read(len);
        let then = move |step| match step {
            Step::Read(bytes) => answer(Ok(&bytes)),
            Step::Error(error) => answer(Err(Errno::from(error))),
            Step::Wrote(_) | Step::Submit { .. } => answer(Err(Errno::EIO)),
        };
        self.go_on(step, Box::new(then));
    }

    fn write(self: &Arc<Self>, _: u64, data: &[u8], _: bool, answer: impl Answer<u32>) {
        let facts = self.facts();
        let step = self.machine.lock().write(&facts, data);
        let then = move |step| match step {
            Step::Wrote(len) => answer(Ok(len as u32)),
            Step::Error(error) => answer(Err(Errno::from(error))),
            Step::Read(_) | Step::Submit { .. } => answer(Err(Errno::EIO)),
        };
        self.go_on(step, Box::new(then));
    }

    fn close(self: &Arc<Self>) {
        self.context.raw_open.lock().remove(&self.unit.id);
    }
}
