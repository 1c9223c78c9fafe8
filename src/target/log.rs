//! A record of everything that changed an image, in the order in which it took effect.
//!
//! A crash test cuts this log at any point, replays the records before the cut into a copy of the image, and checks
//! whether a file system or a database on it is still sound. A record is appended after the image was changed, so the
//! log never holds a write or a flush that failed.

use std::io::{self, Read, Write};

use super::image::{Fault, Image};
use crate::wire::{SECTOR, Sector};

/// One thing that happened to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark<'a> {
    /// Sectors from `at` on now hold `data`.
    Write {
        /// First sector.
        at: Sector,
        /// Whole sectors.
        data: &'a [u8],
    },
    /// `count` sectors from `at` on now read as zeros.
    Trim {
        /// First sector.
        at: Sector,
        /// How many.
        count: u64,
    },
    /// Everything above is durable.
    Flush,
}

/// An image that tells `observer` about every change.
pub struct LoggingImage<I, F> {
    image: I,
    observer: F,
}

impl<I: Image, F: FnMut(Mark<'_>) + Send> LoggingImage<I, F> {
    /// Wraps `image`.
    pub fn new(image: I, observer: F) -> LoggingImage<I, F> {
        LoggingImage { image, observer }
    }
}

impl<I: Image, F: FnMut(Mark<'_>) + Send> Image for LoggingImage<I, F> {
    fn sectors(&self) -> u64 {
        self.image.sectors()
    }

    fn read_only(&self) -> bool {
        self.image.read_only()
    }

    fn read_at(&mut self, at: Sector, into: &mut [u8]) -> Result<(), Fault> {
        self.image.read_at(at, into)
    }

    fn write_at(&mut self, at: Sector, data: &[u8]) -> Result<(), Fault> {
        let done = self.image.write_at(at, data);
        let stored = match &done {
            Ok(()) => data,
            // Sectors before the fault did change.
            Err(fault) => &data[..data.len().min(fault.done as usize * SECTOR)],
        };
        if !stored.is_empty() {
            (self.observer)(Mark::Write { at, data: stored });
        }
        done
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.image.flush()?;
        (self.observer)(Mark::Flush);
        Ok(())
    }

    fn trim(&mut self, at: Sector, count: u64) -> Result<(), Fault> {
        self.image.trim(at, count)?;
        (self.observer)(Mark::Trim { at, count });
        Ok(())
    }

    fn rescan(&mut self) -> io::Result<u64> {
        self.image.rescan()
    }
}

/// A [`Mark`] as [`read_record`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// As [`Mark::Write`].
    Write(Sector, Vec<u8>),
    /// As [`Mark::Trim`].
    Trim(Sector, u64),
    /// As [`Mark::Flush`].
    Flush,
}

/// A record in a file: one byte kind, the sector and the count as little-endian 64-bit numbers, then the data of a
/// write.
const RECORD_HEAD: usize = 17;

/// The most sectors one record may claim: an ATA command moves at most 255, so more means the file is no log.
const RECORD_SECTORS_MAX: u64 = 65_536;

/// Appends `mark` to `out`.
pub fn write_record(out: &mut impl Write, mark: Mark<'_>) -> io::Result<()> {
    let (kind, at, count, data) = match mark {
        Mark::Write { at, data } => (b'W', at.0, (data.len() / SECTOR) as u64, data),
        Mark::Trim { at, count } => (b'T', at.0, count, &[][..]),
        Mark::Flush => (b'F', 0, 0, &[][..]),
    };
    let mut head = [0; RECORD_HEAD];
    head[0] = kind;
    head[1..9].copy_from_slice(&at.to_le_bytes());
    head[9..].copy_from_slice(&count.to_le_bytes());
    out.write_all(&head)?;
    out.write_all(data)
}

/// Reads the next record; `None` at the end, and at a record that was cut short (the writer was killed).
pub fn read_record(from: &mut impl Read) -> io::Result<Option<Record>> {
    let mut head = [0; RECORD_HEAD];
    if !fill(from, &mut head)? {
        return Ok(None);
    }
    let number = |range: std::ops::Range<usize>| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[range]);
        u64::from_le_bytes(bytes)
    };
    let (at, count) = (Sector(number(1..9)), number(9..17));
    match head[0] {
        b'W' if count <= RECORD_SECTORS_MAX => {
            let mut data = vec![0; count as usize * SECTOR];
            Ok(fill(from, &mut data)?.then_some(Record::Write(at, data)))
        }
        b'T' => Ok(Some(Record::Trim(at, count))),
        b'F' => Ok(Some(Record::Flush)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a write log of aoefs-target")),
    }
}

/// False if `from` ended before `into` was full.
fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(into) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::MemoryImage;

    #[test]
    fn the_log_replays_to_the_same_image() {
        let mut bytes = Vec::new();
        let mut image =
            LoggingImage::new(MemoryImage::new(8), |mark| write_record(&mut bytes, mark).unwrap());
        image.write_at(Sector(1), &[1; 2 * SECTOR]).unwrap();
        image.flush().unwrap();
        image.write_at(Sector(2), &[2; SECTOR]).unwrap();
        image.trim(Sector(1), 1).unwrap();
        drop(image);
        let expected = [
            Record::Write(Sector(1), vec![1; 2 * SECTOR]),
            Record::Flush,
            Record::Write(Sector(2), vec![2; SECTOR]),
            Record::Trim(Sector(1), 1),
        ];
        let mut from = &bytes[..];
        for record in &expected {
            assert_eq!(read_record(&mut from).unwrap().as_ref(), Some(record));
        }
        assert_eq!(read_record(&mut from).unwrap(), None);
        // Cut anywhere, the log ends at the last whole record; it is never an error.
        for cut in 0..bytes.len() {
            let mut from = &bytes[..cut];
            let mut seen = 0;
            while let Some(record) = read_record(&mut from).unwrap() {
                assert_eq!(record, expected[seen]);
                seen += 1;
            }
        }
        assert!(read_record(&mut &[0xff; 64][..]).is_err());
    }
}
