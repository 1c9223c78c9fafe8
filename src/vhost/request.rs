//! What a guest asks for: the header of virtio-blk and its data.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};
use vm_memory::{GuestMemory, Permissions};

use super::chain::{Outside, Parts};
use super::config::{BYTES_MAX, DISCARD_MAX, ZERO_MAX};
use super::tally::Moved;
use super::{Ask, Facts, little_endian};
use crate::engine::{Pool, WriteBuf};
use crate::wire::SECTOR;

/// Bytes of the header: what, a field that means nothing any more, and the first sector.
const HEADER: usize = 16;

/// Bytes that say what is to be discarded or zeroed: first sector, sectors, flags.
const RANGE: usize = 16;

/// The status of a request that is refused. The specification knows three; success is the third.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It makes no sense, or cannot be done with this disk.
    Io,
    /// Nobody offered that.
    Unsupported,
}

impl Refused {
    /// The byte that the guest gets.
    pub fn status(self) -> u8 {
        match self {
            Self::Io => VIRTIO_BLK_S_IOERR as u8,
            Self::Unsupported => VIRTIO_BLK_S_UNSUPP as u8,
        }
    }
}

impl From<Outside> for Refused {
    fn from(_: Outside) -> Self {
        Self::Io
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Plan {
    /// The disk is asked.
    Ask(Ask),
    /// It is answered with these bytes.
    Tell(Vec<u8>),
}

impl Plan {
    /// Bytes that are held until it is answered.
    pub fn cost(&self) -> u64 {
        match self {
            Self::Ask(ask) => ask.cost(),
            Self::Tell(_) => 0,
        }
    }

    /// What it will have moved.
    pub fn moved(&self) -> Moved {
        match self {
            Self::Ask(ask) => ask.moved(),
            Self::Tell(_) => Moved::Nothing,
        }
    }
}

/// What there is to know for it.
pub struct About<'a, M> {
    /// The guest's memory.
    pub memory: &'a M,
    /// The disk.
    pub facts: &'a Facts,
    /// Where buffers come from.
    pub pool: &'a Pool,
    /// The guest has no flush of its own.
    pub durable: bool,
}

impl<M: GuestMemory> About<'_, M> {
    /// What a request asks for. The bytes of a write are copied here.
    pub fn plan(&self, parts: &Parts) -> Result<Plan, Refused> {
        let mut header = [0; HEADER];
        parts.given.read(self.memory, 0, &mut header)?;
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([a, b, c, d]) {
            VIRTIO_BLK_T_IN => self.read(parts, sector),
            VIRTIO_BLK_T_OUT => self.write(parts, sector),
            VIRTIO_BLK_T_FLUSH => Ok(Plan::Ask(Ask::Flush)),
            VIRTIO_BLK_T_GET_ID => Ok(Plan::Tell(self.id())),
            VIRTIO_BLK_T_DISCARD => self.discard(parts),
            VIRTIO_BLK_T_WRITE_ZEROES => self.zero(parts),
            _ => Err(Refused::Unsupported),
        }
    }

    /// The first byte of so many, if the disk has them all and they are whole sectors.
    fn within(&self, sector: u64, len: u64) -> Result<u64, Refused> {
        let offset = sector.checked_mul(SECTOR as u64).ok_or(Refused::Io)?;
        let end = offset.checked_add(len).ok_or(Refused::Io)?;
        let fits = len > 0 && len.is_multiple_of(SECTOR as u64) && end <= self.facts.size;
        if fits { Ok(offset) } else { Err(Refused::Io) }
    }

    fn read(&self, parts: &Parts, sector: u64) -> Result<Plan, Refused> {
        let len = parts.wanted.len();
        let offset = self.within(sector, len)?;
        // Looked at now: later it is too late to say that nothing was asked of the target.
        if len > BYTES_MAX || !parts.wanted.are_in(self.memory, Permissions::Write) {
            return Err(Refused::Io);
        }
        Ok(Plan::Ask(Ask::Read { offset, len: len as usize }))
    }

    fn write(&self, parts: &Parts, sector: u64) -> Result<Plan, Refused> {
        let len = parts.given.len() - HEADER as u64;
        let offset = self.within(sector, len)?;
        if len > BYTES_MAX || self.facts.read_only || !parts.given.are_in(self.memory, Permissions::Read) {
            return Err(Refused::Io);
        }
        let data = WriteBuf::filled(self.pool, offset, len as usize, |bytes| {
            parts.given.read(self.memory, HEADER as u64, bytes)
        })?;
        Ok(Plan::Ask(Ask::Write { offset, data, durable: self.durable }))
    }

    /// The name of the disk, with zeros behind it where it is short.
    fn id(&self) -> Vec<u8> {
        let mut id = self.facts.id.as_bytes().to_vec();
        id.resize(VIRTIO_BLK_ID_BYTES as usize, 0);
        id
    }

    /// The one range of a discard or of zeros, with its flags. None if it has no sector.
    fn range(&self, parts: &Parts, max: u32) -> Result<(Option<(u64, u64)>, u32), Refused> {
        if !self.facts.discard {
            return Err(Refused::Unsupported);
        }
        if self.facts.read_only || parts.given.len() != (HEADER + RANGE) as u64 {
            return Err(Refused::Io);
        }
        let mut range = [0; RANGE];
        parts.given.read(self.memory, HEADER as u64, &mut range)?;
        let (sector, rest) = range.split_at(8);
        let (count, flags) = rest.split_at(4);
        let [sector, count, flags] = [sector, count, flags].map(little_endian);
        let flags = flags as u32;
        if count > u64::from(max) {
            return Err(Refused::Io);
        }
        let len = count * SECTOR as u64;
        let range = if len == 0 { None } else { Some((self.within(sector, len)?, len)) };
        Ok((range, flags))
    }

    fn discard(&self, parts: &Parts) -> Result<Plan, Refused> {
        let (range, flags) = self.range(parts, DISCARD_MAX)?;
        // No flag means anything here, and the one for zeros must be refused.
        if flags != 0 {
            return Err(Refused::Unsupported);
        }
        let ask = |(offset, len)| Plan::Ask(Ask::Discard { offset, len, durable: self.durable });
        Ok(range.map_or(Plan::Tell(Vec::new()), ask))
    }

    fn zero(&self, parts: &Parts) -> Result<Plan, Refused> {
        let (range, flags) = self.range(parts, ZERO_MAX)?;
        let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
            return Err(Refused::Unsupported);
        }
        let durable = self.durable;
        let ask = |(offset, len)| {
            Plan::Ask(match unmap {
                true => Ask::Discard { offset, len, durable },
                false => Ask::Zero { offset, len, durable },
            })
        };
        Ok(range.map_or(Plan::Tell(Vec::new()), ask))
    }
}
