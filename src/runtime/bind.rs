//! Interfaces come into use and go out of it: by hand, by the configuration file, and when the watcher sees them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{By, Runtime, RuntimeError};
use crate::engine::NetId;
use crate::link::Link;
use crate::link::is_gone;
use crate::link::packet::{PacketLink, Role};
use crate::link::watch::is_port;
use crate::wire::Addr;

impl Runtime {
    /// Starts to use an interface.
    pub fn bind(self: &Arc<Self>, name: &str) -> Result<(), RuntimeError> {
        self.wishes.lock().allow(name);
        self.bind_unasked(name)
    }

    /// Starts to use an interface, now or, if it is not there, when it comes. It is no error if it is in use already.
    pub fn bind_when_there(self: &Arc<Self>, name: &str, by: By) -> Result<(), RuntimeError> {
        let watched = self.watch.get().is_some();
        if watched {
            let mut wishes = self.wishes.lock();
            wishes.allow(name);
            // Before the interface is opened: the watcher may see it come at any time.
            wishes.want(name, by);
        }
        if self.nets.named(name).is_some() {
            return Ok(());
        }
        match PacketLink::open(name, Role::Initiator) {
            Err(error) if watched && is_gone(&error) => {
                self.log.warn(
                    "bind",
                    None,
                    format_args!("waiting for {name}: there is no such interface yet"),
                );
                Ok(())
            }
            opened => match self.use_opened(name, opened) {
                Err(RuntimeError::Exists) => Ok(()),
                done => done,
            },
        }
    }

    /// The interfaces that are bound when they come, and are not there.
    pub fn awaited(&self) -> Vec<String> {
        let wanted = self.wishes.lock().wanted();
        let there = |name: &String| {
            // One that is gone keeps its netlink, and is awaited all the same.
            self.nets.named(name).is_some_and(|net| net.link.index() != 0)
        };
        wanted.into_iter().filter(|name| !there(name)).collect()
    }

    /// No interface is to be bound any more when it comes.
    pub fn forget_wanted(&self) {
        self.wishes.lock().forget_wanted();
    }

    pub(super) fn bind_unasked(self: &Arc<Self>, name: &str) -> Result<(), RuntimeError> {
        if self.nets.named(name).is_some() {
            return Err(RuntimeError::Exists);
        }
        self.use_opened(name, PacketLink::open(name, Role::Initiator))
    }

    fn use_opened(self: &Arc<Self>, name: &str, opened: io::Result<PacketLink>) -> Result<(), RuntimeError> {
        let link = opened.map_err(|error| {
            self.log.warn("bind", None, format_args!("bind {name}: {error}"));
            match error.raw_os_error() {
                Some(libc::ENODEV | libc::ENXIO) => RuntimeError::NoDevice,
                Some(libc::EPERM | libc::EACCES) => RuntimeError::Permission,
                _ if error.kind() == io::ErrorKind::Unsupported => RuntimeError::NoDevice,
                _ => RuntimeError::Failed,
            }
        })?;
        let id = self.attach(Arc::new(link))?;
        if let Some(net) = self.nets.get(id) {
            self.note_port(&net, is_port(net.link.index()));
        }
        Ok(())
    }

    /// Starts to use a link that is open already.
    pub fn attach(self: &Arc<Self>, link: Arc<dyn Link>) -> Result<NetId, RuntimeError> {
        let net = self.nets.add(link).ok_or(RuntimeError::Exists)?;
        let id = net.id;
        self.log.log(
            "bind",
            None,
            format_args!("bound {} ({}), MTU {}", net.link.name(), net.link.mac(), net.link.mtu()),
        );
        if !net.link.is_up() {
            let name = net.link.name();
            self.log.warn(
                "bind",
                None,
                format_args!("{name} is down; if it should not be: ip link set {name} up"),
            );
        }
        let reader = self.clone();
        let name = format!("net-{}", net.link.name());
        if let Err(error) = self.spawn(&name, move || reader.read_loop(&net)) {
            self.log.warn("bind", None, format_args!("cannot start a thread: {error}"));
            self.nets.remove(id);
            return Err(RuntimeError::Failed);
        }
        if self.switches.autodiscover.load(Ordering::Relaxed) {
            self.query(id, Addr::ALL);
            self.arm_query(id, 0);
        }
        Ok(id)
    }

    /// Stops using an interface until it is bound again by name. Its frames move to other paths, or wait for a path.
    pub fn unbind(&self, name: &str) -> Result<(), RuntimeError> {
        let net = self.nets.named(name).ok_or(RuntimeError::NotFound)?;
        self.wishes.lock().refuse(net.link.index(), &net.link.name(), name);
        self.nets.remove(net.id);
        net.stop();
        self.discovery.lock().net_removed(net.id);
        for unit in self.units() {
            self.with_device(&unit, |device, now, sink| device.net_removed(now, net.id, sink));
        }
        self.log.log("bind", None, format_args!("unbound {name}"));
        self.reap();
        Ok(())
    }
}
