//! A frame to send, described: the caller builds the bytes after it has let go of the target's lock.

use std::sync::Arc;

use super::buffer::Buf;
use super::ids::NetId;
use crate::wire::{Addr, Ata, Command, DATA_OFFSET, HEADER_LEN, Header, MIN_FRAME, Mac, SECTOR, Tag};

/// Room for everything of a frame but its data, padding of small frames included.
pub const HEAD_MAX: usize = 64;

/// As many zeros as a frame can carry: what pads a probe.
static ZEROS: [u8; 255 * SECTOR] = [0; 255 * SECTOR];

/// What follows the head.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Nothing: the head is padded to the smallest Ethernet frame.
    None,
    /// A slice of a write's buffer, shared by every attempt of every frame of it.
    Slice {
        /// The write's buffer.
        buf: Arc<Buf>,
        /// First byte.
        start: usize,
        /// Bytes.
        len: usize,
    },
    /// That many zeros.
    Zeros(usize),
    /// The argument of a command other than ATA, padded already.
    Bytes(Vec<u8>),
}

/// One frame to one MAC over one netlink.
#[derive(Clone, Debug)]
pub struct Transmit {
    /// The netlink to use.
    pub net: NetId,
    /// The target's MAC, or broadcast.
    pub dst: Mac,
    /// The target.
    pub addr: Addr,
    /// This transmission's own tag.
    pub tag: Tag,
    /// The AoE command.
    pub command: Command,
    /// The ATA argument, if the command is ATA.
    pub ata: Option<Ata>,
    /// What follows.
    pub payload: Payload,
}

impl Transmit {
    /// Writes header and ATA argument, padded with zeros if nothing follows. Returns the bytes used.
    pub fn head(&self, src: Mac, out: &mut [u8; HEAD_MAX]) -> usize {
        let header = Header {
            dst: self.dst,
            src,
            version: 1,
            response: false,
            error: None,
            addr: self.addr,
            command: self.command,
            tag: self.tag,
        };
        out.fill(0);
        header.emit(&mut out[..HEADER_LEN]);
        let mut len = HEADER_LEN;
        if let Some(ata) = &self.ata {
            ata.emit(&mut out[HEADER_LEN..DATA_OFFSET]);
            len = DATA_OFFSET;
        }
        if matches!(self.payload, Payload::None) { MIN_FRAME } else { len }
    }

    /// The bytes after the head.
    pub fn payload(&self) -> &[u8] {
        match &self.payload {
            Payload::None => &[],
            Payload::Slice { buf, start, len } => &buf[*start..*start + *len],
            Payload::Zeros(len) => &ZEROS[..(*len).min(ZEROS.len())],
            Payload::Bytes(bytes) => bytes,
        }
    }
}

/// The argument of a non-ATA command, padded so that the frame is not below Ethernet's minimum.
pub fn padded(len: usize, emit: impl FnOnce(&mut [u8])) -> Payload {
    let mut bytes = vec![0; len.max(MIN_FRAME - HEADER_LEN)];
    emit(&mut bytes[..len]);
    Payload::Bytes(bytes)
}
