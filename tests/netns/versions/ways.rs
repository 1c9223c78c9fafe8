//! System calls as functions, each with the checks and the loop that it needs.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes that a pipe of ours holds: more than any single transfer.
const PIPE: i32 = 1 << 20;

/// The result of a system call that returns a count.
fn count(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A pipe that takes a whole transfer without a reader.
pub struct Pipe {
    pub from: File,
    pub to: File,
}

impl Pipe {
    pub fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two numbers, which live through the call.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: two descriptors that were just made, and that nobody else has.
        let [from, to] = ends.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        // SAFETY: a plain system call on an open descriptor.
        let set = unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE) };
        if set < PIPE { Err(io::Error::last_os_error()) } else { Ok(Self { from, to }) }
    }
}

/// fallocate(2).
pub fn fallocate(file: &File, mode: i32, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: a plain system call on an open descriptor; no memory is involved.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset.cast_signed(), len.cast_signed()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// BLKZEROOUT: zeros on a block device.
pub fn zero_blocks(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // _IO(0x12, 127).
    const BLKZEROOUT: libc::Ioctl = 0x127f;
    let range = [offset, len];
    // SAFETY: the kernel reads two numbers, which live through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKZEROOUT, range.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// copy_file_range(2), until all is copied.
pub fn copy(from: (&File, u64), to: (&File, u64), len: u64) -> io::Result<()> {
    let (mut read, mut write, mut left) = (from.1.cast_signed(), to.1.cast_signed(), len as usize);
    while left > 0 {
        let (source, target) = (from.0.as_raw_fd(), to.0.as_raw_fd());
        // SAFETY: two open descriptors, and two offsets that live through the call.
        let copied =
            count(unsafe { libc::copy_file_range(source, &raw mut read, target, &raw mut write, left, 0) })?;
        if copied == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= copied.min(left);
    }
    Ok(())
}

/// splice(2) of so many bytes that are in a pipe into a file.
pub fn splice_in(pipe: &Pipe, file: &File, offset: u64, len: usize) -> io::Result<()> {
    let (mut at, mut left) = (offset.cast_signed(), len);
    while left > 0 {
        let (from, to, none) = (pipe.from.as_raw_fd(), file.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: two open descriptors, and an offset that lives through the call.
        let moved = count(unsafe { libc::splice(from, none, to, &raw mut at, left, 0) })?;
        if moved == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        left -= moved.min(left);
    }
    Ok(())
}

/// splice(2) of a file into a pipe: how much went.
pub fn splice_out(file: &File, offset: u64, pipe: &Pipe, len: usize) -> io::Result<usize> {
    let (mut at, none) = (offset.cast_signed(), std::ptr::null_mut());
    // SAFETY: two open descriptors, and an offset that lives through the call.
    count(unsafe { libc::splice(file.as_raw_fd(), &raw mut at, pipe.to.as_raw_fd(), none, len, 0) })
}

/// sendfile(2) into whatever takes it: how much went.
pub fn sendfile(file: &File, offset: u64, to: &impl AsRawFd, len: usize) -> io::Result<usize> {
    let mut at = offset.cast_signed();
    // SAFETY: two open descriptors, and an offset that lives through the call.
    count(unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), &raw mut at, len) })
}

/// A file in memory. It is only touched by the kernel, for us: an error of the file is an errno then, and no signal.
pub struct Mapping {
    at: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// MAP_SHARED (to read and write) or MAP_PRIVATE (to read), from a multiple of the page size on.
    pub fn new(file: &File, kind: i32, offset: u64, len: usize) -> io::Result<Self> {
        let write = if kind == libc::MAP_SHARED { libc::PROT_WRITE } else { 0 };
        let (fd, rights) = (file.as_raw_fd(), libc::PROT_READ | write);
        // SAFETY: a new mapping where the kernel likes it; checked for failure below.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, rights, kind, fd, offset.cast_signed()) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { at, len }) }
    }

    /// Its bytes, as far as they come, into a pipe: how many went.
    pub fn give(&self, from: usize, pipe: &Pipe, len: usize) -> io::Result<usize> {
        assert!(from + len <= self.len);
        // SAFETY: within the mapping; the kernel reads it, and a page that cannot be had is EFAULT.
        count(unsafe { libc::write(pipe.to.as_raw_fd(), self.at.byte_add(from), len) })
    }

    /// Bytes out of a pipe into it, and to the disk.
    pub fn take(&self, at: usize, pipe: &Pipe, len: usize) -> io::Result<()> {
        assert!(at + len <= self.len);
        // SAFETY: within the mapping, which may be written to; the kernel does it, and a page that cannot be had is
        // EFAULT.
        let taken = count(unsafe { libc::read(pipe.from.as_raw_fd(), self.at.byte_add(at), len) })?;
        if taken < len {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        }
        // SAFETY: the mapping made above, whole.
        let synced = unsafe { libc::msync(self.at, self.len, libc::MS_SYNC) };
        if synced == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made above, whole, not used any more.
        unsafe { libc::munmap(self.at, self.len) };
    }
}
