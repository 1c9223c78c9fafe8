//! The watcher: what happens to the interfaces, told to the netlinks that use them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Runtime;
use super::watch::{LinkEvent, LinkWatch};
use crate::bug;

impl Runtime {
    pub(super) fn watch_loop(self: &Arc<Self>, watch: &LinkWatch) {
        while !self.stopping.load(Ordering::SeqCst) {
            match watch.wait() {
                Ok(events) => events.iter().for_each(|e| self.interface_changed(e)),
                Err(error) => {
                    self.log.log("watch", None, format_args!("cannot follow interfaces: {error}"));
                    std::thread::sleep(std::time::Duration::from_secs(1));
                }
            }
        }
    }

    fn interface_changed(self: &Arc<Self>, event: &LinkEvent) {
        bug::here("watcher");
        match self.nets.named(&event.name) {
            Some(net) => {
                let (index, mtu) = (net.link.index(), net.link.mtu());
                if let Err(error) = net.link.refresh()
                    && !event.gone
                {
                    self.log.log("netlink", None, format_args!("{}: {error}", event.name));
                }
                self.net_changed(&net);
                if net.link.index() != index {
                    // Another interface under the same name: whoever is behind it has to be asked.
                    self.query(net.id, crate::wire::Addr::ALL);
                }
                if net.link.mtu() != mtu {
                    self.log.log("netlink", None, format_args!("{}: MTU {}", event.name, net.link.mtu()));
                }
            }
            None if event.by_default() && self.follow.load(Ordering::Relaxed) => {
                // What cannot be bound has said so in the log.
                let _ = self.bind(&event.name);
            }
            None => {}
        }
    }
}
