//! A scripted target's disk, and the book that is kept of it: the truth that every answer is held against.
//!
//! The image sees every execution in the order in which it took effect. It promises to notice, at once:
//! * a sector that changes without a known write that explains it byte for byte: another place, another disk, another
//!   request's bytes, an edge that was filled from an old copy (a lost update);
//! * a write that takes effect after a younger one of the same sector: a stale copy. The engine grants overlapping
//!   writes in the order in which they were submitted, so the order at the disk must be that order, retransmissions
//!   included.
//!
//! A read is right if each of its sectors is what the disk held at some moment between submission and answer, but not
//! before a write took effect that was submitted before the read and acknowledged before its answer. What a reader
//! gets that is read ahead of may be a second older, but not than such a write.

use std::collections::{HashMap, HashSet};

use super::rng::Rng;
use aoefs::target::{Cause, Fault, Image, MemoryImage};
use aoefs::wire::{SECTOR, Sector};

/// Fills `out`, which lies at byte `at` of the disk, with the bytes of write `seq`: different for every write and
/// place.
pub fn pattern(seq: u32, at: u64, out: &mut [u8]) {
    let mut at = at;
    let mut rest = out;
    while !rest.is_empty() {
        let word = word(seq, at / 8);
        let skip = (at % 8) as usize;
        let n = rest.len().min(8 - skip);
        let (now, later) = rest.split_at_mut(n);
        now.copy_from_slice(&word[skip..skip + n]);
        rest = later;
        at += n as u64;
    }
}

fn word(seq: u32, index: u64) -> [u8; 8] {
    let mut z = (u64::from(seq) << 40 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

/// What a write puts on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    Pattern,
    Zeros,
}

/// A write that was submitted for this disk and has not been acknowledged. A failed one stays: it may still happen,
/// as long as nothing younger did.
#[derive(Clone, Debug)]
struct Write {
    seq: u32,
    start: u64,
    end: u64,
    fill: Fill,
    /// By sector, from the first one.
    executed: Vec<bool>,
}

impl Write {
    /// Would this write turn `old` into `new`? `base` is the first byte of the sector.
    fn explains(&self, base: u64, old: &[u8], new: &[u8]) -> bool {
        let from = self.start.max(base);
        let to = self.end.min(base + SECTOR as u64);
        if from >= to {
            return false;
        }
        let (a, b) = ((from - base) as usize, (to - base) as usize);
        if old[..a] != new[..a] || old[b..] != new[b..] {
            return false;
        }
        match self.fill {
            Fill::Zeros => new[a..b].iter().all(|byte| *byte == 0),
            Fill::Pattern => {
                let mut want = [0; SECTOR];
                let want = &mut want[..b - a];
                pattern(self.seq, from, want);
                *want == new[a..b]
            }
        }
    }
}

/// How often the disk fails.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    pub read: f64,
    pub write: f64,
    pub flush: f64,
}

/// What a sector held, until which tick, and which write ended that.
struct Held {
    until: u64,
    by: u32,
    bytes: Box<[u8]>,
}

/// Numbers of disks that one target may have in the course of a run: two disks of one number would be one to the judge.
pub const DISKS: usize = 1_000_000;

/// See the module.
pub struct Disk {
    pub id: usize,
    /// It changed its size: another identity.
    pub resized: bool,
    /// When that was first, in virtual µs.
    pub resized_at: Option<u64>,
    pub faults: Faults,
    /// Where and when the disk failed on purpose.
    pub failed: Vec<(u64, u64, u64)>,
    /// Set by the world before each call: a clock that counts everything that happens.
    pub tick: u64,
    pub last_flush: u64,
    pub problem: Option<String>,
    /// Sectors written and read so far.
    pub executions: u64,
    pub reads: u64,
    rng: Rng,
    size: u64,
    mem: MemoryImage,
    /// By sector: the youngest write that took effect.
    youngest: Vec<u32>,
    writes: Vec<Write>,
    /// Writes that were acknowledged and that reads wait for.
    ended: HashSet<u32>,
    /// Those that reads do not wait for: when they were acknowledged.
    ended_raw: HashMap<u32, u64>,
    readers: usize,
    /// What sectors held is remembered although nobody reads: readers are read ahead of.
    pub remembers: bool,
    /// By sector: what it held until when, as long as somebody reads.
    past: HashMap<u64, Vec<Held>>,
}

impl Disk {
    pub fn new(id: usize, sectors: u64, seed: u64) -> Disk {
        Disk {
            id,
            resized: false,
            resized_at: None,
            faults: Faults::default(),
            failed: Vec::new(),
            tick: 0,
            last_flush: 0,
            problem: None,
            executions: 0,
            reads: 0,
            rng: Rng::new(seed),
            size: sectors,
            mem: MemoryImage::new(sectors),
            youngest: vec![0; sectors as usize],
            writes: Vec::new(),
            ended: HashSet::new(),
            ended_raw: HashMap::new(),
            readers: 0,
            remembers: false,
            past: HashMap::new(),
        }
    }

    pub fn serial(&self) -> String {
        format!("disk-{}", self.id)
    }

    /// Who it is, as far as an initiator can tell.
    pub fn identity(&self) -> (usize, u64) {
        (self.id, self.size)
    }

    fn complain(&mut self, what: String) {
        self.problem.get_or_insert(what);
    }

    /// Bytes `[start, end)` may change from now on, by write `seq`.
    pub fn announce_write(&mut self, seq: u32, start: u64, end: u64, fill: Fill) {
        let sectors = end.div_ceil(SECTOR as u64) - start / SECTOR as u64;
        self.writes.push(Write { seq, start, end, fill, executed: vec![false; sectors as usize] });
    }

    /// Write `seq` was acknowledged: every sector of it must have taken effect. `raw`: reads did not have to wait for
    /// it.
    pub fn acknowledged(&mut self, seq: u32, raw: bool, tick: u64) {
        if raw {
            self.ended_raw.insert(seq, tick);
        } else {
            self.ended.insert(seq);
        }
        let Some(at) = self.writes.iter().position(|w| w.seq == seq) else { return };
        let w = self.writes.swap_remove(at);
        if let Some(sector) = w.executed.iter().position(|done| !done) {
            let sector = w.start / SECTOR as u64 + sector as u64;
            self.complain(format!(
                "ONCE: write #{seq} acknowledged, but sector {sector} never reached the disk"
            ));
        }
    }

    pub fn reader_begins(&mut self) {
        self.readers += 1;
    }

    /// No later read may get what was over before tick `old`.
    pub fn reader_ends(&mut self, old: u64) {
        self.readers -= 1;
        if self.readers == 0 {
            let remembers = self.remembers;
            self.past.retain(|_, past| {
                past.retain(|held| remembers && held.until >= old);
                !past.is_empty()
            });
        }
    }

    /// Another host writes, at once.
    pub fn strange_write(&mut self, seq: u32, sector: u64, count: u64) {
        let (start, end) = (sector * SECTOR as u64, (sector + count) * SECTOR as u64);
        let mut data = vec![0; (end - start) as usize];
        pattern(seq, start, &mut data);
        self.announce_write(seq, start, end, Fill::Pattern);
        for (i, bytes) in data.chunks_exact(SECTOR).enumerate() {
            self.execute(sector + i as u64, bytes);
            // A memory image cannot fail.
            let _ = self.mem.write_at(Sector(sector + i as u64), bytes);
        }
        self.writes.retain(|w| w.seq != seq);
    }

    /// `data` was read from byte `start` on by request `seq`, which was submitted at `asked` and may be as old as
    /// `since`.
    pub fn check_read(
        &mut self,
        seq: u32,
        start: u64,
        data: &[u8],
        asked: u64,
        since: u64,
    ) -> Result<(), String> {
        let mut at = start;
        let mut rest = data;
        while !rest.is_empty() {
            let sector = at / SECTOR as u64;
            let skip = (at % SECTOR as u64) as usize;
            let n = rest.len().min(SECTOR - skip);
            let (now, later) = rest.split_at(n);
            let held = self.past.get(&sector).is_some_and(|past| {
                let known = |h: &Held| {
                    h.by < seq && self.ended.contains(&h.by)
                        || self.ended_raw.get(&h.by).is_some_and(|ended| *ended < asked)
                };
                let fresh = |h: &Held| h.until > since && !known(h);
                past.iter().any(|h| fresh(h) && h.bytes[skip..skip + n] == *now)
            });
            if !held && self.sector(sector)[skip..skip + n] != *now {
                let shape = if now.iter().all(|b| *b == 0) { "zeros" } else { "data" };
                return Err(format!(
                    "INTEGRITY: sector {sector} of disk {} read as {shape} that it did not hold between submission and answer (youngest write #{})",
                    self.id,
                    self.youngest.get(sector as usize).copied().unwrap_or(0)
                ));
            }
            rest = later;
            at += n as u64;
        }
        Ok(())
    }

    fn sector(&mut self, sector: u64) -> [u8; SECTOR] {
        let mut held = [0; SECTOR];
        // A memory image cannot fail.
        let _ = self.mem.read_at(Sector(sector), &mut held);
        held
    }

    fn remember(&mut self, sector: u64, held: &[u8]) {
        if self.readers > 0 || self.remembers {
            let by = self.youngest[sector as usize];
            let held = Held { until: self.tick, by, bytes: held.into() };
            self.past.entry(sector).or_default().push(held);
        }
    }

    fn execute(&mut self, sector: u64, new: &[u8]) {
        self.executions += 1;
        let old = self.sector(sector);
        let base = sector * SECTOR as u64;
        let youngest = self.youngest[sector as usize];
        let mut oldest_match: Option<u32> = None;
        for w in &mut self.writes {
            if w.seq >= youngest && w.explains(base, &old, new) {
                w.executed[(sector - w.start / SECTOR as u64) as usize] = true;
                oldest_match = Some(oldest_match.map_or(w.seq, |seq| seq.min(w.seq)));
            }
        }
        if old == *new {
            // Once more what is there already: harmless, whoever it was.
            return;
        }
        match oldest_match {
            Some(seq) => self.youngest[sector as usize] = seq,
            // The search for what it is takes a while.
            None if self.problem.is_some() => {}
            None => {
                let like = self.writes.iter().find(|w| w.explains(base, new, new)).map(|w| w.seq);
                let bytes = (1..=20_000).find(|seq| {
                    let mut want = [0; 16];
                    (0..SECTOR - 16).step_by(16).any(|skip| {
                        pattern(*seq, base + skip as u64, &mut want);
                        want == new[skip..skip + 16]
                    })
                });
                self.complain(format!(
                    "INTEGRITY: sector {sector} of disk {} changed without a write that explains it (youngest #{youngest}; it looks like pending {like:?}, bytes of {bytes:?})",
                    self.id
                ));
            }
        }
        self.remember(sector, &old);
    }

    /// The disk has another size from now on, and with it another identity. What lies beyond the end is kept: a
    /// disk that changes its contents by itself would have no truth to hold answers against.
    pub fn resize(&mut self, sectors: u64) {
        self.resized = true;
        self.size = sectors;
        if sectors > self.mem.sectors() {
            self.mem.resize(sectors);
            self.youngest.resize(sectors as usize, 0);
        }
    }

    fn fault(&mut self, chance: f64, at: u64, count: u64) -> Option<u64> {
        if !self.rng.chance(chance) {
            return None;
        }
        self.failed.push((self.tick, at, at + count));
        Some(self.rng.below(count.max(1)))
    }
}

impl Disk {
    /// Does this flush fail? Not in `Image::flush`: our own target fails every flush after one that failed, and other
    /// disks do not.
    pub fn fails_to_flush(&mut self) -> bool {
        self.fault(self.faults.flush, 0, u64::MAX).is_some()
    }
}

impl Image for Disk {
    fn sectors(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, at: Sector, into: &mut [u8]) -> Result<(), Fault> {
        match self.fault(self.faults.read, at.0, (into.len() / SECTOR) as u64) {
            Some(done) => Err(Fault { cause: Cause::Medium, done }),
            None => {
                self.reads += (into.len() / SECTOR) as u64;
                self.mem.read_at(at, into)
            }
        }
    }

    fn write_at(&mut self, at: Sector, data: &[u8]) -> Result<(), Fault> {
        let fault = self.fault(self.faults.write, at.0, (data.len() / SECTOR) as u64);
        let done = fault.map_or(data.len() / SECTOR, |done| done as usize);
        for (i, sector) in data.chunks_exact(SECTOR).enumerate().take(done) {
            self.execute(at.0 + i as u64, sector);
            self.mem.write_at(at + i as u64, sector)?;
        }
        match fault {
            Some(done) => Err(Fault { cause: Cause::Medium, done }),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.last_flush = self.tick;
        Ok(())
    }

    fn trim(&mut self, at: Sector, count: u64) -> Result<(), Fault> {
        if self.fault(self.faults.write, at.0, count).is_some() {
            return Err(Cause::Medium.at_once());
        }
        for sector in at.0..at.0 + count {
            self.execute(sector, &[0; SECTOR]);
        }
        self.mem.trim(at, count)
    }
}
