use super::*;
use crate::link::{BATCH, Received, is_link_down};
use std::thread;

fn frame(n: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![n as u8; len];
    frame[..4].copy_from_slice(&n.to_be_bytes());
    frame
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[..4].try_into().unwrap())
}

fn send(link: &LoopbackLink, numbers: std::ops::Range<u32>, len: usize) -> usize {
    let frames: Vec<_> = numbers.map(|n| frame(n, len)).collect();
    let out: Vec<_> = frames.iter().map(|f| OutFrame { head: &f[..14], body: &f[14..] }).collect();
    let (taken, error) = link.send(&out);
    assert!(error.is_none(), "{error:?}");
    taken
}

/// All that arrives before somebody wakes the link.
fn drain(link: &LoopbackLink) -> Vec<u32> {
    let mut batch = Batch::new(64);
    let mut seen = Vec::new();
    loop {
        let ready = link.here.inbox.lock().ready.len();
        if ready == 0 {
            return seen;
        }
        assert_eq!(link.recv(&mut batch).unwrap(), Received::Frames);
        seen.extend(batch.frames().map(number));
    }
}

#[test]
fn frames_arrive_whole_and_in_order() {
    let (a, b) = pair("a", "b", 9000);
    assert_eq!(send(&a, 0..200, 9014), 200);
    let mut batch = Batch::new(60);
    let mut next = 0;
    while next < 200 {
        assert_eq!(b.recv(&mut batch).unwrap(), Received::Frames);
        assert!(batch.len() <= BATCH);
        for got in batch.frames() {
            assert_eq!(got, frame(next, 9014));
            next += 1;
        }
    }
    assert!(drain(&a).is_empty());
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (a, b) = pair("a", "b", 1500);
    assert_eq!(send(&a, 0..QUEUE as u32 + 7, 60), QUEUE + 7);
    assert_eq!((b.drops(), a.drops()), (7, 0));
    assert_eq!(drain(&b), (0..QUEUE as u32).collect::<Vec<_>>());
}

#[test]
fn buffers_are_recycled() {
    let (a, b) = pair("a", "b", 1500);
    for round in 0..50 {
        send(&a, 0..100, 1000);
        assert_eq!(drain(&b).len(), 100, "round {round}");
    }
    assert_eq!(b.here.inbox.lock().spare.len(), 100);
}

#[test]
fn a_wake_is_never_lost_and_comes_before_frames() {
    let (a, b) = pair("a", "b", 1500);
    let mut batch = Batch::new(60);
    b.wake();
    send(&a, 0..1, 60);
    assert_eq!(b.recv(&mut batch).unwrap(), Received::Woken);
    assert!(batch.is_empty());
    assert_eq!(b.recv(&mut batch).unwrap(), Received::Frames);
    let sleeper = {
        let b = b.clone();
        thread::spawn(move || b.recv(&mut Batch::new(60)).unwrap())
    };
    thread::sleep(Duration::from_millis(20));
    b.wake();
    assert_eq!(sleeper.join().unwrap(), Received::Woken);
}

#[test]
fn down_is_told_once_and_up_works_again() {
    let (a, b) = pair("a", "b", 1500);
    let mut batch = Batch::new(60);
    send(&a, 0..3, 60);
    b.set_up(false);
    assert!(!a.is_up() && !b.is_up());
    assert!(is_link_down(&b.recv(&mut batch).unwrap_err()));
    // The far end sends into nothing; the near end is told.
    assert_eq!(send(&a, 3..4, 60), 1);
    let out = frame(0, 60);
    let (taken, error) = b.send(&[OutFrame { head: &out, body: &[] }]);
    assert!(taken == 0 && is_link_down(&error.unwrap()));
    b.set_up(true);
    send(&a, 4..5, 60);
    assert_eq!(drain(&b), [4]);
}

#[test]
fn the_mtu_of_both_ends_holds() {
    let (a, b) = pair("a", "b", 1500);
    let (large, small) = (frame(1, 1515), frame(2, 1514));
    let both = [OutFrame { head: &large, body: &[] }, OutFrame { head: &small, body: &[] }];
    let (taken, error) = a.send(&both);
    assert_eq!((taken, error.unwrap().raw_os_error()), (1, Some(libc::EMSGSIZE)));
    assert_eq!(drain(&b), [2]);
    // As on a wire, the sender does not learn that the other end takes less.
    a.set_mtu(9000);
    assert!(a.send(&both).1.is_none());
    assert_eq!(drain(&b), [2]);
    b.set_mtu(9000);
    assert!(a.send(&both).1.is_none());
    assert_eq!(drain(&b), [1, 2]);
}

#[test]
fn the_hook_decides() {
    let (a, b) = pair("a", "b", 1500);
    a.set_hook(Some(Box::new(|frame| match number(frame.head) {
        1 => Fate::Drop,
        2 => Fate::Duplicate,
        3 => Fate::Delay(Duration::from_millis(30)),
        _ => Fate::Pass,
    })));
    send(&a, 0..6, 60);
    assert_eq!(drain(&b), [0, 2, 2, 4, 5]);
    let mut batch = Batch::new(60);
    assert_eq!(b.recv(&mut batch).unwrap(), Received::Frames);
    assert_eq!(batch.frames().map(number).collect::<Vec<_>>(), [3]);
    a.set_hook(None);
    send(&a, 1..2, 60);
    assert_eq!(drain(&b), [1]);
}

#[test]
fn under_load_every_frame_arrives_or_is_counted() {
    let (a, b) = pair("a", "b", 1500);
    const SENT: u32 = 20_000;
    let sender = {
        let a = a.clone();
        thread::spawn(move || {
            for n in (0..SENT).step_by(10) {
                send(&a, n..n + 10, 60);
            }
        })
    };
    let mut batch = Batch::new(60);
    let (mut got, mut next) = (0, 0);
    while !sender.is_finished() || !b.here.inbox.lock().ready.is_empty() {
        if b.here.inbox.lock().ready.is_empty() {
            thread::yield_now();
            continue;
        }
        assert_eq!(b.recv(&mut batch).unwrap(), Received::Frames);
        for frame in batch.frames() {
            assert!(number(frame) >= next, "out of order");
            next = number(frame) + 1;
            got += 1;
        }
    }
    sender.join().unwrap();
    assert_eq!(got + b.drops(), u64::from(SENT));
}
