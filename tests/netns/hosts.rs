//! The daemon among others: two on one machine, killed and started again, in the background, told to end at any moment.

use crate::bed::fio::Fio;
use crate::bed::mount::{AOEFS, is_mounted, try_open};
use crate::bed::{Bed, MIB, proc, sweep, until};
use crate::tools::fsx::Aligned;
use nix::sys::signal::Signal;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

crate::tests![
    alive_second_daemon_does_not_disturb_the_first(180, beside),
    direct_io_shows_what_another_host_wrote,
    clean_killed_daemon_is_replaced_at_its_mount_point(120),
    clean_living_mount_is_never_replaced,
    clean_background_start_and_umount,
    clean_mount_fuse_form,
    clean_sigterm_under_load(90),
    clean_sigterm_waits_for_a_loop_device(60, beside),
    wait_says_when_a_target_is_missing,
];

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(30);

fn two_targets(len: usize) -> Bed {
    let mut bed = Bed::cable(&["vblade", "fio"], 9000);
    for unit in ["1.0", "7.254"] {
        let image = bed.image(unit, len);
        bed.vblade(unit, "v1", &image);
    }
    bed
}

fn alive_second_daemon_does_not_disturb_the_first() {
    let mut bed = two_targets(64 * MIB);
    let first = bed.mount(&[]);
    let one = first.wait_for("1.0", 3 * SECOND);
    let (moved, other) = std::thread::scope(|scope| {
        let run = scope.spawn({
            let fio = Fio::verify(&one.data(), 4, 8).with("--rate=,2m");
            move || fio.run()
        });
        std::thread::sleep(SECOND / 2);
        let second = bed.mount(&[]);
        let two = second.wait_for("7.254", 3 * SECOND);
        second.wait_for("1.0", 3 * SECOND);
        let other = Fio::verify(&two.data(), 4, 8).run();
        // Both on one disk, each its own half.
        let half = Fio::verify(&second.unit("1.0").data(), 2, 8).with("--offset=32m").run();
        assert!(half.written_mib >= 15.0);
        second.stop();
        (run.join().unwrap(), other)
    });
    assert!(moved.written_mib >= 31.0 && other.written_mib >= 31.0, "{moved:?} {other:?}");
    first.wait_for("1.0", SECOND);
    first.stop();
}

/// A mount that cannot write shows what is in its page cache, whatever another host writes; a file opened after
/// `direct_io on` shows the disk, and so does every file of a mount that can write.
fn direct_io_shows_what_another_host_wrote() {
    const AT: u64 = 1 << 20;
    let mut bed = two_targets(4 * MIB);
    let (here, there) = (bed.mount(&["-o", "ro"]), bed.mount(&[]));
    let [one, other] = [&here, &there].map(|mount| mount.wait_for("1.0", 3 * SECOND));
    let writer = other.open_with("data", libc::O_DIRECT);
    let write = |byte: u8| {
        let mut block = Aligned::new(4096);
        block.bytes().fill(byte);
        writer.write_all_at(block.bytes(), AT).unwrap();
    };
    let read = |file: &std::fs::File| {
        let mut block = [0; 4096];
        file.read_exact_at(&mut block, AT).unwrap();
        assert!(block.iter().all(|byte| *byte == block[0]));
        block[0]
    };
    let open = || std::fs::File::open(one.data()).unwrap();
    write(1);
    let cached = open();
    let beside = other.open("data");
    assert_eq!(read(&cached), 1);
    write(2);
    assert_eq!(read(&cached), 1, "from the page cache: this test would show nothing without it");
    one.ctl_ok("direct_io on");
    let past = open();
    for byte in 3..20 {
        write(byte);
        assert_eq!((read(&past), read(&beside)), (byte, byte));
    }
    drop((writer, cached, past, beside));
    here.stop();
    there.stop();
}

fn clean_killed_daemon_is_replaced_at_its_mount_point() {
    let mut bed = two_targets(32 * MIB);
    let neighbour = bed.mount(&[]);
    let unit = neighbour.wait_for("7.254", 3 * SECOND);
    let first = bed.mount(&[]);
    let data = first.wait_for("1.0", 3 * SECOND).data();
    let path = first.path().to_path_buf();
    // With files open and I/O going on, next to a neighbour that must not notice.
    std::thread::scope(|scope| {
        let run = scope.spawn(|| Fio::verify(&unit.data(), 4, 8).with("--rate=,4m").run());
        // O_DIRECT: the page cache would serve it for ever.
        let held = try_open(&data, libc::O_DIRECT).unwrap();
        let reader = scope.spawn(move || {
            let mut block = Aligned::new(MIB);
            (0u64..).find(|n| held.read_at(block.bytes(), n % 32 * MIB as u64).is_err())
        });
        std::thread::sleep(SECOND / 2);
        first.daemon.kill9();
        assert!(reader.join().unwrap().is_some(), "the reader of a killed daemon got no error");
        let start = Instant::now();
        let ns = bed.ini.clone();
        let again = bed.mount_at(&ns, &path, &["-i", "v0"]);
        again.wait_for("1.0", 3 * SECOND);
        let took = start.elapsed();
        print!("[mounted again after {took:.0?}] ");
        assert!(took < 2 * SECOND, "{took:?}");
        let there = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let count = there.lines().filter(|line| line.split(' ').nth(4) == path.to_str()).count();
        assert_eq!(count, 1, "mounts at the mount point");
        std::fs::read(again.unit("1.0").data()).unwrap();
        again.stop();
        run.join().unwrap();
    });
    neighbour.stop();
}

fn clean_living_mount_is_never_replaced() {
    let mut bed = two_targets(MIB);
    let mount = bed.mount(&[]);
    mount.wait_for("1.0", 3 * SECOND);
    let path = mount.path().to_str().unwrap().to_string();
    let second = bed.ini.run(STEP, &[AOEFS, "-f", "-i", "v0", &path]);
    assert_eq!(second.code, Some(1), "{}{}", second.stdout, second.stderr);
    assert_one_line(&second.stderr);
    assert_eq!(mount.unit("1.0").state(), "up");
    mount.stop();
}

fn clean_background_start_and_umount() {
    let bed = two_targets(MIB);
    let point = bed.dir().join("point");
    std::fs::create_dir(&point).unwrap();
    sweep::register(sweep::Mess::Mount(point.clone()));
    let start = bed.ini.run(STEP, &[AOEFS, "-i", "v0", "--wait", "1.0,7.254", point.to_str().unwrap()]);
    assert!(start.ok(), "{}{}", start.stdout, start.stderr);
    let said = start.stdout;
    assert!(said.lines().count() == 1 && said.contains("v0") && said.contains("1.0"), "{said}");
    assert!(std::fs::read(point.join("1.0/data")).unwrap().len() == MIB);
    assert!(!bed.ini.pids().is_empty());
    proc::sh(STEP, &format!("umount {}", point.display()));
    assert!(!is_mounted(&point));
    until("the daemon ends after umount", 3 * SECOND, || bed.ini.pids().is_empty());
}

fn clean_mount_fuse_form() {
    let mut bed = two_targets(MIB);
    let ns = bed.ini.clone();
    let path = bed.dir().join("point");
    std::fs::create_dir(&path).unwrap();
    sweep::register(sweep::Mess::Mount(path.clone()));
    let at = path.to_str().unwrap();
    let daemon = bed.spawn(
        &ns,
        &[AOEFS, "v0", at, "-f", "-o", "rw,nosuid,nodev,noauto,x-systemd.automount,ro,uid=65534,gid=65534"],
    );
    until("both are there", 3 * SECOND, || {
        path.join("1.0/data").exists() && path.join("7.254/data").exists()
    });
    let open = std::fs::File::options().write(true).open(path.join("1.0/data"));
    assert_eq!(crate::bed::mount::errno(open), libc::EROFS);
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path.join("1.0/data")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (65534, 65534));
    // ctl stays writable.
    std::fs::write(path.join("1.0/ctl"), "part a 0 8\n").unwrap();
    proc::sh(STEP, &format!("umount {at}"));
    assert_eq!(daemon.ended(3 * SECOND), 0);
}

fn clean_sigterm_under_load() {
    for round in 0..4 {
        let mut bed = two_targets(16 * MIB);
        let mount = bed.mount(&["-o", "stop=1"]);
        let data = mount.wait_for("1.0", 3 * SECOND).data();
        let path = mount.path().to_path_buf();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let data = data.clone();
                scope.spawn(move || {
                    let file = try_open(&data, 0).unwrap();
                    let (block, end) = (vec![n; 100_000], Instant::now() + SECOND + SECOND * round / 2);
                    let mut at = 0;
                    // An error is fine, a hang is not.
                    while Instant::now() < end && file.write_all_at(&block, at).is_ok() {
                        at = (at + 1_000_003) % (15 << 20);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(500 + 170 * u64::from(round)));
            mount.daemon.signal(if round % 2 == 0 { Signal::SIGTERM } else { Signal::SIGINT });
            // Busy: it serves on, and detaches after `stop` at the latest; then until the last close.
            assert_eq!(mount.daemon.ended(8 * SECOND), 0, "{}", mount.daemon.said());
        });
        assert!(!is_mounted(&path));
    }
}

fn clean_sigterm_waits_for_a_loop_device() {
    let mut bed = two_targets(32 * MIB);
    let mount = bed.mount(&["-o", "stop=2"]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    let at = bed.dir().join("fs");
    let dev = super::loops::fresh("ext4", &unit.data(), true, &at);
    mount.daemon.signal(Signal::SIGTERM);
    std::thread::sleep(SECOND);
    // Still there, and still serving.
    assert!(mount.daemon.alive());
    std::fs::write(at.join("file"), vec![7; MIB]).unwrap();
    proc::sh(STEP, "sync");
    std::thread::sleep(2 * SECOND);
    assert!(!mount.mounted(), "not detached after stop=2");
    assert!(mount.daemon.alive(), "gone while a loop device holds data");
    assert!(std::fs::read(at.join("file")).unwrap() == vec![7; MIB]);
    super::loops::unmount(&at);
    super::loops::fsck("ext4", &dev);
    super::loops::detach(&dev);
    assert_eq!(mount.daemon.ended(3 * SECOND), 0, "{}", mount.daemon.said());
}

fn wait_says_when_a_target_is_missing() {
    let bed = two_targets(MIB);
    let point = bed.dir().join("point");
    std::fs::create_dir(&point).unwrap();
    sweep::register(sweep::Mess::Mount(point.clone()));
    let at = point.to_str().unwrap();
    let start = bed.ini.run(STEP, &[AOEFS, "-i", "v0", "--wait", "1.0,3.3", "--wait-timeout", "1", at]);
    assert_eq!(start.code, Some(1), "{}{}", start.stdout, start.stderr);
    assert!(start.stderr.contains("3.3"), "{}", start.stderr);
    assert!(start.took >= SECOND && start.took < 4 * SECOND, "{:?}", start.took);
    assert!(!is_mounted(&point));
    until("no daemon is left", 3 * SECOND, || bed.ini.pids().is_empty());
}

/// One line that says what is wrong.
#[track_caller]
fn assert_one_line(stderr: &str) {
    assert_eq!(stderr.trim_end().lines().count(), 1, "not one line:\n{stderr}");
}
