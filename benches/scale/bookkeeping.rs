//! The bookkeeping of many targets on the real engine, without threads, sockets or time: what one event costs, by
//! their number.
//!
//! It holds what the runtime holds: devices, a table by address, one heap of timers with at most one entry a device
//! that counts. Four kinds of event are measured: a target is found (config reply, IDENTIFY, a new device), a known
//! one answers a rediscovery, one is read from (found by its address, submit, frame, answer, reply), a timer is due
//! (taken from the heap, swept).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hint::black_box;
use std::time::{Duration, Instant};

use aoefs::engine::{Device, Discovery, Io, NetId, Pool, Request, Sink, TagSpace, Time, Transmit, Verdict};
use aoefs::wire::{
    ATA_LEN, Addr, Ata, CONFIG_LEN, Command, Config, FlushKind, Header, IDENTIFY_LEN, Identify, Mac, SECTOR,
    Tag, Text, Verb,
};

const NET: NetId = NetId(0);
const MTU: usize = 1500;
const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
/// Addresses that are found with one query: no more are candidates at a time.
const TOGETHER: usize = 4096;
/// Bytes of the small read.
const READ: usize = SECTOR;

/// Targets that are in use where not all are: what they need stays in the processor's cache.
const IN_USE: usize = 64;

/// What is measured. The last three are drawn from all targets, the three before from those in use: the one shows
/// what is searched or walked, the other also what is fetched from memory.
pub const COLUMNS: [&str; 7] =
    ["found", "rediscovered", "read", "timer", "rediscovered, any", "read, any", "timer, any"];

/// Medians in nanoseconds an event, in the order of `COLUMNS`.
pub type Costs = [f64; 7];

struct Unit {
    device: Device<u32>,
    /// The earliest time for which the heap has an entry.
    armed: Time,
}

/// See the module.
pub struct Ledger {
    #[expect(clippy::vec_box, reason = "as in the runtime, a unit does not move when the table grows")]
    units: Vec<Box<Unit>>,
    by_addr: BTreeMap<Addr, u32>,
    heap: BinaryHeap<Reverse<(Time, u32)>>,
    discovery: Discovery,
    sink: Sink<u32>,
    frames: Vec<Transmit>,
    now: Time,
    page: Vec<u8>,
    answer: Vec<u8>,
    rng: u64,
    /// Whose events they are.
    actors: Vec<usize>,
}

/// The `n`th address.
fn addr(n: usize) -> Addr {
    Addr::new((n / 200) as u16, (n % 200) as u8)
}

fn header(addr: Addr, command: Command, tag: Tag) -> Header {
    Header { dst: OWN, src: THEIRS, version: 1, response: true, error: None, addr, command, tag }
}

const LIMITS: Config<'static> =
    Config { buffers: 16, firmware: 1, sectors: 2, version: 1, verb: Verb::Read, string: b"" };

fn limits() -> [u8; CONFIG_LEN] {
    let mut body = [0; CONFIG_LEN];
    LIMITS.emit(&mut body);
    body
}

fn done(data: usize) -> Vec<u8> {
    let mut body = vec![0; ATA_LEN + data];
    Ata { command: 0x40, ..Ata::default() }.emit(&mut body);
    body
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Ledger {
        let mut identity = [0; IDENTIFY_LEN];
        Identify {
            serial: Text::new("one of many"),
            model: Text::new("model"),
            sectors: 1 << 20,
            lba48: true,
            flush: FlushKind::FlushExt,
            ..Identify::default()
        }
        .emit(&mut identity);
        let mut page = done(IDENTIFY_LEN);
        page[ATA_LEN..].copy_from_slice(&identity);
        Ledger {
            units: Vec::new(),
            by_addr: BTreeMap::new(),
            heap: BinaryHeap::new(),
            discovery: Discovery::new(TagSpace::new(1), 1),
            sink: Sink::new(Pool::default()),
            frames: Vec::new(),
            now: Time(1_000_000),
            page,
            answer: done(READ),
            rng: 1,
            actors: Vec::new(),
        }
    }

    /// Targets known.
    pub fn len(&self) -> usize {
        self.units.len()
    }

    fn random(&mut self) -> usize {
        // Xorshift64: only the choice must not be in the order of addresses.
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        self.actors[(self.rng % self.actors.len() as u64) as usize]
    }

    /// From now on only these have events: so many, spread over all.
    fn cast(&mut self, count: usize) {
        let all = self.units.len();
        self.actors = (0..count.min(all)).map(|n| n * all / count.min(all)).collect();
    }

    /// Finds targets until there are so many: all that a query may find answer it, then each answers its IDENTIFY.
    /// Returns the nanoseconds a target of the last query.
    pub fn grow(&mut self, to: usize) -> f64 {
        let mut last = 0.0;
        while self.units.len() < to {
            let first = self.units.len();
            let end = to.min(first + TOGETHER);
            self.now = self.now + Duration::from_secs(1);
            let start = Instant::now();
            self.discovery.query(self.now, NET, Addr::ALL, &mut self.frames);
            let Some(query) = self.frames.pop() else { return f64::NAN };
            let mut asked = VecDeque::new();
            for n in first..end {
                let header = header(addr(n), Command::Config, query.tag);
                self.discovery.heard(self.now, NET, MTU, &header, &LIMITS, &mut self.frames);
                asked.extend(self.frames.drain(..));
                self.now.0 += 1;
            }
            while let Some(frame) = asked.pop_front() {
                let header = header(frame.addr, Command::Ata, frame.tag);
                let found = self.discovery.identified(self.now, &header, &self.page, 7, &mut self.frames);
                asked.extend(self.frames.drain(..));
                if let Some(found) = found {
                    let number = self.units.len() as u32;
                    let device = Device::new(found.birth, self.now);
                    self.units.push(Box::new(Unit { device, armed: Time::NEVER }));
                    self.by_addr.insert(frame.addr, number);
                }
                // As the sweeper does, whenever it is due.
                if self.discovery.next_deadline().is_some_and(|at| at <= self.now) {
                    self.discovery.sweep(self.now, &mut self.frames);
                    asked.extend(self.frames.drain(..));
                }
                self.now.0 += 1;
            }
            last = start.elapsed().as_nanos() as f64 / (end - first) as f64;
            assert_eq!(self.units.len(), end, "all are found");
        }
        last
    }

    /// Lets leave what may leave, and sees to it that the sweep comes in time; as `Runtime::let_go` does.
    fn let_go(&mut self, number: u32) {
        let unit = &mut self.units[number as usize];
        unit.device.work(self.now, &mut self.sink);
        if let Some(at) = unit.device.next_deadline()
            && at < unit.armed
        {
            unit.armed = at;
            self.heap.push(Reverse((at, number)));
        }
    }

    fn rediscover(&mut self, query: Tag) {
        let addr = addr(self.random());
        let Some(&number) = self.by_addr.get(&addr) else { return };
        let header = header(addr, Command::Config, query);
        let body = limits();
        let device = &mut self.units[number as usize].device;
        let verdict = device.receive(self.now, NET, &header, &body, &mut self.sink);
        device.judge(self.now, NET, &mut self.sink);
        if verdict == Verdict::Unknown && self.discovery.solicited(self.now, NET, query) {
            device.solicited(self.now, NET, THEIRS, MTU, &LIMITS, &mut self.sink);
        }
        self.let_go(number);
    }

    fn read(&mut self) {
        let addr = addr(self.random());
        let Some(&number) = self.by_addr.get(&addr) else { return };
        let device = &mut self.units[number as usize].device;
        let request = Request {
            io: Io::Read { offset: 0, len: READ },
            handle: device.handle(None),
            nonblock: false,
            stream: None,
            reply: number,
        };
        device.submit(self.now, request, &mut self.sink);
        self.let_go(number);
        self.now.0 += 50;
        while let Some(frame) = self.sink.frames.pop() {
            let Some(&number) = self.by_addr.get(&frame.addr) else { return };
            let header = header(frame.addr, frame.command, frame.tag);
            // After a pause the disk shows who it is.
            let identify = frame.ata.is_some_and(|ata| ata == Ata::identify());
            let body = if identify { &self.page } else { &self.answer };
            let device = &mut self.units[number as usize].device;
            device.receive(self.now, NET, &header, body, &mut self.sink);
            device.judge(self.now, NET, &mut self.sink);
            self.let_go(number);
        }
        black_box(self.sink.done.drain(..).count());
        self.sink.events.clear();
    }

    /// Takes what is due next, whenever that is, and sweeps.
    fn timer(&mut self) -> bool {
        let Some(Reverse((at, number))) = self.heap.pop() else { return false };
        let unit = &mut self.units[number as usize];
        if unit.armed != at {
            return true;
        }
        unit.armed = Time::NEVER;
        self.now = self.now.max(at);
        unit.device.sweep(self.now, &mut self.sink);
        self.let_go(number);
        self.sink.frames.clear();
        self.sink.events.clear();
        true
    }

    /// What one event of each kind costs, of `actors` targets: the median of `rounds` rounds of `events`.
    fn measure(&mut self, actors: usize, rounds: usize, events: usize) -> [f64; 3] {
        self.cast(actors);
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..rounds {
            self.discovery.query(self.now, NET, Addr::ALL, &mut self.frames);
            let Some(query) = self.frames.pop() else { break };
            let mut clock = |ledger: &mut Ledger, what: usize, event: &mut dyn FnMut(&mut Ledger)| {
                let start = Instant::now();
                for _ in 0..events {
                    event(ledger);
                }
                times[what].push(start.elapsed().as_nanos() as f64 / events as f64);
            };
            clock(self, 0, &mut |ledger| ledger.rediscover(query.tag));
            clock(self, 1, &mut Ledger::read);
            clock(self, 2, &mut |ledger| {
                if !ledger.timer() {
                    ledger.read();
                }
            });
            // Those that are left would be due in the next round.
            while self.timer() {}
        }
        times.map(median)
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The costs at each of these numbers, which rise.
pub fn costs(numbers: &[usize], rounds: usize, events: usize) -> Vec<(usize, Costs)> {
    let mut ledger = Ledger::new();
    let measured = numbers.iter().map(|&n| {
        // Few targets are found in no time: their cost is that of as many ledgers as make it visible.
        let alone = (n <= TOGETHER).then(|| median((0..rounds).map(|_| Ledger::new().grow(n)).collect()));
        let last = ledger.grow(n);
        assert_eq!(ledger.len(), n);
        let [a, b, c] = ledger.measure(IN_USE, rounds, events);
        let [d, e, f] = ledger.measure(n, rounds, events);
        (n, [alone.unwrap_or(last), a, b, c, d, e, f])
    });
    measured.collect()
}
