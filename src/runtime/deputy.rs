//! The deputy: the thread that takes requests from the kernel receives in place of a netlink's thread for a while.
//!
//! Where processors are few, a thread that hands requests to the wire and another one that takes the answers get into
//! each other's way: each answer wakes one while the other still has work, and the scheduler moves both about. So the
//! thread that takes requests from the kernel may borrow the duty to receive: before it goes back for the next request
//! it takes answers, until there is a next request. The netlink's thread sleeps meanwhile.
//!
//! The duty (`duty`) is borrowed, not owned. A deputy gives it back when nothing comes for [`PATIENCE`], when requests
//! come one by one (then the netlink's thread polls for their answers, see `linger`), and when its frames leave by
//! another netlink. Requests that ask no target know nothing of all this. While the deputy is busy with one, or waits
//! in the kernel after it, or is held up for seconds, the netlink's thread sees no sign of life for [`ABSENCE`] and
//! takes the duty back: an answer waits no longer than twice that time.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Runtime;
use super::duty::{ABSENCE, Harvest};
use super::netlink::Netlink;
use crate::bug;
use crate::engine::NetId;
use crate::link::{Batch, Ready, is_readable};

/// How long a deputy waits for an answer: many times as long as a target takes whose data is in memory. For slower
/// targets the netlink's thread waits.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);

/// Requests that a deputy takes in a row, if it is quick, before it takes answers that are there as well.
const REQUESTS_IN_A_ROW: u32 = 16;

/// Requests in a row, each the only one of its target, after which they are taken to come one at a time. A deputy
/// would then wake up for each frame of a large request, while the netlink's thread takes several frames at once.
const ONE_BY_ONE: u32 = 4;

/// For so many requests a deputy receives nothing after frames left by another netlink than the one before: netlinks
/// that are used together are each served by their own thread.
const AWAY: u32 = 64;

thread_local! {
    /// The netlink that this thread sent on last, since it was asked.
    static SENT: Cell<Option<NetId>> = const { Cell::new(None) };
}

/// This thread has sent on that netlink.
pub(super) fn note_sent(net: NetId) {
    SENT.set(Some(net));
}

/// What a thread needs to receive between two requests.
pub struct Deputy(Mutex<State>);

/// The netlink whose duty a thread has.
#[derive(Default)]
pub(super) struct Post {
    /// Or had last. It does not keep the interface open.
    net: Weak<Netlink>,
    /// Requests after which nothing is received yet: see [`AWAY`].
    away: u32,
}

struct State {
    /// Readable when the kernel has a request.
    requests: OwnedFd,
    batch: Batch,
    strangers: Vec<usize>,
    post: Post,
    /// Requests in a row, each of which was the only one of its target.
    single: u32,
    /// Requests since answers were taken, and when they were taken.
    in_a_row: u32,
    received_at: Instant,
}

impl Deputy {
    /// A deputy whose next request is there when `requests` is readable. It is for one thread: another one that calls
    /// [`Runtime::attend`] at the same time does nothing there.
    pub fn new(requests: OwnedFd) -> Deputy {
        Deputy(Mutex::new(State {
            requests,
            batch: Batch::new(0),
            strangers: Vec::new(),
            post: Post::default(),
            single: 0,
            in_a_row: 0,
            received_at: Instant::now(),
        }))
    }
}

impl std::fmt::Debug for Deputy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deputy").finish_non_exhaustive()
    }
}

impl State {
    /// Whether the next request is there.
    fn has_request(&self) -> bool {
        is_readable(self.requests.as_fd())
    }
}

impl Post {
    /// Gives the duty back.
    pub(super) fn leave(&mut self) {
        if let Some(net) = std::mem::take(&mut self.net).upgrade() {
            net.duty.give_back();
        }
    }

    /// Takes no duty for a while.
    pub(super) fn go_away(&mut self) {
        self.away = AWAY;
    }

    /// The netlink whose duty to take now: the one that this thread sent on last.
    pub(super) fn assignment(&mut self, runtime: &Runtime) -> Option<Arc<Netlink>> {
        let sent = SENT.take();
        let net = self.net.upgrade();
        if let (Some(net), Some(sent)) = (&net, sent)
            && net.id != sent
        {
            self.away = AWAY;
        }
        if self.away > 0 {
            self.away -= 1;
            self.leave();
            return None;
        }
        if net.is_some() {
            return net;
        }
        let net = runtime.nets.get(sent?)?;
        self.net = Arc::downgrade(&net);
        Some(net)
    }
}

impl Runtime {
    /// Receives in place of a netlink's thread until the deputy has a request, or nothing is to be received. A session
    /// with one thread calls this after each request that may have asked a target.
    pub fn attend(self: &Arc<Self>, deputy: &Deputy) {
        bug::here("deputy");
        let Some(mut deputy) = deputy.0.try_lock() else { return };
        let deputy = &mut *deputy;
        let had = deputy.post.net.strong_count() > 0;
        let Some(net) = deputy.post.assignment(self) else { return };
        if !had {
            deputy.single = 0;
        }
        if net.duty.comes_one_by_one() {
            deputy.post.leave();
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
            let received = self.receive(&net, &mut deputy.batch, &mut deputy.strangers);
            let Ok(received) = received.inspect_err(|error| self.receive_failed(&net, error)) else {
                deputy.post.go_away();
                break;
            };
            let Some(harvest) = received else {
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
            };
            promised = false;
            deputy.in_a_row = 0;
            deputy.received_at = Instant::now();
            deputy.single = match harvest {
                Harvest::LastFrame | Harvest::LastRequest => deputy.single + 1,
                Harvest::OneOfMany => 0,
                Harvest::Nothing => deputy.single,
            };
            if deputy.single >= ONE_BY_ONE {
                deputy.single = 0;
                net.duty.note_one_by_one();
                break;
            }
        }
        deputy.post.leave();
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
        let deputy = Deputy::new(from);
        let take = || deputy.0.lock().post.assignment(&runtime).map(|net| net.id);
        let sends = |net| {
            note_sent(net);
            take()
        };
        assert_eq!(sends(nets[0]), Some(nets[0]));
        assert_eq!(sends(nets[0]), Some(nets[0]));
        for _ in 0..AWAY {
            assert_eq!(sends(nets[1]), None);
        }
        assert_eq!(sends(nets[1]), Some(nets[1]));
        // Nothing was sent: what waits was sent before.
        assert_eq!(take(), Some(nets[1]));
        runtime.stop();
    }
}
