//! Reading, writing, flushing and truncating `data` and partitions.

use std::ops::Range;
use std::sync::Arc;

use super::zero::Zeros;
use super::{Core, nothing};
use crate::engine::{Io, Output, Stream, WriteBuf};
use crate::fs::errno::{self, Errno};
use crate::fs::handles::{Admit, DiskHandle, Handle, Job};
use crate::fs::notify::Name;
use crate::fs::tree::Disk;

/// A write on its way.
pub struct Write {
    /// First byte.
    pub offset: u64,
    /// The bytes, copied out of the request.
    pub data: WriteBuf,
}

impl Write {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.data.len() as u64)
    }
}

/// Who reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// A program's own read: what it gets is kept nowhere.
    Program,
    /// The kernel, for its page cache: for sendfile, splice and mappings.
    PageCache,
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
        (offset, len): (u64, usize),
        reader: Reader,
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        if open.disk.is_stale() {
            return answer(Err(Errno::ESTALE));
        }
        // Where nothing is written through this mount, nothing has to be dropped.
        if reader == Reader::PageCache && !self.settings.read_only {
            let name = Name { ino: open.disk.ino, start: open.disk.start };
            self.pages.note(open.unit.id, name, offset..offset.saturating_add(len as u64));
        }
        open.used();
        let io = Io::Read { offset, len };
        // What the kernel reads for its cache, it reads ahead itself.
        let ahead =
            reader == Reader::Program && !(open.uncached || handle.mode.direct || self.settings.read_only);
        let stream = ahead.then_some(Stream(handle.fh));
        let (place, nonblock) = (open.disk.place, handle.mode.nonblock);
        self.submit_for(stream, &open.unit, place, nonblock, io, move |outcome| match outcome {
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
            let again = |core: &Arc<Self>, handle: &Arc<Handle>, write, answer: Give<u32>| {
                core.write_disk(handle, write, answer);
            };
            let (write, answer) = held.take().unzip();
            self.again(handle, write, answer, again)
        });
        let Some((write, answer)) = held else { return };
        let Admit::Zero { from, to } = admit else { return self.write_now(handle, write, answer) };
        let pending = self.pending(open, answer);
        let (core, own, done) = (self.clone(), handle.clone(), pending.clone());
        // What is not written does not count.
        let mark = move || if pending.is_over() { to } else { end };
        self.zero_gap(handle, from..to, mark, move |zeroed| match zeroed {
            // It was answered: what is not begun stays undone.
            _ if done.is_over() => {}
            Ok(()) => core.write_now(&own, write, move |written| done.give(written)),
            Err(errno) => done.give(Err(errno)),
        });
    }

    /// A write and a flush, with one deadline for both.
    pub(super) fn write_durably(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        write: Write,
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let Some(open) = handle.disk() else { return answer(Err(Errno::EBADF)) };
        let pending = self.pending(open, answer);
        let (core, own) = (self.clone(), handle.clone());
        self.write_disk(handle, write, move |written| match written {
            Ok(len) if !pending.is_over() => {
                core.sync_disk(&own, move |synced| pending.give(synced.map(|()| len)));
            }
            other => pending.give(other),
        });
    }

    /// Writes what a truncation owes, then runs `then`, then whatever waited for it. The mark will be at `mark`, or as far
    /// as the zeros came.
    fn zero_gap(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        gap: Range<u64>,
        mark: impl FnOnce() -> u64 + Send + 'static,
        then: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let until = self.zeros_until(handle);
        let run = Zeros { handle: handle.clone(), from: gap.start, to: gap.end, until };
        let handle = handle.clone();
        self.zero(run, move |reached, zeroed| {
            let mark = if zeroed.is_ok() { mark() } else { reached };
            let waiting = handle.disk().map(|open| open.truncation.zeroed(mark)).unwrap_or_default();
            then(zeroed);
            waiting.into_iter().for_each(|job| job());
        });
    }

    fn write_now(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        write: Write,
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let Some(open) = handle.disk() else { return answer(Err(Errno::EBADF)) };
        let (offset, bytes) = (write.offset, write.offset..write.end());
        let io = Io::Write { offset, data: write.data };
        self.change_disk(open, handle.mode.nonblock, io, bytes, move |outcome| {
            answer(match outcome {
                Ok(Output::Written(written)) => Ok(written as u32),
                Ok(_) => Err(Errno::EIO),
                Err(error) => Err(errno::of(error)),
            });
        });
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
        let admit = open.truncation.write(0, 0, || {
            let again = |core: &Arc<Self>, handle: &Arc<Handle>, (), answer: Give<()>| {
                core.sync_disk(handle, answer);
            };
            self.again(handle, Some(()), held.take(), again)
        });
        if let (Admit::Go, Some(answer)) = (admit, held) {
            let nonblock = handle.mode.nonblock;
            // What was not tried, since nobody may wait for it here, has lost nothing.
            let tried = !nonblock || self.runtime.look(&open.unit, |device| device.is_up());
            let own = handle.clone();
            self.submit(&open.unit, open.disk.place, nonblock, Io::Flush, move |done| {
                let done = nothing(done);
                let open = own.disk().filter(|_| tried || done.is_ok());
                answer(open.map_or(done, |open| open.flushed(done)));
            });
        }
    }

    /// A job that calls `operation` with what it held, unless that has waited for the target's deadline: then it was
    /// answered.
    pub(super) fn again<W: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        what: Option<W>,
        answer: Option<impl FnOnce(Result<T, Errno>) + Send + 'static>,
        operation: fn(&Arc<Self>, &Arc<Handle>, W, Give<T>),
    ) -> Job {
        let (Some(what), Some(answer), Some(open)) = (what, answer, handle.disk()) else {
            return Box::new(|| ());
        };
        let pending = self.pending(open, answer);
        let (core, handle) = (self.clone(), handle.clone());
        Box::new(move || {
            if !pending.is_over() {
                operation(&core, &handle, what, Box::new(move |done| pending.give(done)));
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
            let again = |core: &Arc<Self>, handle: &Arc<Handle>, size, answer: Give<()>| {
                if let Some(open) = handle.disk() {
                    core.truncate_disk(&open.disk, Some(handle.clone()), size, answer);
                }
            };
            self.again(&handle, Some(size), held.take(), again)
        });
        let Some(answer) = held else { return };
        let Admit::Zero { from, to } = admit else { return answer(Ok(())) };
        let pending = self.pending(open, answer);
        self.zero_gap(&handle, from..to, move || to, move |zeroed| pending.give(zeroed));
    }
}

/// How an operation that had to wait gives its answer.
type Give<T> = Box<dyn FnOnce(Result<T, Errno>) + Send>;
