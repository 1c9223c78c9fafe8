//! The clock: where the engine's `now` comes from, and where its deadlines go back to.
//!
//! Promises: never goes back, stands still while the machine sleeps (a deadline counts time in which the network could
//! have answered), and can tell that it slept, since a disk may have been exchanged meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::engine::Time;

/// Shorter sleeps do not count: nobody exchanges a disk in that time.
const NAP: u64 = 100_000;
/// µs after a sleep, after which no answer comes any more to a question from before it: longer than a candidate is
/// asked.
const SETTLED: u64 = 16_000_000;

/// Engine time: microseconds since the clock was made.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// CLOCK_BOOTTIME at `start`, in µs.
    boot: u64,
    /// Microseconds slept since `start`, as far as a reading has noticed.
    slept: AtomicU64,
    /// The same before the last sleep, and when that was noticed.
    before: AtomicU64,
    woke: AtomicU64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    /// A clock that shows zero.
    pub fn new() -> Clock {
        let start = Instant::now();
        // Read after the other clock, so that the time between the two looks like less sleep and never like more.
        let boot = micros_since_boot();
        let zero = || AtomicU64::new(0);
        Clock { start, boot, slept: zero(), before: zero(), woke: zero() }
    }

    /// The time that it shows.
    pub fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The time that it shows, and how long the machine has slept since the clock was made, in µs. The second grows
    /// with every sleep and stays the same otherwise. After a sleep, another disk may answer.
    pub fn reading(&self) -> (Time, u64) {
        let boot = micros_since_boot();
        let now = self.now();
        (now, self.noticed(now, boot.saturating_sub(self.boot).saturating_sub(now.0)))
    }

    /// How long the machine has slept, after a reading that says `slept`.
    fn noticed(&self, now: Time, slept: u64) -> u64 {
        let known = self.slept.load(Ordering::Relaxed);
        if slept < known + NAP {
            return known;
        }
        self.before.store(known, Ordering::Relaxed);
        self.woke.store(now.0, Ordering::Relaxed);
        self.slept.fetch_max(slept, Ordering::Relaxed).max(slept)
    }

    /// How long the machine had slept when the question may have been asked whose answer comes at `now`.
    pub fn slept_before(&self, now: Time) -> u64 {
        let lately = now.0 < self.woke.load(Ordering::Relaxed) + SETTLED;
        let slept = if lately { &self.before } else { &self.slept };
        slept.load(Ordering::Relaxed)
    }

    /// When it will show `time`: for a condition variable. None for never.
    pub fn instant(&self, time: Time) -> Option<Instant> {
        if time == Time::NEVER { None } else { self.start.checked_add(Duration::from_micros(time.0)) }
    }
}

/// The time of day, for what stat says. Nothing is decided by it.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Microseconds since the machine started, sleep included.
fn micros_since_boot() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing. The clock exists on every kernel that runs us; if it does not, `time`
    // stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes_and_comes_back_as_an_instant() {
        let clock = Clock::new();
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        let second = clock.now();
        assert!(second.0 >= first.0 + 2000);
        let instant = clock.instant(second).unwrap();
        assert!(instant <= Instant::now() && instant.elapsed() < Duration::from_secs(5));
        assert_eq!(clock.instant(Time::NEVER), None);
        // So far away that it cannot be represented: no panic.
        clock.instant(Time(u64::MAX - 1));
    }

    #[test]
    fn a_machine_that_did_not_sleep_has_not_slept() {
        let clock = Clock::new();
        assert_eq!((clock.reading().1, clock.slept_before(clock.now())), (0, 0));
    }

    #[test]
    fn a_sleep_is_noticed_once_and_stays() {
        let clock = Clock::new();
        let hour = 3_600_000_000;
        assert_eq!(clock.noticed(Time(5), NAP - 1), 0);
        assert_eq!(clock.noticed(Time(10), hour), hour);
        // One thread that reads late, and one that reads a little more.
        assert_eq!(clock.noticed(Time(11), 0), hour);
        assert_eq!(clock.noticed(Time(12), hour + NAP - 1), hour);
        assert_eq!(clock.slept_before(Time(20)), 0, "what comes now may have been asked before");
        assert_eq!(clock.slept_before(Time(10 + SETTLED)), hour);
        assert_eq!(clock.noticed(Time(SETTLED), 2 * hour), 2 * hour);
        assert_eq!(clock.slept_before(Time(SETTLED)), hour);
    }

    #[test]
    fn an_older_boot_time_is_sleep() {
        let clock = Clock { boot: micros_since_boot() - 5_000_000, ..Clock::new() };
        let (_, slept) = clock.reading();
        assert!((4_900_000..6_000_000).contains(&slept), "{slept}");
        assert_eq!(clock.reading().1, slept);
    }
}
