//! The `raw` file: write a command, transfer its data, read its status.
//!
//! A pure state machine. Each write and read of the file comes in as bytes or a length, with a [`Facts`] of the
//! target; what comes out is a [`Step`]: done, refused, or a request for the engine whose outcome is fed back into
//! [`Raw::answered`]. One handle has one machine, and the fs lets only one handle be open.
//!
//! ```text
//! Command ──write: a command with data──▶ Data ──transfer──▶ Status ──read──▶ Command
//!    └──────write: one without, which is run at once─────────▶┘
//! ```
//!
//! A call that is out of turn or of the wrong length is invalid and takes the machine back to Command, so that it is
//! never more than two failures away from taking a command. Reading where a command is expected is the end of the file.
//! A transfer that failed leaves the status to be read; a command without data that failed leaves nothing.

use std::ops::Range;

use crate::engine::{Error, Io, Outcome, Output, Pool, WriteBuf};
use crate::fs::limits::REQUEST_MAX;
use crate::wire::{Identify, SECTOR};

mod ata;
mod scsi;
#[cfg(test)]
mod tests;

use ata::Task;
use scsi::Sense;

/// A transfer above this, in bytes, may come in two pieces of which the first is not below it: the kernel gives a FUSE
/// daemon no more pages at once than the largest request has, and a buffer that does not begin where a page begins lies
/// in one more. The largest pages have 64 KiB.
const WHOLE_MAX: usize = REQUEST_MAX - (64 << 10);

/// The first byte of an ATA command, where a SCSI command has its code.
const ATA: u8 = 0xff;

/// The facts about the target that a command depends on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The target's answer to IDENTIFY.
    pub identify: Identify,
    /// Sectors of the disk, as shown.
    pub sectors: u64,
    /// Sectors that one frame carries.
    pub frame: u8,
    /// Does the target answer?
    pub up: bool,
    /// Must nothing change it?
    pub read_only: bool,
}

/// The result of a write or a read.
#[derive(Debug)]
pub enum Step {
    /// The write took that many bytes.
    Wrote(usize),
    /// The read brings these bytes.
    Read(Vec<u8>),
    /// The engine is to do this on the whole disk; its outcome decides.
    Submit {
        /// The request.
        io: Io,
        /// Bytes of the disk that are different afterwards; empty if none.
        changes: Range<u64>,
    },
    /// It failed.
    Error(Error),
}

/// How a command moves data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not at all.
    None,
    /// From the target: at least so many bytes must be asked for.
    In(usize),
    /// To the target: exactly so many bytes; None: any number, for the command is refused in any case.
    Out(Option<usize>),
}

/// The work of a command.
#[derive(Debug)]
enum Work {
    /// It is answered with this data.
    Here(Vec<u8>),
    /// It is refused; the status says why.
    Refused,
    /// Sectors are read or written.
    Move { at: u64, sectors: usize, write: bool, through: bool },
    /// The cache is flushed.
    Flush,
    /// One ATA command in one frame.
    Ata(Task),
}

/// A command and its form.
#[derive(Debug)]
struct Command {
    phase: Phase,
    work: Work,
    form: Form,
}

/// Which language it speaks, and so the form of its status.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// A number; the sense says what is wrong. REQUEST SENSE takes the sense away that it has read.
    Scsi { refused: Option<Sense>, takes_sense: bool },
    /// A register FIS; these are the registers if the command is not carried out in one frame.
    Ata { registers: ata::Registers },
}

/// The call that waits for the outcome.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// The write of the command, so long.
    Command(usize),
    /// The last write of the data, so long.
    Out(usize),
    /// A read of at most so much.
    In(usize),
}

#[derive(Debug)]
enum State {
    /// A command is awaited.
    Command,
    /// Its data is awaited, or asked for; the first piece of it is here.
    Data(Command, Vec<u8>),
    /// The engine is at work.
    Busy(Command, Call),
    /// The rest of the data is to be read, then the status.
    Rest(Vec<u8>, Vec<u8>),
    /// The status is to be read.
    Status(Vec<u8>),
}

/// The state machine of one open `raw`.
#[derive(Debug)]
pub struct Raw {
    pool: Pool,
    state: State,
    /// The answer to the next REQUEST SENSE.
    sense: Option<Sense>,
}

/// How a command ended.
enum End {
    /// As it should, with this data.
    Done(Vec<u8>),
    /// The target refused it.
    Refused,
    /// It was not carried out, or it is not known whether it was.
    Broken(Error),
}

impl Raw {
    /// The machine of a file that was just opened.
    pub fn new(pool: Pool) -> Raw {
        Raw { pool, state: State::Command, sense: None }
    }

    /// write(2).
    pub fn write(&mut self, facts: &Facts, bytes: &[u8]) -> Step {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Command => {
                let parsed = match bytes.first() {
                    Some(&ATA) => ata::parse(facts, bytes),
                    _ => scsi::parse(facts, bytes, self.sense),
                };
                let Some(command) = parsed else { return Step::Error(Error::Invalid) };
                if command.phase == Phase::None {
                    return self.run(command, Call::Command(bytes.len()), Vec::new());
                }
                self.state = State::Data(command, Vec::new());
                Step::Wrote(bytes.len())
            }
            State::Data(command, mut data) => {
                let Phase::Out(wanted) = command.phase else { return Step::Error(Error::Invalid) };
                let have = data.len() + bytes.len();
                let wanted = wanted.unwrap_or(have);
                if have < wanted && have >= WHOLE_MAX && data.is_empty() {
                    data.extend_from_slice(bytes);
                    self.state = State::Data(command, data);
                    return Step::Wrote(bytes.len());
                }
                if have != wanted {
                    return Step::Error(Error::Invalid);
                }
                data.extend_from_slice(bytes);
                self.run(command, Call::Out(bytes.len()), data)
            }
            State::Busy(command, call) => {
                self.state = State::Busy(command, call);
                Step::Error(Error::Busy)
            }
            State::Rest(..) | State::Status(_) => Step::Error(Error::Invalid),
        }
    }

    /// read(2).
    pub fn read(&mut self, len: usize) -> Step {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Command => Step::Read(Vec::new()),
            State::Data(command, _) => match command.phase {
                Phase::In(least) if len >= least || (least > WHOLE_MAX && len >= WHOLE_MAX) => {
                    self.run(command, Call::In(len), Vec::new())
                }
                _ => Step::Error(Error::Invalid),
            },
            State::Busy(command, call) => {
                self.state = State::Busy(command, call);
                Step::Error(Error::Busy)
            }
            State::Rest(data, status) => self.hand_out(data, len, status, true),
            State::Status(mut status) => {
                status.truncate(len);
                Step::Read(status)
            }
        }
    }

    /// The request of [`Step::Submit`] has ended.
    pub fn answered(&mut self, outcome: Outcome) -> Step {
        match std::mem::replace(&mut self.state, State::Command) {
            State::Busy(mut command, call) => {
                let wanted = match &command.work {
                    Work::Move { sectors, .. } => sectors * SECTOR,
                    _ => 0,
                };
                let end = match outcome {
                    Ok(Output::Data(data)) if data.len() == wanted => End::Done(data.to_vec()),
                    Ok(Output::Written(n)) if n == wanted => {
                        if let Work::Move { through: true, .. } = command.work {
                            command.work = Work::Flush;
                            self.state = State::Busy(command, call);
                            return Step::Submit { io: Io::Flush, changes: 0..0 };
                        }
                        End::Done(Vec::new())
                    }
                    // The disk became smaller meanwhile.
                    Ok(Output::Data(_) | Output::Written(_)) => End::Broken(Error::Io),
                    Ok(Output::Ata { ata, data }) => {
                        let failed = ata.failed();
                        if let Form::Ata { registers } = &mut command.form {
                            registers.answer(&ata);
                        }
                        if failed { End::Refused } else { End::Done(data) }
                    }
                    Ok(_) => End::Done(Vec::new()),
                    Err(error) => End::Broken(error),
                };
                self.end(&command, call, end)
            }
            other => {
                // There was no request. That is a mistake of the caller, and no reason to lose the state.
                self.state = other;
                Step::Error(Error::Invalid)
            }
        }
    }

    /// All data that the command needs is there: runs it.
    fn run(&mut self, mut command: Command, call: Call, data: Vec<u8>) -> Step {
        let nothing = 0..0;
        let (io, changes) = match &mut command.work {
            Work::Here(data) => {
                let data = std::mem::take(data);
                return self.end(&command, call, End::Done(data));
            }
            Work::Refused => return self.end(&command, call, End::Refused),
            Work::Move { at, sectors, write: false, .. } => {
                (Io::Read { offset: *at * SECTOR as u64, len: *sectors * SECTOR }, nothing)
            }
            Work::Move { at, .. } => {
                let offset = *at * SECTOR as u64;
                let changes = offset..offset + data.len() as u64;
                (Io::Write { offset, data: WriteBuf::copy_from(&self.pool, offset, &data) }, changes)
            }
            Work::Flush => (Io::Flush, nothing),
            Work::Ata(Task { ata, expect }) => {
                let sectors = ata.effect().sectors;
                let bytes = |sector: u64| sector.saturating_mul(SECTOR as u64);
                let changes = bytes(sectors.start)..bytes(sectors.end);
                (Io::Ata { ata: *ata, data, expect: *expect }, changes)
            }
        };
        self.state = State::Busy(command, call);
        Step::Submit { io, changes }
    }

    fn end(&mut self, command: &Command, call: Call, end: End) -> Step {
        let status = match command.form {
            Form::Scsi { refused, takes_sense } => {
                let moves_in = matches!(command.phase, Phase::In(_));
                let (status, sense) = match &end {
                    End::Done(_) => (scsi::GOOD, None),
                    End::Refused => (scsi::CHECK, refused),
                    End::Broken(error) => scsi::status_of(*error, moves_in),
                };
                if sense.is_some() {
                    self.sense = sense;
                } else if takes_sense {
                    self.sense = None;
                }
                format!("{status}\n").into_bytes()
            }
            Form::Ata { registers } => registers.status(match &end {
                End::Done(_) => ata::Verdict::Done,
                End::Refused => ata::Verdict::Refused,
                End::Broken(_) => ata::Verdict::Unknown,
            }),
        };
        match (call, end) {
            // The command was not taken: there is no status to read.
            (Call::Command(_), End::Broken(error)) => Step::Error(error),
            (_, End::Broken(error)) => {
                self.state = State::Status(status);
                Step::Error(error)
            }
            (Call::Command(len), _) => {
                self.state = State::Status(status);
                Step::Wrote(len)
            }
            // A write that changed nothing must not look as if it had.
            (Call::Out(_), End::Refused) => {
                self.state = State::Status(status);
                Step::Error(Error::Io)
            }
            (Call::Out(len), End::Done(_)) => {
                self.state = State::Status(status);
                Step::Wrote(len)
            }
            (Call::In(_), End::Refused) => {
                self.state = State::Status(status);
                Step::Read(Vec::new())
            }
            (Call::In(len), End::Done(data)) => {
                let large = data.len() > WHOLE_MAX;
                self.hand_out(data, len, status, large)
            }
        }
    }

    /// As much of the data as was asked for. The rest of a large transfer is for the next read.
    fn hand_out(&mut self, mut data: Vec<u8>, len: usize, status: Vec<u8>, large: bool) -> Step {
        let rest = data.split_off(len.min(data.len()));
        let over = rest.is_empty() || !large;
        self.state = if over { State::Status(status) } else { State::Rest(rest, status) };
        Step::Read(data)
    }
}
