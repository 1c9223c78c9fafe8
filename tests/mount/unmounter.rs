//! The unmounter: what it does when its daemon dies, and what it never does.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::bed::room::{Room, SOON, running, state, this_program};
use crate::bed::{Daemon, proc, until};
use crate::place::{NOBODY, for_nobody};

crate::tests![
    kill_9_takes_the_mount_away,
    kill_9_takes_a_busy_mount_away,
    clean_kill_9_with_a_thread_stuck_in_the_kernel,
    clean_kill_9_with_a_stuck_thread_after_a_lazy_unmount,
    clean_kill_9_with_a_stuck_thread_of_an_ordinary_user,
    clean_kill_9_before_the_unmounter_knows_the_mount,
    a_mount_that_came_after_ours_is_left_alone,
    a_mount_on_top_of_ours_is_left_alone,
    clean_a_mount_with_the_number_of_ours_is_left_alone,
    umount_ends_both,
    it_holds_nothing_and_listens_to_nobody,
    without_it_the_daemon_unmounts_itself,
    an_unmounter_that_hangs_does_not_keep_the_daemon(beside),
    an_unmounter_that_hangs_keeps_no_second_signal(beside),
];

fn kill_9_takes_the_mount_away() {
    let room = Room::new();
    let daemon = room.daemon("1");
    let unmounter = daemon.unmounter();
    daemon.daemon.kill9();
    let took = until("the mount is gone", SOON, || room.mounts().is_empty());
    until("the unmounter is gone", SOON, || !running(unmounter));
    println!("    gone after {took:?}");
}

fn kill_9_takes_a_busy_mount_away() {
    let room = Room::new();
    let daemon = room.daemon("1");
    let file = std::fs::File::open(room.point().join("data")).unwrap();
    daemon.daemon.kill9();
    until("the mount is gone", SOON, || room.mounts().is_empty());
    assert_eq!(file.metadata().unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
}

/// A daemon one of whose threads waits for the daemon's own reply: kill -9 alone ends neither that thread nor the
/// wait of its users.
fn stuck_daemon(room: &Room) -> (crate::bed::room::Daemoned, std::thread::JoinHandle<std::io::Error>) {
    let point = room.point();
    let argv = [&this_program(), "--daemon", point.to_str().unwrap(), "1", "test", "", "hold"];
    let daemon = room.started(&argv);
    until("a thread of it is stuck", SOON, || has_a_stuck_thread(daemon.daemon.pid()));
    // The name must be known before the mount is detached; opening it waits for the page already.
    let name = File::options().read(true).custom_flags(libc::O_PATH).open(point.join("stuck")).unwrap();
    let path = format!("/proc/self/fd/{}", name.as_raw_fd());
    let user = std::thread::spawn(move || {
        let read = std::fs::read(path);
        drop(name);
        read.unwrap_err()
    });
    (daemon, user)
}

/// True while a thread of the process waits in the kernel in a way that no signal ends.
fn has_a_stuck_thread(pid: u32) -> bool {
    let waits = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('D'))
    };
    std::fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.flatten().any(waits))
}

fn freed(daemon: &crate::bed::room::Daemoned, user: std::thread::JoinHandle<std::io::Error>) {
    daemon.daemon.kill9();
    until("the unmounter is gone", SOON, || !running(daemon.unmounter()));
    until("its user is freed", SOON, || user.is_finished());
    let errno = user.join().unwrap().raw_os_error();
    assert!([libc::ECONNABORTED, libc::ENOTCONN].map(Some).contains(&errno), "{errno:?}");
    until("the daemon is gone", SOON, || !running(daemon.daemon.pid()));
}

fn clean_kill_9_with_a_thread_stuck_in_the_kernel() {
    let room = Room::new();
    let (daemon, user) = stuck_daemon(&room);
    freed(&daemon, user);
    assert!(room.mounts().is_empty());
}

fn clean_kill_9_with_a_stuck_thread_after_a_lazy_unmount() {
    let room = Room::new();
    let (daemon, user) = stuck_daemon(&room);
    umount2(&room.point(), MntFlags::MNT_DETACH).unwrap();
    freed(&daemon, user);
}

/// An ordinary user may end a connection of its own where fusectl is mounted, as it is on most machines.
fn clean_kill_9_with_a_stuck_thread_of_an_ordinary_user() {
    let room = Room::new();
    let program = for_nobody(&room, &this_program(), None);
    let switches = Path::new("/sys/fs/fuse/connections");
    mount(Some("none"), switches, Some("fusectl"), MsFlags::empty(), None::<&str>).unwrap();
    let (point, nobody) = (room.point(), NOBODY);
    let words = [program.to_str().unwrap(), "--daemon", point.to_str().unwrap(), "1", "test", "", "hold"];
    let daemon = room.started(&[nobody.as_slice(), words.as_slice()].concat());
    until("a thread of it is stuck", SOON, || has_a_stuck_thread(daemon.daemon.pid()));
    let stuck = point.join("stuck");
    let words = [nobody.as_slice(), &["cat", stuck.to_str().unwrap()]].concat();
    let user = Daemon::spawn(room.dir(), "user", &words);
    until("a user waits", SOON, || has_a_stuck_thread(user.pid()));
    daemon.daemon.kill9();
    until("the unmounter is gone", SOON, || !running(daemon.unmounter()));
    until("its user is freed", SOON, || !user.alive());
    until("the daemon is gone", SOON, || !running(daemon.daemon.pid()));
    until("nothing is mounted", SOON, || room.mounts().is_empty());
}

/// The unmounter gets no processor from before the mount is made until the daemon is dead. A daemon that served by
/// then could have a thread stuck in the kernel, and an unmounter that was never told of the mount could not free it
/// and its users.
fn clean_kill_9_before_the_unmounter_knows_the_mount() {
    let room = Room::new();
    let (point, gate) = (room.point(), room.dir().join("gate"));
    let words = [point.to_str().unwrap(), "1", "test", gate.to_str().unwrap(), "hold"];
    let daemon = Daemon::spawn(room.dir(), "small", &[&[&*this_program(), "--daemon"], &words[..]].concat());
    until("it waits to mount", SOON, || daemon.said().contains("waiting\n"));
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid())).unwrap();
    let unmounter: u32 = children.trim().parse().unwrap();
    // From then on the kernel tells it when the daemon dies.
    until("it asked for a word of the daemon's death", SOON, || {
        let fds = std::fs::read_dir(format!("/proc/{unmounter}/fd")).unwrap().flatten();
        fds.filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|file| file.ends_with("anon_inode:[signalfd]"))
    });
    proc::signal(unmounter, Signal::SIGSTOP);
    until("it is stopped", SOON, || state(unmounter) == Some('T'));
    std::fs::write(&gate, "").unwrap();
    until("the mount is there", SOON, || room.mounts() == ["fuse.aoefs"]);
    let user = Daemon::spawn(room.dir(), "user", &["cat", point.join("stuck").to_str().unwrap()]);
    // Ample for a daemon that does not wait for its unmounter.
    std::thread::sleep(Duration::from_millis(500));
    assert!(user.alive(), "{}", user.said());
    let said = daemon.said();
    daemon.signal(Signal::SIGKILL);
    proc::signal(unmounter, Signal::SIGCONT);
    until("the unmounter is gone", SOON, || !running(unmounter));
    until("its user is freed", SOON, || !user.alive());
    until("the daemon is gone", SOON, || !running(daemon.pid()));
    assert!(room.mounts().is_empty());
    assert_eq!(said, "waiting\n", "it went on before its unmounter knew the mount");
}

fn a_mount_that_came_after_ours_is_left_alone() {
    let room = Room::new();
    let first = room.daemon("1");
    // Detached by somebody, still in use; another daemon takes the place.
    let file = std::fs::File::open(room.point().join("data")).unwrap();
    umount2(&room.point(), MntFlags::MNT_DETACH).unwrap();
    let second = room.daemon("1");
    first.daemon.kill9();
    until("its unmounter is gone", SOON, || !running(first.unmounter()));
    assert_eq!(room.mounts(), ["fuse.aoefs"]);
    assert!(room.point().join("data").exists());
    assert!(second.daemon.alive());
    drop(file);
}

fn a_mount_on_top_of_ours_is_left_alone() {
    let room = Room::new();
    let daemon = room.daemon("1");
    mount(Some("none"), &room.point(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    daemon.daemon.kill9();
    until("the unmounter is gone", SOON, || !running(daemon.unmounter()));
    assert_eq!(room.mounts(), ["fuse.aoefs", "tmpfs"]);
    umount2(&room.point(), MntFlags::MNT_DETACH).unwrap();
    // What it could not reach is replaced by the next one.
    assert_eq!(room.daemon("1").fact("cleared"), "1");
}

/// Another FUSE mount of this test, without a daemon: nothing asks it for anything.
struct Other {
    device: File,
    number: String,
}

impl Other {
    fn at(point: &Path) -> Self {
        std::fs::create_dir(point).unwrap();
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("none"), point, Some("fuse.aoefs"), MsFlags::empty(), Some(data.as_str())).unwrap();
        Self { device, number: number(point).expect("it has just been mounted") }
    }

    fn lives(&self) -> bool {
        let mut fds = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        !fds[0].revents().unwrap().contains(PollFlags::POLLERR)
    }
}

/// The device number of the mount at this place, if there is one.
fn number(point: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let mut lines = table.lines().map(|line| line.split(' '));
    lines.find_map(|mut words| {
        let number = words.nth(2)?;
        (words.nth(1) == point.to_str()).then(|| number.into())
    })
}

/// The kernel gives the number of a FUSE connection to the next one as soon as it is free.
fn clean_a_mount_with_the_number_of_ours_is_left_alone() {
    let room = Room::new();
    let daemon = room.daemon("1");
    let unmounter = daemon.unmounter();
    let ours = number(&room.point()).unwrap();
    // It is late, and only the name of a file says which connection it may end.
    hang(unmounter);
    umount2(&room.point(), MntFlags::empty()).unwrap();
    // The id of the mount is free, too. It tells them apart where the kernel has ids that it never uses again, so
    // another mount takes it here.
    mount(Some("/usr"), &room.point(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    // Other tests may take the number first, but not for long.
    let mut others = Vec::new();
    until("another mount has the number", SOON, || {
        others.push(Other::at(&room.dir().join(format!("other{}", others.len()))));
        others.last().unwrap().number == ours
    });
    daemon.daemon.kill9();
    proc::signal(unmounter, Signal::SIGCONT);
    until("the unmounter is gone", SOON, || !running(unmounter));
    for (n, other) in others.iter().enumerate() {
        assert!(other.lives(), "the connection of another mount was ended");
        let point = room.dir().join(format!("other{n}"));
        assert_eq!(number(&point).as_ref(), Some(&other.number), "another mount was taken away");
        umount2(&point, MntFlags::MNT_DETACH).unwrap();
    }
}

fn umount_ends_both() {
    let room = Room::new();
    let daemon = room.daemon("1");
    proc::ok(SOON, &["umount", room.point().to_str().unwrap()]);
    assert_eq!(daemon.daemon.ended(SOON), 0);
    assert!(!running(daemon.unmounter()));
    assert!(daemon.daemon.said().contains("ended"));
}

fn it_holds_nothing_and_listens_to_nobody() {
    let room = Room::new();
    let daemon = room.daemon("1");
    let pid = daemon.unmounter();
    // It lets go of what it has inherited while the daemon goes on to start.
    let files = || {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let files =
            fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()?.into_os_string().into_string().ok());
        let mut files: Vec<String> = files.collect();
        files.sort();
        files
    };
    let comm = format!("/proc/{pid}/comm");
    until("it has its name", SOON, || std::fs::read_to_string(&comm).unwrap() == "aoefs-unmount\n");
    let files = files();
    assert_eq!(files.len(), 6, "{files:?}");
    // The first is the kernel's list of FUSE connections.
    assert_eq!(files[..4], ["/", "/dev/null", "/dev/null", "/dev/null"]);
    assert!(files[4].starts_with("anon_inode:[signalfd]") && files[5].starts_with("socket:"), "{files:?}");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    // SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH.
    assert_eq!(u64::from_str_radix(held, 16).unwrap(), 1 << 21 | 1 << 19 | 1 << 2);
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1] {
        proc::signal(pid, signal);
    }
    // It still does its work.
    daemon.daemon.kill9();
    until("the mount is gone", SOON, || room.mounts().is_empty());
    until("the unmounter is gone", SOON, || !running(pid));
}

fn without_it_the_daemon_unmounts_itself() {
    let room = Room::new();
    let daemon = room.daemon("1");
    proc::signal(daemon.unmounter(), Signal::SIGKILL);
    until("the unmounter is gone", SOON, || !running(daemon.unmounter()));
    daemon.daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.daemon.ended(SOON), 0, "{}", daemon.daemon.said());
    assert!(room.mounts().is_empty());
}

/// It may wait in umount(2) or while it reads /proc, as one that is stopped does.
fn hang(unmounter: u32) {
    proc::signal(unmounter, Signal::SIGSTOP);
    until("it is stopped", SOON, || state(unmounter) == Some('T'));
}

fn an_unmounter_that_hangs_does_not_keep_the_daemon() {
    let room = Room::new();
    let daemon = room.daemon("1");
    let pid = daemon.unmounter();
    hang(pid);
    umount2(&room.point(), MntFlags::empty()).unwrap();
    // Five times what the daemon waits for it.
    assert_eq!(daemon.daemon.ended(Duration::from_secs(15)), 0, "{}", daemon.daemon.said());
    let said = daemon.daemon.said();
    assert!(said.contains(&format!("aoefs-unmount[{pid}] has not ended")), "{said}");
    proc::signal(pid, Signal::SIGCONT);
    until("the unmounter is gone", SOON, || !running(pid));
}

fn an_unmounter_that_hangs_keeps_no_second_signal() {
    let room = Room::new();
    let daemon = room.daemon("60");
    let pid = daemon.unmounter();
    hang(pid);
    let status = format!("/proc/{}/status", daemon.daemon.pid());
    daemon.daemon.signal(Signal::SIGTERM);
    until("the first signal is taken", SOON, || {
        std::fs::read_to_string(&status).unwrap().contains("ShdPnd:\t0000000000000000\n")
    });
    daemon.daemon.signal(Signal::SIGHUP);
    until("it reads its configuration meanwhile", SOON, || daemon.daemon.said().contains("reload\n"));
    // What comes sooner belongs to the first.
    std::thread::sleep(Duration::from_millis(50));
    daemon.daemon.signal(Signal::SIGTERM);
    // Five times what the daemon waits for an answer, and then for the end. The code says that the mount stays.
    assert_eq!(daemon.daemon.ended(Duration::from_secs(33)), 1, "{}", daemon.daemon.said());
    let said = daemon.daemon.said();
    assert!(said.contains(&format!("the mount stays: aoefs-unmount[{pid}] does not answer")), "{said}");
    proc::signal(pid, Signal::SIGCONT);
    until("the unmounter is gone", SOON, || !running(pid));
    assert!(room.mounts().is_empty());
}
