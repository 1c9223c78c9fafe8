//! A limit on how fast log lines come: a station that sends bad requests, or a disk that fails every request, could
//! fill the log's disk and take the processor.
//!
//! Promises: each place in the program that logs has an allowance of its own, so that one kind of line does not push
//! out another; every line that is left out is counted, and the count is written later with one of the lines.

use std::collections::HashMap;
use std::time::Instant;

use crate::allowance::Allowance;

/// Where a line comes from: the source file and the line in it.
pub type Place = (&'static str, u32);

/// Whether a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is written.
    Say,
    /// It is counted only, as the first since the last count was written.
    First,
    /// It is counted only.
    More,
}

/// The allowances.
#[derive(Default)]
pub struct Limiter {
    places: HashMap<Place, Lines>,
}

struct Lines {
    allowance: Allowance,
    /// The first line of those that were left out.
    example: String,
}

impl Limiter {
    /// Whether a line may be written now. If not, it is counted; `text` gives the example for lines that are left out.
    pub fn admit(&mut self, place: Place, now: Instant, text: impl FnOnce() -> String) -> Verdict {
        let new = || Lines { allowance: Allowance::new(now), example: String::new() };
        let lines = self.places.entry(place).or_insert_with(new);
        if lines.allowance.admit(now) {
            return Verdict::Say;
        }
        if lines.allowance.left_out() > 1 {
            return Verdict::More;
        }
        lines.example = text();
        Verdict::First
    }

    /// Whether lines were left out whose count has not been written.
    pub fn owes(&self) -> bool {
        self.places.values().any(|lines| lines.allowance.left_out() > 0)
    }

    /// One line for each place whose count is due at `now`; with `all`, for each that has one.
    pub fn sum_up(&mut self, now: Instant, all: bool) -> Vec<String> {
        let count = |lines: &mut Lines| {
            let count = lines.allowance.take_left_out(now, all)?;
            Some(format!("{count} more lines left out, such as: {}", std::mem::take(&mut lines.example)))
        };
        self.places.values_mut().filter_map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_becomes_a_burst_a_trickle_and_a_count() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let (mut said, mut summed) = (0, Vec::new());
        let second = |tenth: u32| start + Duration::from_millis(100) * tenth;
        for tenth in 0..30 {
            let now = second(tenth);
            for n in 0..2000 {
                said += u32::from(limiter.admit(("a", 1), now, || format!("line {n}")) == Verdict::Say);
            }
            summed.extend(limiter.sum_up(now, false));
        }
        let other = limiter.admit(("a", 2), second(29), String::new);
        assert_eq!(other, Verdict::Say, "another place has its own allowance");
        assert!(limiter.owes());
        summed.extend(limiter.sum_up(second(30), true));
        assert!(!limiter.owes());
        assert_eq!(said, 64 + 11, "64 at once, and 4 a second for 2.9 s");
        let left_out = |line: &String| line.split(' ').next()?.parse::<u32>().ok();
        assert_eq!(summed.iter().filter_map(left_out).sum::<u32>(), 60_000 - said);
        assert!(summed.len() <= 4 && summed[0].ends_with("such as: line 64"), "{summed:?}");
        // After a pause it speaks again.
        assert_eq!(limiter.admit(("a", 1), second(60), String::new), Verdict::Say);
    }
}
