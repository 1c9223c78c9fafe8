//! The 12 bytes of an ATA argument: a disk's registers, on their way in (a command) or out (its status).

use super::bytes::{array, put};
use super::{HEADER_LEN, Malformed, Sector};

/// Bytes of the argument.
pub const ATA_LEN: usize = field::RESERVED.end;

/// Where data begins, counted from the start of the frame.
pub const DATA_OFFSET: usize = HEADER_LEN + ATA_LEN;

/// AFlags: an extended (48-bit) command. Set if and only if the command is one: targets decide by either.
pub const AFLAG_EXT: u8 = 0x40;
/// AFlags: the device bit, which an extended command has no LBA byte for.
pub const AFLAG_DEVICE: u8 = 0x10;
/// AFlags: the request carries data. Set if and only if it does.
pub const AFLAG_WRITE: u8 = 0x01;

/// Command codes. aoefs itself moves data with the PIO codes only: no software target knows the DMA codes.
pub mod cmd {
    /// Does nothing, and is always aborted.
    pub const NOP: u8 = 0x00;
    /// DATA SET MANAGEMENT; with [`super::feature::TRIM`] the payload lists ranges ([`crate::wire::trim`]).
    pub const DSM: u8 = 0x06;
    /// READ SECTORS, 28-bit.
    pub const READ: u8 = 0x20;
    /// READ SECTORS EXT, 48-bit.
    pub const READ_EXT: u8 = 0x24;
    /// READ DMA EXT.
    pub const READ_DMA_EXT: u8 = 0x25;
    /// WRITE SECTORS, 28-bit.
    pub const WRITE: u8 = 0x30;
    /// WRITE SECTORS EXT, 48-bit.
    pub const WRITE_EXT: u8 = 0x34;
    /// WRITE DMA EXT.
    pub const WRITE_DMA_EXT: u8 = 0x35;
    /// READ VERIFY SECTORS, 28-bit.
    pub const READ_VERIFY: u8 = 0x40;
    /// READ VERIFY SECTORS EXT, 48-bit.
    pub const READ_VERIFY_EXT: u8 = 0x42;
    /// IDENTIFY PACKET DEVICE.
    pub const IDENTIFY_PACKET: u8 = 0xa1;
    /// SMART; the feature register selects the subcommand ([`super::smart`]).
    pub const SMART: u8 = 0xb0;
    /// READ DMA, 28-bit.
    pub const READ_DMA: u8 = 0xc8;
    /// WRITE DMA, 28-bit.
    pub const WRITE_DMA: u8 = 0xca;
    /// CHECK POWER MODE; the answer is in the count register.
    pub const CHECK_POWER: u8 = 0xe5;
    /// FLUSH CACHE. vblade accepts it and does nothing.
    pub const FLUSH: u8 = 0xe7;
    /// FLUSH CACHE EXT.
    pub const FLUSH_EXT: u8 = 0xea;
    /// IDENTIFY DEVICE ([`crate::wire::Identify`]).
    pub const IDENTIFY: u8 = 0xec;
    /// SET FEATURES; the feature register selects which ([`super::feature`]).
    pub const SET_FEATURES: u8 = 0xef;
}

/// Values of the feature register.
pub mod feature {
    /// With [`super::cmd::DSM`]: the ranges need not be kept.
    pub const TRIM: u8 = 0x01;
    /// With [`super::cmd::SET_FEATURES`]: volatile write cache on.
    pub const WRITE_CACHE_ON: u8 = 0x02;
    /// With [`super::cmd::SET_FEATURES`]: volatile write cache off.
    pub const WRITE_CACHE_OFF: u8 = 0x82;
}

/// SMART: subcommands (feature register), and the signatures that LBA bytes 1 and 2 carry.
pub mod smart {
    /// Read the attributes: one sector of data.
    pub const READ_DATA: u8 = 0xd0;
    /// Read the thresholds of the attributes. Obsolete, but tools still ask for them.
    pub const READ_THRESHOLDS: u8 = 0xd1;
    /// Turn automatic saving of the attributes on or off.
    pub const AUTOSAVE: u8 = 0xd2;
    /// Start the self-test that LBA byte 0 names.
    pub const OFFLINE_IMMEDIATE: u8 = 0xd4;
    /// Read the log that LBA byte 0 names.
    pub const READ_LOG: u8 = 0xd5;
    /// Write the log that LBA byte 0 names.
    pub const WRITE_LOG: u8 = 0xd6;
    /// Turn SMART on.
    pub const ENABLE: u8 = 0xd8;
    /// Turn SMART off.
    pub const DISABLE: u8 = 0xd9;
    /// Ask whether a threshold was exceeded: the signature of the answer says it.
    pub const STATUS: u8 = 0xda;
    /// LBA bytes 1 and 2 of every SMART command, and of the status reply of a healthy disk.
    pub const SIGNATURE: [u8; 2] = [0x4f, 0xc2];
    /// LBA bytes 1 and 2 of the status reply when a threshold was exceeded.
    pub const FAILING: [u8; 2] = [0xf4, 0x2c];
}

/// Bits of the status register.
pub mod status {
    /// The device is busy; nothing else counts.
    pub const BSY: u8 = 0x80;
    /// Ready. Not required of a success: vblade answers FLUSH CACHE with 0.
    pub const DRDY: u8 = 0x40;
    /// Device fault.
    pub const DF: u8 = 0x20;
    /// Wants data.
    pub const DRQ: u8 = 0x08;
    /// Failed; the error register says how.
    pub const ERR: u8 = 0x01;
    /// Any of these and the command did not succeed. The only test for success that every target passes.
    pub const BAD: u8 = BSY | DF | DRQ | ERR;
}

/// Bits of the error register.
pub mod error {
    /// The medium cannot be read there.
    pub const UNC: u8 = 0x40;
    /// No such sector.
    pub const IDNF: u8 = 0x10;
    /// Aborted: the device does not do this.
    pub const ABRT: u8 = 0x04;
}

/// The device register of a 28-bit command that moves no sectors: two bits that old disks want set.
const DEVICE: u8 = 0xa0;

/// The same for sectors: addressed by LBA. The low nibble holds LBA bits 27:24.
const DEVICE_LBA: u8 = DEVICE | 0x40;

mod field {
    use crate::wire::bytes::Field;

    pub(super) const AFLAGS: usize = 0;
    pub(super) const ERROR_FEATURE: usize = 1;
    pub(super) const COUNT: usize = 2;
    pub(super) const COMMAND_STATUS: usize = 3;
    pub(super) const LBA: Field = 4..10;
    pub(super) const RESERVED: Field = 10..12;
}

/// A disk's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ata {
    /// `AFLAG_…`; a response echoes them.
    pub aflags: u8,
    /// The feature register; in a response the error register.
    pub feature: u8,
    /// Sectors to move; in a response those that were not. 0 means none, not 256.
    pub count: u8,
    /// The command register; in a response the status register.
    pub command: u8,
    /// The LBA, lowest byte first. The upper half of byte 3 is the device register of a 28-bit command.
    pub lba: [u8; 6],
}

impl Ata {
    /// Reads the argument of a frame; the second half of the answer is the data, padding included.
    pub fn parse(body: &[u8]) -> Result<(Ata, &[u8]), Malformed> {
        let (arg, data) = body.split_first_chunk::<ATA_LEN>().ok_or(Malformed)?;
        let ata = Ata {
            aflags: arg[field::AFLAGS],
            feature: arg[field::ERROR_FEATURE],
            count: arg[field::COUNT],
            command: arg[field::COMMAND_STATUS],
            lba: array(arg, field::LBA),
        };
        Ok((ata, data))
    }

    /// Writes the first [`ATA_LEN`] bytes of `out`, and panics if it is shorter.
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..ATA_LEN];
        out[field::AFLAGS] = self.aflags;
        out[field::ERROR_FEATURE] = self.feature;
        out[field::COUNT] = self.count;
        out[field::COMMAND_STATUS] = self.command;
        put(out, field::LBA, &self.lba);
        out[field::RESERVED].fill(0);
    }

    /// Read `count` sectors. `at` must fit the width: 48 bits, or 28.
    pub fn read(at: Sector, count: u8, lba48: bool) -> Ata {
        Ata::sectors(if lba48 { cmd::READ_EXT } else { cmd::READ }, 0, at, count, lba48)
    }

    /// Write `count` sectors, which follow the argument. `at` must fit the width: 48 bits, or 28.
    pub fn write(at: Sector, count: u8, lba48: bool) -> Ata {
        Ata::sectors(if lba48 { cmd::WRITE_EXT } else { cmd::WRITE }, AFLAG_WRITE, at, count, lba48)
    }

    fn sectors(command: u8, aflags: u8, at: Sector, count: u8, lba48: bool) -> Ata {
        debug_assert!(at.0 >> if lba48 { 48 } else { 28 } == 0, "sector {at} does not fit");
        let [a, b, c, d, e, f, ..] = at.0.to_le_bytes();
        if lba48 {
            Ata { aflags: aflags | AFLAG_EXT, feature: 0, count, command, lba: [a, b, c, d, e, f] }
        } else {
            Ata { aflags, feature: 0, count, command, lba: [a, b, c, DEVICE_LBA | d & 0x0f, 0, 0] }
        }
    }

    /// A 28-bit command that needs no address.
    fn plain(command: u8) -> Ata {
        Ata { command, lba: [0, 0, 0, DEVICE, 0, 0], ..Ata::default() }
    }

    /// Read the 512 bytes that describe the disk. Count 1: vblade and ggaoed refuse anything else.
    pub fn identify() -> Ata {
        Ata { count: 1, ..Ata::plain(cmd::IDENTIFY) }
    }

    /// Make all data that was written stable. Count 0: most targets answer this form with a full frame.
    pub fn flush(ext: bool) -> Ata {
        if ext {
            Ata { aflags: AFLAG_EXT, command: cmd::FLUSH_EXT, ..Ata::default() }
        } else {
            Ata::plain(cmd::FLUSH)
        }
    }

    /// Whether this is one of the two flushes.
    pub fn is_flush(&self) -> bool {
        matches!(self.command, cmd::FLUSH | cmd::FLUSH_EXT)
    }

    /// Forget the ranges that the following `blocks` × 512 bytes list ([`crate::wire::fill_trim`]).
    pub fn trim(blocks: u8) -> Ata {
        Ata {
            aflags: AFLAG_EXT | AFLAG_WRITE,
            feature: feature::TRIM,
            count: blocks,
            command: cmd::DSM,
            lba: [0; 6],
        }
    }

    /// Ask for the power mode. Count 0: with anything else vblade does not answer at all.
    pub fn check_power() -> Ata {
        Ata::plain(cmd::CHECK_POWER)
    }

    /// A SMART subcommand ([`smart`]); `select` is the test or the log that it names, else 0.
    pub fn smart(subcommand: u8, select: u8) -> Ata {
        let [low, high] = smart::SIGNATURE;
        let (aflags, count) = match subcommand {
            smart::READ_DATA | smart::READ_LOG => (0, 1),
            smart::WRITE_LOG => (AFLAG_WRITE, 1),
            _ => (0, 0),
        };
        Ata {
            aflags,
            feature: subcommand,
            count,
            command: cmd::SMART,
            lba: [select, low, high, DEVICE, 0, 0],
        }
    }

    /// Turn the disk's volatile write cache on or off.
    pub fn write_cache(on: bool) -> Ata {
        let feature = if on { feature::WRITE_CACHE_ON } else { feature::WRITE_CACHE_OFF };
        Ata { feature, ..Ata::plain(cmd::SET_FEATURES) }
    }

    /// Whether these are the registers of a failed command. Ask it of responses without an AoE error only.
    pub fn failed(&self) -> bool {
        self.command & status::BAD != 0
    }

    /// The address as a 28-bit command means it.
    pub fn sector28(&self) -> Sector {
        let [a, b, c, d, ..] = self.lba;
        Sector(u32::from_le_bytes([a, b, c, d & 0x0f]).into())
    }

    /// The address as a 48-bit command means it.
    pub fn sector48(&self) -> Sector {
        let [a, b, c, d, e, f] = self.lba;
        Sector(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_their_bytes() {
        let table: [(Ata, [u8; ATA_LEN]); 14] = [
            (Ata::read(Sector(0x0605_0403_0201), 8, true), [0x40, 0, 8, 0x24, 1, 2, 3, 4, 5, 6, 0, 0]),
            (Ata::read(Sector(0x0a03_0201), 2, false), [0, 0, 2, 0x20, 1, 2, 3, 0xea, 0, 0, 0, 0]),
            (
                Ata::write(Sector(0xffff_ffff_ffff), 255, true),
                [0x41, 0, 255, 0x34, 255, 255, 255, 255, 255, 255, 0, 0],
            ),
            (Ata::write(Sector(0x0fff_ffff), 1, false), [1, 0, 1, 0x30, 255, 255, 255, 0xef, 0, 0, 0, 0]),
            (Ata::identify(), [0, 0, 1, 0xec, 0, 0, 0, 0xa0, 0, 0, 0, 0]),
            (Ata::flush(false), [0, 0, 0, 0xe7, 0, 0, 0, 0xa0, 0, 0, 0, 0]),
            (Ata::flush(true), [0x40, 0, 0, 0xea, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Ata::trim(3), [0x41, 1, 3, 0x06, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Ata::check_power(), [0, 0, 0, 0xe5, 0, 0, 0, 0xa0, 0, 0, 0, 0]),
            (Ata::smart(smart::READ_DATA, 0), [0, 0xd0, 1, 0xb0, 0, 0x4f, 0xc2, 0xa0, 0, 0, 0, 0]),
            (Ata::smart(smart::WRITE_LOG, 9), [1, 0xd6, 1, 0xb0, 9, 0x4f, 0xc2, 0xa0, 0, 0, 0, 0]),
            (Ata::smart(smart::STATUS, 0), [0, 0xda, 0, 0xb0, 0, 0x4f, 0xc2, 0xa0, 0, 0, 0, 0]),
            (Ata::write_cache(true), [0, 0x02, 0, 0xef, 0, 0, 0, 0xa0, 0, 0, 0, 0]),
            (Ata::write_cache(false), [0, 0x82, 0, 0xef, 0, 0, 0, 0xa0, 0, 0, 0, 0]),
        ];
        for (ata, bytes) in table {
            let mut out = [0xa5; ATA_LEN + 1];
            ata.emit(&mut out);
            assert_eq!(out[..ATA_LEN], bytes, "{ata:?}");
            assert_eq!(out[ATA_LEN], 0xa5);
            assert_eq!(Ata::parse(&out), Ok((ata, &[0xa5][..])));
        }
        assert_eq!(Ata::parse(&[0; ATA_LEN - 1]), Err(Malformed));
    }

    #[test]
    fn success_does_not_need_drdy() {
        for (status, failed) in [
            (0, false),
            (0x40, false),
            (0x50, false),
            (0x41, true),
            (0x21, true),
            (0x01, true),
            (0x80, true),
            (0x48, true),
        ] {
            assert_eq!(Ata { command: status, ..Ata::default() }.failed(), failed, "{status:02x}");
        }
    }

    #[test]
    fn addresses_come_back() {
        assert_eq!(Ata::read(Sector(0x0fff_fffe), 1, false).sector28(), Sector(0x0fff_fffe));
        assert_eq!(Ata::read(Sector(0xffff_ffff_fffe), 1, true).sector48(), Sector(0xffff_ffff_fffe));
    }
}
