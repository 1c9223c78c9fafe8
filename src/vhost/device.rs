//! One front end: what it has told of itself, its queues, and its requests that are under way.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use slab::Slab;
use vhost::vhost_user::{Error, Result};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_OK};
use vm_memory::{Bytes, GuestAddress};

use super::chain::{self, Pieces};
use super::channel::Channel;
use super::inbox::{Inbox, Orders, Over};
use super::inflight::Area;
use super::memory::{Guest, Memory};
use super::request::{About, Plan, Refused};
use super::ring::Ring;
use super::tally::{Moved, Tally};
use super::under_way::UnderWay;
use super::{Ask, Disk, Done, Facts, Failed, QUEUES_MAX, Source};

mod messages;
mod rest;

/// What an event of the thread's epoll is about: the bell.
pub const BELL: u64 = 0;
/// The front end's messages.
pub const MESSAGES: u64 = 1;
/// A queue's kick: its number comes on top.
pub const KICKS: u64 = 2;

/// Requests that are taken before their frames leave: a target has something to do while more are taken.
const TOGETHER: usize = 16;

/// Bytes of requests that are taken in one turn: fewer than would keep the thread from receiving for so long that its
/// absence is noticed. The last request may go beyond it.
const BYTES_IN_A_TURN: u64 = 1 << 20;

/// A chain of a guest that is to be answered.
struct Chain {
    ring: usize,
    /// Its number there.
    number: u64,
    head: u16,
    wanted: Pieces,
    status: GuestAddress,
    moved: Moved,
}

/// See the module.
pub struct Device {
    source: Arc<dyn Source>,
    disk: Box<dyn Disk>,
    facts: Facts,
    features: u64,
    memory: Memory,
    rings: Vec<Ring>,
    /// Where the front end keeps which requests are under way.
    area: Option<Rc<Area>>,
    /// Its machine had another disk, and goes on with what it has of that one in memory.
    had_another: bool,
    chains: Slab<Chain>,
    /// What the socket has under way: these, and those of front ends that have gone.
    under_way: Arc<UnderWay>,
    /// Requests that were taken and not begun yet.
    asks: Vec<(Ask, Done)>,
    /// The queue that is looked at first, so that each has its turn.
    turn: usize,
    inbox: Arc<Inbox>,
    /// Kept between calls, so that its memory is allocated once.
    outcomes: Vec<Over>,
    epoll: Epoll,
    /// To see that the front end has gone.
    connection: UnixStream,
    channel: Option<Channel>,
    orders: Arc<Orders>,
    tally: Arc<Tally>,
    /// Turns since the descriptors were looked at.
    turns: u32,
}

fn unfit(error: impl std::fmt::Display) -> Error {
    Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
}

impl Device {
    /// For a front end that has just connected.
    pub fn new(
        source: Arc<dyn Source>,
        disk: Box<dyn Disk>,
        orders: Arc<Orders>,
        tally: Arc<Tally>,
        under_way: Arc<UnderWay>,
        epoll: Epoll,
        connection: UnixStream,
    ) -> Result<Self> {
        let mut rings = Vec::with_capacity(QUEUES_MAX);
        for _ in 0..QUEUES_MAX {
            rings.push(Ring::new().map_err(unfit)?);
        }
        let facts = disk.facts();
        Ok(Self {
            source,
            disk,
            facts,
            features: 0,
            memory: Memory::default(),
            rings,
            area: None,
            had_another: false,
            chains: Slab::new(),
            under_way,
            asks: Vec::new(),
            turn: 0,
            inbox: Inbox::new(orders.bell.clone()),
            outcomes: Vec::new(),
            epoll,
            connection,
            channel: None,
            orders,
            tally,
            turns: 0,
        })
    }

    /// The descriptors that the thread waits for.
    pub fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// The disk may have another size: if so, the guest is told.
    pub fn look_again(&mut self) {
        if !self.orders.was_resized() {
            return;
        }
        let before = self.facts.size;
        self.facts = self.disk.facts();
        if let Some(channel) = self.channel.as_ref().filter(|_| before != self.facts.size) {
            channel.config_changed();
        }
    }

    /// A message is there. It is looked at before it is read: it may bring the way back.
    pub fn look_for_channel(&mut self) {
        if let Some(channel) = Channel::in_next_message(&self.connection) {
            self.channel = Some(channel);
        }
    }

    /// Whether the front end has taken back memory that it shared.
    pub fn has_lost_memory(&self) -> bool {
        self.memory.is_lost() || self.area.as_ref().is_some_and(|area| area.is_lost())
    }

    /// Does what there is to do: answers what has been done, and begins what the guest asks for.
    pub fn work(&mut self) {
        self.collect();
        self.turn = (self.turn + 1) % QUEUES_MAX;
        let in_turn = (self.turn..QUEUES_MAX).chain(0..self.turn);
        in_turn.for_each(|number| self.serve(number));
        self.begin();
    }

    /// Whether a queue has its tables, and has gone on where it was when its front end was here last.
    fn is_set_up(&mut self, number: usize, memory: &Guest) -> bool {
        let ring = &mut self.rings[number];
        ring.checked = ring.checked || ring.is_valid(memory);
        if !ring.checked {
            self.stop(number, "its tables are not in the guest's memory");
        } else if let Err(error) = ring.resume(memory) {
            self.stop(number, error);
        }
        !self.rings[number].stopped
    }

    /// Takes requests out of a queue: as many as it has entries, so that everything else has its turn.
    fn serve(&mut self, number: usize) {
        let memory = self.memory.guest().clone();
        if !self.rings.get(number).is_some_and(Ring::is_live) || !self.is_set_up(number, &memory) {
            return;
        }
        match self.rings[number].has_new(&*memory) {
            Ok(true) => {}
            Ok(false) => return self.tell(number),
            Err(error) => return self.stop(number, error),
        }
        if let Err(error) = self.rings[number].hush(&*memory) {
            return self.stop(number, error);
        }
        let share = self.disk.share();
        let (mut empty, mut bytes) = (false, 0);
        for _ in 0..super::ENTRIES_MAX {
            if !self.rings[number].is_live() || self.memory.is_lost() {
                return;
            }
            // What is too much stays in the queue until answers have left.
            if !self.under_way.has_room(share) || bytes >= BYTES_IN_A_TURN {
                break;
            }
            let ring = &mut self.rings[number];
            match ring.pop(&*memory) {
                Ok(Some(head)) => {
                    empty = false;
                    bytes += self.take(number, &memory, head);
                }
                Ok(None) => match ring.has_new(&*memory) {
                    Ok(false) => break,
                    // It has put something in meanwhile, and cannot have done that and not done it.
                    Ok(true) if empty => return self.stop(number, "an entry cannot be read"),
                    Ok(true) => empty = true,
                    Err(error) => return self.stop(number, error),
                },
                Err(error) => return self.stop(number, error),
            }
        }
        self.tell(number);
    }

    /// Begins what was taken.
    fn begin(&mut self) {
        if !self.asks.is_empty() {
            self.disk.submit_all(&mut self.asks);
        }
    }

    /// Begins one request, or answers it. Returns the bytes that it holds.
    fn take(&mut self, number: usize, memory: &Guest, head: u16) -> u64 {
        if self.rings[number].is_full() {
            self.stop(number, "more requests are under way than it has entries");
            return 0;
        }
        let parts = match chain::parts(memory, self.rings[number].table(), head) {
            Ok(parts) => parts,
            Err(broken) => {
                self.stop(number, broken);
                return 0;
            }
        };
        let durable = self.features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        let about = About { memory, facts: &self.facts, pool: self.disk.pool(), durable };
        let plan = if self.had_another { Err(Refused::Io) } else { about.plan(&parts) };
        let (ring, number) = (number, self.rings[number].begin(head));
        let cost = plan.as_ref().map_or(0, Plan::cost);
        let moved = plan.as_ref().map_or(Moved::Nothing, Plan::moved);
        let chain = Chain { ring, number, head, wanted: parts.wanted, status: parts.status, moved };
        self.tally.taken();
        match plan {
            Ok(Plan::Ask(ask)) => {
                let place = self.under_way.begin(cost);
                let (inbox, number) = (self.inbox.clone(), self.chains.insert(chain));
                self.asks.push((ask, Box::new(move |outcome| inbox.put((number, outcome, place)))));
                if self.asks.len() >= TOGETHER {
                    self.begin();
                }
            }
            Ok(Plan::Tell(bytes)) => self.answer(&chain, Ok(&bytes)),
            Err(refused) => self.answer(&chain, Err(refused)),
        }
        cost
    }

    /// Answers what has been done.
    pub fn collect(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.inbox.take(&mut outcomes);
        let mut touched = 0u8;
        for (number, outcome, _place) in outcomes.drain(..) {
            if self.memory.is_lost() {
                break;
            }
            let Some(chain) = self.chains.try_remove(number) else { continue };
            touched |= 1 << chain.ring;
            match &outcome {
                Ok(Some(data)) if data.len() as u64 == chain.wanted.len() => self.answer(&chain, Ok(data)),
                // Fewer bytes than were asked for would be the guest's old ones.
                Ok(Some(_)) | Err(Failed::Io) => self.answer(&chain, Err(Refused::Io)),
                Ok(None) => self.answer(&chain, Ok(&[])),
                Err(Failed::Unsupported) => self.answer(&chain, Err(Refused::Unsupported)),
            }
        }
        self.outcomes = outcomes;
        for number in (0..QUEUES_MAX).filter(|number| touched & 1 << number != 0) {
            self.tell(number);
        }
    }

    /// Puts bytes and status where the guest wants them, and gives the chain back when those before it are answered.
    fn answer(&mut self, chain: &Chain, result: std::result::Result<&[u8], Refused>) {
        let memory = self.memory.guest().clone();
        if !self.rings[chain.ring].awaits(chain.number) {
            // Whoever waits for a queue that is stopped learns that this one is over.
            let _ = self.rings[chain.ring].done(&*memory, (chain.number, chain.head), 0);
            return;
        }
        let written = result.and_then(|bytes| Ok(chain.wanted.write(&*memory, bytes)?));
        let (status, written) = match written {
            Ok(written) => {
                self.tally.ended(chain.moved);
                (VIRTIO_BLK_S_OK as u8, written)
            }
            Err(refused) => {
                self.tally.failed();
                (refused.status(), 0)
            }
        };
        if memory.write_obj(status, chain.status).is_err() {
            self.stop(chain.ring, "the place for a status has gone");
        }
        let which = (chain.number, chain.head);
        if let Err(error) = self.rings[chain.ring].done(&*memory, which, written + 1) {
            self.stop(chain.ring, error);
        }
    }

    fn tell(&mut self, number: usize) {
        let memory = self.memory.guest().clone();
        let ring = &mut self.rings[number];
        if ring.stopped {
            return;
        }
        if let Err(error) = ring.tell(&*memory) {
            self.stop(number, error);
        }
    }

    /// The queue is not served any more until it is set up anew.
    fn stop(&mut self, number: usize, why: impl std::fmt::Display) {
        self.rings[number].stop();
        self.source.say(&format!("queue {number} is stopped: {why}"));
    }

    fn ring(&mut self, index: impl TryInto<usize>) -> Result<(usize, &mut Ring)> {
        let number = index.try_into().map_err(|_| Error::InvalidParam)?;
        self.rings.get_mut(number).map(|ring| (number, ring)).ok_or(Error::InvalidParam)
    }

    /// The kick of a queue is watched while the queue may be served, and it is looked at when that begins.
    fn watch(&mut self, number: usize) -> Result<()> {
        let ring = &self.rings[number];
        let Some(kick) = &ring.kick else { return Ok(()) };
        if !ring.is_live() {
            return self.unwatch(number);
        }
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, KICKS + number as u64);
        match self.epoll.add(kick, event) {
            // QEMU does not ask for the size when it connects again, and hears nothing while its machine is off.
            Ok(()) if number == 0 => self.channel.iter().for_each(Channel::config_changed),
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(Error::ReqHandlerError(error.into())),
        }
        Ok(())
    }

    fn unwatch(&self, number: usize) -> Result<()> {
        let Some(kick) = &self.rings[number].kick else { return Ok(()) };
        match self.epoll.delete(kick) {
            Ok(()) | Err(Errno::ENOENT | Errno::EPERM) => Ok(()),
            Err(error) => Err(Error::ReqHandlerError(error.into())),
        }
    }

    /// Waits until all requests of a queue are answered: for as long as files would wait, or until the front end has
    /// gone, or the export ends.
    fn drain(&mut self, number: usize) -> Result<()> {
        loop {
            self.take_again(number);
            self.begin();
            // What is lost may be why nothing more comes.
            if self.has_lost_memory() {
                return Err(Error::Disconnected);
            }
            if !self.rings[number].is_busy() {
                return Ok(());
            }
            if !self.inbox.may_sleep() {
                self.collect();
                continue;
            }
            if self.rings[number].has_more_again() && self.under_way.has_room_now_or_rings(self.disk.share())
            {
                continue;
            }
            // Of the connection only its end is looked at, which is always reported.
            let waits_for = |what, events| PollFd::new(what, events);
            let mut waits = [
                waits_for(self.orders.bell.as_fd(), PollFlags::POLLIN),
                waits_for(self.connection.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut waits, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(Error::ReqHandlerError(error.into())),
            }
            let gone = waits[1].revents().is_some_and(|events| !events.is_empty());
            self.orders.bell.heard();
            if gone || self.orders.is_stopping() {
                return Err(Error::Disconnected);
            }
            // It may take as long as a dead target's deadline.
            self.look_again();
            self.collect();
        }
    }

    /// Takes what is to be done again, as far as there is room.
    fn take_again(&mut self, number: usize) {
        let (memory, share) = (self.memory.guest().clone(), self.disk.share());
        let ring = &self.rings[number];
        if ring.stopped || !ring.is_ready() || !self.is_set_up(number, &memory) {
            return;
        }
        while self.under_way.has_room(share) {
            let Some(head) = self.rings[number].pop_again() else { return };
            self.take(number, &memory, head);
        }
    }

    /// The memory is another one: each queue's tables are looked for again.
    fn moved(&mut self) {
        self.rings.iter_mut().for_each(|ring| ring.checked = false);
    }

    /// No queue is served until it is set up anew, and what is under way is answered to nobody.
    fn reset(&mut self) -> Result<()> {
        self.features = 0;
        self.disk.forget();
        self.each_ring(|ring| {
            ring.enabled = false;
            ring.end();
        })
    }

    fn each_ring(&mut self, mut change: impl FnMut(&mut Ring)) -> Result<()> {
        for number in 0..self.rings.len() {
            change(&mut self.rings[number]);
            self.watch(number)?;
        }
        Ok(())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.inbox.close();
    }
}
