//! A virtual machine that connects again: its queue lies in its own memory and outlives every connection, as that of
//! QEMU or cloud-hypervisor does. The messages are the crate vhost's.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Requests must not hang: everything here ends within this.
const PATIENCE: Duration = Duration::from_secs(60);

const ENTRIES: u16 = 64;
/// Each request has three descriptors of its own.
pub const SLOTS: u16 = ENTRIES / 3;
/// Bytes of a request's data, at most.
pub const DATA: usize = 4096;

const TABLE: u64 = 0;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const HEADERS: u64 = 0x4000;
const STATUSES: u64 = 0x5000;
const BYTES: u64 = 0x10000;
const MEMORY: usize = 1 << 20;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
/// What a status is before it is written.
const NONE: u8 = 0xee;

/// What a front end does when it connects again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    /// It keeps nothing for us, and goes on where the used ring ends: QEMU where no area is offered.
    UsedRing,
    /// It keeps the area, and says where the used ring ends: QEMU.
    Area,
    /// It keeps the area, and says how far it has put requests in: cloud-hypervisor.
    AreaAndAvailable,
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    Read,
    Write,
    Flush,
    Discard,
    Zero,
    /// What the disk is called.
    #[allow(dead_code, reason = "the bed `netns` does not ask for it")]
    Id,
}

pub struct Machine {
    front: Option<Frontend>,
    habit: Habit,
    area: Option<(VhostUserInflight, File)>,
    memory: GuestMemoryMmap,
    file: File,
    kick: EventFd,
    call: EventFd,
    given: u16,
    seen: u16,
    /// Which slots are under way, and what they ask for.
    under_way: BTreeMap<u16, Ask>,
}

impl Machine {
    pub fn new(habit: Habit) -> Self {
        let file = File::from(memfd_create("machine", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(MEMORY as u64).unwrap();
        let range = (GuestAddress(0), MEMORY, Some(FileOffset::new(file.try_clone().unwrap(), 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(EFD_NONBLOCK).unwrap());
        let (given, seen, under_way) = (0, 0, BTreeMap::new());
        Self { front: None, habit, area: None, memory, file, kick, call, given, seen, under_way }
    }

    /// Connects, for the first time or again. An error if nobody serves the socket.
    pub fn connect(&mut self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        self.disconnect();
        let mut front = Frontend::connect(path, 1)?;
        front.set_owner()?;
        let features = front.get_features()?;
        // No notice is left out, so that none can be missed here.
        front.set_features(features & !(1 << 29))?;
        let mut protocol = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ;
        if self.habit != Habit::UsedRing {
            protocol |= VhostUserProtocolFeatures::INFLIGHT_SHMFD;
        }
        let offered = front.get_protocol_features()?;
        assert!(offered.contains(protocol), "{offered:?}");
        front.set_protocol_features(protocol)?;
        front.set_mem_table(&[self.region()])?;
        if self.habit != Habit::UsedRing {
            if self.area.is_none() {
                self.area = Some(front.get_inflight_fd(&VhostUserInflight::new(0, 0, 1, ENTRIES))?);
            }
            let (about, file) = self.area.as_ref().unwrap();
            front.set_inflight_fd(about, file.as_raw_fd())?;
        }
        front.set_vring_num(0, ENTRIES)?;
        let base = if self.habit == Habit::AreaAndAvailable { self.given } else { self.used() };
        front.set_vring_base(0, base)?;
        let host = |at: u64| self.host(at);
        let tables = VringConfigData {
            queue_max_size: ENTRIES,
            queue_size: ENTRIES,
            flags: 0,
            desc_table_addr: host(TABLE),
            used_ring_addr: host(USED),
            avail_ring_addr: host(AVAILABLE),
            log_addr: None,
        };
        front.set_vring_addr(0, &tables)?;
        front.set_vring_kick(0, &self.kick)?;
        front.set_vring_call(0, &self.call)?;
        front.set_vring_enable(0, true)?;
        // Only an answer shows that all of it was heard.
        front.get_features()?;
        self.front = Some(front);
        Ok(())
    }

    /// Where this process has what the machine has there.
    fn host(&self, at: u64) -> u64 {
        self.memory.get_host_address(GuestAddress(at)).unwrap() as u64
    }

    fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY as u64,
            userspace_addr: self.host(0),
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// The memory is shared once more, in place of what was shared.
    pub fn share_again(&self) {
        let front = self.front.as_ref().unwrap();
        front.set_mem_table(&[self.region()]).unwrap();
        front.get_features().unwrap();
    }

    /// The connection is cut, whatever is under way.
    pub fn disconnect(&mut self) {
        self.front = None;
    }

    /// The front end stops the queue: what is under way is answered first.
    pub fn stop_queue(&mut self) -> u32 {
        self.front.as_ref().unwrap().get_vring_base(0).unwrap()
    }

    /// Sectors that the disk has now.
    pub fn capacity(&mut self) -> u64 {
        let flags = vhost::vhost_user::message::VhostUserConfigFlags::empty();
        let (_, space) = self.front.as_mut().unwrap().get_config(0, 8, flags, &[0; 8]).unwrap();
        u64::from_le_bytes(space.try_into().unwrap())
    }

    fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    /// A slot that is not under way.
    pub fn free(&self) -> Option<u16> {
        (0..SLOTS).find(|slot| !self.under_way.contains_key(slot))
    }

    /// How many requests are under way.
    pub fn count(&self) -> usize {
        self.under_way.len()
    }

    /// The data of a slot.
    pub fn bytes(&self, slot: u16, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(BYTES + u64::from(slot) * DATA as u64)).unwrap();
        bytes
    }

    fn describe(&self, index: u16, at: u64, len: usize, flags: u16) {
        let words =
            (u128::from(at)) | (len as u128) << 64 | u128::from(flags) << 96 | u128::from(index + 1) << 112;
        self.memory.write_slice(&words.to_le_bytes(), GuestAddress(TABLE + u64::from(index) * 16)).unwrap();
    }

    /// Puts a request in and rings. `bytes` are what is written, or as many as are to be read, or the range's.
    pub fn begin(&mut self, slot: u16, ask: Ask, sector: u64, bytes: &[u8]) {
        assert!(self.under_way.insert(slot, ask).is_none() && bytes.len() <= DATA);
        let (header, status) = (HEADERS + u64::from(slot) * 16, STATUSES + u64::from(slot));
        let data = BYTES + u64::from(slot) * DATA as u64;
        let (kind, in_header): (u32, u64) = match ask {
            Ask::Read => (0, sector),
            Ask::Write => (1, sector),
            Ask::Flush => (4, 0),
            Ask::Discard => (11, 0),
            Ask::Zero => (13, 0),
            Ask::Id => (8, 0),
        };
        self.memory.write_obj(u64::from(kind), GuestAddress(header)).unwrap();
        self.memory.write_obj(in_header, GuestAddress(header + 8)).unwrap();
        self.memory.write_obj(NONE, GuestAddress(status)).unwrap();
        self.memory.write_slice(bytes, GuestAddress(data)).unwrap();
        let (head, len) = (slot * 3, bytes.len());
        self.describe(head, header, 16, NEXT);
        let ranged = [Ask::Discard, Ask::Zero].contains(&ask);
        if ranged {
            self.memory.write_obj(sector, GuestAddress(data)).unwrap();
            self.memory.write_obj((len / 512) as u64, GuestAddress(data + 8)).unwrap();
        }
        let len = if ranged { 16 } else { len };
        self.describe(
            head + 1,
            data,
            len,
            NEXT | if [Ask::Read, Ask::Id].contains(&ask) { WRITE } else { 0 },
        );
        self.describe(head + 2, status, 1, WRITE);
        if ask == Ask::Flush {
            // Without data.
            self.describe(head + 1, status, 1, WRITE);
        }
        let place = AVAILABLE + 4 + u64::from(self.given % ENTRIES) * 2;
        self.memory.write_obj(head, GuestAddress(place)).unwrap();
        self.given = self.given.wrapping_add(1);
        let release = std::sync::atomic::Ordering::Release;
        self.memory.store(self.given, GuestAddress(AVAILABLE + 2), release).unwrap();
        self.kick.write(1).unwrap();
    }

    /// What has come back since this was asked last: slot and status. None comes that is not under way.
    pub fn ended(&mut self) -> Vec<(u16, Ask, u8)> {
        let acquire = std::sync::atomic::Ordering::Acquire;
        let used: u16 = self.memory.load(GuestAddress(USED + 2), acquire).unwrap();
        let mut found = Vec::new();
        while self.seen != used {
            let at = USED + 4 + u64::from(self.seen % ENTRIES) * 8;
            let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
            let slot = (head / 3) as u16;
            let ask = self.under_way.remove(&slot);
            let ask = ask.unwrap_or_else(|| panic!("slot {slot} came back twice"));
            let status: u8 = self.memory.read_obj(GuestAddress(STATUSES + u64::from(slot))).unwrap();
            assert_ne!(status, NONE, "slot {slot} has no status");
            found.push((slot, ask, status));
            self.seen = self.seen.wrapping_add(1);
        }
        found
    }

    /// The same, once the machine was called: a driver that is not called does not look.
    pub fn ended_when_called(&mut self) -> Vec<(u16, Ask, u8)> {
        if self.call.read().is_err() {
            return Vec::new();
        }
        self.ended()
    }

    /// Waits until nothing is under way.
    #[track_caller]
    pub fn all_ended(&mut self) -> Vec<(u16, Ask, u8)> {
        let start = Instant::now();
        let mut found = Vec::new();
        while self.count() > 0 {
            found.extend(self.ended_when_called());
            assert!(start.elapsed() < PATIENCE, "never answered: {:?}", self.under_way);
            std::thread::sleep(Duration::from_micros(200));
        }
        found
    }
}

/// A disk that a machine writes versions to, each block by one request at a time, so that the last version is known.
pub struct Versions {
    /// By block: what it has, and what it may have once the request that is under way has ended.
    blocks: Vec<u32>,
    pending: BTreeMap<u16, (usize, u32)>,
    next: u32,
    dice: u64,
    /// Requests that ended well.
    pub ended: usize,
}

impl Versions {
    /// A disk of zeros of so many blocks.
    pub fn new(blocks: usize) -> Self {
        Self { blocks: vec![0; blocks], pending: BTreeMap::new(), next: 0, dice: 7, ended: 0 }
    }

    /// What a block of that version has.
    pub fn content(block: usize, version: u32) -> Vec<u8> {
        match version {
            0 => vec![0; DATA],
            _ => (0..DATA).map(|n| (block as u32 ^ version ^ (n / 512) as u32) as u8 | 1).collect(),
        }
    }

    /// Begins a request for a block that none is under way for. False if there is no slot.
    pub fn begin(&mut self, machine: &mut Machine, block: usize, ask: Ask) -> bool {
        let Some(slot) = machine.free() else { return false };
        if self.pending.values().any(|(other, _)| *other == block) {
            return false;
        }
        let sector = (block * DATA / 512) as u64;
        let version = match ask {
            Ask::Write => {
                self.next += 1;
                self.next
            }
            Ask::Discard | Ask::Zero => 0,
            Ask::Read | Ask::Flush | Ask::Id => self.blocks[block],
        };
        let bytes = match ask {
            Ask::Write => Self::content(block, version),
            _ => vec![0xdd; DATA],
        };
        self.pending.insert(slot, (block, version));
        machine.begin(slot, ask, sector, &bytes);
        true
    }

    /// Takes what has ended: each well, each read with what the block has.
    #[track_caller]
    pub fn take(&mut self, machine: &Machine, ended: Vec<(u16, Ask, u8)>) {
        for (slot, ask, status) in ended {
            let (block, version) = self.pending.remove(&slot).unwrap();
            assert_eq!(status, 0, "{ask:?} of block {block}");
            if ask == Ask::Read {
                assert!(
                    machine.bytes(slot, DATA) == Self::content(block, version),
                    "block {block} is not {version}"
                );
            }
            self.blocks[block] = version;
            self.ended += 1;
        }
    }

    /// Begins so many requests of all kinds, and takes what comes back meanwhile, each well.
    pub fn work(&mut self, machine: &mut Machine, count: usize) {
        const KINDS: [Ask; 6] = [Ask::Write, Ask::Read, Ask::Write, Ask::Flush, Ask::Zero, Ask::Discard];
        let start = Instant::now();
        let mut begun = 0;
        while begun < count {
            self.dice = self.dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let block = (self.dice >> 33) as usize % self.blocks.len();
            begun += usize::from(self.begin(machine, block, KINDS[(self.dice >> 20) as usize % KINDS.len()]));
            let ended = machine.ended_when_called();
            self.take(machine, ended);
            assert!(start.elapsed() < PATIENCE, "nothing comes back");
            if machine.free().is_none() {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// What the whole disk has, when nothing is under way.
    pub fn disk(&self) -> Vec<u8> {
        assert!(self.pending.is_empty());
        self.blocks.iter().enumerate().flat_map(|(block, version)| Self::content(block, *version)).collect()
    }
}
