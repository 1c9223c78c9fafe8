//! The frame size of one path, in sectors, as loss teaches it.
//!
//! A path may lose large frames and carry small ones (a switch without jumbo frames, an MTU that lies). The ladder
//! steps down when full-size frames alone are lost, and steps up only after a probe came back: user data never
//! finds out whether a size works.

use std::time::Duration;

use super::time::Time;

/// Full-size copies lost in a row before the size is doubted.
const LOST: u32 = 8;
/// Small frames that must have passed meanwhile: without them the whole path is silent, not its large frames.
const PASSED: u32 = 3;
/// First and last distance of the probes for the next size up.
const CLIMB_FIRST: Duration = Duration::from_secs(5);
const CLIMB_LAST: Duration = Duration::from_secs(40);
/// Frames of up to this many sectors fit every Ethernet (1500 bytes) and count as small.
pub const SMALL: u8 = 2;

/// See the module.
#[derive(Clone, Debug)]
pub struct Ladder {
    cap: u8,
    lost: u32,
    passed: u32,
    /// When a larger size may be probed.
    pub climb_at: Time,
    interval: Duration,
}

impl Default for Ladder {
    fn default() -> Ladder {
        Ladder { cap: u8::MAX, lost: 0, passed: 0, climb_at: Time::NEVER, interval: CLIMB_FIRST }
    }
}

/// The next smaller size: halves, in steps of 8 sectors while there are that many, and never below one.
pub fn below(size: u8) -> u8 {
    match size {
        16.. => (size / 2) & !7,
        9..16 => 8,
        5..9 => 4,
        3..5 => 2,
        _ => 1,
    }
}

impl Ladder {
    /// The largest size that is not doubted.
    pub fn cap(&self) -> u8 {
        self.cap
    }

    /// A frame of `sectors` came back whole; `full` is the size that frames have now.
    pub fn passed(&mut self, sectors: u8, full: u8) {
        if sectors >= full && full > SMALL {
            self.lost = 0;
            self.passed = 0;
        } else if sectors <= SMALL && self.lost > 0 {
            self.passed += 1;
        }
    }

    /// A copy of `sectors` was lost where frames are `full`. True if the size steps down by this.
    pub fn lost(&mut self, sectors: u8, full: u8, now: Time) -> bool {
        if sectors < full || full <= SMALL {
            return false;
        }
        self.lost += 1;
        if self.lost < LOST || self.passed < PASSED {
            return false;
        }
        self.cap = below(full);
        self.lost = 0;
        self.passed = 0;
        self.interval = CLIMB_FIRST;
        self.climb_at = now + self.interval;
        true
    }

    /// Large frames are being lost and nothing says yet whether small ones pass: worth asking.
    pub fn doubtful(&self) -> bool {
        self.lost >= LOST / 2 && self.passed < PASSED
    }

    /// The target itself refused `sectors` (AoE error 2): its limit is lower than it said.
    pub fn refused(&mut self, sectors: u8, now: Time) {
        self.cap = below(sectors);
        self.interval = CLIMB_FIRST;
        self.climb_at = now + self.interval;
    }

    /// The size to probe next, one step up towards `most`; none if there is nothing to gain.
    pub fn next_up(&self, most: u8) -> Option<u8> {
        let mut size = most;
        if size <= self.cap {
            return None;
        }
        while below(size) > self.cap {
            size = below(size);
        }
        Some(size)
    }

    /// A probe for more leaves; the next one waits longer.
    pub fn climbing(&mut self, now: Time) {
        self.interval = (self.interval * 2).min(CLIMB_LAST);
        self.climb_at = now + self.interval;
    }

    /// A probe of `sectors` came back whole: that size is proven. `most` is what MTU and target allow.
    pub fn proven(&mut self, sectors: u8, most: u8) {
        if sectors >= most {
            *self = Ladder::default();
        } else {
            self.cap = self.cap.max(sectors);
            self.interval = CLIMB_FIRST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_losses_step_down() {
        let mut l = Ladder::default();
        for _ in 0..20 {
            assert!(!l.lost(16, 16, Time(0)), "nothing small passed: the path is silent");
        }
        for _ in 0..3 {
            l.passed(1, 16);
        }
        assert!(l.lost(16, 16, Time(0)));
        assert_eq!(l.cap(), 8);
        l.proven(16, 16);
        assert_eq!(l.cap(), u8::MAX);
    }

    #[test]
    fn a_large_success_clears_the_doubt() {
        let mut l = Ladder::default();
        for round in 0..10 {
            for _ in 0..7 {
                assert!(!l.lost(16, 16, Time(round)));
                l.passed(1, 16);
            }
            l.passed(16, 16);
        }
        assert_eq!(l.cap(), u8::MAX);
    }

    #[test]
    fn every_step_is_smaller_and_ends_at_one() {
        for size in 2..=255 {
            assert!(below(size) < size && below(size) >= 1);
        }
    }
}
