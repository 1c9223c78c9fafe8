//! The command line of aoefs (docs/design.md#the-command): read by clap, checked and put into one [`Options`]. Each
//! error is one line that names the word. Completions and the lists of the manual page are made from [`command`], too.

mod complaint;
mod mount_options;
mod task;
pub mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::failure::Failure;
use crate::wire::Addr;

pub use complaint::explain;
pub use mount_options::{MountOptions, TABLE as MOUNT_OPTIONS};
pub use task::{Ask, NAMES as COMMANDS, Task, Via, meant};

/// The configuration file that is read at start if it is there and -c does not name another.
pub const DEFAULT_CONFIG: &str = "/etc/aoefs.conf";

/// The word of the two-argument form that stands for every interface, as /proc/mounts shows it.
pub const ANY_SOURCE: &str = "aoefs";

/// The action that the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Mount and serve.
    Mount(Box<Options>),
    /// Read the configuration and report.
    CheckConfig(Config),
    /// One of the commands beside the mounting form.
    Run(Task),
    /// Print this text and end: --help, --version.
    Print(String),
}

/// All options of a start. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where to mount; not checked yet.
    pub mountpoint: PathBuf,
    /// The interfaces to use, or the demo.
    pub network: Network,
    /// Stay in the foreground.
    pub foreground: bool,
    /// The configuration file.
    pub config: Config,
    /// Targets to wait for.
    pub wait: Vec<Addr>,
    /// How long to wait for them.
    pub wait_timeout: Duration,
    /// Where the metrics are to be had over HTTP.
    pub metrics_listen: Option<SocketAddr>,
    /// Times -v, or -1 for -q.
    pub verbosity: i8,
    /// -o.
    pub mount: MountOptions,
}

/// Where the frames go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Every Ethernet interface, also those that come later.
    All,
    /// These interfaces; empty with `none`.
    Only(Vec<String>),
    /// A built-in target in memory, of so many bytes.
    Demo(u64),
    /// A built-in target over a file.
    DemoImage(PathBuf),
}

impl Network {
    /// The first column of the mount table.
    pub fn source(&self) -> String {
        match self {
            Network::All => ANY_SOURCE.into(),
            Network::Only(names) if names.is_empty() => "none".into(),
            Network::Only(names) => names.join(","),
            Network::Demo(_) | Network::DemoImage(_) => "demo".into(),
        }
    }
}

/// Which configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its absolute path.
    pub path: PathBuf,
    /// The user named it, so it has to be there.
    pub named: bool,
}

/// Reads a command line, program name first.
pub fn parse<I, T>(args: I) -> Result<Action, Failure>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    if task::is_one(&args) {
        return task::parse(&args);
    }
    if args.len() == 2 && args[1] == "help" {
        args[1] = "--help".into();
    }
    let matches = match mounting().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return complaint::explain(&error, "aoefs").map(Action::Print),
    };
    if matches.contains_id("check-config") {
        return check_config(&matches);
    }
    let (source, mountpoint) = places(&matches)?;
    let mount = mount_options::parse(many::<String>(&matches, "option"))?;
    Ok(Action::Mount(Box::new(Options {
        mountpoint: absolute(mountpoint)?,
        network: network(&matches, source)?,
        foreground: matches.get_flag("foreground"),
        config: config(matches.get_one::<PathBuf>("config"))?,
        wait: values::targets(many::<String>(&matches, "wait"))?,
        wait_timeout: Duration::from_secs(*matches.get_one("wait-timeout").unwrap_or(&WAIT_TIMEOUT)),
        metrics_listen: matches
            .get_one::<String>("metrics-listen")
            .map(|text| values::listen_address(text))
            .transpose()?,
        verbosity: match matches.get_flag("quiet") {
            true => -1,
            false => i8::try_from(matches.get_count("verbose")).unwrap_or(i8::MAX),
        },
        mount,
    })))
}

/// How long --wait waits, in seconds. A target that is there answers within one; a switch may take the rest to learn
/// its ports.
const WAIT_TIMEOUT: u64 = 30;

/// The longest that anything on the command line may take: a day, in seconds. More is a typing error.
const DAY: u64 = 86_400;

/// The size of the demo's disk unless given: enough for a file system of every kind but xfs.
const DEMO_SIZE: &str = "64M";

/// The definition of the whole command line.
pub fn command() -> Command {
    mounting().args_conflicts_with_subcommands(true).subcommands(task::commands())
}

/// The definition of the mounting form. A directory may have the name of a command, so it is read without these.
fn mounting() -> Command {
    let path = || ValueParser::path_buf();
    let list = || ValueParser::string();
    Command::new("aoefs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("ATA-over-Ethernet targets as plain files")
        .override_usage(
            "aoefs [OPTIONS] MOUNTPOINT\n       aoefs SOURCE MOUNTPOINT -o OPT[,OPT...]\n       aoefs COMMAND ...",
        )
        .after_help(after_help())
        .max_term_width(100)
        .args_override_self(true)
        .arg(
            Arg::new("interface")
                .short('i')
                .long("interface")
                .value_name("IF")
                .action(ArgAction::Append)
                .value_parser(list())
                .help("Use only these interfaces (repeat, or a comma list); none uses nothing. Default: every Ethernet interface that is up"),
        )
        .arg(flag("foreground", 'f').help("Stay in the foreground"))
        .arg(
            Arg::new("config")
                .short('c')
                .long("config")
                .value_name("FILE")
                .value_parser(path())
                .help("Commands to run at start and when a target appears [default: /etc/aoefs.conf, if it is there]"),
        )
        .arg(
            Arg::new("option")
                .short('o')
                .long("options")
                .value_name("OPT[,OPT...]")
                .action(ArgAction::Append)
                .value_parser(list())
                .help("Mount options, see below"),
        )
        .arg(
            Arg::new("wait")
                .long("wait")
                .value_name("S.S[,...]")
                .action(ArgAction::Append)
                .value_parser(list())
                .help("Do not return, or say READY, before these targets are up"),
        )
        .arg(
            Arg::new("wait-timeout")
                .long("wait-timeout")
                .value_name("SECS")
                .value_parser(value_parser!(u64).range(1..=DAY))
                .help("How long --wait waits; then exit code 1 [default: 30]"),
        )
        .arg(
            Arg::new("metrics-listen")
                .long("metrics-listen")
                .value_name("[ADDR:]PORT")
                .value_parser(list())
                .help("Answer Prometheus over HTTP at this address [default ADDR: 127.0.0.1]"),
        )
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .value_name("FILE")
                .num_args(0..=1)
                .value_parser(path())
                .help("Read the configuration, report what is wrong with it, and exit"),
        )
        .arg(
            Arg::new("demo")
                .long("demo")
                .value_name("SIZE")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value(DEMO_SIZE)
                .value_parser(list())
                .conflicts_with_all(["interface", "demo-image"])
                .help("No network: mount a built-in target as 1.0, in memory [default size: 64M]"),
        )
        .arg(
            Arg::new("demo-image")
                .long("demo-image")
                .value_name("FILE")
                .value_parser(path())
                .conflicts_with("interface")
                .help("The same over a file, which keeps what is written"),
        )
        .arg(
            Arg::new("verbose")
                .short('v')
                .long("verbose")
                .action(ArgAction::Count)
                .conflicts_with("quiet")
                .help("Say more; twice for more still. RUST_LOG, if set, decides"),
        )
        .arg(flag("quiet", 'q').help("Say nothing but errors"))
        // Their number is checked by `places` and not by clap: it depends on -o.
        .arg(
            Arg::new("place")
                .value_name("MOUNTPOINT")
                .num_args(0..)
                .action(ArgAction::Append)
                .value_parser(path())
                .help("The directory to mount on. With two words, as mount.fuse gives them, the first is a list of interfaces"),
        )
}

fn flag(name: &'static str, short: char) -> Arg {
    Arg::new(name).short(short).long(name).action(ArgAction::SetTrue)
}

fn after_help() -> String {
    let mut text = String::from(
        "Commands (aoefs COMMAND --help tells more; a mount point of that name is ./COMMAND):\n",
    );
    text.push_str(&task::list());
    text.push_str("\nMount options (-o):\n");
    for option in MOUNT_OPTIONS.iter().filter(|option| !option.help.is_empty()) {
        text.push_str(&format!("  {:<16} {}\n", option.usage(), option.help));
    }
    text.push_str("  and, accepted and ignored since mount(8) passes them: ");
    let ignored: Vec<&str> =
        MOUNT_OPTIONS.iter().filter(|option| option.help.is_empty()).map(|option| option.name).collect();
    text.push_str(&ignored.join(", "));
    text.push_str(
        ", x-*\n\nTry it without a network:\n  mkdir -p /tmp/aoe && aoefs --demo /tmp/aoe && ls /tmp/aoe/1.0",
    );
    text
}

fn many<'a, T: Clone + Send + Sync + 'static>(matches: &'a ArgMatches, name: &str) -> Vec<&'a T> {
    matches.get_many(name).into_iter().flatten().collect()
}

/// The words without a dash: SOURCE, if there is one, and MOUNTPOINT.
fn places(matches: &ArgMatches) -> Result<(Option<&Path>, &Path), Failure> {
    let places = many::<PathBuf>(matches, "place");
    match places.as_slice() {
        [] => Err(Failure::usage("no mount point; say where: aoefs [OPTIONS] MOUNTPOINT")),
        [first, ..] if matches.contains_id("demo") && is_size(first) => Err(Failure::usage(format!(
            "--demo takes its size with =: --demo={0}; a directory of that name is ./{0}",
            first.display()
        ))),
        [mountpoint] => Ok((None, mountpoint)),
        [source, mountpoint] if matches.contains_id("option") => Ok((Some(source), mountpoint)),
        [point, name] if COMMANDS.iter().any(|known| name.as_os_str() == *known) => {
            let name = name.display();
            Err(Failure::usage(format!("the command comes first; say: aoefs {name} {}", point.display())))
        }
        [first, second] => {
            let otherwise = "name interfaces with -i, or give -o as mount.fuse does".to_owned();
            let hint =
                meant(first.as_os_str()).map_or(otherwise, |name| format!("did you mean aoefs {name}?"));
            let (first, second) = (first.display(), second.display());
            Err(Failure::usage(format!("two words, {first} and {second}, and no -o; {hint}")))
        }
        [_, _, third, ..] => Err(Failure::usage(format!(
            "{} is one word too many; say: aoefs [OPTIONS] MOUNTPOINT",
            third.display()
        ))),
    }
}

/// `64M`: a word that is a size and no path.
fn is_size(word: &Path) -> bool {
    word.to_str().is_some_and(|word| values::bytes(word).is_some())
}

fn network(matches: &ArgMatches, source: Option<&Path>) -> Result<Network, Failure> {
    let interfaces = many::<String>(matches, "interface");
    let demo = matches.get_one::<String>("demo");
    let image = matches.get_one::<PathBuf>("demo-image");
    let named: Vec<&str> = match source.map(|source| (source, source.to_str())) {
        None => interfaces.into_iter().map(String::as_str).collect(),
        Some(_) if !interfaces.is_empty() => {
            return Err(Failure::usage(
                "interfaces both as the first word and with -i; leave one of them out",
            ));
        }
        Some((_, Some(ANY_SOURCE))) => Vec::new(),
        Some((source, _)) if demo.is_some() || image.is_some() => {
            return Err(Failure::usage(format!(
                "interfaces {} with a demo, which uses no network; leave them out",
                source.display()
            )));
        }
        Some((_, Some(text))) => vec![text],
        Some((source, None)) => {
            return Err(Failure::usage(format!(
                "{} is not the name of an interface; see: ip link",
                source.display()
            )));
        }
    };
    Ok(match (demo, image) {
        (Some(size), _) => Network::Demo(values::disk_size(size)?),
        (None, Some(file)) => Network::DemoImage(absolute(file)?),
        (None, None) if named.is_empty() => Network::All,
        (None, None) => Network::Only(values::interfaces(&named)?),
    })
}

fn config(named: Option<&PathBuf>) -> Result<Config, Failure> {
    Ok(match named {
        Some(path) => Config { path: absolute(path)?, named: true },
        None => Config { path: DEFAULT_CONFIG.into(), named: false },
    })
}

/// `--check-config`, `--check-config FILE`, `-c FILE --check-config`. A mount point may be there and is not needed.
fn check_config(matches: &ArgMatches) -> Result<Action, Failure> {
    let file = matches.get_one::<PathBuf>("check-config").or_else(|| matches.get_one::<PathBuf>("config"));
    config(file).map(Action::CheckConfig)
}

/// The daemon lives in /, where a relative path would mean something else.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| {
        Failure::usage(format!("\"{}\" is not a path: {error}; name a file or directory", path.display()))
    })
}

#[cfg(test)]
mod tests;
