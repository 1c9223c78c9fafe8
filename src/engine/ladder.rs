//! The frame size of one path, in sectors, as loss teaches it.
//!
//! A path may lose large frames and carry small ones (a switch without jumbo frames, an MTU that lies). The ladder
//! steps down when frames of some size and above are lost while smaller ones pass, and steps up only after a probe
//! came back: user data never finds out whether a size works.

use std::time::Duration;

use super::limits::PLAIN;
use super::time::Time;
use crate::wire::below;

/// Attempts lost in a row before their size is doubted.
const LOST: u32 = 8;
/// Expired attempts of one frame that say as much as [`LOST`] lost ones of different frames. Where few frames are
/// outstanding, they come much sooner.
pub const SAME: u8 = 4;
/// Smaller frames that must have passed meanwhile: without them the whole path is silent, not its large frames.
const PASSED: u32 = 3;
/// First and last distance of the probes for the next size up. The first comes soon, since chance losses may look
/// like a path that drops large frames.
const CLIMB_FIRST: Duration = Duration::from_secs(1);
const CLIMB_LAST: Duration = Duration::from_secs(40);

/// See the module.
#[derive(Clone, Debug)]
pub struct Ladder {
    cap: u8,
    /// Attempts lost in a row, and the smallest of them in sectors.
    lost: u32,
    lost_size: u8,
    /// Smaller frames that passed since the first of them.
    passed: u32,
    /// When a larger size may be probed.
    pub climb_at: Time,
    interval: Duration,
}

impl Default for Ladder {
    fn default() -> Ladder {
        Ladder {
            cap: u8::MAX,
            lost: 0,
            lost_size: u8::MAX,
            passed: 0,
            climb_at: Time::NEVER,
            interval: CLIMB_FIRST,
        }
    }
}

impl Ladder {
    /// The largest size that is not doubted.
    pub fn cap(&self) -> u8 {
        self.cap
    }

    fn trust(&mut self) {
        self.lost = 0;
        self.lost_size = u8::MAX;
        self.passed = 0;
    }

    fn cut(&mut self, cap: u8, now: Time) {
        self.cap = cap;
        self.trust();
        self.interval = CLIMB_FIRST;
        self.climb_at = now + self.interval;
    }

    /// A frame of `sectors` came back whole. A frame without sectors counts as one.
    pub fn passed(&mut self, sectors: u8) {
        if sectors >= self.lost_size {
            self.trust();
        } else if self.lost > 0 {
            self.passed += 1;
        }
    }

    /// An attempt of `sectors` was lost; `expiries` attempts of that frame expired so far. True if the size steps
    /// down by this.
    pub fn lost(&mut self, sectors: u8, expiries: u8, now: Time) -> bool {
        if sectors <= 1 || sectors > self.cap {
            return false;
        }
        self.lost += 1;
        self.lost_size = self.lost_size.min(sectors);
        if (self.lost < LOST && expiries < SAME) || self.passed < PASSED {
            return false;
        }
        // A path that loses large frames nearly always carries plain ones. Halving towards those would take a few
        // timeouts a step.
        self.cut(if self.lost_size > PLAIN { PLAIN } else { 1 }, now);
        true
    }

    /// Large frames are being lost and nothing says yet whether small ones pass: worth asking, but not together with
    /// every attempt that is sent again. A target with one buffer would lose one of the two each time.
    pub fn doubtful(&self) -> bool {
        self.lost >= LOST / 4 && self.lost.is_multiple_of(2) && self.passed < PASSED
    }

    /// The target itself refused `sectors` (AoE error 2): its limit is lower than it said.
    pub fn refused(&mut self, sectors: u8, now: Time) {
        self.cut(below(sectors), now);
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

    /// A probe for a larger size leaves; the next one waits longer.
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
            assert!(!l.lost(16, 9, Time(0)), "nothing small passed: the path is silent");
        }
        for _ in 0..3 {
            l.passed(1);
        }
        assert!(l.lost(16, 1, Time(0)));
        assert_eq!(l.cap(), PLAIN);
        assert_eq!(l.next_up(16), Some(4));
        l.proven(4, 16);
        l.proven(8, 16);
        assert_eq!(l.cap(), 8);
        l.proven(16, 16);
        assert_eq!(l.cap(), u8::MAX);
    }

    #[test]
    fn a_large_success_clears_the_doubt() {
        let mut l = Ladder::default();
        for round in 0..10 {
            for _ in 0..7 {
                assert!(!l.lost(16, 1, Time(round)));
                l.passed(1);
            }
            l.passed(16);
        }
        assert_eq!(l.cap(), u8::MAX);
    }

    #[test]
    fn one_frame_lost_again_and_again_is_enough() {
        let mut l = Ladder::default();
        for expiries in 1..4 {
            // Not the largest frames of the path, but larger than what passes.
            assert!(!l.lost(8, expiries, Time(0)));
            l.passed(1);
        }
        assert!(l.lost(8, 4, Time(0)));
        assert_eq!(l.cap(), 2);
        assert!(!l.lost(8, 9, Time(0)), "it left before the step");
        for expiries in 1..4 {
            assert!(!l.lost(2, expiries, Time(0)));
            l.passed(1);
        }
        assert!(l.lost(2, 4, Time(0)));
        assert_eq!(l.cap(), 1);
        assert!(!l.lost(1, 9, Time(0)), "there is nothing smaller");
    }
}
