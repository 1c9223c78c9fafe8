//! fallocate(2) on `data` and partitions: a loop device turns discards and zeroing into it.

use std::ops::Range;
use std::sync::Arc;

use super::truncation::Admit;
use super::zero::{Limit, Zeros};
use super::{OpenDisk, Verbs};
use crate::engine::Io;
use crate::fs::answer::Answer;
use crate::fs::context::success;
use crate::fs::errno::Errno;
use crate::wire::SECTOR;

/// Zeros that one ZERO_RANGE writes over the wire at most, in bytes. A program that wants more should write them
/// itself: then it sees how far it got.
const ZERO_MAX: u64 = 256 << 20;

/// Bytes that are to read as zeros.
struct Zeroing {
    range: Range<u64>,
    /// By TRIM, which only a target that promises zeros after it may be asked for; else they are written.
    trim: bool,
    limit: Limit,
}

impl OpenDisk {
    /// fallocate(2). Mode 0 has nothing to do, for a disk has all its blocks.
    pub(super) fn allocate_range(
        self: &Arc<Self>,
        offset: u64,
        len: u64,
        mode: i32,
        answer: impl Answer<()>,
    ) {
        let checked = self.context.writable(&self.disk).and_then(|()| match offset.checked_add(len) {
            Some(end) if end <= self.disk.size() => Ok(offset..end),
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
        let limit = self.zeros_limit();
        let (file, pending) = (self.clone(), self.pending(answer));
        self.make_zero(Zeroing { range, trim, limit }, move |zeroed| match zeroed {
            Ok(()) if file.mode.durable && !pending.is_over() => {
                file.sync(move |synced| pending.give(synced));
            }
            other => pending.give(other),
        });
    }

    /// Makes bytes read as zeros.
    fn make_zero(self: &Arc<Self>, zeroing: Zeroing, answer: impl Answer<()>) {
        if zeroing.trim && !self.context.runtime.inspect(&self.unit, |device| device.can_trim()) {
            return answer(Err(Errno::EOPNOTSUPP));
        }
        self.used();
        let mut held = Some((zeroing, answer));
        let admit = self
            .truncation
            .write(0, 0, || self.later(held.take(), |file, zeroing, answer| file.make_zero(zeroing, answer)));
        let (Admit::Go, Some((Zeroing { range, trim, limit }, answer))) = (admit, held) else { return };
        let sector = SECTOR as u64;
        let whole = range.start.next_multiple_of(sector)..range.end / sector * sector;
        let zeros = |range: Range<u64>| Zeros { from: range.start, to: range.end, limit };
        if !trim || whole.is_empty() {
            return self.zero(zeros(range), move |_, zeroed| answer(zeroed));
        }
        // The sectors at the edges that are covered in part only keep their other bytes.
        let (head, tail) = (zeros(range.start..whole.start), zeros(whole.end..range.end));
        let file = self.clone();
        self.zero(head, move |_, zeroed| {
            if let Err(errno) = zeroed {
                return answer(Err(errno));
            }
            let io = Io::Trim { offset: whole.start, len: whole.end - whole.start };
            let own = file.clone();
            file.change(io, &whole, move |outcome| match success(outcome) {
                Ok(()) => own.zero(tail, move |_, zeroed| answer(zeroed)),
                Err(errno) => answer(Err(errno)),
            });
        });
    }
}
