//! fallocate(2) on `data` and partitions: what a loop device makes of discards and of zeroing.

use std::ops::Range;
use std::sync::Arc;

use super::zero::Zeros;
use super::{Core, nothing};
use crate::engine::Io;
use crate::fs::errno::Errno;
use crate::fs::handles::{Admit, DiskHandle, Handle};
use crate::wire::SECTOR;

/// Zeros that one ZERO_RANGE writes over the wire at most, in bytes. Who wants more is better off writing himself,
/// where he sees how far he got.
const ZERO_MAX: u64 = 256 << 20;

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
        match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => answer(Ok(())),
            libc::FALLOC_FL_PUNCH_HOLE => self.make_zero(&handle, range, true, answer),
            libc::FALLOC_FL_ZERO_RANGE if len <= ZERO_MAX => self.make_zero(&handle, range, false, answer),
            _ => answer(Err(Errno::EOPNOTSUPP)),
        }
    }

    /// Makes bytes read as zeros: by TRIM, which only a target that promises zeros after it may be asked for, or by
    /// writing them.
    fn make_zero(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        range: Range<u64>,
        trim: bool,
        answer: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let Some(open) = handle.disk() else { return answer(Err(Errno::EBADF)) };
        if trim && !self.runtime.look(&open.unit, |device| device.can_trim()) {
            return answer(Err(Errno::EOPNOTSUPP));
        }
        open.used();
        let mut held = Some(answer);
        let admit = open.truncation.write(0, 0, || {
            let (core, handle, range, held) = (self.clone(), handle.clone(), range.clone(), held.take());
            Box::new(move || {
                if let Some(answer) = held {
                    core.make_zero(&handle, range, trim, answer);
                }
            })
        });
        let (Admit::Go, Some(answer)) = (admit, held) else { return };
        let (core, disk, bytes) = (self.clone(), open.disk.clone(), range.clone());
        let finish = move |zeroed: Result<(), Errno>| match zeroed {
            Ok(()) => core.changed(&disk, bytes, None, None, move || answer(Ok(()))),
            Err(errno) => answer(Err(errno)),
        };
        let sector = SECTOR as u64;
        let whole = range.start.next_multiple_of(sector)..range.end / sector * sector;
        if !trim || whole.is_empty() {
            return self.zero(zeros(handle, open, range), move |_, zeroed| finish(zeroed));
        }
        // The sectors at the edges that are covered in part only keep their other bytes.
        let (core, handle) = (self.clone(), handle.clone());
        let head = zeros(&handle, open, range.start..whole.start);
        let tail = zeros(&handle, open, whole.end..range.end);
        self.zero(head, move |_, zeroed| {
            let open = match (zeroed, handle.disk()) {
                (Ok(()), Some(open)) => open,
                (zeroed, _) => return finish(zeroed.and(Err(Errno::EBADF))),
            };
            let io = Io::Trim { offset: whole.start, len: whole.end - whole.start };
            let again = core.clone();
            core.submit(&open.unit, open.disk.place, handle.mode.nonblock, io, move |outcome| match nothing(
                outcome,
            ) {
                Ok(()) => again.zero(tail, move |_, zeroed| finish(zeroed)),
                Err(errno) => finish(Err(errno)),
            });
        });
    }
}

fn zeros(handle: &Handle, open: &DiskHandle, range: Range<u64>) -> Zeros {
    let Range { start: from, end: to } = range;
    Zeros { unit: open.unit.clone(), place: open.disk.place, nonblock: handle.mode.nonblock, from, to }
}
