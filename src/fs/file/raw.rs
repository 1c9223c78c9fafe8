//! The `raw` file: runs its machine, and drops from the kernel's caches what a command may have changed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::Core;
use super::change::Change;
use crate::engine::{Error, Io, Output};
use crate::fs::errno::{self, Errno};
use crate::fs::handles::{Handle, RawHandle, What};
use crate::fs::raw::{Raw, Snapshot, Step};
use crate::runtime::clock::wall;
use crate::runtime::{Unit, UnitId};
use crate::wire::SECTOR;

/// The targets whose `raw` is open.
#[derive(Default)]
pub(super) struct Openers(Mutex<HashSet<UnitId>>);

impl Core {
    /// Opens a target's `raw`, for one at a time.
    pub(super) fn open_raw(&self, unit: Arc<Unit>) -> Result<What, Errno> {
        let (up, disk) = self.runtime.look(&unit, |device| (device.is_up(), device.handle(None)));
        if !up {
            return Err(Errno::ENXIO);
        }
        if !self.raws.0.lock().insert(unit.id) {
            return Err(Errno::EBUSY);
        }
        let machine = Mutex::new(Raw::new(self.pool.clone()));
        Ok(What::Raw(RawHandle { unit, disk, machine }))
    }

    pub(super) fn close_raw(&self, open: &RawHandle) {
        self.raws.0.lock().remove(&open.unit.id);
    }

    fn snapshot(&self, unit: &Unit) -> Snapshot {
        self.runtime.look(unit, |device| Snapshot {
            identify: *device.info(),
            sectors: device.size() / SECTOR as u64,
            frame: u8::try_from(device.status().maxbcnt / SECTOR).unwrap_or(u8::MAX),
            up: device.is_up(),
            read_only: self.settings.read_only,
        })
    }

    pub(super) fn read_raw(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        open: &RawHandle,
        size: usize,
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let step = open.machine.lock().read(size);
        self.go_on(
            handle,
            step,
            Box::new(move |step| match step {
                Step::Read(bytes) => answer(Ok(&bytes)),
                Step::Error(error) => answer(Err(errno::of(error))),
                Step::Wrote(_) | Step::Submit { .. } => answer(Err(Errno::EIO)),
            }),
        );
    }

    pub(super) fn write_raw(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        open: &RawHandle,
        data: &[u8],
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let unit = self.snapshot(&open.unit);
        let step = open.machine.lock().write(&unit, data);
        self.go_on(
            handle,
            step,
            Box::new(move |step| match step {
                Step::Wrote(len) => answer(Ok(len as u32)),
                Step::Error(error) => answer(Err(errno::of(error))),
                Step::Read(_) | Step::Submit { .. } => answer(Err(Errno::EIO)),
            }),
        );
    }

    /// Asks the engine for what the machine wants, until it has an answer.
    fn go_on(self: &Arc<Self>, handle: &Arc<Handle>, step: Step, then: Box<dyn FnOnce(Step) + Send>) {
        let What::Raw(open) = &handle.what else { return then(step) };
        let Step::Submit { io, changes } = step else { return then(step) };
        let (core, own) = (self.clone(), handle.clone());
        let (unit, place, nonblock) = (open.unit.clone(), open.disk, handle.mode.nonblock);
        let bytes = changes.clone();
        let flush = match &io {
            Io::Flush => true,
            Io::Ata { ata, .. } => ata.is_flush(),
            _ => false,
        };
        self.change(Change { unit, place, nonblock, io, bytes }, move |outcome| {
            let What::Raw(open) = &own.what else { return };
            let failed = match &outcome {
                Ok(Output::Ata { ata, .. }) => ata.failed(),
                outcome => matches!(outcome, Err(Error::Io)),
            };
            if flush && failed {
                // What others have written may be lost: their next fsync says so.
                open.unit.failed_flushes.fetch_add(1, Ordering::SeqCst);
            }
            // Also after a failure: some of it may have been done. Nobody has set the time of the names that it is in.
            for ino in core.tree.changed(open.unit.id, &changes, wall()) {
                core.waker.attributes(ino);
            }
            let step = open.machine.lock().answered(outcome);
            core.go_on(&own, step, then);
        });
    }
}
