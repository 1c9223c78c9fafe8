//! The argument of a config command: the limits of a target, and a string of up to 1024 bytes that it keeps for its
//! users.

use super::Malformed;
use super::bytes::{be16, put};

/// The longest config string, in bytes.
pub const CONFIG_MAX: usize = 1024;

/// Frames that may be outstanding with one target: our targets queue as many, our initiator sends no more, and neither
/// do Plan 9's devaoe and the kernel's driver.
pub const BUFFERS_MAX: u16 = 128;

/// Bytes of the argument before the string.
pub const CONFIG_LEN: usize = field::LENGTH.end;

mod field {
    use crate::wire::bytes::Field;

    pub(super) const BUFFERS: Field = 0..2;
    pub(super) const FIRMWARE: Field = 2..4;
    pub(super) const SECTORS: usize = 4;
    pub(super) const VERSION_VERB: usize = 5;
    pub(super) const LENGTH: Field = 6..8;
}

/// What to do with the config string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// 0: return it.
    Read,
    /// 1: answer only if it equals the given one.
    Test,
    /// 2: answer only if it begins with the given one.
    Prefix,
    /// 3: replace it by the given one, if it is empty.
    Set,
    /// 4: replace it by the given one.
    Force,
    /// Undefined; 4 bits.
    Other(u8),
}

impl From<u8> for Verb {
    fn from(byte: u8) -> Verb {
        match byte {
            0 => Verb::Read,
            1 => Verb::Test,
            2 => Verb::Prefix,
            3 => Verb::Set,
            4 => Verb::Force,
            other => Verb::Other(other),
        }
    }
}

impl From<Verb> for u8 {
    fn from(verb: Verb) -> u8 {
        match verb {
            Verb::Read => 0,
            Verb::Test => 1,
            Verb::Prefix => 2,
            Verb::Set => 3,
            Verb::Force => 4,
            Verb::Other(other) => other,
        }
    }
}

/// The argument. In a request all but the verb and the string are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config<'a> {
    /// How many frames the target can queue; more are lost.
    pub buffers: u16,
    /// The target's own version number.
    pub firmware: u16,
    /// The most sectors of one ATA command, as the target wrote it: [`most_sectors`] knows what 0 means.
    pub sectors: u8,
    /// The protocol version that the target speaks, 4 bits.
    pub version: u8,
    /// What to do; most targets repeat it in their answer.
    pub verb: Verb,
    /// The string: any bytes, at most [`CONFIG_MAX`].
    pub string: &'a [u8],
}

impl<'a> Config<'a> {
    /// A request.
    pub fn request(verb: Verb, string: &'a [u8]) -> Config<'a> {
        Config { buffers: 0, firmware: 0, sectors: 0, version: 0, verb, string }
    }

    /// Reads the argument of a frame. A string that claims to be longer than the frame, or than the protocol allows,
    /// ends there; [`Config::overlong`] tells.
    pub fn parse(body: &'a [u8]) -> Result<Config<'a>, Malformed> {
        let (arg, rest) = body.split_first_chunk::<CONFIG_LEN>().ok_or(Malformed)?;
        let length = usize::from(be16(arg, field::LENGTH)).min(rest.len()).min(CONFIG_MAX);
        let config = Config {
            buffers: be16(arg, field::BUFFERS),
            firmware: be16(arg, field::FIRMWARE),
            sectors: arg[field::SECTORS],
            version: arg[field::VERSION_VERB] >> 4,
            verb: Verb::from(arg[field::VERSION_VERB] & 0x0f),
            string: &rest[..length],
        };
        Ok(config)
    }

    /// Whether the string of this argument claims more bytes than [`Config::parse`] could give. A target must not store
    /// such a string.
    pub fn overlong(body: &[u8]) -> bool {
        body.split_first_chunk::<CONFIG_LEN>().is_some_and(|(arg, rest)| {
            let length = usize::from(be16(arg, field::LENGTH));
            length > rest.len() || length > CONFIG_MAX
        })
    }

    /// Bytes that [`Config::emit`] writes. Never 0.
    #[expect(clippy::len_without_is_empty, reason = "an argument is never empty")]
    pub fn len(&self) -> usize {
        CONFIG_LEN + self.string.len().min(CONFIG_MAX)
    }

    /// Writes the first [`Config::len`] bytes of `out`, and panics if it is shorter. A longer string is cut at
    /// [`CONFIG_MAX`].
    pub fn emit(&self, out: &mut [u8]) {
        let out = &mut out[..self.len()];
        let (arg, string) = out.split_at_mut(CONFIG_LEN);
        put(arg, field::BUFFERS, &self.buffers.to_be_bytes());
        put(arg, field::FIRMWARE, &self.firmware.to_be_bytes());
        arg[field::SECTORS] = self.sectors;
        arg[field::VERSION_VERB] = self.version << 4 | u8::from(self.verb) & 0x0f;
        put(arg, field::LENGTH, &(string.len() as u16).to_be_bytes());
        string.copy_from_slice(&self.string[..string.len()]);
    }
}

/// The most sectors of one ATA command to a target that advertises so many. Targets older than the field send 0 and
/// take 2.
pub fn most_sectors(advertised: u8) -> u8 {
    if advertised == 0 { 2 } else { advertised }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: [u8; 13] = [0, 0x10, 0x40, 0x19, 2, 0x13, 0, 5, b'h', b'e', b'l', b'l', b'o'];

    fn hello() -> Config<'static> {
        Config { buffers: 16, firmware: 0x4019, sectors: 2, version: 1, verb: Verb::Set, string: b"hello" }
    }

    #[test]
    fn deconstruct() {
        assert_eq!(Config::parse(&HELLO), Ok(hello()));
        assert!(!Config::overlong(&HELLO));
    }

    #[test]
    fn construct() {
        let mut out = [0xa5; 14];
        hello().emit(&mut out);
        assert_eq!(hello().len(), 13);
        assert_eq!(out[..13], HELLO);
        assert_eq!(out[13], 0xa5);
    }

    #[test]
    fn a_length_that_lies_is_cut() {
        let cut = Config::parse(&HELLO[..10]).unwrap();
        assert_eq!(cut.string, b"he");
        assert!(Config::overlong(&HELLO[..10]));
        let mut long = [b'x'; CONFIG_LEN + 2000];
        put(&mut long, field::LENGTH, &2000u16.to_be_bytes());
        assert_eq!(Config::parse(&long).unwrap().string.len(), CONFIG_MAX);
        assert!(Config::overlong(&long));
        assert_eq!(Config::parse(&HELLO[..7]), Err(Malformed));
        assert!(!Config::overlong(&HELLO[..7]));
    }

    #[test]
    fn an_overlong_string_is_not_sent() {
        let config = Config::request(Verb::Force, &[b'x'; CONFIG_MAX + 1]);
        let mut out = [0; CONFIG_LEN + CONFIG_MAX];
        config.emit(&mut out);
        assert_eq!(Config::parse(&out).unwrap().string.len(), CONFIG_MAX);
    }

    #[test]
    fn no_sectors_mean_two() {
        assert_eq!((most_sectors(0), most_sectors(16)), (2, 16));
    }
}
