//! Memory that a front end must not share.

use vm_memory::{GuestMemory, Permissions};

use super::super::inflight::{self, Area};
use super::super::memory::{Memory, REGIONS_MAX};
use super::*;

fn file(len: u64) -> File {
    let file = File::from(memfd_create("shared", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

/// Why one region more is refused. Each has a place of its own.
fn refused(memory: &mut Memory, index: u64, len: u64, file: File) -> String {
    let region = VhostUserMemoryRegion::new(index << 41, len, USER + (index << 41), 0);
    memory.add(&region, file).map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn there_is_an_end_to_regions_and_to_their_bytes() {
    let mut memory = Memory::default();
    assert_eq!(REGIONS_MAX, 64);
    assert_eq!(refused(&mut memory, 0, 4096, file(4096)), "");
    let much = 1 << 40;
    assert_eq!(refused(&mut memory, 1, much, file(much)), "it shares too much memory");
    assert_eq!(refused(&mut memory, 1, u64::MAX, file(4096)), "it shares too much memory");
    for index in 1..REGIONS_MAX as u64 {
        assert_eq!(refused(&mut memory, index, 4096, file(4096)), "", "{index}");
    }
    assert_eq!(refused(&mut memory, 64, 4096, file(4096)), "too many regions of memory");
}

#[test]
fn an_address_leads_to_its_bytes_whichever_region_was_looked_at_before() {
    let mut memory = Memory::default();
    // Two regions side by side, one apart.
    let places = [(0x1000, 0x2000), (0x3000, 0x1000), (0x10000, 0x1000)];
    for (at, len) in places {
        let region = VhostUserMemoryRegion::new(at, len, USER + at, 0);
        memory.add(&region, file(len)).unwrap();
    }
    let has = |memory: &Memory, at, len| memory.guest().check_range(GuestAddress(at), len, Permissions::Read);
    for (at, len, there) in [
        (0x1000, 0x3000, true),
        (0xfff, 1, false),
        (0x3fff, 1, true),
        (0x3fff, 2, false),
        (0x10000, 0x1000, true),
        (0x10fff, 2, false),
        (0x4000, 1, false),
        (u64::MAX, 2, false),
        (0x2fff, 2, true),
    ] {
        assert_eq!(has(&memory, at, len), there, "{at:#x} {len}");
        let guest = memory.guest().clone();
        let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        assert_eq!(guest.write_slice(&bytes, GuestAddress(at)).is_ok(), there, "{at:#x} {len}");
        if there {
            let mut found = vec![0; len];
            guest.read_slice(&mut found, GuestAddress(at)).unwrap();
            assert_eq!(found, bytes, "{at:#x} {len}");
        }
    }
    // The places of numbers that are read and written at once.
    let guest = memory.guest().clone();
    guest.store(0x0102_0304u32, GuestAddress(0x10ffc), Ordering::Relaxed).unwrap();
    assert_eq!(guest.load::<u32>(GuestAddress(0x10ffc), Ordering::Relaxed).unwrap(), 0x0102_0304);
    assert!(guest.load::<u32>(GuestAddress(0x10ffe), Ordering::Relaxed).is_err());
    assert!(guest.read_slice(&mut [], GuestAddress(0x9000)).is_ok(), "no bytes are anywhere");
    // One that goes is gone, also where it was the last that was found.
    memory.remove(&VhostUserMemoryRegion::new(0x10000, 0x1000, USER + 0x10000, 0)).unwrap();
    assert!(!has(&memory, 0x10000, 1) && has(&memory, 0x1000, 0x3000));
    assert!(memory.guest().read_slice(&mut [0], GuestAddress(0x10000)).is_err());
}

#[test]
fn only_memory_is_taken_for_memory() {
    let other = File::open("/proc/self/maps").unwrap();
    let why = refused(&mut Memory::default(), 0, 4096, other);
    const NEITHER: &str = "a region of memory is a file on neither tmpfs nor hugetlbfs";
    assert_eq!(why, NEITHER);
    // What lies in a file system of memory is not all memory.
    let device = File::options().read(true).write(true).open("/dev/zero").unwrap();
    assert_eq!(refused(&mut Memory::default(), 0, 4096, copy(&device)), NEITHER);
    let (about, _) = inflight::make(1, ENTRIES, &origin()).unwrap();
    assert_eq!(Area::map(&about, device).err().unwrap().to_string(), NEITHER);
    // Where there are no huge pages, nothing is tried with them.
    let Ok(huge) = memfd_create("huge", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB) else { return };
    let why = refused(&mut Memory::default(), 0, 4096, File::from(huge));
    assert_eq!(why, "a region of huge pages has part of one");
}
