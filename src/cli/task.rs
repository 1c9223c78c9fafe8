//! The commands beside the mounting form: `aoefs status`, `aoefs ctl` and so on. The first word of the command line
//! decides; a mount point of such a name is reachable as `./status`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use super::{Action, complaint, many, values};
use crate::failure::Failure;
use crate::wire::{Addr, CONFIG_MAX};

/// What such a command is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Run one line of a ctl file.
    Ctl {
        /// The mount point, a target's directory, or the file itself.
        place: PathBuf,
        /// The line.
        line: String,
    },
    /// Show the targets in a table.
    Status {
        /// One mount; all of this machine, if None.
        point: Option<PathBuf>,
        /// The time that rates are of; no rates, if zero.
        interval: Duration,
    },
    /// Ask who is there, and show it.
    Discover(Via),
    /// Look for what is wrong.
    Check(Via),
    /// Measure round trips.
    Ping {
        /// The target.
        addr: Addr,
        /// How to reach it.
        via: Via,
        /// How many.
        count: u32,
        /// The time between two.
        interval: Duration,
    },
    /// The config string of a target.
    Config {
        /// The target.
        addr: Addr,
        /// How to reach it.
        via: Via,
        /// What to do with the string.
        ask: Ask,
    },
}

/// Through what a command reaches targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// A mount; the only one of this machine, if None.
    Mount(Option<PathBuf>),
    /// Interfaces, without a mount.
    Interfaces(Vec<String>),
}

/// What to do with a config string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Print it.
    Read,
    /// Set it where there is none.
    Set(String),
    /// Set it.
    Force(String),
    /// Is it this?
    Test(String),
    /// Does it begin with this?
    Prefix(String),
}

/// The words that begin such a command, in the order of the manual.
pub const NAMES: [&str; 6] = ["ctl", "status", "discover", "check", "ping", "config"];

/// Whether the arguments, program name first, are such a command. `aoefs ctl /mnt/aoe -o rw` is not one: mount.fuse(8)
/// calls like that for an interface of the name `ctl`.
pub fn is_one(args: &[OsString]) -> bool {
    let is = |at: usize, word: &str| args.get(at).is_some_and(|arg| arg == word);
    (NAMES.iter().any(|name| is(1, name)) || is(1, "help") && args.len() > 2) && !is(3, "-o")
}

/// Reads such a command line.
pub fn parse(args: &[OsString]) -> Result<Action, Failure> {
    let name = args.get(1).and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let matches = match all().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return complaint::explain(&error, &format!("aoefs {name}")).map(Action::Print),
    };
    match matches.subcommand() {
        Some((name, matches)) => task(name, matches).map(Action::Run),
        None => Err(Failure::usage("no command; see: aoefs --help")),
    }
}

fn task(name: &str, matches: &ArgMatches) -> Result<Task, Failure> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let seconds = |name: &str| matches.get_one::<Duration>(name).copied().unwrap_or_default();
    let addr = || matches.get_one::<Addr>("target").copied().unwrap_or(Addr::ALL);
    Ok(match name {
        "ctl" => Task::Ctl {
            place: path("place").unwrap_or_default(),
            line: many::<String>(matches, "word")
                .into_iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        },
        "status" => Task::Status { point: path("point"), interval: seconds("interval") },
        "discover" => Task::Discover(via(matches)?),
        "check" => Task::Check(via(matches)?),
        "ping" => Task::Ping {
            addr: addr(),
            via: via(matches)?,
            count: matches.get_one("count").copied().unwrap_or(PINGS),
            interval: seconds("interval"),
        },
        _ => Task::Config { addr: addr(), via: via(matches)?, ask: ask(matches)? },
    })
}

fn via(matches: &ArgMatches) -> Result<Via, Failure> {
    let words: Vec<&str> = many::<String>(matches, "interface").into_iter().map(String::as_str).collect();
    match words.is_empty() {
        true => Ok(Via::Mount(matches.get_one::<PathBuf>("point").cloned())),
        false => match values::interfaces(&words)? {
            names if names.is_empty() => {
                Err(Failure::usage("-i none reaches no target; name an interface, see: ip link"))
            }
            names => Ok(Via::Interfaces(names)),
        },
    }
}

fn ask(matches: &ArgMatches) -> Result<Ask, Failure> {
    for name in ["set", "force", "test", "prefix"] {
        let Some(string) = matches.get_one::<String>(name).cloned() else { continue };
        if string.len() > CONFIG_MAX {
            let len = string.len();
            return Err(Failure::usage(format!(
                "--{name}: a config string has at most {CONFIG_MAX} bytes, this one has {len}; shorten it"
            )));
        }
        return Ok(match name {
            "set" => Ask::Set(string),
            "force" => Ask::Force(string),
            "test" => Ask::Test(string),
            _ => Ask::Prefix(string),
        });
    }
    Ok(Ask::Read)
}

/// Round trips that are measured unless told otherwise.
const PINGS: u32 = 4;

/// The definitions of all these commands.
pub fn commands() -> [Command; NAMES.len()] {
    [ctl(), status(), discover(), check(), ping(), config()]
}

fn all() -> Command {
    Command::new("aoefs").subcommand_required(true).max_term_width(100).subcommands(commands())
}

/// The list of these commands for `aoefs --help`.
pub fn list() -> String {
    let line = |command: Command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  aoefs {:<9} {about}\n", command.get_name())
    };
    commands().map(line).concat()
}

fn ctl() -> Command {
    Command::new("ctl")
        .about("Run one command of a ctl file, and say why if it is refused")
        .override_usage("aoefs ctl MOUNTPOINT WORD...\n       aoefs ctl MOUNTPOINT/SHELF.SLOT WORD...")
        .after_help("The words are in aoefs(8), CTL COMMANDS. Examples:\n  aoefs ctl /mnt/aoe discover\n  aoefs ctl /mnt/aoe/1.0 part boot 2048 1050624")
        .arg(
            Arg::new("place")
                .value_name("MOUNTPOINT[/SHELF.SLOT]")
                .required(true)
                .value_parser(ValueParser::path_buf())
                .help("The mount point, or a target's directory in it"),
        )
        .arg(
            Arg::new("word")
                .value_name("WORD")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .allow_hyphen_values(true)
                .help("The command and its arguments"),
        )
}

fn status() -> Command {
    Command::new("status")
        .about("Show the targets: size, interfaces, paths, rate, state, last error")
        .override_usage("aoefs status [OPTIONS] [MOUNTPOINT]")
        .arg(point("The mount point [default: every aoefs that is mounted]"))
        .arg(interval("d", "0.5", "Measure rates over so many seconds; 0: show none"))
}

fn discover() -> Command {
    Command::new("discover")
        .about("Ask all targets to answer now, and show them")
        .override_usage("aoefs discover [MOUNTPOINT]\n       aoefs discover -i IF")
        .arg(point(ONLY))
        .arg(interface())
}

fn check() -> Command {
    Command::new("check")
        .about("Look for what is wrong with interfaces, paths and targets, and say what to do")
        .override_usage("aoefs check [MOUNTPOINT]\n       aoefs check -i IF")
        .after_help("Exit code: 0 nothing is wrong, 1 something is, 2 wrong usage.")
        .arg(point(ONLY))
        .arg(interface())
}

fn ping() -> Command {
    Command::new("ping")
        .about("Measure the round trip to a target")
        .override_usage(
            "aoefs ping SHELF.SLOT [OPTIONS] [MOUNTPOINT]\n       aoefs ping SHELF.SLOT [OPTIONS] -i IF",
        )
        .after_help("Exit code: 0 an answer came, 1 none did, 2 wrong usage.")
        .arg(target())
        .arg(point(ONLY))
        .arg(interface())
        .arg(
            Arg::new("count")
                .short('n')
                .long("count")
                .value_name("N")
                .default_value("4")
                .value_parser(value_parser!(u32).range(1..))
                .help("How many questions"),
        )
        .arg(interval("d", "1", "Seconds between two questions"))
}

fn config() -> Command {
    let string = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("STRING").allow_hyphen_values(true).help(help)
    };
    Command::new("config")
        .about("Print, set or test the config string of a target")
        .override_usage(
            "aoefs config SHELF.SLOT [OPTIONS] [MOUNTPOINT]\n       aoefs config SHELF.SLOT [OPTIONS] -i IF",
        )
        .after_help(
            "Exit code: 0 done, or the string is as asked; 1 it is not, or no answer came; 2 wrong usage.",
        )
        .arg(target())
        .arg(point(ONLY))
        .arg(interface())
        .arg(string("set", "Set it, if the target has none: a claim"))
        .arg(string("force", "Set it whatever it is now"))
        .arg(string("test", "Succeed if it is this"))
        .arg(string("prefix", "Succeed if it begins with this"))
        .group(ArgGroup::new("ask").args(["set", "force", "test", "prefix"]).multiple(false))
}

/// The help of a mount point that may be left out.
const ONLY: &str = "The mount point [default: the aoefs that is mounted, if it is the only one]";

fn point(help: &'static str) -> Arg {
    Arg::new("point").value_name("MOUNTPOINT").value_parser(ValueParser::path_buf()).help(help)
}

fn interface() -> Arg {
    Arg::new("interface")
        .short('i')
        .long("interface")
        .value_name("IF")
        .action(ArgAction::Append)
        .conflicts_with("point")
        .help("Without a mount, over these interfaces (repeat, or a comma list)")
}

fn target() -> Arg {
    Arg::new("target")
        .value_name("SHELF.SLOT")
        .required(true)
        .value_parser(address)
        .help("The target, such as 1.0")
}

fn interval(short: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new("interval")
        .short(short.chars().next())
        .long("interval")
        .value_name("SECS")
        .default_value(default)
        .value_parser(seconds)
        .help(help)
}

fn address(text: &str) -> Result<Addr, String> {
    let addr = text.parse::<Addr>().ok().filter(|addr| !addr.is_wildcard());
    addr.ok_or_else(|| "not a target; say SHELF.SLOT, as in 1.0".into())
}

/// The longest interval, in seconds: an hour. More is a typing error.
const LONGEST: f64 = 3600.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=LONGEST).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("not a number of seconds from 0 to {LONGEST}"))
}

/// The command that a word was probably meant to be.
pub fn meant(word: &OsStr) -> Option<&'static str> {
    crate::near::near(word.to_str()?, NAMES)
}
