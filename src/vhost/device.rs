//! One front end: what it has told of itself, its queues, and its requests that are under way.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use slab::Slab;
use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_OK};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::chain::{self, Pieces};
use super::channel::Channel;
use super::inbox::{Bell, Inbox};
use super::memory::{Memory, REGIONS_MAX};
use super::request::{About, Plan, Refused};
use super::ring::Ring;
use super::{Disk, Facts, Failed, Outcome, QUEUES_MAX, Source, config};

/// What an event of the thread's epoll is about: the bell.
pub const BELL: u64 = 0;
/// The front end's messages.
pub const MESSAGES: u64 = 1;
/// A queue's kick: its number comes on top.
pub const KICKS: u64 = 2;

/// A chain of a guest that is to be answered.
struct Chain {
    ring: usize,
    /// Its number there.
    number: u64,
    wanted: Pieces,
    status: GuestAddress,
    /// Bytes that it holds.
    cost: u64,
}

/// See the module.
pub struct Device {
    source: Arc<dyn Source>,
    disk: Box<dyn Disk>,
    facts: Facts,
    features: u64,
    memory: Memory,
    rings: Vec<Ring>,
    chains: Slab<Chain>,
    /// Bytes that these hold.
    bytes: u64,
    /// Queues that were left alone because that is too much: one bit each.
    waiting: u8,
    /// The queue that is looked at first, so that each has its turn.
    turn: usize,
    bell: Arc<Bell>,
    inbox: Arc<Inbox>,
    /// Its memory is used again.
    outcomes: Vec<(usize, Outcome)>,
    epoll: Epoll,
    /// To see that the front end has gone.
    connection: UnixStream,
    channel: Option<Channel>,
    stopping: Arc<AtomicBool>,
    /// Queues to be looked at without a kick: one bit each.
    again: u8,
}

fn unfit(error: impl std::fmt::Display) -> Error {
    Error::ReqHandlerError(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
}

fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("it was not offered"))
}

impl Device {
    /// For a front end that has just connected. `stopping` says that it must not be waited for any more.
    pub fn new(
        source: Arc<dyn Source>,
        disk: Box<dyn Disk>,
        bell: Arc<Bell>,
        epoll: Epoll,
        connection: UnixStream,
        stopping: Arc<AtomicBool>,
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
            chains: Slab::new(),
            bytes: 0,
            waiting: 0,
            turn: 0,
            inbox: Inbox::new(bell.clone()),
            bell,
            outcomes: Vec::new(),
            epoll,
            connection,
            channel: None,
            stopping,
            again: 0,
        })
    }

    /// The descriptors that the thread waits for.
    pub fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// The disk may have another size: if so, the guest is told.
    pub fn look_again(&mut self) {
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
        self.memory.is_lost()
    }

    /// Whether there is work that nobody will ring for.
    pub fn has_more(&self) -> bool {
        self.again != 0
    }

    /// Does such work.
    pub fn go_on(&mut self) {
        let again = std::mem::take(&mut self.again);
        self.turn = (self.turn + 1) % QUEUES_MAX;
        let in_turn = (self.turn..QUEUES_MAX).chain(0..self.turn);
        for number in in_turn.filter(|number| again & 1 << number != 0) {
            self.serve(number);
        }
    }

    /// Takes requests out of a queue: as many as it has entries, so that everything else has its turn.
    pub fn serve(&mut self, number: usize) {
        let memory = self.memory.guest().clone();
        let Some(ring) = self.rings.get_mut(number).filter(|ring| ring.is_live()) else { return };
        if !ring.checked {
            ring.checked = ring.is_valid(&*memory);
            if !ring.checked {
                return self.stop(number, "its tables are not in the guest's memory");
            }
        }
        if let Err(error) = ring.hush(&*memory) {
            return self.stop(number, error);
        }
        let mut empty = false;
        for _ in 0..super::ENTRIES_MAX {
            let ring = &mut self.rings[number];
            if !ring.is_live() {
                return;
            }
            // It is looked at again when answers have left: until then the guest need not ring.
            if self.bytes >= super::BYTES_UNDER_WAY {
                self.waiting |= 1 << number;
                return self.tell(number);
            }
            match ring.pop(memory.clone()) {
                Ok(Some(chain)) => {
                    empty = false;
                    self.take(number, &memory, chain);
                }
                Ok(None) => match ring.listen(&*memory) {
                    Ok(false) => return self.tell(number),
                    // It has put something in meanwhile, and cannot have done that and not done it.
                    Ok(true) if empty => return self.stop(number, "an entry cannot be read"),
                    Ok(true) => empty = true,
                    Err(error) => return self.stop(number, error),
                },
                Err(error) => return self.stop(number, error),
            }
        }
        self.again |= 1 << number;
        self.tell(number);
    }

    /// Begins one request, or answers it.
    fn take(
        &mut self,
        number: usize,
        memory: &Arc<GuestMemoryMmap>,
        chain: DescriptorChain<Arc<GuestMemoryMmap>>,
    ) {
        if self.rings[number].is_full() {
            return self.stop(number, "more requests are under way than it has entries");
        }
        let head = chain.head_index();
        let parts = match chain::parts(chain) {
            Ok(parts) => parts,
            Err(broken) => return self.stop(number, broken),
        };
        let durable = self.features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        let about = About { memory: &**memory, facts: &self.facts, pool: self.disk.pool(), durable };
        let plan = about.plan(&parts);
        let (ring, number) = (number, self.rings[number].begin(head));
        let cost = plan.as_ref().map_or(0, Plan::cost);
        let chain = Chain { ring, number, wanted: parts.wanted, status: parts.status, cost };
        match plan {
            Ok(Plan::Ask(ask)) => {
                self.bytes += cost;
                let (inbox, number) = (self.inbox.clone(), self.chains.insert(chain));
                self.disk.submit(ask, Box::new(move |outcome| inbox.put(number, outcome)));
            }
            Ok(Plan::Tell(bytes)) => self.answer(&chain, Ok(&bytes)),
            Err(refused) => self.answer(&chain, Err(refused)),
        }
    }

    /// Answers what has been done.
    pub fn collect(&mut self) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.inbox.take(&mut outcomes);
        let mut touched = 0u8;
        for (number, outcome) in outcomes.drain(..) {
            let Some(chain) = self.chains.try_remove(number) else { continue };
            self.bytes -= chain.cost;
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
        if self.bytes < super::BYTES_UNDER_WAY {
            self.again |= std::mem::take(&mut self.waiting);
        }
        for number in (0..QUEUES_MAX).filter(|number| touched & 1 << number != 0) {
            self.tell(number);
        }
    }

    /// Puts bytes and status where the guest wants them, and gives the chain back when those before it are answered.
    fn answer(&mut self, chain: &Chain, result: std::result::Result<&[u8], Refused>) {
        let memory = self.memory.guest().clone();
        if !self.rings[chain.ring].awaits(chain.number) {
            // Whoever waits for a queue that is stopped learns that this one is over.
            let _ = self.rings[chain.ring].done(&*memory, chain.number, 0);
            return;
        }
        let written = result.and_then(|bytes| Ok(chain.wanted.write(&*memory, bytes)?));
        let (status, written) = match written {
            Ok(written) => (VIRTIO_BLK_S_OK as u8, written),
            Err(refused) => (refused.status(), 0),
        };
        if memory.write_obj(status, chain.status).is_err() {
            self.stop(chain.ring, "the place for a status has gone");
        }
        if let Err(error) = self.rings[chain.ring].done(&*memory, chain.number, written + 1) {
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
        self.again |= 1 << number;
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
        while self.rings[number].is_busy() {
            // Of the connection only its end is looked at, which is always reported.
            let waits_for = |what, events| PollFd::new(what, events);
            let mut waits = [
                waits_for(self.bell.as_fd(), PollFlags::POLLIN),
                waits_for(self.connection.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut waits, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(Error::ReqHandlerError(error.into())),
            }
            let gone = waits[1].revents().is_some_and(|events| !events.is_empty());
            self.bell.heard();
            if gone || self.stopping.load(Ordering::Acquire) {
                return Err(Error::Disconnected);
            }
            self.collect();
        }
        Ok(())
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
            ring.forget();
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

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset()
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(config::features(&self.facts) | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.features = features;
        let at_once = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        self.each_ring(|ring| {
            ring.set_event_idx(features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
            ring.enabled |= at_once;
        })
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.moved();
        self.memory.replace(regions, files).map_err(Error::ReqHandlerError)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.ring(index)?.1.set_entries(num).map_err(unfit)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        let guest = |user| self.memory.guest_address(user).ok_or(Error::InvalidParam);
        let (descriptor, available, used) = (guest(descriptor)?, guest(available)?, guest(used)?);
        let memory = self.memory.guest().clone();
        self.ring(index)?.1.set_tables(&*memory, descriptor, available, used).map_err(unfit)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.ring(index)?.1.set_next(u16::try_from(base).map_err(|_| Error::InvalidParam)?);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let number = self.ring(index)?.0;
        self.unwatch(number)?;
        // What is under way is answered before the front end is told that nothing is.
        self.drain(number)?;
        let ring = &mut self.rings[number];
        ring.set_ready(false);
        (ring.kick, ring.call) = (None, None);
        Ok(VhostUserVringState::new(index, u32::from(ring.next())))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let number = self.ring(index)?.0;
        self.unwatch(number)?;
        let ring = &mut self.rings[number];
        // Without one the queue would have to be looked at all the time.
        ring.kick = Some(file.ok_or(Error::InvalidOperation("a queue without a kick"))?);
        ring.set_ready(true);
        self.watch(number)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index)?.1.call = file;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index)?.1.err = file;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES_MAX as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let (number, ring) = self.ring(index)?;
        ring.enabled = enable;
        self.watch(number)
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        self.facts = self.disk.facts();
        Ok(config::space(&self.facts, offset, size))
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        // The only field that a guest may write is the cache mode, which is not offered.
        not_offered()
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        not_offered()
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        not_offered()
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.moved();
        self.memory.add(region, file).map_err(Error::ReqHandlerError)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.moved();
        self.memory.remove(region).map_err(Error::ReqHandlerError)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        not_offered()
    }
}
