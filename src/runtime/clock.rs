//! The clock: where the engine's `now` comes from, and where its deadlines go back to.
//!
//! Promises: never goes back, stands still while the machine sleeps (a deadline counts time in which the network could
//! have answered), and can tell that it slept, since a disk may have been exchanged meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::engine::Time;

/// Shorter gaps between the two clocks are the time that it takes to read both.
const NAP: Duration = Duration::from_millis(100);

/// Engine time: microseconds since the clock was made.
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    /// Microseconds slept since the machine started, as far as they have been told.
    slept: AtomicU64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl Clock {
    /// A clock that shows zero.
    pub fn new() -> Clock {
        Clock { start: Instant::now(), slept: AtomicU64::new(slept_micros()) }
    }

    /// What it shows.
    pub fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When it will show `time`: for a condition variable. None for never.
    pub fn instant(&self, time: Time) -> Option<Instant> {
        if time == Time::NEVER { None } else { self.start.checked_add(Duration::from_micros(time.0)) }
    }

    /// How long the machine has slept since this was asked last. After that silence, what answers may be another
    /// disk.
    pub fn slept(&self) -> Option<Duration> {
        let now = slept_micros();
        let before = self.slept.load(Ordering::Relaxed);
        let nap = Duration::from_micros(now.saturating_sub(before));
        if nap < NAP {
            return None;
        }
        self.slept.store(now, Ordering::Relaxed);
        Some(nap)
    }
}

/// The time of day, for what stat says. Nothing is decided by it.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Microseconds that the machine has been suspended for since it started.
fn slept_micros() -> u64 {
    let running = read(libc::CLOCK_MONOTONIC);
    read(libc::CLOCK_BOOTTIME).saturating_sub(running)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writing. Both clocks exist on every kernel that runs us; if one does not, `time`
    // stays zero.
    unsafe { libc::clock_gettime(clock, &mut time) };
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
        // An instant nobody lives to see; no panic.
        clock.instant(Time(u64::MAX - 1));
    }

    #[test]
    fn a_machine_that_did_not_sleep_has_not_slept() {
        assert_eq!(Clock::new().slept(), None);
    }

    #[test]
    fn a_sleep_is_told_once() {
        let clock = Clock::new();
        // As if a second of sleep had come since.
        if clock.slept.load(Ordering::Relaxed) >= 1_000_000 {
            clock.slept.fetch_sub(1_000_000, Ordering::Relaxed);
            assert!(clock.slept().is_some_and(|nap| nap >= Duration::from_millis(900)));
        }
        assert_eq!(clock.slept(), None);
    }
}
