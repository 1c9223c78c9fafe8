//! How many frames one path may have outstanding: slow start, then one more a round trip, halved by a loss.
//!
//! The window does not know the target's advertised buffers; the device keeps the sum over all paths below those.

use super::limits::FRAMES_MAX;

/// Frames a path starts with. An advertised buffer count is a hope (vblade's 16 are 15 at MTU 4132), so a new path
/// starts below the smallest that is common and doubles a round trip.
const FIRST: u32 = 8;
/// Loss that is noticed by younger answers does not halve the window below this: with fewer frames outstanding the
/// next loss would be noticed by the timer only, which costs a hundred round trips on a LAN.
const LEAST_EARLY: u32 = 6;

/// The congestion window of one path, in frames.
#[derive(Clone, Debug)]
pub struct Window {
    size: u32,
    threshold: u32,
    /// Answers since the last growth, in congestion avoidance.
    credit: u32,
    inflight: u32,
    /// Losses of attempts sent before this sequence number belong to a loss that was already paid for.
    recovered_at: u64,
    /// Size and threshold before the last halving, until that is known to have been right.
    before: Option<(u32, u32)>,
}

impl Default for Window {
    fn default() -> Window {
        Window { size: FIRST, threshold: FRAMES_MAX, credit: 0, inflight: 0, recovered_at: 0, before: None }
    }
}

impl Window {
    /// May another frame leave?
    pub fn has_room(&self) -> bool {
        self.inflight < self.size
    }

    /// Frames outstanding.
    pub fn inflight(&self) -> u32 {
        self.inflight
    }

    /// Frames that may be outstanding now.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// An attempt left.
    pub fn sent(&mut self) {
        self.inflight += 1;
    }

    /// An attempt is settled without saying anything about the path: its request ended, or another attempt was
    /// answered.
    pub fn released(&mut self) {
        debug_assert!(self.inflight > 0);
        self.inflight = self.inflight.saturating_sub(1);
    }

    /// An attempt was answered; `limit` is what the target's buffers allow.
    pub fn answered(&mut self, limit: u32) {
        // A window that is not filled says nothing about what the path could carry.
        let filled = 2 * self.inflight >= self.size;
        self.released();
        if !filled || self.size >= limit.min(FRAMES_MAX) {
            return;
        }
        if self.size < self.threshold {
            self.size += 1;
        } else {
            self.credit += 1;
            if self.credit >= self.size {
                self.credit = 0;
                self.size += 1;
            }
        }
    }

    /// The attempt with sequence number `seq` is lost; `next` is the number the next attempt will get. Counts once a
    /// round trip. `early`: younger attempts were answered, so that only this one is lost, and the window is halved.
    /// Otherwise the timer says so, for all that are outstanding: one asks for all of them first, as a target that only
    /// paused will answer them yet (RFC 5681, section 3.1: one after a timeout, then slow start).
    pub fn lost(&mut self, seq: u64, next: u64, early: bool) {
        self.released();
        if seq >= self.recovered_at {
            self.recovered_at = next;
            self.before = Some((self.size, self.threshold));
            self.threshold = (self.size / 2).max(2);
            self.size = if early { (self.size / 2).max(LEAST_EARLY.min(self.size)) } else { 1 };
            self.credit = 0;
        }
    }

    /// The loss that the last halving was for had only been a delay (RFC 4015): the halving is undone.
    pub fn forgive(&mut self) {
        if let Some((size, threshold)) = self.before.take() {
            self.size = self.size.max(size);
            self.threshold = self.threshold.max(threshold);
        }
    }

    /// The target or the link came back: what was learnt about loss is void.
    pub fn restart(&mut self) {
        self.size = self.size.max(FIRST);
        self.threshold = FRAMES_MAX;
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_then_avoidance() {
        let mut w = Window::default();
        let mut seq = 0;
        let mut round = |w: &mut Window| {
            let n = w.size();
            for _ in 0..n {
                w.sent();
                seq += 1;
            }
            for _ in 0..n {
                w.answered(64);
            }
            seq
        };
        round(&mut w);
        assert!(w.size() > FIRST);
        for _ in 0..10 {
            round(&mut w);
        }
        assert_eq!(w.size(), 64, "the target's limit holds");
        let next = round(&mut w);
        w.sent();
        w.sent();
        w.lost(next, next + 2, true);
        w.lost(next + 1, next + 2, true);
        assert_eq!(w.size(), 32, "two losses of one round trip halve once");
    }

    #[test]
    fn never_below_one() {
        let mut w = Window::default();
        for seq in 0..40 {
            w.sent();
            w.lost(seq, seq + 1, false);
        }
        assert_eq!(w.size(), 1);
        assert!(w.has_room());
    }
}
