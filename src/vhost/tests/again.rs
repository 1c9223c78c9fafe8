//! A front end that connects again with requests under way, and keeps for us which these are.

use std::collections::HashMap;
use std::thread;

use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures};

use vm_memory::GuestMemoryBackend;

use super::super::inflight::{self, Area, Record};
use super::order::begin;
use super::*;

const QUEUES: u16 = 2;

/// An area as a front end has it after the first start: what it was told of it, and the file.
pub fn area(guest: &mut Guest) -> (VhostUserInflight, File) {
    let wish = VhostUserInflight::new(0, 0, QUEUES, ENTRIES);
    let (about, file) = guest.device.get_inflight_fd(&wish).unwrap();
    assert!(about.mmap_size > 0 && about.num_queues == QUEUES && about.queue_size == ENTRIES);
    // Queues that run keep what they have.
    guest.device.get_vring_base(0).unwrap();
    guest.device.set_inflight_fd(&about, copy(&file)).unwrap();
    guest.set_up();
    (about, file)
}

impl Guest {
    /// The front end connects again, to a device that knows nothing, with the memory that it has. `base` is where it
    /// says that its queue was read to.
    fn connect_again(self, area: &(VhostUserInflight, File), base: u16) -> Self {
        let mut next = self.connect_again_resting(area, base);
        next.device.set_vring_enable(0, true).unwrap();
        next.device.work();
        next
    }

    /// The same, and the queue is started and not enabled.
    pub fn connect_again_resting(self, (about, file): &(VhostUserInflight, File), base: u16) -> Self {
        let (memory, given, seen) = (self.memory.clone(), self.given, self.seen);
        let shared = memory.find_region(GuestAddress(0)).unwrap().file_offset().unwrap().file();
        let mut next = Self::with(self.fake.clone(), |features| features & !(1 << VIRTIO_RING_F_EVENT_IDX));
        drop(self);
        (next.memory, next.given, next.seen) = (memory.clone(), given, seen);
        let device = &mut next.device;
        device.get_vring_base(0).unwrap();
        device
            .set_mem_table(&[VhostUserMemoryRegion::new(0, MEMORY, USER, 0)], vec![copy(shared)], None)
            .unwrap();
        device.set_inflight_fd(about, copy(file)).unwrap();
        next.device.set_vring_enable(0, false).unwrap();
        next.calls();
        next.start_resting(base);
        next
    }
}

/// The target answers that one of the requests that it was asked for.
fn answer(guest: &mut Guest, which: usize) {
    let answer = guest.fake.held.lock().remove(which);
    answer();
    guest.device.collect();
}

fn taken(guest: &Guest) -> usize {
    guest.fake.held.lock().len()
}

#[test]
fn it_is_offered_with_its_limits() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let offered = guest.device.get_protocol_features().unwrap();
    assert!(offered.contains(VhostUserProtocolFeatures::INFLIGHT_SHMFD));
    for (queues, entries) in [(0, 16), (9, 16), (1, 0), (1, 1025)] {
        let wish = VhostUserInflight::new(0, 0, queues, entries);
        assert!(guest.device.get_inflight_fd(&wish).is_err(), "{queues} {entries}");
    }
    let (about, file) = inflight::make(8, 1024, &origin()).unwrap();
    assert_eq!(about.mmap_size, 8 * (16 + 1024 * 16 + 48) + Origin::BYTES as u64);
    assert_eq!(file.metadata().unwrap().len(), about.mmap_size);
    // What was not made here is refused, and what is too short does no harm.
    let less = VhostUserInflight::new(64, 0, 8, 1024);
    assert!(guest.device.set_inflight_fd(&less, copy(&file)).is_err());
    assert!(guest.device.set_inflight_fd(&about, File::open("/proc/self/maps").unwrap()).is_err());
    guest.device.set_inflight_fd(&about, copy(&file)).unwrap();
    file.set_len(0).unwrap();
    guest.device.get_vring_base(0).unwrap();
    guest.set_up();
    assert!(guest.device.has_lost_memory());
}

#[test]
fn with_an_area_answers_overtake_each_other() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    area(&mut guest);
    begin(&mut guest, 3);
    answer(&mut guest, 1);
    assert_eq!(guest.used(), [(3, 513)]);
    answer(&mut guest, 1);
    assert_eq!(guest.used(), [(6, 513)]);
    answer(&mut guest, 0);
    assert_eq!(guest.used(), [(0, 513)]);
    assert_eq!(guest.bytes(0x10000, 1536), [[1; 512], [2; 512], [3; 512]].concat());
    // One that stays under way for long holds up nobody, and costs nothing.
    begin(&mut guest, 1);
    let stays = guest.fake.held.lock().remove(0);
    guest.fake.hold.store(false, Ordering::SeqCst);
    for _ in 0..200 {
        guest.header(0x1800, VIRTIO_BLK_T_FLUSH, 0);
        guest.describe(12, (0x1800, 16, NEXT, 13));
        guest.describe(13, (0x1900, 1, WRITE, 0));
        guest.offer(12);
        guest.turn();
        assert_eq!(guest.used(), [(12, 1)]);
    }
    stays();
    guest.device.collect();
    assert_eq!((guest.used(), guest.said().len()), (vec![(0, 513)], 0));
}

#[test]
fn exactly_what_was_under_way_is_done_again() {
    // Some front ends say how far the used ring is, and some how far they have put requests in.
    for says_used in [true, false] {
        let mut guest = Guest::new(Fake::new(|_| ()));
        let area = area(&mut guest);
        let places = begin(&mut guest, 4);
        answer(&mut guest, 2);
        answer(&mut guest, 0);
        assert_eq!(guest.used(), [(6, 513), (0, 513)]);
        // One more, which nobody has looked at when the connection is lost.
        guest.header(0x1800, VIRTIO_BLK_T_IN, 9);
        guest.memory.write_obj(NONE, GuestAddress(0x2800)).unwrap();
        guest.describe(12, (0x1800, 16, NEXT, 13));
        guest.describe(13, (0x18000, 512, WRITE | NEXT, 14));
        guest.describe(14, (0x2800, 1, WRITE, 0));
        guest.offer(12);
        let lost = std::mem::take(&mut *guest.fake.held.lock());
        assert_eq!(lost.len(), 2);
        guest.asked();
        // What is answered must not be touched again.
        for which in [0, 2] {
            guest.memory.write_obj(NONE, GuestAddress(places[which].1)).unwrap();
        }
        let base = if says_used { guest.seen } else { guest.given };
        let mut guest = guest.connect_again(&area, base);
        assert_eq!(guest.calls(), 1, "a call may have been lost");
        lost.into_iter().for_each(|answer| answer());
        guest.asked();
        assert_eq!(taken(&guest), 3);
        // Cut again, in the middle of it.
        answer(&mut guest, 1);
        assert_eq!(guest.used(), [(9, 513)]);
        guest.fake.held.lock().clear();
        let base = if says_used { guest.seen } else { guest.given };
        let mut guest = guest.connect_again(&area, base);
        assert_eq!(taken(&guest), 2);
        guest.fake.release();
        guest.device.collect();
        assert_eq!(guest.used(), [(3, 513), (12, 513)], "in the order in which they were taken");
        assert_eq!(guest.bytes(0x10200, 512), [2; 512]);
        assert_eq!(guest.bytes(0x10600, 512), [4; 512]);
        assert_eq!(guest.bytes(0x18000, 512), [9; 512]);
        assert_eq!((guest.bytes(places[0].1, 1), guest.bytes(places[2].1, 1)), (vec![NONE], vec![NONE]));
        guest.fake.hold.store(false, Ordering::SeqCst);
        guest.works();
        assert_eq!(guest.said(), [""; 0]);
    }
}

/// Whatever answers come before it, and wherever a connection is cut, each request is in the used ring once.
#[test]
fn any_cut_leaves_each_request_once() {
    let mut dice = super::hostile::Dice(7);
    let mut guest = Guest::new(Fake::new(|_| ()));
    let area = area(&mut guest);
    guest.fake.hold.store(true, Ordering::SeqCst);
    let (mut free, mut under_way) = ((0..ENTRIES / 2).collect::<Vec<u16>>(), HashMap::new());
    let (mut cuts, mut given) = (0, 0);
    for round in 0..20_000u32 {
        match dice.roll(8) {
            0..4 if !free.is_empty() => {
                let slot = free.remove(dice.roll(free.len() as u64) as usize);
                let (header, status) = (0x1000 + u64::from(slot) * 32, 0x3000 + u64::from(slot));
                guest.header(header, VIRTIO_BLK_T_FLUSH, 0);
                guest.memory.write_obj(NONE, GuestAddress(status)).unwrap();
                guest.describe(slot * 2, (header, 16, NEXT, slot * 2 + 1));
                guest.describe(slot * 2 + 1, (status, 1, WRITE, 0));
                guest.offer(slot * 2);
                under_way.insert(slot, round);
                given += 1;
                if dice.roll(2) == 0 {
                    guest.device.work();
                }
            }
            0..=6 if taken(&guest) > 0 => {
                let which = dice.roll(taken(&guest) as u64) as usize;
                answer(&mut guest, which);
            }
            7 if dice.roll(8) == 0 => {
                guest.fake.held.lock().clear();
                let base = if dice.roll(2) == 0 { guest.given } else { guest.seen };
                guest = guest.connect_again(&area, base);
                cuts += 1;
            }
            _ => guest.device.work(),
        }
        for (head, written) in guest.used() {
            let slot = head as u16 / 2;
            assert!(under_way.remove(&slot).is_some(), "round {round}: {head} twice");
            assert_eq!((guest.bytes(0x3000 + u64::from(slot), 1), written), (vec![OK], 1));
            free.push(slot);
        }
    }
    guest.device.work();
    guest.fake.release();
    guest.device.collect();
    let last = guest.used();
    assert_eq!(last.len(), under_way.len(), "none is lost: {last:?} of {under_way:?}");
    assert!(cuts > 100 && given > 1000, "{cuts} {given}");
    assert_eq!(guest.said(), [""; 0]);
}

#[test]
fn a_daemon_that_was_killed_while_it_answered_repeats_nothing() {
    let (about, file) = inflight::make(QUEUES, ENTRIES, &origin()).unwrap();
    let record = |number| {
        let area = Area::map(&about, copy(&file)).unwrap();
        Record::of(&area, number, ENTRIES).unwrap()
    };
    let mut first = record(1);
    assert!(first.resume(0).is_empty());
    [5, 3, 9].into_iter().for_each(|head| first.begin(head));
    // Before the used ring has it, and after.
    first.ending(3);
    assert_eq!(record(1).resume(0), [5, 3, 9]);
    assert_eq!(record(1).resume(1), [5, 9]);
    assert_eq!(record(1).resume(1), [5, 9], "it is written down now");
    first.ending(5);
    first.ended(5, 2);
    assert_eq!(record(1).resume(2), [9]);
    assert!(record(0).resume(0).is_empty(), "each queue has its own");
    let area = Area::map(&about, copy(&file)).unwrap();
    assert!(Record::of(&area, 2, ENTRIES).is_none() && Record::of(&area, 0, ENTRIES + 1).is_none());
}

#[test]
fn a_queue_that_its_front_end_stops_owes_nothing_to_the_next() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let area = area(&mut guest);
    begin(&mut guest, 2);
    let fake = guest.fake.clone();
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        fake.release();
    });
    guest.device.get_vring_base(0).unwrap();
    later.join().unwrap();
    assert_eq!(guest.used().len(), 2);
    for stop in [|_: &mut Guest| (), |guest: &mut Guest| guest.device.reset_device().unwrap()] {
        guest.set_up();
        guest.fake.hold.store(true, Ordering::SeqCst);
        begin(&mut guest, 2);
        // A chain that cannot be answered stays where it is, until the front end stops the queue.
        guest.describe(12, (0x1000, 16, READ, 0));
        guest.offer(12);
        guest.device.work();
        assert_eq!(guest.said().len(), 1);
        guest.fake.release();
        guest.device.collect();
        stop(&mut guest);
        guest.device.get_vring_base(0).unwrap();
        guest.fake.hold.store(false, Ordering::SeqCst);
        guest.set_up();
        guest.works();
        guest.given = 0;
        guest.seen = 0;
        guest.memory.write_slice(&[0; 4096], GuestAddress(0)).unwrap();
        let fresh = guest.connect_again(&area, 0);
        guest = fresh;
        guest.fake.asked.lock().clear();
        guest.works();
    }
}

#[test]
fn a_front_end_that_stops_before_all_is_done_again_waits_for_it() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let area = area(&mut guest);
    begin(&mut guest, 3);
    guest.fake.held.lock().clear();
    guest.fake.hold.store(false, Ordering::SeqCst);
    let base = guest.seen;
    // The queue is started and not enabled.
    let mut guest = guest.connect_again_resting(&area, base);
    assert_eq!(guest.used().len(), 0);
    let next = guest.device.get_vring_base(0).unwrap().num;
    assert_eq!(next, 3);
    assert_eq!(guest.used(), [(0, 513), (3, 513), (6, 513)]);
}

#[test]
fn lies_in_the_area_do_harm_to_nobody_else() {
    let mut dice = super::hostile::Dice(11);
    let mut guest = Guest::new(Fake::new(|_| ()));
    let area = area(&mut guest);
    let region = VhostUserMemoryRegion::new(0, area.0.mmap_size, USER, 0);
    let lies = region.mmap_region::<()>(copy(&area.1)).unwrap();
    let (mut stopped, mut asked) = (0, 0);
    for _ in 0..2000 {
        for _ in 0..dice.roll(60) {
            let at = dice.roll(area.0.mmap_size - 8) as usize;
            let value = if dice.roll(2) == 0 { 1 } else { dice.roll(u64::MAX) };
            vm_memory::VolatileMemory::as_volatile_slice(&lies).write_obj(value as u8, at).unwrap();
        }
        let base = dice.roll(1 << 16) as u16;
        guest = guest.connect_again(&area, base);
        guest.turn();
        stopped += guest.said().len();
        asked += guest.asked().len();
        guest.used();
        guest.device.get_vring_base(0).unwrap();
        guest.set_up();
        guest.works();
    }
    assert!(stopped > 10 && asked > 10, "it tries both: {stopped} {asked}");
}

#[test]
fn an_area_is_not_replaced_while_a_queue_uses_it() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let (about, file) = area(&mut guest);
    let (_, other) = inflight::make(QUEUES, ENTRIES, &origin()).unwrap();
    assert!(guest.device.set_inflight_fd(&about, other).is_err());
    file.set_len(0).unwrap();
    begin(&mut guest, 1);
    assert!(guest.device.has_lost_memory(), "the one that is used is watched");
}

/// Its machine has the other disk in its page cache, and writes what it has of it where it thinks it belongs.
#[test]
fn a_machine_that_had_another_disk_gets_errors_until_it_starts_anew() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let old = area(&mut guest);
    begin(&mut guest, 2);
    guest.fake.held.lock().clear();
    guest.fake.hold.store(false, Ordering::SeqCst);
    // The disk has grown.
    guest.fake.origin.lock().as_mut().unwrap().disk.sectors += 1;
    let mut guest = guest.connect_again(&old, 0);
    guest.turn();
    assert_eq!((guest.used(), guest.said().len()), (vec![(0, 513), (3, 513)], 0));
    let asked = guest.fake.asked.lock().len();
    // It is another one.
    begin(&mut guest, 2);
    guest.fake.held.lock().clear();
    guest.fake.hold.store(false, Ordering::SeqCst);
    guest.fake.origin.lock().as_mut().unwrap().disk.serial = Text::new("other");
    let mut guest = guest.connect_again(&old, 2);
    assert_eq!(guest.used(), [(0, 1), (3, 1)]);
    assert_eq!(guest.bytes(0x2000, 2), [IOERR; 2]);
    for (kind, data) in [(VIRTIO_BLK_T_OUT, (512, READ)), (VIRTIO_BLK_T_FLUSH, (0, READ))] {
        assert_eq!(guest.ask(kind, 0, data), IOERR);
    }
    let said = guest.said();
    assert!(
        said.len() == 1 && said[0].contains("model / serial / 128") && said[0].contains("/ other /"),
        "{said:?}"
    );
    assert_eq!(guest.fake.asked.lock().len(), asked, "the other disk is left alone");
    // It starts anew.
    area(&mut guest);
    guest.works();
    // What is open is not there any more: an area would be the next disk's.
    *guest.fake.origin.lock() = None;
    assert!(guest.device.get_inflight_fd(&VhostUserInflight::new(0, 0, QUEUES, ENTRIES)).is_err());
}

/// One of another back end has room behind its queues, or none.
#[test]
fn an_area_that_names_no_disk_is_taken() {
    for more in [0, Origin::BYTES as u64 + 100] {
        let mut guest = Guest::new(Fake::new(|_| ()));
        let (_, file) = inflight::make(QUEUES, ENTRIES, &origin()).unwrap();
        let len = file.metadata().unwrap().len() - Origin::BYTES as u64;
        file.set_len(len).unwrap();
        file.set_len(len + more).unwrap();
        guest.device.get_vring_base(0).unwrap();
        let about = VhostUserInflight::new(len + more, 0, QUEUES, ENTRIES);
        guest.device.set_inflight_fd(&about, file).unwrap();
        guest.set_up();
        guest.works();
        assert!(!guest.device.has_lost_memory() && guest.said().is_empty());
    }
}
