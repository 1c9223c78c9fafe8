//! Requests in and out: from the user's bytes to locked sectors, and back to a reply.

use std::ops::Range;
use std::sync::Arc;

use super::{Device, Sink, State};
use crate::engine::buffer::{Buf, Lease, Purpose};
use crate::engine::disk::Extent;
use crate::engine::event::{Cause, Event};
use crate::engine::flight::Work;
use crate::engine::ids::{FrameId, ReqId};
use crate::engine::limits::REQUESTS_MAX;
use crate::engine::request::{Bytes, Error, For, Io, Job, Outcome, Output, Raw, Req, Request, Span};
use crate::engine::stats::Op;
use crate::engine::time::Time;
use crate::engine::{Handle, WriteBuf};
use crate::wire::{AFLAG_WRITE, Ata, FlushKind, SECTOR, Sector, error, status};

impl<R> Device<R> {
    /// Takes a request. Its reply comes back in a sink exactly once, now or later.
    pub fn submit(&mut self, now: Time, request: Request<R>, sink: &mut Sink<R>) {
        let Request { io, handle, nonblock, stream, reply } = request;
        let op = match &io {
            Io::Read { .. } => Op::Read,
            Io::Write { .. } | Io::Trim { .. } => Op::Write,
            Io::Flush => Op::Flush,
            _ => Op::Other,
        };
        self.stats.ops[op as usize].requests += 1;
        match self.prepare(io, handle, nonblock).and_then(|prepared| self.room(op, prepared, sink)) {
            Ok(Prepared::Now(output)) => sink.done.push((reply, Ok(output))),
            Ok(Prepared::Later(job, memory)) => match stream.filter(|_| matches!(job, Job::Read { .. })) {
                Some(stream) => self.read_stream(now, job, handle, nonblock, (stream, reply), sink),
                None => {
                    let id = self.enlist(now, job, nonblock, For::User(reply), sink);
                    self.hold(id, memory);
                }
            },
            Err(error) => {
                self.stats.ops[op as usize].errors += 1;
                if let State::Down(_) = self.state {
                    self.revive(now, sink);
                }
                sink.done.push((reply, Err(error)));
            }
        }
    }

    /// Is there room for one more request, and for its bytes? One target's users must not use up what all have.
    fn room(&mut self, op: Op, prepared: Prepared, sink: &mut Sink<R>) -> Result<Prepared, Error> {
        let Prepared::Later(job, _) = prepared else { return Ok(prepared) };
        let (at, len) = match &job {
            Job::Write { span, .. } => (Some(span.at), span.sectors as usize * SECTOR),
            Job::Read { span, .. } | Job::Trim { span, .. } => (Some(span.at), 0),
            _ => (None, 0),
        };
        let mut refuse = |cause| {
            sink.events.push(Event::Failed { op, at, cause });
            Err(Error::Io)
        };
        if self.reqs.len() >= REQUESTS_MAX {
            return refuse(Cause::Crowded);
        }
        if len == 0 {
            return Ok(Prepared::Later(job, None));
        }
        let memory = match self.writing + len <= sink.pool.writes_of_one() {
            true => sink.pool.lease(Purpose::Write, len),
            false => None,
        };
        match memory {
            Some(memory) => Ok(Prepared::Later(job, Some(memory))),
            None => refuse(Cause::Memory),
        }
    }

    /// The request holds this memory until it ends.
    fn hold(&mut self, id: ReqId, memory: Option<Lease>) {
        if let (Some(req), Some(memory)) = (self.reqs.get_mut(id), memory) {
            self.writing += memory.len();
            req.memory = Some(memory);
        }
    }

    fn prepare(&mut self, io: Io, handle: Handle, nonblock: bool) -> Result<Prepared, Error> {
        if self.retired {
            return Err(Error::Io);
        }
        if let Io::Config { .. } | Io::Mask(_) | Io::Reserve(_) = io {
            return Ok(Prepared::Later(
                match io {
                    Io::Config { verb, string } => Job::Config { verb, string },
                    Io::Mask(directives) => Job::Mask(directives),
                    Io::Reserve(what) => Job::Reserve(what),
                    _ => return Err(Error::Invalid),
                },
                None,
            ));
        }
        let extent = self.disk.extent(handle)?;
        if !self.takes_io() && (nonblock || !self.settings.nofail) {
            return Err(Error::Io);
        }
        match io {
            Io::Read { offset, len } => self.prepare_read(&extent, offset, len),
            Io::Write { offset, data } => self.prepare_write(&extent, offset, data),
            Io::Flush if self.disk.flushing.kind() == FlushKind::None => Ok(Prepared::Now(Output::Done)),
            Io::Flush => {
                let lock = self.locks.unowned();
                Ok(Prepared::Later(Job::Flush { lock, left: false, done: false, failed: None }, None))
            }
            Io::Trim { offset, len } => self.prepare_trim(&extent, offset, len),
            Io::Ata { ata, data, expect } => self.prepare_ata(ata, data, expect),
            Io::Config { .. } | Io::Mask(_) | Io::Reserve(_) => Err(Error::Invalid),
        }
    }

    fn prepare_read(&self, extent: &Extent, offset: u64, len: usize) -> Result<Prepared, Error> {
        let size = extent.end - extent.start;
        let len = (size.saturating_sub(offset)).min(len as u64) as usize;
        let first = extent.start + offset.min(size);
        let sector = SECTOR as u64;
        let at = first / sector;
        let skip = (first % sector) as usize;
        // A read of no bytes needs no frame.
        let sectors = (first + len as u64).div_ceil(sector).saturating_sub(at);
        if len == 0 {
            return Ok(Prepared::Now(Output::Data(crate::engine::Data::empty())));
        }
        let span = Span::new(Sector(at), sectors);
        Ok(Prepared::Later(Job::Read { span, skip, len, buf: None, lock: None }, None))
    }

    fn prepare_write(&mut self, extent: &Extent, offset: u64, mut data: WriteBuf) -> Result<Prepared, Error> {
        let size = extent.end - extent.start;
        if data.is_empty() {
            return Ok(Prepared::Now(Output::Written(0)));
        }
        if offset >= size {
            return Err(Error::NoSpace);
        }
        if offset % SECTOR as u64 != data.head as u64 {
            return Err(Error::Invalid);
        }
        if data.len() as u64 > size - offset {
            data.cut((size - offset) as usize);
        }
        let len = data.len();
        let span = Span::new(Sector((extent.start + offset) / SECTOR as u64), u64::from(data.sectors()));
        let edges = data.head != 0 || data.tail() != 0;
        let bytes = if edges { Bytes::Edges { data, missing: 0 } } else { Bytes::Whole(Arc::new(data.buf)) };
        Ok(Prepared::Later(Job::Write { span, len, bytes, lock: self.locks.unowned() }, None))
    }

    fn prepare_trim(&mut self, extent: &Extent, offset: u64, len: u64) -> Result<Prepared, Error> {
        let sector = SECTOR as u64;
        let end = offset.checked_add(len).ok_or(Error::Invalid)?;
        if !offset.is_multiple_of(sector) || !len.is_multiple_of(sector) {
            return Err(Error::Invalid);
        }
        if end > extent.end - extent.start {
            return Err(Error::NoSpace);
        }
        if !self.disk.can_trim() {
            return Err(Error::NotSupported);
        }
        if len == 0 {
            return Ok(Prepared::Now(Output::Done));
        }
        let span = Span::new(Sector((extent.start + offset) / sector), len / sector);
        Ok(Prepared::Later(Job::Trim { span, lock: self.locks.unowned() }, None))
    }

    fn prepare_ata(&self, mut ata: Ata, data: Vec<u8>, expect: usize) -> Result<Prepared, Error> {
        let sectors = data.len().max(expect).div_ceil(SECTOR);
        let sectors = u8::try_from(sectors).map_err(|_| Error::Invalid)?;
        if self.disk.is_shortened() && ata.end_of_addresses(&data) > self.disk.size() / SECTOR as u64 {
            // A disk of the size that is shown would say this.
            let ata = Ata { command: status::DRDY | status::ERR, feature: error::IDNF, ..ata };
            return Ok(Prepared::Now(Output::Ata { ata, data: Vec::new() }));
        }
        if !self.paths.carries(sectors, &self.settings) || (!data.is_empty() && expect > 0) {
            return Err(Error::Invalid);
        }
        ata.aflags &= !AFLAG_WRITE;
        if !data.is_empty() {
            ata.aflags |= AFLAG_WRITE;
        }
        let raw = Raw {
            ata,
            data: Arc::new(Buf::from(data)),
            expect,
            effect: ata.effect(),
            sectors,
            lock: None,
            left: false,
            short: 0,
            answer: None,
        };
        Ok(Prepared::Later(Job::Ata(Box::new(raw)), None))
    }

    pub(super) fn enlist(
        &mut self,
        now: Time,
        job: Job,
        nonblock: bool,
        owner: For<R>,
        sink: &mut Sink<R>,
    ) -> ReqId {
        self.throw_ahead_of(&job, now, sink);
        let id = self.admit(now, job, nonblock, owner);
        if self.lock(id, now) {
            self.begin(id, now, sink);
        }
        id
    }

    /// A request has its lock. A command leaves at once; a request that moves sectors goes into a lane.
    fn begin(&mut self, id: ReqId, now: Time, sink: &mut Sink<R>) {
        if self.reqs[id].is_command() {
            let frame = self.flight.create(Work::Command { req: id }, Sector(0), 0);
            self.dispatch_outside(frame, now, sink);
        } else {
            self.start(id);
        }
    }

    /// A request is there from now on, and has its deadline.
    pub(super) fn admit(&mut self, now: Time, job: Job, nonblock: bool, owner: For<R>) -> ReqId {
        let behind = matches!(owner, For::Ahead(..));
        let req = Req {
            owner,
            job,
            submitted: now,
            nonblock,
            word: None,
            granted: true,
            queued: false,
            waits: false,
            behind,
            memory: None,
            held: false,
            failed: None,
            unsure: None,
            doubted: Vec::new(),
            redone: 0,
        };
        let patience = self.patience(&req);
        let id = self.reqs.insert(req);
        if let Some(patience) = patience {
            self.arm(now + patience);
        }
        id
    }

    /// Takes the lock that the request needs. True: it has it, or needs none.
    pub(super) fn lock(&mut self, id: ReqId, now: Time) -> bool {
        let next = self.locks.expire(now);
        self.arm(next);
        let req = &mut self.reqs[id];
        let place = req.place();
        let taken = match &mut req.job {
            Job::Write { span, lock, .. } | Job::Trim { span, lock } => {
                let (taken, granted) = self.locks.write(span.at.0, span.at.0 + span.sectors, id);
                *lock = taken;
                granted
            }
            Job::Read { span, lock, .. } => {
                *lock = self.locks.read(span.at.0, span.at.0 + span.sectors, id);
                lock.is_none()
            }
            Job::Flush { lock, .. } => {
                let (taken, granted) = self.locks.barrier(id);
                *lock = taken;
                granted
            }
            Job::Ata(raw) if !raw.effect.sectors.is_empty() => {
                // A command with an unknown effect excludes every write.
                let Range { start, end } = raw.effect.sectors;
                let (taken, granted) = self.locks.raw(start, end, id);
                raw.lock = Some(taken);
                granted
            }
            _ => place.is_none_or(|place| {
                let (taken, granted) = self.locks.write(place, place + 1, id);
                req.word = Some(taken);
                granted
            }),
        };
        req.granted = taken;
        if !taken {
            self.stats.held_back += 1;
            // As long as no request waited, only the last quarantine to end had to be looked for.
            let next = self.locks.awaited_end();
            self.arm(next);
        }
        taken
    }

    /// Starts the requests whose locks have become free.
    pub(super) fn start_granted(&mut self, now: Time, sink: &mut Sink<R>) {
        while let Some((lock, id)) = self.locks.next_granted() {
            if let Some(req) = self.reqs.get_mut(id)
                && req.lock() == Some(lock)
                && !req.granted
            {
                req.granted = true;
                self.begin(id, now, sink);
            }
        }
    }

    /// A request has its lock: what it needs first goes into a lane.
    pub(super) fn start(&mut self, id: ReqId) {
        let req = &mut self.reqs[id];
        if let Job::Write { span, bytes: Bytes::Edges { data, missing }, .. } = &mut req.job {
            let last = (span.sectors - 1) as usize;
            let head = (data.head != 0 || (last == 0 && data.tail() != 0)).then_some(0);
            let tail = (data.tail() != 0 && last > 0).then_some(last);
            let first = span.at;
            *missing = head.iter().chain(tail.iter()).count() as u8;
            for index in head.into_iter().chain(tail) {
                let work = Work::Gather { req: id, index };
                let frame = self.flight.create(work, Sector(first.0 + index as u64), 1);
                self.line_up(frame);
            }
            return;
        }
        self.queue(id);
    }

    /// A request has frames to issue.
    fn queue(&mut self, id: ReqId) {
        let req = &mut self.reqs[id];
        if !req.queued {
            req.queued = true;
            self.lanes.push_request(req.lane(), id);
        }
    }

    /// May another attempt of the frame be sent?
    fn may_leave(&self, id: FrameId) -> bool {
        let frame = &self.flight[id];
        let Work::Raw { req } = frame.work else { return true };
        match &self.reqs[req].job {
            Job::Ata(raw) => raw.effect.repeatable || frame.last().is_none(),
            _ => true,
        }
    }

    /// A frame waits to be sent (again). One that must not be sent twice only waits for its answer.
    pub(super) fn line_up(&mut self, id: FrameId) {
        if !self.may_leave(id) {
            return;
        }
        let frame = &mut self.flight[id];
        if !frame.queued {
            frame.queued = true;
            self.lanes.push_frame(frame.work.lane(), id);
        }
    }

    /// The sector around an edge of a write has arrived.
    pub(super) fn gathered(&mut self, id: ReqId, index: usize, sector: &[u8]) {
        let Job::Write { bytes, .. } = &mut self.reqs[id].job else { return };
        let Bytes::Edges { data, missing } = bytes else { return };
        data.fill_around(index, sector);
        *missing = missing.saturating_sub(1);
        if *missing == 0
            && let Bytes::Edges { data, .. } = std::mem::replace(bytes, Bytes::Taken)
        {
            *bytes = Bytes::Whole(Arc::new(data.buf));
            self.queue(id);
        }
    }

    /// Some of the request's answers are in: ends it if they all are and the disk is confirmed.
    pub(super) fn check_complete(&mut self, id: ReqId, now: Time, sink: &mut Sink<R>) {
        let doubtful = !self.doubt.confirmed();
        let req = &mut self.reqs[id];
        if !req.complete() || req.held {
            return;
        }
        if doubtful {
            req.held = true;
            self.held.push(id);
            return;
        }
        let outcome = req.output();
        self.end(id, outcome, now, sink);
    }

    /// The disk is confirmed: requests that only waited for that are answered.
    pub(super) fn release_held(&mut self, now: Time, sink: &mut Sink<R>) {
        for id in std::mem::take(&mut self.held) {
            if let Some(req) = self.reqs.get_mut(id).filter(|r| r.held) {
                if let Some((error, cause)) = req.failed {
                    self.fail(id, error, cause, now, sink);
                    continue;
                }
                let outcome = req.output();
                self.end(id, outcome, now, sink);
            }
        }
    }

    /// The target said no. While the disk is in doubt another disk may have said so: the request waits with its
    /// error until that is known.
    pub(super) fn refused(&mut self, id: ReqId, error: Error, cause: Cause, now: Time, sink: &mut Sink<R>) {
        if self.doubt.confirmed() {
            self.fail(id, error, cause, now, sink);
            return;
        }
        self.abandon(id, now);
        if let Some(req) = self.reqs.get_mut(id) {
            req.failed.get_or_insert((error, cause));
            req.unsure.get_or_insert(now);
            req.queued = false;
            if !req.held {
                req.held = true;
                self.held.push(id);
            }
        }
    }

    /// A request failed: says so in the log and ends it.
    pub(super) fn fail(&mut self, id: ReqId, error: Error, cause: Cause, now: Time, sink: &mut Sink<R>) {
        if let Some(req) = self.reqs.get(id) {
            if !req.is_ahead() {
                sink.events.push(Event::Failed { op: req.op(), at: req.at(), cause });
                self.stats.deadlines += u64::from(cause == Cause::Deadline);
            }
            self.abandon(id, now);
            self.end(id, Err(error), now, sink);
        }
    }

    /// Settles every frame of a request, which will not wait for them. Attempts that may still do harm keep their
    /// range in quarantine.
    pub(super) fn abandon(&mut self, id: ReqId, now: Time) {
        let frames: Vec<FrameId> =
            self.flight.iter().filter(|(_, f)| f.work.request() == Some(id)).map(|(id, _)| id).collect();
        for frame in frames {
            self.release_place(frame);
            self.settle(frame, None, now);
        }
    }

    /// Hands a request's reply back. All its frames are settled.
    pub(super) fn end(&mut self, id: ReqId, outcome: Outcome, now: Time, sink: &mut Sink<R>) {
        let Some(req) = self.reqs.try_remove(id) else { return };
        if req.held {
            self.held.retain(|held| *held != id);
        }
        debug_assert!(
            self.flight.iter().all(|(_, f)| f.work.request() != Some(id)),
            "frames outlive their request"
        );
        if let Some(lock) = req.lock() {
            self.locks.release(lock);
        }
        if req.waits {
            self.ahead.forget_waiter(id);
        }
        if let Some(memory) = &req.memory {
            self.writing -= memory.len();
        }
        let op = req.op();
        let reply = match req.owner {
            For::User(reply) => reply,
            For::Ahead(stream, lease) => return self.fetched(id, stream, lease, outcome, now, sink),
        };
        let stats = &mut self.stats.ops[op as usize];
        match &outcome {
            Ok(output) => {
                stats.latency.record(now.since(req.submitted));
                stats.bytes += match output {
                    Output::Data(data) => data.len() as u64,
                    Output::Written(len) => *len as u64,
                    _ => 0,
                };
            }
            Err(_) => stats.errors += 1,
        }
        sink.done.push((reply, outcome));
    }
}

/// What a request turned out to be.
enum Prepared {
    /// Answered without asking the target.
    Now(Output),
    /// Work for frames, and the memory that it may hold once that is known.
    Later(Job, Option<Lease>),
}
