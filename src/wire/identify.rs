//! The 512 bytes of IDENTIFY DEVICE: the identity of a disk, its size and its abilities.
//!
//! They are read as leniently as the targets in use need (validity bits are not checked: qaoed sets none). But a word
//! of all ones counts as unknown, and a disk that would be addressed wrongly is refused.

use core::fmt;

/// Bytes of the answer: 256 little-endian words.
pub const IDENTIFY_LEN: usize = 512;

/// Word numbers; everything in IDENTIFY is counted in words of two bytes.
mod field {
    use core::ops::Range;

    pub(super) const GENERAL: usize = 0;
    pub(super) const SERIAL: Range<usize> = 10..20;
    pub(super) const FIRMWARE: Range<usize> = 23..27;
    pub(super) const MODEL: Range<usize> = 27..47;
    pub(super) const MULTIPLE: usize = 47;
    pub(super) const CAPABILITIES: usize = 49;
    pub(super) const CAPABILITIES_2: usize = 50;
    pub(super) const SECTORS_28: Range<usize> = 60..62;
    pub(super) const ADDITIONAL: usize = 69;
    pub(super) const MAJOR_VERSION: usize = 80;
    pub(super) const SUPPORTED_1: usize = 82;
    pub(super) const SUPPORTED_2: usize = 83;
    pub(super) const SUPPORTED_3: usize = 84;
    pub(super) const ENABLED_1: usize = 85;
    pub(super) const ENABLED_2: usize = 86;
    pub(super) const ENABLED_3: usize = 87;
    pub(super) const RESET_RESULT: usize = 93;
    pub(super) const SECTORS_48: Range<usize> = 100..104;
    pub(super) const MAX_TRIM_BLOCKS: usize = 105;
    pub(super) const PHYSICAL: usize = 106;
    pub(super) const DATA_SET: usize = 169;
    pub(super) const ROTATION: usize = 217;
    pub(super) const INTEGRITY: usize = 255;
}

mod bit {
    /// GENERAL: not a removable medium.
    pub(super) const FIXED: u16 = 1 << 6;
    /// CAPABILITIES: addressed by LBA.
    pub(super) const LBA: u16 = 1 << 9;
    /// ADDITIONAL: after TRIM every read returns the same.
    pub(super) const DRAT: u16 = 1 << 14;
    /// ADDITIONAL: namely zeros.
    pub(super) const RZAT: u16 = 1 << 5;
    /// SUPPORTED_1, ENABLED_1.
    pub(super) const SMART: u16 = 1 << 0;
    /// SUPPORTED_1, ENABLED_1: a volatile write cache.
    pub(super) const WRITE_CACHE: u16 = 1 << 5;
    /// SUPPORTED_2, ENABLED_2: 48-bit commands.
    pub(super) const LBA48: u16 = 1 << 10;
    /// SUPPORTED_2, ENABLED_2: FLUSH CACHE.
    pub(super) const FLUSH: u16 = 1 << 12;
    /// SUPPORTED_2, ENABLED_2: FLUSH CACHE EXT.
    pub(super) const FLUSH_EXT: u16 = 1 << 13;
    /// PHYSICAL: more than one sector in a physical one; the low four bits say how many, as a logarithm.
    pub(super) const MULTIPLE: u16 = 1 << 13;
    /// DATA_SET: TRIM.
    pub(super) const TRIM: u16 = 1 << 0;
    /// The two top bits of a word whose others count.
    pub(super) const VALID: u16 = 1 << 14;
    pub(super) const VALID_MASK: u16 = 3 << 14;
}

/// MULTIPLE: the upper byte that the standard fixes; no READ MULTIPLE.
const MULTIPLE: u16 = 0x8000;
/// MAJOR_VERSION: ATA/ATAPI-4 to ATA8-ACS.
const MAJOR_VERSION: u16 = 0x01f0;
/// RESET_RESULT: the value of a disk alone on its cable; other targets send the same.
const RESET_RESULT: u16 = 0x400b;
/// INTEGRITY: the low byte that says the high one is a checksum.
const SIGNATURE: u8 = 0xa5;
/// The most sectors that the 28-bit commands address.
pub const SECTORS_28: u64 = 1 << 28;
/// The most sectors that any command addresses, and so the most of any disk.
pub const SECTORS_48: u64 = 1 << 48;

/// A field of text, at most `N` bytes: graphic ASCII with blanks between, whatever the disk sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    /// The text, cleaned: characters that are not graphic ASCII become blanks, blanks at the ends go, and text that is
    /// too long is cut.
    pub fn new(text: &str) -> Text<N> {
        Text::clean(text.bytes())
    }

    fn clean(from: impl Iterator<Item = u8>) -> Text<N> {
        let mut bytes = [0; N];
        let mut length = 0;
        let printable = from.map(|byte| if byte.is_ascii_graphic() { byte } else { b' ' });
        for (place, byte) in bytes.iter_mut().zip(printable.skip_while(|byte| *byte == b' ')) {
            *place = byte;
            length += 1;
        }
        while length > 0 && bytes[length - 1] == b' ' {
            length -= 1;
            // The bytes behind the text take part in comparisons.
            bytes[length] = 0;
        }
        Text { bytes, length }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Text<N> {
        Text { bytes: [0; N], length: 0 }
    }
}

impl<const N: usize> fmt::Display for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// How a disk makes written data stable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlushKind {
    /// It claims no flush.
    #[default]
    None,
    /// FLUSH CACHE.
    Flush,
    /// FLUSH CACHE EXT.
    FlushExt,
}

/// Why a disk that answered IDENTIFY cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unusable {
    /// Fewer than 512 bytes came.
    Short,
    /// It has a checksum, and it is wrong.
    BadChecksum,
    /// It is not addressed by LBA.
    NoLba,
    /// It has no sectors.
    Empty,
    /// It has more sectors than its commands can address: 2^48, or 2^28 without the 48-bit ones.
    TooLarge,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unusable::Short => "IDENTIFY data is short",
            Unusable::BadChecksum => "IDENTIFY checksum is wrong",
            Unusable::NoLba => "disk has no LBA addressing",
            Unusable::Empty => "disk has no sectors",
            Unusable::TooLarge => "disk has more sectors than it can address",
        })
    }
}

impl core::error::Error for Unusable {}

/// The fields of IDENTIFY that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identify {
    /// The serial number. Not unique everywhere: kvblade calls every disk "SN HERE".
    pub serial: Text<20>,
    /// The model.
    pub model: Text<40>,
    /// The firmware's revision.
    pub firmware: Text<8>,
    /// The size, in sectors of 512 bytes.
    pub sectors: u64,
    /// Whether it takes the 48-bit commands.
    pub lba48: bool,
    /// Which flush it claims to have.
    pub flush: FlushKind,
    /// Whether it claims TRIM. (torus claims it and aborts it.)
    pub trim: bool,
    /// Whether trimmed sectors are promised to read as zeros.
    pub trim_zeroes: bool,
    /// The most blocks of entries that one TRIM takes; 0 if it is not said, which means one.
    pub max_trim_blocks: u16,
    /// Whether it has SMART.
    pub smart: bool,
    /// Whether a volatile write cache is on.
    pub write_cache: bool,
    /// Sectors in a physical sector, as a logarithm: 3 for a disk of 4 KiB ones.
    pub physical_log2: u8,
    /// 0 if it is not said, 1 if nothing rotates, else turns a minute.
    pub rotation: u16,
}

impl Identify {
    /// Reads the answer of a disk; bytes after the 512 are padding.
    pub fn parse(data: &[u8]) -> Result<Identify, Unusable> {
        let data = data.first_chunk::<IDENTIFY_LEN>().ok_or(Unusable::Short)?;
        let [signature, _] = raw(data, field::INTEGRITY);
        if signature == SIGNATURE && sum(data) != 0 {
            return Err(Unusable::BadChecksum);
        }
        let features = word(data, field::SUPPORTED_2) | word(data, field::ENABLED_2);
        let lba48 = features & bit::LBA48 != 0;
        if !lba48 && word(data, field::CAPABILITIES) & bit::LBA == 0 {
            return Err(Unusable::NoLba);
        }
        let (sectors, most) = if lba48 {
            (number(data, field::SECTORS_48), SECTORS_48)
        } else {
            (number(data, field::SECTORS_28), SECTORS_28)
        };
        if sectors == 0 {
            return Err(Unusable::Empty);
        }
        if sectors > most {
            return Err(Unusable::TooLarge);
        }
        let trim = word(data, field::DATA_SET) & bit::TRIM != 0;
        let zeroes = bit::DRAT | bit::RZAT;
        Ok(Identify {
            serial: text(data, field::SERIAL),
            model: text(data, field::MODEL),
            firmware: text(data, field::FIRMWARE),
            sectors,
            lba48,
            flush: if features & bit::FLUSH_EXT != 0 {
                FlushKind::FlushExt
            } else if features & bit::FLUSH != 0 {
                FlushKind::Flush
            } else {
                FlushKind::None
            },
            trim,
            trim_zeroes: trim && word(data, field::ADDITIONAL) & zeroes == zeroes,
            max_trim_blocks: if trim { word(data, field::MAX_TRIM_BLOCKS) } else { 0 },
            smart: word(data, field::SUPPORTED_1) & bit::SMART != 0,
            write_cache: word(data, field::ENABLED_1) & bit::WRITE_CACHE != 0,
            physical_log2: physical_log2(word(data, field::PHYSICAL)),
            rotation: word(data, field::ROTATION),
        })
    }

    /// Writes the answer of a disk with these properties, checksum included.
    pub fn emit(&self, out: &mut [u8; IDENTIFY_LEN]) {
        out.fill(0);
        put_text(out, field::SERIAL, self.serial.as_str());
        put_text(out, field::MODEL, self.model.as_str());
        put_text(out, field::FIRMWARE, self.firmware.as_str());

        put_word(out, field::GENERAL, bit::FIXED);
        put_word(out, field::MULTIPLE, MULTIPLE);
        put_word(out, field::CAPABILITIES, bit::LBA);
        put_word(out, field::CAPABILITIES_2, bit::VALID);
        put_word(out, field::MAJOR_VERSION, MAJOR_VERSION);
        put_word(out, field::RESET_RESULT, RESET_RESULT);

        // A disk larger than 28 bits can say gives the largest number.
        put_number(
            out,
            field::SECTORS_28,
            self.sectors.min(if self.lba48 { SECTORS_28 - 1 } else { SECTORS_28 }),
        );
        put_number(out, field::SECTORS_48, if self.lba48 { self.sectors } else { 0 });

        let first = when(self.smart, bit::SMART) | when(self.write_cache, bit::WRITE_CACHE);
        put_word(out, field::SUPPORTED_1, first);
        put_word(out, field::ENABLED_1, first);
        let second = when(self.lba48, bit::LBA48)
            | match self.flush {
                FlushKind::None => 0,
                FlushKind::Flush => bit::FLUSH,
                FlushKind::FlushExt => bit::FLUSH | bit::FLUSH_EXT,
            };
        put_word(out, field::SUPPORTED_2, bit::VALID | second);
        put_word(out, field::ENABLED_2, second);
        put_word(out, field::SUPPORTED_3, bit::VALID);
        put_word(out, field::ENABLED_3, bit::VALID);

        if self.trim {
            put_word(out, field::DATA_SET, bit::TRIM);
            put_word(out, field::ADDITIONAL, when(self.trim_zeroes, bit::DRAT | bit::RZAT));
            put_word(out, field::MAX_TRIM_BLOCKS, self.max_trim_blocks);
        }
        if self.physical_log2 > 0 {
            put_word(out, field::PHYSICAL, bit::VALID | bit::MULTIPLE | u16::from(self.physical_log2 & 0x0f));
        }
        put_word(out, field::ROTATION, self.rotation);

        put_word(out, field::INTEGRITY, SIGNATURE.into());
        put_word(out, field::INTEGRITY, u16::from_le_bytes([SIGNATURE, sum(out).wrapping_neg()]));
    }
}

fn when(condition: bool, bits: u16) -> u16 {
    if condition { bits } else { 0 }
}

fn raw(data: &[u8; IDENTIFY_LEN], at: usize) -> [u8; 2] {
    [data[2 * at], data[2 * at + 1]]
}

/// A word of bits or a small number. An old disk answers all ones for a word that it does not know.
fn word(data: &[u8; IDENTIFY_LEN], at: usize) -> u16 {
    match u16::from_le_bytes(raw(data, at)) {
        u16::MAX => 0,
        word => word,
    }
}

fn put_word(out: &mut [u8; IDENTIFY_LEN], at: usize, value: u16) {
    let [low, high] = value.to_le_bytes();
    out[2 * at] = low;
    out[2 * at + 1] = high;
}

fn number(data: &[u8; IDENTIFY_LEN], at: core::ops::Range<usize>) -> u64 {
    at.rev().fold(0, |sum, at| sum << 16 | u64::from(u16::from_le_bytes(raw(data, at))))
}

fn put_number(out: &mut [u8; IDENTIFY_LEN], at: core::ops::Range<usize>, mut value: u64) {
    for at in at {
        put_word(out, at, value as u16);
        value >>= 16;
    }
}

/// Text has its first character in the high byte of a word, which is the second one here.
fn text<const N: usize>(data: &[u8; IDENTIFY_LEN], at: core::ops::Range<usize>) -> Text<N> {
    Text::clean(at.flat_map(|at| {
        let [second, first] = raw(data, at);
        [first, second]
    }))
}

fn put_text(out: &mut [u8; IDENTIFY_LEN], at: core::ops::Range<usize>, text: &str) {
    let mut padded = text.bytes().chain(core::iter::repeat(b' '));
    for at in at {
        if let (Some(first), Some(second)) = (padded.next(), padded.next()) {
            put_word(out, at, u16::from_le_bytes([second, first]));
        }
    }
}

fn physical_log2(word: u16) -> u8 {
    if word & bit::VALID_MASK == bit::VALID && word & bit::MULTIPLE != 0 { (word & 0x0f) as u8 } else { 0 }
}

fn sum(data: &[u8; IDENTIFY_LEN]) -> u8 {
    data.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests;
