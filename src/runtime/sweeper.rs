//! The sweeper: one thread that sleeps until the earliest deadline and does what is due then. There is no tick.
//!
//! Every timer is an entry in one heap. A device has at most one entry that counts: the earliest it asked for; entries that
//! an earlier one overtook are recognised and dropped. Whoever arms a timer wakes the thread only if it would
//! sleep past it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

use super::table::{Unit, UnitId};
use super::{ASK_AGAIN, REDISCOVER, Runtime};
use crate::engine::{NetId, Time};
use crate::wire::Addr;

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    /// A device's sweep.
    Unit(UnitId),
    /// The discovery's sweep.
    Discovery,
    /// A query is repeated on a netlink that was bound lately.
    Query(NetId, usize),
    /// Everybody is asked who is there.
    Rediscover,
}

#[derive(Debug, Default)]
struct State {
    heap: BinaryHeap<Reverse<(Time, Due)>>,
    /// Until when the thread sleeps; it is awake while this is zero.
    asleep_until: Time,
    stop: bool,
}

/// All timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    state: Mutex<State>,
    wake: Condvar,
}

impl Timers {
    /// Something is due at `at`.
    pub(super) fn arm(&self, at: Time, due: Due) {
        self.push(&mut self.state.lock(), at, due);
    }

    fn push(&self, state: &mut State, at: Time, due: Due) {
        state.heap.push(Reverse((at, due)));
        if at < state.asleep_until {
            state.asleep_until = at;
            self.wake.notify_one();
        }
    }

    /// The device must be swept at `at`; nothing happens if it will be swept earlier anyway.
    pub(super) fn arm_unit(&self, unit: &Unit, at: Time) {
        if unit.armed.load(Ordering::Acquire) <= at.0 {
            return;
        }
        let mut state = self.state.lock();
        if at.0 < unit.armed.load(Ordering::Relaxed) {
            unit.armed.store(at.0, Ordering::Release);
            self.push(&mut state, at, Due::Unit(unit.id));
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.wake.notify_one();
    }
}

impl Runtime {
    /// Sleeps until something is due, and takes it; none: the runtime stops.
    fn next_due(&self) -> Option<(Time, Due)> {
        let mut state = self.timers.state.lock();
        loop {
            if state.stop {
                return None;
            }
            let now = self.clock.now();
            match state.heap.peek() {
                Some(Reverse((at, due))) if *at <= now => {
                    let found = (*at, *due);
                    state.heap.pop();
                    state.asleep_until = Time::default();
                    return Some(found);
                }
                next => {
                    let until = next.map_or(Time::NEVER, |Reverse((at, _))| *at);
                    state.asleep_until = until;
                    match self.clock.instant(until) {
                        Some(instant) => drop(self.timers.wake.wait_until(&mut state, instant)),
                        None => self.timers.wake.wait(&mut state),
                    }
                }
            }
        }
    }

    pub(super) fn sweep_loop(self: &Arc<Self>) {
        while let Some((at, due)) = self.next_due() {
            if self.clock.slept().is_some() {
                for unit in self.units() {
                    self.with_device(&unit, |device, now, sink| device.slept(now, sink));
                }
            }
            match due {
                Due::Unit(id) => self.sweep_unit(at, id),
                Due::Discovery => self.sweep_discovery(),
                Due::Query(net, round) => {
                    if self.nets.get(net).is_some() && round < ASK_AGAIN.len() {
                        self.query(net, Addr::ALL);
                    }
                }
                Due::Rediscover => self.rediscover(),
            }
        }
    }

    fn sweep_unit(&self, at: Time, id: UnitId) {
        let Some(unit) = self.units.get(id) else { return };
        if unit.armed.compare_exchange(at.0, u64::MAX, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Overtaken by an earlier entry.
            return;
        }
        self.with_device(&unit, |device, now, sink| device.sweep(now, sink));
    }

    fn sweep_discovery(&self) {
        let now = self.clock.now();
        let due = self.with_sink(|sink| {
            let mut discovery = self.discovery.lock();
            discovery.sweep(now, &mut sink.frames);
            let due = discovery.next_deadline();
            drop(discovery);
            self.carry_out(None, sink);
            due
        });
        if let Some(due) = due {
            self.timers.arm(due, Due::Discovery);
        }
    }

    fn rediscover(&self) {
        self.timers.arm(self.clock.now() + REDISCOVER, Due::Rediscover);
        if !self.switches.rediscover.load(Ordering::Relaxed) || self.nets.all().is_empty() {
            return;
        }
        for unit in self.units() {
            self.with_device(&unit, |device, _, sink| device.rediscovered(sink));
        }
        self.discover(Addr::ALL);
    }
}
