//! Round-trip time of one path and the retransmission timeout that follows from it (RFC 6298 with our bounds).
//!
//! Every transmission has a tag of its own, so a sample always belongs to the attempt that was answered and
//! Karn's problem does not arise: answers to retransmitted frames teach, too.

use std::time::Duration;

use super::time::Time;

/// Before the first sample. A target on a LAN answers within microseconds; half a second covers a disk spinning up
/// without making the first lost frame cost what the kernel driver's 16 s do.
const FIRST: Duration = Duration::from_millis(500);
/// The least distance of the timeout from the mean. A single-threaded target that syncs its disk is often 10 ms
/// late; what is really lost is found faster by the answers that overtake it.
const SLACK: Duration = Duration::from_millis(20);
/// The most that the pauses of the last minutes add to the mean. A target that gets no processor, or syncs its disk,
/// pauses again; a frame that was really lost must not wait longer for that than TCP's least timeout on Linux.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// The most a frame waits between two attempts, backed off or not.
pub const RTO_MAX: Duration = Duration::from_secs(8);
/// After so long a silence, what a path took before says little about it: a storm long past must not make the next
/// lost frame cost [`RTO_MAX`].
const FRESH: Duration = Duration::from_secs(10);
/// The largest round trip is forgotten after this long, or after twice as long: one slow minute must not hold back
/// writes for the rest of the day.
const MEMORY: Duration = Duration::from_secs(300);

/// Smoothed round-trip time of one path, in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Rtt {
    smoothed: Option<u64>,
    deviation: u64,
    /// The largest since `since`, and in the [`MEMORY`] before that.
    largest: u64,
    before: u64,
    since: Time,
    sampled: Time,
    /// What follows from the last sample: it is asked for three times a frame.
    timeout: Duration,
}

impl Rtt {
    /// Takes the time between an attempt's departure and its answer.
    pub fn sample(&mut self, now: Time, rtt: Duration) {
        let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).min(60_000_000);
        let age = now.since(self.since);
        if age >= MEMORY {
            self.before = if age < 2 * MEMORY { self.largest } else { 0 };
            self.largest = 0;
            self.since = now;
        }
        self.largest = self.largest.max(us);
        if now.since(self.sampled) > FRESH {
            self.reset();
        }
        self.sampled = now;
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
        let mean = self.smoothed.unwrap_or_default();
        let slack = (4 * self.deviation).max(micros(SLACK)).max(self.pause_us());
        self.timeout = Duration::from_micros((mean + slack).min(micros(RTO_MAX)));
    }

    /// The smoothed round trip, none before the first answer.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed.map(Duration::from_micros)
    }

    /// The mean deviation.
    pub fn deviation(&self) -> Duration {
        Duration::from_micros(self.deviation)
    }

    /// The largest round trip of the last minutes: how long an attempt may live in this network.
    pub fn largest(&self) -> Duration {
        Duration::from_micros(self.largest.max(self.before))
    }

    /// How long this path may be silent without a loss: twice as long as it was in the last minutes. The mean and its
    /// deviation forget a pause within a few dozen answers, which a fast path has within a millisecond.
    pub fn pause(&self) -> Duration {
        Duration::from_micros(self.pause_us())
    }

    fn pause_us(&self) -> u64 {
        (2 * self.largest.max(self.before)).min(micros(PAUSE_MAX))
    }

    /// How long the first attempt of a frame may stay unanswered.
    pub fn timeout(&self) -> Duration {
        if self.smoothed.is_some() { self.timeout } else { FIRST }
    }

    /// The timeout after `expiries` attempts of the same frame went unanswered.
    pub fn backed_off(&self, expiries: u8) -> Duration {
        match expiries {
            // Nearly always, and without a multiplication.
            0 => self.timeout(),
            _ => self.timeout().saturating_mul(1 << expiries.min(9)).min(RTO_MAX),
        }
    }

    /// Forgets the mean: the target restarted, its speed may be another. What the network once took stays known.
    pub fn reset(&mut self) {
        self.smoothed = None;
        self.deviation = 0;
    }
}

/// In microseconds, as the samples are.
const fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converges_and_stays_bounded() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(), FIRST);
        for _ in 0..100 {
            rtt.sample(Time(0), Duration::from_micros(200));
        }
        assert_eq!(rtt.smoothed(), Some(Duration::from_micros(200)));
        assert_eq!(rtt.timeout(), Duration::from_micros(200) + SLACK);
        assert_eq!(rtt.backed_off(200), RTO_MAX);
        rtt.sample(Time(0), Duration::from_secs(1000));
        assert!(rtt.timeout() <= RTO_MAX);
    }

    #[test]
    fn recovers_after_a_spike() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.sample(Time(0), Duration::from_micros(200));
        }
        let base = rtt.timeout();
        rtt.sample(Time(0), Duration::from_secs(2));
        let samples = (0..1000).take_while(|_| {
            rtt.sample(Time(0), Duration::from_micros(200));
            rtt.timeout() > base + PAUSE_MAX
        });
        assert!(samples.count() < 60);
    }

    #[test]
    fn a_pause_of_the_last_minutes_is_waited_for() {
        let mut rtt = Rtt::default();
        let (fast, pause) = (Duration::from_micros(200), Duration::from_millis(40));
        rtt.sample(Time(0), pause);
        for _ in 0..1000 {
            rtt.sample(Time(0), fast);
        }
        assert_eq!(rtt.timeout(), fast + 2 * pause);
        rtt.sample(Time(0) + 2 * MEMORY, fast);
        assert_eq!(rtt.timeout(), fast + SLACK, "it was long ago");
    }

    #[test]
    fn a_storm_long_past_is_forgotten_with_the_next_answer() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.sample(Time(0), Duration::from_secs(3));
        }
        let quick = Duration::from_micros(100);
        rtt.sample(Time(0) + FRESH, quick);
        assert!(rtt.timeout() > Duration::from_secs(2), "ten seconds are no age");
        rtt.sample(Time(1) + 2 * FRESH, quick);
        assert_eq!(rtt.timeout(), quick + PAUSE_MAX);
        assert_eq!(rtt.largest(), Duration::from_secs(3), "old attempts may live on");
    }

    #[test]
    fn the_largest_is_forgotten_after_a_while() {
        let mut rtt = Rtt::default();
        let (slow, fast) = (Duration::from_secs(5), Duration::from_micros(200));
        let start = Time(7_000_000);
        rtt.sample(start, slow);
        for age in [Duration::from_secs(1), MEMORY, 2 * MEMORY - Duration::from_secs(1)] {
            rtt.sample(start + age, fast);
            assert_eq!(rtt.largest(), slow, "{age:?} later");
        }
        rtt.sample(start + 2 * MEMORY + Duration::from_secs(1), fast);
        assert_eq!(rtt.largest(), fast);
        rtt.sample(start + 3 * MEMORY, slow);
        rtt.sample(start + 9 * MEMORY, fast);
        assert_eq!(rtt.largest(), fast, "nothing was heard for longer than that");
    }
}
