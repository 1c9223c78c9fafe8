//! What needs no network, on the built-in demo target: who may open what, SIGHUP, and the readers of `log`.

use crate::bed::mount::{Mount, errno};
use crate::bed::{Bed, proc, until};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::time::{Duration, Instant};

crate::tests![
    users_q1_modes_and_files,
    users_q1_without_allow_other,
    users_a_socket_for_machines_belongs_to_the_group,
    config_file_is_read_again_at_sighup,
    log_readers_poll_and_tail,
    log_is_not_flooded,
];

const SOON: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_secs(20);

#[track_caller]
fn demo(bed: &mut Bed, options: &[&str]) -> Mount {
    let ns = bed.ini.clone();
    let options: Vec<&str> = ["--demo=1M"].iter().chain(options).copied().collect();
    let mount = bed.mount_in(&ns, &options);
    mount.wait_for("1.0", SOON);
    until("it says that it is ready", SOON, || mount.daemon.said().contains(": bound demo"));
    mount
}

/// The user who asks: number, group, and which three bits of a mode are theirs; root needs none to read and write.
struct User {
    name: &'static str,
    uid: u32,
    gid: u32,
    shift: Option<u32>,
}

const OWNER: User = User { name: "owner", uid: 64242, gid: 64999, shift: Some(6) };
const USERS: [User; 4] = [
    User { name: "root", uid: 0, gid: 0, shift: None },
    OWNER,
    User { name: "group", uid: 64243, gid: 64343, shift: Some(3) },
    User { name: "other", uid: 64244, gid: 64344, shift: Some(0) },
];

/// Every file there is, and its mode at the start.
const FILES: [(&str, u32); 13] = [
    ("ctl", 0o644),
    ("log", 0o444),
    ("metrics", 0o444),
    ("1.0/ctl", 0o644),
    ("1.0/config", 0o644),
    ("1.0/ident", 0o444),
    ("1.0/raw", 0o600),
    ("1.0/mask", 0o644),
    ("1.0/reserve", 0o644),
    ("1.0/stats", 0o444),
    ("1.0/data", 0o640),
    ("1.0/part", 0o640),
    ("1.0/devlink/0", 0o444),
];

/// Those that nobody can write to.
const READ_ONLY: [&str; 5] = ["log", "metrics", "1.0/ident", "1.0/stats", "1.0/devlink/0"];

impl User {
    /// A line of shell as this user, without any other group and, but for root, without any privilege.
    fn sh(&self, line: &str) -> proc::Output {
        let [uid, gid] = [self.uid, self.gid].map(|id| id.to_string());
        proc::run(STEP, &["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups", "sh", "-c", line])
    }

    /// `FILE r-` and the like, of every file: by opening it, not by asking whether one might.
    fn opens(&self, mount: &Mount) -> Vec<String> {
        let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        let script = format!(
            "cd {} || exit 1; for f in {}; do r=-; w=-; (: <$f) 2>/dev/null && r=r; (: >>$f) 2>/dev/null && w=w; echo $f $r$w; done",
            mount.path().display(),
            names.join(" ")
        );
        let output = self.sh(&script);
        assert!(output.ok(), "{}: {}", self.name, output.stderr);
        output.stdout.lines().map(str::to_string).collect()
    }

    fn may(&self, name: &str, mode: u32) -> &'static str {
        // Some have nothing to be written, whatever their mode says and whoever asks.
        let mask = if READ_ONLY.contains(&name) { 4 } else { 6 };
        match self.shift.map_or(6, |shift| mode >> shift) & mask {
            6 => "rw",
            4 => "r-",
            2 => "-w",
            _ => "--",
        }
    }
}

/// The mode that each file has now, and what each user can open.
fn check(mount: &Mount, modes: &[(&str, u32)], cells: &mut usize) {
    for (name, mode) in modes {
        let meta = std::fs::metadata(mount.path().join(name)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (*mode, 64242, 64343), "{name}");
    }
    for user in &USERS {
        let want: Vec<String> =
            modes.iter().map(|(name, mode)| format!("{name} {}", user.may(name, *mode))).collect();
        assert_eq!(user.opens(mount), want, "{} with {:o}", user.name, modes[0].1);
        *cells += want.len();
    }
}

fn users_q1_modes_and_files() {
    let mut bed = Bed::with_fuse(&["setpriv"]);
    let mount = demo(&mut bed, &["-o", "allow_other,uid=64242,gid=64343"]);
    let unit = mount.unit("1.0");
    unit.ctl_ok("part part 0 8");
    let mut cells = 0;
    check(&mount, &FILES, &mut cells);
    // Nobody but the owner and root changes that, and nobody but the owner of the directory removes a target.
    let at = mount.path().display();
    for user in &USERS[2..] {
        for (line, path) in [("chmod 666", "1.0/ctl"), ("chown 64244", "1.0/ctl"), ("rmdir", "1.0")] {
            let said = user.sh(&format!("{line} {at}/{path}"));
            assert!(!said.ok(), "{}: {line}", user.name);
        }
    }
    assert!(!OWNER.sh(&format!("chown 64244 {at}/1.0/ctl")).ok(), "only root gives files away");
    check(&mount, &FILES, &mut cells);
    for mode in [0o000, 0o200, 0o040, 0o004, 0o002, 0o026, 0o062, 0o460, 0o606, 0o666] {
        let modes = FILES.map(|(name, _)| (name, mode));
        let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        let said = OWNER.sh(&format!("cd {at} && chmod {mode:04o} {}", names.join(" ")));
        assert!(said.ok(), "{mode:o}: {}", said.stderr);
        check(&mount, &modes, &mut cells);
    }
    print!("[{cells} pairs of user and file, each to read and to write] ");
    chown(unit.data(), Some(64244), None).unwrap();
    assert!(USERS[3].sh(&format!(": <{at}/1.0/data")).ok(), "root gave it to other");
    // Modes stay with the name: the partition's are its own again when it is declared anew.
    std::fs::set_permissions(unit.file("part"), Permissions::from_mode(0o400)).unwrap();
    unit.ctl_ok("delpart part");
    unit.ctl_ok("part part 8 16");
    assert_eq!(std::fs::metadata(unit.file("part")).unwrap().mode() & 0o777, 0o400);
    mount.stop();
}

fn users_q1_without_allow_other() {
    let mut bed = Bed::with_fuse(&["setpriv"]);
    let mount = demo(&mut bed, &["-o", "uid=64242,gid=64343"]);
    let at = mount.path().display();
    for user in &USERS {
        let got = user.sh(&format!("cat {at}/1.0/ctl >/dev/null"));
        assert_eq!(got.ok(), user.uid == 0, "{}: only who mounted is let in: {}", user.name, got.stderr);
    }
    mount.stop();
}

/// The daemon runs as root without the right to give files away, but has joined the group.
fn users_a_socket_for_machines_belongs_to_the_group() {
    let mut bed = Bed::with_fuse(&["setpriv", "python3"]);
    let mount = demo(&mut bed, &["-o", "uid=64242,gid=64343"]);
    let socket = bed.dir().join("disk.sock");
    mount.unit("1.0").ctl_ok(&format!("vhost {}", socket.display()));
    let meta = std::fs::metadata(&socket).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o660, 0, 64343));
    // The bed's directory is for all who know the name.
    std::fs::set_permissions(bed.dir(), Permissions::from_mode(0o711)).unwrap();
    for user in &USERS {
        let script =
            format!("import socket; socket.socket(socket.AF_UNIX).connect(\"{}\")", socket.display());
        let said = user.sh(&format!("python3 -c '{script}'"));
        assert_eq!(said.ok(), ["root", "group"].contains(&user.name), "{}: {}", user.name, said.stderr);
    }
    // Without the group of the machines' user it cannot be done, and the answer says so.
    let other = demo(&mut bed, &["-o", "uid=64242"]);
    let path = bed.dir().join("other.sock");
    assert_eq!(errno(other.unit("1.0").ctl(&format!("vhost {}", path.display()))), libc::EPERM);
    let told = std::fs::read_to_string(other.path().join("log")).unwrap();
    assert!(told.contains("to the owner of the mount: mount with -o gid=GROUP"), "{told}");
    assert!(!path.exists());
    other.stop();
    mount.stop();
    assert!(!socket.exists());
}

fn config_file_is_read_again_at_sighup() {
    let mut bed = Bed::with_fuse(&[]);
    let file = bed.dir().join("aoefs.conf");
    std::fs::write(&file, "1.0 part one 0 8\n1.0 deadline 7\n1.0 direct_io on\n").unwrap();
    let mount = demo(&mut bed, &["--config", file.to_str().unwrap()]);
    let unit = mount.unit("1.0");
    assert_eq!((unit.size("one"), unit.line("deadline").as_str()), (4096, "7"));
    assert!(unit.line("flag").ends_with(" direct_io"), "{}", unit.read("ctl"));
    let held = unit.open("one");
    std::fs::write(&file, "debug on\n1.0 part one 0 8\n1.0 frobnicate\n1.0 part two 8 24\n1.0 deadline 9\n1.0 config set told\n")
        .unwrap();
    assert_eq!(unit.line("deadline"), "7", "not before it is told to");
    mount.daemon.signal(Signal::SIGHUP);
    until("the new partition", SOON, || unit.file("two").exists());
    until("all was read", SOON, || mount.read("log").contains("configuration read again"));
    assert_eq!((unit.size("one"), unit.size("two"), unit.line("deadline").as_str()), (4096, 8192, "9"));
    until("what asks the target as well", SOON, || unit.read("config") == "told");
    assert!(mount.read("ctl").starts_with("debug: 1\n"), "the lines for the top");
    let complaint = format!("{}:3: frobnicate: no such command; ", file.display());
    let log = mount.read("log");
    assert!(log.lines().any(|l| l.contains(&complaint) && l.ends_with("; the other lines apply")), "{log}");
    // What is open stays open; a file that is gone is said, and changes nothing.
    (&held).read_exact(&mut [0; 512]).unwrap();
    drop(held);
    std::fs::remove_file(&file).unwrap();
    let before = mount.read("log").len();
    mount.daemon.signal(Signal::SIGHUP);
    until("the log says so", SOON, || mount.read("log")[before..].contains("aoefs.conf"));
    assert_eq!((unit.size("two"), unit.line("deadline").as_str()), (8192, "9"));
    // A hundred at once are one or more, and it lives.
    (0..100).for_each(|_| mount.daemon.signal(Signal::SIGHUP));
    assert_eq!(unit.state(), "up");
    mount.stop();
}

/// A line for the log: a word that the top ctl does not know.
fn say(mount: &Mount, word: &str) {
    assert_eq!(errno(mount.ctl(word)), libc::EINVAL);
}

/// What a reader gets now, to the end.
fn rest(reader: &mut File) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text
}

fn readable(reader: &File, limit: u16) -> bool {
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, limit).unwrap() == 1
}

fn log_readers_poll_and_tail() {
    let mut bed = Bed::with_fuse(&["tail"]);
    let mount = demo(&mut bed, &[]);
    let path = mount.path().join("log");
    let ns = bed.ini.clone();
    let tail = bed.spawn(&ns, &["tail", "-n", "1", "-f", path.to_str().unwrap()]);
    until("tail shows the last line", SOON, || tail.said().lines().count() == 1);
    let [mut all, mut half, mut none] = [0; 3].map(|_| File::open(&path).unwrap());
    let whole = rest(&mut all);
    let mut start = vec![0; whole.len() / 2];
    half.read_exact(&mut start).unwrap();
    assert!(!readable(&all, 0) && readable(&half, 0) && readable(&none, 0));
    // One that waits is woken, and not by a timer.
    let (late, told) = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let woken = readable(&all, 5000);
            (woken, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(300));
        let told = Instant::now();
        say(&mount, "one");
        let (woken, at) = waiter.join().unwrap();
        assert!(woken, "nobody woke it");
        (at, told)
    });
    assert!(late >= told && late - told < Duration::from_secs(1), "{:?}", late - told);
    say(&mount, "two");
    // Each from where it was.
    let news = rest(&mut all);
    assert_eq!(news.lines().count(), 2, "{news}");
    assert!(news.contains("ctl line 1: one: no such command") && news.contains("two"), "{news}");
    let begin = String::from_utf8(start).unwrap();
    assert_eq!(begin + &rest(&mut half), format!("{whole}{news}"));
    assert_eq!(rest(&mut none), format!("{whole}{news}"));
    assert!(!readable(&none, 0));
    none.seek(SeekFrom::Start(whole.len() as u64)).unwrap();
    assert_eq!(rest(&mut none), news, "positions are those of a file that only grows");
    until("tail follows", SOON, || tail.said().contains("two: no such command"));
    assert_eq!(tail.said().lines().count(), 3, "{}", tail.said());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), (whole.len() + news.len()) as u64);
    drop((all, half, none));
    tail.kill9();
    mount.stop();
}

fn log_is_not_flooded() {
    let mut bed = Bed::with_fuse(&[]);
    let mount = demo(&mut bed, &[]);
    let start = Instant::now();
    (0..5000).for_each(|n| say(&mount, &format!("flood{n}")));
    let flooded = start.elapsed().as_secs() as usize + 1;
    let shown = mount.read("log").matches("no such command").count();
    assert!((64..=64 + 4 * flooded).contains(&shown), "{shown} lines in {flooded} s");
    // What was left out is counted, and another kind of message is not held up by it.
    let left_out = || {
        let log = mount.read("log");
        let counts =
            log.lines().filter_map(|line| line.split_once("suppressed ")?.1.split_once(" lines of kind ctl"));
        counts.map(|(count, _)| count.parse::<usize>().unwrap()).sum::<usize>()
    };
    mount.unit("1.0").ctl_ok("flush");
    until("another kind is logged", SOON, || mount.read("log").contains("1.0 flush: done"));
    until("the rest is counted", SOON, || {
        left_out() + mount.read("log").matches("no such command").count() == 5000
    });
    print!("[5000 lines, {shown} shown] ");
    mount.stop();
}
