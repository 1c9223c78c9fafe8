//! Scenes of reading ahead: what is recognised, what is given from memory, and everything that must throw it away.

use std::time::Duration;

use super::ask::Ask;
use super::disk::Disk;
use super::stage::Stage;
use super::target::Service;
use super::world::World;
use aoefs::engine::{AHEAD_MAX, Error, Io, Op, Request, Stream, WINDOW};
use aoefs::wire::{Ata, SECTOR};

const KIB4: usize = 4096;
/// Where the third read of the reader begins, and the first one that may be answered from memory.
const THIRD: u64 = 2 * KIB4 as u64;
/// The first sector of that, and sectors of a read.
const AT: u64 = THIRD / SECTOR as u64;
const EACH: u64 = (KIB4 / SECTOR) as u64;

fn stage() -> World {
    Stage { sectors: 1 << 14, ..Stage::default() }.set()
}

/// A reader has read twice in sequence, and what was fetched for it then is here.
fn warm(world: &mut World) {
    begin(world);
    world.pass(20);
    assert!(world.pool.ahead() > 0, "something was fetched");
}

/// The same, a moment after the second answer: the fetches are on their way.
fn begin(world: &mut World) {
    for n in 0..2 {
        assert!(!read(world, n), "nothing is here yet");
        assert!(world.settle(50));
    }
}

/// The reader's `n`th read of 4 KiB. True if it was answered at once.
fn read(world: &mut World, n: u64) -> bool {
    let seq = world.stream(1, n * KIB4 as u64, KIB4);
    world.done.iter().any(|d| d.0 == seq && d.1 == Ok(KIB4))
}

fn wasted(world: &World) -> u64 {
    world.units[0].device.status().stats.ahead_wasted
}

fn served(world: &World) -> u64 {
    world.units[0].device.status().stats.ahead_served
}

#[test]
fn ahead_a_sequence_is_answered_from_memory_without_frames() {
    let mut world = stage();
    warm(&mut world);
    let (frames, reads) = (world.figures.transfers, world.targets[0].look().reads);
    for n in 2..30 {
        assert!(read(&mut world, n), "read {n}");
    }
    assert_eq!(world.figures.transfers, frames, "nothing left for them");
    assert_eq!(served(&world), 28 * KIB4 as u64);
    let ops = world.units[0].device.status().stats.ops[0];
    assert_eq!((ops.requests, ops.bytes, ops.latency.count), (30, 30 * KIB4 as u64, 30), "the reader's own");
    for n in 30..400 {
        read(&mut world, n);
        world.pass(1);
    }
    let more = world.targets[0].look().reads - reads;
    assert!(more <= 400 * EACH + WINDOW / SECTOR as u64, "{more} sectors: each was read once");
    world.curtain();
}

#[test]
fn ahead_who_jumps_or_is_no_stream_or_has_no_window_is_not_read_ahead_of() {
    let mut world = stage();
    let plain = |world: &mut World, n: u64| {
        world.ask(0, Ask::Read { offset: n * KIB4 as u64, len: KIB4 });
    };
    for n in [0, 900, 300, 1500, 600, 1800] {
        read(&mut world, n);
        assert!(world.settle(50));
    }
    (0..6).for_each(|n| plain(&mut world, n));
    world.pass(20);
    world.units[0].device.set_read_ahead(0);
    for n in 0..6 {
        world.stream(2, n * KIB4 as u64, KIB4);
        assert!(world.settle(50));
    }
    world.pass(20);
    assert_eq!(world.targets[0].look().reads, 18 * EACH, "what was asked for, and no sector more");
    world.curtain();
}

/// Reads whose ends are no sectors' ends, across pieces: the judge knows every byte.
#[test]
fn ahead_reads_of_any_length_get_the_right_bytes() {
    const MIB: usize = 1 << 20;
    for len in [1, 700, 4196, 70_001] {
        let mut world = stage();
        world.ask(0, Ask::Write { offset: 0, len: MIB });
        assert!(world.settle(500));
        world.pass(1100);
        let reads = (MIB / len).min(200) as u64;
        for n in 0..reads {
            world.stream(1, n * len as u64, len);
            world.pass(2);
        }
        assert!(served(&world) >= (reads - 4) * len as u64, "{} of {reads} of {len}", served(&world));
        world.curtain();
    }
}

/// Everything that may change sectors, each in the same place.
fn changes() -> Vec<Ask> {
    vec![
        Ask::Write { offset: THIRD, len: KIB4 },
        Ask::Write { offset: THIRD + 5, len: 3 },
        Ask::Zero { offset: THIRD, len: KIB4 },
        Ask::Trim { offset: THIRD, len: KIB4 as u64 },
        Ask::RawWrite { at: AT + EACH - 1, count: 1 },
    ]
}

#[test]
fn ahead_what_may_change_sectors_throws_away_what_was_read_of_them() {
    for change in changes() {
        let mut world = stage();
        warm(&mut world);
        let held = world.pool.ahead();
        world.ask(0, change.clone());
        assert!(world.pool.ahead() < held, "{change:?}: the moment that it is submitted");
        assert!(wasted(&world) > 0, "{change:?}");
        assert!(!read(&mut world, 2), "{change:?}: before it is answered");
        assert!(world.settle(50));
        read(&mut world, 2);
        assert!(world.settle(50));
        assert!(read(&mut world, 40), "{change:?}: what lies beside it is still here");
        world.curtain();
    }
}

#[test]
fn ahead_a_command_that_nobody_knows_throws_all_of_it_away_and_a_harmless_one_nothing() {
    let mut world = stage();
    warm(&mut world);
    world.ask(0, Ask::Smart);
    world.ask(0, Ask::RawRead { at: AT, count: 1 });
    world.ask(0, Ask::Flush);
    assert!(world.settle(50));
    assert!(read(&mut world, 2), "harmless");
    let handle = world.units[0].device.handle(None);
    let io = Io::Ata { ata: Ata { command: 0xff, ..Ata::default() }, data: Vec::new(), expect: 0 };
    let request = Request { io, handle, nonblock: false, stream: None, reply: 0 };
    let held = world.pool.ahead();
    world.units[0].device.submit(world.now, request, &mut aoefs::engine::Sink::new(world.pool.clone()));
    assert!(held > 0 && world.pool.ahead() == 0, "{held}");
    assert!(!read(&mut world, 3));
}

/// A raw write holds up no read. What is read meanwhile may be from before it, and must not be given to anybody after
/// it.
#[test]
fn ahead_nothing_is_fetched_of_what_a_raw_command_may_be_changing() {
    let mut world = stage();
    read(&mut world, 0);
    assert!(world.settle(50));
    world.wires[0].to.delay = (20_000, 20_000);
    world.wires[0].to.reorder = true;
    world.ask(0, Ask::RawWrite { at: AT, count: 1 });
    world.wires[0].to.delay = (30, 30);
    read(&mut world, 1);
    world.pass(10);
    assert_eq!(world.pool.ahead(), 0, "nothing is fetched now");
    assert!(world.settle(100));
    read(&mut world, 2);
    assert!(world.settle(50));
    world.curtain();
}

/// The same for copies of a write that are still on their way.
#[test]
fn ahead_nothing_is_fetched_of_what_a_late_copy_may_still_change() {
    let mut world = stage();
    read(&mut world, 0);
    assert!(world.settle(50));
    world.set_deadline(0, Some(Duration::from_millis(300)));
    world.wires[0].to.reorder = true;
    world.wires[0].to.delay = (700_000, 700_000);
    let old = world.ask(0, Ask::Write { offset: THIRD, len: KIB4 });
    world.pass(200);
    world.wires[0].to.delay = (30, 30);
    world.pass(110);
    assert_eq!(world.done.last(), Some(&(old, Err(Error::Io))));
    world.set_deadline(0, None);
    world.ask(0, Ask::Read { offset: 0, len: 512 });
    for n in 1..20 {
        read(&mut world, n);
        world.pass(50);
    }
    world.curtain();
}

/// What was on its way when a write was submitted is not kept, although it comes after the write was answered.
#[test]
fn ahead_a_fetch_that_a_write_overtakes_is_not_kept() {
    for cut_off in [false, true] {
        let mut world = stage();
        read(&mut world, 0);
        assert!(world.settle(50));
        world.wires[0].from.reorder = true;
        read(&mut world, 1);
        // The fetch is executed at once, and its answers take a while.
        world.wires[0].from.delay = (15_000, 15_000);
        world.pass(2);
        world.wires[0].from.delay = (30, 30);
        let write = world.ask(0, Ask::Write { offset: THIRD, len: KIB4 });
        if cut_off {
            read(&mut world, 2);
        }
        world.pass(8);
        assert!(world.done.iter().any(|d| d.0 == write), "the write was fast");
        read(&mut world, 2);
        world.pass(15);
        read(&mut world, 2);
        assert!(world.settle(50));
        world.curtain();
    }
}

/// A reader that waits for a fetch when a write comes gets its bytes by itself, and in time.
#[test]
fn ahead_a_reader_whose_fetch_is_thrown_away_asks_for_itself() {
    let mut world = stage();
    read(&mut world, 0);
    assert!(world.settle(50));
    world.targets[0].service.base = 500;
    read(&mut world, 1);
    world.pass(5);
    assert!(!read(&mut world, 10), "it is on its way");
    let frames = world.figures.transfers;
    world.pass(1);
    world.ask(0, Ask::Write { offset: 10 * KIB4 as u64, len: 512 });
    assert!(world.settle(100));
    assert!(world.figures.transfers > frames);
    world.curtain();
}

#[test]
fn ahead_doubt_about_the_disk_throws_all_of_it_away() {
    type Cause = (&'static str, fn(&mut World));
    let causes: [Cause; 4] = [
        ("identify", |w| w.with_device(0, |d, now, sink| d.identify(now, sink))),
        ("sleep", |w| {
            w.sleep();
            w.with_device(0, |_, _, _| ());
        }),
        ("announcement", |w| {
            w.announce(0);
            w.pass(1);
        }),
        ("failio", |w| {
            w.tick += 1;
            w.units[0].failio = w.tick;
            w.with_device(0, |d, now, sink| d.fail_all(now, sink));
        }),
    ];
    for (name, cause) in causes {
        let mut world = stage();
        warm(&mut world);
        cause(&mut world);
        assert_eq!(world.pool.ahead(), 0, "{name}");
        assert!(!read(&mut world, 2), "{name}");
        world.curtain();
    }
}

#[test]
fn ahead_another_disk_answers_with_its_own_bytes() {
    let mut world = stage();
    warm(&mut world);
    let old = world.targets[0].swap(Disk::new(1, 4096, 5));
    world.shelf.push(old);
    world.targets[0].restarted = Some(world.now.0);
    let handle = world.units[0].device.handle(None);
    world.announce(0);
    assert!(world.settle(2000));
    world.pass(100);
    assert_eq!((world.units[0].device.generation(), world.pool.ahead()), (2, 0));
    world.done.clear();
    let ask = Ask::Read { offset: THIRD, len: KIB4 };
    let stale = world.submit_for(Some(Stream(1)), 0, handle, false, ask);
    assert_eq!(world.done.last(), Some(&(stale, Err(Error::Stale))));
    assert!(!read(&mut world, 2), "the new disk is asked");
    world.curtain();
}

#[test]
fn ahead_what_another_host_writes_shows_within_a_second() {
    let mut world = stage();
    world.targets[0].disk().remembers = true;
    warm(&mut world);
    let began = world.now;
    let seq = world.judge.number();
    world.tick += 1;
    let tick = world.tick;
    let disk = world.targets[0].disk();
    disk.tick = tick;
    disk.strange_write(seq, 0, 400);
    let mut at_once = 0;
    for n in 2..40 {
        at_once += u64::from(read(&mut world, n));
        world.pass(30);
    }
    assert!(at_once > 10 && world.now - began > Duration::from_secs(1), "{at_once}");
    world.curtain();
}

/// The age of a piece counts from when it was asked for, not from when it came.
#[test]
fn ahead_a_slow_fetch_is_old_when_it_comes() {
    const MIB: usize = 1 << 20;
    for (wait, at_once) in [(950, true), (1050, false)] {
        let mut world = stage();
        // A MiB takes 400 ms.
        world.targets[0].service = Service { base: 1, per_kib: 390_000, stall: (0.0, 0) };
        world.stream(1, 0, MIB);
        assert!(world.settle(600));
        let began = world.now;
        world.stream(1, MIB as u64, MIB);
        assert!(world.settle(600));
        world.run_until(began + Duration::from_millis(wait));
        let seq = world.stream(1, 2 * MIB as u64, MIB);
        assert_eq!(world.done.iter().any(|d| d.0 == seq), at_once, "after {wait} ms");
        world.curtain();
    }
}

#[test]
fn ahead_memory_is_bounded_over_all_readers_and_freed_when_they_close() {
    let mut world = Stage { sectors: 1 << 20, buffers: 128, ..Stage::default() }.set();
    world.targets[0].service = Service { base: 1, per_kib: 10, stall: (0.0, 0) };
    let mut most = 0;
    let apart = 12 << 20;
    for n in 0..12 {
        for stream in 0..40 {
            world.stream(stream, stream * apart + n * (128 << 10), 128 << 10);
            most = most.max(world.pool.ahead());
        }
        assert!(world.settle(500));
        world.pass(5);
        most = most.max(world.pool.ahead());
    }
    assert!((AHEAD_MAX - (1 << 20)..=AHEAD_MAX).contains(&most), "{most}");
    let before = wasted(&world);
    for stream in 0..40 {
        world.with_device(0, |d, now, sink| d.close_stream(Stream(stream), now, sink));
    }
    world.pass(20);
    assert_eq!(world.pool.ahead(), 0);
    assert!(wasted(&world) > before);
    world.curtain();
}

#[test]
fn ahead_a_fetch_that_fails_is_silent_and_the_reader_asks_for_itself() {
    for waits in [false, true] {
        let mut world = stage();
        world.trace = Some(Vec::new());
        read(&mut world, 0);
        assert!(world.settle(50));
        read(&mut world, 1);
        world.targets[0].disk().faults.read = 1.0;
        // The second read was executed before the fetch was.
        let first = world.targets[0].look().reads + EACH;
        world.targets[0].disk().faults.read = 0.0;
        while world.targets[0].look().reads < first {
            world.step();
        }
        world.targets[0].disk().faults.read = 1.0;
        if waits {
            read(&mut world, 2);
        }
        while world.targets[0].look().failed.is_empty() {
            world.step();
        }
        world.targets[0].disk().faults.read = 0.0;
        world.pass(20);
        if !waits {
            read(&mut world, 2);
        }
        assert!(world.settle(100));
        assert!(world.done.iter().all(|d| d.1 == Ok(KIB4)), "{:?}", world.done);
        let stats = world.units[0].device.status().stats;
        assert_eq!((stats.ops[0].errors, stats.downs), (0, 0));
        let said = world.trace.take().unwrap_or_default();
        assert!(!said.iter().any(|line| line.contains("failed at")), "nothing in the log");
        world.curtain();
    }
}

#[test]
fn ahead_two_readers_of_one_disk_do_not_disturb_each_other() {
    let mut world = stage();
    let mut at_once = [0, 0];
    for n in 0..60 {
        for (stream, at_once) in at_once.iter_mut().enumerate() {
            let offset = stream as u64 * (4 << 20) + n * KIB4 as u64;
            let seq = world.stream(stream as u64, offset, KIB4);
            *at_once += u32::from(world.done.iter().any(|d| d.0 == seq));
        }
        world.pass(2);
    }
    assert!(at_once.iter().all(|n| *n > 50), "{at_once:?}");
    world.curtain();
}

/// Nobody waits for a fetch: that it is not answered makes no target go down, and keeps nobody asking.
#[test]
fn ahead_a_dead_target_goes_down_by_users_only() {
    let mut world = stage();
    world.set_deadline(0, Some(Duration::from_secs(1)));
    begin(&mut world);
    world.targets[0].die();
    world.pass(10_000);
    assert!(world.units[0].device.is_up(), "nobody asked for anything");
    let sent = world.figures.frames;
    world.pass(60_000);
    assert!(world.figures.frames - sent < 20, "{} frames for nobody", world.figures.frames - sent);
    assert_eq!((world.units[0].device.frames(), world.pool.ahead()), (0, 0));
    world.done.clear();
    let began = world.now;
    let seq = world.stream(1, THIRD, KIB4);
    assert!(world.settle(2000));
    assert_eq!(world.done, [(seq, Err(Error::Io))]);
    assert!(world.now - began < Duration::from_millis(1300), "its deadline");
    assert!(!world.units[0].device.is_up());
    world.targets[0].alive = true;
    world.targets[0].restarted = Some(world.now.0);
    world.announce(0);
    world.curtain();
}

/// A target that answers everything else, and this never.
#[test]
fn ahead_a_slow_fetch_ends_with_the_deadline_and_nobody_is_told() {
    let mut world = stage();
    world.set_deadline(0, Some(Duration::from_millis(600)));
    read(&mut world, 0);
    assert!(world.settle(50));
    world.targets[0].service.base = 300;
    read(&mut world, 1);
    assert!(world.settle(50));
    assert!(world.pool.ahead() > 0 && world.units[0].device.frames() > 0, "the fetch is on its way");
    // Answers that carry data are lost from here on. Those to writes arrive, and say nothing against the disk.
    world.wires[0].from.hole = 100;
    let began = world.now;
    while world.now - began < Duration::from_millis(900) {
        world.ask(0, Ask::Write { offset: 4 << 20, len: 512 });
        world.pass(5);
    }
    assert_eq!(world.units[0].device.frames(), 0, "the fetch is given up");
    assert!(world.units[0].device.is_up());
    let stats = world.units[0].device.status().stats;
    assert_eq!((stats.downs, stats.ops[Op::Read as usize].errors), (0, 0));
    world.wires[0].heal();
    world.curtain();
}

/// A reader that waits for a fetch when the target dies has the deadline that any read has.
#[test]
fn ahead_a_reader_that_waits_has_its_own_deadline() {
    let mut world = stage();
    world.set_deadline(0, Some(Duration::from_millis(700)));
    read(&mut world, 0);
    assert!(world.settle(50));
    world.targets[0].service.base = 1000;
    read(&mut world, 1);
    assert!(world.settle(50));
    let seq = world.stream(1, 20 * KIB4 as u64, KIB4);
    assert!(!world.done.iter().any(|d| d.0 == seq), "it waits");
    world.targets[0].die();
    let began = world.now;
    assert!(world.settle(2000));
    assert_eq!(world.done.last(), Some(&(seq, Err(Error::Io))));
    assert!(world.now - began < Duration::from_millis(1000), "{:?}", world.now - began);
    world.targets[0].alive = true;
    world.curtain();
}

#[test]
fn ahead_what_a_target_gave_is_not_given_while_it_is_down() {
    let mut world = stage();
    warm(&mut world);
    world.nets[0].up = false;
    world.tick += 1;
    world.units[0].failio = world.tick;
    world.with_device(0, |d, now, sink| d.fail_all(now, sink));
    world.done.clear();
    let seq = world.stream(1, THIRD, KIB4);
    assert_eq!(world.done, [(seq, Err(Error::Io))]);
    world.set_nofail(0, true);
    assert!(!read(&mut world, 2), "nor under nofail");
    world.pass(50);
    world.nets[0].up = true;
    assert!(world.settle(5000));
    world.curtain();
}

#[test]
fn ahead_ends_where_the_partition_ends() {
    let mut world = stage();
    let part = world.with_device(0, |d, _, _| d.add_partition("p", 16, 116)).unwrap();
    let handle = world.units[0].device.handle(Some(part));
    for n in 0..14 {
        let ask = Ask::Read { offset: n * KIB4 as u64, len: KIB4 };
        world.submit_for(Some(Stream(1)), 0, handle, false, ask);
        world.pass(5);
    }
    assert_eq!(world.targets[0].look().reads, 100, "each sector once, and none behind the end");
    world.curtain();
}

/// With one buffer a fetch of 128 KiB takes 16 frames. A reader that asks meanwhile waits for the one that is on its
/// way.
#[test]
fn ahead_a_user_goes_before_what_nobody_waits_for() {
    let mut world = Stage { sectors: 1 << 14, buffers: 1, ..Stage::default() }.set();
    world.targets[0].service.base = 1000;
    begin(&mut world);
    let frames = world.figures.transfers;
    let seq = world.ask(0, Ask::Read { offset: 4 << 20, len: KIB4 });
    while !world.done.iter().any(|d| d.0 == seq) && world.step() {}
    let before = world.figures.transfers - frames;
    assert!(before <= 3, "{before} frames left until it was answered");
    world.pass(100);
    world.curtain();
}

/// T1: small reads one by one take less than half the time, and larger ones less than four fifths.
#[test]
fn ahead_is_faster() {
    for (len, share) in [(4 << 10, 0.5), (64 << 10, 0.8), (1 << 20, 0.8)] {
        let took = [0, WINDOW].map(|window| {
            let mut world = Stage { sectors: 1 << 16, way: 100, ..Stage::default() }.set();
            world.units[0].device.set_read_ahead(window);
            let began = world.now;
            for n in 0..(16 << 20) / len {
                let seq = world.stream(1, n * len, len as usize);
                while !world.done.iter().any(|d| d.0 == seq) && world.step() {}
                world.done.clear();
                // What its reader does with them.
                world.run_until(world.later(Duration::from_micros(len >> 9)));
            }
            let took = (world.now - began).as_secs_f64();
            world.curtain();
            took
        });
        println!("reads of {len}: {took:.4?} s without and with");
        assert!(took[1] < share * took[0], "reads of {len}: {took:?}");
    }
}
