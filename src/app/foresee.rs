//! What of a configuration file would fail when it is run, although each line by itself is right: for `--check-config`.
//! Only what the file and this machine already tell is said; what depends on a target is not known here.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::app::configfile::{ConfigFile, Line};
use crate::fs::ctl::{Top, UnitCommand};
use crate::fs::tree::is_reserved;
use crate::link::interface;
use crate::wire::{Addr, Verb};

/// One line for each command that would fail, with the place of the command.
pub fn failures(file: &ConfigFile) -> Vec<String> {
    let top = file.top().iter().filter_map(|line| Some((line.number, of_top(&line.command)?)));
    let mut found: Vec<(usize, String)> = top.collect();
    for addr in file.targets() {
        found.extend(of_target(file, addr));
    }
    found.sort();
    found.into_iter().map(|(number, why)| format!("{}: {why}", file.origin(number))).collect()
}

fn of_top(command: &Top) -> Option<String> {
    match command {
        // One that is not there is used when it comes.
        Top::Bind(name) => {
            let found = interface::named(name).ok()?;
            let fits = found.ethernet && !found.loopback;
            (!fits)
                .then(|| format!("bind {name}: it is no Ethernet interface, and AoE needs one; see: ip link"))
        }
        Top::Remove { addr, .. } | Top::Failio(addr) => Some(format!(
            "no target is known when the file is read, {addr} neither; leave the line out, or write it to ctl later"
        )),
        _ => None,
    }
}

/// What the lines of one target have done so far.
#[derive(Default)]
struct Done {
    parts: HashMap<String, (u64, u64)>,
    scanned: bool,
    string: Option<Vec<u8>>,
    sockets: HashMap<PathBuf, String>,
}

fn of_target(file: &ConfigFile, addr: Addr) -> Vec<(usize, String)> {
    let mut done = Done::default();
    // In the order in which they are run.
    let lines: Vec<&Line<UnitCommand>> = file.before_visible(addr).chain(file.once_up(addr)).collect();
    done.scanned = lines.iter().any(|line| line.command == UnitCommand::Partscan);
    lines.iter().filter_map(|line| Some((line.number, done.run(&line.command)?))).collect()
}

impl Done {
    /// Why a command would fail after those before it.
    fn run(&mut self, command: &UnitCommand) -> Option<String> {
        match command {
            UnitCommand::Part { name, .. } if is_reserved(name) => {
                Some(format!("part {name}: every target has a file {name}; choose another name"))
            }
            UnitCommand::Part { name, start, end } => match self.parts.get(name) {
                Some(old) if *old != (*start, *end) => Some(format!(
                    "part {name}: {name} is {} {} by an earlier line; choose another name",
                    old.0, old.1
                )),
                _ => {
                    self.parts.insert(name.clone(), (*start, *end));
                    None
                }
            },
            UnitCommand::Delpart { name, .. } if self.parts.remove(name).is_none() && !self.scanned => {
                Some(format!("delpart {name}: no line before it makes {name}; leave it out"))
            }
            UnitCommand::Config { verb: Verb::Set, string } => match self.string.replace(string.clone()) {
                Some(old) if old != *string => Some(
                    "config set: an earlier line sets another string; keep one of them, or say config force"
                        .into(),
                ),
                _ => None,
            },
            UnitCommand::Vhost { path, name } => {
                let dir = path.parent().filter(|dir| !dir.is_dir());
                if let Some(dir) = dir {
                    return Some(format!("vhost: there is no directory {}; make it first", dir.display()));
                }
                if name != "data" && !self.parts.contains_key(name) && !self.scanned {
                    return Some(format!(
                        "vhost: no line makes the partition {name}; add a part line for it"
                    ));
                }
                match self.sockets.insert(path.clone(), name.clone()) {
                    Some(old) if old != *name => {
                        let path = path.display();
                        Some(format!(
                            "vhost {path}: an earlier line makes that socket for {old}; choose another path"
                        ))
                    }
                    _ => None,
                }
            }
            UnitCommand::Unvhost(path) if self.sockets.remove(path).is_none() => {
                Some(format!("unvhost {}: no line before it makes that socket; leave it out", path.display()))
            }
            _ => None,
        }
    }
}
