//! Which command flushes a disk's cache, and what its refusals mean.
//!
//! A disk has no flush at all if it never did one and the AoE layer refuses it, or the answer has the request's own
//! registers (ggaoed 1.1), whatever IDENTIFY promises. Any other disk that promises a flush, or has ever done one, and
//! does not do it now has failed, whatever its error register says: data may be lost, and the program that asked must
//! hear of it. The next flush is asked for all the same.

use crate::wire::{Ata, FlushKind};

/// What a target says to a flush that it does not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The disk aborted it.
    Aborted,
    /// The AoE layer does not take it.
    Unknown,
    /// The answer is the request.
    Echoed,
}

/// What follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The old opcode is tried for the same request. `failed`: the request fails all the same, for the first opcode
    /// has worked before.
    OldOpcode { failed: bool },
    /// The request fails.
    Fail,
    /// The target has none: this request succeeds, and so do all later ones.
    Succeed,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Flushing {
    promised: FlushKind,
    kind: FlushKind,
    /// Which of the two opcodes ever succeeded.
    old_done: bool,
    ext_done: bool,
}

impl Flushing {
    /// As IDENTIFY promises.
    pub fn new(promised: FlushKind) -> Flushing {
        Flushing { promised, kind: promised, old_done: false, ext_done: false }
    }

    /// What to send.
    pub fn kind(&self) -> FlushKind {
        self.kind
    }

    /// What IDENTIFY says now. With `again`, it is found out again which opcode works.
    pub fn promise(&mut self, promised: FlushKind, again: bool) {
        if again || promised != self.promised {
            (self.promised, self.kind) = (promised, promised);
        }
    }

    /// One was done.
    pub fn done(&mut self, ext: bool) {
        if ext {
            self.ext_done = true;
        } else {
            self.old_done = true;
            if !self.ext_done {
                self.kind = FlushKind::Flush;
            }
        }
    }

    /// One was not.
    pub fn refused(&mut self, ext: bool, why: Refused) -> Next {
        let ever = self.old_done || self.ext_done;
        match why {
            Refused::Aborted | Refused::Unknown if ext => Next::OldOpcode { failed: self.ext_done },
            Refused::Echoed | Refused::Unknown if !ever => {
                self.kind = FlushKind::None;
                Next::Succeed
            }
            _ => Next::Fail,
        }
    }
}

/// Are these registers a flush command, as a target sends it back that does not know it? Read as a status, its
/// opcode means "busy", with which no disk answers.
pub fn is_echo(ext: bool, ata: &Ata) -> bool {
    ata.command == Ata::flush(ext).command && ata.feature == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_is_a_failure_where_a_flush_is_promised() {
        let mut f = Flushing::new(FlushKind::FlushExt);
        for _ in 0..3 {
            assert_eq!(f.refused(true, Refused::Aborted), Next::OldOpcode { failed: false });
            assert_eq!(f.refused(false, Refused::Aborted), Next::Fail);
            assert_eq!(f.kind(), FlushKind::FlushExt, "the next one is asked for all the same");
        }
        f.done(true);
        // Now the first opcode is known to work. That the old one works does not bring back what the first one lost.
        assert_eq!(f.refused(true, Refused::Aborted), Next::OldOpcode { failed: true });
        f.done(false);
        assert_eq!(f.kind(), FlushKind::FlushExt);
    }

    #[test]
    fn a_disk_that_does_the_old_one_only_is_asked_for_that() {
        let mut f = Flushing::new(FlushKind::FlushExt);
        // Two at a time.
        assert_eq!(f.refused(true, Refused::Aborted), Next::OldOpcode { failed: false });
        assert_eq!(f.refused(true, Refused::Aborted), Next::OldOpcode { failed: false });
        f.done(false);
        f.done(false);
        assert_eq!(f.kind(), FlushKind::Flush);
        assert_eq!(f.refused(false, Refused::Aborted), Next::Fail);
        f.promise(FlushKind::FlushExt, false);
        assert_eq!(f.kind(), FlushKind::Flush, "nobody asked to know again");
        f.promise(FlushKind::FlushExt, true);
        assert_eq!(f.kind(), FlushKind::FlushExt);
    }

    #[test]
    fn none_is_what_was_never_done_and_is_not_known() {
        for why in [Refused::Unknown, Refused::Echoed] {
            let mut f = Flushing::new(FlushKind::Flush);
            assert_eq!(f.refused(false, why), Next::Succeed);
            assert_eq!(f.kind(), FlushKind::None);
            f.promise(FlushKind::Flush, true);
            f.done(false);
            assert_eq!(f.refused(false, why), Next::Fail, "it has done one");
            assert_eq!(f.kind(), FlushKind::Flush);
        }
        let mut f = Flushing::new(FlushKind::FlushExt);
        assert_eq!(f.refused(true, Refused::Unknown), Next::OldOpcode { failed: false });
        assert_eq!(f.refused(true, Refused::Echoed), Next::Succeed);
    }

    #[test]
    fn an_echo_has_the_opcode_and_no_error() {
        for ext in [true, false] {
            let echo = Ata::flush(ext);
            assert!(is_echo(ext, &echo) && echo.failed());
            assert!(!is_echo(!ext, &echo));
            assert!(!is_echo(ext, &Ata { feature: 4, ..echo }));
            assert!(!is_echo(ext, &Ata { command: 0x51, ..echo }));
        }
    }
}
