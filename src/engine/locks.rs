//! Which request may write where: range locks over sectors, first come first served among overlaps, and the ranges
//! that a late attempt of an older write could still reach.
//!
//! A write takes its range whole and at once. An entry waits for every earlier entry that overlaps it, granted or
//! not, so none starves. A *quarantine* is a range whose write is answered or given up while attempts of it may
//! still be on their way: newer writes wait until every attempt was answered or the time in which it could arrive
//! has passed.

use std::collections::VecDeque;

use super::time::Time;

/// Ranges that may be in quarantine at once, unless the owner says otherwise. At so many, a new range that touches
/// one is added to it, and the owner sends no write a second time, so that few more come ([`Locks::full`]); at twice
/// as many it sends no write at all ([`Locks::crowded`]). So memory is bounded by twice as many and by the frames
/// that are in flight, no sector is held back that no attempt can reach, and other writes do not notice unless
/// everything fails at once.
pub const QUARANTINES_MAX: usize = 4096;

/// Where the sectors of a disk end: 48 bits address them. The places behind them stand for what else a target keeps:
/// its config string, its mask list and its reservation list. Commands that change one of these are kept apart as
/// writes of one sector are.
pub const SECTORS_END: u64 = 1 << 48;
/// See [`SECTORS_END`].
pub const CONFIG: u64 = SECTORS_END;
/// See [`SECTORS_END`].
pub const MASK: u64 = SECTORS_END + 1;
/// See [`SECTORS_END`].
pub const RESERVE: u64 = SECTORS_END + 2;

/// A lock's name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LockId(u64);

/// What a lock means to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A write: it waits for earlier overlaps, and later overlaps wait for it.
    Write,
    /// A raw command that may write: as a write, but reads do not wait for it, since it may take the disk minutes.
    Raw,
    /// A read: it waits for earlier writes that it overlaps, and nothing waits for it.
    Read,
    /// A flush: it waits for every earlier write, and nothing waits for it.
    Barrier,
    /// Attempts of a finished write may still arrive.
    Quarantine { attempts: u32, until: Time },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: LockId,
    start: u64,
    end: u64,
    kind: Kind,
    /// Earlier entries that this one waits for.
    blockers: u32,
    /// The request that the lock belongs to, in the caller's terms.
    owner: usize,
}

impl Entry {
    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.start < end && start < self.end
    }

    fn is_quarantine(&self) -> bool {
        matches!(self.kind, Kind::Quarantine { .. })
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
#[derive(Debug)]
pub struct Locks {
    /// In order of arrival.
    entries: VecDeque<Entry>,
    waiting: usize,
    quarantines: usize,
    quarantines_max: usize,
    next: u64,
    granted: Vec<(LockId, usize)>,
}

impl Default for Locks {
    fn default() -> Locks {
        Locks {
            entries: VecDeque::new(),
            waiting: 0,
            quarantines: 0,
            quarantines_max: QUARANTINES_MAX,
            next: 0,
            granted: Vec::new(),
        }
    }
}

impl Locks {
    /// Changes how many ranges may be in quarantine.
    pub fn set_quarantines_max(&mut self, ranges: usize) {
        self.quarantines_max = ranges;
    }

    /// Are there as many ranges in quarantine as there may be? A frame that is sent a second time would need one
    /// more.
    pub fn full(&self) -> bool {
        self.quarantines >= self.quarantines_max
    }

    /// Are there twice as many? So many come only of requests that fail, and each frame of those needs one.
    pub fn crowded(&self) -> bool {
        self.quarantines >= 2 * self.quarantines_max
    }

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
        self.take(start, end.min(SECTORS_END), Kind::Raw, owner)
    }

    /// Asks to read `[start, end)`. None: nothing is in the way, and there is nothing to give back. Otherwise the
    /// read waits: its answer would be older than a write that may be answered first, and the kernel would keep it
    /// in its page cache.
    pub fn read(&mut self, start: u64, end: u64, owner: usize) -> Option<LockId> {
        let newcomer = Entry { id: LockId(0), start, end, kind: Kind::Read, blockers: 0, owner };
        let blocked = self.entries.iter().any(|e| e.blocks(&newcomer));
        blocked.then(|| self.take(start, end, Kind::Read, owner).0)
    }

    /// May anything change `[start, end)` that is known now? That includes a raw command, which reads do not wait
    /// for, and a range in quarantine, which reads may read.
    pub fn busy(&self, start: u64, end: u64) -> bool {
        let changes = |e: &Entry| !matches!(e.kind, Kind::Read | Kind::Barrier);
        self.entries.iter().any(|e| changes(e) && e.overlaps(start, end))
    }

    /// Asks to be told when every write that is known now has ended.
    pub fn barrier(&mut self, owner: usize) -> (LockId, bool) {
        self.take(0, SECTORS_END, Kind::Barrier, owner)
    }

    /// Gives a lock back, granted or not.
    pub fn release(&mut self, id: LockId) {
        // Entries are in order of their ids, so a search by halves finds them.
        let Ok(index) = self.entries.binary_search_by_key(&id.0, |e| e.id.0) else { return };
        let Some(gone) = self.entries.remove(index) else { return };
        if gone.blockers > 0 {
            self.waiting -= 1;
        }
        if gone.is_quarantine() {
            self.quarantines -= 1;
        }
        if self.waiting == 0 {
            return;
        }
        // A quarantine that came later than a waiter blocks it nevertheless; see `quarantine`.
        let from = if gone.is_quarantine() { 0 } else { index };
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

    /// Holds new writes back from `[start, end)` until `attempts` answers came in (see [`Locks::attempt_settled`])
    /// or `until` has passed. Writes that hold their lock already are not touched: the caller's own is one of them.
    pub fn quarantine(&mut self, start: u64, end: u64, attempts: u32, until: Time) -> LockId {
        let near = |e: &Entry| e.is_quarantine() && e.start <= end && start <= e.end;
        if self.full()
            && let Some(at) = self.entries.iter().position(near)
        {
            return self.widen(at, start, end, until);
        }
        let (id, _) = self.take(start, end, Kind::Quarantine { attempts, until }, usize::MAX);
        self.quarantines += 1;
        let Some(new) = self.entries.back().copied() else { return id };
        for e in &mut self.entries {
            if e.blockers > 0 && new.blocks(e) {
                e.blockers += 1;
            }
        }
        id
    }

    /// Adds a range to one that it touches. No lock is granted by that, and locks that wait for the new part wait
    /// for it.
    fn widen(&mut self, at: usize, start: u64, end: u64, until: Time) -> LockId {
        let was = self.entries[at];
        let wide = &mut self.entries[at];
        (wide.start, wide.end) = (start.min(was.start), end.max(was.end));
        if let Kind::Quarantine { until: before, .. } = was.kind {
            // It is never ended by counting: it stands for attempts of several writes now.
            wide.kind = Kind::Quarantine { attempts: u32::MAX, until: until.max(before) };
        }
        let is = *wide;
        for e in &mut self.entries {
            if e.blockers > 0 && is.blocks(e) && !was.blocks(e) {
                e.blockers += 1;
            }
        }
        is.id
    }

    /// One attempt of a quarantined write was answered.
    pub fn attempt_settled(&mut self, id: LockId) {
        let Ok(index) = self.entries.binary_search_by_key(&id.0, |e| e.id.0) else { return };
        let Kind::Quarantine { attempts, .. } = &mut self.entries[index].kind else { return };
        if *attempts == u32::MAX {
            return;
        }
        *attempts -= 1;
        if *attempts == 0 {
            self.release(id);
        }
    }

    /// Ends the quarantines whose time has passed. Returns when to look again: when the next one ends if a lock may
    /// wait for it, else when all have ended.
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
        if self.is_awaited() { first } else { last }
    }

    /// Is this lock there, and does it wait for none?
    pub fn is_granted(&self, id: LockId) -> bool {
        let found = self.entries.binary_search_by_key(&id.0, |e| e.id.0);
        found.is_ok_and(|index| self.entries[index].blockers == 0)
    }

    /// Panics if what is counted is not what is there.
    pub fn check(&self) {
        assert!(self.entries.iter().is_sorted_by_key(|e| e.id.0), "locks are not in the order of their ids");
        let waiting = self.entries.iter().filter(|e| e.blockers > 0).count();
        let quarantines = self.entries.iter().filter(|e| e.is_quarantine()).count();
        assert_eq!(
            (self.waiting, self.quarantines),
            (waiting, quarantines),
            "waiting locks, and quarantines"
        );
        for (index, e) in self.entries.iter().enumerate().filter(|(_, e)| e.blockers > 0) {
            let earlier = self.entries.iter().take(index).filter(|other| other.blocks(e)).count();
            let later =
                self.entries.iter().skip(index + 1).filter(|q| q.is_quarantine() && q.blocks(e)).count();
            assert_eq!(e.blockers as usize, earlier + later, "what {e:?} waits for");
        }
    }

    /// May a request wait for the end of a quarantine? Where there is no room for more, even one without a lock.
    fn is_awaited(&self) -> bool {
        self.waiting > 0 || self.full()
    }

    /// When the first quarantine ends, if a request may wait for that.
    pub fn awaited_end(&self) -> Time {
        let ends = self.entries.iter().filter_map(|e| match e.kind {
            Kind::Quarantine { until, .. } => Some(until),
            _ => None,
        });
        ends.min().filter(|_| self.is_awaited()).unwrap_or(Time::NEVER)
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
            "a stale attempt must not change what is written, but may be read over"
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
        assert_eq!(l.next_granted(), None, "an attempt of a may still arrive");
        l.attempt_settled(q);
        assert_eq!(l.next_granted(), None);
        l.attempt_settled(q);
        assert_eq!(l.next_granted(), Some((b, 0)));
        l.release(b);
        l.quarantine(0, 8, 1, Time(2000));
        assert_eq!(l.expire(Time(1999)), Time(2000), "nobody waits: when the last one ends");
        let (c, ok) = l.write(7, 9, 0);
        assert!(!ok);
        assert_eq!(l.expire(Time(2000)), Time::NEVER);
        assert_eq!(l.next_granted(), Some((c, 0)));
    }

    /// Quarantines of one sector each, two sectors apart, as many as there may be.
    fn full_table(ranges: u64) -> Locks {
        let mut l = Locks::default();
        l.set_quarantines_max(ranges as usize);
        for i in 0..ranges {
            l.quarantine(3 * i, 3 * i + 1, 1, Time(10 + i));
        }
        assert!(l.full() && !l.crowded());
        l
    }

    #[test]
    fn a_full_table_holds_exactly_the_sectors_that_a_copy_can_reach() {
        let mut l = full_table(4);
        // Far from all others: nothing in between is held back.
        l.quarantine(1000, 1001, 1, Time(50));
        let held: Vec<u64> = (0..1100).filter(|at| l.busy(*at, at + 1)).collect();
        assert_eq!(held, [0, 3, 6, 9, 1000]);
        // What touches one is added to it.
        l.quarantine(4, 6, 1, Time(60));
        assert_eq!(l.quarantined(), 5);
        let held: Vec<u64> = (0..1100).filter(|at| l.busy(*at, at + 1)).collect();
        assert_eq!(held, [0, 3, 4, 5, 6, 9, 1000]);
        l.quarantine(0, 1, 1, Time(70));
        assert_eq!((l.quarantined(), l.crowded()), (5, false));
        assert_eq!(l.expire(Time(11)), Time(12), "a full table is looked at when the first one ends");
        assert_eq!(l.expire(Time(70)), Time::NEVER);
        assert_eq!(l.quarantined(), 0);
    }

    #[test]
    fn a_full_table_grants_nobody() {
        let mut l = full_table(4);
        let (w, ok) = l.write(0, 1, 7);
        assert!(!ok, "an attempt may reach sector 0");
        let (other, ok) = l.write(500, 501, 8);
        assert!(ok, "no attempt can reach that one");
        let (late, ok) = l.write(4, 5, 9);
        assert!(ok);
        // Unrelated, and adjacent, and the same again.
        for (start, end) in [(1000, 1001), (1, 2), (0, 1)] {
            l.quarantine(start, end, 1, Time(100));
            assert_eq!(l.next_granted(), None, "{start}");
        }
        l.release(late);
        l.release(other);
        l.expire(Time(99));
        assert_eq!(l.next_granted(), None);
        l.expire(Time(100));
        assert_eq!(l.next_granted(), Some((w, 7)));
        l.release(w);
        assert_eq!((l.held(), l.quarantined()), (0, 0));
    }

    #[test]
    fn who_waits_already_waits_for_the_part_that_is_added() {
        let mut l = full_table(1);
        let (a, _) = l.write(1, 2, 0);
        let (b, ok) = l.write(1, 2, 1);
        assert!(!ok);
        // An attempt of a is left over: its range is added to that of sector 0.
        l.quarantine(1, 2, 1, Time(30));
        l.release(a);
        assert_eq!(l.next_granted(), None);
        l.expire(Time(30));
        assert_eq!(l.next_granted(), Some((b, 1)));
        l.release(b);
        assert_eq!(l.held(), 0);
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
