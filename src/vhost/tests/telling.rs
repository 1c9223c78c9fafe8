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

#[test]
fn what_was_answered_before_a_queue_is_stopped_is_told() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.header(0x1000, VIRTIO_BLK_T_GET_ID, 0);
    guest.describe(0, (0x1000, 16, NEXT, 1));
    guest.describe(1, (0x2000, 21, WRITE, 0));
    // One without a place for its status comes right behind it.
    guest.describe(2, (0x1000, 16, READ, 0));
    guest.offer(0);
    guest.offer(2);
    guest.device.work();
    assert_eq!((guest.used(), guest.said().len()), (vec![(0, 21)], 1));
    assert_eq!(guest.calls(), 1);
}

#[test]
fn a_file_is_not_rung() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let file = || File::from(memfd_create("file", MFdFlags::MFD_CLOEXEC).unwrap());
    assert!(guest.device.set_vring_call(0, Some(file())).is_err());
    assert!(guest.device.set_vring_err(0, Some(File::open("/").unwrap())).is_err());
    guest.device.set_vring_err(0, None).unwrap();
    assert_eq!(guest.ask(VIRTIO_BLK_T_IN, 3, (512, WRITE)), OK);
    assert_eq!(guest.calls(), 1, "it has the bell that it had");
}
