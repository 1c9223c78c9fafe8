//! One way to a target: a local netlink and one of the target's MACs, with everything that is learnt about it.
//!
//! A path knows the order in which its attempts left. An answer to a younger attempt says that the older ones are
//! probably lost, long before a timer would (reordering is allowed three places).

use std::collections::VecDeque;
use std::time::Duration;

use super::ids::{FrameId, Identity, NetId};
use super::ladder::Ladder;
use super::rtt::Rtt;
use super::settings::Settings;
use super::stats::Histogram;
use super::time::Time;
use super::window::Window;
use crate::wire::{Mac, Unusable};

/// Younger attempts of the same path that must be answered before an older one counts as overtaken (TCP's three).
const OVERTAKEN: u32 = 3;
/// An attempt that fewer than these have overtaken must be later by this much more: with few frames outstanding there
/// are no three.
const FEW: Duration = Duration::from_micros(500);
/// How much later than the mean round trip an overtaken attempt must be, in quarters of it, at first and at most.
/// Targets and switches change the order. Four round trips are still far less than a timeout.
const TOLERANCE_FIRST: u32 = 1;
const TOLERANCE_LAST: u32 = 12;
/// Losses by overtaking, none of them wrong, after which the tolerance shrinks again (RFC 8985's persistence).
const JUDGED_WELL: u32 = 16;
/// If nothing is answered for two round trips, four deviations and this long, one attempt is sent again. The sweeper
/// wakes this often while frames fly, so it is short only for a while ([`LOSSY`]) after a loss.
const TAIL: Duration = Duration::from_millis(1);
const TAIL_CALM: Duration = Duration::from_millis(5);
const LOSSY: Duration = Duration::from_secs(1);
/// How many times that is done, each time after twice as long a silence.
pub const TAILS: u8 = 3;
/// The longest timeout that a frame gets because others expired: however many did, one frame asks this often whether
/// its path carries data again.
const HINT_MAX: Duration = Duration::from_secs(1);
/// Expiries without an answer in between after which a path is silent, where another could carry its work.
const SILENT: u32 = 2;
/// First and last distance of the probes that ask a silent path whether it is back.
const PROBE_FIRST: Duration = Duration::from_secs(1);
const PROBE_LAST: Duration = Duration::from_secs(60);

/// May this path carry work?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// New: it must answer IDENTIFY with the target's identity first.
    Proving,
    /// It carries work.
    Active,
    /// It went silent while others did not: only probes until it answers.
    Tainted,
}

/// Counters of one path since it was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Frames sent, every attempt counted.
    pub sent: u64,
    /// Valid answers received over it.
    pub answered: u64,
    /// Attempts sent because an earlier attempt was lost or late.
    pub resent: u64,
    /// Attempts declared lost because younger ones were answered first.
    pub overtaken: u64,
    /// Attempts declared lost by the timer.
    pub expired: u64,
    /// Answers to attempts that had been given up.
    pub late: u64,
    /// Bytes of data read and written over it.
    pub bytes: u64,
    /// Round trips of frames that read, wrote and flushed, in the order of `Op::ALL`: from the departure of an
    /// attempt to the first answer to it. A request's latency also has the waiting here; the difference is the
    /// queue.
    pub trips: [Histogram; 3],
}

/// How an attempt counts in its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Outside the window.
    Outside,
    /// In the window, but not overtaken by what is answered faster.
    Unordered,
    /// In the window and in the order of departures.
    Ordered(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Flying,
    Answered,
    Settled,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    frame: FrameId,
    at: Time,
    fate: Fate,
}

/// When an answer came to an attempt that had been given up, and when the youngest attempt left that was answered so.
#[derive(Clone, Copy, Debug)]
struct Late {
    at: Time,
    sent: Time,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Path {
    /// The local end.
    pub net: NetId,
    /// The target's end.
    pub mac: Mac,
    /// May it carry work?
    pub trust: Trust,
    /// It was only announced: it gives way to one that answers a query.
    pub only_announced: bool,
    /// It carried an announcement of a target that is known, and that is not believed yet.
    pub announcement_waits: bool,
    /// Is the netlink up?
    pub up: bool,
    /// The netlink's MTU, in Linux's sense.
    pub mtu: usize,
    /// Sectors a frame that the target advertised here; what it said, not what we use.
    pub advertised: u8,
    /// Round-trip time.
    pub rtt: Rtt,
    /// Congestion window.
    pub window: Window,
    /// The frame size that is known to pass.
    pub ladder: Ladder,
    /// Counters.
    pub stats: PathStats,
    /// When it last answered.
    pub last_heard: Time,
    /// When the next probe of a silent path is due.
    pub probe_at: Time,
    /// The largest size that the `probe` command found to pass both ways, and the size it asks for now.
    pub probed: Option<u8>,
    /// See `probed`.
    pub probing: Option<u8>,
    /// What its last IDENTIFY said and when, if that was not the disk that we know.
    pub odd: Option<(Result<Identity, Unusable>, Time)>,
    probe_interval: Duration,
    silent_expiries: u32,
    order: VecDeque<Sent>,
    first: u64,
    younger_answers: u32,
    /// Since an answer came over this path: the largest number of times that one frame expired here.
    worst_expiries: u8,
    /// Attempts sent again because nothing came, since something did, and when the last one was.
    tails: u8,
    tailed_at: Time,
    /// When an attempt was lost here last.
    lost_at: Option<Time>,
    /// The last answer to an attempt that had been given up.
    late: Option<Late>,
    /// How much later than the mean an overtaken attempt may be, in quarters of the mean; what proved wrong raises
    /// it.
    tolerance: u32,
    /// Losses by overtaking since the tolerance proved too small.
    well_judged: u32,
}

impl Path {
    /// A path that was just heard of.
    pub fn new(net: NetId, mac: Mac, mtu: usize, advertised: u8, trust: Trust, now: Time) -> Path {
        Path {
            net,
            mac,
            trust,
            only_announced: false,
            announcement_waits: false,
            up: true,
            mtu,
            advertised,
            rtt: Rtt::default(),
            window: Window::default(),
            ladder: Ladder::default(),
            stats: PathStats::default(),
            last_heard: now,
            probe_at: Time::NEVER,
            probed: None,
            probing: None,
            odd: None,
            probe_interval: PROBE_FIRST,
            silent_expiries: 0,
            order: VecDeque::new(),
            first: 0,
            younger_answers: 0,
            worst_expiries: 0,
            tails: 0,
            tailed_at: Time::default(),
            lost_at: None,
            late: None,
            tolerance: TOLERANCE_FIRST,
            well_judged: 0,
        }
    }

    /// Can it carry new work?
    pub fn usable(&self) -> bool {
        self.up && self.trust == Trust::Active
    }

    /// Sectors a frame over this path, as MTU, advertisement and the operator allow.
    pub fn most_sectors(&self, settings: &Settings) -> u8 {
        settings.sectors(self.mtu, self.advertised)
    }

    /// The same, as far as loss does not speak against it.
    pub fn sectors(&self, settings: &Settings) -> u8 {
        self.most_sectors(settings).min(self.ladder.cap()).max(1)
    }

    /// The sequence number that the next attempt will get.
    pub fn next_seq(&self) -> u64 {
        self.first + self.order.len() as u64
    }

    /// An attempt that counts against the window leaves now, in order unless it is slow by nature.
    pub fn depart(&mut self, frame: FrameId, ordered: bool, now: Time) -> Place {
        self.window.sent();
        if !ordered {
            return Place::Unordered;
        }
        let seq = self.next_seq();
        self.order.push_back(Sent { frame, at: now, fate: Fate::Flying });
        Place::Ordered(seq)
    }

    /// Does the attempt of this frame that flies hold this place here? Outside the window there is none to hold.
    pub fn holds(&self, place: Place, frame: FrameId) -> bool {
        let Place::Ordered(seq) = place else { return true };
        let index = seq.checked_sub(self.first).map(|index| index as usize);
        let sent = index.and_then(|index| self.order.get(index));
        sent.is_some_and(|sent| sent.frame == frame && sent.fate == Fate::Flying)
    }

    /// Attempts that fly in the order of departures.
    pub fn flying(&self) -> usize {
        self.order.iter().filter(|sent| sent.fate == Fate::Flying).count()
    }

    /// True if the attempt held a place in the window until now.
    fn settle(&mut self, place: Place, fate: Fate) -> bool {
        let seq = match place {
            Place::Outside => return false,
            Place::Unordered => return true,
            Place::Ordered(seq) => seq,
        };
        let Some(index) = seq.checked_sub(self.first) else { return false };
        let Some(sent) = self.order.get_mut(index as usize) else { return false };
        if sent.fate != Fate::Flying {
            return false;
        }
        sent.fate = fate;
        if fate == Fate::Answered {
            self.younger_answers += 1;
        }
        self.forget_settled();
        true
    }

    fn forget_settled(&mut self) {
        while let Some(sent) = self.order.front() {
            match sent.fate {
                Fate::Flying => return,
                Fate::Answered => self.younger_answers -= 1,
                Fate::Settled => {}
            }
            self.order.pop_front();
            self.first += 1;
        }
    }

    /// The flying attempt at `place` was answered; `limit` is what the target's buffers allow.
    pub fn arrive(&mut self, place: Place, limit: u32) {
        // Only for data: a target that answers IDENTIFY and no reads would be asked for its last frames for ever.
        if place != Place::Outside {
            self.tails = 0;
            self.worst_expiries = 0;
        }
        if self.settle(place, Fate::Answered) {
            self.window.answered(limit);
        }
    }

    /// How long an attempt of a frame that expired so often may stay unanswered. While no frame is answered, none
    /// begins with the shortest timeout: pieces of one frame, or one frame after the other, would be more and more
    /// attempts to a target that answers nothing.
    pub fn patience(&self, expiries: u8) -> Duration {
        self.rtt.backed_off(expiries).max(self.rtt.backed_off(self.worst_expiries).min(HINT_MAX))
    }

    /// A frame that brings data or takes it expired here, `expiries` times in all.
    pub fn unanswered(&mut self, expiries: u8) {
        self.worst_expiries = self.worst_expiries.max(expiries);
    }

    /// The target or the link came back: what it took before means nothing.
    pub fn restart(&mut self) {
        self.rtt.reset();
        self.window.restart();
        self.worst_expiries = 0;
    }

    /// The flying attempt at `place` no longer matters.
    pub fn cancel(&mut self, place: Place) {
        if self.settle(place, Fate::Settled) {
            self.window.released();
        }
    }

    /// The flying attempt at `place` is lost; `early`: as younger answers say, not the timer.
    pub fn lose(&mut self, place: Place, early: bool) {
        let next = self.next_seq();
        if self.settle(place, Fate::Settled) {
            let seq = if let Place::Ordered(seq) = place { seq } else { next };
            self.window.lost(seq, next, early);
        }
    }

    /// When the oldest flying attempt counts as overtaken, if any younger one was answered.
    pub fn overtaken_at(&self) -> Option<Time> {
        if self.younger_answers == 0 {
            return None;
        }
        let oldest = self.order.front()?;
        let mean = self.rtt.smoothed().unwrap_or_else(|| self.rtt.timeout());
        let mut due = mean + mean * self.tolerance / 4;
        if self.younger_answers < OVERTAKEN {
            due += mean + self.rtt.deviation() * 4 + FEW;
        }
        Some(oldest.at + due + Duration::from_micros(1))
    }

    /// The oldest flying frame, if younger ones were answered and its answer is overdue. The caller must
    /// settle its attempt before asking again.
    pub fn overtaken(&self, now: Time) -> Option<FrameId> {
        if self.overtaken_at()? > now {
            return None;
        }
        self.order.front().map(|oldest| oldest.frame)
    }

    /// When one attempt is sent again because nothing at all was answered for longer than it should take. No younger
    /// frames can show that the last frames out are lost, and the timer is a hundred round trips away on a LAN.
    /// `tails`: how often that happened to the oldest frame, which is the one.
    pub fn tail_at(&self, tails: u8) -> Option<Time> {
        let tails = tails.max(self.tails);
        if self.younger_answers > 0 || tails >= TAILS {
            return None;
        }
        let since = self.order.back()?.at.max(self.last_heard).max(self.tailed_at);
        let calm = self.lost_at.is_none_or(|lost| since.since(lost) > LOSSY);
        let slack = if calm { TAIL_CALM.max(self.rtt.pause()) } else { TAIL };
        let wait = (self.rtt.smoothed()? * 2 + self.rtt.deviation() * 4 + slack) * (1 << tails);
        (wait < self.rtt.timeout()).then_some(since + wait)
    }

    /// An attempt was lost and was found only by its timeout: for a while the next one need not be.
    pub fn lossy(&mut self, now: Time) {
        self.lost_at = Some(now);
    }

    /// The oldest flying frame is sent again now because nothing was answered.
    pub fn tailed(&mut self, now: Time) {
        self.tails += 1;
        self.tailed_at = now;
        self.lost_at = Some(now);
    }

    /// The oldest flying frame.
    pub fn oldest(&self) -> Option<FrameId> {
        self.order.front().map(|oldest| oldest.frame)
    }

    /// An attempt was given up because younger ones were answered.
    pub fn overtook(&mut self, now: Time) {
        self.lost_at = Some(now);
        self.stats.overtaken += 1;
        self.well_judged += 1;
        if self.well_judged >= JUDGED_WELL {
            self.well_judged = 0;
            self.tolerance = (self.tolerance - 1).max(TOLERANCE_FIRST);
        }
    }

    /// An attempt that left at `sent` and had been given up was answered: it was only late. The window was made smaller
    /// for nothing, unless the attempt was outside of it.
    pub fn late(&mut self, place: Place, sent: Time, now: Time) {
        self.stats.late += 1;
        if place == Place::Outside {
            return;
        }
        self.well_judged = 0;
        self.tolerance = (self.tolerance + 1).min(TOLERANCE_LAST);
        // Nothing says that this network loses frames: the next silence may be a pause, too.
        self.lost_at = None;
        let before = self.late.map_or(sent, |late| late.sent);
        self.late = Some(Late { at: now, sent: sent.max(before) });
        self.window.forgive();
    }

    /// Until when the answer of an attempt is likely to come although it expired: the target only paused, and answers
    /// now what it got meanwhile, in order. None: an answer of a younger attempt is there already, or none came late.
    pub fn answers_until(&self, sent: Time) -> Option<Time> {
        self.late.filter(|late| sent >= late.sent).map(|late| late.at + TAIL_CALM)
    }

    /// Something valid came back over this path.
    pub fn heard(&mut self, now: Time) {
        self.last_heard = now;
        self.silent_expiries = 0;
        self.probe_interval = PROBE_FIRST;
        self.probe_at = Time::NEVER;
        if self.trust == Trust::Tainted {
            self.trust = Trust::Active;
        }
    }

    /// An attempt expired here. True if the path has now been silent for long enough to move its work elsewhere.
    pub fn expired(&mut self) -> bool {
        self.stats.expired += 1;
        self.silent_expiries += 1;
        self.silent_expiries >= SILENT
    }

    /// No new work until it answers a probe.
    pub fn taint(&mut self, now: Time) {
        self.trust = Trust::Tainted;
        self.probe_interval = PROBE_FIRST;
        self.probe_at = now + self.probe_interval;
    }

    /// A probe leaves; the next one waits longer.
    pub fn probed(&mut self, now: Time) {
        self.probe_interval = (self.probe_interval * 2).min(PROBE_LAST);
        self.probe_at = now + self.probe_interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path::new(NetId(0), Mac([2, 0, 0, 0, 0, 1]), 1500, 2, Trust::Active, Time(0))
    }

    #[test]
    fn three_younger_answers_overtake_soon_and_one_later() {
        let mut p = path();
        p.rtt.sample(Time(0), Duration::from_micros(100));
        let seqs: Vec<Place> = (0..5).map(|i| p.depart(FrameId(i), true, Time(u64::from(i)))).collect();
        assert_eq!(p.overtaken(Time(9000)), None, "nothing says that it is lost");
        p.arrive(seqs[1], 16);
        p.arrive(seqs[2], 16);
        // A round trip and a quarter, one more, four deviations of 50 µs, and FEW.
        assert_eq!(p.overtaken_at(), Some(Time(125 + 100 + 200 + 500 + 1)));
        assert_eq!(p.overtaken(Time(900)), None);
        assert_eq!(p.overtaken(Time(1000)), Some(FrameId(0)));
        p.arrive(seqs[3], 16);
        assert_eq!(p.overtaken(Time(50)), None, "younger than a round trip");
        assert_eq!(p.overtaken(Time(130)), Some(FrameId(0)));
        p.lose(seqs[0], true);
        assert_eq!(p.overtaken(Time(9000)), None, "frame 4 has nothing younger");
        p.arrive(seqs[4], 16);
        assert_eq!(p.window.inflight(), 0);
        assert!(p.order.is_empty());
    }

    #[test]
    fn what_was_only_late_makes_patient_and_gives_the_window_back() {
        let mut p = path();
        p.rtt.sample(Time(0), Duration::from_micros(100));
        // Above what early loss leaves.
        let first: Vec<Place> = (100..116).map(|i| p.depart(FrameId(i), true, Time(0))).collect();
        for place in first {
            p.arrive(place, 16);
        }
        let size = p.window.size();
        assert_eq!(size, 16);
        let old = p.depart(FrameId(0), true, Time(0));
        for i in 1..4 {
            let seq = p.depart(FrameId(i), true, Time(0));
            p.arrive(seq, 16);
        }
        assert!(p.overtaken(Time(130)).is_some());
        p.overtook(Time(2000));
        p.lose(old, true);
        assert_eq!(p.window.size(), size / 2);
        p.late(Place::Outside, Time(0), Time(0));
        assert_eq!(p.window.size(), size / 2, "a probe says nothing about what was given up");
        p.late(old, Time(0), Time(0));
        assert_eq!(p.window.size(), size);
        let old = p.depart(FrameId(4), true, Time(1000));
        for i in 5..8 {
            let seq = p.depart(FrameId(i), true, Time(1000));
            p.arrive(seq, 16);
        }
        assert_eq!(p.overtaken(Time(1130)), None, "it waits longer now");
        p.cancel(old);
        for _ in 0..JUDGED_WELL * TOLERANCE_LAST {
            p.overtook(Time(2000));
        }
        assert_eq!(p.tolerance, TOLERANCE_FIRST);
    }

    #[test]
    fn the_tail_is_awaited_closely_only_after_a_loss() {
        let mut p = path();
        assert_eq!(p.tail_at(0), None, "nothing flies");
        p.rtt.sample(Time(0), Duration::from_micros(100));
        let place = p.depart(FrameId(0), true, Time(0));
        // Two round trips and four deviations of 50 µs.
        assert_eq!(p.tail_at(0), Some(Time(400 + 5000)));
        assert_eq!(p.tail_at(TAILS), None, "then it is the timer's");
        p.tailed(Time(5400));
        assert_eq!(p.tail_at(0), Some(Time(5400 + 2 * (400 + 1000))), "twice as long each time");
        p.heard(Time(6000));
        assert_eq!(p.tail_at(0), Some(Time(6000 + 2 * (400 + 1000))), "an answer to something else");
        p.arrive(place, 8);
        p.depart(FrameId(1), true, Time(2_000_000));
        assert_eq!(p.tail_at(0), Some(Time(2_000_000 + 400 + 5000)), "calm again");
    }

    #[test]
    fn settling_twice_counts_once() {
        let mut p = path();
        let seq = p.depart(FrameId(7), true, Time(0));
        p.lose(seq, false);
        p.arrive(seq, 16);
        p.cancel(seq);
        assert_eq!(p.window.inflight(), 0);
    }
}
