//! A link on a real interface: an AF_PACKET socket that sees AoE frames only.
//!
//! Promises: no frame that came before the filter was set, or on another interface, is ever delivered; frames leave and
//! arrive in batches without an allocation or a copy of ours; the same link goes on serving an interface that goes
//! down, comes back, changes its MTU or its name, or is deleted and made again under its name.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use parking_lot::RwLock;
use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use super::interface::{self, Interface};
use super::{
    BATCH, Batch, FEW, LARGEST_FRAME, Link, OutFrame, Polled, Ready, is_gone, is_link_down, is_readable,
};
use crate::wire::header::filter::{FLAGS, RESPONSE, TAG};
use crate::wire::{BUFFERS_MAX, ETHERNET, ETHERTYPE, Mac, Tag, header};

/// Bytes of receive buffer asked for. The kernel counts the memory that a frame occupies, about twice its length: the
/// default of 208 KiB holds 17 jumbo replies, this one more than the windows of all targets together.
const RECEIVE_BUFFER: usize = 32 << 20;

/// Bytes of send buffer asked for: all frames that may be outstanding with a target, of 64 KiB each.
const SEND_BUFFER: usize = BUFFERS_MAX as usize * (64 << 10);

/// Which side of the protocol a link serves: decides what its filter lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Responses to tags of ours (bit 31) and announcements (tag 0).
    Initiator,
    /// Requests.
    Target,
}

/// An AF_PACKET socket bound to AoE's Ethernet type on one interface.
pub struct PacketLink {
    /// The name that it was bound by; may be an alternative one.
    bound_as: String,
    name: RwLock<Arc<str>>,
    role: Role,
    socket: Socket,
    wake: EventFd,
    woken: AtomicBool,
    index: AtomicU32,
    mac: AtomicU64,
    mtu: AtomicUsize,
    up: AtomicBool,
    /// Largest frame that slots must hold: the MTU's, or more if a larger one was seen.
    max_frame: AtomicUsize,
    drops: AtomicU64,
    truncated: AtomicU64,
}

impl PacketLink {
    /// Opens the interface `name`. PermissionDenied without CAP_NET_RAW; ENODEV if there is no such interface;
    /// Unsupported if it does not speak Ethernet.
    pub fn open(name: &str, role: Role) -> io::Result<PacketLink> {
        // Protocol 0: the socket receives nothing until it is bound, so no frame gets in ahead of the filter.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        let found = interface::query(socket.as_fd(), name)?;
        if !found.ethernet || found.loopback {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{name} is not an Ethernet interface"),
            ));
        }
        socket.set_nonblocking(true)?;
        // Best effort: past the system's limit with CAP_NET_ADMIN, up to it without.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            socket.set_send_buffer_size(SEND_BUFFER)?;
        }
        let link = PacketLink {
            bound_as: name.to_owned(),
            name: RwLock::new(name.into()),
            role,
            wake: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            woken: AtomicBool::new(false),
            index: AtomicU32::new(0),
            mac: AtomicU64::new(0),
            mtu: AtomicUsize::new(0),
            up: AtomicBool::new(false),
            max_frame: AtomicUsize::new(0),
            drops: AtomicU64::new(0),
            truncated: AtomicU64::new(0),
            socket,
        };
        link.bind(found.index)?;
        link.note(&found);
        // It may have been found by an alternative name.
        link.note_name(interface::name_of(link.socket.as_fd(), found.index)?);
        Ok(link)
    }

    /// Frames that were larger than a slot, and so dropped. The slots have grown since.
    pub fn truncated(&self) -> u64 {
        self.truncated.load(Ordering::Relaxed)
    }

    fn bind(&self, index: u32) -> io::Result<()> {
        // First: no frame of the new interface may pass the filter for the old one.
        self.socket.attach_filter(&filter(self.role, index))?;
        self.socket.bind(&address(ETHERTYPE, index))?;
        self.index.store(index, Ordering::Relaxed);
        Ok(())
    }

    fn note(&self, found: &Interface) {
        self.mac.store(mac_to_u64(found.mac), Ordering::Relaxed);
        self.mtu.store(found.mtu, Ordering::Relaxed);
        self.max_frame.fetch_max((found.mtu + ETHERNET).min(LARGEST_FRAME), Ordering::Relaxed);
        self.up.store(found.up, Ordering::Relaxed);
    }

    fn note_name(&self, name: String) {
        if **self.name.read() != *name {
            *self.name.write() = name.into();
        }
    }

    /// The interface that is bound, under whatever name; ENODEV if it is gone.
    fn query_bound(&self) -> io::Result<(String, Interface)> {
        let socket = self.socket.as_fd();
        let name = interface::name_of(socket, self.index())?;
        let found = interface::query(socket, &name)?;
        // Another interface has the index if it was given by hand, or came along from another namespace. The kernel
        // has unbound the socket then.
        if bound_to(&self.socket)? != found.index {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        match found.index == self.index() {
            true => Ok((name, found)),
            // Renamed in between: the watcher hears of it and calls again.
            false => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        }
    }

    /// A new interface under the last name of the one that is gone, or under the name that it was bound by.
    fn find_successor(&self) -> io::Result<(String, Interface)> {
        let socket = self.socket.as_fd();
        let found =
            interface::query(socket, &self.name()).or_else(|_| interface::query(socket, &self.bound_as))?;
        Ok((interface::name_of(socket, found.index)?, found))
    }

    /// The two descriptors that `wait` waits for: the socket and the waker.
    fn sources(&self) -> [PollFd<'_>; 2] {
        [&self.socket as &dyn AsFd, &self.wake].map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN))
    }

    fn sorted(&self, error: io::Error) -> io::Error {
        if is_link_down(&error) || is_gone(&error) {
            self.up.store(false, Ordering::Relaxed);
        }
        error
    }
}

impl Link for PacketLink {
    fn name(&self) -> Arc<str> {
        self.name.read().clone()
    }

    fn is_called(&self, name: &str) -> bool {
        match interface::query(self.socket.as_fd(), name) {
            Ok(found) => found.index == self.index(),
            Err(_) => self.index() == 0 && (*self.name() == *name || self.bound_as == name),
        }
    }

    fn mac(&self) -> Mac {
        mac_from_u64(self.mac.load(Ordering::Relaxed))
    }

    fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed)
    }

    fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    fn send(&self, frames: &[OutFrame<'_>]) -> (usize, Option<io::Error>) {
        let mut taken = 0;
        let mut refused = None;
        for chunk in frames.chunks(BATCH) {
            let (sent, error) = match chunk.len() {
                ..=FEW => send_chunk::<FEW>(&self.socket, chunk),
                _ => send_chunk::<BATCH>(&self.socket, chunk),
            };
            taken += sent;
            match error {
                None => {}
                Some(error) if is_about_one_frame(&error) => refused = Some(error),
                Some(error) => return (taken, Some(self.sorted(error))),
            }
        }
        (taken, refused)
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds = self.sources();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds[1].any().unwrap_or(false) {
            self.woken.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn take_wake(&self) -> bool {
        if !self.woken.swap(false, Ordering::Acquire) {
            return false;
        }
        // Empty if the waker is between its two steps: the next call then says so once more, harmlessly.
        let _ = self.wake.read();
        true
    }

    fn recv_now(&self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        batch.fit(self.max_frame.load(Ordering::Relaxed));
        loop {
            match receive(&self.socket, batch) {
                Ok(cut) if cut.frames > 0 => {
                    self.truncated.fetch_add(cut.frames, Ordering::Relaxed);
                    self.max_frame.fetch_max(cut.largest.min(LARGEST_FRAME), Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.sorted(error)),
            }
            return Ok(());
        }
    }

    fn wait_beside(&self, other: BorrowedFd<'_>, patience: Duration) -> Ready {
        let mut fds = [self.socket.as_fd(), other].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        // A signal may end it early: nothing is ready then.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(patience)), None);
        let [frames, other] = fds.map(|fd| fd.any().unwrap_or(false));
        Ready { frames, other }
    }

    fn has_frames(&self) -> bool {
        is_readable(self.socket.as_fd())
    }

    fn poll(&self, patience: Duration) -> Polled {
        let start = Instant::now();
        loop {
            let found = !matches!(poll(&mut self.sources(), PollTimeout::ZERO), Ok(0));
            let took = start.elapsed();
            if took >= patience * 2 {
                // One poll does not take so long: another thread had the processor.
                return Polled::Preempted;
            } else if found {
                return Polled::Ready;
            } else if took >= patience {
                return Polled::TimedOut;
            }
            std::hint::spin_loop();
        }
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        // Fails only if 2^64 - 2 wake-ups are pending already.
        let _ = self.wake.write(1);
    }

    fn refresh(&self) -> io::Result<()> {
        let bound = self.query_bound();
        let gone = bound.as_ref().is_err_and(is_gone);
        let found = match gone {
            true => self.find_successor().inspect_err(|error| {
                if is_gone(error) {
                    self.index.store(0, Ordering::Relaxed);
                }
            }),
            false => bound,
        };
        let (name, found) = found.map_err(|error| self.sorted(error))?;
        if gone {
            self.bind(found.index).map_err(|error| self.sorted(error))?;
        }
        self.note_name(name);
        self.note(&found);
        Ok(())
    }

    fn drops(&self) -> u64 {
        let lost = statistics(&self.socket).unwrap_or(0);
        self.drops.fetch_add(lost, Ordering::Relaxed) + lost
    }
}

/// The program that decides whether a frame concerns us, before it is copied and before a thread is woken.
///
/// A socket that is bound to an interface also sees frames for the interfaces above it (VLANs, macvlan), which are
/// networks of their own: such a frame has the index of the upper interface.
fn filter(role: Role, index: u32) -> Vec<SockFilter> {
    /// Loads of 32, 16 and 8 bits at an absolute offset; past the end of the frame they refuse it.
    const LD_W: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LD_H: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LD_B: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const JSET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RET: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The kernel's class of the frame, and the class of another host's frame, which a promiscuous port sees.
    const CLASS: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    const OTHER_HOST: u32 = libc::PACKET_OTHERHOST as u32;
    /// The index of the interface that the frame is on now.
    const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;

    let op = SockFilter::new;
    let (all, none) = (op(RET, 0, 0, u32::MAX), op(RET, 0, 0, 0));
    let mut program = vec![op(LD_W, 0, 0, INTERFACE), op(JEQ, 1, 0, index), op(RET, 0, 0, 0)];
    program.extend(match role {
        Role::Initiator => vec![
            op(LD_H, 0, 0, header::filter::ETHERTYPE),
            op(JEQ, 0, 8, u32::from(ETHERTYPE)),
            op(LD_W, 0, 0, CLASS),
            op(JEQ, 6, 0, OTHER_HOST),
            op(LD_B, 0, 0, FLAGS),
            op(JSET, 0, 4, RESPONSE),
            op(LD_W, 0, 0, TAG),
            op(JSET, 1, 0, Tag::OURS),
            op(JEQ, 0, 1, 0),
            all,
            none,
        ],
        Role::Target => vec![
            op(LD_H, 0, 0, header::filter::ETHERTYPE),
            op(JEQ, 0, 6, u32::from(ETHERTYPE)),
            op(LD_W, 0, 0, CLASS),
            op(JEQ, 4, 0, OTHER_HOST),
            op(LD_W, 0, 0, TAG),
            op(LD_B, 0, 0, FLAGS),
            op(JSET, 1, 0, RESPONSE),
            all,
            none,
        ],
    });
    program
}

fn is_about_one_frame(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL))
}

/// Sends at most N frames; passes over those that the interface refuses for their size.
fn send_chunk<const N: usize>(socket: &Socket, frames: &[OutFrame<'_>]) -> (usize, Option<io::Error>) {
    debug_assert!(frames.len() <= N);
    // SAFETY: iovec and mmsghdr are plain C structures for which all zeros (null pointers with length zero) is
    // a valid value.
    let mut vectors: [[libc::iovec; 2]; N] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; N] = unsafe { std::mem::zeroed() };
    for ((header, vector), frame) in headers.iter_mut().zip(&mut vectors).zip(frames) {
        let part = |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
        *vector = [part(frame.head), part(frame.body)];
        header.msg_hdr.msg_iov = vector.as_mut_ptr();
        header.msg_hdr.msg_iovlen = if frame.body.is_empty() { 1 } else { 2 };
    }
    let (mut next, mut taken, mut refused) = (0, 0, None);
    while next < frames.len() {
        let rest = headers.get_mut(next..frames.len()).unwrap_or_default();
        // SAFETY: `rest` is a valid array of that many headers; each points to a vector in `vectors`, which
        // points to bytes that `frames` borrows. The kernel only reads through them and writes msg_len.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                rest.as_mut_ptr(),
                rest.len() as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        if let Ok(sent @ 1..) = usize::try_from(sent) {
            // If it took fewer than asked, the next call says why, or takes the rest.
            next += sent;
            taken += sent;
            continue;
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted {
            continue;
        }
        if !is_about_one_frame(&error) {
            return (taken, Some(error));
        }
        refused = Some(error);
        next += 1;
    }
    (taken, refused)
}

/// Frames that did not fit their slots.
struct Cut {
    frames: u64,
    largest: usize,
}

/// Takes the frames that are there, at most a batch; WouldBlock if there are none.
fn receive(socket: &Socket, batch: &mut Batch) -> io::Result<Cut> {
    // SAFETY: iovec and mmsghdr are plain C structures for which all zeros (null pointers with length zero) is
    // a valid value.
    let mut vectors: [libc::iovec; BATCH] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for ((header, vector), slot) in headers.iter_mut().zip(&mut vectors).zip(batch.slots_mut()) {
        *vector = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
    }
    // MSG_TRUNC makes msg_len the length on the wire, also of a frame that was cut.
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: `headers` is a valid array of BATCH headers; each points to its vector, which points to a slot of
    // the batch and has its length. Batch, vectors and headers outlive the call and nothing else borrows them.
    let got = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            BATCH as libc::c_uint,
            flags as _,
            std::ptr::null_mut(),
        )
    };
    let Ok(got) = usize::try_from(got) else { return Err(io::Error::last_os_error()) };
    let mut cut = Cut { frames: 0, largest: 0 };
    for (i, header) in headers.iter().enumerate().take(got) {
        let len = header.msg_len as usize;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            cut.frames += 1;
            cut.largest = cut.largest.max(len);
        } else {
            batch.keep(i, len);
        }
    }
    Ok(cut)
}

/// Frames dropped since the last call: the kernel clears its counter as it tells it.
fn statistics(socket: &Socket) -> io::Result<u64> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: `stats` and `len` are valid for writing, and `len` is the size of `stats`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &mut len,
        )
    };
    match result {
        0 => Ok(u64::from(stats.tp_drops)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The address that binds a packet socket to an Ethernet type on the interface with that index.
pub(crate) fn address(ethertype: u16, index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is larger than sockaddr_ll, zeroed, and AF_PACKET addresses have that layout.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = i32::try_from(index).unwrap_or(0);
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `storage` holds an initialised sockaddr_ll and `len` is its length.
    unsafe { SockAddr::new(storage, len) }
}

/// The index of the interface that a packet socket is bound to; 0 if it was unbound.
fn bound_to(socket: &Socket) -> io::Result<u32> {
    let address = socket.local_addr()?;
    // SAFETY: the storage of a SockAddr is larger than sockaddr_ll, any bytes are a valid one, and it is aligned for
    // every kind of address.
    let index = unsafe { (*address.as_ptr().cast::<libc::sockaddr_ll>()).sll_ifindex };
    // The kernel says -1.
    Ok(u32::try_from(index).unwrap_or(0))
}

fn mac_to_u64(mac: Mac) -> u64 {
    mac.0.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

fn mac_from_u64(value: u64) -> Mac {
    let [_, _, mac @ ..] = value.to_be_bytes();
    Mac(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_survives_its_atomic() {
        for mac in [[0; 6], [0xff; 6], [0x52, 0x54, 0, 0x12, 0x34, 0x56]] {
            assert_eq!(mac_from_u64(mac_to_u64(Mac(mac))).0, mac);
        }
    }

    #[test]
    fn a_link_crosses_threads() {
        fn check<T: Send + Sync>() {}
        check::<PacketLink>();
        check::<std::sync::Arc<dyn Link>>();
    }
}
