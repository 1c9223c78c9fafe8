//! The configuration file: the same two languages, with the target in front (docs/design.md#the-command-language).

use crate::wire::Addr;

use super::line::{meaning, split_word};
use super::{CtlError, Top, UnitCommand, parse_top, parse_unit, target};

/// One line of the configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ConfigLine {
    /// `COMMAND…`: for the top ctl, at start.
    Top(Top),
    /// `TARGET COMMAND…`: for that target, whenever it appears.
    Unit(Addr, UnitCommand),
}

/// Lines of a file with their numbers, counted from 1.
pub type Numbered<T> = Vec<(usize, T)>;

/// Parses one line. A line that begins with a digit begins with a target's address, since no word of the top ctl does.
pub fn parse_config_line(line: &[u8]) -> Result<Option<ConfigLine>, CtlError> {
    let Some(text) = meaning(line)? else { return Ok(None) };
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(parse_top(line)?.map(ConfigLine::Top));
    }
    let (word, rest) = split_word(text);
    let addr = target(word).map_err(CtlError::invalid)?;
    match parse_unit(rest.as_bytes())? {
        Some(command) => Ok(Some(ConfigLine::Unit(addr, command))),
        None => Err(CtlError::invalid(format!("{addr}: no command"))),
    }
}

/// Parses a whole file: the good lines with their numbers, and the bad ones with theirs.
pub fn parse_config(text: &[u8]) -> (Numbered<ConfigLine>, Numbered<CtlError>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (n, line) in super::lines(text).enumerate() {
        match parse_config_line(line) {
            Ok(Some(command)) => good.push((n + 1, command)),
            Ok(None) => {}
            Err(error) => bad.push((n + 1, error)),
        }
    }
    (good, bad)
}
