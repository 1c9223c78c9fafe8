//! Targets that do with right frames what one does not expect: the other rows of the table of quirks (CATALOGUE.md,
//! section K).
//!
//! Promises: as in `quirk_frames`: each test sees the target misbehave and uses the mounted files meanwhile.

use super::quirk_frames::{DISK, SECOND, Stage, counter};
use crate::bed::fake::{self, Act, Fake, Request};
use crate::bed::mount::errno;
use crate::bed::{Bed, MIB, Rng, until};
use crate::tools::fsx::Aligned;
use aoefs::target::MemoryImage;
use aoefs::wire::ata::cmd;
use aoefs::wire::{DATA_OFFSET, Mac, SECTOR};
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

crate::tests![
    quirk_buffers_of_0_1_3_and_1024(beside),
    quirk_overflowing_queue_drops_silently(120),
    quirk_one_thread_that_waits_for_its_disk(120),
    quirk_ends_with_its_link(beside),
    quirk_ends_of_an_answer_above_its_mtu,
    quirk_duplicates_are_executed(120),
    quirk_requests_are_reordered(120),
    quirk_identical_serials,
    quirk_trim_promised_and_aborted,
    quirk_lists_and_flushes_of_ggaoed,
];

const MS: Duration = Duration::from_millis(1);

fn image() -> MemoryImage {
    MemoryImage::new((DISK / SECTOR) as u64)
}

/// Row: bufcnt 0/1/1024/3 — various — clamp [1, own max]. `media::bound_t9_*` has 0, 1, 2, 16 and 65535, too.
fn quirk_buffers_of_0_1_3_and_1024() {
    for buffers in [0u16, 1, 3, 1024] {
        let mut config = fake::config("1.0", "quirk");
        config.buffers = buffers;
        let script = |request: &Request| if request.is_io() { Act::Delay(2 * MS) } else { Act::Reply };
        let stage = Stage::with(1500, config, image(), script);
        let limit = buffers.clamp(1, 128);
        stage.works(1);
        // Of what was sent once only: a frame that was overdue on a busy machine was given up, and its place was
        // another's from then on, while its first copy may still have been waiting here.
        let mut sent: BTreeMap<_, Vec<Instant>> = BTreeMap::new();
        for request in stage.fake.log().iter().filter(|request| request.is_io()) {
            sent.entry((request.is_write(), request.sectors().start)).or_default().push(request.at);
        }
        let once: Vec<Instant> = sent.into_values().filter(|copies| copies.len() == 1).flatten().collect();
        let flying = |at: &Instant| once.iter().filter(|x| *x <= at && *at - **x < 2 * MS).count();
        let most = once.iter().map(flying).max().unwrap();
        assert!(most <= usize::from(limit), "{most} outstanding with {buffers} buffers");
        assert!(buffers < 2 || most > 1, "one at a time with {buffers} buffers");
        stage.done();
    }
}

/// Row: queue overflow => silent drop — all — window + RTO. It advertises 128 buffers, and has room for five frames.
fn quirk_overflowing_queue_drops_silently() {
    const ROOM: usize = 5;
    let (dropped, seen) = counter();
    let mut queue: VecDeque<Instant> = VecDeque::new();
    let stage = Stage::from_the_start(move |request| {
        if !request.is_io() {
            return Act::Reply;
        }
        while queue.front().is_some_and(|done| *done <= request.at) {
            queue.pop_front();
        }
        if queue.len() >= ROOM {
            dropped.fetch_add(1, SeqCst);
            return Act::Drop;
        }
        let free = queue.back().copied().unwrap_or(request.at);
        queue.push_back(free + MS / 2);
        Act::Late(free + MS / 2 - request.at)
    });
    let start = Instant::now();
    stage.works(2);
    std::thread::scope(|scope| {
        for n in 0..4u64 {
            let file = stage.direct();
            scope.spawn(move || {
                let mut block = Aligned::new(MIB);
                block.bytes().fill(n as u8 + 1);
                file.write_all_at(block.bytes(), n * MIB as u64).unwrap();
                file.read_exact_at(block.bytes(), n * MIB as u64).unwrap();
                assert!(block.bytes().iter().all(|byte| *byte == n as u8 + 1));
            });
        }
    });
    let (dropped, all) = (seen.load(SeqCst), stage.seen(Request::is_io));
    print!("[{dropped} of {all} frames dropped, {:.1?}] ", start.elapsed());
    assert!(dropped > 10, "{dropped}: its queue did not overflow");
    // The window learns how much there is room for.
    assert!((dropped as usize) < all / 3, "{dropped} of {all} frames were lost");
    assert!(start.elapsed() < 10 * SECOND, "{:?}", start.elapsed());
    stage.fake.behave();
    stage.done();
}

/// Row: single thread, blocks on disk I/O — vblade — RTT includes disk time; do not retransmit at 40 ms.
fn quirk_one_thread_that_waits_for_its_disk() {
    let stage = Stage::new();
    // A network of 100 µs, so that patience with the disk is not patience with the network.
    stage.works(3);
    let block_for = 300 * MS;
    stage.fake.script(move |request| {
        if request.is_io() {
            // The thread that receives stands still, and everything behind waits in the socket.
            std::thread::sleep(block_for);
        }
        Act::Reply
    });
    stage.fake.forget_log();
    let file = stage.direct();
    let mut block = Aligned::new(512);
    let copies = |n: u64| stage.seen(|r| r.is_io() && r.sectors().start == n);
    for n in 0..10 {
        file.read_exact_at(block.bytes(), n * 512).unwrap();
    }
    // Copies that were sent in surprise are still waiting for the disk.
    std::thread::sleep(block_for);
    let reads: Vec<usize> = (0..10).map(copies).collect();
    for n in 100..110u64 {
        file.write_all_at(block.bytes(), n * 512).unwrap();
    }
    let writes: Vec<usize> = (100..110).map(copies).collect();
    print!("[copies of reads {reads:?}, of writes {writes:?}] ");
    // The first comes as a surprise: a disk that took 100 us takes 300 ms. Then it is known how slow it is.
    assert!(reads.iter().sum::<usize>() <= 30, "{reads:?}");
    assert!(reads[5..].iter().sum::<usize>() <= 6, "{reads:?}");
    assert!(writes.iter().all(|copies| *copies == 1), "{writes:?}");
    assert_eq!(stage.unit.state(), "up");
    stage.fake.behave();
    drop(file);
    stage.works(4);
    stage.done();
}

/// Row: exits when NIC goes down (or reply > MTU: the next test) — vblade — treat as dead; rediscover.
fn quirk_ends_with_its_link() {
    let stage = Stage::new();
    stage.unit.ctl_ok("deadline 20");
    std::thread::scope(|scope| {
        stage.bed.tgt.ip("link set v1 down");
        stage.fake.die();
        let writer = scope.spawn(|| {
            let file = stage.direct();
            let mut block = Aligned::new(4096);
            block.bytes().fill(5);
            file.write_all_at(block.bytes(), 4096).map(|()| Instant::now())
        });
        std::thread::sleep(SECOND);
        stage.bed.tgt.ip("link set v1 up");
        std::thread::sleep(SECOND);
        assert!(!writer.is_finished(), "nobody answered, and the write is done");
        let back = Instant::now();
        stage.fake.revive(true);
        let done = writer.join().unwrap().unwrap();
        assert!(done - back < SECOND, "{:?} after it was back", done - back);
    });
    assert!(stage.fake.content()[4096..8192] == [5; 4096]);
    // For longer than the deadline: it is down, says ENXIO at once, and is found again.
    stage.unit.ctl_ok("deadline 1");
    stage.fake.die();
    assert_eq!(errno(stage.direct().read_at(Aligned::new(512).bytes(), 0)), libc::EIO);
    until("it is down", SECOND, || stage.unit.state() == "down");
    assert_eq!(errno(crate::bed::mount::try_open(&stage.unit.data(), 0)), libc::ENXIO);
    stage.fake.revive(true);
    stage.mount.wait_for("1.0", SECOND);
    stage.works(6);
    stage.done();
}

/// Row: exits when ... reply > MTU — vblade — it is never asked for one, whatever our own MTU is.
fn quirk_ends_of_an_answer_above_its_mtu() {
    let mut bed = Bed::cable(&[], 9000);
    bed.tgt.ip("link set v1 mtu 1500");
    let fake = Fake::start_on(&bed.tgt, "v1", fake::config("1.0", "small"), image());
    let too_long = |request: &Request| {
        let data = request.ata.filter(|ata| [cmd::READ, cmd::READ_EXT, cmd::IDENTIFY].contains(&ata.command));
        let answer = DATA_OFFSET + data.map_or(0, |ata| usize::from(ata.count) * SECTOR);
        answer > 1514
    };
    let (asked, seen) = counter();
    fake.script(move |request| {
        asked.fetch_add(u32::from(too_long(request)), SeqCst);
        Act::Reply
    });
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    let stage = Stage { bed, fake, mount, unit };
    stage.unit.ctl_ok("mtu 9000\nprobe\nidentify");
    stage.works(7);
    std::thread::sleep(SECOND / 2);
    assert_eq!(seen.load(SeqCst), 0, "answers above the target's MTU were asked for");
    stage.done();
}

/// Row: executes duplicates — all — write-hazard quarantine.
fn quirk_duplicates_are_executed() {
    // The first copy of the first write is on its way for 700 ms; the second is done at once. Then the user writes
    // anew.
    let stage = Stage::new();
    let file = stage.direct();
    let mut block = Aligned::new(4096);
    for round in 0..5u8 {
        // What it learns of the late copy it has forgotten by then: the network is fast, and a lost frame soon missed.
        stage.fake.behave();
        stage.works(round);
        let at = u64::from(round) * 8192;
        let (executed, seen) = counter();
        let (mut copies, first) = (0, at / 512);
        stage.fake.script(move |request| {
            if !request.is_write() || request.sectors().start != first {
                return Act::Reply;
            }
            copies += 1;
            executed.fetch_add(1, SeqCst);
            if copies == 1 { Act::Late(700 * MS) } else { Act::Reply }
        });
        let start = Instant::now();
        block.bytes().fill(0x10 + round);
        file.write_all_at(block.bytes(), at).unwrap();
        let took = start.elapsed();
        assert!(seen.load(SeqCst) >= 2 && took < 700 * MS, "no duplicate: {took:?}");
        block.bytes().fill(0x90 + round);
        file.write_all_at(block.bytes(), at).unwrap();
        // Others do not wait.
        let other = Instant::now();
        file.write_all_at(block.bytes(), 2 * MIB as u64).unwrap();
        assert!(other.elapsed() < 200 * MS, "{:?}", other.elapsed());
        std::thread::sleep((800 * MS).saturating_sub(start.elapsed()));
        let got = stage.fake.sector(first);
        assert!(got == [0x90 + round; 512], "round {round}: the old write came back: {:02x}", got[0]);
        // Every copy there was has been executed.
        assert!(seen.load(SeqCst) >= 3);
    }
    stage.fake.behave();
    drop(file);
    stage.done();
}

/// Row: reorders — ggaoed, kvblade — no overlaps in flight.
fn quirk_requests_are_reordered() {
    let stage = Stage::new();
    stage.unit.ctl_ok("part low 0 4096");
    // What is on its way, to when it is executed, and who it is by the data's first bytes.
    type Flying = Vec<(Instant, std::ops::Range<u64>, [u8; 8])>;
    let overlaps: Arc<Mutex<Vec<String>>> = Arc::default();
    let found = overlaps.clone();
    let (reordered, seen) = counter();
    let (mut rng, mut flying): (Rng, Flying) = (Rng::new(8), Vec::new());
    stage.fake.script(move |request| {
        if !request.is_io() {
            return Act::Reply;
        }
        let due = request.at + Duration::from_micros(rng.below(12_000));
        flying.retain(|(until, ..)| *until > request.at);
        let (range, who) = (request.sectors(), <[u8; 8]>::try_from(&request.head[36..44]).unwrap());
        for (until, other, owner) in &flying {
            reordered.fetch_add(u32::from(*until > due), SeqCst);
            let both = request.is_write() && other.start < range.end && range.start < other.end;
            if both && *owner != who {
                found.lock().unwrap().push(format!("{range:?} while {other:?} is on its way"));
            }
        }
        if request.is_write() {
            flying.push((due, range, who));
        }
        Act::Late(due - request.at)
    });
    std::thread::scope(|scope| {
        for n in 0..4u64 {
            let file = stage.unit.open_with(if n % 2 == 0 { "data" } else { "low" }, libc::O_DIRECT);
            scope.spawn(move || {
                let (mut rng, mut block) = (Rng::new(n), Aligned::new(16 << 10));
                for round in 0..40u64 {
                    // Sixteen places for four writers: they meet all the time.
                    let (at, len) = (rng.below(16) * 4096, (1 + rng.below(4) as usize) * 4096);
                    for sector in block.bytes()[..len].chunks_mut(512) {
                        sector.fill((n * 40 + round) as u8);
                        sector[..8].copy_from_slice(&(n << 32 | round).to_le_bytes());
                    }
                    file.write_all_at(&block.bytes()[..len], at).unwrap();
                    if round % 3 == 0 {
                        file.read_exact_at(&mut block.bytes()[..4096], at).unwrap();
                        for sector in block.bytes()[..4096].chunks(512) {
                            assert!(sector[8..].iter().all(|byte| *byte == sector[8]), "a torn sector");
                        }
                    }
                }
            });
        }
    });
    print!("[{} pairs reordered] ", seen.load(SeqCst));
    assert!(seen.load(SeqCst) > 100, "{} pairs reordered", seen.load(SeqCst));
    let overlaps = overlaps.lock().unwrap();
    assert!(overlaps.is_empty(), "{} overlaps, such as {}", overlaps.len(), overlaps[0]);
    stage.fake.behave();
    stage.done();
}

/// Row: identical serials — kvblade "SN HERE", P9V "serial#" — compare capacity too.
fn quirk_identical_serials() {
    let same = |addr: &str| fake::config(addr, "SN HERE");
    let mut bed = Bed::cable(&[], 9000);
    bed.ini.veth("w0", &bed.tgt, "w1", 9000);
    let fake = Fake::start_on(&bed.tgt, "v1", same("1.0"), image());
    // Another disk at another address, and another disk at the same address on another wire.
    let other = Fake::start_on(&bed.tgt, "v1", same("1.1"), MemoryImage::new(64));
    let ns = bed.ini.clone();
    let mount = bed.mount_in(&ns, &["-i", "v0"]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    let second = mount.wait_for("1.1", 3 * SECOND);
    let impostor = Fake::start_on(&bed.tgt, "w1", same("1.0"), MemoryImage::new(64));
    impostor.script(|_| Act::Reply);
    mount.ctl("bind w0").unwrap();
    mount.ctl("discover").unwrap();
    until("it was asked who it is", 2 * SECOND, || impostor.log().iter().any(|r| r.is(cmd::IDENTIFY)));
    std::thread::sleep(SECOND / 2);
    assert_eq!((unit.size("data"), second.size("data")), (DISK as u64, 64 * 512));
    assert_eq!(unit.line("serial"), second.line("serial"));
    let stage = Stage { bed, fake, mount, unit };
    stage.works(9);
    assert_eq!(impostor.log().iter().filter(|r| r.is_io()).count(), 0, "I/O over the other disk's path");
    // The size tells a swapped disk where the serial does not.
    let held = stage.direct();
    stage.fake.swap(same("1.0"), &[0x33; DISK / 2]);
    stage.fake.announce();
    until("the other disk is shown", 2 * SECOND, || stage.unit.size("data") == DISK as u64 / 2);
    assert_eq!(errno(held.read_at(Aligned::new(512).bytes(), 0)), libc::ESTALE);
    assert_eq!(errno(held.write_at(Aligned::new(512).bytes(), 0)), libc::ESTALE);
    assert!(stage.fake.content().iter().all(|byte| *byte == 0x33), "written to the other disk");
    drop(held);
    drop((other, impostor));
    stage.done();
}

/// Row: TRIM advertised but ABRT — torus — treat ABRT as unsupported.
fn quirk_trim_promised_and_aborted() {
    for (status, refusal) in [(0x41, None), (0x01, None), (0, Some(1)), (0, Some(2))] {
        let stage = Stage::new();
        stage.works(10);
        stage.fake.script(move |request| match refusal {
            _ if !request.is(cmd::DSM) => Act::Reply,
            None => Act::fail_undone(status, 0x04),
            Some(code) => Act::refuse_undone(code),
        });
        let before = stage.fake.content();
        let file = stage.unit.open("data");
        let punch = || {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            // SAFETY: a plain system call on an open descriptor; no memory is involved.
            match unsafe { libc::fallocate(std::os::fd::AsRawFd::as_raw_fd(&file), mode, 0, 1 << 20) } {
                0 => 0,
                _ => std::io::Error::last_os_error().raw_os_error().unwrap(),
            }
        };
        assert_eq!(punch(), libc::EOPNOTSUPP);
        let trims = stage.seen(|request| request.is(cmd::DSM));
        assert!(trims > 0, "it was promised, so it is tried");
        assert_eq!(punch(), libc::EOPNOTSUPP);
        assert_eq!(stage.seen(|request| request.is(cmd::DSM)), trims, "it is not tried again");
        assert!(stage.fake.content() == before);
        drop(file);
        stage.works(11);
        stage.done();
    }
}

/// ggaoed 1.1: promises both flushes and sends the request's registers back; keeps its config string, its mask and
/// its reservation as the protocol says, a reservation for reads and writes only; knows no vendor command.
fn quirk_lists_and_flushes_of_ggaoed() {
    let other = Mac([2, 0, 0, 0, 0x99, 1]);
    let (echoed, seen) = counter();
    let mut rest = fake::ggaoed();
    let stage = Stage::from_the_start(move |request| {
        if request.is(cmd::FLUSH) || request.is(cmd::FLUSH_EXT) {
            echoed.fetch_add(1, SeqCst);
        }
        rest(request)
    });
    let lines = |stage: &Stage| stage.mount.read("log").matches("does not flush").count();
    stage.works(4);
    assert!(stage.unit.read("ctl").contains("flush: none"), "{}", stage.unit.read("ctl"));
    assert_eq!((seen.load(SeqCst), lines(&stage)), (1, 1), "asked once, said once");
    stage.works(5);
    assert_eq!((seen.load(SeqCst), lines(&stage)), (1, 1));
    // The operator wants to know again.
    stage.unit.ctl_ok("identify");
    until("it is asked again", 3 * SECOND, || {
        stage.works(6);
        seen.load(SeqCst) == 2
    });
    assert!(stage.unit.read("ctl").contains("flush: none"));
    // Config: set claims what is free, test and prefix are silent where they do not match, force does as it is told.
    let ctl = |line: &str| stage.unit.ctl(line);
    stage.unit.ctl_ok("config set one");
    assert_eq!(errno(ctl("config set two")), libc::EEXIST);
    stage.unit.ctl_ok("config set one");
    stage.unit.ctl_ok("config prefix on");
    assert_eq!(errno(ctl("config test two")), libc::ENOENT);
    stage.unit.ctl_ok("config force two");
    assert_eq!(stage.unit.read("config"), "two");
    // The reservation holds for reads and writes; everything else goes on.
    let write = |file: &str, text: &str| std::fs::write(stage.unit.file(file), text);
    write("reserve", &format!("force {other}\n")).unwrap();
    assert_eq!(errno(stage.direct().read_at(Aligned::new(512).bytes(), 0)), libc::EBUSY);
    stage.unit.ctl_ok("config test two");
    write("reserve", &format!("force {}\n", stage.bed.ini.mac("v0"))).unwrap();
    write("reserve", "release\n").unwrap();
    assert_eq!(stage.unit.read("reserve"), "");
    // The mask: our own address goes in first.
    write("mask", &format!("add {other}\n")).unwrap();
    let listed = stage.unit.read("mask");
    assert!(listed.lines().count() == 2 && listed.contains(&other.to_string()), "{listed}");
    stage.works(7);
    write("mask", &format!("del {other}\n")).unwrap();
    assert!(!stage.unit.read("mask").contains(&other.to_string()));
    stage.works(8);
    stage.done();
}
