//! What may leave now, by which path, and as which bytes.

use super::{Device, Lane, Sink, State};
use crate::engine::event::{Cause, Event};
use crate::engine::flight::{Frame, Work};
use crate::engine::ids::{FrameId, PathId, ReqId};
use crate::engine::ladder::SAME;
use crate::engine::limits::{ASK_AGAIN, BEHIND, PLAIN, READS, SILENCE, WRITES};
use crate::engine::path::{Path, Place, Trust};
use crate::engine::request::{Bytes, Error, Job, Req, Reservation};
use crate::engine::time::Time;
use crate::engine::transmit::{Payload, Transmit, padded};
use crate::wire::{
    Ata, CONFIG_LEN, Command, Config, Directive, FlushKind, MASK_LEN, Mac, Mask, MaskError, MaskVerb,
    RESERVE_LEN, Reserve, ReserveVerb, SECTOR, Sector, TRIM_BLOCK_SECTORS, Tag, Verb, fill_trim,
};

/// Frames of one request before the next one in its lane has its turn, so that a small request does not wait
/// for the whole of a large one.
const STREAK: u32 = 16;
/// A path joins in only while its round trip is at most this many times the fastest one's, and this much longer:
/// else every request would wait for its slowest frame.
const SLOWER: u32 = 4;
const SLOWER_BY: std::time::Duration = std::time::Duration::from_millis(1);
/// Copies of a frame that expired before it leaves sector by sector. From [`SAME`] on it leaves in pieces of [`PLAIN`].
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
        if self.has_writes() && !self.doubtful() && now.since(self.last_heard) > SILENCE {
            self.doubt(now, None, sink);
        }
        if self.has_reads() && !self.doubtful() && now.since(self.last_heard) > SILENCE {
            self.doubt(now, None, sink);
        }
        let limit = self.limit();
        let mut idle = 0;
        let mut issued = false;
        while idle < 2 && self.inflight() < limit {
            let lane = self.turn;
            self.turn = 1 - lane;
            idle = if self.issue_one(lane, now, sink) { 0 } else { idle + 1 };
            issued |= idle == 0;
        }
        while self.inflight() < limit && self.issue_one(BEHIND, now, sink) {
            issued = true;
        }
        if issued {
            // After the work: a target with one buffer must not lose it to a question.
            self.refresh_paths(now, sink);
        }
        self.keep_asking(now, sink);
    }

    fn has_writes(&self) -> bool {
        !self.lanes[WRITES].ready.is_empty() || !self.lanes[WRITES].again.is_empty()
    }

    fn has_reads(&self) -> bool {
        [READS, BEHIND].iter().any(|lane| !self.lanes[*lane].ready.is_empty())
            || !self.lanes[READS].again.is_empty()
    }

    /// A quarantine ended: there is room for one more, and what waited for that is sent again.
    fn unpark(&mut self) {
        if self.parked.is_empty() || self.locks.full() {
            return;
        }
        for id in std::mem::take(&mut self.parked) {
            if let Some(frame) = self.flight.get(id).filter(|f| f.queued) {
                self.lanes[lane_of(frame.work)].again.push_back(id);
            }
        }
    }

    /// Sends one frame of a lane. False: nothing in it can leave now.
    fn issue_one(&mut self, lane: usize, now: Time, sink: &mut Sink<R>) -> bool {
        if lane == WRITES && self.locks.crowded() {
            return false;
        }
        // What leaves together with IDENTIFY for a suspect may be answered by a disk that is gone again when IDENTIFY arrives. And of
        // several paths another one may lead to another disk than the one that will show its identity.
        if self.suspect() || self.doubtful() && (lane == WRITES || self.paths.len() > 1) {
            return false;
        }
        self.issue_again(lane, now, sink) || self.issue_new(lane, now, sink)
    }

    fn issue_again(&mut self, lane: usize, now: Time, sink: &mut Sink<R>) -> bool {
        while let Some(&id) = self.lanes[lane].again.front() {
            // A place in the lane may outlive its frame, and the frame's number may be another's by now, of the other lane.
            let here = |f: &&Frame| f.queued && lane_of(f.work) == lane;
            let Some(frame) = self.flight.get(id).filter(here) else {
                self.lanes[lane].again.pop_front();
                continue;
            };
            let (work, last, expiries) = (frame.work, frame.last().copied(), frame.expiries);
            if work.needs_trust() && last.is_some_and(|c| self.last_heard <= c.sent) {
                // Nothing was heard since that copy left: whoever is there now may not be who it was sent to.
                // What is only a little late is not worth a line in the log.
                let why = (expiries > 0).then_some("a write was not answered");
                self.doubt(now, why, sink);
                return false;
            }
            if work.modifies() && last.is_some() && self.locks.full() {
                // A second copy leaves a range to be held back, and there is no room to note it down.
                self.lanes[lane].again.pop_front();
                self.parked.push(id);
                self.stats.held_back += 1;
                continue;
            }
            let whole = self.whole(work);
            if !self.carries(whole) {
                self.lanes[lane].again.pop_front();
                self.too_large(work.request(), now, sink);
                continue;
            }
            let Some(path) = self.choose(now, last.and_then(|c| c.path), whole) else { return false };
            self.lanes[lane].again.pop_front();
            self.launch_in_pieces(id, path, now, sink);
            return true;
        }
        false
    }

    fn issue_new(&mut self, lane: usize, now: Time, sink: &mut Sink<R>) -> bool {
        while let Some(&id) = self.lanes[lane].ready.front() {
            let here = |r: &Req<R>| r.queued && r.lane() == lane;
            if !self.reqs.get(id).is_some_and(here) {
                self.lanes[lane].ready.pop_front();
                continue;
            }
            let whole = self.reqs.get(id).map_or(0, Req::whole);
            if !self.carries(whole) {
                self.too_large(Some(id), now, sink);
                continue;
            }
            let Some(path) = self.choose(now, None, whole) else { return false };
            let most = self.path(path).map_or(1, |p| self.sectors(p));
            let ext = self.flushing.kind() == FlushKind::FlushExt;
            let Some(req) = self.reqs.get_mut(id) else { return false };
            let work = req.next_work(id, most, ext);
            let over = req.all_issued();
            let Lane { ready, streak, .. } = &mut self.lanes[lane];
            *streak += 1;
            if over || work.is_none() {
                req.queued = false;
                ready.pop_front();
                *streak = 0;
            } else if *streak >= STREAK && lane != BEHIND {
                // What is read ahead is wanted in the order in which it was begun.
                ready.rotate_left(1);
                *streak = 0;
            }
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

    /// Sectors a frame over this path, by MTU and advertisement and the operator's caps.
    pub(super) fn most_sectors(&self, path: &Path) -> u8 {
        self.settings.sectors(path.mtu, path.advertised)
    }

    /// The same, as far as loss does not speak against it.
    pub(super) fn sectors(&self, path: &Path) -> u8 {
        self.most_sectors(path).min(path.ladder.cap()).max(1)
    }

    pub(super) fn path(&self, id: PathId) -> Option<&Path> {
        self.paths.get(usize::from(id.0))?.as_ref()
    }

    pub(super) fn path_mut(&mut self, id: PathId) -> Option<&mut Path> {
        self.paths.get_mut(usize::from(id.0))?.as_mut()
    }

    pub(super) fn path_ids(&self) -> impl Iterator<Item = (PathId, &Path)> {
        self.paths.iter().enumerate().filter_map(|(i, p)| Some((PathId(i as u8), p.as_ref()?)))
    }

    /// Sectors that this work's frame must have room for, since nobody can split it.
    fn whole(&self, work: Work) -> u8 {
        match work {
            Work::Raw { req } => self.reqs.get(req).map_or(0, Req::whole),
            _ => 0,
        }
    }

    /// Is there a path for a frame of so many sectors? If none can be used now, is there one that could be later?
    pub(super) fn carries(&self, sectors: u8) -> bool {
        let fits = |p: &Path| self.sectors(p) >= sectors;
        if sectors <= 1 {
            true
        } else if self.any_usable() {
            self.paths.iter().flatten().any(|p| p.usable() && fits(p))
        } else {
            self.paths.iter().flatten().any(fits)
        }
    }

    /// What the raw command needs, no path carries any more.
    fn too_large(&mut self, req: Option<ReqId>, now: Time, sink: &mut Sink<R>) {
        if let Some(req) = req {
            self.fail(req, Error::Invalid, Cause::TooLarge, now, sink);
        }
    }

    /// The best path with room for a frame of `whole` sectors, another than `avoid` if there is one.
    fn choose(&self, now: Time, avoid: Option<PathId>, whole: u8) -> Option<PathId> {
        if let [Some(only)] = &self.paths[..] {
            return (only.up && only.trust != Trust::Proving && only.window.has_room()).then_some(PathId(0));
        }
        // Behind a path that was silent while others answered, another disk may have taken this one's address.
        let any_fresh = self.paths.iter().flatten().any(|p| p.usable() && now.since(p.last_heard) <= SILENCE);
        let fresh = |p: &Path| !any_fresh || now.since(p.last_heard) <= SILENCE;
        let large = |p: &Path| whole <= 1 || self.sectors(p) >= whole;
        let willing =
            |p: &Path| (p.usable() && fresh(p)) || (p.up && p.trust == Trust::Tainted && !self.any_usable());
        let fits = |p: &Path| large(p) && willing(p);
        let fastest = self.paths.iter().flatten().filter(|p| fits(p)).filter_map(|p| p.rtt.smoothed()).min();
        let too_slow = |p: &Path| match (p.rtt.smoothed(), fastest) {
            (Some(rtt), Some(best)) => rtt > best * SLOWER && rtt > best + SLOWER_BY,
            _ => false,
        };
        let cost = |p: &Path| p.rtt.smoothed().unwrap_or_default() * (p.window.inflight() + 1);
        self.path_ids()
            .filter(|(_, p)| fits(p) && p.window.has_room())
            .filter(|(id, p)| !too_slow(p) || avoid.is_some_and(|a| a != *id))
            .min_by_key(|(id, p)| (avoid == Some(*id), cost(p)))
            .map(|(id, _)| id)
    }

    /// Where there are several paths, those that were silent show that the disk is still behind them before they carry work.
    fn refresh_paths(&mut self, now: Time, sink: &mut Sink<R>) {
        if self.paths.len() < 2 {
            return;
        }
        let silent = |p: &Path| p.usable() && now.since(p.last_heard) > SILENCE;
        let ids: Vec<PathId> = self.path_ids().filter(|(_, p)| silent(p)).map(|(id, _)| id).collect();
        // Together with the work these questions must fit into the target's buffers, or they cost it each time.
        let questions =
            self.flight.iter().filter(|(_, f)| !f.work.windowed() && f.flying().is_some()).count();
        let room = self.limit().saturating_sub(self.inflight() + questions as u32);
        for id in ids.into_iter().take(room as usize) {
            let asked = |(_, f): (FrameId, &Frame)| f.work == Work::Identify { path: id };
            if !self.flight.iter().any(asked) {
                self.prove(id, now, sink);
            }
        }
    }

    pub(super) fn any_usable(&self) -> bool {
        self.paths.iter().flatten().any(Path::usable)
    }

    /// Sends a frame, or what it consists of if the path carries less than it holds.
    fn launch_in_pieces(&mut self, id: FrameId, path: PathId, now: Time, sink: &mut Sink<R>) {
        let mut most = self.path(path).map_or(1, |p| self.sectors(p));
        let Some(frame) = self.flight.get(id) else { return };
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
            if let Some(f) = self.flight.get_mut(piece) {
                f.expiries = expiries;
                f.redone = redone;
            }
            if done == 0 {
                self.launch(piece, path, now, sink);
            } else {
                self.line_up(piece);
            }
            done += n;
        }
    }

    /// Sends one copy of a frame over a path.
    pub(super) fn launch(&mut self, id: FrameId, to: PathId, now: Time, sink: &mut Sink<R>) {
        let Some(frame) = self.flight.get(id) else { return };
        let (work, expiries) = (frame.work, frame.expiries);
        let again = frame.last().is_some();
        let waited_for = matches!(work, Work::Identify { .. })
            && (self.opening > 0 || self.reqs.iter().any(|(_, r)| !r.is_ahead()));
        let slow = self.slow.backed_off(expiries);
        let Some(path) = self.path_mut(to) else { return };
        let place = if work.windowed() { path.depart(id, !work.slow(), now) } else { Place::Outside };
        let mut patience =
            if work.windowed() { path.patience(expiries) } else { path.rtt.backed_off(expiries) };
        if work.slow() {
            patience = patience.max(slow);
        } else if matches!(work, Work::Identify { .. }) && waited_for {
            // Somebody waits for the target to return: ask at least once a second.
            patience = patience.min(ASK_AGAIN);
        }
        path.stats.sent += 1;
        path.stats.resent += u64::from(again);
        let due = now + patience;
        self.arm(due);
        if let Place::Ordered(_) = place {
            self.watch(to);
        }
        let Some(tag) = self.flight.depart(id, to, place, now, due) else { return };
        if let Some(transmit) = self.describe(id, to, tag) {
            sink.frames.push(transmit);
        }
    }

    /// Sends a frame that does not wait for room: by the best path that is up at all.
    pub(super) fn dispatch_outside(&mut self, id: FrameId, now: Time, sink: &mut Sink<R>) {
        let avoid = self.flight.get(id).and_then(|f| f.last()).and_then(|c| c.path);
        // Where no way is left that is known to lead to the disk, IDENTIFY goes by one that may.
        let identify = self.flight.get(id).is_some_and(|f| matches!(f.work, Work::Identify { .. }));
        let best = self
            .path_ids()
            .filter(|(_, p)| p.up && (identify || p.trust != Trust::Proving))
            .min_by_key(|(id, p)| {
                let doubts = (p.trust == Trust::Proving, p.trust == Trust::Tainted);
                (doubts, avoid == Some(*id), p.rtt.smoothed())
            })
            .map(|(id, _)| id);
        match best {
            Some(path) => self.launch(id, path, now, sink),
            None => {
                // Try again when a path comes back, or give up with the request.
                let due = now + ASK_AGAIN;
                if let Some(f) = self.flight.get_mut(id) {
                    f.due = due;
                }
                self.arm(due);
            }
        }
    }

    fn describe(&self, id: FrameId, to: PathId, tag: Tag) -> Option<Transmit> {
        let frame = self.flight.get(id)?;
        let path = self.path(to)?;
        let lba48 = self.info.lba48;
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
        if let Some(p) = self.path(id) {
            sink.events.push(Event::FrameSize(p.net, p.mac, self.sectors(p)));
        }
    }
}

/// The lane in which a frame waits to be sent again.
pub(super) fn lane_of(work: Work) -> usize {
    if work.needs_trust() { WRITES } else { READS }
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
