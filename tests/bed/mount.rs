//! A mounted aoefs as a test sees it: start, wait, command, look, and end with nothing left over.

use super::Bed;
use super::net::Ns;
use super::proc::{Daemon, until};
use super::sweep::{self, Mess};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The binaries of this build.
pub const AOEFS: &str = env!("CARGO_BIN_EXE_aoefs");
pub const AOEFS_TARGET: &str = env!("CARGO_BIN_EXE_aoefs-target");

/// A fresh process mounts and answers within this, even on a machine that compiles something at the same time.
const START: Duration = Duration::from_secs(10);
/// A clean end: no request is outstanding any more.
const STOP: Duration = Duration::from_secs(5);

/// One aoefs process and its mount point.
pub struct Mount {
    pub daemon: Arc<Daemon>,
    path: PathBuf,
}

/// One target's directory in it.
#[derive(Clone)]
pub struct Unit {
    path: PathBuf,
}

impl Bed {
    /// Mounts with `-f` in the initiator's namespace on its `v0`, with more options, and waits until the mount answers.
    #[track_caller]
    pub fn mount(&mut self, options: &[&str]) -> Mount {
        let ns = self.ini.clone();
        let options: Vec<&str> = ["-i", "v0"].iter().chain(options).copied().collect();
        self.mount_in(&ns, &options)
    }

    /// The same anywhere, with all options given.
    #[track_caller]
    pub fn mount_in(&mut self, ns: &Ns, options: &[&str]) -> Mount {
        let path = (0..).map(|n| self.dir().join(format!("m{n}"))).find(|path| !path.exists()).unwrap();
        std::fs::create_dir(&path).unwrap();
        self.mount_at(ns, &path, options)
    }

    /// The same at a mount point that is there already (a dead mount, for instance).
    #[track_caller]
    pub fn mount_at(&mut self, ns: &Ns, path: &Path, options: &[&str]) -> Mount {
        sweep::register(Mess::Mount(path.to_path_buf()));
        let mut argv = vec![AOEFS, "-f"];
        argv.extend(options);
        argv.push(path.to_str().unwrap());
        let daemon = self.spawn(ns, &argv);
        let mount = Mount { daemon, path: path.to_path_buf() };
        until("the mount answers", START, || {
            assert!(mount.daemon.alive(), "aoefs ended:\n{}", mount.daemon.said());
            mount.mounted() && std::fs::metadata(mount.path.join("ctl")).is_ok()
        });
        mount.daemon.assert_confined();
        mount
    }

    /// The product's own target, in the targets' namespace.
    #[track_caller]
    pub fn aoefs_target(&mut self, unit: &str, port: &str, image: &Path) -> Arc<Daemon> {
        let ns = self.tgt.clone();
        self.spawn(&ns, &[AOEFS_TARGET, unit, port, image.to_str().unwrap()])
    }
}

impl Mount {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the kernel has a mount at the mount point.
    pub fn mounted(&self) -> bool {
        is_mounted(&self.path)
    }

    pub fn read(&self, name: &str) -> String {
        read(&self.path.join(name))
    }

    /// One write to the top ctl.
    pub fn ctl(&self, line: &str) -> io::Result<()> {
        write(&self.path.join("ctl"), line)
    }

    pub fn unit(&self, name: &str) -> Unit {
        Unit { path: self.path.join(name) }
    }

    /// Waits until the target is there and up.
    #[track_caller]
    pub fn wait_for(&self, name: &str, limit: Duration) -> Unit {
        let unit = self.unit(name);
        until(&format!("{name} is up"), limit, || unit.state() == "up");
        unit
    }

    /// A clean end: gauges at zero, SIGTERM, exit code 0, no mount left. Promise CLEAN at the end of every test.
    #[track_caller]
    pub fn stop(self) {
        for entry in std::fs::read_dir(&self.path).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
            let unit = Unit { path: entry.path() };
            let idle = || unit.line("nout") == "0" && unit.line("nopen") == "0";
            let start = Instant::now();
            while !idle() {
                assert!(
                    start.elapsed() < STOP,
                    "still outstanding or open:\n{}\n{}",
                    unit.read("ctl"),
                    self.read("log")
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.daemon.signal(Signal::SIGTERM);
        assert_eq!(self.daemon.ended(STOP), 0, "exit code\n{}", self.daemon.said());
        assert!(!self.mounted(), "{} is still mounted", self.path.display());
        sweep::forget(&self.path);
    }
}

impl Unit {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.file("data")
    }

    /// One write to its ctl.
    pub fn ctl(&self, line: &str) -> io::Result<()> {
        write(&self.file("ctl"), line)
    }

    /// One write to its ctl that must succeed.
    #[track_caller]
    pub fn ctl_ok(&self, line: &str) {
        self.ctl(line).unwrap_or_else(|error| panic!("ctl `{line}`: {error}"));
    }

    pub fn read(&self, name: &str) -> String {
        read(&self.file(name))
    }

    /// The value behind `key: ` in its ctl, or nothing.
    pub fn line(&self, key: &str) -> String {
        let text = self.read("ctl");
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(k, _)| *k == key).map(|(_, value)| value.to_string()).next().unwrap_or_default()
    }

    /// up, down, or nothing when it is not there.
    pub fn state(&self) -> String {
        self.line("state")
    }

    #[track_caller]
    pub fn size(&self, name: &str) -> u64 {
        let path = self.file(name);
        std::fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).len()
    }

    /// Opens a file of it for reading and writing.
    #[track_caller]
    pub fn open(&self, name: &str) -> File {
        self.open_with(name, 0)
    }

    /// The same with open flags, such as O_DIRECT.
    #[track_caller]
    pub fn open_with(&self, name: &str, flags: i32) -> File {
        let path = self.file(name);
        try_open(&path, flags).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Opens for reading and writing with more flags.
pub fn try_open(path: &Path, flags: i32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).write(true).custom_flags(flags).open(path)
}

/// Whether something is mounted exactly there.
pub fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == path))
}

/// The errno of a failure; the test fails if it was none.
#[track_caller]
pub fn errno<T>(result: io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("succeeded, but an error was expected"),
        Err(error) => error.raw_os_error().unwrap_or_else(|| panic!("no errno: {error}")),
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn write(path: &Path, line: &str) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    // One write(2): a command is never split.
    file.write_all(format!("{line}\n").as_bytes())
}
