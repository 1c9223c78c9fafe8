//! The ways to the target: how they are found, proven, lost, and what the target says of its limits.

use super::{Device, Sink, State};
use crate::engine::event::{Event, Reason};
use crate::engine::flight::{Frame, Work};
use crate::engine::ids::{FrameId, NetId, PathId};
use crate::engine::path::{Path, Trust};
use crate::engine::time::Time;
use crate::wire::{Config, Mac, Sector};

/// Rediscoveries without an answer after which a target is down.
const MISSED_MAX: u32 = 3;

impl<R> Device<R> {
    /// The target answered a config query of ours that went to all: its limits are believed, and a new MAC may become
    /// a path.
    pub fn solicited(
        &mut self,
        now: Time,
        net: NetId,
        mac: Mac,
        mtu: usize,
        config: &Config<'_>,
        sink: &mut Sink<R>,
    ) {
        match self.paths.find(net, mac) {
            Some(id) => {
                self.missed = 0;
                self.take_limits(id, config);
                if let Some(p) = self.paths.get_mut(id) {
                    p.mtu = mtu;
                    p.only_announced = false;
                }
                if self.state != State::Up {
                    self.revive(now, sink);
                }
            }
            None => self.propose(now, (net, mac, mtu, config.sectors), true, sink),
        }
    }

    /// The target answered here, too, before it was known: another way to it.
    pub fn answered_at(
        &mut self,
        now: Time,
        net: NetId,
        mac: Mac,
        mtu: usize,
        advertised: u8,
        sink: &mut Sink<R>,
    ) {
        if self.paths.find(net, mac).is_none() {
            self.propose(now, (net, mac, mtu, advertised), true, sink);
        }
    }

    /// Takes over what the target says of itself.
    pub(super) fn take_limits(&mut self, path: PathId, config: &Config<'_>) {
        self.disk.take_limits(config.buffers, config.firmware, config.string);
        if let Some(p) = self.paths.get_mut(path) {
            p.advertised = config.sectors;
        }
    }

    /// A MAC that this target was not known by: it becomes a path if the same disk answers over it. `answered`: it
    /// answered a query of ours; otherwise it only announced itself. Any host can do that, so such a path must not
    /// take the place of one that answers.
    pub(super) fn propose(
        &mut self,
        now: Time,
        (net, mac, mtu, advertised): (NetId, Mac, usize, u8),
        answered: bool,
        sink: &mut Sink<R>,
    ) {
        if !mac.is_unicast() {
            return;
        }
        while !self.paths.has_room(net) {
            let Some(id) = self.paths.gives_way(net).filter(|_| answered) else { return };
            self.remove_path(id, now, sink);
        }
        let mut path = Path::new(net, mac, mtu, advertised, Trust::Proving, now);
        path.only_announced = !answered;
        let id = self.paths.add(path);
        self.prove(id, now, sink);
    }

    pub(super) fn refuse_path(&mut self, id: PathId, now: Time, sink: &mut Sink<R>) {
        if let Some(p) = self.paths.get(id) {
            sink.events.push(Event::PathRefused(p.net, p.mac));
        }
        self.remove_path(id, now, sink);
    }

    /// Takes a path out. What flies on it is sent again by others.
    pub(super) fn remove_path(&mut self, id: PathId, now: Time, sink: &mut Sink<R>) {
        let gone = self.paths.remove(id);
        self.ground_path(id, now, sink);
        self.flight.forget_path(id);
        if let Some(path) = gone
            && path.trust != Trust::Proving
        {
            sink.events.push(Event::PathGone(path.net, path.mac));
        }
    }

    /// Nothing flies on this path any more.
    pub(super) fn ground_path(&mut self, id: PathId, now: Time, sink: &mut Sink<R>) {
        let flying: Vec<(FrameId, Work)> = self
            .flight
            .iter()
            .filter(|(_, f)| f.flying().is_some_and(|c| c.path == Some(id)))
            .map(|(id, f)| (id, f.work))
            .collect();
        for (frame, work) in flying {
            self.release_place(frame);
            match work {
                Work::Identify { .. } if self.confirming == Some(frame) => {
                    // The sweep asks again, by another path if there is one.
                    if let Some(f) = self.flight.get_mut(frame) {
                        f.due = now;
                    }
                    self.arm(now);
                }
                Work::Identify { .. } | Work::Query { .. } | Work::Holders { .. } | Work::Probe { .. } => {
                    self.flight.settle(frame, None, None, now);
                }
                Work::Command { .. } => self.dispatch_outside(frame, now, sink),
                _ => self.line_up(frame),
            }
        }
    }

    /// A netlink's state or MTU changed.
    pub fn net_changed(&mut self, now: Time, net: NetId, up: bool, mtu: usize, sink: &mut Sink<R>) {
        let mut returned = false;
        for id in self.paths.ids(|_, p| p.net == net) {
            let Some(p) = self.paths.get_mut(id) else { continue };
            p.mtu = mtu;
            let was = std::mem::replace(&mut p.up, up);
            let proving = p.trust == Trust::Proving;
            if was && !up {
                self.ground_path(id, now, sink);
            } else if !was && up {
                p.window.restart();
                returned = true;
                if proving {
                    // Its question was lost with the link.
                    self.prove(id, now, sink);
                }
            }
        }
        if returned {
            // Behind a link that was down anything may have happened.
            self.distrust(now, "its link came back", sink);
        }
    }

    /// A netlink is gone for good.
    pub fn net_removed(&mut self, now: Time, net: NetId, sink: &mut Sink<R>) {
        for id in self.paths.ids(|_, p| p.net == net) {
            self.remove_path(id, now, sink);
        }
        if self.paths.is_empty() && self.state == State::Up {
            self.enter(State::Down(Reason::Unreached), sink);
        }
    }

    /// A query went out to all; if the target answers none of three, it is down.
    pub fn rediscovered(&mut self, sink: &mut Sink<R>) {
        self.missed += 1;
        if self.missed > MISSED_MAX && self.reqs.is_empty() {
            self.enter(State::Down(Reason::Silent), sink);
        }
    }

    /// Asks for the limits over one path.
    pub(super) fn query(&mut self, path: PathId, now: Time, sink: &mut Sink<R>) {
        let asked = |(_, f): (FrameId, &Frame)| f.work == Work::Query { path };
        if !self.flight.iter().any(asked) && self.paths.get(path).is_some_and(|p| p.up) {
            let id = self.flight.create(Work::Query { path }, Sector(0), 0);
            self.launch(id, path, now, sink);
        }
    }

    /// Asks whether frames of `sectors` pass both ways over this path.
    pub(super) fn send_probe(&mut self, path: PathId, sectors: u8, now: Time, sink: &mut Sink<R>) {
        // The limits may have become smaller since the size was chosen.
        let most = self.paths.get(path).map_or(1, |p| p.most_sectors(&self.settings));
        if let Some(p) = self.paths.get_mut(path)
            && p.probing.is_some_and(|size| size > most)
        {
            p.probing = Some(most);
        }
        let sectors = sectors.min(most);
        let asked = |(_, f): (FrameId, &Frame)| f.work == Work::Probe { path };
        if !self.flight.iter().any(asked) && self.paths.get(path).is_some_and(|p| p.up) {
            let id = self.flight.create(Work::Probe { path }, Sector(0), sectors);
            self.launch(id, path, now, sink);
        }
    }

    /// Finds the largest frame that each path carries both ways; the result is in the paths' status.
    pub fn probe(&mut self, now: Time, sink: &mut Sink<R>) {
        let all: Vec<(PathId, u8)> =
            self.paths.iter().map(|(id, p)| (id, p.most_sectors(&self.settings))).collect();
        for (id, most) in all {
            if let Some(p) = self.paths.get_mut(id) {
                p.probing = Some(most);
                p.probed = None;
            }
            self.send_probe(id, most, now, sink);
        }
    }
}
