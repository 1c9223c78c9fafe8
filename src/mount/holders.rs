//! Finds out what keeps the mount busy, as far as possible: processes whose files this process may see, loop devices,
//! mounts inside. Names are compared as text, so that nothing here asks the file system that is to go.

use std::fmt::Write;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::table;

/// So many holders are named, the others are counted: the result is one line of a log.
const MAX_NAMED: usize = 8;

/// One line that names the holders, as `/dev/loop0 (1.0/data), fio[1234] (1.0/data)`.
pub fn describe(point: &Path) -> String {
    let mut all = loops(point);
    all.extend(mounts(point));
    all.extend(processes(point));
    let mut line = all.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if all.len() > MAX_NAMED {
        let _ = write!(line, " and {} more", all.len() - MAX_NAMED);
    }
    if line.is_empty() {
        line.push_str("something in another namespace or in the kernel");
    }
    line
}

/// `/sys/block/loopN/loop/backing_file` is there while the loop device has a file.
fn loops(point: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir("/sys/block") else { return Vec::new() };
    devices
        .filter_map(|device| {
            let device = device.ok()?;
            let name = device.file_name().into_string().ok()?;
            let backing = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
            let inside = inside(point, Path::new(backing.trim_end_matches('\n')))?;
            Some(format!("/dev/{name} ({inside})"))
        })
        .collect()
}

fn mounts(point: &Path) -> Vec<String> {
    let below = table::below(point).unwrap_or_default();
    below.into_iter().map(|entry| format!("mount on {}", entry.point.display())).collect()
}

fn processes(point: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let dir = entry.ok()?.path();
            let pid: u32 = dir.file_name()?.to_str()?.parse().ok()?;
            let held = held_by(&dir, point)?;
            let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
            Some(format!("{}[{pid}] ({held})", name.trim_end()))
        })
        .collect()
}

/// The first thing inside of the mount that a process has open, stands in, or has mapped.
fn held_by(process: &Path, point: &Path) -> Option<String> {
    let links = ["cwd", "root"].iter().map(|name| process.join(name));
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
    links
        .chain(files)
        .find_map(|link| inside(point, &fs::read_link(link).ok()?))
        .or_else(|| mapped(process, point))
}

/// `/proc/PID/maps`: a file may be mapped after its descriptor is closed. The name is the sixth column.
fn mapped(process: &Path, point: &Path) -> Option<String> {
    let maps = fs::read(process.join("maps")).ok()?;
    maps.split(|&byte| byte == b'\n').find_map(|line| {
        let start = line.iter().position(|&byte| byte == b'/')?;
        inside(point, Path::new(std::ffi::OsStr::from_bytes(&line[start..])))
    })
}

/// The part of a path below the mount point, `.` for the mount point itself.
fn inside(point: &Path, path: &Path) -> Option<String> {
    let rest: PathBuf = path.strip_prefix(point).ok()?.into();
    Some(if rest.as_os_str().is_empty() { ".".into() } else { rest.display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_open_file() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().canonicalize().unwrap();
        let file = fs::File::create(point.join("data")).unwrap();
        let line = describe(&point);
        assert!(line.contains(&format!("[{}] (data)", std::process::id())), "{line}");
        drop(file);
    }

    #[test]
    fn a_name_that_only_begins_alike_is_not_inside() {
        assert_eq!(inside(Path::new("/mnt/aoe"), Path::new("/mnt/aoe2/x")), None);
        assert_eq!(inside(Path::new("/mnt/aoe"), Path::new("/mnt/aoe")), Some(".".into()));
        assert_eq!(inside(Path::new("/mnt/aoe"), Path::new("/mnt/aoe/1.0/data")), Some("1.0/data".into()));
    }

    #[test]
    fn nobody_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(describe(&dir.path().join("x")), "something in another namespace or in the kernel");
    }
}
