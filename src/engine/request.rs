//! One user request: what is asked, what comes back, and how far it has got.
//!
//! A request is consumed when it is answered, so that it can be answered once only.

use std::ops::Range;
use std::sync::Arc;

use super::buffer::{Buf, Data, Lease, WriteBuf};
use super::event::Cause;
use super::flight::Work;
use super::ids::{ReqId, Stream};
use super::lanes::Lane;
use super::locks::{self, LockId};
use super::partition::PartId;
use super::stats::Op;
use super::time::Time;
use crate::wire::{Ata, Directive, Effect, Mac, MaskError, SECTOR, Sector, Verb};

/// What a handle was opened on. Any I/O through it while the disk or the partition is another fails as stale.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle {
    /// The disk's generation.
    pub generation: u32,
    /// A partition, or the whole disk.
    pub part: Option<PartId>,
}

/// What is asked. Offsets and lengths are bytes within the disk or the handle's partition.
#[derive(Debug)]
pub enum Io {
    /// Reads; the answer is shorter only at the end.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// Writes, atomically per sector; cut at the end.
    Write {
        /// First byte; the buffer was made for it.
        offset: u64,
        /// The bytes.
        data: WriteBuf,
    },
    /// Makes every write that is answered by now durable, as far as the target can.
    Flush,
    /// Discards; whole sectors only. Refused unless the target promises zeros afterwards.
    Trim {
        /// First byte, a multiple of 512.
        offset: u64,
        /// Bytes, a multiple of 512.
        len: u64,
    },
    /// One ATA command as it is, in one frame: one that does not fit into a frame of any path is invalid. The answer
    /// carries the registers, whether the command failed or not. A command that is not known to be the same when it
    /// is done twice ([`crate::wire::Effect`]) leaves once: if it or its answer is lost, it fails by the deadline,
    /// and it is unknown whether it was done. It has a deadline under nofail, too.
    Ata {
        /// The registers. The flag that says whether data follows is set here.
        ata: Ata,
        /// Data for the device, or none.
        data: Vec<u8>,
        /// Bytes that the answer brings if the command succeeds; a shorter one counts as lost.
        expect: usize,
    },
    /// The config string.
    Config {
        /// What to do with it.
        verb: Verb,
        /// Its argument.
        string: Vec<u8>,
    },
    /// The MAC mask list: read when there are no directives.
    Mask(Vec<Directive>),
    /// The reservation list.
    Reserve(Reservation),
}

/// What to do with the reservation list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reservation {
    /// Which hosts hold it?
    Read,
    /// Reserve for these, if no other host holds it; for none: release.
    Set(Vec<Mac>),
    /// Reserve for these even if another host holds it.
    Force(Vec<Mac>),
}

/// A request; `R` is whatever travels with it and comes back with its outcome.
#[derive(Debug)]
pub struct Request<R> {
    /// What is asked.
    pub io: Io,
    /// On what.
    pub handle: Handle,
    /// Fail at once rather than wait for a target that is away, even under nofail.
    pub nonblock: bool,
    /// The reader, if reading ahead of it is wanted. Only a read looks at it.
    pub stream: Option<Stream>,
    /// Comes back exactly once, with the outcome.
    pub reply: R,
}

/// What comes back from a request that succeeded.
#[derive(Debug)]
pub enum Output {
    /// The bytes read.
    Data(Data),
    /// Bytes written.
    Written(usize),
    /// Flushed or discarded.
    Done,
    /// The config string as the target has it now.
    Config(Vec<u8>),
    /// The mask or reservation list as the target has it now.
    Macs(Vec<Mac>),
    /// The target refused directive `index` of a mask edit with this code.
    MaskRefused {
        /// What it said.
        error: MaskError,
        /// Which directive.
        index: u8,
    },
    /// Registers and data of a raw command, whether it failed or not.
    Ata {
        /// Status, error, count and LBA registers.
        ata: Ata,
        /// Data from the device.
        data: Vec<u8>,
    },
}

/// Why a request did not succeed. The fs layer maps these to errnos, in one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The I/O failed; the log says why.
    Io,
    /// The handle is older than the disk or the partition.
    Stale,
    /// The target is down.
    Down,
    /// At or past the end.
    NoSpace,
    /// The target does not do it.
    NotSupported,
    /// Another host holds the reservation.
    Busy,
    /// A config string is there already.
    Exists,
    /// No answer in time.
    Timeout,
    /// The argument makes no sense.
    Invalid,
}

/// How a request ended.
pub type Outcome = Result<Output, Error>;

/// The data of a write: while its edges are read from the disk, or final and shared with its frames.
#[derive(Debug)]
pub(super) enum Bytes {
    Edges { data: WriteBuf, missing: u8 },
    Whole(Arc<Buf>),
    Taken,
}

/// How far a run of sectors has got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub at: Sector,
    pub sectors: u64,
    /// Sectors for which a frame exists or existed.
    pub issued: u64,
    /// Sectors that the target has answered for.
    pub landed: u64,
}

impl Span {
    pub(super) fn new(at: Sector, sectors: u64) -> Span {
        Span { at, sectors, issued: 0, landed: 0 }
    }

    fn chunk(&mut self, most: u64) -> Option<(Sector, u64, u64)> {
        let count = (self.sectors - self.issued).min(most);
        if count == 0 {
            return None;
        }
        let from = self.issued;
        self.issued += count;
        Some((Sector(self.at.0 + from), count, from))
    }

    fn issued(&self) -> bool {
        self.issued == self.sectors
    }

    fn landed(&self) -> bool {
        self.landed == self.sectors
    }
}

/// What a request has to do.
#[derive(Debug)]
pub(super) enum Job {
    Read {
        span: Span,
        skip: usize,
        len: usize,
        buf: Option<Buf>,
        lock: Option<LockId>,
    },
    Write {
        span: Span,
        len: usize,
        bytes: Bytes,
        lock: LockId,
    },
    Trim {
        span: Span,
        lock: LockId,
    },
    /// `failed`: why the first opcode failed, if the success of the second one does not make that good.
    Flush {
        lock: LockId,
        left: bool,
        done: bool,
        failed: Option<Cause>,
    },
    Ata(Box<Raw>),
    Config {
        verb: Verb,
        string: Vec<u8>,
    },
    Mask(Vec<Directive>),
    Reserve(Reservation),
}

impl Job {
    /// The bytes of the disk that a read wants; of anything else none.
    pub(super) fn wants(&self) -> Range<u64> {
        let Job::Read { span, skip, len, .. } = self else { return 0..0 };
        let start = span.at.0 * SECTOR as u64 + *skip as u64;
        start..start + *len as u64
    }
}

/// A raw ATA command.
#[derive(Debug)]
pub(super) struct Raw {
    pub ata: Ata,
    pub data: Arc<Buf>,
    pub expect: usize,
    pub effect: Effect,
    /// Sectors that its frame, or the answer's, carries.
    pub sectors: u8,
    pub lock: Option<LockId>,
    pub left: bool,
    /// Answers that said success and were too short.
    pub short: u8,
    pub answer: Option<(Ata, Vec<u8>)>,
}

/// What a request is for.
#[derive(Debug)]
pub(super) enum For<R> {
    /// A caller that must get an answer.
    User(R),
    /// A reader that may want it soon.
    Ahead(Stream, Lease),
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Req<R> {
    pub owner: For<R>,
    pub job: Job,
    pub submitted: Time,
    pub nonblock: bool,
    /// The lock of a command that changes what the target keeps besides its sectors.
    pub word: Option<LockId>,
    /// It has its lock, or needs none.
    pub granted: bool,
    /// It stands in a lane.
    pub queued: bool,
    /// It waits for bytes that are being read ahead, and has no lock and no frames yet.
    pub waits: bool,
    /// Nothing waits for it yet: everything else goes first.
    pub behind: bool,
    /// The memory of a write.
    pub memory: Option<Lease>,
    /// All answers are in; it waits for the disk's identity to be confirmed.
    pub held: bool,
    /// Why it failed, if that was while the disk was in doubt: errors of another disk are not errors of this one.
    pub failed: Option<(Error, Cause)>,
    /// When it failed, or when its first answer came (of a request with one answer), while the disk was in doubt.
    pub unsure: Option<Time>,
    /// Sectors that were answered for while the disk was in doubt.
    pub doubted: Vec<Answered>,
    /// How often it was begun anew because of that.
    pub redone: u8,
}

/// What a frame was about, when its answer came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub work: Work,
    pub at: Sector,
    pub count: u8,
    /// How often these sectors were asked for again.
    pub redone: u8,
    pub came: Time,
}

impl<R> Req<R> {
    pub(super) fn op(&self) -> Op {
        match self.job {
            Job::Read { .. } => Op::Read,
            Job::Write { .. } | Job::Trim { .. } => Op::Write,
            Job::Flush { .. } => Op::Flush,
            _ => Op::Other,
        }
    }

    pub(super) fn at(&self) -> Option<Sector> {
        match &self.job {
            Job::Read { span, .. } | Job::Write { span, .. } | Job::Trim { span, .. } => Some(span.at),
            _ => None,
        }
    }

    pub(super) fn lock(&self) -> Option<LockId> {
        match self.job {
            Job::Write { lock, .. } | Job::Trim { lock, .. } | Job::Flush { lock, .. } => Some(lock),
            Job::Ata(ref raw) => raw.lock,
            Job::Read { lock, .. } => lock,
            Job::Config { .. } | Job::Mask(_) | Job::Reserve(_) => self.word,
        }
    }

    /// The place that stands for what a command changes, if that is none of the disk's sectors.
    pub(super) fn place(&self) -> Option<u64> {
        match &self.job {
            Job::Config { verb: Verb::Set | Verb::Force, .. } => Some(locks::CONFIG),
            Job::Mask(directives) if !directives.is_empty() => Some(locks::MASK),
            Job::Reserve(Reservation::Set(_) | Reservation::Force(_)) => Some(locks::RESERVE),
            _ => None,
        }
    }

    /// The lane that it waits in.
    pub(super) fn lane(&self) -> Lane {
        match self.job {
            Job::Read { .. } if self.behind => Lane::Behind,
            Job::Read { .. } => Lane::Reads,
            _ => Lane::Writes,
        }
    }

    /// Does it come from the reading ahead, and not from a user?
    pub(super) fn is_ahead(&self) -> bool {
        matches!(self.owner, For::Ahead(..))
    }

    /// Issues no more frames of a read that is not wanted any more. True if none of those that have left is
    /// unanswered.
    pub(super) fn cut(&mut self) -> bool {
        if let Job::Read { span, len, .. } = &mut self.job {
            span.sectors = span.issued;
            *len = span.sectors as usize * SECTOR;
        }
        self.queued = false;
        self.complete()
    }

    /// Is it a command with a time-out of its own, outside the lanes?
    pub(super) fn is_command(&self) -> bool {
        matches!(self.job, Job::Config { .. } | Job::Mask(_) | Job::Reserve(_))
    }

    /// Is it an ATA command of the raw file? The target may take its time for it, or never answer it.
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.job, Job::Ata(_))
    }

    /// Sectors that its frame must have room for, since it cannot be split.
    pub(super) fn whole(&self) -> u8 {
        match &self.job {
            Job::Ata(raw) => raw.sectors,
            _ => 0,
        }
    }

    /// The next frame to issue, of at most `most` sectors: its work, place and sectors. `ext` says how to flush.
    pub(super) fn next_work(&mut self, id: ReqId, most: u8, ext: bool) -> Option<(Work, Sector, u8)> {
        match &mut self.job {
            Job::Read { span, .. } => {
                let (at, count, from) = span.chunk(u64::from(most))?;
                Some((Work::Read { req: id, offset: from as usize * SECTOR }, at, count as u8))
            }
            Job::Write { span, bytes, .. } => match bytes {
                Bytes::Whole(_) => {
                    let (at, count, from) = span.chunk(u64::from(most))?;
                    Some((Work::Write { req: id, offset: from as usize * SECTOR }, at, count as u8))
                }
                Bytes::Edges { .. } | Bytes::Taken => None,
            },
            Job::Trim { span, .. } => {
                let (at, _, _) = span.chunk(crate::wire::TRIM_BLOCK_SECTORS)?;
                Some((Work::Trim { req: id }, at, 1))
            }
            Job::Flush { left, .. } if !*left => {
                *left = true;
                Some((Work::Flush { req: id, ext }, Sector(0), 0))
            }
            Job::Ata(raw) if !raw.left => {
                raw.left = true;
                Some((Work::Raw { req: id }, Sector(0), raw.sectors))
            }
            _ => None,
        }
    }

    /// Has every frame been issued?
    pub(super) fn all_issued(&self) -> bool {
        match &self.job {
            Job::Read { span, .. } | Job::Trim { span, .. } => span.issued(),
            Job::Write { span, bytes, .. } => matches!(bytes, Bytes::Whole(_)) && span.issued(),
            Job::Flush { left, .. } => *left,
            Job::Ata(raw) => raw.left,
            _ => true,
        }
    }

    /// Has every frame been answered?
    pub(super) fn complete(&self) -> bool {
        match &self.job {
            Job::Read { span, .. } | Job::Write { span, .. } | Job::Trim { span, .. } => span.landed(),
            Job::Flush { done, .. } => *done,
            Job::Ata(raw) => raw.answer.is_some(),
            _ => false,
        }
    }

    /// Can all of it be asked for twice without harm? Not a flush that failed: Linux and others say only once that
    /// data could not be written, drop the data, and call the next flush a success.
    pub(super) fn repeatable(&self) -> bool {
        match &self.job {
            Job::Read { .. } | Job::Write { .. } | Job::Trim { .. } => true,
            Job::Flush { failed, .. } => failed.is_none() && self.failed.is_none(),
            Job::Ata(raw) => {
                let failed = raw.answer.as_ref().is_some_and(|(ata, _)| ata.failed());
                raw.effect.repeatable && !(failed && self.is_flush())
            }
            _ => false,
        }
    }

    /// Is it a flush, of the file system or of the raw file?
    pub(super) fn is_flush(&self) -> bool {
        match &self.job {
            Job::Flush { .. } => true,
            Job::Ata(raw) => raw.ata.is_flush(),
            _ => false,
        }
    }

    /// Forgets what was issued and answered, so that it can be started anew. False if it cannot be asked twice
    /// without harm.
    pub(super) fn rewind(&mut self) -> bool {
        if !self.repeatable() {
            return false;
        }
        match &mut self.job {
            Job::Read { span, .. } | Job::Write { span, .. } | Job::Trim { span, .. } => {
                *span = Span::new(span.at, span.sectors);
            }
            Job::Flush { left, done, failed, .. } => (*left, *done, *failed) = (false, false, None),
            Job::Ata(raw) => (raw.left, raw.answer) = (false, None),
            _ => return false,
        }
        (self.held, self.queued, self.failed, self.unsure) = (false, false, None, None);
        self.doubted.clear();
        true
    }

    /// Sectors that were answered for will be answered for again.
    pub(super) fn unland(&mut self, sectors: u8) {
        if let Job::Read { span, .. } | Job::Write { span, .. } = &mut self.job {
            span.landed = span.landed.saturating_sub(u64::from(sectors));
            self.held = false;
        }
    }

    /// What it brings back, now that it is complete.
    pub(super) fn output(&mut self) -> Outcome {
        match &mut self.job {
            Job::Read { buf, skip, len, .. } => match buf.take() {
                Some(buf) => Ok(Output::Data(Data::new(buf, *skip, *len))),
                None => Err(Error::Io),
            },
            Job::Write { len, .. } => Ok(Output::Written(*len)),
            Job::Ata(raw) => match raw.answer.take() {
                Some((ata, data)) => Ok(Output::Ata { ata, data }),
                None => Err(Error::Io),
            },
            _ => Ok(Output::Done),
        }
    }
}
