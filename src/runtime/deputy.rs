//! The deputy: the thread that takes requests from the kernel receives in place of a netlink's thread for a while.
//!
//! Where processors are few, a thread that hands requests to the wire and another that takes the answers get into each
//! other's way: each answer wakes one while the other still has work, and the scheduler moves both about. So the thread
//! that takes requests from the kernel may borrow the duty to receive: before it goes back for the next request it takes
//! answers, until there is a next request. The netlink's thread sleeps meanwhile.
//!
//! The duty (`duty`) is borrowed, not owned. A deputy gives it back when nothing comes for [`PATIENCE`], when requests
//! come one by one (then the netlink's thread polls for their answers, see `linger`), when it has other work to do, and
//! when its frames leave by another netlink. The netlink's thread takes the duty back by itself from a deputy that gave
//! no sign of life for [`ABSENCE`]: whatever becomes of that deputy, an answer waits no longer than twice that time.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Runtime;
use super::duty::{ABSENCE, Ended};
use super::netlink::Netlink;
use crate::engine::NetId;
use crate::link::{Batch, Ready, is_readable};

/// How long a deputy waits for an answer: many times what a target takes whose data is in memory. The netlink's thread
/// waits for slower ones.
const PATIENCE: Duration = Duration::from_millis(1);

/// Requests that a deputy takes in a row, if it is quick, before it takes answers that are there as well. Of 1, 4 and 16
/// the last was the fastest.
const REQUESTS_IN_A_ROW: u32 = 16;

/// Requests in a row, each the only one of its target, after which they are taken to come one at a time. A deputy would
/// then wake up for each frame of a large request, while the netlink's thread takes several frames at once.
const ONE_BY_ONE: u32 = 4;

/// For so many requests a deputy receives nothing after frames left by another netlink than the one before: netlinks that
/// are used together are each served by their own thread.
const AWAY: u32 = 64;

thread_local! {
    /// The netlink that this thread sent on last, since it was asked.
    static SENT: Cell<Option<NetId>> = const { Cell::new(None) };
}

/// This thread has sent on that netlink.
pub(super) fn note_sent(net: NetId) {
    SENT.set(Some(net));
}

/// What a thread needs to receive between two requests. It belongs to one thread.
pub struct Deputy {
    /// Readable when the kernel has a request.
    requests: OwnedFd,
    batch: Batch,
    strangers: Vec<usize>,
    /// The netlink whose duty this deputy has, or had last.
    net: Option<Arc<Netlink>>,
    /// Requests in a row, each of which was the only one of its target.
    single: u32,
    /// Requests since answers were taken, and when they were taken.
    in_a_row: u32,
    received_at: Instant,
    /// Requests after which nothing is received yet: see [`AWAY`].
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

    /// Gives the duty back, because the thread has other work to do, however long that takes.
    pub fn leave(&mut self) {
        if let Some(net) = self.net.take() {
            net.duty.give_back();
        }
    }

    /// Whether the next request is there.
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
    /// Receives in place of a netlink's thread until the deputy has a request, or nothing is to be received. A session
    /// calls this after each request that it has passed on.
    pub fn attend(self: &Arc<Self>, deputy: &mut Deputy) {
        let Some(net) = deputy.assignment(self) else { return };
        if net.duty.comes_one_by_one() {
            deputy.leave();
            return;
        }
        deputy.in_a_row += 1;
        // The link said that there are frames.
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
                    // The netlink's thread is back and took them.
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
            deputy.single = match harvest.ended {
                Ended::Single => deputy.single + 1,
                Ended::OfMany => 0,
                Ended::Nothing => deputy.single,
            };
            if deputy.single >= ONE_BY_ONE {
                deputy.single = 0;
                net.duty.note_one_by_one();
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
