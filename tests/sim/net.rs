//! Wires on virtual time: one way of one path, and what it does to a frame.
//!
//! Limits of the model, because no initiator can defend against more: a copy of a request that the *network* made is
//! executed together with its original, before any answer leaves; and a request is on its way for less than the
//! quarantine (a second), unless nothing is written in the run. Payloads are never corrupted: AoE has no checksum.
//! Headers are, where the damage can be told from an answer; never the tag, the error flag or the ATA registers of an
//! answer that is accepted.

use super::rng::Rng;
use aoefs::wire::HEADER_LEN;

/// One way of one path.
#[derive(Clone, Debug)]
pub struct Way {
    pub loss: f64,
    pub duplicate: f64,
    /// Each frame has a delay of its own; else they keep their order.
    pub reorder: bool,
    /// The least and the most time on the way, in µs.
    pub delay: (u64, u64),
    /// µs that a frame occupies the wire before the next one can follow.
    pub apart: u64,
    /// How often a frame takes up to `spike.1` µs longer.
    pub spike: (f64, u64),
    pub garble: f64,
    /// Nothing passes.
    pub cut: bool,
    /// Frames longer than this vanish.
    pub hole: usize,
    /// Answers: so many more copies of each come, one after the other.
    pub echoes: u64,
    last: u64,
    free: u64,
}

/// What became of a frame: when it arrives, and when a second copy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    pub first: Option<u64>,
    pub second: Option<u64>,
}

impl Way {
    pub fn clean(us: u64) -> Way {
        Way {
            loss: 0.0,
            duplicate: 0.0,
            reorder: false,
            delay: (us, us),
            apart: 0,
            spike: (0.0, 0),
            garble: 0.0,
            cut: false,
            hole: usize::MAX,
            echoes: 0,
            last: 0,
            free: 0,
        }
    }

    /// Ends every fault; the delay stays.
    pub fn heal(&mut self) {
        let least = self.delay.0;
        *self = Way { last: self.last, free: self.free, delay: (least, least), ..Way::clean(least) };
    }

    fn time(&mut self, rng: &mut Rng, now: u64) -> u64 {
        let (least, most) = self.delay;
        self.free = now.max(self.free + self.apart);
        let mut at = self.free + least + rng.below(most - least + 1);
        if self.spike.1 > 0 && rng.chance(self.spike.0) {
            at += rng.below(self.spike.1);
        }
        if !self.reorder {
            at = at.max(self.last);
            self.last = at;
        }
        at
    }

    pub fn carry(&mut self, rng: &mut Rng, now: u64, len: usize) -> Passage {
        if self.cut || len > self.hole || rng.chance(self.loss) {
            return Passage { first: None, second: None };
        }
        let first = Some(self.time(rng, now));
        let second = rng.chance(self.duplicate).then(|| self.time(rng, now));
        Passage { first, second }
    }
}

/// Damages a request so that no target acts on it, or only as if it were the same request.
pub fn garble_request(rng: &mut Rng, frame: &mut Vec<u8>) {
    match rng.below(5) {
        // Too short to have an argument.
        0 => frame.truncate(rng.below(HEADER_LEN as u64 + 8) as usize),
        // For another station, from another, of another type, for another target.
        1 => flip(rng, frame, 0..6),
        2 => flip(rng, frame, 6..12),
        3 => flip(rng, frame, 12..14),
        _ => flip(rng, frame, 16..19),
    }
}

/// Damages an answer so that it cannot be taken for another good one.
pub fn garble_answer(rng: &mut Rng, frame: &mut Vec<u8>) {
    match rng.below(8) {
        0 => frame.truncate(rng.below(frame.len() as u64) as usize),
        1 => flip(rng, frame, 0..6),
        2 => flip(rng, frame, 6..12),
        3 => flip(rng, frame, 12..14),
        4 => frame[14] ^= 0x08,
        5 => flip(rng, frame, 16..19),
        // Another command.
        6 => frame[19] = rng.below(256) as u8,
        // Longer than it was: padding of whatever bytes.
        _ => {
            let more = 1 + rng.below(64) as usize;
            frame.extend((0..more).map(|_| 0xa5));
        }
    }
}

fn flip(rng: &mut Rng, frame: &mut [u8], range: std::ops::Range<usize>) {
    let at = range.start + rng.below((range.end - range.start) as u64) as usize;
    if let Some(byte) = frame.get_mut(at) {
        *byte ^= 1 << rng.below(8);
    }
}
