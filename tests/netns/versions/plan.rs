//! Who owns what, and what an owner writes there.
//!
//! The unit of everything is half a sector. Each unit has one owner for the whole run, by its place alone; only its
//! owner writes
//! it. What is written says the unit, the twin that it may be copied to, and its version: the owner's count of
//! operations, so
//! that the versions of a unit only grow. Zeros are a version as well, which says nothing; the board remembers it.

use std::ops::Range;

/// Bytes of a unit: half a sector, so that two writers who share a sector are told apart.
pub const UNIT: usize = 256;
/// Units in a sector.
pub const HALVES: u64 = 2;
const WORDS: usize = UNIT / 8;
/// "versions", as a number.
const MAGIC: u64 = 0x736e_6f69_7372_6576;
/// Sectors of a zone: a zone is owned in one of three ways.
const ZONE: u64 = 64;
/// Sectors that belong to one owner where runs are owned: no divisor of a page, so that runs meet within pages.
const RUN: u64 = 13;

/// What is fixed for a run: its size, its owners, and the seed that decides all else.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub workers: u64,
    /// Sectors of the disk.
    pub sectors: u64,
}

impl Plan {
    pub const fn units(&self) -> u64 {
        self.sectors * HALVES
    }

    /// Whose it is. Half of the zones change hands from sector to sector, a quarter after each run of sectors, and in
    /// a quarter two
    /// owners share each sector.
    pub const fn owner(&self, unit: u64) -> u64 {
        let sector = unit / HALVES;
        match sector / ZONE % 4 {
            0 | 2 => sector % self.workers,
            1 => sector / RUN % self.workers,
            _ => (sector + unit % HALVES) % self.workers,
        }
    }

    /// The first units at `from` or behind it, within the range, that belong to a worker and to nobody else in
    /// between; at most
    /// `most` of them. With `whole`, whole sectors only. Empty if there are none.
    pub fn run(&self, worker: u64, from: u64, range: &Range<u64>, most: u64, whole: bool) -> Range<u64> {
        let step = if whole { HALVES } else { 1 };
        let own = |unit: &u64| (0..step).all(|half| self.owner(unit + half) == worker);
        let first = from.max(range.start).next_multiple_of(step);
        // In this many units every owner has a turn, whatever the zone.
        let far = 2 * ZONE * HALVES + RUN * HALVES * self.workers;
        let Some(start) = (first..range.end.min(first + far))
            .step_by(step as usize)
            .find(|unit| unit + step <= range.end && own(unit))
        else {
            return first..first;
        };
        let mut end = start;
        while end + step <= range.end && end - start + step <= most && own(&end) {
            end += step;
        }
        start..end
    }
}

/// What a unit's bytes say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// Nothing but zeros.
    Zeros,
    /// A version that is whole.
    Version { unit: u64, twin: u64, version: u64 },
    /// Anything else: parts of several versions, or bytes that nobody wrote.
    Torn,
}

/// Fills the bytes of a run of units with a version. `twin` is where the first unit may be copied to; itself if
/// nowhere.
pub fn fill(bytes: &mut [u8], first: u64, twin: u64, version: u64) {
    for (n, block) in (0..).zip(bytes.chunks_exact_mut(UNIT)) {
        let head = [MAGIC, first + n, twin + n, version];
        let sum = sum(&head);
        for (at, word) in block.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&word_at(&head, sum, at).to_le_bytes());
        }
    }
}

/// Reads the bytes of one unit.
pub fn see(block: &[u8]) -> Seen {
    let word = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&block[at * 8..at * 8 + 8]);
        u64::from_le_bytes(eight)
    };
    let head = [word(0), word(1), word(2), word(3)];
    if head == [0; 4] && block.iter().all(|byte| *byte == 0) {
        return Seen::Zeros;
    }
    let sum = sum(&head);
    if head[0] != MAGIC || (4..WORDS).any(|at| word(at) != word_at(&head, sum, at)) {
        return Seen::Torn;
    }
    Seen::Version { unit: head[1], twin: head[2], version: head[3] }
}

/// The words of a unit: what it says, then words that follow from all of that and from their place.
const fn word_at(head: &[u64; 4], sum: u64, at: usize) -> u64 {
    if at < head.len() { head[at] } else { sum.rotate_left(at as u32) ^ (at as u64).wrapping_mul(MAGIC | 1) }
}

fn sum(head: &[u64; 4]) -> u64 {
    head.iter().fold(0xcbf2_9ce4_8422_2325, |sum, word| {
        let mixed: u64 = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    })
}
