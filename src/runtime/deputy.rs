//! Who receives on a netlink: its own thread, or for a while the thread that sends on it.
//!
//! Where processors are few, a thread that hands requests to the wire and another that takes the answers get into each
//! other's way: each answer wakes one while the other still has work, and the scheduler moves both about. So the thread that
//! takes requests from the kernel may borrow the duty to receive: before it goes back for the next request it takes answers,
//! until there is a next request. The netlink's thread sleeps meanwhile.
//!
//! The duty is borrowed, not owned. A deputy gives it back where nothing comes for [`PATIENCE`], where requests come one by
//! one (the netlink's thread can look for their answers, see `linger`), where it has something else to do, or where its frames leave by
//! another netlink. And the netlink's thread takes it back by itself from a deputy that was not seen for
//! [`ABSENCE`] (a deputy whose next request turned out to be none is one): whatever becomes of that one, an answer waits no
//! longer than twice that.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Runtime;
use super::netlink::{Harvest, Netlink};
use crate::engine::NetId;
use crate::link::{Batch, Ready, is_readable};

/// How long a deputy waits for an answer: many times what a target takes whose data is in memory. Waiting for a disk is for
/// the netlink's thread.
const PATIENCE: Duration = Duration::from_millis(1);

/// How long the netlink's thread lets nobody receive: long enough that a deputy on its way back is not overtaken, and short
/// beside the shortest time after which a frame is sent again (20 ms).
const ABSENCE: Duration = Duration::from_millis(2);

/// Requests that a deputy takes in a row before it looks for answers that are there as well, if it was quick. Of 1, 4 and 16 the last was best: 64 KiB reads, 16 at a time, 1.0, 1.1 and 1.3 GB/s.
const REQUESTS_IN_A_ROW: u32 = 16;

/// Requests in a row, each the only one of its target, after which they are taken to come one at a time. A deputy would wake up for
/// each frame of a large one then, where the netlink's thread takes several at once.
const ONE_BY_ONE: u32 = 4;

/// Requests that a deputy stays away for whose frames left by another netlink than those before: where two are used together,
/// each has its own thread.
const AWAY: u32 = 64;

thread_local! {
    /// The netlink that this thread sent on last, since it was asked.
    static SENT: Cell<Option<NetId>> = const { Cell::new(None) };
}

/// This thread has sent on that netlink.
pub(super) fn note_sent(net: NetId) {
    SENT.set(Some(net));
}

/// Of one netlink: who has the duty to receive.
#[derive(Debug, Default)]
pub(super) struct Duty {
    lent: AtomicBool,
    /// Counts a deputy's signs of life.
    seen: AtomicU64,
    /// Requests come one by one: not for deputies.
    one_by_one: AtomicBool,
    wait: Mutex<()>,
    returned: Condvar,
}

impl Duty {
    /// The netlink's thread: returns at once where the duty is its own, and else when it is again.
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

    /// What the netlink's thread has received.
    pub(super) fn note(&self, harvest: Harvest) {
        if harvest.last_one == Some(false) {
            self.one_by_one.store(false, Ordering::Relaxed);
        }
    }

    /// A deputy takes the duty, or keeps it. True if it was the thread's, which must hear of it.
    fn borrow(&self) -> bool {
        self.seen.fetch_add(1, Ordering::SeqCst);
        !self.lent.swap(true, Ordering::SeqCst)
    }

    pub(super) fn give_back(&self) {
        if self.lent.swap(false, Ordering::SeqCst) {
            drop(self.wait.lock());
            self.returned.notify_one();
        }
    }
}

/// Somebody who receives between two requests. Belongs to one thread.
pub struct Deputy {
    /// Readable when there is a request.
    requests: OwnedFd,
    batch: Batch,
    strangers: Vec<usize>,
    /// Whose duty it has, or had last.
    net: Option<Arc<Netlink>>,
    /// Requests in a row of which each was the only one.
    single: u32,
    /// Requests since answers were taken, and when that was.
    in_a_row: u32,
    received_at: Instant,
    /// Requests still to stay away for.
    away: u32,
}

impl Deputy {
    /// A deputy whose next request is there when `requests` is readable.
    pub fn new(requests: OwnedFd) -> Deputy {
        Deputy {
            requests,
            batch: Batch::new(0),
            strangers: Vec::new(),
            net: None,
            single: 0,
            in_a_row: 0,
            received_at: Instant::now(),
            away: 0,
        }
    }

    /// Something else is to be done first, however long it takes.
    pub fn leave(&mut self) {
        if let Some(net) = self.net.take() {
            net.duty.give_back();
        }
    }

    /// Is the next request there?
    fn has_request(&self) -> bool {
        is_readable(self.requests.as_fd())
    }

    /// The netlink whose duty to take now.
    fn assignment(&mut self, runtime: &Runtime) -> Option<Arc<Netlink>> {
        let sent = SENT.take();
        let same = match (&self.net, sent) {
            (Some(net), Some(sent)) => net.id == sent,
            _ => true,
        };
        if !same {
            self.away = AWAY;
        }
        if self.away > 0 {
            self.away -= 1;
            self.leave();
            return None;
        }
        if self.net.is_none() {
            self.single = 0;
            self.net = runtime.nets.get(sent?);
        }
        self.net.clone()
    }
}

impl std::fmt::Debug for Deputy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deputy").field("net", &self.net.as_ref().map(|net| net.id)).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Receives in the place of a netlink's thread until the deputy has a request, or nothing is to be received. After
    /// each request that it has passed on.
    pub fn attend(self: &Arc<Self>, deputy: &mut Deputy) {
        let Some(net) = deputy.assignment(self) else { return };
        if net.duty.one_by_one.load(Ordering::Relaxed) {
            deputy.leave();
            return;
        }
        deputy.in_a_row += 1;
        // Somebody said that there are frames.
        let mut promised = false;
        loop {
            if net.stop.load(Ordering::SeqCst) {
                break;
            }
            if net.duty.borrow() {
                net.link.wake();
            }
            let patient = deputy.in_a_row < REQUESTS_IN_A_ROW && deputy.received_at.elapsed() < ABSENCE;
            if patient && deputy.has_request() {
                // The duty stays lent: the deputy is back soon, or its absence is noticed.
                return;
            }
            if let Err(error) = net.link.recv_now(&mut deputy.batch) {
                self.receive_failed(&net, &error);
                deputy.away = AWAY;
                break;
            }
            if deputy.batch.is_empty() {
                if promised {
                    // Somebody else was quicker: the netlink's thread is back.
                    break;
                }
                match net.link.wait_beside(deputy.requests.as_fd(), PATIENCE) {
                    Ready { frames: true, .. } => promised = true,
                    Ready { other: true, .. } => return,
                    _ => break,
                }
                continue;
            }
            promised = false;
            deputy.in_a_row = 0;
            deputy.received_at = Instant::now();
            let harvest = self.receive(&net, &deputy.batch, &mut deputy.strangers);
            deputy.single = match harvest.last_one {
                Some(true) => deputy.single + 1,
                Some(false) => 0,
                None => deputy.single,
            };
            if deputy.single >= ONE_BY_ONE {
                deputy.single = 0;
                net.duty.one_by_one.store(true, Ordering::Relaxed);
                break;
            }
        }
        deputy.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::loopback::pair;
    use crate::runtime::TARGETS_MAX;

    #[test]
    fn the_duty_is_lent_once_and_comes_back() {
        let duty = Duty::default();
        duty.await_return();
        assert!(duty.borrow() && !duty.borrow());
        duty.give_back();
        duty.await_return();
        assert!(duty.borrow());
        // Nobody is seen any more.
        let start = Instant::now();
        duty.await_return();
        assert!(start.elapsed() >= ABSENCE && !duty.lent.load(Ordering::SeqCst));
    }

    #[test]
    fn a_deputy_that_is_seen_keeps_the_duty_until_it_gives_it_back() {
        let duty = Duty::default();
        duty.borrow();
        std::thread::scope(|scope| {
            let back = scope.spawn(|| duty.await_return());
            let (start, mut seen, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
            while start.elapsed() < ABSENCE * 20 {
                duty.borrow();
                longest = longest.max(seen.elapsed());
                seen = Instant::now();
            }
            // This thread may have waited for a processor when the time was over.
            longest = longest.max(seen.elapsed());
            // A thread that gets no processor for that long is absent.
            assert!(!back.is_finished() || longest >= ABSENCE, "taken back from one who was seen");
            duty.give_back();
            back.join().unwrap();
        });
    }

    #[test]
    fn where_frames_leave_by_two_netlinks_in_turn_each_keeps_its_duty() {
        let runtime = Runtime::new(TARGETS_MAX);
        let ends = [pair("a", "a-far", 1500), pair("b", "b-far", 1500)];
        let nets: Vec<_> = ends.iter().map(|(near, _)| runtime.attach(near.clone()).unwrap()).collect();
        let (from, _to) = nix::unistd::pipe().unwrap();
        let mut deputy = Deputy::new(from);
        let mut sends = |net| {
            note_sent(net);
            deputy.assignment(&runtime).map(|net| net.id)
        };
        assert_eq!(sends(nets[0]), Some(nets[0]));
        assert_eq!(sends(nets[0]), Some(nets[0]));
        for _ in 0..AWAY {
            assert_eq!(sends(nets[1]), None);
        }
        assert_eq!(sends(nets[1]), Some(nets[1]));
        // Nothing was sent: what waits was sent before.
        assert_eq!(deputy.assignment(&runtime).map(|net| net.id), Some(nets[1]));
        runtime.stop();
    }
}
