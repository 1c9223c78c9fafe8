//! The effect of an ATA command on a disk: which sectors it may change, and whether it may be done twice.
//!
//! AoE repeats commands that were not answered, and a disk executes each copy. For the commands that are known here
//! that does no harm, or the effect says that it does. All others are treated as if they might change every sector and
//! must not be repeated.

use core::ops::Range;

use super::Sector;
use super::ata::{Ata, cmd, smart};

/// Command codes that matter here only.
mod code {
    /// The obsolete forms of READ SECTORS and READ DMA "without retries".
    pub(super) const READ_ONCE: u8 = 0x21;
    pub(super) const READ_DMA_ONCE: u8 = 0xc9;
    pub(super) const READ_MULTIPLE: u8 = 0xc4;
    pub(super) const READ_MULTIPLE_EXT: u8 = 0x29;
    pub(super) const WRITE_ONCE: u8 = 0x31;
    pub(super) const WRITE_DMA_ONCE: u8 = 0xcb;
    pub(super) const WRITE_MULTIPLE: u8 = 0xc5;
    pub(super) const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub(super) const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    pub(super) const WRITE_MULTIPLE_FUA_EXT: u8 = 0xce;
    pub(super) const NATIVE_MAX: u8 = 0xf8;
    pub(super) const NATIVE_MAX_EXT: u8 = 0x27;
    pub(super) const READ_LOG_EXT: u8 = 0x2f;
    pub(super) const READ_LOG_DMA_EXT: u8 = 0x47;
    pub(super) const WRITE_LOG_EXT: u8 = 0x3f;
    pub(super) const CHECK_POWER_OLD: u8 = 0x98;
    pub(super) const ZERO_EXT: u8 = 0x44;
    pub(super) const WRITE_UNCORRECTABLE_EXT: u8 = 0x45;
    /// STANDBY IMMEDIATE, IDLE IMMEDIATE, STANDBY, IDLE, and their oldest codes.
    pub(super) const POWER: [u8; 8] = [0xe0, 0xe1, 0xe2, 0xe3, 0x94, 0x95, 0x96, 0x97];
    /// Other commands that have a 48-bit form only: queued and streaming transfers, SET MAX ADDRESS EXT, ZERO EXT,
    /// WRITE UNCORRECTABLE EXT, zones, WRITE LOG DMA EXT, SET DATE & TIME EXT, SANITIZE.
    pub(super) const EXTENDED: [u8; 17] = [
        0x26, 0x2a, 0x2b, 0x36, 0x37, 0x3a, 0x3b, 0x44, 0x45, 0x4a, 0x57, 0x60, 0x61, 0x77, 0x78, 0x9f, 0xb4,
    ];
    /// The log through which the data of SCT commands come, piece by piece.
    pub(super) const LOG_SCT_DATA: u8 = 0xe1;
}

/// The effect of a command on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Sectors that may be different afterwards; empty for a command that leaves them alone.
    pub sectors: Range<u64>,
    /// Whether it may be sent again while it is unknown if it was done.
    pub repeatable: bool,
}

/// No sector.
const NONE: Range<u64> = 0..0;
/// Every sector.
const ALL: Range<u64> = 0..u64::MAX;

/// A command that moves sectors between disk and host, as it can travel in any number of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// From the host to the disk.
    pub write: bool,
    /// Its registers are the 48-bit ones.
    pub ext: bool,
    /// The data must be stable before the answer.
    pub through: bool,
}

impl Move {
    /// How the command with this code moves sectors; None if it moves none.
    pub fn from_code(command: u8) -> Option<Move> {
        let (write, ext) = match command {
            cmd::READ | code::READ_ONCE | code::READ_MULTIPLE | cmd::READ_DMA | code::READ_DMA_ONCE => {
                (false, false)
            }
            cmd::READ_EXT | cmd::READ_DMA_EXT | code::READ_MULTIPLE_EXT => (false, true),
            cmd::WRITE | code::WRITE_ONCE | code::WRITE_MULTIPLE | cmd::WRITE_DMA | code::WRITE_DMA_ONCE => {
                (true, false)
            }
            cmd::WRITE_EXT | cmd::WRITE_DMA_EXT | code::WRITE_MULTIPLE_EXT => (true, true),
            code::WRITE_DMA_FUA_EXT | code::WRITE_MULTIPLE_FUA_EXT => (true, true),
            _ => return None,
        };
        let through = matches!(command, code::WRITE_DMA_FUA_EXT | code::WRITE_MULTIPLE_FUA_EXT);
        Some(Move { write, ext, through })
    }

    /// The code for this move that every target knows.
    pub fn code(self) -> u8 {
        match (self.write, self.ext) {
            (false, false) => cmd::READ,
            (false, true) => cmd::READ_EXT,
            (true, false) => cmd::WRITE,
            (true, true) => cmd::WRITE_EXT,
        }
    }
}

/// Whether a command's registers are the 48-bit ones; `None` if its code does not tell.
pub fn is_extended(command: u8) -> Option<bool> {
    if let Some(moves) = Move::from_code(command) {
        return Some(moves.ext);
    }
    match command {
        cmd::DSM | cmd::FLUSH_EXT | cmd::READ_VERIFY_EXT => Some(true),
        code::NATIVE_MAX_EXT | code::READ_LOG_EXT | code::READ_LOG_DMA_EXT | code::WRITE_LOG_EXT => {
            Some(true)
        }
        _ if code::EXTENDED.contains(&command) => Some(true),
        cmd::IDENTIFY | cmd::IDENTIFY_PACKET | cmd::SMART | cmd::SET_FEATURES | cmd::FLUSH => Some(false),
        cmd::CHECK_POWER | code::CHECK_POWER_OLD | code::NATIVE_MAX | cmd::READ_VERIFY => Some(false),
        _ if code::POWER.contains(&command) => Some(false),
        _ => None,
    }
}

impl Ata {
    /// The first sector, as the command means it: 28 bits of the registers, or all 48.
    pub fn address(&self) -> Sector {
        if is_extended(self.command) == Some(true) { self.sector48() } else { self.sector28() }
    }

    /// The effect of the command in these registers.
    pub fn effect(&self) -> Effect {
        let harmless = Effect { sectors: NONE, repeatable: true };
        if let Some(moves) = Move::from_code(self.command) {
            let Sector(start) = self.address();
            let sectors = if moves.write { start..start + u64::from(self.count) } else { NONE };
            return Effect { sectors, repeatable: true };
        }
        match self.command {
            cmd::IDENTIFY | cmd::IDENTIFY_PACKET | cmd::CHECK_POWER | code::CHECK_POWER_OLD => harmless,
            cmd::READ_VERIFY | cmd::READ_VERIFY_EXT | code::NATIVE_MAX | code::NATIVE_MAX_EXT => harmless,
            code::READ_LOG_EXT | code::READ_LOG_DMA_EXT => self.reading_a_log(),
            cmd::FLUSH | cmd::FLUSH_EXT | cmd::SET_FEATURES => harmless,
            _ if code::POWER.contains(&self.command) => harmless,
            cmd::SMART => match self.feature {
                smart::READ_DATA | smart::READ_THRESHOLDS | smart::STATUS => harmless,
                smart::READ_LOG => self.reading_a_log(),
                smart::ENABLE | smart::DISABLE | smart::AUTOSAVE => harmless,
                // A second one would start the self-test anew.
                smart::OFFLINE_IMMEDIATE => Effect { sectors: NONE, repeatable: false },
                // Through a log other commands can be given (SCT), some of which write.
                _ => Effect { sectors: ALL, repeatable: false },
            },
            // A second TRIM of the same ranges changes nothing.
            cmd::DSM if self.feature == super::feature::TRIM => Effect { sectors: ALL, repeatable: true },
            _ => Effect { sectors: ALL, repeatable: false },
        }
    }

    /// The sector behind the last one that this command addresses, with this data; 0 if it addresses none, or if that
    /// is unknown.
    pub fn end_of_addresses(&self, data: &[u8]) -> u64 {
        match self.command {
            cmd::DSM if self.feature == super::feature::TRIM => {
                super::trim_ranges(data).map(|r| r.at.0 + u64::from(r.count)).max().unwrap_or(0)
            }
            cmd::READ_VERIFY | cmd::READ_VERIFY_EXT | code::ZERO_EXT | code::WRITE_UNCORRECTABLE_EXT => {
                self.address().0 + u64::from(self.count)
            }
            command if Move::from_code(command).is_some() => self.address().0 + u64::from(self.count),
            _ => 0,
        }
    }

    /// Most logs can be read twice. But of the data of SCT commands, each read returns the next piece.
    fn reading_a_log(&self) -> Effect {
        Effect { sectors: NONE, repeatable: self.lba[0] != code::LOG_SCT_DATA }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ata(command: u8, feature: u8) -> Ata {
        Ata { command, feature, ..Ata::default() }
    }

    #[test]
    fn moves_know_their_width_and_their_common_code() {
        for (command, write, ext, through, common) in [
            (0x20, false, false, false, 0x20),
            (0x21, false, false, false, 0x20),
            (0xc4, false, false, false, 0x20),
            (0xc8, false, false, false, 0x20),
            (0x24, false, true, false, 0x24),
            (0x25, false, true, false, 0x24),
            (0x29, false, true, false, 0x24),
            (0x30, true, false, false, 0x30),
            (0xc5, true, false, false, 0x30),
            (0xca, true, false, false, 0x30),
            (0x34, true, true, false, 0x34),
            (0x35, true, true, false, 0x34),
            (0x39, true, true, false, 0x34),
            (0x3d, true, true, true, 0x34),
            (0xce, true, true, true, 0x34),
        ] {
            let moves = Move::from_code(command).unwrap();
            assert_eq!(moves, Move { write, ext, through }, "{command:02x}");
            assert_eq!(moves.code(), common, "{command:02x}");
            assert_eq!(is_extended(command), Some(ext), "{command:02x}");
        }
        assert_eq!((0..=255).filter(|c| Move::from_code(*c).is_some()).count(), 18);
    }

    #[test]
    fn addresses_have_an_end() {
        let mut block = [0; 512];
        super::super::fill_trim(Sector(100), 70_000, &mut block);
        for (ata, data, end) in [
            (Ata::read(Sector(7), 2, true), &[][..], 9),
            (Ata::write(Sector(7), 2, false), &[], 9),
            (Ata { command: cmd::READ_VERIFY, ..Ata::read(Sector(7), 3, false) }, &[], 10),
            (
                Ata { command: cmd::READ_VERIFY_EXT, ..Ata::read(Sector(1 << 40), 3, true) },
                &[],
                (1 << 40) + 3,
            ),
            (Ata { command: 0x45, ..Ata::read(Sector(5), 1, true) }, &[], 6),
            (Ata::trim(1), &block, 70_100),
            (Ata::check_power(), &[], 0),
            (Ata::flush(true), &[], 0),
        ] {
            assert_eq!(ata.end_of_addresses(data), end, "{ata:?}");
        }
    }

    #[test]
    fn only_the_known_may_be_repeated() {
        let write = Ata::write(Sector(1 << 40), 8, true).effect();
        assert_eq!(write, Effect { sectors: 1 << 40..(1 << 40) + 8, repeatable: true });
        assert_eq!(Ata::write(Sector(5), 1, false).effect().sectors, 5..6);
        assert_eq!(Ata::read(Sector(5), 1, false).effect(), Effect { sectors: NONE, repeatable: true });
        for (command, feature) in
            [(0xec, 0), (0xe5, 0), (0xb0, 0xd0), (0xb0, 0xda), (0xef, 0x82), (0xe7, 0), (0xe0, 0), (0x2f, 0)]
        {
            let effect = ata(command, feature).effect();
            assert_eq!(effect, Effect { sectors: NONE, repeatable: true }, "{command:02x}");
        }
        assert_eq!(ata(0xb0, 0xd4).effect(), Effect { sectors: NONE, repeatable: false });
        assert!(Ata::smart(smart::READ_LOG, 6).effect().repeatable);
        assert!(!Ata::smart(smart::READ_LOG, 0xe1).effect().repeatable);
        assert_eq!(Ata::trim(1).effect(), Effect { sectors: ALL, repeatable: true });
        // SECURITY ERASE UNIT, DOWNLOAD MICROCODE, SMART WRITE LOG, SANITIZE, NOP, an unknown one.
        for (command, feature) in
            [(0xf4, 0), (0x92, 7), (0xb0, 0xd6), (0xb4, 0), (0, 0), (0x8e, 0), (0x06, 9)]
        {
            let effect = ata(command, feature).effect();
            assert_eq!(effect, Effect { sectors: ALL, repeatable: false }, "{command:02x}");
        }
    }

    #[test]
    fn widths() {
        for (command, ext) in
            [(0xec, Some(false)), (0xb0, Some(false)), (0x06, Some(true)), (0xea, Some(true))]
        {
            assert_eq!(is_extended(command), ext, "{command:02x}");
        }
        assert_eq!(is_extended(0xf4), None);
    }
}
