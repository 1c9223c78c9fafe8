//! The longest and the largest that there may be, what is heard of a queue that went beyond it, and turns of a guest
//! that never rests.

use nix::sys::epoll::EpollTimeout;

use super::config::BYTES_MAX;
use super::*;

/// Where an indirect table is, and the bytes of requests.
const INDIRECT_AT: u64 = 0x20000;
const BYTES_AT: u64 = 0x80000;
const STATUS_AT: u64 = 0x2000;

impl Guest {
    /// Offers a request whose data are these pieces, all of them in an indirect table.
    fn offer_long(&mut self, kind: u32, data: impl Iterator<Item = u32>) {
        let flags = if kind == VIRTIO_BLK_T_IN { WRITE } else { READ };
        self.header(0x1000, kind, 0);
        self.memory.write_obj(NONE, GuestAddress(STATUS_AT)).unwrap();
        let data = data.map(|len| (BYTES_AT, len, flags | NEXT));
        let pieces = [(0x1000, 16, NEXT)].into_iter().chain(data).chain([(STATUS_AT, 1, WRITE)]);
        let mut count = 0;
        for (at, len, flags) in pieces {
            let descriptor = RawDescriptor::from(Descriptor::new(at, len, flags, count + 1));
            let place = GuestAddress(INDIRECT_AT + u64::from(count) * 16);
            self.memory.write_obj(descriptor, place).unwrap();
            count += 1;
        }
        self.describe(0, (INDIRECT_AT, u32::from(count) * 16, INDIRECT, 0));
        self.offer(0);
        self.turn();
    }
}

#[test]
fn a_chain_that_is_longer_than_any_queue_stops_the_queue() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let errors = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    guest.device.set_vring_err(0, Some(copy(&errors))).unwrap();
    // Pieces without bytes; header and status make two descriptors more.
    let pieces = |count: u16| (0..count).map(|n| if n == 0 { 512 } else { 0 });
    guest.offer_long(VIRTIO_BLK_T_IN, pieces(ENTRIES_MAX - 2));
    assert_eq!(guest.bytes(STATUS_AT, 1), [OK], "{:?}", guest.said());
    assert_eq!((guest.used().len(), errors.read().is_ok()), (1, false));
    guest.offer_long(VIRTIO_BLK_T_IN, pieces(ENTRIES_MAX - 1));
    assert_eq!(guest.bytes(STATUS_AT, 1), [NONE]);
    assert_eq!(guest.said(), ["queue 0 is stopped: a descriptor chain is too long"]);
    assert_eq!(errors.read(), Ok(1), "the front end hears that it is stopped");
    guest.set_up();
    guest.works();
}

#[test]
fn a_read_or_write_that_is_larger_than_was_offered_is_refused() {
    let mut guest = Guest::new(Fake::new(|facts| facts.size = 16 << 20));
    let piece = 64 << 10;
    let all = move |more: u32| (0..BYTES_MAX as u32 / piece).map(move |_| piece).chain([more]);
    for (kind, name) in [(VIRTIO_BLK_T_IN, "read"), (VIRTIO_BLK_T_OUT, "write")] {
        guest.offer_long(kind, all(0));
        assert_eq!((guest.bytes(STATUS_AT, 1), guest.asked()), (vec![OK], vec![name]));
        guest.offer_long(kind, all(512));
        assert_eq!((guest.bytes(STATUS_AT, 1), guest.asked()), (vec![IOERR], vec![]), "{name}");
    }
    assert_eq!((guest.used().len(), guest.said().len()), (4, 0));
}

/// A call may have gone to a descriptor that nobody listens at any more.
#[test]
fn a_call_is_repeated_where_the_front_end_listens_now() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.works();
    let next = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
    guest.device.set_vring_call(0, Some(copy(&next))).unwrap();
    guest.device.work();
    assert_eq!(next.read(), Ok(1));
    guest.device.work();
    assert!(next.read().is_err(), "once");
}

/// Messages, and the end of the export, wait for the thread to look at its descriptors.
#[test]
fn a_guest_that_keeps_the_thread_busy_is_not_all_that_it_looks_at() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.header(0x1000, VIRTIO_BLK_T_FLUSH, 0);
    guest.put(&[(0x1000, 16, READ), (STATUS_AT, 1, WRITE)]);
    let (mut busy, mut looks, mut answered) = (0, 0, 0);
    for _ in 0..1000 {
        match guest.device.rest() {
            None => busy += 1,
            Some(patience) => {
                assert_eq!(patience, EpollTimeout::ZERO, "there is something to do");
                guest.device.looked();
                looks += 1;
            }
        }
        guest.device.work();
        answered += guest.used().len();
        guest.offer(0);
    }
    assert!(looks >= 10 && busy >= 900, "{looks} looks in {busy} turns");
    assert!(answered >= 999, "{answered}: it was served all the time");
}
