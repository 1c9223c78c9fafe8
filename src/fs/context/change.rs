//! Requests that change bytes of a disk: answered after the kernel has let go of older pages of them.

use std::ops::Range;
use std::sync::Arc;

use super::Context;
use super::pending::Pending;
use crate::engine::{Error, Handle, Io, Output};
use crate::fs::answer::Answer;
use crate::runtime::Unit;

/// A request that changes bytes.
pub struct DiskChange {
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

impl Context {
    /// Gives the engine a request that changes bytes. The kernel's pages of these bytes are dropped before `answer` is
    /// called, also when the request fails, for some of it may have been done. Where dropping them takes longer than
    /// the target's deadline, `answer` is called with an error.
    pub fn change(self: &Arc<Self>, change: DiskChange, answer: impl Answer<Output, Error>) {
        let DiskChange { unit, place, nonblock, io, bytes } = change;
        let (context, own, since) = (self.clone(), unit.clone(), self.runtime.now());
        self.submit(&unit, place, nonblock, io, move |outcome| {
            context.pages.drop_then(
                own.id,
                bytes,
                (answer, outcome),
                |(answer, outcome)| answer(outcome),
                |(answer, outcome)| {
                    let after = context.patience(&own, since);
                    let pending = Pending::new(&context.runtime, after, answer, Error::Io);
                    Box::new(move || pending.give(outcome))
                },
            );
        });
    }
}
