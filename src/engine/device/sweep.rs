//! What is due: attempts that expired, requests out of time, quarantines that end, probes.

use super::{Device, Sink, State};
use crate::engine::event::{Cause, Event, Reason};
use crate::engine::flight::{Frame, Work};
use crate::engine::ids::{FrameId, PathId, ReqId};
use crate::engine::limits::COMMAND_DEADLINE;
use crate::engine::path::Trust;
use crate::engine::request::{Error, Job, Req};
use crate::engine::time::Time;
use crate::wire::below;

impl<R> Device<R> {
    /// Does what is due at `now`. Early calls do nothing.
    pub fn sweep(&mut self, now: Time, sink: &mut Sink<R>) {
        if now < self.timer {
            return;
        }
        self.timer = Time::NEVER;
        self.sweep_ahead(now, sink);
        self.sweep_requests(now, sink);
        self.sweep_frames(now, sink);
        let next = self.locks.expire(now);
        self.arm(next);
        self.sweep_paths(now, sink);
        self.sweep_growth(now, sink);
        self.believe_waiting(now, sink);
        if self.announced {
            self.revive(now, sink);
            self.arm(self.identify_at);
        }
    }

    /// How long a request may take: none is for ever.
    pub(super) fn patience(&self, req: &Req<R>) -> Option<std::time::Duration> {
        if req.is_command() {
            Some(COMMAND_DEADLINE)
        } else if self.settings.nofail && !req.nonblock && !req.is_raw() && !req.is_ahead() {
            None
        } else {
            Some(self.settings.deadline)
        }
    }

    fn sweep_requests(&mut self, now: Time, sink: &mut Sink<R>) {
        let mut late: Vec<ReqId> = Vec::new();
        let mut next = Time::NEVER;
        for (id, req) in &self.reqs {
            let Some(patience) = self.patience(req) else { continue };
            let due = req.submitted + patience;
            if due <= now {
                late.push(id);
            } else {
                next = next.min(due);
            }
        }
        self.arm(next);
        for id in late {
            let Some(req) = self.reqs.get(id) else { continue };
            let heard = !self.doubt.unheard_since(req.submitted);
            if req.is_command() {
                // A target that answers other things does not know the lists, unless it has told of them before; one
                // that says nothing may be away. It has said nothing about a command that waited for a late attempt of
                // another one.
                let asked = heard && req.granted;
                let unknown = match req.job {
                    Job::Mask(_) => asked && !self.disk.lists.mask,
                    Job::Reserve(_) => asked && !self.disk.lists.reserve,
                    _ => false,
                };
                self.abandon(id, now);
                self.end(id, Err(if unknown { Error::NotSupported } else { Error::Timeout }), now, sink);
            } else {
                // A target that never answers some request may answer all others, and one that was asked nothing since
                // owes no answer: the request may have waited for an earlier one, or for a late attempt.
                let owed =
                    |frame: &Frame| frame.last().is_some_and(|last| self.doubt.unheard_since(last.sent));
                let owes = self.flight.iter().any(|(_, frame)| frame.expiries > 0 && owed(frame));
                // Without an interface it cannot be asked, and what is asked waits for one until its deadline, once.
                let unreached = self.state != State::Up;
                let away = unreached || (owes && (!heard || self.doubt.silent(now)));
                let down = away && !(req.is_raw() && self.settings.nofail);
                self.fail(id, Error::Io, Cause::Deadline, now, sink);
                if down {
                    self.enter(State::Down(Reason::Deadline), sink);
                    self.raise_doubt(now, None, sink);
                }
            }
        }
    }

    fn sweep_frames(&mut self, now: Time, sink: &mut Sink<R>) {
        let mut expired: Vec<FrameId> = Vec::new();
        let mut next = Time::NEVER;
        for (id, frame) in self.flight.iter() {
            if frame.queued {
                continue;
            }
            if frame.due <= now {
                expired.push(id);
            } else {
                next = next.min(frame.due);
            }
        }
        self.arm(next);
        for id in expired {
            self.expire(id, now, sink);
        }
    }

    fn expire(&mut self, id: FrameId, now: Time, sink: &mut Sink<R>) {
        let Some(frame) = self.flight.get_mut(id) else { return };
        frame.expiries = frame.expiries.saturating_add(1);
        frame.due = Time::NEVER;
        let (work, expiries) = (frame.work, frame.expiries);
        let attempt = frame.flying().copied();
        match work {
            Work::Identify { .. } => {
                self.flight.ground(id);
                self.blame(attempt.and_then(|c| c.path), now, sink);
                self.identify_expired(id, now, sink);
            }
            Work::Query { .. } | Work::Holders { .. } => {
                self.flight.settle(id, None, None, now);
            }
            Work::Probe { path } => self.probe_expired(id, path, now, sink),
            Work::Command { req } => {
                let list =
                    self.reqs.get(req).is_some_and(|r| matches!(r.job, Job::Mask(_) | Job::Reserve(_)));
                if list && attempt.is_some_and(|c| self.doubt.unheard_since(c.sent)) {
                    // Is it away, or does it not know the command?
                    self.ask(now, sink);
                }
                self.flight.ground(id);
                self.dispatch_outside(id, now, sink);
            }
            _ => {
                if let Some(attempt) = attempt {
                    if self.doubt.unheard_since(attempt.sent) && !work.slow() {
                        // Nothing was heard since it left: not this frame alone is lost.
                        self.raise_doubt(now, Some("it does not answer"), sink);
                    }
                    if !work.slow()
                        && let Some(path) = attempt.path.and_then(|id| self.paths.get_mut(id))
                    {
                        path.unanswered(expiries);
                    }
                    self.blame(attempt.path, now, sink);
                }
                self.lose(id, false, now, sink);
            }
        }
    }

    /// An attempt expired on this path. If the path is silent and others are not, its work moves.
    fn blame(&mut self, path_id: Option<PathId>, now: Time, sink: &mut Sink<R>) {
        let Some(path_id) = path_id else { return };
        let others = self.paths.iter().any(|(id, p)| id != path_id && p.usable());
        let Some(path) = self.paths.get_mut(path_id) else { return };
        let silent = path.expired();
        let doubtful = path.ladder.doubtful();
        if silent && others && path.trust == Trust::Active {
            path.taint(now);
            let at = path.probe_at;
            sink.events.push(Event::PathSilent(path.net, path.mac));
            self.arm(at);
            let stuck: Vec<FrameId> = self
                .flight
                .iter()
                .filter(|(_, f)| f.work.windowed() && f.flying().is_some_and(|c| c.path == Some(path_id)))
                .map(|(id, _)| id)
                .collect();
            for id in stuck {
                self.release_place(id);
                self.line_up(id);
            }
        } else if doubtful && self.doubt.confirmed() {
            // Do small frames pass where large ones are lost? A query is small, and so is the IDENTIFY that a doubt
            // sends.
            self.query(path_id, now, sink);
        }
    }

    fn probe_expired(&mut self, id: FrameId, path_id: PathId, now: Time, sink: &mut Sink<R>) {
        let count = self.flight.get(id).map_or(1, |f| f.count);
        self.flight.settle(id, None, None, now);
        let Some(path) = self.paths.get_mut(path_id) else { return };
        path.stats.expired += 1;
        if path.probing == Some(count) {
            let smaller = below(count);
            path.probing = (smaller < count).then_some(smaller);
            if smaller < count {
                self.send_probe(path_id, smaller, now, sink);
            }
        }
    }

    fn sweep_paths(&mut self, now: Time, sink: &mut Sink<R>) {
        for id in self.paths.ids(|_, _| true) {
            self.give_up_overtaken(id, now, sink);
            if let Some((frame, at)) = self.tail(id)
                && at <= now
            {
                if let Some(f) = self.flight.get_mut(frame) {
                    f.tails += 1;
                }
                if let Some(p) = self.paths.get_mut(id) {
                    p.tailed(now);
                }
                self.release_place(frame);
                self.line_up(frame);
            }
            self.watch(id);
            let Some(p) = self.paths.get(id) else { continue };
            let most = p.most_sectors(&self.settings);
            let (tainted, up) = (p.trust == Trust::Tainted, p.up);
            if tainted && p.probe_at <= now {
                if let Some(p) = self.paths.get_mut(id) {
                    p.probed(now);
                }
                if up {
                    self.send_probe(id, most, now, sink);
                }
            } else if !tainted && p.ladder.climb_at <= now {
                let size = p.ladder.next_up(most);
                if let Some(p) = self.paths.get_mut(id) {
                    match size {
                        Some(_) => p.ladder.climbing(now),
                        None => p.ladder.climb_at = Time::NEVER,
                    }
                }
                if let Some(size) = size.filter(|_| up) {
                    self.send_probe(id, size, now, sink);
                }
            }
            if let Some(p) = self.paths.get(id) {
                let due = if p.trust == Trust::Tainted { p.probe_at } else { p.ladder.climb_at };
                self.arm(due);
            }
        }
    }
}
