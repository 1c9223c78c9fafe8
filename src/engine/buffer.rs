//! Buffers that go back where they came from: reads land in them, writes leave from them.
//!
//! A buffer is taken when it is needed and returns to its pool when the last user drops it, so that a busy mount
//! allocates nothing. Pools are bounded; what does not fit is freed.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::wire::SECTOR;

/// Sizes of the buffers in each pool, in bytes, and how many buffers each pool keeps: together at most 24 MiB.
const CLASSES: [(usize, usize); 3] = [(8 << 10, 512), (128 << 10 | 1024, 32), (1 << 20 | 1024, 16)];

/// Where in a sector's length of memory a buffer begins: at a cache line. Byte 16 of a page, where malloc's large
/// blocks begin, was slower (benches/compare/README.md).
const BEGIN: usize = 64;

struct Class {
    size: usize,
    put: Sender<Vec<u8>>,
    get: Receiver<Vec<u8>>,
}

/// Bytes that may be held ahead of the readers of all targets that share a pool: sixteen streams with a full window.
pub const AHEAD_MAX: usize = 16 << 20;

struct Inner {
    classes: [Class; CLASSES.len()],
    /// Bytes that are held ahead of readers now.
    ahead: AtomicUsize,
    /// Bytes of writes that are under way now, and the most that may be.
    writes: AtomicUsize,
    writes_max: usize,
}

/// Where buffers come from. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

impl Default for Pool {
    fn default() -> Pool {
        Pool::with_writes(usize::MAX)
    }
}

impl Pool {
    /// A buffer of exactly `len` bytes, which still has the bytes of its last use: the caller must fill all of it.
    pub fn take(&self, len: usize) -> Buf {
        let class = self.0.classes.iter().position(|c| len <= c.size);
        let mut bytes = match class.map(|i| &self.0.classes[i]) {
            Some(class) => class.get.try_recv().unwrap_or_else(|_| Vec::with_capacity(class.size + SECTOR)),
            None => Vec::with_capacity(len + SECTOR),
        };
        // There is room for one more sector, so neither this nor the resizing moves the bytes.
        let start = (BEGIN + SECTOR - bytes.as_ptr().addr() % SECTOR) % SECTOR;
        bytes.resize(start + len, 0);
        Buf { bytes, start, home: class.map(|i| (self.clone(), i)) }
    }

    /// A pool for targets whose writes may hold so many bytes in all.
    pub fn with_writes(most: usize) -> Pool {
        let classes = CLASSES.map(|(size, count)| {
            let (put, get) = bounded(count);
            Class { size, put, get }
        });
        let (ahead, writes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Pool(Arc::new(Inner { classes, ahead, writes, writes_max: most }))
    }

    /// Bytes that the writes of one target may hold: half of what those of all targets may hold.
    pub fn writes_of_one(&self) -> usize {
        self.0.writes_max / 2
    }

    fn account(&self, purpose: Purpose) -> (&AtomicUsize, usize) {
        match purpose {
            Purpose::Ahead => (&self.0.ahead, AHEAD_MAX),
            Purpose::Write => (&self.0.writes, self.0.writes_max),
        }
    }

    /// Leave to hold `len` bytes; none if as many are held for the same purpose as may be.
    pub(super) fn lease(&self, purpose: Purpose, len: usize) -> Option<Lease> {
        let (held, most) = self.account(purpose);
        let more = |held: usize| held.checked_add(len).filter(|held| *held <= most);
        held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Lease { pool: self.clone(), purpose, len })
    }

    /// Bytes that are held ahead of readers now: at most [`AHEAD_MAX`].
    pub fn ahead(&self) -> usize {
        self.0.ahead.load(Ordering::Relaxed)
    }

    /// Bytes of writes that are under way now.
    pub fn writes(&self) -> usize {
        self.0.writes.load(Ordering::Relaxed)
    }
}

/// What memory is held for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A reader that may want it soon.
    Ahead,
    /// A write.
    Write,
}

/// Leave to hold so many bytes. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Pool,
    purpose: Purpose,
    len: usize,
}

impl Lease {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.account(self.purpose).0.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// A byte buffer that returns to its pool.
pub struct Buf {
    bytes: Vec<u8>,
    /// Where in `bytes` it begins.
    start: usize,
    home: Option<(Pool, usize)>,
}

impl Buf {
    fn shorten(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }
}

impl From<Vec<u8>> for Buf {
    fn from(bytes: Vec<u8>) -> Buf {
        Buf { bytes, start: 0, home: None }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        if let Some((pool, class)) = self.home.take() {
            let class = &pool.0.classes[class];
            if self.bytes.capacity() <= 2 * class.size {
                // A full pool frees the buffer; that is its bound.
                let _ = class.put.try_send(std::mem::take(&mut self.bytes));
            }
        }
    }
}

impl Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl std::fmt::Debug for Buf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buf({} bytes)", self.len())
    }
}

/// Which buffer the bytes of a read are in.
#[derive(Debug)]
enum Source {
    Own(Buf),
    /// Read ahead, for several reads.
    Shared(Arc<Buf>),
}

/// The bytes that a read returns.
#[derive(Debug)]
pub struct Data {
    source: Source,
    start: usize,
    len: usize,
}

impl Data {
    pub(super) fn empty() -> Data {
        Data::from(Buf::from(Vec::new()))
    }

    pub(super) fn new(buf: Buf, start: usize, len: usize) -> Data {
        debug_assert!(start + len <= buf.len());
        Data { source: Source::Own(buf), start, len }
    }

    /// Bytes `start..start + len` of a buffer that other reads use, too.
    pub(super) fn shared(buf: Arc<Buf>, start: usize, len: usize) -> Data {
        debug_assert!(start + len <= buf.len());
        Data { source: Source::Shared(buf), start, len }
    }

    /// The buffer that the bytes are in.
    pub(super) fn into_shared(self) -> Arc<Buf> {
        match self.source {
            Source::Own(buf) => Arc::new(buf),
            Source::Shared(buf) => buf,
        }
    }
}

impl Deref for Data {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let buf = match &self.source {
            Source::Own(buf) => buf,
            Source::Shared(buf) => buf,
        };
        &buf[self.start..self.start + self.len]
    }
}

impl From<Buf> for Data {
    fn from(buf: Buf) -> Data {
        let len = buf.len();
        Data::new(buf, 0, len)
    }
}

/// The bytes of a write, padded to whole sectors. The padding is filled from the disk before the write leaves.
#[derive(Debug)]
pub struct WriteBuf {
    pub(super) buf: Buf,
    /// Bytes of the first sector that lie before the data.
    pub(super) head: usize,
    /// Bytes of data.
    pub(super) len: usize,
}

impl WriteBuf {
    /// Copies `data`, which will be written at byte `offset` of a file that begins at a sector.
    pub fn copy_from(pool: &Pool, offset: u64, data: &[u8]) -> WriteBuf {
        let mut w = WriteBuf::unfilled(pool, offset, data.len());
        w.buf[w.head..w.head + data.len()].copy_from_slice(data);
        w
    }

    /// Room for `len` bytes, all of which `fill` must write; what it fails with is the error.
    pub fn filled<E>(
        pool: &Pool,
        offset: u64,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<WriteBuf, E> {
        let mut w = WriteBuf::unfilled(pool, offset, len);
        fill(&mut w.buf[w.head..w.head + len]).map(|()| w)
    }

    /// Zeros in place of data.
    pub fn zeros(pool: &Pool, offset: u64, len: usize) -> WriteBuf {
        let mut w = WriteBuf::unfilled(pool, offset, len);
        w.buf[w.head..w.head + len].fill(0);
        w
    }

    fn unfilled(pool: &Pool, offset: u64, len: usize) -> WriteBuf {
        let head = (offset % SECTOR as u64) as usize;
        let buf = pool.take((head + len).next_multiple_of(SECTOR));
        WriteBuf { buf, head, len }
    }

    /// The data.
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.head..self.head + self.len]
    }

    /// Bytes of data.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing to write?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keeps the first `len` bytes of data.
    pub(super) fn cut(&mut self, len: usize) {
        self.len = len;
        self.buf.shorten((self.head + len).next_multiple_of(SECTOR));
    }

    /// Whole sectors that the buffer spans.
    pub(super) fn sectors(&self) -> u32 {
        (self.buf.len() / SECTOR) as u32
    }

    /// Bytes of the last sector that lie behind the data.
    pub(super) fn tail(&self) -> usize {
        self.buf.len() - self.head - self.len
    }

    /// Puts what the disk holds in sector `index` of the span around the data.
    pub(super) fn fill_around(&mut self, index: usize, sector: &[u8]) {
        let base = index * SECTOR;
        for (i, &byte) in sector.iter().enumerate().take(SECTOR) {
            let at = base + i;
            if at < self.head || at >= self.head + self.len {
                self.buf[at] = byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_writes_keep_their_surroundings() {
        let pool = Pool::default();
        let mut w = WriteBuf::copy_from(&pool, 510, &[1, 2, 3, 4]);
        assert_eq!((w.sectors(), w.head, w.tail()), (2, 510, 510));
        w.fill_around(0, &[9; SECTOR]);
        w.fill_around(1, &[8; SECTOR]);
        assert_eq!(&w.buf[508..516], &[9, 9, 1, 2, 3, 4, 8, 8]);
        w.cut(2);
        assert_eq!((w.sectors(), w.tail()), (1, 0));
    }

    #[test]
    fn buffers_come_back_and_have_the_asked_length() {
        let pool = Pool::default();
        let mut b = pool.take(100);
        b.fill(7);
        let at = b.as_ptr();
        drop(b);
        let b = pool.take(4096);
        assert_eq!(b.as_ptr(), at);
        assert_eq!(b.len(), 4096);
        for len in [1, 512, 8 << 10, 9000, 1 << 20, 5 << 20] {
            let b = pool.take(len);
            assert_eq!((b.len(), b.as_ptr().addr() % SECTOR), (len, BEGIN));
        }
    }
}
