//! Which tags are ours: one of 64 spaces, claimed against every other daemon on the same interfaces.
//!
//! Two daemons that use one interface, or a command and a daemon, have one MAC and see each other's answers. A space
//! is held by a packet socket that is the only member of a fanout group of its own: groups belong to a network
//! namespace, as interfaces do, and only a process that may use AoE at all (CAP_NET_RAW) can make one. With a name that
//! any local user could take, a stranger could hold all spaces, and two daemons would then share one by chance.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::packet;
use crate::wire::Tag;

/// The fanout group of the first space; the others follow. Any number would do: a group of another program takes one
/// space away.
const FIRST_GROUP: u16 = 0xa0e0;

/// The loopback interface, which every network namespace has, up or not.
const LOOPBACK: u32 = 1;

/// IEEE 802's "local experimental" EtherType: no frame of it ever comes.
const NOTHING: u16 = 0x88b5;

/// A claimed space. The claim ends with the process, however it ends.
#[derive(Debug)]
pub struct Claim {
    space: u8,
    _socket: Option<Socket>,
}

impl Claim {
    /// Claims a free space. The search begins at `start`, a random number, so that a stranger cannot know which is
    /// taken.
    pub fn any(start: u32) -> Claim {
        let start = start as u8;
        let mut why = None;
        for i in 0..Tag::SPACES {
            let number = start.wrapping_add(i) % Tag::SPACES;
            match hold(number) {
                Ok(socket) => return Claim { space: number, _socket: Some(socket) },
                Err(error) => why = Some(error),
            }
        }
        match why {
            // A process that may make no packet socket binds no interface either, and needs no space.
            Some(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            // Sixty-four daemons, or a kernel before Linux 5.11, whose groups have no bound: a random space has to do.
            why => log::warn!("no tag space could be claimed in this network namespace: {why:?}"),
        }
        Claim { space: start % Tag::SPACES, _socket: None }
    }

    /// Its number, below [`Tag::SPACES`].
    pub fn space(&self) -> u8 {
        self.space
    }
}

/// Makes a socket that is alone in the fanout group of a space.
fn hold(number: u8) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(i32::from(NOTHING.to_be()))))?;
    socket.bind(&packet::address(NOTHING, LOOPBACK))?;
    let args = libc::fanout_args { id: FIRST_GROUP + u16::from(number), type_flags: 0, max_num_members: 1 };
    // SAFETY: the socket is open, and the kernel reads as many bytes of `args` as it is told that there are.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw const args).cast(),
            size_of::<libc::fanout_args>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(socket) } else { Err(Errno::last().into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_hold_the_same_space() {
        let all: Vec<Claim> = (0..20).map(|_| Claim::any(7)).collect();
        if all[0]._socket.is_none() {
            println!("skipped: link: no packet sockets here");
            return;
        }
        for (i, a) in all.iter().enumerate() {
            assert!(a._socket.is_some());
            assert!(all[i + 1..].iter().all(|b| a.space != b.space));
        }
    }
}
