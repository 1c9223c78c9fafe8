//! One line of a ctl file taken apart: blanks, comments, numbers, switches, names.
//!
//! Everything here is total: any bytes give a value or a [`CtlError`], never a panic. What a word *means* is not
//! known here; the tables in the parent module and in `unit` say that.

use std::fmt;

use super::{CtlError, Switch};
use crate::near::hint;
use crate::wire::{self, BadNumber};

/// Longest name of a partition, in bytes: what devsd allows, so that a table can move between the two.
pub const PART_NAME_MAX: usize = 27;

/// The arguments of one command.
pub(super) struct Args<'a> {
    /// The words after the command, split at blanks.
    pub words: Vec<&'a str>,
    /// Everything after the command and one blank, as it was written.
    pub tail: &'a str,
}

/// One row of a command table: the word, how it is used, what it makes.
pub(super) struct Word<C: 'static> {
    /// The word itself.
    pub name: &'static str,
    /// Its arguments as a usage line shows them; empty if it takes none.
    pub args: &'static str,
    /// The fewest and the most words it takes.
    pub count: (usize, usize),
    /// Makes the command of its arguments, or says what is wrong with them.
    pub build: fn(&Args<'_>) -> Result<C, String>,
}

impl<C> fmt::Display for Word<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.args {
            "" => write!(f, "{}", self.name),
            args => write!(f, "{} {args}", self.name),
        }
    }
}

/// Blanks separate words. A carriage return counts as one, since configuration files travel.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

/// A line that says something: `None` for blank lines and comments.
pub(super) fn meaning(line: &[u8]) -> Result<Option<&str>, CtlError> {
    let line = std::str::from_utf8(line).map_err(|_| CtlError::invalid("not UTF-8"))?;
    let line = line.strip_suffix('\n').unwrap_or(line).trim_start_matches(is_blank);
    Ok((!line.is_empty() && !line.starts_with('#')).then_some(line))
}

/// The first word, and what follows it after one blank.
pub(super) fn split_word(line: &str) -> (&str, &str) {
    match line.split_once(is_blank) {
        Some((word, tail)) => (word, tail),
        None => (line, ""),
    }
}

/// Looks a line up in a command table and makes its command. `elsewhere`: what is said of a word that another
/// file takes.
pub(super) fn parse<C>(
    table: &[Word<C>],
    elsewhere: impl FnOnce(&str) -> Option<String>,
    line: &[u8],
) -> Result<Option<C>, CtlError> {
    let Some(line) = meaning(line)? else { return Ok(None) };
    let (name, tail) = split_word(line);
    let Some(word) = table.iter().find(|w| w.name == name) else {
        return Err(CtlError::invalid(match elsewhere(name) {
            Some(place) => format!("{name} is for {place}"),
            None => {
                let known = table.iter().map(|word| word.name);
                let hint = hint(name, known, "see CTL COMMANDS in aoefs(8)");
                format!("{}: no such command{hint}", shown(name))
            }
        }));
    };
    let words: Vec<&str> = tail.split(is_blank).filter(|w| !w.is_empty()).collect();
    if words.len() < word.count.0 || words.len() > word.count.1 {
        return Err(CtlError::invalid(format!("usage: {word}")));
    }
    (word.build)(&Args { words, tail })
        .map(Some)
        .map_err(|why| CtlError::invalid(format!("{name}: {why}; usage: {word}")))
}

/// A word of a user as a log line may carry it: printable and short.
pub fn shown(word: &str) -> String {
    /// Enough of a word to recognise it, in characters.
    const SHOWN_MAX: usize = 40;
    let mut out: String = word.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if word.chars().nth(SHOWN_MAX).is_some() {
        out.push('…');
    }
    out
}

/// An unsigned number as strtoull reads it with base 0: `0x…` hexadecimal, `0…` octal, else decimal. A sign, a
/// stray character or a value above 2^64-1 is refused.
pub fn number(word: &str) -> Result<u64, String> {
    wire::number(word).map_err(|why| match why {
        BadNumber::Foreign => format!("{} is not a number", shown(word)),
        BadNumber::TooLarge => format!("{} is too large", shown(word)),
    })
}

/// A number within bounds.
pub(super) fn number_in(word: &str, low: u64, high: u64) -> Result<u64, String> {
    let n = number(word)?;
    if (low..=high).contains(&n) { Ok(n) } else { Err(format!("{n} is not within {low}…{high}")) }
}

/// Whether a table has the word.
pub(super) fn has<C>(table: &[Word<C>], name: &str) -> bool {
    table.iter().any(|word| word.name == name)
}

/// A switch: nothing toggles, `on` sets, `off` clears.
pub(super) fn switch(args: &Args<'_>) -> Result<Switch, String> {
    match args.words.first() {
        None => Ok(Switch::Toggle),
        Some(&"on") => Ok(Switch::On),
        Some(&"off") => Ok(Switch::Off),
        Some(other) => Err(format!("{} is neither on nor off", shown(other))),
    }
}

/// Whether the letters of a name are those that a partition may have, and if not, why.
pub fn check_part_name(name: &str) -> Result<(), String> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'+' | b'-');
    if name.is_empty() || name.len() > PART_NAME_MAX {
        Err(format!("a name has 1…{PART_NAME_MAX} bytes"))
    } else if !name.bytes().all(fits) {
        Err(format!("{}: a name is made of A-Z a-z 0-9 . _ + -", shown(name)))
    } else if name.starts_with('-') {
        Err(format!("{}: programs would take it for an option", shown(name)))
    } else if name == "." || name == ".." {
        Err(format!("{name} is no name for a file"))
    } else {
        Ok(())
    }
}
