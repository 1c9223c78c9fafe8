//! The words of a target's `ctl`.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::FRAMES_MAX;
use crate::wire::{CONFIG_MAX, Verb};

use super::line::{self, Args, Word, check_part_name, number, number_in, shown, split_word, switch};
use super::{CtlError, Switch};
use crate::near::hint;

/// The MTUs that an interface of ours can have, in Linux's sense: one sector and its headers at least (36 + 512 +
/// what a target may pad), 65535 at most.
const MTU: (u64, u64) = (558, 65535);

/// The most seconds that `deadline` takes: a year. For longer there is `nofail`.
const DEADLINE_MAX: u64 = 365 * 24 * 3600;

/// A command of a target's `ctl`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum UnitCommand {
    /// Declare a partition: sectors `start` to `end`, exclusive.
    Part {
        /// Its name, valid.
        name: String,
        /// Its first sector.
        start: u64,
        /// The sector after its last; above `start`.
        end: u64,
    },
    /// Drop a partition.
    Delpart {
        /// Its name.
        name: String,
        /// `-f`: also while it is open.
        force: bool,
    },
    /// Read the partition table of the disk.
    Partscan,
    /// Re-read IDENTIFY and config.
    Identify,
    /// Cap the frame by the MTU; `None`: automatic.
    Mtu(Option<u16>),
    /// Cap the frame by sectors; `None`: automatic.
    Maxbno(Option<u8>),
    /// Allow frames above 1 KiB of data.
    Jumbo(Switch),
    /// Never fail I/O for lost contact.
    Nofail(Switch),
    /// Files that are opened from now on are not cached.
    DirectIo(Switch),
    /// How long a request may take; `None`: default.
    Deadline(Option<Duration>),
    /// Cap the frames outstanding; `None`: automatic.
    Maxout(Option<u8>),
    /// Show a smaller size, in bytes; `None`: the real one.
    Setsize(Option<u64>),
    /// Fail all outstanding and queued I/O now.
    Failio,
    /// One of the verbs of AoE's config command.
    Config {
        /// Test, prefix, set or force.
        verb: Verb,
        /// The string, as it was written.
        string: Vec<u8>,
    },
    /// Send FLUSH CACHE.
    Flush,
    /// Find the largest frame that each path carries.
    Probe,
    /// Make a disk of it for virtual machines.
    Vhost {
        /// The socket; absolute.
        path: PathBuf,
        /// `data` or a partition.
        name: String,
    },
    /// Take such a socket away.
    Unvhost(PathBuf),
}

/// The words of a target's `ctl`, in the order of the manual.
pub(super) static TABLE: [Word<UnitCommand>; 18] = [
    Word { name: "part", args: "NAME START END", count: (3, 3), build: part },
    Word {
        name: "delpart",
        args: "[-f] NAME",
        count: (1, 2),
        build: |a| {
            let (force, name) = match a.words[..] {
                [name] => (false, name),
                ["-f", name] | [name, "-f"] => (true, name),
                _ => return Err("one name".into()),
            };
            check_part_name(name).map(|()| UnitCommand::Delpart { name: name.to_owned(), force })
        },
    },
    Word { name: "partscan", args: "", count: (0, 0), build: |_| Ok(UnitCommand::Partscan) },
    Word { name: "identify", args: "", count: (0, 0), build: |_| Ok(UnitCommand::Identify) },
    Word {
        name: "mtu",
        args: "[N]",
        count: (0, 1),
        build: |a| Ok(UnitCommand::Mtu(optional(a, MTU.0, MTU.1)?.map(|n| n as u16))),
    },
    Word {
        name: "maxbno",
        args: "[N]",
        count: (0, 1),
        build: |a| Ok(UnitCommand::Maxbno(optional(a, 1, u8::MAX.into())?.map(|n| n as u8))),
    },
    Word { name: "jumbo", args: "[on/off]", count: (0, 1), build: |a| switch(a).map(UnitCommand::Jumbo) },
    Word { name: "nofail", args: "[on/off]", count: (0, 1), build: |a| switch(a).map(UnitCommand::Nofail) },
    Word {
        name: "direct_io",
        args: "[on/off]",
        count: (0, 1),
        build: |a| switch(a).map(UnitCommand::DirectIo),
    },
    Word {
        name: "deadline",
        args: "[SECS]",
        count: (0, 1),
        build: |a| Ok(UnitCommand::Deadline(optional(a, 1, DEADLINE_MAX)?.map(Duration::from_secs))),
    },
    Word {
        name: "maxout",
        args: "[N]",
        count: (0, 1),
        build: |a| Ok(UnitCommand::Maxout(optional(a, 1, FRAMES_MAX.into())?.map(|n| n as u8))),
    },
    Word {
        name: "setsize",
        args: "[BYTES]",
        count: (0, 1),
        build: |a| Ok(UnitCommand::Setsize(a.words.first().map(|w| size(w)).transpose()?)),
    },
    Word { name: "failio", args: "", count: (0, 0), build: |_| Ok(UnitCommand::Failio) },
    Word { name: "config", args: "test/prefix/set/force STRING", count: (0, usize::MAX), build: config },
    Word { name: "flush", args: "", count: (0, 0), build: |_| Ok(UnitCommand::Flush) },
    Word { name: "probe", args: "", count: (0, 0), build: |_| Ok(UnitCommand::Probe) },
    Word { name: "vhost", args: "PATH [NAME]", count: (1, 2), build: vhost },
    Word {
        name: "unvhost",
        args: "PATH",
        count: (1, 1),
        build: |a| absolute(a.words[0]).map(UnitCommand::Unvhost),
    },
];

/// Parses one line of a target's `ctl`.
pub fn parse_unit(line: &[u8]) -> Result<Option<UnitCommand>, CtlError> {
    let elsewhere = |word: &str| {
        line::has(&super::TOP, word).then(|| {
            "the ctl at the top of the mount; write it there, or in the configuration file without an address".to_owned()
        })
    };
    line::parse(&TABLE, elsewhere, line)
}

/// Whether a command means anything only once the target answers. A configuration file's other lines are applied
/// before the directory of the target is visible.
pub fn needs_network(command: &UnitCommand) -> bool {
    use UnitCommand as C;
    match command {
        C::Part { .. } | C::Delpart { .. } | C::Setsize(_) | C::DirectIo(_) => false,
        C::Mtu(_) | C::Maxbno(_) | C::Jumbo(_) | C::Maxout(_) | C::Nofail(_) | C::Deadline(_) => false,
        C::Partscan | C::Identify | C::Failio | C::Config { .. } | C::Flush | C::Probe => true,
        C::Vhost { .. } | C::Unvhost(_) => true,
    }
}

/// An optional number within bounds; none means automatic.
fn optional(args: &Args<'_>, low: u64, high: u64) -> Result<Option<u64>, String> {
    args.words.first().map(|w| number_in(w, low, high)).transpose()
}

fn part(args: &Args<'_>) -> Result<UnitCommand, String> {
    let name = args.words[0];
    check_part_name(name)?;
    let (start, end) = (number(args.words[1])?, number(args.words[2])?);
    if start >= end {
        return Err(format!("{start} to {end} holds no sector"));
    }
    Ok(UnitCommand::Part { name: name.to_owned(), start, end })
}

/// The place of a socket. Where the daemon runs is nothing that whoever writes a command knows.
fn absolute(word: &str) -> Result<PathBuf, String> {
    if !word.starts_with('/') {
        return Err(format!("{} is not an absolute path", shown(word)));
    }
    Ok(PathBuf::from(word))
}

fn vhost(args: &Args<'_>) -> Result<UnitCommand, String> {
    let path = absolute(args.words[0])?;
    let name = args.words.get(1).copied().unwrap_or("data");
    check_part_name(name)?;
    Ok(UnitCommand::Vhost { path, name: name.to_owned() })
}

/// A size in bytes: whole sectors, and at least one.
fn size(word: &str) -> Result<u64, String> {
    let bytes = number(word)?;
    if bytes == 0 || !bytes.is_multiple_of(crate::wire::SECTOR as u64) {
        return Err(format!("{bytes} is not a size in whole sectors"));
    }
    Ok(bytes)
}

/// `config VERB STRING`: the string is all that follows the verb and one blank, blanks included.
fn config(args: &Args<'_>) -> Result<UnitCommand, String> {
    let verb_first = args.tail.trim_start_matches([' ', '\t']);
    let (word, string) = split_word(verb_first);
    let verb = match word {
        "test" => Verb::Test,
        "prefix" => Verb::Prefix,
        "set" => Verb::Set,
        "force" => Verb::Force,
        "" => return Err("no verb".into()),
        other => {
            let known = ["test", "prefix", "set", "force"];
            return Err(format!(
                "{}: no such verb{}",
                shown(other),
                hint(other, known, "to read it: cat config")
            ));
        }
    };
    // Without the blank no string was given at all; guessing an empty one would clear it on `config force`.
    if verb_first.len() == word.len() {
        return Err("no string".into());
    }
    if string.len() > CONFIG_MAX {
        return Err(format!("a string has at most {CONFIG_MAX} bytes"));
    }
    Ok(UnitCommand::Config { verb, string: string.as_bytes().to_vec() })
}
