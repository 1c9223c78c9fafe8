use std::sync::mpsc;

use super::super::sample::{birth, mac};
use super::*;
use crate::engine::{Found, Io, Request};
use crate::link::loopback::{LoopbackLink, pair};
use crate::wire::{Ata, DATA_OFFSET, HEADER_LEN, SECTOR};

/// However many ways to a target were found before it was known, its first announcement is believed.
#[test]
fn further_ways_at_birth_cost_no_credit() {
    let runtime = Runtime::new(1);
    let (net, mtu) = (NetId(0), 1500);
    let birth = birth(net, mtu);
    let addr = birth.addr;
    let more = (1..6).map(|n| (net, mac(n), mtu, 2)).collect();
    runtime.adopt(runtime.now(), Found { birth, more });
    let unit = runtime.unit(addr).unwrap();
    assert_eq!(runtime.inspect(&unit, |device| device.paths().len()), 6);
    runtime.with_device(&unit, |device, now, sink| device.announced(now, net, mac(0), mtu, 2, sink));
    assert_eq!(runtime.inspect(&unit, |device| device.status().stats.confirmations), 1);
    runtime.stop();
}

/// Answers the frame with data, as the target does.
fn answer(far: &LoopbackLink, frame: &[u8]) {
    let (header, body) = Header::parse(frame).unwrap();
    let (ata, _) = Ata::parse(body).unwrap();
    let mut head = [0; DATA_OFFSET];
    Header { dst: header.src, src: mac(0), response: true, ..header }.emit(&mut head[..HEADER_LEN]);
    Ata { command: 0x40, count: 0, ..ata }.emit(&mut head[HEADER_LEN..]);
    let data = vec![7; usize::from(ata.count) * SECTOR];
    assert_eq!(far.send(&[OutFrame { head: &head, body: &data }]).0, 1);
}

/// A thread loses its processor with frames in its hands, and another one receives what came after them: the answers
/// that seem to be missing are no reason to ask again.
#[test]
fn what_another_thread_has_in_its_hands_is_not_asked_again() {
    let runtime = Runtime::new(1);
    let (near, far) = pair("near", "far", 1500);
    let net = runtime.nets.add(near.clone()).unwrap();
    let birth = birth(net.id, 1500);
    let addr = birth.addr;
    runtime.adopt(runtime.now(), Found { birth, more: Vec::new() });
    let unit = runtime.unit(addr).unwrap();
    let (done, results) = mpsc::channel();
    let read = |sector: u64| {
        let done = done.clone();
        runtime.with_device(&unit, |device, now, sink| {
            let io = Io::Read { offset: sector * SECTOR as u64, len: SECTOR };
            let reply: super::super::Done = Box::new(move |outcome| done.send(outcome.is_ok()).unwrap());
            let handle = device.handle(None);
            device.submit(now, Request { io, handle, nonblock: false, stream: None, reply }, sink);
        });
    };
    let asked = || {
        let mut batch = Batch::new(1500 + ETHERNET);
        far.recv_now(&mut batch).unwrap();
        batch.frames().map(<[u8]>::to_vec).collect::<Vec<_>>()
    };
    let (mut batch, mut strangers) = (Batch::new(1500 + ETHERNET), Vec::new());
    // The first answer says how long a round trip takes.
    read(0);
    asked().iter().for_each(|frame| answer(&far, frame));
    runtime.receive(&net, &mut batch, &mut strangers).unwrap();
    assert_eq!(results.try_recv(), Ok(true));

    (1..6).for_each(read);
    let frames = asked();
    assert_eq!(frames.len(), 5);
    frames[..2].iter().for_each(|frame| answer(&far, frame));
    net.in_hand.fetch_add(1, Ordering::SeqCst);
    let mut held = Batch::new(1500 + ETHERNET);
    near.recv_now(&mut held).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    frames[2..].iter().for_each(|frame| answer(&far, frame));
    runtime.receive(&net, &mut batch, &mut strangers).unwrap();
    assert!(asked().is_empty(), "asked again, although the answer is here");
    runtime.hand_out(&net, &held, &mut strangers);
    net.in_hand.fetch_sub(1, Ordering::SeqCst);
    assert_eq!(results.try_iter().filter(|ok| *ok).count(), 5);

    // What no thread has is lost, and is asked again as soon as younger answers say so.
    (0..5).for_each(read);
    let frames = asked();
    std::thread::sleep(Duration::from_millis(20));
    frames[1..].iter().for_each(|frame| answer(&far, frame));
    runtime.receive(&net, &mut batch, &mut strangers).unwrap();
    assert_eq!(asked().len(), 1);
    runtime.stop();
}

#[test]
fn no_netlink_gets_the_number_of_another() {
    let nets = Netlinks::default();
    let add = |name: &str| nets.add(pair(name, "far", 1500).0).unwrap().id;
    assert_eq!(add("first"), NetId(0));
    nets.next.store(u16::MAX, Ordering::Relaxed);
    assert_eq!([add("last"), add("again")], [NetId(u16::MAX), NetId(1)]);
}
