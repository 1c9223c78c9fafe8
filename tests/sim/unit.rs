//! One device under supervision: its tags, its departures, what it heard, how it uses its timers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::target::Origin;
use super::world::buffer_of;
use aoefs::engine::{Device, Error, NetId, Outcome, Output, Time, Transmit};
use aoefs::wire::{Mac, Tag, cmd};

/// Sweeps in one virtual second that need no explanation, and how many more each frame explains.
const SWEEPS: u64 = 600;
const SWEEPS_A_FRAME: u64 = 6;
/// A timer that was due may show the same instant again this often.
const REPEATS: u32 = 3;
const SILENCE: u64 = 1_000_000;
/// The engine's own rules are looked at after each of the first calls, which are all of a small scene, and then after
/// one in so many: to look at everything takes longer than most calls.
const CHECKED: u64 = 200;
const CHECK_EVERY: u64 = 32;

/// A netlink and the MAC that a frame went to.
type Way = (NetId, Mac);

/// See the module.
pub struct Unit {
    pub device: Device<u32>,
    /// The disk (id, sectors) that the engine believes to be there.
    pub disk: (usize, u64),
    /// The tick of the last `failio`.
    pub failio: u64,
    pub deadline: Duration,
    /// The shortest that it ever was.
    pub shortest: Duration,
    /// The operator said `identify`, and it was neither answered nor given up.
    pub word: bool,
    pub nofail: bool,
    /// Announcements that the engine has to believe.
    pub announced: Vec<Announced>,
    /// All announcements lately.
    pub alarms: Vec<u64>,
    /// The target's buffers, as large as they ever were said to be.
    pub buffers: u32,
    pub maxout: Option<u32>,
    /// The config string that the target must have, if that is known, and those that were asked for.
    pub string: Option<Vec<u8>>,
    pub strings: HashMap<u32, Vec<u8>>,
    /// Ranges that it may hold in quarantine, and the most frames that ever were outstanding.
    pub quarantines: usize,
    most_frames: usize,
    /// Calls into the device.
    inspected: u64,
    heard: u64,
    /// There was silence, and no IDENTIFY was answered since.
    unconfirmed: bool,
    /// Every tag: when it left, and which way.
    tags: HashMap<u32, (u64, Way)>,
    /// The least and the most that a round trip took.
    trips: HashMap<Way, (u64, u64)>,
    asked_identity: HashSet<u32>,
    /// By sector: the buffer that left for it last, and when.
    departures: HashMap<u64, (usize, u64)>,
    sent: u64,
    sweeps: (u64, u64, u64),
    repeats: (u64, u32),
}

/// An announcement that the engine has to believe: when it came, at which tick, and the µs from which on it counts.
pub struct Announced {
    pub at: u64,
    pub tick: u64,
    pub counts_from: u64,
}

impl Unit {
    pub fn new(device: Device<u32>, disk: (usize, u64), now: Time) -> Unit {
        let deadline = device.status().deadline;
        Unit {
            device,
            disk,
            failio: 0,
            deadline,
            shortest: deadline,
            word: false,
            nofail: false,
            announced: Vec::new(),
            alarms: Vec::new(),
            buffers: 128,
            maxout: None,
            string: None,
            strings: HashMap::new(),
            quarantines: 4096,
            most_frames: 0,
            inspected: 0,
            heard: now.0,
            unconfirmed: false,
            tags: HashMap::new(),
            trips: HashMap::new(),
            asked_identity: HashSet::new(),
            departures: HashMap::new(),
            sent: 0,
            sweeps: (0, 0, 0),
            repeats: (0, 0),
        }
    }

    /// A frame leaves: what is wrong with it?
    pub fn departs(&mut self, t: &Transmit, now: Time) -> Option<String> {
        self.sent += 1;
        self.most_frames = self.most_frames.max(self.device.frames());
        if !t.tag.is_ours() || t.tag.0 == u32::MAX {
            return Some(format!("tag {:08x} is not one of ours", t.tag.0));
        }
        if self.tags.insert(t.tag.0, (now.0, (t.net, t.dst))).is_some() {
            return Some(format!("tag {:08x} used twice", t.tag.0));
        }
        if t.addr != self.device.addr() {
            return Some(format!("a frame to {} from {}", t.addr, self.device.addr()));
        }
        if let Some(ata) = &t.ata {
            if ata.command == cmd::IDENTIFY {
                self.asked_identity.insert(t.tag.0);
            }
            let rw = matches!(ata.command, cmd::READ | cmd::READ_EXT | cmd::WRITE | cmd::WRITE_EXT);
            if rw && ata.count == 0 {
                return Some("a transfer of no sectors".into());
            }
        }
        None
    }

    /// What is known at the departure of a frame.
    pub fn origin(&mut self, u: usize, t: &Transmit, now: Time, tick: u64) -> Origin {
        let mut blind_repeat = false;
        if let (Some(buf), Some(ata)) = (buffer_of(t), &t.ata) {
            let at = ata.sector48().0;
            for sector in at..at + u64::from(ata.count) {
                let before = self.departures.insert(sector, (buf, now.0));
                blind_repeat |= before.is_some_and(|(b, when)| b == buf && self.heard <= when);
            }
        }
        Origin {
            unit: Some(u),
            disk: self.disk,
            sent: now.0,
            heard: self.heard,
            blind_repeat,
            tick,
            unconfirmed: self.unconfirmed,
        }
    }

    /// A command ended; was it one that changes the config string? Where it failed, nobody knows before the next.
    pub fn word_ended(&mut self, seq: u32, outcome: &Outcome) {
        let Some(asked) = self.strings.remove(&seq) else { return };
        match outcome {
            Ok(Output::Config(said)) if *said == asked => self.string = Some(asked),
            Err(Error::Exists) => {}
            _ => self.string = None,
        }
    }

    /// A request ended, which explains as much as a frame.
    pub fn ended(&mut self) {
        self.sent += 1;
    }

    /// The machine sleeps: what was asked before shows nothing afterwards.
    pub fn sleeps(&mut self) {
        self.unconfirmed = true;
        self.asked_identity.clear();
    }

    /// A write ended: its buffer may be another's soon.
    pub fn forget_buffers(&mut self, start: u64, end: u64) {
        for sector in start..end {
            self.departures.remove(&sector);
        }
    }

    /// An answer was taken.
    pub fn hears(&mut self, now: Time, tag: Tag) {
        if now.0 - self.heard > SILENCE {
            self.unconfirmed = true;
        }
        if self.asked_identity.contains(&tag.0) {
            self.unconfirmed = false;
        }
        self.heard = now.0;
    }

    /// The answer to this copy was taken: so long was its round trip, and not as long as any other copy's of its frame.
    pub fn returned(&mut self, now: Time, tag: Tag) {
        if let Some((sent, way)) = self.tags.get(&tag.0) {
            let trip = now.0 - sent;
            let (least, most) = self.trips.entry(*way).or_insert((trip, trip));
            (*least, *most) = (trip.min(*least), trip.max(*most));
        }
    }

    /// A sweep ended: is the timer sane?
    pub fn swept(&mut self, now: Time) -> Option<String> {
        let second = now.0 / 1_000_000;
        if self.sweeps.0 != second {
            self.sweeps = (second, 0, self.sent);
        }
        self.sweeps.1 += 1;
        let frames = self.sent - self.sweeps.2;
        if self.sweeps.1 > SWEEPS + SWEEPS_A_FRAME * frames {
            return Some(format!("{} sweeps in one second for {frames} frames", self.sweeps.1));
        }
        let stays = self.device.next_deadline().is_some_and(|t| t <= now);
        if !stays {
            self.repeats = (0, 0);
        } else if self.repeats.0 == now.0 {
            self.repeats.1 += 1;
        } else {
            self.repeats = (now.0, 1);
        }
        (self.repeats.1 > REPEATS).then(|| "the timer stays in the past".into())
    }

    /// Invariants after each call.
    pub fn inspect(&mut self, waits: bool) -> Option<String> {
        self.inspected += 1;
        if self.inspected <= CHECKED || self.inspected.is_multiple_of(CHECK_EVERY) {
            self.device.check();
        }
        // Without any way to the target there is nothing to wait for but the return of one.
        if waits && self.device.next_deadline().is_none() && self.device.paths().iter().any(|p| p.up) {
            let paths = self.device.paths();
            let paths: Vec<_> =
                paths.iter().map(|p| (p.net, p.mac, p.trust, p.up, p.window, p.inflight)).collect();
            return Some(format!("stuck: requests wait and no timer runs; {paths:?}"));
        }
        None
    }

    /// The dearer invariants.
    pub fn audit(&self) -> Option<String> {
        let s = self.device.status();
        let limit = self.buffers.clamp(1, 128).min(self.maxout.unwrap_or(128).max(1));
        if s.nout > limit {
            return Some(format!("{} frames outstanding, at most {limit}", s.nout));
        }
        let over = self.device.paths().into_iter().find(|p| p.inflight > 128);
        if let Some(p) = over {
            return Some(format!("{} frames outstanding on one path", p.inflight));
        }
        for p in self.device.paths() {
            if let (Some(mean), Some((least, most))) = (p.rtt, self.trips.get(&(p.net, p.mac)))
                && !(*least..=*most).contains(&(mean.as_micros() as u64))
            {
                return Some(format!(
                    "KARN: a mean round trip of {mean:?} where they took {least} to {most} µs ({:?} {})",
                    p.net, p.mac
                ));
            }
        }
        if s.quarantined > 2 * self.quarantines + self.most_frames {
            return Some(format!("BOUND: {} quarantines, {} frames", s.quarantined, self.most_frames));
        }
        None
    }
}
