//! The 24 bytes that every AoE frame begins with, the Ethernet header included.

use core::fmt;

use super::bytes::{array, be16, be32, put};
use super::{Addr, ETHERTYPE, Mac, Malformed, Tag};

/// Bytes from the start of the frame to its argument.
pub const HEADER_LEN: usize = field::TAG.end;

/// Bytes of the Ethernet header, which an MTU does not count.
pub const ETHERNET: usize = field::ETHERTYPE.end;

/// For a filter in the kernel, which judges a frame before it is parsed: offsets in bytes, and a bit.
pub mod filter {
    use super::{field, flag};

    /// Where the Ethernet type is, two bytes.
    pub const ETHERTYPE: u32 = field::ETHERTYPE.start as u32;
    /// Where the version and the flags are, one byte.
    pub const FLAGS: u32 = field::VERSION_FLAGS as u32;
    /// Where the tag is, four bytes.
    pub const TAG: u32 = field::TAG.start as u32;
    /// The bit of the flags that a response has.
    pub const RESPONSE: u32 = flag::RESPONSE as u32;
}

mod field {
    use crate::wire::bytes::Field;

    pub(super) const DESTINATION: Field = 0..6;
    pub(super) const SOURCE: Field = 6..12;
    pub(super) const ETHERTYPE: Field = 12..14;
    pub(super) const VERSION_FLAGS: usize = 14;
    pub(super) const ERROR: usize = 15;
    pub(super) const SHELF: Field = 16..18;
    pub(super) const SLOT: usize = 18;
    pub(super) const COMMAND: usize = 19;
    pub(super) const TAG: Field = 20..24;
}

mod flag {
    /// This is a response.
    pub(super) const RESPONSE: u8 = 0x08;
    /// The error byte counts: the AoE layer refused. (A disk's own failure is an ATA status, with this bit clear.)
    pub(super) const ERROR: u8 = 0x04;
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Where the frame goes.
    pub dst: Mac,
    /// Where it comes from, and a response goes to.
    pub src: Mac,
    /// The protocol version, 4 bits. Requests carry [`super::VERSION`]; that of a response is ignored.
    pub version: u8,
    /// Whether a target sent it.
    pub response: bool,
    /// Why the target refused, if it did. There may be no argument then.
    pub error: Option<Refusal>,
    /// The target that the frame is for, or comes from.
    pub addr: Addr,
    /// The command.
    pub command: Command,
    /// Ties a response to its request.
    pub tag: Tag,
}

impl Header {
    /// Reads the header of a frame, and returns the bytes behind it, padding included.
    pub fn parse(frame: &[u8]) -> Result<(Header, &[u8]), Malformed> {
        let (head, body) = frame.split_first_chunk::<HEADER_LEN>().ok_or(Malformed)?;
        if be16(head, field::ETHERTYPE) != ETHERTYPE {
            return Err(Malformed);
        }
        let flags = head[field::VERSION_FLAGS];
        let header = Header {
            dst: Mac(array(head, field::DESTINATION)),
            src: Mac(array(head, field::SOURCE)),
            version: flags >> 4,
            response: flags & flag::RESPONSE != 0,
            error: (flags & flag::ERROR != 0).then(|| Refusal::from(head[field::ERROR])),
            addr: Addr::new(be16(head, field::SHELF), head[field::SLOT]),
            command: Command::from(head[field::COMMAND]),
            tag: Tag(be32(head, field::TAG)),
        };
        Ok((header, body))
    }

    /// Whether a target announces itself unasked. Its tag is 0 then, but tag 0 is not enough: the kernel's driver
    /// broadcasts queries with tag 0, whose answers reach every initiator behind the same MAC. An announcement is
    /// broadcast, or, if the target has a list of its hosts, sent to each of them; then its version is 0, while an
    /// answer repeats the version of the query.
    pub fn is_announcement(&self) -> bool {
        let nobody_asked = self.dst == Mac::BROADCAST || self.version == 0;
        self.response && self.command == Command::Config && self.tag == Tag::UNSOLICITED && nobody_asked
    }

    /// Writes the first [`HEADER_LEN`] bytes of `out`, and panics if it is shorter.
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..HEADER_LEN];
        put(out, field::DESTINATION, &self.dst.0);
        put(out, field::SOURCE, &self.src.0);
        put(out, field::ETHERTYPE, &ETHERTYPE.to_be_bytes());
        let mut flags = self.version << 4;
        if self.response {
            flags |= flag::RESPONSE;
        }
        if self.error.is_some() {
            flags |= flag::ERROR;
        }
        out[field::VERSION_FLAGS] = flags;
        out[field::ERROR] = self.error.map_or(0, u8::from);
        put(out, field::SHELF, &self.addr.shelf.0.to_be_bytes());
        out[field::SLOT] = self.addr.slot.0;
        out[field::COMMAND] = self.command.into();
        put(out, field::TAG, &self.tag.0.to_be_bytes());
    }
}

/// The command of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// An ATA command: [`super::Ata`].
    Ata,
    /// The target's limits and its config string: [`super::Config`].
    Config,
    /// The list of MACs that the target listens to: [`super::Mask`].
    Mask,
    /// The list of MACs that hold the target: [`super::Reserve`].
    Reserve,
    /// A vendor's own (0xf0 and up), or undefined.
    Other(u8),
}

impl From<u8> for Command {
    fn from(byte: u8) -> Command {
        match byte {
            0 => Command::Ata,
            1 => Command::Config,
            2 => Command::Mask,
            3 => Command::Reserve,
            other => Command::Other(other),
        }
    }
}

impl From<Command> for u8 {
    fn from(command: Command) -> u8 {
        match command {
            Command::Ata => 0,
            Command::Config => 1,
            Command::Mask => 2,
            Command::Reserve => 3,
            Command::Other(other) => other,
        }
    }
}

/// Why the AoE layer of a target refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// 1: it does not know the command.
    UnknownCommand,
    /// 2: it does not like the argument; for reads and writes often "too many sectors".
    BadArgument,
    /// 3: it can no longer take ATA commands.
    Unavailable,
    /// 4: a config string is there already, and is not the one that was to be set.
    ConfigPresent,
    /// 5: it does not speak this version.
    BadVersion,
    /// 6: other hosts hold it.
    Reserved,
    /// Anything else; qaoed sends 0 after a failed read or write.
    Other(u8),
}

impl From<u8> for Refusal {
    fn from(byte: u8) -> Refusal {
        match byte {
            1 => Refusal::UnknownCommand,
            2 => Refusal::BadArgument,
            3 => Refusal::Unavailable,
            4 => Refusal::ConfigPresent,
            5 => Refusal::BadVersion,
            6 => Refusal::Reserved,
            other => Refusal::Other(other),
        }
    }
}

impl From<Refusal> for u8 {
    fn from(refusal: Refusal) -> u8 {
        match refusal {
            Refusal::UnknownCommand => 1,
            Refusal::BadArgument => 2,
            Refusal::Unavailable => 3,
            Refusal::ConfigPresent => 4,
            Refusal::BadVersion => 5,
            Refusal::Reserved => 6,
            Refusal::Other(other) => other,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::UnknownCommand => "unknown command",
            Refusal::BadArgument => "bad argument",
            Refusal::Unavailable => "device unavailable",
            Refusal::ConfigPresent => "config string present",
            Refusal::BadVersion => "unsupported version",
            Refusal::Reserved => "reserved by another host",
            Refusal::Other(code) => return write!(f, "AoE error {code}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET_REFUSED: [u8; HEADER_LEN] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xa2, 0x1c, 4, 0, 3, 7, 1, 0x80, 0, 0, 1,
    ];

    fn set_refused() -> Header {
        Header {
            dst: Mac::BROADCAST,
            src: Mac([2, 0, 0, 0, 0, 1]),
            version: 1,
            response: true,
            error: Some(Refusal::ConfigPresent),
            addr: Addr::new(3, 7),
            command: Command::Config,
            tag: Tag(0x8000_0001),
        }
    }

    #[test]
    fn deconstruct() {
        assert_eq!(Header::parse(&SET_REFUSED), Ok((set_refused(), &[][..])));
    }

    #[test]
    fn construct() {
        let mut out = [0xa5; HEADER_LEN + 1];
        set_refused().emit(&mut out);
        assert_eq!(out[..HEADER_LEN], SET_REFUSED);
        assert_eq!(out[HEADER_LEN], 0xa5);
    }

    #[test]
    fn short_or_foreign_frames_are_refused() {
        assert_eq!(Header::parse(&SET_REFUSED[..HEADER_LEN - 1]), Err(Malformed));
        let mut foreign = SET_REFUSED;
        foreign[field::ETHERTYPE.start] = 8;
        assert_eq!(Header::parse(&foreign), Err(Malformed));
    }

    #[test]
    fn the_error_byte_counts_only_with_its_flag() {
        let mut frame = SET_REFUSED;
        frame[field::VERSION_FLAGS] = flag::RESPONSE;
        assert_eq!(Header::parse(&frame).map(|(header, _)| header.error), Ok(None));
        frame[field::VERSION_FLAGS] |= flag::ERROR;
        frame[field::ERROR] = 0;
        assert_eq!(Header::parse(&frame).map(|(header, _)| header.error), Ok(Some(Refusal::Other(0))));
    }

    #[test]
    fn an_answer_to_another_initiator_is_no_announcement() {
        let to_all = Header { tag: Tag::UNSOLICITED, ..set_refused() };
        assert!(to_all.is_announcement());
        let to_one = Header { dst: Mac([2, 0, 0, 0, 0, 2]), ..to_all };
        assert!(!to_one.is_announcement());
        assert!(Header { version: 0, ..to_one }.is_announcement(), "to a host that the target was told of");
        assert!(!Header { tag: Tag(0x8000_0001), ..to_all }.is_announcement());
        assert!(!Header { command: Command::Ata, ..to_all }.is_announcement());
        assert!(!Header { response: false, ..to_all }.is_announcement());
    }

    #[test]
    fn every_code_survives() {
        for byte in 0..=u8::MAX {
            assert_eq!(u8::from(Command::from(byte)), byte);
            assert_eq!(u8::from(Refusal::from(byte)), byte);
        }
    }
}
