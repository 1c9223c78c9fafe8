//! The command language of the ctl files (docs/design.md#the-command-language): text in, commands out.
//!
//! Two tables, one for the top `ctl` and one for a target's, hold every word with its usage and its parser; the
//! same rows make the usage lines of the log and the listing in the manual page. Parsing is pure and total: a line
//! of any bytes gives nothing (blank, comment), a command, or a [`CtlError`] that carries the errno for the writer
//! and the words for the log. Whether a command *succeeds* is decided later, where it runs.

use crate::wire::Addr;

use super::errno::Errno;

mod config;
mod line;
mod lists;
mod unit;

#[cfg(test)]
mod tests;

pub use config::{ConfigLine, Numbered, parse_config, parse_config_line};
pub use line::{PART_NAME_MAX, check_part_name, number, shown};
pub use lists::{MaskEdit, ReserveEdit, mask_usage, parse_mask, parse_reserve, reserve_usage};
pub use unit::{UnitCommand, needs_network, parse_unit};

use line::{Word, switch};

/// The longest name of an interface, in bytes: a zero follows it.
const INTERFACE_NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// Why a line was refused: the errno that ends the write, and words for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CtlError {
    /// What the writer gets.
    pub errno: Errno,
    /// What the log says.
    pub words: String,
}

impl CtlError {
    /// An error with its words.
    pub fn new(errno: Errno, words: impl Into<String>) -> Self {
        Self { errno, words: words.into() }
    }

    /// A line that is wrong in itself.
    pub fn invalid(words: impl Into<String>) -> Self {
        Self::new(Errno::EINVAL, words)
    }
}

impl From<Errno> for CtlError {
    fn from(errno: Errno) -> Self {
        Self::new(errno, super::errno::words(errno))
    }
}

impl std::fmt::Display for CtlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}

/// A command about a switch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Switch {
    /// The other position.
    Toggle,
    /// Set, whatever it was.
    On,
    /// Cleared, whatever it was.
    Off,
}

impl Switch {
    /// The position after the command, from the one before.
    pub fn apply(self, now: bool) -> bool {
        match self {
            Self::Toggle => !now,
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// A command of the top `ctl`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Top {
    /// Start using an interface.
    Bind(String),
    /// Stop using an interface.
    Unbind(String),
    /// Query now; either half of the address may be all ones, which asks all.
    Discover(Addr),
    /// Query at bind.
    Autodiscover(Switch),
    /// Query every 30 s.
    Rediscover(Switch),
    /// A chatty log.
    Debug(Switch),
    /// Forget a target; `force` even while its files are open.
    Remove {
        /// The target.
        addr: Addr,
        /// It was given `-f`.
        force: bool,
    },
    /// Forget all targets that are down.
    RemoveDown,
    /// Fail all I/O of a target now.
    Failio(Addr),
}

static TOP: [Word<Top>; 8] = [
    Word { name: "bind", args: "IF", count: (1, 1), build: |a| interface(a.words[0]).map(Top::Bind) },
    Word { name: "unbind", args: "IF", count: (1, 1), build: |a| interface(a.words[0]).map(Top::Unbind) },
    Word {
        name: "discover",
        args: "[SHELF[.SLOT]]",
        count: (0, 1),
        build: |a| a.words.first().map_or(Ok(Addr::ALL), |w| pattern(w)).map(Top::Discover),
    },
    Word {
        name: "autodiscover",
        args: "[on/off]",
        count: (0, 1),
        build: |a| switch(a).map(Top::Autodiscover),
    },
    Word { name: "rediscover", args: "[on/off]", count: (0, 1), build: |a| switch(a).map(Top::Rediscover) },
    Word { name: "debug", args: "[on/off]", count: (0, 1), build: |a| switch(a).map(Top::Debug) },
    Word { name: "remove", args: "[-f] SHELF.SLOT | -a", count: (1, 2), build: |a| remove(&a.words) },
    Word {
        name: "failio",
        args: "SHELF.SLOT",
        count: (1, 1),
        build: |a| target(a.words[0]).map(Top::Failio),
    },
];

/// Parses one line of the top `ctl`.
pub fn parse_top(line: &[u8]) -> Result<Option<Top>, CtlError> {
    let elsewhere = |word: &str| {
        line::has(&unit::TABLE, word).then(|| {
            format!(
                "a target's ctl; write it to SHELF.SLOT/ctl, or in the configuration file: SHELF.SLOT {word}"
            )
        })
    };
    line::parse(&TOP, elsewhere, line)
}

/// The usage lines of the top `ctl`, in the order of the manual.
pub fn top_usage() -> impl Iterator<Item = String> {
    TOP.iter().map(ToString::to_string)
}

/// The usage lines of a target's `ctl`, in the order of the manual.
pub fn unit_usage() -> impl Iterator<Item = String> {
    unit::TABLE.iter().map(ToString::to_string)
}

/// The lines of one write, each to be parsed by itself. A final newline does not make an empty last line.
pub fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split_inclusive(|&b| b == b'\n').map(|l| l.strip_suffix(b"\n").unwrap_or(l))
}

/// The address of one target: no wildcards.
fn target(word: &str) -> Result<Addr, String> {
    let addr: Addr = word.parse().map_err(|_| format!("{} is not SHELF.SLOT", line::shown(word)))?;
    if addr.is_wildcard() { Err(format!("{addr} is an address of all targets")) } else { Ok(addr) }
}

/// The address of one target, or a shelf, which stands for all of its slots.
fn pattern(word: &str) -> Result<Addr, String> {
    if word.contains('.') {
        return word.parse().map_err(|_| format!("{} is not SHELF[.SLOT]", line::shown(word)));
    }
    let shelf = line::number_in(word, 0, u16::MAX.into())?;
    Ok(Addr::new(shelf as u16, u8::MAX))
}

/// The name of an interface, as far as the kernel would accept it. Whether there is such an interface shows when it is
/// used.
fn interface(word: &str) -> Result<String, String> {
    let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if word.len() > INTERFACE_NAME_MAX || word.contains(odd) || word == "." || word == ".." {
        return Err(format!("{} is not the name of an interface", line::shown(word)));
    }
    Ok(word.to_owned())
}

/// `remove SHELF.SLOT`, `remove -f SHELF.SLOT`, `remove -a`.
fn remove(words: &[&str]) -> Result<Top, String> {
    match words {
        ["-a"] => Ok(Top::RemoveDown),
        ["-f", addr] | [addr, "-f"] => Ok(Top::Remove { addr: target(addr)?, force: true }),
        [addr] => Ok(Top::Remove { addr: target(addr)?, force: false }),
        _ => Err("wrong arguments".into()),
    }
}
