//! The threads bed: the real runtime with its threads and locks, over an in-process link to the built-in target.
//! No privilege, no mount; what is asserted is what requests bring back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aoefs::engine::{Error, Io, Outcome, Output, PathStats, Request, WriteBuf};
use aoefs::export::Export;
use aoefs::export::server::Server;
use aoefs::link::OutFrame;
use aoefs::link::loopback::{Fate, Hook, LoopbackLink, pair};
use aoefs::runtime::events::Cursor;
use aoefs::runtime::{Runtime, TARGETS_MAX, Unit};
use aoefs::target::{MemoryImage, TargetConfig};
use aoefs::wire::Addr;

mod deputy;
mod target;

/// Requests must not hang: everything here ends within this.
const PATIENCE: Duration = Duration::from_secs(60);
const SECTORS: u64 = 16384;

/// A hook that draws from `seed`: of a million frames, `drop` are lost, `duplicate` doubled and `delay` late by up
/// to `late`. The same seed and the same frames give the same fates.
fn seeded(seed: u64, drop: u32, duplicate: u32, delay: u32, late: Duration) -> Hook {
    /// The drawn number is below this.
    const MILLION: u64 = 1_000_000;
    let mut state = seed;
    let mut draw = move || {
        // SplitMix64 (Steele, Lea, Flood 2014): every seed is good, zero included.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let (drop, duplicate, delay) = (u64::from(drop), u64::from(duplicate), u64::from(delay));
    Box::new(move |_| match draw() % MILLION {
        n if n < drop => Fate::Drop,
        n if n < drop + duplicate => Fate::Duplicate,
        n if n < drop + duplicate + delay => {
            let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX).max(1);
            Fate::Delay(Duration::from_micros(draw() % micros))
        }
        _ => Fate::Pass,
    })
}

#[test]
fn a_seeded_hook_repeats_itself_and_keeps_its_rates() {
    let fates = |seed| {
        let mut hook = seeded(seed, 100_000, 50_000, 50_000, Duration::from_millis(5));
        (0..10_000).map(|_| hook(&OutFrame { head: &[0; 60], body: &[] })).collect::<Vec<_>>()
    };
    let first = fates(7);
    assert_eq!(first, fates(7));
    assert_ne!(first, fates(8));
    let lost = first.iter().filter(|fate| **fate == Fate::Drop).count();
    let twice = first.iter().filter(|fate| **fate == Fate::Duplicate).count();
    assert!((850..1150).contains(&lost) && (400..600).contains(&twice), "{lost} {twice}");
}

/// A runtime that knows one target, the link between them, and what serves the target.
struct Initiator {
    runtime: Arc<Runtime>,
    unit: Arc<Unit>,
    near: Arc<LoopbackLink>,
    far: Arc<LoopbackLink>,
    server: Server,
}

impl Initiator {
    fn new(mtu: usize) -> Initiator {
        let addr = Addr::new(1, 0);
        let (near, far) = pair("near", "far", mtu);
        let target = Export::new(TargetConfig::new(addr, "threads"), Box::new(MemoryImage::new(SECTORS)));
        let server = Server::start(far.clone(), target).unwrap();
        let runtime = Runtime::new(TARGETS_MAX);
        runtime.start(false, false).unwrap();
        runtime.attach(near.clone()).unwrap();
        let start = Instant::now();
        let unit = loop {
            if let Some(unit) = runtime.unit(addr) {
                break unit;
            }
            assert!(start.elapsed() < Duration::from_secs(1), "the target must appear within a second");
            std::thread::sleep(Duration::from_millis(1));
        };
        Initiator { runtime, unit, near, far, server }
    }

    fn submit(&self, io: Io, reply: impl FnOnce(Outcome) + Send + 'static) {
        self.runtime.with_device(&self.unit, |device, now, sink| {
            let handle = device.handle(None);
            device.submit(
                now,
                Request { io, handle, nonblock: false, stream: None, reply: Box::new(reply) },
                sink,
            );
        });
    }

    fn call(&self, io: Io) -> Outcome {
        let (tx, rx) = mpsc::channel();
        self.submit(io, move |outcome| tx.send(outcome).unwrap());
        rx.recv_timeout(PATIENCE).expect("a request was never answered")
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        match self.call(Io::Read { offset, len }) {
            Ok(Output::Data(data)) => data.to_vec(),
            other => panic!("read {offset}+{len}: {other:?}"),
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let data = WriteBuf::copy_from(self.runtime.pool(), offset, bytes);
        match self.call(Io::Write { offset, data }) {
            Ok(Output::Written(n)) => assert_eq!(n, bytes.len()),
            other => panic!("write {offset}+{}: {other:?}", bytes.len()),
        }
    }

    /// Every gauge at zero, every thread gone.
    fn end(self) {
        self.runtime.inspect(&self.unit, |device| {
            assert_eq!(device.requests(), 0, "requests left");
            assert_eq!(device.locked(), 0, "locks left");
            assert_eq!(device.status().nout, 0, "frames left in flight");
        });
        let downs = || {
            let log = self.runtime.log().read_at(&mut Cursor::default(), 0, usize::MAX);
            String::from_utf8_lossy(&log).matches(" down: ").count()
        };
        let before = downs();
        self.runtime.stop();
        assert_eq!(downs(), before, "the end is no trouble of a target");
        drop(self.server);
        assert_eq!(Arc::strong_count(&self.runtime), 1, "a thread still holds the runtime");
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

#[test]
fn reads_and_writes_of_every_alignment() {
    let initiator = Initiator::new(9000);
    let mut model = vec![0; SECTORS as usize * 512];
    for (i, (offset, len)) in
        [(0, 1), (511, 2), (512, 512), (1000, 100_000), (4096, 1 << 20), (7, 1 << 20), (8 << 20, 1)]
            .into_iter()
            .enumerate()
    {
        let Some(room) = model.len().checked_sub(offset).filter(|room| *room > 0) else { continue };
        let bytes = pattern(i as u64, len.min(room));
        initiator.write(offset as u64, &bytes);
        model[offset..offset + bytes.len()].copy_from_slice(&bytes);
    }
    assert!(initiator.read(0, model.len()) == model);
    assert_eq!(initiator.read(model.len() as u64 - 3, 100), &model[model.len() - 3..]);
    assert_eq!(initiator.read(model.len() as u64, 100), b"");
    let over =
        Io::Write { offset: model.len() as u64, data: WriteBuf::zeros(initiator.runtime.pool(), 0, 1) };
    assert!(matches!(initiator.call(over), Err(Error::NoSpace)));
    assert!(matches!(initiator.call(Io::Flush), Ok(Output::Done)));
    initiator.end();
}

/// INTEGRITY, ONCE: 8 threads, each with a region of its own, over a link that loses, repeats and delays.
#[test]
fn integrity_on_a_bad_link_with_eight_threads() {
    let initiator = Arc::new(Initiator::new(1500));
    initiator.near.set_hook(Some(seeded(1, 20_000, 20_000, 20_000, Duration::from_millis(3))));
    initiator.far.set_hook(Some(seeded(2, 20_000, 20_000, 20_000, Duration::from_millis(3))));
    let answered = Arc::new(AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for t in 0..8u64 {
            let (initiator, answered) = (initiator.clone(), answered.clone());
            scope.spawn(move || {
                let base = t * (512 << 10);
                let mut model = vec![0; 512 << 10];
                for i in 0..150u64 {
                    let r = pattern(t << 32 | i, 8);
                    let offset = usize::from(r[0]) * 1999 + usize::from(r[1]);
                    let len = (usize::from(r[2]) << (r[3] % 7)) + 1;
                    let len = len.min(model.len() - offset);
                    let bytes = pattern(t << 40 | i, len);
                    initiator.write(base + offset as u64, &bytes);
                    model[offset..offset + len].copy_from_slice(&bytes);
                    let got = initiator.read(base + offset as u64, len);
                    assert!(got == bytes, "thread {t} round {i}: {offset}+{len}");
                    answered.fetch_add(2, Ordering::Relaxed);
                }
                assert!(initiator.read(base, model.len()) == model, "thread {t}");
            });
        }
    });
    assert_eq!(answered.load(Ordering::Relaxed), 8 * 300);
    initiator.near.set_hook(None);
    initiator.far.set_hook(None);
    let resent: u64 =
        initiator.runtime.inspect(&initiator.unit, |d| d.paths().iter().map(|p| p.stats.resent).sum());
    assert!(resent > 0, "the link was to be bad");
    Arc::into_inner(initiator).unwrap().end();
}

/// Frames sent again by a fresh mount whose receiving thread is kept busy for 60 ms, three times the shortest time
/// after which a frame is sent again, while the answers to 15 reads come.
fn resent_while_nobody_receives() -> u64 {
    let initiator = Initiator::new(9000);
    let (tx, rx) = mpsc::channel();
    let (busy, is_busy) = mpsc::channel();
    let read = |nth: u64| Io::Read { offset: nth * 4096, len: 4096 };
    let first = tx.clone();
    initiator.submit(read(0), move |outcome| {
        busy.send(()).unwrap();
        std::thread::sleep(Duration::from_millis(60));
        first.send(outcome.is_ok()).unwrap();
    });
    is_busy.recv_timeout(PATIENCE).expect("a request was never answered");
    for nth in 1..16 {
        let tx = tx.clone();
        initiator.submit(read(nth), move |outcome| tx.send(outcome.is_ok()).unwrap());
    }
    for _ in 0..16 {
        assert!(rx.recv_timeout(PATIENCE).expect("a request was never answered"));
    }
    let sum = |what: fn(&PathStats) -> u64| {
        initiator.runtime.inspect(&initiator.unit, |device| {
            device.paths().iter().map(|path| what(&path.stats)).sum::<u64>()
        })
    };
    assert!(sum(|stats| stats.sent) >= 16, "the reads went by no path");
    let resent = sum(|stats| stats.resent);
    initiator.end();
    resent
}

/// COUNTERS: answers that have come and wait for a processor of ours are not missing, and what they answer is not
/// sent again. That the target has no processor nobody here can see: one try of ten must be without that.
#[test]
fn counters_an_initiator_without_a_processor_sends_nothing_twice() {
    let resent: Vec<u64> =
        (0..10).map(|_| resent_while_nobody_receives()).take_while(|&resent| resent > 0).collect();
    assert!(resent.len() < 10, "frames sent again in each try: {resent:?}");
}

/// SECTOR: 8 threads own 64 bytes each of the same sectors; no update may be lost.
#[test]
fn sector_eight_writers_of_64_bytes_lose_nothing() {
    let initiator = Initiator::new(9000);
    let rounds = 1000u32;
    std::thread::scope(|scope| {
        for t in 0..8u64 {
            let initiator = &initiator;
            scope.spawn(move || {
                for i in 0..rounds {
                    let mut mine = [t as u8; 64];
                    mine[..4].copy_from_slice(&i.to_le_bytes());
                    initiator.write(512 * u64::from(i % 3) + 64 * t, &mine);
                }
            });
        }
    });
    for sector in 0..3u32 {
        let bytes = initiator.read(512 * u64::from(sector), 512);
        let last = (0..rounds).rev().find(|i| i % 3 == sector).unwrap();
        for t in 0..8 {
            let mine = &bytes[64 * t..64 * (t + 1)];
            assert_eq!(mine[..4], last.to_le_bytes(), "sector {sector} thread {t}");
            assert!(mine[4..].iter().all(|&b| b == t as u8));
        }
    }
    initiator.end();
}

/// DEADLINE: with the link down every request, outstanding or queued, fails in [deadline, deadline + 250 ms].
#[test]
fn deadline_holds_for_outstanding_and_queued() {
    let initiator = Initiator::new(9000);
    let deadline = Duration::from_secs(1);
    initiator.runtime.with_device(&initiator.unit, |device, _, _| device.set_deadline(Some(deadline)));
    initiator.near.set_up(false);
    let (tx, rx) = mpsc::channel();
    let start = Instant::now();
    for i in 0..200u64 {
        let tx = tx.clone();
        let io = match i % 3 {
            0 => Io::Read { offset: i * 4096, len: 65536 },
            1 => Io::Write { offset: i * 4096, data: WriteBuf::zeros(initiator.runtime.pool(), 0, 4096) },
            _ => Io::Flush,
        };
        initiator.submit(io, move |outcome| tx.send((start.elapsed(), outcome)).unwrap());
    }
    drop(tx);
    let answers: Vec<_> = rx.iter().collect();
    assert_eq!(answers.len(), 200);
    for (took, outcome) in answers {
        assert!(matches!(outcome, Err(Error::Io)), "{outcome:?}");
        assert!(took >= deadline && took < deadline + 5 * Duration::from_millis(250), "took {took:?}");
    }
    // RETURN: it is back within a second of the link.
    initiator.near.set_up(true);
    initiator.far.set_up(true);
    // Nobody watches an in-process link, so the test says what rtnetlink would.
    initiator.runtime.refresh_netlink("near").unwrap();
    let back = Instant::now();
    while !initiator.runtime.inspect(&initiator.unit, |d| d.is_up()) {
        assert!(back.elapsed() < Duration::from_secs(5), "not back");
        std::thread::sleep(Duration::from_millis(5));
    }
    initiator.write(0, b"back");
    assert_eq!(initiator.read(0, 4), b"back");
    initiator.end();
}

/// ALIVE: failio frees everybody at once, also under nofail, and the target is identified again.
#[test]
fn failio_frees_everybody_under_nofail() {
    let initiator = Initiator::new(1500);
    initiator.runtime.with_device(&initiator.unit, |device, _, _| device.set_nofail(true));
    initiator.near.set_hook(Some(seeded(1, 1_000_000, 0, 0, Duration::ZERO)));
    let (tx, rx) = mpsc::channel();
    for i in 0..50u64 {
        let tx = tx.clone();
        initiator.submit(Io::Read { offset: i * 512, len: 512 }, move |o| tx.send(o).unwrap());
    }
    drop(tx);
    std::thread::sleep(Duration::from_millis(100));
    initiator.runtime.with_device(&initiator.unit, |device, now, sink| device.fail_all(now, sink));
    let answers: Vec<_> = rx.iter().collect();
    assert_eq!(answers.len(), 50);
    assert!(answers.iter().all(|o| matches!(o, Err(Error::Io))));
    initiator.near.set_hook(None);
    initiator.write(0, b"again");
    assert_eq!(initiator.read(0, 5), b"again");
    initiator.end();
}

/// The answer of a target comes to another thread, which logs what it changes. So what a call has done is in the log
/// before its frames leave.
#[test]
fn what_a_call_did_is_logged_before_its_frames_leave() {
    /// Where the command stands in a frame, behind the addresses; 0 is ATA.
    const COMMAND: usize = 19;
    let initiator = Initiator::new(1500);
    let (tell, told) = mpsc::channel();
    let runtime = Arc::downgrade(&initiator.runtime);
    initiator.near.set_hook(Some(Box::new(move |frame| {
        if let (0, Some(runtime)) = (frame.head[COMMAND], runtime.upgrade()) {
            let log = runtime.log().read_at(&mut Cursor::default(), 0, usize::MAX);
            let _ = tell.send(String::from_utf8_lossy(&log).into_owned());
        }
        Fate::Pass
    })));
    initiator.runtime.with_device(&initiator.unit, |device, now, sink| device.fail_all(now, sink));
    let log = told.recv_timeout(PATIENCE).unwrap();
    assert!(log.ends_with(" 1.0 down: failio\n"), "{log}");
    initiator.near.set_hook(None);
    initiator.end();
}
