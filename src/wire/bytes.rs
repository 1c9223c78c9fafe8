//! Fixed fields in a byte slice. Every caller has checked the length of the whole before it comes here.

use core::ops::Range;

/// The bytes that a field occupies, counted from the start of the structure that names it.
pub(super) type Field = Range<usize>;

pub(super) fn array<const N: usize>(bytes: &[u8], at: Field) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at]);
    out
}

pub(super) fn be16(bytes: &[u8], at: Field) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

pub(super) fn be32(bytes: &[u8], at: Field) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

pub(super) fn put(bytes: &mut [u8], at: Field, value: &[u8]) {
    bytes[at].copy_from_slice(value);
}
