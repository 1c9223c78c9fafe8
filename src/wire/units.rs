//! The words of the protocol as types: addresses, MACs, tags and sectors cannot be mistaken for each other.

use core::fmt;
use core::ops::{Add, Sub};
use core::str::FromStr;

use super::Malformed;

/// Bytes in a sector: AoE counts in this unit whatever the medium's own sectors are.
pub const SECTOR: usize = 512;

/// The upper half of a target's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shelf(pub u16);

/// The lower half of a target's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The address of a target, `shelf.slot`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr {
    /// All ones addresses every shelf.
    pub shelf: Shelf,
    /// All ones addresses every slot.
    pub slot: Slot,
}

impl Addr {
    /// Every target of the network: a discovery query goes there.
    pub const ALL: Addr = Addr::new(u16::MAX, u8::MAX);

    /// How many targets a network can have: one for each address without a wildcard.
    pub const COUNT: u32 = u16::MAX as u32 * u8::MAX as u32;

    /// The address `shelf.slot`.
    pub const fn new(shelf: u16, slot: u8) -> Addr {
        Addr { shelf: Shelf(shelf), slot: Slot(slot) }
    }

    /// Whether this addresses more than one target. Only requests may have such an address.
    pub fn is_wildcard(self) -> bool {
        self.shelf == Addr::ALL.shelf || self.slot == Addr::ALL.slot
    }

    /// Whether a request to this address is meant for the target at `own`.
    pub fn matches(self, own: Addr) -> bool {
        (self.shelf == own.shelf || self.shelf == Addr::ALL.shelf)
            && (self.slot == own.slot || self.slot == Addr::ALL.slot)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shelf, self.slot)
    }
}

impl FromStr for Addr {
    type Err = Malformed;

    /// Reads `shelf.slot`, each part decimal, hexadecimal (`0x…`) or octal (`0…`) as everywhere in the ctl language.
    fn from_str(text: &str) -> Result<Addr, Malformed> {
        let (shelf, slot) = text.split_once('.').ok_or(Malformed)?;
        let part = |text| number(text).map_err(|_| Malformed);
        let shelf = u16::try_from(part(shelf)?).map_err(|_| Malformed)?;
        let slot = u8::try_from(part(slot)?).map_err(|_| Malformed)?;
        Ok(Addr::new(shelf, slot))
    }
}

/// Why a text is no number: see [`number`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadNumber {
    /// It is empty, or has a sign, a blank or a digit that its base does not have.
    Foreign,
    /// It is above 2^64-1.
    TooLarge,
}

/// An unsigned number as `strtoull` with base 0 reads it: `0x…` is hexadecimal, `0…` octal, everything else decimal.
/// Blanks and signs are refused.
pub fn number(text: &str) -> Result<u64, BadNumber> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // `from_str_radix` would take a sign.
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(BadNumber::Foreign);
    }
    u64::from_str_radix(digits, radix).map_err(|_| BadNumber::TooLarge)
}

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; Mac::LEN]);

impl Mac {
    /// Bytes of an address.
    pub const LEN: usize = 6;

    /// Every station of the network.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether this can be the address of one station: not a group, not all zeros.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Malformed;

    /// Reads `52:54:00:12:34:56`, or the twelve digits alone as Plan 9 writes them.
    fn from_str(text: &str) -> Result<Mac, Malformed> {
        let bytes = text.as_bytes();
        let step = match bytes.len() {
            17 => 3,
            12 => 2,
            _ => return Err(Malformed),
        };
        let mut mac = [0; 6];
        for (byte, part) in mac.iter_mut().zip(bytes.chunks(step)) {
            *byte = match part {
                [high, low] | [high, low, b':'] => hex(*high)? << 4 | hex(*low)?,
                _ => return Err(Malformed),
            };
        }
        Ok(Mac(mac))
    }
}

fn hex(digit: u8) -> Result<u8, Malformed> {
    (digit as char).to_digit(16).map(|value| value as u8).ok_or(Malformed)
}

/// Ties a response to its request: the target copies it and does not interpret it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

impl Tag {
    /// The tag of an announcement, which answers no request.
    pub const UNSOLICITED: Tag = Tag(0);

    /// The bit that every tag of a user-space initiator has set; the kernel's driver never sets it, and ignores answers
    /// with it.
    pub const OURS: u32 = 1 << 31;

    /// Bits of a tag that count; those between them and bit 31 say which initiator of a network namespace chose it.
    pub const COUNTER_BITS: u32 = 25;

    /// How many initiators there can be side by side, each with tags of its own.
    pub const SPACES: u8 = 1 << (31 - Tag::COUNTER_BITS);

    /// The tag of the initiator number `space` (modulo [`Tag::SPACES`]) with this counter.
    pub const fn of(space: u8, counter: u32) -> Tag {
        // All ones is other initiators' mark for a free frame; its counter is never used.
        let counter = counter % ((1 << Tag::COUNTER_BITS) - 1);
        Tag(Tag::OURS | ((space % Tag::SPACES) as u32) << Tag::COUNTER_BITS | counter)
    }

    /// The number of the initiator that it belongs to, if it is one of ours.
    pub const fn space(self) -> Option<u8> {
        let number = self.0 >> Tag::COUNTER_BITS;
        if self.is_ours() { Some(number as u8 % Tag::SPACES) } else { None }
    }

    /// Whether a user-space initiator (this one, or aoeping beside it) chose the tag.
    pub const fn is_ours(self) -> bool {
        self.0 & Tag::OURS != 0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({self})")
    }
}

/// A sector's number on a disk (an LBA), in units of [`SECTOR`] bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sector(pub u64);

impl Sector {
    /// The byte at which the sector begins, if a 64-bit offset can say it.
    pub fn bytes(self) -> Option<u64> {
        self.0.checked_mul(SECTOR as u64)
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The sector so many later; it stops at the last number rather than wrap round to the start of a disk.
impl Add<u64> for Sector {
    type Output = Sector;

    fn add(self, sectors: u64) -> Sector {
        Sector(self.0.saturating_add(sectors))
    }
}

/// How many sectors lie between; 0 if the other one is later.
impl Sub<Sector> for Sector {
    type Output = u64;

    fn sub(self, from: Sector) -> u64 {
        self.0.saturating_sub(from.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, shelf, slot) in
            [("1.0", 1, 0), ("0.0", 0, 0), ("65535.255", 65535, 255), ("0x10.010", 16, 8), ("7.0XfE", 7, 254)]
        {
            assert_eq!(text.parse(), Ok(Addr::new(shelf, slot)), "{text}");
        }
        assert_eq!(Addr::new(65535, 255).to_string(), "65535.255");
        assert_eq!(number("0xffffffffffffffff"), Ok(u64::MAX));
        assert_eq!(number("18446744073709551616"), Err(BadNumber::TooLarge));
        for text in [
            "", ".", "1", "1.", ".1", "1.256", "65536.0", "1.0.0", "+1.0", "-1.0", " 1.0", "08.0", "0x.1",
            "é.1", "0é.1",
        ] {
            assert_eq!(text.parse::<Addr>(), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn wildcards_match_in_each_field() {
        let own = Addr::new(3, 7);
        for (addr, yes, wild) in [
            (own, true, false),
            (Addr::ALL, true, true),
            (Addr::new(0xffff, 7), true, true),
            (Addr::new(3, 0xff), true, true),
            (Addr::new(0xffff, 8), false, true),
            (Addr::new(4, 0xff), false, true),
            (Addr::new(7, 3), false, false),
        ] {
            assert_eq!(addr.matches(own), yes, "{addr}");
            assert_eq!(addr.is_wildcard(), wild, "{addr}");
        }
    }

    #[test]
    fn macs_are_read_and_written() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
        assert_eq!(mac.to_string(), "52:54:00:12:34:ab");
        assert_eq!("52:54:00:12:34:AB".parse(), Ok(mac));
        assert_eq!("5254001234ab".parse(), Ok(mac));
        for text in [
            "",
            "52:54:00:12:34",
            "52-54-00-12-34-ab",
            "525400:12:34:abcd",
            "5254001234a",
            "52:54:00:12:34:ag",
            "éééééé",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(Malformed), "{text}");
        }
        assert!(mac.is_unicast());
        assert!(!Mac::BROADCAST.is_unicast());
        assert!(!Mac([1, 0, 0x5e, 0, 0, 1]).is_unicast());
        assert!(!Mac([0; 6]).is_unicast());
    }

    #[test]
    fn sectors_neither_wrap_nor_panic() {
        assert_eq!(Sector(u64::MAX) + 1, Sector(u64::MAX));
        assert_eq!(Sector(1) - Sector(2), 0);
        assert_eq!(Sector(9) - Sector(2), 7);
        assert_eq!(Sector(3).bytes(), Some(1536));
        assert_eq!(Sector(1 << 55).bytes(), None);
    }

    #[test]
    fn tags_tell_whose_they_are() {
        assert!(Tag(Tag::OURS).is_ours());
        assert!(!Tag::UNSOLICITED.is_ours());
        assert_eq!(format!("{:?}", Tag(0x8000_0001)), "Tag(80000001)");
        for (space, counter) in [(0, 0), (3, 1), (63, u32::MAX), (64, 5)] {
            assert_eq!(Tag::of(space, counter).space(), Some(space % Tag::SPACES), "{space} {counter}");
        }
        assert_eq!(Tag(5).space(), None);
    }
}
