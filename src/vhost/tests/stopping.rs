//! A queue that its front end stops, and a front end that goes, with requests under way.

use std::io::Read;
use std::thread;
use std::time::Instant;

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use super::*;

#[test]
fn who_stops_a_queue_waits_for_its_requests() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.fake.hold.store(true, Ordering::SeqCst);
    assert_eq!(guest.ask(VIRTIO_BLK_T_IN, 3, (512, WRITE)), NONE);
    let fake = guest.fake.clone();
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        fake.release();
    });
    let next = guest.device.get_vring_base(0).unwrap().num;
    assert_eq!(next, 1);
    assert_eq!((guest.bytes(0x2000, 1), guest.bytes(0x10000, 512)), (vec![OK], vec![3; 512]));
    later.join().unwrap();
    // Neither a front end that goes nor an export that ends waits for a target that does not answer.
    guest.set_up();
    guest.ask(VIRTIO_BLK_T_IN, 3, (512, WRITE));
    guest.orders.stop();
    guest.fake.held.lock().push(Box::new(|| ()));
    let fake = guest.fake.clone();
    let rung = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        fake.release();
    });
    assert!(guest.device.get_vring_base(0).is_err());
    rung.join().unwrap();
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.fake.hold.store(true, Ordering::SeqCst);
    guest.ask(VIRTIO_BLK_T_IN, 3, (512, WRITE));
    guest.front.shutdown(std::net::Shutdown::Both).unwrap();
    let (front, _) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut guest.front, front));
    assert!(guest.device.get_vring_base(0).is_err());
}

/// A front end makes its queue smaller while it runs, so that answers have no place there.
#[test]
fn who_stops_a_queue_that_is_too_small_for_its_answers_does_not_wait_for_ever() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    order::begin(&mut guest, 4);
    guest.device.set_vring_num(0, 2).unwrap();
    let first = guest.fake.held.lock().remove(0);
    guest.fake.release();
    guest.device.collect();
    first();
    let front = guest.front.try_clone().unwrap();
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_secs(5));
        front.shutdown(std::net::Shutdown::Both)
    });
    assert!(guest.device.get_vring_base(0).is_ok());
    assert_eq!(guest.said().len(), 1, "it is stopped at the second answer");
    later.join().unwrap().unwrap();
}

#[test]
fn who_stops_a_queue_hears_of_another_size_meanwhile() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let mut told = telling::listen(&mut guest);
    guest.fake.hold.store(true, Ordering::SeqCst);
    assert_eq!(guest.ask(VIRTIO_BLK_T_IN, 3, (512, WRITE)), NONE);
    let (fake, orders) = (guest.fake.clone(), guest.orders.clone());
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        fake.facts.lock().size *= 2;
        orders.resized();
        let start = Instant::now();
        let mut message = [0; 12];
        while told.read(&mut message).is_err() {
            if start.elapsed() > Duration::from_secs(20) {
                fake.release();
                panic!("it is not told");
            }
            thread::sleep(Duration::from_millis(1));
        }
        fake.release();
        message
    });
    guest.device.get_vring_base(0).unwrap();
    assert_eq!(later.join().unwrap()[..4], 2u32.to_ne_bytes());
}

#[test]
fn an_answer_to_a_front_end_that_has_gone_goes_nowhere() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.fake.hold.store(true, Ordering::SeqCst);
    guest.ask(VIRTIO_BLK_T_IN, 3, (512, WRITE));
    let (memory, fake) = (guest.memory.clone(), guest.fake.clone());
    drop(guest);
    assert!(!fake.open.load(Ordering::SeqCst), "its disk is closed");
    fake.release();
    assert_eq!(fake.asked.lock().len(), 1, "the target has done it");
    let mut status = [0; 1];
    memory.read_slice(&mut status, GuestAddress(0x2000)).unwrap();
    assert_eq!(status, [NONE]);
}

/// All answers come at once, and there is nowhere to put them.
#[test]
fn who_takes_its_memory_back_while_it_stops_a_queue_is_let_go_of() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.fake.hold.store(true, Ordering::SeqCst);
    order::begin(&mut guest, 2);
    let region = guest.memory.find_region(GuestAddress(0)).unwrap();
    let memory = region.file_offset().unwrap().file().try_clone().unwrap();
    let (fake, front) = (guest.fake.clone(), guest.front.try_clone().unwrap());
    let later = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        memory.set_len(0).unwrap();
        fake.release();
        thread::sleep(Duration::from_secs(5));
        // Else this would wait for ever where it fails.
        front.shutdown(std::net::Shutdown::Both)
    });
    let start = Instant::now();
    assert!(guest.device.get_vring_base(0).is_err());
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(guest.device.has_lost_memory());
    later.join().unwrap().unwrap();
}
