//! The queues of a front end that is nothing but memory: what it can put into them, and what comes back.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use parking_lot::Mutex;
use vhost::vhost_user::VhostUserBackendReqHandlerMut;
use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserVringAddrFlags};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use super::device::Device;
use super::inbox::Orders;
use super::tally::Tally;
use super::under_way::UnderWay;
use super::*;
use crate::engine::{Buf, Identity};
use crate::wire::{SECTOR, Text};

mod again;
mod closing;
mod hostile;
mod limits;
mod memory;
mod order;
mod plenty;
mod stopping;
mod telling;

/// Bytes of the guest's memory, and of the disk.
const MEMORY: u64 = 1 << 20;
const DISK: usize = 64 << 10;
const ENTRIES: u16 = 16;
/// Where regions of the guest's memory meet: what is asked for lies in one, and across two, and across three.
const BORDERS: [u64; 6] = [0x2000, 0x3000, 0x4000, 0x9000, 0x10000, 0x11000];
/// Where the queue's tables are.
const TABLE: u64 = 0;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
/// Where the front end has the guest's memory: another number than the guest's.
const USER: u64 = 0x7000_0000;

fn origin() -> Origin {
    let disk = Identity { serial: Text::new("serial"), model: Text::new("model"), sectors: 128 };
    Origin { disk, start: 0 }
}

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
/// What a status is before it is written.
const NONE: u8 = 0xee;

const READ: u16 = 0;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// What the disk was asked, and its bytes.
struct Fake {
    bytes: Mutex<Vec<u8>>,
    asked: Mutex<Vec<&'static str>>,
    /// Answers that are held back.
    held: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    hold: AtomicBool,
    facts: Mutex<Facts>,
    origin: Mutex<Option<Origin>>,
    pool: Pool,
    share: Mutex<Share>,
    orders: Arc<Orders>,
    under_way: Arc<UnderWay>,
    said: Mutex<Vec<String>>,
    open: AtomicBool,
    forgotten: AtomicUsize,
}

impl Fake {
    fn new(change: impl FnOnce(&mut Facts)) -> Arc<Self> {
        let id = "a name of twenty bytes and more".into();
        let mut facts = Facts { size: DISK as u64, read_only: false, physical_log2: 0, discard: true, id };
        change(&mut facts);
        let orders = Orders::new().unwrap();
        Arc::new(Self {
            bytes: Mutex::new((0..facts.size as usize).map(|n| (n / SECTOR) as u8).collect()),
            asked: Mutex::default(),
            held: Mutex::default(),
            hold: AtomicBool::new(false),
            facts: Mutex::new(facts),
            origin: Mutex::new(Some(origin())),
            pool: Pool::default(),
            share: Mutex::new(Share::of_one(&Pool::default(), 1)),
            under_way: UnderWay::new(orders.bell.clone()),
            orders,
            said: Mutex::default(),
            open: AtomicBool::new(true),
            forgotten: AtomicUsize::new(0),
        })
    }

    fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        held.into_iter().for_each(|answer| answer());
    }

    fn run(&self, ask: Ask) -> Outcome {
        let mut bytes = self.bytes.lock();
        let size = bytes.len() as u64;
        let note = |what, offset: u64, len: u64| {
            self.asked.lock().push(what);
            assert!(
                len > 0 && offset.is_multiple_of(512) && len.is_multiple_of(512),
                "{what} {offset} {len}"
            );
            assert!(offset + len <= size, "{what} {offset} {len}: nobody has that");
            offset as usize..(offset + len) as usize
        };
        Ok(match ask {
            Ask::Read { offset, len } => {
                let range = note("read", offset, len as u64);
                Some(Data::from(Buf::from(bytes[range].to_vec())))
            }
            Ask::Write { offset, data, durable } => {
                let range = note(if durable { "durable" } else { "write" }, offset, data.len() as u64);
                bytes[range].copy_from_slice(data.bytes());
                None
            }
            Ask::Flush => {
                self.asked.lock().push("flush");
                None
            }
            Ask::Discard { offset, len, durable } => {
                let range = note(if durable { "durable" } else { "discard" }, offset, len);
                bytes[range].fill(0);
                None
            }
            Ask::Zero { offset, len, durable } => {
                let range = note(if durable { "durable" } else { "zero" }, offset, len);
                bytes[range].fill(0);
                None
            }
        })
    }
}

struct Handle(Arc<Fake>);

impl Disk for Handle {
    fn facts(&self) -> Facts {
        self.0.facts.lock().clone()
    }
    fn origin(&self) -> Option<Origin> {
        *self.0.origin.lock()
    }
    fn pool(&self) -> &Pool {
        &self.0.pool
    }
    fn share(&self) -> Share {
        *self.0.share.lock()
    }
    fn submit(&self, ask: Ask, done: Done) {
        let fake = self.0.clone();
        if self.0.hold.load(Ordering::SeqCst) {
            self.0.held.lock().push(Box::new(move || done(fake.run(ask))));
        } else {
            done(fake.run(ask));
        }
    }
    fn forget(&self) {
        self.0.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.open.store(false, Ordering::SeqCst);
    }
}

impl Source for Fake {
    fn open(&self) -> Result<Box<dyn Disk>, String> {
        Err("nobody opens this one".into())
    }
    fn say(&self, words: &str) {
        self.said.lock().push(words.into());
    }
}

/// A guest with one queue, and the device that serves it.
struct Guest {
    device: Device,
    memory: GuestMemoryMmap,
    fake: Arc<Fake>,
    call: EventFd,
    orders: Arc<Orders>,
    tally: Arc<Tally>,
    /// The other end of the connection.
    front: UnixStream,
    given: u16,
    seen: u16,
}

fn copy(fd: &impl std::os::fd::AsFd) -> File {
    File::from(fd.as_fd().try_clone_to_owned().unwrap())
}

impl Guest {
    fn new(fake: Arc<Fake>) -> Self {
        let leave = VIRTIO_RING_F_EVENT_IDX;
        Self::with(fake, |features| features & !(1 << leave))
    }

    fn with(fake: Arc<Fake>, features: impl Fn(u64) -> u64) -> Self {
        let file: OwnedFd = memfd_create("guest", MFdFlags::MFD_CLOEXEC).unwrap();
        let file = File::from(file);
        file.set_len(MEMORY).unwrap();
        let range = (GuestAddress(0), MEMORY as usize, Some(FileOffset::new(copy(&file), 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        let orders = fake.orders.clone();
        let tally = Arc::<Tally>::default();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let (front, back) = UnixStream::pair().unwrap();
        let (disk, source, under_way) =
            (Box::new(Handle(fake.clone())), fake.clone(), fake.under_way.clone());
        let device = Device::new(source, disk, orders.clone(), tally.clone(), under_way, epoll, back);
        let mut device = device.unwrap();
        let ends = BORDERS.into_iter().chain([MEMORY]);
        let (regions, files): (Vec<_>, Vec<_>) = [0]
            .into_iter()
            .chain(BORDERS)
            .zip(ends)
            .map(|(at, end)| (VhostUserMemoryRegion::new(at, end - at, USER + at, at), copy(&file)))
            .unzip();
        device.set_mem_table(&regions, files, None).unwrap();
        let offered = device.get_features().unwrap();
        device.set_features(features(offered)).unwrap();
        let call = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let mut guest = Self { device, memory, fake, call, orders, tally, front, given: 0, seen: 0 };
        guest.set_up();
        guest
    }

    /// As a driver that starts anew.
    fn set_up(&mut self) {
        self.memory.write_slice(&[0; 4096], GuestAddress(0)).unwrap();
        (self.given, self.seen) = (0, 0);
        self.start(0);
        // It is told once, whatever it wants to hear.
        self.calls();
    }

    /// The front end starts the queue, which was read to `base`.
    fn start(&mut self, base: u16) {
        self.start_resting(base);
        self.device.set_vring_enable(0, true).unwrap();
        self.device.work();
    }

    /// And does not enable it.
    fn start_resting(&mut self, base: u16) {
        let (flags, device) = (VhostUserVringAddrFlags::empty(), &mut self.device);
        device.set_vring_num(0, ENTRIES.into()).unwrap();
        device.set_vring_base(0, base.into()).unwrap();
        device.set_vring_addr(0, flags, USER + TABLE, USER + USED, USER + AVAILABLE, 0).unwrap();
        device.set_vring_call(0, Some(copy(&self.call))).unwrap();
        let kick = EventFd::new().unwrap();
        device.set_vring_kick(0, Some(copy(&kick))).unwrap();
    }

    fn describe(&self, index: u16, (at, len, flags, next): (u64, u32, u16, u16)) {
        let descriptor = RawDescriptor::from(Descriptor::new(at, len, flags, next));
        self.memory.write_obj(descriptor, GuestAddress(TABLE + u64::from(index) * 16)).unwrap();
    }

    /// Makes a chain available, and does not say so.
    fn offer(&mut self, head: u16) {
        let place = AVAILABLE + 4 + u64::from(self.given % ENTRIES) * 2;
        self.memory.write_obj(head, GuestAddress(place)).unwrap();
        self.given = self.given.wrapping_add(1);
        self.memory.write_obj(self.given, GuestAddress(AVAILABLE + 2)).unwrap();
    }

    /// A chain of these pieces from descriptor 0 on.
    fn put(&mut self, pieces: &[(u64, u32, u16)]) {
        for (index, (at, len, flags)) in pieces.iter().enumerate() {
            let more = if index + 1 < pieces.len() { NEXT } else { 0 };
            self.describe(index as u16, (*at, *len, flags | more, index as u16 + 1));
        }
        self.offer(0);
    }

    /// Serves what is there, and collects what is done.
    fn turn(&mut self) {
        self.device.work();
        self.device.work();
    }

    /// The heads that came back since this was asked last, with their lengths.
    fn used(&mut self) -> Vec<(u32, u32)> {
        let read = |at| self.memory.read_obj::<u16>(GuestAddress(at)).unwrap();
        let mut found = Vec::new();
        while self.seen != read(USED + 2) {
            let at = USED + 4 + u64::from(self.seen % ENTRIES) * 8;
            let word = |at| self.memory.read_obj::<u32>(GuestAddress(at)).unwrap();
            found.push((word(at), word(at + 4)));
            self.seen = self.seen.wrapping_add(1);
        }
        found
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn header(&self, at: u64, kind: u32, sector: u64) {
        self.memory.write_obj(kind, GuestAddress(at)).unwrap();
        self.memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
    }

    /// A request with its header at 0x1000, one piece of data at 0x10000 and its status at 0x2000.
    fn ask(&mut self, kind: u32, sector: u64, data: (u32, u16)) -> u8 {
        self.header(0x1000, kind, sector);
        self.memory.write_obj(NONE, GuestAddress(0x2000)).unwrap();
        let mut pieces = vec![(0x1000, 16, READ), (0x10000, data.0, data.1), (0x2000, 1, WRITE)];
        pieces.retain(|piece| piece.1 > 0);
        self.put(&pieces);
        self.turn();
        self.bytes(0x2000, 1)[0]
    }

    /// A discard or zeros.
    fn range(&mut self, kind: u32, sector: u64, count: u32, flags: u32) -> u8 {
        for (at, number) in [(0x10000, sector), (0x10008, u64::from(count) | u64::from(flags) << 32)] {
            self.memory.write_obj(number, GuestAddress(at)).unwrap();
        }
        self.ask(kind, 0, (16, READ))
    }

    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.fake.asked.lock())
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.fake.said.lock())
    }

    fn calls(&self) -> u64 {
        self.call.read().unwrap_or(0)
    }

    /// It reads what the disk has.
    fn works(&mut self) {
        assert_eq!(self.ask(VIRTIO_BLK_T_IN, 3, (1024, WRITE)), OK, "{:?}", self.said());
        assert_eq!(self.bytes(0x10000, 1024), self.fake.bytes.lock()[3 * 512..5 * 512]);
        assert_eq!(self.used(), [(0, 1025)]);
    }
}

#[test]
fn each_request_does_what_it_says() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.works();
    guest.memory.write_slice(&[7; 1024], GuestAddress(0x10000)).unwrap();
    assert_eq!(guest.ask(VIRTIO_BLK_T_OUT, 8, (1024, READ)), OK);
    assert_eq!(guest.fake.bytes.lock()[8 * 512..11 * 512], [[7; 512], [7; 512], [10; 512]].concat());
    assert_eq!(guest.ask(VIRTIO_BLK_T_FLUSH, 0, (0, READ)), OK);
    assert_eq!(guest.ask(VIRTIO_BLK_T_GET_ID, 0, (20, WRITE)), OK);
    assert_eq!(guest.bytes(0x10000, 20), b"a name of twenty byt");
    assert_eq!(guest.range(VIRTIO_BLK_T_DISCARD, 2, 2, 0), OK);
    assert_eq!(guest.fake.bytes.lock()[2 * 512..5 * 512], [[0; 512], [0; 512], [4; 512]].concat());
    assert_eq!(guest.range(VIRTIO_BLK_T_WRITE_ZEROES, 4, 1, 0), OK);
    assert_eq!(guest.range(VIRTIO_BLK_T_WRITE_ZEROES, 5, 1, 1), OK);
    assert_eq!(guest.range(VIRTIO_BLK_T_DISCARD, 5, 0, 0), OK, "nothing to do");
    assert_eq!(guest.asked(), ["read", "write", "flush", "discard", "zero", "discard"]);
    assert_eq!(guest.said(), [""; 0]);
    assert_eq!(guest.ask(99, 0, (512, WRITE)), UNSUPP);
    let counts = Counts { connections: 0, requests: 9, read: 1024, written: 1024, errors: 1 };
    assert_eq!(guest.tally.counts(), counts);
}

#[test]
fn a_request_may_lie_in_any_pieces() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.header(0x1000, VIRTIO_BLK_T_IN, 6);
    // A header in three, a piece of no length, data and status in one, in an indirect table.
    let pieces = [(0x1000, 3), (0x1003, 10), (0x9000, 0), (0x100d, 3)].map(|(at, len)| (at, len, READ));
    let wanted = [(0x3000, 500, WRITE), (0x4000, 13, WRITE)];
    for (index, (at, len, flags)) in pieces.iter().chain(&wanted).enumerate() {
        let more = if index < 5 { NEXT } else { 0 };
        let descriptor = RawDescriptor::from(Descriptor::new(*at, *len, flags | more, index as u16 + 1));
        guest.memory.write_obj(descriptor, GuestAddress(0x8000 + index as u64 * 16)).unwrap();
    }
    guest.describe(5, (0x8000, 6 * 16, INDIRECT, 0));
    guest.offer(5);
    guest.turn();
    assert_eq!(guest.used(), [(5, 513)]);
    let read = [guest.bytes(0x3000, 500), guest.bytes(0x4000, 13)].concat();
    assert_eq!(read, [vec![6; 512], vec![OK]].concat());
}

/// Header, bytes, the indirect table and the status may each lie in several regions.
#[test]
fn a_request_may_lie_across_regions_of_memory() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let bytes: Vec<u8> = (0..0x2800u32).map(|n| (n / 3) as u8).collect();
    let [header, data, table] = [BORDERS[3] - 7, BORDERS[0] - 0x400, BORDERS[4] - 24];
    let mut ask = |kind, flags| {
        guest.header(header, kind, 8);
        for (index, (at, len, flags)) in
            [(header, 16, READ), (data, bytes.len() as u32, flags), (BORDERS[5] - 1, 1, WRITE)]
                .into_iter()
                .enumerate()
        {
            let more = if index < 2 { NEXT } else { 0 };
            let descriptor = RawDescriptor::from(Descriptor::new(at, len, flags | more, index as u16 + 1));
            guest.memory.write_obj(descriptor, GuestAddress(table + index as u64 * 16)).unwrap();
        }
        guest.memory.write_obj(NONE, GuestAddress(BORDERS[5] - 1)).unwrap();
        let before = if flags == READ { bytes.clone() } else { vec![0; bytes.len()] };
        guest.memory.write_slice(&before, GuestAddress(data)).unwrap();
        guest.describe(0, (table, 3 * 16, INDIRECT, 0));
        guest.offer(0);
        guest.turn();
        assert_eq!(guest.used().len(), 1);
        assert_eq!(guest.bytes(BORDERS[5] - 1, 1), [OK]);
        guest.bytes(data, bytes.len())
    };
    ask(VIRTIO_BLK_T_OUT, READ);
    assert!(ask(VIRTIO_BLK_T_IN, WRITE) == bytes);
    assert!(guest.fake.bytes.lock()[8 * SECTOR..][..bytes.len()] == bytes);
}

#[test]
fn what_makes_no_sense_is_refused_and_asks_the_disk_for_nothing() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    let last = DISK as u64 / 512;
    for (sector, data) in
        [(0, 0), (0, 100), (last, 512), (last - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512)]
    {
        assert_eq!(guest.ask(VIRTIO_BLK_T_IN, sector, (data, WRITE)), IOERR, "{sector} {data}");
        assert_eq!(guest.ask(VIRTIO_BLK_T_OUT, sector, (data, READ)), IOERR, "{sector} {data}");
    }
    for kind in [2, 3, 5, 10, 14, 99, u32::MAX] {
        assert_eq!(guest.ask(kind, 0, (512, WRITE)), UNSUPP, "{kind}");
    }
    for (sector, count, flags, status) in [
        (last, 1, 0, IOERR),
        (0, u32::MAX, 0, IOERR),
        (0, last as u32 + 1, 0, IOERR),
        (u64::MAX, 1, 0, IOERR),
        (0, 1, 2, UNSUPP),
    ] {
        assert_eq!(guest.range(VIRTIO_BLK_T_DISCARD, sector, count, flags), status);
        assert_eq!(guest.range(VIRTIO_BLK_T_WRITE_ZEROES, sector, count, flags), status);
    }
    assert_eq!(guest.range(VIRTIO_BLK_T_DISCARD, 0, 1, 1), UNSUPP, "the flag is for zeros");
    assert_eq!(guest.ask(VIRTIO_BLK_T_DISCARD, 0, (32, READ)), IOERR, "one range was offered");
    // Memory that the guest has not got, in part or at all, and a header that is not one.
    guest.header(0x1000, VIRTIO_BLK_T_IN, 0);
    for pieces in [
        [(0x1000, 16, READ), (MEMORY - 256, 512, WRITE), (0x2000, 1, WRITE)],
        [(0x1000, 16, READ), (u64::MAX - 100, 512, WRITE), (0x2000, 1, WRITE)],
        [(0x1000, 15, READ), (0x10000, 512, WRITE), (0x2000, 1, WRITE)],
        [(MEMORY, 16, READ), (0x10000, 512, WRITE), (0x2000, 1, WRITE)],
    ] {
        guest.memory.write_obj(NONE, GuestAddress(0x2000)).unwrap();
        guest.put(&pieces);
        guest.turn();
        assert_eq!(guest.bytes(0x2000, 1), [IOERR], "{pieces:x?}");
    }
    assert!(guest.asked().is_empty());
    let answered = guest.used().len();
    assert_eq!((answered, guest.said().len()), (usize::from(guest.given), 0));
}

#[test]
fn a_disk_that_cannot_be_written_is_not() {
    let mut guest = Guest::new(Fake::new(|facts| facts.read_only = true));
    guest.works();
    assert_eq!(guest.ask(VIRTIO_BLK_T_OUT, 0, (512, READ)), IOERR);
    assert_eq!(guest.range(VIRTIO_BLK_T_DISCARD, 0, 1, 0), IOERR);
    let mut guest = Guest::new(Fake::new(|facts| facts.discard = false));
    assert_eq!(guest.range(VIRTIO_BLK_T_DISCARD, 0, 1, 0), UNSUPP);
    assert_eq!(guest.range(VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 0), UNSUPP);
    assert!(guest.asked().is_empty());
}

#[test]
fn who_cannot_flush_has_each_write_flushed() {
    let mut guest = Guest::with(Fake::new(|_| ()), |features| features & !(1 << VIRTIO_BLK_F_FLUSH));
    assert_eq!(guest.ask(VIRTIO_BLK_T_OUT, 0, (512, READ)), OK);
    assert_eq!(guest.asked(), ["durable"]);
    assert_eq!(guest.range(VIRTIO_BLK_T_DISCARD, 2, 2, 0), OK);
    assert_eq!(guest.range(VIRTIO_BLK_T_WRITE_ZEROES, 4, 1, 0), OK);
    assert_eq!(guest.range(VIRTIO_BLK_T_WRITE_ZEROES, 5, 1, 1), OK);
    assert_eq!(guest.asked(), ["durable"; 3]);
}

#[test]
fn a_chain_without_a_place_for_its_status_stops_the_queue() {
    type Table = &'static [(u64, u32, u16, u16)];
    let tables: [(Table, &str); 8] = [
        (&[(0x1000, 16, NEXT, 1), (0x2000, 1, WRITE | NEXT, 1)], "loop"),
        (&[(0x1000, 16, NEXT, 1), (0x2000, 1, WRITE | NEXT, 99)], "out of its table"),
        (&[(0x1000, 16, READ, 0)], "no place"),
        (&[(0x2000, 1, WRITE | NEXT, 1), (0x1000, 16, READ, 0)], "behind"),
        (&[(0x1000, 16, NEXT, 1), (MEMORY, 1, WRITE, 0)], "no place"),
        (&[(0x1000, 16, NEXT, 1), (u64::MAX, 2, WRITE, 0)], "no place"),
        (&[(0x1000, 16, NEXT, 1), (0x2000, 17, INDIRECT, 0)], "loop"),
        (&[(MEMORY - 16, 32, INDIRECT, 0)], "no place"),
    ];
    let mut guest = Guest::new(Fake::new(|_| ()));
    for (table, words) in tables {
        table.iter().enumerate().for_each(|(index, row)| guest.describe(index as u16, *row));
        guest.offer(0);
        guest.turn();
        let said = guest.said();
        assert!(said.len() == 1 && said[0].contains(words), "{table:x?}: {said:?}");
        // Nothing more is taken from it.
        guest.offer(0);
        guest.turn();
        assert_eq!((guest.used().len(), guest.asked().len()), (0, 0));
        guest.set_up();
        guest.works();
        guest.asked();
    }
    // A head outside of the table, and more of them than there can be.
    guest.offer(ENTRIES);
    guest.turn();
    assert_eq!(guest.said().len(), 1);
    guest.set_up();
    guest.memory.write_obj(ENTRIES + 9, GuestAddress(AVAILABLE + 2)).unwrap();
    guest.turn();
    assert_eq!(guest.said().len(), 1);
}

#[test]
fn a_guest_cannot_have_more_under_way_than_its_queue_holds() {
    let mut guest = Guest::new(Fake::new(|_| ()));
    guest.fake.hold.store(true, Ordering::SeqCst);
    guest.header(0x1000, VIRTIO_BLK_T_IN, 0);
    guest.put(&[(0x1000, 16, READ), (0x10000, 512, WRITE), (0x2000, 1, WRITE)]);
    (1..ENTRIES).for_each(|_| guest.offer(0));
    guest.turn();
    assert_eq!((guest.fake.held.lock().len(), guest.said().len()), (ENTRIES.into(), 0));
    guest.offer(0);
    guest.turn();
    assert_eq!((guest.fake.held.lock().len(), guest.said().len()), (ENTRIES.into(), 1));
    guest.fake.release();
    guest.turn();
    assert_eq!(guest.used().len(), 0, "it is stopped");
}

#[test]
fn a_batch_rings_once_and_only_when_the_guest_wants_to_hear() {
    let mut guest = Guest::with(Fake::new(|_| ()), |features| features);
    guest.works();
    assert_eq!(guest.calls(), 1);
    guest.fake.hold.store(true, Ordering::SeqCst);
    guest.header(0x1000, VIRTIO_BLK_T_IN, 0);
    guest.put(&[(0x1000, 16, READ), (0x10000, 512, WRITE), (0x2000, 1, WRITE)]);
    (1..8).for_each(|_| guest.offer(0));
    guest.device.work();
    let want_from = AVAILABLE + 4 + u64::from(ENTRIES) * 2;
    guest.memory.write_obj(1u16, GuestAddress(want_from)).unwrap();
    guest.fake.release();
    guest.device.work();
    assert_eq!((guest.used().len(), guest.calls()), (8, 1), "one for all");
    guest.memory.write_obj(200u16, GuestAddress(want_from)).unwrap();
    (0..8).for_each(|_| guest.offer(0));
    guest.device.work();
    guest.fake.release();
    guest.device.work();
    assert_eq!((guest.used().len(), guest.calls()), (8, 0), "it does not want to hear of these");
}
