//! Frames by hand: a packet socket in a namespace, one frame at a time for tests and in batches for the relay.
//!
//! Promises: sees only AoE frames that others sent on that interface, complete and in order; never blocks beyond the
//! time it is given.

use super::net::Ns;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The largest frame that Linux carries: MTU 65535 and an Ethernet header.
pub const FRAME_MAX: usize = 65_549;
/// Frames a system call moves. 64 keep the cost of a call small beside that of the frames.
pub const BATCH: usize = 64;
/// Room for a second of full-size frames at the speed of a veth pair.
const BUFFER: libc::c_int = 64 << 20;

/// What carries the frames of somebody who speaks AoE by hand: an interface, or the far end of a tap device.
pub trait Carrier: AsFd + Send + Sync {
    /// The address to send from.
    fn mac(&self) -> [u8; 6];
    /// Sends the frames in order; how many were taken.
    fn send_batch(&self, frames: &[&[u8]]) -> io::Result<usize>;
    /// Fills the batch with what is there now, without waiting.
    fn recv_batch(&self, batch: &mut Batch);
}

/// A packet socket bound to the AoE ethertype on one interface.
pub struct Port {
    fd: OwnedFd,
    mac: [u8; 6],
}

impl Port {
    /// Opens one on interface `name` of the namespace.
    #[track_caller]
    pub fn open(ns: &Ns, name: &str) -> Self {
        let mac = parse_mac(&ns.mac(name));
        let fd = ns.enter(|| open(name)).unwrap_or_else(|error| panic!("packet socket on {name}: {error}"));
        Self { fd, mac }
    }

    /// The interface's address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends one frame as it is, unpadded.
    #[track_caller]
    pub fn send(&self, frame: &[u8]) {
        assert_eq!(self.send_batch(&[frame]).unwrap(), 1);
    }

    /// The next frame, or None when none came in time.
    pub fn recv(&self, limit: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if wait(&[self.fd.as_fd()], left) {
                let mut frame = vec![0; FRAME_MAX];
                // SAFETY: the buffer is valid for its whole length while the call lasts.
                let n = unsafe {
                    libc::recv(
                        self.fd.as_raw_fd(),
                        frame.as_mut_ptr().cast(),
                        frame.len(),
                        libc::MSG_DONTWAIT,
                    )
                };
                // An error is a link that went down: an event, not the end. Wait for more.
                if n > 0 {
                    frame.truncate(n.cast_unsigned());
                    return Some(frame);
                }
            } else if left.is_zero() {
                return None;
            }
        }
    }

    /// The next frame that the closure makes something of.
    pub fn recv_until<T>(&self, limit: Duration, mut take: impl FnMut(&[u8]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + limit;
        loop {
            let frame = self.recv(until.saturating_duration_since(Instant::now()))?;
            if let Some(found) = take(&frame) {
                return Some(found);
            }
        }
    }

    /// Throws away what has arrived so far.
    pub fn drain(&self) {
        while self.recv(Duration::ZERO).is_some() {}
    }

    /// Sends the frames in order; how many the kernel took.
    pub fn send_batch(&self, frames: &[&[u8]]) -> io::Result<usize> {
        let mut slices: Vec<libc::iovec> = frames
            .iter()
            .map(|frame| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() })
            .collect();
        let mut heads: Vec<libc::mmsghdr> = slices.iter_mut().map(head).collect();
        let mut sent = 0;
        while sent < heads.len() {
            let rest = &mut heads[sent..];
            // SAFETY: every header points to an iovec of `slices`, and that to a frame; all outlive the call.
            let n = unsafe { libc::sendmmsg(self.fd.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            match usize::try_from(n) {
                Ok(n) => sent += n,
                Err(_) if sent > 0 => return Ok(sent),
                Err(_) => return Err(io::Error::last_os_error()),
            }
        }
        Ok(sent)
    }

    /// Fills the batch with what is there now, without waiting.
    pub fn recv_batch(&self, batch: &mut Batch) {
        batch.len = 0;
        let mut slices: Vec<libc::iovec> = batch
            .slots
            .iter_mut()
            .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() })
            .collect();
        let mut heads: Vec<libc::mmsghdr> = slices.iter_mut().map(head).collect();
        // SAFETY: every header points to an iovec of `slices`, and that to a slot of the batch; all outlive the call.
        let n = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                heads.as_mut_ptr(),
                heads.len() as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        batch.len = usize::try_from(n).unwrap_or(0);
        for (size, head) in batch.sizes.iter_mut().zip(&heads) {
            *size = head.msg_len as usize;
        }
    }
}

impl Carrier for Port {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn send_batch(&self, frames: &[&[u8]]) -> io::Result<usize> {
        Self::send_batch(self, frames)
    }

    fn recv_batch(&self, batch: &mut Batch) {
        Self::recv_batch(self, batch);
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Frames received with one call.
pub struct Batch {
    slots: Vec<Vec<u8>>,
    sizes: [usize; BATCH],
    len: usize,
}

impl Batch {
    pub fn new() -> Self {
        Self { slots: vec![vec![0; FRAME_MAX]; BATCH], sizes: [0; BATCH], len: 0 }
    }

    /// Fills it one frame after the other until there is none, or no room.
    pub fn fill(&mut self, mut next: impl FnMut(&mut [u8]) -> Option<usize>) {
        self.len = 0;
        while let Some(slot) = self.slots.get_mut(self.len) {
            let Some(size) = next(slot) else { return };
            self.sizes[self.len] = size;
            self.len += 1;
        }
    }

    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.slots.iter().zip(self.sizes).take(self.len).map(|(slot, size)| &slot[..size])
    }
}

/// Waits until one of the descriptors can be read; false when the time is up.
pub fn wait(fds: &[BorrowedFd<'_>], limit: Duration) -> bool {
    let mut polls: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let limit = libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    // SAFETY: both pointers are valid while the call lasts; a null signal mask leaves the mask alone.
    let n = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as u64, &limit, std::ptr::null()) };
    n > 0
}

fn head(slice: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all-zero is a valid message header: no address, no control data.
    let mut head: libc::mmsghdr = unsafe { std::mem::zeroed() };
    head.msg_hdr.msg_iov = slice;
    head.msg_hdr.msg_iovlen = 1;
    head
}

fn open(name: &str) -> io::Result<OwnedFd> {
    use socket2::{Domain, Protocol, Socket, Type};
    let ethertype = aoefs::wire::ETHERTYPE;
    // Protocol 0 until bound: a socket of another protocol would collect frames of every interface before.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    for option in [libc::SO_RCVBUFFORCE, libc::SO_SNDBUFFORCE] {
        set(&socket, libc::SOL_SOCKET, option, BUFFER)?;
    }
    set(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    let c_name = std::ffi::CString::new(name)?;
    // SAFETY: a C string that lives through the call.
    let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero is a valid sockaddr_ll, and its members are set below.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index.cast_signed();
    let len = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the address is a sockaddr_ll of that length and lives through the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}

fn set(socket: &impl AsRawFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as u32;
    // SAFETY: the value is a C int of that length and lives through the call.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn parse_mac(text: &str) -> [u8; 6] {
    let mut mac = [0; 6];
    for (byte, word) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(word, 16).unwrap();
    }
    mac
}
