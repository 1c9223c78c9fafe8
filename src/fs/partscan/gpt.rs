//! The GUID partition table: a header and an array of entries, each under a CRC, twice on the disk.

use super::{Disk, Entry, Refused, bad, le};
use crate::wire::SECTOR;

/// Bytes of a table's entries at most: far above the usual 16 KiB, and still one read.
const ARRAY_MAX: u64 = 1 << 20;
/// Bytes of one entry at least, and what its length is a multiple of.
const ENTRY_MIN: u64 = 128;

mod field {
    use std::ops::Range;

    pub const SIGNATURE: Range<usize> = 0..8;
    pub const HEADER_LEN: Range<usize> = 12..16;
    pub const HEADER_CRC: Range<usize> = 16..20;
    pub const MY_LBA: Range<usize> = 24..32;
    pub const FIRST_USABLE: Range<usize> = 40..48;
    pub const LAST_USABLE: Range<usize> = 48..56;
    pub const ARRAY_LBA: Range<usize> = 72..80;
    pub const COUNT: Range<usize> = 80..84;
    pub const ENTRY_LEN: Range<usize> = 84..88;
    pub const ARRAY_CRC: Range<usize> = 88..92;
    /// The least that a header has.
    pub const LEN: u64 = 92;

    pub const KIND: Range<usize> = 0..16;
    pub const START: Range<usize> = 32..40;
    pub const LAST: Range<usize> = 40..48;
}

/// The table at the front, or that at the back if the first one is broken.
pub(super) fn scan<E, F>(disk: &mut Disk<F>) -> Result<Vec<Entry>, Refused<E>>
where
    F: FnMut(u64, usize) -> Result<Vec<u8>, E>,
{
    match table(disk, 1) {
        Err(Refused::Bad(front)) => match table(disk, disk.sectors.saturating_sub(1)) {
            Err(Refused::Bad(back)) => Err(bad(format!("GPT: {front}; the copy at the end: {back}"))),
            other => other,
        },
        other => other,
    }
}

fn table<E, F>(disk: &mut Disk<F>, lba: u64) -> Result<Vec<Entry>, Refused<E>>
where
    F: FnMut(u64, usize) -> Result<Vec<u8>, E>,
{
    let header = disk.sectors(lba, 1)?;
    if header[field::SIGNATURE] != *b"EFI PART" {
        return Err(bad("no header"));
    }
    let len = le(&header, field::HEADER_LEN);
    if !(field::LEN..=SECTOR as u64).contains(&len) {
        return Err(bad(format!("a header of {len} bytes")));
    }
    let mut covered = header[..len as usize].to_vec();
    covered[field::HEADER_CRC].fill(0);
    if u64::from(crc32(&covered)) != le(&header, field::HEADER_CRC) {
        return Err(bad("the header's CRC is wrong"));
    }
    if le(&header, field::MY_LBA) != lba {
        return Err(bad("the header belongs elsewhere"));
    }
    let (count, each) = (le(&header, field::COUNT), le(&header, field::ENTRY_LEN));
    // Both are 32 bits wide: the product cannot wrap.
    if each < ENTRY_MIN || !each.is_multiple_of(ENTRY_MIN) || count * each > ARRAY_MAX {
        return Err(bad(format!("{count} entries of {each} bytes")));
    }
    let bytes = count * each;
    let array = disk.sectors(le(&header, field::ARRAY_LBA), bytes.div_ceil(SECTOR as u64) as usize)?;
    let array = &array[..bytes as usize];
    if u64::from(crc32(array)) != le(&header, field::ARRAY_CRC) {
        return Err(bad("the CRC of the entries is wrong"));
    }
    let (first, last) = (le(&header, field::FIRST_USABLE), le(&header, field::LAST_USABLE));
    if last >= disk.sectors || first > last {
        return Err(bad(format!("sectors {first} to {last} are not on the disk")));
    }
    let mut entries = Vec::new();
    for (n, entry) in array.chunks_exact(each as usize).enumerate() {
        if entry[field::KIND] == [0; 16] {
            continue;
        }
        let (start, end) = (le(entry, field::START), le(entry, field::LAST));
        if start < first || end > last || start > end {
            return Err(bad(format!("p{}, sectors {start} to {end}, is not where partitions can be", n + 1)));
        }
        entries.push(Entry { number: n as u32 + 1, start, end: end + 1 });
    }
    Ok(entries)
}

/// CRC-32 as IEEE 802.3 and UEFI have it. A scan covers some 17 KiB: no table is worth it.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    const REVERSED: u32 = 0xedb8_8320;
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ REVERSED } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}
