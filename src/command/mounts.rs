//! The mounts of this machine, and the files of one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::mount::{KIND, table};
use crate::near::listed;
use crate::wire::Addr;

/// More than this is no page of an aoefs: half a million lines of 4096 busy targets with two paths each are 41 MB.
const PAGE_MAX: u64 = 256 << 20;

/// How long an aoefs has to open one of its files. It does so within 10 ms, whatever happens in its network; if it
/// takes longer than this, the process is stopped.
const PROOF_OF_LIFE: Duration = Duration::from_secs(2);

/// How often it is looked whether it has. Starting a program takes a millisecond.
const LOOK: Duration = Duration::from_millis(1);

/// A mount, by its mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount point.
    pub point: PathBuf,
}

impl Mount {
    /// The one that was named, or the only one there is.
    pub fn one(named: Option<&Path>) -> Result<Mount, Failure> {
        if let Some(point) = named {
            return Mount { point: point.to_owned() }.living();
        }
        let mut all = all()?;
        match (all.pop(), all.as_slice()) {
            (Some(mount), []) => mount.living(),
            (None, _) => Err(Failure::start(
                "no aoefs is mounted; mount one with: aoefs MOUNTPOINT, or name an interface with -i, where that is possible",
            )),
            (Some(last), others) => {
                let names = others.iter().chain([&last]).map(|mount| mount.point.display().to_string());
                let names = names.collect::<Vec<_>>().join(", ");
                Err(Failure::start(format!("several are mounted: {names}; name one")))
            }
        }
    }

    /// The same mount, unless whoever uses it would wait for its daemon for ever. Any other fault is left to who uses
    /// it.
    pub fn living(self) -> Result<Mount, Failure> {
        // Another process asks: if the daemon has taken the request and was stopped then, nothing ends that process,
        // and a thread of ours would keep us likewise.
        let null = Stdio::null;
        let asked = Command::new("test")
            .arg("-e")
            .arg(self.path("log"))
            .stdin(null())
            .stdout(null())
            .stderr(null())
            .spawn();
        let Ok(mut asked) = asked else { return Ok(self) };
        let since = Instant::now();
        while matches!(asked.try_wait(), Ok(None)) {
            if since.elapsed() >= PROOF_OF_LIFE {
                let _ = asked.kill();
                return Err(Failure::start(format!(
                    "the aoefs on {} does not answer; is it stopped? see: ps -C aoefs -o pid,stat,args",
                    self.point.display()
                )));
            }
            thread::sleep(LOOK);
        }
        Ok(self)
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.point.join(name)
    }

    /// The text of a file of it.
    pub fn read(&self, name: &str) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        let read = File::open(self.path(name)).and_then(|file| file.take(PAGE_MAX).read_to_end(&mut bytes));
        read.map_err(|error| self.explain(name, &error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The targets that it has directories of, in order.
    pub fn targets(&self) -> Result<Vec<Addr>, Failure> {
        let entries = std::fs::read_dir(&self.point).map_err(|error| self.explain("", &error))?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut targets: Vec<Addr> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
        targets.sort_unstable();
        Ok(targets)
    }

    /// Why a file of it cannot be used, and what to do.
    pub fn explain(&self, name: &str, error: &io::Error) -> Failure {
        let point = self.point.display();
        let target = name.split('/').next().filter(|first| first.parse::<Addr>().is_ok());
        Failure::start(match (error.raw_os_error(), target) {
            (Some(libc::ENOENT), _) if !self.point.exists() => {
                format!("{point} does not exist; name the mount point of an aoefs")
            }
            (Some(libc::ENOENT), Some(target)) if self.path("metrics").exists() => {
                let known = listed(self.targets().unwrap_or_default());
                format!("no target {target} is known; known: {known}; to look again: aoefs discover {point}")
            }
            (Some(libc::ENOENT), _) if self.point.join("ident").exists() => {
                format!("{point} is the directory of a target; name the mount point above it")
            }
            (Some(libc::ENOENT), _) => {
                format!("no aoefs is mounted on {point}; mount one with: aoefs {point}")
            }
            (Some(libc::ENOTDIR), _) => {
                format!("{point} is not a directory; name the mount point of an aoefs")
            }
            (Some(libc::ENOTCONN | libc::ECONNABORTED), _) => {
                format!("the aoefs that was mounted on {point} has ended; start it again with: aoefs {point}")
            }
            (Some(libc::EACCES | libc::EPERM), _) => {
                format!(
                    "{point}/{name} is not yours to use; run as who mounted it, or mount with -o allow_other"
                )
            }
            (Some(libc::ENXIO), Some(target)) => {
                format!("{target} is down; look at it with: aoefs check {point}")
            }
            _ => format!("{point}/{name}: {error}; see {point}/log"),
        })
    }
}

/// Every aoefs that is mounted here, once for each mount point.
pub fn all() -> Result<Vec<Mount>, Failure> {
    let entries = table::read().map_err(|error| {
        Failure::start(format!(
            "cannot read the table of mounts: {error}; is /proc mounted? or name a mount point"
        ))
    })?;
    let mut points: Vec<PathBuf> =
        entries.into_iter().filter(|entry| entry.kind == KIND).map(|entry| entry.point).collect();
    points.sort();
    points.dedup();
    Ok(points.into_iter().map(|point| Mount { point }).collect())
}

/// The value behind `key: ` in a status page.
pub fn value<'a>(page: &'a str, key: &str) -> Option<&'a str> {
    page.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}
