//! Whether a netlink's thread looks for the next frame for a moment before it sleeps.
//!
//! Where one request is made at a time, a request costs as much in sleeping and waking as in work: an idle processor has
//! to be woken for each step from the program to the target and back, which takes it longer than the step itself (more
//! so in a virtual machine). A thread that looks for the answer instead keeps one processor awake, and the steps before
//! the answer stay together on the other one. It is QEMU's adaptive polling, for the same reason.
//!
//! It costs processor time, so it is done only while it pays: where answers come one by one and each leaves its target
//! nothing to do; not again soon where nothing came in time; and hardly ever where somebody else wanted the processor.

use std::time::Duration;

use crate::link::Looked;

/// How long a thread looks before it sleeps. A round through FUSE, the wire and a target whose data is in memory takes about
/// 30 µs while nobody sleeps and 55 µs otherwise: whoever sleeps now must be able to see that it would pay not to.
pub(super) const LINGER: Duration = Duration::from_micros(100);

/// Answers in a row, each alone and the last that was waited for, after which requests are taken to come one at a time. A queue
/// runs empty too now and then, but not again at once.
const ALONE: u32 = 4;

/// Chances passed over at most where looking was in vain: then it costs less than two percent of a processor.
const IN_VAIN_MAX: u32 = 63;
/// The same where the processor was wanted: each time may have cost a time slice of a few milliseconds.
const UNWELCOME_MAX: u32 = 4095;

/// What became of the last chances.
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
    /// Is this a chance to take? `alone`: what came last was one answer, and nothing else is waited for.
    pub(super) fn worthwhile(&mut self, alone: bool) -> bool {
        self.alone = if alone { self.alone.saturating_add(1) } else { 0 };
        if self.alone < ALONE {
            return false;
        }
        let now = self.skip == 0;
        self.skip = self.skip.saturating_sub(1);
        now
    }

    /// Learns from one that was taken.
    pub(super) fn learn(&mut self, looked: Looked) {
        let longer = self.penalty * 2 + 1;
        self.penalty = match looked {
            Looked::Found => self.penalty / 2,
            Looked::InVain => longer.min(IN_VAIN_MAX.max(self.penalty)),
            Looked::Unwelcome => longer.min(UNWELCOME_MAX),
        };
        if looked != Looked::Found {
            self.skip = self.penalty;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many chances, how many are taken if each ends like this.
    fn taken(linger: &mut Linger, chances: u32, looked: Looked) -> u32 {
        let mut taken = 0;
        for _ in 0..chances {
            if linger.worthwhile(true) {
                linger.learn(looked);
                taken += 1;
            }
        }
        taken
    }

    #[test]
    fn what_pays_is_done_every_time() {
        assert_eq!(taken(&mut Linger::default(), 1000, Looked::Found), 1001 - ALONE);
    }

    #[test]
    fn a_queue_that_runs_empty_now_and_then_is_no_reason() {
        let mut linger = Linger::default();
        assert!((0..1000).all(|n| !linger.worthwhile(n % ALONE != 0)));
    }

    #[test]
    fn what_is_in_vain_is_tried_seldom_and_soon_again_once_it_pays() {
        let mut linger = Linger::default();
        let taken_in_vain = taken(&mut linger, 64 * 1000, Looked::InVain);
        assert!((1000..=1010).contains(&taken_in_vain), "{taken_in_vain}");
        assert!(taken(&mut linger, 200, Looked::Found) > 100);
    }

    #[test]
    fn where_it_is_not_welcome_it_is_hardly_tried() {
        let mut linger = Linger::default();
        assert!(taken(&mut linger, 100_000, Looked::Unwelcome) < 40);
        // A look in vain in between does not make it bolder.
        linger.learn(Looked::InVain);
        assert!(taken(&mut linger, UNWELCOME_MAX, Looked::Found) <= 1);
    }
}
