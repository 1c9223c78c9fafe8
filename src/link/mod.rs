//! A link: one attachment to an Ethernet segment, as the netlink threads and the target see it.
//!
//! Promises: [`Link::send`] never blocks and never allocates; [`Link::recv`] blocks until there are frames, a wake-up
//! or an error, and fills a [`Batch`] whose slots are used again, so that a frame costs no allocation in either
//! direction. A link may lose frames, as a wire does; those that are lost for want of room are counted.

pub mod claim;
pub mod interface;
pub mod loopback;
pub mod packet;
pub mod watch;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::wire::{ETHERNET, Mac};

/// Frames that a batch holds, and frames that are handed to the kernel in one call. More gain little, and the arrays of
/// message headers (5 KiB) fit on the stack.
pub const BATCH: usize = 64;
/// Most sends are of a frame or a few, for which room for a whole batch would take longer to clear than to use.
pub const FEW: usize = 4;

/// Largest frame any interface carries: an MTU of 65535 and the Ethernet header.
pub const LARGEST_FRAME: usize = 65535 + ETHERNET;

/// Slots are a multiple of this many bytes, so that no two share a cache line.
const SLOT_ALIGN: usize = 64;

/// Bytes of a slot for frames of up to `max_frame` bytes.
fn slot_size(max_frame: usize) -> usize {
    max_frame.next_multiple_of(SLOT_ALIGN)
}

/// A frame to send: `head` followed by `body`. The sender has padded it.
#[derive(Clone, Copy, Debug)]
pub struct OutFrame<'a> {
    /// From the destination address on.
    pub head: &'a [u8],
    /// The bytes that follow it, often a slice of a request's data; may be empty.
    pub body: &'a [u8],
}

impl OutFrame<'_> {
    /// Bytes on the wire, without the check sequence.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// Why [`Link::recv`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The batch holds at least one frame.
    Frames,
    /// [`Link::wake`] was called; the batch is empty.
    Woken,
}

/// How [`Link::poll`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// There is a frame, or a wake-up.
    Ready,
    /// There was none in time.
    TimedOut,
    /// Another thread took the processor meanwhile, or the link cannot be polled.
    Preempted,
}

/// What [`Link::wait_beside`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// There are frames, or an error that the next receive tells.
    pub frames: bool,
    /// The other descriptor is readable, or at its end.
    pub other: bool,
}

/// Whether a descriptor is readable now, or at its end.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// One attachment to a segment. All methods may be called from any thread; each batch is filled by one at a time.
pub trait Link: Send + Sync {
    /// The interface's name, as it is now.
    fn name(&self) -> Arc<str>;
    /// Whether this is a name of the interface. An interface may have several names; one that is gone keeps those that
    /// it was bound by.
    fn is_called(&self, name: &str) -> bool {
        *self.name() == *name
    }
    /// The address that frames leave with.
    fn mac(&self) -> Mac;
    /// The largest payload after the Ethernet header, as `ip link` prints it.
    fn mtu(&self) -> usize;
    /// The interface's index in the kernel; 0 while it is gone.
    fn index(&self) -> u32;
    /// Whether frames sent now have a chance.
    fn is_up(&self) -> bool;
    /// Sends in order and never blocks; says how many frames the kernel took, and the last error. Frames that are too
    /// large or too short for the interface are passed over, any other error ends the call. A frame that was not taken
    /// is lost; the caller's retransmission makes up for it.
    fn send(&self, frames: &[OutFrame<'_>]) -> (usize, Option<io::Error>);
    /// Blocks until at least one frame, a wake-up or an error, and fills `batch`. Errors are those of
    /// [`Link::recv_now`].
    fn recv(&self, batch: &mut Batch) -> io::Result<Received> {
        loop {
            // Asked before the frames, so that a flood of them cannot hide a wake-up.
            if self.take_wake() {
                batch.clear();
                return Ok(Received::Woken);
            }
            self.recv_now(batch)?;
            if !batch.is_empty() {
                return Ok(Received::Frames);
            }
            self.wait()?;
        }
    }
    /// Blocks until [`Link::recv_now`] has something, or [`Link::take_wake`] does.
    fn wait(&self) -> io::Result<()>;
    /// Whether the link was woken since the last call.
    fn take_wake(&self) -> bool;
    /// Keeps the processor busy until `recv` would not block, at most for `patience`.
    fn poll(&self, _patience: Duration) -> Polled {
        Polled::Preempted
    }
    /// Waits until there are frames, until `other` is readable or at its end, or until `patience` is over.
    fn wait_beside(&self, other: BorrowedFd<'_>, patience: Duration) -> Ready;
    /// Fills `batch`, growing its slots where the MTU has grown; never blocks, so `batch` may be empty afterwards. See
    /// [`is_link_down`] and [`is_gone`] for the errors that are no reason to stop.
    fn recv_now(&self, batch: &mut Batch) -> io::Result<()>;
    /// Whether there are frames that were not received yet.
    fn has_frames(&self) -> bool;
    /// Ends the [`Link::wait`] that blocks now, or the next one; [`Link::take_wake`] says so once.
    fn wake(&self);
    /// Looks the interface up again: name, MAC, MTU, flags. If it is gone, binds to a new one of the same name.
    fn refresh(&self) -> io::Result<()>;
    /// Frames lost for want of receive buffer since the link was bound.
    fn drops(&self) -> u64;
}

/// The interface went down. The kernel says so once per receiver; the link works on when it is up again.
pub fn is_link_down(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENETDOWN)
}

/// The interface is gone from under the link. [`Link::refresh`] binds to a new one of the same name.
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV))
}

/// The local queue was full: the frames are lost as they would be on a busy wire, nothing is broken.
pub fn is_congested(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM))
}

/// Received frames, in slots that are reused.
pub struct Batch {
    slots: Vec<Box<[u8]>>,
    lens: [usize; BATCH],
    count: usize,
    max_frame: usize,
}

impl Batch {
    /// A batch whose slots hold frames of up to `max_frame` bytes.
    pub fn new(max_frame: usize) -> Batch {
        let mut batch = Batch { slots: Vec::new(), lens: [0; BATCH], count: 0, max_frame: 0 };
        batch.fit(max_frame);
        batch
    }

    /// The frames of the last `recv`, in the order of their arrival.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.slots
            .iter()
            .zip(&self.lens)
            .take(self.count)
            .map(|(slot, &len)| slot.get(..len).unwrap_or_default())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Forgets the frames, keeps the slots.
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Grows the slots where they are smaller than `max_frame`; the frames in them are forgotten then.
    pub fn fit(&mut self, max_frame: usize) {
        if max_frame <= self.max_frame {
            return;
        }
        let size = slot_size(max_frame);
        self.count = 0;
        self.max_frame = size;
        // Zeroed memory of this size comes untouched from the kernel: slots that no burst reaches cost nothing.
        self.slots = (0..BATCH).map(|_| vec![0; size].into_boxed_slice()).collect();
    }

    /// The slots, for a receiver to write into.
    fn slots_mut(&mut self) -> &mut [Box<[u8]>] {
        &mut self.slots
    }

    /// Appends the frame of `len` bytes that lies in slot `from`, which is at or after the end.
    fn keep(&mut self, from: usize, len: usize) {
        self.slots.swap(self.count, from);
        if let (Some(kept), Some(slot)) = (self.lens.get_mut(self.count), self.slots.get(self.count)) {
            *kept = len.min(slot.len());
            self.count += 1;
        }
    }

    /// Appends a frame, by exchanging its buffer with the next slot where that makes no slot smaller; false if
    /// the batch is full.
    fn exchange(&mut self, frame: &mut Box<[u8]>, len: usize) -> bool {
        let (Some(slot), Some(kept)) = (self.slots.get_mut(self.count), self.lens.get_mut(self.count)) else {
            return false;
        };
        if frame.len() >= self.max_frame {
            std::mem::swap(slot, frame);
        } else if let (Some(to), Some(from)) = (slot.get_mut(..len), frame.get(..len)) {
            to.copy_from_slice(from);
        }
        *kept = len.min(slot.len());
        self.count += 1;
        true
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("frames", &self.count).field("max_frame", &self.max_frame).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_order_and_skips_what_was_not_kept() {
        let mut batch = Batch::new(100);
        for (i, slot) in batch.slots_mut().iter_mut().enumerate() {
            slot[0] = i as u8;
        }
        for i in [0usize, 2, 3, 5] {
            batch.keep(i, 1);
        }
        assert_eq!(batch.frames().map(|f| f[0]).collect::<Vec<_>>(), [0, 2, 3, 5]);
        assert_eq!(batch.slots.len(), BATCH);
    }

    #[test]
    fn a_batch_grows_and_never_shrinks() {
        let mut batch = Batch::new(1514);
        let small = batch.max_frame;
        batch.fit(LARGEST_FRAME);
        assert!(batch.max_frame >= LARGEST_FRAME && small >= 1514);
        batch.fit(60);
        assert!(batch.max_frame >= LARGEST_FRAME);
        assert!(batch.slots_mut().iter().all(|slot| slot.len() >= LARGEST_FRAME));
    }

    #[test]
    fn a_full_batch_takes_no_more() {
        let mut batch = Batch::new(60);
        let mut frame = vec![7; 64].into_boxed_slice();
        for _ in 0..BATCH {
            assert!(batch.exchange(&mut frame, 60));
        }
        assert!(!batch.exchange(&mut frame, 60));
        assert_eq!(batch.len(), BATCH);
        batch.clear();
        assert!(batch.is_empty() && batch.frames().next().is_none());
    }

    #[test]
    fn errors_sort_into_events() {
        let os = io::Error::from_raw_os_error;
        assert!(is_link_down(&os(libc::ENETDOWN)) && !is_link_down(&os(libc::ENXIO)));
        assert!(is_gone(&os(libc::ENXIO)) && is_gone(&os(libc::ENODEV)) && !is_gone(&os(libc::EIO)));
        assert!(is_congested(&os(libc::ENOBUFS)) && !is_congested(&os(libc::EMSGSIZE)));
    }
}
