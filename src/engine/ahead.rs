//! What is read ahead of programs that read in sequence: which readers there are, what was fetched for each, and
//! what each may be given.
//!
//! Pure bookkeeping; how the device fetches is in `device/ahead.rs`. A *stream* is one reader, a *piece* is a run of
//! sectors that is being fetched for it or is here. A piece is given to its own stream only.
//!
//! A piece is safe because it is never older than [`AGE`], counted from when it was asked for, and because nothing
//! changed its sectors since: before a request that may change them is begun, the piece is thrown away.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::buffer::{Buf, Data, Lease, Pool};
use super::ids::{ReqId, Stream};
use super::time::Time;
use crate::wire::SECTOR;

/// The oldest that fetched bytes may be when a reader gets them, counted from when they were asked for. What another
/// host writes shows within this time.
pub const AGE: Duration = Duration::from_secs(1);
/// How far ahead of one stream is read unless the operator says otherwise, in bytes.
pub const WINDOW: u64 = 1 << 20;
/// The least that is fetched at a time, in bytes. With frames of 1 KiB that is 128 frames, more than a window holds.
const CHUNK: u64 = 128 << 10;
/// Of readers whose reads are larger than this, in bytes, nothing is read ahead: they keep the wire busy by
/// themselves.
const LONGEST: u64 = 1 << 20;
/// Reads of one stream may arrive in another order than they were asked in, by so many bytes.
const NEAR: u64 = 1 << 20;
/// A read whose buffer begins within a page comes in two parts, where it needs more pages than a request of the
/// kernel has. The second part has fewer bytes than this page, and what is to follow both must be on its way when
/// the first part is there.
const SPLIT: u64 = 4096;
/// A target that takes longer than [`AGE`] for a fetch is not asked for another one of the same reader for this
/// long: that one would be too old as well, and would hold up what the reader asks for itself.
const REST: Duration = Duration::from_secs(10);
/// Streams that are remembered at once. Beyond that, the streams that were silent the longest are forgotten.
const STREAMS_MAX: usize = 1024;

/// How one reader reads.
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Where its last read ended.
    last: u64,
    /// Where it goes on, as far as that is known: reads may arrive in another order than they were asked in.
    next: u64,
    /// A read began where another one had ended, and no read was far away since.
    sequential: bool,
    /// Bytes of its largest read since it last went to another place.
    longest: u64,
    /// How far it is worth reading ahead, in bytes: this grows while the reader keeps pace, and shrinks when it does
    /// not.
    reach: u64,
    /// When it last read.
    used: Time,
    /// Nothing is fetched for it before: a fetch failed.
    idle_until: Time,
}

/// Bytes of the disk that are being fetched for a stream, or are here.
#[derive(Debug)]
struct Piece {
    stream: Stream,
    start: u64,
    end: u64,
    /// When they were asked for.
    begun: Time,
    /// Bytes of it that its reader got, or had before: pieces begin with a whole sector.
    served: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// By this request.
    Coming(ReqId),
    Here(Arc<Buf>, #[expect(dead_code, reason = "held for as long as the bytes are")] Lease),
}

/// A read that waits for pieces.
#[derive(Clone, Copy, Debug)]
struct Waiter {
    req: ReqId,
    stream: Stream,
    start: u64,
    end: u64,
}

/// What there is of the bytes that a reader wants.
#[derive(Debug)]
pub(super) enum Found {
    /// All of them.
    Here(Data),
    /// All of them are here or being fetched.
    Coming,
    /// Not all of them: they have to be asked for.
    Missing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Ahead {
    /// How far ahead of a stream is read at most, in bytes; 0: nothing is.
    window: u64,
    flows: HashMap<Stream, Flow>,
    pieces: Vec<Piece>,
    waiters: Vec<Waiter>,
    /// Bytes that were fetched and that no reader got.
    wasted: u64,
}

impl Default for Ahead {
    fn default() -> Ahead {
        Ahead { window: WINDOW, flows: HashMap::new(), pieces: Vec::new(), waiters: Vec::new(), wasted: 0 }
    }
}

impl Piece {
    fn len(&self) -> u64 {
        self.end - self.start
    }

    fn overlaps(&self, bytes: &Range<u64>) -> bool {
        self.start < bytes.end && bytes.start < self.end
    }

    fn fresh(&self, now: Time) -> bool {
        now.since(self.begun) < AGE
    }
}

impl Ahead {
    /// How far ahead is read at most, in bytes.
    pub fn set_window(&mut self, bytes: u64) {
        self.window = bytes;
    }

    /// Is anything held, being fetched or waited for?
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.waiters.is_empty()
    }

    /// Notes that a stream reads these bytes. A stream that went elsewhere loses what was fetched for it.
    pub fn note(&mut self, stream: Stream, bytes: &Range<u64>, now: Time, cut: impl FnMut(ReqId)) {
        let len = bytes.end - bytes.start;
        let fresh = Flow {
            last: bytes.end,
            next: bytes.end,
            sequential: false,
            longest: len,
            reach: 0,
            used: now,
            idle_until: Time::default(),
        };
        let Some(flow) = self.flows.get_mut(&stream) else {
            if self.flows.len() >= STREAMS_MAX {
                self.forget_oldest();
            }
            if self.flows.len() < STREAMS_MAX {
                self.flows.insert(stream, fresh);
            }
            return;
        };
        if bytes.start == flow.last || bytes.start == flow.next {
            flow.sequential = true;
            flow.next = bytes.end;
        } else if bytes.start.abs_diff(flow.next) > NEAR {
            *flow = Flow { idle_until: flow.idle_until, ..fresh };
            self.throw(|p| p.stream == stream, cut);
            return;
        }
        flow.last = bytes.end;
        flow.next = flow.next.max(bytes.end);
        flow.longest = flow.longest.max(len);
        flow.used = now;
    }

    fn forget_oldest(&mut self) {
        let busy = |stream: &Stream| {
            self.pieces.iter().any(|p| p.stream == *stream)
                || self.waiters.iter().any(|w| w.stream == *stream)
        };
        let idle = self.flows.iter().filter(|(stream, _)| !busy(stream));
        let oldest = idle.min_by_key(|(_, flow)| flow.used).map(|(stream, _)| *stream);
        if let Some(stream) = oldest {
            self.flows.remove(&stream);
        }
    }

    fn index_at(&self, stream: Stream, byte: u64, now: Time) -> Option<usize> {
        let fits = |p: &Piece| p.stream == stream && (p.start..p.end).contains(&byte) && p.fresh(now);
        self.pieces.iter().position(fits)
    }

    /// What there is of these bytes for their reader.
    pub fn find(&mut self, stream: Stream, bytes: &Range<u64>, now: Time, pool: &Pool) -> Found {
        let mut coming = false;
        let mut at = bytes.start;
        while at < bytes.end {
            let Some(piece) = self.index_at(stream, at, now).map(|i| &self.pieces[i]) else {
                return Found::Missing;
            };
            coming |= matches!(piece.state, State::Coming(_));
            at = piece.end;
        }
        if coming { Found::Coming } else { self.give(stream, bytes, now, pool) }
    }

    /// Bytes that are all here, copied only if they lie in several pieces.
    fn give(&mut self, stream: Stream, bytes: &Range<u64>, now: Time, pool: &Pool) -> Found {
        let mut whole: Option<Buf> = None;
        let mut out = Found::Missing;
        let mut at = bytes.start;
        while at < bytes.end {
            let Some(index) = self.index_at(stream, at, now) else { return Found::Missing };
            let piece = &mut self.pieces[index];
            let State::Here(buf, _) = &piece.state else { return Found::Missing };
            let to = bytes.end.min(piece.end);
            let (skip, len) = ((at - piece.start) as usize, (to - at) as usize);
            if at == bytes.start && to == bytes.end {
                out = Found::Here(Data::shared(buf.clone(), skip, len));
            } else {
                let whole = whole.get_or_insert_with(|| pool.take((bytes.end - bytes.start) as usize));
                let into = (at - bytes.start) as usize;
                whole[into..into + len].copy_from_slice(&buf[skip..skip + len]);
            }
            piece.served += to - at;
            at = to;
        }
        self.drop_consumed(stream, now);
        whole.map_or(out, |buf| Found::Here(buf.into()))
    }

    /// Frees the pieces that their reader has had in full, and lets it reach further if it was quick.
    fn drop_consumed(&mut self, stream: Stream, now: Time) {
        let flow = self.flows.get_mut(&stream);
        let mut quick = false;
        self.pieces.retain(|p| {
            // Not earlier: a large read whose buffer begins within a page comes in two parts, the second of a few
            // bytes.
            let over = p.stream == stream && p.served >= p.len() && matches!(p.state, State::Here(..));
            quick |= over && now.since(p.begun) < AGE / 4;
            !over
        });
        if let Some(flow) = flow.filter(|_| quick) {
            flow.reach = (2 * flow.reach).min(self.window);
        }
    }

    /// The next bytes that are worth fetching for a stream: whole sectors. Its file ends at byte `end` of the disk.
    pub fn plan(&mut self, stream: Stream, end: u64, now: Time) -> Option<Range<u64>> {
        let window = self.window;
        let flow = self.flows.get_mut(&stream)?;
        if window == 0 || !flow.sequential || flow.longest > LONGEST || now < flow.idle_until {
            return None;
        }
        // Reads of one size then end where pieces do, and are answered without a copy.
        let longest = flow.longest.max(1);
        let chunk = (longest * CHUNK.div_ceil(longest)).min(window);
        flow.reach = flow.reach.clamp((2 * chunk).min(window), window);
        let (next, reach) = (flow.next, flow.reach);
        let mut from = next - next % SECTOR as u64;
        let mine = |p: &&Piece| p.stream == stream;
        while let Some(p) = self.pieces.iter().filter(mine).find(|p| (p.start..p.end).contains(&from)) {
            from = p.end;
        }
        let to = (from + chunk).next_multiple_of(SECTOR as u64).min(end);
        if from >= to || to.saturating_sub(next) > reach + SPLIT {
            return None;
        }
        let held: u64 = self.pieces.iter().filter(mine).map(Piece::len).sum();
        if held > 2 * window {
            if !self.waiters.iter().any(|w| w.stream == stream) {
                // What it left out.
                let here = |p: &Piece| matches!(p.state, State::Here(..));
                self.throw(|p| p.stream == stream && p.end <= next && here(p), |_| {});
            }
            return None;
        }
        Some(from..to)
    }

    /// Request `req` fetches these bytes for a stream from now on.
    pub fn begun(&mut self, stream: Stream, bytes: &Range<u64>, req: ReqId, now: Time) {
        let Range { start, end } = *bytes;
        let served = self.flows.get(&stream).map_or(0, |flow| flow.next.saturating_sub(start));
        self.pieces.push(Piece { stream, start, end, begun: now, served, state: State::Coming(req) });
    }

    /// The fetch ended, with its bytes or without. False if they were thrown away meanwhile.
    pub fn ended(&mut self, stream: Stream, req: ReqId, bytes: Option<(Arc<Buf>, Lease)>, now: Time) -> bool {
        let coming = |p: &Piece| matches!(p.state, State::Coming(id) if id == req);
        let Some(index) = self.pieces.iter().position(coming) else { return false };
        match bytes {
            Some((buf, lease)) => self.pieces[index].state = State::Here(buf, lease),
            None => {
                self.pieces.swap_remove(index);
                if let Some(flow) = self.flows.get_mut(&stream) {
                    flow.idle_until = now + AGE;
                }
            }
        }
        true
    }

    /// The fetches that these bytes wait for.
    pub fn fetches(&self, stream: Stream, bytes: &Range<u64>) -> impl Iterator<Item = ReqId> {
        let wanted = move |p: &&Piece| p.stream == stream && p.overlaps(bytes);
        self.pieces.iter().filter(wanted).filter_map(|p| match p.state {
            State::Coming(req) => Some(req),
            State::Here(..) => None,
        })
    }

    /// Read `req` waits until these bytes are here, or will not come.
    pub fn wait(&mut self, req: ReqId, stream: Stream, bytes: &Range<u64>) {
        self.waiters.push(Waiter { req, stream, start: bytes.start, end: bytes.end });
    }

    /// Does this read wait for what is being fetched?
    pub fn is_waiting(&self, req: ReqId) -> bool {
        self.waiters.iter().any(|w| w.req == req)
    }

    /// The read waits no more.
    pub fn forget_waiter(&mut self, req: ReqId) {
        self.waiters.retain(|w| w.req != req);
    }

    /// Takes a read off the list that need not wait any more: what it wants is here, or has to be asked for.
    /// `usable`: may a reader be given what is here?
    pub fn next_ripe(&mut self, now: Time, usable: bool, pool: &Pool) -> Option<(ReqId, Found)> {
        for index in 0..self.waiters.len() {
            let Waiter { req, stream, start, end } = self.waiters[index];
            let found = if usable { self.find(stream, &(start..end), now, pool) } else { Found::Missing };
            if !matches!(found, Found::Coming) {
                self.waiters.remove(index);
                return Some((req, found));
            }
        }
        None
    }

    fn throw(&mut self, which: impl Fn(&Piece) -> bool, mut cut: impl FnMut(ReqId)) {
        let wasted = &mut self.wasted;
        self.pieces.retain(|p| {
            let gone = which(p);
            match p.state {
                State::Coming(req) if gone => cut(req),
                State::Here(..) if gone => *wasted += p.len().saturating_sub(p.served),
                _ => {}
            }
            !gone
        });
    }

    /// Sectors may change: the pieces that overlap them are thrown away. `cut` gets the fetches that are no longer
    /// wanted.
    pub fn throw_sectors(&mut self, sectors: &Range<u64>, cut: impl FnMut(ReqId)) {
        let sector = SECTOR as u64;
        let bytes = sectors.start.saturating_mul(sector)..sectors.end.saturating_mul(sector);
        self.throw(|p| p.overlaps(&bytes), cut);
    }

    /// Throws everything away.
    pub fn throw_all(&mut self, cut: impl FnMut(ReqId)) {
        self.throw(|_| true, cut);
    }

    /// A reader is gone.
    pub fn close(&mut self, stream: Stream, cut: impl FnMut(ReqId)) {
        self.flows.remove(&stream);
        self.throw(|p| p.stream == stream, cut);
    }

    /// Throws away what is too old. A reader that did not keep pace is read ahead of less; where the target did not
    /// keep pace, the reader is not read ahead of for a while.
    pub fn throw_old(&mut self, now: Time, cut: impl FnMut(ReqId)) {
        for p in self.pieces.iter().filter(|p| !p.fresh(now)) {
            if let Some(flow) = self.flows.get_mut(&p.stream) {
                flow.reach /= 2;
                if matches!(p.state, State::Coming(_)) {
                    flow.idle_until = now + REST;
                }
            }
        }
        self.throw(|p| !p.fresh(now), cut);
    }

    /// When the oldest piece becomes too old.
    pub fn next_old(&self) -> Time {
        self.pieces.iter().map(|p| p.begun + AGE).min().unwrap_or(Time::NEVER)
    }

    /// Bytes that were fetched and thrown away since this was last asked.
    pub fn take_wasted(&mut self) -> u64 {
        std::mem::take(&mut self.wasted)
    }
}

#[cfg(test)]
mod tests;
