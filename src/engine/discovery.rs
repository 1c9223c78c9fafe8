//! From an address that answered to a device: broadcast queries, candidates, their first IDENTIFY.
//!
//! Any host on the segment can announce 65,536 shelves. A candidate costs little, there are at most
//! [`CANDIDATES_MAX`], few of them are asked at a time, and one that does not answer IDENTIFY is forgotten.
//!
//! An answer to a query of ours beats an announcement: it takes the address over from an announcement of another
//! MAC, is asked before the addresses that were only announced, and has room of its own in the table. A MAC that
//! answers nothing keeps no other one away from its address: the next MAC that spoke for the address is asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::device::Birth;
use super::flight::TagSpace;
use super::ids::NetId;
use super::time::Time;
use super::transmit::{Payload, Transmit, padded};
use crate::wire::{Addr, Ata, CONFIG_LEN, Command, Config, Header, IDENTIFY_LEN, Identify, Mac, Tag, Verb};

/// Addresses that only announced themselves and are not devices: as many as there may be targets.
pub const ANNOUNCED_MAX: usize = 4096;
/// Addresses that have answered or announced themselves and are not devices: announcements leave room for as many
/// answers.
pub const CANDIDATES_MAX: usize = 2 * ANNOUNCED_MAX;
/// Questions outstanding on one netlink (docs/design.md#discovery): more would overflow a buffer on the way.
const ASKING_MAX: usize = 64;
/// How many of them may go to addresses that only announced themselves: a forged one does not answer, and takes 8 s.
const ASKING_ANNOUNCED: usize = 48;
/// Ways to one candidate that are remembered besides the first.
const MORE_MAX: usize = 8;
/// A candidate that has not become a device is forgotten after this.
const FORGET: Duration = Duration::from_secs(60);
/// How long a broadcast query's tag is good: rediscovery is every 30 s.
const QUERY_LIFE: Duration = Duration::from_secs(10);
/// The first distance between two attempts of a question; it doubles.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Attempts of a question before the candidate is left alone until it speaks again.
const ATTEMPTS: u32 = 5;

/// A target that has shown who it is.
#[derive(Debug)]
pub struct Found {
    /// What a device is made of.
    pub birth: Birth,
    /// Other ways to it that were heard of meanwhile: netlink, MAC, MTU, advertised sectors.
    pub more: Vec<(NetId, Mac, usize, u8)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It only announced itself: its limits are asked for first, since any host can have written those of an
    /// announcement.
    Limits,
    /// Its limits are known; IDENTIFY asks which disk it is.
    Identity,
    /// It did not answer.
    Quiet,
}

#[derive(Debug)]
struct Candidate {
    net: NetId,
    mac: Mac,
    mtu: usize,
    buffers: u16,
    fw: u16,
    advertised: u8,
    config: Vec<u8>,
    more: Vec<(NetId, Mac, usize, u8)>,
    stage: Stage,
    /// It answered a question of ours; otherwise it only announced itself.
    answered: bool,
    /// The tags of this stage's attempts; the answer to any is good.
    tags: Vec<Tag>,
    asked: u32,
    due: Time,
    forget_at: Time,
}

impl Candidate {
    fn way(&self) -> (NetId, Mac) {
        (self.net, self.mac)
    }

    /// It is spoken to by this way from now on.
    fn take_way(&mut self, (net, mac, mtu, advertised): (NetId, Mac, usize, u8)) {
        (self.net, self.mac, self.mtu, self.advertised) = (net, mac, mtu, advertised);
        self.more.retain(|m| (m.0, m.1) != (net, mac));
    }
}

/// Candidates of one kind on one netlink.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Addr>,
    asking: Vec<Addr>,
}

/// Whose turn it is on one netlink.
#[derive(Debug, Default)]
struct Turns {
    /// Those that answered a question of ours: they come first.
    answered: Lane,
    /// Those that only announced themselves: at most [`ASKING_ANNOUNCED`] are asked at a time.
    announced: Lane,
}

impl Turns {
    fn lane(&mut self, answered: bool) -> &mut Lane {
        if answered { &mut self.answered } else { &mut self.announced }
    }

    fn asking(&self) -> impl Iterator<Item = &Addr> {
        self.answered.asking.iter().chain(&self.announced.asking)
    }

    /// The candidate whose turn it is, if one may be asked now.
    fn next(&mut self) -> Option<Addr> {
        if self.answered.asking.len() + self.announced.asking.len() >= ASKING_MAX {
            return None;
        }
        let room = self.announced.asking.len() < ASKING_ANNOUNCED;
        self.answered
            .waiting
            .pop_front()
            .or_else(|| room.then(|| self.announced.waiting.pop_front()).flatten())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Discovery {
    candidates: HashMap<Addr, Candidate>,
    /// How many of them only announced themselves.
    announced: usize,
    /// The candidates that wait for their turn to be asked and those that are being asked, by netlink: so that an
    /// answer costs the same however many there are.
    turns: BTreeMap<NetId, Turns>,
    queries: VecDeque<(Tag, NetId, Time)>,
    space: TagSpace,
    counter: u32,
    /// Candidates that were not taken for want of room.
    pub refused: u64,
    /// Not later than the first that is forgotten.
    forget_at: Time,
    timer: Time,
}

/// When a candidate that comes now is forgotten: together with all others of its second.
fn forgotten_at(now: Time) -> Time {
    Time((now + FORGET).0.next_multiple_of(1_000_000))
}

impl Discovery {
    /// `seed` is random and makes the first tag.
    pub fn new(space: TagSpace, seed: u32) -> Discovery {
        Discovery {
            candidates: HashMap::new(),
            announced: 0,
            turns: BTreeMap::new(),
            queries: VecDeque::new(),
            space,
            counter: seed,
            refused: 0,
            forget_at: Time::NEVER,
            timer: Time::NEVER,
        }
    }

    /// Addresses that are known and are not devices.
    pub fn candidates(&self) -> usize {
        self.candidates.len()
    }

    /// When [`Discovery::sweep`] must be called, at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        (self.timer != Time::NEVER).then_some(self.timer)
    }

    fn tag(&mut self) -> Tag {
        self.counter = self.counter.wrapping_add(1);
        self.space.tag(self.counter)
    }

    /// A config query to everybody on a netlink, or to one address, or to one shelf.
    pub fn query(&mut self, now: Time, net: NetId, whom: Addr, frames: &mut Vec<Transmit>) {
        let tag = self.tag();
        while self.queries.front().is_some_and(|q| q.2 <= now) {
            self.queries.pop_front();
        }
        self.queries.push_back((tag, net, now + QUERY_LIFE));
        frames.push(Transmit {
            net,
            dst: Mac::BROADCAST,
            addr: whom,
            tag,
            command: Command::Config,
            ata: None,
            payload: padded(CONFIG_LEN, |out| Config::request(Verb::Read, &[]).emit(out)),
        });
    }

    /// Is this config reply the answer to a query of ours that went to all?
    pub fn solicited(&self, now: Time, net: NetId, tag: Tag) -> bool {
        self.queries.iter().any(|q| q.0 == tag && q.1 == net && q.2 > now)
    }

    /// A config reply or an announcement came from an address that is no device.
    pub fn heard(
        &mut self,
        now: Time,
        net: NetId,
        mtu: usize,
        header: &Header,
        config: &Config<'_>,
        frames: &mut Vec<Transmit>,
    ) {
        let (addr, mac) = (header.addr, header.src);
        // Shelf 0xfff is a shelf with all switches set that was never configured.
        if addr.is_wildcard() || addr.shelf.0 == 0xfff || !mac.is_unicast() {
            return;
        }
        let asked = self.solicited(now, net, header.tag)
            || self
                .candidates
                .get(&addr)
                .is_some_and(|c| c.stage == Stage::Limits && c.tags.contains(&header.tag));
        if !asked && !header.is_announcement() {
            // The answer to another initiator of this host.
            return;
        }
        if !self.note(now, addr, (net, mac, mtu, config.sectors), asked) {
            return;
        }
        let Some(c) = self.candidates.get_mut(&addr) else { return };
        if asked {
            c.buffers = config.buffers;
            c.fw = config.firmware;
            c.advertised = config.sectors;
            c.config = config.string.to_vec();
            c.forget_at = forgotten_at(now);
        }
        c.stage = if asked { Stage::Identity } else { Stage::Limits };
        let at = c.forget_at;
        self.forget_at = self.forget_at.min(at);
        self.timer = self.timer.min(at);
        self.line_up(addr);
        self.ask_more(now, net, frames);
    }

    /// Notes a way to an address. True: the candidate is asked anew, by this way.
    fn note(&mut self, now: Time, addr: Addr, way: (NetId, Mac, usize, u8), asked: bool) -> bool {
        let room = self.has_room(asked);
        match self.candidates.get_mut(&addr) {
            None if !room => {
                self.refused += 1;
                return false;
            }
            None => self.add(now, addr, way, asked),
            Some(c) => {
                let same = c.way() == (way.0, way.1);
                match c.stage {
                    Stage::Quiet => {}
                    _ if !asked => return false,
                    Stage::Limits if same || !c.answered => {}
                    _ if same => return false,
                    _ => {
                        if c.more.len() < MORE_MAX && !c.more.iter().any(|m| (m.0, m.1) == (way.0, way.1)) {
                            c.more.push(way);
                        }
                        return false;
                    }
                }
                let answered = asked || (same && c.answered);
                if !answered && c.answered && self.announced >= ANNOUNCED_MAX {
                    self.refused += 1;
                    return false;
                }
                self.stop_asking(addr);
                self.turn_to(addr, way, answered);
            }
        }
        true
    }

    fn has_room(&self, answered: bool) -> bool {
        self.candidates.len() < CANDIDATES_MAX && (answered || self.announced < ANNOUNCED_MAX)
    }

    fn add(&mut self, now: Time, addr: Addr, way: (NetId, Mac, usize, u8), answered: bool) {
        let (net, mac, mtu, advertised) = way;
        self.announced += usize::from(!answered);
        let candidate = Candidate {
            net,
            mac,
            mtu,
            buffers: 0,
            fw: 0,
            advertised,
            config: Vec::new(),
            more: Vec::new(),
            stage: Stage::Quiet,
            answered,
            tags: Vec::new(),
            asked: 0,
            due: Time::NEVER,
            forget_at: forgotten_at(now),
        };
        self.candidates.insert(addr, candidate);
    }

    /// A candidate that is not being asked is asked by this way from now on. `answered`: it answered there.
    fn turn_to(&mut self, addr: Addr, way: (NetId, Mac, usize, u8), answered: bool) {
        let Some(c) = self.candidates.get_mut(&addr) else { return };
        self.announced += usize::from(c.answered);
        self.announced -= usize::from(answered);
        c.answered = answered;
        c.take_way(way);
    }

    /// The candidate's next question is sent when it is its turn.
    fn line_up(&mut self, addr: Addr) {
        if let Some(c) = self.candidates.get_mut(&addr) {
            c.asked = 0;
            c.tags.clear();
            self.turns.entry(c.net).or_default().lane(c.answered).waiting.push_back(addr);
        }
    }

    /// Neither waits for its turn nor for an answer.
    fn stop_asking(&mut self, addr: Addr) {
        if let Some(c) = self.candidates.get_mut(&addr)
            && c.stage != Stage::Quiet
            && let Some(turns) = self.turns.get_mut(&c.net)
        {
            let lane = turns.lane(c.answered);
            match c.asked {
                0 => lane.waiting.retain(|waiting| *waiting != addr),
                _ => lane.asking.retain(|asked| *asked != addr),
            }
            c.asked = 0;
            c.due = Time::NEVER;
        }
    }

    /// It does not answer, or not with what it should: the next MAC that answered for this address is asked, if
    /// there is one.
    fn give_up(&mut self, now: Time, addr: Addr, frames: &mut Vec<Transmit>) {
        self.stop_asking(addr);
        let Some(c) = self.candidates.get_mut(&addr) else { return };
        c.stage = Stage::Quiet;
        let Some(next) = c.more.first().copied() else { return };
        c.stage = Stage::Limits;
        self.turn_to(addr, next, true);
        self.line_up(addr);
        self.ask_more(now, next.0, frames);
    }

    /// Asks candidates that wait for their turn on a netlink, as far as there is room.
    fn ask_more(&mut self, now: Time, net: NetId, frames: &mut Vec<Transmit>) {
        while let Some(turns) = self.turns.get_mut(&net)
            && let Some(addr) = turns.next()
        {
            let wanted = |c: &&Candidate| c.net == net && c.stage != Stage::Quiet && c.asked == 0;
            if let Some(c) = self.candidates.get(&addr).filter(wanted) {
                turns.lane(c.answered).asking.push(addr);
                self.ask(now, addr, frames);
            }
        }
    }

    fn ask(&mut self, now: Time, addr: Addr, frames: &mut Vec<Transmit>) {
        let tag = self.tag();
        let Some(c) = self.candidates.get_mut(&addr) else { return };
        c.tags.push(tag);
        c.due = now + ASK_AGAIN * (1 << c.asked.min(8));
        c.asked += 1;
        self.timer = self.timer.min(c.due);
        let (command, ata, payload) = match c.stage {
            Stage::Limits => {
                (Command::Config, None, padded(CONFIG_LEN, |out| Config::request(Verb::Read, &[]).emit(out)))
            }
            _ => (Command::Ata, Some(Ata::identify()), Payload::None),
        };
        frames.push(Transmit { net: c.net, dst: c.mac, addr, tag, command, ata, payload });
    }

    /// An ATA answer came from an address that is no device: a candidate's IDENTIFY, perhaps.
    pub fn identified(
        &mut self,
        now: Time,
        header: &Header,
        body: &[u8],
        seed: u32,
        frames: &mut Vec<Transmit>,
    ) -> Option<Found> {
        let addr = header.addr;
        let c = self.candidates.get(&addr)?;
        if c.stage != Stage::Identity || !c.tags.contains(&header.tag) || c.mac != header.src {
            return None;
        }
        if header.error.is_some() {
            return None;
        }
        let (ata, data) = Ata::parse(body).ok()?;
        let raw = data.get(..IDENTIFY_LEN)?;
        if ata.failed() {
            return None;
        }
        let (parsed, net) = (Identify::parse(raw), c.net);
        let found = match parsed {
            Err(_) => {
                self.give_up(now, addr, frames);
                None
            }
            Ok(identify) => self.take(addr).map(|c| {
                let mut ident = Box::new([0; IDENTIFY_LEN]);
                ident.copy_from_slice(raw);
                Found {
                    birth: Birth {
                        addr,
                        net: c.net,
                        mtu: c.mtu,
                        mac: c.mac,
                        buffers: c.buffers,
                        fw: c.fw,
                        advertised: c.advertised,
                        config: c.config,
                        ident,
                        identify,
                        seed,
                        space: self.space,
                    },
                    more: c.more,
                }
            }),
        };
        self.ask_more(now, net, frames);
        found
    }

    /// Takes a candidate out that is being asked.
    fn take(&mut self, addr: Addr) -> Option<Candidate> {
        self.stop_asking(addr);
        let c = self.candidates.remove(&addr)?;
        self.announced -= usize::from(!c.answered);
        Some(c)
    }

    /// Repeats what was not answered, and forgets candidates that said nothing more.
    pub fn sweep(&mut self, now: Time, frames: &mut Vec<Transmit>) {
        if now < self.timer {
            return;
        }
        // Only candidates that are being asked have something due. Candidates that are forgotten go once a second,
        // all of one second together.
        let due = |addr: &Addr| self.candidates.get(addr).is_some_and(|c| c.asked > 0 && c.due <= now);
        let asking = self.turns.values().flat_map(Turns::asking);
        let due: Vec<Addr> = asking.copied().filter(|addr| due(addr)).collect();
        for addr in due {
            match self.candidates.get_mut(&addr) {
                Some(c) if c.asked >= ATTEMPTS => self.give_up(now, addr, frames),
                _ => self.ask(now, addr, frames),
            }
        }
        if self.forget_at <= now {
            self.candidates.retain(|_, c| c.forget_at > now);
            self.count();
            for lane in self.turns.values_mut().flat_map(|turns| [&mut turns.answered, &mut turns.announced])
            {
                lane.waiting.retain(|addr| self.candidates.contains_key(addr));
                lane.asking.retain(|addr| self.candidates.contains_key(addr));
            }
            self.forget_at = self.candidates.values().map(|c| c.forget_at).min().unwrap_or(Time::NEVER);
        }
        let nets: Vec<NetId> = self.turns.keys().copied().collect();
        for net in nets {
            self.ask_more(now, net, frames);
        }
        let asking = self.turns.values().flat_map(Turns::asking);
        let next = asking.filter_map(|addr| self.candidates.get(addr)).map(|c| c.due);
        self.timer = next.min().unwrap_or(Time::NEVER).min(self.forget_at);
    }

    fn count(&mut self) {
        self.announced = self.candidates.values().filter(|c| !c.answered).count();
    }

    /// A netlink is gone, and with it those that were reached by it.
    pub fn net_removed(&mut self, net: NetId) {
        self.candidates.retain(|_, c| c.net != net);
        self.count();
        for c in self.candidates.values_mut() {
            c.more.retain(|m| m.0 != net);
        }
        self.turns.remove(&net);
        self.queries.retain(|q| q.1 != net);
    }
}

#[cfg(test)]
mod tests;
