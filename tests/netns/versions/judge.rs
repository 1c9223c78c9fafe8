//! The judge: whether what a reader saw is one of the versions that it may see.
//!
//! The rule: nothing older than what had been acknowledged before the call began, nothing newer than what had been
//! begun when it
//! ended. The call that fails leaves both versions possible, since it is begun and not acknowledged; but once
//! somebody has read the
//! new one after the failure, it is what the disk has, and nobody may read the old one any more.

use super::board::Board;
use super::plan::{HALVES, Seen, UNIT, see};
use std::sync::atomic::Ordering::SeqCst;

/// What can be wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Older than what was acknowledged.
    Stale,
    /// Zeros that nobody wrote, or that were overwritten.
    Zeros,
    /// Newer than what was begun.
    Newer,
    /// Parts of several versions, or bytes that nobody wrote.
    Torn,
    /// A version of another unit, which was never copied here.
    Foreign,
    /// Fewer bytes than there are.
    Short,
    /// A shared mapping that was not refused.
    Mapped,
    /// A call that failed where none may.
    Failed,
}

/// All of them, in the order of their numbers.
pub const KINDS: [Kind; 8] = [
    Kind::Stale,
    Kind::Zeros,
    Kind::Newer,
    Kind::Torn,
    Kind::Foreign,
    Kind::Short,
    Kind::Mapped,
    Kind::Failed,
];

/// What one unit may hold, as far as it is known before a read begins.
#[derive(Default)]
pub struct Bounds {
    first: u64,
    least: Vec<u64>,
    settled: Vec<u64>,
}

impl Bounds {
    /// Before the call: what was acknowledged of `count` units from `first` on.
    pub fn note(&mut self, board: &Board, first: u64, count: u64) {
        self.first = first;
        self.least.clear();
        self.settled.clear();
        for unit in first..first + count {
            self.settled.push(board.settled(unit).load(SeqCst));
            self.least.push(board.acknowledged(unit).load(SeqCst).max(board.seen(unit).load(SeqCst)));
        }
    }

    /// After the call: every unit that came whole. `wrong` is told what is wrong, and where.
    pub fn judge(&self, board: &Board, bytes: &[u8], mut wrong: impl FnMut(Kind, String)) -> u64 {
        let mut judged = 0;
        let bounds = self.least.iter().zip(&self.settled);
        for ((unit, (least, settled)), block) in (self.first..).zip(bounds).zip(bytes.chunks_exact(UNIT)) {
            judged += 1;
            // In this order: zeros that are noted are begun, or about to be.
            let zeroed = board.zeroed(unit).load(SeqCst);
            let most = board.begun(unit).load(SeqCst).max(zeroed);
            let (kind, what) = match see(block) {
                Seen::Version { unit: of, twin, .. } if of != unit && twin != unit => {
                    (Kind::Foreign, format!("half sector {of}"))
                }
                Seen::Version { version, .. } if version < *least => {
                    (Kind::Stale, format!("version {version}"))
                }
                Seen::Version { version, .. } if version > most => {
                    (Kind::Newer, format!("version {version}"))
                }
                Seen::Zeros if zeroed < *least => (Kind::Zeros, format!("zeros (last of version {zeroed})")),
                Seen::Torn => (Kind::Torn, "no whole version".to_string()),
                Seen::Version { version, .. } => {
                    if version > *least && version <= *settled {
                        board.seen(unit).fetch_max(version, SeqCst);
                    }
                    continue;
                }
                Seen::Zeros => continue,
            };
            let (sector, half, owner) = (unit / HALVES, unit % HALVES, board.plan().owner(unit));
            wrong(
                kind,
                format!(
                    "sector {sector} half {half} of worker {owner}: {what}; {least} acknowledged, {most} begun"
                ),
            );
        }
        judged
    }
}
