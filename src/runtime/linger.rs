//! Whether a netlink's thread polls for the next frame for a moment before it sleeps.
//!
//! Where one request is made at a time, a request costs as much in sleeping and waking as in work: an idle processor
//! has to be woken for each step from the program to the target and back, which takes longer than the step itself
//! (above all in a virtual machine). A thread that polls for the answer keeps one processor awake, and the steps before
//! the answer stay together on the other one. QEMU's adaptive polling is for the same reason.
//!
//! Polling costs processor time, so it is done only while it pays: where answers come one by one and each leaves its
//! target nothing to do; seldom where no frame came in time; and hardly ever where another thread wanted the processor.

use std::time::Duration;

use crate::link::Polled;

/// How long a thread polls before it sleeps: several times as long as a round through FUSE, the wire and a target whose
/// data is in memory. So a thread that sleeps now can find out that polling would pay.
pub(super) const LINGER: Duration = Duration::from_micros(100);

/// Answers in a row, each alone in its batch and the last that was awaited, after which requests are taken to come one
/// at a time. A queue runs empty now and then, but not several times in a row.
const ALONE: u32 = 4;

/// The most chances that are passed over after polling timed out: it then costs less than two percent of a processor.
const TIMED_OUT_MAX: u32 = 63;
/// The same where another thread wanted the processor: each time may have cost it a time slice of a few milliseconds.
const PREEMPTED_MAX: u32 = 4095;

/// How the last polls ended.
#[derive(Debug, Default)]
pub(super) struct Linger {
    /// Answers in a row that came alone.
    alone: u32,
    /// Chances to pass over from now on.
    skip: u32,
    /// Chances passed over the last time.
    penalty: u32,
}

impl Linger {
    /// Whether to poll now. `alone`: the last batch was one answer, and no other answer is awaited.
    pub(super) fn should_poll(&mut self, alone: bool) -> bool {
        self.alone = if alone { self.alone.saturating_add(1) } else { 0 };
        if self.alone < ALONE {
            return false;
        }
        let now = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        now
    }

    /// Learns from a poll.
    pub(super) fn learn(&mut self, polled: Polled) {
        let longer = self.penalty * 2 + 1;
        self.penalty = match polled {
            Polled::Ready => self.penalty / 2,
            Polled::TimedOut => longer.min(TIMED_OUT_MAX.max(self.penalty)),
            Polled::Preempted => longer.min(PREEMPTED_MAX),
        };
        if polled != Polled::Ready {
            self.skip = self.penalty;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many chances, how many are taken if each poll ends like this.
    fn taken(linger: &mut Linger, chances: u32, polled: Polled) -> u32 {
        let mut taken = 0;
        for _ in 0..chances {
            if linger.should_poll(true) {
                linger.learn(polled);
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn polls_that_pay_happen_every_time() {
        assert_eq!(taken(&mut Linger::default(), 1000, Polled::Ready), 1001 - ALONE);
    }

    #[test]
    fn a_queue_that_runs_empty_now_and_then_is_no_reason_to_poll() {
        let mut linger = Linger::default();
        assert!((0..1000).all(|n| !linger.should_poll(n % ALONE != 0)));
    }

    #[test]
    fn polls_that_time_out_become_rare_and_come_back_once_they_pay() {
        let mut linger = Linger::default();
        let timed_out = taken(&mut linger, 64 * 1000, Polled::TimedOut);
        assert!((1000..=1010).contains(&timed_out), "{timed_out}");
        assert!(taken(&mut linger, 200, Polled::Ready) > 100);
    }

    #[test]
    fn where_another_thread_wants_the_processor_polls_hardly_happen() {
        let mut linger = Linger::default();
        assert!(taken(&mut linger, 100_000, Polled::Preempted) < 40);
        // A poll that only timed out in between does not make them more frequent.
        linger.learn(Polled::TimedOut);
        assert!(taken(&mut linger, PREEMPTED_MAX, Polled::Ready) <= 1);
    }
}
