use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::super::sample::{birth, mac};
use super::*;
use crate::engine::{Found, NetId, Payload};
use crate::link::loopback::{Fate, LoopbackLink, pair};
use crate::link::{Batch, Link};
use crate::wire::{Addr, Command, ETHERNET, Header, Mac, Tag};

const MTU: usize = 1500;

/// A runtime with one netlink, and both ends of the wire.
struct Bed {
    runtime: Arc<Runtime>,
    net: NetId,
    near: Arc<LoopbackLink>,
    far: Arc<LoopbackLink>,
}

impl Bed {
    fn new() -> Self {
        let runtime = Runtime::new(1);
        let (near, far) = pair("near", "far", MTU);
        let net = runtime.attach(near.clone()).unwrap();
        let bed = Bed { runtime, net, near, far };
        bed.arrived();
        bed
    }

    fn frame(&self, tag: u32) -> Vec<Transmit> {
        let (addr, tag, command) = (Addr::new(1, 0), Tag(tag), Command::Config);
        vec![Transmit {
            net: self.net,
            dst: Mac::BROADCAST,
            addr,
            tag,
            command,
            ata: None,
            payload: Payload::None,
        }]
    }

    fn post(&self, tag: u32) {
        self.runtime.post(&mut self.frame(tag), 0);
    }

    fn send(&self, tag: u32) {
        self.post(tag);
        self.runtime.send_posted();
    }

    /// The tags of the frames that have arrived since the last call.
    fn arrived(&self) -> Vec<u32> {
        let mut batch = Batch::new(MTU + ETHERNET);
        self.far.recv_now(&mut batch).unwrap();
        batch.frames().map(|frame| Header::parse(frame).unwrap().0.tag.0).collect()
    }

    fn waits(&self) -> bool {
        self.runtime.nets.get(self.net).unwrap().outbox.has_frames()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.near.set_hook(None);
        self.runtime.stop();
    }
}

#[test]
fn frames_leave_when_the_work_is_done() {
    let bed = Bed::new();
    let runtime = &bed.runtime;
    let birth = birth(bed.net, MTU);
    let addr = birth.addr;
    runtime.adopt(runtime.now(), Found { birth, more: Vec::new() });
    let unit = runtime.unit(addr).unwrap();
    bed.arrived();
    let ask = || {
        runtime.with_device(&unit, |device, now, sink| device.announced(now, bed.net, mac(0), MTU, 2, sink));
    };
    let done = runtime.together(|| {
        runtime.together(ask);
        assert!(bed.arrived().is_empty(), "the outer call holds them back");
        7
    });
    assert!(done == 7 && !bed.arrived().is_empty() && !bed.waits());
}

/// A thread that loses its processor before it sends: the next thread sends for it, in order.
#[test]
fn the_next_thread_sends_what_waits() {
    let bed = Bed::new();
    std::thread::scope(|scope| drop(scope.spawn(|| bed.post(1))));
    assert!(bed.waits());
    bed.send(2);
    assert_eq!((bed.arrived(), bed.waits()), (vec![1, 2], false));
    bed.runtime.send_posted();
    assert!(bed.arrived().is_empty());
}

/// A thread that loses its processor while it sends: others are not held up, and do not overtake it.
#[test]
fn a_thread_that_is_held_up_is_not_overtaken() {
    let bed = Bed::new();
    let ((began, begun), (open, gate)) = (mpsc::channel(), mpsc::channel::<()>());
    bed.near.set_hook(Some(Box::new(move |_| {
        let _ = began.send(());
        let _ = gate.recv();
        Fate::Pass
    })));
    std::thread::scope(|scope| {
        scope.spawn(|| bed.send(1));
        begun.recv().unwrap();
        let start = Instant::now();
        bed.send(2);
        assert!(start.elapsed() < Duration::from_secs(1) && bed.waits());
        drop(open);
    });
    assert_eq!((bed.arrived(), bed.waits()), (vec![1, 2], false));
}

/// Frames that were made before the machine slept could change another disk by now.
#[test]
fn frames_from_before_a_sleep_do_not_leave() {
    let bed = Bed::new();
    let outbox = &bed.runtime.nets.get(bed.net).unwrap().outbox;
    bed.post(1);
    outbox.put(bed.frame(2).into_iter(), 5_000_000);
    bed.post(3);
    assert_eq!(
        outbox.waiting.load(Ordering::Relaxed),
        1,
        "only that one was made after the last sleep known"
    );
    bed.runtime.send_posted();
    assert!(bed.arrived().is_empty() && !bed.waits(), "the clock has not seen that sleep");
}

/// While others post without end, each thread comes back to its own work, and nothing is left lying.
#[test]
fn nobody_sends_for_others_without_end() {
    const FRAMES: u32 = 30;
    let bed = Bed::new();
    let (runtime, net) = (bed.runtime.clone(), bed.net);
    let sent = Arc::new(AtomicU32::new(0));
    let count = sent.clone();
    bed.near.set_hook(Some(Box::new(move |frame| {
        let next = count.fetch_add(1, Ordering::Relaxed) + 2;
        let head = Header::parse(frame.head).unwrap().0;
        assert_eq!(head.tag, Tag(next - 1));
        if next <= FRAMES {
            let mut frames = vec![Transmit {
                net,
                dst: head.dst,
                addr: head.addr,
                tag: Tag(next),
                command: Command::Config,
                ata: None,
                payload: Payload::None,
            }];
            runtime.post(&mut frames, 0);
        }
        Fate::Pass
    })));
    bed.send(1);
    assert_eq!((sent.load(Ordering::Relaxed), bed.waits()), (ROUNDS, true));
    bed.runtime.start(false, false).unwrap();
    let start = Instant::now();
    while sent.load(Ordering::Relaxed) < FRAMES {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
}
