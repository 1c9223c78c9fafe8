//! Master boot records: four entries in sector 0, and a chain of records in an extended partition.
//!
//! The same sectors count as a table as in Linux (`block/partitions/msdos.c`), and entries get the same numbers; tables
//! from which Linux would silently cut or skip something are refused.

use super::{EBRS_MAX, Entry, Kind, Reason, State, found, le32};
use crate::wire::Sector;

/// Where the four entries are in a record.
const ENTRIES: usize = 446;

/// The mark at the end of a boot record.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// The type of the entry that keeps tools which know no GPT away from the disk.
const PROTECTIVE: u8 = 0xee;

/// The partition table in sector 0.
pub(super) enum Table {
    /// There is none.
    None,
    /// There is a GPT.
    Protective,
    /// Up to four partitions.
    Primary(Vec<Entry>),
    /// Up to three partitions, and a chain of others.
    Extended(Chain),
}

/// One of the four entries of a record.
#[derive(Clone, Copy, Debug)]
struct Slot {
    kind: u8,
    start: u64,
    size: u64,
}

impl Slot {
    fn used(self) -> bool {
        self.size != 0
    }

    /// Whether it holds others: 5, the same with LBA, and the one that only Linux knows.
    fn extended(self) -> bool {
        self.used() && matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn entry(self, number: u32, base: u64) -> Entry {
        let start = Sector(base) + self.start;
        Entry { number, start, end: start + self.size, kind: Kind::Mbr(self.kind), label: String::new() }
    }
}

/// The entries of a record, if it is one.
fn slots(sector: &[u8]) -> Option<[Slot; 4]> {
    let entries = sector.get(ENTRIES..ENTRIES + 64)?;
    (sector.get(510..512)? == SIGNATURE).then(|| {
        [0, 16, 32, 48].map(|at| Slot {
            kind: entries[at + 4],
            start: le32(entries, at + 8).into(),
            size: le32(entries, at + 12).into(),
        })
    })
}

/// Whether sector 0 is that of a volume rather than of a table: it bears the same signature, and code where the entries
/// would be.
fn is_volume(sector: &[u8]) -> bool {
    let named = |at: usize, name: &[u8]| sector[at..].starts_with(name);
    named(3, b"NTFS    ")
        || named(3, b"EXFAT   ")
        || named(54, b"FAT12   ")
        || named(54, b"FAT16   ")
        || named(82, b"FAT32   ")
        || [0, 16, 32, 48].iter().any(|at| !matches!(sector[ENTRIES + at], 0 | 0x80))
}

/// Reads sector 0 of a disk of `sectors`.
pub(super) fn read(sector: &[u8], sectors: u64) -> Result<Table, Reason> {
    let Some(slots) = slots(sector) else { return Ok(Table::None) };
    // A hybrid table has more entries, copies of the GPT's. Tools that make a GPT where a volume was leave the rest of
    // the sector as it was, with the name and the code of the volume.
    if slots.iter().any(|slot| slot.kind == PROTECTIVE && slot.start == 1) {
        return Ok(Table::Protective);
    }
    if is_volume(sector) {
        return Ok(Table::None);
    }
    if let Some(guard) = slots.iter().find(|slot| slot.kind == PROTECTIVE) {
        return Err(format!("the protective entry begins at sector {}, not 1", guard.start));
    }
    let mut entries = Vec::new();
    let mut extended = Vec::new();
    for (number, slot) in (1..).zip(slots) {
        if !slot.used() {
            continue;
        }
        let entry = slot.entry(number, 0);
        if slot.start == 0 {
            return Err(format!("p{number} begins at sector 0, which holds the table"));
        }
        if entry.end.0 > sectors {
            return Err(format!("p{number} ends at sector {}, beyond the disk of {sectors}", entry.end));
        }
        if slot.extended() {
            extended.push(number);
        }
        entries.push(entry);
    }
    // The extended partition takes part in the check for overlaps, and is then left out of the list.
    found(entries.clone(), &[])?;
    let (containers, entries) = entries.into_iter().partition::<Vec<_>, _>(|e| extended.contains(&e.number));
    let mut containers = containers.into_iter().map(|e| (e.start.0, e.end.0));
    match containers.next() {
        None => Ok(Table::Primary(entries)),
        Some((start, end)) => {
            let rest = containers.rev().collect();
            let (records, earlier) = (vec![start], Vec::new());
            Ok(Table::Extended(Chain { start, end, records, rest, earlier, next: 5, entries }))
        }
    }
}

/// The logical partitions: each record has one, and says where the next record is. There may be more than one extended
/// partition; the logical ones of the second count on from those of the first.
#[derive(Debug)]
pub(super) struct Chain {
    /// The extended partition. Links count from its start.
    start: u64,
    end: u64,
    /// Where the records are that were read, and last the one to read. Never empty.
    records: Vec<u64>,
    /// The extended partitions still to be read, the next one last.
    rest: Vec<(u64, u64)>,
    /// Where the records of those before are.
    earlier: Vec<u64>,
    /// The number of the next partition.
    next: u32,
    /// What was found, the primary partitions included.
    entries: Vec<Entry>,
}

impl Chain {
    /// The record to read.
    pub(super) fn at(&self) -> u64 {
        self.records.last().copied().unwrap_or(self.start)
    }

    /// Takes the record.
    pub(super) fn step(mut self, sector: &[u8]) -> Result<State, Reason> {
        let at = self.at();
        let Some(slots) = slots(sector) else {
            // An extended partition that was made and never used has no record at all.
            return if self.records.len() == 1 {
                self.records.clear();
                self.end()
            } else {
                Err(format!("the chain of logical partitions leads to sector {at}, which is no record"))
            };
        };
        for (n, slot) in slots.into_iter().enumerate() {
            if !slot.used() || slot.extended() {
                continue;
            }
            let entry = slot.entry(self.next, at);
            if entry.start.0 >= self.start && entry.end.0 <= self.end {
                self.entries.push(entry);
                self.next += 1;
            } else if n < 2 {
                let Entry { number, start, end, .. } = entry;
                return Err(format!(
                    "p{number}, sectors {start} to {end}, reaches beyond the extended partition"
                ));
            }
            // OS/2 used the last two as well. Elsewhere they may hold anything.
        }
        let Some(link) = slots.into_iter().find(|slot| slot.extended()) else {
            return self.end();
        };
        let next = self.start + link.start;
        if next >= self.end {
            return Err(format!(
                "the chain of logical partitions leads to sector {next}, beyond the extended partition"
            ));
        }
        if self.records.contains(&next) {
            return Err(format!("the chain of logical partitions comes back to sector {next}"));
        }
        if self.earlier.len() + self.records.len() >= EBRS_MAX {
            return Err(format!("the chain of logical partitions has more than {EBRS_MAX} records"));
        }
        self.records.push(next);
        Ok(State::Chain(self))
    }

    /// A chain is at its end: goes on with the next extended partition, or with what was found.
    fn end(mut self) -> Result<State, Reason> {
        self.earlier.append(&mut self.records);
        match self.rest.pop() {
            None => found(self.entries, &self.earlier),
            Some((start, end)) => Ok(State::Chain(Chain { start, end, records: vec![start], ..self })),
        }
    }
}
