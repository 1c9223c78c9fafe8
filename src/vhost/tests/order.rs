//! The order of answers, and answers that nobody waits for any more.

use super::*;

/// Reads under way, each of one sector into a place of its own. Returns where they have their bytes and status.
pub(super) fn begin(guest: &mut Guest, count: u16) -> Vec<(u64, u64)> {
    guest.fake.hold.store(true, Ordering::SeqCst);
    let mut places = Vec::new();
    for n in 0..count {
        let (header, data, status) =
            (0x1000 + u64::from(n) * 16, 0x10000 + u64::from(n) * 512, 0x2000 + u64::from(n));
        guest.header(header, VIRTIO_BLK_T_IN, u64::from(n) + 1);
        guest.memory.write_obj(NONE, GuestAddress(status)).unwrap();
        guest.describe(n * 3, (header, 16, NEXT, n * 3 + 1));
        guest.describe(n * 3 + 1, (data, 512, WRITE | NEXT, n * 3 + 2));
        guest.describe(n * 3 + 2, (status, 1, WRITE, 0));
        guest.offer(n * 3);
        places.push((data, status));
    }
    guest.device.work();
    places
}

/// The target answers one of those that it was asked for.
fn answer(guest: &mut Guest, which: usize) {
    let answer = guest.fake.held.lock().remove(which);
    answer();
    guest.device.work();
}

#[test]
fn answers_come_in_the_order_of_their_requests() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    begin(&mut guest, 3);
    answer(&mut guest, 1);
    assert_eq!((guest.used(), guest.calls()), (vec![], 0), "the first is not answered");
    answer(&mut guest, 0);
    assert_eq!((guest.used(), guest.calls()), (vec![(0, 513), (3, 513)], 1));
    answer(&mut guest, 0);
    assert_eq!(guest.used(), [(6, 513)]);
    assert_eq!(guest.bytes(0x10000, 1536), [[1; 512], [2; 512], [3; 512]].concat());
    // One that is refused at once waits as well.
    begin(&mut guest, 1);
    assert_eq!(guest.ask(99, 0, (512, WRITE)), UNSUPP);
    assert!(guest.used().is_empty());
    answer(&mut guest, 0);
    assert_eq!(guest.used().len(), 2);
    guest.fake.hold.store(false, Ordering::SeqCst);
    guest.works();
    assert_eq!(guest.said(), [""; 0]);
}

#[test]
fn a_queue_that_is_set_up_anew_owes_no_old_answers() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let places = begin(&mut guest, 2);
    guest.set_up();
    guest.fake.hold.store(false, Ordering::SeqCst);
    guest.fake.release();
    guest.device.work();
    assert!(guest.used().is_empty());
    assert!(places.iter().all(|(_, status)| guest.bytes(*status, 1) == [NONE]));
    guest.works();
    let next = guest.device.get_vring_base(0).unwrap().num;
    assert_eq!(next, 1);
}

#[test]
fn a_reset_ends_what_is_under_way() {
    let resets: [fn(&mut Device) -> vhost::vhost_user::Result<()>; 2] =
        [Device::reset_device, Device::reset_owner];
    for reset in resets {
        let mut guest = Guest::new(Fake::new(|_| ()));
        let places = begin(&mut guest, 2);
        answer(&mut guest, 1);
        reset(&mut guest.device).unwrap();
        assert_eq!(guest.fake.forgotten.load(Ordering::SeqCst), 1, "the disk need not go on");
        guest.memory.write_obj(NONE, GuestAddress(places[1].1)).unwrap();
        guest.fake.release();
        guest.device.work();
        assert_eq!((guest.used(), guest.calls()), (vec![], 0));
        assert!(places.iter().all(|(_, status)| guest.bytes(*status, 1) == [NONE]));
        assert_eq!(guest.bytes(places[0].0, 512), [0; 512]);
        guest.fake.hold.store(false, Ordering::SeqCst);
        guest.set_up();
        guest.works();
        assert_eq!(guest.said(), [""; 0]);
    }
}
