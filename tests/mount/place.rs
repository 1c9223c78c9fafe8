//! What lies at the mount point: nothing, a dead mount of ours, a living one, a foreign one.

use std::io::Read;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::bed::room::{Room, SOON, this_program};
use crate::bed::{Daemon, proc, until};

crate::tests![
    a_mount_says_what_it_is,
    a_dead_mount_of_ours_is_replaced,
    two_dead_mounts_are_replaced,
    a_living_mount_is_refused,
    a_stopped_daemon_counts_as_living(beside),
    a_foreign_mount_is_refused,
    a_dead_foreign_mount_is_refused,
    a_path_below_a_dead_mount_is_refused,
    a_source_with_commas_is_one_source,
    without_privilege_through_fusermount(beside),
    with_file_capabilities_through_fusermount(beside),
    the_demo_of_an_ordinary_user_says_one_line,
    of_several_starts_at_once_exactly_one_wins,
    a_user_who_may_have_few_processes_is_left_no_mount(beside),
    without_its_unmounter_the_daemon_of_an_ordinary_user_says_so,
    every_thread_of_a_daemon_is_confined,
    confinement_can_be_turned_off,
];

fn a_mount_says_what_it_is() {
    let room = Room::new();
    let daemon = room.daemon("1");
    assert_eq!(room.mounts(), ["fuse.aoefs"]);
    assert_eq!(daemon.fact("helper"), "false");
    assert_eq!(daemon.fact("read_ahead"), "Ok(())");
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(" fuse.aoefs test ")).unwrap();
    for option in ["nosuid", "nodev", "default_permissions", "max_read=1048576"] {
        assert!(line.split([' ', ',']).any(|word| word == option), "{option}: {line}");
    }
    let device = line.split(' ').nth(2).unwrap();
    let kib = std::fs::read_to_string(format!("/sys/class/bdi/{device}/read_ahead_kb")).unwrap();
    assert_eq!(kib.trim(), "2048");
    let mut data = Vec::new();
    std::fs::File::open(room.point().join("data")).unwrap().read_to_end(&mut data).unwrap();
    assert_eq!(data.len() as u64, crate::daemon::SIZE);
}

fn a_dead_mount_of_ours_is_replaced() {
    let room = Room::new();
    room.daemon("1").die_badly();
    assert_eq!(room.mounts(), ["fuse.aoefs"]);
    let error = std::fs::metadata(room.point()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTCONN));
    let start = std::time::Instant::now();
    let next = room.daemon("1");
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(next.fact("cleared"), "1");
    assert_eq!(room.mounts(), ["fuse.aoefs"]);
    assert!(room.point().join("data").exists());
}

fn two_dead_mounts_are_replaced() {
    let room = Room::new();
    room.daemon("1").die_badly();
    // On top of a dead one only mount(2) itself can put another; a moved one will do.
    let other = room.dir().join("other");
    std::fs::create_dir(&other).unwrap();
    let second = room.started(&[&this_program(), "--daemon", other.to_str().unwrap()]);
    mount(Some(&other), &room.point(), None::<&str>, MsFlags::MS_MOVE, None::<&str>).unwrap();
    second.die_badly();
    assert_eq!(room.mounts(), ["fuse.aoefs", "fuse.aoefs"]);
    assert_eq!(room.daemon("1").fact("cleared"), "2");
    assert_eq!(room.mounts(), ["fuse.aoefs"]);
}

fn a_living_mount_is_refused() {
    let room = Room::new();
    let first = room.daemon("1");
    let why = room.refused();
    assert!(why.contains("is mounted on") && why.contains("already"), "{why}");
    assert!(first.daemon.alive());
    assert!(room.point().join("data").exists());
    assert_eq!(room.mounts(), ["fuse.aoefs"]);
}

fn a_stopped_daemon_counts_as_living() {
    let room = Room::new();
    let first = room.daemon("1");
    first.daemon.signal(Signal::SIGSTOP);
    let why = room.refused();
    assert!(why.contains("already"), "{why}");
    first.daemon.signal(Signal::SIGCONT);
    assert!(room.point().join("data").exists());
}

fn a_foreign_mount_is_refused() {
    let room = Room::new();
    mount(Some("none"), &room.point(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let why = room.refused();
    assert!(why.contains("type tmpfs") && why.contains("not touching it"), "{why}");
    assert_eq!(room.mounts(), ["tmpfs"]);
}

fn a_dead_foreign_mount_is_refused() {
    let room = Room::new();
    // What sshfs leaves behind: a FUSE mount of another type whose descriptor is closed.
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", std::os::fd::AsRawFd::as_raw_fd(&device));
    mount(Some("none"), &room.point(), Some("fuse.sshfs"), MsFlags::empty(), Some(data.as_str())).unwrap();
    drop(device);
    let why = room.refused();
    assert!(why.contains("type fuse.sshfs") && why.contains("daemon is gone"), "{why}");
    assert_eq!(room.mounts(), ["fuse.sshfs"]);
    umount2(&room.point(), MntFlags::MNT_DETACH).unwrap();
}

fn a_path_below_a_dead_mount_is_refused() {
    let room = Room::new();
    room.daemon("1").die_badly();
    let below = room.point().join("below");
    let error = aoefs::mount::Place::resolve(&below).unwrap_err();
    assert!(error.to_string().contains("lies below a FUSE mount whose daemon is gone"), "{error}");
}

fn a_source_with_commas_is_one_source() {
    let room = Room::new();
    let point = room.point();
    room.started(&[&this_program(), "--daemon", point.to_str().unwrap(), "1", "eth0,ro,fd=0"]);
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.contains(" fuse.aoefs ") && line.contains(&*room.point().to_string_lossy()))
        .unwrap();
    assert!(line.contains(" fuse.aoefs eth0,ro,fd=0 rw,"), "{line}");
}

fn without_privilege_through_fusermount() {
    through_fusermount(None);
}

/// File capabilities make a process that may not be looked at by its own user: /proc/self belongs to root then.
fn with_file_capabilities_through_fusermount() {
    through_fusermount(Some("cap_net_raw,cap_net_admin+ep"));
}

/// What a command line begins with that nobody runs.
pub const NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/// A copy of the program, /dev/fuse and the mount point: all within the reach of nobody. Skips where a program is
/// missing.
pub fn for_nobody(room: &Room, program: &str, also: Option<&str>) -> std::path::PathBuf {
    for program in ["fusermount3", "setpriv", "mknod"].into_iter().chain(also) {
        if !proc::have(program) {
            crate::bed::skip(&format!("the program {program} is not installed"));
        }
    }
    let node = room.dir().join("fuse");
    proc::ok(SOON, &["mknod", "-m", "666", node.to_str().unwrap(), "c", "10", "229"]);
    mount(Some(&node), "/dev/fuse", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let copy = room.dir().join("program");
    std::fs::copy(program, &copy).unwrap();
    proc::ok(SOON, &["chmod", "755", room.dir().to_str().unwrap(), copy.to_str().unwrap()]);
    nix::unistd::chown(&room.point(), Some(65534.into()), Some(65534.into())).unwrap();
    copy
}

/// A user without privileges is not told at each start what cannot be done without them.
fn the_demo_of_an_ordinary_user_says_one_line() {
    let room = Room::new();
    let program = for_nobody(&room, env!("CARGO_BIN_EXE_aoefs"), None);
    let (program, point) = (program.to_str().unwrap(), room.point());
    let point = point.to_str().unwrap();
    let started = proc::run(SOON, &[NOBODY.as_slice(), &[program, "--demo", point]].concat());
    let said = format!("{}{}", started.stdout, started.stderr);
    let unmounted = proc::run(SOON, &[NOBODY.as_slice(), &["fusermount3", "-u", point]].concat());
    assert_eq!(said, format!("{point}: bound demo; targets 1.0\n"));
    assert!(started.ok() && unmounted.ok(), "{}", unmounted.stderr);
    until("it has ended", SOON, || room.mounts().is_empty());
}

/// As nobody, in a namespace where /dev/fuse is for everybody, as it is on most machines.
fn through_fusermount(capabilities: Option<&str>) {
    let room = Room::new();
    let program = for_nobody(&room, &this_program(), capabilities.map(|_| "setcap"));
    if let Some(capabilities) = capabilities {
        proc::ok(SOON, &["setcap", capabilities, program.to_str().unwrap()]);
    }
    let (point, nobody) = (room.point(), NOBODY);
    let source = "eth0,allow_other\\,x";
    let start = || {
        let argv = [program.to_str().unwrap(), "--daemon", point.to_str().unwrap(), "1", source];
        room.started(&[nobody.as_slice(), argv.as_slice()].concat())
    };
    let daemon = start();
    assert_eq!(daemon.fact("helper"), "true");
    assert!(daemon.fact("read_ahead").starts_with("Err"), "{}", daemon.daemon.said());
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = table
        .lines()
        .find(|line| line.contains(" fuse.aoefs ") && line.contains(&*room.point().to_string_lossy()))
        .unwrap();
    assert!(line.contains(" fuse.aoefs eth0,allow_other\\134,x rw,user_id=65534"), "{line}");

    // Killed, and its unmounter goes through fusermount3.
    daemon.daemon.kill9();
    until("fusermount3 has unmounted", SOON, || room.mounts().is_empty());

    // Dead, and replaced by the next one, through fusermount3.
    start().die_badly();
    assert_eq!(room.mounts(), ["fuse.aoefs"]);
    let next = start();
    assert_eq!(next.fact("cleared"), "1");

    // Busy, told so by fusermount3; then unmounted by the signal.
    let data = point.join("data");
    let open = [nobody.as_slice(), &["tail", "-f", data.to_str().unwrap()]].concat();
    let tail = Daemon::spawn(room.dir(), "tail", &open);
    until("tail has it open", SOON, || {
        std::fs::read_dir(format!("/proc/{}/fd", tail.pid())).is_ok_and(|fds| {
            fds.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|file| file.ends_with("m/data")))
        })
    });
    next.daemon.signal(Signal::SIGTERM);
    until("the mount is found busy", SOON, || next.daemon.said().contains("in use by"));
    until("it is detached", SOON, || room.mounts().is_empty());
    assert!(next.daemon.alive());
    tail.kill9();
    assert_eq!(next.daemon.ended(SOON), 0, "{}", next.daemon.said());
}

/// Mounts stack, so each of several starts could succeed, and hide the others.
fn of_several_starts_at_once_exactly_one_wins() {
    let room = Room::new();
    let point = room.point();
    for round in 0..25 {
        let gate = room.dir().join(format!("gate-{round}"));
        let argv =
            [&this_program(), "--daemon", point.to_str().unwrap(), "1", "test", gate.to_str().unwrap()];
        let starts: Vec<_> = (0..3).map(|_| Daemon::spawn(room.dir(), "small", &argv)).collect();
        until("all wait", 3 * SOON, || starts.iter().all(|start| start.said().contains("waiting\n")));
        std::fs::write(&gate, "").unwrap();
        until("each has won or lost", 3 * SOON, || {
            starts.iter().all(|start| !start.alive() || start.said().contains("ready "))
        });
        assert_eq!(room.mounts(), ["fuse.aoefs"], "round {round}");
        let (won, lost): (Vec<_>, Vec<_>) = starts.iter().partition(|start| start.said().contains("ready "));
        assert_eq!(won.len(), 1, "round {round}");
        for start in lost {
            assert!(start.said().contains("error ") && start.ended(SOON) == 1, "{}", start.said());
        }
        assert!(point.join("data").exists());
        won[0].signal(Signal::SIGTERM);
        assert_eq!(won[0].ended(SOON), 0, "{}", won[0].said());
    }
}

/// Words that run a command as a user of whom there is no other process: limits on processes count all of a user's. It
/// must be one with a name, for fusermount3.
fn lonely_user(room: &Room) -> (std::path::PathBuf, Vec<String>) {
    let program = for_nobody(room, env!("CARGO_BIN_EXE_aoefs"), None);
    use std::os::unix::fs::MetadataExt;
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let busy: Vec<u32> = pids.filter_map(|entry| Some(entry.metadata().ok()?.uid())).collect();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut users = users.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
    let Some(user) = users.find(|user| ![0, 65534].contains(user) && !busy.contains(user)) else {
        crate::bed::skip("every user has processes");
    };
    nix::unistd::chown(&room.point(), Some(user.into()), Some(user.into())).unwrap();
    let words = ["setpriv", "--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"];
    (program, words.map(String::from).to_vec())
}

/// Whatever it is that does not succeed for want of a process or a thread, no mount is left.
fn a_user_who_may_have_few_processes_is_left_no_mount() {
    let room = Room::new();
    let (program, user) = lonely_user(&room);
    if !proc::have("prlimit") {
        crate::bed::skip("the program prlimit is not installed");
    }
    let (point, mut started) = (room.point(), 0);
    for limit in 1..=16 {
        let limits = format!("--nproc={limit}:{limit}");
        let words = [program.to_str().unwrap(), "-f", "--demo", point.to_str().unwrap()];
        let argv: Vec<&str> =
            ["prlimit", &limits].into_iter().chain(user.iter().map(String::as_str)).chain(words).collect();
        let daemon = Daemon::spawn(room.dir(), "few", &argv);
        until("it serves or has ended", SOON, || !daemon.alive() || daemon.said().contains("bound demo"));
        if daemon.alive() {
            started += 1;
            daemon.signal(Signal::SIGTERM);
            // Just enough to serve leaves no process for fusermount3, to unmount before it ends; a second signal ends
            // it.
            std::thread::sleep(Duration::from_millis(500));
            daemon.signal(Signal::SIGTERM);
        }
        let code = daemon.ended(2 * SOON);
        until(&format!("nothing is mounted: limit {limit}, code {code}, {}", daemon.said()), SOON, || {
            room.mounts().is_empty()
        });
    }
    assert!(started > 0, "not even the highest limit was enough");
}

/// The demo in the foreground, in the room's mount namespace.
fn demo(room: &Room, before: &[&str], program: &str) -> std::sync::Arc<Daemon> {
    let words = [program, "-f", "--demo", room.point().to_str().unwrap()].map(str::to_owned);
    let argv: Vec<String> = before.iter().map(|word| word.to_string()).chain(words).collect();
    let daemon = Daemon::spawn(room.dir(), "demo", &argv);
    until("it serves", SOON, || {
        assert!(daemon.alive(), "{}", daemon.said());
        daemon.said().contains("bound demo")
    });
    daemon
}

/// Its unmounter killed, the daemon of an ordinary user cannot start fusermount3 either; its user can.
fn without_its_unmounter_the_daemon_of_an_ordinary_user_says_so() {
    let room = Room::new();
    let (program, user) = lonely_user(&room);
    let user: Vec<&str> = user.iter().map(String::as_str).collect();
    let daemon = demo(&room, &user, program.to_str().unwrap());
    let child = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
            stat.contains(&format!(" {} ", daemon.pid())) && stat.contains("(aoefs-unmount)")
        })
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let unmounter = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(child).unwrap();
    proc::signal(unmounter, Signal::SIGKILL);
    until("the unmounter is gone", SOON, || !crate::bed::room::running(unmounter));
    daemon.signal(Signal::SIGTERM);
    let why = format!("cannot unmount: aoefs-unmount[{unmounter}] has ended");
    until("it says why it stays", SOON, || daemon.said().contains(&why));
    let point = room.point();
    let unmount = ["fusermount3", "-u", point.to_str().unwrap()];
    proc::ok(SOON, &[user.as_slice(), &unmount].concat());
    assert_eq!(daemon.ended(2 * SOON), 0, "{}", daemon.said());
    assert!(room.mounts().is_empty(), "{}", daemon.said());
}

/// Whoever starts it.
fn every_thread_of_a_daemon_is_confined() {
    let room = Room::new();
    let copy = for_nobody(&room, env!("CARGO_BIN_EXE_aoefs"), None);
    for before in [[].as_slice(), NOBODY.as_slice()] {
        let daemon = demo(&room, before, copy.to_str().unwrap());
        assert!(daemon.threads() > 3, "{}", daemon.threads());
        daemon.assert_confined();
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ended(SOON), 0, "{}", daemon.said());
    }
}

fn confinement_can_be_turned_off() {
    let room = Room::new();
    let program = env!("CARGO_BIN_EXE_aoefs");
    let daemon = demo(&room, &["env", "AOEFS_SECCOMP=off"], program);
    assert!(daemon.said().contains("seccomp: off, for AOEFS_SECCOMP is set so"), "{}", daemon.said());
    let filters = |pid: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find(|line| line.starts_with("Seccomp_filters:")).map(str::to_owned)
    };
    assert_eq!(filters(&daemon.pid().to_string()), filters("self"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(SOON), 0, "{}", daemon.said());
}
