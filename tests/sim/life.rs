//! Scenes from the life of a target: death, return, another disk in its place, deadlines. Names begin with the
//! catalogue's id or the promise.

use std::time::Duration;

use super::ask::Ask;
use super::disk::Disk;
use super::stage::Stage;
use super::target::Target;
use super::world::World;
use aoefs::engine::{Error, Time};
use aoefs::target::Image;
use aoefs::wire::{Addr, Mac};

const KIB4: usize = 4096;

/// Writes of 4 KiB one behind the other, beginning with block `from`.
pub fn writes(world: &mut World, from: u64, count: u64) -> Vec<u32> {
    (from..from + count).map(|n| world.ask(0, Ask::Write { offset: n * KIB4 as u64, len: KIB4 })).collect()
}

/// The target comes back, as another disk if there is one.
pub fn back(world: &mut World, disk: Option<Disk>, announce: bool) {
    if let Some(disk) = disk {
        let old = world.targets[0].swap(disk);
        world.shelf.push(old);
    }
    world.targets[0].alive = true;
    world.targets[0].restarted = Some(world.now.0);
    if announce {
        world.announce(0);
    }
}

pub fn executions(world: &World) -> u64 {
    world.targets[0].look().executions
}

pub fn errors(world: &World, error: Error) -> usize {
    world.done.iter().filter(|d| d.1 == Err(error)).count()
}

/// M2: the target dies, and 300 ms later another disk of the same size and model answers under its address.
#[test]
fn identity_swap_within_300ms_with_100_writes_queued() {
    for seed in 0..50 {
        let mut world = Stage { seed, ..Stage::default() }.set();
        writes(&mut world, 0, 8);
        world.pass(1);
        world.done.clear();
        writes(&mut world, 8, 100);
        world.run_until(world.later(Duration::from_micros(200 + 10 * seed)));
        world.targets[0].die();
        world.pass(300);
        back(&mut world, Some(Disk::new(1, 4096, seed)), true);
        assert!(world.settle(2000), "everybody is told");
        assert_eq!(executions(&world), 0, "0 bytes reach the other disk");
        assert!(errors(&world, Error::Stale) > 50, "old handles are stale");
        assert_eq!(world.units[0].device.generation(), 2);
        world.done.clear();
        world.ask(0, Ask::Write { offset: 0, len: 700 });
        assert!(world.settle(100));
        assert_eq!(world.done[0].1, Ok(700), "new handles see the new disk");
        world.curtain();
    }
}

/// Frames that left for the first target so far.
fn sent(world: &World) -> u64 {
    world.units[0].device.paths()[0].stats.sent
}

/// A target that announced itself is sent nothing but IDENTIFY: what left together with it might be answered by
/// another disk that is gone again when it arrives (seed 274957).
#[test]
fn identity_a_suspect_is_sent_nothing_but_identify() {
    let mut world = Stage::default().set();
    writes(&mut world, 0, 8);
    world.pass(10);
    world.announce(0);
    world.run_until(world.later(Duration::from_micros(35)));
    let asked = sent(&world);
    world.done.clear();
    world.ask(0, Ask::Read { offset: 0, len: KIB4 });
    world.run_until(world.later(Duration::from_micros(20)));
    assert_eq!((sent(&world), world.done.len()), (asked, 0), "a read waits too");
    assert!(world.settle(100));
    assert_eq!(world.done[0].1, Ok(KIB4));
    world.curtain();
}

/// And what a suspect answers is asked for again: who was asked before may be another.
#[test]
fn identity_what_a_suspect_answers_is_asked_for_again() {
    let mut world = Stage::default().set();
    writes(&mut world, 0, 8);
    world.pass(10);
    let before = sent(&world);
    world.done.clear();
    world.ask(0, Ask::Read { offset: 0, len: KIB4 });
    // Heard before the read is answered.
    world.announce(0);
    assert!(world.settle(100));
    assert_eq!(world.done[0].1, Ok(KIB4));
    assert_eq!(sent(&world) - before, 4, "the read, the query, IDENTIFY, the read again");
    world.curtain();
}

/// A world in which another disk has come, and nothing but a second of silence says so.
fn swapped_in_silence() -> World {
    let mut world = Stage::default().set();
    writes(&mut world, 0, 8);
    world.pass(10);
    world.targets[0].die();
    world.pass(1100);
    back(&mut world, Some(Disk::new(1, 4096, 7)), false);
    world
}

/// After silence a read leaves with the IDENTIFY. Another disk answers it, whose answer to IDENTIFY is lost, and is
/// gone when IDENTIFY comes once more: what it has read was never the disk's.
#[test]
fn identity_what_another_disk_read_before_identify_is_asked_for_again() {
    let mut world = swapped_in_silence();
    // One arrives when the other is answered.
    world.wires[0].to.apart = 1000;
    world.done.clear();
    world.ask(0, Ask::Read { offset: 0, len: KIB4 });
    world.run_until(world.later(Duration::from_micros(500)));
    world.wires[0].from.cut = true;
    world.pass(5);
    let own = world.shelf.pop();
    back(&mut world, own, false);
    world.wires[0].from.cut = false;
    assert!(world.settle(1000));
    assert_eq!(world.done[0].1, Ok(KIB4));
    world.curtain();
}

/// M2: nobody announces, but there was silence.
#[test]
fn identity_swap_in_silence_is_noticed_before_the_first_write() {
    let mut world = swapped_in_silence();
    world.done.clear();
    writes(&mut world, 0, 100);
    assert!(world.settle(1000));
    assert_eq!((executions(&world), errors(&world, Error::Stale)), (0, 100));
    world.curtain();
}

/// M1: a handle that is older than the disk reaches neither by reading nor by writing.
#[test]
fn m1_old_handles_are_stale_for_reads_and_writes() {
    let mut world = Stage::default().set();
    let old = world.units[0].device.handle(None);
    let part = world.with_device(0, |d, _, _| d.add_partition("boot", 8, 16)).unwrap();
    let boot = world.units[0].device.handle(Some(part));
    world.targets[0].die();
    world.pass(1100);
    back(&mut world, Some(Disk::new(1, 4096, 7)), true);
    world.pass(1000);
    for handle in [old, boot] {
        for ask in [Ask::Read { offset: 0, len: 512 }, Ask::Write { offset: 0, len: 512 }, Ask::Flush] {
            world.submit(0, handle, false, ask);
        }
    }
    assert_eq!((errors(&world, Error::Stale), executions(&world)), (6, 0));
    assert_eq!(world.units[0].device.partitions().count(), 0);
    world.curtain();
}

/// The machine sleeps for an hour, and another disk takes the address: on whatever way the first call comes, IDENTIFY
/// goes before every write. Answers of the old disk that sat in the socket prove nothing.
#[test]
fn identity_after_a_sleep_identify_precedes_every_write() {
    type First = fn(&mut World);
    let ways: [(&str, First); 4] = [
        ("a new write", |w| drop(writes(w, 50, 1))),
        ("a sweep", |w| w.pass(25)),
        ("a late answer", |w| {
            w.step();
        }),
        ("a status page", |w| w.with_device(0, |_, _, _| ())),
    ];
    for (name, first) in ways {
        for exchanged in [true, false] {
            let mut world = Stage::default().set();
            writes(&mut world, 0, 40);
            while world.targets[0].look().executions < 32 {
                assert!(world.step());
            }
            let queued = world.judge.pending.len();
            assert!(queued > 8, "{name}: {queued}");
            world.sleep();
            if exchanged {
                let old = world.targets[0].swap(Disk::new(1, 4096, 7));
                world.shelf.push(old);
            }
            world.done.clear();
            let before = executions(&world);
            first(&mut world);
            assert!(world.settle(3000), "{name}: {:?}", world.violation);
            let stale = errors(&world, Error::Stale);
            match exchanged {
                true => assert_eq!((executions(&world), stale), (0, world.done.len()), "{name}"),
                false => assert!(executions(&world) > before && stale == 0, "{name}"),
            }
            world.curtain();
        }
    }
}

/// An `identify` that is given up means nothing for what answers later: a larger disk is not taken over.
#[test]
fn identity_an_identify_that_got_no_answer_is_disarmed() {
    for (doubted, waits) in [(false, false), (true, false), (false, true)] {
        let mut world = Stage { sectors: 1000, ..Stage::default() }.set();
        writes(&mut world, 0, 1);
        world.pass(10);
        world.targets[0].alive = false;
        if waits {
            writes(&mut world, 0, 1);
        }
        world.identify(0);
        if doubted {
            // What drops the question does not leave the word armed.
            world.sleep();
            world.with_device(0, |_, _, _| ());
        }
        world.pass(20_000);
        world.targets[0].disk().resize(2000);
        world.targets[0].resized = true;
        back(&mut world, None, true);
        world.pass(2000);
        let d = &world.units[0].device;
        assert_ne!((d.generation(), d.size()), (1, 2000 * 512), "{doubted} {waits}: taken over");
        // What waits, waits for a word that means what is there now.
        world.identify(0);
        world.curtain();
    }
}

/// IDENTITY: another target under the same address is not used while the disk that we know lives.
#[test]
fn identity_an_impostor_gets_nothing_while_the_disk_lives() {
    let mut world = Stage { nets: 2, ..Stage::default() }.set();
    let liar = Target::new(Addr::new(1, 0), vec![Mac([2, 0, 0, 0, 66, 0])], 9000, 16, Disk::new(1, 4096, 9));
    world.targets.push(liar);
    world.add_wire(1, 1, 0, 10);
    world.announce(1);
    for n in 0..200 {
        writes(&mut world, n, 1);
        world.ask(0, Ask::Read { offset: n * 512, len: 512 });
        world.query(1);
        world.pass(20);
    }
    assert_eq!(world.targets[1].look().executions, 0);
    assert_eq!(world.targets[1].processor.counters().sectors_read, 0);
    assert_eq!(world.units[0].device.generation(), 1);
    // When it is the only one left, it is the disk.
    world.targets[0].die();
    writes(&mut world, 0, 4);
    for _ in 0..20 {
        world.query(1);
        world.pass(500);
    }
    assert_eq!(world.units[0].device.generation(), 2);
    world.curtain();
}

/// L2: the target never returns; every request, queued or outstanding, fails between its deadline and 250 ms later.
#[test]
fn deadline_a_dead_target_answers_everybody_in_time() {
    let mut world = Stage { buffers: 4, ..Stage::default() }.set();
    world.set_deadline(0, Some(Duration::from_secs(3)));
    world.targets[0].die();
    let mut asked = Vec::new();
    for n in 0..1000u64 {
        let ask = match n % 3 {
            0 => Ask::Read { offset: n * 512, len: KIB4 },
            1 => Ask::Write { offset: n * 700, len: 700 },
            _ => Ask::Flush,
        };
        asked.push((world.ask(0, ask), world.now));
        world.run_until(world.later(Duration::from_micros(500)));
    }
    let mut answered = Vec::new();
    while answered.len() < 1000 && world.violation.is_none() {
        world.run_until(world.later(Duration::from_millis(1)));
        let now = world.now;
        answered.extend(world.done.drain(..).map(|(seq, end)| (seq, end, now)));
        assert!(now < Time(20_000_000), "{} of 1000 answered", answered.len());
    }
    for ((seq, at), (_, end, when)) in
        asked.iter().filter_map(|a| Some((a, answered.iter().find(|d| d.0 == a.0)?)))
    {
        let took = *when - *at;
        let span = Duration::from_secs(3)..=Duration::from_millis(3251);
        assert!(span.contains(&took) && *end == Err(Error::Io), "#{seq} {end:?} after {took:?}");
    }
    assert!(!world.units[0].device.is_up());
    world.ask(0, Ask::Read { offset: 0, len: 512 });
    assert_eq!(world.done.last().unwrap().1, Err(Error::Io), "new requests fail at once");
    back(&mut world, None, true);
    // One IDENTIFY a second.
    world.pass(1001);
    assert!(world.units[0].device.is_up());
    world.curtain();
}

/// L1: killed for five seconds in the middle of writing; no error, and work within a second of the return.
#[test]
fn return_within_a_second_of_the_announcement_and_without_one() {
    for announce in [true, false] {
        let mut world = Stage::default().set();
        writes(&mut world, 0, 300);
        world.run_until(world.later(Duration::from_millis(1)));
        world.targets[0].die();
        world.pass(5000);
        back(&mut world, None, announce);
        world.done.clear();
        world.pass(if announce { 50 } else { 1000 });
        assert!(!world.done.is_empty(), "work within a second (announced: {announce})");
        assert!(world.settle(1000));
        assert!(world.done.iter().all(|d| d.1 == Ok(KIB4)));
        world.curtain();
    }
}

/// xdisk's promise: with nofail nothing fails for lost contact, but a program that opened with O_NONBLOCK is told at
/// once.
#[test]
fn nofail_waits_for_ever_and_failio_frees_everybody() {
    let mut world = Stage::default().set();
    world.set_deadline(0, Some(Duration::from_secs(1)));
    world.set_nofail(0, true);
    let handle = world.units[0].device.handle(None);
    world.targets[0].die();
    writes(&mut world, 0, 20);
    let probe = world.submit(0, handle, true, Ask::Read { offset: 0, len: 512 });
    world.pass(600_000);
    assert_eq!(world.done, [(probe, Err(Error::Io))], "only the one that does not block");
    let probe = world.submit(0, handle, true, Ask::Read { offset: 0, len: 512 });
    assert_eq!(world.done.last(), Some(&(probe, Err(Error::Io))), "at once while the target is down");
    back(&mut world, None, false);
    world.done.clear();
    assert!(world.settle(2000));
    assert!(world.done.iter().all(|d| d.1 == Ok(KIB4)) && world.done.len() == 20);
    world.targets[0].die();
    writes(&mut world, 0, 20);
    world.pass(60_000);
    world.done.clear();
    world.tick += 1;
    world.units[0].failio = world.tick;
    world.with_device(0, |d, now, sink| d.fail_all(now, sink));
    assert_eq!(errors(&world, Error::Io), 20);
    back(&mut world, None, true);
    world.pass(2000);
    assert!(world.units[0].device.is_up());
    world.curtain();
}

/// L5: half a second a reply, one after the other: no error, no copies in storms.
#[test]
fn l5_a_slow_target_is_not_a_dead_one() {
    let mut world = Stage::default().set();
    world.targets[0].service.base = 500_000;
    let before = world.figures.transfers;
    for n in 0..40 {
        world.ask(0, Ask::Read { offset: n * 8192, len: 8192 });
    }
    assert!(world.settle(60_000), "{} left", world.judge.pending.len());
    assert!(world.done.iter().all(|d| d.1 == Ok(8192)));
    let copies = (world.figures.transfers - before) as f64 / 40.0;
    println!("l5: {copies:.2} copies of each frame");
    assert!(copies <= 3.0, "{copies}");
    world.curtain();
}

/// L6: 200 ms up, 800 ms down, for a minute: something is done in each turn, and nothing fails.
#[test]
fn l6_flapping_makes_progress() {
    let mut world = Stage::default().set();
    let mut asked = 0;
    for turn in 0..60 {
        writes(&mut world, asked % 400, 4);
        asked += 4;
        world.targets[0].die();
        world.pass(800);
        world.done.clear();
        back(&mut world, None, turn % 2 == 0);
        world.pass(200);
        if turn % 2 == 0 && turn < 8 {
            assert!(!world.done.is_empty(), "nothing done in turn {turn}");
        }
    }
    back(&mut world, None, true);
    assert!(world.settle(5000));
    assert_eq!(world.judge.failed, 0);
    world.curtain();
}

/// M5: an IDENTIFY that makes no sense keeps the target down; nothing is sent to it.
#[test]
fn m5_garbage_identify_is_down_with_a_reason() {
    let mut world = Stage::default().set();
    world.set_deadline(0, Some(Duration::from_secs(5)));
    world.targets[0].die();
    world.pass(1100);
    world.targets[0].garbage = true;
    back(&mut world, None, true);
    world.pass(100);
    assert!(!world.units[0].device.is_up());
    let before = executions(&world);
    writes(&mut world, 0, 4);
    assert_eq!(errors(&world, Error::Io), 4);
    assert_eq!(executions(&world), before);
    world.targets[0].garbage = false;
    world.pass(2000);
    writes(&mut world, 0, 1);
    world.pass(2000);
    world.done.clear();
    writes(&mut world, 0, 1);
    assert!(world.settle(1000));
    assert_eq!(world.done[0].1, Ok(KIB4));
    world.curtain();
}

/// T6: a bit flips in one IDENTIFY, which has no checksum: it is asked again, and nobody who has the disk open loses
/// it.
#[test]
fn identity_one_flipped_bit_is_no_other_disk() {
    for seed in 0..20 {
        let mut world = Stage { seed, ..Stage::default() }.set();
        writes(&mut world, 0, 8);
        world.pass(10);
        world.announce(0);
        writes(&mut world, 8, 8);
        world.targets[0].flips = 1.0;
        while world.targets[0].flipped == 0 {
            assert!(world.step());
        }
        world.targets[0].flips = 0.0;
        assert!(world.settle(100), "a round trip later it is known again");
        assert_eq!((world.judge.failed, world.units[0].device.generation()), (0, 1));
        world.curtain();
    }
}

/// A target whose IDENTIFY says something new each time is not asked as fast as it answers, and gets no write.
#[test]
fn identity_a_fickle_one_is_asked_now_and_then() {
    let mut world = Stage::default().set();
    world.set_deadline(0, Some(Duration::from_secs(5)));
    world.targets[0].flips = 1.0;
    world.announce(0);
    world.pass(1);
    let before = executions(&world);
    writes(&mut world, 0, 8);
    world.pass(3000);
    let flipped = world.targets[0].flipped;
    assert!((4..=9).contains(&flipped), "{flipped} IDENTIFYs in three seconds");
    assert_eq!((executions(&world), world.done.len()), (before, 0));
    world.targets[0].flips = 0.0;
    assert!(world.settle(1000), "it has found itself");
    assert_eq!((world.judge.failed, world.units[0].device.generation()), (0, 1));
    world.curtain();
}

/// P1: an idle target needs no attention.
#[test]
fn alive_an_idle_target_wakes_nobody() {
    let mut world = Stage::default().set();
    writes(&mut world, 0, 100);
    assert!(world.settle(100));
    world.pass(20_000);
    let before = world.figures.sweeps;
    world.pass(60_000);
    assert!(world.figures.sweeps - before <= 2, "{} sweeps in a minute", world.figures.sweeps - before);
    assert_eq!(world.targets[0].look().sectors(), 4096);
    world.curtain();
}

/// The last interface that reached the target was unbound: it is down, and what is asked of it waits for another.
#[test]
fn return_a_target_that_no_interface_reaches() {
    for waits in [false, true] {
        let mut world = Stage::default().set();
        let id = world.nets[0].id;
        if waits {
            world.ask(0, Ask::Read { offset: 0, len: KIB4 });
        }
        world.nets[0].gone = true;
        world.discovery.net_removed(id);
        world.with_device(0, |device, now, sink| device.net_removed(now, id, sink));
        let device = &mut world.units[0].device;
        assert!(!device.is_up() && device.open() == Err(Error::Down));
        if waits {
            writes(&mut world, 0, 2);
        }
        world.pass(5000);
        assert!(world.done.is_empty(), "{:?}", world.done);
        world.nets[0].gone = false;
        world.query(0);
        world.pass(100);
        assert!(world.units[0].device.is_up());
        assert!(world.settle(1000));
        assert!(world.done.len() == 3 * usize::from(waits) && world.done.iter().all(|d| d.1 == Ok(KIB4)));
        world.curtain();
    }
}

/// Opening a file of a target that is down has the target asked, and sees it within a second of its return, however
/// long nobody asked.
#[test]
fn return_is_seen_by_who_opens() {
    for n in 0..40 {
        let mut world = Stage::default().set();
        world.targets[0].die();
        world.with_device(0, |device, now, sink| device.fail_all(now, sink));
        world.pass(100 + 433 * n);
        assert!(world.with_device(0, |device, now, sink| device.await_return(now, sink)));
        world.pass(37 * n);
        assert!(!world.units[0].device.is_up());
        back(&mut world, None, false);
        let began = world.now;
        while !world.units[0].device.is_up() && world.now - began < Duration::from_secs(9) {
            world.pass(1);
        }
        let took = world.now - began;
        assert!(took <= Duration::from_millis(501), "{n}: {took:?}");
        world.units[0].device.opening_over();
        assert!(
            !world.with_device(0, |device, now, sink| device.await_return(now, sink)),
            "nothing to wait for"
        );
        world.curtain();
    }
}

/// A disk may say only once that it could not save what was written: a flush that fails while the disk is in doubt
/// has failed, whatever the next one would say.
#[test]
fn sync_a_flush_that_fails_in_doubt_has_failed() {
    type Doubt = fn(&mut World);
    let doubts: [(&str, Doubt, Doubt); 2] =
        [("announcement", |w| w.announce(0), |_| ()), ("sleep", |_| (), |w| w.sleep())];
    for (name, before, after) in doubts {
        let mut world = Stage { way: 2000, ..Stage::default() }.set();
        world.ask(0, Ask::Write { offset: 0, len: 4096 });
        assert!(world.settle(100), "{name}");
        world.disk(0).faults.flush = 1.0;
        world.ask(0, Ask::Flush);
        before(&mut world);
        while world.disk(0).failed.is_empty() {
            assert!(world.step(), "{name}");
        }
        world.disk(0).faults.flush = 0.0;
        after(&mut world);
        assert!(world.settle(5000), "{name}");
        assert_eq!(errors(&world, Error::Io), 1, "{name}");
        world.ask(0, Ask::Flush);
        assert!(world.settle(5000), "{name}");
        assert_eq!(errors(&world, Error::Io), 1, "{name}: the next one is asked for");
        world.curtain();
    }
}

/// A target that is down answers a query: it is asked who it is then, whatever became of what it was asked before.
#[test]
fn return_a_target_that_answers_a_query_is_asked() {
    for wait in (0..40).map(|n| n * 150) {
        let mut world = Stage::default().set();
        world.set_deadline(0, Some(Duration::from_secs(3)));
        world.ask(0, Ask::Read { offset: 0, len: 4096 });
        assert!(world.settle(100));
        world.targets[0].die();
        world.ask(0, Ask::Read { offset: 0, len: 4096 });
        assert!(world.settle(4000));
        world.pass(wait);
        assert!(!world.units[0].device.is_up());
        back(&mut world, None, false);
        world.query(0);
        world.pass(1100);
        assert!(world.units[0].device.is_up(), "{wait} ms after it was down");
        world.curtain();
    }
}
