//! What the front ends of a socket have under way.
//!
//! A request belongs to the socket and not to the connection that it came by: a front end that goes does not end it,
//! and it takes memory and a place of its target until it is over. Whoever connects next finds it there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::Share;
use super::inbox::Bell;

/// See the module. Between a look for room and a sleep nothing may be missed, so there is one order of all changes.
pub struct UnderWay {
    bytes: AtomicU64,
    requests: AtomicUsize,
    /// The socket's thread wants to hear of room.
    wanted: AtomicBool,
    bell: Arc<Bell>,
}

impl UnderWay {
    /// Nothing is under way. The bell wakes the socket's thread.
    pub fn new(bell: Arc<Bell>) -> Arc<Self> {
        let (bytes, requests, wanted) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { bytes, requests, wanted, bell })
    }

    /// Whether one request more may be begun. Where none is under way, one always may.
    pub fn has_room(&self, share: Share) -> bool {
        self.bytes.load(Ordering::SeqCst) < share.bytes
            && self.requests.load(Ordering::SeqCst) < share.requests
    }

    /// The same, for a thread that is going to sleep: where there is none, the bell rings when there may be some.
    pub fn has_room_now_or_rings(&self, share: Share) -> bool {
        self.wanted.store(true, Ordering::SeqCst);
        let has_room = self.has_room(share);
        if has_room {
            self.wanted.store(false, Ordering::SeqCst);
        }
        has_room
    }

    /// A request is begun that holds so many bytes. Only the socket's thread begins one, so none is between a look for
    /// room and this.
    pub fn begin(self: &Arc<Self>, bytes: u64) -> Place {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        self.requests.fetch_add(1, Ordering::SeqCst);
        Place { of: self.clone(), bytes }
    }
}

/// A request that is under way. It is over when this is dropped.
pub struct Place {
    of: Arc<UnderWay>,
    bytes: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        self.of.requests.fetch_sub(1, Ordering::SeqCst);
        if self.of.wanted.load(Ordering::SeqCst) && self.of.wanted.swap(false, Ordering::SeqCst) {
            self.of.bell.ring();
        }
    }
}
