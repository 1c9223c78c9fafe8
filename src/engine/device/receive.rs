//! Answers: which frame each belongs to, whether it fits, and what follows.

use super::{Device, Sink, Verdict};
use crate::engine::event::{Cause, Event};
use crate::engine::flight::{Attempt, Owner, Stray, Work};
use crate::engine::flushing::{Refused, is_echo};
use crate::engine::ids::{FrameId, NetId, PathId, ReqId};
use crate::engine::limits::{ASK_AGAIN, PLAIN, REDO_MAX};
use crate::engine::locks::SECTORS_END;
use crate::engine::path::{Place, TAILS, Trust};
use crate::engine::request::{Answered, Error, Job, Req};
use crate::engine::time::Time;
use crate::wire::{
    Ata, Command, Header, IDENTIFY_LEN, Refusal, SECTOR, Sector, TRIM_BLOCK_SECTORS, Tag, error,
};

/// An attempt that is late can arrive for this long in a network that was never seen slower, and for longer in one
/// that was.
const QUARANTINE: std::time::Duration = std::time::Duration::from_secs(1);
/// But no longer than this, which is four of the longest timeouts: a target that was stopped for a minute and then
/// answered must not make every later write of the same sectors wait past its deadline.
const QUARANTINE_MAX: std::time::Duration = std::time::Duration::from_secs(32);

/// Answers without their data after which a raw command is believed to bring none.
const SHORT_MAX: u8 = 3;

/// Quarantines end at multiples of this many µs.
const TOGETHER: u64 = 16_384;

/// An answer that has come and fits the one whose tag it carries.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub now: Time,
    /// The frame, and which attempt of it.
    pub id: FrameId,
    pub attempt: Attempt,
    /// What the frame does.
    pub work: Work,
}

/// What an ATA answer said.
enum Said<'a> {
    Ok(Ata, &'a [u8]),
    Failed(Ata),
    Refused(Refusal),
}

impl<R> Device<R> {
    /// Takes a frame from the network whose address is this device's. `body` is what follows the header.
    pub fn receive(
        &mut self,
        now: Time,
        net: NetId,
        header: &Header,
        body: &[u8],
        sink: &mut Sink<R>,
    ) -> Verdict {
        let Some(owner) = self.flight.owner(header.tag) else {
            // A config reply may answer the discovery: the caller asks it, and calls `unexpected` if it does not.
            if header.command != Command::Config {
                self.unexpected(header.tag);
            }
            return Verdict::Unknown;
        };
        let asked = match owner {
            Owner::Frame(_, attempt) => attempt.path,
            Owner::Stray(stray) => stray.path,
        };
        if !self.paths.knows(header.src, asked) {
            self.stats.mismatched += 1;
            return Verdict::Mismatched;
        }
        match owner {
            Owner::Stray(stray) => {
                self.receive_late(now, header.tag, &stray);
                Verdict::Taken
            }
            Owner::Frame(id, attempt) => {
                let arrival = Arrival { now, id, attempt, work: self.flight[id].work };
                let taken = match arrival.work {
                    Work::Query { .. } | Work::Holders { .. } | Work::Command { .. } => {
                        self.receive_command(arrival, net, header, body, sink)
                    }
                    _ => self.receive_ata(arrival, header, body, sink),
                };
                if taken {
                    Verdict::Taken
                } else {
                    self.stats.mismatched += 1;
                    Verdict::Mismatched
                }
            }
        }
    }

    /// An attempt is answered that no frame waits for any more.
    fn receive_late(&mut self, now: Time, tag: Tag, stray: &Stray) {
        self.stats.duplicates += 1;
        self.flight.forget_stray(tag);
        if let Some(path_id) = stray.path
            && let Some(path) = self.paths.get_mut(path_id)
        {
            path.late(stray.place, stray.sent, now);
            // The delay of any other may be that of a disk that empties its cache.
            if matches!(stray.place, Place::Ordered(_)) {
                path.rtt.sample(now, now.since(stray.sent));
                self.watch(path_id);
            }
        }
        if let Some(quarantine) = stray.quarantine {
            self.locks.attempt_settled(quarantine);
        }
    }

    /// Counts an answer that belongs to nothing: the network made two of one, or no question was asked.
    pub fn unexpected(&mut self, tag: Tag) {
        match self.flight.left_lately(tag) {
            true => self.stats.duplicates += 1,
            false => self.stats.unexpected += 1,
        }
    }

    fn receive_ata(&mut self, arrival: Arrival, header: &Header, body: &[u8], sink: &mut Sink<R>) -> bool {
        let Arrival { now, id, work, .. } = arrival;
        if header.command != Command::Ata {
            return false;
        }
        let said = match header.error {
            Some(refusal) => Said::Refused(refusal),
            None => match Ata::parse(body) {
                Err(_) => return false,
                Ok((ata, _)) if ata.failed() => Said::Failed(ata),
                Ok((ata, data)) => Said::Ok(ata, data),
            },
        };
        // What is too short is as good as lost; what is longer carries padding.
        if let Said::Ok(_, data) = said {
            let wanted = match work {
                Work::Read { .. } | Work::Gather { .. } | Work::Probe { .. } => {
                    usize::from(self.flight[id].count) * SECTOR
                }
                Work::Identify { .. } => IDENTIFY_LEN,
                Work::Raw { req } => self.expected(req),
                _ => 0,
            };
            if data.len() < wanted {
                if let Work::Raw { req } = work {
                    self.short(now, req, sink);
                }
                return false;
            }
        }
        self.account(arrival, sink);
        match work {
            Work::Identify { path } => self.identify_answered(arrival, path, &said, sink),
            Work::Probe { path } => self.probe_answered(arrival, path, &said, sink),
            _ => self.data_answered(arrival, &said, sink),
        }
        true
    }

    /// Bytes that the answer to a raw command brings.
    fn expected(&self, req: ReqId) -> usize {
        match self.reqs.get(req).map(|r| &r.job) {
            Some(Job::Ata(raw)) => raw.expect,
            _ => 0,
        }
    }

    /// A raw command succeeded without its data. Once that may be an accident of the network.
    fn short(&mut self, now: Time, id: ReqId, sink: &mut Sink<R>) {
        if let Job::Ata(raw) = &mut self.reqs[id].job {
            raw.short += 1;
            if raw.short >= SHORT_MAX || !raw.effect.repeatable {
                self.fail(id, Error::Io, Cause::Short, now, sink);
            }
        }
    }

    /// Books a valid answer to its path, and finds what it overtook.
    pub(super) fn account(&mut self, arrival: Arrival, sink: &mut Sink<R>) {
        let Arrival { now, id, attempt, work } = arrival;
        // A MAC that has not proven itself is no sign of life of the disk that we know.
        let proven = attempt.path.and_then(|id| self.paths.get(id)).is_none_or(|p| p.trust != Trust::Proving);
        if proven {
            let silent = self.doubt.heard(now);
            if silent && !matches!(work, Work::Identify { .. }) {
                self.raise_doubt(now, None, sink);
            }
            self.missed = 0;
        }
        let limit = self.limit();
        if attempt.flying {
            self.flight.ground(id);
            if let Some(path) = attempt.path.and_then(|p| self.paths.get_mut(p)) {
                path.arrive(attempt.place, limit);
                if self.flight[id].expiries > 0 {
                    // What expired was no pause: its answer would have come first.
                    path.lossy(now);
                }
            }
        } else {
            self.stats.duplicates += 1;
            self.release_place(id);
            if let Some(path) = attempt.path.and_then(|p| self.paths.get_mut(p)) {
                path.late(attempt.place, attempt.sent, now);
            }
        }
        if work.slow() {
            self.slow.sample(now, now.since(attempt.sent));
        }
        let size = match work {
            Work::Read { .. } | Work::Write { .. } => self.flight[id].count,
            _ => 1,
        };
        let Some(path_id) = attempt.path else { return };
        let Some(path) = self.paths.get_mut(path_id) else { return };
        path.ladder.passed(size);
        if !work.slow() {
            path.rtt.sample(now, now.since(attempt.sent));
        }
        path.stats.answered += 1;
        if let Some(op) = work.op() {
            path.stats.trips[op as usize].record(now.since(attempt.sent));
        }
        let was = path.trust;
        path.heard(now);
        if was == Trust::Tainted {
            sink.events.push(Event::PathBack(path.net, path.mac));
            // While it was silent, only probes were due.
            let climb_at = path.ladder.climb_at;
            self.arm(climb_at);
        }
        self.watch(path_id);
    }

    /// Says that every frame which came over this netlink was received: what is not answered, although younger
    /// attempts are and it is overdue, is lost. Not to be called while a thread has frames that it took before.
    pub fn judge(&mut self, now: Time, net: NetId, sink: &mut Sink<R>) {
        for id in self.paths.places() {
            if self.paths.get(id).is_some_and(|path| path.net == net) {
                self.give_up_overtaken(id, now, sink);
            }
        }
    }

    /// Attempts that were overtaken by younger ones are lost.
    pub(super) fn give_up_overtaken(&mut self, path_id: PathId, now: Time, sink: &mut Sink<R>) {
        while let Some(old) = self.paths.get(path_id).and_then(|p| p.overtaken(now)) {
            if let Some(path) = self.paths.get_mut(path_id) {
                path.overtook(now);
            }
            self.lose(old, true, now, sink);
        }
        self.watch(path_id);
    }

    /// Sets the timer to when the path's oldest attempt counts as overtaken, or its last ones as lost.
    pub(super) fn watch(&mut self, path_id: PathId) {
        let overtaken = self.paths.get(path_id).and_then(|p| p.overtaken_at());
        if let Some(at) = overtaken.or_else(|| self.tail(path_id).map(|tail| tail.1)) {
            self.arm(at);
        }
    }

    /// The frame of a path that is sent again because nothing at all is answered, and when.
    pub(super) fn tail(&self, path_id: PathId) -> Option<(FrameId, Time)> {
        let path = self.paths.get(path_id)?;
        let id = path.oldest()?;
        let frame = self.flight.get(id)?;
        // From its first timeout on, the frame is sent again by its timeout only.
        let tails = if frame.expiries > 0 { TAILS } else { frame.tails };
        Some((id, path.tail_at(tails)?))
    }

    /// A frame's flying attempt is lost: the path pays for it, and the frame waits to be sent again.
    pub(super) fn lose(&mut self, id: FrameId, early: bool, now: Time, sink: &mut Sink<R>) {
        let Some(attempt) = self.flight.ground(id) else { return };
        let frame = &self.flight[id];
        let (work, count, expiries) = (frame.work, frame.count, frame.expiries);
        if let Some(path_id) = attempt.path
            && let Some(path) = self.paths.get_mut(path_id)
        {
            path.lose(attempt.place, early);
            if matches!(work, Work::Read { .. } | Work::Write { .. }) {
                if count > PLAIN {
                    sink.events.push(Event::LostJumbo(path.net, path.mac));
                }
                let down = self.paths.get_mut(path_id).is_some_and(|p| p.ladder.lost(count, expiries, now));
                if down {
                    if let Some(p) = self.paths.get(path_id) {
                        let at = p.ladder.climb_at;
                        self.arm(at);
                    }
                    self.log_frame_size(path_id, sink);
                }
            }
        }
        self.line_up(id);
    }

    /// The flying attempt no longer holds a place in its path's window.
    pub(super) fn release_place(&mut self, id: FrameId) {
        if let Some(attempt) = self.flight.ground(id)
            && attempt.place != Place::Outside
            && let Some(path_id) = attempt.path
            && let Some(path) = self.paths.get_mut(path_id)
        {
            path.cancel(attempt.place);
            // Another frame is the oldest now, perhaps.
            self.watch(path_id);
        }
    }

    /// Ends a frame. Where another attempt of it could still change the disk, newer writes are held back.
    pub(super) fn settle(&mut self, id: FrameId, answered: Option<Tag>, now: Time) {
        let work = self.flight[id].work;
        let mut quarantine = None;
        if work.modifies() || matches!(work, Work::Command { .. }) {
            let (attempts, more) = self.flight.unanswered(id, answered);
            let (start, end) = self.reach(id);
            if (attempts > 0 || more) && start < end {
                let slowest = self.paths.slowest();
                let mut until = now + QUARANTINE.max((slowest * 4).min(QUARANTINE_MAX));
                // Under loss there are hundreds of them a second: they end together, and not each by a wake-up of
                // its own.
                until.0 = until.0.next_multiple_of(TOGETHER);
                self.arm(until);
                let attempts = if more { u32::MAX } else { attempts };
                quarantine = Some(self.locks.quarantine(start, end, attempts, until));
                if self.locks.full() {
                    // Frames that may not be sent a second time wait for the first quarantine to end, not for the
                    // last.
                    let next = self.locks.awaited_end();
                    self.arm(next);
                }
            }
        }
        self.flight.settle(id, answered, quarantine, now);
    }

    /// The sectors that a frame may change, or the place of what a command may.
    fn reach(&self, id: FrameId) -> (u64, u64) {
        let frame = &self.flight[id];
        match frame.work {
            Work::Write { .. } => (frame.at.0, frame.at.0 + u64::from(frame.count)),
            Work::Trim { req } => {
                let end = match self.reqs.get(req).map(|r| &r.job) {
                    Some(Job::Trim { span, .. }) => span.at.0 + span.sectors,
                    _ => SECTORS_END,
                };
                (frame.at.0, end.min(frame.at.0 + TRIM_BLOCK_SECTORS))
            }
            Work::Raw { req } => match self.reqs.get(req).map(|r| &r.job) {
                Some(Job::Ata(raw)) => (raw.effect.sectors.start, raw.effect.sectors.end.min(SECTORS_END)),
                _ => (0, SECTORS_END),
            },
            Work::Command { req } => {
                let place = self.reqs.get(req).and_then(Req::place);
                place.map_or((0, 0), |place| (place, place + 1))
            }
            _ => (0, SECTORS_END),
        }
    }

    fn data_answered(&mut self, arrival: Arrival, said: &Said<'_>, sink: &mut Sink<R>) {
        let Arrival { now, id, attempt, work } = arrival;
        let Some(req) = work.request() else { return };
        let frame = &self.flight[id];
        let answered = Answered { work, at: frame.at, count: frame.count, redone: frame.redone, came: now };
        let again = |req: &Req<R>| req.repeatable() && !(req.is_flush() && matches!(said, Said::Failed(_)));
        if self.doubt.suspect() && again(&self.reqs[req]) {
            // It will be asked for anew.
            self.settle(id, Some(attempt.tag), now);
            return;
        }
        match said {
            Said::Ok(ata, data) => {
                self.settle(id, Some(attempt.tag), now);
                self.landed(req, answered, attempt.path, ata, data, sink);
            }
            Said::Failed(ata) => self.refused_by_disk(arrival, req, ata, sink),
            Said::Refused(refusal) => self.refused_by_target(arrival, req, *refusal, sink),
        }
    }

    fn landed(
        &mut self,
        req_id: ReqId,
        answered: Answered,
        path: Option<PathId>,
        ata: &Ata,
        data: &[u8],
        sink: &mut Sink<R>,
    ) {
        let Answered { work, at: Sector(at), count, came: now, .. } = answered;
        let bytes = usize::from(count) * SECTOR;
        if let Some(p) = path.and_then(|id| self.paths.get_mut(id)) {
            p.stats.bytes += bytes as u64;
        }
        let doubtful = !self.doubt.confirmed();
        let req = &mut self.reqs[req_id];
        if doubtful {
            match work {
                Work::Read { .. } | Work::Write { .. } => req.doubted.push(answered),
                _ => {
                    req.unsure.get_or_insert(now);
                }
            }
            if let Work::Gather { .. } = work
                && req.redone < REDO_MAX
            {
                // Bytes of another disk around the edges would be written to this one.
                req.redone += 1;
                let frame = self.flight.create(work, Sector(at), count);
                self.line_up(frame);
                return;
            }
        }
        match (work, &mut req.job) {
            (Work::Read { offset, .. }, Job::Read { span, buf: Some(buf), .. }) => {
                buf[offset..offset + bytes].copy_from_slice(&data[..bytes]);
                span.landed += u64::from(count);
            }
            (Work::Write { .. }, Job::Write { span, .. }) => span.landed += u64::from(count),
            (Work::Gather { index, .. }, Job::Write { .. }) => {
                return self.gathered(req_id, index, &data[..SECTOR]);
            }
            (Work::Trim { .. }, Job::Trim { span, .. }) => {
                span.landed += (span.at.0 + span.sectors - at).min(TRIM_BLOCK_SECTORS);
            }
            (Work::Flush { ext, .. }, Job::Flush { done, failed, .. }) => {
                self.disk.flushing.done(ext);
                if let Some(cause) = *failed {
                    return self.refused(req_id, Error::Io, cause, now, sink);
                }
                *done = true;
            }
            (Work::Raw { .. }, Job::Ata(raw)) => raw.answer = Some((*ata, data[..raw.expect].to_vec())),
            _ => return,
        }
        self.check_complete(req_id, now, sink);
    }

    fn refused_by_disk(&mut self, arrival: Arrival, req_id: ReqId, ata: &Ata, sink: &mut Sink<R>) {
        let Arrival { now, id, attempt, work } = arrival;
        let cause = Cause::Ata { status: ata.command, error: ata.feature };
        match work {
            Work::Raw { .. } => {
                // The program wants the registers, whatever they say.
                self.settle(id, Some(attempt.tag), now);
                if let Job::Ata(raw) = &mut self.reqs[req_id].job {
                    raw.answer = Some((*ata, Vec::new()));
                }
                self.check_complete(req_id, now, sink);
            }
            Work::Flush { ext, .. } if is_echo(ext, ata) => {
                self.flush_refused(arrival, req_id, (ext, Refused::Echoed, cause), sink);
            }
            Work::Flush { ext, .. } if ata.feature & error::ABRT != 0 => {
                self.flush_refused(arrival, req_id, (ext, Refused::Aborted, cause), sink);
            }
            Work::Trim { .. } if ata.feature & error::ABRT != 0 => {
                self.disk.refused_trim();
                self.settle(id, Some(attempt.tag), now);
                self.refused(req_id, Error::NotSupported, cause, now, sink);
            }
            _ => {
                self.settle(id, Some(attempt.tag), now);
                self.refused(req_id, Error::Io, cause, now, sink);
                if ata.feature & error::IDNF != 0 {
                    // The disk says that the sector is not there: it may be another, or smaller.
                    self.raise_doubt(now, Some("a sector was not found"), sink);
                }
            }
        }
    }

    fn refused_by_target(&mut self, arrival: Arrival, req_id: ReqId, refusal: Refusal, sink: &mut Sink<R>) {
        let Arrival { now, id, attempt, work } = arrival;
        let count = self.flight[id].count;
        match (work, refusal) {
            (Work::Read { .. } | Work::Write { .. }, Refusal::BadArgument) if count > 1 => {
                // The frame is larger than the target takes, whatever it advertised: use smaller ones, and ask for
                // its limits.
                if let Some(path_id) = attempt.path {
                    if let Some(path) = self.paths.get_mut(path_id) {
                        path.ladder.refused(count, now);
                    }
                    if let Some(p) = self.paths.get(path_id) {
                        let at = p.ladder.climb_at;
                        self.arm(at);
                    }
                    self.log_frame_size(path_id, sink);
                    self.query(path_id, now, sink);
                }
                self.line_up(id);
            }
            (Work::Flush { ext, .. }, Refusal::BadArgument | Refusal::UnknownCommand) => {
                let cause = Cause::Aoe(refusal);
                self.flush_refused(arrival, req_id, (ext, Refused::Unknown, cause), sink);
            }
            (Work::Trim { .. }, Refusal::BadArgument | Refusal::UnknownCommand) => {
                self.disk.refused_trim();
                self.settle(id, Some(attempt.tag), now);
                self.refused(req_id, Error::NotSupported, Cause::Aoe(refusal), now, sink);
            }
            _ => {
                let error = match refusal {
                    Refusal::Reserved => Error::Busy,
                    Refusal::UnknownCommand => Error::NotSupported,
                    Refusal::BadArgument if matches!(work, Work::Raw { .. }) => Error::Invalid,
                    _ => Error::Io,
                };
                if error == Error::Busy {
                    self.ask_holders(attempt.path, now, sink);
                }
                self.settle(id, Some(attempt.tag), now);
                self.refused(req_id, error, Cause::Aoe(refusal), now, sink);
            }
        }
    }

    fn identify_answered(&mut self, arrival: Arrival, path: PathId, said: &Said<'_>, sink: &mut Sink<R>) {
        let Arrival { now, id, attempt, .. } = arrival;
        self.flight.settle(id, Some(attempt.tag), None, now);
        if self.confirming == Some(id) {
            self.confirming = None;
        }
        let path = attempt.path.unwrap_or(path);
        match said {
            Said::Ok(_, data) => self.identified(now, path, attempt.sent, &data[..IDENTIFY_LEN], sink),
            // A target that refuses IDENTIFY shows nothing; it will be asked again.
            Said::Failed(..) | Said::Refused(_)
                if self.paths.get(path).is_some_and(|p| p.trust == Trust::Proving) =>
            {
                self.refuse_path(path, now, sink);
            }
            Said::Failed(..) | Said::Refused(_) => {
                self.ask_after = now + ASK_AGAIN;
                self.disarm(sink);
            }
        }
    }

    fn probe_answered(&mut self, arrival: Arrival, path_id: PathId, said: &Said<'_>, sink: &mut Sink<R>) {
        let Arrival { now, id, attempt, .. } = arrival;
        let count = self.flight[id].count;
        self.flight.settle(id, Some(attempt.tag), None, now);
        if let Said::Refused(_) | Said::Failed(..) = said {
            return;
        }
        let Some(p) = self.paths.get(path_id) else { return };
        let (most, before) = (p.most_sectors(&self.settings), p.sectors(&self.settings));
        let Some(path) = self.paths.get_mut(path_id) else { return };
        path.ladder.proven(count, most);
        if path.probing == Some(count) {
            path.probing = None;
            path.probed = Some(count);
        }
        if path.ladder.next_up(most).is_some() {
            path.ladder.climb_at = now;
            self.arm(now);
        }
        if self.paths.get(path_id).is_some_and(|p| p.sectors(&self.settings) != before) {
            self.log_frame_size(path_id, sink);
        }
    }
}
