//! What happens to a target, in the words of the log. The runtime adds the time and the target's name.

use std::fmt;

use super::ids::{Identity, NetId};
use super::limits::REQUESTS_MAX;
use super::stats::Op;
use crate::wire::{Mac, Sector, Unusable};

/// Why a target is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A request's deadline passed.
    Deadline,
    /// The operator said `failio`.
    FailIo,
    /// Three rediscoveries went unanswered.
    Silent,
    /// IDENTIFY made no sense.
    Unusable(Unusable),
    /// The last interface that reached it was unbound. What was asked of it waits for another, as long as it may.
    Unreached,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Deadline => f.write_str("a request's deadline passed"),
            Reason::FailIo => f.write_str("failio"),
            Reason::Unreached => f.write_str("no interface reaches it"),
            Reason::Silent => f.write_str("no answer to three rediscoveries"),
            Reason::Unusable(why) => write!(f, "unusable IDENTIFY: {why}"),
        }
    }
}

/// What made a request fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// ATA status and error registers.
    Ata {
        /// Status register.
        status: u8,
        /// Error register.
        error: u8,
    },
    /// The AoE layer refused, with this code.
    Aoe(crate::wire::Refusal),
    /// The deadline passed.
    Deadline,
    /// The operator said `failio`.
    FailIo,
    /// No path carries a frame of that size any more.
    TooLarge,
    /// The target says that it succeeded, and the data is missing.
    Short,
    /// As many requests of this target wait as may.
    Crowded,
    /// The writes of this target, or of all, hold as much memory as they may.
    Memory,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Ata { status, error } => write!(f, "ATA status {status:02x} error {error:02x}"),
            Cause::Aoe(refusal) => write!(f, "AoE error: {refusal}"),
            Cause::Deadline => f.write_str("deadline passed"),
            Cause::FailIo => f.write_str("failio"),
            Cause::TooLarge => f.write_str("too large for one frame"),
            Cause::Short => f.write_str("answered without its data"),
            Cause::Crowded => write!(f, "{REQUESTS_MAX} requests wait for this target already"),
            Cause::Memory => f.write_str("writes that wait hold too much memory already"),
        }
    }
}

/// One thing that happened to a target.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// It answers again, as the same disk.
    Up,
    /// It is down.
    Down(Reason),
    /// Another disk answers at this address: every handle is stale, partitions are gone.
    Replaced {
        /// The disk that was here.
        was: Identity,
        /// The disk that is here.
        is: Identity,
    },
    /// A larger disk of the same serial number and model answers, and the operator has not asked.
    Larger {
        /// Sectors of the disk that we know.
        was: u64,
        /// Sectors of what answers.
        is: u64,
    },
    /// The same disk is larger, and the operator asked.
    Grown {
        /// Sectors before.
        was: u64,
        /// Sectors now.
        is: u64,
    },
    /// The disk has to show its identity before more writes leave.
    Doubted(&'static str),
    /// It did.
    Confirmed,
    /// An answer to `identify`, asked for by the operator.
    Identified(Identity),
    /// The operator's `identify` got no answer that says which disk is there: it is asked no more.
    Unidentified,
    /// A new path carries work.
    PathFound(NetId, Mac),
    /// Another disk, or none, answers over this path: it is not used.
    PathRefused(NetId, Mac),
    /// A path went silent; its work moves to others.
    PathSilent(NetId, Mac),
    /// A silent path answers again.
    PathBack(NetId, Mac),
    /// A path is gone with its netlink.
    PathGone(NetId, Mac),
    /// Frames over this path have this many sectors from now on, because of loss or of proof.
    FrameSize(NetId, Mac, u8),
    /// A frame with more data than a plain Ethernet frame carries was lost.
    LostJumbo(NetId, Mac),
    /// A request failed.
    Failed {
        /// What it did.
        op: Op,
        /// Where, if it has a place.
        at: Option<Sector>,
        /// Why.
        cause: Cause,
    },
    /// The target has no flush, or refuses it: fsync succeeds without one.
    NoFlush,
    /// The target answered the `flush` command.
    Flushed,
    /// It is reserved for these hosts; this host is not among them.
    Reserved(Vec<Mac>),
}

impl Event {
    /// A word for the sort of event, for a log that limits the rate of each sort.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Up | Event::Down(_) => "state",
            Event::Replaced { .. } | Event::Larger { .. } | Event::Grown { .. } => "disk",
            Event::Doubted(_) | Event::Confirmed => "confirm",
            Event::Identified(_) | Event::Unidentified => "identify",
            Event::PathFound(..) | Event::PathRefused(..) | Event::PathGone(..) => "path",
            Event::PathSilent(..) | Event::PathBack(..) => "silence",
            Event::FrameSize(..) | Event::LostJumbo(..) => "size",
            Event::Failed { .. } => "failed",
            Event::NoFlush | Event::Flushed => "flush",
            Event::Reserved(_) => "reserve",
        }
    }

    /// Whether an operator has to hear of it: something does not work as it should.
    pub fn is_trouble(&self) -> bool {
        match self {
            Event::Down(_)
            | Event::Replaced { .. }
            | Event::Larger { .. }
            | Event::Unidentified
            | Event::PathRefused(..)
            | Event::PathSilent(..)
            | Event::Failed { .. }
            | Event::Reserved(_) => true,
            Event::Up
            | Event::Grown { .. }
            | Event::Doubted(_)
            | Event::Confirmed
            | Event::Identified(_)
            | Event::PathFound(..)
            | Event::PathBack(..)
            | Event::PathGone(..)
            | Event::FrameSize(..)
            | Event::LostJumbo(..)
            | Event::NoFlush
            | Event::Flushed => false,
        }
    }

    /// Of interest only to readers that want to see everything.
    pub fn is_chatty(&self) -> bool {
        matches!(self, Event::Doubted(_) | Event::Confirmed | Event::LostJumbo(..))
    }
}

impl Op {
    fn word(self) -> &'static str {
        match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::Flush => "flush",
            Op::Other => "command",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Up => f.write_str("up"),
            Event::Down(why) => write!(f, "down: {why}"),
            Event::Replaced { was, is } => {
                write!(f, "another disk: was {was}, is {is}; open handles are stale")
            }
            Event::Larger { was, is } => write!(
                f,
                "has {is} sectors, had {was}: what is open waits for `identify` in its ctl until the deadline"
            ),
            Event::Grown { was, is } => write!(f, "grown from {was} to {is} sectors"),
            Event::Doubted(why) => write!(f, "asking for its identity before more writes: {why}"),
            Event::Confirmed => f.write_str("confirmed: the same disk"),
            Event::Identified(who) => write!(f, "identified: {who}"),
            Event::Unidentified => f.write_str("identify: no answer; a larger disk is not taken over"),
            Event::PathFound(_, mac) => write!(f, "path to {mac} carries work"),
            Event::PathRefused(_, mac) => write!(f, "path to {mac} refused: not the same disk"),
            Event::PathSilent(_, mac) => write!(f, "path to {mac} is silent: no new work"),
            Event::PathBack(_, mac) => write!(f, "path to {mac} answers again"),
            Event::PathGone(_, mac) => write!(f, "path to {mac} is gone"),
            Event::FrameSize(_, mac, sectors) => write!(f, "path to {mac} carries {sectors} sectors a frame"),
            Event::LostJumbo(_, mac) => write!(f, "a large frame was lost on the path to {mac}"),
            Event::Failed { op, at: Some(at), cause } => {
                write!(f, "{} failed at sector {at}: {cause}", op.word())
            }
            Event::Failed { op, at: None, cause } => write!(f, "{} failed: {cause}", op.word()),
            Event::NoFlush => f.write_str("does not flush: fsync succeeds without it"),
            Event::Flushed => f.write_str("flushed"),
            Event::Reserved(macs) if macs.is_empty() => f.write_str("was reserved a moment ago"),
            Event::Reserved(macs) => {
                f.write_str("reserved for")?;
                macs.iter().try_for_each(|mac| write!(f, " {mac}"))
            }
        }
    }
}
