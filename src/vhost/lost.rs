//! Memory that a front end has taken back.
//!
//! A front end shares its memory as a file, and can make that file shorter while it is mapped here. Whoever touches a
//! page that the file has no more gets SIGBUS, which would end the process, and every other disk with it. So the
//! mappings are written down, and the handler of the signal puts zeros in the place of one that was hit. What the
//! thread reads and writes there from then on is nobody's, and it lets go of the front end when it next looks.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Mappings that all front ends together may have. A machine has one to eight, and more only if memory is plugged in.
const MAPPINGS_MAX: usize = 1024;

/// A mapping, for the signal handler: it may take no lock.
struct Slot {
    /// First byte; 0 while nobody has the slot, 1 while it is being filled.
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

const FREE: usize = 0;
const TAKEN: usize = 1;

static SLOTS: [Slot; MAPPINGS_MAX] = [const {
    Slot { start: AtomicUsize::new(FREE), len: AtomicUsize::new(0), lost: AtomicBool::new(false) }
}; MAPPINGS_MAX];

/// A mapping that is written down. It has to be dropped before the mapping goes.
#[derive(Debug)]
pub struct Guarded(usize);

impl Guarded {
    /// Writes a mapping down.
    pub fn new(start: *mut u8, len: usize) -> io::Result<Self> {
        install()?;
        let free =
            |slot: &Slot| slot.start.compare_exchange(FREE, TAKEN, Ordering::AcqRel, Ordering::Relaxed);
        let number = SLOTS.iter().position(|slot| free(slot).is_ok());
        let number = number.ok_or_else(|| io::Error::other("too many mappings of memory"))?;
        // The daemon's own memory is kept from being paged out, the front end's is the front end's. Where it cannot be
        // told apart it is kept as well.
        // SAFETY: the range is a mapping; what is in it stays as it is.
        let _ = unsafe { libc::munlock(start.cast(), len) };
        let slot = &SLOTS[number];
        slot.lost.store(false, Ordering::Relaxed);
        slot.len.store(len, Ordering::Relaxed);
        slot.start.store(start.addr(), Ordering::Release);
        Ok(Self(number))
    }

    /// Whether some of it was taken back.
    pub fn is_lost(&self) -> bool {
        SLOTS[self.0].lost.load(Ordering::Acquire)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        SLOTS[self.0].start.store(FREE, Ordering::Release);
    }
}

/// Sets the handler, once for the process.
fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    let set = || {
        // SAFETY: all zeros are a valid sigaction, and the handler does only what a handler may do: it reads atomics
        // and makes system calls.
        let set = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &action, ptr::null_mut())
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)) }
    };
    DONE.get_or_init(set).map_err(io::Error::from_raw_os_error)
}

/// The handler of SIGBUS. For an address that is none of ours the signal does what it did before.
extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid pointer, and SIGBUS has an address.
    let at = unsafe { (*info).si_addr() }.addr();
    let hit = SLOTS.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > TAKEN && at >= start && at - start < slot.len.load(Ordering::Relaxed)
    });
    let Some(slot) = hit else {
        // SAFETY: the default action is taken when the instruction is tried again.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        return;
    };
    slot.lost.store(true, Ordering::Release);
    let start = ptr::with_exposed_provenance_mut(slot.start.load(Ordering::Acquire));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the slot is free before its mapping goes, so this replaces that mapping and no other; all of it, since
    // its pages may be of any size.
    let mapped = unsafe { libc::mmap(start, slot.len.load(Ordering::Relaxed), protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        // SAFETY: as above; there is nothing left to go on with.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use vm_memory::{FileOffset, MmapRegion};

    use super::*;

    #[test]
    fn memory_that_is_taken_back_reads_as_zeros() {
        let file = File::from(memfd_create("taken back", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(8192).unwrap();
        let region =
            MmapRegion::<()>::from_file(FileOffset::new(file.try_clone().unwrap(), 0), 8192).unwrap();
        let guarded = Guarded::new(region.as_ptr(), 8192).unwrap();
        // SAFETY: both bytes are within the mapping.
        let byte = |n| unsafe { region.as_ptr().add(n).read_volatile() };
        assert_eq!((byte(0), byte(8191), guarded.is_lost()), (0, 0, false));
        file.set_len(0).unwrap();
        assert_eq!((byte(5000), guarded.is_lost()), (0, true));
        // SAFETY: as above.
        unsafe { region.as_ptr().write_volatile(7) };
        assert_eq!(byte(0), 7, "nobody's memory");
        let number = guarded.0;
        drop(guarded);
        let other = Guarded::new(region.as_ptr(), 8192).unwrap();
        assert_eq!((other.0, other.is_lost()), (number, false), "the slot is used again");
    }
}
