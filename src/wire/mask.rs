//! The argument of a mask command: the list of MACs that a target listens to; an empty list stands for all.

use core::fmt;

use super::bytes::{array, put};
use super::{Mac, Malformed};

/// Bytes of the argument before the directives.
pub const MASK_LEN: usize = 4;

/// Bytes of a directive.
pub const DIRECTIVE_LEN: usize = directive::MAC.end;

mod field {
    pub(super) const RESERVED: usize = 0;
    pub(super) const VERB: usize = 1;
    pub(super) const ERROR: usize = 2;
    pub(super) const COUNT: usize = 3;
}

mod directive {
    use crate::wire::bytes::Field;

    pub(super) const RESERVED: usize = 0;
    pub(super) const OP: usize = 1;
    pub(super) const MAC: Field = 2..8;
}

/// What to do with the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaskVerb {
    /// 0: return it.
    Read,
    /// 1: apply the directives in order, then return it.
    Edit,
    /// Undefined.
    Other(u8),
}

impl From<u8> for MaskVerb {
    fn from(byte: u8) -> MaskVerb {
        match byte {
            0 => MaskVerb::Read,
            1 => MaskVerb::Edit,
            other => MaskVerb::Other(other),
        }
    }
}

impl From<MaskVerb> for u8 {
    fn from(verb: MaskVerb) -> u8 {
        match verb {
            MaskVerb::Read => 0,
            MaskVerb::Edit => 1,
            MaskVerb::Other(other) => other,
        }
    }
}

/// How an edit ended. This is not the error of the header: that one stays clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaskError {
    /// 0: it succeeded; the list follows.
    None,
    /// 1: it failed.
    Unspecified,
    /// 2: the target does not know the directive.
    BadDirective,
    /// 3: the list is full.
    Full,
    /// Undefined.
    Other(u8),
}

impl From<u8> for MaskError {
    fn from(byte: u8) -> MaskError {
        match byte {
            0 => MaskError::None,
            1 => MaskError::Unspecified,
            2 => MaskError::BadDirective,
            3 => MaskError::Full,
            other => MaskError::Other(other),
        }
    }
}

impl From<MaskError> for u8 {
    fn from(error: MaskError) -> u8 {
        match error {
            MaskError::None => 0,
            MaskError::Unspecified => 1,
            MaskError::BadDirective => 2,
            MaskError::Full => 3,
            MaskError::Other(other) => other,
        }
    }
}

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MaskError::None => "no error",
            MaskError::Unspecified => "unspecified error",
            MaskError::BadDirective => "bad directive",
            MaskError::Full => "mask list full",
            MaskError::Other(code) => return write!(f, "mask error {code}"),
        })
    }
}

/// What a directive does with its MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaskOp {
    /// 0: nothing; the MACs of a reply carry it.
    Skip,
    /// 1: listen to it.
    Add,
    /// 2: do not. (vblade 25 dies of this one.)
    Delete,
    /// Undefined.
    Other(u8),
}

impl From<u8> for MaskOp {
    fn from(byte: u8) -> MaskOp {
        match byte {
            0 => MaskOp::Skip,
            1 => MaskOp::Add,
            2 => MaskOp::Delete,
            other => MaskOp::Other(other),
        }
    }
}

impl From<MaskOp> for u8 {
    fn from(op: MaskOp) -> u8 {
        match op {
            MaskOp::Skip => 0,
            MaskOp::Add => 1,
            MaskOp::Delete => 2,
            MaskOp::Other(other) => other,
        }
    }
}

/// One line of an edit, or of the list in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Directive {
    /// What to do.
    pub op: MaskOp,
    /// The MAC to do it with.
    pub mac: Mac,
}

/// The argument without its directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mask {
    /// What to do.
    pub verb: MaskVerb,
    /// How it ended; [`MaskError::None`] in a request.
    pub error: MaskError,
    /// How many directives follow; after an error none does, and this is the index of the one that failed.
    pub directives: u8,
}

impl Mask {
    /// Reads the argument of a frame. A list that the frame is too short for is malformed.
    pub fn parse(body: &[u8]) -> Result<(Mask, Directives<'_>), Malformed> {
        let (arg, rest) = body.split_first_chunk::<MASK_LEN>().ok_or(Malformed)?;
        let mask = Mask {
            verb: MaskVerb::from(arg[field::VERB]),
            error: MaskError::from(arg[field::ERROR]),
            directives: arg[field::COUNT],
        };
        let list = rest.get(..mask.listed() * DIRECTIVE_LEN).ok_or(Malformed)?;
        Ok((mask, Directives(list)))
    }

    /// Writes the argument and the directives, as many as it says follow, and tells how many bytes that is.
    ///
    /// Panics if `out` is shorter: [`MASK_LEN`], and [`DIRECTIVE_LEN`] a directive. Directives that are said but not
    /// given are zeros.
    pub fn emit(&self, directives: impl IntoIterator<Item = Directive>, out: &mut [u8]) -> usize {
        let length = MASK_LEN + self.listed() * DIRECTIVE_LEN;
        let (arg, list) = out[..length].split_at_mut(MASK_LEN);
        arg[field::RESERVED] = 0;
        arg[field::VERB] = self.verb.into();
        arg[field::ERROR] = self.error.into();
        arg[field::COUNT] = self.directives;
        list.fill(0);
        for (entry, item) in list.chunks_exact_mut(DIRECTIVE_LEN).zip(directives) {
            entry[directive::RESERVED] = 0;
            entry[directive::OP] = item.op.into();
            put(entry, directive::MAC, &item.mac.0);
        }
        length
    }

    fn listed(&self) -> usize {
        if self.error == MaskError::None { self.directives.into() } else { 0 }
    }
}

/// The directives of a frame, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives<'a>(&'a [u8]);

impl Iterator for Directives<'_> {
    type Item = Directive;

    fn next(&mut self) -> Option<Directive> {
        let (entry, rest) = self.0.split_first_chunk::<DIRECTIVE_LEN>()?;
        self.0 = rest;
        Some(Directive { op: MaskOp::from(entry[directive::OP]), mac: Mac(array(entry, directive::MAC)) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.len() / DIRECTIVE_LEN;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Directives<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const EDIT: [u8; 20] = [0, 1, 0, 2, 0, 1, 2, 0, 0, 0, 0, 7, 0, 2, 2, 0, 0, 0, 0, 8];

    fn directives() -> [Directive; 2] {
        [
            Directive { op: MaskOp::Add, mac: Mac([2, 0, 0, 0, 0, 7]) },
            Directive { op: MaskOp::Delete, mac: Mac([2, 0, 0, 0, 0, 8]) },
        ]
    }

    const MASK: Mask = Mask { verb: MaskVerb::Edit, error: MaskError::None, directives: 2 };

    #[test]
    fn deconstruct() {
        let (mask, list) = Mask::parse(&EDIT).unwrap();
        assert_eq!(mask, MASK);
        assert_eq!(list.len(), 2);
        assert!(list.eq(directives()));
    }

    #[test]
    fn construct() {
        let mut out = [0xa5; 21];
        assert_eq!(MASK.emit(directives(), &mut out), 20);
        assert_eq!(out[..20], EDIT);
        assert_eq!(out[20], 0xa5);
    }

    #[test]
    fn a_list_must_fit_unless_it_failed() {
        assert_eq!(Mask::parse(&EDIT[..19]), Err(Malformed));
        assert_eq!(Mask::parse(&EDIT[..3]), Err(Malformed));
        let (mask, list) = Mask::parse(&[0, 1, 2, 1]).unwrap();
        assert_eq!(mask, Mask { verb: MaskVerb::Edit, error: MaskError::BadDirective, directives: 1 });
        assert_eq!(list.len(), 0);
        let mut out = [0xa5; 4];
        assert_eq!(mask.emit([], &mut out), 4);
        assert_eq!(out, [0, 1, 2, 1]);
    }

    #[test]
    fn every_code_survives() {
        for byte in 0..=u8::MAX {
            assert_eq!(u8::from(MaskVerb::from(byte)), byte);
            assert_eq!(u8::from(MaskError::from(byte)), byte);
            assert_eq!(u8::from(MaskOp::from(byte)), byte);
        }
    }
}
