//! A virtual machine's network card: the far end of a tap device, to which a program reads and writes frames as
//! virtio-net would.

use super::net::Ns;
use super::raw::{Batch, Carrier};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The card of the machine behind a tap device. Dropping it takes the device away, as the end of the machine does.
pub struct Card {
    fd: OwnedFd,
    mac: [u8; 6],
}

impl Card {
    /// Makes the tap device `name` in a namespace, up, and is the card behind it.
    pub fn plug(ns: &Ns, name: &str, mtu: usize, mac: [u8; 6]) -> Self {
        let fd = ns.tap(name, mtu);
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        Self { fd, mac }
    }

    /// A card takes what is sent to it and to everybody.
    fn takes(&self, frame: &[u8]) -> bool {
        frame.len() >= 6 && (frame[..6] == self.mac || frame[..6] == [0xff; 6])
    }
}

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Carrier for Card {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn send_batch(&self, frames: &[&[u8]]) -> io::Result<usize> {
        for (sent, frame) in frames.iter().enumerate() {
            // SAFETY: the frame is valid for its whole length while the call lasts.
            let n = unsafe { libc::write(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len()) };
            match n {
                0.. => {}
                _ if sent > 0 => return Ok(sent),
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(frames.len())
    }

    fn recv_batch(&self, batch: &mut Batch) {
        batch.fill(|slot| {
            loop {
                // SAFETY: the slot is valid for its whole length while the call lasts.
                let n = unsafe { libc::read(self.fd.as_raw_fd(), slot.as_mut_ptr().cast(), slot.len()) };
                let len = usize::try_from(n).ok().filter(|len| *len > 0)?;
                if self.takes(&slot[..len]) {
                    return Some(len);
                }
            }
        });
    }
}
