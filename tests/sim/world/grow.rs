//! A disk that grew: who says that it is the same one, and that it is not another one too early.

use super::*;

impl World {
    /// The operator asks who the disk is.
    pub fn identify(&mut self, u: usize) {
        self.units[u].word = true;
        self.with_device(u, |d, now, sink| d.identify(now, sink));
    }

    /// IDENTITY: a larger disk is taken over at the operator's word only, and is another disk only after the deadline.
    pub(super) fn growth(&mut self, u: usize, event: &Event) {
        match event {
            Event::Grown { .. } if !self.units[u].word => {
                self.violate(|| format!("IDENTITY: u{u}: a larger disk without a word"));
            }
            Event::Replaced { was, is }
                if (was.serial, was.model) == (is.serial, is.model) && is.sectors > was.sectors =>
            {
                let since = self.disk_with(is.serial.as_str(), is.sectors).map(|(id, _)| id);
                let since = since.and_then(|id| self.disk(id).resized_at).unwrap_or(0);
                let due = Time(since) + self.units[u].shortest;
                if self.now < due || self.units[u].nofail {
                    self.violate(|| format!("IDENTITY: u{u}: a larger disk is another one before {due:?}"));
                }
            }
            _ => {}
        }
        if matches!(event, Event::Identified(_) | Event::Unidentified | Event::Replaced { .. }) {
            self.units[u].word = false;
        }
    }
}
