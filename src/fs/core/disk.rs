//! Reading, writing, flushing and truncating `data` and partitions.

use std::ops::Range;
use std::sync::Arc;

use super::zero::Zeros;
use super::{Core, nothing};
use crate::engine::{Io, Output, WriteBuf};
use crate::fs::errno::{self, Errno};
use crate::fs::handles::{Admit, DiskHandle, Handle, Job};
use crate::fs::notify::{self, PageRange};
use crate::fs::tree::Disk;
use crate::runtime::clock::wall;

/// A write on its way.
pub struct Write {
    /// First byte.
    pub offset: u64,
    /// The bytes, copied out of the request.
    pub data: WriteBuf,
    /// The kernel keeps the pages locked until the write is answered.
    pub locks_pages: bool,
}

impl Write {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.data.len() as u64)
    }
}

impl Core {
    /// Copies the bytes of a write out of the request's buffer: the one copy that is made of them here.
    pub fn write_buf(&self, offset: u64, data: &[u8]) -> WriteBuf {
        WriteBuf::copy_from(&self.pool, offset, data)
    }

    pub(super) fn read_disk(
        &self,
        handle: &Handle,
        open: &DiskHandle,
        range: (u64, usize),
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        if open.disk.is_stale() {
            return answer(Err(Errno::ESTALE));
        }
        if !open.uncached {
            open.disk.note_cached();
        }
        open.used();
        let io = Io::Read { offset: range.0, len: range.1 };
        self.submit(&open.unit, open.disk.place, handle.mode.nonblock, io, move |outcome| match outcome {
            Ok(Output::Data(data)) => answer(Ok(&data)),
            Ok(_) => answer(Err(Errno::EIO)),
            Err(error) => answer(Err(errno::of(error))),
        });
    }

    pub(super) fn write_disk(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        write: Write,
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let Some(open) = handle.disk() else { return answer(Err(Errno::EBADF)) };
        if let Err(errno) = self.writable(&open.disk) {
            return answer(Err(errno));
        }
        if write.offset >= open.disk.size() {
            return answer(Err(Errno::ENOSPC));
        }
        open.used();
        let (offset, end) = (write.offset, write.end());
        let mut held = Some((write, answer));
        let admit = open.truncation.write(offset, end, || {
            let (core, handle, held) = (self.clone(), handle.clone(), held.take());
            Box::new(move || {
                if let Some((write, answer)) = held {
                    core.write_disk(&handle, write, answer);
                }
            })
        });
        let Some((write, answer)) = held else { return };
        match admit {
            Admit::Go | Admit::Wait => self.write_now(handle, write, offset, answer),
            Admit::Zero { from, to } => {
                let (core, handle) = (self.clone(), handle.clone());
                self.zero_gap(&handle.clone(), from..to, end, move |zeroed| match zeroed {
                    Ok(()) => core.write_now(&handle, write, from, answer),
                    Err(errno) => answer(Err(errno)),
                });
            }
        }
    }

    /// Writes what a truncation owes, then runs `then`, then whatever waited for it. The mark will be at `mark`.
    fn zero_gap(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        gap: Range<u64>,
        mark: u64,
        then: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let Some(open) = handle.disk() else { return then(Err(Errno::EBADF)) };
        let run = Zeros {
            unit: open.unit.clone(),
            place: open.disk.place,
            nonblock: handle.mode.nonblock,
            from: gap.start,
            to: gap.end,
        };
        let handle = handle.clone();
        self.zero(run, move |reached, zeroed| {
            let mark = if zeroed.is_ok() { mark } else { reached };
            let waiting = handle.disk().map(|open| open.truncation.zeroed(mark)).unwrap_or_default();
            then(zeroed);
            waiting.into_iter().for_each(|job| job());
        });
    }

    /// The write itself. `changed_from` is where bytes began to change for it: at zeros before it, or at itself.
    fn write_now(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        write: Write,
        changed_from: u64,
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let Some(open) = handle.disk() else { return answer(Err(Errno::EBADF)) };
        if !open.uncached {
            open.disk.note_cached();
        }
        let Write { offset, data, locks_pages } = write;
        let past_cache = open.uncached && !locks_pages;
        let (core, disk) = (self.clone(), open.disk.clone());
        let io = Io::Write { offset, data };
        self.submit(&open.unit, open.disk.place, handle.mode.nonblock, io, move |outcome| {
            let written = match outcome {
                Ok(Output::Written(written)) => written,
                Ok(_) => return answer(Err(Errno::EIO)),
                Err(error) => return answer(Err(errno::of(error))),
            };
            let end = offset + written as u64;
            let own = locks_pages.then(|| notify::Write { ino: disk.ino, bytes: offset..end });
            // Another handle to this name is cached: the kernel dropped its pages before it sent the write, but a reader may
            // have brought some back, as they were, until now.
            let brought_back = (past_cache && disk.may_be_cached())
                .then(|| PageRange { ino: disk.ino, bytes: changed_from..end });
            core.changed(&disk, changed_from..end, own, brought_back, move || answer(Ok(written as u32)));
            if changed_from < offset && disk.may_be_cached() {
                // The kernel may have read the gap before it was zeroed. Behind the answer, for the page that gap
                // and write share is locked until then.
                core.pages
                    .drop_soon(disk.unit, vec![PageRange { ino: disk.ino, bytes: changed_from..offset }]);
            }
        });
    }

    /// Bytes of a disk are different now: answers once no other name has the old ones cached, nor this one `own_too`.
    pub(super) fn changed(
        &self,
        disk: &Disk,
        bytes: Range<u64>,
        own: Option<notify::Write>,
        own_too: Option<PageRange>,
        answer: impl FnOnce() + Send + 'static,
    ) {
        disk.set_mtime(wall());
        let mut drops: Vec<PageRange> = own_too.into_iter().collect();
        if disk.others_cached() {
            let elsewhere = self.tree.cached_elsewhere(disk, &bytes);
            drops.extend(elsewhere.into_iter().map(|(ino, bytes)| PageRange { ino, bytes }));
        }
        if drops.is_empty() {
            return answer();
        }
        self.pages.drop_then(disk.unit, drops, own, Box::new(answer));
    }

    /// Whether a disk can be written to at all.
    pub(super) fn writable(&self, disk: &Disk) -> Result<(), Errno> {
        match () {
            () if disk.is_stale() => Err(Errno::ESTALE),
            () if self.settings.read_only => Err(Errno::EROFS),
            () => Ok(()),
        }
    }

    /// fsync and fdatasync.
    pub(super) fn sync_disk(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        answer: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let Some(open) = handle.disk() else { return answer(Err(Errno::EBADF)) };
        if open.disk.is_stale() {
            return answer(Err(Errno::ESTALE));
        }
        let mut held = Some(answer);
        let admit = open.truncation.write(0, 0, || self.again(handle, held.take(), Self::sync_disk));
        if let (Admit::Go, Some(answer)) = (admit, held) {
            let nonblock = handle.mode.nonblock;
            self.submit(&open.unit, open.disk.place, nonblock, Io::Flush, move |done| answer(nothing(done)));
        }
    }

    /// A job that calls `operation` again with the answer that it held.
    fn again<A: Send + 'static>(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        held: Option<A>,
        operation: fn(&Arc<Self>, &Arc<Handle>, A),
    ) -> Job {
        let (core, handle) = (self.clone(), handle.clone());
        Box::new(move || {
            if let Some(answer) = held {
                operation(&core, &handle, answer);
            }
        })
    }

    pub(super) fn truncate_disk(
        self: &Arc<Self>,
        disk: &Disk,
        handle: Option<Arc<Handle>>,
        size: u64,
        answer: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        if let Err(errno) = self.writable(disk) {
            return answer(Err(errno));
        }
        if size > disk.size() {
            return answer(Err(Errno::ENOSPC));
        }
        let Some(handle) = handle else { return answer(Ok(())) };
        let Some(open) = handle.disk() else { return answer(Err(Errno::EBADF)) };
        let mut held = Some(answer);
        let admit = open.truncation.truncate(size, || {
            let (core, handle, held) = (self.clone(), handle.clone(), held.take());
            Box::new(move || {
                if let (Some(answer), Some(open)) = (held, handle.disk()) {
                    let disk = open.disk.clone();
                    core.truncate_disk(&disk, Some(handle), size, answer);
                }
            })
        });
        let Some(answer) = held else { return };
        let Admit::Zero { from, to } = admit else { return answer(Ok(())) };
        let (core, disk) = (self.clone(), open.disk.clone());
        self.zero_gap(&handle, from..to, to, move |zeroed| match zeroed {
            Ok(()) => {
                if disk.may_be_cached() {
                    core.pages.drop_soon(disk.unit, vec![PageRange { ino: disk.ino, bytes: from..to }]);
                }
                core.changed(&disk, from..to, None, None, move || answer(Ok(())));
            }
            Err(errno) => answer(Err(errno)),
        });
    }
}
