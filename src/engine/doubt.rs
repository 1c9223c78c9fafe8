//! Is the disk still the disk? How sure that is, what speaks against it, and what may leave until it is known.

use std::time::Duration;

use super::lanes::Lane;
use super::limits::{REDO_MAX, SILENCE};
use super::time::Time;

/// Announcements that are believed at once. Any host on the segment can forge them, and a target that restarts again
/// and again sends fewer than these. Each may cause an answer to be asked for once more, so they are fewer than
/// [`ASKED_MAX`].
const BELIEVED: u32 = 8;
/// The time after which one more is believed, which is the longest that an announcement waits for it. While it waits,
/// another disk may be read and written.
const BELIEVED_EVERY: Duration = Duration::from_secs(1);
/// The number of times that an answer is asked for again which came before the IDENTIFY left. A target with one buffer
/// loses the IDENTIFY to a write each time: it must not have to answer for ever.
const ASKED_MAX: u8 = 16;

/// Is the disk still the disk?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confidence {
    /// It has shown that it is.
    Confirmed,
    /// It was silent: an IDENTIFY that left at or after this instant must match before it is confirmed.
    Silent(Time),
    /// Something says that it may be another disk: such an IDENTIFY must match, and then all that was asked before is
    /// asked anew.
    Suspect(Time),
}

/// See the module.
#[derive(Debug)]
pub struct Doubt {
    confidence: Confidence,
    last_heard: Time,
    /// When silence last ended.
    silent_until: Time,
    /// Announcements that may still be believed; refilled with time.
    credit: u32,
    credit_at: Time,
}

impl Doubt {
    /// The disk has just shown its identity.
    pub fn new(now: Time) -> Doubt {
        Doubt {
            confidence: Confidence::Confirmed,
            last_heard: now,
            silent_until: now,
            credit: BELIEVED,
            credit_at: now,
        }
    }

    /// Has the disk shown its identity, so that answers count?
    pub fn confirmed(&self) -> bool {
        self.confidence == Confidence::Confirmed
    }

    /// Is there more against it than silence?
    pub fn suspect(&self) -> bool {
        matches!(self.confidence, Confidence::Suspect(_))
    }

    /// Since when it is in doubt: what left before proves nothing.
    pub fn since(&self) -> Option<Time> {
        match self.confidence {
            Confidence::Confirmed => None,
            Confidence::Silent(since) | Confidence::Suspect(since) => Some(since),
        }
    }

    /// What may leave:
    ///
    /// | confidence | reads, one path | reads, several paths | writes |
    /// |------------|-----------------|----------------------|--------|
    /// | confirmed  | yes             | yes                  | yes    |
    /// | silent     | yes             | no                   | no     |
    /// | suspect    | no              | no                   | no     |
    ///
    /// Nothing is answered before the disk is confirmed, so after mere silence reads may leave together with
    /// IDENTIFY; but of several paths another one may lead to another disk than the one that will show its identity.
    /// What leaves together with IDENTIFY for a suspect may be answered by a disk that is gone again when IDENTIFY
    /// arrives.
    pub fn may_leave(&self, lane: Lane, several: bool) -> bool {
        match (self.confidence, lane) {
            (Confidence::Confirmed, _) => true,
            (Confidence::Silent(_), Lane::Reads | Lane::Behind) => !several,
            (Confidence::Silent(_), Lane::Writes) => false,
            (Confidence::Suspect(_), _) => false,
        }
    }

    /// The disk may be another one from here on.
    pub fn raise(&mut self, to: Confidence) {
        self.confidence = to;
    }

    /// The disk has shown its identity.
    pub fn end(&mut self) {
        self.confidence = Confidence::Confirmed;
    }

    /// Was nothing heard for so long that the disk may have been exchanged?
    pub fn silent(&self, now: Time) -> bool {
        now.since(self.last_heard) > SILENCE
    }

    /// Was nothing heard since what left at `sent`?
    pub fn unheard_since(&self, sent: Time) -> bool {
        self.last_heard <= sent
    }

    /// The target said something valid. True if that ends a silence.
    pub fn heard(&mut self, now: Time) -> bool {
        let silent = self.silent(now);
        if silent {
            self.silent_until = now;
        }
        self.last_heard = now;
        silent
    }

    /// The disk has answered IDENTIFY, perhaps over a path that was not known to lead to it.
    pub fn identified(&mut self, now: Time) {
        self.last_heard = now;
    }

    /// The disk is confirmed by an IDENTIFY that left at `asked`. Must an answer of the time `came`, which was asked
    /// for again `redone` times already, be asked for once more? An earlier answer, of this doubt or from before a
    /// silence, may have come from another disk that was here meanwhile.
    pub fn outdates(&self, came: Time, redone: u8, asked: Time) -> bool {
        if came < asked {
            redone < ASKED_MAX
        } else {
            // A slow target is silent before each answer: that alone must not make it answer for ever.
            came < self.silent_until && redone < REDO_MAX
        }
    }

    /// The target announced itself. Is that believed? Announcements are not authenticated.
    pub fn believes(&mut self, now: Time) -> bool {
        while self.credit < BELIEVED && now.since(self.credit_at) >= BELIEVED_EVERY {
            self.credit += 1;
            self.credit_at = self.credit_at + BELIEVED_EVERY;
        }
        if self.credit == 0 {
            return false;
        }
        if self.credit == BELIEVED {
            self.credit_at = now;
        }
        self.credit -= 1;
        true
    }

    /// When one more announcement may be believed, after one was not.
    pub fn believes_next(&self) -> Time {
        self.credit_at + BELIEVED_EVERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn what_may_leave() {
        let mut doubt = Doubt::new(Time(0));
        let table = |doubt: &Doubt| {
            [Lane::Reads, Lane::Behind, Lane::Writes]
                .map(|lane| [false, true].map(|several| doubt.may_leave(lane, several)))
        };
        assert_eq!(table(&doubt), [[true, true], [true, true], [true, true]]);
        doubt.raise(Confidence::Silent(Time(5)));
        assert_eq!(table(&doubt), [[true, false], [true, false], [false, false]]);
        assert_eq!((doubt.confirmed(), doubt.suspect(), doubt.since()), (false, false, Some(Time(5))));
        doubt.raise(Confidence::Suspect(Time(6)));
        assert_eq!(table(&doubt), [[false, false], [false, false], [false, false]]);
        assert_eq!((doubt.confirmed(), doubt.suspect(), doubt.since()), (false, true, Some(Time(6))));
        doubt.end();
        assert_eq!((doubt.confirmed(), doubt.suspect(), doubt.since()), (true, false, None));
    }

    #[test]
    fn silence_begins_after_a_second_and_ends_with_a_word() {
        let mut doubt = Doubt::new(Time(0));
        assert!(!doubt.silent(Time(0) + SILENCE) && doubt.silent(Time(1) + SILENCE));
        assert!(!doubt.heard(Time(0) + SILENCE), "there was none");
        assert!(doubt.heard(Time(1) + 2 * SILENCE));
        let heard = Time(1) + 2 * SILENCE;
        assert!(doubt.unheard_since(heard) && !doubt.unheard_since(Time(heard.0 - 1)));
    }

    #[test]
    fn eight_announcements_are_believed_at_once_and_then_one_a_second() {
        let mut doubt = Doubt::new(Time(0));
        let start = Time(0) + 100 * S;
        let believed = |doubt: &mut Doubt, at: Time| (0..10).filter(|_| doubt.believes(at)).count();
        assert_eq!(believed(&mut doubt, start), 8);
        assert_eq!(doubt.believes_next(), start + S);
        assert_eq!(believed(&mut doubt, start + S / 2), 0);
        assert_eq!(believed(&mut doubt, start + S), 1);
        assert_eq!(believed(&mut doubt, start + 3 * S / 2), 0);
        assert_eq!(believed(&mut doubt, start + 3 * S), 2);
        assert_eq!(believed(&mut doubt, start + 1000 * S), 8, "no more than that however long it was quiet");
    }

    #[test]
    fn answers_from_before_the_question_are_asked_for_again_and_not_for_ever() {
        let mut doubt = Doubt::new(Time(0));
        assert!(doubt.heard(Time(0) + 5 * S));
        let (early, late) = (Time(0) + 6 * S, Time(0) + 8 * S);
        let asked = Time(0) + 7 * S;
        assert!(doubt.outdates(early, ASKED_MAX - 1, asked) && !doubt.outdates(early, ASKED_MAX, asked));
        assert!(!doubt.outdates(late, 0, asked));
        // Silence that ended after the answer came.
        assert!(doubt.heard(Time(0) + 9 * S));
        assert!(doubt.outdates(late, REDO_MAX - 1, asked) && !doubt.outdates(late, REDO_MAX, asked));
    }
}
