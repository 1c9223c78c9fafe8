//! Requests whose frames leave together: one system call for a batch of them, where a thread has several to make.

use std::cell::Cell;
use std::sync::Arc;

use super::{Runtime, Unit};
use crate::engine::Transmit;

thread_local! {
    /// What this thread holds back, and how long the machine had slept when the first of it was made.
    static HELD: Cell<Option<(Vec<Transmit>, Option<u64>)>> = const { Cell::new(None) };
    /// Kept for its capacity.
    static SPARE: Cell<Vec<Transmit>> = const { Cell::new(Vec::new()) };
}

impl Runtime {
    /// Calls `work`, and sends what it gave to targets afterwards. It must not wait for anything.
    pub fn together<T>(&self, work: impl FnOnce() -> T) -> T {
        let held = HELD.take();
        if held.is_some() {
            HELD.set(held);
            return work();
        }
        HELD.set(Some((SPARE.take(), None)));
        let result = work();
        if let Some((mut frames, slept)) = HELD.take() {
            if slept.is_some_and(|slept| self.clock.reading().1 != slept) {
                // They must not leave before IDENTIFY, and count as lost on the wire.
                frames.clear();
            }
            self.send(&mut frames);
            SPARE.set(frames);
        }
        result
    }

    /// Holds frames of a target back, if that is what the thread does now.
    pub(super) fn hold(&self, whom: Option<(&Arc<Unit>, u64)>, frames: &mut Vec<Transmit>) -> bool {
        let Some((mut held, since)) = HELD.take() else { return false };
        let holds = whom.is_some();
        if holds {
            held.append(frames);
        }
        HELD.set(Some((held, since.or(whom.map(|(_, slept)| slept)))));
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{birth, mac};
    use super::*;
    use crate::engine::Found;
    use crate::link::loopback::pair;
    use crate::link::{Batch, Link};
    use crate::wire::ETHERNET;

    #[test]
    fn frames_leave_when_the_work_is_done() {
        let runtime = Runtime::new(1);
        let (near, far) = pair("near", "far", 1500);
        let net = runtime.attach(near).unwrap();
        let birth = birth(net, 1500);
        let addr = birth.addr;
        runtime.adopt(runtime.now(), Found { birth, more: Vec::new() });
        let unit = runtime.unit(addr).unwrap();
        let came = || {
            let mut batch = Batch::new(1500 + ETHERNET);
            far.recv_now(&mut batch).unwrap();
            batch.len()
        };
        came();
        let ask = || {
            runtime.with_device(&unit, |device, now, sink| device.announced(now, net, mac(0), 1500, 2, sink));
        };
        let done = runtime.together(|| {
            runtime.together(ask);
            assert_eq!(came(), 0, "it is held back by the outer one");
            7
        });
        assert!(done == 7 && came() > 0);
        runtime.stop();
    }
}
