//! The sweeper: one thread that sleeps until the earliest deadline and does what is due then. There is no tick.
//!
//! Every timer is an entry in one [`Agenda`]. A device has one at most, and so has everything else: the earliest that
//! was asked for. Arming a timer wakes the thread only if it would sleep past that time.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::agenda::Agenda;
use super::table::{Unit, UnitId};
use super::{REDISCOVER, Runtime};
use crate::bug;
use crate::engine::{NetId, Time};
use crate::wire::Addr;

/// After a netlink was bound its query is repeated, so long after the one before: a frame may be lost, and a target may
/// be slow to wake.
const QUERY_AGAIN: [Duration; 3] =
    [Duration::from_millis(150), Duration::from_millis(350), Duration::from_millis(1500)];

/// How long a device is not swept while received frames wait for a thread, or frames to be sent do: the awaited answers
/// may be among them, or could not come yet. When the threads get no processor for a while, frames must not be sent
/// again that were answered long ago. The promise DEADLINE allows for 250 ms.
const HELD: Duration = Duration::from_millis(100);

/// How long to wait in that case before the next try.
const HELD_RETRY: Duration = Duration::from_millis(1);

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Due {
    /// A device's sweep.
    Unit(UnitId),
    /// The discovery's sweep.
    Discovery,
    /// A query is repeated on a netlink that was bound lately; how often it was repeated already.
    Query(NetId, usize),
    /// A query goes to every target.
    Rediscover,
    /// An alarm, by its number.
    Alarm(u64),
    /// Frames wait in outboxes, and the thread that sent last had other work to do.
    Outbox,
}

type Call = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    agenda: Agenda<Due>,
    /// The calls of the alarms that have not rung and are still wanted.
    alarms: HashMap<u64, Call>,
    next_alarm: u64,
    /// Until when the thread sleeps; it is awake while this is zero.
    asleep_until: Time,
    stop: bool,
}

/// A call that is due later, on the sweeper's thread with nothing locked. If the alarm is dropped before, it is not
/// made.
#[must_use = "a dropped alarm never rings"]
pub struct Alarm {
    runtime: Weak<Runtime>,
    number: u64,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.upgrade() {
            let mut state = runtime.timers.state.lock();
            let call = state.alarms.remove(&self.number);
            state.agenda.cancel(Due::Alarm(self.number));
            drop(state);
            // Dropped with nothing locked, since it may hold anything, alarms included.
            drop(call);
        }
    }
}

/// All timers.
#[derive(Default)]
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
        if state.agenda.add(at, due) && at < state.asleep_until {
            state.asleep_until = at;
            self.wake.notify_one();
        }
    }

    /// The device must be swept at `at`; nothing happens if it will be swept earlier anyway.
    pub(super) fn arm_unit(&self, unit: &Unit, at: Time) {
        let at = at.max(Time(unit.held.load(Ordering::Relaxed)));
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
    /// Calls `what` after that time. Never, if the runtime stops before.
    pub fn alarm(self: &Arc<Self>, after: Duration, what: impl FnOnce() + Send + 'static) -> Alarm {
        let at = self.clock.now() + after;
        let mut state = self.timers.state.lock();
        let number = state.next_alarm;
        state.next_alarm += 1;
        state.alarms.insert(number, Box::new(what));
        self.timers.push(&mut state, at, Due::Alarm(number));
        Alarm { runtime: Arc::downgrade(self), number }
    }

    /// Sleeps until something is due, and takes it; None if the runtime stops.
    fn next_due(&self) -> Option<(Time, Due)> {
        let mut state = self.timers.state.lock();
        loop {
            if state.stop {
                return None;
            }
            let now = self.clock.now();
            if let Some(found) = state.agenda.take(now) {
                state.asleep_until = Time::default();
                return Some(found);
            }
            let until = state.agenda.next().unwrap_or(Time::NEVER);
            state.asleep_until = until;
            match self.clock.instant(until) {
                Some(instant) => drop(self.timers.wake.wait_until(&mut state, instant)),
                None => self.timers.wake.wait(&mut state),
            }
        }
    }

    pub(super) fn sweep_loop(self: &Arc<Self>) {
        while let Some((at, due)) = self.next_due() {
            bug::here("sweeper");
            match due {
                Due::Unit(id) => self.sweep_unit(at, id),
                Due::Discovery => self.sweep_discovery(),
                Due::Query(net, round) => {
                    if self.nets.get(net).is_some() {
                        self.query(net, Addr::ALL);
                        self.arm_query(net, round + 1);
                    }
                }
                Due::Rediscover => self.rediscover(),
                Due::Outbox => self.send_waiting(),
                Due::Alarm(number) => {
                    let call = self.timers.state.lock().alarms.remove(&number);
                    if let Some(call) = call {
                        call();
                    }
                }
            }
        }
    }

    fn sweep_unit(&self, at: Time, id: UnitId) {
        let Some(unit) = self.units.get(id) else { return };
        if unit.armed.compare_exchange(at.0, u64::MAX, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Armed anew since this entry was taken: the new entry will be taken, too.
            return;
        }
        self.send_waiting();
        if self.nets.all().iter().any(|net| net.is_behind()) {
            let (now, due) = (self.clock.now(), self.inspect(&unit, |device| device.next_deadline()));
            if due.is_some_and(|due| now.since(due) < HELD) {
                // Whoever works on the device meanwhile finds the same deadline, and must not arm it again.
                unit.held.store((now + HELD_RETRY).0, Ordering::Relaxed);
                return self.timers.arm_unit(&unit, now);
            }
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

    /// Arms the next repetition of the query on a netlink; `round`: how often it was repeated.
    pub(super) fn arm_query(&self, net: NetId, round: usize) {
        if let Some(after) = QUERY_AGAIN.get(round) {
            self.timers.arm(self.clock.now() + *after, Due::Query(net, round));
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::sample::birth;
    use super::*;
    use crate::engine::Found;

    #[test]
    fn an_alarm_rings_once_unless_it_is_dropped() {
        let runtime = Runtime::new(1);
        runtime.start(false, false).unwrap();
        let (tx, rx) = mpsc::channel();
        let alarm = |after, name: &'static str| {
            let tx = tx.clone();
            runtime.alarm(Duration::from_millis(after), move || tx.send(name).unwrap())
        };
        let alarms = [alarm(60, "late"), alarm(1, "early")];
        drop(alarm(2, "never"));
        assert_eq!((rx.recv(), rx.recv()), (Ok("early"), Ok("late")));
        let last = alarm(0, "last");
        assert_eq!(rx.recv(), Ok("last"));
        drop((alarms, last, alarm(60_000, "not awaited")));
        let state = runtime.timers.state.lock();
        assert!(state.alarms.is_empty());
        // Rediscovery.
        assert_eq!(state.agenda.len(), 1, "what was dropped left something behind");
        drop(state);
        runtime.stop();
        assert!(rx.try_recv().is_err());
    }

    #[test]
    fn a_sweep_that_is_put_off_is_not_asked_for_before() {
        let runtime = Runtime::new(1);
        let birth = birth(NetId(0), 1500);
        let addr = birth.addr;
        runtime.adopt(runtime.now(), Found { birth, more: Vec::new() });
        let (unit, timers) = (runtime.unit(addr).unwrap(), Timers::default());
        unit.armed.store(u64::MAX, Ordering::Relaxed);
        unit.held.store(1000, Ordering::Relaxed);
        for at in [10, 999, 500] {
            timers.arm_unit(&unit, Time(at));
            assert_eq!(timers.state.lock().agenda.next(), Some(Time(1000)));
        }
        runtime.stop();
    }

    /// Announcements, answers and devices ask for their sweep again and again; that leaves one entry each.
    #[test]
    fn what_is_asked_for_often_is_there_once() {
        let timers = Timers::default();
        for n in 0..1000 {
            for due in [Due::Discovery, Due::Rediscover, Due::Query(NetId(1), 0), Due::Unit(UnitId(1))] {
                timers.arm(Time(1_000_000 - n), due);
                timers.arm(Time(1_000_000 + n), due);
            }
        }
        assert_eq!(timers.state.lock().agenda.len(), 4);
    }
}
