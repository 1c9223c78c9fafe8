//! A thread that has queues of its own to look at, and receives beside them.
//!
//! Where such a thread takes the answers to its own requests, none of them has to wake another thread on its way. It
//! borrows the duty to receive (`duty`) as the session's thread does (`deputy`), and gives it back when nothing comes
//! for [`PATIENCE`], when no request of its own is under way, and when its frames leave by another netlink. It looks at
//! its queues between any two batches; where requests come one at a time it also does so for a moment before it sleeps
//! (`linger`). If it stays away for longer than `ABSENCE`, the netlink's thread takes the duty back.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;

use super::Runtime;
use super::deputy::{PATIENCE, Post};
use super::duty::Harvest;
use super::linger::{LINGER, Linger};
use super::netlink::Netlink;
use crate::link::{Batch, Polled, Ready};

/// How often the processor is offered to others before the thread sleeps. Whoever was woken by what it did last, the
/// guest or the target, may wait for this very processor; when it has run there is something to do.
const YIELDS: u32 = 4;

/// What there is to do when [`Runtime::receive_beside`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The thread's queues have something.
    Work,
    /// The descriptor is readable.
    Readable,
    /// Nothing: the thread may sleep.
    Nothing,
}

/// What a thread needs to receive beside its queues.
pub struct Beside(Mutex<State>);

struct State {
    batch: Batch,
    strangers: Vec<usize>,
    post: Post,
    linger: Linger,
    /// What the last batch meant.
    last: Harvest,
}

impl Default for Beside {
    fn default() -> Self {
        Self(Mutex::new(State {
            batch: Batch::new(0),
            strangers: Vec::new(),
            post: Post::default(),
            linger: Linger::default(),
            last: Harvest::Nothing,
        }))
    }
}

/// Keeps the processor busy until there is work or a frame, for a moment.
fn spin(net: &Netlink, look: &mut dyn FnMut(bool) -> bool) -> Polled {
    let start = Instant::now();
    loop {
        let found = look(false) || net.link.has_frames();
        let took = start.elapsed();
        if took >= LINGER * 2 {
            // One look does not take so long: another thread had the processor.
            return Polled::Preempted;
        } else if found {
            return Polled::Ready;
        } else if took >= LINGER {
            return Polled::TimedOut;
        }
        std::hint::spin_loop();
    }
}

impl Runtime {
    /// Receives on the netlink that the thread sent on last. `look` says whether its queues have something; with true,
    /// the thread is about to sleep, and whatever comes into them later must make `readable` so. `busy`: requests of
    /// its own are under way.
    pub fn receive_beside(
        self: &Arc<Self>,
        own: &Beside,
        readable: BorrowedFd<'_>,
        busy: bool,
        look: &mut dyn FnMut(bool) -> bool,
    ) -> Found {
        let Some(mut own) = own.0.try_lock() else { return Found::Nothing };
        let own = &mut *own;
        let Some(net) = own.post.assignment(self) else { return Found::Nothing };
        let (mut promised, mut yields) = (false, 0);
        let found = loop {
            if net.stop.load(Ordering::SeqCst) {
                break Found::Nothing;
            }
            if net.duty.borrow() {
                net.link.wake();
            }
            if look(false) {
                // The duty stays lent: the thread is back soon, or its absence is noticed.
                return Found::Work;
            }
            let received = self.receive(&net, &mut own.batch, &mut own.strangers);
            let Ok(received) = received.inspect_err(|error| self.receive_failed(&net, error)) else {
                own.post.go_away();
                break Found::Nothing;
            };
            if let Some(harvest) = received {
                (promised, yields) = (false, 0);
                own.last = harvest;
                continue;
            }
            if promised {
                // The netlink's thread is back and took them.
                break Found::Nothing;
            }
            if own.linger.should_poll(own.last == Harvest::LastFrame) {
                let polled = spin(&net, look);
                own.linger.learn(polled);
                if polled == Polled::Ready {
                    continue;
                }
            }
            if busy && yields < YIELDS {
                yields += 1;
                std::thread::yield_now();
                continue;
            }
            if look(true) {
                return Found::Work;
            }
            if !busy {
                break Found::Nothing;
            }
            match net.link.wait_beside(readable, PATIENCE) {
                Ready { other: true, .. } => return Found::Readable,
                Ready { frames: true, .. } => promised = true,
                _ => break Found::Nothing,
            }
        };
        own.post.leave();
        found
    }
}
