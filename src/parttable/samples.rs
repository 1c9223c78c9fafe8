//! Disks for the tests: sparse, with tables that a test may spoil before their checksums are made.

use std::collections::BTreeMap;

use super::{HEAD, READ_SECTORS_MAX, READS_MAX, SECTORS_MAX, Scan, Verdict, Want};
use crate::wire::SECTOR;

/// Sectors that nobody wrote are zero.
#[derive(Clone)]
pub(super) struct Disk {
    pub sectors: u64,
    pub written: BTreeMap<u64, [u8; SECTOR]>,
}

impl Disk {
    pub(super) fn new(sectors: u64) -> Disk {
        Disk { sectors, written: BTreeMap::new() }
    }

    /// One sector, to write into.
    pub(super) fn at(&mut self, sector: u64) -> &mut [u8; SECTOR] {
        self.written.entry(sector).or_insert([0; SECTOR])
    }

    /// Writes whole sectors from `at` on; the last one is filled up with zeros.
    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        for (sector, chunk) in (at..).zip(bytes.chunks(SECTOR)) {
            self.at(sector)[..chunk.len()].copy_from_slice(chunk);
        }
    }

    pub(super) fn read(&self, at: u64, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; count as usize * SECTOR];
        for (sector, data) in self.written.range(at..at + count) {
            bytes[(sector - at) as usize * SECTOR..][..SECTOR].copy_from_slice(data);
        }
        bytes
    }

    /// Scans it, and holds the scan to its bounds. Also says how many reads it took.
    pub(super) fn scan_counted(&self) -> (Verdict, usize) {
        let mut scan = Scan::new(self.sectors);
        let (mut reads, mut sectors) = (0, 0);
        loop {
            match scan.want() {
                Want::End(verdict) => return (verdict.clone(), reads),
                Want::Read { at, count } => {
                    assert!(count > 0 && count <= READ_SECTORS_MAX, "{count}");
                    assert!(at.0 < self.sectors && count <= self.sectors - at.0, "{at} + {count}");
                    reads += 1;
                    sectors += count;
                    assert!(reads <= READS_MAX && sectors <= SECTORS_MAX, "{reads} reads, {sectors} sectors");
                    scan.feed(&self.read(at.0, count));
                }
            }
        }
    }

    pub(super) fn scan(&self) -> Verdict {
        self.scan_counted().0
    }

    /// Numbers and ranges of what is found.
    pub(super) fn found(&self) -> Vec<(u32, u64, u64)> {
        match self.scan() {
            Verdict::Found(list) => list.iter().map(|e| (e.number, e.start.0, e.end.0)).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Why it is refused.
    pub(super) fn refused(&self) -> String {
        match self.scan() {
            Verdict::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// An entry of a record: type, start, size.
pub(super) type MbrSlot = (u8, u32, u32);

/// An entry of a GPT: its index, first and last sector, name.
pub(super) type GptSlot = (u32, u64, u64, &'static str);

/// A boot record with these entries.
pub(super) fn record(slots: &[MbrSlot]) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    for (slot, (kind, start, size)) in sector[446..510].chunks_exact_mut(16).zip(slots) {
        slot[4] = *kind;
        slot[8..12].copy_from_slice(&start.to_le_bytes());
        slot[12..].copy_from_slice(&size.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// A disk with these entries in sector 0.
pub(super) fn mbr(sectors: u64, slots: &[MbrSlot]) -> Disk {
    let mut disk = Disk::new(sectors);
    *disk.at(0) = record(slots);
    disk
}

/// A GPT to be: what `write` puts on a disk, twice.
#[derive(Clone)]
pub(super) struct Gpt {
    pub sectors: u64,
    pub usable: (u64, u64),
    pub count: u32,
    pub size: u32,
    /// Where the first array and its copy are.
    pub arrays: (u64, u64),
    pub entries: Vec<GptSlot>,
}

impl Gpt {
    /// As every tool makes it.
    pub(super) fn new(sectors: u64, entries: &[GptSlot]) -> Gpt {
        Gpt {
            sectors,
            usable: (HEAD, sectors.saturating_sub(HEAD)),
            count: 128,
            size: 128,
            arrays: (2, sectors.saturating_sub(33)),
            entries: entries.to_vec(),
        }
    }

    fn array(&self) -> Vec<u8> {
        // A test may claim more than anybody could write.
        let bytes = (u64::from(self.count) * u64::from(self.size)).min(4 << 20) as usize;
        let mut array = vec![0; bytes];
        for (slot, start, end, name) in &self.entries {
            let entry = &mut array[*slot as usize * self.size as usize..][..128];
            entry[..16].copy_from_slice(&LINUX);
            entry[16..20].copy_from_slice(&(slot + 1).to_le_bytes());
            entry[32..40].copy_from_slice(&start.to_le_bytes());
            entry[40..48].copy_from_slice(&end.to_le_bytes());
            for (unit, place) in name.encode_utf16().zip(entry[56..].chunks_exact_mut(2)) {
                place.copy_from_slice(&unit.to_le_bytes());
            }
        }
        array
    }

    fn header(&self, at: u64, alternate: u64, array: u64) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        sector[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
        for (place, value) in
            [(24, at), (32, alternate), (40, self.usable.0), (48, self.usable.1), (56, 0x1234), (72, array)]
        {
            sector[place..place + 8].copy_from_slice(&value.to_le_bytes());
        }
        sector[80..84].copy_from_slice(&self.count.to_le_bytes());
        sector[84..88].copy_from_slice(&self.size.to_le_bytes());
        sector[88..92].copy_from_slice(&crc32fast::hash(&self.array()).to_le_bytes());
        seal(&mut sector);
        sector
    }

    /// A protective MBR and both tables.
    pub(super) fn write(&self) -> Disk {
        let last = self.sectors - 1;
        let mut disk = mbr(self.sectors, &[(0xee, 1, u32::try_from(last).unwrap_or(u32::MAX))]);
        disk.put(self.arrays.0, &self.array());
        disk.put(self.arrays.1, &self.array());
        *disk.at(1) = self.header(1, last, self.arrays.0);
        *disk.at(last) = self.header(last, 1, self.arrays.1);
        disk
    }

    /// The same with one number spoiled in the header at sector `at`, whose checksum is right; the other header is
    /// gone.
    pub(super) fn spoiled(&self, at: u64, place: usize, value: &[u8]) -> Disk {
        let mut disk = self.write();
        let other = if at == 1 { self.sectors - 1 } else { 1 };
        disk.written.remove(&other);
        disk.at(at)[place..place + value.len()].copy_from_slice(value);
        seal(disk.at(at));
        disk
    }
}

/// Makes the header's checksum right.
pub(super) fn seal(sector: &mut [u8; SECTOR]) {
    sector[16..20].fill(0);
    let length = u32::from_le_bytes(sector[12..16].try_into().unwrap()) as usize;
    let crc = crc32fast::hash(&sector[..length.min(SECTOR)]);
    sector[16..20].copy_from_slice(&crc.to_le_bytes());
}

/// The type GUID of a Linux file system, 0FC63DAF-8483-4772-8E79-3D69D8477DE4.
pub(super) const LINUX: [u8; 16] =
    [0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4];
