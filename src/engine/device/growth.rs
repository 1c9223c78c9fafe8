//! A disk that became larger: the same one, if the operator says so.
//!
//! An answer with the same serial number and model and more sectors may be the disk that we know, grown, or another
//! one: vblade makes its serial number of the address. Until the operator says `identify`, open files wait, and fail
//! by their deadlines, as if the target were away: nothing leaves for it. The disk counts as replaced only if
//! another serial number or model or fewer sectors answer, or if the word does not come within the deadline, counted
//! from the first such answer. Under nofail it waits for ever.

use super::{Device, Sink};
use crate::engine::doubt::Confidence;
use crate::engine::event::Event;
use crate::engine::ids::Identity;
use crate::engine::limits::ASK_AGAIN;
use crate::engine::time::Time;

/// The disk that answers is larger than the one that we know, and the operator has not said that it is the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Larger {
    /// When it was first seen.
    since: Time,
    /// Its sectors.
    sectors: u64,
    /// The operator had time enough.
    over: bool,
}

impl<R> Device<R> {
    /// A larger disk answers, and the operator has not said `identify`. True: the disk waits for that; false: the
    /// time is over, and it is another disk.
    pub(super) fn awaits_word(&mut self, who: &Identity, now: Time, sink: &mut Sink<R>) -> bool {
        let seen = self.larger;
        if seen.is_some_and(|larger| larger.over) && !self.settings.nofail {
            return false;
        }
        if seen.is_none_or(|larger| larger.sectors != who.sectors) {
            sink.events.push(Event::Larger { was: self.disk.identity().sectors, is: who.sectors });
        }
        let since = seen.map_or(now, |larger| larger.since);
        self.larger = Some(Larger { since, sectors: who.sectors, over: false });
        self.lose_confidence(Confidence::Suspect(now), None, sink);
        // While a request waits the disk is asked again, for it may become what it was.
        self.ask_after = now + ASK_AGAIN;
        self.arm(since + self.settings.deadline);
        true
    }

    /// When the time is over that the operator has to say it: as long as a request may take.
    pub(super) fn growth_due(&self) -> Time {
        match self.larger.filter(|larger| !larger.over && !self.settings.nofail) {
            Some(larger) => larger.since + self.settings.deadline,
            None => Time::NEVER,
        }
    }

    /// Asks once more when the operator's time is over.
    pub(super) fn sweep_growth(&mut self, now: Time, sink: &mut Sink<R>) {
        let due = self.growth_due();
        if due > now {
            self.arm(due);
            return;
        }
        let Some(larger) = &mut self.larger else { return };
        larger.over = true;
        self.ask_after = now;
        self.ask(now, sink);
    }
}
