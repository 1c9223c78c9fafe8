//! A memory limit for programs of a test: a control group of the kernel's memory controller, of whichever version
//! there is.

use super::sweep::{self, Mess};
use std::path::{Path, PathBuf};

/// Where control groups of the first version's memory controller are, and of the second version.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];

/// A group with a limit. It goes away with the bed.
pub struct Cgroup {
    dir: PathBuf,
    /// Of the second version.
    unified: bool,
}

impl Cgroup {
    /// A group that may have so many bytes, page cache included; skips the test where none can be made.
    pub fn with_memory(bytes: usize) -> Self {
        let [old, new] = ROOTS.map(Path::new);
        let unified = !old.join("memory.limit_in_bytes").exists();
        let root = if unified { new } else { old };
        if unified {
            // Handed down already, or not ours to hand down: then the limit's file is missing below.
            let _ = std::fs::write(root.join("cgroup.subtree_control"), "+memory");
        }
        let dir = root.join(sweep::unique());
        if let Err(error) = std::fs::create_dir(&dir) {
            super::skip(&format!("no control group can be made at {}: {error}", root.display()));
        }
        sweep::register(Mess::Cgroup(dir.clone()));
        let limit = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        if let Err(error) = std::fs::write(dir.join(limit), bytes.to_string()) {
            super::skip(&format!("no memory limit can be set: {limit}: {error}"));
        }
        Self { dir, unified }
    }

    /// The file to which a process writes its id, or 0, to be in the group.
    pub fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// How often something had to wait for memory at the limit.
    pub fn waits(&self) -> u64 {
        if self.unified {
            let events = std::fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
            let max = events.lines().find_map(|line| line.strip_prefix("max "));
            return max.and_then(|count| count.parse().ok()).unwrap_or(0);
        }
        let count = std::fs::read_to_string(self.dir.join("memory.failcnt")).unwrap_or_default();
        count.trim().parse().unwrap_or(0)
    }
}

/// Every directory in which a group of the bed may be.
pub fn roots() -> impl Iterator<Item = PathBuf> {
    ROOTS.into_iter().map(PathBuf::from)
}

/// Ends what is in the group and takes it away. Its members are the bed's: nothing else knows its name.
pub fn remove(dir: &Path) {
    for _ in 0..200 {
        let pids = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()) {
            super::proc::signal(pid, nix::sys::signal::Signal::SIGKILL);
        }
        if std::fs::remove_dir(dir).is_ok() || !dir.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    eprintln!("{} stays", dir.display());
}
