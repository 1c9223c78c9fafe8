//! Memory that a front end must not share.

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
fn only_memory_is_taken_for_memory() {
    let other = File::open("/proc/self/maps").unwrap();
    let why = refused(&mut Memory::default(), 0, 4096, other);
    assert_eq!(why, "a region of memory is a file on neither tmpfs nor hugetlbfs");
    // Where there are no huge pages, nothing is tried with them.
    let Ok(huge) = memfd_create("huge", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB) else { return };
    let why = refused(&mut Memory::default(), 0, 4096, File::from(huge));
    assert_eq!(why, "a region of huge pages has part of one");
}
