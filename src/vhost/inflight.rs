//! Which requests of a front end's queues are under way, in memory that the front end keeps for us.
//!
//! The memory is a file that is made here and that the front end gives back after it has connected again, to this
//! daemon or to the next one. So exactly the requests that were taken and not answered are done again, also where
//! answers overtook each other, and where the front end does not know how far its queue was read. The format is the one
//! of the specification of vhost-user for split queues.
//!
//! Behind the queues it says which disk their requests are for.
//!
//! What is in it is the front end's word, as everything in its memory is: a wrong one does harm to its own guest only.
//! A daemon may be killed between any two stores here; the order of these is the format's, and compilers keep it
//! because each is a release.

use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::TMPFS_MAGIC;
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{AtomicAccess, Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::lost::Guarded;
use super::origin::Origin;
use super::{ENTRIES_MAX, QUEUES_MAX, memory};

/// Bytes of the head of a queue's part, and of the state of one entry.
const HEAD: usize = 16;
const STATE: usize = 16;

/// Bytes that a part begins at a multiple of: a cache line.
const ALIGN: usize = 64;

/// The version of the format.
const VERSION: u16 = 1;

/// Bytes of a page of a file on tmpfs.
const PAGE: usize = 4096;

// Where fields are: in the head of a part,
const VERSION_AT: usize = 8;
const ENTRIES_AT: usize = 10;
/// the head that was answered last,
const LAST_AT: usize = 12;
/// and how far the used ring was then;
const USED_AT: usize = 14;
// in a state: whether the request of that head is under way,
const UNDER_WAY_AT: usize = 0;
/// and a number that is larger than those of all requests before it.
const COUNTER_AT: usize = 8;

/// Bytes of one queue's part of an area for so many queues of so many entries, or the front end's wish is none.
fn part_len(queues: u16, entries: u16) -> io::Result<usize> {
    let fits = (1..=QUEUES_MAX).contains(&usize::from(queues)) && (1..=ENTRIES_MAX).contains(&entries);
    match fits {
        true => Ok((HEAD + usize::from(entries) * STATE).next_multiple_of(ALIGN)),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "an area for no such queues")),
    }
}

/// Makes the memory, with nothing of that disk under way, and says how long it is.
pub fn make(queues: u16, entries: u16, origin: &Origin) -> io::Result<(VhostUserInflight, File)> {
    let part = part_len(queues, entries)?;
    let len = part * usize::from(queues) + Origin::BYTES;
    let file = File::from(memfd_create("aoefs requests under way", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(len as u64)?;
    let about = VhostUserInflight::new(len as u64, 0, queues, entries);
    let area = Area::map(&about, file.try_clone()?)?;
    for queue in 0..usize::from(queues) {
        area.put(queue * part + VERSION_AT, VERSION);
        area.put(queue * part + ENTRIES_AT, entries);
    }
    for (at, byte) in (part * usize::from(queues)..).zip(origin.to_bytes()) {
        area.put(at, byte);
    }
    Ok((about, file))
}

/// The memory, mapped.
pub struct Area {
    // Dropped first: what is guarded has to be mapped.
    guarded: Guarded,
    region: MmapRegion,
    /// Bytes of each queue's part.
    part: usize,
    queues: u16,
    entries: u16,
    /// Of which disk the requests are, where it says that.
    origin: Option<Origin>,
}

impl Area {
    /// What the front end gives back.
    pub fn map(about: &VhostUserInflight, file: File) -> io::Result<Rc<Self>> {
        let (queues, entries) = (about.num_queues, about.queue_size);
        let part = part_len(queues, entries)?;
        let len = part * usize::from(queues);
        if about.mmap_size < len as u64 || memory::kind_of(&file)?.0 != TMPFS_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an area that was not made here"));
        }
        // One that was made elsewhere ends with the last queue's part.
        let says = about.mmap_size >= (len + Origin::BYTES) as u64;
        let all = if says { len + Origin::BYTES } else { len };
        let region = MmapRegion::from_file(FileOffset::new(file, about.mmap_offset), all);
        let region = region.map_err(io::Error::other)?;
        let guarded = Guarded::new(region.as_ptr(), region.size(), PAGE)?;
        let mut area = Self { guarded, region, part, queues, entries, origin: None };
        if says {
            area.origin = Origin::from_bytes(&std::array::from_fn(|n| area.get(len + n)));
        }
        Ok(Rc::new(area))
    }

    /// Of which disk the requests are, where it says that.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Whether the front end has made the file shorter.
    pub fn is_lost(&self) -> bool {
        self.guarded.is_lost()
    }

    /// Places are within the area, and aligned: they are made of the numbers that it was made with.
    fn put<T: AtomicAccess>(&self, at: usize, value: T) {
        let all = self.region.as_volatile_slice();
        if let Err(error) = all.store(value, at, Ordering::Release) {
            log::error!("requests under way, byte {at}: {error}");
        }
    }

    fn get<T: AtomicAccess + Default>(&self, at: usize) -> T {
        let all = self.region.as_volatile_slice();
        all.load(at, Ordering::Acquire).unwrap_or_default()
    }
}

/// The part of one queue.
pub struct Record {
    area: Rc<Area>,
    /// Its first byte.
    at: usize,
    /// The number of the next request.
    counter: u64,
}

impl Record {
    /// The part of that queue, if there is one for a queue of so many entries.
    pub fn of(area: &Rc<Area>, queue: usize, entries: u16) -> Option<Self> {
        let fits = queue < usize::from(area.queues) && entries <= area.entries;
        fits.then(|| Self { area: area.clone(), at: queue * area.part, counter: 0 })
    }

    fn state(&self, head: u16) -> Option<usize> {
        (head < self.area.entries).then(|| self.at + HEAD + usize::from(head) * STATE)
    }

    fn under_way(&self, head: u16, whether: bool) {
        if let Some(state) = self.state(head) {
            self.area.put(state + UNDER_WAY_AT, u8::from(whether));
        }
    }

    /// The heads that are under way, in the order in which they were taken. The used ring is at `used`: where it is
    /// further than is written here, whoever wrote this was killed while it answered the last one.
    pub fn resume(&mut self, used: u16) -> Vec<u16> {
        if self.area.get::<u16>(self.at + USED_AT) != used {
            self.under_way(self.area.get(self.at + LAST_AT), false);
            self.area.put(self.at + USED_AT, used);
        }
        let states = (0..self.area.entries).filter_map(|head| Some((head, self.state(head)?)));
        let states = states.filter(|(_, state)| self.area.get::<u8>(state + UNDER_WAY_AT) == 1);
        let mut found: Vec<(u64, u16)> =
            states.map(|(head, state)| (self.area.get(state + COUNTER_AT), head)).collect();
        found.sort_unstable();
        self.counter = found.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        found.into_iter().map(|(_, head)| head).collect()
    }

    /// A request is taken.
    pub fn begin(&mut self, head: u16) {
        if let Some(state) = self.state(head) {
            self.area.put(state + COUNTER_AT, self.counter);
            self.counter = self.counter.wrapping_add(1);
            self.under_way(head, true);
        }
    }

    /// It is about to be put in the used ring.
    pub fn ending(&self, head: u16) {
        self.area.put(self.at + LAST_AT, head);
    }

    /// It is there, and the used ring is at `used` now.
    pub fn ended(&self, head: u16, used: u16) {
        self.under_way(head, false);
        self.area.put(self.at + USED_AT, used);
    }

    /// Nothing is under way: the queue was stopped by its front end.
    pub fn clear(&self) {
        (0..self.area.entries).for_each(|head| self.under_way(head, false));
    }
}
