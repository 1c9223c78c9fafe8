//! Scenes from the wire: stale copies, black holes, silence, strangers. Names begin with the catalogue's id or the
//! promise.

use std::time::Duration;

use super::ask::Ask;
use super::disk::Faults;
use super::rng::Rng;
use super::stage::Stage;
use super::world::World;
use aoefs::engine::{Error, Time};
use aoefs::target::Image;
use aoefs::wire::{Addr, CONFIG_LEN, Command, Config, Header, MIN_FRAME, Mac, Refusal, Tag, Verb};

const KIB4: usize = 4096;

/// T10: the first copy of a write takes 0.9 s; the second is fast; a newer write of the same sectors waits for the
/// stale copy.
#[test]
fn quarantine_stale_copy_cannot_undo_newer_write() {
    for nets in [1, 2] {
        for late in [100_000, 500_000, 900_000] {
            let mut world = Stage { nets, ..Stage::default() }.set();
            world.ask(0, Ask::Read { offset: 0, len: KIB4 });
            world.pass(5);
            for wire in &mut world.wires {
                wire.to.reorder = true;
                wire.to.delay = (late, late);
            }
            let old = world.ask(0, Ask::Write { offset: 0, len: KIB4 });
            world.pass(10);
            for wire in &mut world.wires {
                wire.to.delay = (30, 30);
            }
            world.pass(40);
            assert!(world.done.iter().any(|d| d.0 == old), "the second copy was fast");
            let began = world.now;
            let new = world.ask(0, Ask::Write { offset: 1024, len: 700 });
            let other = world.ask(0, Ask::Write { offset: 64 * 1024, len: 700 });
            world.pass(5);
            assert!(world.done.iter().any(|d| d.0 == other), "what does not overlap is not held back");
            assert!(!world.done.iter().any(|d| d.0 == new), "a stale copy is on its way");
            assert!(world.settle(1100), "for a second at most");
            // As soon as the stale copy is answered nothing is left to wait for.
            assert!(world.now - began < Duration::from_micros(late), "after {:?}", world.now - began);
            world.ask(0, Ask::Read { offset: 0, len: KIB4 });
            world.curtain();
        }
    }
}

/// A full table of quarantines: what overlaps a stale copy waits, and nothing else does, however far away the others
/// are. What is lost meanwhile is sent again as soon as there is room.
#[test]
fn quarantine_a_full_table_holds_nobody_back_who_is_not_in_it() {
    const FEW: usize = 4;
    let mut world = Stage::default().set();
    world.units[0].quarantines = FEW;
    world.with_device(0, |d, _, _| d.set_quarantines(FEW));
    world.ask(0, Ask::Read { offset: 0, len: KIB4 });
    world.pass(5);
    world.wires[0].to.reorder = true;
    let slow = |world: &mut World, us: u64| world.wires[0].to.delay = (us, us);
    let sector = |n: u64| Ask::Write { offset: n * 512, len: 512 };
    slow(&mut world, 900_000);
    let old: Vec<u32> = (0..FEW as u64).map(|n| world.ask(0, sector(100 * n))).collect();
    world.pass(10);
    slow(&mut world, 30);
    world.pass(60);
    assert!(old.iter().all(|seq| world.done.iter().any(|d| d.0 == *seq)), "the second copies were fast");
    assert_eq!(world.units[0].device.status().quarantined, FEW);
    // In between and elsewhere, one after the other.
    for n in [1, 99, 150, 301, 4000] {
        let seq = world.ask(0, sector(n));
        world.pass(2);
        assert!(world.done.contains(&(seq, Ok(512))), "sector {n} waits, and no copy can reach it");
    }
    let held = world.ask(0, sector(200));
    // Its copy is lost: it cannot be sent again without a place for what is left over.
    world.wires[0].to.cut = true;
    let lost = world.ask(0, sector(2000));
    world.pass(1);
    world.wires[0].to.cut = false;
    for _ in 0..10 {
        world.ask(0, Ask::Read { offset: 0, len: 512 });
        world.pass(50);
    }
    assert!(!world.done.iter().any(|d| d.0 == held || d.0 == lost));
    let more = world.ask(0, sector(2001));
    world.pass(2);
    assert!(world.done.contains(&(more, Ok(512))), "nobody waits for the one that was lost");
    assert!(world.settle(500), "both go on when the stale copies have come");
    assert_eq!(world.judge.failed, 0);
    world.curtain();
}

/// A target that paused once may pause again, so its next silence is waited for. When that proves to be a loss, the
/// losses that follow are found soon, also where one request is made at a time and nothing can overtake it.
#[test]
fn throughput_one_by_one_a_pause_makes_no_loss_dear_for_long() {
    let mut world = Stage::default().set();
    world.ask(0, Ask::Read { offset: 0, len: 512 });
    world.pass(5);
    world.wires[0].to.delay = (100_000, 100_000);
    world.ask(0, Ask::Read { offset: 0, len: 512 });
    world.pass(300);
    world.wires[0].to.delay = (30, 30);
    let mut took = Vec::new();
    for n in 0..40 {
        for _ in 0..10 {
            world.ask(0, Ask::Read { offset: n * 512, len: 512 });
            world.pass(1);
        }
        world.wires[0].to.cut = true;
        let began = world.now;
        let seq = world.ask(0, Ask::Read { offset: n * 512, len: 512 });
        world.run_until(world.later(Duration::from_micros(20)));
        world.wires[0].to.cut = false;
        while !world.done.contains(&(seq, Ok(512))) && world.now - began < Duration::from_secs(5) {
            world.run_until(world.later(Duration::from_micros(100)));
        }
        took.push(world.now - began);
    }
    // The deviation that the pause has left behind shrinks with every answer.
    let within = |millis, from: usize| took[from..].iter().all(|took| *took < Duration::from_millis(millis));
    assert!(within(50, 1) && within(5, 5), "{took:?}");
    world.curtain();
}

/// The deadline of a write that waits for a stale copy says nothing about the target, which answers all others.
#[test]
fn deadline_of_a_write_that_waits_for_a_stale_copy_takes_nothing_down() {
    let mut world = Stage::default().set();
    world.set_deadline(0, Some(Duration::from_millis(500)));
    world.ask(0, Ask::Read { offset: 0, len: KIB4 });
    world.pass(5);
    world.wires[0].to.reorder = true;
    world.wires[0].to.delay = (900_000, 900_000);
    let old = world.ask(0, Ask::Write { offset: 0, len: KIB4 });
    world.pass(10);
    world.wires[0].to.delay = (30, 30);
    world.pass(40);
    assert!(world.done.iter().any(|d| d.0 == old), "the second copy was fast");
    let waits = [Ask::Write { offset: 512, len: 512 }, Ask::Flush].map(|ask| world.ask(0, ask));
    let mut reads = Vec::new();
    for n in 0..60 {
        reads.push(world.ask(0, Ask::Read { offset: 64 * 1024 + n * 512, len: 512 }));
        world.pass(10);
        assert!(world.units[0].device.is_up(), "after {n} reads");
    }
    assert!(waits.iter().all(|seq| world.done.contains(&(*seq, Err(Error::Io)))));
    assert!(reads.iter().all(|seq| world.done.contains(&(*seq, Ok(512)))));
    assert_eq!(world.units[0].device.status().stats.downs, 0);
    world.pass(1000);
    world.curtain();
}

/// A late copy of `config force A` must not undo `config force B`, also where the first one was given up.
#[test]
fn quarantine_holds_for_config_strings_too() {
    for given_up in [false, true] {
        let mut world = Stage::default().set();
        let force = |text: &[u8]| Ask::Config { verb: Verb::Force, string: text.to_vec() };
        world.wires[0].to.reorder = true;
        let late = if given_up { 2_500_000 } else { 900_000 };
        world.wires[0].to.delay = (late, late);
        let first = world.ask(0, force(b"A"));
        world.pass(10);
        world.wires[0].to.delay = (30, 30);
        if given_up {
            world.wires[0].to.cut = true;
            world.pass(2010);
            world.wires[0].to.cut = false;
        } else {
            world.pass(700);
        }
        assert!(world.done.iter().any(|d| d.0 == first && d.1.is_ok() != given_up), "{:?}", world.done);
        let second = world.ask(0, force(b"B"));
        assert!(world.settle(2000));
        assert!(world.done.iter().any(|d| d.0 == second && d.1.is_ok()));
        world.pass(2000);
        assert_eq!(world.targets[0].processor.string(), b"B");
        world.curtain();
    }
}

/// The same for a write that failed by its deadline: its copies may still come.
#[test]
fn quarantine_holds_for_failed_writes_too() {
    let mut world = Stage::default().set();
    world.set_deadline(0, Some(Duration::from_millis(300)));
    world.ask(0, Ask::Read { offset: 0, len: KIB4 });
    world.pass(5);
    world.wires[0].to.reorder = true;
    world.wires[0].to.delay = (700_000, 700_000);
    let old = world.ask(0, Ask::Write { offset: 0, len: KIB4 });
    world.pass(200);
    world.wires[0].to.delay = (30, 30);
    world.pass(110);
    assert_eq!(world.done.last(), Some(&(old, Err(Error::Io))));
    world.set_deadline(0, None);
    world.ask(0, Ask::Read { offset: 0, len: 512 });
    for _ in 0..20 {
        world.pass(10);
        world.ask(0, Ask::Read { offset: 0, len: 512 });
    }
    let new = world.ask(0, Ask::Write { offset: 0, len: KIB4 });
    world.pass(50);
    assert!(!world.done.iter().any(|d| d.0 == new));
    assert!(world.settle(2000));
    assert_eq!(world.done.last(), Some(&(new, Ok(KIB4))));
    world.curtain();
}

/// L4: one buffer, an error at the last frame of one request, three in the queue.
#[test]
fn window_1_error_on_last_frame() {
    for writes in [false, true] {
        let mut world = Stage { buffers: 1, mtu: 1500, ..Stage::default() }.set();
        let ask = |offset: u64| {
            if writes { Ask::Write { offset, len: 8 * 512 } } else { Ask::Read { offset, len: 8 * 512 } }
        };
        let first = world.ask(0, ask(0));
        let rest: Vec<u32> = (1..4).map(|n| world.ask(0, ask(n * KIB4 as u64))).collect();
        // Until the last frame of the first request is on its way.
        while world.targets[0].look().reads + world.targets[0].look().executions < 6 {
            assert!(world.step());
        }
        let all = Faults { read: 1.0, write: 1.0, flush: 1.0 };
        world.targets[0].disk().faults = all;
        while world.done.is_empty() {
            assert!(world.step());
        }
        world.targets[0].disk().faults = Faults::default();
        assert_eq!(world.done[0], (first, Err(Error::Io)));
        assert!(world.settle(1000));
        assert_eq!(world.done[1..], rest.iter().map(|n| (*n, Ok(KIB4))).collect::<Vec<_>>());
        assert!(world.units[0].device.is_up(), "an error is no loss of contact");
        world.curtain();
    }
}

/// D4: a quarter of all reads fails; each error reaches exactly its request.
#[test]
fn d4_every_error_reaches_its_own_request() {
    let mut world = Stage { sectors: 4096, ..Stage::default() }.set();
    world.targets[0].disk().faults.read = 0.25;
    let asked: Vec<(u32, u64)> = (0..500)
        .map(|n| {
            let seq = world.ask(0, Ask::Read { offset: n * KIB4 as u64, len: KIB4 });
            world.run_until(world.later(Duration::from_micros(100)));
            (seq, n * 8)
        })
        .collect();
    assert!(world.settle(1000));
    let failed = &world.targets[0].look().failed;
    for (seq, at) in asked {
        let fault = failed.iter().any(|f| f.1 < at + 8 && at < f.2);
        let end = world.done.iter().find(|d| d.0 == seq).unwrap().1;
        assert_eq!(end, if fault { Err(Error::Io) } else { Ok(KIB4) }, "#{seq}");
    }
    assert!(failed.len() > 80);
    world.targets[0].disk().faults = Faults::default();
    world.curtain();
}

/// P3: sixteen frames out, ten seconds of silence. devaoe would send about 1,500 copies.
#[test]
fn p3_retransmit_discipline_target_silent_10s() {
    let mut world = Stage::default().set();
    for n in 0..200 {
        world.ask(0, Ask::Read { offset: n * 8192, len: 8192 });
    }
    assert!(world.settle(1000));
    for n in 0..100 {
        world.ask(0, Ask::Read { offset: n * 8192, len: 8192 });
    }
    world.run_until(world.later(Duration::from_micros(400)));
    world.targets[0].die();
    let before = world.figures;
    world.pass(10_000);
    let copies = world.figures.transfers - before.transfers;
    let questions = world.figures.frames - before.frames - copies;
    // log2 of ten seconds over 20 ms, and two.
    println!("p3: {copies} copies and {questions} questions in ten seconds");
    assert!(copies <= 16 * 11, "{copies} copies");
    assert!(questions <= 25, "{questions} IDENTIFYs and queries");
    world.targets[0].alive = true;
    world.announce(0);
    assert!(world.settle(1000));
    world.curtain();
}

fn hole(world: &mut World, bytes: usize) {
    for wire in &mut world.wires {
        wire.to.hole = bytes;
        wire.from.hole = bytes;
    }
}

/// T7: after ten seconds of jumbo frames, frames above 1514 bytes vanish; after a while they pass again.
#[test]
fn t7_jumbo_black_hole_falls_back_within_2s() {
    for (len, depth) in [(1 << 20, 4), (KIB4, 1), (KIB4, 32), (700, 1)] {
        let mut world = Stage { sectors: 1 << 16, ..Stage::default() }.set();
        let pump = |world: &mut World, from: Time, millis: u64| {
            let until = from + Duration::from_millis(millis);
            let mut n = 0;
            while world.now < until {
                while world.judge.pending.len() < depth {
                    n += 1;
                    let offset = n * 65536 % (30 << 20);
                    let ask = if n % 2 == 0 { Ask::Read { offset, len } } else { Ask::Write { offset, len } };
                    world.ask(0, ask);
                }
                world.run_until((world.now + Duration::from_millis(1)).min(until));
            }
        };
        let now = world.now;
        pump(&mut world, now, 200);
        hole(&mut world, 1514);
        world.done.clear();
        let now = world.now;
        pump(&mut world, now, 2000);
        let done = world.done.len();
        world.done.clear();
        let now = world.now;
        pump(&mut world, now, 500);
        println!(
            "t7: {len} bytes, depth {depth}: {done} in the two seconds, {} in half a second after",
            world.done.len()
        );
        assert!(!world.done.is_empty(), "{len} bytes, depth {depth}: nothing passes after two seconds");
        if len > 1024 {
            assert_eq!(world.units[0].device.status().maxbcnt, 1024);
        }
        hole(&mut world, usize::MAX);
        world.settle(5000);
        world.pass(60_000);
        assert_eq!(world.units[0].device.status().maxbcnt, 8192, "back to jumbo within a minute");
        world.curtain();
    }
}

/// N5: two links, one dies: the other carries at least 90 % of what one link carries within three seconds.
#[test]
fn n5_one_of_two_links_dies() {
    let run = |nets, cut: bool| {
        let mut world = Stage { nets, sectors: 1 << 16, ..Stage::default() }.set();
        let mut n = 0;
        let mut pump = |world: &mut World, millis: u64| {
            let until = world.later(Duration::from_millis(millis));
            while world.now < until && world.step() {
                while world.judge.pending.len() < 4 {
                    n += 1;
                    world.ask(0, Ask::Read { offset: (n % 16) << 20, len: 1 << 20 });
                }
            }
        };
        world.ask(0, Ask::Read { offset: 0, len: 512 });
        pump(&mut world, 500);
        if cut {
            (world.wires[0].to.cut, world.wires[0].from.cut) = (true, true);
            pump(&mut world, 3000);
        }
        world.done.clear();
        pump(&mut world, 1000);
        let done = world.done.len();
        (world.wires[0].to.cut, world.wires[0].from.cut) = (false, false);
        world.curtain();
        done
    };
    let (one, two) = (run(1, false), run(2, true));
    println!("n5: {one} MiB/s over one link, {two} over two of which one died");
    assert!(two as f64 >= 0.9 * one as f64);
}

/// A frame that nobody sent.
fn forged(
    world: &World,
    src: Mac,
    addr: Addr,
    tag: Tag,
    command: Command,
    error: Option<Refusal>,
) -> Vec<u8> {
    let dst = if tag == Tag::UNSOLICITED { Mac::BROADCAST } else { world.nets[0].mac };
    let mut frame = vec![0; MIN_FRAME];
    Header { dst, src, version: 1, response: true, error, addr, command, tag }.emit(&mut frame);
    if command == Command::Config {
        let lie = Config { buffers: 1, sectors: 1, firmware: 1, ..Config::request(Verb::Read, &[]) };
        lie.emit(&mut frame[24..24 + CONFIG_LEN]);
    }
    frame
}

/// X4: 65,536 targets announce themselves in ten seconds that do not exist. Work goes on, memory is bounded.
#[test]
fn x4_a_flood_of_forged_targets_is_bounded() {
    let mut world = Stage::default().set();
    let mut rng = Rng::new(4);
    for n in 0..65_536u32 {
        let src = Mac([2, 9, 0, 0, (n >> 8) as u8, n as u8]);
        let addr = Addr::new((n >> 4) as u16, n as u8 & 15);
        if addr != Addr::new(1, 0) {
            let frame = forged(&world, src, addr, Tag::UNSOLICITED, Command::Config, None);
            world.forge(0, frame);
        }
        if n % 64 == 0 {
            world.ask(0, Ask::Write { offset: rng.below(4000) * 512, len: KIB4 });
        }
        world.run_until(world.later(Duration::from_micros(150)));
        assert!(world.discovery.candidates() <= 4096);
    }
    assert!(world.settle(100));
    assert_eq!(world.judge.failed, 0);
    assert!(world.units.len() == 1 && world.figures.frames < 65_536 * 2);
    world.pass(120_000);
    assert_eq!(world.discovery.candidates(), 0, "forgotten after a minute");
    world.curtain();
}

/// S1, S2, S3: perfect-looking answers from strangers, guessed tags from the target's MAC, lies about its limits.
#[test]
fn s_strangers_and_guesses_change_nothing() {
    let mut world = Stage::default().set();
    let mut rng = Rng::new(5);
    let (live, own) = (Addr::new(1, 0), world.targets[0].macs[0]);
    let stranger = Mac([2, 9, 9, 9, 9, 9]);
    for n in 0..20_000u64 {
        if n % 10 == 0 {
            world.ask(0, Ask::Read { offset: n % 4000 * 512, len: KIB4 });
            world.ask(0, Ask::Write { offset: n % 4000 * 512, len: KIB4 });
        }
        let guess = Tag(rng.next() as u32 | Tag::OURS);
        let seen = world.last_tag;
        let frame = match rng.below(6) {
            0 => forged(&world, stranger, live, seen, Command::Ata, Some(Refusal::Unavailable)),
            1 => forged(&world, stranger, live, seen, Command::Ata, None),
            2 => forged(&world, own, live, guess, Command::Ata, Some(Refusal::Unavailable)),
            3 => forged(&world, stranger, live, guess, Command::Config, None),
            4 => forged(&world, own, live, guess, Command::Config, None),
            _ => forged(&world, stranger, live, Tag::UNSOLICITED, Command::Config, None),
        };
        world.forge(0, frame);
        world.run_until(world.later(Duration::from_micros(50)));
    }
    assert!(world.settle(100));
    assert_eq!(world.judge.failed, 0);
    let s = world.units[0].device.status();
    assert_eq!((s.nframes, s.maxbcnt), (16, 8192), "limits are believed only when they were asked for");
    world.pass(20_000);
    assert_eq!(world.units[0].device.paths().len(), 1);
    assert_eq!(world.targets[0].look().sectors(), 4096);
    world.curtain();
}

/// An answer to a probe comes twice: that says nothing about the copies that were given up before, and the window
/// stays halved.
#[test]
fn window_a_repeated_answer_to_a_probe_forgives_nothing() {
    let mut world = Stage::default().set();
    let read = |world: &mut World| world.ask(0, Ask::Read { offset: 0, len: 1 << 20 });
    let window = |world: &World| world.units[0].device.paths()[0].window;
    read(&mut world);
    assert!(world.settle(1000));
    let before = window(&world);
    assert!(before > 8, "{before}");
    // The answer to one frame is lost, and nothing follows that could make the window grow again.
    world.wires[0].from.cut = true;
    world.ask(0, Ask::Read { offset: 0, len: KIB4 });
    let until = world.later(Duration::from_secs(1));
    while window(&world) == before && world.now < until {
        world.pass(1);
    }
    world.wires[0].from.cut = false;
    assert!(world.settle(2000));
    let halved = window(&world);
    assert!(halved < before, "{halved} of {before}");
    world.wires[0].from.echoes = 1;
    world.with_device(0, |device, now, sink| device.probe(now, sink));
    world.pass(100);
    assert!(world.units[0].device.paths()[0].probed.is_some());
    assert_eq!(window(&world), halved);
    world.curtain();
}

/// Forged announcements of MACs that say nothing hold all the places of unproven paths; the target's second port,
/// which answers a query, becomes a path all the same. And they cost a real announcement no credit.
#[test]
fn a_path_that_answers_beats_those_that_were_announced() {
    let mut world = Stage::default().set();
    let own = Addr::new(1, 0);
    let second = Mac([2, 0, 0, 0, 10, 1]);
    world.targets[0].macs.push(second);
    let forge = |world: &mut World| {
        for n in 0..6 {
            let frame = forged(world, Mac([2, 9, 0, 0, 0, n]), own, Tag::UNSOLICITED, Command::Config, None);
            world.forge(0, frame);
        }
        world.pass(1);
    };
    forge(&mut world);
    let before = world.units[0].device.status().stats.confirmations;
    world.announce(0);
    world.pass(10);
    assert_eq!(world.units[0].device.status().stats.confirmations, before + 1, "a real announcement counts");
    forge(&mut world);
    world.add_wire(0, 0, 1, 30);
    world.query(0);
    world.pass(10);
    let paths = world.units[0].device.paths();
    let active = |mac| paths.iter().any(|p| p.mac == mac && p.trust == aoefs::engine::Trust::Active);
    assert!(active(second), "{paths:?}");
    world.curtain();
}

/// The target answers another initiator behind the same MAC, as it answers the kernel's driver: that is no
/// announcement.
#[test]
fn an_answer_to_another_initiator_is_no_announcement() {
    let mut world = Stage::default().set();
    let own = world.targets[0].macs[0];
    let frame = forged(&world, own, Addr::new(1, 0), Tag::UNSOLICITED, Command::Config, None);
    let mut answer = frame.clone();
    answer[..6].copy_from_slice(&world.nets[0].mac.0);
    let before = world.units[0].device.status().stats;
    for _ in 0..10 {
        world.forge(0, answer.clone());
        world.pass(1);
    }
    let after = world.units[0].device.status().stats;
    assert_eq!(after.confirmations, before.confirmations);
    assert_eq!(after.unexpected, before.unexpected + 10);
    // From a stranger it makes no candidate either; what goes to all is one, and so is what vblade sends to the hosts
    // it knows.
    answer[16..19].copy_from_slice(&[0, 9, 9]);
    world.forge(0, answer.clone());
    world.pass(1);
    assert_eq!(world.discovery.candidates(), 0);
    answer[14] = 0x08;
    world.forge(0, answer);
    world.pass(1);
    assert_eq!(world.discovery.candidates(), 1);
    world.forge(0, frame);
    world.pass(1);
    assert_eq!(world.units[0].device.status().stats.confirmations, before.confirmations + 1);
    world.curtain();
}
