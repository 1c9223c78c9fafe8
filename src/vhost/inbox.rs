//! Outcomes on their way to the thread of an export.
//!
//! Whoever completes a request puts its outcome here and rings, unless the bell was rung and not heard yet: so a batch
//! of answers wakes the thread once.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;

use super::Outcome;

/// Wakes a thread that waits for a descriptor.
pub struct Bell(EventFd);

impl Bell {
    /// A bell that has not been rung.
    pub fn new() -> nix::Result<Self> {
        Ok(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    /// Wakes the thread, now or when it next waits.
    pub fn ring(&self) {
        // It can only fail where it was rung 2^64 - 1 times.
        let _ = self.0.write(1);
    }

    /// The thread is awake.
    pub fn heard(&self) {
        match self.0.read() {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(error) => log::debug!("a bell: {error}"),
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What others want of the thread of an export. The bell rings for each.
pub struct Orders {
    /// Wakes the thread.
    pub bell: Arc<Bell>,
    stopping: AtomicBool,
    resized: AtomicBool,
}

impl Orders {
    /// Nothing is wanted.
    pub fn new() -> nix::Result<Arc<Self>> {
        let (stopping, resized) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Arc::new(Self { bell: Arc::new(Bell::new()?), stopping, resized }))
    }

    /// The export is to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Whether it is to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The disk may have another size.
    pub fn resized(&self) {
        self.resized.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Whether it may since this was asked last.
    pub fn was_resized(&self) -> bool {
        self.resized.load(Ordering::Acquire) && self.resized.swap(false, Ordering::AcqRel)
    }
}

/// The outcomes of one front end's requests, each with the request's number.
pub struct Inbox {
    bell: Arc<Bell>,
    /// None once the front end has gone.
    outcomes: Mutex<Option<Vec<(usize, Outcome)>>>,
}

impl Inbox {
    /// An empty one.
    pub fn new(bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self { bell, outcomes: Mutex::new(Some(Vec::new())) })
    }

    /// The outcome of a request. It is dropped if the front end has gone.
    pub fn put(&self, number: usize, outcome: Outcome) {
        let mut outcomes = self.outcomes.lock();
        let Some(list) = outcomes.as_mut() else { return };
        list.push((number, outcome));
        let first = list.len() == 1;
        drop(outcomes);
        if first {
            self.bell.ring();
        }
    }

    /// All that has come. `into` must be empty; its memory is used for what comes next.
    pub fn take(&self, into: &mut Vec<(usize, Outcome)>) {
        if let Some(list) = self.outcomes.lock().as_mut() {
            std::mem::swap(list, into);
        }
    }

    /// The front end has gone: what comes later is dropped.
    pub fn close(&self) {
        let rest = self.outcomes.lock().take();
        drop(rest);
    }
}
