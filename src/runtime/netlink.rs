//! Netlinks: the interfaces in use, and the thread that reads from each.
//!
//! The reader takes frames in batches, finds each frame's device, and lets the engine work once for every run of frames
//! of one device, so that the lock is taken once a run. Nothing that a link does ends the thread but `stop`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::Runtime;
use super::duty::{Duty, Harvest};
use super::linger::{LINGER, Linger};
use super::outbox::Outbox;
use super::sweeper::Due;
use crate::bug;
use crate::engine::{NetId, Time, Verdict};
use crate::link::{Batch, Link, OutFrame, is_gone, is_link_down};
use crate::wire::{Command, Config, ETHERNET, Header, Mac, Tag};

/// After an error that should not happen the reader waits for this long, so that it does not spin.
const PAUSE: Duration = Duration::from_millis(100);

/// An interface in use.
pub(super) struct Netlink {
    pub(super) id: NetId,
    pub(super) link: Arc<dyn Link>,
    up: AtomicBool,
    port: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) duty: Duty,
    pub(super) outbox: Outbox,
    received: AtomicU64,
    sent: AtomicU64,
    unsent: AtomicU64,
    malformed: AtomicU64,
    pub(super) lost_jumbo: AtomicU64,
    /// Threads that take frames now, or have taken some that their targets have not got yet.
    in_hand: AtomicUsize,
}

/// What is known of a netlink.
#[derive(Clone, Debug)]
pub struct NetlinkStatus {
    /// Which.
    pub id: NetId,
    /// The interface.
    pub name: String,
    /// Its MAC.
    pub mac: Mac,
    /// Frames sent now have a chance.
    pub up: bool,
    /// Its frames belong to a bridge, a bond or the like: none may ever come here.
    pub port: bool,
    /// Its MTU, in Linux's sense.
    pub mtu: usize,
    /// Frames of full size that were lost, over all targets.
    pub lost_jumbo: u64,
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames that the kernel did not take.
    pub unsent: u64,
    /// Frames that made no sense.
    pub malformed: u64,
    /// Frames lost for want of receive buffer.
    pub drops: u64,
}

impl Netlink {
    pub(super) fn status(&self) -> NetlinkStatus {
        NetlinkStatus {
            id: self.id,
            name: self.link.name().to_string(),
            mac: self.link.mac(),
            up: self.up.load(Ordering::Relaxed),
            port: self.port.load(Ordering::Relaxed),
            mtu: self.link.mtu(),
            lost_jumbo: self.lost_jumbo.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            unsent: self.unsent.load(Ordering::Relaxed),
            malformed: self.malformed.load(Ordering::Relaxed),
            drops: self.link.drops(),
        }
    }

    pub(super) fn send(&self, frames: &[OutFrame<'_>]) {
        let (sent, _) = self.link.send(frames);
        self.sent.fetch_add(sent as u64, Ordering::Relaxed);
        self.unsent.fetch_add((frames.len() - sent) as u64, Ordering::Relaxed);
    }

    /// Whether our threads are behind: frames have come whose targets have not got them yet, or wait to be sent.
    pub(super) fn is_behind(&self) -> bool {
        self.in_hand.load(Ordering::Relaxed) > 0 || self.outbox.has_frames() || self.link.has_frames()
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.duty.give_back();
        self.link.wake();
    }
}

/// All netlinks, in the order of binding.
#[derive(Default)]
pub(super) struct Netlinks {
    list: RwLock<Vec<Arc<Netlink>>>,
    next: AtomicU16,
}

impl Netlinks {
    pub(super) fn all(&self) -> Vec<Arc<Netlink>> {
        self.list.read().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.list.read().len()
    }

    /// The one with that place in the list.
    pub(super) fn nth(&self, index: usize) -> Option<Arc<Netlink>> {
        self.list.read().get(index).cloned()
    }

    pub(super) fn get(&self, id: NetId) -> Option<Arc<Netlink>> {
        self.list.read().iter().find(|n| n.id == id).cloned()
    }

    /// The netlink on the interface of that name; the name may be an alternative one.
    pub(super) fn named(&self, name: &str) -> Option<Arc<Netlink>> {
        self.list.read().iter().find(|n| n.link.is_called(name)).cloned()
    }

    /// The netlink on the interface with that index.
    pub(super) fn on(&self, index: u32) -> Option<Arc<Netlink>> {
        self.list.read().iter().find(|n| n.link.index() == index).cloned()
    }

    /// Adds a netlink; None if there is one on that interface.
    pub(super) fn add(&self, link: Arc<dyn Link>) -> Option<Arc<Netlink>> {
        let mut list = self.list.write();
        if list.iter().any(|n| n.link.name() == link.name() || n.link.index() == link.index()) {
            return None;
        }
        let up = link.is_up();
        // An interface that comes and goes for a long time uses up all numbers. The list is far shorter than they are
        // many, so that there is a free one.
        let next = || NetId(self.next.fetch_add(1, Ordering::Relaxed));
        let mut id = next();
        while list.iter().any(|n| n.id == id) {
            id = next();
        }
        let net = Arc::new(Netlink {
            id,
            link,
            up: AtomicBool::new(up),
            port: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            duty: Duty::default(),
            outbox: Outbox::default(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            lost_jumbo: AtomicU64::new(0),
            in_hand: AtomicUsize::new(0),
        });
        list.push(net.clone());
        Some(net)
    }

    pub(super) fn remove(&self, id: NetId) {
        self.list.write().retain(|n| n.id != id);
    }
}

impl Runtime {
    pub(super) fn read_loop(self: &Arc<Self>, net: &Netlink) {
        let mut batch = Batch::new(net.link.mtu() + ETHERNET);
        let mut strangers = Vec::new();
        let mut linger = Linger::default();
        let mut last = Harvest::Nothing;
        while !net.stop.load(Ordering::SeqCst) {
            net.duty.await_return();
            if linger.should_poll(last == Harvest::LastFrame) {
                linger.learn(net.link.poll(LINGER));
            }
            last = match self.receive_next(net, &mut batch, &mut strangers) {
                Ok(harvest) => {
                    bug::here("reader");
                    net.duty.note(harvest);
                    harvest
                }
                Err(error) => {
                    self.receive_failed(net, &error);
                    if !is_link_down(&error) {
                        // A link that is down says so once and then blocks. Everything else could repeat at once.
                        std::thread::sleep(PAUSE);
                    }
                    Harvest::Nothing
                }
            };
        }
    }

    pub(super) fn receive_failed(&self, net: &Netlink, error: &io::Error) {
        if is_link_down(error) || is_gone(error) {
            self.net_changed(net);
        } else {
            self.log.warn("netlink", None, format_args!("{}: receive: {error}", net.link.name()));
        }
    }

    /// Asks the kernel about an interface in use again, and tells every target what has become of it.
    pub fn refresh_netlink(&self, name: &str) -> Result<(), super::RuntimeError> {
        let net = self.nets.named(name).ok_or(super::RuntimeError::NotFound)?;
        self.net_changed(&net);
        Ok(())
    }

    /// Says once that the frames of a netlink belong to a bridge, a bond or the like.
    pub(super) fn note_port(&self, net: &Netlink, port: bool) {
        if net.port.swap(port, Ordering::Relaxed) != port && port {
            let words = "is a port of a bridge or a bond, which takes its frames: bind that one instead";
            self.log.warn("bind", None, format_args!("{} {words}", net.link.name()));
        }
    }

    /// Looks what has become of a netlink and tells every target. Several threads may notice a change, each at its own
    /// moment: so whoever has told it looks again, and what is told last is so.
    pub(super) fn net_changed(&self, net: &Netlink) {
        let mut told = None;
        loop {
            // If the interface is gone, its state says so.
            let _ = net.link.refresh();
            let (up, mtu) = (net.link.is_up(), net.link.mtu());
            if told.replace((up, mtu)) == Some((up, mtu)) {
                return;
            }
            if net.up.swap(up, Ordering::SeqCst) != up {
                let name = net.link.name();
                match up {
                    true => self.log.log("netlink", None, format_args!("{name} is up")),
                    false => self.log.warn("netlink", None, format_args!("{name} is down")),
                }
            }
            for unit in self.units() {
                self.with_device(&unit, |device, now, sink| device.net_changed(now, net.id, up, mtu, sink));
            }
        }
    }

    /// Waits for frames or a wake-up, and gives the frames to their targets.
    fn receive_next(
        self: &Arc<Self>,
        net: &Netlink,
        batch: &mut Batch,
        strangers: &mut Vec<usize>,
    ) -> io::Result<Harvest> {
        while !net.link.take_wake() {
            if let Some(harvest) = self.receive(net, batch, strangers)? {
                return Ok(harvest);
            }
            net.link.wait()?;
        }
        Ok(Harvest::Nothing)
    }

    /// Takes the frames that have come, gives them to their targets, and says what they meant to the last of these;
    /// None if no frame had come.
    pub(super) fn receive(
        self: &Arc<Self>,
        net: &Netlink,
        batch: &mut Batch,
        strangers: &mut Vec<usize>,
    ) -> io::Result<Option<Harvest>> {
        // Before the frames are taken: a thread that comes later must see that older frames than its own are on their
        // way to their targets.
        net.in_hand.fetch_add(1, Ordering::SeqCst);
        let taken = net.link.recv_now(batch);
        let harvest = match batch.is_empty() {
            true => None,
            false => Some(self.hand_out(net, batch, strangers)),
        };
        net.in_hand.fetch_sub(1, Ordering::SeqCst);
        taken.map(|()| harvest)
    }

    fn hand_out(self: &Arc<Self>, net: &Netlink, batch: &Batch, strangers: &mut Vec<usize>) -> Harvest {
        net.received.fetch_add(batch.len() as u64, Ordering::Relaxed);
        if !net.up.load(Ordering::Relaxed) {
            // A link that delivers frames is up, whether the watcher has said so or not.
            self.net_changed(net);
        }
        let (now, slept) = self.clock.reading();
        let mtu = net.link.mtu();
        let mut harvest = Harvest::default();
        let mut frames = batch.frames().enumerate().peekable();
        while let Some((index, frame)) = frames.next() {
            let Some((header, body)) = self.parse(net, frame) else { continue };
            let Some(unit) = self.units.at(header.addr) else {
                strangers.push(index);
                continue;
            };
            self.with_sink(|sink| {
                let mut device = unit.device.lock();
                device.awake(slept, now, sink);
                let mut answers = 0;
                let mut one = |index: usize, header: Header, body: &[u8]| {
                    if header.tag == Tag::UNSOLICITED {
                        let Ok(config) = Config::parse(body) else { return };
                        if header.is_announcement() {
                            device.announced(now, net.id, header.src, mtu, config.sectors, sink);
                        } else if header.command == Command::Config {
                            device.overheard(now, net.id, header.src, sink);
                        }
                        return;
                    }
                    match device.receive(now, net.id, &header, body, sink) {
                        Verdict::Taken => answers += 1,
                        Verdict::Unknown if header.command == Command::Config => strangers.push(index),
                        _ => {}
                    }
                };
                one(index, header, body);
                // The rest of this device's run, under the same lock.
                while let Some((_, frame)) = frames.peek() {
                    let Ok((header, body)) = Header::parse(frame) else { break };
                    if header.addr != unit.addr || !header.response {
                        break;
                    }
                    if let Some((index, _)) = frames.next() {
                        one(index, header, body);
                    }
                }
                if net.in_hand.load(Ordering::SeqCst) == 1 {
                    // Otherwise the answers that seem to be missing may be in another thread's hands.
                    device.judge(now, net.id, sink);
                }
                let left = device.requests();
                harvest = match sink.done.len() {
                    0 | 1 if left == 0 && batch.len() == 1 && answers == 1 => Harvest::LastFrame,
                    0 => Harvest::Nothing,
                    1 if left == 0 => Harvest::LastRequest,
                    _ => Harvest::OneOfMany,
                };
                self.let_go(&unit, device, now, slept, sink);
                self.carry_out(Some(&unit), sink);
            });
        }
        // Frames that their device did not know, or that have no device, are for the discovery.
        for index in strangers.drain(..) {
            let frame = batch.frames().nth(index).unwrap_or_default();
            if let Ok((header, body)) = Header::parse(frame) {
                self.receive_stranger(now, net, mtu, &header, body);
            }
        }
        harvest
    }

    /// The header and the body of a response that one target can have sent.
    fn parse<'a>(&self, net: &Netlink, frame: &'a [u8]) -> Option<(Header, &'a [u8])> {
        match Header::parse(frame) {
            Ok((header, body)) if header.response && !header.addr.is_wildcard() => Some((header, body)),
            // On a loopback interface a request of ours comes back to us.
            Ok((header, _)) if !header.response => None,
            _ => {
                net.malformed.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn receive_stranger(
        self: &Arc<Self>,
        now: Time,
        net: &Netlink,
        mtu: usize,
        header: &Header,
        body: &[u8],
    ) {
        let unit = self.units.at(header.addr);
        if header.command == Command::Config {
            let Ok(config) = Config::parse(body) else {
                net.malformed.fetch_add(1, Ordering::Relaxed);
                return;
            };
            if let Some(unit) = unit {
                let solicited = self.discovery.lock().solicited(now, net.id, header.tag);
                self.with_device(&unit, |device, now, sink| match solicited {
                    true => device.solicited(now, net.id, header.src, mtu, &config, sink),
                    false => device.unexpected(header.tag),
                });
                return;
            }
            self.with_discovery(|discovery, frames| {
                discovery.heard(now, net.id, mtu, header, &config, frames)
            });
        } else if header.command == Command::Ata && unit.is_none() {
            let seed = super::seed();
            let found = self
                .with_discovery(|discovery, frames| discovery.identified(now, header, body, seed, frames));
            if let Some(found) = found {
                self.adopt(now, found);
            }
        }
    }

    fn with_discovery<T>(
        &self,
        f: impl FnOnce(&mut crate::engine::Discovery, &mut Vec<crate::engine::Transmit>) -> T,
    ) -> T {
        self.with_sink(|sink| {
            let mut discovery = self.discovery.lock();
            let before = discovery.next_deadline();
            let result = f(&mut discovery, &mut sink.frames);
            let after = discovery.next_deadline();
            drop(discovery);
            if let Some(after) = after
                && before.is_none_or(|before| after < before)
            {
                self.timers.arm(after, Due::Discovery);
            }
            self.carry_out(None, sink);
            result
        })
    }
}

#[cfg(test)]
mod tests;
