//! The MBR: four entries in the first sector, and a chain of sectors with one logical partition each.

use super::{Disk, Entry, Refused, bad, le};

/// Logical partitions at most: a chain that is longer goes nowhere (Linux makes 60 nodes for a disk at most).
const LOGICAL_MAX: usize = 128;

mod field {
    use std::ops::Range;

    pub const ENTRIES: usize = 446;
    pub const ENTRY_LEN: usize = 16;
    pub const SIGNATURE: Range<usize> = 510..512;

    pub const BOOT: usize = 0;
    pub const KIND: usize = 4;
    pub const START: Range<usize> = 8..12;
    pub const COUNT: Range<usize> = 12..16;
}

/// The kind of a partition that stands for a GPT.
const PROTECTIVE: u8 = 0xee;
/// The kinds of a partition that holds a chain: DOS, LBA, Linux.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

#[derive(Clone, Copy)]
struct Slot {
    kind: u8,
    start: u64,
    count: u64,
}

impl Slot {
    fn used(&self) -> bool {
        self.kind != 0 && self.count != 0
    }

    fn extended(&self) -> bool {
        self.used() && EXTENDED.contains(&self.kind)
    }
}

/// The four entries of one sector.
pub(super) struct Table([Slot; 4]);

impl Table {
    /// None if the sector is no partition table: no signature, or a boot flag that is none, as in the first sector of
    /// a FAT file system.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if sector.get(field::SIGNATURE)? != [0x55, 0xaa] {
            return None;
        }
        let mut slots = [Slot { kind: 0, start: 0, count: 0 }; 4];
        for (n, slot) in slots.iter_mut().enumerate() {
            let from = field::ENTRIES + n * field::ENTRY_LEN;
            let entry = sector.get(from..from + field::ENTRY_LEN)?;
            if entry[field::BOOT] & 0x7f != 0 {
                return None;
            }
            *slot = Slot {
                kind: entry[field::KIND],
                start: le(entry, field::START),
                count: le(entry, field::COUNT),
            };
        }
        Some(Self(slots))
    }

    pub(super) fn protects_gpt(&self) -> bool {
        self.0.iter().any(|slot| slot.kind == PROTECTIVE)
    }
}

/// Walks the table and the chain of its extended partition, if it has one.
pub(super) fn scan<E, F>(disk: &mut Disk<F>, table: &Table) -> Result<Vec<Entry>, Refused<E>>
where
    F: FnMut(u64, usize) -> Result<Vec<u8>, E>,
{
    let mut entries = Vec::new();
    let mut chain = None;
    for (n, slot) in table.0.iter().enumerate().filter(|(_, slot)| slot.used()) {
        if !slot.extended() {
            entries.push(Entry { number: n as u32 + 1, start: slot.start, end: slot.start + slot.count });
        } else if chain.replace((slot.start, slot.start + slot.count)).is_some() {
            return Err(bad("two extended partitions"));
        }
    }
    let Some((base, end)) = chain else { return Ok(entries) };
    let (mut at, mut number) = (base, 5);
    for _ in 0..LOGICAL_MAX {
        let sector = disk.sectors(at, 1)?;
        // The chain of an extended partition that was never used is empty.
        let Some(Table(slots)) = Table::parse(&sector) else { return Ok(entries) };
        let logical = slots[..2].iter().find(|slot| slot.used() && !slot.extended());
        if let Some(slot) = logical {
            let (from, to) = (at + slot.start, at + slot.start + slot.count);
            if from <= at || to > end {
                return Err(bad(format!("p{number} is not in the extended partition")));
            }
            entries.push(Entry { number, start: from, end: to });
            number += 1;
        }
        let Some(next) = slots[..2].iter().find(|slot| slot.extended()) else { return Ok(entries) };
        let next = base + next.start;
        // Forward only: a chain that turns back would never end.
        if next <= at || next >= end {
            return Err(bad("the chain of logical partitions goes nowhere"));
        }
        at = next;
    }
    Err(bad(format!("more than {LOGICAL_MAX} logical partitions")))
}
