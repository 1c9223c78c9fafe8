//! Which disk the requests of a front end were meant for.
//!
//! A front end connects again by itself, perhaps to another daemon, and after another disk has come to the address.
//! Its requests that are under way, and all that its machine has in memory, belong to the disk that it had. So the area
//! that it keeps for us says which one that was. An area that was made elsewhere says nothing.

use std::fmt;

use crate::wire::Text;

/// A place on a disk of this serial number and model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Serial number.
    pub serial: Text<20>,
    /// Model.
    pub model: Text<40>,
    /// Sectors of all of the disk.
    pub sectors: u64,
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
        bytes[8..16].copy_from_slice(&self.sectors.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        text(&mut bytes[24..44], self.serial.as_str());
        text(&mut bytes[44..], self.model.as_str());
        bytes
    }

    /// What stands there, if it was put there by [`Origin::to_bytes`].
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let number =
            |at: usize| bytes[at..at + 8].iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        (bytes[..8] == MAGIC).then(|| Self {
            serial: Text::new(&text(&bytes[24..44])),
            model: Text::new(&text(&bytes[44..])),
            sectors: number(8),
            start: number(16),
        })
    }

    /// Whether it may be the same disk that is there now: it may have grown.
    pub fn is_still(&self, now: &Self) -> bool {
        (self.serial, self.model, self.start) == (now.serial, now.model, now.start)
            && self.sectors <= now.sectors
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { serial, model, sectors, start } = self;
        write!(f, "{model} / {serial} / {sectors} sectors, from byte {start}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_from_memory_and_knows_another_one() {
        let origin = Origin {
            serial: Text::new("a serial number of 20"),
            model: Text::new("model"),
            sectors: 1 << 40,
            start: 512,
        };
        assert_eq!(Origin::from_bytes(&origin.to_bytes()), Some(origin));
        assert_eq!(Origin::from_bytes(&[0; Origin::BYTES]), None, "nobody has written there");
        // What a front end has put there is text all the same.
        let mut odd = origin.to_bytes();
        odd[24..].fill(0xff);
        assert!(Origin::from_bytes(&odd).is_some_and(|odd| !odd.is_still(&origin)));
        assert!(origin.is_still(&origin) && origin.is_still(&Origin { sectors: (1 << 40) + 1, ..origin }));
        for other in [
            Origin { serial: Text::new("another"), ..origin },
            Origin { model: Text::new("another"), ..origin },
            Origin { start: 0, ..origin },
            Origin { sectors: 1, ..origin },
        ] {
            assert!(!origin.is_still(&other), "{other}");
        }
    }
}
