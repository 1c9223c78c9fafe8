//! The ATA commands, as a disk executes them on its registers.
//!
//! A command that the disk does not know, or does not want, is aborted: a normal AoE reply whose status says ERR. A
//! request that is refused on the AoE level (a count of 0, or more than a frame carries) leaves the registers as they
//! came.

use super::image::{Cause, Fault, Image};
use super::processor::Processor;
use super::smart::SMART_LEN;
use crate::wire::{
    Ata, FlushKind, IDENTIFY_LEN, Identify, Refusal, SECTOR, SECTORS_28, SECTORS_48, Sector, cmd, error,
    feature, smart, status, trim_ranges,
};

/// Blocks of entries that one TRIM may carry: as many sectors as a 4 KiB frame has. The frame may allow fewer.
const TRIM_BLOCKS_MAX: u16 = 8;

/// CHECK POWER MODE: active or idle.
const POWER_ACTIVE: u8 = 0xff;

/// IDENTIFY: nothing rotates.
const ROTATION_NONE: u16 = 1;

impl<I: Image> Processor<I> {
    /// Executes the command in the registers and leaves the result in them; returns how many bytes of data it put into
    /// `into`.
    pub(super) fn execute(
        &mut self,
        registers: &mut Ata,
        data: &[u8],
        sectors_max: u8,
        into: &mut [u8],
    ) -> Result<usize, Refusal> {
        let done = match registers.command {
            cmd::READ | cmd::READ_EXT => self.read(registers.address(), registers.count, sectors_max, into),
            cmd::WRITE | cmd::WRITE_EXT => {
                self.write(registers.address(), registers.count, sectors_max, data)
            }
            cmd::IDENTIFY => self.identify(registers.count, into),
            cmd::FLUSH | cmd::FLUSH_EXT => self.flush_cache(),
            cmd::DSM => self.discard(registers, sectors_max, data),
            cmd::CHECK_POWER => Ok(Done { count: POWER_ACTIVE, ..Done::default() }),
            cmd::SMART => self.smart(registers, into),
            cmd::SET_FEATURES => self.set_features(registers.feature),
            _ => Err(End::ABORT),
        };
        match done {
            Ok(done) => {
                registers.feature = 0;
                registers.command = status::DRDY;
                registers.count = done.count;
                if let Some([low, high]) = done.key {
                    registers.lba[1] = low;
                    registers.lba[2] = high;
                }
                Ok(done.bytes)
            }
            Err(End::Refused(refusal)) => Err(refusal),
            Err(End::Failed { status, error, done }) => {
                self.counters.failed += 1;
                registers.feature = error;
                registers.command = status;
                registers.count -= done.min(registers.count.into()) as u8;
                if done > 0 {
                    advance(registers, done);
                }
                Ok(0)
            }
        }
    }

    /// The size as the commands can address it.
    fn sectors(&self) -> u64 {
        self.image.sectors().min(SECTORS_48)
    }

    pub(super) fn has(&self, at: Sector, count: u64) -> bool {
        count <= self.sectors() && at.0 <= self.sectors() - count
    }

    fn read(&mut self, at: Sector, count: u8, most: u8, into: &mut [u8]) -> Result<Done, End> {
        let into = bytes(count, most).and_then(|len| into.get_mut(..len)).ok_or(End::BAD_ARGUMENT)?;
        if !self.has(at, count.into()) {
            return Err(End::NOT_FOUND);
        }
        if let Err(fault) = self.image.read_at(at, into) {
            self.counters.failed_reads += 1;
            return Err(End::from_fault(fault, 0));
        }
        self.counters.sectors_read += u64::from(count);
        Ok(Done { bytes: into.len(), ..Done::default() })
    }

    fn write(&mut self, at: Sector, count: u8, most: u8, data: &[u8]) -> Result<Done, End> {
        let data = bytes(count, most).and_then(|len| data.get(..len)).ok_or(End::BAD_ARGUMENT)?;
        if self.image.read_only() {
            return Err(End::ABORT);
        }
        if !self.has(at, count.into()) {
            return Err(End::NOT_FOUND);
        }
        let stored = self.image.write_at(at, data).and_then(|()| self.settle());
        if let Err(fault) = stored {
            self.counters.failed_writes += 1;
            return Err(End::from_fault(fault, status::DF));
        }
        self.counters.sectors_written += u64::from(count);
        Ok(Done::default())
    }

    /// With the write cache off, a write is durable before it is answered.
    pub(super) fn settle(&mut self) -> Result<(), Fault> {
        if self.config.write_cache && !self.cache_on { self.flush() } else { Ok(()) }
    }

    fn flush_cache(&mut self) -> Result<Done, End> {
        match self.flush() {
            Ok(()) => {
                self.counters.flushes += 1;
                Ok(Done::default())
            }
            Err(_) => {
                self.counters.failed_writes += 1;
                // Never an abort: that would mean that there is no such command, and the initiator would not flush
                // again.
                Err(End::Failed {
                    status: status::DRDY | status::DF | status::ERR,
                    error: error::UNC,
                    done: 0,
                })
            }
        }
    }

    fn identify(&mut self, count: u8, into: &mut [u8]) -> Result<Done, End> {
        let into = into.first_chunk_mut::<IDENTIFY_LEN>().filter(|_| count == 1).ok_or(End::BAD_ARGUMENT)?;
        let writable = !self.image.read_only();
        let identify = Identify {
            serial: self.config.serial,
            model: self.config.model,
            firmware: self.config.revision,
            sectors: self.sectors(),
            lba48: true,
            flush: FlushKind::FlushExt,
            trim: writable,
            trim_zeroes: writable,
            max_trim_blocks: TRIM_BLOCKS_MAX,
            smart: true,
            write_cache: self.cache_on,
            physical_log2: 0,
            rotation: ROTATION_NONE,
        };
        identify.emit(into);
        Ok(Done { bytes: IDENTIFY_LEN, ..Done::default() })
    }

    fn discard(&mut self, registers: &Ata, most: u8, data: &[u8]) -> Result<Done, End> {
        if registers.feature != feature::TRIM || self.image.read_only() {
            return Err(End::ABORT);
        }
        let most = most.min(TRIM_BLOCKS_MAX as u8);
        let list = bytes(registers.count, most).and_then(|len| data.get(..len)).ok_or(End::BAD_ARGUMENT)?;
        // All or nothing: a list with one bad range discards none.
        if !trim_ranges(list).all(|range| self.has(range.at, range.count.into())) {
            return Err(End::NOT_FOUND);
        }
        for range in trim_ranges(list) {
            if let Err(fault) = self.image.trim(range.at, range.count.into()) {
                self.counters.failed_writes += 1;
                return Err(End::from_fault(Fault { done: 0, ..fault }, status::DF));
            }
            self.counters.sectors_trimmed += u64::from(range.count);
        }
        if self.settle().is_err() {
            self.counters.failed_writes += 1;
            return Err(End::from_fault(Cause::Medium.at_once(), status::DF));
        }
        Ok(Done::default())
    }

    fn smart(&mut self, registers: &Ata, into: &mut [u8]) -> Result<Done, End> {
        let [_, low, high, ..] = registers.lba;
        if [low, high] != smart::SIGNATURE || (!self.smart_on && registers.feature != smart::ENABLE) {
            return Err(End::ABORT);
        }
        let table = into.first_chunk_mut::<SMART_LEN>().ok_or(End::BAD_ARGUMENT);
        match registers.feature {
            smart::READ_DATA => self.health().data(table?),
            smart::READ_THRESHOLDS => self.health().thresholds(table?),
            smart::STATUS => return Ok(Done { key: Some(self.health().verdict()), ..Done::default() }),
            smart::ENABLE => {
                self.smart_on = true;
                return Ok(Done::default());
            }
            smart::DISABLE => {
                self.smart_on = false;
                return Ok(Done::default());
            }
            // The attributes need no saving: they begin anew with the process.
            smart::AUTOSAVE => return Ok(Done { count: registers.count, ..Done::default() }),
            _ => return Err(End::ABORT),
        }
        Ok(Done { bytes: SMART_LEN, ..Done::default() })
    }

    fn set_features(&mut self, which: u8) -> Result<Done, End> {
        match which {
            feature::WRITE_CACHE_ON if self.config.write_cache => self.cache_on = true,
            feature::WRITE_CACHE_OFF => {
                // Data in the cache must not be less safe than later writes.
                if self.cache_on {
                    self.flush_cache()?;
                }
                self.cache_on = false;
            }
            _ => return Err(End::ABORT),
        }
        Ok(Done::default())
    }
}

/// How a command succeeded.
#[derive(Default)]
struct Done {
    /// Bytes of data that it returns.
    bytes: usize,
    /// The count register: sectors that were not moved, or a value of the command's own.
    count: u8,
    /// LBA bytes 1 and 2, where they mean something.
    key: Option<[u8; 2]>,
}

/// How a command failed.
enum End {
    Refused(Refusal),
    Failed { status: u8, error: u8, done: u64 },
}

impl End {
    const BAD_ARGUMENT: End = End::Refused(Refusal::BadArgument);
    const ABORT: End = End::failed(error::ABRT);
    const NOT_FOUND: End = End::failed(error::IDNF);

    const fn failed(error: u8) -> End {
        End::Failed { status: status::DRDY | status::ERR, error, done: 0 }
    }

    fn from_fault(fault: Fault, also: u8) -> End {
        let (error, also) = match fault.cause {
            Cause::Medium => (error::UNC, also),
            Cause::Missing => (error::IDNF, also),
            Cause::Refused => (error::ABRT, 0),
        };
        End::Failed { status: status::DRDY | status::ERR | also, error, done: fault.done }
    }
}

/// The bytes of `count` sectors, if a frame of this interface carries so many.
pub(super) fn bytes(count: u8, most: u8) -> Option<usize> {
    (1..=most).contains(&count).then(|| usize::from(count) * SECTOR)
}

/// Moves the address in the registers on to the sector that failed.
fn advance(registers: &mut Ata, sectors: u64) {
    if matches!(registers.command, cmd::READ | cmd::WRITE) {
        let at = (registers.sector28() + sectors).0 % SECTORS_28;
        let [a, b, c, d, ..] = at.to_le_bytes();
        let device = registers.lba[3] & 0xf0;
        registers.lba = [a, b, c, device | d, registers.lba[4], registers.lba[5]];
    } else {
        let [a, b, c, d, e, f, ..] = (registers.sector48() + sectors).0.to_le_bytes();
        registers.lba = [a, b, c, d, e, f];
    }
}
