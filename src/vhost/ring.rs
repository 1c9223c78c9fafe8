//! One queue of a front end.
//!
//! Answers are put in the used ring in the order in which the requests were taken. After a connection that was lost the
//! front end goes on where the used ring ends: if answers overtook each other there, a request that was answered would
//! be done twice, and one that was not would never be done.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Deref;
use std::sync::atomic::Ordering;

use nix::unistd;
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemory};

use super::ENTRIES_MAX;

/// A request that was taken.
struct Taken {
    head: u16,
    /// How many bytes were written to the guest, once it is done.
    written: Option<u32>,
}

/// See the module.
pub struct Ring {
    queue: Queue,
    /// Rings when the guest has put something in. It is never read: the thread is told of each time that it is rung,
    /// and a descriptor that is not what it should be could block.
    pub kick: Option<File>,
    /// Rung when answers were put in.
    pub call: Option<File>,
    /// Rung when the queue is stopped.
    pub err: Option<File>,
    /// The front end wants it to be served.
    pub enabled: bool,
    /// It held what cannot be answered. It rests until it is set up anew.
    pub stopped: bool,
    /// Its three tables were found to be in the guest's memory.
    pub checked: bool,
    /// Requests that were taken and are not in the used ring yet, in the order in which they were taken.
    taken: VecDeque<Taken>,
    /// The number of the first of these. Numbers are never used again.
    first: u64,
    /// Answers were put in that the guest was not told of.
    told_late: bool,
}

impl Ring {
    /// A queue that is not set up.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            queue: Queue::new(ENTRIES_MAX)?,
            kick: None,
            call: None,
            err: None,
            enabled: false,
            stopped: false,
            checked: false,
            taken: VecDeque::new(),
            first: 0,
            told_late: false,
        })
    }

    /// Whether requests may be taken from it.
    pub fn is_live(&self) -> bool {
        self.enabled && self.queue.ready() && !self.stopped
    }

    /// It was started by the front end, or not any more.
    pub fn set_ready(&mut self, ready: bool) {
        if !ready {
            self.forget();
        }
        self.queue.set_ready(ready);
        (self.stopped, self.checked) = (false, false);
    }

    /// How many entries it has: a power of two, at most [`ENTRIES_MAX`].
    pub fn set_entries(&mut self, entries: u32) -> Result<(), Error> {
        self.checked = false;
        self.queue.try_set_size(u16::try_from(entries).map_err(|_| Error::InvalidSize)?)
    }

    /// Where its tables are: guest addresses.
    pub fn set_tables<M: GuestMemory>(
        &mut self,
        memory: &M,
        descriptors: u64,
        available: u64,
        used: u64,
    ) -> Result<(), Error> {
        self.checked = false;
        self.queue.try_set_desc_table_address(GuestAddress(descriptors))?;
        self.queue.try_set_avail_ring_address(GuestAddress(available))?;
        self.queue.try_set_used_ring_address(GuestAddress(used))?;
        // The message that says where it goes on has only the place in the available ring. The other one is here.
        let used = self.queue.used_idx(memory, Ordering::Relaxed)?;
        self.queue.set_next_used(used.0);
        Ok(())
    }

    /// The next entry of the available ring to be looked at.
    pub fn next(&self) -> u16 {
        self.queue.next_avail()
    }

    /// Goes on there. What was taken before is not its own any more.
    pub fn set_next(&mut self, next: u16) {
        self.forget();
        self.queue.set_next_avail(next);
    }

    /// Whether the guest says how far it wants to be left alone.
    pub fn set_event_idx(&mut self, on: bool) {
        self.queue.set_event_idx(on);
    }

    /// Whether all three tables are in the guest's memory.
    pub fn is_valid<M: GuestMemory>(&self, memory: &M) -> bool {
        self.queue.is_valid(memory)
    }

    /// Whether the guest has as many requests under way as it can have.
    pub fn is_full(&self) -> bool {
        self.taken.len() >= usize::from(self.queue.size())
    }

    /// Whether requests are under way.
    pub fn is_busy(&self) -> bool {
        !self.taken.is_empty()
    }

    /// A request of that head is begun. Returns its number.
    pub fn begin(&mut self, head: u16) -> u64 {
        self.taken.push_back(Taken { head, written: None });
        self.first + self.taken.len() as u64 - 1
    }

    /// Whether an answer to the request of that number has a place to go to.
    pub fn awaits(&self, number: u64) -> bool {
        number >= self.first && !self.stopped
    }

    /// Requests that are under way have no place for their answers any more.
    pub fn forget(&mut self) {
        self.first += self.taken.len() as u64;
        self.taken.clear();
    }

    /// The next chain that the guest has put in.
    pub fn pop<M>(&mut self, memory: M) -> Result<Option<DescriptorChain<M>>, Error>
    where
        M: Clone + Deref,
        M::Target: GuestMemory + Sized,
    {
        Ok(self.queue.iter(memory)?.next())
    }

    /// The guest need not ring while requests are being taken.
    pub fn hush<M: GuestMemory>(&mut self, memory: &M) -> Result<(), Error> {
        self.queue.disable_notification(memory)
    }

    /// Whether the guest has put something in.
    pub fn has_new<M: GuestMemory>(&self, memory: &M) -> Result<bool, Error> {
        Ok(self.queue.avail_idx(memory, Ordering::Acquire)?.0 != self.queue.next_avail())
    }

    /// The guest has to ring from now on. True if it has put something in meanwhile.
    pub fn listen<M: GuestMemory>(&mut self, memory: &M) -> Result<bool, Error> {
        self.queue.enable_notification(memory)
    }

    /// The request of that number is done, with so many bytes. It is put in the used ring when all before it are.
    pub fn done<M: GuestMemory>(&mut self, memory: &M, number: u64, written: u32) -> Result<(), Error> {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let Some(taken) = place.and_then(|place| self.taken.get_mut(place)) else { return Ok(()) };
        taken.written = Some(written);
        while let Some(Taken { head, written: Some(written) }) = self.taken.front() {
            let (head, written) = (*head, *written);
            self.taken.pop_front();
            self.first += 1;
            if !self.stopped {
                self.told_late = true;
                self.queue.add_used(memory, head, written)?;
            }
        }
        Ok(())
    }

    /// Rings for all answers since this was called last, if there are any and the guest wants to hear of them.
    pub fn tell<M: GuestMemory>(&mut self, memory: &M) -> Result<(), Error> {
        if std::mem::take(&mut self.told_late) && self.queue.needs_notification(memory)? {
            ring(self.call.as_ref());
        }
        Ok(())
    }

    /// It is not served any more.
    pub fn stop(&mut self) {
        self.stopped = true;
        ring(self.err.as_ref());
    }
}

/// Rings a front end's bell. Where that fails it is not one, and nobody waits for it.
fn ring(bell: Option<&File>) {
    if let Some(bell) = bell
        && let Err(error) = unistd::write(bell, &1u64.to_ne_bytes())
    {
        log::debug!("a front end's bell: {error}");
    }
}
