//! `aoefs discover`: asks every target to answer now, through a mount or over interfaces.

use std::thread;
use std::time::Duration;

use super::mounts::Mount;
use super::station::{self, Heard};
use super::table::{Column, lay_out, numbers, words};
use super::{ctl, print, status};
use crate::cli::Via;
use crate::failure::Failure;
use crate::wire::{SECTOR, most_sectors};

/// How long answers are collected. A target answers within milliseconds; a switch that learns its ports takes longer.
const TIME: Duration = Duration::from_secs(1);

/// Asks, and shows who answered.
pub fn run(via: &Via) -> Result<(), Failure> {
    match via {
        Via::Mount(point) => {
            let mount = Mount::one(point.as_deref())?;
            let before = mount.targets()?;
            ctl::write(&mount, "ctl", "discover")?;
            thread::sleep(TIME);
            let after = mount.targets()?;
            print(&status::text(&mount, Duration::ZERO)?)?;
            let new: Vec<String> =
                after.iter().filter(|addr| !before.contains(addr)).map(ToString::to_string).collect();
            match new.is_empty() {
                true => Ok(()),
                false => print(&format!("new: {}\n", new.join(", "))),
            }
        }
        Via::Interfaces(names) => {
            let mut rows = Vec::new();
            for station in &mut station::open_all(names)? {
                let name = station.name();
                rows.extend(station.everybody(TIME)?.iter().map(|heard| row(&name, heard)));
            }
            if rows.is_empty() {
                let names = names.join(",");
                return print(&format!(
                    "nobody answers on {names}; to find out why: aoefs check -i {names}\n"
                ));
            }
            print(&lay_out(&COLUMNS, &rows))
        }
    }
}

const COLUMNS: [Column; 7] = [
    words("TARGET"),
    words("INTERFACE"),
    words("ADDRESS"),
    numbers("FRAME"),
    numbers("BUFFERS"),
    words("FIRMWARE"),
    words("CONFIG"),
];

fn row(name: &str, heard: &Heard) -> [String; COLUMNS.len()] {
    let config = heard.config().ok();
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        heard.header.addr.to_string(),
        name.to_owned(),
        heard.header.src.to_string(),
        shown(config.map(|config| (usize::from(most_sectors(config.sectors)) * SECTOR).to_string())),
        shown(config.map(|config| config.buffers.to_string())),
        shown(config.map(|config| format!("{:04x}", config.firmware))),
        shown(config.map(|config| String::from_utf8_lossy(config.string).into_owned())),
    ]
}
