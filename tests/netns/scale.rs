//! Many targets, and several wires: 4096 known targets cost little and slow nobody down, sixteen together are as fast
//! as one, and two wires to one target are faster than one.

use crate::bed::many::{Kind, Many, addr, mark};
use crate::bed::mount::Mount;
use crate::bed::{Bed, LATE, MIB, proc, until};
use crate::tools::fsx::Aligned;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

crate::tests![
    bound_z1_four_thousand_targets(180, beside),
    deadline_l7_a_tenth_of_255_targets_dies(120),
    noblock_z2_a_busy_target_among_four_thousand(180, night),
    speed_z3_from_one_to_sixteen_targets(120, night),
    speed_z4_two_wires_to_one_target(120, night),
];

const SECOND: Duration = Duration::from_secs(1);
/// As many targets as aoefs knows at once (docs/design.md#limits).
const TARGETS: usize = 4096;
/// What a machine may be slower on which others compile, and a build for tests.
const SLACK: u32 = 5;

/// Two loads take turns in windows as short as this: what else the machine does then falls on both alike.
const WINDOW: Duration = Duration::from_millis(100);
/// As fast as the other, but for what the machine's other work makes of it. The goal is 0.95; CATALOGUE.md has the
/// figures of a quiet machine.
const AS_FAST: f64 = 0.85;

/// Files and directories of the mount, by the kernel's count.
fn names(mount: &Mount) -> usize {
    std::fs::read_dir(mount.path()).map_or(0, Iterator::count)
}

/// Where everything that is no target is listed, too.
fn all_there(mount: &Mount, targets: usize) -> bool {
    names(mount) >= targets + 3
}

/// KiB of a line of /proc/PID/status.
fn status(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_whitespace().nth(1).unwrap_or_default().parse().unwrap()
}

/// Seconds of CPU that the process has used.
fn cpu(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    // utime and stime are the fields 14 and 15; a tick is 10 ms on every Linux.
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) as f64 / 100.0
}

/// How often each thread has gone to sleep and woken, by its name and id.
fn wakeups(pid: u32) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("status")).ok()?;
            let value = |key| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
            let times = value("voluntary_ctxt_switches:")?.parse().ok()?;
            Some((format!("{} {}", value("Name:")?, value("Pid:")?), times))
        })
        .collect()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn bound_z1_four_thousand_targets() {
    let mut bed = Bed::cable(&["ls"], 1500);
    let far = Many::start(&bed.tgt, "v1", TARGETS, Kind::default());
    let ns = bed.ini.clone();
    let mount = bed.mount_in(&ns, &["-i", "none"]);
    let pid = mount.daemon.pid();
    let empty = status(pid, "VmRSS");
    let start = Instant::now();
    mount.ctl("bind v0").unwrap();
    until("all targets are there", 2 * SECOND * SLACK, || {
        std::thread::sleep(Duration::from_millis(10));
        all_there(&mount, TARGETS)
    });
    let found = start.elapsed();
    assert!(found <= 2 * SECOND * SLACK);
    // Everything that discovery asks again and again is over.
    std::thread::sleep(4 * SECOND);
    assert_eq!(names(&mount), TARGETS + 3);
    let rss = status(pid, "VmRSS");
    let each = (rss - empty) as f64 / TARGETS as f64;

    let (before, used, start) = (wakeups(pid), cpu(pid), Instant::now());
    std::thread::sleep(10 * SECOND);
    let took = start.elapsed().as_secs_f64();
    let busy = (cpu(pid) - used) / took * 100.0;
    let woken = wakeups(pid).into_iter().map(|(name, times)| {
        let rate = (times - before.get(&name).copied().unwrap_or(0)) as f64 / took;
        (rate, name)
    });
    let (most, who) = woken.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();

    let path = mount.path().to_str().unwrap();
    let timed = |argv: &[&str]| {
        let times = (0..5).map(|_| {
            let start = Instant::now();
            let said = proc::ok(10 * SECOND, argv);
            assert!(said.lines().count() >= TARGETS + 3);
            start.elapsed().as_secs_f64() * 1e3
        });
        median(times.collect())
    };
    let (ls, long) = (timed(&["ls", path]), timed(&["ls", "-l", path]));
    let top = {
        let start = Instant::now();
        assert!(mount.read("ctl").lines().count() > TARGETS);
        start.elapsed().as_secs_f64() * 1e3
    };
    print!(
        "[found in {found:.2?}; RSS {:.1} MiB, {each:.1} KiB a target; idle CPU {busy:.2} %, {most:.1} wake-ups a second \
         ({who}); ls {ls:.0} ms, ls -l {long:.0} ms, cat ctl {top:.1} ms] ",
        rss as f64 / 1024.0
    );
    assert!(rss <= (32 << 10) + 16 * TARGETS as u64, "RSS {rss} KiB");
    assert!(busy <= 1.0, "{busy:.2} % of a CPU while idle");
    assert!(most <= 2.0, "{who} wakes {most:.1} times a second");
    assert!(ls <= 100.0 * f64::from(SLACK), "ls takes {ls:.0} ms");
    // A target in the middle works.
    let unit = mount.unit(&addr(TARGETS / 2).to_string());
    let mut block = Aligned::new(4096);
    let file = unit.open_with("data", libc::O_DIRECT);
    file.read_exact_at(block.bytes(), 8192).unwrap();
    assert_eq!(block.bytes()[..12], mark(addr(TARGETS / 2), 16));
    drop(file);
    drop(far);
    // Not Mount::stop: that reads the ctl of each.
    end(mount);
}

/// SIGTERM, exit code 0 and no mount.
#[track_caller]
fn end(mount: Mount) {
    mount.daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(mount.daemon.ended(10 * SECOND), 0, "{}", mount.daemon.said());
    assert!(!mount.mounted());
}

/// Reads of 1 MiB, past the cache, by one thread a path, for so long: MB/s in all.
fn stream(paths: &[std::path::PathBuf], sectors: u64, window: Duration) -> f64 {
    let (stop, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (n, path) in paths.iter().enumerate() {
            let (stop, bytes) = (&stop, &bytes);
            scope.spawn(move || {
                let file = crate::bed::mount::try_open(path, libc::O_DIRECT).unwrap();
                let mut block = Aligned::new(MIB);
                let mut at = n as u64 * 7;
                while !stop.load(Relaxed) {
                    file.read_exact_at(block.bytes(), at % (sectors / 2048) * MIB as u64).unwrap();
                    bytes.fetch_add(MIB as u64, Relaxed);
                    at += 1;
                }
            });
        }
        std::thread::sleep(window);
        stop.store(true, Relaxed);
    });
    bytes.load(Relaxed) as f64 / start.elapsed().as_secs_f64() / 1e6
}

/// Medians of two loads that take turns, so that both see the same machine, and the median of their ratios.
fn compare(
    rounds: usize,
    mut first: impl FnMut() -> f64,
    mut second: impl FnMut() -> f64,
) -> (f64, f64, f64) {
    let (mut a, mut b, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let (x, y) = if round % 2 == 0 {
            let x = first();
            (x, second())
        } else {
            let y = second();
            (first(), y)
        };
        // The first round opens windows.
        if round > 0 {
            a.push(x);
            b.push(y);
            ratios.push(y / x);
        }
    }
    (median(a), median(b), median(ratios))
}

fn data(mount: &Mount, n: usize) -> std::path::PathBuf {
    mount.unit(&addr(n).to_string()).data()
}

fn deadline_l7_a_tenth_of_255_targets_dies() {
    const TARGETS: usize = 255;
    const DEADLINE: Duration = Duration::from_secs(3);
    let mut bed = Bed::cable(&[], 9000);
    let far = Many::start(&bed.tgt, "v1", TARGETS, Kind::default());
    let mount = bed.mount(&["-o", "deadline=3"]);
    until("all are there", 5 * SECOND, || all_there(&mount, TARGETS));
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let cut = AtomicU64::new(u64::MAX);
    // A reader each: when its last read ended and how, and the longest that one took.
    type Seen = (usize, Duration, Duration, std::io::Result<()>);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let reader = |n: usize| {
            let (mount, stop) = (&mount, &stop);
            move || {
                let file = crate::bed::mount::try_open(&data(mount, n), libc::O_DIRECT).unwrap();
                let (mut block, mut longest, mut at) = (Aligned::new(64 << 10), Duration::ZERO, 0);
                loop {
                    let start = Instant::now();
                    let read = file.read_exact_at(block.bytes(), at);
                    longest = longest.max(start.elapsed());
                    if read.is_err() || stop.load(Relaxed) {
                        return (n, longest, began.elapsed(), read);
                    }
                    assert_eq!(block.bytes()[..12], mark(addr(n), at / 512));
                    at = (at + (64 << 10)) % (256 << 20);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        };
        let threads: Vec<_> = (0..TARGETS).map(|n| scope.spawn(reader(n))).collect();
        std::thread::sleep(SECOND);
        cut.store(began.elapsed().as_millis() as u64, Relaxed);
        far.kill_every(10);
        std::thread::sleep(DEADLINE + SECOND);
        // Names and states answer meanwhile, those of the dead included.
        let start = Instant::now();
        assert_eq!(mount.unit(&addr(10).to_string()).state(), "down");
        assert_eq!(mount.unit(&addr(11).to_string()).state(), "up");
        assert!(start.elapsed() < Duration::from_millis(20) * SLACK, "{:?}", start.elapsed());
        stop.store(true, Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let cut = Duration::from_millis(cut.load(Relaxed));
    let (mut living, mut ended) = (Duration::ZERO, Duration::ZERO);
    for (n, longest, end, read) in seen {
        if n % 10 == 0 {
            assert_eq!(crate::bed::mount::errno(read), libc::EIO, "target {n} is dead");
            assert!(longest >= DEADLINE, "target {n}: an error after {longest:?}");
            ended = ended.max(end - cut);
        } else {
            read.unwrap_or_else(|error| panic!("target {n} lives: {error}"));
            living = living.max(longest);
        }
    }
    print!("[the dead fail within {ended:.2?}, no read of the others takes longer than {living:.1?}] ");
    assert!(ended < DEADLINE + LATE, "{ended:?}");
    assert!(living < SECOND, "{living:?}");
    // And they come back.
    far.kill_every(0);
    mount.ctl("discover").unwrap();
    mount.wait_for(&addr(250).to_string(), 2 * SECOND);
    until("all are up", 3 * SECOND, || {
        (0..TARGETS).step_by(10).all(|n| mount.unit(&addr(n).to_string()).state() == "up")
    });
    drop(far);
    mount.stop();
}

fn noblock_z2_a_busy_target_among_four_thousand() {
    let mut bed = Bed::cable(&[], 9000);
    bed.ini.veth("w0", &bed.tgt, "w1", 9000);
    let kind = Kind::default();
    let one = Many::start(&bed.tgt, "v1", 1, kind.clone());
    let all = Many::start(&bed.tgt, "w1", TARGETS, kind.clone());
    let alone = bed.mount(&[]);
    let ns = bed.ini.clone();
    let among = bed.mount_in(&ns, &["-i", "w0"]);
    until("both have theirs", 20 * SECOND, || {
        std::thread::sleep(Duration::from_millis(50));
        all_there(&alone, 1) && all_there(&among, TARGETS)
    });
    std::thread::sleep(3 * SECOND);
    let load = |mount: &Mount, n: usize| {
        let paths = vec![data(mount, n); 4];
        move || stream(&paths, kind.sectors, WINDOW)
    };
    let (x, y, ratio) = compare(75, load(&alone, 0), load(&among, 0));
    print!("[alone {x:.0} MB/s, among {TARGETS} {y:.0} MB/s, ratio {ratio:.2}] ");
    assert!(ratio >= AS_FAST, "{ratio:.2} of the speed alone");
    drop((one, all));
    end(alone);
    end(among);
}

fn speed_z3_from_one_to_sixteen_targets() {
    let mut bed = Bed::cable(&[], 9000);
    let kind = Kind::default();
    let far = Many::start(&bed.tgt, "v1", 16, kind.clone());
    let mount = bed.mount(&[]);
    until("all are there", 5 * SECOND, || all_there(&mount, 16));
    // Sixteen readers in all: of one target, of four, of sixteen.
    let load = |targets: usize| {
        let paths: Vec<_> = (0..16).map(|n| data(&mount, n % targets)).collect();
        move || stream(&paths, kind.sectors, WINDOW)
    };
    let (one, sixteen, ratio) = compare(60, load(1), load(16));
    let (_, four, ratio4) = compare(40, load(1), load(4));
    print!("[1 target {one:.0} MB/s, 4 {four:.0} ({ratio4:.2}), 16 {sixteen:.0} ({ratio:.2})] ");
    assert!(ratio >= AS_FAST && ratio4 >= AS_FAST, "{ratio4:.2}, {ratio:.2}");
    drop(far);
    mount.stop();
}

fn speed_z4_two_wires_to_one_target() {
    let mut bed = Bed::cable(&[], 9000);
    bed.ini.veth("w0", &bed.tgt, "w1", 9000);
    // 8 KiB in 200 µs: a wire of 40 MB/s, so that no CPU is what limits it.
    let kind = Kind { pace: Duration::from_micros(200), ..Kind::default() };
    let far = [Many::start(&bed.tgt, "v1", 1, kind.clone()), Many::start(&bed.tgt, "w1", 1, kind.clone())];
    let mount = bed.mount(&[]);
    let unit = mount.wait_for(&addr(0).to_string(), 5 * SECOND);
    let links = |n: usize| {
        mount.ctl(if n == 2 { "bind w0" } else { "unbind w0" }).unwrap();
        until("the wires are as they shall be", 5 * SECOND, || {
            std::fs::read_dir(unit.file("devlink")).unwrap().count() == n
        });
        std::thread::sleep(SECOND / 5);
    };
    let paths = vec![unit.data(); 4];
    let load = |n: usize| {
        let (links, paths) = (&links, &paths);
        move || {
            if n == 2 {
                links(2);
            }
            let speed = stream(paths, 1 << 21, SECOND);
            if n == 2 {
                links(1);
            }
            speed
        }
    };
    let (one, two, ratio) = compare(5, load(1), load(2));
    let counts = far.each_ref().map(Many::requests);
    print!("[one wire {one:.1} MB/s, two {two:.1} MB/s, ratio {ratio:.2}, frames {counts:?}] ");
    assert!(ratio >= 1.6, "two wires are {ratio:.2} times as fast as one");
    drop(far);
    mount.stop();
}
