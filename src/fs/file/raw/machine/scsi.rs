//! SCSI commands on a disk that speaks ATA: what each means here, and what it answers.
//!
//! The few that move or describe sectors are translated (SPC-4, SBC-3; identification as SAT-3 has it); all others end
//! in a check condition, "invalid command operation code". Of those whose form is well known, the machine still knows
//! which way their data would go: so a program that transfers the data before it looks at the status does not read the
//! status as data.

use super::{Command, Facts, Form, Phase, Work};
use crate::engine::Error;
use crate::fs::limits::REQUEST_MAX;
use crate::wire::{Identify, SECTOR};

/// Status: done.
pub(super) const GOOD: u8 = 0x00;
/// Status: see the sense.
pub(super) const CHECK: u8 = 0x02;
/// Status: reserved by another host.
const CONFLICT: u8 = 0x18;

/// Command codes.
mod code {
    pub(super) const TEST_UNIT_READY: u8 = 0x00;
    pub(super) const REQUEST_SENSE: u8 = 0x03;
    pub(super) const READ_6: u8 = 0x08;
    pub(super) const WRITE_6: u8 = 0x0a;
    pub(super) const INQUIRY: u8 = 0x12;
    pub(super) const START_STOP: u8 = 0x1b;
    pub(super) const READ_CAPACITY_10: u8 = 0x25;
    pub(super) const READ_10: u8 = 0x28;
    pub(super) const WRITE_10: u8 = 0x2a;
    pub(super) const SYNCHRONIZE_10: u8 = 0x35;
    pub(super) const READ_16: u8 = 0x88;
    pub(super) const WRITE_16: u8 = 0x8a;
    pub(super) const SYNCHRONIZE_16: u8 = 0x91;
    pub(super) const SERVICE_IN_16: u8 = 0x9e;
    pub(super) const READ_12: u8 = 0xa8;
    pub(super) const WRITE_12: u8 = 0xaa;

    /// The service action that makes [`SERVICE_IN_16`] a READ CAPACITY.
    pub(super) const READ_CAPACITY_16: u8 = 0x10;
}

/// Byte 1 of a write: it must be stable before it is answered.
const FUA: u8 = 0x08;

/// Sense: key, additional code and its qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sense(u8, u8, u8);

impl Sense {
    const NOT_READY: Sense = Sense(0x02, 0x04, 0x00);
    const READ_FAILED: Sense = Sense(0x03, 0x11, 0x00);
    const WRITE_FAILED: Sense = Sense(0x03, 0x0c, 0x00);
    const TARGET_FAILED: Sense = Sense(0x04, 0x44, 0x00);
    const NO_SUCH_COMMAND: Sense = Sense(0x05, 0x20, 0x00);
    const OUT_OF_RANGE: Sense = Sense(0x05, 0x21, 0x00);
    const BAD_FIELD: Sense = Sense(0x05, 0x24, 0x00);
    const NO_SUCH_UNIT: Sense = Sense(0x05, 0x25, 0x00);
    const DISK_CHANGED: Sense = Sense(0x06, 0x28, 0x00);
    const WRITE_PROTECTED: Sense = Sense(0x07, 0x27, 0x00);

    /// Fixed format, 18 bytes.
    fn bytes(this: Option<Sense>) -> Vec<u8> {
        let Sense(key, code, qualifier) = this.unwrap_or(Sense(0, 0, 0));
        let mut out = vec![0; 18];
        out[0] = 0x70;
        out[2] = key;
        out[7] = 10;
        out[12] = code;
        out[13] = qualifier;
        out
    }
}

/// The status and the sense of a command that the engine could not carry out.
pub(super) fn status_of(error: Error, reads: bool) -> (u8, Option<Sense>) {
    let sense = match error {
        Error::Busy => return (CONFLICT, None),
        Error::Io if reads => Sense::READ_FAILED,
        Error::Io => Sense::WRITE_FAILED,
        Error::Stale => Sense::DISK_CHANGED,
        Error::Down => Sense::NOT_READY,
        Error::NoSpace => Sense::OUT_OF_RANGE,
        _ => Sense::TARGET_FAILED,
    };
    (CHECK, Some(sense))
}

/// The bytes that a command has at least, by the group that its code belongs to.
pub(super) fn least(code: u8) -> usize {
    match code >> 5 {
        1 | 2 => 10,
        4 => 16,
        5 => 12,
        _ => 6,
    }
}

/// Takes a command apart. `None`: it is no command, or it moves more than one transfer can.
pub(super) fn parse(facts: &Facts, cdb: &[u8], sense: Option<Sense>) -> Option<Command> {
    let code = *cdb.first()?;
    if !(least(code)..=16).contains(&cdb.len()) {
        return None;
    }
    let mut c = [0; 16];
    c[..cdb.len()].copy_from_slice(cdb);
    // The upper bits of byte 1 were the number of a logical unit once. There is only number 0 here.
    if c[1] >> 5 != 0 && code != code::INQUIRY {
        return Some(refuse(&c, Sense::NO_SUCH_UNIT));
    }
    Some(match code {
        code::TEST_UNIT_READY if !facts.up => refuse(&c, Sense::NOT_READY),
        code::TEST_UNIT_READY | code::START_STOP => nothing(Work::Here(Vec::new())),
        code::REQUEST_SENSE => request_sense(number(&c, 4, 1), sense),
        code::INQUIRY => match inquiry(&facts.identify, &c) {
            Ok(data) => tell(data, number(&c, 3, 2)),
            Err(sense) => refuse(&c, sense),
        },
        code::READ_CAPACITY_10 => {
            let partial = c[1] & 1 != 0 || c[8] & 1 != 0 || number(&c, 2, 4) != 0;
            if partial { refuse(&c, Sense::BAD_FIELD) } else { tell(capacity_10(facts), 8) }
        }
        code::SERVICE_IN_16 if c[1] & 0x1f == code::READ_CAPACITY_16 => {
            let partial = c[14] & 1 != 0 || number(&c, 2, 8) != 0;
            if partial { refuse(&c, Sense::BAD_FIELD) } else { tell(capacity_16(facts), number(&c, 10, 4)) }
        }
        code::SYNCHRONIZE_10 | code::SYNCHRONIZE_16 => nothing(Work::Flush),
        _ => match extent(&c) {
            Some((at, sectors)) => return moves(facts, &c, at, sectors),
            None => refuse(&c, Sense::NO_SUCH_COMMAND),
        },
    })
}

/// A big-endian number of `len` bytes.
fn number(cdb: &[u8; 16], at: usize, len: usize) -> u64 {
    cdb[at..at + len].iter().fold(0, |n, &byte| n << 8 | u64::from(byte))
}

fn form(refused: Option<Sense>) -> Form {
    Form::Scsi { refused, takes_sense: false }
}

fn nothing(work: Work) -> Command {
    Command { phase: Phase::None, work, form: form(None) }
}

/// Data that is answered here, as much of it as the command has room for.
fn tell(mut data: Vec<u8>, room: u64) -> Command {
    data.truncate(usize::try_from(room).unwrap_or(usize::MAX));
    let phase = if data.is_empty() { Phase::None } else { Phase::In(0) };
    Command { phase, work: Work::Here(data), form: form(None) }
}

fn refuse(cdb: &[u8; 16], sense: Sense) -> Command {
    Command { phase: direction(cdb), work: Work::Refused, form: form(Some(sense)) }
}

fn request_sense(room: u64, sense: Option<Sense>) -> Command {
    let command = tell(Sense::bytes(sense), room);
    Command { form: Form::Scsi { refused: None, takes_sense: room > 0 }, ..command }
}

/// First sector and sectors of a command that reads or writes.
fn extent(cdb: &[u8; 16]) -> Option<(u64, u64)> {
    Some(match cdb[0] {
        code::READ_6 | code::WRITE_6 => {
            let sectors = number(cdb, 4, 1);
            // 21 bits of address; no sectors means 256 in this form only.
            (number(cdb, 1, 3) & 0x1f_ffff, if sectors == 0 { 256 } else { sectors })
        }
        code::READ_10 | code::WRITE_10 => (number(cdb, 2, 4), number(cdb, 7, 2)),
        code::READ_12 | code::WRITE_12 => (number(cdb, 2, 4), number(cdb, 6, 4)),
        code::READ_16 | code::WRITE_16 => (number(cdb, 2, 8), number(cdb, 10, 4)),
        _ => return None,
    })
}

fn moves(facts: &Facts, cdb: &[u8; 16], at: u64, sectors: u64) -> Option<Command> {
    let write = cdb[0] & 0x0f == code::WRITE_6;
    if sectors > (REQUEST_MAX / SECTOR) as u64 {
        return None;
    }
    if at > facts.sectors || sectors > facts.sectors - at {
        return Some(refuse(cdb, Sense::OUT_OF_RANGE));
    }
    if write && facts.read_only {
        return Some(refuse(cdb, Sense::WRITE_PROTECTED));
    }
    let sectors = sectors as usize;
    if sectors == 0 {
        return Some(nothing(Work::Here(Vec::new())));
    }
    let len = sectors * SECTOR;
    let phase = if write { Phase::Out(Some(len)) } else { Phase::In(len) };
    let through = write && cdb[0] != code::WRITE_6 && cdb[1] & FUA != 0;
    Some(Command { phase, work: Work::Move { at, sectors, write, through }, form: form(None) })
}

/// Which way the data of a command goes that is refused.
fn direction(cdb: &[u8; 16]) -> Phase {
    /// Command codes, and where the length of their data is.
    const IN: [(u8, usize, usize); 16] = [
        (code::REQUEST_SENSE, 4, 1),
        (code::INQUIRY, 3, 2),
        (0x1a, 4, 1), // MODE SENSE(6)
        (0x1c, 3, 2), // RECEIVE DIAGNOSTIC RESULTS
        (0x37, 7, 2), // READ DEFECT DATA(10)
        (0x3c, 6, 3), // READ BUFFER
        (0x43, 7, 2), // READ TOC
        (0x46, 7, 2), // GET CONFIGURATION
        (0x4a, 7, 2), // GET EVENT STATUS NOTIFICATION
        (0x4d, 7, 2), // LOG SENSE
        (0x5a, 7, 2), // MODE SENSE(10)
        (0x5e, 7, 2), // PERSISTENT RESERVE IN
        (code::SERVICE_IN_16, 10, 4),
        (0xa0, 6, 4), // REPORT LUNS
        (0xa3, 6, 4), // MAINTENANCE IN
        (0xb7, 6, 4), // READ DEFECT DATA(12)
    ];
    const OUT: [(u8, usize, usize); 7] = [
        (0x15, 4, 1), // MODE SELECT(6)
        (0x1d, 3, 2), // SEND DIAGNOSTIC
        (0x3b, 6, 3), // WRITE BUFFER
        (0x42, 7, 2), // UNMAP
        (0x4c, 7, 2), // LOG SELECT
        (0x55, 7, 2), // MODE SELECT(10)
        (0x5f, 5, 4), // PERSISTENT RESERVE OUT
    ];
    /// WRITE SAME: one sector, however many are written.
    const OUT_ONE: [u8; 2] = [0x41, 0x93];

    let code = cdb[0];
    let some = |table: &[(u8, usize, usize)]| {
        table.iter().any(|(of, at, len)| *of == code && number(cdb, *at, *len) > 0)
    };
    if let Some((_, sectors)) = extent(cdb) {
        return match sectors {
            0 => Phase::None,
            _ if code & 0x0f == code::WRITE_6 => Phase::Out(None),
            _ => Phase::In(0),
        };
    }
    if some(&IN) || code == code::READ_CAPACITY_10 {
        Phase::In(0)
    } else if some(&OUT) || OUT_ONE.contains(&code) {
        Phase::Out(None)
    } else {
        Phase::None
    }
}

fn capacity_10(facts: &Facts) -> Vec<u8> {
    let last = u32::try_from(facts.sectors.saturating_sub(1)).unwrap_or(u32::MAX);
    [last.to_be_bytes(), (SECTOR as u32).to_be_bytes()].concat()
}

fn capacity_16(facts: &Facts) -> Vec<u8> {
    let mut out = vec![0; 32];
    out[..8].copy_from_slice(&facts.sectors.saturating_sub(1).to_be_bytes());
    out[8..12].copy_from_slice(&(SECTOR as u32).to_be_bytes());
    out[13] = facts.identify.physical_log2 & 0x0f;
    out[14] =
        u8::from(facts.identify.trim) << 7 | u8::from(facts.identify.trim && facts.identify.trim_zeroes) << 6;
    out
}

/// Bytes of ASCII, filled up with blanks.
fn padded(text: &str, len: usize) -> impl Iterator<Item = u8> + '_ {
    text.bytes().chain(std::iter::repeat(b' ')).take(len)
}

/// The vendor that SCSI hosts see for disks that speak ATA.
const VENDOR: &str = "ATA";

fn inquiry(identify: &Identify, cdb: &[u8; 16]) -> Result<Vec<u8>, Sense> {
    /// Serial number, device identification; and this list.
    const PAGES: [u8; 3] = [0x00, 0x80, 0x83];
    let vital = cdb[1] & 1 != 0;
    if !vital {
        // A page without the bit that says so.
        return if cdb[2] == 0 { Ok(standard(identify, cdb[1] >> 5 != 0)) } else { Err(Sense::BAD_FIELD) };
    }
    let body: Vec<u8> = match cdb[2] {
        0x00 => PAGES.to_vec(),
        0x80 => padded(identify.serial.as_str(), 20).collect(),
        0x83 => {
            // One name: ASCII, by the vendor: vendor, model, serial number.
            let name = padded(VENDOR, 8)
                .chain(padded(identify.model.as_str(), 40))
                .chain(padded(identify.serial.as_str(), 20));
            [0x02, 0x01, 0x00, 68].into_iter().chain(name).collect()
        }
        _ => return Err(Sense::BAD_FIELD),
    };
    Ok([0, cdb[2], 0, body.len() as u8].into_iter().chain(body).collect())
}

/// `absent`: another unit than 0 is asked for.
fn standard(identify: &Identify, absent: bool) -> Vec<u8> {
    let kind = if absent { 0x7f } else { 0x00 };
    let firmware = identify.firmware.as_str();
    // The last four characters, which is where disks count; all of them if they are few.
    let revision = if firmware.len() > 4 { &firmware[firmware.len() - 4..] } else { firmware };
    // A disk; SPC-3; 31 bytes follow the fifth.
    [kind, 0, 5, 2, 31, 0, 0, 2]
        .into_iter()
        .chain(padded(VENDOR, 8))
        .chain(padded(identify.model.as_str(), 16))
        .chain(padded(revision, 4))
        .collect()
}
