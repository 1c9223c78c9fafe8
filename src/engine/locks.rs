//! Who may write where: range locks over sectors, first come first served among overlaps, and the ranges that a
//! stale copy of an older write could still reach.
//!
//! A write takes its range whole and at once. An entry waits for every earlier entry that overlaps it, granted or not, so
//! nobody starves. A *quarantine* is a range whose write is answered or given up while copies of it may still be
//! on their way: newer writes wait until every copy was answered or the time in which it could arrive has passed.

use std::collections::VecDeque;

use super::time::Time;

/// Ranges that may be in quarantine at once. Beyond that the newest ones are merged: holding too much back is safe.
pub const QUARANTINES_MAX: usize = 4096;

/// A lock's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LockId(u64);

/// What a lock means to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A write: waits for earlier overlaps, later overlaps wait for it.
    Write,
    /// A raw command that may write: as a write, but reads do not wait for what may take the disk minutes.
    Raw,
    /// A read: waits for earlier writes that it overlaps, nobody waits for it.
    Read,
    /// A flush: waits for every earlier write, nobody waits for it.
    Barrier,
    /// Copies of a finished write may still arrive.
    Quarantine { copies: u32, until: Time },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: LockId,
    start: u64,
    end: u64,
    kind: Kind,
    /// Earlier entries that this one waits for.
    blockers: u32,
    /// Whose lock it is, in the caller's terms.
    owner: usize,
}

impl Entry {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }

    fn blocks(&self, later: &Entry) -> bool {
        match (self.kind, later.kind) {
            (Kind::Read | Kind::Barrier, _) | (Kind::Raw, Kind::Read) => false,
            (Kind::Quarantine { .. }, Kind::Read | Kind::Barrier) => false,
            (_, Kind::Quarantine { .. }) => false,
            _ => self.overlaps(later.start, later.end),
        }
    }
}

/// The locks of one target, in sectors of the whole disk.
#[derive(Debug, Default)]
pub struct Locks {
    /// In order of arrival.
    entries: VecDeque<Entry>,
    waiting: usize,
    quarantines: usize,
    next: u64,
    granted: Vec<(LockId, usize)>,
}

impl Locks {
    /// A lock that stands for none.
    pub fn unowned(&self) -> LockId {
        LockId(0)
    }

    /// Entries, waiting or not, quarantines aside.
    pub fn held(&self) -> usize {
        self.entries.len() - self.quarantines
    }

    /// Ranges in quarantine.
    pub fn quarantined(&self) -> usize {
        self.quarantines
    }

    fn take(&mut self, start: u64, end: u64, kind: Kind, owner: usize) -> (LockId, bool) {
        self.next += 1;
        let mut entry = Entry { id: LockId(self.next), start, end, kind, blockers: 0, owner };
        entry.blockers = self.entries.iter().filter(|e| e.blocks(&entry)).count() as u32;
        self.waiting += usize::from(entry.blockers > 0);
        self.entries.push_back(entry);
        (entry.id, entry.blockers == 0)
    }

    /// Asks for `[start, end)`. True: it is yours. False: it will come out of [`Locks::next_granted`] with `owner`.
    pub fn write(&mut self, start: u64, end: u64, owner: usize) -> (LockId, bool) {
        self.take(start, end, Kind::Write, owner)
    }

    /// The same for a raw command.
    pub fn raw(&mut self, start: u64, end: u64, owner: usize) -> (LockId, bool) {
        self.take(start, end, Kind::Raw, owner)
    }

    /// Asks to read `[start, end)`. None: nothing is in the way, and there is nothing to give back. Else it waits, for the answer
    /// would be older than a write that may be answered first, and the kernel would keep it in its page cache.
    pub fn read(&mut self, start: u64, end: u64, owner: usize) -> Option<LockId> {
        let newcomer = Entry { id: LockId(0), start, end, kind: Kind::Read, blockers: 0, owner };
        let blocked = self.entries.iter().any(|e| e.blocks(&newcomer));
        blocked.then(|| self.take(start, end, Kind::Read, owner).0)
    }

    /// May anything change `[start, end)` that is known now? A raw command may, which reads do not wait for; and what is in
    /// quarantine, which they may read over.
    pub fn busy(&self, start: u64, end: u64) -> bool {
        let changes = |e: &Entry| !matches!(e.kind, Kind::Read | Kind::Barrier);
        self.entries.iter().any(|e| changes(e) && e.overlaps(start, end))
    }

    /// Asks to be told when every write that is known now has ended.
    pub fn barrier(&mut self, owner: usize) -> (LockId, bool) {
        self.take(0, u64::MAX, Kind::Barrier, owner)
    }

    /// Gives a lock back, granted or not.
    pub fn release(&mut self, id: LockId) {
        // Entries are in order of their ids, so a search by halves finds them.
        let Ok(index) = self.entries.binary_search_by_key(&id.0, |e| e.id.0) else { return };
        let Some(gone) = self.entries.remove(index) else { return };
        if gone.blockers > 0 {
            self.waiting -= 1;
        }
        if matches!(gone.kind, Kind::Quarantine { .. }) {
            self.quarantines -= 1;
        }
        if self.waiting == 0 {
            return;
        }
        // A quarantine that came later than a waiter blocks it nevertheless; see `quarantine`.
        let from = if matches!(gone.kind, Kind::Quarantine { .. }) { 0 } else { index };
        for e in self.entries.range_mut(from..) {
            if e.blockers > 0 && gone.blocks(e) {
                e.blockers -= 1;
                if e.blockers == 0 {
                    self.waiting -= 1;
                    self.granted.push((e.id, e.owner));
                }
            }
        }
    }

    /// A lock that was waited for and is granted now, and its owner.
    pub fn next_granted(&mut self) -> Option<(LockId, usize)> {
        self.granted.pop()
    }

    /// Holds new writes back from `[start, end)` until `copies` answers came in (see [`Locks::copy_settled`]) or `until`
    /// has passed. Writes that hold their lock already are not touched: the caller's own is one of them.
    pub fn quarantine(&mut self, start: u64, end: u64, copies: u32, until: Time) -> LockId {
        if self.quarantines >= QUARANTINES_MAX
            && let Some(last) =
                self.entries.iter_mut().rev().find(|e| matches!(e.kind, Kind::Quarantine { .. }))
        {
            // Never to be ended by counting: the merged range stands for more copies than are tracked.
            let (id, old_start, old_end) = (last.id, last.start, last.end);
            let later = match last.kind {
                Kind::Quarantine { until: old, .. } => until.max(old),
                _ => until,
            };
            let (start, end) = (start.min(old_start), end.max(old_end));
            self.release(id);
            return self.quarantine(start, end, u32::MAX, later);
        }
        let (id, _) = self.take(start, end, Kind::Quarantine { copies, until }, usize::MAX);
        self.quarantines += 1;
        let Some(new) = self.entries.back().copied() else { return id };
        for e in &mut self.entries {
            if e.blockers > 0 && new.blocks(e) {
                e.blockers += 1;
            }
        }
        id
    }

    /// One copy of a quarantined write was answered.
    pub fn copy_settled(&mut self, id: LockId) {
        let Ok(index) = self.entries.binary_search_by_key(&id.0, |e| e.id.0) else { return };
        let Kind::Quarantine { copies, .. } = &mut self.entries[index].kind else { return };
        if *copies == u32::MAX {
            return;
        }
        *copies -= 1;
        if *copies == 0 {
            self.release(id);
        }
    }

    /// Ends the quarantines whose time has passed. Returns when to look again: when the next one ends if somebody may wait
    /// for it, else when all have.
    pub fn expire(&mut self, now: Time) -> Time {
        if self.quarantines == 0 {
            return Time::NEVER;
        }
        let (mut first, mut last) = (Time::NEVER, Time::default());
        let mut over = Vec::new();
        for e in &self.entries {
            if let Kind::Quarantine { until, .. } = e.kind {
                if until <= now {
                    over.push(e.id);
                } else {
                    (first, last) = (first.min(until), last.max(until));
                }
            }
        }
        for id in over {
            self.release(id);
        }
        if self.quarantines == 0 {
            return Time::NEVER;
        }
        if self.waiting > 0 { first } else { last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_wait_in_order() {
        let mut l = Locks::default();
        let (a, ok) = l.write(0, 10, 0);
        assert!(ok);
        let (b, ok) = l.write(5, 15, 0);
        assert!(!ok);
        let (c, ok) = l.write(12, 20, 0);
        assert!(!ok, "c overlaps b, which came first");
        let (d, ok) = l.write(20, 30, 0);
        assert!(ok);
        l.release(a);
        assert_eq!(l.next_granted(), Some((b, 0)));
        assert_eq!(l.next_granted(), None);
        l.release(b);
        assert_eq!(l.next_granted(), Some((c, 0)));
        l.release(c);
        l.release(d);
        assert_eq!(l.held(), 0);
    }

    #[test]
    fn a_barrier_waits_for_earlier_writes_only() {
        let mut l = Locks::default();
        let (a, _) = l.write(0, 1, 0);
        let (f, ok) = l.barrier(0);
        assert!(!ok);
        let (b, ok) = l.write(100, 101, 0);
        assert!(ok, "nobody waits for a flush");
        l.release(a);
        assert_eq!(l.next_granted(), Some((f, 0)));
        l.release(f);
        l.release(b);
    }

    #[test]
    fn a_read_waits_for_earlier_writes_and_nobody_for_it() {
        let mut l = Locks::default();
        assert_eq!(l.read(0, 8, 1), None, "nothing to give back");
        let (a, _) = l.write(0, 8, 0);
        let r = l.read(7, 9, 1);
        assert_eq!(l.read(8, 9, 2), None);
        let (b, ok) = l.write(8, 9, 0);
        assert!(ok, "a write does not wait for a read that waits");
        l.release(a);
        assert_eq!(l.next_granted().map(|(id, owner)| (Some(id), owner)), Some((r, 1)));
        l.quarantine(0, 8, 1, Time(1000));
        assert_eq!(
            l.read(0, 8, 3),
            None,
            "a stale copy must not change what is written, but may be read over"
        );
        r.into_iter().chain([b]).for_each(|id| l.release(id));
        assert_eq!(l.held(), 0);
    }

    #[test]
    fn a_quarantine_holds_back_also_those_who_already_wait() {
        let mut l = Locks::default();
        let (a, _) = l.write(0, 8, 0);
        let (b, ok) = l.write(0, 8, 0);
        assert!(!ok);
        let q = l.quarantine(0, 8, 2, Time(1000));
        l.release(a);
        assert_eq!(l.next_granted(), None, "a copy of a may still arrive");
        l.copy_settled(q);
        assert_eq!(l.next_granted(), None);
        l.copy_settled(q);
        assert_eq!(l.next_granted(), Some((b, 0)));
        l.release(b);
        l.quarantine(0, 8, 1, Time(2000));
        assert_eq!(l.expire(Time(1999)), Time(2000), "nobody waits: when the last one ends");
        let (c, ok) = l.write(7, 9, 0);
        assert!(!ok);
        assert_eq!(l.expire(Time(2000)), Time::NEVER);
        assert_eq!(l.next_granted(), Some((c, 0)));
    }

    #[test]
    fn too_many_quarantines_merge_and_stay_bounded() {
        let mut l = Locks::default();
        for i in 0..QUARANTINES_MAX as u64 + 10 {
            l.quarantine(2 * i, 2 * i + 1, 1, Time(10));
        }
        assert_eq!(l.quarantined(), QUARANTINES_MAX);
        let (_, ok) = l.write(2 * QUARANTINES_MAX as u64 + 1, 2 * QUARANTINES_MAX as u64 + 2, 0);
        assert!(!ok, "the merged range is held back");
        l.expire(Time(10));
        assert_eq!(l.quarantined(), 0);
    }

    #[test]
    fn abandoned_waiters_release_their_followers() {
        let mut l = Locks::default();
        let (a, _) = l.write(0, 4, 0);
        let (b, _) = l.write(0, 8, 0);
        let (c, ok) = l.write(6, 8, 0);
        assert!(!ok);
        l.release(b);
        assert_eq!(l.next_granted(), Some((c, 0)));
        l.release(a);
        l.release(c);
        assert_eq!(l.held(), 0);
    }
}
