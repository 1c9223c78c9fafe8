//! Which things are due and when: one entry for each thing, however often it is asked for.
//!
//! A thing that is asked for at several times is due at the earliest of them; the code that does it then asks for the
//! next time. So the size follows from how many things exist, not from how many events there were.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::engine::Time;

/// See the module.
#[derive(Debug)]
pub(super) struct Agenda<D> {
    order: BTreeSet<(Time, D)>,
    times: HashMap<D, Time>,
}

impl<D> Default for Agenda<D> {
    fn default() -> Self {
        Agenda { order: BTreeSet::new(), times: HashMap::new() }
    }
}

impl<D: Copy + Ord + Hash> Agenda<D> {
    /// `what` is due at `at`, unless it is earlier already. True if it was not.
    pub(super) fn add(&mut self, at: Time, what: D) -> bool {
        if let Some(before) = self.times.get(&what).copied() {
            if before <= at {
                return false;
            }
            self.order.remove(&(before, what));
        }
        self.times.insert(what, at);
        self.order.insert((at, what))
    }

    /// `what` need not be done any more.
    pub(super) fn cancel(&mut self, what: D) {
        if let Some(at) = self.times.remove(&what) {
            self.order.remove(&(at, what));
        }
    }

    /// When the first thing is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the first thing that is due at `now`, and tells when it was due.
    pub(super) fn take(&mut self, now: Time) -> Option<(Time, D)> {
        if self.next()? > now {
            return None;
        }
        let (at, what) = self.order.pop_first()?;
        self.times.remove(&what);
        Some((at, what))
    }

    /// Things that are due at some time.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.order.len(), self.times.len());
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_there_once_at_its_earliest_time() {
        let mut agenda = Agenda::default();
        for at in [30, 20, 40, 20] {
            agenda.add(Time(at), 'a');
        }
        assert!(agenda.add(Time(25), 'b') && !agenda.add(Time(26), 'b'));
        assert_eq!((agenda.len(), agenda.next()), (2, Some(Time(20))));
        assert_eq!(agenda.take(Time(19)), None);
        assert_eq!(agenda.take(Time(40)), Some((Time(20), 'a')));
        assert!(agenda.add(Time(90), 'a'), "done, it is asked for anew");
        agenda.cancel('b');
        agenda.cancel('c');
        assert_eq!((agenda.len(), agenda.next()), (1, Some(Time(90))));
    }
}
