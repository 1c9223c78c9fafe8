//! ATA commands of the `raw` file: a register FIS in, one out.
//!
//! A command is 18 bytes: 0xff, a protocol byte, and a host-to-device register FIS. Some things AoE cannot carry, and
//! they are refused: the upper halves of feature and count, other than in a transfer of sectors; resets, packets and
//! queued commands.
//!
//! Reads and writes go out with the PIO codes also where a DMA code was asked for, since no software target knows DMA.
//! Those that are larger than a frame are split by the engine, so their registers are made up here. Every other command
//! is one frame, and its registers are those of the target's answer.

use super::{ATA, Command, Facts, Form, Phase, Work};
use crate::fs::limits::REQUEST_MAX;
use crate::wire::{AFLAG_DEVICE, AFLAG_EXT, Ata, Move, SECTOR, cmd, error, is_extended, status};

/// Bytes of a command, and of a status.
const LEN: usize = 18;

/// Places in a register FIS.
mod fis {
    pub(super) const TYPE: usize = 0;
    pub(super) const FLAGS: usize = 1;
    pub(super) const COMMAND: usize = 2;
    pub(super) const FEATURE: usize = 3;
    pub(super) const LBA_LOW: usize = 4;
    pub(super) const DEVICE: usize = 7;
    pub(super) const LBA_HIGH: usize = 8;
    pub(super) const FEATURE_HIGH: usize = 11;
    pub(super) const COUNT: usize = 12;
    pub(super) const COUNT_HIGH: usize = 13;

    /// In a FIS to the host.
    pub(super) const STATUS: usize = 2;
    /// In a FIS to the host.
    pub(super) const ERROR: usize = 3;

    /// A register FIS to the device, and to the host.
    pub(super) const TO_DEVICE: u8 = 0x27;
    pub(super) const TO_HOST: u8 = 0x34;
    /// Flags: it carries a command, not a reset.
    pub(super) const IS_COMMAND: u8 = 0x80;
}

/// The protocol byte.
mod protocol {
    /// Which way the data goes.
    pub(super) const DIRECTION: u8 = 3;
    pub(super) const IN: u8 = 1;
    pub(super) const OUT: u8 = 2;
    /// How it is moved: PIO, DMA, or as the code has it. The others are no commands with registers.
    pub(super) const HOW: u8 = 7 << 2;
    pub(super) const DMA: u8 = 2 << 2;
    /// The registers are the 28-bit ones.
    pub(super) const SHORT: u8 = 1 << 5;
    /// No meaning.
    pub(super) const RESERVED: u8 = 1 << 7;
}

/// The two bits that old disks want set in the device register of a 28-bit command.
const DEVICE: u8 = 0xa0;

/// The power mode's old code, next to [`cmd::CHECK_POWER`].
const CHECK_POWER_OLD: u8 = 0x98;

/// One command in one frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// The registers.
    pub(super) ata: Ata,
    /// Bytes that the answer brings.
    pub(super) expect: usize,
}

/// How a command ended, as the first byte of its status has it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// It is done.
    Done,
    /// The target refused it; the registers say why.
    Refused,
    /// It is not known whether it was done. There are no registers.
    Unknown,
}

/// The registers of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    ext: bool,
    status: u8,
    error: u8,
    lba: [u8; 6],
    device: u8,
    count: u8,
}

impl Registers {
    /// Takes over the registers of the target's answer.
    pub(super) fn answer(&mut self, ata: &Ata) {
        let [a, b, c, d, e, f] = ata.lba;
        self.status = ata.command;
        self.error = ata.feature;
        self.count = ata.count;
        if self.ext {
            self.lba = ata.lba;
        } else {
            self.lba = [a, b, c, 0, e, f];
            self.device = d;
        }
    }

    /// The 18 bytes.
    pub(super) fn status(&self, verdict: Verdict) -> Vec<u8> {
        let mut out = vec![0; LEN];
        out[0] = match verdict {
            Verdict::Done => 0,
            Verdict::Refused => 2,
            Verdict::Unknown => {
                out[0] = 0xff;
                return out;
            }
        };
        let to = &mut out[2..];
        to[fis::TYPE] = fis::TO_HOST;
        to[fis::STATUS] = self.status;
        to[fis::ERROR] = self.error;
        to[fis::LBA_LOW..fis::LBA_LOW + 3].copy_from_slice(&self.lba[..3]);
        to[fis::DEVICE] = self.device;
        to[fis::LBA_HIGH..fis::LBA_HIGH + 3].copy_from_slice(&self.lba[3..]);
        to[fis::COUNT] = self.count;
        out
    }
}

/// Takes a command apart. `None`: it is no command, or none that AoE can carry.
pub(super) fn parse(facts: &Facts, bytes: &[u8]) -> Option<Command> {
    let bytes: &[u8; LEN] = bytes.try_into().ok()?;
    let (head, fis) = bytes.split_first_chunk::<2>()?;
    debug_assert_eq!(head[0], ATA);
    let protocol = head[1];
    if fis[fis::TYPE] != fis::TO_DEVICE || fis[fis::FLAGS] & fis::IS_COMMAND == 0 {
        return None;
    }
    if protocol & protocol::HOW > protocol::DMA || protocol & protocol::RESERVED != 0 {
        return None;
    }
    let phase = match protocol & protocol::DIRECTION {
        0 => Phase::None,
        protocol::IN => Phase::In(0),
        protocol::OUT => Phase::Out(None),
        _ => return None,
    };
    match Move::from_code(fis[fis::COMMAND]) {
        Some(moves) => parse_move(facts, fis, moves, phase),
        None => parse_other(facts, fis, protocol & protocol::SHORT != 0, phase),
    }
}

/// The LBA registers as AoE has them, and the flags that go with them.
fn address(fis: &[u8], ext: bool) -> ([u8; 6], u8) {
    let low = |n| fis[fis::LBA_LOW + n];
    let high = |n| fis[fis::LBA_HIGH + n];
    let device = fis[fis::DEVICE];
    if ext {
        ([low(0), low(1), low(2), high(0), high(1), high(2)], AFLAG_EXT | device & AFLAG_DEVICE)
    } else {
        ([low(0), low(1), low(2), device | DEVICE, 0, 0], 0)
    }
}

/// The registers of a success that no target answered for.
fn echo(fis: &[u8], lba: [u8; 6], ext: bool) -> Registers {
    let lba = if ext { lba } else { [lba[0], lba[1], lba[2], 0, 0, 0] };
    Registers { ext, status: status::DRDY, error: 0, lba, device: fis[fis::DEVICE], count: 0 }
}

/// The registers of a failure that no target answered for.
fn failed(error: u8, registers: Registers) -> Registers {
    Registers { status: status::DRDY | status::ERR, error, ..registers }
}

fn parse_move(facts: &Facts, fis: &[u8], moves: Move, asked: Phase) -> Option<Command> {
    let low = usize::from(fis[fis::COUNT]);
    let sectors = if moves.ext {
        match low | usize::from(fis[fis::COUNT_HIGH]) << 8 {
            0 => 1 << 16,
            n => n,
        }
    } else if fis[fis::COUNT_HIGH] != 0 {
        return None;
    } else {
        match low {
            0 => 1 << 8,
            n => n,
        }
    };
    let len = sectors * SECTOR;
    let phase = match (moves.write, asked) {
        (true, Phase::Out(_)) => Phase::Out(Some(len)),
        (false, Phase::In(_)) => Phase::In(len),
        _ => return None,
    };
    if len > REQUEST_MAX {
        return None;
    }
    let (lba, aflags) = address(fis, moves.ext);
    let ata = Ata { aflags, feature: fis[fis::FEATURE], count: 0, command: moves.code(), lba };
    let at = ata.address().0;
    let registers = echo(fis, lba, moves.ext);
    if moves.write && facts.read_only {
        let form = Form::Ata { registers: failed(error::ABRT, registers) };
        return Some(Command { phase, work: Work::Refused, form });
    }
    // One frame brings the target's own registers back, which say where a bad sector is.
    if sectors <= usize::from(facts.frame.max(1)) && !moves.through {
        let ata = Ata { count: sectors as u8, ..ata };
        let expect = if moves.write { 0 } else { len };
        return Some(Command { phase, work: Work::Ata(Task { ata, expect }), form: Form::Ata { registers } });
    }
    if at > facts.sectors || sectors as u64 > facts.sectors - at {
        let form = Form::Ata { registers: failed(error::IDNF, registers) };
        return Some(Command { phase, work: Work::Refused, form });
    }
    let work = Work::Move { at, sectors, write: moves.write, through: moves.through };
    Some(Command { phase, work, form: Form::Ata { registers } })
}

fn parse_other(facts: &Facts, fis: &[u8], short: bool, asked: Phase) -> Option<Command> {
    if fis[fis::FEATURE_HIGH] != 0 || fis[fis::COUNT_HIGH] != 0 {
        return None;
    }
    let command = fis[fis::COMMAND];
    let high = fis[fis::LBA_HIGH..fis::LBA_HIGH + 3].iter().any(|byte| *byte != 0);
    let ext = is_extended(command).unwrap_or(high && !short);
    if high && !ext {
        return None;
    }
    let (lba, aflags) = address(fis, ext);
    // Disks ignore the count of commands that bring one sector; targets do not.
    let blocks = fis[fis::COUNT].max(1);
    let len = usize::from(blocks) * SECTOR;
    let (phase, count, expect) = match asked {
        // With any other count vblade does not answer at all.
        Phase::None if matches!(command, cmd::CHECK_POWER | CHECK_POWER_OLD) => (Phase::None, 0, 0),
        Phase::None => (Phase::None, fis[fis::COUNT], 0),
        Phase::In(_) => (Phase::In(len), blocks, len),
        Phase::Out(_) => (Phase::Out(Some(len)), blocks, 0),
    };
    let ata = Ata { aflags, feature: fis[fis::FEATURE], count, command, lba };
    let registers = echo(fis, lba, ext);
    if facts.read_only && !ata.effect().sectors.is_empty() {
        let form = Form::Ata { registers: failed(error::ABRT, registers) };
        return Some(Command { phase, work: Work::Refused, form });
    }
    Some(Command { phase, work: Work::Ata(Task { ata, expect }), form: Form::Ata { registers } })
}
