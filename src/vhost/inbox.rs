//! Outcomes on their way to the thread of an export.
//!
//! Whoever completes a request puts its outcome here and rings, if the thread has said that it is going to sleep: so a
//! batch of answers wakes the thread once, and what the thread completes itself rings nobody.

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
    state: Mutex<State>,
}

struct State {
    /// None once the front end has gone.
    outcomes: Option<Vec<(usize, Outcome)>>,
    /// The thread wants to be woken.
    asleep: bool,
}

impl Inbox {
    /// An empty one, of a thread that is awake.
    pub fn new(bell: Arc<Bell>) -> Arc<Self> {
        let state = State { outcomes: Some(Vec::new()), asleep: false };
        Arc::new(Self { bell, state: Mutex::new(state) })
    }

    /// The outcome of a request. It is dropped if the front end has gone.
    pub fn put(&self, number: usize, outcome: Outcome) {
        let mut state = self.state.lock();
        let Some(list) = state.outcomes.as_mut() else { return };
        list.push((number, outcome));
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.bell.ring();
        }
    }

    /// Whether something has come.
    pub fn has_any(&self) -> bool {
        self.state.lock().outcomes.as_ref().is_some_and(|list| !list.is_empty())
    }

    /// The thread is going to sleep, and is woken by what comes from now on. False if something has come already.
    pub fn may_sleep(&self) -> bool {
        let mut state = self.state.lock();
        let empty = state.outcomes.as_ref().is_none_or(Vec::is_empty);
        state.asleep = empty;
        empty
    }

    /// All that has come, for a thread that is awake. `into` must be empty; its memory is used for what comes next.
    pub fn take(&self, into: &mut Vec<(usize, Outcome)>) {
        let mut state = self.state.lock();
        state.asleep = false;
        if let Some(list) = state.outcomes.as_mut() {
            std::mem::swap(list, into);
        }
    }

    /// The front end has gone: what comes later is dropped.
    pub fn close(&self) {
        let rest = self.state.lock().outcomes.take();
        drop(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn only_a_thread_that_is_going_to_sleep_is_woken_and_only_once() {
        let bell = Arc::new(Bell::new().unwrap());
        let inbox = Inbox::new(bell.clone());
        let rung = || {
            let rung = poll(&mut [PollFd::new(bell.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap();
            bell.heard();
            rung > 0
        };
        inbox.put(1, Ok(None));
        assert!(!rung() && inbox.has_any() && !inbox.may_sleep(), "it is awake, and must stay so");
        inbox.put(2, Ok(None));
        assert!(!rung());
        let mut found = Vec::new();
        inbox.take(&mut found);
        assert_eq!(found.drain(..).map(|(number, _)| number).collect::<Vec<_>>(), [1, 2]);
        assert!(inbox.may_sleep());
        inbox.put(3, Ok(None));
        assert!(rung());
        inbox.put(4, Ok(None));
        assert!(!rung(), "it was woken already");
        inbox.take(&mut found);
        inbox.put(5, Ok(None));
        assert!(!rung(), "it is awake");
        inbox.close();
        inbox.put(6, Ok(None));
        assert!(!inbox.has_any());
    }
}
