//! Disks for virtual machines, end to end: a front end that was not written here (the crate virtio-driver) on the
//! socket of an export, the file system over the real runtime behind it, and the same bytes seen through a file.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

#[path = "../fs_core/host.rs"]
#[allow(dead_code, reason = "each test binary uses the part of it that it needs")]
mod host;

mod facts;
mod front;
mod hostile;
mod listener;
#[allow(dead_code, reason = "the bed `netns` uses all of it")]
mod machine;
mod places;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aoefs::fs::core::Settings;
use aoefs::fs::errno::Errno;
use front::Front;
use host::{Host, SIZE};
use listener::Listener;
use machine::{Ask, Habit, Machine, Versions};

/// A directory for sockets, and a mount whose files belong to whoever runs this.
struct Stage {
    host: Host,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let host = Host::with(|settings| {
            settings.uid = nix::unistd::geteuid().as_raw();
            settings.gid = nix::unistd::getegid().as_raw();
            change(settings);
        });
        Self { host, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ctl(&self, line: &str) -> Result<u32, Errno> {
        self.host.echo("1.0/ctl", line)
    }

    /// `vhost PATH NAME`; returns PATH.
    fn export(&self, socket: &str, name: &str) -> PathBuf {
        let path = self.path(socket);
        let line = format!("vhost {} {name}", path.display());
        assert_eq!(self.ctl(&line), Ok(line.len() as u32), "{}", self.host.log());
        path
    }

    /// What `ctl` says of the sockets.
    fn lines(&self) -> Vec<String> {
        let text = self.host.cat("1.0/ctl").unwrap();
        let dir = format!("{}/", self.dir.path().display());
        let lines = text.lines().filter(|line| line.starts_with("vhost "));
        lines.map(|line| line.replace(&dir, "")).collect()
    }

    /// Nothing is left of the sockets when the mount ends.
    fn end(self) {
        self.host.eventually(|| self.host.core.open_handles() == 0);
        self.host.end();
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 0, "a socket is left");
    }
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n / 512 * 7 + n % 251) as u8 ^ seed).collect()
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

#[test]
fn a_guest_and_a_file_see_the_same_bytes() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let file = stage.host.open("1.0/data");
    let mut front = Front::connect(&path, 4);
    assert_eq!(stage.lines(), ["vhost disk data 1"]);
    assert_eq!(front.capacity() * 512, SIZE);
    for (queue, (offset, len)) in [(0, 1 << 20), (4096, 512), (SIZE - 65536, 65536)].into_iter().enumerate() {
        let bytes = pattern(len, queue as u8);
        assert_eq!(front.write(queue, offset, &bytes), 0);
        assert_eq!(stage.host.read_at(file, offset, len).unwrap(), bytes);
        assert_eq!(front.read(3, offset, len).unwrap(), bytes);
        let bytes = pattern(len, 0x55);
        stage.host.write_at(file, offset, &bytes).unwrap();
        assert_eq!(front.read(queue, offset, len).unwrap(), bytes);
    }
    assert_eq!(front.flush(0), 0);
    assert!(
        stage.host.cat("1.0/stats").unwrap().contains("flush"),
        "{}",
        stage.host.cat("1.0/stats").unwrap()
    );
    // A hundred at a time, in four queues.
    stage.host.fill(0x11);
    let ops: Vec<u64> = (0..400).collect();
    front.many(&ops, |n| (n * 4096, pattern(4096, n as u8)));
    for n in ops {
        assert_eq!(stage.host.read_at(file, n * 4096, 4096).unwrap(), pattern(4096, n as u8), "{n}");
    }
    assert_eq!(front.read(0, SIZE, 512).unwrap_err(), libc::EIO, "behind the end");
    drop(front);
    stage.host.eventually(|| stage.lines() == ["vhost disk data 0"]);
    stage.host.core.release(file);
    stage.end();
}

#[test]
fn zeros_and_discards_are_those_of_the_target() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    stage.host.fill(0xaa);
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.discard(0, 8192, 65536), 0);
    assert_eq!(front.zero(0, 1 << 20, 4096, false), 0);
    assert_eq!(front.zero(0, 2 << 20, 4096, true), 0);
    let disk = stage.host.disk();
    let zeros = |from: usize, len: usize| disk[from..from + len].iter().all(|byte| *byte == 0);
    assert!(zeros(8192, 65536) && zeros(1 << 20, 4096) && zeros(2 << 20, 4096));
    assert_eq!(disk.iter().filter(|byte| **byte == 0).count(), 65536 + 2 * 4096);
    drop(front);
    stage.end();
}

#[test]
fn a_socket_comes_and_goes_by_its_word() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let meta = std::fs::symlink_metadata(&path).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o660, nix::unistd::geteuid().as_raw()));
    let at = |name: &str| stage.path(name).display().to_string();
    std::fs::write(stage.path("file"), "mine").unwrap();
    for (line, errno) in [
        (format!("vhost {}", at("disk")), Errno::EEXIST),
        (format!("vhost {}", at("file")), Errno::EEXIST),
        (format!("vhost {}", at("none/disk")), Errno::ENOENT),
        (format!("vhost {} nothing", at("other")), Errno::ENOENT),
        (format!("vhost {}", "x".repeat(300)), Errno::EINVAL),
        (format!("vhost /{}", "x".repeat(300)), Errno::ENAMETOOLONG),
        ("vhost relative".into(), Errno::EINVAL),
        ("vhost".into(), Errno::EINVAL),
        (format!("vhost {} data more", at("other")), Errno::EINVAL),
        (format!("unvhost {}", at("other")), Errno::ENOENT),
        ("unvhost relative".into(), Errno::EINVAL),
    ] {
        assert_eq!(stage.ctl(&line), Err(errno), "{line}");
    }
    assert_eq!(stage.lines(), ["vhost disk data 0"]);
    assert_eq!(std::fs::read(stage.path("file")).unwrap(), b"mine");
    std::fs::remove_file(stage.path("file")).unwrap();
    // Several of one disk.
    stage.export("again", "data");
    assert_eq!(stage.lines(), ["vhost disk data 0", "vhost again data 0"]);
    assert!(stage.ctl(&format!("unvhost {}", at("disk"))).is_ok());
    assert!(!path.exists());
    assert_eq!(stage.lines(), ["vhost again data 0"]);
    stage.export("disk", "data");
    stage.end();
}

#[test]
fn a_front_end_that_is_connected_is_let_go_of() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.write(0, 0, &pattern(4096, 1)), 0);
    stage.host.silence(true);
    front.begin_read(0, 0, 4096);
    let start = Instant::now();
    assert!(stage.ctl(&format!("unvhost {}", path.display())).is_ok());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(!path.exists() && stage.lines().is_empty());
    assert!(UnixStream::connect(&path).is_err());
    // What it asked for is done all the same, and its answer goes nowhere.
    stage.host.silence(false);
    stage.host.eventually(|| stage.host.cat("1.0/ctl").unwrap().contains("\nrequests: 0\n"));
    stage.host.eventually(|| stage.host.core.open_handles() == 0);
    assert_eq!(front.data()[..4096], pattern(4096, 1), "nobody wrote there");
    drop(front);
    stage.end();
}

#[test]
fn a_front_end_that_dies_makes_room_for_the_next() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    for round in 0..20 {
        let mut front = Front::connect(&path, 2);
        assert_eq!(front.write(1, 512 * round, &pattern(512, round as u8)), 0);
        front.begin_read(0, 0, 4096);
        front.begin_write(1, 1 << 20, 65536);
        drop(front);
    }
    let mut front = Front::connect(&path, 2);
    for round in 0..20 {
        assert_eq!(front.read(0, 512 * round, 512).unwrap(), pattern(512, round as u8));
    }
    assert_eq!(stage.lines(), ["vhost disk data 1"]);
    drop(front);
    stage.end();
}

#[test]
fn zeros_do_not_go_on_when_their_front_end_has_gone() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    stage.host.fill(0xaa);
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.read(0, 0, 512).unwrap(), [0xaa; 512]);
    stage.host.silence(true);
    front.begin_zero(0, 0, SIZE);
    stage.host.eventually(|| !stage.host.cat("1.0/ctl").unwrap().contains("\nrequests: 0\n"));
    drop(front);
    stage.host.eventually(|| stage.lines() == ["vhost disk data 0"]);
    stage.host.silence(false);
    stage.host.eventually(|| stage.host.cat("1.0/ctl").unwrap().contains("\nrequests: 0\n"));
    // The next one writes where the zeros would come.
    let mut front = Front::connect(&path, 1);
    let last = SIZE - 4096;
    assert_eq!(front.write(0, last, &pattern(4096, 3)), 0);
    std::thread::sleep(Duration::from_millis(300));
    let disk = stage.host.disk();
    assert!(disk[1 << 20..last as usize].iter().all(|byte| *byte == 0xaa), "they went on");
    assert_eq!(disk[last as usize..], pattern(4096, 3));
    drop(front);
    stage.end();
}

#[test]
fn a_write_has_the_bytes_that_it_was_taken_with() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.read(0, 0, 512).unwrap(), [0; 512]);
    stage.host.silence(true);
    let len = 1 << 20;
    front.data()[..len].copy_from_slice(&pattern(len, 1));
    front.begin_write(0, 0, len);
    stage.host.eventually(|| !stage.host.cat("1.0/ctl").unwrap().contains("\nrequests: 0\n"));
    // A machine that is reset uses its memory for something else, and its front end goes.
    front.data().fill(0xbb);
    drop(front);
    stage.host.eventually(|| stage.lines() == ["vhost disk data 0"]);
    stage.host.silence(false);
    stage.host.eventually(|| stage.host.cat("1.0/ctl").unwrap().contains("\nrequests: 0\n"));
    assert!(stage.host.disk()[..len] == pattern(len, 1), "other bytes of the machine's memory were written");
    stage.end();
}

#[test]
fn a_front_end_that_takes_its_memory_back_is_let_go_of() {
    let stage = Stage::new();
    let (path, other) = (stage.export("disk", ""), stage.export("other", ""));
    let mut witness = Front::connect(&other, 1);
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.write(0, 0, &pattern(4096, 1)), 0);
    front.take_memory_back();
    front.begin_read(0, 0, 4096);
    stage.host.eventually(|| stage.lines() == ["vhost disk data 0", "vhost other data 1"]);
    stage.host.eventually(|| stage.host.log().contains("it has taken back memory that it shared"));
    assert_eq!(witness.read(0, 0, 4096).unwrap(), pattern(4096, 1));
    drop(front);
    assert_eq!(Front::connect(&path, 1).read(0, 0, 4096).unwrap(), pattern(4096, 1));
    drop(witness);
    stage.end();
}

#[test]
fn a_dead_target_fails_a_guest_by_its_deadline() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    stage.ctl("deadline 1").unwrap();
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.write(0, 0, &pattern(4096, 1)), 0);
    stage.host.silence(true);
    let start = Instant::now();
    assert_eq!(front.read(0, 0, 4096).unwrap_err(), libc::EIO);
    assert!((0.9..5.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    stage.host.silence(false);
    stage.host.eventually(|| stage.host.cat("1.0/ctl").unwrap().starts_with("state: up"));
    assert_eq!(front.read(0, 0, 4096).unwrap(), pattern(4096, 1), "it is back");
    drop(front);
    stage.end();
}

#[test]
fn a_mount_that_is_read_only_has_disks_that_are() {
    let stage = Stage::with(|settings| settings.read_only = true);
    let path = stage.export("disk", "");
    let mut front = Front::connect(&path, 1);
    assert!(front.read_only());
    assert_eq!(front.write(0, 0, &pattern(512, 1)), -libc::EIO);
    assert_eq!(front.read(0, 0, 512).unwrap(), vec![0; 512]);
    drop(front);
    stage.end();
}

#[test]
fn a_partition_is_a_disk_and_takes_its_socket_along() {
    let stage = Stage::new();
    stage.ctl("part boot 8 16").unwrap();
    let path = stage.export("boot", "boot");
    let other = stage.export("disk", "");
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.capacity(), 8);
    assert_eq!(front.write(0, 0, &pattern(4096, 9)), 0);
    assert_eq!(front.write(0, 512, &pattern(4096, 9)), -libc::EIO, "it ends there");
    assert_eq!(stage.host.disk()[4096..8192], pattern(4096, 9));
    assert_eq!(stage.ctl("delpart boot"), Err(Errno::EBUSY));
    drop(front);
    stage.host.eventually(|| stage.lines()[0] == "vhost boot boot 0");
    stage.ctl("delpart boot").unwrap();
    stage.host.eventually(|| !path.exists());
    assert_eq!(stage.lines(), ["vhost disk data 0"]);
    // The target takes the others along, whoever is connected.
    let front = Front::connect(&other, 1);
    assert_eq!(stage.host.echo("ctl", "remove 1.0"), Err(Errno::EBUSY));
    stage.host.echo("ctl", "remove -f 1.0").unwrap();
    stage.host.eventually(|| !other.exists());
    drop(front);
    stage.end();
}

#[test]
fn a_guest_hears_of_another_size() {
    let stage = Stage::new();
    stage.ctl("setsize 1048576").unwrap();
    let path = stage.export("disk", "");
    let mut front = Listener::connect(&path);
    assert_eq!(front.capacity(), 2048);
    stage.ctl("setsize").unwrap();
    front.wait_for_change();
    assert_eq!(front.capacity() * 512, SIZE);
    drop(front);
    stage.end();
}

#[test]
fn another_disk_is_not_taken_for_the_old_one() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.write(0, 0, &pattern(512, 1)), 0);
    stage.host.swap("two", host::SECTORS * 2);
    stage.host.eventually(|| stage.host.size("1.0/data") == 2 * SIZE);
    assert_eq!(front.read(0, 0, 512).unwrap_err(), libc::EIO, "it is stale");
    drop(front);
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.capacity() * 512, 2 * SIZE);
    assert_eq!(front.read(0, 0, 512).unwrap(), vec![0; 512]);
    drop(front);
    stage.end();
}

#[test]
fn a_mount_that_ends_lets_go_of_its_front_ends() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let front = Front::connect(&path, 1);
    assert!(is_socket(&path));
    stage.host.core.close();
    assert!(!path.exists());
    drop(front);
    stage.end();
}

/// Connections that are cut while a target is silent, answers, or has answered in part: each request comes back once,
/// and the disk has the last version of each block.
fn cuts_in_the_middle(habit: Habit) {
    const BLOCKS: usize = 64;
    const ROUNDS: u64 = 12;
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let mut machine = Machine::new(habit);
    machine.connect(&path).unwrap();
    let mut versions = Versions::new(BLOCKS);
    let mut most = 0;
    for round in 0..ROUNDS {
        for n in 0..40u64 {
            let dice = (round * 40 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            let ask =
                [Ask::Write, Ask::Write, Ask::Read, Ask::Flush, Ask::Zero, Ask::Discard][dice as usize % 6];
            versions.begin(&mut machine, (dice / 8) as usize % BLOCKS, ask);
            if n == 10 {
                stage.host.silence(true);
            }
            let ended = machine.ended_when_called();
            versions.take(&machine, ended);
        }
        most = most.max(machine.count());
        if round % 3 == 0 {
            // Answers come while nobody is there to take them, or while the next one is connecting.
            stage.host.silence(false);
        }
        machine.disconnect();
        machine.connect(&path).unwrap();
        stage.host.silence(false);
        if round % 2 == 0 {
            let ended = machine.all_ended();
            versions.take(&machine, ended);
        }
    }
    let ended = machine.all_ended();
    versions.take(&machine, ended);
    assert!(most > 5 && versions.ended > 100, "{most} {}", versions.ended);
    assert!(stage.host.disk()[..BLOCKS * machine::DATA] == versions.disk(), "{habit:?}");
    assert!(!stage.host.log().contains("is stopped"), "{}", stage.host.log());
    assert_eq!(u32::from(machine.ended().is_empty()), 1);
    machine.stop_queue();
    machine.disconnect();
    stage.end();
}

#[test]
fn a_cut_connection_repeats_what_is_not_in_the_used_ring() {
    cuts_in_the_middle(Habit::UsedRing);
}

#[test]
fn a_cut_connection_repeats_what_the_front_end_keeps() {
    cuts_in_the_middle(Habit::Area);
}

#[test]
fn a_cut_connection_repeats_it_whatever_the_front_end_says_of_its_queue() {
    cuts_in_the_middle(Habit::AreaAndAvailable);
}
