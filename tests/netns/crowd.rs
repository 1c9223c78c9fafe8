//! Many targets, some of them dead: the living, the names and the ctl files notice nothing. Speeds are compared in
//! turns of one run.

use crate::bed::fake::{self, Act, Fake};
use crate::bed::mount::{Mount, Unit, errno};
use crate::bed::{Bed, LATE, MIB, proc, until};
use crate::tools::fsx::Aligned;
use crate::tools::meter::{Meter, kept, median};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

crate::tests![
    noblock_l7_a_tenth_of_255_targets_is_dead(180),
    deadline_dead_target_costs_the_others_nothing(180),
    noblock_requests_of_one_target_leave_room_for_the_others(120),
];

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(30);
/// What other targets must keep of their speed.
const KEPT: f64 = 0.9;
/// Turns of a comparison: at least, and at most while noise says no.
const TURNS: std::ops::RangeInclusive<usize> = 3..=9;

/// Reads of 4 KiB from one file after the other, 8 at a time, for so long: how many a second, and the longest.
fn round(files: &[File], window: Duration) -> (f64, Duration) {
    let (next, worst, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (mut seconds, start) = (0.0, Instant::now());
    let done: u64 = std::thread::scope(|scope| {
        let reader = || {
            let (mut block, mut done) = (Aligned::new(4096), 0);
            while !stop.load(Relaxed) {
                let n = next.fetch_add(1, Relaxed);
                let began = Instant::now();
                let at = n % 64 * 4096;
                files[n as usize % files.len()].read_exact_at(block.bytes(), at).expect("a living target");
                worst.fetch_max(began.elapsed().as_micros() as u64, Relaxed);
                done += 1;
            }
            done
        };
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(reader)).collect();
        std::thread::sleep(window);
        stop.store(true, Relaxed);
        seconds = start.elapsed().as_secs_f64();
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });
    (done as f64 / seconds, Duration::from_micros(worst.load(Relaxed)))
}

/// How long `ls -lR` of the whole mount, and the top ctl, take.
fn look(mount: &Mount) -> (Duration, Duration) {
    let list = proc::run(STEP, &["ls", "-lR", mount.path().to_str().unwrap()]);
    assert!(list.ok(), "{}", list.stderr);
    let start = Instant::now();
    mount.read("ctl");
    (list.took, start.elapsed())
}

fn noblock_l7_a_tenth_of_255_targets_is_dead() {
    let mut bed = Bed::cable(&[], 9000);
    let (dead, killed) = (Arc::new(AtomicBool::new(false)), |slot: usize| slot % 10 == 5);
    let configs = (0..255).map(|n| fake::config(&format!("7.{n}"), &format!("crowd-{n}"))).collect();
    let crowd = Fake::crowd(&bed.tgt, "v1", configs, &vec![3; MIB / 4]);
    let now = dead.clone();
    crowd.script(move |request| {
        let silent = now.load(Relaxed) && killed(request.to.slot.0.into());
        if silent { Act::Drop } else { Act::Reply }
    });
    let mount = bed.mount(&[]);
    let all = until("255 targets are up", 10 * SECOND, || {
        mount.read("ctl").lines().filter(|line| line.starts_with("7.") && line.ends_with(" up")).count()
            == 255
    });
    let direct = |n: usize| mount.unit(&format!("7.{n}")).open_with("data", libc::O_DIRECT);
    let (mut mute, mut files): (Vec<File>, Vec<File>) = (Vec::new(), Vec::new());
    (0..255).for_each(|n| if killed(n) { mute.push(direct(n)) } else { files.push(direct(n)) });
    let (mut before, mut during) = (Vec::new(), Vec::new());
    let (mut worst, mut list, mut list_then, mut ctl) = (Duration::ZERO, STEP, STEP, STEP);
    let mut share = 0.0;
    for turn in 1..=*TURNS.end() {
        crowd.forget_log();
        round(&files, SECOND / 5);
        before.push(round(&files, SECOND / 2).0);
        list = list.min(look(&mount).0);
        dead.store(true, Relaxed);
        std::thread::scope(|scope| {
            // Two wait for each of the dead, and get their answer when it lives again.
            for file in mute.iter().chain(&mute) {
                scope.spawn(|| file.read_exact_at(Aligned::new(4096).bytes(), 0).unwrap());
            }
            round(&files, SECOND / 5);
            let (rate, longest) = round(&files, SECOND / 2);
            during.push(rate);
            worst = worst.max(longest);
            let took = look(&mount);
            (list_then, ctl) = (list_then.min(took.0), ctl.min(took.1));
            dead.store(false, Relaxed);
        });
        share = kept(&before, &during);
        if turn >= *TURNS.start() && share >= KEPT {
            break;
        }
    }
    print!(
        "[255 up after {all:.1?}; {} dead: {:.0} of {:.0} reads/s = {:.0} %, slowest {worst:.1?}; ls -lR {list_then:.1?}, before {list:.1?}; ctl {ctl:.1?}] ",
        mute.len(),
        median(during),
        median(before),
        share * 100.0
    );
    assert!(share >= KEPT, "the living keep {share:.2}");
    assert!(worst < SECOND / 2, "a living target's read took {worst:?}");
    assert!(list_then < list * 2 + Duration::from_millis(250), "ls {list_then:?}, before {list:?}");
    assert!(ctl < Duration::from_millis(50), "{ctl:?}");
    // What they carried was right, and all of them are well.
    for name in ["7.0", "7.5", "7.254"] {
        assert!(std::fs::read(mount.wait_for(name, 5 * SECOND).data()).unwrap() == vec![3; MIB / 4]);
    }
    drop((mute, files));
    mount.stop();
    drop(crowd);
}

/// Half reads, half writes, more than a window of them, to a target that answers nothing: when each got its error.
fn failures(unit: &Unit) -> impl FnOnce() -> Vec<Duration> + use<> {
    let start = Instant::now();
    let one = |n: usize| {
        let file = unit.open_with("data", libc::O_DIRECT);
        std::thread::spawn(move || {
            let (mut block, at) = (Aligned::new(256 << 10), (n << 18) as u64);
            let result = match n % 2 {
                0 => file.read_at(block.bytes(), at),
                _ => file.write_at(block.bytes(), at),
            };
            assert_eq!(errno(result), libc::EIO);
            start.elapsed()
        })
    };
    let threads: Vec<_> = (0..32).map(one).collect();
    || threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn deadline_dead_target_costs_the_others_nothing() {
    let mut bed = Bed::cable(&["vblade"], 9000);
    let fake = Fake::start(&bed.tgt, "v1", fake::config("1.0", "mortal"), &vec![1; 8 * MIB]);
    let image = bed.image("other", 32 * MIB);
    bed.vblade("2.0", "v1", &image);
    let mount = bed.mount(&[]);
    let [mortal, other] = ["1.0", "2.0"].map(|unit| mount.wait_for(unit, 3 * SECOND));
    let deadline = 3 * SECOND;
    mortal.ctl_ok("deadline 3");
    let file = other.open_with("data", libc::O_DIRECT);
    let meter = Meter { file: &file, block: MIB, depth: 4, span: 32 * MIB as u64 };
    let (mut before, mut during, mut late, mut lists) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut share, mut first) = (0.0, STEP);
    for turn in 1..=*TURNS.end() {
        meter.run(SECOND / 5);
        before.push(meter.run(SECOND * 4 / 5).rate);
        fake.die();
        let failed = failures(&mortal);
        meter.run(SECOND / 5);
        during.push(meter.run(SECOND * 4 / 5).rate);
        (0..3).for_each(|_| lists.push(look(&mount).0));
        let took = failed();
        first = first.min(*took.iter().min().unwrap());
        late.push(took.iter().max().unwrap().saturating_sub(deadline));
        fake.revive(true);
        mount.wait_for("1.0", 3 * SECOND);
        share = kept(&before, &during);
        if turn >= *TURNS.start() && share >= KEPT {
            break;
        }
    }
    let ms = |list: &[Duration]| median(list.iter().map(|took| took.as_secs_f64() * 1e3).collect());
    print!(
        "[D = 3 s: 32 requests each after {first:.2?} to D + {:.0} ms; ls -lR {:.0} ms; the other {:.0} of {:.0} MB/s = {:.0} %] ",
        ms(&late),
        ms(&lists),
        median(during) / 1e6,
        median(before) / 1e6,
        share * 100.0
    );
    assert!(first >= deadline, "{first:?}");
    assert!(ms(&late) <= 250.0 && late.iter().all(|late| *late < LATE), "{late:?}");
    assert!(ms(&lists) <= 50.0, "{lists:?}");
    assert!(share >= KEPT, "the other target keeps {share:.2}");
    drop(file);
    mount.stop();
}

/// The kernel counts requests in the background for the whole mount: thousands of asynchronous reads of a target that
/// is dead must leave room for those of another.
fn noblock_requests_of_one_target_leave_room_for_the_others() {
    /// More than the mount had room for, whoever asked (512), and more than a daemon without CAP_SYS_ADMIN would get
    /// (7,866).
    const DEPTH: usize = 9000;
    let mut bed = Bed::cable(&["fio"], 9000);
    let silent = Arc::new(AtomicBool::new(false));
    let configs = ["7.1", "7.2"].map(|unit| fake::config(unit, unit)).to_vec();
    let targets = Fake::crowd(&bed.tgt, "v1", configs, &vec![3; 8 * MIB]);
    let now = silent.clone();
    targets.script(
        move |request| {
            if now.load(Relaxed) && request.to.slot.0 == 1 { Act::Drop } else { Act::Reply }
        },
    );
    let mount = bed.mount(&[]);
    let [dead, living] = ["7.1", "7.2"].map(|unit| mount.wait_for(unit, 10 * SECOND));
    dead.ctl_ok("deadline 100");
    let fio = |unit: &Unit, words: &[&str]| -> Vec<String> {
        let data = format!("--filename={}", unit.data().display());
        let own = ["fio", "--name=x", &data, "--direct=1", "--ioengine=libaio", "--rw=randread", "--bs=4k"];
        own.iter().chain(words).map(ToString::to_string).collect()
    };
    silent.store(true, Relaxed);
    let (depth, ns) = (format!("--iodepth={DEPTH}"), bed.ini.clone());
    let crowd = fio(&dead, &["--size=8m", "--time_based", "--runtime=60", &depth]);
    let crowd: Vec<&str> = crowd.iter().map(String::as_str).collect();
    let crowd = bed.spawn(&ns, &crowd);
    let waiting = || dead.line("requests").parse::<usize>().unwrap();
    until("all of them wait", STEP, || {
        assert!(crowd.alive(), "{}", crowd.said());
        waiting() >= DEPTH
    });
    let healthy = fio(&living, &["--iodepth=32", "--io_size=8m", "--size=8m"]);
    let start = Instant::now();
    let run = proc::run(STEP, &healthy);
    let took = start.elapsed();
    assert!(run.ok(), "{}", run.stderr);
    assert!(waiting() >= DEPTH, "they did not wait all the time");
    print!("[{DEPTH} reads wait for the dead one; 2048 reads of the other took {took:.1?}] ");
    assert!(took < 10 * SECOND, "{took:?}");
    dead.ctl_ok("failio");
    crowd.ended(STEP);
    mount.stop();
}
