//! Scenes of a disk that grew: who waits for whom, and what ends the wait.

use std::time::Duration;

use super::ask::Ask;
use super::disk::Disk;
use super::life::{back, errors, executions, writes};
use super::stage::Stage;
use super::world::World;
use aoefs::engine::Error;

const KIB4: usize = 4096;

/// The target's disk is larger from now on, and it says so by an announcement, or not at all.
fn grow(world: &mut World, sectors: u64, announce: bool) {
    let now = world.now.0;
    world.targets[0].disk().resize(sectors);
    world.targets[0].disk().resized_at.get_or_insert(now);
    world.targets[0].resized = true;
    if announce {
        world.announce(0);
    }
}

fn shown(world: &World) -> (u32, u64) {
    let d = &world.units[0].device;
    (d.generation(), d.size() / 512)
}

/// M4: what answers with more sectors waits for the operator's word, before and behind it, announced or found out
/// after silence: nothing of what was asked is executed before, everything is afterwards.
#[test]
fn m4_a_disk_that_grew_waits_for_the_word() {
    for (announce, nofail, before) in
        [(true, false, false), (false, false, false), (true, true, false), (true, false, true)]
    {
        let mut world = Stage { sectors: 1000, ..Stage::default() }.set();
        world.set_nofail(0, nofail);
        let handle = world.units[0].device.handle(None);
        writes(&mut world, 0, 4);
        world.pass(10);
        if before {
            // The word comes while the target restarts.
            world.targets[0].die();
            world.identify(0);
            world.pass(100);
            world.targets[0].alive = true;
            grow(&mut world, 2000, announce);
            world.pass(700);
        } else {
            world.pass(1500);
            grow(&mut world, 2000, announce);
            world.pass(10);
            let executed = executions(&world);
            world.done.clear();
            writes(&mut world, 0, 8);
            world.ask(0, Ask::Read { offset: 0, len: KIB4 });
            world.pass(if nofail { 600_000 } else { 60_000 });
            assert_eq!((executions(&world), world.done.len()), (executed, 0), "as if it were away");
            assert_eq!(shown(&world), (1, 1000));
            world.identify(0);
            assert!(world.settle(1000));
            assert!(world.done.iter().all(|d| d.1.is_ok()));
        }
        assert_eq!(shown(&world), (1, 2000), "{announce} {nofail} {before}");
        world.done.clear();
        world.submit(0, handle, false, Ask::Write { offset: 1999 * 512, len: 512 });
        assert!(world.settle(1000));
        assert_eq!(world.done[0].1, Ok(512), "who had it open sees the rest");
        world.curtain();
    }
}

/// The ways that were known are gone, and over a new one a larger disk answers: the word reaches it all the same.
#[test]
fn m4_a_disk_that_grew_behind_a_new_interface() {
    let mut world = Stage { sectors: 1000, ..Stage::default() }.set();
    writes(&mut world, 0, 4);
    world.pass(10);
    let id = world.nets[0].id;
    world.with_device(0, |d, now, sink| d.net_removed(now, id, sink));
    world.nets[0].id = aoefs::engine::NetId(7);
    grow(&mut world, 2000, false);
    world.query(0);
    world.pass(100);
    assert_eq!(shown(&world), (1, 1000));
    world.done.clear();
    writes(&mut world, 0, 1);
    world.pass(2000);
    assert!(world.done.is_empty());
    world.identify(0);
    assert!(world.settle(100), "{:?}", world.violation);
    assert_eq!((shown(&world), world.done[0].1), ((1, 2000), Ok(KIB4)));
    world.curtain();
}

/// And what ends the wait: the deadline, fewer sectors, another serial number; or the size that it had.
#[test]
fn m4_what_becomes_of_a_disk_that_grew_without_a_word() {
    let wait = |millis: u64| {
        let mut world = Stage { sectors: 1000, ..Stage::default() }.set();
        world.set_deadline(0, Some(Duration::from_secs(3)));
        writes(&mut world, 0, 4);
        world.pass(10);
        grow(&mut world, 2000, true);
        world.pass(millis);
        world.done.clear();
        world
    };
    let mut world = wait(10);
    writes(&mut world, 0, 1);
    world.pass(2900);
    assert_eq!((shown(&world), world.done.len()), ((1, 1000), 0));
    world.pass(150);
    assert_eq!(
        (shown(&world), world.done[0].1),
        ((2, 2000), Err(Error::Stale)),
        "the word did not come in time"
    );
    world.curtain();
    let mut world = wait(2500);
    world.targets[0].disk().resize(1000);
    writes(&mut world, 0, 1);
    assert!(world.settle(1500));
    assert_eq!((shown(&world), world.done[0].1), ((1, 1000), Ok(KIB4)), "it is what it was");
    world.curtain();
    for other in [900, 1000] {
        let mut world = wait(500);
        if other == 900 {
            world.targets[0].disk().resize(other);
        } else {
            back(&mut world, Some(Disk::new(1, other, 7)), false);
        }
        writes(&mut world, 0, 1);
        assert!(world.settle(1500));
        assert_eq!((shown(&world), world.done[0].1), ((2, other), Err(Error::Stale)), "another disk");
        world.curtain();
    }
}

/// M4: a smaller disk is another disk; a larger one is taken over when the operator asks.
#[test]
fn m4_shrink_and_grow() {
    let mut world = Stage { sectors: 1000, ..Stage::default() }.set();
    world.pass(2000);
    grow(&mut world, 3000, false);
    world.identify(0);
    world.pass(10);
    assert_eq!(shown(&world), (1, 3000), "the operator asked: the same disk, larger");
    let part = world.with_device(0, |d, _, _| d.add_partition("end", 2000, 3000)).unwrap();
    let end = world.units[0].device.handle(Some(part));
    world.targets[0].disk().resize(1500);
    world.identify(0);
    world.pass(10);
    world.done.clear();
    world.submit(0, end, false, Ask::Write { offset: 0, len: 512 });
    assert_eq!(errors(&world, Error::Stale), 1);
    assert_eq!(world.units[0].device.size(), 1500 * 512);
    world.curtain();
}
