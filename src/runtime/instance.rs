//! Which tags are ours: one of 64 spaces, claimed against every other daemon on the same interfaces.
//!
//! Two daemons that use one interface have one MAC and see each other's answers. The names of abstract sockets belong to a
//! network namespace, as interfaces do: whoever holds the socket of a space is the only one there with its tags.

use std::os::fd::OwnedFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use crate::engine::TagSpace;

/// A claimed space. The claim ends with the process, however it ends.
#[derive(Debug)]
pub(super) struct Instance {
    space: TagSpace,
    _socket: Option<OwnedFd>,
}

impl Instance {
    /// Claims a free space, beginning anywhere, so that a stranger cannot know which.
    pub(super) fn claim(start: u32) -> Instance {
        let start = start as u8;
        for i in 0..TagSpace::COUNT {
            let number = start.wrapping_add(i) % TagSpace::COUNT;
            if let Ok(socket) = hold(number) {
                return Instance { space: TagSpace::new(number), _socket: Some(socket) };
            }
        }
        // Sixty-four daemons, or no sockets at all: luck has to do.
        log::warn!("no tag space is free in this network namespace; more than 64 aoefs?");
        Instance { space: TagSpace::new(start), _socket: None }
    }

    pub(super) fn space(&self) -> TagSpace {
        self.space
    }
}

fn hold(number: u8) -> nix::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let name = format!("aoefs.tags.{number}");
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new_abstract(name.as_bytes())?)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_hold_the_same_space() {
        let all: Vec<Instance> = (0..20).map(|_| Instance::claim(7)).collect();
        for (i, a) in all.iter().enumerate() {
            assert!(a._socket.is_some());
            assert!(all[i + 1..].iter().all(|b| a.space != b.space));
        }
    }
}
