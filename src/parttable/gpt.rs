//! GUID partition tables: a header, an array of entries, checksums over both.
//!
//! A header is taken only if every number in it makes sense on this disk, so that the array it names can be read and
//! its entries judged without another thought of overflow.

use super::{Entry, Kind, READ_SECTORS_MAX, Reason, le16, le32, le64};
use crate::wire::{SECTOR, Sector};

/// Where the first header is.
pub(super) const PRIMARY: u64 = 1;

/// Sectors read with the backup's header at their end: the usual array lies just before it.
pub(super) const TAIL: u64 = 33;

/// The smallest entry, and the usual one. Larger ones are this times a power of two.
const ENTRY_MIN: u32 = 128;

/// The largest entry that is taken. The standard has no bound, but real entries have the smallest size.
const ENTRY_LARGEST: u32 = 4096;

/// A header that fits the disk.
#[derive(Debug)]
pub(super) struct Header {
    alternate: u64,
    /// First and last sector that a partition may use.
    usable: (u64, u64),
    array: u64,
    /// Entries, and bytes of each.
    count: u32,
    size: u32,
    array_crc: u32,
}

/// Which sectors to read for a backup header at `at`: first and count.
pub(super) fn tail(at: u64) -> (u64, u64) {
    let first = at.saturating_sub(TAIL - 1);
    (first, at - first + 1)
}

impl Header {
    /// Reads the header that `sector`, number `at` of a disk of `sectors`, should be.
    pub(super) fn read(sector: &[u8], at: u64, sectors: u64) -> Result<Header, Reason> {
        if !sector.starts_with(b"EFI PART") {
            return Err(format!("sector {at} is no header"));
        }
        let length = le32(sector, 12) as usize;
        if !(92..=SECTOR).contains(&length) {
            return Err(format!("the header says that it has {length} bytes"));
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&sector[..16]);
        crc.update(&[0; 4]);
        crc.update(&sector[20..length]);
        if crc.finalize() != le32(sector, 16) {
            return Err("the header's checksum is wrong".into());
        }
        let header = Header {
            alternate: le64(sector, 32),
            usable: (le64(sector, 40), le64(sector, 48)),
            array: le64(sector, 72),
            count: le32(sector, 80),
            size: le32(sector, 84),
            array_crc: le32(sector, 88),
        };
        let own = le64(sector, 24);
        if own != at {
            return Err(format!("the header at sector {at} says that it is at {own}"));
        }
        header.check(at, sectors)?;
        Ok(header)
    }

    fn check(&self, own: u64, sectors: u64) -> Result<(), Reason> {
        let Header { alternate, usable: (first, last), array, count, size, .. } = *self;
        if alternate == own
            || alternate == 0
            || alternate >= sectors
            || (own != PRIMARY && alternate != PRIMARY)
        {
            return Err(format!("the other header is said to be at sector {alternate} of {sectors}"));
        }
        if first > last || last >= sectors {
            return Err(format!("sectors {first} to {last} of {sectors} are said to be usable"));
        }
        if size % ENTRY_MIN != 0 || !size.is_power_of_two() || size > ENTRY_LARGEST {
            return Err(format!("entries of {size} bytes"));
        }
        let bytes = u64::from(count) * u64::from(size);
        if count == 0 || bytes > READ_SECTORS_MAX * SECTOR as u64 {
            return Err(format!("{count} entries of {size} bytes"));
        }
        let needed = self.array().1;
        let room = sectors.checked_sub(array).is_some_and(|room| room >= needed);
        let end = array.saturating_add(needed);
        if array <= PRIMARY || !room || (array..end).contains(&own) {
            return Err(format!("the entries are said to be at sectors {array} to {end} of {sectors}"));
        }
        let usable = first..=last;
        if usable.contains(&own) || usable.contains(&alternate) || (array <= last && end > first) {
            return Err(format!("the usable sectors {first} to {last} are said to hold the table itself"));
        }
        Ok(())
    }

    /// Where the other header is.
    pub(super) fn alternate(&self) -> u64 {
        self.alternate
    }

    /// Sectors of the array: first and count.
    pub(super) fn array(&self) -> (u64, u64) {
        (self.array, (self.bytes() as u64).div_ceil(SECTOR as u64))
    }

    fn bytes(&self) -> usize {
        self.count as usize * self.size as usize
    }

    /// The array's sectors, if they are among those of `data`, which begin at sector `first`.
    pub(super) fn array_in<'a>(&self, first: u64, data: &'a [u8]) -> Option<&'a [u8]> {
        let (at, count) = self.array();
        let skip = usize::try_from(at.checked_sub(first)?).ok()?.checked_mul(SECTOR)?;
        data.get(skip..)?.get(..count as usize * SECTOR)
    }

    /// Whether the sectors of [`Header::array`] are the ones that the header was written for.
    pub(super) fn check_array(&self, data: &[u8]) -> Result<(), Reason> {
        if crc32fast::hash(&data[..self.bytes()]) == self.array_crc {
            Ok(())
        } else {
            Err("the checksum of the entries is wrong".into())
        }
    }

    /// The entries in use. Each lies within the usable sectors; the caller checks whether two overlap.
    pub(super) fn entries(&self, data: &[u8]) -> Result<Vec<Entry>, Reason> {
        let (first, last) = self.usable;
        let mut found = Vec::new();
        for (number, entry) in (1..).zip(data[..self.bytes()].chunks_exact(self.size as usize)) {
            let mut kind = [0; 16];
            kind.copy_from_slice(&entry[..16]);
            if kind == [0; 16] {
                continue;
            }
            let (start, end) = (le64(entry, 32), le64(entry, 40));
            if start > end {
                return Err(format!("p{number} begins at sector {start} and ends at {end}"));
            }
            if start < first || end > last {
                return Err(format!(
                    "p{number}, sectors {start} to {end}, is not within the usable ones, {first} to {last}"
                ));
            }
            found.push(Entry {
                number,
                start: Sector(start),
                end: Sector(end) + 1,
                kind: Kind::Gpt(kind),
                label: label(&entry[56..128]),
            });
        }
        Ok(found)
    }
}

/// A name of up to 36 UTF-16 units. It goes to logs, so anything that could be more than a glyph becomes `_`.
fn label(units: &[u8]) -> String {
    let units = units.chunks_exact(2).map(|unit| le16(unit, 0)).take_while(|unit| *unit != 0);
    let fits = |c: &char| c.is_alphanumeric() || c.is_ascii_graphic() || *c == ' ';
    char::decode_utf16(units)
        .map(|c| c.ok().filter(fits).unwrap_or('_'))
        .collect::<String>()
        .trim()
        .to_owned()
}
