//! The watcher: tells the netlinks of changes of the interfaces that they use.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Runtime;
use super::netlink::Netlink;
use crate::bug;
use crate::link::watch::{LinkEvent, LinkWatch};

impl Runtime {
    pub(super) fn watch_loop(self: &Arc<Self>, watch: &LinkWatch) {
        while !self.stopping.load(Ordering::SeqCst) {
            match watch.wait() {
                Ok(events) => events.iter().for_each(|e| self.interface_changed(e)),
                Err(error) => {
                    self.log.warn("watch", None, format_args!("cannot follow interfaces: {error}"));
                    std::thread::sleep(std::time::Duration::from_secs(1));
                }
            }
        }
    }

    /// Interfaces are told apart by their index: names change, and there may be several.
    fn interface_changed(self: &Arc<Self>, event: &LinkEvent) {
        bug::here("watcher");
        if event.gone {
            self.wishes.lock().forget_index(event.index);
        }
        if let Some(net) = self.nets.on(event.index) {
            self.note_port(&net, event.is_port);
            return self.netlink_changed(&net, event.gone);
        }
        // No netlink uses it: perhaps it has the name of an interface that is gone.
        for net in self.nets.all().iter().filter(|net| net.link.index() == 0) {
            self.netlink_changed(net, true);
            if net.link.index() == event.index {
                return;
            }
        }
        if !event.gone && self.wishes.lock().is_wanted(event, self.follow.load(Ordering::Relaxed)) {
            // An error is in the log already.
            let _ = self.bind_unasked(&event.name);
        }
    }

    /// Asks the kernel again about the interface of a netlink. `gone`: it was deleted, so an error is no surprise.
    fn netlink_changed(&self, net: &Netlink, gone: bool) {
        let (index, mac, mtu, name) = (net.link.index(), net.link.mac(), net.link.mtu(), net.link.name());
        if let Err(error) = net.link.refresh()
            && !gone
        {
            self.log.warn("netlink", None, format_args!("{name}: {error}"));
        }
        let now = net.link.name();
        if now != name {
            self.log.log("netlink", None, format_args!("{name} is called {now} now"));
        }
        self.net_changed(net);
        if (net.link.index(), net.link.mac()) != (index, mac) && net.link.index() != 0 {
            // Another interface under the same name may lead to other targets.
            self.query(net.id, crate::wire::Addr::ALL);
        }
        if net.link.mtu() != mtu {
            self.log.log("netlink", None, format_args!("{now}: MTU {}", net.link.mtu()));
        }
    }
}
