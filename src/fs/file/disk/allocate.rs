//! fallocate(2) on `data` and partitions: what a loop device makes of discards and of zeroing.

use std::ops::Range;
use std::sync::Arc;

use super::zero::Zeros;
use super::{Core, nothing};
use crate::engine::{Io, Time};
use crate::fs::errno::Errno;
use crate::fs::handles::{Admit, Handle};
use crate::wire::SECTOR;

/// Zeros that one ZERO_RANGE writes over the wire at most, in bytes. Who wants more is better off writing himself,
/// where he sees how far he got.
const ZERO_MAX: u64 = 256 << 20;

/// Bytes that are to read as zeros.
struct Zeroing {
    range: Range<u64>,
    /// By TRIM, which only a target that promises zeros after it may be asked for; else they are written.
    trim: bool,
    until: Option<Time>,
}

impl Core {
    /// fallocate(2). Mode 0 has nothing to do, for a disk has all its blocks.
    pub fn fallocate(
        self: &Arc<Self>,
        fh: u64,
        offset: u64,
        len: u64,
        mode: i32,
        answer: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let Some(handle) = self.handles.get(fh) else { return answer(Err(Errno::EBADF)) };
        let Some(open) = handle.disk() else { return answer(Err(Errno::EOPNOTSUPP)) };
        let checked = self.writable(&open.disk).and_then(|()| match offset.checked_add(len) {
            Some(end) if end <= open.disk.size() => Ok(offset..end),
            _ => Err(Errno::ENOSPC),
        });
        let range = match checked {
            Ok(range) => range,
            Err(errno) => return answer(Err(errno)),
        };
        let trim = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => return answer(Ok(())),
            libc::FALLOC_FL_PUNCH_HOLE => true,
            libc::FALLOC_FL_ZERO_RANGE if len <= ZERO_MAX => false,
            _ => return answer(Err(Errno::EOPNOTSUPP)),
        };
        // All of it has one deadline.
        let until = self.zeros_until(&handle);
        let pending = self.pending(open, answer);
        let (core, own) = (self.clone(), handle.clone());
        self.make_zero(&handle, Zeroing { range, trim, until }, move |zeroed| match zeroed {
            Ok(()) if own.mode.durable && !pending.is_over() => {
                core.sync_disk(&own, move |synced| pending.give(synced));
            }
            other => pending.give(other),
        });
    }

    /// Makes bytes read as zeros.
    fn make_zero(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        zeroing: Zeroing,
        answer: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let Some(open) = handle.disk() else { return answer(Err(Errno::EBADF)) };
        if zeroing.trim && !self.runtime.look(&open.unit, |device| device.can_trim()) {
            return answer(Err(Errno::EOPNOTSUPP));
        }
        open.used();
        let mut held = Some((zeroing, answer));
        let admit = open.truncation.write(0, 0, || {
            let (zeroing, answer) = held.take().unzip();
            self.again(handle, zeroing, answer, |core, handle, zeroing, answer| {
                core.make_zero(handle, zeroing, answer);
            })
        });
        let (Admit::Go, Some((Zeroing { range, trim, until }, answer))) = (admit, held) else { return };
        let sector = SECTOR as u64;
        let whole = range.start.next_multiple_of(sector)..range.end / sector * sector;
        let zeros = |range: Range<u64>| {
            let Range { start: from, end: to } = range;
            Zeros { handle: handle.clone(), from, to, until }
        };
        if !trim || whole.is_empty() {
            return self.zero(zeros(range), move |_, zeroed| answer(zeroed));
        }
        // The sectors at the edges that are covered in part only keep their other bytes.
        let (head, tail) = (zeros(range.start..whole.start), zeros(whole.end..range.end));
        let (core, handle) = (self.clone(), handle.clone());
        self.zero(head, move |_, zeroed| {
            let open = match (zeroed, handle.disk()) {
                (Ok(()), Some(open)) => open,
                (zeroed, _) => return answer(zeroed.and(Err(Errno::EBADF))),
            };
            let io = Io::Trim { offset: whole.start, len: whole.end - whole.start };
            let again = core.clone();
            core.change_disk(open, handle.mode.nonblock, io, whole, move |outcome| match nothing(outcome) {
                Ok(()) => again.zero(tail, move |_, zeroed| answer(zeroed)),
                Err(errno) => answer(Err(errno)),
            });
        });
    }
}
