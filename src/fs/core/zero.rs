//! Zeros over the wire, piece by piece.

use std::sync::Arc;

use super::Core;
use crate::engine::{Handle, Io, Output, WriteBuf};
use crate::fs::errno::{self, Errno};
use crate::runtime::Unit;

/// Bytes that one write of zeros covers: one request's worth of lock, memory and deadline.
const PIECE: u64 = 1 << 20;

/// A run of zeros.
pub(super) struct Zeros {
    pub unit: Arc<Unit>,
    pub place: Handle,
    pub nonblock: bool,
    pub from: u64,
    pub to: u64,
}

impl Core {
    /// Writes zeros from `from` to `to`. `finish` learns how far they reach, and why not further.
    pub(super) fn zero(
        self: &Arc<Self>,
        mut run: Zeros,
        finish: impl FnOnce(u64, Result<(), Errno>) + Send + 'static,
    ) {
        if run.from >= run.to {
            return finish(run.to, Ok(()));
        }
        let next = run.to.min((run.from / PIECE + 1) * PIECE);
        let len = (next - run.from) as usize;
        let io = Io::Write { offset: run.from, data: WriteBuf::zeros(&self.pool, run.from, len) };
        let (core, unit) = (self.clone(), run.unit.clone());
        self.submit(&unit, run.place, run.nonblock, io, move |outcome| match outcome {
            Ok(Output::Written(written)) if written == len => {
                run.from = next;
                core.zero(run, finish);
            }
            Ok(_) => finish(run.from, Err(Errno::ENOSPC)),
            Err(error) => finish(run.from, Err(errno::of(error))),
        });
    }
}
