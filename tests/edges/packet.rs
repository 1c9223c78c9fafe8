//! PacketLink against the kernel.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use aoefs::link::packet::{PacketLink, Role};
use aoefs::link::{BATCH, Batch, Link, OutFrame, Polled, Received, is_gone, is_link_down};

use crate::bed::{
    SOON, aoe, in_namespace, ip, ip_can, number, response, send_all, skipped, take, until, veth,
};

const BROADCAST: [u8; 6] = [0xff; 6];
const R: u8 = 0x08;
const OURS: u32 = 1 << 31;

fn both(mtu: usize) -> (Arc<PacketLink>, Arc<PacketLink>) {
    veth(mtu);
    let link = |name, role| {
        let link = PacketLink::open(name, role).unwrap();
        until("carrier", || link.refresh().is_ok() && link.is_up());
        assert_eq!(link.mtu(), mtu);
        Arc::new(link)
    };
    (link("va", Role::Initiator), link("vb", Role::Target))
}

/// A thread that receives and passes on what it is told, until the receiver of the reports goes away.
fn reader(link: &Arc<PacketLink>) -> mpsc::Receiver<io::Result<Received>> {
    let (tell, told) = mpsc::channel();
    let link = link.clone();
    thread::spawn(move || {
        let mut batch = Batch::new(60);
        while tell.send(link.recv(&mut batch)).is_ok() {}
    });
    told
}

#[test]
fn the_filter_lets_in_exactly_what_concerns_the_role() {
    in_namespace("the_filter_lets_in_exactly_what_concerns_the_role", || {
        let (a, b) = both(1500);
        let (to_a, to_b) = (a.mac().0, b.mac().0);
        let stranger = [2, 0, 0, 0, 0, 77];
        let mut other_type = aoe(to_a, R, OURS | 8, 60);
        other_type[13] = 0xa3;
        // (frame, whether an initiator takes it)
        let cases = [
            (aoe(to_a, R, OURS | 1, 60), true),
            (aoe(to_a, R, OURS | 2, 24), true),
            (aoe(to_a, R | 0x04, OURS | 3, 36), true),
            (aoe(BROADCAST, R, 0, 32), true),
            (aoe(to_a, R, 4, 60), false),
            (aoe(to_a, R, 0x7fff_ffff, 60), false),
            (aoe(to_a, 0, OURS | 5, 60), false),
            (aoe(BROADCAST, 0, 0, 60), false),
            (aoe(to_a, R, OURS | 6, 23), false),
            (aoe(to_a, R, OURS | 7, 14), false),
            (other_type, false),
            (aoe(stranger, R, OURS | 9, 60), false),
            (aoe(to_a, R, OURS | 10, 1514), true),
        ];
        let frames: Vec<_> = cases.iter().map(|(frame, _)| frame.clone()).collect();
        let wanted: Vec<_> =
            cases.iter().filter(|(_, taken)| *taken).map(|(frame, _)| frame.clone()).collect();
        send_all(&*b, &frames);
        let mut batch = Batch::new(60);
        assert_eq!(take(&*a, &mut batch, wanted.len()), wanted);

        let cases = [
            (aoe(to_b, 0, OURS | 1, 60), true),
            (aoe(to_b, 0, 0x1234, 24), true),
            (aoe(BROADCAST, 0, OURS | 2, 36), true),
            (aoe(to_b, R, OURS | 3, 60), false),
            (aoe(BROADCAST, R, 0, 60), false),
            (aoe(to_b, 0, 4, 23), false),
            (aoe(stranger, 0, 5, 60), false),
            (aoe(to_b, 0, 6, 1000), true),
        ];
        let frames: Vec<_> = cases.iter().map(|(frame, _)| frame.clone()).collect();
        let wanted: Vec<_> =
            cases.iter().filter(|(_, taken)| *taken).map(|(frame, _)| frame.clone()).collect();
        send_all(&*a, &frames);
        assert_eq!(take(&*b, &mut batch, wanted.len()), wanted);
        assert_eq!((a.drops(), b.drops()), (0, 0));
    });
}

#[test]
fn batches_arrive_whole_and_in_order_at_every_mtu() {
    in_namespace("batches_arrive_whole_and_in_order_at_every_mtu", || {
        for mtu in [576, 1500, 9000, 65535] {
            let (a, b) = both(mtu);
            let frames: Vec<_> = (0..3 * BATCH as u32 + 5).map(|n| response(&*a, n, mtu + 14)).collect();
            send_all(&*b, &frames);
            assert!(take(&*a, &mut Batch::new(60), frames.len()) == frames, "mtu {mtu}");
            assert_eq!((a.drops(), a.truncated()), (0, 0));
            ip("link del va");
        }
    });
}

#[test]
fn a_frame_that_is_too_large_stops_no_other() {
    in_namespace("a_frame_that_is_too_large_stops_no_other", || {
        let (a, b) = both(1500);
        let sizes = [60, 1515, 1514, 9000, 13, 0, 100];
        let frames: Vec<_> = sizes.iter().enumerate().map(|(i, &len)| response(&*a, i as u32, len)).collect();
        let out: Vec<_> = frames.iter().map(|frame| OutFrame { head: frame, body: &[] }).collect();
        let (taken, error) = b.send(&out);
        assert_eq!(taken, 3, "{error:?}");
        assert!(error.is_some());
        let got = take(&*a, &mut Batch::new(60), 3);
        assert_eq!(got.iter().map(|frame| number(frame)).collect::<Vec<_>>(), [0, 2, 6]);
    });
}

#[test]
fn link_down_is_told_once_and_the_same_link_works_on() {
    in_namespace("link_down_is_told_once_and_the_same_link_works_on", || {
        let (a, b) = both(1500);
        let told = reader(&a);
        ip("link set va down");
        assert!(is_link_down(&told.recv_timeout(SOON).unwrap().unwrap_err()));
        assert!(!a.is_up());
        assert!(told.recv_timeout(Duration::from_millis(200)).is_err(), "told twice");
        let frame = aoe(b.mac().0, 0, OURS, 60);
        let (taken, error) = a.send(&[OutFrame { head: &frame, body: &[] }]);
        assert!(taken == 0 && is_link_down(&error.unwrap()));
        // The other end has lost its carrier, which no receive tells.
        until("no carrier", || b.refresh().is_ok() && !b.is_up());
        ip("link set va up");
        until("carrier", || a.refresh().is_ok() && a.is_up() && b.refresh().is_ok() && b.is_up());
        send_all(&*b, &[response(&*a, 1, 60)]);
        assert_eq!(told.recv_timeout(SOON).unwrap().unwrap(), Received::Frames);
        a.wake();
        assert_eq!(told.recv_timeout(SOON).unwrap().unwrap(), Received::Woken);
    });
}

#[test]
fn an_interface_made_again_under_its_name_is_bound_again() {
    in_namespace("an_interface_made_again_under_its_name_is_bound_again", || {
        let (a, _) = both(1500);
        let told = reader(&a);
        let (index, mac) = (a.index(), a.mac());
        ip("link del va");
        assert!(is_link_down(&told.recv_timeout(SOON).unwrap().unwrap_err()));
        let frame = aoe(BROADCAST, 0, OURS, 60);
        let (_, error) = a.send(&[OutFrame { head: &frame, body: &[] }]);
        assert!(is_gone(&error.unwrap()));
        assert!(is_gone(&a.refresh().unwrap_err()));
        assert!(!a.is_up());
        veth(9000);
        let b = PacketLink::open("vb", Role::Target).unwrap();
        until("carrier", || a.refresh().is_ok() && a.is_up());
        assert!(a.index() != index && a.mac() != mac && a.mtu() == 9000);
        send_all(&b, &[response(&*a, 1, 9014)]);
        assert_eq!(told.recv_timeout(SOON).unwrap().unwrap(), Received::Frames);
        send_all(&*a, &[aoe(b.mac().0, 0, OURS, 60)]);
        take(&b, &mut Batch::new(60), 1);
        assert_eq!(a.truncated(), 0);
        a.wake();
    });
}

/// An index is given again where somebody asks for it, and to an interface that brings it along from another namespace.
#[test]
fn an_interface_with_the_index_of_the_one_that_is_gone_is_told_from_it() {
    in_namespace("an_interface_with_the_index_of_the_one_that_is_gone_is_told_from_it", || {
        let (a, _) = both(1500);
        let make = |name| {
            ip(&format!("link add {name} index {} type veth peer name vb", a.index()));
            ip(&format!("link set {name} up"));
            ip("link set vb up");
        };
        // Nobody has looked in between.
        ip("link del va");
        make("va");
        let b = PacketLink::open("vb", Role::Target).unwrap();
        until("carrier", || a.refresh().is_ok() && a.is_up());
        let told = reader(&a);
        let _ = told
            .recv_timeout(Duration::from_millis(100))
            .map(|first| assert!(is_link_down(&first.unwrap_err())));
        send_all(&b, &[response(&*a, 1, 60)]);
        assert_eq!(told.recv_timeout(SOON).unwrap().unwrap(), Received::Frames);
        send_all(&*a, &[aoe(b.mac().0, 0, OURS, 60)]);
        take(&b, &mut Batch::new(60), 1);
        // One of another name is not ours.
        ip("link del va");
        make("other");
        until("it is gone", || a.refresh().is_err_and(|error| is_gone(&error)));
        assert!(!a.is_up() && !a.is_called("other"));
        assert_eq!(&*a.name(), "va");
        a.wake();
    });
}

#[test]
fn a_renamed_interface_is_followed() {
    in_namespace("a_renamed_interface_is_followed", || {
        let (a, b) = both(1500);
        let index = a.index();
        ip("link set va down");
        ip("link set va name other");
        ip("link set other up mtu 4000");
        until("carrier", || a.refresh().is_ok() && a.is_up());
        assert_eq!((a.index(), a.mtu(), &*a.name()), (index, 4000, "other"));
        assert!(a.is_called("other") && !a.is_called("va"));
        let told = reader(&a);
        // The kernel may throw frames away for a moment after the carrier is back, and the reader may hear of the time
        // without it late.
        let heard = || match told.recv_timeout(Duration::from_millis(50)) {
            Ok(Ok(received)) => Some(received),
            Ok(Err(error)) => {
                assert!(is_link_down(&error), "{error}");
                None
            }
            Err(_) => None,
        };
        until("a frame is received", || {
            send_all(&*b, &[response(&*a, 1, 60)]);
            heard() == Some(Received::Frames)
        });
        a.wake();
    });
}

#[test]
fn slots_follow_the_mtu_and_a_cut_frame_is_counted() {
    in_namespace("slots_follow_the_mtu_and_a_cut_frame_is_counted", || {
        let (a, b) = both(1500);
        ip("link set va mtu 9000");
        ip("link set vb mtu 9000");
        let mut batch = Batch::new(60);
        // Nobody has told `a` yet: the first large frame is cut, and teaches it.
        send_all(&*b, &[response(&*a, 1, 9014), response(&*a, 2, 60)]);
        let got = take(&*a, &mut batch, 1);
        assert_eq!((number(&got[0]), a.truncated(), a.mtu()), (2, 1, 1500));
        send_all(&*b, &[response(&*a, 3, 9014)]);
        assert_eq!(take(&*a, &mut batch, 1)[0].len(), 9014);
        a.refresh().unwrap();
        assert_eq!((a.mtu(), a.truncated()), (9000, 1));
    });
}

#[test]
fn frames_lost_for_want_of_buffer_are_counted() {
    in_namespace("frames_lost_for_want_of_buffer_are_counted", || {
        let (a, b) = both(9000);
        let frames: Vec<_> = (0..BATCH as u32).map(|n| response(&*a, n, 9014)).collect();
        let mut sent = 0;
        while a.drops() == 0 {
            send_all(&*b, &frames);
            sent += frames.len() as u64;
            assert!(sent < 1_000_000, "the receive buffer never overflows");
        }
        a.wake();
        let mut batch = Batch::new(60);
        assert_eq!(a.recv(&mut batch).unwrap(), Received::Woken, "a flood hides no wake-up");
        let mut got = 0;
        while got + a.drops() < sent {
            assert_eq!(a.recv(&mut batch).unwrap(), Received::Frames);
            got += batch.len() as u64;
        }
        assert_eq!(got + a.drops(), sent);
        // One target's largest window of jumbo frames must fit many times over.
        assert!(got > 1024, "only {got} jumbo frames fitted");
    });
}

#[test]
fn a_link_needs_an_ethernet_interface() {
    in_namespace("a_link_needs_an_ethernet_interface", || {
        let error = |name| PacketLink::open(name, Role::Initiator).err().unwrap();
        assert!(is_gone(&error("nothing")));
        assert_eq!(error("lo").kind(), io::ErrorKind::Unsupported);
    });
}

#[test]
fn looking_finds_a_frame_and_a_wake_up_and_ends_in_time() {
    in_namespace("looking_finds_a_frame_and_a_wake_up_and_ends_in_time", || {
        let (a, b) = both(1500);
        let patience = Duration::from_millis(20);
        // Another process may take the processor away for longer than that at any time, but not always.
        let ends = |want: Polled| {
            until("a poll that is not disturbed", || match a.poll(patience) {
                Polled::Preempted => false,
                looked => {
                    assert_eq!(looked, want);
                    true
                }
            });
        };
        ends(Polled::TimedOut);
        send_all(&*b, &[response(&*a, 1, 60)]);
        ends(Polled::Ready);
        ends(Polled::Ready);
        assert_eq!(take(&*a, &mut Batch::new(60), 1).len(), 1, "a look takes nothing away");
        ends(Polled::TimedOut);
        a.wake();
        ends(Polled::Ready);
        assert_eq!(a.recv(&mut Batch::new(60)).unwrap(), Received::Woken);
        ends(Polled::TimedOut);
    });
}

#[test]
fn waking_a_thousand_times_wakes_and_leaks_nothing() {
    in_namespace("waking_a_thousand_times_wakes_and_leaks_nothing", || {
        let (a, _b) = both(1500);
        let told = reader(&a);
        for _ in 0..1000 {
            a.wake();
            assert_eq!(told.recv_timeout(SOON).unwrap().unwrap(), Received::Woken);
        }
    });
}

#[test]
fn what_arrives_for_an_interface_above_is_not_taken() {
    in_namespace("what_arrives_for_an_interface_above_is_not_taken", || {
        let (a, b) = both(1500);
        if !ip_can("link add link va name upper type macvlan mode bridge") {
            return skipped("what_arrives_for_an_interface_above_is_not_taken", "this kernel has no macvlan");
        }
        ip("link set upper up");
        let upper = PacketLink::open("upper", Role::Initiator).unwrap();
        until("carrier", || upper.refresh().is_ok() && upper.is_up());
        let mut batch = Batch::new(60);
        // Twice: the second time the link was bound anew, to another interface of the same name.
        for round in 0..2 {
            send_all(&*b, &[response(&upper, 1, 60), response(&*a, 2, 60)]);
            assert_eq!(number(&take(&*a, &mut batch, 1)[0]), 2, "round {round}");
            assert_eq!(number(&take(&upper, &mut batch, 1)[0]), 1, "round {round}");
            if round == 0 {
                ip("link del upper");
                ip("link add link va name upper type macvlan mode bridge");
                ip("link set upper up");
                until("the new one", || upper.refresh().is_ok() && upper.is_up());
                // The old one going down is told once.
                while let Err(error) = upper.recv_now(&mut batch) {
                    assert!(is_link_down(&error), "{error}");
                }
            }
        }
        // And what is for the parent is not taken above.
        send_all(&*b, &[response(&*a, 3, 60), response(&upper, 4, 60)]);
        assert_eq!(number(&take(&upper, &mut batch, 1)[0]), 4);
    });
}
