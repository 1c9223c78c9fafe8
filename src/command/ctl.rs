//! `aoefs ctl`: one line for a ctl file, and the reason if it is refused. The file itself tells the reason: it belongs
//! to the open file that the line was written through (docs/design.md#the-command-language).

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::mounts::Mount;
use crate::failure::Failure;
use crate::wire::Addr;

/// The longest reason that is read, in bytes: that of the log's longest line.
const REASON_MAX: usize = 4096;

/// Runs the line.
pub fn run(place: &Path, line: &str) -> Result<(), Failure> {
    let place = if place.file_name().is_some_and(|name| name == "ctl") {
        place.parent().unwrap_or(place)
    } else {
        place
    };
    // Of the mount that it is in.
    Mount { point: place.to_owned() }.living()?;
    let (mount, name) = split(place);
    write(&mount, &name, line)
}

/// Writes a line to a ctl file of a mount: `ctl`, or `1.0/ctl`.
pub fn write(mount: &Mount, name: &str, line: &str) -> Result<(), Failure> {
    let open = File::options().read(true).write(true).open(mount.path(name));
    let mut file = open.map_err(|error| mount.explain(name, &error))?;
    // One write(2): a command is never split.
    match file.write_all(format!("{line}\n").as_bytes()) {
        Ok(()) => Ok(()),
        Err(error) => Err(Failure::start(reason(&file).unwrap_or_else(|| {
            let (words, log) = (without_number(&error), mount.path("log"));
            format!("{line}: {words}; see {}", log.display())
        }))),
    }
}

/// Why the last write through this open file was refused, as an aoefs tells it.
fn reason(file: &File) -> Option<String> {
    let mut text = vec![0; REASON_MAX];
    let len = file.read_at(&mut text, 0).ok()?;
    let text = String::from_utf8_lossy(&text[..len]);
    Some(text.strip_prefix("error: ")?.trim_end().to_owned())
}

/// `/mnt/aoe/1.0` is the target 1.0 of /mnt/aoe, if /mnt/aoe is the mount; anything else is a mount point.
fn split(place: &Path) -> (Mount, String) {
    let at = |point: &Path, name: &str| (Mount { point: point.to_owned() }, name.to_owned());
    let target = place.file_name().and_then(|name| name.to_str()).filter(|name| name.parse::<Addr>().is_ok());
    let is_mount = place.join("metrics").exists();
    match (place.parent(), target) {
        (Some(parent), Some(target)) if !is_mount => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            at(parent, &format!("{target}/ctl"))
        }
        _ => at(place, "ctl"),
    }
}

/// The words of an error without `(os error N)`.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
