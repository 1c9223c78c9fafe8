//! Zeros over the wire, piece by piece.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::OpenDisk;
use crate::engine::{Io, Output, Time, WriteBuf};
use crate::fs::errno::Errno;
use crate::fs::limits::REQUEST_MAX;

/// How far a run of zeros may go on.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// No piece is begun later: the program that waits for the run was given an error by then.
    until: Option<Time>,
    /// No piece is begun after the open file's runs were ended once more.
    ended: u64,
}

/// A run of zeros.
pub(super) struct Zeros {
    /// First byte.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// How long pieces may be begun.
    pub limit: Limit,
}

impl OpenDisk {
    /// The limit of a run that begins now. It has no time under `nofail`.
    pub(super) fn zeros_limit(&self) -> Limit {
        let now = self.context.runtime.now();
        let until = self.context.time_left(&self.unit, now).map(|left| now + left);
        Limit { until, ended: self.zeros_ended.load(Ordering::SeqCst) }
    }

    /// Runs of zeros that have begun do not go on behind the piece that is under way.
    pub(super) fn end_zeros(&self) {
        self.zeros_ended.fetch_add(1, Ordering::SeqCst);
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
        let Limit { until, ended } = run.limit;
        let over = until.is_some_and(|until| self.context.runtime.now() >= until);
        if over || self.zeros_ended.load(Ordering::SeqCst) != ended {
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
