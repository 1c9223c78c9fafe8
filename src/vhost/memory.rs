//! The memory of a front end, as far as it has shared it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

use super::lost::Guarded;

/// Regions that a front end may share: twice what QEMU uses of itself.
pub const REGIONS_MAX: usize = 64;

/// Bytes that all of them may have: 1 TiB. What is mapped is nobody's memory yet, but has its place among addresses.
const BYTES_MAX: u64 = 1 << 40;

/// A region by the three names of its place.
#[derive(Debug)]
struct Place {
    /// Where the guest has it.
    guest: u64,
    /// Where the front end has it.
    user: u64,
    /// Bytes.
    len: u64,
    /// Told when the front end takes it back.
    guarded: Guarded,
}

/// See the module.
#[derive(Default)]
pub struct Memory {
    // Dropped first: what is guarded has to be mapped.
    places: Vec<Place>,
    guest: Arc<GuestMemoryMmap>,
}

fn unfit(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_string())
}

/// Only memory is taken. A page of another file may have to be asked of somebody who does not answer, and whoever waits
/// for that holds up others who change what is mapped in this process. Huge pages are mapped whole. Returns the bytes
/// of a page.
fn check_file(region: &VhostUserMemoryRegion, file: &File) -> io::Result<usize> {
    let about = fstatfs(file)?;
    let kind = about.filesystem_type();
    let page = u64::try_from(about.block_size()).unwrap_or(0).max(1);
    if kind == HUGETLBFS_MAGIC
        && !(region.memory_size.is_multiple_of(page) && region.mmap_offset.is_multiple_of(page))
    {
        return Err(unfit("a region of huge pages has part of one"));
    }
    match kind == TMPFS_MAGIC || kind == HUGETLBFS_MAGIC {
        true => usize::try_from(page).map_err(unfit),
        false => Err(unfit("a region of memory is a file on neither tmpfs nor hugetlbfs")),
    }
}

impl Memory {
    /// What the guest's addresses lead to.
    pub fn guest(&self) -> &Arc<GuestMemoryMmap> {
        &self.guest
    }

    /// All that there is now, in place of what was there.
    pub fn replace(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> io::Result<()> {
        let mut next = Self::default();
        for (region, file) in regions.iter().zip(files) {
            next.add(region, file)?;
        }
        *self = next;
        Ok(())
    }

    /// Whether the front end has taken some of it back: what is there now is nobody's.
    pub fn is_lost(&self) -> bool {
        self.places.iter().any(|place| place.guarded.is_lost())
    }

    /// One region more.
    pub fn add(&mut self, region: &VhostUserMemoryRegion, file: File) -> io::Result<()> {
        let (at, user, len) = (region.guest_phys_addr, region.user_addr, region.memory_size);
        if self.places.len() >= REGIONS_MAX {
            return Err(unfit("too many regions of memory"));
        }
        let all = self.places.iter().fold(len, |all, place| all.saturating_add(place.len));
        if all > BYTES_MAX {
            return Err(unfit("it shares too much memory"));
        }
        let page = check_file(region, &file)?;
        let mapped = region.mmap_region(file).map_err(unfit)?;
        let mapped = GuestRegionMmap::new(mapped, GuestAddress(at));
        let mapped = Arc::new(mapped.ok_or_else(|| unfit("a region without an end"))?);
        let guarded = Guarded::new(mapped.as_ptr(), mapped.size(), page)?;
        self.guest = Arc::new(self.guest.insert_region(mapped.clone()).map_err(unfit)?);
        self.places.push(Place { guest: at, user, len, guarded });
        Ok(())
    }

    /// One region less.
    pub fn remove(&mut self, region: &VhostUserMemoryRegion) -> io::Result<()> {
        let at = GuestAddress(region.guest_phys_addr);
        let known = self.guest.find_region(at).is_some_and(|known| known.start_addr() == at);
        if !known {
            return Err(unfit("no such region of memory"));
        }
        let (guest, _) = self.guest.remove_region(at, region.memory_size).map_err(unfit)?;
        self.places.retain(|place| place.guest != region.guest_phys_addr);
        self.guest = Arc::new(guest);
        Ok(())
    }

    /// The guest's address of what the front end has at one of its own.
    pub fn guest_address(&self, user: u64) -> Option<u64> {
        let place = self.places.iter().find(|place| user >= place.user && user - place.user < place.len)?;
        Some(place.guest + (user - place.user))
    }
}
