//! copy_file_range(2) between names of one target: a read and a write under the engine's locks.
//!
//! One call copies one request's worth and says how much that was; callers go on, as copy_file_range(2) has it. Between
//! its read and its write others may write, as they may between two calls.

use std::sync::Arc;

use super::{Core, Write};
use crate::engine::{Io, Output};
use crate::fs::errno::{self, Errno};

/// Bytes that one call copies at most: one READ's and one WRITE's worth of lock and memory.
const PIECE: u64 = 1 << 20;

/// A place in an open file.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The handle's number.
    pub fh: u64,
    /// Bytes from the file's beginning.
    pub offset: u64,
}

impl Core {
    /// Copies up to `len` bytes. What is no disk, or another target's, is EOPNOTSUPP, and the kernel then copies itself; ranges that overlap on
    /// the target are EINVAL; 0 at the end of the source; ENOSPC where a write would be.
    pub fn copy_range(
        self: &Arc<Self>,
        from: At,
        to: At,
        len: u64,
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let (Some(source), Some(sink)) = (self.handles.get(from.fh), self.handles.get(to.fh)) else {
            return answer(Err(Errno::EBADF));
        };
        let (Some(open), Some(target)) = (source.disk(), sink.disk()) else {
            return answer(Err(Errno::EOPNOTSUPP));
        };
        // The kernel holds the sink's lock until the answer: a source that is away would hold up all who write to the sink.
        if open.unit.id != target.unit.id {
            return answer(Err(Errno::EOPNOTSUPP));
        }
        if open.disk.is_stale() {
            return answer(Err(Errno::ESTALE));
        }
        if let Err(errno) = self.writable(&target.disk) {
            return answer(Err(errno));
        }
        let len = len.min(open.disk.size().saturating_sub(from.offset));
        if len == 0 {
            return answer(Ok(0));
        }
        let len = len.min(target.disk.size().saturating_sub(to.offset));
        if len == 0 {
            return answer(Err(Errno::ENOSPC));
        }
        let read = open.disk.on_target(&(from.offset..from.offset + len));
        let written = target.disk.on_target(&(to.offset..to.offset + len));
        if read.start < written.end && written.start < read.end {
            return answer(Err(Errno::EINVAL));
        }
        open.used();
        let pending = self.pending(target, answer);
        let io = Io::Read { offset: from.offset, len: len.min(PIECE) as usize };
        let (core, nonblock) = (self.clone(), source.mode.nonblock);
        self.submit(&open.unit, open.disk.place, nonblock, io, move |outcome| match outcome {
            // It was answered: nothing may be written any more.
            Ok(Output::Data(_)) if pending.is_over() => {}
            Ok(Output::Data(data)) => {
                let write = Write { offset: to.offset, data: core.write_buf(to.offset, &data) };
                let give = move |written| pending.give(written);
                match sink.mode.durable {
                    true => core.write_durably(&sink, write, give),
                    false => core.write_disk(&sink, write, give),
                }
            }
            Ok(_) => pending.give(Err(Errno::EIO)),
            Err(error) => pending.give(Err(errno::of(error))),
        });
    }
}
