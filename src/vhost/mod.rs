//! Disks for virtual machines: a target or a partition as the back end of a virtio disk (vhost-user-blk), without FUSE
//! in between.
//!
//! An [`Export`] is a Unix socket and one thread. The thread takes one front end at a time, reads its messages, takes
//! requests from its queues and puts answers into them. A request becomes one of the engine at once, and nothing
//! waits; whichever thread completes it puts the outcome into the thread's [`inbox`] and goes on. That may be the
//! thread itself, which receives answers while it has nothing else to do ([`Disk::rest`]). Nobody but that one
//! thread touches what belongs to a front end: its memory and its descriptors. A page that is not there, a descriptor
//! that blocks, or anything else that a front end may do to them, holds up its own export and nothing else, and an
//! answer that comes after the front end has gone has nowhere to go.
//!
//! A front end that connects again after a lost connection, or to the daemon that comes after one that was killed, gets
//! exactly those requests done that were not answered ([`ring`], [`inflight`]).
//!
//! * [`chain`]: a descriptor chain, checked; [`request`]: what it asks for; [`config`]: what a guest is told.
//! * [`channel`]: the way back, for a disk that grows.
//! * [`ring`]: a queue; [`inflight`]: what of it is under way, for the next connection;
//!   [`origin`]: of which disk.
//! * [`memory`]: the front end's memory; [`lost`]: what becomes of memory that is taken back.
//! * [`device`]: the front end's messages, and its requests; [`under_way`]: how many of these there may be.
//! * [`tally`]: what it has done, in numbers.
//! * [`server`]: the thread; [`socket`]: the place in the file system; [`exports`]: all of them.
//!
//! What a disk is, and who may do what with it, is not known here: [`Source`] and [`Disk`] are the other side's.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::engine::{Data, Pool, REQUESTS_MAX, WriteBuf};

pub mod chain;
pub mod channel;
pub mod config;
pub mod device;
pub mod exports;
pub mod inbox;
pub mod inflight;
pub mod lost;
pub mod memory;
pub mod origin;
pub mod request;
pub mod ring;
pub mod server;
pub mod socket;
pub mod tally;
pub mod under_way;

#[cfg(test)]
mod tests;

pub use exports::Exports;
pub use server::Export;
pub use tally::Counts;

use origin::Origin;
use tally::Moved;

/// Queues that a front end may use, at most.
pub const QUEUES_MAX: usize = 8;

/// Entries that a queue may have, at most: the most that QEMU offers.
pub const ENTRIES_MAX: u16 = 1024;

/// Bytes of all requests of a front end that may be under way before no more are taken. The last one that is taken may
/// go beyond it. A target is sent 128 frames at a time, which are 4 MiB at most, so more does not make a guest faster;
/// it makes others wait.
pub const BYTES_UNDER_WAY: u64 = 16 << 20;

/// Requests of a front end that may be under way: eight for each frame that a target is sent at a time.
pub const REQUESTS_UNDER_WAY: usize = 1024;

/// What a front end may have under way before no more is taken out of its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Bytes of its requests.
    pub bytes: u64,
    /// Requests.
    pub requests: usize,
}

impl Share {
    /// The share of one of so many sockets. All front ends together leave half of the memory for a target's writes and
    /// half of a target's requests to those who use files, whatever they ask for and whether it answers.
    pub fn of_one(pool: &Pool, sockets: usize) -> Self {
        let sockets = sockets.max(1);
        let bytes = (pool.writes_of_one() / 2 / sockets).max(1) as u64;
        let requests = (REQUESTS_MAX / 2 / sockets).max(1);
        Self { bytes: bytes.min(BYTES_UNDER_WAY), requests: requests.min(REQUESTS_UNDER_WAY) }
    }
}

/// The number that is written with its lowest byte first.
fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// Bytes of a request for zeros that are written at once.
const ZEROS_AT_ONCE: u64 = 1 << 20;

/// Why a request failed, as far as a guest can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It did; the log says why.
    Io,
    /// The disk does not do that.
    Unsupported,
}

/// What a request brings: the bytes of a read, or nothing.
pub type Outcome = Result<Option<Data>, Failed>;

/// Called with the outcome of a request exactly once, on any thread, with nothing locked.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// What a disk is asked for. Offsets and lengths are bytes in whole sectors, and within its size when they were looked
/// at.
#[derive(Debug)]
pub enum Ask {
    /// Read that many bytes.
    Read {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: usize,
    },
    /// Write; a durable one is answered after a flush.
    Write {
        /// First byte; the buffer was made for it.
        offset: u64,
        /// The bytes.
        data: WriteBuf,
        /// The guest has no flush of its own.
        durable: bool,
    },
    /// Make durable what was answered by now.
    Flush,
    /// Give the sectors back to the target; they read as zeros then.
    Discard {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// As for a write.
        durable: bool,
    },
    /// Write zeros.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// As for a write.
        durable: bool,
    },
}

impl Ask {
    /// What it will have moved.
    fn moved(&self) -> Moved {
        match self {
            Self::Read { len, .. } => Moved::Read(*len as u64),
            Self::Write { data, .. } => Moved::Written(data.len() as u64),
            Self::Flush | Self::Discard { .. } | Self::Zero { .. } => Moved::Nothing,
        }
    }

    /// How many bytes of memory it is taken to hold until it is answered.
    pub fn cost(&self) -> u64 {
        /// What the bookkeeping of any request is counted as.
        const LEAST: u64 = 4096;
        let bytes = match self {
            Self::Read { len, .. } => *len as u64,
            Self::Write { data, .. } => data.len() as u64,
            // They are written piece by piece.
            Self::Zero { len, .. } => *len.min(&ZEROS_AT_ONCE),
            Self::Flush | Self::Discard { .. } => 0,
        };
        bytes.max(LEAST)
    }
}

/// What a guest is told of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Bytes.
    pub size: u64,
    /// It cannot be written.
    pub read_only: bool,
    /// Sectors in a physical one, as a logarithm: 3 for those of 4 KiB.
    pub physical_log2: u8,
    /// Sectors can be discarded, and read as zeros then.
    pub discard: bool,
    /// What it is called: at most 20 bytes are told.
    pub id: String,
}

/// What there is after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// There is something to do.
    Work,
    /// The descriptor is readable.
    Readable,
    /// Nothing was found.
    Nothing,
}

/// A disk that was opened for one front end. It is closed when this is dropped.
pub trait Disk: Send {
    /// What there is to know of it now. Its size may change.
    fn facts(&self) -> Facts;
    /// Which one it is. None if it is not there any more: another one has its name.
    fn origin(&self) -> Option<Origin>;
    /// Where the buffers of writes come from.
    fn pool(&self) -> &Pool;
    /// What its front end may have under way now.
    fn share(&self) -> Share;
    /// Begins a request and does not wait for it.
    fn submit(&self, ask: Ask, done: Done);
    /// Begins requests together, in this order.
    fn submit_all(&self, asks: &mut Vec<(Ask, Done)>) {
        asks.drain(..).for_each(|(ask, done)| self.submit(ask, done));
    }
    /// The thread has nothing to do. It may wait for answers here, and take them, until there is something. `busy`:
    /// requests are under way. `look` says whether there is something to do; with true, the thread is about to sleep,
    /// and what comes later makes `readable` so.
    fn rest(&self, _readable: BorrowedFd<'_>, _busy: bool, _look: &mut dyn FnMut(bool) -> bool) -> Rest {
        Rest::Nothing
    }
    /// Nobody waits for what was submitted before: a request that takes many steps need not take the next one.
    fn forget(&self);
}

/// Where an export gets its disk, and where it says what happens.
pub trait Source: Send + Sync {
    /// Opens it for a front end that has connected. This may wait for about a second. An error is words for the log.
    fn open(&self) -> Result<Box<dyn Disk>, String>;
    /// A line for the log.
    fn say(&self, words: &str);
}

/// How long the end of an export may take. A thread that takes longer waits for something that its front end holds.
pub const END: Duration = Duration::from_secs(1);
