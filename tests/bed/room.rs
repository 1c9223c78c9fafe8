//! Where a test lives: a mount namespace of its own thread, a directory, and the daemons it starts.
//!
//! The directory goes when the test is over and its daemons have been killed, as everything of the bed does: a test
//! may end with a mount in it, and while the test's thread is there, the directory of a mount cannot be removed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::bed::sweep::{self, Mess};
use crate::bed::{Daemon, skip, until};

/// What starting, stopping or dying may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(5);

pub struct Room {
    dir: PathBuf,
}

impl Room {
    /// Skips the test where it cannot mount.
    pub fn new() -> Self {
        if !nix::unistd::geteuid().is_root() {
            skip("needs root for a mount namespace");
        }
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            skip("/dev/fuse cannot be opened");
        }
        // Of this thread, and so of the processes that it starts; gone with the last of them.
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNS) {
            skip(&format!("mount namespaces cannot be made here: {error}"));
        }
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let dir = std::env::temp_dir().canonicalize().unwrap().join(sweep::unique());
        std::fs::create_dir(&dir).unwrap();
        sweep::register(Mess::Dir(dir.clone()));
        std::fs::create_dir(dir.join("m")).unwrap();
        Self { dir }
    }

    /// The mount point.
    pub fn point(&self) -> PathBuf {
        self.dir.join("m")
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the daemon and waits until it serves.
    #[track_caller]
    pub fn daemon(&self, stop: &str) -> Daemoned {
        self.started(&[&this_program(), "--daemon", self.point().to_str().unwrap(), stop])
    }

    #[track_caller]
    pub fn started(&self, argv: &[&str]) -> Daemoned {
        let daemon = Daemon::spawn(&self.dir, "small", argv);
        until("the daemon is ready", SOON, || {
            assert!(daemon.alive() || daemon.said().contains("ready "), "{}", daemon.said());
            daemon.said().contains("ready ")
        });
        Daemoned { daemon }
    }

    /// Starts the daemon where it must refuse, and gives its reason.
    #[track_caller]
    pub fn refused(&self) -> String {
        let point = self.point();
        let daemon =
            Daemon::spawn(&self.dir, "small", &[&this_program(), "--daemon", point.to_str().unwrap()]);
        assert_eq!(daemon.ended(SOON), 1, "{}", daemon.said());
        daemon.said().trim().strip_prefix("error ").unwrap().to_string()
    }

    /// File system types at the mount point, the lowest first.
    pub fn mounts(&self) -> Vec<String> {
        let point = self.point();
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let at_point = table.lines().filter(|line| line.split(' ').nth(4) == point.to_str());
        at_point.map(|line| line.split(" - ").nth(1).unwrap().split(' ').next().unwrap().into()).collect()
    }
}

pub fn this_program() -> String {
    std::env::current_exe().unwrap().to_str().unwrap().into()
}

pub struct Daemoned {
    pub daemon: Arc<Daemon>,
}

impl Daemoned {
    /// What the line after `name=` says.
    pub fn fact(&self, name: &str) -> String {
        let said = self.daemon.said();
        let ready = said.lines().find(|line| line.starts_with("ready ")).unwrap();
        let start = ready.find(&format!("{name}=")).unwrap() + name.len() + 1;
        ready[start..].split(' ').next().unwrap().into()
    }

    pub fn unmounter(&self) -> u32 {
        self.fact("unmounter").parse().unwrap()
    }

    /// Kills the daemon and its unmounter, so that the mount stays behind, dead.
    pub fn die_badly(&self) {
        // Stopped first: it would detach the mount the moment it is alone.
        crate::bed::proc::signal(self.unmounter(), nix::sys::signal::Signal::SIGSTOP);
        crate::bed::proc::signal(self.unmounter(), nix::sys::signal::Signal::SIGKILL);
        until("the unmounter is dead", SOON, || !running(self.unmounter()));
        self.daemon.kill9();
    }
}

/// True while the process runs; a zombie does not.
pub fn running(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// The process's state in the letter that /proc has for it, while there is one.
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
}
