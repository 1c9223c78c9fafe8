//! What a test leaves on the machine, and how it goes away again: on success, on panic, on timeout, and after a crash.
//!
//! Everything the bed makes is registered the moment it exists and undone in reverse order. Names carry the process id
//! (`aoet-PID-N`), so two test processes never touch each other's things, and a later run can tell whose owner is dead.

use super::proc::{self, Daemon};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The first word of every name that the bed gives out.
const PREFIX: &str = "aoet";
/// For one clean-up command. None of them waits for the network.
const STEP: Duration = Duration::from_secs(10);

/// Something that outlives the process unless it is undone.
pub enum Mess {
    Netns(String),
    Dir(PathBuf),
    Mount(PathBuf),
    Loop(String),
    Process(Arc<Daemon>),
    Cgroup(PathBuf),
}

static MESS: Mutex<Vec<Mess>> = Mutex::new(Vec::new());

fn mess() -> MutexGuard<'static, Vec<Mess>> {
    MESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name no other bed on this machine has: `aoet-PID-N`.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}

pub fn register(item: Mess) {
    mess().push(item);
}

/// Forgets a mount or a loop device that the test itself took away.
pub fn forget(name: &Path) {
    mess().retain(|item| match item {
        Mess::Mount(path) => path != name,
        Mess::Loop(dev) => Path::new(dev) != name,
        _ => true,
    });
}

/// Undoes everything registered, newest first.
pub fn all() {
    loop {
        // Popped before it is undone: the lock is not held while a command runs.
        let Some(item) = mess().pop() else { return };
        undo(&item);
    }
}

/// A test hangs: kills every process and detaches every mount, so that whatever waits gets an error. The hanging
/// thread then unwinds and undoes the rest itself.
pub fn emergency() {
    proc::kill_commands();
    for item in mess().iter().rev() {
        match item {
            Mess::Process(daemon) => daemon.kill9(),
            Mess::Mount(path) => detach(path),
            _ => {}
        }
    }
}

fn undo(item: &Mess) {
    match item {
        Mess::Process(daemon) => daemon.kill9(),
        Mess::Mount(path) => detach(path),
        Mess::Cgroup(dir) => super::cgroup::remove(dir),
        Mess::Loop(dev) => drop(proc::run(STEP, &["losetup", "-d", dev])),
        Mess::Netns(name) => {
            // Every process in it is ours: a daemon that went to the background is nobody's child.
            let pids = proc::run(STEP, &["ip", "netns", "pids", name]).stdout;
            for pid in pids.split_whitespace().filter_map(|word| word.parse().ok()) {
                proc::signal(pid, Signal::SIGKILL);
            }
            proc::run(STEP, &["ip", "netns", "del", name]);
        }
        Mess::Dir(path) => {
            if let Err(error) = std::fs::remove_dir_all(path) {
                eprintln!("{} stays: {error}", path.display());
            }
        }
    }
}

fn detach(path: &Path) {
    use nix::mount::{MntFlags, umount2};
    // Mounts stack (a second daemon on a dead mount): until nothing is mounted there. EINVAL says so.
    while umount2(path, MntFlags::MNT_DETACH).is_ok() {}
}

/// Takes away what earlier runs left that were killed before they could: namespaces, mounts, loop devices, control
/// groups, files.
pub fn leftovers() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    for name in names_in("/run/netns") {
        undo(&Mess::Netns(name));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for path in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
        if Path::new(path).components().any(|part| part.as_os_str().to_str().is_some_and(is_orphan)) {
            detach(Path::new(path));
        }
    }
    let loops = proc::run(STEP, &["losetup", "-n", "-l", "-O", "NAME,BACK-FILE"]).stdout;
    for line in loops.lines() {
        if let Some((dev, file)) = line.trim().split_once(' ')
            && file.split('/').any(is_orphan)
        {
            undo(&Mess::Loop(dev.to_string()));
        }
    }
    for root in super::cgroup::roots() {
        for name in names_in(root.to_str().unwrap_or_default()) {
            undo(&Mess::Cgroup(root.join(name)));
        }
    }
    for base in bases() {
        for name in names_in(base.to_str().unwrap_or_default()) {
            undo(&Mess::Dir(base.join(name)));
        }
    }
}

/// Where directories of the bed are: memory for images if there is some, and the usual place for temporary files.
pub fn bases() -> Vec<PathBuf> {
    [PathBuf::from("/dev/shm"), std::env::temp_dir()].into_iter().filter(|dir| dir.is_dir()).collect()
}

fn names_in(dir: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|n| is_orphan(n))
        .collect()
}

/// A name of the bed whose process is gone.
fn is_orphan(name: &str) -> bool {
    let mut words = name.split('-');
    let pid = (words.next() == Some(PREFIX)).then(|| words.next()).flatten();
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}
