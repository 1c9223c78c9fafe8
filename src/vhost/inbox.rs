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
use super::under_way::Place;

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

/// An outcome with the number of its request, which is under way until this is dropped.
pub type Over = (usize, Outcome, Place);

/// The outcomes of one front end's requests.
pub struct Inbox {
    bell: Arc<Bell>,
    state: Mutex<State>,
}

struct State {
    /// None once the front end has gone.
    outcomes: Option<Vec<Over>>,
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
    pub fn put(&self, over: Over) {
        let mut state = self.state.lock();
        let Some(list) = state.outcomes.as_mut() else { return };
        list.push(over);
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
    pub fn take(&self, into: &mut Vec<Over>) {
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
    use crate::vhost::under_way::UnderWay;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn only_a_thread_that_is_going_to_sleep_is_woken_and_only_once() {
        let bell = Arc::new(Bell::new().unwrap());
        let inbox = Inbox::new(bell.clone());
        let under_way = UnderWay::new(bell.clone());
        let put = |number| inbox.put((number, Ok(None), under_way.begin(1)));
        let rung = || {
            let rung = poll(&mut [PollFd::new(bell.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap();
            bell.heard();
            rung > 0
        };
        put(1);
        assert!(!rung() && inbox.has_any() && !inbox.may_sleep(), "it is awake, and must stay so");
        put(2);
        assert!(!rung());
        let mut found = Vec::new();
        inbox.take(&mut found);
        assert_eq!(found.drain(..).map(|(number, ..)| number).collect::<Vec<_>>(), [1, 2]);
        assert!(inbox.may_sleep());
        put(3);
        assert!(rung());
        put(4);
        assert!(!rung(), "it was woken already");
        inbox.take(&mut found);
        put(5);
        assert!(!rung(), "it is awake");
        inbox.close();
        put(6);
        assert!(!inbox.has_any());
    }
}
