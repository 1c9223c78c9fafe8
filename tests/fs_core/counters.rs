//! `metrics` and `stats`: what happened is in them, and reading them waits for nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aoefs::export::server::{FrameHandler, Server};
use aoefs::fs::core::{Core, Reader};
use aoefs::fs::errno::Errno;
use aoefs::fs::metrics::Format;
use aoefs::link::loopback::pair;
use aoefs::runtime::{Runtime, TARGETS_MAX};
use aoefs::target::{MemoryImage, Processor, Slot, TargetConfig};
use aoefs::top::{Report, Sample};
use aoefs::wire::{Addr, Header, Mac};
use parking_lot::Mutex;

use crate::host::{Host, PID, ROOT, settings};

fn sample(host: &Host) -> Sample {
    Sample::parse(&host.cat("metrics").unwrap()).unwrap()
}

/// The value after `key: ` in a target's `stats`.
fn stat(host: &Host, key: &str) -> String {
    let text = host.cat("1.0/stats").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

#[test]
fn what_happened_is_counted() {
    let host = Host::new();
    let before = sample(&host);
    let fh = host.open("1.0/data");
    for n in 0..10 {
        assert_eq!(host.write_at(fh, n * 8192, &[7; 8192]), Ok(8192));
        assert_eq!(host.read_at(fh, n * 8192, 4096).unwrap().len(), 4096);
    }
    host.sync(fh).unwrap();
    let after = sample(&host);
    let target = &after.targets[&Addr::new(1, 0)];
    assert_eq!((target.up, target.size, target.handles), (true, 4_194_304.0, 1.0));
    let [read, write, flush] = &target.ops;
    assert_eq!((read.requests, read.bytes, read.errors, read.latency.count), (10.0, 40960.0, 0.0, 10.0));
    assert_eq!((write.requests, write.bytes, write.latency.count), (10.0, 81920.0, 10.0));
    assert_eq!((flush.requests, flush.latency.count), (1.0, 1.0));
    assert!(read.latency.sum > 0.0);
    let path = target.paths.values().next().unwrap();
    assert!(path.bytes == 122_880.0 && path.rtt.is_some() && path.state == "active", "{path:?}");
    assert!(after.netlinks["near"].sent >= 21.0, "{:?}", after.netlinks);
    let report = Report::new(&after, Some((&before, 2.0)));
    let rates = report.totals.rates.unwrap();
    assert_eq!((rates.requests_per_second, rates.write_bytes_per_second), (10.5, 40960.0));
    for (key, value) in [
        ("read requests", "10"),
        ("read bytes", "40960"),
        ("write errors", "0"),
        ("flush requests", "1"),
        ("queue", "0"),
        ("downs", "0"),
        // The answers to broadcasts were asked for, if not by the target's own state machine.
        ("unexpected", "0"),
    ] {
        assert_eq!(stat(&host, key), value, "{key}");
    }
    assert!(stat(&host, "write latency").starts_with("count 10 mean "));
    // Each path counts its frames, by kind.
    let text = host.cat("1.0/stats").unwrap();
    let of_path =
        text.lines().find(|line| line.starts_with("path near ") && line.contains(" write: ")).unwrap();
    assert!(of_path.contains(": count 10 mean "), "{of_path}");
    let page = host.cat("metrics").unwrap();
    let frames = "\naoefs_path_frame_duration_seconds_count{target=\"1.0\",";
    assert_eq!(page.matches(frames).count(), 3, "read, write and flush");
    host.core.release(fh);
    host.end();
}

/// A page stays as it was at its beginning, and neither file can be written to.
#[test]
fn pages_are_whole_and_read_only() {
    let host = Host::new();
    for path in ["metrics", "1.0/stats"] {
        assert_eq!(host.size(path), 0, "{path}");
        assert_eq!(host.try_open(path, libc::O_RDWR), Err(Errno::EPERM), "{path}");
        let fh = host.try_open(path, libc::O_RDONLY).unwrap();
        let first = host.read_at(fh, 0, 1 << 20).unwrap();
        host.fill(1);
        assert_eq!(host.read_at(fh, 5, 1 << 20).unwrap(), first[5..], "{path}");
        assert_ne!(host.read_at(fh, 0, 1 << 20).unwrap(), first, "{path}");
        assert_eq!(host.read_at(fh, 1 << 20, 4096), Ok(Vec::new()), "{path}");
        assert_eq!(host.write_at(fh, 0, b"x"), Err(Errno::EBADF), "{path}");
        host.core.release(fh);
    }
    host.end();
}

/// NOBLOCK: a target that is silent and has requests waiting is shown as it is, at once.
#[test]
fn noblock_a_silent_target_is_counted_at_once() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    host.silence(true);
    let (tx, answered) = std::sync::mpsc::channel();
    host.core.read(fh, 0, 4096, Reader::Program, move |read| tx.send(read.map(<[u8]>::len)).unwrap());
    let start = Instant::now();
    let target = sample(&host).targets[&Addr::new(1, 0)].clone();
    assert_eq!(target.queue, 1.0);
    assert_eq!(stat(&host, "queue"), "1");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    host.eventually(|| stat(&host, "retransmitted") != "0" || stat(&host, "outstanding") == "0");
    host.silence(false);
    assert_eq!(answered.recv_timeout(crate::host::PATIENCE).unwrap(), Ok(4096));
    host.core.release(fh);
    host.end();
}

/// A request that fails because its deadline passed has a counter of its own, which alerts are made of.
#[test]
fn a_deadline_that_passed() {
    let host = Host::new();
    let passed = || {
        let page = host.core.metrics(Format::Prometheus);
        let line =
            page.lines().find(|line| line.starts_with("aoefs_target_deadlines_passed_total{")).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(passed(), "0");
    host.echo("1.0/ctl", "deadline 1").unwrap();
    let fh = host.open("1.0/data");
    host.silence(true);
    let (tx, answered) = std::sync::mpsc::channel();
    host.core.read(fh, 0, 4096, Reader::Program, move |read| tx.send(read.map(<[u8]>::len)).unwrap());
    assert_eq!(answered.recv_timeout(crate::host::PATIENCE).unwrap(), Err(Errno::EIO));
    assert_eq!((passed().as_str(), stat(&host, "deadlines passed").as_str()), ("1", "1"));
    host.core.release(fh);
    host.end();
}

/// Down and removed targets: counted while they are known, and no longer.
#[test]
fn a_target_that_goes() {
    let host = Host::new();
    host.silence(true);
    host.echo("1.0/ctl", "failio").unwrap();
    host.eventually(|| !sample(&host).targets[&Addr::new(1, 0)].up);
    assert_eq!(stat(&host, "downs"), "1");
    let fh = host.try_open("1.0/stats", libc::O_RDONLY).unwrap();
    host.echo("ctl", "remove -f 1.0").unwrap();
    assert!(sample(&host).targets.is_empty());
    host.core.release(fh);
    host.end();
}

/// Targets 1.0, 1.1, … behind one MAC. Each answers only what is sent to its own address.
struct Shelf(Vec<Mutex<Processor<MemoryImage>>>);

impl FrameHandler for Shelf {
    fn handle_batch(&self, frames: &[&[u8]], mac: Mac, mtu: usize, replies: &mut [Slot<'_>]) {
        for (frame, reply) in frames.iter().zip(replies) {
            let Ok((header, _)) = Header::parse(frame) else { continue };
            if let Some(target) = self.0.get(usize::from(header.addr.slot.0)) {
                target.lock().handle_batch(&[frame], mac, mtu, std::slice::from_mut(reply));
            }
        }
    }
    fn announcement(&self, _: usize, _: Mac, _: usize, _: &mut [u8]) -> Option<usize> {
        None
    }
}

/// So many targets that the page is not rendered on the kernel's thread.
#[test]
fn a_full_shelf() {
    const TARGETS: u8 = 200;
    let processor = |slot| {
        let config = TargetConfig::new(Addr::new(1, slot), "shelf");
        Mutex::new(Processor::new(config, MemoryImage::new(64)))
    };
    let (near, far) = pair("near", "far", 9000);
    let server = Server::start(far, Arc::new(Shelf((0..TARGETS).map(processor).collect()))).unwrap();
    let runtime = Runtime::new(TARGETS_MAX);
    let core = Core::new(runtime.clone(), settings(), ());
    runtime.start(false, false).unwrap();
    runtime.attach(near).unwrap();
    let start = Instant::now();
    while runtime.units().len() < TARGETS.into() {
        assert!(start.elapsed() < crate::host::PATIENCE, "{} targets", runtime.units().len());
        (0..TARGETS).for_each(|slot| runtime.discover(Addr::new(1, slot)));
        std::thread::sleep(Duration::from_millis(50));
    }
    let ino = core.look_up(ROOT, "metrics".as_ref()).unwrap().attr.ino.0;
    let fh = core.open(ino, PID, libc::O_RDONLY).unwrap().fh;
    let read = |offset, len| {
        Host::wait(|answer| {
            core.read(fh, offset, len, Reader::Program, move |read| answer(read.map(<[u8]>::to_vec)))
        })
        .unwrap()
    };
    let mut page = read(0, 1 << 16);
    while let more @ [_, ..] = &read(page.len() as u64, 1 << 16)[..] {
        page.extend_from_slice(more);
    }
    let sample = Sample::parse(std::str::from_utf8(&page).unwrap()).unwrap();
    assert_eq!(sample.targets.len(), usize::from(TARGETS));
    assert!(sample.targets.values().all(|target| target.up));
    println!("200 idle targets: {} bytes", page.len());
    core.release(fh);
    assert_eq!(core.open_handles(), 0);
    core.close();
    runtime.stop();
    drop(server);
}
