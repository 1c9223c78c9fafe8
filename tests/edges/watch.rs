//! LinkWatch against the kernel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aoefs::link::watch::{LinkEvent, LinkWatch, ethernet_interfaces};

use crate::bed::{SOON, in_namespace, ip, until, veth};

/// Waits until the watch tells something of `name` that fits.
fn expect(watch: &LinkWatch, name: &str, what: impl Fn(&LinkEvent) -> bool) -> LinkEvent {
    let start = std::time::Instant::now();
    loop {
        assert!(start.elapsed() < SOON, "nothing of {name} that fits");
        if let Some(event) =
            watch.wait().unwrap().into_iter().rev().find(|event| event.name == name && what(event))
        {
            return event;
        }
    }
}

#[test]
fn a_links_life_is_told() {
    in_namespace("a_links_life_is_told", || {
        let watch = LinkWatch::open().unwrap();
        let first = watch.wait().unwrap();
        assert_eq!(first.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo"]);
        ip("link add va mtu 1500 type veth peer name vb");
        let made = expect(&watch, "va", |event| !event.up);
        assert!(made.is_ethernet && !made.by_default() && made.mtu == 1500 && made.mac.is_unicast());
        ip("link set va up");
        ip("link set vb up");
        assert!(expect(&watch, "va", |event| event.up).by_default());
        ip("link set va mtu 9000");
        expect(&watch, "va", |event| event.mtu == 9000);
        ip("link set va address 02:00:00:00:00:55");
        expect(&watch, "va", |event| event.mac.0 == [2, 0, 0, 0, 0, 0x55]);
        ip("link set vb down");
        expect(&watch, "va", |event| !event.up);
        ip("link set va down");
        ip("link set va name vc");
        assert_eq!(expect(&watch, "vc", |_| true).index, made.index);
        ip("link del vc");
        assert_eq!(expect(&watch, "vc", |event| event.gone).index, made.index);
        veth(1500);
        let again = expect(&watch, "va", |event| event.up);
        assert!(again.index != made.index && !again.gone);
    });
}

#[test]
fn ports_of_a_bridge_are_left_alone() {
    in_namespace("ports_of_a_bridge_are_left_alone", || {
        let watch = LinkWatch::open().unwrap();
        ip("link add br0 type bridge");
        veth(1500);
        expect(&watch, "va", |event| event.up && !event.is_port);
        ip("link set va master br0");
        ip("link set br0 up");
        expect(&watch, "va", |event| event.up && event.is_port);
        until("br0 and vb only", || {
            let names: Vec<_> = ethernet_interfaces().unwrap().into_iter().map(|link| link.name).collect();
            names == ["br0", "vb"]
        });
        // The bridge tells of this with a DELLINK of its own family: va is not gone.
        ip("link set va nomaster");
        let freed = expect(&watch, "va", |event| !event.is_port || event.gone);
        assert!(freed.by_default());
    });
}

#[test]
fn a_burst_that_overflows_the_socket_leaves_the_truth() {
    in_namespace("a_burst_that_overflows_the_socket_leaves_the_truth", || {
        let watch = LinkWatch::open().unwrap();
        watch.wait().unwrap();
        veth(1500);
        expect(&watch, "vb", |event| event.up);
        // Nobody reads meanwhile: 600 events are more than the socket holds.
        for i in 0..100 {
            ip(&format!("link add x{i} type veth peer name y{i}"));
        }
        for i in 10..100 {
            ip(&format!("link del x{i}"));
        }
        ip("link del va");
        let mut links = BTreeMap::new();
        until("the truth", || {
            for event in watch.wait().unwrap() {
                if event.gone {
                    links.remove(&event.index)
                } else {
                    links.insert(event.index, event.name)
                };
            }
            assert!(!links.values().any(String::is_empty));
            links.len() == 20
        });
        assert!(links.values().all(|name| name.len() == 2 && name.starts_with(['x', 'y'])), "{links:?}");
    });
}

#[test]
fn a_watch_sleeps_until_it_is_woken() {
    in_namespace("a_watch_sleeps_until_it_is_woken", || {
        let watch = Arc::new(LinkWatch::open().unwrap());
        watch.wait().unwrap();
        let sleeper = {
            let watch = watch.clone();
            thread::spawn(move || watch.wait().unwrap())
        };
        thread::sleep(Duration::from_millis(100));
        assert!(!sleeper.is_finished());
        watch.wake();
        assert!(sleeper.join().unwrap().is_empty());
    });
}
