//! `aoefs config`: the config string of a target, over a mount or, as aoecfg(8) does, over an interface.

use std::time::Duration;

use super::mounts::Mount;
use super::station::{self, Heard, PATIENCE, Station};
use super::{ctl, print};
use crate::cli::{Ask, Via};
use crate::failure::Failure;
use crate::wire::{Addr, Mac, Refusal, Verb};

/// How long a target is asked whose string was another one a moment ago: such a target does not answer.
const SILENCE: Duration = Duration::from_millis(600);

/// Does it. False: the string is not the one that was asked for.
pub fn run(addr: Addr, via: &Via, ask: &Ask) -> Result<bool, Failure> {
    match via {
        Via::Mount(point) => over_mount(&Mount::one(point.as_deref())?, addr, ask),
        Via::Interfaces(names) => {
            let mut stations = station::open_all(names)?;
            let (n, heard) = station::locate(&mut stations, addr)?;
            over_wire(&mut stations[n], addr, &heard, ask)
        }
    }
}

fn over_mount(mount: &Mount, addr: Addr, ask: &Ask) -> Result<bool, Failure> {
    let (verb, string) = match ask {
        // Read first, in every case: a target that is down is said as such.
        Ask::Read => return print_string(mount.read(&format!("{addr}/config"))?.as_bytes()),
        Ask::Set(string) => ("set", string),
        Ask::Force(string) => ("force", string),
        Ask::Test(string) => return judge(&mount.read(&format!("{addr}/config"))?, addr, |s| s == string),
        Ask::Prefix(string) => {
            return judge(&mount.read(&format!("{addr}/config"))?, addr, |s| s.starts_with(string));
        }
    };
    ctl::write(mount, &format!("{addr}/ctl"), &format!("config {verb} {string}")).map(|()| true)
}

fn judge(string: &str, addr: Addr, fits: impl FnOnce(&str) -> bool) -> Result<bool, Failure> {
    match fits(string) {
        true => Ok(true),
        false => print(&format!("{addr} has the string \"{}\"\n", string.escape_debug())).map(|()| false),
    }
}

fn print_string(string: &[u8]) -> Result<bool, Failure> {
    print(&format!("{}\n", String::from_utf8_lossy(string))).map(|()| true)
}

fn over_wire(station: &mut Station, addr: Addr, first: &Heard, ask: &Ask) -> Result<bool, Failure> {
    let (mac, had) = (first.header.src, string_of(first));
    let (verb, string) = match ask {
        Ask::Read => return print_string(&had),
        Ask::Set(string) => (Verb::Set, string),
        Ask::Force(string) => (Verb::Force, string),
        Ask::Test(string) => (Verb::Test, string),
        Ask::Prefix(string) => (Verb::Prefix, string),
    };
    let shown = |string: &[u8]| String::from_utf8_lossy(string).escape_debug().to_string();
    let patience = match verb {
        Verb::Test if had != string.as_bytes() => SILENCE,
        Verb::Prefix if !had.starts_with(string.as_bytes()) => SILENCE,
        _ => PATIENCE,
    };
    let answer = question(station, (mac, addr), verb, string, patience)?;
    let said = answer.as_ref().map(string_of);
    match (verb, answer, said) {
        // A target that has another string does not answer a test, or answers it as it answers a read.
        (Verb::Test | Verb::Prefix, _, said) => {
            let said = said.unwrap_or(Vec::new());
            let fits = match verb {
                Verb::Test => said == string.as_bytes(),
                _ => !said.is_empty() && said.starts_with(string.as_bytes()) || said == string.as_bytes(),
            };
            if !fits {
                print(&format!("{addr} has the string \"{}\"\n", shown(&had)))?;
            }
            Ok(fits)
        }
        (_, None, _) => Err(Failure::start(format!(
            "no answer from {addr} to the new string within {} s; what it has now: aoefs config {addr} -i {}",
            PATIENCE.as_secs(),
            station.name()
        ))),
        (_, Some(_), Some(said)) if said == string.as_bytes() => Ok(true),
        (_, Some(answer), said) if answer.header.error.is_none_or(|e| e == Refusal::ConfigPresent) => {
            let has = shown(&said.filter(|said| !said.is_empty()).unwrap_or(had));
            Err(Failure::start(format!("{addr} has the string \"{has}\" already; replace it with --force")))
        }
        (_, Some(answer), _) => {
            let why = answer.header.error.map_or("no reason".into(), |error| error.to_string());
            Err(Failure::start(format!("{addr} refuses the string: {why}; look at its own log")))
        }
    }
}

fn string_of(heard: &Heard) -> Vec<u8> {
    heard.config().map(|config| config.string.to_vec()).unwrap_or_default()
}

fn question(
    station: &mut Station,
    (mac, addr): (Mac, Addr),
    verb: Verb,
    string: &str,
    patience: Duration,
) -> Result<Option<Heard>, Failure> {
    station.answer(patience, addr, |station| station.ask_config(mac, addr, verb, string.as_bytes()))
}
