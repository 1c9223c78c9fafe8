//! The disk behind an address changes, lies, or fails: which handles notice, what is never written, which error comes
//! out.

use crate::bed::fake::{self, Act, Fake};
use crate::bed::mount::{Mount, Unit, errno, try_open};
use crate::bed::{Bed, LATE, MIB, until};
use crate::tools::fsx::Aligned;
use aoefs::wire::ata::cmd;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

crate::tests![
    identity_m1_another_disk_at_the_address,
    identity_m2_swap_within_300_ms_with_100_writes_queued,
    identity_m2_swap_after_more_restarts_than_are_believed,
    identity_m4_shrunk_and_grown,
    identity_m5_garbage_identify,
    once_d3_errors_of_the_target_reach_the_right_request,
    sync_d6_kinds_of_flush,
    sector_w4_read_modify_write_fails_whole,
    sector_w1_certain_interleaving,
    return_l5_slow_target(120, beside),
    integrity_t4_late_answers_complete_nothing_else(beside),
    bound_t9_window_follows_the_advertised_buffers(beside),
    once_l4_window_of_one_and_an_error_on_the_last_frame,
    integrity_x6_ten_answers_or_the_wrong_one(beside),
    deadline_x7_answers_identify_but_no_io(beside),
    fallocate_punches_where_trim_zeroes,
];

const SECOND: Duration = Duration::from_secs(1);
const DISK: usize = 8 * MIB;

struct One {
    bed: Bed,
    fake: Fake,
    mount: Mount,
    unit: Unit,
}

fn one() -> One {
    one_with(fake::config("1.0", "disk-a"))
}

fn one_with(config: aoefs::target::TargetConfig) -> One {
    let mut bed = Bed::cable(&[], 9000);
    let fake = Fake::start(&bed.tgt, "v1", config, &vec![0xaa; DISK]);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    One { bed, fake, mount, unit }
}

impl One {
    fn done(self) {
        self.mount.stop();
        drop((self.fake, self.bed));
    }

    fn direct(&self) -> std::fs::File {
        self.unit.open_with("data", libc::O_DIRECT)
    }
}

fn identity_m1_another_disk_at_the_address() {
    let one = one();
    one.unit.ctl_ok("part p1 100 200");
    let (old, part) = (one.direct(), one.unit.open_with("p1", libc::O_DIRECT));
    let mut block = Aligned::new(4096);
    old.read_exact_at(block.bytes(), 0).unwrap();
    let content = vec![0xbb; DISK];
    one.fake.swap(fake::config("1.0", "disk-b"), &content);
    one.fake.announce();
    until("the new disk is up", 2 * SECOND, || one.unit.read("ctl").contains("serial: disk-b"));
    for file in [&old, &part] {
        assert_eq!(errno(file.read_at(block.bytes(), 0)), libc::ESTALE);
        assert_eq!(errno(file.write_at(block.bytes(), 0)), libc::ESTALE);
        assert_eq!(errno(file.sync_all()), libc::ESTALE);
    }
    assert!(!one.unit.file("p1").exists(), "the partition of the old disk is still there");
    let new = one.direct();
    new.read_exact_at(block.bytes(), 0).unwrap();
    assert!(block.bytes().iter().all(|byte| *byte == 0xbb));
    // Through the page cache too: nothing of the old disk is in it.
    assert!(std::fs::read(one.unit.data()).unwrap() == content);
    assert!(one.fake.content() == content, "an old handle wrote to the new disk");
    drop((old, part, new));
    one.done();
}

fn identity_m2_swap_within_300_ms_with_100_writes_queued() {
    for announce in [true, false] {
        let one = one();
        one.unit.ctl_ok("deadline 5");
        // The old disk stops answering; 100 writes wait for it.
        one.fake.script(|request| if request.is_io() { Act::Drop } else { Act::Reply });
        let other = vec![0xbb; DISK];
        std::thread::scope(|scope| {
            for n in 0..100u64 {
                let file = one.direct();
                scope.spawn(move || {
                    let mut block = Aligned::new(8192);
                    block.bytes().fill(0x77);
                    let error = errno(file.write_at(block.bytes(), n * 65_536));
                    assert!([libc::ESTALE, libc::EIO].contains(&error), "errno {error}");
                });
            }
            std::thread::sleep(SECOND / 5);
            one.fake.die();
            std::thread::sleep(Duration::from_millis(300));
            one.fake.swap(fake::config("1.0", "disk-b"), &other);
            one.fake.behave();
            one.fake.revive(announce);
        });
        until("the new disk is up", 10 * SECOND, || one.unit.read("ctl").contains("serial: disk-b"));
        let wrong = one.fake.content().iter().filter(|byte| **byte != 0xbb).count();
        assert_eq!(wrong, 0, "bytes that reached the other disk (announced: {announce})");
        one.done();
    }
}

/// The target restarts more often than announcements are believed at once, and then another disk is there without a
/// silence. Programs that never pause must not go on with that one.
fn identity_m2_swap_after_more_restarts_than_are_believed() {
    let one = one();
    let file = one.direct();
    let mut block = Aligned::new(4096);
    for _ in 0..20 {
        one.fake.die();
        one.fake.revive(true);
        file.write_all_at(block.bytes(), 0).unwrap();
    }
    one.fake.die();
    one.fake.swap(fake::config("1.0", "disk-b"), &vec![0xbb; DISK]);
    one.fake.behave();
    one.fake.revive(true);
    let (began, mut wrong) = (Instant::now(), 0);
    while file.write_at(block.bytes(), 0).is_ok() {
        wrong += 1;
        assert!(began.elapsed() < 5 * SECOND, "{wrong} writes have reached the other disk");
    }
    assert_eq!(errno(file.write_at(block.bytes(), 0)), libc::ESTALE);
    print!("[{wrong} writes reached the other disk in {:.1?}] ", began.elapsed());
    drop(file);
    one.done();
}

fn identity_m4_shrunk_and_grown() {
    let one = one();
    let old = one.direct();
    let mut block = Aligned::new(4096);
    // Grown, and the operator says so: the same disk.
    one.fake.resize(2 * DISK as u64 / 512);
    one.unit.ctl_ok("identify");
    until("the size is taken over", 2 * SECOND, || one.unit.size("data") == 2 * DISK as u64);
    old.read_exact_at(block.bytes(), 0).unwrap();
    old.write_all_at(block.bytes(), DISK as u64).unwrap();
    // Shrunk: another disk, and nothing behind its end.
    one.unit.ctl_ok(&format!("part tail {} {}", 3 * DISK / 1024, 4 * DISK / 1024));
    one.fake.resize(DISK as u64 / 512);
    one.unit.ctl_ok("identify");
    until("the size is taken over", 2 * SECOND, || one.unit.size("data") == DISK as u64);
    assert_eq!(errno(old.read_at(block.bytes(), 0)), libc::ESTALE);
    assert!(!one.unit.file("tail").exists());
    drop(old);
    one.done();
}

fn identity_m5_garbage_identify() {
    let one = one();
    one.unit.ctl_ok("deadline 2");
    let other = Fake::start(&one.bed.tgt, "v1", fake::config("2.0", "liar"), &[0; 4096]);
    // 0 sectors in both places, with no check sum: an unusable disk.
    other.script(|request| {
        if request.is(cmd::IDENTIFY) {
            Act::Edit(Box::new(|frame| frame[36..548].fill(0)))
        } else {
            Act::Reply
        }
    });
    other.announce();
    std::thread::sleep(SECOND);
    let there = one.mount.unit("2.0");
    assert_ne!(there.state(), "up", "an unusable disk is up");
    assert!(errno(try_open(&there.data(), 0)) != 0);
    other.behave();
    other.announce();
    one.mount.wait_for("2.0", 3 * SECOND);
    assert_eq!(one.unit.state(), "up");
    one.done();
    drop(other);
}

fn once_d3_errors_of_the_target_reach_the_right_request() {
    let one = one();
    let file = one.direct();
    let mut block = Aligned::new(4096);
    for (what, act) in [
        ("IDNF", (|| Act::ata_error(0x41, 0x10)) as fn() -> Act),
        ("ABRT", || Act::ata_error(0x41, 0x04)),
        ("UNC without DRDY", || Act::ata_error(0x01, 0x40)),
        ("device fault", || Act::ata_error(0x60, 0x04)),
        ("AoE error 2", || Act::refuse(2)),
        ("AoE error 3", || Act::refuse(3)),
        ("AoE error 0", || Act::refuse(0)),
    ] {
        one.fake.script(move |request| if request.is_io() { act() } else { Act::Reply });
        let start = Instant::now();
        assert_eq!(errno(file.read_at(block.bytes(), 8192)), libc::EIO, "{what}");
        assert_eq!(errno(file.write_at(block.bytes(), 8192)), libc::EIO, "{what}");
        assert!(start.elapsed() < 2 * SECOND, "{what}: {:?}", start.elapsed());
        one.fake.behave();
        file.read_exact_at(block.bytes(), 8192).unwrap();
        assert_eq!(one.unit.state(), "up", "{what}");
    }
    // Reserved by another host.
    one.fake.script(|request| if request.is_io() { Act::refuse(6) } else { Act::Reply });
    assert_eq!(errno(file.write_at(block.bytes(), 0)), libc::EBUSY);
    // One bad sector among good ones: exactly the requests that touch it fail.
    one.fake.script(|request| {
        let bad = request.ata.is_some_and(|ata| {
            let first = ata.sector48().0;
            request.is_io() && (first..first + u64::from(ata.count)).contains(&1000)
        });
        if bad { Act::ata_error(0x41, 0x40) } else { Act::Reply }
    });
    std::thread::scope(|scope| {
        for n in 0..64u64 {
            let file = one.direct();
            scope.spawn(move || {
                let mut block = Aligned::new(16_384);
                let at = (n * 32 * 512) % (DISK as u64);
                let hit = (n * 32..n * 32 + 32).contains(&1000);
                let result = file.read_exact_at(block.bytes(), at);
                assert_eq!(result.is_err(), hit, "sectors {}..{}: {result:?}", n * 32, n * 32 + 32);
            });
        }
    });
    drop(file);
    one.done();
}

fn sync_d6_kinds_of_flush() {
    let one = one();
    one.unit.ctl_ok("deadline 2");
    let file = one.unit.open("data");
    let sent = |one: &One| {
        let log = one.fake.log();
        let count = |which: u8| log.iter().filter(|request| request.is(which)).count();
        one.fake.forget_log();
        (count(cmd::FLUSH), count(cmd::FLUSH_EXT))
    };
    file.write_all_at(b"x", 1).unwrap();
    one.fake.forget_log();
    file.sync_all().unwrap();
    assert_eq!(sent(&one), (0, 1), "FLUSH CACHE EXT is what it says it has");
    // Fails: EIO, and the next one asks again.
    one.fake
        .script(|request| if request.is(cmd::FLUSH_EXT) { Act::ata_error(0x61, 0x40) } else { Act::Reply });
    assert_eq!(errno(file.sync_all()), libc::EIO);
    one.fake.behave();
    file.sync_all().unwrap();
    assert_eq!(sent(&one).1, 2);
    // Never answered: EIO when the deadline has passed.
    one.fake.script(|request| if request.is(cmd::FLUSH_EXT) { Act::Drop } else { Act::Reply });
    let start = Instant::now();
    assert_eq!(errno(file.sync_all()), libc::EIO);
    let took = start.elapsed();
    assert!(took >= 2 * SECOND && took <= 2 * SECOND + LATE, "{took:?}");
    one.fake.behave();
    one.mount.wait_for("1.0", 5 * SECOND);
    // EA aborted, which has worked before: E7 is tried, and does not make good what EA lost. Nothing is concluded for
    // the next one.
    one.fake.forget_log();
    for aborted in [&[cmd::FLUSH_EXT][..], &[cmd::FLUSH_EXT, cmd::FLUSH]] {
        one.fake.script(move |request| {
            let abort = aborted.iter().any(|command| request.is(*command));
            if abort { Act::ata_error(0x51, 0x04) } else { Act::Reply }
        });
        for _ in 0..2 {
            assert_eq!(errno(file.sync_all()), libc::EIO, "{aborted:x?}");
            assert_eq!(sent(&one), (1, 1), "{aborted:x?}");
        }
        assert!(one.unit.read("ctl").contains("flush: ext"), "{}", one.unit.read("ctl"));
        one.fake.behave();
        file.sync_all().unwrap();
        assert_eq!(sent(&one), (0, 1));
    }
    drop(file);
    one.done();
}

fn sector_w4_read_modify_write_fails_whole() {
    let one = one();
    let file = one.direct();
    one.fake
        .script(|request| if request.is(cmd::READ_EXT) { Act::ata_error(0x41, 0x40) } else { Act::Reply });
    assert_eq!(errno(file.write_at(&[1; 100], 1000)), libc::EIO);
    one.fake.behave();
    assert!(one.fake.content().iter().all(|byte| *byte == 0xaa), "the sector was touched");
    drop(file);
    one.done();
}

fn sector_w1_certain_interleaving() {
    // Reads answer after 300 ms: two unaligned writes to one sector overlap for certain unless one waits for the
    // other. Through two names, since the kernel itself lets only one writer at a time into a file.
    let one = one();
    one.unit.ctl_ok("part low 0 8000");
    let slow = |one: &One, by: Duration| {
        one.fake.script(move |request| if request.is(cmd::READ_EXT) { Act::Delay(by) } else { Act::Reply });
    };
    slow(&one, Duration::from_millis(300));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (n, name) in [(0u8, "data"), (1, "low")] {
            let file = one.unit.open_with(name, libc::O_DIRECT);
            scope.spawn(move || file.write_all_at(&[n + 1; 64], 512 * 10 + u64::from(n) * 64).unwrap());
        }
    });
    let took = start.elapsed();
    one.fake.behave();
    let sector = &one.fake.content()[5120..5632];
    assert!(sector[..64] == [1; 64] && sector[64..128] == [2; 64], "an update is lost");
    assert!(took >= Duration::from_millis(600), "{took:?}: not one after the other");
    // Whole sectors elsewhere do not wait for anybody.
    slow(&one, SECOND);
    std::thread::scope(|scope| {
        let file = one.direct();
        let slow = scope.spawn(move || file.write_all_at(&[9; 10], 20_000).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        let other = one.unit.open_with("low", libc::O_DIRECT);
        other.write_all_at(&[8; 512], 512 * 100).unwrap();
        assert!(!slow.is_finished(), "it waited for a write of other sectors");
        slow.join().unwrap();
    });
    one.fake.behave();
    one.done();
}

fn return_l5_slow_target() {
    let one = one();
    one.unit.ctl_ok("deadline 60");
    let copies = Arc::new(AtomicU32::new(0));
    let seen = copies.clone();
    one.fake.script(move |request| {
        if request.is_io() {
            seen.fetch_add(1, SeqCst);
            Act::Late(Duration::from_millis(500))
        } else {
            Act::Reply
        }
    });
    let file = one.direct();
    let mut block = Aligned::new(4096);
    for n in 0..20 {
        file.read_exact_at(block.bytes(), n * 4096).unwrap();
    }
    let copies = copies.load(SeqCst);
    print!("[{copies} copies of 20 frames] ");
    assert!(copies <= 60, "{copies} copies of 20 frames");
    assert_eq!(one.unit.state(), "up");
    one.fake.behave();
    drop(file);
    one.done();
}

fn integrity_t4_late_answers_complete_nothing_else() {
    let one = one();
    let mut model = vec![0xaa; DISK];
    (0..DISK / 512).for_each(|n| model[n * 512..n * 512 + 8].copy_from_slice(&(n as u64).to_le_bytes()));
    std::fs::write(one.unit.data(), &model).unwrap();
    // Every third answer comes late, long after the frame was sent again and answered.
    let mut n = 0;
    one.fake.script(move |_| {
        n += 1;
        if n % 3 == 0 { Act::Delay(Duration::from_millis(700 + n % 5 * 100)) } else { Act::Reply }
    });
    let mut rng = crate::bed::Rng::new(5);
    let file = one.direct();
    let (mut block, mut reads) = (Aligned::new(512), 0);
    let end = Instant::now() + 5 * SECOND;
    while Instant::now() < end {
        reads += 1;
        let sector = rng.below((DISK / 512) as u64);
        file.read_exact_at(block.bytes(), sector * 512).unwrap();
        assert_eq!(block.bytes()[..8], sector.to_le_bytes(), "the answer to another request");
    }
    let stats = one.unit.read("stats");
    let late = stats.lines().find_map(|line| line.strip_prefix("late: ")).unwrap();
    print!("[{reads} reads, {late} late answers] ");
    assert_ne!(late, "0");
    one.fake.behave();
    drop(file);
    one.done();
}

fn bound_t9_window_follows_the_advertised_buffers() {
    for buffers in [0, 1, 2, 16, 65_535] {
        let mut config = fake::config("1.0", "disk-a");
        config.buffers = buffers;
        let one = one_with(config);
        // Outstanding = requests of which the answer has not left. Answers wait a little, so that a window fills.
        one.fake.script(
            |request| if request.is_io() { Act::Delay(Duration::from_millis(5)) } else { Act::Reply },
        );
        std::thread::scope(|scope| {
            for n in 0..8u64 {
                let file = one.direct();
                scope.spawn(move || {
                    let mut block = Aligned::new(MIB);
                    file.read_exact_at(block.bytes(), n * MIB as u64).unwrap();
                });
            }
        });
        // Of what was sent once only: a frame whose answer was late on a busy machine was given up, and its place was
        // another's from then on, while its first copy may still have been waiting here.
        let mut sent: BTreeMap<u64, Vec<Instant>> = BTreeMap::new();
        for request in one.fake.log().iter().filter(|request| request.is_io()) {
            sent.entry(request.sectors().start).or_default().push(request.at);
        }
        let io: Vec<Instant> = sent.into_values().filter(|copies| copies.len() == 1).flatten().collect();
        let most = io.iter().map(|at| {
            io.iter().filter(|other| **other <= *at && *at - **other < Duration::from_millis(5)).count()
        });
        let most = most.max().unwrap();
        let limit = usize::from(buffers).clamp(1, 128);
        print!("[{buffers}: {most}] ");
        assert!(most <= limit, "{most} outstanding, {buffers} advertised");
        one.fake.behave();
        one.done();
    }
}

fn once_l4_window_of_one_and_an_error_on_the_last_frame() {
    let mut config = fake::config("1.0", "disk-a");
    config.buffers = 1;
    let one = one_with(config);
    const LEN: usize = 64 << 10;
    for round in 0..50u64 {
        // Four requests of eight frames each wait for one place; the last frame of one of them fails.
        let bad = round % 4;
        one.fake.script(move |request| {
            let last = request.ata.is_some_and(|ata| {
                let end = ata.sector48().0 + u64::from(ata.count);
                end == (bad + 1) * (LEN / 512) as u64
            });
            if request.is_io() && last { Act::ata_error(0x41, 0x40) } else { Act::Reply }
        });
        std::thread::scope(|scope| {
            for n in 0..4 {
                let file = one.direct();
                scope.spawn(move || {
                    let mut block = Aligned::new(LEN);
                    let result = if (round / 4).is_multiple_of(2) {
                        file.read_exact_at(block.bytes(), n * LEN as u64)
                    } else {
                        block.bytes().fill(0xaa);
                        file.write_all_at(block.bytes(), n * LEN as u64)
                    };
                    let failed = result.map_err(|error| error.raw_os_error()).err();
                    assert_eq!(failed, (n == bad).then_some(Some(libc::EIO)), "request {n} of round {round}");
                });
            }
        });
    }
    print!("[200 requests, 50 failed] ");
    one.fake.behave();
    assert!(std::fs::read(one.unit.data()).unwrap() == vec![0xaa; DISK]);
    one.done();
}

fn integrity_x6_ten_answers_or_the_wrong_one() {
    let one = one();
    one.unit.ctl_ok("part low 0 8000");
    let mut n = 0;
    one.fake.script(move |request| {
        n += 1;
        match n % 23 {
            _ if !request.is_io() => Act::Reply,
            0 => Act::wrong_tag(),
            // A read's answer without its end, a write's with data that nobody asked for.
            1 if request.is_write() => Act::wrong_size(512),
            1 => Act::wrong_size(-512),
            _ => Act::Answers(10),
        }
    });
    let views = [("data", DISK as u64), ("low", 8000 * 512)].map(|(name, len)| {
        let file = one.unit.open_with(name, libc::O_DIRECT);
        crate::tools::fsx::View { file, start: 0, len }
    });
    let mut model = vec![0xaa; DISK];
    let also = crate::tools::fsx::Also { align: 512, ..Default::default() };
    crate::tools::fsx::run(&views, &mut model, 0..DISK as u64, 500, 66, also).unwrap();
    let stats = one.unit.read("stats");
    let count = |key: &str| {
        let line =
            stats.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key}\n{stats}"));
        line.parse::<u64>().unwrap()
    };
    let (duplicates, others) =
        (count("duplicates: ") + count("late: "), count("unexpected: ") + count("mismatched: "));
    print!("[500 operations, {duplicates} answers too many, {others} that fit nothing] ");
    assert!(duplicates > 1000 && others > 0, "{stats}");
    one.fake.behave();
    assert!(one.fake.content() == model);
    drop(views);
    one.done();
}

fn deadline_x7_answers_identify_but_no_io() {
    let one = one();
    one.unit.ctl_ok("deadline 2");
    let file = one.direct();
    one.fake.script(|request| if request.is_io() { Act::Drop } else { Act::Reply });
    let mut block = Aligned::new(4096);
    for write in [false, true] {
        one.mount.wait_for("1.0", 3 * SECOND);
        let start = Instant::now();
        let result = if write { file.write_at(block.bytes(), 0) } else { file.read_at(block.bytes(), 0) };
        assert_eq!(errno(result), libc::EIO);
        let took = start.elapsed();
        print!("[{} failed after {took:.2?}] ", if write { "write" } else { "read" });
        assert!(took >= 2 * SECOND && took <= 2 * SECOND + LATE, "{took:?}");
    }
    one.fake.behave();
    one.mount.wait_for("1.0", 3 * SECOND);
    file.read_exact_at(block.bytes(), 0).unwrap();
    drop(file);
    one.done();
}

fn fallocate_punches_where_trim_zeroes() {
    let one = one();
    let file = one.unit.open("data");
    let fallocate = |mode: i32, at: i64, len: i64| {
        // SAFETY: a plain system call on an open descriptor; no memory is involved.
        let result = unsafe { libc::fallocate(std::os::fd::AsRawFd::as_raw_fd(&file), mode, at, len) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    };
    one.fake.forget_log();
    fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 1000, 3 << 20);
    let mut want = vec![0xaa; DISK];
    want[1000..1000 + (3 << 20)].fill(0);
    assert!(one.fake.content() == want);
    assert!(std::fs::read(one.unit.data()).unwrap() == want);
    let log = one.fake.log();
    assert!(log.iter().any(|request| request.is(cmd::DSM)), "no TRIM was sent");
    let written: usize = log.iter().filter(|request| request.is_write()).map(|request| request.len).sum();
    assert!(written < 64 << 10, "{written} bytes written for a hole");
    drop(file);
    one.done();
}
