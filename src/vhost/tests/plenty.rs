//! More than a front end may have under way.

use std::os::fd::AsFd;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::EpollTimeout;

use super::config::{BYTES_MAX, PIECE_MAX, PIECES_MAX};
use super::*;

/// Offers that many reads, each as long as there may be. All of them have one place for their bytes.
fn offer(guest: &mut Guest, count: u16) {
    let (table, status) = (0x8000, 0x2000);
    guest.header(0x1000, VIRTIO_BLK_T_IN, 0);
    let pieces = (0..PIECES_MAX).map(|_| (0x10000, PIECE_MAX, WRITE | NEXT));
    let pieces = [(0x1000, 16, NEXT)].into_iter().chain(pieces).chain([(status, 1, WRITE)]);
    for (index, (at, len, flags)) in pieces.enumerate() {
        let descriptor = RawDescriptor::from(Descriptor::new(at, len, flags, index as u16 + 1));
        guest.memory.write_obj(descriptor, GuestAddress(table + index as u64 * 16)).unwrap();
    }
    guest.describe(0, (table, (PIECES_MAX + 2) * 16, INDIRECT, 0));
    (0..count).for_each(|_| guest.offer(0));
}

/// As the thread does it, until it would sleep.
fn turns(guest: &mut Guest) {
    guest.turn();
    while guest.device.rest().is_none() {
        guest.turn();
    }
}

#[test]
fn what_is_under_way_has_a_limit_and_the_rest_waits() {
    let mut guest = Guest::new(Fake::new(|facts| facts.size = 16 << 20));
    guest.fake.hold.store(true, Ordering::SeqCst);
    offer(&mut guest, ENTRIES);
    turns(&mut guest);
    let at_once = BYTES_UNDER_WAY.div_ceil(BYTES_MAX) as usize;
    assert!(at_once < ENTRIES.into());
    assert_eq!(guest.fake.held.lock().len(), at_once);
    assert_eq!(guest.device.rest(), Some(EpollTimeout::NONE), "nothing can be done now");
    // A kick changes nothing, and an answer makes room for a request.
    guest.turn();
    assert_eq!(guest.fake.held.lock().len(), at_once);
    let answer = guest.fake.held.lock().remove(0);
    answer();
    assert_eq!(guest.device.rest(), None, "there is an answer");
    guest.device.work();
    assert_eq!(guest.fake.held.lock().len(), at_once);
    // Those that a reset has made homeless still count.
    guest.device.reset_device().unwrap();
    guest.set_up();
    offer(&mut guest, 2);
    guest.turn();
    assert_eq!(guest.fake.held.lock().len(), at_once);
    guest.fake.hold.store(false, Ordering::SeqCst);
    guest.fake.release();
    turns(&mut guest);
    assert_eq!(guest.used(), [(0, BYTES_MAX as u32 + 1); 2]);
    assert_eq!((guest.bytes(0x2000, 1), guest.said().len()), (vec![OK], 0));
}

#[test]
fn a_share_is_one_of_many() {
    let full = Share { bytes: BYTES_UNDER_WAY, requests: REQUESTS_UNDER_WAY };
    assert_eq!(Share::of_one(&Pool::default(), 0), full);
    for memory in [1 << 20, 256 << 20, 4 << 30, usize::MAX] {
        let pool = Pool::with_writes(memory);
        for sockets in [1, 2, 7, 100, 5000] {
            let share = Share::of_one(&pool, sockets);
            assert!(share.bytes > 0 && share.requests > 0);
            assert!(share.bytes as usize <= (pool.writes_of_one() / 2 / sockets).max(1));
            assert!(share.requests * sockets <= crate::engine::REQUESTS_MAX / 2, "{sockets}");
        }
    }
}

#[test]
fn a_front_end_keeps_to_its_share_of_requests() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    *guest.fake.share.lock() = Share { bytes: 1, requests: 5 };
    guest.fake.hold.store(true, Ordering::SeqCst);
    guest.header(0x1000, VIRTIO_BLK_T_FLUSH, 0);
    guest.put(&[(0x1000, 16, READ), (0x2000, 1, WRITE)]);
    (1..ENTRIES).for_each(|_| guest.offer(0));
    guest.turn();
    assert_eq!(guest.fake.held.lock().len(), 1, "one is always taken");
    *guest.fake.share.lock() = Share { bytes: 1 << 20, requests: 5 };
    let mut answered = 0;
    while answered < ENTRIES.into() {
        guest.turn();
        guest.device.work();
        let under_way = guest.fake.held.lock().len();
        assert!((1..=5).contains(&under_way), "{under_way}");
        guest.fake.release();
        guest.turn();
        answered += guest.used().len();
    }
    assert_eq!(guest.said(), [""; 0]);
}

/// What was under way is not over when its connection is: else who connects again and again had no limit.
#[test]
fn requests_of_a_front_end_that_has_gone_count_until_they_are_over() {
    let fake = Fake::new(|facts| facts.size = 16 << 20);
    fake.hold.store(true, Ordering::SeqCst);
    let at_once = BYTES_UNDER_WAY.div_ceil(BYTES_MAX) as usize;
    let mut guest = Guest::new(fake.clone());
    for _ in 0..3 {
        drop(guest);
        guest = Guest::new(fake.clone());
        offer(&mut guest, ENTRIES);
        turns(&mut guest);
        assert_eq!(fake.held.lock().len(), at_once);
    }
    drop(guest);
    let mut guest = Guest::new(fake.clone());
    offer(&mut guest, 2);
    turns(&mut guest);
    guest.orders.bell.heard();
    // Nobody is told of its answer; but there is room, and whoever sleeps for want of it wakes.
    let answer = fake.held.lock().remove(0);
    answer();
    let rung = poll(&mut [PollFd::new(guest.orders.bell.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO);
    assert_eq!(rung, Ok(1));
    turns(&mut guest);
    assert_eq!(fake.held.lock().len(), at_once);
    fake.hold.store(false, Ordering::SeqCst);
    fake.release();
    turns(&mut guest);
    assert_eq!(guest.used(), [(0, BYTES_MAX as u32 + 1); 2]);
}

/// An area may say of every entry that its request is under way.
#[test]
fn what_is_done_again_before_a_queue_stops_keeps_to_the_share() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let fake = guest.fake.clone();
    let area = again::area(&mut guest);
    order::begin(&mut guest, 5);
    *fake.share.lock() = Share { bytes: 1 << 20, requests: 2 };
    let mut guest = guest.connect_again_resting(&area, 0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let target = scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            let mut most = vec![fake.held.lock().len()];
            while !over.load(Ordering::SeqCst) {
                fake.release();
                thread::sleep(Duration::from_millis(5));
                most.push(fake.held.lock().len());
            }
            most
        });
        let next = guest.device.get_vring_base(0).unwrap().num;
        assert_eq!(next, 5);
        over.store(true, Ordering::SeqCst);
        let most = target.join().unwrap();
        assert_eq!(most[0], 5, "those of the last connection, and none more");
        assert!(most[1..].iter().all(|held| *held <= 2), "{most:?}");
    });
    assert_eq!(guest.used().len(), 5);
}
