//! Counters and latency histograms of one target. Plain numbers, read under the target's lock.

use std::time::Duration;

/// What a request does, for counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Read.
    Read,
    /// Write, TRIM included.
    Write,
    /// Flush.
    Flush,
    /// Raw, config, mask, reserve.
    Other,
}

impl Op {
    /// Those that are counted one by one, with their names.
    pub const ALL: [(Op, &'static str); 4] =
        [(Op::Read, "read"), (Op::Write, "write"), (Op::Flush, "flush"), (Op::Other, "other")];
}

/// Buckets of a histogram: bucket `i` counts what took less than 2^i µs, the last one the rest (over a minute).
pub const BUCKETS: usize = 28;

/// Latencies by powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Counts, not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Sum of all, in µs.
    pub sum: u64,
    /// How many.
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [0; BUCKETS], sum: 0, count: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.sum = self.sum.saturating_add(us);
        self.count += 1;
    }

    /// The upper bound in µs of the bucket in which the share `q` (0…1) of all lies; none if nothing was counted.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = ((self.count as f64 * q).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Some(1 << i);
            }
        }
        None
    }
}

/// Counters of one kind of request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpStats {
    /// Requests accepted.
    pub requests: u64,
    /// Bytes moved by those that succeeded.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// From acceptance to the end, of those that succeeded.
    pub latency: Histogram,
}

/// Counters of one target. What is counted by path is in `PathStats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests by kind, in the order of [`Op::ALL`].
    pub ops: [OpStats; 4],
    /// Answers to frames that had been answered already, by another attempt's answer or by the same one.
    pub duplicates: u64,
    /// Answers with a tag that we do not know: another initiator's on the same MAC, very late, or forged.
    pub unexpected: u64,
    /// Answers that did not fit what was asked: too short, other command, unknown MAC.
    pub mismatched: u64,
    /// Writes that had to wait because a stale attempt of an older one could still arrive.
    pub held_back: u64,
    /// Times the disk had to show its identity before more writes left.
    pub confirmations: u64,
    /// Times the target went down.
    pub downs: u64,
    /// Requests that failed because their deadline passed.
    pub deadlines: u64,
    /// Bytes that came ahead of readers.
    pub ahead_fetched: u64,
    /// Bytes of reads that were answered with them.
    pub ahead_served: u64,
    /// Those that were thrown away.
    pub ahead_wasted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_buckets() {
        let mut h = Histogram::default();
        for us in [0, 1, 2, 3, 1000, u64::MAX / 2_000_000] {
            h.record(Duration::from_micros(us));
        }
        assert_eq!(&h.buckets[..3], &[1, 1, 2]);
        assert_eq!(h.quantile(0.5), Some(4));
        assert_eq!(h.count, 6);
        h.record(Duration::MAX);
        assert!(h.buckets[BUCKETS - 1] > 0);
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
