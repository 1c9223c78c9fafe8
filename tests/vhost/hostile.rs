//! Front ends that mean harm, to others on the same mount.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// What this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_thousand_connections_leave_nothing() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    drop(Front::connect(&path, 1));
    stage.host.eventually(|| stage.lines() == ["vhost disk data 0"]);
    let before = descriptors();
    for n in 0..1000usize {
        let mut connection = UnixStream::connect(&path).unwrap();
        // Some say nothing, some the beginning of a message, some what makes no sense.
        let bytes: &[u8] = [&[][..], &[1, 0, 0, 0, 1], &[0xff; 64]][n % 3];
        // It may have been let go of already.
        let _ = connection.write_all(bytes);
    }
    let mut front = Front::connect(&path, 1);
    assert_eq!(front.write(0, 0, &pattern(512, 1)), 0);
    drop(front);
    // Other tests of this process have some open, too.
    stage.host.eventually(|| stage.lines() == ["vhost disk data 0"] && descriptors() < before + 500);
    let metrics = stage.host.cat("metrics").unwrap();
    let connected = metrics.lines().find(|line| line.starts_with("aoefs_export_connections_total")).unwrap();
    assert!(connected.ends_with(" 1002"), "{connected}");
    stage.end();
}

#[test]
fn half_a_message_keeps_no_socket() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let mut connection = UnixStream::connect(&path).unwrap();
    connection.write_all(&[1, 0, 0, 0, 1]).unwrap();
    stage.host.eventually(|| stage.lines() == ["vhost disk data 1"]);
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    stage.ctl(&format!("unvhost {}", path.display())).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    stage.end();
}

/// A memory that is told again while requests are under way is the same one for these.
#[test]
fn requests_outlive_a_table_of_memory() {
    let stage = Stage::new();
    let path = stage.export("disk", "");
    let mut machine = Machine::new(Habit::Area);
    machine.connect(&path).unwrap();
    let mut versions = Versions::new(64);
    for _ in 0..200 {
        versions.work(&mut machine, 5);
        machine.share_again();
    }
    let ended = machine.all_ended();
    versions.take(&machine, ended);
    assert_eq!(versions.ended, 1000);
    assert!(stage.host.disk()[..64 * machine::DATA] == versions.disk());
    drop(machine);
    stage.end();
}

/// While some kick without end, connect without end, and take their memory back under load, the others' requests are
/// done, well and soon.
#[test]
fn a_crowd_that_means_harm_leaves_the_others_alone() {
    let stage = Stage::new();
    let (good, harm) = (stage.export("good", ""), [stage.export("a", ""), stage.export("b", "")]);
    let file = stage.host.open("1.0/data");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let front = Front::connect(&harm[0], 8);
            while !over.load(Ordering::SeqCst) {
                (0..8).for_each(|queue| front.kick(queue));
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let mut front = Front::connect(&harm[1], 1);
                for n in 0..30 {
                    front.begin_read(0, n * 65536, 65536);
                }
                front.take_memory_back();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut machine = Machine::new(Habit::UsedRing);
        machine.connect(&good).unwrap();
        let mut versions = Versions::new(64);
        let start = Instant::now();
        for round in 0..40 {
            versions.work(&mut machine, 20);
            let at = SIZE - 4096;
            stage.host.write_at(file, at, &pattern(4096, round)).unwrap();
            assert_eq!(stage.host.read_at(file, at, 4096).unwrap(), pattern(4096, round));
        }
        let ended = machine.all_ended();
        over.store(true, Ordering::SeqCst);
        versions.take(&machine, ended);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        assert!(stage.host.disk()[..64 * machine::DATA] == versions.disk());
    });
    assert!(stage.host.log().contains("it has taken back memory"), "{}", stage.host.log());
    stage.host.core.release(file);
    stage.end();
}

/// Guests ask for all that they can while the target is silent: who uses files finds room.
#[test]
fn a_target_has_room_for_files_whatever_its_guests_ask_for() {
    let stage = Stage::new();
    let sockets: Vec<PathBuf> = (0..4).map(|n| stage.export(&format!("disk{n}"), "")).collect();
    let file = stage.host.open("1.0/data");
    let mut fronts: Vec<Front> = sockets.iter().map(|path| Front::connect(path, 8)).collect();
    stage.host.silence(true);
    for front in &mut fronts {
        for queue in 0..8 {
            (0..40).for_each(|n| front.begin_write(queue, n * 65536, 65536));
        }
    }
    let requests = || -> usize {
        let text = stage.host.cat("1.0/ctl").unwrap();
        text.lines().find_map(|line| line.strip_prefix("requests: ")).unwrap().parse().unwrap()
    };
    let share = aoefs::vhost::BYTES_UNDER_WAY as usize / 65536;
    stage.host.eventually(|| requests() >= 4 * share);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(requests(), 4 * share, "and no more");
    stage.host.silence(false);
    stage.host.write_at(file, 0, &pattern(4096, 1)).unwrap();
    assert_eq!(stage.host.read_at(file, 0, 4096).unwrap().len(), 4096);
    drop(fronts);
    stage.host.core.release(file);
    stage.end();
}
