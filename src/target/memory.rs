//! An image in memory: the disk of `aoefs --demo` and of the tests.
//!
//! It is sparse: a piece that was never written, or that was discarded as a whole, takes no memory. So a demo of a
//! terabyte takes as much memory as is written to it.

use std::collections::HashMap;

use super::image::{Cause, Fault, Image};
use crate::wire::{SECTOR, Sector};

/// Bytes in a piece: the unit of allocation. Large enough that the map stays small, small enough that scattered writes
/// (a file system's metadata) do not fill memory.
const PIECE: usize = 64 * 1024;

/// An image in memory. Sectors that were never written read as zeros.
#[derive(Default)]
pub struct MemoryImage {
    sectors: u64,
    read_only: bool,
    pieces: HashMap<u64, Box<[u8]>>,
}

impl MemoryImage {
    /// An image of `sectors` sectors, all zero.
    pub fn new(sectors: u64) -> MemoryImage {
        MemoryImage { sectors, ..MemoryImage::default() }
    }

    /// An image that holds `bytes`; a last partial sector is filled up with zeros.
    pub fn from_bytes(bytes: &[u8]) -> MemoryImage {
        let mut image = MemoryImage::new(bytes.len().div_ceil(SECTOR) as u64);
        image.store(0, bytes);
        image
    }

    /// The same image, refusing writes.
    pub fn into_read_only(self) -> MemoryImage {
        MemoryImage { read_only: true, ..self }
    }

    /// Changes the size; the data beyond a smaller one are gone.
    pub fn resize(&mut self, sectors: u64) {
        if sectors < self.sectors {
            let cut = sectors * SECTOR as u64;
            let end = self.sectors * SECTOR as u64;
            self.clear(cut, end - cut);
        }
        self.sectors = sectors;
    }

    fn load(&self, offset: u64, mut into: &mut [u8]) {
        let mut offset = offset;
        while !into.is_empty() {
            let (piece, from, len) = piece_of(offset, into.len() as u64);
            let (now, rest) = into.split_at_mut(len);
            match self.pieces.get(&piece) {
                Some(bytes) => now.copy_from_slice(&bytes[from..from + len]),
                None => now.fill(0),
            }
            into = rest;
            offset += len as u64;
        }
    }

    fn store(&mut self, offset: u64, mut data: &[u8]) {
        let mut offset = offset;
        while !data.is_empty() {
            let (piece, from, len) = piece_of(offset, data.len() as u64);
            let (now, rest) = data.split_at(len);
            let bytes = self.pieces.entry(piece).or_insert_with(|| vec![0; PIECE].into_boxed_slice());
            bytes[from..from + len].copy_from_slice(now);
            data = rest;
            offset += len as u64;
        }
    }

    fn clear(&mut self, offset: u64, len: u64) {
        let (first, last) = (offset / PIECE as u64, (offset + len).div_ceil(PIECE as u64));
        // A discard of the whole disk names more pieces than exist: walk whichever is fewer.
        if last - first > self.pieces.len() as u64 {
            let keys: Vec<u64> =
                self.pieces.keys().copied().filter(|piece| (first..last).contains(piece)).collect();
            for piece in keys {
                self.clear_in(piece, offset, len);
            }
        } else {
            for piece in first..last {
                self.clear_in(piece, offset, len);
            }
        }
    }

    fn clear_in(&mut self, piece: u64, offset: u64, len: u64) {
        let base = piece * PIECE as u64;
        let from = offset.max(base) - base;
        let to = (offset + len).min(base + PIECE as u64) - base;
        if from == 0 && to == PIECE as u64 {
            self.pieces.remove(&piece);
        } else if let Some(bytes) = self.pieces.get_mut(&piece) {
            bytes[from as usize..to as usize].fill(0);
        }
    }
}

/// The piece that holds byte `offset`, where in it, and how many of `left` bytes lie in it.
fn piece_of(offset: u64, left: u64) -> (u64, usize, usize) {
    let from = (offset % PIECE as u64) as usize;
    (offset / PIECE as u64, from, left.min((PIECE - from) as u64) as usize)
}

impl Image for MemoryImage {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, at: Sector, into: &mut [u8]) -> Result<(), Fault> {
        self.load(at.0 * SECTOR as u64, into);
        Ok(())
    }

    fn write_at(&mut self, at: Sector, data: &[u8]) -> Result<(), Fault> {
        if self.read_only {
            return Err(Cause::Refused.at_once());
        }
        self.store(at.0 * SECTOR as u64, data);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    fn trim(&mut self, at: Sector, count: u64) -> Result<(), Fault> {
        if self.read_only {
            return Err(Cause::Refused.at_once());
        }
        self.clear(at.0 * SECTOR as u64, count * SECTOR as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_terabyte_costs_what_is_written() {
        let mut image = MemoryImage::new(1 << 31);
        image.write_at(Sector((1 << 31) - 1), &[7; SECTOR]).unwrap();
        assert_eq!(image.pieces.len(), 1);
        let mut back = [1; 2 * SECTOR];
        image.read_at(Sector((1 << 31) - 2), &mut back).unwrap();
        assert_eq!((back[0], back[SECTOR]), (0, 7));
        image.trim(Sector(0), 1 << 31).unwrap();
        assert_eq!(image.pieces.len(), 0);
    }

    #[test]
    fn shrinking_forgets_and_growing_shows_zeros() {
        let mut image = MemoryImage::from_bytes(&[9; 3 * SECTOR + 1]);
        assert_eq!(image.sectors(), 4);
        image.resize(1);
        image.resize(4);
        let mut back = [1; 4 * SECTOR];
        image.read_at(Sector(0), &mut back).unwrap();
        assert!(back[..SECTOR].iter().all(|b| *b == 9) && back[SECTOR..].iter().all(|b| *b == 0));
    }

    proptest! {
        #[test]
        fn behaves_as_a_vec(ops in proptest::collection::vec((0u8..3, 0u64..600, 1u64..300, any::<u8>()), 1..60)) {
            const SECTORS: u64 = 700;
            let mut image = MemoryImage::new(SECTORS);
            let mut model = vec![0u8; SECTORS as usize * SECTOR];
            for (op, at, count, fill) in ops {
                let count = count.min(SECTORS - at);
                let range = at as usize * SECTOR..(at + count) as usize * SECTOR;
                match op {
                    0 => { image.write_at(Sector(at), &vec![fill; range.len()]).unwrap(); model[range].fill(fill); }
                    1 => { image.trim(Sector(at), count).unwrap(); model[range].fill(0); }
                    _ => { let mut got = vec![0xa5; range.len()]; image.read_at(Sector(at), &mut got).unwrap();
                           prop_assert_eq!(&got[..], &model[range]); }
                }
            }
        }
    }
}
