//! Round-trip time of one path and the retransmission timeout that follows from it (RFC 6298 with our bounds).
//!
//! Every transmission has a tag of its own, so a sample always belongs to the copy that was answered and
//! Karn's problem does not arise: answers to retransmitted frames teach, too.

use std::time::Duration;

/// Before the first sample. A target on a LAN answers within microseconds; half a second covers a disk spinning up
/// without making the first lost frame cost what the kernel driver's 16 s do.
const FIRST: Duration = Duration::from_millis(500);
/// The least distance of the timeout from the mean. A single-threaded target that syncs its disk is often 10 ms
/// late; what is really lost is found faster by the answers that overtake it.
const SLACK: Duration = Duration::from_millis(20);
/// The most a frame waits between two copies, backed off or not.
pub const RTO_MAX: Duration = Duration::from_secs(8);

/// Smoothed round-trip time of one path, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Rtt {
    smoothed: Option<u64>,
    deviation: u64,
    largest: u64,
}

impl Rtt {
    /// Takes the time between a copy's departure and its answer.
    pub fn sample(&mut self, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).min(60_000_000);
        self.largest = self.largest.max(us);
        match self.smoothed {
            None => {
                self.smoothed = Some(us);
                self.deviation = us / 2;
            }
            Some(mean) => {
                self.deviation = (3 * self.deviation + mean.abs_diff(us)) / 4;
                self.smoothed = Some((7 * mean + us) / 8);
            }
        }
    }

    /// The smoothed round trip, none before the first answer.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(Duration::from_micros)
    }

    /// The mean deviation.
    pub fn deviation(&self) -> Duration {
        Duration::from_micros(self.deviation)
    }

    /// The largest round trip ever seen: how long a copy may live in this network.
    pub fn largest(&self) -> Duration {
        Duration::from_micros(self.largest)
    }

    /// How long the first copy of a frame may stay unanswered.
    pub fn timeout(&self) -> Duration {
        let Some(mean) = self.smoothed else { return FIRST };
        let slack = Duration::from_micros(4 * self.deviation).max(SLACK);
        (Duration::from_micros(mean) + slack).min(RTO_MAX)
    }

    /// The timeout after `expiries` copies of the same frame went unanswered.
    pub fn backed_off(&self, expiries: u8) -> Duration {
        self.timeout().saturating_mul(1 << expiries.min(9)).min(RTO_MAX)
    }

    /// Forgets the mean: the target restarted, its speed may be another. What the network once took stays known.
    pub fn reset(&mut self) {
        self.smoothed = None;
        self.deviation = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converges_and_stays_bounded() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), FIRST);
        for _ in 0..100 {
            rtt.sample(Duration::from_micros(200));
        }
        assert_eq!(rtt.smoothed(), Some(Duration::from_micros(200)));
        assert_eq!(rtt.timeout(), Duration::from_micros(200) + SLACK);
        assert_eq!(rtt.backed_off(200), RTO_MAX);
        rtt.sample(Duration::from_secs(1000));
        assert!(rtt.timeout() <= RTO_MAX);
    }

    #[test]
    fn recovers_after_a_spike() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.sample(Duration::from_micros(200));
        }
        let base = rtt.timeout();
        rtt.sample(Duration::from_secs(2));
        let samples = (0..).take_while(|_| {
            rtt.sample(Duration::from_micros(200));
            rtt.timeout() > 3 * base
        });
        assert!(samples.count() < 60);
    }
}
