//! What a front end is told of a disk that became larger while it could not listen.

use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::*;

/// The message that brings the socket over which a front end is told things, without payload.
const CHANNEL: [u32; 3] = [21, 1, 0];

/// Gives the device such a socket. Returns the other end.
pub(super) fn listen(guest: &mut Guest) -> UnixStream {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    let head: Vec<u8> = CHANNEL.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let descriptors = [there.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(guest.front.as_raw_fd(), &[IoSlice::new(&head)], &rights, MsgFlags::empty(), None).unwrap();
    guest.device.look_for_channel();
    here
}

/// How often it was told since this was asked last.
fn told(channel: &mut UnixStream) -> usize {
    let mut bytes = [0; 1024];
    channel.read(&mut bytes).map_or(0, |count| count / 12)
}

#[test]
fn a_front_end_looks_at_the_size_again_when_it_starts() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let mut channel = listen(&mut guest);
    // It may have been away, or its machine off, while the disk became larger, and it does not ask by itself.
    for _ in 0..2 {
        guest.device.get_vring_base(0).unwrap();
        assert_eq!(told(&mut channel), 0);
        guest.set_up();
        assert_eq!(told(&mut channel), 1);
        guest.device.set_vring_enable(0, true).unwrap();
        assert_eq!(told(&mut channel), 0, "nothing was started");
    }
}
