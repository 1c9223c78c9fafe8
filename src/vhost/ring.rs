//! One queue of a front end.
//!
//! A connection may be lost with requests under way, and the front end connects again, perhaps to another daemon. Where
//! it keeps a [`Record`] for us, the requests that the record has are done again. Where it does not, it goes on where
//! the used ring ends: if answers overtook each other there, a request that was answered would be done twice, and one
//! that was not would never be done. So without a record answers are put in the used ring in the order in which the
//! requests were taken.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::atomic::Ordering;

use nix::unistd;
use virtio_queue::{Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestMemory};

use super::ENTRIES_MAX;
use super::chain::Table;
use super::inflight::Record;

/// A request that was taken, where answers keep the order of requests.
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
    /// Which requests are under way, where the front end keeps that.
    record: Option<Record>,
    /// Heads that the record had when the queue was started, which are to be taken before anything else.
    redo: VecDeque<u16>,
    /// The record has not been read since the queue was started.
    resumes: bool,
    /// Without a record: requests that were taken and are not in the used ring yet, in the order of their numbers, up
    /// to the last one that was given.
    taken: VecDeque<Taken>,
    /// The number of the next request. Numbers are never used again.
    next: u64,
    /// Requests of lower numbers have no place for their answers any more.
    since: u64,
    /// Requests that were taken since then and are not in the used ring yet.
    under_way: usize,
    /// The guest is to be told even if it does not want to hear: its last call may have been lost with the daemon that
    /// was here before.
    greets: bool,
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
            record: None,
            redo: VecDeque::new(),
            resumes: false,
            taken: VecDeque::new(),
            next: 0,
            since: 0,
            under_way: 0,
            greets: false,
            told_late: false,
        })
    }

    /// Whether requests may be taken from it.
    pub fn is_live(&self) -> bool {
        self.enabled && self.queue.ready() && !self.stopped
    }

    /// It is started by the front end. `record` is read when requests are first taken; a queue that runs keeps what it
    /// has.
    pub fn start(&mut self, record: impl FnOnce(u16) -> Option<Record>) {
        if !self.queue.ready() {
            self.record = record(self.queue.size());
            (self.resumes, self.greets) = (true, true);
        }
        self.queue.set_ready(true);
        (self.stopped, self.checked) = (false, false);
    }

    /// It is given up by the front end, in good order: what is under way is not to be done again.
    pub fn end(&mut self) {
        if let Some(record) = self.record.take() {
            record.clear();
        }
        self.forget();
        self.queue.set_ready(false);
        (self.stopped, self.checked) = (false, false);
    }

    /// Whether the front end keeps for us what is under way.
    pub fn has_record(&self) -> bool {
        self.record.is_some()
    }

    /// Whether it was started.
    pub fn is_ready(&self) -> bool {
        self.queue.ready()
    }

    /// Reads the record, once after a start.
    pub fn resume<M: GuestMemory>(&mut self, memory: &M) -> Result<(), Error> {
        if std::mem::take(&mut self.resumes)
            && let Some(record) = &mut self.record
        {
            let used = self.queue.used_idx(memory, Ordering::Acquire)?.0;
            let heads = record.resume(used);
            // Each entry before the next one is either under way or in the used ring. What the front end says of it is
            // not asked: some say how far they have put requests in.
            self.queue.set_next_avail(used.wrapping_add(heads.len() as u16));
            self.redo = heads.into();
        }
        Ok(())
    }

    /// Its table of descriptors.
    pub fn table(&self) -> Table {
        Table { at: GuestAddress(self.queue.desc_table()), entries: self.queue.size().into() }
    }

    /// The guest is told once, whatever it wants to hear.
    pub fn greet(&mut self) {
        self.greets = true;
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
        self.under_way >= usize::from(self.queue.size())
    }

    /// Whether requests are under way.
    pub fn is_busy(&self) -> bool {
        self.under_way > 0 || self.has_more_again()
    }

    /// The next head that is to be done again.
    pub fn pop_again(&mut self) -> Option<u16> {
        self.redo.pop_front()
    }

    /// Whether there are heads that are to be done again.
    pub fn has_more_again(&self) -> bool {
        !self.redo.is_empty()
    }

    /// A request of that head is begun. Returns its number.
    pub fn begin(&mut self, head: u16) -> u64 {
        if self.record.is_none() {
            self.taken.push_back(Taken { head, written: None });
        }
        self.under_way += 1;
        self.next += 1;
        self.next - 1
    }

    /// Whether an answer to the request of that number has a place to go to.
    pub fn awaits(&self, number: u64) -> bool {
        number >= self.since && !self.stopped
    }

    /// Requests that are under way have no place for their answers any more.
    pub fn forget(&mut self) {
        if let Some(record) = self.record.as_ref().filter(|_| self.under_way > 0) {
            record.clear();
        }
        self.since = self.next;
        self.under_way = 0;
        self.taken.clear();
        self.redo.clear();
    }

    /// The head of the next chain that the guest has put in.
    pub fn pop<M: GuestMemory + Sized>(&mut self, memory: &M) -> Result<Option<u16>, Error> {
        if let Some(head) = self.pop_again() {
            return Ok(Some(head));
        }
        let head = self.queue.iter(memory)?.next().map(|chain| chain.head_index());
        if let (Some(head), Some(record)) = (head, &mut self.record) {
            record.begin(head);
        }
        Ok(head)
    }

    /// The guest need not ring while requests are being taken.
    pub fn hush<M: GuestMemory>(&mut self, memory: &M) -> Result<(), Error> {
        self.queue.disable_notification(memory)
    }

    /// Whether there is something to take: the guest has put it in, or it is to be done again.
    pub fn has_new<M: GuestMemory>(&self, memory: &M) -> Result<bool, Error> {
        let put_in = self.queue.avail_idx(memory, Ordering::Acquire)?.0 != self.queue.next_avail();
        Ok(put_in || self.has_more_again())
    }

    /// The guest has to ring from now on. True if there is something to take already.
    pub fn listen<M: GuestMemory>(&mut self, memory: &M) -> Result<bool, Error> {
        Ok(self.queue.enable_notification(memory)? || self.has_more_again())
    }

    /// The request of that number and head is done, with so many bytes. It is put in the used ring, without a record
    /// when all before it are there.
    pub fn done<M: GuestMemory>(
        &mut self,
        memory: &M,
        (number, head): (u64, u16),
        written: u32,
    ) -> Result<(), Error> {
        if number < self.since {
            return Ok(());
        }
        if self.record.is_some() {
            return self.give(memory, head, written);
        }
        let first = self.next - self.taken.len() as u64;
        let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        let Some(taken) = place.and_then(|place| self.taken.get_mut(place)) else { return Ok(()) };
        taken.written = Some(written);
        let mut given = Ok(());
        while let Some(Taken { head, written: Some(written) }) = self.taken.front() {
            let (head, written) = (*head, *written);
            self.taken.pop_front();
            if let Err(error) = self.give(memory, head, written) {
                // Those behind it are over as well: nobody comes to say so again.
                self.stopped = true;
                given = Err(error);
            }
        }
        given
    }

    fn give<M: GuestMemory>(&mut self, memory: &M, head: u16, written: u32) -> Result<(), Error> {
        self.under_way -= 1;
        if self.stopped {
            return Ok(());
        }
        self.told_late = true;
        if let Some(record) = &self.record {
            record.ending(head);
        }
        self.queue.add_used(memory, head, written)?;
        if let Some(record) = &self.record {
            record.ended(head, self.queue.next_used());
        }
        Ok(())
    }

    /// Rings for all answers since this was called last, if there are any and the guest wants to hear of them.
    pub fn tell<M: GuestMemory>(&mut self, memory: &M) -> Result<(), Error> {
        let wants = std::mem::take(&mut self.told_late) && self.queue.needs_notification(memory)?;
        if std::mem::take(&mut self.greets) || wants {
            ring(self.call.as_ref());
        }
        Ok(())
    }

    /// It is not served any more. The guest is told of what was answered before, without asking its memory whether it
    /// wants to hear.
    pub fn stop(&mut self) {
        self.stopped = true;
        if std::mem::take(&mut self.told_late) {
            ring(self.call.as_ref());
        }
        self.redo.clear();
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
