//! `aoefs-target` when what is around it fails: its storage, its log, its own code. And aoefs in the foreground, where
//! the question is the same.

use crate::bed::mount::{AOEFS, Mount, is_mounted};
use crate::bed::sweep::{self, Mess};
use crate::bed::{Bed, Daemon, MIB, proc, skip, until};
use crate::target::{Host, PROGRAM, argument, cable, query, target};
use aoefs::wire::{Addr, Ata, Command, Header, SECTOR, Sector, Verb};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

crate::tests![
    sync_a_flush_that_failed_once_fails_for_ever,
    identity_a_serial_number_names_the_disk_and_nothing_else,
    integrity_an_image_cut_short_stays_an_error,
    once_an_interface_named_twice_is_served_once,
    bound_a_flood_of_errors_is_a_few_lines,
    noblock_a_log_that_nobody_reads_stops_no_target,
    noblock_a_log_that_nobody_reads_stops_no_file_system,
    noblock_storage_that_hangs_keeps_no_signal,
    noblock_a_configuration_that_hangs_keeps_no_signal,
    alive_a_panic_ends_the_process_and_says_where,
];

const SOON: Duration = Duration::from_secs(10);
/// What a log that is stuck may cost an end, twice over (the last words, and what was logged before), and slack.
const END: Duration = Duration::from_secs(10);
/// The exit codes of the manual: data may be lost; a bug.
const LOST: i32 = 74;
const BUG: i32 = 70;

/// A file system in memory with this room, gone with the test.
fn small_disk(bed: &Bed, name: &str, bytes: usize) -> PathBuf {
    let dir = bed.dir().join(name);
    std::fs::create_dir(&dir).unwrap();
    sweep::register(Mess::Mount(dir.clone()));
    proc::sh(SOON, &format!("mount -t tmpfs -o size={bytes} none {}", dir.display()));
    dir
}

fn sparse(path: &Path, bytes: usize) {
    File::create(path).unwrap().set_len(bytes as u64).unwrap();
}

/// A loop device over a file: any, or this one.
fn attach(dev: &str, file: &Path) -> String {
    let out = proc::run(SOON, &["losetup", "--show", dev, file.to_str().unwrap()]);
    if !out.ok() {
        skip(&format!("no loop device: {}", out.stderr.trim()));
    }
    let dev = out.stdout.trim().to_string();
    sweep::register(Mess::Loop(dev.clone()));
    dev
}

fn detach(dev: &str) {
    proc::sh(SOON, &format!("losetup -d {dev}"));
    sweep::forget(Path::new(dev));
    // The kernel lets go of it a moment after the last close.
    until("the loop device is free", SOON, || {
        !Path::new(&format!("/sys/block/{}/loop", dev.trim_start_matches("/dev/"))).exists()
    });
}

/// Linux tells a write-back error once, drops the data, and calls the next fdatasync a success.
fn sync_a_flush_that_failed_once_fails_for_ever() {
    let mut bed = cable(9000);
    let path = small_disk(&bed, "full", MIB).join("disk");
    sparse(&path, 8 * MIB);
    let dev = attach("--find", &path);
    let mut host = Host::new(&bed.ini, "v0");
    let daemon = target(&mut bed, &[], "v1", Path::new(&dev));
    assert!(!host.ata(Ata::flush(true), &[]).0.failed());
    for at in (0..4 * MIB / SECTOR).step_by(16) {
        let (done, _) = host.ata(Ata::write(Sector(at as u64), 16, true), &[0x5a; 16 * SECTOR]);
        assert!(!done.failed(), "sector {at}: the page cache takes it");
    }
    for round in 0..3 {
        let (done, _) = host.ata(Ata::flush(true), &[]);
        assert_eq!((done.command, done.feature), (0x61, 0x40), "flush {round}");
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(END), LOST, "{}", daemon.said());
    let said = daemon.said();
    assert_eq!(said.matches("from here on every flush fails").count(), 1, "{said}");
    assert!(said.contains("a flush failed before; what was written may be lost"), "{said}");
}

/// The fourth word of READY.
#[track_caller]
fn serial_of(bed: &mut Bed, file: &Path) -> String {
    let daemon = target(bed, &[], "v1", file);
    let said = daemon.said();
    let serial = said.split_whitespace().skip_while(|word| *word != "READY").nth(4).map(str::to_owned);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(END), 0, "{}", daemon.said());
    serial.unwrap_or_else(|| panic!("no serial number: {said}"))
}

fn identity_a_serial_number_names_the_disk_and_nothing_else() {
    let mut bed = cable(1500);
    let [a, b] = ["a", "b"].map(|name| bed.image(name, MIB));
    let dev = attach("--find", &a);
    let first = serial_of(&mut bed, Path::new(&dev));
    detach(&dev);
    // Another disk behind the same node.
    let dev = attach(&dev, &b);
    assert_ne!(serial_of(&mut bed, Path::new(&dev)), first);
    // The same disk behind another.
    let other = attach("--find", &a);
    assert_ne!(other, dev);
    assert_eq!(serial_of(&mut bed, Path::new(&other)), first);
    detach(&other);

    // A file whose file system is on another device after a reboot.
    for mkfs in ["mkfs.ext4 -q", "mkfs.xfs -q"] {
        if !proc::have(mkfs.split(' ').next().unwrap()) {
            continue;
        }
        let image = bed.dir().join("fs");
        sparse(&image, 320 * MIB);
        proc::sh(SOON, &format!("{mkfs} {}", image.display()));
        let mut seen = Vec::new();
        let mut holders = Vec::new();
        for round in 0..2 {
            let dev = attach("--find", &image);
            let point = bed.dir().join(format!("{}-{round}", &mkfs[5..8]));
            std::fs::create_dir(&point).unwrap();
            sweep::register(Mess::Mount(point.clone()));
            if !proc::run(SOON, &["mount", &dev, point.to_str().unwrap()]).ok() {
                break;
            }
            let file = point.join("disk");
            if round == 0 {
                sparse(&file, MIB);
            }
            let device = std::fs::metadata(&file).unwrap().dev();
            seen.push((device, serial_of(&mut bed, &file)));
            proc::sh(SOON, &format!("umount {}", point.display()));
            sweep::forget(&point);
            detach(&dev);
            // Takes the number away, so that the next round gets another one.
            holders.push(attach(&dev, &b));
        }
        if let [first, second] = seen.as_slice() {
            assert_ne!(first.0, second.0, "{mkfs}: the device below should be another one");
            assert_eq!(first.1, second.1, "{mkfs}");
        }
        holders.iter().for_each(|dev| detach(dev));
        std::fs::remove_file(&image).unwrap();
    }
}

fn integrity_an_image_cut_short_stays_an_error() {
    let mut bed = cable(1500);
    let mut host = Host::new(&bed.ini, "v0");
    let path = bed.image_of("disk", MIB, 0x77);
    let daemon = target(&mut bed, &[], "v1", &path);
    let resize =
        |bytes: usize| File::options().write(true).open(&path).unwrap().set_len(bytes as u64).unwrap();
    resize(MIB / 2);
    // The second time the file is as large as it was again, with zeros where data was.
    for size in [MIB / 2, MIB] {
        resize(size);
        for ata in [Ata::read(Sector(1500), 2, true), Ata::write(Sector(1500), 2, true)] {
            let (done, _) = host.ata(ata, &[1; 2 * SECTOR]);
            assert_eq!((done.command & 1, done.feature), (1, 0x10), "{ata:?}");
        }
        assert!(host.ata(Ata::flush(true), &[]).0.failed());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size as u64, "a write made it larger");
        let (done, data) = host.ata(Ata::read(Sector(1000), 2, true), &[]);
        assert!(!done.failed() && data[..2 * SECTOR] == [0x77; 2 * SECTOR], "what is there is served");
    }
    daemon.signal(Signal::SIGHUP);
    until("it says why not", SOON, || daemon.said().contains("start again to export it"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(END), LOST, "{}", daemon.said());
    let said = daemon.said();
    assert_eq!(said.matches("image: cut short").count(), 1, "{said}");
}

fn once_an_interface_named_twice_is_served_once() {
    let mut bed = cable(1500);
    let path = bed.image("disk", MIB);
    let mut names = String::from("v1,v1");
    if bed.tgt.run(SOON, &["ip", "link", "property", "add", "dev", "v1", "altname", "another"]).ok() {
        names += ",another";
    }
    let mut host = Host::new(&bed.ini, "v0");
    let daemon = target(&mut bed, &[], &names, &path);
    host.ask(Command::Config, &query(Verb::Read, b""));
    host.port.drain();
    let tag = host.send(Addr::new(3, 7), Command::Config, &query(Verb::Read, b""));
    let mut answers = 0;
    let answer = |frame: &[u8]| Header::parse(frame).ok().filter(|(head, _)| head.tag == tag).map(drop);
    while host.port.recv_until(Duration::from_millis(500), answer).is_some() {
        answers += 1;
    }
    assert_eq!(answers, 1, "{names}: {}", daemon.said());
    until("it says so", SOON, || daemon.said().contains("named twice, served once"));
}

/// Sends writes that the storage refuses, and counts the answers.
fn refused_writes(host: &mut Host, count: usize) -> usize {
    let body = argument(Ata::write(Sector(4000), 1, true), &[3; SECTOR]);
    let mut answered = 0;
    for _ in 0..count / 50 {
        for _ in 0..50 {
            host.send(Addr::new(3, 7), Command::Ata, &body);
        }
        let answer = |frame: &[u8]| Header::parse(frame).ok().filter(|(head, _)| head.response).map(drop);
        answered += (0..50).take_while(|_| host.port.recv_until(SOON, answer).is_some()).count();
    }
    answered
}

/// A disk of 4 MiB on a file system that has no room for it.
fn disk_without_room(bed: &Bed) -> PathBuf {
    let dir = small_disk(bed, "full", 64 << 10);
    let path = dir.join("disk");
    sparse(&path, 4 * MIB);
    let _ = std::fs::write(dir.join("filler"), vec![1; 64 << 10]);
    path
}

fn bound_a_flood_of_errors_is_a_few_lines() {
    let mut bed = cable(1500);
    let path = disk_without_room(&bed);
    let mut host = Host::new(&bed.ini, "v0");
    let daemon = target(&mut bed, &[], "v1", &path);
    host.ask(Command::Config, &query(Verb::Read, b""));
    host.port.drain();
    let (start, count) = (Instant::now(), 20_000);
    assert_eq!(refused_writes(&mut host, count), count);
    let said = |daemon: &Daemon| daemon.said();
    let lines = said(&daemon).lines().count();
    let most = 64 + 5 * (1 + start.elapsed().as_secs() as usize) + 10;
    assert!((60..=most).contains(&lines), "{lines} lines, at most {most}");
    let counted = || -> usize {
        let said = said(&daemon);
        let count = |line: &str| {
            line.split(" more lines left out").next()?.split(' ').next_back()?.parse::<usize>().ok()
        };
        said.lines().filter(|line| line.contains("left out, such as: image: write")).filter_map(count).sum()
    };
    let direct = || said(&daemon).lines().filter(|line| line.contains("] image: write at byte")).count();
    until("every line is there or counted", SOON, || counted() + direct() == count);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(END), 0, "{}", daemon.said());
}

/// A FIFO that is full and that nobody reads, as the standard error of `words`.
fn with_stuck_stderr(bed: &mut Bed, env: &str, words: &[&str]) -> (Arc<Daemon>, File) {
    let path = bed.dir().join("stderr");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut fifo = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    while fifo.write(&[b'x'; 4096]).is_ok() {}
    let line = format!("{env} exec \"$@\" 2>{}", path.display());
    let argv: Vec<&str> = ["bash", "-c", &line, "bash"].into_iter().chain(words.iter().copied()).collect();
    let ns = if words[0] == AOEFS { bed.ini.clone() } else { bed.tgt.clone() };
    (bed.spawn(&ns, &argv), fifo)
}

fn noblock_a_log_that_nobody_reads_stops_no_target() {
    let mut bed = cable(1500);
    let path = disk_without_room(&bed);
    let mut host = Host::new(&bed.ini, "v0");
    let words = [PROGRAM, "-v", "3.7", "v1", path.to_str().unwrap()];
    let (daemon, _fifo) = with_stuck_stderr(&mut bed, "", &words);
    until("READY", SOON, || daemon.said().contains("READY 3.7 "));
    host.ask(Command::Config, &query(Verb::Read, b""));
    host.port.drain();
    assert_eq!(refused_writes(&mut host, 500), 500);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(END), 0);
}

fn noblock_a_log_that_nobody_reads_stops_no_file_system() {
    let mut bed = Bed::with_fuse(&[]);
    let point = bed.dir().join("m");
    std::fs::create_dir(&point).unwrap();
    sweep::register(Mess::Mount(point.clone()));
    // With -vv every request is a line.
    let words = [AOEFS, "-f", "-vv", "--demo", point.to_str().unwrap()];
    let (daemon, _fifo) = with_stuck_stderr(&mut bed, "", &words);
    let data = point.join("1.0/data");
    until("the mount answers", SOON, || is_mounted(&point) && data.exists());
    let start = Instant::now();
    for _ in 0..2000 {
        std::fs::metadata(&data).unwrap();
    }
    let mut block = vec![0; MIB];
    std::io::Read::read_exact(&mut File::open(&data).unwrap(), &mut block).unwrap();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    until("READY, though nobody reads the log", SOON, || daemon.said().contains("bound demo"));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(END), 0);
    assert!(!is_mounted(&point));
}

/// The image of a target is a file of an aoefs that is stopped: reads of it wait for ever.
fn noblock_storage_that_hangs_keeps_no_signal() {
    let mut bed = cable(1500);
    if !Path::new("/dev/fuse").exists() {
        skip("there is no /dev/fuse");
    }
    let ns = bed.ini.clone();
    let below: Mount = bed.mount_in(&ns, &["--demo", "-o", "allow_other"]);
    let file = below.path().join("1.0/data");
    until("the disk below", SOON, || file.exists());
    let mut host = Host::new(&bed.ini, "v0");
    let daemon = target(&mut bed, &[], "v1", &file);
    host.ask(Command::Config, &query(Verb::Read, b""));
    below.daemon.signal(Signal::SIGSTOP);
    until("every thread of it has stopped", SOON, || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", below.daemon.pid())).unwrap();
        tasks.flatten().all(|task| {
            std::fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| stat.contains(") T "))
        })
    });
    let read = argument(Ata::read(Sector(5000), 1, true), &[]);
    let answer = host.try_ask(Addr::new(3, 7), Command::Ata, &read, Duration::from_millis(500));
    assert!(answer.is_none(), "the disk should hang");
    for _ in 0..2 {
        daemon.signal(Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(50));
    }
    until("the second SIGHUP is answered", SOON, || daemon.said().contains("still looking at the size"));
    daemon.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(200));
    assert!(daemon.alive(), "it waits for the flush");
    daemon.signal(Signal::SIGTERM);
    until("it ends", SOON, || daemon.said().contains("ended by a second signal before the flush had"));
    // Closing the file asks the file system below once more, which no signal spares a process.
    below.daemon.signal(Signal::SIGCONT);
    assert_eq!(daemon.ended(END), LOST, "{}", daemon.said());
}

fn noblock_a_configuration_that_hangs_keeps_no_signal() {
    let mut bed = Bed::with_fuse(&[]);
    let config = bed.dir().join("aoefs.conf");
    std::fs::write(&config, "").unwrap();
    let ns = bed.ini.clone();
    let mount = bed.mount_in(&ns, &["--demo", "-c", config.to_str().unwrap()]);
    std::fs::remove_file(&config).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let says = |words: &str| mount.read("log").matches(words).count();
    for wishes in 1..=2 {
        mount.daemon.signal(Signal::SIGHUP);
        if wishes == 2 {
            until("the second one is answered", SOON, || says("still being read") == 1);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // Somebody writes it at last: it is read, and once more.
    for times in 1..=2 {
        std::fs::write(&config, "1.0 frobnicate\n").unwrap();
        until("it was read", SOON, || says("configuration read again") == times);
    }
    assert_eq!(says("aoefs.conf:1: frobnicate"), 2, "{}", mount.read("log"));
    mount.daemon.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(100));
    mount.daemon.signal(Signal::SIGTERM);
    assert_eq!(mount.daemon.ended(END), 0, "{}", mount.daemon.said());
    assert!(!mount.mounted());
}

fn alive_a_panic_ends_the_process_and_says_where() {
    if !cfg!(debug_assertions) {
        skip("a release build has no place for a bug");
    }
    let mut bed = cable(1500);
    let path = bed.image("disk", MIB);
    let image = path.to_str().unwrap();
    let mut host = Host::new(&bed.ini, "v0");
    let ask = |host: &mut Host| host.send(Addr::new(3, 7), Command::Config, &query(Verb::Read, b""));
    let run = |bed: &mut Bed, place: &str| {
        let line = format!("AOEFS_PANIC={place} exec {PROGRAM} 3.7 v1 {image}");
        let ns = bed.tgt.clone();
        bed.spawn(&ns, &["bash", "-c", &line])
    };
    let daemon = run(&mut bed, "serve");
    until("it is gone", SOON, || {
        ask(&mut host);
        !daemon.alive()
    });
    assert_eq!(daemon.ended(END), BUG);
    let said = daemon.said();
    assert!(said.contains("aoefs-target: bug: thread target v1 panicked at src/"), "{said}");
    let daemon = run(&mut bed, "size");
    until("READY", SOON, || daemon.said().contains("READY 3.7 "));
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.ended(END), BUG, "{}", daemon.said());
    assert!(daemon.said().contains("thread size panicked"), "{}", daemon.said());
    // News of the interface may come before it is ready.
    let daemon = run(&mut bed, "links");
    let mut mtu = 1400;
    until("it is gone", SOON, || {
        mtu = if mtu == 1400 { 1500 } else { 1400 };
        bed.tgt.ip(&format!("link set v1 mtu {mtu}"));
        !daemon.alive()
    });
    assert_eq!(daemon.ended(END), BUG, "{}", daemon.said());
    assert!(daemon.said().contains("thread links panicked"), "{}", daemon.said());
    // A thread that waits for the log is not waited for.
    let words = [PROGRAM, "3.7", "v1", image];
    let (daemon, _fifo) = with_stuck_stderr(&mut bed, "AOEFS_PANIC=serve", &words);
    until("READY", SOON, || daemon.said().contains("READY 3.7 "));
    until("it is gone", END, || {
        ask(&mut host);
        !daemon.alive()
    });
    assert_eq!(daemon.ended(END), BUG);
}
