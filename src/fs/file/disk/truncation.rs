//! Truncation of a disk: a mark, and zeros before data that is written past the mark.
//!
//! A disk cannot be made shorter, so `cp` of a sparse image, which seeks over its holes, would find the old bytes in
//! them. An open file that truncated carries a mark, the end that the file would have: a write or truncation past it
//! first zeroes the gap. Meanwhile other operations through the same open file wait here in order, since the zeros must
//! not land on data that came after them. Open files that never truncated pay one atomic load.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// An operation that is tried again once the zeros are written.
pub type Job = Box<dyn FnOnce() + Send>;

/// What the caller does now.
#[derive(Debug, Eq, PartialEq)]
pub enum Admit {
    /// It goes on.
    Go,
    /// It zeroes `[from, to)`, reports by [`Truncation::zeroed`], and goes on if that went well.
    Zero {
        /// First byte.
        from: u64,
        /// One past the last.
        to: u64,
    },
    /// Its job waits for zeros that are being written.
    Wait,
}

#[derive(Default)]
struct Inner {
    mark: Option<u64>,
    /// Zeros are being written.
    busy: bool,
    waiting: VecDeque<Job>,
}

/// The mark of one open file.
#[derive(Default)]
pub struct Truncation {
    /// A mark was set once: until then there is nothing to look up.
    marked: AtomicBool,
    inner: Mutex<Inner>,
}

impl Truncation {
    /// A write of `[offset, end)`, or another operation that must stay in order (`offset` and `end` 0). `wait` makes
    /// the job that is run later if the operation has to wait; the job must ask again.
    pub fn write(&self, offset: u64, end: u64, wait: impl FnOnce() -> Job) -> Admit {
        if !self.marked.load(Ordering::Acquire) {
            return Admit::Go;
        }
        let mut inner = self.inner.lock();
        if inner.busy {
            inner.waiting.push_back(wait());
            return Admit::Wait;
        }
        let Some(mark) = inner.mark else { return Admit::Go };
        if offset > mark {
            inner.busy = true;
            return Admit::Zero { from: mark, to: offset };
        }
        inner.mark = Some(mark.max(end));
        Admit::Go
    }

    /// The file is to end at `size`: the mark goes there, after zeros if it moves up.
    pub fn truncate(&self, size: u64, wait: impl FnOnce() -> Job) -> Admit {
        let mut inner = self.inner.lock();
        if inner.busy {
            inner.waiting.push_back(wait());
            return Admit::Wait;
        }
        self.marked.store(true, Ordering::Release);
        match inner.mark {
            Some(mark) if size > mark => {
                inner.busy = true;
                Admit::Zero { from: mark, to: size }
            }
            _ => {
                inner.mark = Some(size);
                Admit::Go
            }
        }
    }

    /// The zeros are written, or failed. The mark goes to `mark`: the end of the caller's own write, or as far as the
    /// zeros came. Returns the jobs that waited, to be run in order with nothing locked, after the caller's own write
    /// was submitted.
    #[must_use]
    pub fn zeroed(&self, mark: u64) -> VecDeque<Job> {
        let mut inner = self.inner.lock();
        inner.busy = false;
        inner.mark = inner.mark.map(|old| old.max(mark));
        std::mem::take(&mut inner.waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn never() -> Job {
        panic!("nothing has to wait")
    }

    #[test]
    fn a_handle_that_never_truncated_goes_on() {
        let t = Truncation::default();
        assert_eq!(t.write(1 << 40, (1 << 40) + 1, never), Admit::Go);
    }

    #[test]
    fn cp_of_a_sparse_image() {
        let t = Truncation::default();
        assert_eq!(t.truncate(0, never), Admit::Go);
        assert_eq!(t.write(0, 100, never), Admit::Go);
        assert_eq!(t.write(100, 200, never), Admit::Go);
        assert_eq!(t.write(50, 60, never), Admit::Go, "below the mark");
        assert_eq!(t.write(1000, 1100, never), Admit::Zero { from: 200, to: 1000 });
        assert!(t.zeroed(1000).is_empty());
        assert_eq!(t.write(1000, 1100, never), Admit::Go);
        assert_eq!(t.truncate(5000, never), Admit::Zero { from: 1100, to: 5000 }, "the last hole");
        assert!(t.zeroed(5000).is_empty());
        assert_eq!(t.write(5000, 5001, never), Admit::Go);
    }

    #[test]
    fn truncating_down_moves_the_mark_down() {
        let t = Truncation::default();
        assert_eq!(t.truncate(4096, never), Admit::Go);
        assert_eq!(t.write(4096, 8192, never), Admit::Go);
        assert_eq!(t.truncate(512, never), Admit::Go);
        assert_eq!(t.write(1024, 1536, never), Admit::Zero { from: 512, to: 1024 });
    }

    #[test]
    fn zeros_that_failed_are_written_again() {
        let t = Truncation::default();
        assert_eq!(t.truncate(0, never), Admit::Go);
        assert_eq!(t.write(1000, 1001, never), Admit::Zero { from: 0, to: 1000 });
        assert!(t.zeroed(512).is_empty());
        assert_eq!(t.write(1000, 1001, never), Admit::Zero { from: 512, to: 1000 });
    }

    #[test]
    fn what_comes_meanwhile_waits_in_order() {
        let t = Truncation::default();
        let ran = Arc::new(AtomicUsize::new(0));
        assert_eq!(t.truncate(0, never), Admit::Go);
        assert_eq!(t.write(1000, 1001, never), Admit::Zero { from: 0, to: 1000 });
        for i in 0..3 {
            let ran = ran.clone();
            let job = move || -> Job { Box::new(move || assert_eq!(ran.fetch_add(1, Ordering::SeqCst), i)) };
            let got = if i == 1 { t.truncate(7, job) } else { t.write(500, 600, job) };
            assert_eq!(got, Admit::Wait);
        }
        let waiting = t.zeroed(1000);
        assert_eq!(waiting.len(), 3);
        waiting.into_iter().for_each(|job| job());
        assert_eq!(ran.load(Ordering::SeqCst), 3);
    }
}
