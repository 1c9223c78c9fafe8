//! The bed for the kernel (see `versions`): with the kernel on top, a reader never sees older than what was
//! acknowledged nor newer than what was begun, by whatever name and call; nobody hangs; and at the end the disk agrees
//! with everybody.
//!
//! `AOEFS_TEST_OPS` is how many operations a main run has, the others in proportion; `AOEFS_TEST_SEED` decides what
//! they are.

use super::loops;
use crate::bed::mount::{Mount, Unit, is_mounted};
use crate::bed::{Bed, Daemon, Ns, setting, until};
use crate::versions::board::{Board, Head};
use crate::versions::crew::Crew;
use crate::versions::faults::{Pauses, Restarts, Turns};
use crate::versions::judge::{KINDS, Kind};
use crate::versions::plan::Plan;
use crate::versions::seat::{Sort, View};
use nix::sys::signal::Signal;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

crate::tests![
    integrity_versions_in_memory(1800),
    integrity_versions_over_the_wire(1800),
    integrity_versions_on_loop_devices(1800),
    integrity_versions_while_the_target_is_killed(1800),
    deadline_versions_while_the_target_pauses(1800),
    identity_versions_while_partitions_come_and_go(1800),
    clean_versions_when_the_daemon_is_killed(1800),
    bed_versions_find_what_is_wrong(120),
];

/// Operations of a main run: 25 to 30 s for all tests here, on two cores.
const OPERATIONS: u64 = 10_000;
/// Sectors of the disk: 8 MiB.
const SECTORS: u64 = 16_384;
/// Partitions that overlap each other and do not begin at pages.
const NAMES: [(&str, Range<u64>); 4] =
    [("data", 0..SECTORS), ("low", 0..701), ("high", 301..SECTORS), ("within", 333..1501)];
/// How long a target that is there may take to appear.
const APPEARS: Duration = Duration::from_secs(5);
/// After the daemon was killed everybody is free and the mount gone: five times the two seconds that are promised for
/// that.
const FREED: Duration = Duration::from_secs(10);

/// Operations of a run that has so many by default.
fn operations(default: u64) -> u64 {
    (default * setting("AOEFS_TEST_OPS", OPERATIONS) / OPERATIONS).max(200)
}

/// How long a run with faults may go on, in proportion.
fn at_most(seconds: u64) -> Option<Duration> {
    Some(
        Duration::from_millis(seconds * 1000 * operations(OPERATIONS) / OPERATIONS)
            .max(Duration::from_secs(seconds)),
    )
}

fn seed() -> u64 {
    setting("AOEFS_TEST_SEED", 1)
}

fn plan() -> Plan {
    Plan { seed: seed(), workers: 4, sectors: SECTORS }
}

/// Makes the partitions; all names.
fn views(unit: &Unit) -> Vec<View> {
    for (name, range) in &NAMES[1..] {
        unit.ctl_ok(&format!("part {name} {} {}", range.start, range.end));
    }
    NAMES.iter().map(|(name, range)| View::new(unit.file(name), range.clone(), Sort::File)).collect()
}

/// A mount of the built-in target, with nothing on its disk.
fn demo(bed: &mut Bed) -> (Mount, Unit) {
    let ns = bed.ini.clone();
    let mount = bed.mount_in(&ns, &["--demo=8M"]);
    let unit = mount.wait_for("1.0", APPEARS);
    (mount, unit)
}

/// Two hosts, and the product's own target between them with nothing on its disk, mounted.
struct Wire {
    bed: Bed,
    image: PathBuf,
    target: Arc<Daemon>,
    mount: Mount,
    unit: Unit,
}

impl Wire {
    fn new() -> Self {
        let mut bed = Bed::cable(&[], 9000);
        let image = bed.image_of("disk", SECTORS as usize * 512, 0);
        let target = bed.aoefs_target("1.0", "v1", &image);
        let mount = bed.mount(&[]);
        let unit = mount.wait_for("1.0", APPEARS);
        Self { bed, image, target, mount, unit }
    }
}

fn integrity_versions_in_memory() {
    let mut bed = Bed::with_fuse(&[]);
    let (mount, unit) = demo(&mut bed);
    let views = views(&unit);
    let mut crew = Crew::new(&bed, plan(), &[mount.path()]);
    crew.usual(&bed, operations(OPERATIONS), &views);
    crew.run(None, |_| {});
    crew.look_again(&bed, &views);
    crew.clean();
    mount.stop();
}

fn integrity_versions_over_the_wire() {
    let wire = Wire::new();
    let views = views(&wire.unit);
    let mut crew = Crew::new(&wire.bed, plan(), &[wire.mount.path()]);
    crew.usual(&wire.bed, operations(OPERATIONS), &views);
    crew.run(None, |_| {});
    crew.look_again(&wire.bed, &views);
    crew.judge_image(&wire.image);
    crew.clean();
    wire.mount.stop();
}

/// Loop devices on `data` and on a partition, in both modes, beside the names themselves.
fn integrity_versions_on_loop_devices() {
    let mut bed = Bed::with_fuse(&["losetup"]);
    let (mount, unit) = demo(&mut bed);
    let mut views = views(&unit);
    let mut devices = Vec::new();
    for (name, range, direct) in
        [("data", 0..SECTORS, true), ("data", 0..SECTORS, false), ("within", 333..1501, false)]
    {
        let device = loops::attach(&unit.file(name), direct);
        views.push(View::new(device.clone(), range, Sort::Loop));
        devices.push(device);
    }
    let mut crew = Crew::new(&bed, plan(), &[mount.path()]);
    crew.usual(&bed, operations(OPERATIONS / 2), &views);
    crew.run(None, |_| {});
    crew.look_again(&bed, &views);
    crew.clean();
    devices.iter().for_each(|device| loops::detach(device));
    mount.stop();
}

/// vblade is killed and started again all the time: calls take longer, none fails.
fn integrity_versions_while_the_target_is_killed() {
    let mut bed = Bed::cable(&["vblade"], 9000);
    let image = bed.image_of("disk", SECTORS as usize * 512, 0);
    let vblade = bed.vblade("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", APPEARS);
    let views = views(&unit);
    let mut crew = Crew::new(&bed, plan(), &[mount.path()]);
    crew.usual(&bed, operations(OPERATIONS / 2), &views);
    let turns = Turns::new(seed(), Duration::from_millis(400), Duration::from_millis(150));
    let mut restarts = Restarts { bed: &mut bed, image: &image, vblade, turns };
    crew.run(at_most(3), |_| restarts.look());
    restarts.end();
    let times = restarts.turns.times;
    unit_is_up(&unit);
    crew.look_again(&bed, &views);
    crew.judge_image(&image);
    print!("[killed {times} times] ");
    crew.clean();
    mount.stop();
}

fn unit_is_up(unit: &Unit) {
    until("the target is up", APPEARS, || unit.state() == "up");
}

/// The target stands still for longer than requests may take, or for a moment in which somebody fails all of them;
/// and it does what
/// it was asked when everybody has given it up.
fn deadline_versions_while_the_target_pauses() {
    let wire = Wire::new();
    let views = views(&wire.unit);
    wire.unit.ctl_ok("deadline 1");
    let mut crew = Crew::new(&wire.bed, plan(), &[wire.mount.path()]);
    crew.board.set(Head::Tolerant, 1);
    let mut times = 0;
    for (well, ill, failer) in [(500, 2000, 0), (60, 120, 1)] {
        crew.usual(&wire.bed, operations(OPERATIONS), &views);
        crew.start(&wire.bed, "failer", failer, &views);
        let turns = Turns::new(seed(), Duration::from_millis(well), Duration::from_millis(ill));
        let mut pauses = Pauses { target: wire.target.clone(), turns };
        let well = crew.run(at_most(3), |_| pauses.look());
        pauses.end();
        times += pauses.turns.times;
        if !well {
            break;
        }
    }
    unit_is_up(&wire.unit);
    wire.unit.ctl_ok("deadline");
    crew.board.set(Head::Tolerant, 0);
    crew.look_again(&wire.bed, &views);
    crew.judge_image(&wire.image);
    print!("[{times} pauses] ");
    crew.clean();
    wire.mount.stop();
}

/// Partitions are deleted and made again under those who use them.
fn identity_versions_while_partitions_come_and_go() {
    let mut bed = Bed::with_fuse(&[]);
    let (mount, unit) = demo(&mut bed);
    let mut views = views(&unit);
    for (name, range) in [("come", 317..1200), ("go", 402..16_000)] {
        unit.ctl_ok(&format!("part {name} {} {}", range.start, range.end));
        views.push(View::new(unit.file(name), range, Sort::Fleeting));
    }
    let mut crew = Crew::new(&bed, plan(), &[mount.path()]);
    crew.usual(&bed, operations(OPERATIONS / 2), &views);
    crew.start(&bed, "partitioner", 1, &views);
    crew.run(None, |_| {});
    crew.look_again(&bed, &views);
    crew.clean();
    mount.stop();
}

/// The daemon is killed in the middle, with and without requests that nobody will answer: everybody is freed, the
/// mount is gone, and
/// the disk has what was acknowledged. Then another one mounts there, and work goes on.
fn clean_versions_when_the_daemon_is_killed() {
    /// Every other time the target stands still before.
    const ROUNDS: u64 = 4;
    let rounds = (ROUNDS * operations(OPERATIONS) / OPERATIONS).clamp(ROUNDS, 100);
    let mut wire = Wire::new();
    let mut crew = Crew::new(&wire.bed, plan(), &[wire.mount.path()]);
    crew.board.set(Head::Tolerant, 1);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let views = views(&wire.unit);
        // Without an end: it is the daemon's that ends it.
        crew.usual(&wire.bed, u64::MAX, &views);
        let (start, mut killed) = (Instant::now(), None);
        let (target, daemon) = (wire.target.clone(), wire.mount.daemon.clone());
        let well = crew.run(None, |board: &Board| {
            if killed.is_none() && start.elapsed() > Duration::from_millis(600) {
                if round % 2 == 1 {
                    target.signal(Signal::SIGSTOP);
                    std::thread::sleep(Duration::from_millis(50));
                }
                daemon.kill9();
                killed = Some(Instant::now());
                board.set(Head::Stop, 1);
            }
        });
        let killed = killed.expect("the work was done before the daemon was killed");
        let (ended, path) = (killed.elapsed(), wire.mount.path().to_path_buf());
        slowest = slowest.max(ended);
        wire.target.signal(Signal::SIGCONT);
        if well {
            assert!(ended < FREED, "round {round}: everybody was free after {ended:?}");
            until("the mount is gone", FREED, || !is_mounted(&path));
            settle(&mut crew, &wire.image);
        }
        if !well || round + 1 == rounds {
            break;
        }
        crew.board.set(Head::Stop, 0);
        let ns = wire.bed.ini.clone();
        wire.mount = mount_again(&mut wire.bed, &ns, &path);
        wire.unit = wire.mount.wait_for("1.0", APPEARS);
    }
    print!("[freed after {slowest:.0?} at most] ");
    crew.clean();
}

fn mount_again(bed: &mut Bed, ns: &Ns, path: &Path) -> Mount {
    bed.mount_at(ns, path, &["-i", "v0"])
}

/// Judges the image once the target has done what was on its way to it.
fn settle(crew: &mut Crew, image: &Path) {
    std::thread::sleep(Duration::from_millis(100));
    crew.judge_image(image);
}

/// A process that does wrong on purpose is found out, each by its own kind, and so is one that does not come back.
fn bed_versions_find_what_is_wrong() {
    let mut bed = Bed::with_fuse(&[]);
    let (mount, unit) = demo(&mut bed);
    let data = [View::new(unit.data(), 0..SECTORS, Sort::File)];
    for (role, wanted) in [
        ("Undo", Kind::Stale),
        ("Clear", Kind::Zeros),
        ("Tear", Kind::Torn),
        ("Swap", Kind::Foreign),
        ("Ahead", Kind::Newer),
    ] {
        // Whoever does wrong has no turn, or no reader, in some short runs.
        let noticed = [800, 3200, 12_800].into_iter().find(|operations| {
            let mut crew = Crew::new(&bed, plan(), &[mount.path()]);
            // What the last one left is nobody's version here.
            std::fs::write(unit.data(), vec![0; SECTORS as usize * 512]).unwrap();
            crew.usual(&bed, *operations, &data);
            crew.start(&bed, role, 1, &data);
            crew.run(None, |_| {});
            crew.look_again(&bed, &data);
            let found = KINDS.iter().zip(crew.violations()).find(|(kind, _)| **kind == wanted);
            let (_, count) = found.expect("a kind");
            print!("[{role}: {wanted:?} {count}] ");
            assert!(crew.report.hung.is_empty() && crew.report.fallen.is_empty(), "{:?}", crew.report);
            count > 0
        });
        assert!(noticed.is_some(), "{role} was not noticed");
    }
    let mut crew = Crew::new(&bed, plan(), &[]);
    crew.patience = Duration::from_secs(1);
    crew.start(&bed, "sleeper", 1, &data);
    crew.run(None, |_| {});
    assert!(crew.report.hung.len() == 1 && crew.report.hung[0].contains("Sleep"), "{:?}", crew.report);
    mount.stop();
}
