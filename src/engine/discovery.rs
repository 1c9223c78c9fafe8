//! From an address that answered to a device: broadcast queries, candidates, their first IDENTIFY.
//!
//! Anybody on the segment can announce 65,536 shelves. A candidate costs little, there are at most
//! [`CANDIDATES_MAX`], few of them are asked at a time, and one that does not answer IDENTIFY is forgotten.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::device::Birth;
use super::flight::TagSpace;
use super::path::NetId;
use super::time::Time;
use super::transmit::{Payload, Transmit, padded};
use crate::wire::{Addr, Ata, CONFIG_LEN, Command, Config, Header, IDENTIFY_LEN, Identify, Mac, Tag, Verb};

/// Addresses that have answered or announced themselves and are not devices: as many as there may be targets.
pub const CANDIDATES_MAX: usize = 4096;
/// Questions outstanding on one netlink (design.md §6): more would overflow somebody's buffers.
const ASKING_MAX: usize = 64;
/// Ways to one candidate that are remembered besides the first.
const MORE_MAX: usize = 8;
/// A candidate that has not become a device is forgotten after this.
const FORGET: Duration = Duration::from_secs(60);
/// How long a broadcast query's tag is good: rediscovery is every 30 s.
const QUERY_LIFE: Duration = Duration::from_secs(10);
/// The first distance between two copies of a question; it doubles.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Copies of a question before the candidate is left alone until it speaks again.
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
    /// It only announced itself: its limits are asked for first, since an announcement's are anybody's word.
    Limits,
    /// Its limits are known; who is it?
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
    /// The tags of this stage's copies; the answer to any is good.
    tags: Vec<Tag>,
    asked: u32,
    due: Time,
    forget_at: Time,
}

/// Whose turn it is on one netlink.
#[derive(Debug, Default)]
struct Turns {
    waiting: VecDeque<Addr>,
    /// At most [`ASKING_MAX`].
    asking: Vec<Addr>,
}

/// See the module.
#[derive(Debug)]
pub struct Discovery {
    candidates: HashMap<Addr, Candidate>,
    /// Those that wait for their turn to be asked and those that are being asked, by netlink: so that what happens to one
    /// costs the same however many there are.
    turns: HashMap<NetId, Turns>,
    queries: VecDeque<(Tag, NetId, Time)>,
    space: TagSpace,
    counter: u32,
    /// Candidates that were not taken for want of room.
    pub refused: u64,
    /// Not later than the first that is forgotten.
    forget_at: Time,
    timer: Time,
}

/// When a candidate of now is forgotten: with all others of its second.
fn forgotten_at(now: Time) -> Time {
    Time((now + FORGET).0.next_multiple_of(1_000_000))
}

impl Discovery {
    /// `seed` is random and makes the first tag.
    pub fn new(space: TagSpace, seed: u32) -> Discovery {
        Discovery {
            candidates: HashMap::new(),
            turns: HashMap::new(),
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

    /// Did we ask for this config reply, by a query to all?
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
        if let Some(c) = self.candidates.get_mut(&addr) {
            if (c.net, c.mac) != (net, mac) {
                if asked && c.more.len() < MORE_MAX && !c.more.iter().any(|m| (m.0, m.1) == (net, mac)) {
                    c.more.push((net, mac, mtu, config.sectors));
                }
                return;
            }
            match c.stage {
                Stage::Identity => return,
                Stage::Limits if !asked => return,
                Stage::Limits => self.stop_asking(addr),
                Stage::Quiet => {}
            }
        } else if self.candidates.len() >= CANDIDATES_MAX {
            self.refused += 1;
            return;
        }
        let c = self.candidates.entry(addr).or_insert_with(|| Candidate {
            net,
            mac,
            mtu,
            buffers: 0,
            fw: 0,
            advertised: 0,
            config: Vec::new(),
            more: Vec::new(),
            stage: Stage::Quiet,
            tags: Vec::new(),
            asked: 0,
            due: Time::NEVER,
            forget_at: forgotten_at(now),
        });
        if asked {
            c.buffers = config.buffers;
            c.fw = config.firmware;
            c.advertised = config.sectors;
            c.config = config.string.to_vec();
        }
        c.stage = if asked { Stage::Identity } else { Stage::Limits };
        c.asked = 0;
        c.tags.clear();
        let at = c.forget_at;
        self.forget_at = self.forget_at.min(at);
        self.timer = self.timer.min(at);
        self.turns.entry(net).or_default().waiting.push_back(addr);
        self.ask_more(now, net, frames);
    }

    fn stop_asking(&mut self, addr: Addr) {
        if let Some(c) = self.candidates.get_mut(&addr)
            && c.asked > 0
        {
            c.asked = 0;
            c.due = Time::NEVER;
            if let Some(turns) = self.turns.get_mut(&c.net) {
                turns.asking.retain(|asked| *asked != addr);
            }
        }
    }

    /// Asks those that wait for a netlink, as far as there is room.
    fn ask_more(&mut self, now: Time, net: NetId, frames: &mut Vec<Transmit>) {
        while let Some(turns) = self.turns.get_mut(&net)
            && turns.asking.len() < ASKING_MAX
            && let Some(addr) = turns.waiting.pop_front()
        {
            let wanted = |c: &&Candidate| c.net == net && c.stage != Stage::Quiet && c.asked == 0;
            if self.candidates.get(&addr).filter(wanted).is_some() {
                turns.asking.push(addr);
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
        self.stop_asking(addr);
        let found = match parsed {
            Err(_) => {
                if let Some(c) = self.candidates.get_mut(&addr) {
                    c.stage = Stage::Quiet;
                }
                None
            }
            Ok(identify) => self.candidates.remove(&addr).map(|c| {
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

    /// Repeats what was not answered and forgets who said nothing more.
    pub fn sweep(&mut self, now: Time, frames: &mut Vec<Transmit>) {
        if now < self.timer {
            return;
        }
        // Only those that are being asked have something due; those that are forgotten go once a second, all of a second together.
        let due = |addr: &Addr| self.candidates.get(addr).is_some_and(|c| c.asked > 0 && c.due <= now);
        let asking = self.turns.values().flat_map(|turns| turns.asking.iter());
        let due: Vec<Addr> = asking.copied().filter(|addr| due(addr)).collect();
        for addr in due {
            match self.candidates.get_mut(&addr) {
                Some(c) if c.asked >= ATTEMPTS => {
                    c.stage = Stage::Quiet;
                    self.stop_asking(addr);
                }
                _ => self.ask(now, addr, frames),
            }
        }
        if self.forget_at <= now {
            self.candidates.retain(|_, c| c.forget_at > now);
            for turns in self.turns.values_mut() {
                turns.waiting.retain(|addr| self.candidates.contains_key(addr));
                turns.asking.retain(|addr| self.candidates.contains_key(addr));
            }
            self.forget_at = self.candidates.values().map(|c| c.forget_at).min().unwrap_or(Time::NEVER);
        }
        let nets: Vec<NetId> = self.turns.keys().copied().collect();
        for net in nets {
            self.ask_more(now, net, frames);
        }
        let asking = self.turns.values().flat_map(|turns| turns.asking.iter());
        let next = asking.filter_map(|addr| self.candidates.get(addr)).map(|c| c.due);
        self.timer = next.min().unwrap_or(Time::NEVER).min(self.forget_at);
    }

    /// A netlink is gone, and with it those that were reached by it.
    pub fn net_removed(&mut self, net: NetId) {
        self.candidates.retain(|_, c| c.net != net);
        for c in self.candidates.values_mut() {
            c.more.retain(|m| m.0 != net);
        }
        self.turns.remove(&net);
        self.queries.retain(|q| q.1 != net);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced(addr: Addr) -> Header {
        let (dst, src) = (Mac::BROADCAST, Mac([2, 0, 0, 0, 0, 9]));
        let command = Command::Config;
        Header { dst, src, version: 1, response: true, error: None, addr, command, tag: Tag::UNSOLICITED }
    }

    /// Somebody announces more addresses than there may be, again and again, and answers nothing.
    #[test]
    fn what_waits_is_bounded_and_asked_by_turns() {
        let mut discovery = Discovery::new(TagSpace::new(0), 0);
        let config = Config { buffers: 1, sectors: 2, ..Config::request(Verb::Read, &[]) };
        let (mut now, mut frames, mut asked) = (Time(0), Vec::new(), 0);
        for round in 0..40u32 {
            for n in 0..6000u32 {
                let addr = Addr::new((n / 200) as u16, (n % 200) as u8);
                discovery.heard(now, NetId(n as u16 % 2), 1500, &announced(addr), &config, &mut frames);
                now.0 += 1000;
                if discovery.next_deadline().is_some_and(|at| at <= now) {
                    discovery.sweep(now, &mut frames);
                    assert!(
                        discovery.next_deadline().is_none_or(|at| at > now),
                        "a deadline that has passed"
                    );
                }
                asked += frames.drain(..).count();
            }
            let waiting: usize = discovery.turns.values().map(|turns| turns.waiting.len()).sum();
            let asking = discovery.turns.values().map(|turns| turns.asking.len()).max().unwrap_or(0);
            assert!(
                discovery.candidates() <= CANDIDATES_MAX && waiting <= CANDIDATES_MAX,
                "round {round}: {waiting}"
            );
            assert!(asking <= ASKING_MAX, "round {round}: {asking}");
        }
        // Two netlinks, 64 at a time, five copies in 7.75 s each: about 80 a second.
        let seconds = now.0 / 1_000_000;
        assert!((40..100).contains(&(asked as u64 / seconds)), "{asked} questions in {seconds} s");
        // And when they are gone for a minute, nothing is left.
        for _ in 0..300 {
            now.0 += 500_000;
            discovery.sweep(now, &mut frames);
        }
        assert_eq!((discovery.candidates(), discovery.next_deadline()), (0, None));
    }
}
