//! Which disk the requests of a front end were meant for.
//!
//! A front end connects again by itself, perhaps to another daemon, and after another disk has come to the address.
//! Its requests that are under way, and all that its machine has in memory, belong to the disk that it had. So the area
//! that it keeps for us says which one that was. An area that was made elsewhere says nothing.

use std::fmt;

use super::little_endian;
use crate::engine::Identity;
use crate::wire::Text;

/// A place on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The whole disk.
    pub disk: Identity,
    /// Where on it the export begins, in bytes.
    pub start: u64,
}

/// What is before it in memory: a name and a version.
const MAGIC: [u8; 8] = *b"aoefs 1\0";

impl Origin {
    /// Bytes that it takes.
    pub const BYTES: usize = 8 + 8 + 8 + 20 + 40;

    /// As it stands in memory.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let text = |into: &mut [u8], text: &str| into[..text.len()].copy_from_slice(text.as_bytes());
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.disk.sectors.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        text(&mut bytes[24..44], self.disk.serial.as_str());
        text(&mut bytes[44..], self.disk.model.as_str());
        bytes
    }

    /// What stands there, if it was put there by [`Origin::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        let disk = Identity {
            serial: Text::new(&text(&bytes[24..44])),
            model: Text::new(&text(&bytes[44..])),
            sectors: little_endian(&bytes[8..16]),
        };
        (bytes[..8] == MAGIC).then(|| Self { disk, start: little_endian(&bytes[16..24]) })
    }

    /// Whether it may be the same disk that is there now: it may have grown.
    pub fn is_still(&self, now: &Self) -> bool {
        self.start == now.start && (self.disk == now.disk || self.disk.may_have_grown_to(&now.disk))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, from byte {}", self.disk, self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_from_memory_and_knows_another_one() {
        let disk = Identity {
            serial: Text::new("a serial number of 20"),
            model: Text::new("model"),
            sectors: 1 << 40,
        };
        let origin = Origin { disk, start: 512 };
        assert_eq!(Origin::from_bytes(&origin.to_bytes()), Some(origin));
        assert_eq!(Origin::from_bytes(&[0; Origin::BYTES]), None, "nobody has written there");
        // What a front end has put there is text all the same.
        let mut odd = origin.to_bytes();
        odd[24..].fill(0xff);
        assert!(Origin::from_bytes(&odd).is_some_and(|odd| !odd.is_still(&origin)));
        let of = |disk| Origin { disk, ..origin };
        assert!(
            origin.is_still(&origin) && origin.is_still(&of(Identity { sectors: (1 << 40) + 1, ..disk }))
        );
        for other in [
            of(Identity { serial: Text::new("another"), ..disk }),
            of(Identity { model: Text::new("another"), ..disk }),
            Origin { start: 0, ..origin },
            of(Identity { sectors: 1, ..disk }),
        ] {
            assert!(!origin.is_still(&other), "{other}");
        }
    }
}
