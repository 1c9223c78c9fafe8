//! One target: the state machine that turns requests into frames and answers into replies.
//!
//! The methods come in four kinds. *Getters* look. *Events* (`receive`, `announced`, `solicited`, `sweep`, `net_*`)
//! tell what the network or the clock did. *Commands* (`submit`, `identify`, `fail_all`, `set_*` …) come from
//! the operator. After events and commands call [`Device::work`] once: it lets everything leave that may leave. Then
//! [`Device::next_deadline`] says when `sweep` must be called next.
//!
//! Effects are put into a [`Sink`]: frames to send, requests that ended, events for the log. The caller carries them
//! out after it has let go of whatever protects the device.

mod ahead;
mod command;
mod flush;
mod growth;
mod identity;
mod issue;
mod paths;
mod receive;
mod settings;
mod sleep;
mod submit;
mod sweep;

use std::collections::VecDeque;

use slab::Slab;

use super::ahead::Ahead;
use super::buffer::Pool;
use super::event::{Event, Reason};
use super::flight::{Flight, TagSpace};
use super::flushing::Flushing;
use super::ids::{FrameId, Identity, NetId, ReqId};
use super::limits::{ALARMS, READS};
use super::locks::Locks;
use super::partition::Partitions;
use super::path::{Path, Trust};
use super::request::{Outcome, Req};
use super::rtt::Rtt;
use super::settings::Settings;
use super::stats::Stats;
use super::time::Time;
use super::transmit::Transmit;
use crate::wire::{Addr, IDENTIFY_LEN, Identify, Mac};

/// What the engine wants done.
#[derive(Debug)]
pub struct Sink<R> {
    /// Frames to send, in order.
    pub frames: Vec<Transmit>,
    /// Requests that ended. A `None` reply never occurs: each came from exactly one request.
    pub done: Vec<(R, Outcome)>,
    /// For the log.
    pub events: Vec<Event>,
    /// Where buffers come from.
    pub pool: Pool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

impl<R> Sink<R> {
    /// An empty sink that takes its buffers from `pool`.
    pub fn new(pool: Pool) -> Sink<R> {
        Sink { frames: Vec::new(), done: Vec::new(), events: Vec::new(), pool }
    }

    /// Nothing to do?
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.done.is_empty() && self.events.is_empty()
    }
}

/// What a received frame was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The answer to something of ours.
    Taken,
    /// Its tag is not one of this device's.
    Unknown,
    /// Its tag is, but it does not fit what was asked; ignored.
    Mismatched,
}

/// What a target is when it is found.
#[derive(Clone, Debug)]
pub struct Birth {
    /// shelf.slot.
    pub addr: Addr,
    /// The netlink it answered on, and that netlink's MTU.
    pub net: NetId,
    /// See `net`.
    pub mtu: usize,
    /// The MAC it answered from.
    pub mac: Mac,
    /// Its config reply: buffers, firmware version, sectors a frame, string.
    pub buffers: u16,
    /// See `buffers`.
    pub fw: u16,
    /// See `buffers`.
    pub advertised: u8,
    /// See `buffers`.
    pub config: Vec<u8>,
    /// Its IDENTIFY data.
    pub ident: Box<[u8; IDENTIFY_LEN]>,
    /// The same, parsed.
    pub identify: Identify,
    /// Random; makes the first tag.
    pub seed: u32,
    /// The tags that are this daemon's.
    pub space: TagSpace,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Up,
    Down(Reason),
}

/// Is the disk still the disk?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Confidence {
    Confirmed,
    /// It was silent: an IDENTIFY that left at or after this instant must match before writes leave or anything is answered.
    Silent(Time),
    /// Something says that it may be another: until such an IDENTIFY matches, no read leaves either, and then all that was
    /// asked before is asked anew.
    Suspect(Time),
}

/// Work that waits to leave, in two lanes so that neither reads nor writes starve, and a third for what nobody waits for.
#[derive(Debug, Default)]
struct Lane {
    /// Frames to send (again), before anything new.
    again: VecDeque<FrameId>,
    /// Requests with frames that have not been issued.
    ready: VecDeque<ReqId>,
    /// Frames issued for the request at the front since it came there.
    streak: u32,
}

/// One target. `R` travels with each request and comes back with its outcome.
#[derive(Debug)]
pub struct Device<R> {
    addr: Addr,
    state: State,
    confidence: Confidence,
    generation: u32,
    identity: Identity,
    info: Identify,
    ident: Box<[u8; IDENTIFY_LEN]>,
    config: Vec<u8>,
    fw: u16,
    buffers: u16,
    flushing: Flushing,
    /// Whoever serves is about to end: nothing is accepted any more.
    retired: bool,
    /// The target refused TRIM although it promised it.
    trim_refused: bool,

    paths: Vec<Option<Path>>,
    flight: Flight,
    slow: Rtt,
    last_heard: Time,
    /// How long this machine had slept when something was last done here.
    slept: u64,
    /// When silence last ended.
    silent_until: Time,
    /// An IDENTIFY that was refused or made no sense is not followed by the next one before this.
    ask_after: Time,

    reqs: Slab<Req<R>>,
    /// Bytes of the writes among them.
    writing: usize,
    lanes: [Lane; 3],
    turn: usize,
    held: Vec<ReqId>,
    /// Frames that may not be sent a second time until a quarantine ends.
    parked: Vec<FrameId>,
    locks: Locks,
    partitions: Partitions,
    ahead: Ahead,
    /// Something speaks against what was read ahead: it is thrown away before anything else is done.
    ahead_doubted: bool,

    /// The IDENTIFY that confirms the disk.
    confirming: Option<FrameId>,
    /// When the next IDENTIFY may be sent because of an announcement or a request for a target that is down.
    identify_at: Time,
    /// When the target may be asked again who holds it.
    holders_at: Time,
    /// It announced itself before that time: IDENTIFY is owed to it, whether anybody waits or not.
    announced: bool,
    /// Announcements that may still be believed; refilled with time. See `announced`.
    credit: u32,
    credit_at: Time,
    /// The operator said `identify`, and the disk is being asked: a larger size is taken over.
    grow: bool,
    /// A larger disk answers, and waits for that word.
    larger: Option<growth::Larger>,
    /// Rediscoveries without an answer.
    missed: u32,

    nopen: u32,
    /// Files that somebody wants to open, who waits for the target's return.
    opening: u32,
    settings: Settings,
    shown: Option<u64>,
    stats: Stats,
    /// Not later than anything that is due.
    timer: Time,
}

impl<R> Device<R> {
    /// A target that has just answered config query and IDENTIFY.
    pub fn new(birth: Birth, now: Time) -> Device<R> {
        let path = Path::new(birth.net, birth.mac, birth.mtu, birth.advertised, Trust::Active, now);
        Device {
            addr: birth.addr,
            state: State::Up,
            confidence: Confidence::Confirmed,
            generation: 1,
            identity: Identity::from(&birth.identify),
            flushing: Flushing::new(birth.identify.flush),
            info: birth.identify,
            ident: birth.ident,
            config: birth.config,
            fw: birth.fw,
            buffers: birth.buffers,
            retired: false,
            trim_refused: false,
            paths: vec![Some(path)],
            flight: Flight::new(birth.space, birth.seed),
            slow: Rtt::default(),
            last_heard: now,
            slept: 0,
            silent_until: now,
            ask_after: now,
            reqs: Slab::new(),
            writing: 0,
            lanes: Default::default(),
            turn: READS,
            held: Vec::new(),
            parked: Vec::new(),
            locks: Locks::default(),
            partitions: Partitions::default(),
            ahead: Ahead::default(),
            ahead_doubted: false,
            confirming: None,
            identify_at: Time::default(),
            holders_at: Time::default(),
            announced: false,
            credit: ALARMS,
            credit_at: now,
            grow: false,
            larger: None,
            missed: 0,
            nopen: 0,
            opening: 0,
            settings: Settings::default(),
            shown: None,
            stats: Stats::default(),
            timer: Time::NEVER,
        }
    }

    /// When [`Device::sweep`] must be called, at the latest. It may turn out that nothing was due then.
    pub fn next_deadline(&self) -> Option<Time> {
        (self.timer != Time::NEVER).then_some(self.timer)
    }

    fn arm(&mut self, at: Time) {
        self.timer = self.timer.min(at);
    }

    /// Frames that may be outstanding, over all paths.
    fn limit(&self) -> u32 {
        self.settings.frames(u32::from(self.buffers))
    }

    fn inflight(&self) -> u32 {
        self.paths.iter().flatten().map(|p| p.window.inflight()).sum()
    }

    /// The only place where the state changes.
    fn enter(&mut self, state: State, sink: &mut Sink<R>) {
        if state == self.state {
            return;
        }
        self.ahead_doubted = true;
        match (self.state, state) {
            (_, State::Down(why)) => {
                if self.state == State::Up {
                    self.stats.downs += 1;
                    sink.events.push(Event::Down(why));
                }
            }
            (State::Down(_), State::Up) => {
                sink.events.push(Event::Up);
            }
            (State::Up, State::Up) => {}
        }
        self.state = state;
    }
}
