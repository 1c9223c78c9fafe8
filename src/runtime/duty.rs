//! The duty to receive on a netlink: its own thread has it, or lends it to a deputy for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// For how long a deputy that has the duty may give no sign of life: long enough that a deputy on its way back is not
/// overtaken, and short beside the shortest time after which a frame is sent again (20 ms).
pub(super) const ABSENCE: Duration = Duration::from_millis(2);

/// What a batch of frames meant to the last target that had frames in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Harvest {
    /// No request of the target ended.
    #[default]
    Nothing,
    /// The batch was one frame, an answer, and the target has nothing left to do.
    LastFrame,
    /// Several frames ended one request, and the target has nothing left to do.
    LastRequest,
    /// Several requests ended, or others are still waiting.
    OneOfMany,
}

/// Which thread has the duty to receive on one netlink.
#[derive(Debug, Default)]
pub(super) struct Duty {
    lent: AtomicBool,
    /// Counts the deputy's signs of life.
    seen: AtomicU64,
    /// Requests come one by one, so that a deputy would not pay.
    one_by_one: AtomicBool,
    wait: Mutex<()>,
    returned: Condvar,
}

impl Duty {
    /// Waits, on the netlink's thread, until the duty is its own.
    pub(super) fn await_return(&self) {
        while self.lent.load(Ordering::SeqCst) {
            let seen = self.seen.load(Ordering::SeqCst);
            let mut wait = self.wait.lock();
            // Asked under the lock, so that a return between here and the wait is not missed.
            let absent = self.lent.load(Ordering::SeqCst)
                && self.returned.wait_for(&mut wait, ABSENCE).timed_out()
                && self.seen.load(Ordering::SeqCst) == seen;
            if absent {
                self.lent.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Takes note of a batch that the netlink's thread has received: several requests at a time are work for a deputy
    /// again.
    pub(super) fn note(&self, harvest: Harvest) {
        if harvest == Harvest::OneOfMany {
            self.one_by_one.store(false, Ordering::Relaxed);
        }
    }

    /// Takes note, on a deputy's thread, that requests come one by one.
    pub(super) fn note_one_by_one(&self) {
        self.one_by_one.store(true, Ordering::Relaxed);
    }

    /// Whether requests come one by one, as far as is known.
    pub(super) fn comes_one_by_one(&self) -> bool {
        self.one_by_one.load(Ordering::Relaxed)
    }

    /// Gives the duty to a deputy, or leaves it there. True if it was the netlink's thread's, which must be woken.
    pub(super) fn borrow(&self) -> bool {
        self.seen.fetch_add(1, Ordering::SeqCst);
        !self.lent.swap(true, Ordering::SeqCst)
    }

    /// Gives the duty back to the netlink's thread.
    pub(super) fn give_back(&self) {
        if self.lent.swap(false, Ordering::SeqCst) {
            drop(self.wait.lock());
            self.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_duty_is_lent_once_and_comes_back() {
        let duty = Duty::default();
        duty.await_return();
        assert!(duty.borrow() && !duty.borrow());
        duty.give_back();
        duty.await_return();
        assert!(duty.borrow());
        // The deputy gives no sign of life any more.
        let start = Instant::now();
        duty.await_return();
        assert!(start.elapsed() >= ABSENCE && !duty.lent.load(Ordering::SeqCst));
    }

    #[test]
    fn a_deputy_that_is_seen_keeps_the_duty_until_it_gives_it_back() {
        let duty = Duty::default();
        duty.borrow();
        std::thread::scope(|scope| {
            // The longest time without a sign of life, measured from before one to after the next: this thread may have
            // to wait for a processor anywhere, from the spawn on.
            let (start, mut before, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
            let back = scope.spawn(|| duty.await_return());
            while start.elapsed() < ABSENCE * 20 {
                let now = Instant::now();
                duty.borrow();
                longest = longest.max(before.elapsed());
                before = now;
            }
            let taken_back = back.is_finished();
            longest = longest.max(before.elapsed());
            // A thread that gets no processor for that long is absent.
            assert!(!taken_back || longest >= ABSENCE, "taken back from a deputy that was seen");
            duty.give_back();
            back.join().unwrap();
        });
    }
}
