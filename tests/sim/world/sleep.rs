//! The machine of the initiator sleeps: its clock stands still, and the network goes on.

use super::*;

/// µs of one sleep.
const HOUR: u64 = 3_600_000_000;

impl World {
    /// What the runtime does first wherever it locks a device.
    pub(super) fn awake(&mut self, u: usize) {
        self.units[u].device.awake(self.slept, self.now, &mut self.sink);
    }

    /// Requests that are on their way are lost. Answers that are wait in the socket.
    pub fn sleep(&mut self) {
        let answers =
            |e: &Reverse<Entry>| matches!(e.0.2, Happening::Answer { .. } | Happening::Forged { .. });
        self.queue.retain(answers);
        for target in &mut self.targets {
            target.life += 1;
            target.queue.clear();
            target.busy = false;
        }
        self.slept += HOUR;
        self.units.iter_mut().for_each(|unit| unit.sleeps());
    }
}
