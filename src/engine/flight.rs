//! Frames in flight: what was sent, under which tags, and what became of each attempt.
//!
//! Every transmission has a tag of its own. The attempts of one frame share a record; the first answer completes it.
//! Attempts that are still unanswered then become *strays*: known by their tag for a while, so that a late answer is
//! counted, teaches the round-trip time, and can end the quarantine of the write it belongs to.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::{Index, IndexMut};
use std::time::Duration;

use slab::Slab;

use super::ids::{FrameId, PathId, ReqId};
use super::lanes::Lane;
use super::locks::LockId;
use super::path::Place;
use super::stats::Op;
use super::time::Time;
use crate::wire::{Sector, Tag};

/// Attempts that a frame remembers, the newest ones. With the timeout doubling, six cover more than ten seconds.
const REMEMBERED: usize = 6;
/// Of an unknown tag that is one of the last so many, the answer has come before: it was not forged. No network
/// keeps an answer for longer than these tags last. They are one in 512 of all, so that a foreign tag is among them
/// only by chance.
const LATELY: u32 = 1 << 16;
/// Strays that are remembered at once, and how long: twice the longest timeout.
const STRAYS_MAX: usize = 4096;
const STRAY_LIFE: Duration = Duration::from_secs(16);

/// What a frame does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Reads sectors into the request's buffer at byte `offset`.
    Read { req: ReqId, offset: usize },
    /// Writes sectors from the request's buffer at byte `offset`.
    Write { req: ReqId, offset: usize },
    /// Reads the sector around an unaligned edge of a write: number `index` of the span.
    Gather { req: ReqId, index: usize },
    /// Discards sectors.
    Trim { req: ReqId },
    /// Flushes the target's cache, by the 48-bit opcode or the old one.
    Flush { req: ReqId, ext: bool },
    /// Any ATA command of the raw file.
    Raw { req: ReqId },
    /// Config, mask or reserve, for a request.
    Command { req: ReqId },
    /// IDENTIFY over one path: confirms the disk, or proves the path.
    Identify { path: PathId },
    /// A config query over one path, for its limits.
    Query { path: PathId },
    /// Which hosts hold the target, for the log.
    Holders { path: PathId },
    /// A full-size read whose request is padded to the same size: both directions of one path.
    Probe { path: PathId },
}

impl Work {
    /// The request that waits for it.
    pub fn request(self) -> Option<ReqId> {
        match self {
            Work::Read { req, .. }
            | Work::Write { req, .. }
            | Work::Gather { req, .. }
            | Work::Trim { req }
            | Work::Flush { req, .. }
            | Work::Raw { req }
            | Work::Command { req } => Some(req),
            Work::Identify { .. } | Work::Query { .. } | Work::Holders { .. } | Work::Probe { .. } => None,
        }
    }

    /// The kind of request that its round trip is counted for; none for IDENTIFY, queries and raw commands.
    pub fn op(self) -> Option<Op> {
        match self {
            Work::Read { .. } | Work::Gather { .. } => Some(Op::Read),
            Work::Write { .. } | Work::Trim { .. } => Some(Op::Write),
            Work::Flush { .. } => Some(Op::Flush),
            _ => None,
        }
    }

    /// Does it change the disk, so that an attempt that arrives late does harm?
    pub fn modifies(self) -> bool {
        matches!(self, Work::Write { .. } | Work::Trim { .. } | Work::Raw { .. })
    }

    /// Must the disk be confirmed before it leaves? Reads are answered only after the confirmation, so after mere
    /// silence they may leave. The edges of a write may not, since they will be written.
    pub fn needs_trust(self) -> bool {
        self.modifies() || matches!(self, Work::Flush { .. } | Work::Gather { .. })
    }

    /// The lane in which a frame waits to be sent again.
    pub fn lane(self) -> Lane {
        if self.needs_trust() { Lane::Writes } else { Lane::Reads }
    }

    /// Does it count against the window? IDENTIFY, queries and probes do not: a full window must not starve them.
    pub fn windowed(self) -> bool {
        !self.asks() && !matches!(self, Work::Identify { .. } | Work::Probe { .. } | Work::Command { .. })
    }

    /// Is it a question of ours whose loss does not matter?
    pub fn asks(self) -> bool {
        matches!(self, Work::Query { .. } | Work::Holders { .. })
    }

    /// May it take the disk seconds? Its delay says nothing about the network, and nothing overtakes it.
    pub fn slow(self) -> bool {
        matches!(self, Work::Flush { .. } | Work::Raw { .. } | Work::Trim { .. })
    }
}

/// One transmission of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Its own tag.
    pub tag: Tag,
    /// The path it left by; none if that path is gone.
    pub path: Option<PathId>,
    /// How it counts there.
    pub place: Place,
    /// When it left.
    pub sent: Time,
    /// Not yet answered and not yet given up.
    pub flying: bool,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// What it does.
    pub work: Work,
    /// First sector.
    pub at: Sector,
    /// Sectors.
    pub count: u8,
    /// Attempts that expired; the timeout doubles with each.
    pub expiries: u8,
    /// How often its sectors were asked for again because another disk may have answered.
    pub redone: u8,
    /// Attempts given up before the timer because nothing at all was answered.
    pub tails: u8,
    /// When the flying attempt expires.
    pub due: Time,
    /// Waits in a lane to be sent again.
    pub queued: bool,
    attempts: [Option<Attempt>; REMEMBERED],
    /// Older attempts that are no longer tracked.
    forgotten: bool,
}

impl Frame {
    /// Every remembered attempt.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().flatten()
    }

    /// The newest attempt.
    pub fn last(&self) -> Option<&Attempt> {
        self.attempts().max_by_key(|c| c.sent)
    }

    /// The attempt that is on its way, as far as we know.
    pub fn flying(&self) -> Option<&Attempt> {
        self.attempts().find(|c| c.flying)
    }

    fn flying_mut(&mut self) -> Option<&mut Attempt> {
        self.attempts.iter_mut().flatten().find(|c| c.flying)
    }
}

/// An unanswered attempt of a frame that is complete or given up.
#[derive(Clone, Copy, Debug)]
pub struct Stray {
    /// The path it left by.
    pub path: Option<PathId>,
    /// When it left.
    pub sent: Time,
    /// How it counted there.
    pub place: Place,
    /// The range that it keeps in quarantine.
    pub quarantine: Option<LockId>,
}

/// The tag is its own hash: it counts up from a random start, and only our own tags are ever inserted.
#[derive(Default)]
pub struct TagHasher(u64);

impl Hasher for TagHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u32(&mut self, tag: u32) {
        self.0 = u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Bits of a tag that count; the others say which daemon it belongs to.
const COUNTER_BITS: u32 = Tag::COUNTER_BITS;

/// The tags of one daemon: bit 31, which of 64 daemons in this network namespace, and a counter.
///
/// Two daemons on one interface have one MAC, and each sees the answers to the other. If their tags could meet, one
/// would take the other's data for its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TagSpace(u32);

impl TagSpace {
    /// How many there are.
    pub const COUNT: u8 = Tag::SPACES;

    /// The space with this number, modulo [`TagSpace::COUNT`].
    pub fn new(number: u8) -> TagSpace {
        TagSpace(Tag::of(number, 0).0)
    }

    /// The tag with this counter.
    pub fn tag(self, counter: u32) -> Tag {
        Tag(self.0 | Tag::of(0, counter).0)
    }

    /// How many tags came after this one of the space, up to the one with this counter.
    fn age(self, tag: Tag, counter: u32) -> u32 {
        let newest = self.tag(counter).0;
        if tag.0 <= newest { newest - tag.0 } else { (1 << COUNTER_BITS) - 1 - (tag.0 - newest) }
    }

    /// Is it one of these?
    pub fn contains(self, tag: Tag) -> bool {
        tag.0 >> COUNTER_BITS == self.0 >> COUNTER_BITS
    }
}

type TagMap<V> = HashMap<u32, V, BuildHasherDefault<TagHasher>>;

/// What an answer belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// A frame that waits for it, and the attempt.
    Frame(FrameId, Attempt),
    /// An attempt that no frame waits for any more.
    Stray(Stray),
}

/// Every frame of one target that was sent and not yet settled.
#[derive(Debug)]
pub struct Flight {
    frames: Slab<Frame>,
    tags: TagMap<FrameId>,
    strays: TagMap<Stray>,
    stray_order: VecDeque<(Time, u32)>,
    space: TagSpace,
    first: u32,
    counter: u32,
}

impl Index<FrameId> for Flight {
    type Output = Frame;

    /// A frame that is known to be there: the caller has just found or created it, and has not settled it since.
    fn index(&self, id: FrameId) -> &Frame {
        &self.frames[id.0 as usize]
    }
}

impl IndexMut<FrameId> for Flight {
    fn index_mut(&mut self, id: FrameId) -> &mut Frame {
        &mut self.frames[id.0 as usize]
    }
}

impl Flight {
    /// `seed` makes the first tag of the space; a restarted daemon must not take late answers to its predecessor for
    /// its own.
    pub fn new(space: TagSpace, seed: u32) -> Flight {
        Flight {
            frames: Slab::new(),
            tags: TagMap::default(),
            strays: TagMap::default(),
            stray_order: VecDeque::new(),
            space,
            first: seed,
            counter: seed,
        }
    }

    /// Frames that exist, in flight or waiting to be sent again.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// All frames.
    pub fn iter(&self) -> impl Iterator<Item = (FrameId, &Frame)> {
        self.frames.iter().map(|(i, f)| (FrameId(i as u32), f))
    }

    /// A frame that has not been settled.
    pub fn get(&self, id: FrameId) -> Option<&Frame> {
        self.frames.get(id.0 as usize)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, id: FrameId) -> Option<&mut Frame> {
        self.frames.get_mut(id.0 as usize)
    }

    /// A new frame, not sent yet.
    pub fn create(&mut self, work: Work, at: Sector, count: u8) -> FrameId {
        let frame = Frame {
            work,
            at,
            count,
            expiries: 0,
            redone: 0,
            tails: 0,
            due: Time::NEVER,
            queued: false,
            attempts: [None; REMEMBERED],
            forgotten: false,
        };
        FrameId(self.frames.insert(frame) as u32)
    }

    fn fresh_tag(&mut self) -> Tag {
        loop {
            self.counter = self.counter.wrapping_add(1);
            let tag = self.space.tag(self.counter);
            if !self.tags.contains_key(&tag.0) && !self.strays.contains_key(&tag.0) {
                return tag;
            }
        }
    }

    /// Notes that an attempt leaves now; the caller has settled an earlier flying attempt. Returns its tag.
    pub fn depart(&mut self, id: FrameId, path: PathId, place: Place, now: Time, due: Time) -> Tag {
        let tag = self.fresh_tag();
        let attempt = Attempt { tag, path: Some(path), place, sent: now, flying: true };
        let frame = &mut self.frames[id.0 as usize];
        debug_assert!(frame.flying().is_none(), "at most one attempt flies");
        frame.due = due;
        frame.queued = false;
        let free = match frame.attempts.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                frame.forgotten = true;
                let oldest = frame.attempts.iter().enumerate().min_by_key(|(_, c)| c.map(|c| c.sent));
                let oldest = oldest.map_or(0, |(i, _)| i);
                if let Some(old) = frame.attempts[oldest] {
                    self.tags.remove(&old.tag.0);
                }
                oldest
            }
        };
        frame.attempts[free] = Some(attempt);
        self.tags.insert(tag.0, id);
        tag
    }

    /// What does an answer with this tag belong to?
    pub fn owner(&self, tag: Tag) -> Option<Owner> {
        if let Some(&id) = self.tags.get(&tag.0) {
            let attempt = self.get(id)?.attempts().find(|c| c.tag == tag)?;
            return Some(Owner::Frame(id, *attempt));
        }
        self.strays.get(&tag.0).map(|s| Owner::Stray(*s))
    }

    /// Is it a tag that left lately? If it belongs to nothing now, its frame was answered.
    pub fn left_lately(&self, tag: Tag) -> bool {
        let left = self.counter.wrapping_sub(self.first).min(LATELY);
        self.space.contains(tag) && self.space.age(tag, self.counter) < left
    }

    /// The flying attempt is given up; its answer would still be welcome. Returns the attempt as it was.
    pub fn ground(&mut self, id: FrameId) -> Option<Attempt> {
        let attempt = self.get_mut(id)?.flying_mut()?;
        let was = *attempt;
        attempt.flying = false;
        Some(was)
    }

    /// The stray's answer came.
    pub fn forget_stray(&mut self, tag: Tag) {
        self.strays.remove(&tag.0);
    }

    /// Attempts of this frame that could still arrive, `answered` aside: how many, and whether there are more than
    /// that.
    pub fn unanswered(&self, id: FrameId, answered: Option<Tag>) -> (u32, bool) {
        let frame = &self[id];
        let known = frame.attempts().filter(|c| Some(c.tag) != answered).count() as u32;
        (known, frame.forgotten)
    }

    /// Ends a frame. Its attempts other than `answered` become strays, bound to `quarantine`.
    pub fn settle(&mut self, id: FrameId, answered: Option<Tag>, quarantine: Option<LockId>, now: Time) {
        let Some(frame) = self.frames.try_remove(id.0 as usize) else { return };
        for attempt in frame.attempts() {
            self.tags.remove(&attempt.tag.0);
            if Some(attempt.tag) == answered {
                continue;
            }
            let Attempt { path, sent, place, .. } = *attempt;
            self.strays.insert(attempt.tag.0, Stray { path, sent, place, quarantine });
            self.stray_order.push_back((now + STRAY_LIFE, attempt.tag.0));
        }
        while let Some(&(until, tag)) = self.stray_order.front() {
            if until > now && self.stray_order.len() <= STRAYS_MAX {
                break;
            }
            self.stray_order.pop_front();
            self.strays.remove(&tag);
        }
    }

    /// Panics if the tags are not those of the attempts that are remembered.
    pub fn check(&self) {
        let mut attempts = 0;
        for (id, attempt) in self.iter().flat_map(|(id, f)| f.attempts().map(move |c| (id, c))) {
            assert_eq!(self.tags.get(&attempt.tag.0), Some(&id), "whose tag is that of {attempt:?}?");
            assert!(!self.strays.contains_key(&attempt.tag.0), "{attempt:?} is a stray as well");
            attempts += 1;
        }
        assert_eq!(self.tags.len(), attempts, "tags of attempts that are not remembered");
        assert!(self.strays.len() <= self.stray_order.len(), "a stray that is never forgotten");
    }

    /// A path is gone: no attempt may refer to its place any more.
    pub fn forget_path(&mut self, path: PathId) {
        for (_, frame) in &mut self.frames {
            for attempt in frame.attempts.iter_mut().flatten().filter(|c| c.path == Some(path)) {
                attempt.path = None;
                attempt.place = Place::Outside;
            }
        }
        for stray in self.strays.values_mut().filter(|s| s.path == Some(path)) {
            stray.path = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PathId = PathId(0);

    #[test]
    fn every_copy_has_its_own_tag_with_the_top_bit() {
        let mut f = Flight::new(TagSpace::new(63), u32::MAX - 5);
        let id = f.create(Work::Flush { req: 0, ext: true }, Sector(0), 0);
        let mut seen = Vec::new();
        for i in 0..20 {
            f.ground(id);
            let tag = f.depart(id, P, Place::Outside, Time(i), Time(i + 1));
            assert!(tag.is_ours() && tag.0 != u32::MAX);
            assert!(!seen.contains(&tag));
            seen.push(tag);
        }
        assert!(matches!(f.owner(seen[19]), Some(Owner::Frame(..))));
        assert!(f.owner(seen[0]).is_none(), "only the newest attempts are tracked");
        assert_eq!(f.unanswered(id, None), (REMEMBERED as u32, true));
        f.settle(id, Some(seen[19]), None, Time(100));
        assert!(f.owner(seen[19]).is_none());
        assert!(matches!(f.owner(seen[18]), Some(Owner::Stray(_))));
        assert_eq!(f.len(), 0);
    }

    #[test]
    fn spaces_never_meet_and_wrap() {
        let (a, b) = (TagSpace::new(3), TagSpace::new(4));
        for counter in [0, 1, (1 << COUNTER_BITS) - 1, 1 << COUNTER_BITS, u32::MAX] {
            assert!(a.contains(a.tag(counter)) && !b.contains(a.tag(counter)));
            assert!(a.tag(counter).is_ours());
            assert_ne!(TagSpace::new(63).tag(counter).0, u32::MAX);
        }
    }

    #[test]
    fn a_tag_that_left_is_told_from_one_that_did_not() {
        for (space, seed) in [(0, 7), (63, (1 << COUNTER_BITS) - 4)] {
            let space = TagSpace::new(space);
            let mut f = Flight::new(space, seed);
            assert!(!f.left_lately(space.tag(seed)), "the predecessor's, perhaps");
            let leave = |f: &mut Flight| {
                let id = f.create(Work::Flush { req: 0, ext: true }, Sector(0), 0);
                let tag = f.depart(id, P, Place::Outside, Time(0), Time(1));
                f.settle(id, Some(tag), None, Time(0));
                tag
            };
            let left: Vec<Tag> = (0..6).map(|_| leave(&mut f)).collect();
            assert!(left.iter().all(|tag| f.owner(*tag).is_none() && f.left_lately(*tag)));
            let others = [Tag(0), Tag(left[5].0 ^ 1 << 24), Tag(left[5].0 ^ 1 << 26), space.tag(seed)];
            assert!(others.iter().all(|tag| !f.left_lately(*tag)), "{space:?} {seed}");
            for _ in 0..LATELY {
                leave(&mut f);
            }
            assert!(!f.left_lately(left[0]), "long ago");
        }
    }

    #[test]
    fn strays_are_bounded() {
        let mut f = Flight::new(TagSpace::new(0), 1);
        for i in 0..3 * STRAYS_MAX as u64 {
            let id = f.create(Work::Flush { req: 0, ext: true }, Sector(0), 0);
            f.depart(id, P, Place::Outside, Time(i), Time::NEVER);
            f.settle(id, None, None, Time(i));
        }
        assert!(f.strays.len() <= STRAYS_MAX);
        assert!(f.tags.is_empty());
    }
}
