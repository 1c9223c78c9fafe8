//! Scenes by the ids of the catalogue: reordering, late frames, owners of parts of sectors, a long queue, too many
//! answers.

use std::collections::HashMap;
use std::time::Duration;

use super::ask::Ask;
use super::rng::Rng;
use super::stage::Stage;
use super::world::World;
use aoefs::engine::Error;
use aoefs::wire::SECTOR;

const KIB4: usize = 4096;
const S: u64 = SECTOR as u64;

/// Asks until `count` requests were asked, `depth` at a time, and waits for all of them. Each must succeed.
fn pump(world: &mut World, count: u32, depth: usize, mut draw: impl FnMut(u32) -> Ask) {
    let mut asked = 0;
    while asked < count || !world.judge.pending.is_empty() {
        while asked < count && world.judge.pending.len() < depth {
            let ask = draw(asked);
            world.ask(0, ask);
            asked += 1;
        }
        assert!(world.step() && world.violation.is_none(), "{:?}", world.violation);
    }
    assert_eq!(world.judge.failed, 0, "every request succeeds");
}

/// T3: requests and answers overtake each other by 1 to 32 places: nothing wrong, and what is only late is not sent
/// again.
#[test]
fn t3_reordering_of_every_depth() {
    // Frames follow each other at this distance, in µs.
    const APART: u64 = 8;
    for depth in [1u64, 2, 3, 4, 8, 16, 32] {
        let stage = Stage { seed: depth, buffers: 64, mtu: 1500, ..Stage::default() };
        let mut world = stage.set();
        world.targets[0].service.base = APART;
        world.targets[0].service.per_kib = 0;
        for wire in &mut world.wires {
            for way in [&mut wire.to, &mut wire.from] {
                way.reorder = true;
                way.apart = APART;
                // Deep ones are rare: both ends of the spread must meet.
                way.delay = (30, 29 + (depth + 1 + depth / 2 * (depth / 8).min(1)) * APART);
            }
        }
        let mut rng = Rng::new(depth);
        let mut one = |n: u32| {
            let (offset, len) = (rng.below(4000) * S, (1 + rng.below(60) as usize) * SECTOR);
            if n.is_multiple_of(2) { Ask::Read { offset, len } } else { Ask::Write { offset, len } }
        };
        pump(&mut world, 500, 8, &mut one);
        let (before, sent) = (world.figures.transfers, resent(&world));
        pump(&mut world, 2000, 8, &mut one);
        let copies = resent(&world) - sent;
        let share = 100.0 * copies as f64 / (world.figures.transfers - before) as f64;
        let displaced = world.figures.displaced as u64;
        assert!((depth.div_ceil(2)..=2 * depth).contains(&displaced), "the wire reorders by {displaced}");
        println!("t3: depth {depth}: displaced by {displaced}, {share:.2} % sent again");
        assert!(share < 1.0, "{share} % of the frames were sent again though none was lost");
        world.curtain();
    }
}

fn resent(world: &World) -> u64 {
    world.units[0].device.paths().iter().map(|p| p.stats.resent).sum()
}

/// T5: now and then a frame takes up to two seconds longer, either way.
#[test]
fn t5_delay_spikes_of_two_seconds() {
    for (requests, answers) in [(false, true), (true, false), (true, true)] {
        for seed in 0..10 {
            let mut world = Stage { seed, ..Stage::default() }.set();
            let mut rng = Rng::new(seed);
            // The network shows once how slow it can be: a stale copy is fenced off for four times the slowest answer.
            world.wires[0].from.reorder = true;
            world.wires[0].to.reorder = true;
            world.wires[0].from.delay = (2_000_000, 2_000_000);
            world.ask(0, Ask::Read { offset: 0, len: SECTOR });
            world.run_until(world.later(Duration::from_millis(1)));
            world.wires[0].from.delay = (30, 30);
            assert!(world.settle(3000));
            world.pass(3000);
            let spike = |on: bool| if on { (0.01, 2_000_000) } else { (0.0, 0) };
            world.wires[0].to.spike = spike(requests);
            world.wires[0].from.spike = spike(answers);
            let began = world.now;
            pump(&mut world, 400, 8, |_| {
                let (offset, len) = (rng.below(4000) * S, (1 + rng.below(80) as usize) * SECTOR);
                if rng.chance(0.5) { Ask::Read { offset, len } } else { Ask::Write { offset, len } }
            });
            let took = world.now - began;
            // What overlaps a stale copy waits for it; nothing else does.
            assert!(took < Duration::from_secs(60), "400 requests in {took:?}");
            world.wires[0].heal();
            world.ask(0, Ask::Read { offset: 0, len: 4096 * SECTOR });
            world.curtain();
        }
    }
}

/// T10: a copy of a write comes late by one path after its twin came by the other and newer writes of the same
/// sectors wait.
#[test]
fn t10_delayed_duplicate_write_on_another_path() {
    let mut stale = 0;
    for seed in 0..200 {
        let mut world = Stage { seed, nets: 2, ..Stage::default() }.set();
        let mut rng = Rng::new(seed);
        pump(&mut world, 20, 1, |n| Ask::Read { offset: u64::from(n) * S, len: KIB4 });
        let slow = rng.below(2) as usize;
        let late = 50_000 + rng.below(900_000);
        for wire in &mut world.wires {
            wire.to.reorder = true;
        }
        // Whichever path is chosen first becomes the slow one once the write is on its way.
        let ways: Vec<u64> = (0..2).map(|w| if w == slow { late } else { 10 + rng.below(100) }).collect();
        for (wire, way) in world.wires.iter_mut().zip(&ways) {
            wire.to.delay = (*way, *way);
        }
        let by = |world: &World| -> Vec<u64> {
            world.units[0].device.paths().iter().map(|p| p.stats.sent).collect()
        };
        let before = by(&world);
        for n in 0..4 {
            world.ask(0, Ask::Write { offset: n * KIB4 as u64, len: KIB4 });
        }
        world.pass(30 + rng.below(20));
        for n in 0..rng.below(12) {
            let (offset, len) = (rng.below(4 * KIB4 as u64), 1 + rng.below(3000) as usize);
            let offset = if n.is_multiple_of(2) { offset } else { offset - offset % S };
            world.ask(0, Ask::Write { offset, len });
            world.pass(rng.below(30));
        }
        let both = by(&world).iter().zip(&before).all(|(now, then)| now > then);
        stale += u64::from(both && world.units[0].device.status().quarantined > 0);
        for wire in &mut world.wires {
            wire.to.delay = (30, 30);
        }
        assert!(world.settle(5000), "seed {seed}: {:?}", world.violation);
        assert_eq!(world.judge.failed, 0);
        world.ask(0, Ask::Read { offset: 0, len: 8 * KIB4 });
        world.curtain();
    }
    println!("t10: {stale} of 200 runs had a stale copy on the other path");
    assert!(stale >= 50, "{stale}");
}

/// Bytes `[offset, offset + len)` that one writer owns.
type Part = (u64, usize);

/// Every writer writes its next part when its last write is answered, so many times in all.
fn owners(world: &mut World, writers: usize, writes: u32, mut part: impl FnMut(usize, u32) -> Part) {
    let mut left = vec![writes; writers];
    let mut busy: HashMap<u32, usize> = HashMap::new();
    let mut idle: Vec<usize> = (0..writers).collect();
    world.done.clear();
    while !busy.is_empty() || !idle.is_empty() {
        for w in idle.drain(..) {
            let (offset, len) = part(w, left[w]);
            left[w] -= 1;
            let seq = world.ask(0, Ask::Write { offset, len });
            busy.insert(seq, w);
        }
        assert!(world.step() && world.violation.is_none(), "{:?}", world.violation);
        for (seq, end) in world.done.drain(..) {
            if let Some(w) = busy.remove(&seq) {
                assert!(end.is_ok(), "#{seq}: {end:?}");
                idle.extend((left[w] > 0).then_some(w));
            }
        }
    }
}

/// A wire that loses, doubles and reorders.
fn bad(world: &mut World) {
    for wire in &mut world.wires {
        for way in [&mut wire.to, &mut wire.from] {
            (way.loss, way.duplicate, way.reorder) = (0.01, 0.01, true);
            way.delay = (30, 130);
        }
    }
}

/// W1: eight writers own 64 bytes each of every sector. The disk accepts a sector only if it differs from what it
/// held in nothing but the bytes of one write that is under way.
#[test]
fn w1_eight_owners_of_64_bytes() {
    let (mut writes, mut copies) = (0, 0);
    for seed in 0..40 {
        let mut world = Stage { seed, nets: 1 + seed as usize % 2, ..Stage::default() }.set();
        if seed % 4 != 0 {
            bad(&mut world);
        }
        let mut rng = Rng::new(seed);
        // One sector, or a write's end and the next one's beginning among a few.
        let sectors = [1, 1, 2, 8][seed as usize % 4];
        owners(&mut world, 8, 250, |w, _| (rng.below(sectors) * S + 64 * w as u64, 64));
        writes += 8 * 250;
        copies += resent(&world);
        for wire in &mut world.wires {
            wire.heal();
        }
        world.ask(0, Ask::Read { offset: 0, len: KIB4 });
        world.curtain();
    }
    println!("w1: {writes} writes, {copies} copies sent again, no lost update");
}

/// W2: whole sectors against parts of them, and reads of both.
#[test]
fn w2_aligned_against_unaligned() {
    let mut writes = 0;
    for seed in 0..40 {
        let mut world = Stage { seed, mtu: 1500, nets: 1 + seed as usize % 2, ..Stage::default() }.set();
        if seed % 4 != 0 {
            bad(&mut world);
        }
        let mut rng = Rng::new(seed);
        owners(&mut world, 8, 250, |w, _| {
            let at = rng.below(12) * S;
            match w {
                // Whole sectors.
                0..4 => (at, (1 + rng.below(4) as usize) * SECTOR),
                // One edge, the other, both.
                4 => (at, 1 + rng.below(1500) as usize),
                5 => {
                    let skip = 1 + rng.below(511);
                    (at + skip, (S - skip + rng.below(3) * S) as usize)
                }
                _ => (at + rng.below(512), 1 + rng.below(1500) as usize),
            }
        });
        writes += 8 * 250;
        for wire in &mut world.wires {
            wire.heal();
        }
        world.ask(0, Ask::Read { offset: 0, len: 20 * SECTOR });
        world.curtain();
    }
    println!("w2: {writes} writes, no lost update");
}

/// L3: a thousand requests are queued when the target goes away. It comes back: all succeed. It is given up: all fail
/// at once.
#[test]
fn l3_down_and_up_with_1000_queued() {
    for (announce, give_up) in [(true, false), (false, false), (true, true)] {
        let mut world = Stage::default().set();
        let mut rng = Rng::new(3);
        let mut asked = Vec::new();
        for n in 0..1000u32 {
            let (offset, len) = (rng.below(4000) * S, (1 + rng.below(8) as usize) * SECTOR);
            asked.push(world.ask(
                0,
                match n % 5 {
                    0 | 1 => Ask::Read { offset, len },
                    2 => Ask::Write { offset, len },
                    3 => Ask::Write { offset: offset + 100, len: 700 },
                    _ => Ask::Flush,
                },
            ));
        }
        world.run_until(world.later(Duration::from_millis(2)));
        world.targets[0].die();
        world.pass(5000);
        let queued = world.judge.pending.len();
        assert!(queued > 800, "only {queued} wait");
        let before = world.done.len();
        if give_up {
            world.tick += 1;
            world.units[0].failio = world.tick;
            world.with_device(0, |d, now, sink| d.fail_all(now, sink));
            assert!(world.judge.pending.is_empty(), "everybody is told at once");
            assert!(world.done[before..].iter().all(|d| d.1 == Err(Error::Io)));
        }
        let began = world.now;
        world.targets[0].alive = true;
        world.targets[0].restarted = Some(world.now.0);
        if announce {
            world.announce(0);
        }
        assert!(world.settle(3000), "{} are not answered", world.judge.pending.len());
        println!("l3: {queued} queued, announced {announce}, failio {give_up}: {:?}", world.now - began);
        if !give_up {
            assert!(world.done.iter().all(|d| d.1.is_ok()));
        }
        let mut answered: Vec<u32> = world.done.iter().map(|d| d.0).collect();
        answered.sort_unstable();
        assert_eq!(answered, asked, "one answer each");
        world.curtain();
    }
}

/// X6: every answer comes a hundred times, the later ones after the frame was forgotten.
#[test]
fn x6_a_hundred_answers_to_one_request() {
    let run = |echoes: u64| {
        let mut world = Stage { sectors: 4096, ..Stage::default() }.set();
        world.wires[0].from.echoes = echoes;
        let mut rng = Rng::new(6);
        let (began, frames) = (world.now, world.figures.frames);
        pump(&mut world, 1000, 8, |_| {
            let (offset, len) = (rng.below(4000) * S, (1 + rng.below(40) as usize) * SECTOR);
            match rng.below(10) {
                0..5 => Ask::Read { offset, len },
                5..8 => Ask::Write { offset, len },
                8 => Ask::Write { offset: offset + 100, len: 700 },
                _ => Ask::Flush,
            }
        });
        let (took, frames) = (world.now - began, world.figures.frames - frames);
        assert_eq!(world.units[0].audit(), None);
        let answers = world.figures.answers;
        world.curtain();
        (took, frames, answers)
    };
    let (once, often) = (run(0), run(99));
    println!(
        "x6: {} answers to {} frames in {:?}; {} to {} in {:?}",
        once.2, once.1, once.0, often.2, often.1, often.0
    );
    assert!(often.2 > 90 * once.2);
    assert!(often.1 <= once.1 + once.1 / 100, "they make nobody send more");
    assert!(often.0 <= once.0 + once.0 / 20, "nor wait");
}

/// P3: a target says who it is and leaves every read unanswered for ten seconds: few copies of sixteen frames, cut in
/// pieces or not. Once it answers, so do all of them.
#[test]
fn p3_copies_to_a_target_that_answers_identify_only() {
    const FRAMES: u32 = 16;
    let (mut most, mut slowest) = (0, Duration::ZERO);
    for seed in 0..300 {
        let mut world = Stage { seed, ..Stage::default() }.set();
        let mut rng = Rng::new(seed);
        world.targets[0].service.stall = (0.05, 300);
        pump(&mut world, 200, 8, |n| Ask::Read { offset: u64::from(n % 100) * 8192, len: 8192 });
        world.targets[0].mute = true;
        let before = world.figures.transfers;
        let rto = world.units[0].device.paths()[0].timeout;
        for n in 0..FRAMES {
            world.ask(0, Ask::Read { offset: u64::from(n) * 4096, len: KIB4 });
            world.run_until(world.later(Duration::from_micros(rng.below(100))));
        }
        world.pass(10_000);
        let copies = world.figures.transfers - before;
        let allowed = f64::from(FRAMES) * ((10.0 / rto.as_secs_f64()).log2() + 2.0);
        assert!(copies as f64 <= allowed, "seed {seed}: {copies} copies, at most {allowed:.0}");
        most = most.max(copies);
        world.targets[0].mute = false;
        let start = world.now;
        assert!(world.settle(2000), "seed {seed}: {} left after two seconds", world.judge.pending.len());
        slowest = slowest.max(world.now - start);
        assert_eq!(world.judge.failed, 0);
        world.curtain();
    }
    println!("p3: at most {most} copies; all answered at most {slowest:?} after it answers again");
}
