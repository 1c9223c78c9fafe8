//! A limit on how fast log lines come. A station that sends bad requests, or a disk that fails every one, could else
//! fill the log's disk and take the processor.
//!
//! Promises: each place in the program that logs has an allowance of its own, so one kind of line does not push out
//! another; every line that is left out is counted, and the count is said after [`GATHER`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Lines of one place that may come at once: every target of a rack coming up.
const BURST: f64 = 64.0;

/// Lines of one place a second in the long run.
const RATE: f64 = 4.0;

/// How long a count of lines left out is gathered before it is said.
pub const GATHER: Duration = Duration::from_secs(1);

/// Where a line comes from: the source file and the line in it.
pub type Place = (&'static str, u32);

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is said.
    Say,
    /// It is counted only, as the first since the last count was said.
    First,
    /// It is counted only.
    More,
}

/// The allowances.
#[derive(Default)]
pub struct Limiter {
    places: HashMap<Place, Bucket>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
    left_out: u64,
    /// When the first of those left out came, and what it said.
    since: Instant,
    example: String,
}

impl Limiter {
    /// Whether a line may be said now. If not, it is counted; `text` makes it an example of those left out.
    pub fn admit(&mut self, place: Place, now: Instant, text: impl FnOnce() -> String) -> Verdict {
        let bucket = self.places.entry(place).or_insert_with(|| Bucket {
            tokens: BURST,
            filled: now,
            left_out: 0,
            since: now,
            example: String::new(),
        });
        let gained = now.saturating_duration_since(bucket.filled).as_secs_f64() * RATE;
        bucket.tokens = (bucket.tokens + gained).min(BURST);
        bucket.filled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Verdict::Say;
        }
        bucket.left_out += 1;
        if bucket.left_out > 1 {
            return Verdict::More;
        }
        bucket.since = now;
        bucket.example = text();
        Verdict::First
    }

    /// Whether lines were left out whose count has not been said.
    pub fn owes(&self) -> bool {
        self.places.values().any(|bucket| bucket.left_out > 0)
    }

    /// One line for each place whose count is due at `now`; with `all`, for each that has one.
    pub fn sum_up(&mut self, now: Instant, all: bool) -> Vec<String> {
        let due = |bucket: &&mut Bucket| {
            bucket.left_out > 0 && (all || now.saturating_duration_since(bucket.since) >= GATHER)
        };
        let say = |bucket: &mut Bucket| {
            let line = format!("{} more lines left out, such as: {}", bucket.left_out, bucket.example);
            bucket.left_out = 0;
            bucket.example = String::new();
            line
        };
        self.places.values_mut().filter(due).map(say).collect()
    }
}

#[cfg(test)]
mod tests {
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
