//! What a front end is told of the disk behind its socket, and what becomes of its requests there.

use std::sync::atomic::Ordering;

use aoefs::target::Image;
use aoefs::wire::{Identify, Sector};
use virtio_driver::VirtioBlkFeatureFlags;

use super::*;

/// Another disk of that serial number, of which the target says what `change` makes of it.
fn swap(stage: &Stage, serial: &str, change: fn(&mut Identify)) {
    *stage.host.target.identity.lock() = change;
    stage.host.swap(serial, host::SECTORS);
    let unit = stage.host.runtime.units().remove(0);
    let is_there = |status: aoefs::engine::Status| status.serial.as_str() == serial;
    stage.host.eventually(|| stage.host.runtime.inspect(&unit, |device| is_there(device.status())));
}

#[test]
fn a_guest_learns_the_physical_sectors_of_the_target() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let sizes = |front: &Front| {
        let space = front.space();
        let (least, aligned) = (u16::from(space.min_io_size), u32::from(space.discard_sector_alignment));
        (space.physical_block_exp, least, aligned)
    };
    assert_eq!(sizes(&Front::connect(&path, 1)), (0, 1, 1));
    swap(&stage, "large", |identify| identify.physical_log2 = 3);
    assert_eq!(sizes(&Front::connect(&path, 1)), (3, 8, 8));
    stage.end();
}

/// A guest takes what was discarded for zeros.
#[test]
fn discards_are_offered_only_where_the_target_promises_zeros() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let both = VirtioBlkFeatureFlags::DISCARD | VirtioBlkFeatureFlags::WRITE_ZEROES;
    assert!(Front::connect(&path, 1).has(both));
    swap(&stage, "vague", |identify| identify.trim_zeroes = false);
    stage.host.fill(0xaa);
    let mut front = Front::connect(&path, 1);
    assert!(!front.has(both));
    assert_eq!(u32::from(front.space().max_discard_sectors), 0);
    assert_eq!(front.discard(0, 0, 4096), -libc::ENOTSUP);
    assert_eq!(front.zero(0, 0, 4096, true), -libc::ENOTSUP);
    assert!(stage.host.disk().iter().all(|byte| *byte == 0xaa));
    assert_eq!(front.write(0, 0, &pattern(4096, 1)), 0, "all else goes on");
    drop(front);
    stage.end();
}

/// Who finds one disk by two ways may put both together.
#[test]
fn a_partition_is_called_otherwise_than_its_target() {
    let stage = Stage::new();
    stage.ctl("part boot 8 16").unwrap();
    let called = |name: &str| {
        let path = stage.export(&format!("socket-{name}"), name);
        let mut machine = Machine::new(Habit::UsedRing);
        machine.connect(&path).unwrap();
        machine.begin(0, Ask::Id, 0, &[0xee; 20]);
        assert_eq!(machine.all_ended(), [(0, Ask::Id, 0)]);
        let id = String::from_utf8(machine.bytes(0, 20)).unwrap();
        id.trim_end_matches('\0').to_string()
    };
    assert_eq!(called("data"), "one");
    assert_eq!(called("boot"), "1.0-boot");
    stage.end();
}

/// To a guest without a flush each answer says that the bytes are durable, so the flush comes before the answer.
#[test]
fn who_does_not_flush_is_answered_after_a_flush_of_the_target() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let flushes = || stage.host.target.processor.lock().counters().flushes;
    type Change = fn(&mut Front) -> i32;
    let changes: [(&str, Change); 4] = [
        ("write", |front| front.write(0, 0, &pattern(4096, 1))),
        ("discard", |front| front.discard(0, 8192, 4096)),
        ("zeros", |front| front.zero(0, 16384, 4096, false)),
        ("zeros by a discard", |front| front.zero(0, 32768, 4096, true)),
    ];
    for (has_flush, unknown) in
        [(true, VirtioBlkFeatureFlags::empty()), (false, VirtioBlkFeatureFlags::FLUSH)]
    {
        let mut front = Front::connect_without(&path, 1, unknown);
        assert_eq!(front.has(VirtioBlkFeatureFlags::FLUSH), has_flush);
        for (what, change) in changes {
            let before = flushes();
            assert_eq!(change(&mut front), 0, "{what}");
            assert_eq!(flushes() - before, u64::from(!has_flush), "{what}");
            // A flush that fails is the request's failure.
            stage.host.target.unflushed.store(true, Ordering::SeqCst);
            assert_eq!(change(&mut front), if has_flush { 0 } else { -libc::EIO }, "{what}");
            stage.host.target.unflushed.store(false, Ordering::SeqCst);
        }
        drop(front);
        stage.host.eventually(|| stage.lines() == ["vhost disk data 0"]);
    }
    stage.end();
}

/// A disk becomes smaller under writes that go across its new end: what of them was cut off was not written.
#[test]
fn a_write_that_was_cut_off_is_not_answered_as_one_that_was_written() {
    const BORDER: usize = 1 << 20;
    const LEN: usize = 8192;
    const FROM: usize = BORDER - LEN / 2;
    /// Of each outcome.
    const WRITES: usize = 500;
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let target = stage.host.target.clone();
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            let mut front = Front::connect(&path, 1);
            let (mut well, mut refused) = (0, 0);
            let start = Instant::now();
            for seed in 0.. {
                let bytes = pattern(LEN, seed as u8);
                match front.write(0, FROM as u64, &bytes) {
                    0 => {
                        let mut found = vec![0; LEN];
                        target
                            .processor
                            .lock()
                            .image_mut()
                            .read_at(Sector(FROM as u64 / 512), &mut found)
                            .unwrap();
                        assert!(found == bytes, "write {seed} was cut off");
                        well += 1;
                    }
                    _ => refused += 1,
                }
                assert!(start.elapsed() < host::PATIENCE, "{well} {refused}");
                if well.min(refused) >= WRITES {
                    break;
                }
            }
        });
        while !writes.is_finished() {
            stage.ctl(&format!("setsize {BORDER}")).unwrap();
            stage.ctl("setsize").unwrap();
        }
    });
    stage.end();
}

/// As an open of a file does, a front end asks a target that is down, and gets the disk once that is back.
#[test]
fn a_front_end_waits_for_a_target_that_is_down() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let down = || {
        stage.host.silence(true);
        stage.ctl("failio").unwrap();
    };
    down();
    std::thread::scope(|scope| {
        let written = scope.spawn(|| {
            let mut machine = Machine::new(Habit::UsedRing);
            let start = Instant::now();
            // On a slow machine the first one may have waited for a second before the target was asked again.
            while machine.connect(&path).is_err() {
                assert!(start.elapsed() < Duration::from_secs(5), "{}", stage.host.log());
            }
            machine.begin(0, Ask::Write, 0, &pattern(512, 1));
            machine.all_ended()
        });
        stage.host.eventually(|| stage.lines() == ["vhost disk data 1"]);
        // It is back, and does not say so.
        stage.host.silence(false);
        assert_eq!(written.join().unwrap(), [(0, Ask::Write, 0)]);
    });
    stage.host.eventually(|| stage.host.core.open_handles() == 0);
    down();
    let start = Instant::now();
    let said = || stage.host.log().matches("cannot open the disk").count();
    let before = said();
    let _nobody = UnixStream::connect(&path).unwrap();
    stage.host.eventually(|| said() == before + 1);
    let took = start.elapsed();
    assert!((0.5..5.0).contains(&took.as_secs_f64()), "{took:?}");
    stage.end();
}

/// The kernel keeps the times of a file, and does not see what a guest writes.
#[test]
fn a_guest_that_flushes_or_goes_has_the_times_of_the_file_looked_at_anew() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let times = (stage.host.ino("1.0/data").unwrap(), None);
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.write(0, 0, &pattern(512, 1)), 0);
    stage.host.told();
    assert_eq!(front.flush(0), 0);
    stage.host.eventually(|| stage.host.told().contains(&times));
    drop(front);
    stage.host.eventually(|| stage.host.told().contains(&times));
    stage.end();
}

/// The sockets of a mount share what guests may ask of a target, however little the others ask for.
#[test]
fn a_guest_among_many_sockets_has_the_share_of_one() {
    const SOCKETS: usize = 32;
    /// Reads that fit into a queue.
    const READS: usize = 40;
    let stage = Stage::new();
    let paths: Vec<PathBuf> = (0..SOCKETS).map(|n| stage.export(&format!("disk{n}"), "")).collect();
    let mut front = Front::connect(&paths[0], 8);
    stage.host.silence(true);
    for queue in 0..8 {
        (0..READS).for_each(|n| front.begin_read(queue, n as u64 * 512, 512));
    }
    let requests = || -> usize {
        let text = stage.host.cat("1.0/ctl").unwrap();
        text.lines().find_map(|line| line.strip_prefix("requests: ")).unwrap().parse().unwrap()
    };
    let share = aoefs::engine::REQUESTS_MAX / 2 / SOCKETS;
    assert!(share < 8 * READS);
    stage.host.eventually(|| requests() >= share);
    // The answer to a message comes after the turn in which more would have been taken.
    (0..3).for_each(|_| assert_eq!(front.capacity() * 512, SIZE));
    assert_eq!(requests(), share, "and no more");
    // Those that end leave more to the others.
    for path in &paths[1..] {
        stage.ctl(&format!("unvhost {}", path.display())).unwrap();
    }
    front.kick(0);
    stage.host.eventually(|| requests() == 8 * READS);
    stage.host.silence(false);
    stage.host.eventually(|| requests() == 0);
    drop(front);
    stage.end();
}

/// Its front end connects again by itself, and the machine has in memory what it had of the disk before.
#[test]
fn a_machine_that_finds_another_disk_changes_nothing_there() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let mut machine = Machine::new(Habit::Area);
    machine.connect(&path).unwrap();
    machine.begin(0, Ask::Write, 8, &[1; 512]);
    assert_eq!(machine.all_ended(), [(0, Ask::Write, 0)]);
    machine.connect(&path).unwrap();
    machine.begin(0, Ask::Read, 8, &[0; 512]);
    assert_eq!(machine.all_ended(), [(0, Ask::Read, 0)], "it is the same disk");
    // One request is put in while nobody is there, and one after it.
    machine.disconnect();
    machine.begin(0, Ask::Write, 8, &[2; 512]);
    swap(&stage, "another", |_| ());
    stage.host.fill(0xaa);
    machine.connect(&path).unwrap();
    machine.begin(1, Ask::Write, 16, &[3; 512]);
    let mut ended = machine.all_ended();
    ended.sort_unstable_by_key(|(slot, ..)| *slot);
    assert_eq!(ended, [(0, Ask::Write, 1), (1, Ask::Write, 1)]);
    assert!(stage.host.disk().iter().all(|byte| *byte == 0xaa));
    assert!(stage.host.log().contains("/ another /"), "{}", stage.host.log());
    // One that starts anew has the disk that is here.
    machine.disconnect();
    let mut machine = Machine::new(Habit::Area);
    machine.connect(&path).unwrap();
    machine.begin(0, Ask::Write, 8, &[4; 512]);
    assert_eq!(machine.all_ended(), [(0, Ask::Write, 0)]);
    drop(machine);
    stage.end();
}
