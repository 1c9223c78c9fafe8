//! Zeros over the wire, piece by piece.

use std::sync::Arc;

use super::Core;
use crate::engine::{Io, Output, Time, WriteBuf};
use crate::fs::errno::{self, Errno};
use crate::fs::handles::Handle;

/// Bytes that one write of zeros covers: one request's worth of lock and memory.
const PIECE: u64 = 1 << 20;

/// A run of zeros.
pub(super) struct Zeros {
    /// The open disk.
    pub handle: Arc<Handle>,
    /// First byte.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// No piece is begun later: whoever waits for the run was given an error by then.
    pub until: Option<Time>,
}

impl Core {
    /// When a run through that handle that begins now has to be over. None under `nofail`: never.
    pub(super) fn zeros_until(&self, handle: &Handle) -> Option<Time> {
        let open = handle.disk()?;
        let now = self.runtime.now();
        self.time_left(&open.unit, now).map(|left| now + left)
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
        let handle = run.handle.clone();
        let Some(open) = handle.disk() else { return finish(run.from, Err(Errno::EBADF)) };
        if run.until.is_some_and(|until| self.runtime.now() >= until) {
            return finish(run.from, Err(Errno::EIO));
        }
        let next = run.to.min((run.from / PIECE + 1) * PIECE);
        let len = (next - run.from) as usize;
        let io = Io::Write { offset: run.from, data: WriteBuf::zeros(&self.pool, run.from, len) };
        let core = self.clone();
        let bytes = run.from..next;
        self.change_disk(open, handle.mode.nonblock, io, bytes, move |outcome| match outcome {
            Ok(Output::Written(written)) if written == len => {
                run.from = next;
                core.zero(run, finish);
            }
            Ok(_) => finish(run.from, Err(Errno::ENOSPC)),
            Err(error) => finish(run.from, Err(errno::of(error))),
        });
    }
}
