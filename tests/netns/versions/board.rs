//! The board: what all processes of a run know of each other, in shared memory.
//!
//! For each unit the last version that its owner began and the last one that was acknowledged to it; for each process
//! how far it is.
//! Every word has one writer or is a counter, and all accesses are in one order (SeqCst), or a reader's bounds would
//! mean nothing.

use super::judge::Kind;
use super::plan::Plan;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Processes that fit on the board.
pub const SEATS: u64 = 32;
/// Words of one process: its progress, what it is doing, its count of versions.
const SEAT_WORDS: u64 = 4;
/// Words before those of the processes.
const HEAD_WORDS: u64 = 64;
/// Where the counters of violations begin.
const KINDS: u64 = 32;

/// A word of the head.
#[derive(Clone, Copy)]
pub enum Head {
    Seed,
    Workers,
    Sectors,
    /// Not 0: everybody is to end.
    Stop,
    /// Operations of workers wanted, and begun: writes of any kind.
    Goal,
    Begun,
    /// Not 0: calls may fail.
    Tolerant,
    /// Reads, and the units judged in them.
    Reads,
    Judged,
    /// Calls that failed where they may.
    Errors,
    /// Shared mappings that were refused.
    Refused,
    /// Copies made with copy_file_range(2).
    Copies,
}

/// The board, mapped into this process.
pub struct Board {
    words: *mut AtomicU64,
    bytes: usize,
    plan: Plan,
}

impl Board {
    /// A new one for a run, all zeros: every unit holds version 0, which is zeros.
    pub fn create(path: &Path, plan: Plan) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let words = HEAD_WORDS + SEATS * SEAT_WORDS + 5 * plan.units();
        file.set_len(words * 8)?;
        let mut board = Self::map(&file)?;
        for (head, value) in
            [(Head::Seed, plan.seed), (Head::Workers, plan.workers), (Head::Sectors, plan.sectors)]
        {
            board.head(head).store(value, SeqCst);
        }
        board.plan = plan;
        Ok(board)
    }

    /// One that is there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut board = Self::map(&File::options().read(true).write(true).open(path)?)?;
        let value = |head: Head| board.head(head).load(SeqCst);
        board.plan =
            Plan { seed: value(Head::Seed), workers: value(Head::Workers), sectors: value(Head::Sectors) };
        Ok(board)
    }

    fn map(file: &File) -> io::Result<Self> {
        let bytes = file.metadata()?.len() as usize;
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping where the kernel likes it, of a whole file; checked for failure below.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, read_write, shared, file.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let plan = Plan { seed: 0, workers: 1, sectors: 0 };
        Ok(Self { words: at.cast(), bytes, plan })
    }

    pub const fn plan(&self) -> Plan {
        self.plan
    }

    fn word(&self, at: u64) -> &AtomicU64 {
        assert!((at as usize) < self.bytes / 8, "beyond the board");
        // SAFETY: inside the mapping, which lives as long as `self`; it is aligned, and everybody uses it as atomics
        // only.
        unsafe { &*self.words.add(at as usize) }
    }

    pub fn head(&self, which: Head) -> &AtomicU64 {
        self.word(which as u64)
    }

    pub fn get(&self, which: Head) -> u64 {
        self.head(which).load(SeqCst)
    }

    pub fn set(&self, which: Head, value: u64) {
        self.head(which).store(value, SeqCst);
    }

    pub fn add(&self, which: Head, more: u64) {
        self.head(which).fetch_add(more, SeqCst);
    }

    pub fn stopped(&self) -> bool {
        self.get(Head::Stop) != 0
    }

    pub fn tolerant(&self) -> bool {
        self.get(Head::Tolerant) != 0
    }

    /// Violations of this kind.
    pub fn violations(&self, kind: Kind) -> &AtomicU64 {
        self.word(KINDS + kind as u64)
    }

    /// How far a process is: it counts up with every call that came back.
    pub fn progress(&self, seat: u64) -> &AtomicU64 {
        self.word(HEAD_WORDS + seat * SEAT_WORDS)
    }

    /// The call that a process is in: see `Call`.
    pub fn doing(&self, seat: u64) -> &AtomicU64 {
        self.word(HEAD_WORDS + seat * SEAT_WORDS + 1)
    }

    /// The last version that a worker gave out.
    pub fn versions(&self, seat: u64) -> &AtomicU64 {
        self.word(HEAD_WORDS + seat * SEAT_WORDS + 2)
    }

    fn unit(&self, array: u64, unit: u64) -> &AtomicU64 {
        self.word(HEAD_WORDS + SEATS * SEAT_WORDS + array * self.plan.units() + unit)
    }

    /// The last version of a unit that its owner began to write.
    pub fn begun(&self, unit: u64) -> &AtomicU64 {
        self.unit(0, unit)
    }

    /// The last version of a unit whose write succeeded.
    pub fn acknowledged(&self, unit: u64) -> &AtomicU64 {
        self.unit(1, unit)
    }

    /// The last version of a unit that is zeros; stored before it is stored as begun.
    pub fn zeroed(&self, unit: u64) -> &AtomicU64 {
        self.unit(2, unit)
    }

    /// The last version of a unit whose call came back, with success or without.
    pub fn settled(&self, unit: u64) -> &AtomicU64 {
        self.unit(3, unit)
    }

    /// The last version of a unit that somebody read after its call had come back: from then on it is there, even if
    /// it failed.
    pub fn seen(&self, unit: u64) -> &AtomicU64 {
        self.unit(4, unit)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, whole; no reference into it outlives `self`.
        unsafe { libc::munmap(self.words.cast(), self.bytes) };
    }
}
