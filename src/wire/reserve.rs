//! The argument of a reserve command: the list of MACs that alone may use a target; an empty list stands for all.

use super::bytes::array;
use super::{Mac, Malformed};

/// Bytes of the argument before the MACs.
pub const RESERVE_LEN: usize = 2;

mod field {
    pub(super) const VERB: usize = 0;
    pub(super) const COUNT: usize = 1;
}

/// What to do with the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReserveVerb {
    /// 0: return it.
    Read,
    /// 1: replace it, if it is empty or the sender is in it. An empty list releases the target.
    Set,
    /// 2: replace it.
    Force,
    /// Undefined.
    Other(u8),
}

impl From<u8> for ReserveVerb {
    fn from(byte: u8) -> ReserveVerb {
        match byte {
            0 => ReserveVerb::Read,
            1 => ReserveVerb::Set,
            2 => ReserveVerb::Force,
            other => ReserveVerb::Other(other),
        }
    }
}

impl From<ReserveVerb> for u8 {
    fn from(verb: ReserveVerb) -> u8 {
        match verb {
            ReserveVerb::Read => 0,
            ReserveVerb::Set => 1,
            ReserveVerb::Force => 2,
            ReserveVerb::Other(other) => other,
        }
    }
}

/// The argument without its MACs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reserve {
    /// What to do.
    pub verb: ReserveVerb,
}

impl Reserve {
    /// Reads the argument of a frame. A list that the frame is too short for is malformed. A reply lists the holders,
    /// also when it refuses.
    pub fn parse(body: &[u8]) -> Result<(Reserve, Macs<'_>), Malformed> {
        let (arg, rest) = body.split_first_chunk::<RESERVE_LEN>().ok_or(Malformed)?;
        let list = rest.get(..usize::from(arg[field::COUNT]) * Mac::LEN).ok_or(Malformed)?;
        Ok((Reserve { verb: ReserveVerb::from(arg[field::VERB]) }, Macs(list)))
    }

    /// Writes the argument and at most 255 MACs, and tells how many bytes that is.
    ///
    /// Panics if `out` is shorter: [`RESERVE_LEN`], and [`Mac::LEN`] a MAC.
    pub fn emit(&self, macs: &[Mac], out: &mut [u8]) -> usize {
        let macs = &macs[..macs.len().min(u8::MAX.into())];
        let length = RESERVE_LEN + macs.len() * Mac::LEN;
        let (arg, list) = out[..length].split_at_mut(RESERVE_LEN);
        arg[field::VERB] = self.verb.into();
        arg[field::COUNT] = macs.len() as u8;
        for (entry, mac) in list.chunks_exact_mut(Mac::LEN).zip(macs) {
            entry.copy_from_slice(&mac.0);
        }
        length
    }
}

/// The MACs of a frame, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Macs<'a>(&'a [u8]);

impl Iterator for Macs<'_> {
    type Item = Mac;

    fn next(&mut self) -> Option<Mac> {
        let (entry, rest) = self.0.split_first_chunk::<{ Mac::LEN }>()?;
        self.0 = rest;
        Some(Mac(array(entry, 0..Mac::LEN)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.len() / Mac::LEN;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Macs<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 0x77];
    const HOLDER: Mac = Mac([2, 0, 0, 0, 0, 0x77]);

    #[test]
    fn deconstruct() {
        let (reserve, macs) = Reserve::parse(&SET).unwrap();
        assert_eq!(reserve, Reserve { verb: ReserveVerb::Set });
        assert!(macs.eq([HOLDER]));
    }

    #[test]
    fn construct() {
        let mut out = [0xa5; 9];
        assert_eq!(Reserve { verb: ReserveVerb::Set }.emit(&[HOLDER], &mut out), 8);
        assert_eq!(out[..8], SET);
        assert_eq!(out[8], 0xa5);
    }

    #[test]
    fn a_list_must_fit() {
        assert_eq!(Reserve::parse(&SET[..7]), Err(Malformed));
        assert_eq!(Reserve::parse(&SET[..1]), Err(Malformed));
        assert_eq!(Reserve::parse(&[0, 0]).unwrap().1.len(), 0);
    }

    #[test]
    fn no_more_than_the_count_can_say() {
        let mut out = [0; RESERVE_LEN + 255 * Mac::LEN];
        assert_eq!(Reserve { verb: ReserveVerb::Force }.emit(&[HOLDER; 300], &mut out), out.len());
        assert_eq!(Reserve::parse(&out).unwrap().1.len(), 255);
    }

    #[test]
    fn every_code_survives() {
        for byte in 0..=u8::MAX {
            assert_eq!(u8::from(ReserveVerb::from(byte)), byte);
        }
    }
}
