//! Exhaustive small worlds: one device, requests of two frames, and every sequence of {arrives, lost, twice, late}
//! for each frame and of {time passes, link down and up, another disk} between the requests, to a fixed depth.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::ask::Ask;
use super::disk::Disk;
use super::fate::Fate;
use super::stage::Stage;
use super::world::World;
use aoefs::wire::SECTOR;

/// Decisions in an ordinary run.
const DEPTH: usize = 8;

/// Something from outside, or not.
fn between(world: &mut World) {
    let what = world.fate.as_mut().and_then(|f| f.choose(3)).unwrap_or(0);
    let net = world.nets[0].id;
    match what {
        1 => {
            for up in [false, true] {
                world.nets[0].up = up;
                world.with_device(0, |d, now, sink| d.net_changed(now, net, up, 1500, sink));
                world.pass(5);
            }
        }
        2 => {
            // It dies, and silence is heard: then another disk is there, which says so.
            world.targets[0].die();
            world.pass(1200);
            let id = world.targets[0].look().id + 1;
            let old = world.targets[0].swap(Disk::new(id, 64, 1));
            world.shelf.push(old);
            world.targets[0].alive = true;
            world.targets[0].restarted = Some(world.now.0);
            world.announce(0);
        }
        _ => world.pass(1),
    }
}

type Scene = fn(&mut World);

/// A write of two frames and one that overlaps it, a read of both.
fn writes(world: &mut World) {
    world.ask(0, Ask::Write { offset: 0, len: 4 * SECTOR });
    between(world);
    world.ask(0, Ask::Write { offset: 2 * SECTOR as u64, len: 4 * SECTOR });
    between(world);
    world.ask(0, Ask::Read { offset: 0, len: 6 * SECTOR });
}

/// The edges of a write, and what else is written in their sectors.
fn edges(world: &mut World) {
    world.ask(0, Ask::Write { offset: 100, len: 1000 });
    world.ask(0, Ask::Write { offset: 1100, len: 100 });
    between(world);
    world.ask(0, Ask::Flush);
    world.ask(0, Ask::Read { offset: 0, len: 3 * SECTOR });
}

/// Reads alone, and a write once they are done.
fn reads(world: &mut World) {
    world.ask(0, Ask::Read { offset: 0, len: 4 * SECTOR });
    between(world);
    world.ask(0, Ask::Read { offset: 0, len: 4 * SECTOR });
    between(world);
    world.ask(0, Ask::Trim { offset: 0, len: 2 * SECTOR as u64 });
}

/// Every run with these first decisions.
fn exhaust(scene: Scene, depth: usize) -> u64 {
    let stage = Stage { mtu: 1500, sectors: 64, buffers: 2, ..Stage::default() };
    let mut fate = Some(Fate::new(depth));
    let mut runs = 0;
    while let Some(now) = fate.take() {
        let mut world = stage.set();
        world.fate = Some(now.clone());
        scene(&mut world);
        world.settle(20_000);
        let decided = world.fate.take().unwrap_or_default();
        world.pass(20_000);
        if let Some(what) = world.violation.take() {
            panic!("{decided:?}: {what}");
        }
        assert!(world.judge.pending.is_empty(), "{decided:?}: not answered: {:?}", world.judge.pending);
        let d = &world.units[0].device;
        assert_eq!((d.frames(), d.requests(), d.locked()), (0, 0, 0), "{decided:?}: something is left");
        runs += 1;
        fate = decided.next();
    }
    runs
}

#[test]
fn every_small_world() {
    let depth = std::env::var("AOEFS_SIM_DEPTH").ok().and_then(|d| d.parse().ok()).unwrap_or(DEPTH);
    let began = Instant::now();
    let runs = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for scene in [writes as Scene, edges, reads] {
            let runs = &runs;
            scope.spawn(move || runs.fetch_add(exhaust(scene, depth), Relaxed));
        }
    });
    println!("{} small worlds of {depth} decisions in {:.1?}", runs.load(Relaxed), began.elapsed());
}
