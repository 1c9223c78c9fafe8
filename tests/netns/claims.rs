//! A target's config string: the claim that exactly one of two hosts gets, and the file's edges, with targets that
//! refuse or say nothing.

use crate::bed::fake::{self, Act, Fake};
use crate::bed::mount::{Unit, errno};
use crate::bed::{Bed, MIB, Ns, setting, until};
use aoefs::wire::Command;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Barrier;
use std::time::{Duration, Instant};

crate::tests![
    claim_of_vblade_is_won_by_one(180),
    claim_of_our_target_is_won_by_one(180),
    config_c4_sizes_and_offsets,
    config_c4_refused_or_never_answered(beside),
];

const UP: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(5);
/// What a question to a target may take, and what a busy machine adds.
const ANSWER: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_millis(750);

/// Races for one target; `AOEFS_TEST_CLAIMS` says how many.
fn rounds() -> usize {
    setting("AOEFS_TEST_CLAIMS", 1000) as usize
}

/// Two hosts on one bridge, and who serves 1.0.
fn race(serve: fn(&mut Bed)) {
    let mut bed = Bed::cable(&["vblade"], 1500);
    let second = Ns::new();
    second.veth("v0", &bed.tgt, "w1", 1500);
    bed.tgt.bridge("br0", &["v1", "w1"]);
    serve(&mut bed);
    let first = bed.mount(&["--wait", "1.0"]);
    let other = bed.mount_in(&second, &["-i", "v0", "--wait", "1.0"]);
    let units = [first.wait_for("1.0", UP), other.wait_for("1.0", UP)];
    let (mut wins, rounds, start) = ([0; 2], rounds(), Instant::now());
    for round in 0..rounds {
        units[round % 2].ctl_ok("config force ");
        let barrier = Barrier::new(2);
        let claim = |host: usize| {
            let mut ctl = File::options().write(true).open(units[host].file("ctl")).unwrap();
            let line = format!("config set host {host} round {round}\n");
            barrier.wait();
            ctl.write_all(line.as_bytes()).map_err(|error| error.raw_os_error())
        };
        let claim = &claim;
        let said = std::thread::scope(|scope| {
            let both = [0, 1].map(|host| scope.spawn(move || claim(host)));
            both.map(|thread| thread.join().unwrap())
        });
        let winner = match said {
            [Ok(()), Err(Some(libc::EEXIST))] => 0,
            [Err(Some(libc::EEXIST)), Ok(())] => 1,
            other => panic!("round {round}: {other:?}"),
        };
        wins[winner] += 1;
        for unit in &units {
            assert_eq!(unit.read("config"), format!("host {winner} round {round}"), "as both see it");
        }
    }
    print!("[{rounds} races, {wins:?} won, {:.1?}] ", start.elapsed());
    first.stop();
    other.stop();
}

fn claim_of_vblade_is_won_by_one() {
    race(|bed| {
        let image = bed.image("disk", MIB);
        bed.vblade("1.0", "br0", &image);
    });
}

fn claim_of_our_target_is_won_by_one() {
    race(|bed| {
        let image = bed.image("disk", MIB);
        bed.aoefs_target("1.0", "br0", &image);
    });
}

/// The file as bytes: a config string need not be text.
fn string(unit: &Unit) -> Vec<u8> {
    std::fs::read(unit.file("config")).unwrap()
}

fn config_c4_sizes_and_offsets() {
    let mut bed = Bed::cable(&["vblade"], 9000);
    let image = bed.image("disk", MIB);
    bed.vblade("1.0", "v1", &image);
    let mount = bed.mount(&["--wait", "1.0"]);
    let unit = mount.wait_for("1.0", UP);
    let mut config = unit.open("config");
    assert_eq!(config.write(b"").unwrap(), 0);
    assert_eq!(string(&unit), b"");
    assert_eq!(config.write(b"x").unwrap(), 1);
    assert_eq!(string(&unit), b"x");
    let most: Vec<u8> = (0..1024).map(|n| (n % 251) as u8).collect();
    config.rewind().unwrap();
    assert_eq!(config.write(&most).unwrap(), 1024, "in one piece");
    assert_eq!((string(&unit) == most, unit.size("config")), (true, 1024));
    for (at, len) in [(0, 1025), (1, 1024), (1024, 1), (u64::from(u32::MAX), 1)] {
        config.seek(SeekFrom::Start(at)).unwrap();
        assert_eq!(errno(config.write_all(&vec![7; len])), libc::EFBIG, "{len} at {at}");
        assert!(string(&unit) == most, "{len} at {at}: nothing was sent");
    }
    config.seek(SeekFrom::Start(1023)).unwrap();
    assert_eq!(config.write(b"!").unwrap(), 1);
    assert_eq!(string(&unit)[1020..], [most[1020], most[1021], most[1022], b'!']);
    config.seek(SeekFrom::Start(3)).unwrap();
    assert_eq!(config.write(b"end").unwrap(), 3);
    assert_eq!(string(&unit), [0, 1, 2, b'e', b'n', b'd'], "from its offset on");
    config.set_len(4).unwrap();
    assert_eq!(string(&unit), [0, 1, 2, b'e'], "shown before it is sent");
    assert_eq!(errno(config.set_len(1025)), libc::EFBIG);
    drop(config);
    until("the truncation was sent", SOON, || string(&unit) == [0, 1, 2, b'e'] && unit.size("config") == 4);
    std::fs::write(unit.file("config"), "of a shell").unwrap();
    assert_eq!(unit.read("config"), "of a shell");
    File::create(unit.file("config")).unwrap();
    until("it is empty", SOON, || string(&unit).is_empty());
    mount.stop();
}

fn config_c4_refused_or_never_answered() {
    let mut bed = Bed::cable(&[], 1500);
    let fake = Fake::start(&bed.tgt, "v1", fake::config("1.0", "shy"), &[0x5a; 64 * 512]);
    let mount = bed.mount(&["--wait", "1.0"]);
    let unit = mount.wait_for("1.0", UP);
    until("it says that it is ready", SOON, || mount.daemon.said().contains(": bound v0"));
    // O_RDWR without O_TRUNC: one write and nothing else.
    let echo = |text: &str| unit.open("config").write_all(text.as_bytes());
    let config_is = |act: fn() -> Act| {
        fake.script(
            move |request| if request.header.command == Command::Config { act() } else { Act::Reply },
        );
    };
    let usable = || {
        let mut data = unit.open("data");
        data.write_all(&[0xa5; 700]).unwrap();
        data.sync_all().unwrap();
        let mut start = [0; 4];
        data.rewind().unwrap();
        data.read_exact(&mut start).unwrap();
        assert_eq!((start, unit.state().as_str()), ([0xa5; 4], "up"));
    };
    echo("kept").unwrap();
    config_is(|| Act::refuse(4));
    assert_eq!(errno(echo("new")), libc::EEXIST);
    assert_eq!(errno(unit.ctl("config set new")), libc::EEXIST);
    usable();
    config_is(|| Act::Drop);
    for nofail in ["nofail off", "nofail on"] {
        unit.ctl_ok(nofail);
        for n in 0..3 {
            let start = Instant::now();
            let said = match n {
                0 => errno(echo("new")),
                1 => errno(unit.ctl("config force new")),
                _ => errno(unit.ctl("config set new")),
            };
            let took = start.elapsed();
            assert_eq!(said, libc::ETIMEDOUT, "{nofail}, {n}");
            assert!(took >= ANSWER && took < ANSWER + SLACK, "{nofail}, {n}: {took:?}");
            usable();
        }
    }
    // A reader gets what was known last, and waits no longer for it.
    let start = Instant::now();
    assert_eq!(unit.read("config"), "kept");
    assert!(start.elapsed() < ANSWER + SLACK);
    // I/O goes on while a question is open.
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| errno(echo("new")));
        std::thread::sleep(ANSWER / 4);
        let start = Instant::now();
        usable();
        assert!(start.elapsed() < ANSWER / 4, "{:?}", start.elapsed());
        assert_eq!(asker.join().unwrap(), libc::ETIMEDOUT);
    });
    fake.behave();
    echo("new").unwrap();
    assert_eq!(unit.read("config"), "new", "from offset 0 on");
    mount.stop();
}
