//! What the front ends of an export have asked for, in numbers that only rise.

use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Front ends that have connected.
    pub connections: u64,
    /// Requests that were taken out of queues.
    pub requests: u64,
    /// Bytes that guests have read.
    pub read: u64,
    /// Bytes that guests have written.
    pub written: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tally {
    connections: AtomicU64,
    requests: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
    errors: AtomicU64,
}

/// What a request that ended well has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes were read.
    Read(u64),
    /// So many bytes were written.
    Written(u64),
    /// None.
    Nothing,
}

impl Tally {
    /// Only the thread of the export counts, and nobody needs two numbers of one moment.
    fn add(number: &AtomicU64, more: u64) {
        number.fetch_add(more, Ordering::Relaxed);
    }

    /// A front end has connected.
    pub fn connected(&self) {
        Self::add(&self.connections, 1);
    }

    /// A request was taken.
    pub fn taken(&self) {
        Self::add(&self.requests, 1);
    }

    /// A request ended well.
    pub fn ended(&self, moved: Moved) {
        match moved {
            Moved::Read(bytes) => Self::add(&self.read, bytes),
            Moved::Written(bytes) => Self::add(&self.written, bytes),
            Moved::Nothing => {}
        }
    }

    /// A request was answered with an error.
    pub fn failed(&self) {
        Self::add(&self.errors, 1);
    }

    /// The numbers now.
    pub fn counts(&self) -> Counts {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Counts {
            connections: get(&self.connections),
            requests: get(&self.requests),
            read: get(&self.read),
            written: get(&self.written),
            errors: get(&self.errors),
        }
    }
}
