//! The machine slept, and the network did not.

use super::{Device, Sink};
use crate::engine::time::Time;

impl<R> Device<R> {
    /// Tells how long this machine has slept so far, in any unit; call it before anything else is done at `now`. The
    /// network did not sleep, and the disk may have been exchanged meanwhile.
    pub fn awake(&mut self, slept: u64, now: Time, sink: &mut Sink<R>) {
        if slept != self.slept {
            self.slept = slept;
            self.distrust(now, "this machine slept", sink);
        }
    }

    /// Tells how long this machine had slept when the IDENTIFY left that made this target known.
    pub fn set_slept(&mut self, slept: u64) {
        self.slept = slept;
    }
}
