//! SIGTERM, SIGINT and SIGHUP, on an idle and on a busy mount.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::bed::room::{Room, SOON, running, this_program};
use crate::bed::{proc, until};

crate::tests![
    sigterm_unmounts,
    sigint_unmounts,
    sighup_reloads,
    a_busy_mount_is_served_until_the_last_close(beside),
    a_busy_mount_that_is_given_back_is_unmounted,
    a_second_signal_ends_it,
    clean_a_signal_that_is_sent_twice_is_one,
    a_second_signal_after_the_detach_ends_it,
    a_hail_of_signals,
    loop_devices_are_named,
    clean_a_covered_mount_is_said_and_unmounted_when_it_can_be(beside),
    clean_a_mount_whose_folder_was_renamed,
    clean_a_copy_of_the_mount_is_said_and_detached(beside),
    clean_a_copy_in_another_mount_namespace_is_said(beside),
];

fn stops_on(signal: Signal) {
    let room = Room::new();
    let daemon = room.daemon("10");
    let start = std::time::Instant::now();
    daemon.daemon.signal(signal);
    assert_eq!(daemon.daemon.ended(SOON), 0, "{}", daemon.daemon.said());
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(room.mounts().is_empty());
    assert!(!running(daemon.unmounter()));
    assert!(daemon.daemon.said().ends_with("ended\n"), "{}", daemon.daemon.said());
}

fn sigterm_unmounts() {
    stops_on(Signal::SIGTERM);
}

fn sigint_unmounts() {
    stops_on(Signal::SIGINT);
}

fn sighup_reloads() {
    let room = Room::new();
    let daemon = room.daemon("1");
    daemon.daemon.signal(Signal::SIGHUP);
    until("it has reloaded", SOON, || daemon.daemon.said().contains("reload\n"));
    assert_eq!(room.mounts(), ["fuse.aoefs"]);
}

fn a_busy_mount_is_served_until_the_last_close() {
    let room = Room::new();
    let daemon = room.daemon("1");
    let file = File::open(room.point().join("data")).unwrap();
    daemon.daemon.signal(Signal::SIGTERM);
    until("it says who", SOON, || daemon.daemon.said().contains("in use by"));
    let me = format!("[{}] (data)", std::process::id());
    assert!(daemon.daemon.said().contains(&me), "{}", daemon.daemon.said());
    let mut sector = [1; 512];
    file.read_exact_at(&mut sector, 0).unwrap();
    daemon.daemon.signal(Signal::SIGHUP);
    until("it has reloaded", SOON, || daemon.daemon.said().contains("reload\n"));
    until("it is detached", SOON, || room.mounts().is_empty());
    until("and says so", SOON, || daemon.daemon.said().contains("detached, serving until the last close"));
    sector = [1; 512];
    file.read_exact_at(&mut sector, 4096 * 100).unwrap();
    assert_eq!(sector, [0; 512]);
    assert!(daemon.daemon.alive());
    drop(file);
    assert_eq!(daemon.daemon.ended(SOON), 0, "{}", daemon.daemon.said());
}

fn a_busy_mount_that_is_given_back_is_unmounted() {
    let room = Room::new();
    let daemon = room.daemon("60");
    let file = File::open(room.point().join("data")).unwrap();
    daemon.daemon.signal(Signal::SIGTERM);
    until("it says who", SOON, || daemon.daemon.said().contains("in use by"));
    drop(file);
    assert_eq!(daemon.daemon.ended(Duration::from_secs(2)), 0, "{}", daemon.daemon.said());
    assert!(!daemon.daemon.said().contains("detached"));
}

/// A read that waits for ever gets an error, and the process ends with 0.
fn second_signal(stop: &str, before_the_second: impl Fn(&Room, &str) -> bool) {
    let room = Room::new();
    let daemon = room.daemon(stop);
    let file = File::open(room.point().join("stuck")).unwrap();
    let reader = std::thread::spawn(move || file.read_at(&mut [0; 512], 0).map_err(|e| e.raw_os_error()));
    daemon.daemon.signal(Signal::SIGTERM);
    until("the first has its effect", SOON, || before_the_second(&room, &daemon.daemon.said()));
    assert!(!reader.is_finished());
    daemon.daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.daemon.ended(Duration::from_secs(2)), 0, "{}", daemon.daemon.said());
    assert_eq!(reader.join().unwrap(), Err(Some(nix::libc::EIO)));
    assert!(room.mounts().is_empty());
    assert!(!running(daemon.unmounter()));
}

fn a_second_signal_ends_it() {
    second_signal("60", |_, said| said.contains("in use by"));
}

/// As timeout(1) sends it: to the process, and to its group.
fn clean_a_signal_that_is_sent_twice_is_one() {
    // A test that loses its processor in between has sent two.
    while !sent_twice() {}
}

/// False if the second was sent too late to be the same.
fn sent_twice() -> bool {
    let room = Room::new();
    let daemon = room.daemon("60");
    let file = File::open(room.point().join("data")).unwrap();
    let pid = nix::unistd::Pid::from_raw(daemon.daemon.pid() as i32);
    let start = Instant::now();
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    // The first has been read by then.
    std::thread::sleep(Duration::from_millis(1));
    nix::sys::signal::killpg(pid, Signal::SIGTERM).unwrap();
    if start.elapsed() > Duration::from_millis(15) {
        return false;
    }
    until("it waits for its user", SOON, || daemon.daemon.said().contains("in use by"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!daemon.daemon.said().contains("outstanding requests fail"), "{}", daemon.daemon.said());
    drop(file);
    assert_eq!(daemon.daemon.ended(SOON), 0, "{}", daemon.daemon.said());
    true
}

fn a_second_signal_after_the_detach_ends_it() {
    second_signal("0", |room, said| room.mounts().is_empty() && said.contains("detached"));
}

fn a_hail_of_signals() {
    let room = Room::new();
    for round in 0..10 {
        let daemon = room.daemon("0");
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGTERM] {
            daemon.daemon.signal(signal);
            std::thread::sleep(Duration::from_micros(300 * round));
        }
        assert_eq!(daemon.daemon.ended(SOON), 0, "{}", daemon.daemon.said());
        until("nothing is mounted", SOON, || room.mounts().is_empty());
    }
}

fn loop_devices_are_named() {
    let room = Room::new();
    if !proc::have("losetup") || !std::path::Path::new("/dev/loop-control").exists() {
        crate::bed::skip("there is no losetup or no /dev/loop-control");
    }
    let daemon = room.daemon("60");
    let data = room.point().join("data");
    let device = proc::ok(SOON, &["losetup", "--find", "--show", "--read-only", data.to_str().unwrap()]);
    let device = device.trim();
    crate::bed::sweep::register(crate::bed::sweep::Mess::Loop(device.into()));
    daemon.daemon.signal(Signal::SIGTERM);
    until("it names the loop device", SOON, || daemon.daemon.said().contains(&format!("{device} (data)")));
    proc::ok(SOON, &["losetup", "-d", device]);
    crate::bed::sweep::forget(device.as_ref());
    assert_eq!(daemon.daemon.ended(SOON), 0, "{}", daemon.daemon.said());
}

fn clean_a_covered_mount_is_said_and_unmounted_when_it_can_be() {
    let room = Room::new();
    let daemon = room.daemon("1");
    mount(Some("none"), &room.point(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    daemon.daemon.signal(Signal::SIGTERM);
    let said = || daemon.daemon.said();
    until("it says what is in the way", SOON, || said().contains("it is covered by tmpfs at "));
    until("the time is over", SOON, || said().contains("cannot detach the mount: it is covered by tmpfs"));
    assert_eq!(room.mounts(), ["fuse.aoefs", "tmpfs"], "nothing of others is touched");
    umount2(&room.point(), MntFlags::MNT_DETACH).unwrap();
    assert_eq!(daemon.daemon.ended(SOON), 0, "{}", said());
    assert!(room.mounts().is_empty());
}

fn clean_a_mount_whose_folder_was_renamed() {
    let room = Room::new();
    let upper = room.dir().canonicalize().unwrap().join("upper");
    std::fs::create_dir_all(upper.join("m")).unwrap();
    let point = upper.join("m");
    let daemon = room.started(&[&this_program(), "--daemon", point.to_str().unwrap(), "1"]);
    let other = upper.with_file_name("other");
    std::fs::rename(&upper, &other).unwrap();
    let there = || {
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        table.contains(other.join("m").to_str().unwrap())
    };
    assert!(there());
    daemon.daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.daemon.ended(SOON), 0, "{}", daemon.daemon.said());
    assert!(!there());
    // And after kill -9.
    let daemon = room.started(&[&this_program(), "--daemon", other.join("m").to_str().unwrap(), "1"]);
    std::fs::rename(&other, &upper).unwrap();
    daemon.daemon.kill9();
    until("the unmounter is gone", SOON, || !running(daemon.unmounter()));
    assert!(
        !std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap().contains(point.to_str().unwrap())
    );
}

/// A bind mount, which would be a dead one if the daemon ended beside it.
fn clean_a_copy_of_the_mount_is_said_and_detached() {
    for (kill, on_itself) in [(false, false), (true, false), (false, true), (true, true)] {
        let room = Room::new();
        let daemon = room.daemon("1");
        let copy = room.dir().canonicalize().unwrap().join(if on_itself { "m" } else { "copy" });
        if !on_itself {
            std::fs::create_dir_all(&copy).unwrap();
        }
        mount(Some(&room.point()), &copy, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let there = || {
            std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap().contains(copy.to_str().unwrap())
        };
        assert!(there());
        if kill {
            daemon.daemon.kill9();
            until("the unmounter is gone", SOON, || !running(daemon.unmounter()));
        } else {
            daemon.daemon.signal(Signal::SIGTERM);
            let said = || daemon.daemon.said();
            until("it says where", SOON, || {
                said().contains(&format!("a copy of it is mounted at {}", copy.display()))
            });
            assert!(copy.join("data").exists(), "it still serves");
            assert_eq!(daemon.daemon.ended(SOON), 0, "{}", said());
        }
        assert!(!there() && room.mounts().is_empty(), "kill {kill}, on itself {on_itself}");
    }
}

fn clean_a_copy_in_another_mount_namespace_is_said() {
    let room = Room::new();
    let daemon = room.daemon("1");
    // It keeps a copy of every mount of ours.
    let other = crate::bed::Daemon::spawn(room.dir(), "other", &["unshare", "--mount", "sleep", "100"]);
    let copied = format!("/proc/{}/mountinfo", other.pid());
    let point = room.point();
    until("it has its copy", SOON, || {
        let own = std::fs::read_link(format!("/proc/{}/ns/mnt", other.pid())).ok();
        own != std::fs::read_link("/proc/thread-self/ns/mnt").ok()
            && std::fs::read_to_string(&copied).is_ok_and(|table| table.contains(point.to_str().unwrap()))
    });
    daemon.daemon.signal(Signal::SIGTERM);
    until("it says so", SOON, || daemon.daemon.said().contains("copies in other mount namespaces"));
    assert!(room.mounts().is_empty());
    other.kill9();
    assert_eq!(daemon.daemon.ended(SOON), 0, "{}", daemon.daemon.said());
}
