//! The back end of a target: a row of 512-byte sectors.
//!
//! A processor asks only for ranges that lie inside [`Image::sectors`]; an image need not check them again. An error is
//! a [`Fault`]: its cause, and how many whole sectors were moved before it, because the ATA reply carries both (the
//! error register, and the count of sectors that remain).

use std::io::{self, IoSlice, IoSliceMut};

use crate::wire::{SECTOR, Sector};

/// Where the sectors of a target live.
pub trait Image: Send {
    /// How many sectors there are.
    fn sectors(&self) -> u64;

    /// True if writes, TRIM and the write part of any other command must be refused.
    fn read_only(&self) -> bool {
        false
    }

    /// Fills `into` (whole sectors) from sector `at` on.
    fn read_at(&mut self, at: Sector, into: &mut [u8]) -> Result<(), Fault>;

    /// Stores `data` (whole sectors) from sector `at` on. It need not be durable before the next [`Image::flush`].
    fn write_at(&mut self, at: Sector, data: &[u8]) -> Result<(), Fault>;

    /// Fills several buffers (whole sectors each) from consecutive sectors. [`Fault::done`] counts over all of them.
    fn read_run(&mut self, at: Sector, into: &mut [IoSliceMut<'_>]) -> Result<(), Fault> {
        read_each(self, at, into)
    }

    /// Stores several pieces (whole sectors each) in consecutive sectors. [`Fault::done`] counts over all of them.
    fn write_run(&mut self, at: Sector, data: &[IoSlice<'_>]) -> Result<(), Fault> {
        write_each(self, at, data)
    }

    /// Makes everything that was written durable.
    fn flush(&mut self) -> Result<(), Fault>;

    /// Discards `count` sectors from `at` on: they read as zeros from now on.
    fn trim(&mut self, at: Sector, count: u64) -> Result<(), Fault>;

    /// Finds out the size again, for images that can grow or shrink while they are served, and returns it.
    fn rescan(&mut self) -> io::Result<u64> {
        Ok(self.sectors())
    }
}

/// [`Image::read_run`] as one read after the other.
pub(super) fn read_each<I: Image + ?Sized>(
    image: &mut I,
    at: Sector,
    into: &mut [IoSliceMut<'_>],
) -> Result<(), Fault> {
    let mut done = 0;
    for part in into {
        image.read_at(at + done, part).map_err(|fault| Fault { done: fault.done + done, ..fault })?;
        done += (part.len() / SECTOR) as u64;
    }
    Ok(())
}

/// [`Image::write_run`] as one write after the other.
pub(super) fn write_each<I: Image + ?Sized>(
    image: &mut I,
    at: Sector,
    data: &[IoSlice<'_>],
) -> Result<(), Fault> {
    let mut done = 0;
    for part in data {
        image.write_at(at + done, part).map_err(|fault| Fault { done: fault.done + done, ..fault })?;
        done += (part.len() / SECTOR) as u64;
    }
    Ok(())
}

impl<I: Image + ?Sized> Image for Box<I> {
    fn sectors(&self) -> u64 {
        (**self).sectors()
    }
    fn read_only(&self) -> bool {
        (**self).read_only()
    }
    fn read_at(&mut self, at: Sector, into: &mut [u8]) -> Result<(), Fault> {
        (**self).read_at(at, into)
    }
    fn write_at(&mut self, at: Sector, data: &[u8]) -> Result<(), Fault> {
        (**self).write_at(at, data)
    }
    fn read_run(&mut self, at: Sector, into: &mut [IoSliceMut<'_>]) -> Result<(), Fault> {
        (**self).read_run(at, into)
    }
    fn write_run(&mut self, at: Sector, data: &[IoSlice<'_>]) -> Result<(), Fault> {
        (**self).write_run(at, data)
    }
    fn flush(&mut self) -> Result<(), Fault> {
        (**self).flush()
    }
    fn trim(&mut self, at: Sector, count: u64) -> Result<(), Fault> {
        (**self).trim(at, count)
    }
    fn rescan(&mut self) -> io::Result<u64> {
        (**self).rescan()
    }
}

/// Why a call to an image failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The cause, for the initiator.
    pub cause: Cause,
    /// Whole sectors moved before the fault.
    pub done: u64,
}

/// The kinds of failure that an initiator can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The data could not be read or stored: UNC in the error register.
    Medium,
    /// The sectors are not there (any more): IDNF.
    Missing,
    /// The back end refuses: no space, read-only, not supported: ABRT.
    Refused,
}

impl Cause {
    /// A fault of this cause before anything was moved.
    pub fn at_once(self) -> Fault {
        Fault { cause: self, done: 0 }
    }
}

impl From<&io::Error> for Cause {
    fn from(error: &io::Error) -> Cause {
        match error.raw_os_error() {
            // Errors of a file system or a block device whose medium failed.
            Some(
                libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EREMOTEIO | libc::ETIMEDOUT | libc::ENOLINK,
            ) => Cause::Medium,
            Some(_) => Cause::Refused,
            None => Cause::Medium,
        }
    }
}

impl Fault {
    /// The fault that an I/O error means after `bytes` were moved.
    pub fn from_io(error: &io::Error, bytes: usize) -> Fault {
        Fault { cause: error.into(), done: (bytes / SECTOR) as u64 }
    }
}
