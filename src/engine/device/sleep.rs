//! The machine slept, and the network did not.

use super::{Device, Sink};
use crate::engine::time::Time;

impl<R> Device<R> {
    /// How long this machine has slept so far, in any unit. Before anything else is done at `now`: the network did not sleep, and
    /// the disk may have been exchanged meanwhile.
    pub fn awake(&mut self, slept: u64, now: Time, sink: &mut Sink<R>) {
        if slept != self.slept {
            self.slept = slept;
            self.distrust(now, "this machine slept", sink);
        }
    }

    /// How long this machine had slept when it was asked what made this target known.
    pub fn set_slept(&mut self, slept: u64) {
        self.slept = slept;
    }
}
