//! What may leave now, by which path, and as which bytes.

use super::{Device, Sink, State};
use crate::engine::event::{Cause, Event};
use crate::engine::flight::{Frame, Work};
use crate::engine::ids::{FrameId, PathId, ReqId};
use crate::engine::ladder::SAME;
use crate::engine::lanes::Lane;
use crate::engine::limits::{ASK_AGAIN, PLAIN, SILENCE};
use crate::engine::path::{Path, Place};
use crate::engine::request::{Bytes, Error, Job, Req, Reservation};
use crate::engine::time::Time;
use crate::engine::transmit::{Payload, Transmit, padded};
use crate::wire::{
    Ata, CONFIG_LEN, Command, Config, Directive, FlushKind, MASK_LEN, Mac, Mask, MaskError, MaskVerb,
    RESERVE_LEN, Reserve, ReserveVerb, SECTOR, Sector, TRIM_BLOCK_SECTORS, Tag, Verb, fill_trim,
};

/// Expired attempts of a frame after which it leaves sector by sector. From [`SAME`] on it leaves in pieces of
/// [`PLAIN`].
const SINGLE: u8 = SAME + 2;

impl<R> Device<R> {
    /// Lets everything leave that may leave now. Call it once after events and commands.
    pub fn work(&mut self, now: Time, sink: &mut Sink<R>) {
        if self.ahead_doubted {
            self.throw_ahead(now, sink);
        }
        if self.locks.full() {
            let next = self.locks.expire(now);
            self.arm(next);
        }
        self.start_granted(now, sink);
        self.unpark();
        if self.state != State::Up {
            self.keep_asking(now, sink);
            return;
        }
        if self.lanes.any() && self.doubt.confirmed() && self.doubt.silent(now) {
            self.raise_doubt(now, None, sink);
        }
        let limit = self.limit();
        let mut idle = 0;
        let mut issued = false;
        while idle < 2 && self.paths.inflight() < limit {
            let lane = self.lanes.next_turn();
            idle = if self.issue_one(lane, now, sink) { 0 } else { idle + 1 };
            issued |= idle == 0;
        }
        while self.paths.inflight() < limit && self.issue_one(Lane::Behind, now, sink) {
            issued = true;
        }
        if issued {
            // This comes after the work: a target with one buffer must not lose a write to a question.
            self.refresh_paths(now, sink);
        }
        self.keep_asking(now, sink);
    }

    /// A quarantine ended: there is room for one more, and what waited for that is sent again.
    fn unpark(&mut self) {
        if self.locks.full() {
            return;
        }
        for id in self.lanes.unpark() {
            if let Some(frame) = self.flight.get(id).filter(|f| f.queued) {
                self.lanes.push_frame(frame.work.lane(), id);
            }
        }
    }

    /// Sends one frame of a lane. False: nothing in it can leave now.
    fn issue_one(&mut self, lane: Lane, now: Time, sink: &mut Sink<R>) -> bool {
        if lane == Lane::Writes && self.locks.crowded() {
            return false;
        }
        if !self.doubt.may_leave(lane, self.paths.several()) {
            return false;
        }
        self.issue_again(lane, now, sink) || self.issue_new(lane, now, sink)
    }

    fn issue_again(&mut self, lane: Lane, now: Time, sink: &mut Sink<R>) -> bool {
        while let Some(id) = self.lanes.first_frame(lane) {
            // A place in the lane may outlive its frame, and the frame's number may belong to another frame by now,
            // of the other lane.
            let here = |f: &&Frame| f.queued && f.work.lane() == lane;
            let Some(frame) = self.flight.get(id).filter(here) else {
                self.lanes.pop_frame(lane);
                continue;
            };
            let (work, last, expiries) = (frame.work, frame.last().copied(), frame.expiries);
            if work.needs_trust() && last.is_some_and(|c| self.doubt.unheard_since(c.sent)) {
                // Nothing was heard since that attempt left: the disk that is there now may be another than the one
                // it was sent to. What is only a little late is not worth a line in the log.
                let why = (expiries > 0).then_some("a write was not answered");
                self.raise_doubt(now, why, sink);
                return false;
            }
            if work.modifies() && last.is_some() && self.locks.full() {
                // A second attempt leaves a range to be held back, and there is no room to note it down.
                self.lanes.park_frame(lane);
                self.stats.held_back += 1;
                continue;
            }
            if expiries > 0
                && let Some(until) = last.and_then(|c| self.paths.get(c.path?)?.answers_until(c.sent))
                && now < until
            {
                self.arm(until);
                return false;
            }
            let whole = self.whole(work);
            if !self.paths.carries(whole, &self.settings) {
                self.lanes.pop_frame(lane);
                self.too_large(work.request(), now, sink);
                continue;
            }
            let Some(path) = self.paths.choose(now, last.and_then(|c| c.path), whole, &self.settings) else {
                return false;
            };
            self.lanes.pop_frame(lane);
            self.launch_in_pieces(id, path, now, sink);
            return true;
        }
        false
    }

    fn issue_new(&mut self, lane: Lane, now: Time, sink: &mut Sink<R>) -> bool {
        while let Some(id) = self.lanes.first_request(lane) {
            let here = |r: &Req<R>| r.queued && r.lane() == lane;
            if !self.reqs.get(id).is_some_and(here) {
                self.lanes.pop_request(lane);
                continue;
            }
            let whole = self.reqs[id].whole();
            if !self.paths.carries(whole, &self.settings) {
                self.too_large(Some(id), now, sink);
                continue;
            }
            let Some(path) = self.paths.choose(now, None, whole, &self.settings) else { return false };
            let most = self.paths.get(path).map_or(1, |p| p.sectors(&self.settings));
            let ext = self.disk.flushing.kind() == FlushKind::FlushExt;
            let req = &mut self.reqs[id];
            let work = req.next_work(id, most, ext);
            let over = req.all_issued() || work.is_none();
            req.queued = !over;
            self.lanes.issued(lane, over);
            let Some((work, at, count)) = work else { continue };
            if let Job::Read { span, buf: buf @ None, .. } = &mut req.job {
                // Memory is taken when the first frame leaves: what only waits costs none.
                *buf = Some(sink.pool.take(span.sectors as usize * SECTOR));
            }
            let frame = self.flight.create(work, at, count);
            self.launch(frame, path, now, sink);
            return true;
        }
        false
    }

    /// Sectors that this work's frame must have room for, since it cannot be split.
    fn whole(&self, work: Work) -> u8 {
        match work {
            Work::Raw { req } => self.reqs[req].whole(),
            _ => 0,
        }
    }

    /// No path carries any more what the raw command needs.
    fn too_large(&mut self, req: Option<ReqId>, now: Time, sink: &mut Sink<R>) {
        if let Some(req) = req {
            self.fail(req, Error::Invalid, Cause::TooLarge, now, sink);
        }
    }

    /// Where there are several paths, a path that was silent shows that the disk is still behind it before it
    /// carries work.
    fn refresh_paths(&mut self, now: Time, sink: &mut Sink<R>) {
        if !self.paths.several() {
            return;
        }
        let silent = |p: &Path| p.usable() && now.since(p.last_heard) > SILENCE;
        let ids = self.paths.ids(|_, p| silent(p));
        // Together with the work these questions must fit into the target's buffers, or they cost it each time.
        let questions =
            self.flight.iter().filter(|(_, f)| !f.work.windowed() && f.flying().is_some()).count();
        let room = self.limit().saturating_sub(self.paths.inflight() + questions as u32);
        for id in ids.into_iter().take(room as usize) {
            let asked = |(_, f): (FrameId, &Frame)| f.work == Work::Identify { path: id };
            if !self.flight.iter().any(asked) {
                self.prove(id, now, sink);
            }
        }
    }

    /// Sends a frame, or what it consists of if the path carries less than it holds.
    fn launch_in_pieces(&mut self, id: FrameId, path: PathId, now: Time, sink: &mut Sink<R>) {
        let mut most = self.paths.get(path).map_or(1, |p| p.sectors(&self.settings));
        let frame = &self.flight[id];
        let (work, at, count, expiries, redone) =
            (frame.work, frame.at, frame.count, frame.expiries, frame.redone);
        // Every path learns by itself what it carries; this frame must not wait until the last one has.
        match expiries {
            0..SAME => {}
            SAME..SINGLE => most = most.min(PLAIN),
            _ => most = 1,
        }
        if !matches!(work, Work::Read { .. } | Work::Write { .. }) || count <= most {
            self.launch(id, path, now, sink);
            return;
        }
        // Every piece is a frame of its own, with its own tags, place and slice of the buffer.
        self.settle(id, None, now);
        let mut done = 0;
        while done < count {
            let n = most.min(count - done);
            let skip = usize::from(done) * SECTOR;
            let work = match work {
                Work::Read { req, offset } => Work::Read { req, offset: offset + skip },
                Work::Write { req, offset } => Work::Write { req, offset: offset + skip },
                other => other,
            };
            let piece = self.flight.create(work, Sector(at.0 + u64::from(done)), n);
            let f = &mut self.flight[piece];
            (f.expiries, f.redone) = (expiries, redone);
            if done == 0 {
                self.launch(piece, path, now, sink);
            } else {
                self.line_up(piece);
            }
            done += n;
        }
    }

    /// Sends one attempt of a frame over a path.
    pub(super) fn launch(&mut self, id: FrameId, to: PathId, now: Time, sink: &mut Sink<R>) {
        let frame = &self.flight[id];
        let (work, expiries) = (frame.work, frame.expiries);
        let again = frame.last().is_some();
        let waited_for = matches!(work, Work::Identify { .. })
            && (self.opening > 0 || self.reqs.iter().any(|(_, r)| !r.is_ahead()));
        let slow = self.slow.backed_off(expiries);
        let Some(path) = self.paths.get_mut(to) else { return };
        let place = if work.windowed() { path.depart(id, !work.slow(), now) } else { Place::Outside };
        let mut patience =
            if work.windowed() { path.patience(expiries) } else { path.rtt.backed_off(expiries) };
        if work.slow() {
            patience = patience.max(slow);
        } else if matches!(work, Work::Identify { .. }) && waited_for {
            // A request waits for the target to return: ask at least once a second.
            patience = patience.min(ASK_AGAIN);
        }
        path.stats.sent += 1;
        path.stats.resent += u64::from(again);
        let due = now + patience;
        self.arm(due);
        if let Place::Ordered(_) = place {
            self.watch(to);
        }
        let tag = self.flight.depart(id, to, place, now, due);
        if let Some(transmit) = self.describe(id, to, tag) {
            sink.frames.push(transmit);
        }
    }

    /// Sends a frame that does not wait for room: by the best path that is up at all.
    pub(super) fn dispatch_outside(&mut self, id: FrameId, now: Time, sink: &mut Sink<R>) {
        let frame = &mut self.flight[id];
        let avoid = frame.last().and_then(|c| c.path);
        // Where no way is left that is known to lead to the disk, IDENTIFY goes by one that may.
        let identify = matches!(frame.work, Work::Identify { .. });
        match self.paths.choose_outside(avoid, identify) {
            Some(path) => self.launch(id, path, now, sink),
            None => {
                // Try again when a path comes back, or give up with the request.
                let due = now + ASK_AGAIN;
                frame.due = due;
                self.arm(due);
            }
        }
    }

    fn describe(&self, id: FrameId, to: PathId, tag: Tag) -> Option<Transmit> {
        let frame = &self.flight[id];
        let path = self.paths.get(to)?;
        let lba48 = self.disk.info().lba48;
        let (command, ata, payload) = match frame.work {
            Work::Read { .. } | Work::Gather { .. } => {
                (Command::Ata, Some(Ata::read(frame.at, frame.count, lba48)), Payload::None)
            }
            Work::Write { req, offset } => {
                let Job::Write { bytes: Bytes::Whole(buf), .. } = &self.reqs.get(req)?.job else {
                    return None;
                };
                let payload = Payload::Slice {
                    buf: buf.clone(),
                    start: offset,
                    len: usize::from(frame.count) * SECTOR,
                };
                (Command::Ata, Some(Ata::write(frame.at, frame.count, lba48)), payload)
            }
            Work::Trim { req } => {
                let Job::Trim { span, .. } = &self.reqs.get(req)?.job else { return None };
                let end = span.at.0 + span.sectors;
                let mut block = vec![0; SECTOR];
                fill_trim(frame.at, (end - frame.at.0).min(TRIM_BLOCK_SECTORS), &mut block);
                (Command::Ata, Some(Ata::trim(1)), Payload::Bytes(block))
            }
            Work::Flush { ext, .. } => (Command::Ata, Some(Ata::flush(ext)), Payload::None),
            Work::Raw { req } => {
                let Job::Ata(raw) = &self.reqs.get(req)?.job else { return None };
                let payload = match raw.data.len() {
                    0 => Payload::None,
                    len => Payload::Slice { buf: raw.data.clone(), start: 0, len },
                };
                (Command::Ata, Some(raw.ata), payload)
            }
            Work::Identify { .. } => (Command::Ata, Some(Ata::identify()), Payload::None),
            Work::Probe { .. } => {
                let zeros = Payload::Zeros(usize::from(frame.count) * SECTOR);
                (Command::Ata, Some(Ata::read(Sector(0), frame.count, lba48)), zeros)
            }
            Work::Query { .. } => (Command::Config, None, config(Verb::Read, &[])),
            Work::Holders { .. } => (Command::Reserve, None, reserve(&Reservation::Read)),
            Work::Command { req } => match &self.reqs.get(req)?.job {
                Job::Config { verb, string } => (Command::Config, None, config(*verb, string)),
                Job::Mask(directives) => (Command::Mask, None, mask(directives)),
                Job::Reserve(what) => (Command::Reserve, None, reserve(what)),
                _ => return None,
            },
        };
        Some(Transmit { net: path.net, dst: path.mac, addr: self.addr, tag, command, ata, payload })
    }

    pub(super) fn log_frame_size(&self, id: PathId, sink: &mut Sink<R>) {
        if let Some(p) = self.paths.get(id) {
            sink.events.push(Event::FrameSize(p.net, p.mac, p.sectors(&self.settings)));
        }
    }
}

fn config(verb: Verb, string: &[u8]) -> Payload {
    padded(CONFIG_LEN + string.len(), |out| Config::request(verb, string).emit(out))
}

fn mask(directives: &[Directive]) -> Payload {
    let verb = if directives.is_empty() { MaskVerb::Read } else { MaskVerb::Edit };
    let len = MASK_LEN + directives.len() * crate::wire::DIRECTIVE_LEN;
    padded(len, |out| {
        Mask { verb, error: MaskError::None, directives: directives.len() as u8 }
            .emit(directives.iter().copied(), out);
    })
}

fn reserve(what: &Reservation) -> Payload {
    let (verb, macs): (ReserveVerb, &[Mac]) = match what {
        Reservation::Read => (ReserveVerb::Read, &[]),
        Reservation::Set(macs) => (ReserveVerb::Set, macs),
        Reservation::Force(macs) => (ReserveVerb::Force, macs),
    };
    padded(RESERVE_LEN + 6 * macs.len(), |out| {
        Reserve { verb }.emit(macs, out);
    })
}
