//! Requests under way, and whether their answers keep the promises.
//!
//! ONCE: one answer each. DEADLINE: in time, unless nofail. An error must have a cause that the simulator knows: the
//! deadline, `failio`, a fault that was injected into its sectors, a target that was down, a handle that went stale.
//! What was read or written is `disk`'s to judge. SYNC: a flush is acknowledged after a flush took effect at the
//! disk, later than its submission.

use std::collections::BTreeMap;
use std::time::Duration;

use aoefs::engine::{Error, Handle, Outcome, Output, Time};

/// What answers may be late by.
pub const GRACE: Duration = Duration::from_millis(250);

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Read,
    Write,
    Trim,
    Flush,
    RawRead,
    RawWrite,
    Raw,
    /// Config, mask, reserve: two seconds.
    Word,
}

impl Kind {
    /// A raw command: it has its deadline under nofail, too.
    pub fn is_raw(self) -> bool {
        matches!(self, Kind::RawRead | Kind::RawWrite | Kind::Raw)
    }
}

/// What must come back at once, if that is known at submission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    Work,
    Error(Error),
    /// Nothing to do: so many bytes.
    Nothing,
}

/// A request that is not answered yet.
#[derive(Clone, Debug)]
pub struct Pending {
    pub unit: usize,
    pub kind: Kind,
    /// Bytes of the disk.
    pub start: u64,
    pub end: u64,
    pub handle: Handle,
    pub disk: usize,
    pub submitted: Time,
    pub tick: u64,
    pub nonblock: bool,
    /// It may be answered with what was read ahead.
    pub ahead: bool,
    pub due: Option<Time>,
    pub expect: Expect,
    /// Must be answered by then, whatever happens: set where a promise says so.
    pub promised: Option<Time>,
}

/// What the judge must know about a unit when an answer comes.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    pub now: Time,
    pub generation: u32,
    pub failio: u64,
    /// A fault was injected into these sectors since the submission.
    pub injected: bool,
    pub can_trim: bool,
    /// Headers are damaged in this run.
    pub garbled: bool,
}

/// All of them, and what was asked so far.
#[derive(Default)]
pub struct Judge {
    pub pending: BTreeMap<u32, Pending>,
    pub next: u32,
    pub submitted: u64,
    pub succeeded: u64,
    pub failed: u64,
}

impl Judge {
    pub fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// The deadline of a unit changed; none is for ever.
    pub fn deadline_changed(&mut self, unit: usize, now: Time, deadline: Duration, nofail: bool) {
        for p in self.pending.values_mut().filter(|p| p.unit == unit && p.kind != Kind::Word) {
            p.due = (!nofail || p.nonblock || p.kind.is_raw()).then(|| (p.submitted + deadline).max(now));
        }
    }

    /// Is anybody overdue?
    pub fn overdue(&self, now: Time) -> Option<String> {
        self.pending.iter().find_map(|(seq, p)| {
            let late = p.due.is_some_and(|due| now > due + GRACE);
            let broken = p.promised.is_some_and(|due| now > due);
            (late || broken).then(|| {
                let promise = if late { "DEADLINE" } else { "RETURN" };
                format!(
                    "{promise}: #{seq} {:?} submitted at {:?}, due {:?}/{:?}, is not answered",
                    p.kind, p.submitted, p.due, p.promised
                )
            })
        })
    }

    /// Is there work that should be under way for this unit?
    pub fn waits(&self, unit: usize) -> bool {
        self.pending.values().any(|p| p.unit == unit)
    }

    /// The answer of a request: what is wrong with it, if anything is. Its bytes are judged elsewhere.
    pub fn verdict(
        &mut self,
        seq: u32,
        p: &Pending,
        outcome: &Outcome,
        c: &Circumstances,
    ) -> Result<(), String> {
        match outcome {
            Ok(_) => self.succeeded += 1,
            Err(_) => self.failed += 1,
        }
        match (p.expect, outcome) {
            (Expect::Error(want), Err(got)) if want == *got => return Ok(()),
            (Expect::Error(want), got) => {
                return Err(format!("#{seq} {:?}: expected {want:?}, got {got:?}", p.kind));
            }
            (Expect::Nothing, Ok(Output::Data(data))) if data.is_empty() => return Ok(()),
            (Expect::Nothing, Ok(Output::Done)) => return Ok(()),
            (Expect::Nothing, got) => return Err(format!("#{seq} {:?}: nothing to do, got {got:?}", p.kind)),
            (Expect::Work, _) => {}
        }
        if p.due.is_some_and(|due| c.now > due + GRACE) {
            return Err(format!(
                "DEADLINE: #{seq} {:?} answered at {:?}, was due {:?}",
                p.kind, c.now, p.due
            ));
        }
        let len = (p.end - p.start) as usize;
        match outcome {
            Ok(Output::Data(data)) if p.kind == Kind::Read && data.len() == len => Ok(()),
            Ok(Output::Written(n)) if p.kind == Kind::Write && *n == len => Ok(()),
            Ok(Output::Done) if matches!(p.kind, Kind::Flush | Kind::Trim) => Ok(()),
            Ok(Output::Ata { .. }) if p.kind.is_raw() => Ok(()),
            Ok(Output::Config(_) | Output::Macs(_)) if p.kind == Kind::Word => Ok(()),
            Ok(other) => Err(format!("#{seq} {:?} of {len} bytes: got {other:?}", p.kind)),
            Err(error) => self.excuse(seq, p, *error, c),
        }
    }

    /// A write of the unit that was submitted before `seq` and has not ended. A flush waits for all of them.
    pub fn earlier_write(&self, unit: usize, seq: u32) -> Option<u32> {
        let writes = |p: &Pending| matches!(p.kind, Kind::Write | Kind::Trim | Kind::RawWrite);
        self.pending.range(..seq).find(|(_, p)| p.unit == unit && writes(p)).map(|(seq, _)| *seq)
    }

    fn excuse(&self, seq: u32, p: &Pending, error: Error, c: &Circumstances) -> Result<(), String> {
        let excused = match error {
            Error::Io => {
                p.due.is_some_and(|due| c.now >= due)
                    || c.failio > p.tick
                    || c.injected
                    || (c.garbled && p.kind == Kind::Word)
            }
            Error::Stale => c.generation != p.handle.generation,
            Error::NotSupported if p.kind == Kind::Trim => !c.can_trim,
            Error::NotSupported | Error::Timeout => {
                p.kind == Kind::Word && c.now >= p.submitted + Duration::from_secs(2)
            }
            Error::Exists => p.kind == Kind::Word,
            _ => false,
        };
        if excused {
            return Ok(());
        }
        Err(format!(
            "#{seq} {:?} of bytes {}..{} submitted at {:?}: {error:?} at {:?} without a cause",
            p.kind, p.start, p.end, p.submitted, c.now
        ))
    }
}
