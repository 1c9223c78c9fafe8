//! SIGTERM at random instants of a daemon's life. Whatever it does: exit code 0, nothing mounted, no process left, in
//! time.

use crate::bed::mount::{AOEFS, Mount, is_mounted, try_open};
use crate::bed::{Bed, Daemon, MIB, Rng, setting, sweep, until};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

crate::tests![clean_a3_forced_unmount_is_quiet, clean_a5_sigterm_at_random_instants(240)];

const SECOND: Duration = Duration::from_secs(1);
/// As long as it may keep trying to unmount (`-o stop=1`), and what a busy machine may add.
const STOP: Duration = SECOND;
const SLACK: Duration = Duration::from_millis(2500);
/// Instants of each kind: so many, or as many as `AOEFS_TEST_INSTANTS` says.
const EACH: u64 = 2;

/// What it does when it is told to end.
#[derive(Clone, Copy, Debug)]
enum During {
    Start,
    Discovery,
    Io,
    Partitions,
}

/// The kernel takes no reply to a request that it aborted, and that is no error.
#[track_caller]
fn is_quiet(daemon: &Daemon) {
    assert!(!daemon.said().contains("ailed to send"), "{}", daemon.said());
}

/// `umount -f` while reads and writes wait for a target that is silent: they fail at once, and the daemon ends.
fn clean_a3_forced_unmount_is_quiet() {
    let mut bed = Bed::cable(&["vblade"], 9000);
    let image = bed.image("1.0", 16 * MIB);
    let target = bed.vblade("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    unit.ctl_ok("nofail on");
    target.signal(Signal::SIGSTOP);
    std::thread::scope(|scope| {
        for n in 0..4u64 {
            let file = unit.open_with("data", libc::O_DIRECT);
            scope.spawn(move || {
                let mut block = crate::tools::fsx::Aligned::new(256 << 10);
                let done = match n % 2 {
                    0 => file.read_exact_at(block.bytes(), n << 20),
                    _ => file.write_all_at(block.bytes(), n << 20),
                };
                done.unwrap_err();
            });
        }
        // Each of them is one request at least.
        let waiting = || unit.line("requests").parse::<u32>().is_ok_and(|requests| requests >= 4);
        until("all of them wait", 3 * SECOND, waiting);
        // Busy while files are open; what is outstanding is aborted all the same.
        let _ = umount2(mount.path(), MntFlags::MNT_FORCE);
    });
    assert_eq!(mount.daemon.ended(5 * SECOND), 0, "{}", mount.daemon.said());
    is_quiet(&mount.daemon);
    until("nothing is mounted", 2 * SECOND, || !mount.mounted());
    sweep::forget(mount.path());
    target.signal(Signal::SIGCONT);
}

fn clean_a5_sigterm_at_random_instants() {
    let mut bed = Bed::cable(&["vblade"], 9000);
    for unit in ["1.0", "7.254"] {
        let image = bed.image(unit, 16 * MIB);
        bed.vblade(unit, "v1", &image);
    }
    let mut rng = Rng::new(1515);
    let each = setting("AOEFS_TEST_INSTANTS", EACH);
    for during in [During::Start, During::Discovery, During::Io, During::Partitions] {
        let mut slowest = Duration::ZERO;
        for _ in 0..each {
            let took = match during {
                During::Start => early(&mut bed, Duration::from_micros(rng.below(60_000))),
                During::Discovery => early(&mut bed, Duration::from_millis(60 + rng.below(540))),
                During::Io => busy(&mut bed, Duration::from_millis(rng.below(400)), write_and_read),
                During::Partitions => {
                    busy(&mut bed, Duration::from_millis(rng.below(400)), change_partitions)
                }
            };
            slowest = slowest.max(took);
            assert!(took < STOP + SLACK, "told to end during {during:?}: {took:?}");
            until("no process is left", 2 * SECOND, || bed.ini.pids().is_empty());
        }
        print!("[{each} × {during:?}: {slowest:.1?}] ");
    }
}

/// From now on the daemon handles SIGTERM itself; before, the signal would just end the process.
fn listens(daemon: &Daemon) -> bool {
    let exe = std::fs::read_link(format!("/proc/{}/exe", daemon.pid())).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
    let mask = blocked.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    exe == Path::new(AOEFS) && mask >> (libc::SIGTERM - 1) & 1 == 1
}

/// So long after it began to listen; returns how long it took to end.
fn early(bed: &mut Bed, after: Duration) -> Duration {
    let at = bed.dir().join("early");
    std::fs::create_dir_all(&at).unwrap();
    sweep::register(sweep::Mess::Mount(at.clone()));
    let ns = bed.ini.clone();
    let daemon = bed.spawn(&ns, &[AOEFS, "-f", "-i", "v0", "-o", "stop=1", at.to_str().unwrap()]);
    until("it listens to signals", 10 * SECOND, || listens(&daemon));
    std::thread::sleep(after);
    let start = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(10 * SECOND), 0, "after {after:?}: {}", daemon.said());
    let took = start.elapsed();
    assert!(!is_mounted(&at), "after {after:?}");
    sweep::forget(&at);
    took
}

/// So long after both targets were up and four threads began to do this to it, again and again.
fn busy(bed: &mut Bed, after: Duration, work: fn(&Mount, u64) -> std::io::Result<()>) -> Duration {
    let mount = bed.mount(&["-o", "stop=1"]);
    for unit in ["1.0", "7.254"] {
        mount.wait_for(unit, 3 * SECOND);
    }
    let ended = AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        for n in 0..4 {
            let (mount, ended) = (&mount, &ended);
            // Each round opens by name, so that the last close comes soon after the mount is gone. Errors are fine, a
            // hang is not.
            scope.spawn(move || while !ended.load(Relaxed) && work(mount, n).is_ok() {});
        }
        std::thread::sleep(after);
        let start = Instant::now();
        mount.daemon.signal(Signal::SIGTERM);
        let code = mount.daemon.ended(10 * SECOND);
        ended.store(true, Relaxed);
        assert_eq!(code, 0, "after {after:?}: {}", mount.daemon.said());
        is_quiet(&mount.daemon);
        start.elapsed()
    });
    assert!(!mount.mounted(), "after {after:?}");
    sweep::forget(mount.path());
    took
}

fn write_and_read(mount: &Mount, n: u64) -> std::io::Result<()> {
    let file = try_open(&mount.unit("1.0").data(), if n.is_multiple_of(2) { 0 } else { libc::O_DIRECT })?;
    let mut block = crate::tools::fsx::Aligned::new(256 << 10);
    for at in 0..4 {
        file.write_all_at(block.bytes(), (n << 21) + (at << 18))?;
        file.read_exact_at(block.bytes(), at << 18)?;
    }
    file.sync_all()
}

fn change_partitions(mount: &Mount, n: u64) -> std::io::Result<()> {
    let (unit, name) = (mount.unit("7.254"), format!("p{n}"));
    unit.ctl(&format!("part {name} {} {}", n * 100, n * 100 + 4000))?;
    let file = try_open(&unit.file(&name), 0)?;
    file.write_all_at(&[n as u8; 5000], 3000)?;
    unit.ctl(&format!("delpart -f {name}"))
}
