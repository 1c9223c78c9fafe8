//! A target's `stats` file: its part of `metrics`, for people.
//!
//! One `key: value` a line; times in microseconds, sizes in bytes. Latencies are counted by powers of two: a quantile
//! is the bound that so many stayed below, `-` where nothing was counted, and `>` stands before it where they took
//! longer than the largest bound. New lines go below the others, above those of the paths.

use std::fmt;
use std::time::Duration;

use super::snapshot::{Target, net_name, word};
use crate::engine::{BUCKETS, Histogram, Op, PathStatus};
use crate::runtime::{NetlinkStatus, Runtime, Unit};

/// The quantiles that are shown, in parts of a thousand.
const QUANTILES: [(&str, u32); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("p999", 999)];

/// The page.
#[derive(Clone, Debug)]
pub struct StatsPage {
    /// The target.
    pub target: Target,
    /// The interfaces in use, for their names.
    pub netlinks: Vec<NetlinkStatus>,
}

impl StatsPage {
    /// Copies the numbers of a target.
    pub fn take(runtime: &Runtime, unit: &Unit) -> StatsPage {
        StatsPage { target: Target::take(runtime, unit), netlinks: runtime.netlinks() }
    }
}

impl fmt::Display for StatsPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { status, paths, .. } = &self.target;
        for ((_, op), stats) in Op::ALL.iter().zip(&status.stats.ops) {
            writeln!(f, "{op} requests: {}", stats.requests)?;
            writeln!(f, "{op} bytes: {}", stats.bytes)?;
            writeln!(f, "{op} errors: {}", stats.errors)?;
            writeln!(f, "{op} latency: {}", Latency(&stats.latency))?;
        }
        let sum = |field: fn(&PathStatus) -> u64| paths.iter().map(field).sum::<u64>();
        writeln!(f, "retransmitted: {}", sum(|path| path.stats.resent))?;
        writeln!(f, "duplicates: {}", status.stats.duplicates)?;
        writeln!(f, "late: {}", sum(|path| path.stats.late))?;
        writeln!(f, "unexpected: {}", status.stats.unexpected)?;
        writeln!(f, "mismatched: {}", status.stats.mismatched)?;
        writeln!(f, "held back: {}", status.stats.held_back)?;
        writeln!(f, "quarantined: {}", status.quarantined)?;
        writeln!(f, "confirmations: {}", status.stats.confirmations)?;
        writeln!(f, "downs: {}", status.stats.downs)?;
        writeln!(f, "queue: {}", status.requests)?;
        writeln!(f, "outstanding: {}", status.nout)?;
        writeln!(f, "window: {}", status.nmaxout)?;
        let rtts: Vec<Duration> = paths.iter().filter_map(|path| path.rtt).collect();
        match rtts.iter().sum::<Duration>().checked_div(rtts.len() as u32) {
            Some(mean) => writeln!(f, "rtt: {}", mean.as_micros())?,
            None => f.write_str("rtt: -\n")?,
        }
        writeln!(f, "read ahead fetched: {}", status.stats.ahead_fetched)?;
        writeln!(f, "read ahead served: {}", status.stats.ahead_served)?;
        writeln!(f, "read ahead wasted: {}", status.stats.ahead_wasted)?;
        writeln!(f, "deadlines passed: {}", status.stats.deadlines)?;
        for path in paths {
            let (netlink, mac, stats) = (net_name(&self.netlinks, path.net), path.mac, &path.stats);
            let state = if path.up { word(path.trust) } else { "down" };
            write!(f, "path {netlink} {mac}: {state}")?;
            match path.rtt {
                Some(rtt) => write!(f, " rtt {} rttvar {}", rtt.as_micros(), path.deviation.as_micros())?,
                None => f.write_str(" rtt - rttvar -")?,
            }
            write!(f, " rto {} window {} out {}", path.timeout.as_micros(), path.window, path.inflight)?;
            write!(f, " sent {} answered {} resent {}", stats.sent, stats.answered, stats.resent)?;
            write!(f, " overtaken {} expired {} late {}", stats.overtaken, stats.expired, stats.late)?;
            writeln!(f, " bytes {}", stats.bytes)?;
            for ((_, op), trips) in Op::ALL.iter().zip(&stats.trips) {
                writeln!(f, "path {netlink} {mac} {op}: {}", Latency(trips))?;
            }
        }
        Ok(())
    }
}

/// `count N mean N p50 N p90 N p99 N p999 N`.
struct Latency<'a>(&'a Histogram);

impl fmt::Display for Latency<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Histogram { count, sum, .. } = *self.0;
        write!(f, "count {count} mean ")?;
        match sum.checked_div(count) {
            Some(mean) => write!(f, "{mean}")?,
            None => f.write_str("-")?,
        }
        const LARGEST: u64 = 1 << (BUCKETS - 2);
        for (name, thousandths) in QUANTILES {
            match self.0.quantile(f64::from(thousandths) / 1000.0) {
                None => write!(f, " {name} -")?,
                Some(bound) if bound > LARGEST => write!(f, " {name} >{LARGEST}")?,
                Some(bound) => write!(f, " {name} {bound}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
