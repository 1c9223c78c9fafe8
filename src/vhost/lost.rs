//! Memory that a front end has taken back.
//!
//! A front end shares its memory as a file, and can make that file shorter while it is mapped here. Whoever touches a
//! page that the file has no more gets SIGBUS, which would end the process, and every other disk with it. The same
//! signal comes where the kernel has no page left for the file. So the mappings are written down, and the handler of
//! the signal puts a page of zeros in the place of one that was hit. What the thread reads and writes there from then
//! on is nobody's, and it lets go of the front end when it next looks, which is before the next request. Only the page
//! is replaced: memory for all of a machine's would count against what this process may have.
//!
//! One thread maps the memory of a front end, touches it and lets go of it. The signal comes to the thread that touched
//! the page. So each thread has a list of its own: nobody else changes it while the handler reads it, and a
//! [`Guarded`] cannot leave its thread.

use std::io;
use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::memory::REGIONS_MAX;

/// Mappings of one thread: those that a front end may have, as many that take their place, and the two areas for
/// requests under way that belong to these.
const MAPPINGS_MAX: usize = 2 * REGIONS_MAX + 2;

/// A mapping. The signal handler interrupts the thread that owns it, so the fields are atomics.
struct Slot {
    /// First byte; 0 while there is no mapping here.
    start: AtomicUsize,
    len: AtomicUsize,
    /// Bytes of one page of it.
    page: AtomicUsize,
    lost: AtomicBool,
}

const FREE: usize = 0;

thread_local! {
    // Nothing is made when it is first used and nothing ends with the thread: a signal handler may read it.
    static SLOTS: [Slot; MAPPINGS_MAX] = const {
        [const {
            Slot {
                start: AtomicUsize::new(FREE),
                len: AtomicUsize::new(0),
                page: AtomicUsize::new(0),
                lost: AtomicBool::new(false),
            }
        }; MAPPINGS_MAX]
    };
}

/// A mapping that is written down. It has to be dropped before the mapping goes.
#[derive(Debug)]
pub struct Guarded {
    /// Its place in the list of the thread.
    number: usize,
    /// It stays on the thread.
    here: PhantomData<*mut u8>,
}

impl Guarded {
    /// Writes a mapping down, which begins and ends with a page of so many bytes. Only this thread may touch it.
    pub fn new(start: *mut u8, len: usize, page: usize) -> io::Result<Self> {
        install()?;
        // The daemon's own memory is kept from being paged out, the front end's is the front end's. Where it cannot be
        // told apart it is kept as well.
        // SAFETY: the range is a mapping; what is in it stays as it is.
        let _ = unsafe { libc::munlock(start.cast(), len) };
        SLOTS.with(|slots| {
            let free = |slot: &Slot| slot.start.load(Ordering::Relaxed) == FREE;
            let number = slots.iter().position(free);
            let number = number.ok_or_else(|| io::Error::other("too many mappings of memory"))?;
            let slot = &slots[number];
            slot.lost.store(false, Ordering::Relaxed);
            slot.page.store(page, Ordering::Relaxed);
            slot.len.store(len, Ordering::Relaxed);
            slot.start.store(start.expose_provenance(), Ordering::Release);
            Ok(Self { number, here: PhantomData })
        })
    }

    /// Whether some of it was taken back.
    pub fn is_lost(&self) -> bool {
        SLOTS.with(|slots| slots[self.number].lost.load(Ordering::Acquire))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        SLOTS.with(|slots| slots[self.number].start.store(FREE, Ordering::Release));
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

/// The handler of SIGBUS. For an address that is none of ours the process ends as it did before.
extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid pointer. Only where the kernel itself has sent the
    // signal, which its code says, there is an address.
    let at = unsafe { if (*info).si_code > 0 { (*info).si_addr().addr() } else { FREE } };
    if !replace(at) {
        // SAFETY: both may be called here. The signal is blocked while the handler runs, and ends the process then.
        unsafe {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            libc::raise(libc::SIGBUS);
        }
    }
}

/// Puts zeros in the place of the page that has this address, if it is of a mapping of this thread.
fn replace(at: usize) -> bool {
    SLOTS.with(|slots| {
        // Nothing here changes meanwhile: the thread that could is the one that was interrupted.
        let hit = slots.iter().find(|slot| {
            let start = slot.start.load(Ordering::Acquire);
            start != FREE && at >= start && at - start < slot.len.load(Ordering::Relaxed)
        });
        let Some(slot) = hit else { return false };
        slot.lost.store(true, Ordering::Release);
        let page = slot.page.load(Ordering::Relaxed).max(1);
        let start = ptr::with_exposed_provenance_mut(at / page * page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping is of whole pages and is written down from when it is made until it goes, so this replaces
        // a page of it and of no other one.
        while unsafe { libc::mmap(start, page, protection, flags, -1, 0) } == libc::MAP_FAILED {
            // There is no page to be had. The thread rests, as one that waits for a page that never comes, and the rest
            // of the process goes on.
            // SAFETY: it takes nothing and returns after a signal.
            unsafe { libc::pause() };
        }
        true
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::thread;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use vm_memory::{FileOffset, MmapRegion};

    use super::*;

    const PAGE: usize = 4096;

    fn mapped(len: usize) -> (File, MmapRegion) {
        let file = File::from(memfd_create("taken back", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(len as u64).unwrap();
        let region = MmapRegion::<()>::from_file(FileOffset::new(file.try_clone().unwrap(), 0), len).unwrap();
        (file, region)
    }

    fn byte(region: &MmapRegion, at: usize) -> u8 {
        assert!(at < region.size());
        // SAFETY: it is within the mapping.
        unsafe { region.as_ptr().add(at).read_volatile() }
    }

    fn set(region: &MmapRegion, at: usize, byte: u8) {
        assert!(at < region.size());
        // SAFETY: as above.
        unsafe { region.as_ptr().add(at).write_volatile(byte) };
    }

    #[test]
    fn memory_that_is_taken_back_reads_as_zeros() {
        let (file, region) = mapped(2 * PAGE);
        let guarded = Guarded::new(region.as_ptr(), 2 * PAGE, PAGE).unwrap();
        set(&region, 8191, 9);
        assert_eq!((byte(&region, 0), byte(&region, 8191), guarded.is_lost()), (0, 9, false));
        file.set_len(0).unwrap();
        assert_eq!((byte(&region, 5000), guarded.is_lost()), (0, true));
        set(&region, 0, 7);
        assert_eq!((byte(&region, 0), byte(&region, 8191)), (7, 0), "nobody's memory");
        assert_eq!((byte(&region, 1), byte(&region, 4097)), (0, 0));
        let number = guarded.number;
        drop(guarded);
        let other = Guarded::new(region.as_ptr(), 2 * PAGE, PAGE).unwrap();
        assert_eq!((other.number, other.is_lost()), (number, false), "the slot is used again");
    }

    /// Many threads take slots and give them back while others lose their memory: nobody loses another one's.
    #[test]
    fn a_thread_loses_its_own_memory_only() {
        let threads = (0..8).map(|number: u8| {
            thread::spawn(move || {
                for round in 0..100 {
                    let (file, region) = mapped(4 * PAGE);
                    let (_, other) = mapped(PAGE);
                    let guards =
                        [&region, &other].map(|one| Guarded::new(one.as_ptr(), one.size(), PAGE).unwrap());
                    set(&other, 0, number + 1);
                    let takes_back = round % 2 == usize::from(number) % 2;
                    if takes_back {
                        file.set_len(0).unwrap();
                    }
                    set(&region, 2 * PAGE, 5);
                    assert_eq!(byte(&region, 2 * PAGE), 5);
                    assert_eq!(guards.each_ref().map(Guarded::is_lost), [takes_back, false]);
                    assert_eq!(byte(&other, 0), number + 1);
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_thread_has_room_for_the_mappings_of_two_tables_of_memory() {
        let (_, region) = mapped(PAGE);
        let guard = || Guarded::new(region.as_ptr(), PAGE, PAGE);
        let mut all: Vec<Guarded> = (0..MAPPINGS_MAX).map(|_| guard().unwrap()).collect();
        assert!(guard().is_err());
        all.pop();
        assert!(guard().is_ok());
        thread::scope(|scope| {
            let start = region.as_ptr().expose_provenance();
            let guard = move || Guarded::new(ptr::with_exposed_provenance_mut(start), PAGE, PAGE).is_ok();
            assert!(scope.spawn(guard).join().unwrap(), "another thread has a list of its own");
        });
    }

    /// What the kernel says of the mapping that begins there: among others `lo` where it is kept from being paged out.
    fn flags(region: &MmapRegion) -> Option<Vec<String>> {
        let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let start = format!("{:x}-", region.as_ptr().addr());
        let mut own = maps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = own.find_map(|line| line.strip_prefix("VmFlags:"))?;
        Some(flags.split_whitespace().map(String::from).collect())
    }

    #[test]
    fn the_memory_of_a_front_end_may_be_paged_out() {
        let (_, region) = mapped(4 * PAGE);
        // As all memory of a daemon that has called mlockall(2). Where it may not, there is nothing to be seen.
        // SAFETY: the range is a mapping; what is in it stays as it is.
        let locked = unsafe { libc::mlock(region.as_ptr().cast(), region.size()) };
        let is_locked = || flags(&region).is_some_and(|flags| flags.iter().any(|flag| flag == "lo"));
        if locked != 0 || !is_locked() {
            return;
        }
        let _guarded = Guarded::new(region.as_ptr(), region.size(), PAGE).unwrap();
        assert!(!is_locked());
    }

    #[test]
    fn huge_pages_that_are_taken_back_read_as_zeros() {
        const HUGE: usize = 2 << 20;
        // The file has no page, and none can be had: the same signal.
        let file =
            memfd_create("huge", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB);
        let Ok(file) = file.map(File::from) else { return };
        file.set_len(4 * HUGE as u64).unwrap();
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: a new mapping, which nobody else knows.
        let start = unsafe { libc::mmap(ptr::null_mut(), 4 * HUGE, protection, flags, fd, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        let guarded = Guarded::new(start.cast(), 4 * HUGE, HUGE).unwrap();
        file.set_len(0).unwrap();
        // SAFETY: it is within the mapping.
        let read = unsafe { start.cast::<u8>().add(3 * HUGE + 5).read_volatile() };
        assert_eq!((read, guarded.is_lost()), (0, true));
        drop(guarded);
        // SAFETY: nobody has a pointer into it any more.
        unsafe { libc::munmap(start, 4 * HUGE) };
    }

    #[test]
    fn another_fault_ends_the_process_as_before() {
        const INNER: &str = "AOEFS_TEST_INNER";
        if std::env::var_os(INNER).is_none() {
            let mut own = Command::new(std::env::current_exe().unwrap());
            own.args(["--exact", "vhost::lost::tests::another_fault_ends_the_process_as_before"])
                .env(INNER, "1");
            return assert_eq!(own.output().unwrap().status.signal(), Some(libc::SIGBUS));
        }
        let (_, own) = mapped(PAGE);
        let _guarded = Guarded::new(own.as_ptr(), PAGE, PAGE).unwrap();
        let (file, region) = mapped(PAGE);
        file.set_len(0).unwrap();
        byte(&region, 0);
    }
}
