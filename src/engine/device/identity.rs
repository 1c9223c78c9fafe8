//! Is the disk still the disk? Doubt, IDENTIFY, and what follows from its answer.
//!
//! After silence, after an announcement, and before a write is repeated to a target that has not been heard since,
//! the disk must show its identity. What may leave until it has is a table in `engine/doubt.rs`.

use std::time::Duration;

use super::{Device, Sink, State};
use crate::engine::doubt::Confidence;
use crate::engine::event::{Cause, Event, Reason};
use crate::engine::flight::Work;
use crate::engine::ids::{FrameId, Identity, NetId, PathId, ReqId};
use crate::engine::limits::ASK_AGAIN;
use crate::engine::path::{Path, Trust};
use crate::engine::request::{Answered, Error};
use crate::engine::time::Time;
use crate::wire::{Identify, Mac, Sector, Unusable};

/// How often at most IDENTIFY goes out because of announcements.
const IDENTIFY_EVERY: Duration = Duration::from_secs(1);
/// A path that says something new again within this time is fickle. It is longer than the pause before the path is
/// asked again, so that a fickle path stays fickle.
const FICKLE: Duration = Duration::from_secs(1);
/// IDENTIFYs that no request waits for: after so many the target or the path is left alone.
const ATTEMPTS: u8 = 5;

/// After so many unanswered IDENTIFYs another disk that answers at another MAC is believed.
const UNANSWERED: u8 = 3;

impl<R> Device<R> {
    /// It was silent, and the disk may be another one from here on. `why` goes to the log; an idle pause is not
    /// worth a line.
    pub(super) fn raise_doubt(&mut self, now: Time, why: Option<&'static str>, sink: &mut Sink<R>) {
        if self.doubt.confirmed() {
            self.lose_confidence(Confidence::Silent(now), why, sink);
        }
    }

    /// Something happened that another disk would explain. This counts even if the disk is in doubt already: an
    /// IDENTIFY that left before this proves nothing.
    pub(super) fn distrust(&mut self, now: Time, why: &'static str, sink: &mut Sink<R>) {
        self.lose_confidence(Confidence::Suspect(now), Some(why), sink);
    }

    pub(super) fn lose_confidence(&mut self, to: Confidence, why: Option<&'static str>, sink: &mut Sink<R>) {
        self.stats.confirmations += u64::from(self.doubt.confirmed());
        self.doubt.raise(to);
        self.ahead_doubted = true;
        // An IDENTIFY that left earlier proves nothing now.
        self.drop_confirming();
        if let Some(why) = why {
            sink.events.push(Event::Doubted(why));
        }
    }

    fn drop_confirming(&mut self) {
        if let Some(id) = self.confirming.take() {
            self.flight.ground(id);
            self.flight.settle(id, None, None, Time::default());
        }
    }

    /// The target announced itself: it may have restarted, perhaps as another disk. Announcements are not
    /// authenticated.
    pub fn announced(
        &mut self,
        now: Time,
        net: NetId,
        mac: Mac,
        mtu: usize,
        advertised: u8,
        sink: &mut Sink<R>,
    ) {
        if self.paths.find(net, mac).is_none() {
            self.propose(now, (net, mac, mtu, advertised), false, sink);
            return;
        }
        // A MAC that has not proven itself says nothing about the disk that we know, and is not counted as one of
        // its announcements.
        let proving = |p: &Path| p.trust == Trust::Proving;
        if self.paths.find(net, mac).and_then(|id| self.paths.get(id)).is_some_and(proving) {
            return;
        }
        let announced = self.paths.ids(|_, p| p.mac == mac);
        if self.doubt.believes(now) {
            self.believe(now, announced, sink);
            return;
        }
        for id in announced {
            if let Some(p) = self.paths.get_mut(id) {
                p.announcement_waits = true;
            }
        }
        self.arm(self.doubt.believes_next());
    }

    /// Announcements that came faster than they are believed are believed together as soon as the next one may be. If
    /// they were forgotten, a disk that was exchanged meanwhile would be read and written for as long as it answers.
    pub(super) fn believe_waiting(&mut self, now: Time, sink: &mut Sink<R>) {
        let announced = self.paths.ids(|_, p| p.announcement_waits);
        if announced.is_empty() {
            return;
        }
        if self.doubt.believes(now) {
            self.believe(now, announced, sink);
        } else {
            self.arm(self.doubt.believes_next());
        }
    }

    /// The target announced itself over these paths.
    fn believe(&mut self, now: Time, announced: Vec<PathId>, sink: &mut Sink<R>) {
        self.distrust(now, "it announced itself", sink);
        let others = self.paths.iter().any(|(id, p)| p.usable() && !announced.contains(&id));
        for id in announced {
            if let Some(p) = self.paths.get_mut(id) {
                p.announcement_waits = false;
            }
            self.query(id, now, sink);
            // That another path still leads to the disk says nothing about this one.
            if others && let Some(p) = self.paths.get_mut(id) {
                p.trust = Trust::Proving;
                self.reprove(id, now, sink);
            }
        }
        self.revive(now, sink);
    }

    /// The target answered another initiator of this host: no announcement, but a sign of life.
    pub fn overheard(&mut self, now: Time, net: NetId, mac: Mac, sink: &mut Sink<R>) {
        self.stats.unexpected += 1;
        if self.state != State::Up && self.paths.find(net, mac).is_some() {
            self.revive(now, sink);
        }
    }

    /// Keeps IDENTIFY going while it is needed: the disk is in doubt or down and a request waits, or the operator
    /// asked.
    pub(super) fn keep_asking(&mut self, now: Time, sink: &mut Sink<R>) {
        let needed = !self.doubt.confirmed() || self.state != State::Up || self.grow;
        if !needed || self.confirming.is_some() {
            return;
        }
        if now < self.ask_after {
            self.arm(self.ask_after);
            return;
        }
        if self.someone_waits() || self.missed_by_users() || self.grow {
            self.ask(now, sink);
        }
    }

    /// Is it down while a file of it is open, or is to be opened?
    fn missed_by_users(&self) -> bool {
        self.state != State::Up && (self.nopen > 0 || self.opening > 0)
    }

    /// A program opens a file of the target and waits for its return, until [`Device::opening_over`]. The target is
    /// asked now, and again as for any request. False if there is nothing to wait for.
    pub fn await_return(&mut self, now: Time, sink: &mut Sink<R>) -> bool {
        if self.state == State::Up || self.retired {
            return false;
        }
        self.opening += 1;
        match self.confirming.and_then(|id| self.flight.get_mut(id)) {
            // It was asked when no request waited, and the next attempt may be long in coming.
            Some(frame) => {
                let next = frame.last().map_or(now, |attempt| attempt.sent + ASK_AGAIN);
                frame.due = frame.due.min(next);
                self.arm(next);
            }
            None if now >= self.ask_after => self.ask(now, sink),
            None => {}
        }
        true
    }

    /// The file was opened, or the open waits no longer.
    pub fn opening_over(&mut self) {
        debug_assert!(self.opening > 0);
        self.opening = self.opening.saturating_sub(1);
    }

    /// Does any request wait that is not a mere question to the target?
    pub(super) fn someone_waits(&self) -> bool {
        self.reqs.iter().any(|(_, r)| !r.is_command() && !r.is_ahead())
    }

    /// Sends IDENTIFY by the best path that is up.
    pub(super) fn ask(&mut self, now: Time, sink: &mut Sink<R>) {
        self.announced = false;
        if self.confirming.is_none() {
            let id = self.flight.create(Work::Identify { path: PathId(0) }, Sector(0), 1);
            self.confirming = Some(id);
            self.dispatch_outside(id, now, sink);
        }
    }

    /// A target that is down may be back, or may be another disk now, or a program wants to know: it is asked, at
    /// most once a second. An IDENTIFY that is on its way may be lost and have a long timeout by now, so another
    /// attempt of it leaves.
    pub fn revive(&mut self, now: Time, sink: &mut Sink<R>) {
        if now < self.identify_at {
            self.announced = true;
            self.arm(self.identify_at);
            return;
        }
        self.identify_at = now + IDENTIFY_EVERY;
        match self.confirming {
            Some(id) => {
                self.announced = false;
                self.flight.ground(id);
                self.dispatch_outside(id, now, sink);
            }
            None => self.ask(now, sink),
        }
    }

    /// The operator asks: re-read IDENTIFY and limits now; a larger size is taken over.
    pub fn identify(&mut self, now: Time, sink: &mut Sink<R>) {
        self.grow = true;
        self.ahead_doubted = true;
        self.drop_confirming();
        self.ask(now, sink);
        for id in self.paths.ids(|_, _| true) {
            self.query(id, now, sink);
        }
    }

    /// The operator's `identify` got no answer that says which disk is there: it means nothing for later answers.
    pub(super) fn disarm(&mut self, sink: &mut Sink<R>) {
        if std::mem::take(&mut self.grow) {
            sink.events.push(Event::Unidentified);
        }
    }

    /// Frames that fly on a path that has to prove itself again go by other paths.
    fn reprove(&mut self, path: PathId, now: Time, sink: &mut Sink<R>) {
        self.ground_path(path, now, sink);
        self.prove(path, now, sink);
    }

    /// Sends IDENTIFY over one path, to prove that the same disk is behind it.
    pub(super) fn prove(&mut self, path: PathId, now: Time, sink: &mut Sink<R>) -> FrameId {
        let id = self.flight.create(Work::Identify { path }, Sector(0), 1);
        self.launch(id, path, now, sink);
        // It may have been silent until now, when only probes were due.
        let climb_at = self.paths.get(path).map_or(Time::NEVER, |p| p.ladder.climb_at);
        self.arm(climb_at);
        id
    }

    /// An IDENTIFY expired: asks again, or gives up.
    pub(super) fn identify_expired(&mut self, id: FrameId, now: Time, sink: &mut Sink<R>) {
        let frame = &self.flight[id];
        let expiries = frame.expiries;
        let Work::Identify { path } = frame.work else { return };
        if self.confirming == Some(id) {
            if expiries >= ATTEMPTS {
                self.disarm(sink);
            }
            if self.someone_waits() || self.missed_by_users() || expiries < ATTEMPTS {
                self.dispatch_outside(id, now, sink);
            } else {
                self.confirming = None;
                self.flight.settle(id, None, None, now);
            }
            return;
        }
        if expiries < ATTEMPTS && self.paths.get(path).is_some_and(|p| p.up) {
            self.launch(id, path, now, sink);
            return;
        }
        self.flight.settle(id, None, None, now);
        if self.paths.get(path).is_some_and(|p| p.trust == Trust::Proving) {
            self.remove_path(path, now, sink);
        }
    }

    /// Is this the disk that we know, or has the path said the same thing twice in a row? If neither, it is asked
    /// again. AoE has no checksum, and neither has IDENTIFY of many targets: one flipped bit makes another serial
    /// number, and must not make every open file of the disk stale.
    fn believed(
        &mut self,
        now: Time,
        path: PathId,
        said: Result<Identity, Unusable>,
        sink: &mut Sink<R>,
    ) -> bool {
        let known = said == Ok(self.disk.identity());
        let Some(p) = self.paths.get_mut(path) else { return known };
        let before = std::mem::replace(&mut p.odd, (!known).then_some((said, now)));
        if known || before.is_some_and(|(before, _)| before == said) {
            return true;
        }
        // A path that says something new each time is not asked as fast as it answers. What it said long ago does
        // not count.
        let fickle = before.is_some_and(|(_, at)| now.since(at) < FICKLE);
        if p.trust == Trust::Proving {
            if fickle {
                self.refuse_path(path, now, sink);
            } else {
                self.prove(path, now, sink);
            }
            return false;
        }
        self.distrust(now, "IDENTIFY says something new", sink);
        if fickle {
            self.ask_after = now + ASK_AGAIN;
        } else {
            self.confirming = Some(self.prove(path, now, sink));
        }
        false
    }

    /// IDENTIFY was answered over `path`; the attempt that was answered had left at `sent`.
    pub(super) fn identified(&mut self, now: Time, path: PathId, sent: Time, raw: &[u8], sink: &mut Sink<R>) {
        let proving = self.paths.get(path).is_some_and(|p| p.trust == Trust::Proving);
        let parsed = Identify::parse(raw);
        if !self.believed(now, path, parsed.map(|identify| Identity::from(&identify)), sink) {
            return;
        }
        let identify = match parsed {
            Ok(identify) => identify,
            Err(why) => {
                if proving {
                    self.refuse_path(path, now, sink);
                } else {
                    self.ask_after = now + ASK_AGAIN;
                    self.disarm(sink);
                    self.enter(State::Down(Reason::Unusable(why)), sink);
                }
                return;
            }
        };
        let who = Identity::from(&identify);
        let same = who == self.disk.identity();
        let larger = self.disk.may_have_grown_to(&who);
        let grown = self.grow && larger;
        if !same && !grown && !self.gone() && self.paths.others_known(path) {
            // Another disk has the same address, while the disk that we know may well be there.
            self.refuse_path(path, now, sink);
            return;
        }
        if self.doubt.since().is_some_and(|since| sent < since) {
            // It proves nothing now.
            if proving {
                self.prove(path, now, sink);
            }
            return;
        }
        if same || grown {
            self.recognise(now, path, sent, identify, raw, sink);
        } else if !(larger && self.awaits_word(&who, now, sink)) {
            self.replace(now, path, identify, raw, sink);
        }
    }

    /// Has the disk that we know failed to answer so often that another one under its address is believed?
    fn gone(&self) -> bool {
        let expiries = self.confirming.and_then(|id| self.flight.get(id)).map_or(0, |f| f.expiries);
        self.state != State::Up || expiries >= UNANSWERED
    }

    /// The same disk, larger perhaps; it was asked at `sent`.
    fn recognise(
        &mut self,
        now: Time,
        path: PathId,
        sent: Time,
        identify: Identify,
        raw: &[u8],
        sink: &mut Sink<R>,
    ) {
        let was = self.disk.identity().sectors;
        self.doubt.identified(now);
        self.disk.recognise(identify, raw, self.grow);
        if let Some(p) = self.paths.get_mut(path) {
            p.odd = None;
        }
        self.larger = None;
        let is = self.disk.identity().sectors;
        if is != was {
            sink.events.push(Event::Grown { was, is });
        }
        if self.grow {
            self.grow = false;
            sink.events.push(Event::Identified(self.disk.identity()));
        }
        if let Some(p) = self.paths.get_mut(path)
            && p.trust == Trust::Proving
        {
            p.trust = Trust::Active;
            sink.events.push(Event::PathFound(p.net, p.mac));
            self.query(path, now, sink);
        }
        let Some(doubted) = self.doubt.since() else {
            self.enter(State::Up, sink);
            return;
        };
        let suspect = self.doubt.suspect();
        self.doubt.end();
        sink.events.push(Event::Confirmed);
        self.enter(State::Up, sink);
        if suspect {
            self.ask_all_anew(now);
        } else {
            self.redo_old_answers(now, sent);
        }
        self.release_held(now, sink);
        self.resend_older_than(doubted);
    }

    /// What was asked before a suspect showed its identity may have been answered by another disk, or may yet be:
    /// none of these answers counts.
    fn ask_all_anew(&mut self, now: Time) {
        let all: Vec<ReqId> =
            self.reqs.iter().filter(|(_, r)| r.granted && !r.waits).map(|(id, _)| id).collect();
        if !all.is_empty() {
            self.paths.restart();
        }
        for id in all {
            self.ask_anew(id, now);
        }
    }

    /// Starts a request again from its beginning, if that does no harm.
    fn ask_anew(&mut self, id: ReqId, now: Time) {
        if let Some(req) = self.reqs.get_mut(id)
            && req.rewind()
        {
            self.abandon(id, now);
            self.start(id);
        }
    }

    /// Answers that came before the IDENTIFY of this doubt left, or before a silence, may have come from another
    /// disk that was here meanwhile: they are asked for again.
    fn redo_old_answers(&mut self, now: Time, asked: Time) {
        let unsure: Vec<ReqId> = self
            .reqs
            .iter()
            .filter(|(_, r)| r.unsure.is_some() || !r.doubted.is_empty())
            .map(|(id, _)| id)
            .collect();
        for id in unsure {
            let Some(req) = self.reqs.get_mut(id) else { continue };
            let unsure = req.unsure.take().is_some_and(|came| self.doubt.outdates(came, req.redone, asked));
            let parts: Vec<Answered> = std::mem::take(&mut req.doubted)
                .into_iter()
                .filter(|part| self.doubt.outdates(part.came, part.redone, asked))
                .collect();
            // What failed has no other frames left to wait for.
            if unsure || (req.failed.is_some() && !parts.is_empty()) {
                req.redone += 1;
                self.ask_anew(id, now);
            } else if !parts.is_empty() {
                self.redo_parts(id, parts, asked, now);
            }
        }
    }

    /// Asks for some sectors of a request again, and not for all of them: a large write to a slow target would be
    /// begun anew for each doubt that comes up while it lasts. Frames that left before the disk was asked are on
    /// their way to the same disk that gave these answers.
    fn redo_parts(&mut self, id: ReqId, mut parts: Vec<Answered>, asked: Time, now: Time) {
        for part in &mut parts {
            part.redone += 1;
            if let Some(req) = self.reqs.get_mut(id) {
                req.unland(part.count);
            }
        }
        let older: Vec<FrameId> = self
            .flight
            .iter()
            .filter(|(_, f)| f.work.request() == Some(id) && f.attempts().any(|attempt| attempt.sent < asked))
            .map(|(frame, _)| frame)
            .collect();
        for frame in older {
            let f = &self.flight[frame];
            parts.push(Answered { work: f.work, at: f.at, count: f.count, redone: f.redone, came: now });
            self.release_place(frame);
            self.settle(frame, None, now);
        }
        for part in parts {
            let frame = self.flight.create(part.work, part.at, part.count);
            self.flight[frame].redone = part.redone;
            self.line_up(frame);
        }
    }

    /// The target is back: frames that left before the doubt are sent again now, and old delays mean nothing.
    fn resend_older_than(&mut self, doubted: Time) {
        let old: Vec<FrameId> = self
            .flight
            .iter()
            .filter(|(_, f)| f.work.request().is_some() && f.work.windowed() && !f.queued)
            .filter(|(_, f)| f.flying().is_some_and(|c| c.sent < doubted))
            .map(|(id, _)| id)
            .collect();
        if old.is_empty() {
            return;
        }
        for id in old {
            self.release_place(id);
            self.flight[id].expiries = 0;
            self.line_up(id);
        }
        self.paths.restart();
    }

    /// Another disk: what was asked of the old one must not reach it.
    fn replace(&mut self, now: Time, path: PathId, identify: Identify, raw: &[u8], sink: &mut Sink<R>) {
        let was = self.disk.identity();
        self.doubt.identified(now);
        let waiting: Vec<ReqId> =
            self.reqs.iter().filter(|(_, r)| !r.is_command()).map(|(id, _)| id).collect();
        for id in waiting {
            self.abandon(id, now);
            self.end(id, Err(Error::Stale), now, sink);
        }
        self.held.clear();
        self.disk.replace(identify, raw);
        self.ahead_doubted = true;
        (self.grow, self.larger) = (false, None);
        self.doubt.end();
        sink.events.push(Event::Replaced { was, is: self.disk.identity() });
        // The other paths led to the old disk; each must show that it leads to this one.
        for id in self.paths.ids(|id, _| id != path) {
            if let Some(p) = self.paths.get_mut(id) {
                p.trust = Trust::Proving;
            }
            self.prove(id, now, sink);
        }
        if let Some(p) = self.paths.get_mut(path) {
            p.odd = None;
            p.trust = Trust::Active;
            p.window.restart();
        }
        self.enter(State::Up, sink);
        self.query(path, now, sink);
    }

    /// Everything fails from now on: the daemon is about to end.
    pub fn retire(&mut self, now: Time, sink: &mut Sink<R>) {
        self.retired = true;
        self.fail_all(now, sink);
    }

    /// Every request fails now, even under nofail, and the target is down until it answers again.
    pub fn fail_all(&mut self, now: Time, sink: &mut Sink<R>) {
        let all: Vec<ReqId> = self.reqs.iter().map(|(id, _)| id).collect();
        for id in all {
            self.fail(id, Error::Io, Cause::FailIo, now, sink);
        }
        self.enter(State::Down(Reason::FailIo), sink);
        self.doubt.raise(Confidence::Suspect(now));
        self.ahead_doubted = true;
        self.drop_confirming();
        if !self.retired {
            self.ask(now, sink);
        }
    }
}
