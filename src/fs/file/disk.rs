//! `data` and the partitions: reading, writing, flushing and truncating.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fuser::FopenFlags;

use super::{Mode, Reader, Verbs};
use crate::engine::{Error, Io, Output, Stream, WriteBuf};
use crate::fs::answer::{Answer, DataAnswer};
use crate::fs::context::{Context, DiskChange, Pending, success};
use crate::fs::errno::Errno;
use crate::fs::notify::Name;
use crate::fs::tree::Disk;
use crate::runtime::Unit;
use crate::runtime::clock::wall;

mod allocate;
mod copy;
mod guest;
mod truncation;
mod zero;

pub use guest::GuestDisk;
use truncation::{Admit, Job, Truncation};
use zero::Zeros;

/// An open `data` or partition.
pub struct OpenDisk {
    context: Arc<Context>,
    fh: u64,
    mode: Mode,
    unit: Arc<Unit>,
    /// The generation that it was opened of.
    disk: Arc<Disk>,
    /// The zeros that its truncation owes.
    truncation: Truncation,
    /// How often its runs of zeros were ended from outside.
    zeros_ended: AtomicU64,
    /// The kernel caches nothing of it, and the engine does not read ahead.
    uncached: bool,
    /// Nothing was read, written or truncated through it yet.
    unused: AtomicBool,
    /// Failed flushes of the target that fsync(2) of this file has reported, or that came before its open.
    failures_told: AtomicU64,
}

/// A write on its way.
struct Write {
    /// First byte.
    offset: u64,
    /// The bytes, copied out of the request.
    data: WriteBuf,
}

impl Write {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.data.len() as u64)
    }
}

/// How an operation that had to wait gives its answer.
type Give<T> = Box<dyn FnOnce(Result<T, Errno>) + Send>;

/// Whether a disk may be truncated to that size. truncate(2) by name does no more.
pub fn check_size(context: &Context, disk: &Disk, size: u64) -> Result<(), Errno> {
    context.writable(disk)?;
    if size > disk.size() { Err(Errno::ENOSPC) } else { Ok(()) }
}

impl OpenDisk {
    /// Opens a disk under that number: ENXIO while its target is down.
    pub fn open(context: &Arc<Context>, disk: &Arc<Disk>, fh: u64, mode: Mode) -> Result<Arc<Self>, Errno> {
        if mode.write {
            context.writable(disk)?;
        }
        if disk.is_stale() {
            return Err(Errno::ESTALE);
        }
        let unit = context.unit(disk.unit)?;
        let own = context.runtime.with_device(&unit, |device, _, _| {
            device.open()?;
            disk.opened();
            Ok::<_, Error>(device.uncached())
        })?;
        let uncached = own.unwrap_or(context.settings.uncached);
        let failures_told = unit.failed_flushes.load(Ordering::SeqCst).into();
        Ok(Arc::new(Self {
            context: context.clone(),
            fh,
            mode,
            unit,
            disk: disk.clone(),
            truncation: Truncation::default(),
            zeros_ended: AtomicU64::new(0),
            uncached,
            unused: true.into(),
            failures_told,
        }))
    }

    /// Whether nothing was read, written or truncated through it yet: the truncation of its own open may still come.
    pub fn is_unused(&self) -> bool {
        self.unused.load(Ordering::Relaxed)
    }

    fn used(&self) {
        if self.is_unused() {
            self.unused.store(false, Ordering::Relaxed);
        }
    }

    /// ESTALE, if another disk stands in its place now.
    fn current(&self) -> Result<(), Errno> {
        if self.disk.is_stale() { Err(Errno::ESTALE) } else { Ok(()) }
    }

    /// An answer that becomes EIO at the deadline of the target.
    fn pending<T: Send + 'static>(&self, answer: impl Answer<T>) -> Arc<Pending<T>> {
        self.context.pending(&self.unit, answer)
    }

    /// Gives the engine a request that changes `bytes` of the disk.
    fn change(&self, io: Io, bytes: &Range<u64>, answer: impl Answer<Output, Error>) {
        let disk = self.disk.clone();
        let change = DiskChange {
            unit: self.unit.clone(),
            place: disk.place,
            nonblock: self.mode.nonblock,
            io,
            bytes: disk.on_target(bytes),
        };
        self.context.change(change, move |outcome| {
            disk.set_mtime(wall());
            answer(outcome);
        });
    }

    fn write_buf(&self, offset: u64, data: &[u8]) -> WriteBuf {
        WriteBuf::copy_from(&self.context.pool, offset, data)
    }

    /// Writes; with `durable` a flush follows, and both have one deadline.
    fn put(self: &Arc<Self>, write: Write, durable: bool, answer: impl Answer<u32>) {
        if !durable {
            return self.write_in_turn(write, answer);
        }
        let pending = self.pending(answer);
        let file = self.clone();
        self.write_in_turn(write, move |written| match written {
            Ok(len) if !pending.is_over() => file.sync(move |synced| pending.give(synced.map(|()| len))),
            other => pending.give(other),
        });
    }

    /// Writes, after the zeros that a truncation owes before it.
    fn write_in_turn(self: &Arc<Self>, write: Write, answer: impl Answer<u32>) {
        if let Err(errno) = self.context.writable(&self.disk) {
            return answer(Err(errno));
        }
        if write.offset >= self.disk.size() {
            return answer(Err(Errno::ENOSPC));
        }
        self.used();
        let (offset, end) = (write.offset, write.end());
        let mut held = Some((write, answer));
        let admit = self.truncation.write(offset, end, || {
            self.later(held.take(), |file, write, answer| file.write_in_turn(write, answer))
        });
        let Some((write, answer)) = held else { return };
        let Admit::Zero { from, to } = admit else { return self.write_now(write, answer) };
        let pending = self.pending(answer);
        let (file, done) = (self.clone(), pending.clone());
        // The mark does not count bytes that are not going to be written.
        let mark = move || if pending.is_over() { to } else { end };
        self.zero_gap(from..to, mark, move |zeroed| match zeroed {
            // It was answered: the write is not begun any more.
            _ if done.is_over() => {}
            Ok(()) => file.write_now(write, move |written| done.give(written)),
            Err(errno) => done.give(Err(errno)),
        });
    }

    fn write_now(&self, write: Write, answer: impl Answer<u32>) {
        let (offset, bytes) = (write.offset, write.offset..write.end());
        self.change(Io::Write { offset, data: write.data }, &bytes, move |outcome| {
            answer(match outcome {
                Ok(Output::Written(written)) => Ok(written as u32),
                Ok(_) => Err(Errno::EIO),
                Err(error) => Err(Errno::from(error)),
            });
        });
    }

    /// Writes the zeros that a truncation owes, then runs `then`, then the operations that waited for the zeros. The
    /// mark will be at `mark`, or as far as the zeros came.
    fn zero_gap(
        self: &Arc<Self>,
        gap: Range<u64>,
        mark: impl FnOnce() -> u64 + Send + 'static,
        then: impl Answer<()>,
    ) {
        let file = self.clone();
        let run = Zeros { from: gap.start, to: gap.end, limit: self.zeros_limit() };
        self.zero(run, move |reached, zeroed| {
            let mark = if zeroed.is_ok() { mark() } else { reached };
            let waiting = file.truncation.zeroed(mark);
            then(zeroed);
            waiting.into_iter().for_each(|job| job());
        });
    }

    /// A job that begins an operation later, unless the target's deadline has passed by then: that has answered it.
    fn later<W: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        held: Option<(W, impl Answer<T>)>,
        operation: fn(&Arc<Self>, W, Give<T>),
    ) -> Job {
        let Some((what, answer)) = held else { return Box::new(|| ()) };
        let (file, pending) = (self.clone(), self.pending(answer));
        Box::new(move || {
            if !pending.is_over() {
                operation(&file, what, Box::new(move |done| pending.give(done)));
            }
        })
    }

    /// What fsync(2) reports of a flush that ended so. Each failed flush of the target is reported once, also if
    /// another file asked for it: data that this file wrote may have been lost with it, and a later flush succeeds
    /// without them.
    fn flushed(&self, ended: Result<(), Errno>) -> Result<(), Errno> {
        let failed = &self.unit.failed_flushes;
        let all = match ended {
            Err(Errno::EIO) => failed.fetch_add(1, Ordering::SeqCst) + 1,
            _ => failed.load(Ordering::SeqCst),
        };
        let before = self.failures_told.fetch_max(all, Ordering::SeqCst);
        if before < all { ended.and(Err(Errno::EIO)) } else { ended }
    }
}

impl Verbs for OpenDisk {
    /// On a mount that can write, no disk is in the kernel's page cache: the caches of `data` and of a partition over
    /// the same bytes could not be kept the same. Parallel: the engine has locks, so writers need not take turns at the
    /// inode's.
    fn flags(&self) -> FopenFlags {
        match self.uncached || !self.context.settings.read_only {
            true => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
            false => FopenFlags::empty(),
        }
    }

    fn read(self: &Arc<Self>, offset: u64, len: usize, reader: Reader, answer: impl DataAnswer) {
        if let Err(errno) = self.current() {
            return answer(Err(errno));
        }
        let read_only = self.context.settings.read_only;
        // Pages need not be dropped where no program can write through this mount.
        if reader == Reader::PageCache && !read_only {
            let name = Name { ino: self.disk.ino, start: self.disk.start };
            self.context.pages.note(self.unit.id, name, offset..offset.saturating_add(len as u64));
        }
        self.used();
        // The kernel itself reads ahead for its cache.
        let ahead = reader == Reader::Program && !(self.uncached || self.mode.direct || read_only);
        let stream = ahead.then_some(Stream(self.fh));
        let (place, nonblock) = (self.disk.place, self.mode.nonblock);
        let io = Io::Read { offset, len };
        self.context.submit_for(stream, &self.unit, place, nonblock, io, move |outcome| match outcome {
            Ok(Output::Data(data)) => answer(Ok(&data)),
            Ok(_) => answer(Err(Errno::EIO)),
            Err(error) => answer(Err(Errno::from(error))),
        });
    }

    fn write(self: &Arc<Self>, offset: u64, data: &[u8], durable: bool, answer: impl Answer<u32>) {
        // The one copy that is made of the bytes here: out of the request's buffer.
        self.put(Write { offset, data: self.write_buf(offset, data) }, durable, answer);
    }

    fn sync(self: &Arc<Self>, answer: impl Answer<()>) {
        if let Err(errno) = self.current() {
            return answer(Err(errno));
        }
        let mut held = Some(((), answer));
        let admit =
            self.truncation.write(0, 0, || self.later(held.take(), |file, (), answer| file.sync(answer)));
        let (Admit::Go, Some(((), answer))) = (admit, held) else { return };
        let nonblock = self.mode.nonblock;
        // With O_NONBLOCK and a target that is down no flush was tried, so no data was lost.
        let tried = !nonblock || self.context.runtime.inspect(&self.unit, |device| device.is_up());
        let file = self.clone();
        self.context.submit(&self.unit, self.disk.place, nonblock, Io::Flush, move |outcome| {
            let done = success(outcome);
            answer(if tried || done.is_ok() { file.flushed(done) } else { done });
        });
    }

    fn truncate(self: &Arc<Self>, size: u64, answer: impl Answer<()>) {
        if let Err(errno) = check_size(&self.context, &self.disk, size) {
            return answer(Err(errno));
        }
        self.used();
        let mut held = Some((size, answer));
        let admit = self
            .truncation
            .truncate(size, || self.later(held.take(), |file, size, answer| file.truncate(size, answer)));
        let Some((_, answer)) = held else { return };
        let Admit::Zero { from, to } = admit else { return answer(Ok(())) };
        let pending = self.pending(answer);
        self.zero_gap(from..to, move || to, move |zeroed| pending.give(zeroed));
    }

    fn allocate(self: &Arc<Self>, offset: u64, len: u64, mode: i32, answer: impl Answer<()>) {
        self.allocate_range(offset, len, mode, answer);
    }

    fn close(self: &Arc<Self>) {
        self.context.runtime.with_device(&self.unit, |device, now, sink| {
            device.close();
            device.close_stream(Stream(self.fh), now, sink);
            self.disk.closed();
        });
    }
}
