//! The relay: passes AoE frames between two interfaces and spoils them on the way, as a seed and the settings say.
//!
//! Promises: without faults every frame passes unchanged and in order; every decision is drawn from the seed; each
//! direction has settings of its own, which may change while frames pass; what was done is counted. One thread a
//! direction, batches both ways.

use super::net::Ns;
use super::raw::{BATCH, Batch, FRAME_MAX, Port, wait};
use super::rng::Rng;
use std::collections::{BinaryHeap, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a quiet direction sleeps before it looks whether it shall end.
const IDLE: Duration = Duration::from_millis(20);
/// A frame held back for reordering leaves after this time even if no other frame comes.
const HELD: Duration = Duration::from_millis(10);
/// Ethernet, AoE and ATA header: what `corrupt-head` may flip.
const HEAD: usize = 36;

/// What happens to the frames of one direction. Probabilities are of each frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    pub drop: f64,
    pub duplicate: f64,
    /// Held back until `depth` (1 to it) later frames have passed.
    pub reorder: f64,
    pub depth: u32,
    pub delay: Duration,
    /// Up to this much more delay, drawn for every frame.
    pub jitter: Duration,
    /// One bit flipped anywhere in the frame.
    pub corrupt: f64,
    /// One bit flipped in the first 36 bytes: what a receiver can notice (AoE has no checksum).
    pub corrupt_head: f64,
    /// Cut somewhere behind the Ethernet header.
    pub truncate: f64,
    /// Up to 64 bytes of junk at the end.
    pub pad: f64,
    /// Frames longer than this vanish; 0 = none do.
    pub blackhole: usize,
    /// Nothing passes.
    pub cut: bool,
}

/// What became of the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub seen: u64,
    pub passed: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub delayed: u64,
    pub corrupted: u64,
    pub truncated: u64,
    pub padded: u64,
    pub swallowed: u64,
    /// The kernel refused to send it: link down, or too long for the MTU.
    pub refused: u64,
}

struct Shared {
    faults: Mutex<Faults>,
    counts: Mutex<Counts>,
    stop: Arc<AtomicBool>,
}

/// Which way frames go: from the first interface to the second, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Out,
    Back,
}

/// A relay at work; dropping it ends it.
pub struct Relay {
    ways: [Arc<Shared>; 2],
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    /// Between interfaces `first` and `second` of one namespace, without faults at first.
    #[track_caller]
    pub fn between(ns: &Ns, first: &str, second: &str, seed: u64) -> Self {
        Self::start(Arc::new(Port::open(ns, first)), Arc::new(Port::open(ns, second)), seed)
    }

    fn start(first: Arc<Port>, second: Arc<Port>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let shared =
            || Arc::new(Shared { faults: Mutex::default(), counts: Mutex::default(), stop: stop.clone() });
        let ways = [shared(), shared()];
        let (out, back) = (ways[0].clone(), ways[1].clone());
        let (a, b) = (first.clone(), second.clone());
        let threads = vec![
            std::thread::spawn(move || pass(&a, &b, &out, Rng::new(seed))),
            std::thread::spawn(move || pass(&second, &first, &back, Rng::new(!seed))),
        ];
        Self { ways, stop, threads }
    }

    /// New settings for one direction.
    pub fn set(&self, way: Way, faults: &Faults) {
        *lock(&self.ways[way as usize].faults) = faults.clone();
    }

    /// New settings for both directions.
    pub fn set_both(&self, faults: &Faults) {
        self.set(Way::Out, faults);
        self.set(Way::Back, faults);
    }

    /// No faults from now on.
    pub fn heal(&self) {
        self.set_both(&Faults::default());
    }

    pub fn counts(&self, way: Way) -> Counts {
        *lock(&self.ways[way as usize].counts)
    }

    /// The relay as a program, for use by hand: commands on stdin until it ends. The interfaces are those of the
    /// namespace it was started in.
    pub fn program(words: &[String]) -> Result<(), String> {
        let [first, second, rest @ ..] = words else {
            return Err("two interfaces are needed, and perhaps a seed".into());
        };
        let seed =
            rest.first().map_or(Ok(1), |word| word.parse().map_err(|_| format!("{word}: not a seed")))?;
        let relay = Self::between(&Ns::here(), first, second, seed);
        for line in std::io::stdin().lines() {
            match relay.command(&line.map_err(|error| error.to_string())?) {
                Ok(said) => print!("{said}"),
                Err(why) => println!("{why}"),
            }
        }
        Ok(())
    }

    /// One line of the command language: `out|back|both SETTING VALUE…`, `heal`, `stats`. What it answers is printed.
    pub fn command(&self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.split_first() {
            None => Ok(String::new()),
            Some((&"heal", [])) => {
                self.heal();
                Ok(String::new())
            }
            Some((&"stats", [])) => {
                Ok(format!("out {:?}\nback {:?}\n", self.counts(Way::Out), self.counts(Way::Back)))
            }
            Some((way, settings)) => {
                let ways: &[Way] = match *way {
                    "out" => &[Way::Out],
                    "back" => &[Way::Back],
                    "both" => &[Way::Out, Way::Back],
                    _ => return Err(format!("{way}: one of out, back, both, heal, stats")),
                };
                for way in ways {
                    let mut faults = lock(&self.ways[*way as usize].faults).clone();
                    faults.change(settings)?;
                    self.set(*way, &faults);
                }
                Ok(String::new())
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

impl Faults {
    /// Changes the settings named; times are in milliseconds. `clear` puts all back.
    pub fn change(&mut self, words: &[&str]) -> Result<(), String> {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "clear" => *self = Self::default(),
                "cut" => self.cut = true,
                "join" => self.cut = false,
                _ => {
                    let value = words.next().ok_or(format!("{word}: needs a value"))?;
                    let number: f64 = value.parse().map_err(|_| format!("{value}: not a number"))?;
                    let time =
                        || Duration::try_from_secs_f64(number / 1000.0).map_err(|error| error.to_string());
                    match *word {
                        "drop" => self.drop = number,
                        "dup" => self.duplicate = number,
                        "reorder" => (self.reorder, self.depth) = (number, self.depth.max(1)),
                        "depth" => self.depth = number as u32,
                        "delay" => self.delay = time()?,
                        "jitter" => self.jitter = time()?,
                        "corrupt" => self.corrupt = number,
                        "corrupt-head" => self.corrupt_head = number,
                        "truncate" => self.truncate = number,
                        "pad" => self.pad = number,
                        "blackhole" => self.blackhole = number as usize,
                        _ => return Err(format!("{word}: unknown setting")),
                    }
                }
            }
        }
        Ok(())
    }
}

/// A frame that leaves at a time. Ordered so that the heap gives the earliest first, and equal times in order of
/// arrival.
struct Due {
    at: Instant,
    order: u64,
    frame: Vec<u8>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Due {}

/// A frame that leaves after some later frames have, or at a time.
struct Held {
    behind: u32,
    at: Instant,
    frame: Vec<u8>,
}

/// One direction until it is told to stop.
fn pass(from: &Port, to: &Port, shared: &Shared, mut rng: Rng) {
    let mut batch = Batch::new();
    let mut late: BinaryHeap<Due> = BinaryHeap::new();
    let mut held: VecDeque<Held> = VecDeque::new();
    let mut order = 0;
    while !shared.stop.load(Relaxed) {
        let next = late.peek().map(|due| due.at).into_iter().chain(held.iter().map(|held| held.at)).min();
        let limit = next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()).min(IDLE));
        batch_wait(from, &mut batch, limit);
        let faults = lock(&shared.faults).clone();
        let mut counts = *lock(&shared.counts);
        let now = Instant::now();
        let mut owned: Vec<Vec<u8>> = Vec::new();
        // A frame in `out` is one of the batch as it is, or one of `owned`.
        let mut out: Vec<Out> = Vec::with_capacity(2 * BATCH);
        for (index, frame) in batch.frames().enumerate() {
            counts.seen += 1;
            if faults == Faults::default() {
                out.push(Out::Batch(index));
                continue;
            }
            if faults.cut || rng.chance(faults.drop) {
                counts.dropped += 1;
                continue;
            }
            if faults.blackhole > 0 && frame.len() > faults.blackhole {
                counts.swallowed += 1;
                continue;
            }
            let copies = if rng.chance(faults.duplicate) { 2 } else { 1 };
            counts.duplicated += copies - 1;
            for _ in 0..copies {
                let spoiled = spoil(frame, &faults, &mut rng, &mut counts);
                if rng.chance(faults.reorder) {
                    counts.reordered += 1;
                    let behind = 1 + rng.below(faults.depth.max(1).into()) as u32;
                    held.push_back(Held {
                        behind,
                        at: now + HELD,
                        frame: spoiled.unwrap_or_else(|| frame.to_vec()),
                    });
                } else if faults.delay + faults.jitter > Duration::ZERO {
                    counts.delayed += 1;
                    order += 1;
                    let at = now
                        + faults.delay
                        + faults.jitter.mul_f64(rng.below(1 << 20) as f64 / f64::from(1 << 20));
                    late.push(Due { at, order, frame: spoiled.unwrap_or_else(|| frame.to_vec()) });
                } else {
                    out.push(Out::of(spoiled, index, &mut owned));
                    overtaken(&mut held, &mut out, &mut owned);
                }
            }
        }
        while late.peek().is_some_and(|due| due.at <= now) {
            out.push(Out::of(late.pop().map(|due| due.frame), 0, &mut owned));
            overtaken(&mut held, &mut out, &mut owned);
        }
        while let Some(place) = held.iter().position(|held| held.at <= now) {
            out.push(Out::of(held.remove(place).map(|held| held.frame), 0, &mut owned));
        }
        let originals: Vec<&[u8]> = batch.frames().collect();
        let frames: Vec<&[u8]> = out
            .iter()
            .map(|out| match *out {
                Out::Batch(index) => originals[index],
                Out::Owned(index) => owned[index].as_slice(),
            })
            .collect();
        send_all(to, &frames, &mut counts);
        *lock(&shared.counts) = counts;
    }
}

enum Out {
    Batch(usize),
    Owned(usize),
}

impl Out {
    fn of(spoiled: Option<Vec<u8>>, index: usize, owned: &mut Vec<Vec<u8>>) -> Self {
        match spoiled {
            None => Self::Batch(index),
            Some(frame) => {
                owned.push(frame);
                Self::Owned(owned.len() - 1)
            }
        }
    }
}

fn batch_wait(from: &Port, batch: &mut Batch, limit: Duration) {
    from.recv_batch(batch);
    if batch.frames().next().is_none() && wait(&[from.as_fd()], limit) {
        from.recv_batch(batch);
    }
}

/// One more frame has left: those that waited only for it follow.
fn overtaken(held: &mut VecDeque<Held>, out: &mut Vec<Out>, owned: &mut Vec<Vec<u8>>) {
    held.iter_mut().for_each(|held| held.behind -= 1);
    while let Some(place) = held.iter().position(|held| held.behind == 0) {
        out.push(Out::of(held.remove(place).map(|held| held.frame), 0, owned));
    }
}

/// The frame changed as the settings say; None when it stays as it is.
fn spoil(frame: &[u8], faults: &Faults, rng: &mut Rng, counts: &mut Counts) -> Option<Vec<u8>> {
    let mut changed: Option<Vec<u8>> = None;
    for (p, end) in [(faults.corrupt, frame.len()), (faults.corrupt_head, frame.len().min(HEAD))] {
        if rng.chance(p) {
            counts.corrupted += 1;
            // The ethertype stays: a frame of another protocol is not ours to carry.
            let byte = [0, 14][usize::from(end > 14 && rng.chance(0.7))];
            let place = byte + rng.below((if byte == 0 { 12.min(end) } else { end - byte }) as u64) as usize;
            changed.get_or_insert_with(|| frame.to_vec())[place] ^= 1 << rng.below(8);
        }
    }
    if rng.chance(faults.truncate) && frame.len() > 15 {
        counts.truncated += 1;
        let len = 14 + rng.below(frame.len() as u64 - 14) as usize;
        changed.get_or_insert_with(|| frame.to_vec()).truncate(len);
    }
    // Not both: junk in the place of what was cut off could say anything.
    let cut = changed.as_ref().is_some_and(|changed| changed.len() < frame.len());
    if rng.chance(faults.pad) && !cut {
        counts.padded += 1;
        let mut junk = [0; 64];
        rng.fill(&mut junk);
        let more = 1 + rng.below(64) as usize;
        let frame = changed.get_or_insert_with(|| frame.to_vec());
        frame.extend_from_slice(&junk[..more.min(FRAME_MAX - frame.len())]);
    }
    changed
}

/// Sends them all; one that the kernel refuses is counted and the rest goes on.
fn send_all(to: &Port, frames: &[&[u8]], counts: &mut Counts) {
    let mut rest = frames;
    while !rest.is_empty() {
        let sent = to.send_batch(rest).unwrap_or(0);
        let (done, left) = rest.split_at(sent);
        counts.passed += done.len() as u64;
        counts.bytes += done.iter().map(|frame| frame.len() as u64).sum::<u64>();
        rest = left;
        if !rest.is_empty() {
            counts.refused += 1;
            rest = &rest[1..];
        }
    }
}
