//! The memory of a front end, as far as it has shared it.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::iter::FusedIterator;
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::statfs::{FsType, HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::guest_memory::{GuestMemoryBackendSliceIterator, GuestMemorySliceIterator, Result as Access};
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress, Permissions, VolatileSlice,
};

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
    guest: Rc<Guest>,
}

/// What the guest's addresses lead to.
///
/// A request looks into it twenty times, and nearly all of these places are in one region. So the region that was found
/// last is tried first, and what lies in one region is one slice, with no search for what comes behind it.
#[derive(Default)]
pub struct Guest {
    all: GuestMemoryMmap,
    /// The same regions, and which of them was found last.
    regions: Vec<Arc<GuestRegionMmap>>,
    last: Cell<usize>,
}

impl Guest {
    fn new(all: GuestMemoryMmap, regions: Vec<Arc<GuestRegionMmap>>) -> Self {
        Self { all, regions, last: Cell::new(0) }
    }

    /// So many bytes from there, if one region has them all.
    fn slice(&self, at: GuestAddress, count: usize) -> Option<VolatileSlice<'_>> {
        let last = self.regions.get(self.last.get())?;
        within(last, at, count).or_else(|| {
            let found = |(index, region)| Some((index, within(region, at, count)?));
            let (index, slice) = self.regions.iter().enumerate().find_map(found)?;
            self.last.set(index);
            Some(slice)
        })
    }
}

/// So many bytes from there, if this region has them all.
fn within(region: &Arc<GuestRegionMmap>, at: GuestAddress, count: usize) -> Option<VolatileSlice<'_>> {
    let offset = at.0.checked_sub(region.start_addr().0)?;
    region.get_slice(MemoryRegionAddress(offset), count).ok()
}

impl GuestMemory for Guest {
    type PhysicalMemory = GuestMemoryMmap;
    type Bitmap = ();

    fn check_range(&self, at: GuestAddress, count: usize, access: Permissions) -> bool {
        self.slice(at, count).is_some() || GuestMemory::check_range(&self.all, at, count, access)
    }

    fn get_slices<'a>(
        &'a self,
        at: GuestAddress,
        count: usize,
        _: Permissions,
    ) -> Access<impl GuestMemorySliceIterator<'a, ()>> {
        // Of no bytes there is no slice.
        Ok(match self.slice(at, count).filter(|_| count > 0) {
            Some(one) => Slices::One(Some(one)),
            None => Slices::Many(GuestMemoryBackend::get_slices(&self.all, at, count)),
        })
    }
}

/// Memory of the guest, slice by slice.
enum Slices<'a> {
    One(Option<VolatileSlice<'a>>),
    Many(GuestMemoryBackendSliceIterator<'a, GuestMemoryMmap>),
}

impl<'a> Iterator for Slices<'a> {
    type Item = Access<VolatileSlice<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::One(one) => one.take().map(Ok),
            Self::Many(many) => many.next(),
        }
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {
    fn stop_on_error(mut self) -> Access<impl Iterator<Item = VolatileSlice<'a>>> {
        let first = self.next().transpose()?;
        Ok(first.into_iter().chain(self.map_while(Access::ok)))
    }
}

fn unfit(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.to_string())
}

/// Only memory is taken: which kind it is, and bytes of a page. A page of another file may have to be asked of somebody
/// who does not answer, and whoever waits for that holds up others who change what is mapped in this process. A device
/// is no memory, though its name may lie in a file system that is.
pub fn kind_of(file: &File) -> io::Result<(FsType, u64)> {
    let about = fstatfs(file)?;
    let kind = about.filesystem_type();
    match file.metadata()?.is_file() && (kind == TMPFS_MAGIC || kind == HUGETLBFS_MAGIC) {
        true => Ok((kind, u64::try_from(about.block_size()).unwrap_or(0).max(1))),
        false => Err(unfit("a region of memory is a file on neither tmpfs nor hugetlbfs")),
    }
}

/// Huge pages are mapped whole. Returns the bytes of a page.
fn check_file(region: &VhostUserMemoryRegion, file: &File) -> io::Result<usize> {
    let (kind, page) = kind_of(file)?;
    if kind == HUGETLBFS_MAGIC
        && !(region.memory_size.is_multiple_of(page) && region.mmap_offset.is_multiple_of(page))
    {
        return Err(unfit("a region of huge pages has part of one"));
    }
    usize::try_from(page).map_err(unfit)
}

impl Memory {
    /// What the guest's addresses lead to.
    pub fn guest(&self) -> &Rc<Guest> {
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
        let guest = self.guest.all.insert_region(mapped.clone()).map_err(unfit)?;
        let mut regions = self.guest.regions.clone();
        regions.push(mapped);
        self.guest = Rc::new(Guest::new(guest, regions));
        self.places.push(Place { guest: at, user, len, guarded });
        Ok(())
    }

    /// One region less.
    pub fn remove(&mut self, region: &VhostUserMemoryRegion) -> io::Result<()> {
        let at = GuestAddress(region.guest_phys_addr);
        let known = self.guest.all.find_region(at).is_some_and(|known| known.start_addr() == at);
        if !known {
            return Err(unfit("no such region of memory"));
        }
        let (guest, gone) = self.guest.all.remove_region(at, region.memory_size).map_err(unfit)?;
        self.places.retain(|place| place.guest != region.guest_phys_addr);
        let mut regions = self.guest.regions.clone();
        regions.retain(|region| !Arc::ptr_eq(region, &gone));
        self.guest = Rc::new(Guest::new(guest, regions));
        Ok(())
    }

    /// The guest's address of what the front end has at one of its own.
    pub fn guest_address(&self, user: u64) -> Option<u64> {
        let place = self.places.iter().find(|place| user >= place.user && user - place.user < place.len)?;
        Some(place.guest + (user - place.user))
    }
}
