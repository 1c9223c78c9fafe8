//! Asynchronous I/O by system calls alone: libaio's (io_submit(2)) and io_uring's.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Requests that are out at once at most.
pub const DEPTH: usize = 16;

/// One read or write of a batch. The memory must live until the batch is done.
pub struct Item {
    pub fd: i32,
    pub offset: u64,
    pub at: *mut u8,
    pub len: usize,
    pub write: bool,
}

/// Does all of a batch (at most DEPTH) at once and waits for all of it: what each call would have returned, or minus
/// the errno.
pub trait Queue {
    fn run(&mut self, batch: &[Item]) -> io::Result<Vec<i64>>;
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A context of io_setup(2). It ends with the process.
pub struct Aio(libc::c_ulong);

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    at: u64,
    len: u64,
    offset: u64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    request: u64,
    result: i64,
    more: i64,
}

impl Aio {
    pub fn new() -> io::Result<Self> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one number, which lives through the call.
        check(unsafe { libc::syscall(libc::SYS_io_setup, DEPTH, &raw mut context) })?;
        Ok(Self(context))
    }
}

impl Queue for Aio {
    fn run(&mut self, batch: &[Item]) -> io::Result<Vec<i64>> {
        const PREAD: u16 = 0;
        const PWRITE: u16 = 1;
        let mut requests: Vec<Iocb> = (0..)
            .zip(batch)
            .map(|(data, item)| Iocb {
                data,
                opcode: if item.write { PWRITE } else { PREAD },
                fd: item.fd.cast_unsigned(),
                at: item.at as u64,
                len: item.len as u64,
                offset: item.offset,
                ..Iocb::default()
            })
            .collect();
        let mut list: Vec<*mut Iocb> = requests.iter_mut().map(|request| &raw mut *request).collect();
        let mut results = vec![-i64::from(libc::EAGAIN); batch.len()];
        // SAFETY: as many pointers as are said, to requests that live through the call; their memory the caller
        // answers for.
        let taken =
            check(unsafe { libc::syscall(libc::SYS_io_submit, self.0, list.len(), list.as_mut_ptr()) });
        let (mut left, mut events) = (taken? as usize, [IoEvent::default(); DEPTH]);
        while left > 0 {
            let none: *mut libc::timespec = std::ptr::null_mut();
            // SAFETY: room for as many events as are said; a timeout of null is to wait.
            let got = check(unsafe {
                libc::syscall(libc::SYS_io_getevents, self.0, 1, left, events.as_mut_ptr(), none)
            });
            let got = match got {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other? as usize,
            };
            events[..got].iter().for_each(|event| results[event.data as usize] = event.result);
            left -= got;
        }
        Ok(results)
    }
}

/// An io_uring with its rings mapped.
pub struct Uring {
    fd: OwnedFd,
    rings: *mut u8,
    entries: *mut Sqe,
    params: Params,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    /// head, tail, ring_mask, ring_entries, flags, dropped, array, reserved, and an address.
    sq: [u32; 10],
    /// head, tail, ring_mask, ring_entries, overflow, cqes, flags, reserved, and an address.
    cq: [u32; 10],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sqe {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    at: u64,
    len: u32,
    rw_flags: u32,
    data: u64,
    rest: [u64; 3],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Cqe {
    data: u64,
    result: i32,
    flags: u32,
}

impl Uring {
    /// Fails where the kernel has none or does not let us: ENOSYS, EPERM.
    pub fn new() -> io::Result<Self> {
        const SINGLE_MMAP: u32 = 1;
        const OFFSET_SQES: i64 = 0x1000_0000;
        let mut params = Params::default();
        // SAFETY: the kernel reads and writes one struct of its own shape, which lives through the call.
        let fd = check(unsafe { libc::syscall(libc::SYS_io_uring_setup, DEPTH, &raw mut params) })?;
        // SAFETY: a descriptor that was just made, and that nobody else has.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        if params.features & SINGLE_MMAP == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENOSYS));
        }
        let completions = params.cq[5] as usize + params.cq_entries as usize * size_of::<Cqe>();
        let submissions = params.sq[6] as usize + params.sq_entries as usize * size_of::<u32>();
        let rings = map(&fd, completions.max(submissions), 0)?;
        let entries = map(&fd, params.sq_entries as usize * size_of::<Sqe>(), OFFSET_SQES)?;
        Ok(Self { fd, rings, entries: entries.cast(), params })
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: an offset that the kernel named, of an aligned word in the rings, which stay mapped.
        unsafe { &*self.rings.add(offset as usize).cast::<AtomicU32>() }
    }
}

/// Maps a part of a ring. It stays until the process ends.
fn map(fd: &OwnedFd, len: usize, offset: i64) -> io::Result<*mut u8> {
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping where the kernel likes it; checked for failure below.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, flags, fd.as_raw_fd(), offset) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
}

impl Queue for Uring {
    fn run(&mut self, batch: &[Item]) -> io::Result<Vec<i64>> {
        const READ: u8 = 22;
        const WRITE: u8 = 23;
        const GETEVENTS: u32 = 1;
        let mut results = vec![-i64::from(libc::EAGAIN); batch.len()];
        let (tail, mask) =
            (self.word(self.params.sq[1]), self.word(self.params.sq[2]).load(Ordering::Relaxed));
        let mut next = tail.load(Ordering::Relaxed);
        for (data, item) in (0..).zip(batch) {
            let slot = next & mask;
            let entry = Sqe {
                opcode: if item.write { WRITE } else { READ },
                fd: item.fd,
                offset: item.offset,
                at: item.at as u64,
                len: item.len as u32,
                data,
                ..Sqe::default()
            };
            // SAFETY: a slot below the number of entries, which are mapped; the kernel does not look before the tail
            // moves.
            unsafe { self.entries.add(slot as usize).write(entry) };
            self.word(self.params.sq[6] + slot * 4).store(slot, Ordering::Relaxed);
            next = next.wrapping_add(1);
        }
        tail.store(next, Ordering::Release);
        let (mut submit, mut left) = (batch.len(), batch.len());
        while left > 0 {
            let fd = self.fd.as_raw_fd();
            let none: *const u8 = std::ptr::null();
            // SAFETY: a plain system call on our own ring; the memory of the batch the caller answers for.
            let entered = check(unsafe {
                libc::syscall(libc::SYS_io_uring_enter, fd, submit, left, GETEVENTS, none, 0usize)
            });
            match entered {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => submit -= other? as usize,
            }
            let (head, tail) = (self.word(self.params.cq[0]), self.word(self.params.cq[1]));
            let mask = self.word(self.params.cq[2]).load(Ordering::Relaxed);
            let mut at = head.load(Ordering::Relaxed);
            while at != tail.load(Ordering::Acquire) {
                let place = self.params.cq[5] as usize + (at & mask) as usize * size_of::<Cqe>();
                // SAFETY: a completion that the kernel has published, in the rings, which stay mapped.
                let done = unsafe { self.rings.add(place).cast::<Cqe>().read() };
                results[done.data as usize] = i64::from(done.result);
                at = at.wrapping_add(1);
                left -= 1;
            }
            head.store(at, Ordering::Release);
        }
        Ok(results)
    }
}
