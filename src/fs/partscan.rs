//! The partition table of a disk, read and judged: GPT first, then MBR.
//!
//! Pure but for the reading, which the caller does. A table is taken as a whole or not at all: one entry that wraps,
//! lies outside the disk or overlaps another refuses the table, with the reason, since nobody can tell which half of
//! such a table is the lie. Names are the kernel's: p1, p2, … by the place in the table, p5 up for the logical
//! partitions of an MBR.

use std::fmt;

use crate::wire::SECTOR;

mod gpt;
mod mbr;

#[cfg(test)]
mod tests;

/// One partition of a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its number in the table; the name is `p` and this.
    pub number: u32,
    /// First sector.
    pub start: u64,
    /// One past the last sector.
    pub end: u64,
}

/// Why there are no partitions to declare.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused<E> {
    /// No table, or one without partitions.
    Nothing,
    /// There is a table, and it cannot be true.
    Bad(String),
    /// The disk could not be read.
    Read(E),
}

impl<E> fmt::Display for Refused<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no partition table"),
            Self::Bad(why) => f.write_str(why),
            Self::Read(_) => f.write_str("the disk cannot be read"),
        }
    }
}

fn bad<E>(why: impl Into<String>) -> Refused<E> {
    Refused::Bad(why.into())
}

/// The disk as the parsers see it.
struct Disk<F> {
    sectors: u64,
    read: F,
}

impl<E, F: FnMut(u64, usize) -> Result<Vec<u8>, E>> Disk<F> {
    /// Reads whole sectors; none beyond the end of the disk.
    fn sectors(&mut self, at: u64, count: usize) -> Result<Vec<u8>, Refused<E>> {
        let fits = at.checked_add(count as u64).is_some_and(|end| end <= self.sectors);
        if !fits {
            return Err(bad(format!("sector {at} is not on the disk")));
        }
        let bytes = (self.read)(at * SECTOR as u64, count * SECTOR).map_err(Refused::Read)?;
        if bytes.len() == count * SECTOR { Ok(bytes) } else { Err(bad("the disk is shorter than it says")) }
    }
}

/// Reads the table of a disk of `sectors` sectors. `read` gives bytes at an offset; it is called a bounded number of
/// times, for at most 1 MiB each.
pub fn scan<E>(
    sectors: u64,
    read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Vec<Entry>, Refused<E>> {
    let mut disk = Disk { sectors, read };
    if sectors == 0 {
        return Err(Refused::Nothing);
    }
    let first = disk.sectors(0, 1)?;
    let Some(table) = mbr::Table::parse(&first) else { return Err(Refused::Nothing) };
    let mut entries =
        if table.protects_gpt() { gpt::scan(&mut disk)? } else { mbr::scan(&mut disk, &table)? };
    judge(&mut entries, sectors)?;
    Ok(entries)
}

/// The whole table: every range on the disk, none in another.
fn judge<E>(entries: &mut [Entry], sectors: u64) -> Result<(), Refused<E>> {
    if entries.is_empty() {
        return Err(Refused::Nothing);
    }
    for Entry { number, start, end } in entries.iter() {
        if start >= end || *end > sectors {
            return Err(bad(format!("p{number}, sectors {start} to {end}, is not on the disk")));
        }
    }
    entries.sort_by_key(|entry| entry.start);
    for pair in entries.windows(2) {
        if pair[1].start < pair[0].end {
            return Err(bad(format!("p{} and p{} overlap", pair[0].number, pair[1].number)));
        }
    }
    entries.sort_by_key(|entry| entry.number);
    Ok(())
}

/// A little-endian number out of a field; 0 beyond the end, which no caller asks for.
fn le(bytes: &[u8], field: std::ops::Range<usize>) -> u64 {
    bytes.get(field).unwrap_or_default().iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
}
