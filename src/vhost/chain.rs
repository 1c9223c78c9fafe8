//! A descriptor chain taken apart: what a guest gives, where it wants the answer, and where the status goes.
//!
//! Whatever is in a guest's tables, this ends with parts or with a reason: a chain has at most [`ENTRIES_MAX`]
//! descriptors, is read once, and each piece of it is where the guest has memory, or no part of it is touched.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, Permissions};

use super::ENTRIES_MAX;

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;

/// Why a chain cannot be answered at all: there is no place for a status. A guest that makes one has lost its way, so
/// the queue is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is a loop, leads out of its table, or the table is not there.
    Loose,
    /// It has more descriptors than any queue.
    Long,
    /// Something to read stands behind something to write.
    Order,
    /// There is no byte for the status.
    NoStatus,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Loose => "a descriptor chain is a loop or leads out of its table",
            Self::Long => "a descriptor chain is too long",
            Self::Order => "a descriptor chain has bytes to read behind bytes to write",
            Self::NoStatus => "a descriptor chain has no place for the status",
        })
    }
}

/// Bytes of a request are outside of the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside;

/// Runs of bytes in the guest's memory, one behind the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces(Vec<(GuestAddress, u32)>);

impl Pieces {
    /// Bytes of all pieces.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(_, len)| u64::from(*len)).sum()
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all of it is memory that the guest has.
    pub fn are_in<M: GuestMemory>(&self, memory: &M, access: Permissions) -> bool {
        self.0.iter().all(|(at, len)| GuestMemory::check_range(memory, *at, *len as usize, access))
    }

    /// Copies from the guest, leaving out the first `skip` bytes, until `into` is full.
    pub fn read<M: GuestMemory>(&self, memory: &M, skip: u64, mut into: &mut [u8]) -> Result<(), Outside> {
        let mut skip = skip;
        for (at, len) in &self.0 {
            let from = skip.min(u64::from(*len));
            skip -= from;
            let count = (u64::from(*len) - from).min(into.len() as u64) as usize;
            if count > 0 {
                let (now, later) = std::mem::take(&mut into).split_at_mut(count);
                let at = at.checked_add(from).ok_or(Outside)?;
                memory.read_slice(now, at).map_err(|_| Outside)?;
                into = later;
            }
        }
        if into.is_empty() { Ok(()) } else { Err(Outside) }
    }

    /// Copies to the guest, as much as fits. Says how much that was.
    pub fn write<M: GuestMemory>(&self, memory: &M, mut from: &[u8]) -> Result<u32, Outside> {
        let mut written = 0;
        for (at, len) in &self.0 {
            let count = (*len as usize).min(from.len());
            if count > 0 {
                let (now, later) = from.split_at(count);
                memory.write_slice(now, *at).map_err(|_| Outside)?;
                from = later;
                written += count as u32;
            }
        }
        Ok(written)
    }
}

/// The parts of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// What the guest gives: the header, then data.
    pub given: Pieces,
    /// Where it wants data.
    pub wanted: Pieces,
    /// Where it wants the status, one byte.
    pub status: GuestAddress,
}

/// A table of descriptors.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Where it is.
    pub at: GuestAddress,
    /// How many it has.
    pub entries: u32,
}

impl Table {
    fn get<M: GuestMemory>(&self, memory: &M, index: u16) -> Option<Descriptor> {
        if u32::from(index) >= self.entries {
            return None;
        }
        memory.read_obj(self.at.checked_add(u64::from(index) * DESCRIPTOR)?).ok()
    }

    /// The table that a descriptor stands for.
    fn of(indirect: &Descriptor) -> Option<Self> {
        let len = u64::from(indirect.len());
        let whole = len.is_multiple_of(DESCRIPTOR);
        whole.then(|| Self { at: indirect.addr(), entries: (len / DESCRIPTOR) as u32 })
    }
}

/// Takes the chain apart that begins at a head of that table.
pub fn parts<M: GuestMemory>(memory: &M, mut table: Table, head: u16) -> Result<Parts, Broken> {
    let (mut given, mut wanted) = (Vec::new(), Vec::new());
    let (mut index, mut left, mut indirect) = (head, table.entries, false);
    loop {
        if given.len() + wanted.len() >= usize::from(ENTRIES_MAX) {
            return Err(Broken::Long);
        }
        // A chain that has more of a table than the table has is a loop.
        left = left.checked_sub(1).ok_or(Broken::Loose)?;
        let descriptor = table.get(memory, index).ok_or(Broken::Loose)?;
        if descriptor.refers_to_indirect_table() {
            if indirect {
                return Err(Broken::Loose);
            }
            table = Table::of(&descriptor).ok_or(Broken::Loose)?;
            (index, left, indirect) = (0, table.entries, true);
            continue;
        }
        let piece = (descriptor.addr(), descriptor.len());
        match descriptor.is_write_only() {
            true => wanted.push(piece),
            false if wanted.is_empty() => given.push(piece),
            false => return Err(Broken::Order),
        }
        if !descriptor.has_next() {
            break;
        }
        index = descriptor.next();
    }
    while wanted.last().is_some_and(|(_, len)| *len == 0) {
        wanted.pop();
    }
    let last = wanted.last_mut().ok_or(Broken::NoStatus)?;
    last.1 -= 1;
    let status = last.0.checked_add(u64::from(last.1)).ok_or(Broken::NoStatus)?;
    if !GuestMemory::check_range(memory, status, 1, Permissions::Write) {
        return Err(Broken::NoStatus);
    }
    Ok(Parts { given: Pieces(given), wanted: Pieces(wanted), status })
}
