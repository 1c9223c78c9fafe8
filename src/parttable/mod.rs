//! The partition table of a disk, read without doing any I/O: GPT, or MBR with logical partitions.
//!
//! A [`Scan`] says which sectors it wants next ([`Scan::want`]), is given them ([`Scan::feed`]), and ends with a
//! [`Verdict`]. Its caller decides how sectors are read and how long that may take.
//!
//! The disk is not trusted. The work is bounded whatever the table claims: [`READS_MAX`] reads, of [`READ_SECTORS_MAX`]
//! each and [`SECTORS_MAX`] together, none of them beyond the disk. A table is taken whole or not at all: one partition
//! that is reversed, reaches beyond the disk or shares a sector with another (or with the table itself) makes the
//! verdict [`Verdict::Refused`] with the reason in one line. Numbers are those that Linux gives: the slot of an MBR
//! entry, 5 and up along the chain of logical partitions, the index of a GPT entry plus one. An extended partition
//! keeps its number but is no entry: it holds nothing but the table of the logical ones.
//!
//! Sectors are 512 bytes, as AoE has them; a table written for sectors of 4096 is not found.

use std::fmt;

use crate::wire::{SECTOR, Sector};

mod gpt;
mod mbr;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

/// Sectors of the first read: an MBR, a GPT header and an entry array of the usual 16 KiB lie in them.
const HEAD: u64 = 34;

/// Most sectors of one read: 1 MiB, as in other requests to the engine. It bounds a GPT's entry array.
pub const READ_SECTORS_MAX: u64 = (1 << 20) / SECTOR as u64;

/// Most extended boot records that a chain may have. fdisk makes at most 56 logical partitions, parted 60.
const EBRS_MAX: usize = 128;

/// Most reads of one scan: the head, then a record for each logical partition. (A GPT takes four.)
pub const READS_MAX: usize = 1 + EBRS_MAX;

/// Most sectors that one scan reads: the head, the primary's array, the backup's header and array.
pub const SECTORS_MAX: u64 = HEAD + READ_SECTORS_MAX + gpt::TAIL + READ_SECTORS_MAX;

/// Most partitions of a table. A GPT may have more, but no real table has.
pub const ENTRIES_MAX: usize = 1024;

/// A partition that the table has: sectors `[start, end)`, of which there is at least one, all on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As Linux counts; from 1.
    pub number: u32,
    /// First sector.
    pub start: Sector,
    /// One past the last sector.
    pub end: Sector,
    /// Its purpose, as the table says.
    pub kind: Kind,
    /// Its name in a GPT, made safe to print; an MBR has none.
    pub label: String,
}

impl Entry {
    /// The name of its file: `p1`, `p2`, …
    pub fn name(&self) -> String {
        format!("p{}", self.number)
    }
}

/// `p1: sectors 2048 to 1050624, type 0x83`; for a log.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}: sectors {} to {}, type {}", self.number, self.start, self.end, self.kind)?;
        if self.label.is_empty() { Ok(()) } else { write!(f, ", {}", self.label) }
    }
}

/// The type of a partition. Nothing depends on it: it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The type byte of an MBR entry.
    Mbr(u8),
    /// The type GUID of a GPT entry, in the order of its bytes on the disk.
    Gpt([u8; 16]),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guid = match self {
            Kind::Mbr(kind) => return write!(f, "{kind:#04x}"),
            Kind::Gpt(guid) => guid,
        };
        // The first three groups are numbers, low byte first; the last two are bytes.
        for (n, at) in [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].into_iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&n) { "-" } else { "" };
            write!(f, "{dash}{:02X}", guid[at])?;
        }
        Ok(())
    }
}

/// How a scan ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A sound table with at least one partition; in the order of their numbers, no sector in two of them.
    Found(Vec<Entry>),
    /// No table, or one that is empty.
    Nothing,
    /// There is a table, but it cannot be trusted; one line that says why.
    Refused(String),
}

/// The sectors that a scan needs before it can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want<'a> {
    /// These sectors, all of them on the disk, whole and in one piece, to [`Scan::feed`].
    Read {
        /// The first one.
        at: Sector,
        /// How many; 1 to [`READ_SECTORS_MAX`].
        count: u64,
    },
    /// Nothing: this is the result.
    End(&'a Verdict),
}

/// A scan of one disk.
#[derive(Debug)]
pub struct Scan {
    sectors: u64,
    state: State,
}

/// The role of the sectors that come next.
#[derive(Debug)]
enum State {
    Head,
    PrimaryArray(gpt::Header),
    /// The backup's header is the last of the sectors at `at`; `primary` says what is wrong with the first table.
    Backup {
        at: u64,
        primary: String,
    },
    BackupArray {
        header: gpt::Header,
        primary: String,
    },
    Chain(mbr::Chain),
    End(Verdict),
}

/// A table cannot be used, and why; becomes [`Verdict::Refused`] or, for a GPT, makes the backup be read.
type Reason = String;

impl Scan {
    /// A scan of a disk of so many sectors.
    pub fn new(sectors: u64) -> Scan {
        let state = if sectors == 0 { State::End(Verdict::Nothing) } else { State::Head };
        Scan { sectors, state }
    }

    /// The sectors that it needs now. The same until it is fed.
    pub fn want(&self) -> Want<'_> {
        let (at, count) = match &self.state {
            State::Head => (0, self.sectors.min(HEAD)),
            State::PrimaryArray(header) | State::BackupArray { header, .. } => header.array(),
            State::Backup { at, .. } => gpt::tail(*at),
            State::Chain(chain) => (chain.at(), 1),
            State::End(verdict) => return Want::End(verdict),
        };
        Want::Read { at: Sector(at), count }
    }

    /// Takes the sectors that were wanted. Anything but exactly these ends the scan; after its end nothing is taken.
    pub fn feed(&mut self, data: &[u8]) {
        let (at, count) = match self.want() {
            Want::Read { at, count } => (at, count),
            Want::End(_) => return,
        };
        let state = std::mem::replace(&mut self.state, State::Head);
        let next = if data.len() as u64 == count * SECTOR as u64 {
            self.step(state, data)
        } else {
            Err(format!("{} bytes came for the {count} sectors at {at}", data.len()))
        };
        self.state = next.unwrap_or_else(|reason| State::End(Verdict::Refused(reason)));
    }

    fn step(&self, state: State, data: &[u8]) -> Result<State, Reason> {
        match state {
            State::Head => self.head(data),
            State::PrimaryArray(header) => self.primary_array(&header, data),
            State::Backup { at, primary } => self.backup(at, primary, data),
            State::BackupArray { header, primary } => {
                header.check_array(data).map_err(|backup| neither(&primary, &backup))?;
                found(header.entries(data)?, &[])
            }
            State::Chain(chain) => chain.step(data),
            end @ State::End(_) => Ok(end),
        }
    }

    fn head(&self, data: &[u8]) -> Result<State, Reason> {
        match mbr::read(data, self.sectors)? {
            mbr::Table::None => Ok(State::End(Verdict::Nothing)),
            mbr::Table::Primary(entries) => found(entries, &[]),
            mbr::Table::Extended(chain) => Ok(State::Chain(chain)),
            mbr::Table::Protective => match data.get(SECTOR..2 * SECTOR) {
                None => Err("a protective MBR on a disk of one sector".into()),
                Some(sector) => match gpt::Header::read(sector, gpt::PRIMARY, self.sectors) {
                    Ok(header) => match header.array_in(0, data) {
                        Some(array) => self.primary_array(&header, array),
                        None => Ok(State::PrimaryArray(header)),
                    },
                    Err(primary) => Ok(State::Backup { at: self.sectors - 1, primary }),
                },
            },
        }
    }

    fn primary_array(&self, header: &gpt::Header, data: &[u8]) -> Result<State, Reason> {
        match header.check_array(data) {
            Ok(()) => found(header.entries(data)?, &[]),
            // A header that is sound knows best where the other one is: a disk may have grown behind it.
            Err(primary) => Ok(State::Backup { at: header.alternate(), primary }),
        }
    }

    fn backup(&self, at: u64, primary: String, data: &[u8]) -> Result<State, Reason> {
        let header = gpt::Header::read(&data[data.len() - SECTOR..], at, self.sectors)
            .map_err(|backup| neither(&primary, &backup))?;
        match header.array_in(gpt::tail(at).0, data) {
            Some(array) => self.step(State::BackupArray { header, primary }, array),
            None => Ok(State::BackupArray { header, primary }),
        }
    }
}

fn neither(primary: &str, backup: &str) -> Reason {
    format!("a protective MBR but no sound GPT; primary: {primary}; backup: {backup}")
}

/// The end of a scan whose table has these entries, and these single sectors besides that belong to the table.
fn found(mut entries: Vec<Entry>, records: &[u64]) -> Result<State, Reason> {
    if entries.is_empty() {
        return Ok(State::End(Verdict::Nothing));
    }
    if entries.len() > ENTRIES_MAX {
        return Err(format!("{} partitions; at most {ENTRIES_MAX} are taken", entries.len()));
    }
    let mut ranges: Vec<(u64, u64, String)> =
        entries.iter().map(|e| (e.start.0, e.end.0, e.name())).collect();
    ranges.extend(records.iter().map(|at| (*at, at.saturating_add(1), "the table".to_owned())));
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        let ((_, end, a), (start, _, b)) = (&pair[0], &pair[1]);
        if start < end {
            return Err(format!("{a} and {b} overlap at sector {start}"));
        }
    }
    entries.sort_by_key(|e| e.number);
    Ok(State::End(Verdict::Found(entries)))
}

/// A little-endian number at `at`, which the caller knows to be there.
fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The same of four bytes.
fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from(le16(bytes, at)) | u32::from(le16(bytes, at + 2)) << 16
}

/// The same of eight bytes.
fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}
