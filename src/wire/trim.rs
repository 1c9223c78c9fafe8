//! The payload of a TRIM: blocks of 512 bytes, each 64 entries of a range that need not be kept.

use super::bytes::{array, put};
use super::{SECTOR, Sector};

/// Bytes of one entry.
pub const TRIM_ENTRY_LEN: usize = 8;

/// The most sectors that one entry names: its length has 16 bits.
pub const TRIM_ENTRY_MAX: u64 = u16::MAX as u64;

/// The most sectors that one block of entries names.
pub const TRIM_BLOCK_SECTORS: u64 = (SECTOR / TRIM_ENTRY_LEN) as u64 * TRIM_ENTRY_MAX;

mod field {
    use crate::wire::bytes::Field;

    pub(super) const LBA: Field = 0..6;
    pub(super) const COUNT: Field = 6..8;
}

/// One entry. Unused entries have the count 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrimRange {
    /// The first sector, 48 bits.
    pub at: Sector,
    /// How many sectors.
    pub count: u16,
}

/// The ranges that a payload lists; unused entries and a torn one at the end are skipped.
pub fn trim_ranges(data: &[u8]) -> impl Iterator<Item = TrimRange> + '_ {
    data.chunks_exact(TRIM_ENTRY_LEN)
        .map(|entry| {
            let [a, b, c, d, e, f] = array(entry, field::LBA);
            let at = Sector(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
            TrimRange { at, count: u16::from_le_bytes(array(entry, field::COUNT)) }
        })
        .filter(|range| range.count != 0)
}

/// Fills `out` with entries for the `count` sectors from `at` on, and zeros behind them. Returns how many sectors found
/// room.
///
/// `out` is a whole number of blocks, so that every byte of it belongs to an entry. The range must end within 48 bits.
pub fn fill_trim(at: Sector, count: u64, out: &mut [u8]) -> u64 {
    debug_assert!(out.len().is_multiple_of(SECTOR), "not whole blocks: {}", out.len());
    let mut done = 0;
    out.fill(0);
    for entry in out.chunks_exact_mut(TRIM_ENTRY_LEN) {
        if done == count {
            break;
        }
        let now = (count - done).min(TRIM_ENTRY_MAX);
        let [a, b, c, d, e, f, ..] = (at + done).0.to_le_bytes();
        put(entry, field::LBA, &[a, b, c, d, e, f]);
        put(entry, field::COUNT, &(now as u16).to_le_bytes());
        done += now;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_range_is_cut_into_entries() {
        let mut out = [0xa5; SECTOR];
        assert_eq!(fill_trim(Sector(0x1_0000_0001), 65535 + 2, &mut out), 65537);
        assert_eq!(out[..8], [1, 0, 0, 0, 1, 0, 0xff, 0xff]);
        assert_eq!(out[8..16], [0, 0, 1, 0, 1, 0, 2, 0]);
        assert!(out[16..].iter().all(|byte| *byte == 0));
        assert!(trim_ranges(&out).eq([
            TrimRange { at: Sector(0x1_0000_0001), count: 65535 },
            TrimRange { at: Sector(0x1_0001_0000), count: 2 },
        ]));
    }

    #[test]
    fn what_finds_no_room_is_said() {
        let mut out = [0; 2 * SECTOR];
        assert_eq!(fill_trim(Sector(0), u64::MAX, &mut out), 2 * TRIM_BLOCK_SECTORS);
        assert_eq!(
            trim_ranges(&out).map(|range| u64::from(range.count)).sum::<u64>(),
            2 * TRIM_BLOCK_SECTORS
        );
        assert_eq!(fill_trim(Sector(7), 3, &mut []), 0);
    }

    #[test]
    fn unused_and_torn_entries_are_skipped() {
        let data = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 9, 0, 3, 0, 0, 0, 0, 0, 1];
        assert!(trim_ranges(&data).eq([TrimRange { at: Sector(2), count: 9 }]));
    }
}
