//! Bytes and their meaning: every AoE frame, both directions. No state, no I/O, no allocation, no panic.
//!
//! One file a format, each in the same order: a private `mod field` that is the only place where offsets occur, the
//! plain struct that holds what the bytes mean, `parse` and `emit`. A parser takes any bytes and answers with a value
//! or with [`Malformed`]; it never panics, and it never reads beyond the length that it checked. Opcodes that are not
//! defined are values (`Other`), not errors: the receiver decides. Reserved fields are ignored when read and zero when
//! written.
//!
//! An emitter writes into a buffer that its caller sized; it panics only when that buffer is shorter than its
//! documentation says, and it writes every byte that it owns, so that a reused buffer never leaks its old bytes.
//!
//! Headers are big-endian; the six LBA bytes of an ATA argument and everything inside IDENTIFY and TRIM data are
//! little-endian.

mod bytes;

pub mod ata;
pub mod config;
pub mod effect;
pub mod header;
pub mod identify;
pub mod mask;
pub mod reserve;
pub mod trim;
pub mod units;

use core::fmt;

pub use ata::{
    AFLAG_DEVICE, AFLAG_EXT, AFLAG_WRITE, ATA_LEN, Ata, DATA_OFFSET, cmd, error, feature, smart, status,
};
pub use config::{BUFFERS_MAX, CONFIG_LEN, CONFIG_MAX, Config, Verb, most_sectors};
pub use effect::{Effect, Move, is_extended};
pub use header::{Command, ETHERNET, HEADER_LEN, Header, Refusal};
pub use identify::{FlushKind, IDENTIFY_LEN, Identify, SECTORS_28, SECTORS_48, Text, Unusable};
pub use mask::{DIRECTIVE_LEN, Directive, Directives, MASK_LEN, Mask, MaskError, MaskOp, MaskVerb};
pub use reserve::{Macs, RESERVE_LEN, Reserve, ReserveVerb};
pub use trim::{TRIM_BLOCK_SECTORS, TRIM_ENTRY_LEN, TRIM_ENTRY_MAX, TrimRange, fill_trim, trim_ranges};
pub use units::{Addr, BadNumber, Mac, SECTOR, Sector, Shelf, Slot, Tag, number};

/// The Ethernet type of every AoE frame.
pub const ETHERTYPE: u16 = 0x88a2;

/// The shortest frame that Ethernet carries, in bytes without the checksum. Each frame that is sent is padded to it
/// with zeros, since some targets drop shorter ones; received frames may be shorter, since veth and loopback do not
/// pad.
pub const MIN_FRAME: usize = 60;

/// The protocol version of every request; that of a response is not checked (vblade announces with 0).
pub const VERSION: u8 = 1;

/// The bytes (or the text) do not have the form that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed")
    }
}

impl core::error::Error for Malformed {}

/// How many sectors one frame carries on an interface of this MTU (in Linux's sense: without the Ethernet header); 0 if
/// none fits.
///
/// [`DATA_OFFSET`] counts the Ethernet header although the MTU does not: vblade, ggaoed and the kernel compute it so,
/// and kvblade drops longer frames. The result is a number of [`whole_blocks`].
pub fn sectors_per_frame(mtu: usize) -> u8 {
    whole_blocks((mtu.saturating_sub(DATA_OFFSET) / SECTOR).min(u8::MAX as usize) as u8)
}

/// How many of so many sectors a frame should carry: a multiple of 8, so that no frame contains parts of a 4 KiB block
/// of the target. With less than 8 sectors no block is whole anyway; from 64 sectors on, fewer frames are worth more.
pub fn whole_blocks(sectors: u8) -> u8 {
    match sectors {
        8..64 => sectors & !7,
        _ => sectors,
    }
}

/// The next smaller size of a frame, in sectors: halves, in steps of 8 sectors while there are that many, and never
/// below one.
pub fn below(size: u8) -> u8 {
    match size {
        16.. => (size / 2) & !7,
        9..16 => 8,
        5..9 => 4,
        3..5 => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_follow_the_mtu() {
        let table = [
            (0, 0),
            (36, 0),
            (547, 0),
            (548, 1),
            (1500, 2),
            (4118, 7),
            (4132, 8),
            (8228, 16),
            (9000, 16),
            (9216, 16),
            (32_768, 56),
            (32_804, 64),
            (65_535, 127),
            (65_536, 127),
            (131_000, 255),
            (usize::MAX, 255),
        ];
        for (mtu, sectors) in table {
            assert_eq!(sectors_per_frame(mtu), sectors, "mtu {mtu}");
        }
    }

    #[test]
    fn every_step_is_smaller_and_ends_at_one() {
        for size in 2..=255 {
            assert!(below(size) < size && below(size) >= 1);
        }
    }
}
