//! The way back to a front end: a socket over which it is told that the configuration space has changed.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send};

/// The message that brings the socket (VHOST_USER_SET_BACKEND_REQ_FD).
const BRINGS_CHANNEL: u32 = 21;

/// What is sent over it: VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, version 1, no answer wanted, no payload.
const CONFIG_CHANGED: [u32; 3] = [2, 1, 0];

/// Bytes of the head of a message: what, flags, length of the rest.
const HEAD: usize = 12;

/// Descriptors that one message can carry: the kernel's limit.
const DESCRIPTORS_MAX: usize = 253;

/// See the module.
pub struct Channel(OwnedFd);

impl Channel {
    /// The channel that the next message brings, if it brings one. The message stays where it is: the crate that reads
    /// it takes the socket for messages of other kinds, and lets nobody else have it.
    pub fn in_next_message(connection: &UnixStream) -> Option<Self> {
        let fd = connection.as_raw_fd();
        let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let mut head = [0; HEAD];
        let brings = recv(fd, &mut head, look) == Ok(HEAD) && head[..4] == BRINGS_CHANNEL.to_ne_bytes();
        if !brings {
            return None;
        }
        let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut bytes = [IoSliceMut::new(&mut head)];
        let look = look | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(fd, &mut bytes, Some(&mut control), look).ok()?;
        let rights = message.cmsgs().ok()?.filter_map(|part| match part {
            ControlMessageOwned::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        // SAFETY: the kernel has just made these descriptors for this process, and they are taken once. All of them are
        // taken, so that those that are not wanted are closed.
        let all = rights.flatten().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let all: Vec<OwnedFd> = all.collect();
        all.into_iter().next().map(Self)
    }

    /// Says that the configuration space has changed. A front end that does not listen does not hear it.
    pub fn config_changed(&self) {
        let message: Vec<u8> = CONFIG_CHANGED.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        if let Err(error) = send(self.0.as_raw_fd(), &message, flags) {
            log::debug!("a front end is not told of a new size: {error}");
        }
    }
}
