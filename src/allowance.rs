//! An allowance for lines of one kind: so many at once, and so many a second in the long run. What goes beyond it is
//! counted, and the count is told later.
//!
//! Nothing here reads the clock: the time is an argument.

use std::time::{Duration, Instant};

/// Lines that may come at once: as many as when every target of a rack comes up.
pub const BURST: u32 = 64;

/// Lines a second in the long run.
pub const RATE: u32 = 4;

/// How long a count is gathered before it is told.
pub const GATHER: Duration = Duration::from_secs(1);

/// What one kind of line may still use, and how many lines were left out.
#[derive(Debug)]
pub struct Allowance {
    tokens: f64,
    filled: Instant,
    left_out: u64,
    /// When the first of the lines that were left out came.
    since: Instant,
}

impl Allowance {
    /// A whole allowance.
    pub fn new(now: Instant) -> Allowance {
        Allowance { tokens: BURST.into(), filled: now, left_out: 0, since: now }
    }

    /// Whether a line may be written now. If not, it is counted.
    pub fn admit(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * f64::from(RATE);
        self.tokens = (self.tokens + gained).min(BURST.into());
        self.filled = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return true;
        }
        if self.left_out == 0 {
            self.since = now;
        }
        self.left_out += 1;
        false
    }

    /// Lines that were left out and are not told yet.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The count, if there is one and it was gathered for long enough; it begins again at 0. With `at_once` it need not
    /// have been gathered for long.
    pub fn take_left_out(&mut self, now: Instant, at_once: bool) -> Option<u64> {
        let due = at_once || now.saturating_duration_since(self.since) >= GATHER;
        (due && self.left_out > 0).then(|| std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_burst_a_trickle_and_a_count() {
        let start = Instant::now();
        let (mut allowance, mut admitted, mut told) = (Allowance::new(start), 0, 0);
        for tenth in 0..30 {
            let now = start + Duration::from_millis(100) * tenth;
            admitted += (0..2000).filter(|_| allowance.admit(now)).count();
            told += allowance.take_left_out(now, false).unwrap_or(0);
        }
        assert_eq!(admitted, 64 + 11, "64 at once, and 4 a second for 2.9 s");
        let last = start + Duration::from_millis(2900);
        assert!(allowance.take_left_out(last, false).is_none(), "gathered for too short a time");
        told += allowance.take_left_out(last, true).unwrap();
        assert_eq!((told, allowance.left_out()), (60_000 - admitted as u64, 0));
        // After a pause there is an allowance again.
        assert!(allowance.admit(start + Duration::from_secs(6)));
        assert!(allowance.take_left_out(start + Duration::from_secs(60), true).is_none());
    }
}
