//! One target: the state machine that turns requests into frames and answers into replies.
//!
//! The methods come in four kinds. *Getters* change nothing. *Events* (`receive`, `announced`, `solicited`, `sweep`,
//! `net_*`) say what the network or the clock did. *Commands* (`submit`, `identify`, `fail_all`, `set_*` …) come
//! from the operator. After events and commands call [`Device::work`] once: it lets everything leave that may leave.
//! Then [`Device::next_deadline`] says when `sweep` must be called next.
//!
//! Effects are put into a [`Sink`]: frames to send, requests that ended, events for the log. The caller carries them
//! out after it has let go of whatever protects the device.

mod ahead;
mod check;
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

use slab::Slab;

use super::ahead::Ahead;
use super::buffer::Pool;
use super::disk::Disk;
use super::doubt::Doubt;
use super::event::{Event, Reason};
use super::flight::{Flight, TagSpace};
use super::ids::{FrameId, NetId, ReqId};
use super::lanes::Lanes;
use super::locks::Locks;
use super::path::{Path, Trust};
use super::paths::Paths;
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
    /// Its tag is ours, but it does not fit what was asked; ignored.
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

/// One target. `R` travels with each request and comes back with its outcome.
#[derive(Debug)]
pub struct Device<R> {
    addr: Addr,
    state: State,
    doubt: Doubt,
    disk: Disk,
    /// The daemon is about to end: nothing is accepted any more.
    retired: bool,

    paths: Paths,
    flight: Flight,
    slow: Rtt,
    /// How long this machine had slept when something was last done here.
    slept: u64,
    /// No IDENTIFY leaves before this time, after one that was refused or made no sense.
    ask_after: Time,

    reqs: Slab<Req<R>>,
    /// Bytes of the writes among them.
    writing: usize,
    lanes: Lanes,
    held: Vec<ReqId>,
    locks: Locks,
    ahead: Ahead,
    /// What was read ahead may be wrong: it is thrown away before anything else is done.
    ahead_doubted: bool,

    /// The IDENTIFY that confirms the disk.
    confirming: Option<FrameId>,
    /// When the next IDENTIFY may be sent because of an announcement or a request for a target that is down.
    identify_at: Time,
    /// When the target may be asked again which hosts hold it.
    holders_at: Time,
    /// It announced itself before that time: IDENTIFY is still to be sent, whether a request waits or not.
    announced: bool,
    /// The operator said `identify`, and the disk is being asked: a larger size is taken over.
    grow: bool,
    /// A larger disk answers, and waits for that word.
    larger: Option<growth::Larger>,
    /// Rediscoveries without an answer.
    missed: u32,

    nopen: u32,
    /// Opens that wait for the target's return.
    opening: u32,
    settings: Settings,
    stats: Stats,
    /// Not later than anything that is due.
    timer: Time,
}

impl<R> Device<R> {
    /// A target that has just answered config query and IDENTIFY.
    pub fn new(birth: Birth, now: Time) -> Device<R> {
        let path = Path::new(birth.net, birth.mac, birth.mtu, birth.advertised, Trust::Active, now);
        let mut disk = Disk::new(birth.identify, birth.ident);
        disk.take_limits(birth.buffers, birth.fw, &birth.config);
        Device {
            addr: birth.addr,
            state: State::Up,
            doubt: Doubt::new(now),
            disk,
            retired: false,
            paths: Paths::new(path),
            flight: Flight::new(birth.space, birth.seed),
            slow: Rtt::default(),
            slept: 0,
            ask_after: now,
            reqs: Slab::new(),
            writing: 0,
            lanes: Lanes::default(),
            held: Vec::new(),
            locks: Locks::default(),
            ahead: Ahead::default(),
            ahead_doubted: false,
            confirming: None,
            identify_at: Time::default(),
            holders_at: Time::default(),
            announced: false,
            grow: false,
            larger: None,
            missed: 0,
            nopen: 0,
            opening: 0,
            settings: Settings::default(),
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
        self.settings.frames(self.disk.buffers())
    }

    /// The only place where the state changes.
    fn enter(&mut self, state: State, sink: &mut Sink<R>) {
        if state == self.state {
            return;
        }
        self.ahead_doubted = true;
        match (self.state, state) {
            (_, State::Down(why)) => {
                // One that is forgotten, as all are at the daemon's end, has no trouble.
                if self.state == State::Up && !self.retired {
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

#[cfg(test)]
mod tests;
