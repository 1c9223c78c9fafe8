//! Targets come and go: what is in flight waits, resumes at once when they return, and fails in time when they do not.

use crate::bed::fio::Fio;
use crate::bed::mount::{errno, try_open};
use crate::bed::raw::Port;
use crate::bed::record::Recorder;
use crate::bed::stage::One;
use crate::bed::{LATE, MIB, proc, until};
use nix::sys::signal::Signal;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

crate::tests![
    return_vblade_killed_for_five_seconds_amid_fio(180, beside),
    deadline_reader_of_a_dead_target_gets_an_error(beside),
    deadline_queued_requests_fail_with_the_outstanding_ones(90, beside),
    deadline_failio_frees_everybody,
    noblock_names_and_ctl_answer_while_a_target_is_dead,
    return_handles_work_on_after_the_target_was_down,
    alive_killed_readers_of_a_dead_target_end,
];

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(30);

fn one(len: usize) -> One {
    One::new(&["fio"], len)
}

fn return_vblade_killed_for_five_seconds_amid_fio() {
    let mut one = one(128 * MIB);
    let port = Port::open(&one.bed.ini, "v0");
    let recorder = Recorder::start(port);
    // Slowed down, so that writing goes on for longer than the target is away.
    let fio = Fio::verify(&one.unit.data(), 4, 32).with("--rate=,4m").within(150 * SECOND);
    let (moved, returned) = std::thread::scope(|scope| {
        let run = scope.spawn(move || fio.run());
        std::thread::sleep(3 * SECOND);
        one.vblade.kill9();
        std::thread::sleep(5 * SECOND);
        assert!(!run.is_finished(), "fio ended while its target was away");
        let returned = Instant::now();
        one.revive();
        (run.join().unwrap(), returned)
    });
    let frames = recorder.stop();
    let after = frames.iter().filter(|frame| frame.at >= returned);
    let announced = after.clone().find(|frame| frame.is_announcement()).expect("an announcement").at;
    let resumed = after.clone().find(|frame| frame.is_write_reply()).expect("an answer to a write").at;
    print!(
        "[{:.0} MiB verified; resumed {:.0?} after the announcement] ",
        moved.written_mib,
        resumed - announced
    );
    assert!(resumed - announced <= SECOND, "{:?}", resumed - announced);
    assert!(moved.written_mib >= 127.0);
    one.done();
}

fn deadline_reader_of_a_dead_target_gets_an_error() {
    let mut one = one(8 * MIB);
    one.unit.ctl_ok("deadline 2");
    let mut reader = one.unit.open_with("data", libc::O_DIRECT);
    let mut block = crate::tools::fsx::Aligned::new(MIB);
    reader.read_exact(block.bytes()).unwrap();
    one.vblade.kill9();
    let start = Instant::now();
    assert_eq!(errno(reader.read_exact(block.bytes())), libc::EIO);
    let took = start.elapsed();
    print!("[{took:.2?} for a deadline of 2 s] ");
    assert!(took >= 2 * SECOND && took <= 2 * SECOND + LATE, "{took:?}");
    until("the target is down", SECOND, || one.unit.state() == "down");
    // The size stays: a reader must see an error, never a silent end of file.
    assert_eq!(one.unit.size("data"), 8 * MIB as u64);
    assert_eq!(errno(reader.read_exact(block.bytes())), libc::EIO);
    let cat = proc::run(STEP, &["cat", one.unit.data().to_str().unwrap()]);
    assert!(!cat.ok(), "cat of a dead target succeeded");
    assert_eq!(errno(try_open(&one.unit.data(), 0)), libc::ENXIO);
    assert!(one.mount.read("log").contains("1.0"), "the log does not name it");
    drop(reader);
    one.revive();
    // Nobody waits for it any more, and an IDENTIFY was sent in vain a moment ago.
    one.mount.wait_for("1.0", 2 * SECOND);
    assert!(std::fs::read(one.unit.data()).unwrap() == std::fs::read(&one.image).unwrap());
    one.done();
}

fn deadline_queued_requests_fail_with_the_outstanding_ones() {
    let one = one(64 * MIB);
    one.unit.ctl_ok("deadline 3");
    one.vblade.kill9();
    // 48 MiB outstanding: far more than any window.
    let start = Instant::now();
    let took: Vec<Duration> = std::thread::scope(|scope| {
        let ask = |n: usize| {
            let file = one.unit.open_with("data", libc::O_DIRECT);
            scope.spawn(move || {
                let mut block = crate::tools::fsx::Aligned::new(MIB);
                let at = (n * MIB) as u64;
                let result = if n.is_multiple_of(2) {
                    file.read_at(block.bytes(), at)
                } else {
                    file.write_at(block.bytes(), at)
                };
                assert_eq!(errno(result), libc::EIO);
                start.elapsed()
            })
        };
        let threads: Vec<_> = (0..48).map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (first, last) = (took.iter().min().unwrap(), took.iter().max().unwrap());
    print!("[first {first:.2?}, last {last:.2?} for a deadline of 3 s] ");
    assert!(*first >= 3 * SECOND && *last <= 3 * SECOND + LATE, "{first:?} to {last:?}");
    one.done();
}

fn deadline_failio_frees_everybody() {
    let one = one(8 * MIB);
    one.unit.ctl_ok("nofail on");
    one.vblade.kill9();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let file = one.unit.open_with("data", libc::O_DIRECT);
        let reader = scope.spawn(move || {
            let mut block = crate::tools::fsx::Aligned::new(4096);
            errno(file.read_at(block.bytes(), 0))
        });
        std::thread::sleep(2 * SECOND);
        assert!(!reader.is_finished(), "nofail, but it failed");
        one.unit.ctl_ok("failio");
        assert_eq!(reader.join().unwrap(), libc::EIO);
    });
    assert!(start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
    until("the target is down", SECOND, || one.unit.state() == "down");
    one.done();
}

fn noblock_names_and_ctl_answer_while_a_target_is_dead() {
    let mut one = one(8 * MIB);
    let alive = one.bed.image("alive", MIB);
    one.bed.vblade("7.254", "v1", &alive);
    one.mount.wait_for("7.254", SECOND);
    one.unit.ctl_ok("deadline 5");
    one.vblade.kill9();
    let root = one.mount.path().to_path_buf();
    std::thread::scope(|scope| {
        for n in 0..64u64 {
            let file = one.unit.open_with("data", libc::O_DIRECT);
            scope.spawn(move || {
                let mut block = crate::tools::fsx::Aligned::new(4096);
                errno(file.read_at(block.bytes(), n * 4096))
            });
        }
        std::thread::sleep(SECOND / 2);
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            let start = Instant::now();
            for name in ["ctl", "log", "1.0/ctl", "1.0/data", "7.254/ctl", "7.254/data"] {
                std::fs::metadata(root.join(name)).unwrap();
            }
            std::fs::read_dir(root.join("1.0")).unwrap().for_each(drop);
            std::fs::read_to_string(root.join("1.0/ctl")).unwrap();
            std::fs::read_to_string(root.join("ctl")).unwrap();
            worst = worst.max(start.elapsed());
        }
        let list = proc::run(STEP, &["ls", "-lR", root.to_str().unwrap()]);
        assert!(list.ok(), "{}", list.stderr);
        let other = Instant::now();
        assert!(std::fs::read(root.join("7.254/data")).unwrap() == std::fs::read(&alive).unwrap());
        print!(
            "[worst round of 10 calls {worst:.1?}, ls -lR {:.1?}, 1 MiB of the other {:.1?}] ",
            list.took,
            other.elapsed()
        );
        assert!(worst < Duration::from_millis(100), "{worst:?}");
        assert!(list.took < Duration::from_millis(250), "{:?}", list.took);
    });
    one.done();
}

fn return_handles_work_on_after_the_target_was_down() {
    let mut one = one(8 * MIB);
    one.unit.ctl_ok("deadline 1");
    let file = one.unit.open("data");
    one.vblade.kill9();
    assert_eq!(errno(file.read_at(&mut [0; 512], 4 << 20)), libc::EIO);
    until("the target is down", SECOND, || one.unit.state() == "down");
    one.revive();
    one.mount.wait_for("1.0", SECOND);
    // The same disk: the handle from before goes on.
    let mut got = vec![0; 4096];
    file.read_exact_at(&mut got, 5 << 20).unwrap();
    assert!(got == std::fs::read(&one.image).unwrap()[5 << 20..(5 << 20) + 4096]);
    file.write_all_at(b"still here", 6 << 20).unwrap();
    file.sync_all().unwrap();
    assert_eq!(&std::fs::read(&one.image).unwrap()[6 << 20..(6 << 20) + 10], b"still here");
    drop(file);
    one.done();
}

fn alive_killed_readers_of_a_dead_target_end() {
    let mut one = one(8 * MIB);
    one.unit.ctl_ok("deadline 2");
    one.vblade.kill9();
    let here = one.bed.ini.clone();
    let data = one.unit.data().display().to_string();
    let reader =
        one.bed.spawn(&here, &["dd", &format!("if={data}"), "iflag=direct", "bs=4k", "of=/dev/null"]);
    std::thread::sleep(SECOND / 2);
    let start = Instant::now();
    reader.signal(Signal::SIGKILL);
    reader.ended(3 * SECOND);
    print!("[gone {:.1?} after kill -9] ", start.elapsed());
    one.done();
}
