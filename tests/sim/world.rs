//! Time, frames and the engine: what the runtime does, on virtual time and under supervision.
//!
//! Every frame that leaves is checked (tag, address, size, window), every execution at a disk is checked for whom it
//! was meant, and the timers are checked for loops and for sleep while there is work. A violation ends the run with
//! its description.

mod grow;
mod hear;
mod serve;
mod sleep;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::disk::Disk;
use super::fate::Fate;
use super::judge::{Circumstances, Judge, Kind, Pending};
use super::net::{Way, garble_answer, garble_request};
use super::rng::Rng;
use super::target::{Arrived, Origin, Target};
use super::unit::Unit;
use aoefs::engine::{
    Birth, Device, Discovery, Event, Found, HEAD_MAX, NetId, Outcome, Output, Payload, Pool, Sink, TagSpace,
    Time, Transmit, Trust, Verdict,
};
use aoefs::wire::{Addr, Command, Config, Header, Mac, SECTOR, Tag, cmd};

/// Silence after which an initiator must ask before it writes, in µs.
const SILENCE: u64 = 1_000_000;
/// µs from one copy of an answer to the next, where there are many.
const ECHO: u64 = 20;
/// Requests of a wire that one request is compared with, where their order is watched.
const PLACES: usize = 64;
/// What is read ahead may be so old, as is promised: not the engine's own constant.
const AGE: Duration = Duration::from_secs(1);
/// µs that the ticks of instants are remembered: longer than that.
const HISTORY: u64 = 2_000_000;
/// Lines of a trace that are kept at least. A run that does not end must not take all memory.
const LINES: usize = 1 << 19;
/// Ranges that a device may hold in quarantine, unless the run says otherwise.
const QUARANTINES: usize = 4096;
/// More than ever happens in one run.
const STEPS: u64 = 20_000_000;

/// A netlink of the initiator.
pub struct Net {
    pub id: NetId,
    pub mac: Mac,
    pub mtu: usize,
    pub up: bool,
    pub gone: bool,
}

/// A netlink and a MAC of a target that reach each other.
pub struct Wire {
    pub net: usize,
    pub target: usize,
    pub port: usize,
    pub to: Way,
    pub from: Way,
    /// The numbers of the requests that arrived last.
    arrived: VecDeque<u64>,
}

impl Wire {
    /// Ends every fault of both ways.
    pub fn heal(&mut self) {
        self.to.heal();
        self.from.heal();
    }

    /// Requests that arrived before this one and had left later.
    fn displaced(&mut self, number: u64) -> usize {
        let younger = self.arrived.iter().filter(|n| **n > number).count();
        self.arrived.push_back(number);
        if self.arrived.len() > PLACES {
            self.arrived.pop_front();
        }
        younger
    }
}

enum Happening {
    Arrive(Arrived),
    Serve {
        target: usize,
        life: u32,
    },
    Answer {
        wire: usize,
        frame: Vec<u8>,
    },
    /// A frame from somewhere else.
    Forged {
        net: usize,
        frame: Vec<u8>,
    },
}

struct Entry(u64, u64, Happening);

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Figures of one run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Figures {
    pub steps: u64,
    pub frames: u64,
    /// Of these, the ones that read or write.
    pub transfers: u64,
    pub answers: u64,
    pub lost: u64,
    pub sweeps: u64,
    pub shielded: u64,
    /// Bytes that readers got from what was read ahead.
    pub ahead: u64,
    /// The most requests that came before one that had left earlier, where that was watched.
    pub displaced: usize,
}

/// See the module.
pub struct World {
    pub now: Time,
    /// Counts everything that happens.
    pub tick: u64,
    /// How long the machine has slept, in µs.
    pub slept: u64,
    pub rng: Rng,
    pub nets: Vec<Net>,
    pub wires: Vec<Wire>,
    pub targets: Vec<Target>,
    pub shelf: Vec<Disk>,
    pub units: Vec<Unit>,
    pub discovery: Discovery,
    pub judge: Judge,
    pub pool: Pool,
    pub figures: Figures,
    /// Of the frame that left last.
    pub last_tag: Tag,
    /// Ranges that a device may hold in quarantine.
    pub quarantines: usize,
    /// Headers are damaged in this run: some errors have no other cause.
    pub garbled: bool,
    pub violation: Option<String>,
    pub trace: Option<Vec<String>>,
    /// Who decides what becomes of the next frames, instead of chance.
    pub fate: Option<Fate>,
    /// The first tick of each instant of the last seconds.
    ticks: VecDeque<(u64, u64)>,
    /// Requests answered since somebody looked, for scenarios.
    pub done: Vec<(u32, Result<usize, aoefs::engine::Error>)>,
    sink: Sink<u32>,
    queue: BinaryHeap<Reverse<Entry>>,
    order: u64,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let pool = Pool::default();
        World {
            now: Time(0),
            tick: 0,
            slept: 0,
            nets: Vec::new(),
            wires: Vec::new(),
            targets: Vec::new(),
            shelf: Vec::new(),
            units: Vec::new(),
            discovery: Discovery::new(TagSpace::new(rng.next() as u8), rng.next() as u32),
            judge: Judge::default(),
            sink: Sink::new(pool.clone()),
            pool,
            figures: Figures::default(),
            last_tag: Tag::UNSOLICITED,
            quarantines: QUARANTINES,
            garbled: false,
            violation: None,
            trace: None,
            fate: None,
            ticks: VecDeque::new(),
            done: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            rng,
        }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:?} {}", self.now, text()));
            if trace.len() >= 2 * LINES {
                trace.drain(..LINES);
            }
        }
    }

    pub fn violate(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = format!("at {:?}: {}", self.now, what());
            if let Some(trace) = &mut self.trace {
                trace.push(format!("VIOLATION {what}"));
            }
            self.violation = Some(what);
        }
    }

    fn at(&mut self, time: u64, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse(Entry(time.max(self.now.0), self.order, what)));
    }

    pub fn add_net(&mut self, mtu: usize) -> usize {
        let n = self.nets.len();
        let mac = Mac([2, 0, 0, 0, 1, n as u8]);
        self.nets.push(Net { id: NetId(n as u16), mac, mtu, up: true, gone: false });
        n
    }

    pub fn add_wire(&mut self, net: usize, target: usize, port: usize, us: u64) -> usize {
        self.wires.push(Wire {
            net,
            target,
            port,
            to: Way::clean(us),
            from: Way::clean(us),
            arrived: VecDeque::new(),
        });
        self.wires.len() - 1
    }

    /// Lets time pass, and everything happen that is due, until `until`.
    pub fn run_until(&mut self, until: Time) {
        while self.violation.is_none() && self.step_until(until) {}
        self.now = self.now.max(until);
    }

    /// Lets the next thing happen. False if nothing is left.
    pub fn step(&mut self) -> bool {
        self.step_until(Time(u64::MAX - 1))
    }

    fn step_until(&mut self, until: Time) -> bool {
        self.figures.steps += 1;
        if self.figures.steps > STEPS {
            self.violate(|| format!("{STEPS} things happened: this does not end"));
            return false;
        }
        let event = self.queue.peek().map_or(u64::MAX, |Reverse(e)| e.0);
        let timers = self.units.iter().filter_map(|u| u.device.next_deadline());
        let timer =
            timers.chain(self.discovery.next_deadline()).min().map_or(u64::MAX, |t| t.0.max(self.now.0));
        let next = event.min(timer);
        if next > until.0 {
            return false;
        }
        self.tick += 1;
        self.now = Time(next.max(self.now.0));
        self.note_tick();
        if event < timer || (event == timer && self.rng.chance(0.5)) {
            if let Some(Reverse(entry)) = self.queue.pop() {
                self.happen(entry.2);
            }
        } else {
            self.sweep();
        }
        true
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrive(arrived) => self.arrive(arrived),
            Happening::Serve { target, life } => self.serve(target, life),
            Happening::Answer { wire, frame } => {
                let net = self.wires[wire].net;
                self.hear(net, &frame);
            }
            Happening::Forged { net, frame } => self.hear(net, &frame),
        }
    }

    fn sweep(&mut self) {
        self.figures.sweeps += 1;
        for u in 0..self.units.len() {
            if self.units[u].device.next_deadline().is_some_and(|t| t <= self.now) {
                self.awake(u);
                self.units[u].device.sweep(self.now, &mut self.sink);
                self.after(u);
                if let Some(problem) = self.units[u].swept(self.now) {
                    self.violate(|| problem);
                }
            }
        }
        if self.discovery.next_deadline().is_some_and(|t| t <= self.now) {
            let mut frames = std::mem::take(&mut self.sink.frames);
            self.discovery.sweep(self.now, &mut frames);
            if self.discovery.next_deadline().is_some_and(|t| t <= self.now) {
                self.violate(|| "discovery: its timer stays in the past".into());
            }
            self.send(None, &mut frames);
            self.sink.frames = frames;
        }
    }

    /// Calls into a device, and does what the runtime does afterwards.
    pub fn with_device<T>(
        &mut self,
        u: usize,
        f: impl FnOnce(&mut Device<u32>, Time, &mut Sink<u32>) -> T,
    ) -> T {
        self.awake(u);
        let out = f(&mut self.units[u].device, self.now, &mut self.sink);
        self.after(u);
        out
    }

    /// What the runtime does after each call into a device.
    pub fn after(&mut self, u: usize) {
        self.units[u].device.work(self.now, &mut self.sink);
        for event in std::mem::take(&mut self.sink.events) {
            self.note(|| format!("u{u} {event}"));
            self.growth(u, &event);
            if let Event::Replaced { is, .. } | Event::Identified(is) = &event {
                let known = self.disk_with(is.serial.as_str(), is.sectors);
                if let Some(disk) = known {
                    self.units[u].disk = disk;
                }
            }
        }
        let mut frames = std::mem::take(&mut self.sink.frames);
        self.send(Some(u), &mut frames);
        self.sink.frames = frames;
        let mut done = std::mem::take(&mut self.sink.done);
        for (seq, outcome) in done.drain(..) {
            self.answered(u, seq, outcome);
        }
        self.sink.done = done;
        if let Some(problem) = self.units[u].inspect(self.judge.waits(u)) {
            self.violate(|| problem);
        }
    }

    /// The identity of the disk that says this of itself.
    fn disk_with(&self, serial: &str, sectors: u64) -> Option<(usize, u64)> {
        let mut disks = self.targets.iter().map(Target::look).chain(&self.shelf);
        Some((disks.find(|d| d.serial() == serial)?.id, sectors))
    }

    pub fn disk(&mut self, id: usize) -> &mut Disk {
        let on = self.targets.iter().position(|t| t.look().id == id);
        match on {
            Some(t) => self.targets[t].disk(),
            None => self.shelf.iter_mut().find(|d| d.id == id).unwrap(),
        }
    }

    fn send(&mut self, unit: Option<usize>, frames: &mut Vec<Transmit>) {
        for t in frames.drain(..) {
            if let Some(u) = unit
                && let Some(problem) = self.units[u].departs(&t, self.now)
            {
                self.violate(|| problem);
            }
            let Some(n) = self.nets.iter().position(|net| net.id == t.net) else { continue };
            let (mac, mtu, up) = (self.nets[n].mac, self.nets[n].mtu, self.nets[n].up && !self.nets[n].gone);
            let mut head = [0; HEAD_MAX];
            let len = t.head(mac, &mut head);
            let mut frame = head[..len].to_vec();
            frame.extend_from_slice(t.payload());
            self.figures.frames += 1;
            self.last_tag = t.tag;
            self.figures.transfers += u64::from(touches_data(&frame));
            if frame.len() > mtu + 14 {
                self.violate(|| format!("a frame of {} bytes on a netlink of MTU {mtu}", frame.len()));
            }
            if t.dst != Mac::BROADCAST && !t.dst.is_unicast() {
                self.violate(|| format!("a frame to {}", t.dst));
            }
            self.note(|| {
                format!(
                    "  -> {} {:?} {} {} {:08x} {} bytes",
                    t.addr,
                    t.net,
                    t.dst,
                    what(&t),
                    t.tag.0,
                    frame.len()
                )
            });
            if !up {
                continue;
            }
            let origin = unit.map_or_else(Origin::default, |u| {
                let tick = self.tick;
                self.units[u].origin(u, &t, self.now, tick)
            });
            for w in 0..self.wires.len() {
                let wire = &mut self.wires[w];
                let port = self.targets[wire.target].macs[wire.port];
                if wire.net != n || (t.dst != port && t.dst != Mac::BROADCAST) {
                    continue;
                }
                let passage = match self.fate.as_mut().and_then(|f| f.passage(self.now.0)) {
                    Some(decided) => decided,
                    None => wire.to.carry(&mut self.rng, self.now.0, frame.len()),
                };
                let Some(first) = passage.first else {
                    self.figures.lost += 1;
                    self.note(|| format!("     {:08x} lost", t.tag.0));
                    continue;
                };
                let mut frame = frame.clone();
                if self.rng.chance(self.wires[w].to.garble) {
                    garble_request(&mut self.rng, &mut frame);
                }
                let copies = if passage.second.is_some() { 2 } else { 1 };
                self.at(
                    first,
                    Happening::Arrive(Arrived {
                        frame,
                        wire: w,
                        copies,
                        origin,
                        number: self.figures.frames,
                    }),
                );
            }
        }
    }

    fn arrive(&mut self, arrived: Arrived) {
        let wire = &mut self.wires[arrived.wire];
        if wire.to.reorder {
            self.figures.displaced = self.figures.displaced.max(wire.displaced(arrived.number));
        }
        let t = wire.target;
        let target = &mut self.targets[t];
        if !target.alive || arrived.frame.len() > target.mtu + 14 || !self.nets[wire.net].up {
            return;
        }
        if target.queue.len() >= target.capacity {
            self.figures.lost += 1;
            self.note(|| format!("     overflow at target {t}"));
            return;
        }
        target.queue.push_back(arrived);
        if !target.busy {
            self.begin_service(t);
        }
    }

    fn answer(&mut self, w: usize, answer: Vec<u8>) {
        let wire = &mut self.wires[w];
        let passage = match self.fate.as_mut().and_then(|f| f.passage(self.now.0)) {
            Some(decided) => decided,
            None => wire.from.carry(&mut self.rng, self.now.0, answer.len()),
        };
        let echoes = wire.from.echoes;
        let echoes = passage.first.into_iter().flat_map(|at| (1..=echoes).map(move |n| at + n * ECHO));
        for at in [passage.first, passage.second].into_iter().flatten().chain(echoes) {
            let mut frame = answer.clone();
            if self.rng.chance(self.wires[w].from.garble) {
                garble_answer(&mut self.rng, &mut frame);
            }
            self.at(at, Happening::Answer { wire: w, frame });
        }
    }

    /// Would an announcement be heard, as far as one can say beforehand?
    pub fn reaches(&self, t: usize) -> bool {
        self.wires.iter().any(|w| {
            w.target == t
                && self.nets[w.net].up
                && !self.nets[w.net].gone
                && !w.from.cut
                && w.from.loss == 0.0
        })
    }

    pub fn later(&self, d: Duration) -> Time {
        self.now + d
    }
}

fn what(t: &Transmit) -> String {
    match &t.ata {
        Some(ata) => format!("ata {:02x} at {} count {}", ata.command, ata.sector48(), ata.count),
        None => format!("{:?}", t.command),
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Ok(Output::Data(data)) => format!("read {} bytes", data.len()),
        other => format!("{other:?}"),
    }
}

fn ata_command(frame: &[u8]) -> Option<u8> {
    (frame.len() >= 36 && frame[19] == 0).then(|| frame[27])
}

fn touches_data(frame: &[u8]) -> bool {
    ata_command(frame).is_some_and(|c| c != cmd::IDENTIFY)
}

pub fn modifies(frame: &[u8]) -> bool {
    ata_command(frame).is_some_and(|c| matches!(c, cmd::WRITE | cmd::WRITE_EXT | cmd::DSM))
}

/// The write buffer of a frame, as its address, if it is a write.
pub fn buffer_of(t: &Transmit) -> Option<usize> {
    match &t.payload {
        Payload::Slice { buf, .. } => Some(std::sync::Arc::as_ptr(buf) as usize),
        _ => None,
    }
}
