//! The simulator: the engine against scripted targets and bad wires, on virtual time, everything from one seed.
//!
//! `cargo test --test sim` runs 10,000 seeds (AOEFS_SIM_SEEDS changes how many, AOEFS_SIM_START where they begin;
//! AOEFS_SIM_FLIPS is the share of IDENTIFYs that arrive with flipped bits, in per cent, 0 unless said). A seed that
//! fails is replayed, with a trace that can be read, by
//!
//!     AOEFS_SIM_SEED=n AOEFS_SIM_TRACE=1 cargo test --test sim sim_seeds -- --nocapture
//!
//! `disk` keeps the truth, `net` and `target` misbehave, `world` carries frames and time between them and the engine,
//! `judge` holds every answer against the promises, `swarm` draws a run from a seed. The limits of the model are
//! written in `net`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]

mod ahead;
mod ask;
mod catalogue;
mod disk;
mod fate;
mod faults;
mod growth;
mod judge;
mod life;
mod load;
mod net;
#[allow(dead_code, reason = "the test bed uses more of it")]
#[path = "../bed/rng.rs"]
mod rng;
mod small;
mod speed;
mod stage;
mod streams;
mod swarm;
mod target;
mod unit;
mod wire;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use speed::{Job, LOSSES};
use stage::Stage;
use swarm::{Report, run};

/// Seeds in an ordinary run.
const SEEDS: u64 = 10_000;
/// And of those whose IDENTIFYs carry flipped bits besides.
const FLIPPED_SEEDS: u64 = 2_000;
/// Violations after which a run ends; AOEFS_SIM_STOP changes it.
const STOP: u64 = 20;
/// Bytes of address space that the tests may take.
const MEMORY: u64 = 6 << 30;
/// Lines of trace that a failure shows.
const LINES: usize = 120;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one seed; a panic of the engine is a violation like any other.
fn guarded(seed: u64, trace: bool, flips: u64) -> Report {
    catch_unwind(AssertUnwindSafe(|| run(seed, trace, flips))).unwrap_or_else(|_| Report {
        virtual_us: 0,
        submitted: 0,
        succeeded: 0,
        figures: Default::default(),
        flipped: 0,
        violation: Some("panic".into()),
        trace: Vec::new(),
    })
}

#[derive(Default)]
struct Sum {
    flips: u64,
    seeds: u64,
    virtual_us: u64,
    submitted: u64,
    succeeded: u64,
    frames: u64,
    shielded: u64,
    ahead: u64,
    flipped: u64,
    failed: Vec<(u64, String)>,
}

fn run_all(seeds: impl Fn(u64) -> Option<u64> + Sync, flips: u64) -> Sum {
    // A run that never ends must not take the machine with it.
    let _ = setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY);
    let sum = Mutex::new(Sum { flips, ..Sum::default() });
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let most = env("AOEFS_SIM_STOP").unwrap_or(STOP) as usize;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let clocks: Vec<AtomicU64> = (0..threads).map(|_| AtomicU64::new(IDLE)).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| watch(&clocks));
        for clock in &clocks {
            let (seeds, sum, next, stop) = (&seeds, &sum, &next, &stop);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    let Some(seed) = seeds(next.fetch_add(1, Relaxed)) else { break };
                    clock.store(seed, Relaxed);
                    let report = guarded(seed, false, flips);
                    let mut sum = sum.lock().unwrap();
                    sum.seeds += 1;
                    sum.virtual_us += report.virtual_us;
                    sum.submitted += report.submitted;
                    sum.succeeded += report.succeeded;
                    sum.frames += report.figures.frames;
                    sum.shielded += report.figures.shielded;
                    sum.ahead += report.figures.ahead;
                    sum.flipped += report.flipped;
                    if let Some(what) = report.violation {
                        sum.failed.push((seed, what));
                        if sum.failed.len() >= most {
                            stop.store(true, Relaxed);
                        }
                    }
                }
                clock.store(OVER, Relaxed);
            });
        }
    });
    sum.into_inner().unwrap()
}

/// What a thread's clock says when it runs no seed (yet, any more).
const IDLE: u64 = u64::MAX;
const OVER: u64 = u64::MAX - 1;
/// A seed takes milliseconds. One that takes this long never ends, and may take all memory with it.
const ENDLESS: Duration = Duration::from_secs(60);

/// Ends the process if a seed does not.
fn watch(clocks: &[AtomicU64]) {
    let mut seen: Vec<(u64, Instant)> = clocks.iter().map(|_| (IDLE, Instant::now())).collect();
    while !clocks.iter().all(|clock| clock.load(Relaxed) == OVER) {
        std::thread::sleep(Duration::from_millis(50));
        for (seen, clock) in seen.iter_mut().zip(clocks) {
            let seed = clock.load(Relaxed);
            if seen.0 != seed {
                *seen = (seed, Instant::now());
            } else if seed < OVER && seen.1.elapsed() > ENDLESS {
                println!("seed {seed}: does not end");
                eprintln!("seed {seed}: does not end");
                std::process::abort();
            }
        }
    }
}

fn report(sum: Sum, began: Instant) {
    let took = began.elapsed().as_secs_f64();
    let virtual_s = sum.virtual_us as f64 / 1e6;
    println!(
        "{} seeds in {took:.1} s: {virtual_s:.0} virtual seconds ({:.0} x real time), {} requests ({} succeeded), {} frames, {} shielded, {} KiB read ahead, {} IDENTIFYs damaged, {} violations",
        sum.seeds,
        virtual_s / took,
        sum.submitted,
        sum.succeeded,
        sum.frames,
        sum.shielded,
        sum.ahead >> 10,
        sum.flipped,
        sum.failed.len()
    );
    for (seed, what) in &sum.failed {
        println!("seed {seed}: {what}");
    }
    if let Some((seed, what)) = sum.failed.iter().min() {
        let again = guarded(*seed, true, sum.flips);
        for line in again.trace.iter().rev().take(LINES).rev() {
            println!("{line}");
        }
        panic!(
            "seed {seed}: {what}\nreplay: AOEFS_SIM_FLIPS={} AOEFS_SIM_SEED={seed} AOEFS_SIM_TRACE=1 cargo test --test sim sim_seeds -- --nocapture",
            sum.flips
        );
    }
}

#[test]
fn sim_seeds() {
    let began = Instant::now();
    let flips = env("AOEFS_SIM_FLIPS").unwrap_or(0);
    if let Some(seed) = env("AOEFS_SIM_SEED") {
        let trace = env("AOEFS_SIM_TRACE").is_some();
        let one = guarded(seed, trace, flips);
        for line in &one.trace {
            println!("{line}");
        }
        println!(
            "seed {seed}: {} requests, {} frames, {} virtual µs",
            one.submitted, one.figures.frames, one.virtual_us
        );
        assert_eq!(one.violation, None, "seed {seed}");
        return;
    }
    let (start, count) = (env("AOEFS_SIM_START").unwrap_or(1), env("AOEFS_SIM_SEEDS").unwrap_or(SEEDS));
    let sum = run_all(|n| (n < count).then_some(start + n), flips);
    assert!(sum.ahead > 0 || count < SEEDS || !sum.failed.is_empty(), "nobody was read ahead of");
    report(sum, began);
}

/// T6: the same worlds with one trouble more: every tenth IDENTIFY arrives with flipped bits.
#[test]
fn identity_survives_flipped_bits_in_identify() {
    let began = Instant::now();
    let sum = run_all(|n| (n < FLIPPED_SEEDS).then_some(1 + n), 10);
    assert!(sum.flipped > FLIPPED_SEEDS / 2, "{} damaged", sum.flipped);
    report(sum, began);
}

#[test]
fn seeds_that_once_failed() {
    let text = include_str!("seeds.txt");
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let seeds: Vec<u64> = lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    report(run_all(|n| seeds.get(n as usize).copied(), 0), Instant::now());
}

/// T1: throughput kept under random loss each way, as a share of the loss-free figure.
#[test]
fn t1_throughput_kept_under_loss() {
    let stage = Stage { sectors: 1 << 17, ..Stage::default() };
    let jobs = [
        ("1 MiB reads, QD4, MTU 9000", Job { stage, writes: false, len: 1 << 20, depth: 4, requests: 48 }),
        ("1 MiB writes, QD4, MTU 9000", Job { stage, writes: true, len: 1 << 20, depth: 4, requests: 48 }),
        (
            "1 MiB reads, QD4, MTU 1500",
            Job { stage: Stage { mtu: 1500, ..stage }, writes: false, len: 1 << 20, depth: 4, requests: 60 },
        ),
        (
            "1 MiB reads, QD4, 128 buffers",
            Job {
                stage: Stage { buffers: 128, ..stage },
                writes: false,
                len: 1 << 20,
                depth: 4,
                requests: 48,
            },
        ),
        ("4 KiB reads, QD1", Job { stage, writes: false, len: 4096, depth: 1, requests: 4000 }),
        ("4 KiB reads, QD32", Job { stage, writes: false, len: 4096, depth: 32, requests: 20000 }),
    ];
    for (name, job) in jobs {
        let cells: Vec<_> = LOSSES.iter().map(|loss| job.run(*loss)).collect();
        let best = cells[0].rate;
        // Watching for the last frames out must not cost a wake-up a frame.
        assert!(cells[0].sweeps < 250.0, "{name}: {} sweeps a second without loss", cells[0].sweeps);
        if name.starts_with("1 MiB reads, QD4, MTU 9000") {
            for (cell, goal) in cells.iter().zip([1.0, 0.9, 0.7, 0.35, 0.2]) {
                assert!(cell.rate >= goal * best, "{name}: {:.0} MB/s of {best:.0}, goal {goal}", cell.rate);
            }
        }
        let row: Vec<String> = cells
            .iter()
            .zip(LOSSES)
            .map(|(c, loss)| {
                format!(
                    "{}%: {:.0} MB/s {:.0}% x{:.2} {:.0} sweeps/s",
                    loss * 100.0,
                    c.rate,
                    100.0 * c.rate / best,
                    c.copies,
                    c.sweeps
                )
            })
            .collect();
        println!("{name:32} {}", row.join(" | "));
    }
}
