//! Interfaces that appear, change and go, as rtnetlink reports them.
//!
//! Promises: the first [`LinkWatch::wait`] reports every interface; after that each change is reported once, in order.
//! If the kernel had no room to report a change, it is found by asking for all interfaces again. An event holds the
//! present state of an interface, so a lost intermediate state does no harm. Nothing runs while nothing changes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, send, socket,
};
use parking_lot::Mutex;

use crate::wire::Mac;

mod message;

use message::Message;

/// Bytes read at once. The kernel fills dumps up to 32 KiB a message, and one interface with many virtual
/// functions can take more than a page.
const READ: usize = 64 << 10;

/// An interface as it is now, or as it was when it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// Its name; may change while the index stays.
    pub name: String,
    /// Its index; a re-created interface has a new one.
    pub index: u32,
    /// Configured up and with a carrier.
    pub up: bool,
    /// Largest payload after the Ethernet header.
    pub mtu: usize,
    /// Its address; zeros if it has none of six bytes.
    pub mac: Mac,
    /// It has been deleted, or moved to another namespace.
    pub gone: bool,
    /// Frames on it belong to a bridge, a bond or the like.
    pub is_port: bool,
    /// It speaks Ethernet and is not the loopback.
    pub is_ethernet: bool,
}

impl LinkEvent {
    /// Whether it belongs to the interfaces that are used when none were named.
    pub fn by_default(&self) -> bool {
        self.is_ethernet && self.up && !self.is_port && !self.gone
    }
}

/// The interfaces used when none were named: Ethernet, up, and no port of a bridge or the like.
pub fn ethernet_interfaces() -> io::Result<Vec<LinkEvent>> {
    let mut links = LinkWatch::open()?.wait()?;
    links.retain(LinkEvent::by_default);
    Ok(links)
}

/// Whether frames of the interface with that index belong to a bridge, a bond or the like. False if the kernel does not
/// say.
pub fn is_port(index: u32) -> bool {
    let links = LinkWatch::open().and_then(|watch| watch.wait()).unwrap_or_default();
    links.iter().any(|link| link.index == index && link.is_port)
}

/// A subscription to the interfaces of the network namespace that it was opened in.
pub struct LinkWatch {
    socket: OwnedFd,
    wake: EventFd,
    state: Mutex<State>,
}

impl LinkWatch {
    /// Subscribes. Needs no privilege.
    pub fn open() -> io::Result<LinkWatch> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        // It subscribes before it asks: a change in between is reported twice rather than not at all.
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let watch = LinkWatch { socket, wake, state: Mutex::new(State::new()) };
        watch.ask(&mut watch.state.lock())?;
        Ok(watch)
    }

    /// Blocks until an interface has changed; an empty list means that [`LinkWatch::wake`] was called. Called by one
    /// thread.
    pub fn wait(&self) -> io::Result<Vec<LinkEvent>> {
        let mut state = self.state.lock();
        loop {
            while self.read(&mut state)? {}
            // A dump is complete only at its end.
            if !state.dumping && !state.events.is_empty() {
                return Ok(std::mem::take(&mut state.events));
            }
            let mut fds = [
                PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if fds[0].any().unwrap_or(false) {
                let _ = self.wake.read();
                return Ok(Vec::new());
            }
        }
    }

    /// Makes the `wait` that is blocked now, or the next one, return.
    pub fn wake(&self) {
        // Fails only if 2^64 - 2 wake-ups are pending already.
        let _ = self.wake.write(1);
    }

    /// Reads one datagram; false if there is none.
    fn read(&self, state: &mut State) -> io::Result<bool> {
        let State { buffer, .. } = state;
        match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), buffer) {
            // The kernel's port is 0. Messages of other processes are ignored.
            Ok((len, Some(from))) if from.pid() == 0 => {
                // A datagram that fills the buffer may have been cut.
                if len == READ {
                    state.again = true;
                }
                state.take(len);
            }
            Ok(_) => {}
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => {}
            // Events were lost. The socket works on.
            Err(Errno::ENOBUFS) => state.again = true,
            Err(error) => return Err(error.into()),
        }
        if state.again && !state.dumping {
            self.ask(state)?;
        }
        Ok(true)
    }

    /// Asks for all interfaces.
    fn ask(&self, state: &mut State) -> io::Result<()> {
        state.again = true;
        let sequence = state.sequence.wrapping_add(1).max(1);
        send(self.socket.as_raw_fd(), &message::request(sequence), MsgFlags::empty())?;
        (state.sequence, state.dumping, state.begun, state.again) = (sequence, true, false, false);
        state.seen.clear();
        Ok(())
    }
}

/// The known interfaces, so that only changes are reported.
struct State {
    buffer: Vec<u8>,
    known: BTreeMap<u32, LinkEvent>,
    events: Vec<LinkEvent>,
    /// The number of the last dump, whether it is running, whether its first part has been read, what exists
    /// according to it and to later events, and whether it needs a successor.
    sequence: u32,
    dumping: bool,
    begun: bool,
    seen: BTreeSet<u32>,
    again: bool,
}

impl State {
    fn new() -> State {
        State {
            buffer: vec![0; READ],
            known: BTreeMap::new(),
            events: Vec::new(),
            sequence: 0,
            dumping: false,
            begun: false,
            seen: BTreeSet::new(),
            again: false,
        }
    }

    /// Takes the messages of a datagram of `len` bytes.
    fn take(&mut self, len: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        for (message, sequence) in message::parse(buffer.get(..len).unwrap_or(&buffer)) {
            match message {
                Message::Link(link) => {
                    // Messages that were in the queue before the dump are older than it, later ones are newer.
                    self.begun |= self.dumping && sequence == self.sequence;
                    if self.begun && !link.gone {
                        self.seen.insert(link.index);
                    }
                    self.note(link);
                }
                Message::Interrupted if sequence == self.sequence => self.again = true,
                Message::Done if sequence == self.sequence && self.dumping => self.finish(),
                Message::Failed if sequence == self.sequence && self.dumping => {
                    // The kernel is busy with an earlier dump of ours, whose end is still to come.
                    self.dumping = false;
                    self.again = true;
                }
                Message::Interrupted | Message::Done | Message::Failed | Message::Other => {}
            }
        }
        self.buffer = buffer;
    }

    fn note(&mut self, link: LinkEvent) {
        if link.gone {
            if self.known.remove(&link.index).is_some() {
                self.events.push(link);
            }
        } else if self.known.get(&link.index) != Some(&link) {
            self.known.insert(link.index, link.clone());
            self.events.push(link);
        }
    }

    /// A dump has ended: known interfaces that it did not show are gone.
    fn finish(&mut self) {
        self.dumping = false;
        let missing: Vec<u32> =
            self.known.keys().filter(|index| !self.seen.contains(index)).copied().collect();
        // An interrupted dump may have left something out; its successor will not.
        if self.again {
            return;
        }
        for index in missing {
            if let Some(link) = self.known.remove(&index) {
                self.events.push(LinkEvent { gone: true, up: false, ..link });
            }
        }
    }
}

#[cfg(test)]
mod tests;
