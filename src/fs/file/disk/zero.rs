//! Zeros over the wire, piece by piece.

use std::sync::Arc;

use super::OpenDisk;
use crate::engine::{Io, Output, Time, WriteBuf};
use crate::fs::errno::Errno;
use crate::fs::limits::REQUEST_MAX;

/// A run of zeros.
pub(super) struct Zeros {
    /// First byte.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// No piece is begun later: the program that waits for the run was given an error by then.
    pub until: Option<Time>,
}

impl OpenDisk {
    /// The time by which a run that begins now has to be over. None: it has no limit, under `nofail`.
    pub(super) fn zeros_until(&self) -> Option<Time> {
        let now = self.context.runtime.now();
        self.context.time_left(&self.unit, now).map(|left| now + left)
    }

    /// Writes zeros from `from` to `to`. `finish` learns how far they reach, and why not further.
    pub(super) fn zero(
        self: &Arc<Self>,
        mut run: Zeros,
        finish: impl FnOnce(u64, Result<(), Errno>) + Send + 'static,
    ) {
        if run.from >= run.to {
            return finish(run.to, Ok(()));
        }
        if run.until.is_some_and(|until| self.context.runtime.now() >= until) {
            return finish(run.from, Err(Errno::EIO));
        }
        let piece = REQUEST_MAX as u64;
        let next = run.to.min((run.from / piece + 1) * piece);
        let len = (next - run.from) as usize;
        let io = Io::Write { offset: run.from, data: WriteBuf::zeros(&self.context.pool, run.from, len) };
        let file = self.clone();
        self.change(io, &(run.from..next), move |outcome| match outcome {
            Ok(Output::Written(written)) if written == len => {
                run.from = next;
                file.zero(run, finish);
            }
            Ok(_) => finish(run.from, Err(Errno::ENOSPC)),
            Err(error) => finish(run.from, Err(Errno::from(error))),
        });
    }
}
