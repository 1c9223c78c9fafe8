//! copy_file_range(2) between names of one target: a read and a write under the engine's locks.
//!
//! One call copies at most one request's worth and says how much that was; the program goes on, as copy_file_range(2)
//! has it. Other programs may write between the read and the write, as they may between two calls.

use std::sync::Arc;

use super::{OpenDisk, Write};
use crate::engine::{Io, Output};
use crate::fs::answer::Answer;
use crate::fs::errno::Errno;
use crate::fs::limits::REQUEST_MAX;

impl OpenDisk {
    /// Copies up to `len` bytes from the offset `from` of this file to the offset `to` of the file `sink`. Between two
    /// targets it is EOPNOTSUPP, and the kernel then copies itself; ranges that overlap on the target are EINVAL; 0 at
    /// the end of this file; ENOSPC where a write would be.
    pub fn copy(
        self: &Arc<Self>,
        from: u64,
        sink: &Arc<OpenDisk>,
        to: u64,
        len: u64,
        answer: impl Answer<u32>,
    ) {
        // The kernel holds the sink's lock until the answer: a source that is away would hold up all writers of the
        // sink.
        if self.unit.id != sink.unit.id {
            return answer(Err(Errno::EOPNOTSUPP));
        }
        if let Err(errno) = self.current().and_then(|()| self.context.writable(&sink.disk)) {
            return answer(Err(errno));
        }
        let len = len.min(self.disk.size().saturating_sub(from));
        if len == 0 {
            return answer(Ok(0));
        }
        let len = len.min(sink.disk.size().saturating_sub(to));
        if len == 0 {
            return answer(Err(Errno::ENOSPC));
        }
        let read = self.disk.on_target(&(from..from + len));
        let written = sink.disk.on_target(&(to..to + len));
        if read.start < written.end && written.start < read.end {
            return answer(Err(Errno::EINVAL));
        }
        self.used();
        let (sink, pending) = (sink.clone(), sink.pending(answer));
        let io = Io::Read { offset: from, len: len.min(REQUEST_MAX as u64) as usize };
        let (place, nonblock) = (self.disk.place, self.mode.nonblock);
        self.context.submit(&self.unit, place, nonblock, io, move |outcome| match outcome {
            // It was answered: nothing may be written any more.
            Ok(Output::Data(_)) if pending.is_over() => {}
            Ok(Output::Data(data)) => {
                let write = Write { offset: to, data: sink.write_buf(to, &data) };
                sink.put(write, sink.mode.durable, move |written| pending.give(written));
            }
            Ok(_) => pending.give(Err(Errno::EIO)),
            Err(error) => pending.give(Err(Errno::from(error))),
        });
    }
}
