//! Requests that change bytes of a disk: answered after the kernel has let go of older pages of them.

use std::ops::Range;
use std::sync::Arc;

use super::Core;
use super::pending::Pending;
use crate::engine::{Error, Handle, Io, Outcome};
use crate::fs::handles::DiskHandle;
use crate::runtime::Unit;
use crate::runtime::clock::wall;

/// A request that changes bytes.
pub(super) struct Change {
    /// Its target.
    pub unit: Arc<Unit>,
    /// The disk that it is for.
    pub place: Handle,
    /// Fail rather than wait for a target that is away.
    pub nonblock: bool,
    /// The request.
    pub io: Io,
    /// What it changes: bytes of the target's whole disk.
    pub bytes: Range<u64>,
}

impl Core {
    /// Gives the engine a request that changes bytes. Also when it fails, for some of it may have been done, pages of them
    /// are dropped before `answer` is called. Where that takes longer than the target's deadline, it is called with an error.
    pub(super) fn change(self: &Arc<Self>, change: Change, answer: impl FnOnce(Outcome) + Send + 'static) {
        let Change { unit, place, nonblock, io, bytes } = change;
        let (core, own, since) = (self.clone(), unit.clone(), self.runtime.now());
        self.submit(&unit, place, nonblock, io, move |outcome| {
            core.pages.drop_then(
                own.id,
                bytes,
                (answer, outcome),
                |(answer, outcome)| answer(outcome),
                |(answer, outcome)| {
                    let after = core.patience(&own, since);
                    let pending = Pending::new(&core.runtime, after, answer, Error::Io);
                    Box::new(move || pending.give(outcome))
                },
            );
        });
    }

    /// The same through an open disk, whose bytes are `bytes`.
    pub(super) fn change_disk(
        self: &Arc<Self>,
        open: &DiskHandle,
        nonblock: bool,
        io: Io,
        bytes: Range<u64>,
        answer: impl FnOnce(Outcome) + Send + 'static,
    ) {
        let disk = open.disk.clone();
        let (unit, place, bytes) = (open.unit.clone(), disk.place, disk.on_target(&bytes));
        self.change(Change { unit, place, nonblock, io, bytes }, move |outcome| {
            disk.set_mtime(wall());
            answer(outcome);
        });
    }
}
