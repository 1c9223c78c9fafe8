//! The engine's time: microseconds since a start that only the caller knows. The engine reads no clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// An instant in microseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// Later than every instant that happens: the value of a timer that is not armed.
    pub const NEVER: Time = Time(u64::MAX);

    /// How long ago `earlier` was, zero if it lies ahead.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, d: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Time> for Time {
    type Output = Duration;
    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Time::NEVER => f.write_str("never"),
            Time(us) => write!(f, "{}.{:06}s", us / 1_000_000, us % 1_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Time(5).since(Time(9)), Duration::ZERO);
        assert_eq!(Time(1) + Duration::MAX, Time::NEVER);
        assert_eq!(Time(9) - Time(4), Duration::from_micros(5));
        assert_eq!(format!("{:?}", Time(1_000_042)), "1.000042s");
    }
}
