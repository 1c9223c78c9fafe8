//! The test bed: namespaces, links, targets, mounts and faults, made for one test and gone after it.
//!
//! `Bed` owns what one test makes. Each module has one job: `harness` runs tests, `sweep` cleans up, `proc` runs
//! programs, `net` makes links, `raw` speaks AoE by hand, `relay` spoils frames on their way, `fake` is a target that
//! follows a script, `many` are thousands that do not, `tap` is the network card of a virtual machine; `stage` puts
//! the common ones together; `room` is where a test that mounts without a network lives.
#![allow(dead_code, reason = "each test binary uses the part of the bed that it needs")]

pub mod cgroup;
pub mod client;
pub mod fake;
pub mod fio;
pub mod harness;
pub mod many;
pub mod mount;
pub mod net;
pub mod proc;
pub mod raw;
pub mod record;
pub mod relay;
pub mod rng;
pub mod room;
pub mod stage;
pub mod sweep;
pub mod tap;

pub use harness::skip;
pub use net::Ns;
pub use proc::{Daemon, until};
pub use rng::Rng;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use sweep::Mess;

/// One mebibyte.
pub const MIB: usize = 1 << 20;

/// How much later than its deadline a request may be answered here: five times the 250 ms that DEADLINE promises,
/// since the machine that tests does other things too.
pub const LATE: Duration = Duration::from_millis(5 * 250);

/// A number that the environment may set, for the long runs that a night has time for. One that cannot be read fails
/// the test: it would run the short way and nobody would see it.
pub fn setting(name: &str, default: u64) -> u64 {
    let Some(text) = std::env::var_os(name) else { return default };
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("{name}={} is no number", text.display()))
}

/// What one test has made. Dropping it ends every process, detaches every mount and removes every file.
pub struct Bed {
    dir: PathBuf,
    images: PathBuf,
    daemons: Vec<Arc<Daemon>>,
    /// Where the initiator lives, and where the targets live: two hosts.
    pub ini: Ns,
    pub tgt: Ns,
}

impl Bed {
    /// Two empty hosts. Skips the test where there is no right to make them or a program is missing.
    pub fn new(programs: &[&str]) -> Self {
        if !nix::unistd::geteuid().is_root() {
            skip("needs root for network namespaces");
        }
        for program in ["ip", "nsenter"].iter().chain(programs) {
            if !proc::have(program) {
                skip(&format!("the program {program} is not installed"));
            }
        }
        let probe = proc::run(Duration::from_secs(5), &["unshare", "--net", "true"]);
        if !probe.ok() {
            skip(&format!("network namespaces cannot be made here: {}", probe.stderr.trim()));
        }
        let name = sweep::unique();
        let [images, dir] = [sweep::bases().first(), sweep::bases().last()].map(|base| {
            let dir = base.expect("a directory for temporary files").join(&name);
            std::fs::create_dir_all(&dir).unwrap();
            sweep::register(Mess::Dir(dir.clone()));
            dir
        });
        Self { dir, images, daemons: Vec::new(), ini: Ns::new(), tgt: Ns::new() }
    }

    /// The same for a test that mounts.
    pub fn with_fuse(programs: &[&str]) -> Self {
        if !Path::new("/dev/fuse").exists() {
            skip("there is no /dev/fuse");
        }
        Self::new(programs)
    }

    /// Two hosts and one cable between them: `v0` at the initiator, `v1` at the targets.
    pub fn cable(programs: &[&str], mtu: usize) -> Self {
        let bed = Self::with_fuse(programs);
        bed.ini.veth("v0", &bed.tgt, "v1", mtu);
        bed
    }

    /// A directory for the test's own files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory for images, in memory where there is some.
    pub fn images(&self) -> &Path {
        &self.images
    }

    /// An image of random bytes, which differ from those of every other image.
    pub fn image(&self, name: &str, len: usize) -> PathBuf {
        let path = self.images.join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        let mut rng = Rng::new(len as u64 ^ name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte)));
        let mut left = len;
        let mut block = vec![0; MIB];
        while left > 0 {
            rng.fill(&mut block);
            let now = left.min(block.len());
            file.write_all(&block[..now]).unwrap();
            left -= now;
        }
        path
    }

    /// An image with one byte everywhere.
    pub fn image_of(&self, name: &str, len: usize, byte: u8) -> PathBuf {
        let path = self.images.join(name);
        std::fs::write(&path, vec![byte; len]).unwrap();
        path
    }

    /// Starts a program in a namespace; it is killed when the bed goes.
    #[track_caller]
    pub fn spawn(&mut self, ns: &Ns, argv: &[&str]) -> Arc<Daemon> {
        let program = Path::new(argv[0]).file_name().unwrap().to_string_lossy().into_owned();
        let full: Vec<String> = ns.prefix().into_iter().chain(argv.iter().map(ToString::to_string)).collect();
        let daemon = Daemon::spawn(&self.dir, &program, &full);
        self.daemons.push(daemon.clone());
        daemon
    }

    /// Debian's vblade: serves an image as SHELF.SLOT on an interface of the targets' host.
    #[track_caller]
    pub fn vblade(&mut self, unit: &str, port: &str, image: &Path) -> Arc<Daemon> {
        self.vblade_with(&[], unit, port, image)
    }

    /// The same with options, such as `["-b", "1"]`.
    #[track_caller]
    pub fn vblade_with(&mut self, options: &[&str], unit: &str, port: &str, image: &Path) -> Arc<Daemon> {
        let (shelf, slot) = unit.split_once('.').expect("SHELF.SLOT");
        let image = image.to_str().unwrap();
        let mut argv = vec!["vblade"];
        argv.extend(options);
        argv.extend([shelf, slot, port, image]);
        let tgt = self.tgt.clone();
        self.spawn(&tgt, &argv)
    }

    /// What every daemon of the test said, for the report of a failure.
    fn report(&self) {
        for daemon in &self.daemons {
            let said = daemon.said();
            let tail: Vec<&str> = said.lines().rev().take(40).collect();
            let alive = if daemon.alive() { "alive" } else { "ended" };
            println!("--- {} ({}, {alive}) said:", daemon.name(), daemon.pid());
            tail.iter().rev().for_each(|line| println!("    {line}"));
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report();
        }
        sweep::all();
    }
}
