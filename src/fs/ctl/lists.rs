//! What may be written to the `mask` and `reserve` files of a target.

use crate::wire::Mac;

use super::CtlError;
use super::line::{Args, Word, parse, shown};

/// The most addresses that one `set` or `force` takes: a reservation frame of 1500 bytes holds that many, and the
/// count on the wire is one byte.
const HOLDERS_MAX: usize = 240;

/// A change of a target's MAC mask list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MaskEdit {
    /// The target is to answer this address too.
    Add(Mac),
    /// The target is to answer this address no more.
    Del {
        /// The address.
        mac: Mac,
        /// It was written as `del!`: also where that is known to do harm.
        sure: bool,
    },
}

/// A change of a target's reservation list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReserveEdit {
    /// Reserve for this machine: the addresses of the netlinks that reach the target.
    Take,
    /// End the reservation.
    Release,
    /// Reserve for these, if no other address holds it.
    Set(Vec<Mac>),
    /// Reserve for these, even if another address holds it.
    Force(Vec<Mac>),
}

static MASK: [Word<MaskEdit>; 3] = [
    Word { name: "add", args: "MAC", count: (1, 1), build: |a| mac(a.words[0]).map(MaskEdit::Add) },
    Word {
        name: "del",
        args: "MAC",
        count: (1, 1),
        build: |a| Ok(MaskEdit::Del { mac: mac(a.words[0])?, sure: false }),
    },
    Word {
        name: "del!",
        args: "MAC",
        count: (1, 1),
        build: |a| Ok(MaskEdit::Del { mac: mac(a.words[0])?, sure: true }),
    },
];

static RESERVE: [Word<ReserveEdit>; 4] = [
    Word { name: "take", args: "", count: (0, 0), build: |_| Ok(ReserveEdit::Take) },
    Word { name: "release", args: "", count: (0, 0), build: |_| Ok(ReserveEdit::Release) },
    Word { name: "set", args: "MAC...", count: (1, HOLDERS_MAX), build: |a| macs(a).map(ReserveEdit::Set) },
    Word {
        name: "force",
        args: "MAC...",
        count: (1, HOLDERS_MAX),
        build: |a| macs(a).map(ReserveEdit::Force),
    },
];

/// The usage lines of `mask`.
pub fn mask_usage() -> impl Iterator<Item = String> {
    MASK.iter().map(Word::to_string)
}

/// The usage lines of `reserve`.
pub fn reserve_usage() -> impl Iterator<Item = String> {
    RESERVE.iter().map(Word::to_string)
}

/// Parses one line written to `mask`.
pub fn parse_mask(line: &[u8]) -> Result<Option<MaskEdit>, CtlError> {
    parse(&MASK, |_| None, line)
}

/// Parses one line written to `reserve`.
pub fn parse_reserve(line: &[u8]) -> Result<Option<ReserveEdit>, CtlError> {
    parse(&RESERVE, |_| None, line)
}

/// The address of one station: no initiator has the address of a group.
fn mac(word: &str) -> Result<Mac, String> {
    match word.parse::<Mac>() {
        Ok(mac) if mac.is_unicast() => Ok(mac),
        Ok(mac) => Err(format!("{mac} is not the address of one station")),
        Err(_) => Err(format!("{} is not a MAC address", shown(word))),
    }
}

fn macs(args: &Args<'_>) -> Result<Vec<Mac>, String> {
    args.words.iter().map(|w| mac(w)).collect()
}
