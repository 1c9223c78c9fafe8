//! Reading ahead: when it is done, and what it must never do.
//!
//! A fetch is a read like any other, under the same doubts and retransmissions, but no program waits for it. It has
//! a lane of its own, from which frames leave when nothing else can; its failure is silent; and it never makes a
//! target go down. It begins only where no request that is known may change its sectors, and it is cut short as soon
//! as such a request comes. So what it brings is what the disk held at some moment between its beginning and now,
//! and no write was answered since, nor begun.

use std::ops::Range;

use super::{Device, Sink, State};
use crate::engine::Data;
use crate::engine::ahead::Found;
use crate::engine::buffer::{Lease, Purpose};
use crate::engine::ids::{ReqId, Stream};
use crate::engine::lanes::Lane;
use crate::engine::request::{For, Handle, Job, Outcome, Output, Span};
use crate::engine::time::Time;
use crate::wire::{SECTOR, Sector};

impl<R> Device<R> {
    /// How far ahead of a reader is read at most, in bytes; 0: nothing is. What is held already stays.
    pub fn set_read_ahead(&mut self, bytes: u64) {
        self.ahead.set_window(bytes);
    }

    /// A reader is gone: what was read ahead of it is freed.
    pub fn close_stream(&mut self, stream: Stream, now: Time, sink: &mut Sink<R>) {
        let mut cut = Vec::new();
        self.ahead.close(stream, |req| cut.push(req));
        self.cut_short(cut, now, sink);
    }

    /// May a reader be given what was read ahead?
    fn ahead_usable(&self) -> bool {
        self.state == State::Up && self.doubt.confirmed() && !self.ahead_doubted && !self.retired
    }

    /// A read of a reader that may be read ahead of.
    pub(super) fn read_stream(
        &mut self,
        now: Time,
        job: Job,
        handle: Handle,
        nonblock: bool,
        (stream, reply): (Stream, R),
        sink: &mut Sink<R>,
    ) {
        let bytes = job.wants();
        let mut cut = Vec::new();
        self.ahead.note(stream, &bytes, now, |req| cut.push(req));
        self.cut_short(cut, now, sink);
        let usable = self.ahead_usable();
        let found = if usable { self.ahead.find(stream, &bytes, now, &sink.pool) } else { Found::Missing };
        match found {
            Found::Here(data) => {
                self.served(&data, now, now);
                sink.done.push((reply, Ok(Output::Data(data))));
            }
            Found::Coming => {
                let id = self.admit(now, job, nonblock, For::User(reply));
                if let Some(req) = self.reqs.get_mut(id) {
                    req.waits = true;
                }
                self.ahead.wait(id, stream, &bytes);
                self.hurry(stream, &bytes);
            }
            Found::Missing => {
                self.enlist(now, job, nonblock, For::User(reply), sink);
            }
        }
        if usable {
            self.fetch(stream, handle, now, sink);
        }
    }

    /// Counts a read that was answered with what was read ahead, as the reader's own.
    fn served(&mut self, data: &Data, submitted: Time, now: Time) {
        let bytes = data.len() as u64;
        let stats = &mut self.stats.ops[crate::engine::Op::Read as usize];
        stats.latency.record(now.since(submitted));
        stats.bytes += bytes;
        self.stats.ahead_served += bytes;
    }

    /// A read waits for these fetches now: they take their turn among the reads.
    fn hurry(&mut self, stream: Stream, bytes: &Range<u64>) {
        for id in self.ahead.fetches(stream, bytes) {
            if let Some(req) = self.reqs.get_mut(id).filter(|r| r.behind) {
                req.behind = false;
                if req.queued {
                    self.lanes.push_request(Lane::Reads, id);
                }
            }
        }
    }

    /// Begins what is worth fetching for a stream.
    fn fetch(&mut self, stream: Stream, handle: Handle, now: Time, sink: &mut Sink<R>) {
        // After silence the reader's own read causes an IDENTIFY. What is fetched together with that would be thrown
        // away.
        if self.doubt.silent(now) {
            return;
        }
        let Ok(extent) = self.disk.extent(handle) else { return };
        while let Some(bytes) = self.ahead.plan(stream, extent.end, now) {
            let sector = SECTOR as u64;
            let (start, end) = (bytes.start / sector, bytes.end / sector);
            let next = self.locks.expire(now);
            self.arm(next);
            if self.locks.busy(start, end) {
                return;
            }
            let len = (bytes.end - bytes.start) as usize;
            let Some(lease) = sink.pool.lease(Purpose::Ahead, len) else { return };
            let span = Span::new(Sector(start), end - start);
            let job = Job::Read { span, skip: 0, len, buf: None, lock: None };
            let id = self.enlist(now, job, false, For::Ahead(stream, lease), sink);
            self.ahead.begun(stream, &bytes, id, now);
            self.arm(now + crate::engine::AGE);
        }
    }

    /// A fetch ended.
    pub(super) fn fetched(
        &mut self,
        id: ReqId,
        stream: Stream,
        lease: Lease,
        outcome: Outcome,
        now: Time,
        sink: &mut Sink<R>,
    ) {
        let data = match outcome {
            Ok(Output::Data(data)) => Some(data),
            _ => None,
        };
        let len = data.as_ref().map_or(0, |data| data.len() as u64);
        self.stats.ahead_fetched += len;
        if self.ahead.ended(stream, id, data.map(|data| (data.into_shared(), lease)), now) {
            self.wake_readers(now, sink);
        } else {
            self.stats.ahead_wasted += len;
        }
    }

    /// Reads whose bytes are here now are answered; reads whose bytes will not come ask for them.
    fn wake_readers(&mut self, now: Time, sink: &mut Sink<R>) {
        let usable = self.ahead_usable();
        while let Some((id, found)) = self.ahead.next_ripe(now, usable, &sink.pool) {
            let Some(req) = self.reqs.get_mut(id) else { continue };
            req.waits = false;
            if let Found::Here(data) = found {
                self.stats.ahead_served += data.len() as u64;
                self.end(id, Ok(Output::Data(data)), now, sink);
            } else if self.lock(id, now) {
                self.start(id);
            }
        }
        self.stats.ahead_wasted += self.ahead.take_wasted();
    }

    /// Fetches that are not wanted any more: no further frame of them leaves. Frames that have left are still
    /// awaited, for the path would take their absence for loss.
    fn cut_short(&mut self, cut: Vec<ReqId>, now: Time, sink: &mut Sink<R>) {
        for id in cut {
            let Some(req) = self.reqs.get_mut(id) else { continue };
            if req.cut() {
                self.check_complete(id, now, sink);
            }
        }
        self.wake_readers(now, sink);
    }

    /// A request may change sectors: nothing that was read of them before is given to a reader from now on.
    pub(super) fn throw_ahead_of(&mut self, job: &Job, now: Time, sink: &mut Sink<R>) {
        if self.ahead.is_empty() {
            return;
        }
        let sectors = match job {
            Job::Write { span, .. } | Job::Trim { span, .. } => span.at.0..span.at.0 + span.sectors,
            Job::Ata(raw) => raw.effect.sectors.clone(),
            _ => return,
        };
        let mut cut = Vec::new();
        self.ahead.throw_sectors(&sectors, |req| cut.push(req));
        self.cut_short(cut, now, sink);
    }

    /// The disk may be another one, or is away: everything that was read ahead goes, with the fetches that are on
    /// their way.
    pub(super) fn throw_ahead(&mut self, now: Time, sink: &mut Sink<R>) {
        self.ahead_doubted = false;
        self.ahead.throw_all(|_| {});
        let fetches: Vec<ReqId> = self.reqs.iter().filter(|(_, r)| r.is_ahead()).map(|(id, _)| id).collect();
        for id in fetches {
            self.abandon(id, now);
            self.end(id, Err(crate::engine::Error::Io), now, sink);
        }
        self.wake_readers(now, sink);
    }

    /// Throws away what has become too old.
    pub(super) fn sweep_ahead(&mut self, now: Time, sink: &mut Sink<R>) {
        if self.ahead.next_old() <= now {
            let mut cut = Vec::new();
            self.ahead.throw_old(now, |req| cut.push(req));
            self.cut_short(cut, now, sink);
        }
        self.arm(self.ahead.next_old());
    }
}
