//! Tables that no driver would make, through a real socket to the real daemon, while others use the same target.

use super::front::Front;
use crate::bed::mount::Mount;
use crate::bed::{Bed, MIB, Rng, until};
use crate::tools::fsx::Aligned;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeSet;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

crate::tests![integrity_v31_ten_thousand_hostile_tables(120)];

const SOON: Duration = Duration::from_secs(5);
/// A table that makes sense nowhere is done with after this, answered or stopped, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tables before anything is measured, and in all.
const WARM: usize = 2000;
const TABLES: usize = 12_000;
const SEED: u64 = 31;

/// The disk: what the good machine writes, what is only read, what may be harmed, and more that is only read.
const DISK: usize = 4 * MIB;
const GOOD: Range<usize> = 0..MIB;
const HARM: Range<usize> = 2 * MIB..3 * MIB;
/// What the good machine writes at a time.
const BLOCK: usize = 8192;

/// How much more memory the daemon may have at the end than after the first tables, in KiB: what one socket may have
/// under way. Of the ten thousand tables between, none may keep its request.
const MORE: u64 = 16 << 10;

const QUEUES: usize = 8;
const ENTRIES: u16 = 16;
const MEMORY: u64 = 1 << 20;
/// Each queue has a page for its three tables, and its own 64 KiB for everything else.
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const TABLES_END: u64 = QUEUES as u64 * 0x1000;
const OWN: u64 = 0x10000;
/// Where a queue's indirect table is in what it has for everything else.
const INDIRECT_TABLE: u64 = 0x8000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// What a queue was given in a round.
#[derive(Clone, Copy)]
struct Given {
    /// Entries that it must answer, unless it is stopped. None: what it does cannot be foreseen, because its tables may
    /// be overwritten by its own requests.
    answers: Option<u16>,
}

/// A front end that means harm.
struct Vandal {
    path: PathBuf,
    dice: Rng,
    front: Option<Frontend>,
    memory: GuestMemoryMmap,
    file: File,
    kick: EventFd,
    call: EventFd,
    /// By queue: rung when it is stopped.
    errs: Vec<EventFd>,
    given: [u16; QUEUES],
    tables: usize,
    answered: usize,
    stopped: usize,
    let_go: usize,
}

impl Vandal {
    fn new(path: &Path) -> Self {
        let (memory, file) = memory();
        let eventfd = || EventFd::new(EFD_NONBLOCK).unwrap();
        let errs = (0..QUEUES).map(|_| eventfd()).collect();
        let (path, dice) = (path.to_path_buf(), Rng::new(SEED));
        let (kick, call) = (eventfd(), eventfd());
        let (given, tables, answered, stopped, let_go) = ([0; QUEUES], 0, 0, 0, 0);
        Self {
            path,
            dice,
            front: None,
            memory,
            file,
            kick,
            call,
            errs,
            given,
            tables,
            answered,
            stopped,
            let_go,
        }
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.dice.below(list.len() as u64) as usize]
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.dice.below(count) == 0
    }

    /// Connects, and sets all queues up. The daemon has let go of the last connection when this one is answered.
    fn connect(&mut self) {
        self.front = None;
        let stream = UnixStream::connect(&self.path).unwrap();
        // A daemon that says nothing fails the test, and not by its limit.
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut front = Frontend::from_stream(stream, QUEUES as u64);
        front.set_owner().unwrap();
        let features = front.get_features().unwrap();
        // With and without the words of how far the other side wants to be left alone.
        let without = if self.one_in(2) { 1 << 29 } else { 0 };
        front.set_features(features & !without).unwrap();
        front.get_protocol_features().unwrap();
        front
            .set_protocol_features(VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ)
            .unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY,
            userspace_addr: self.host(0),
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        front.set_mem_table(&[region]).unwrap();
        self.front = Some(front);
        (0..QUEUES).for_each(|queue| self.set_up(queue).unwrap());
        self.front.as_ref().unwrap().get_features().unwrap();
    }

    fn host(&self, at: u64) -> u64 {
        self.memory.get_host_address(GuestAddress(at)).unwrap() as u64
    }

    /// Sets a queue up from its beginning.
    fn set_up(&mut self, queue: usize) -> Result<(), vhost::Error> {
        let at = queue as u64 * 0x1000;
        self.memory.write_slice(&[0; 0x1000], GuestAddress(at)).unwrap();
        self.given[queue] = 0;
        let _ = self.errs[queue].read();
        let tables = tables(self.host(at));
        let front = self.front.as_mut().unwrap();
        front.set_vring_num(queue, ENTRIES)?;
        front.set_vring_base(queue, 0)?;
        front.set_vring_addr(queue, &tables)?;
        front.set_vring_err(queue, &self.errs[queue])?;
        front.set_vring_kick(queue, &self.kick)?;
        front.set_vring_call(queue, &self.call)?;
        front.set_vring_enable(queue, true)
    }

    /// A descriptor that says anything, of a queue whose own memory is there; where it may be `low`, perhaps of the
    /// queues' tables.
    fn descriptor(&mut self, own: u64, low: bool) -> (u64, u32, u16, u16) {
        const ODD: [u64; 7] =
            [MEMORY - 1, MEMORY, MEMORY - 512, u64::MAX, u64::MAX - 511, 1 << 63, 0x7000_0000];
        let at = match self.dice.below(4) {
            0 if low => self.of(&[0, 1, TABLES_END - 512]),
            0 => self.of(&ODD),
            1 => own + INDIRECT_TABLE,
            _ => own + self.dice.below(0xf000),
        };
        let len = match self.dice.below(3) {
            0 => self.of(&[0, 1, 15, 16, 17, 31, 32, 48, 512, 513, 4096, 1 << 20, u32::MAX]),
            1 => 16,
            _ => self.of(&[512, 1024, 1]),
        };
        let flags =
            self.of(&[NEXT, NEXT, NEXT | WRITE, NEXT | WRITE, WRITE, 0, INDIRECT, INDIRECT | NEXT, 0xffff]);
        (at, len, flags, self.dice.below(u64::from(ENTRIES) + 2) as u16)
    }

    fn describe(&self, at: u64, row: (u64, u32, u16, u16)) {
        let words =
            u128::from(row.0) | u128::from(row.1) << 64 | u128::from(row.2) << 96 | u128::from(row.3) << 112;
        self.memory.write_slice(&words.to_le_bytes(), GuestAddress(at)).unwrap();
    }

    /// Fills the table of a queue, and puts heads of it in.
    fn give(&mut self, queue: usize) -> Given {
        self.tables += 1;
        let (table, own) = (queue as u64 * 0x1000, (queue as u64 + 1) * OWN);
        // Either all of it is anything, or one or two descriptors of a good request are.
        let good = self.one_in(2);
        let (data, way) = (self.of(&[16, 512, 1024, 4096]), self.of(&[0, WRITE]));
        let request = [(own, 16, NEXT, 1), (own + 0x3000, data, way | NEXT, 2), (own + 0x2000, 1, WRITE, 3)];
        let low = self.one_in(6);
        let mut fair = !low;
        for index in 0..ENTRIES {
            let known = request.get(usize::from(index)).filter(|_| good && !self.one_in(5)).copied();
            let row = known.unwrap_or_else(|| self.descriptor(own, low));
            let below = self.descriptor(own, low);
            self.describe(table + u64::from(index) * 16, row);
            self.describe(own + INDIRECT_TABLE + u64::from(index) * 16, below);
        }
        for place in (0..15).filter(|place| place * 0x1000 != INDIRECT_TABLE) {
            let kind = self.of(&[0u32, 1, 4, 8, 11, 13, 7]);
            let sector =
                self.of(&[0, 1, 100, HARM.len() as u64 / 512 - 1, HARM.len() as u64 / 512, u64::MAX]);
            let beside = if place == 0 { 0 } else { self.dice.below(2) };
            let at = own + place * 0x1000 + beside;
            self.memory.write_obj(u64::from(kind), GuestAddress(at)).unwrap();
            self.memory.write_obj(sector, GuestAddress(at + 8)).unwrap();
        }
        let count = 1 + self.dice.below(4) as u16;
        for _ in 0..count {
            let head = if good { 0 } else { self.dice.below(u64::from(ENTRIES) + 1) as u16 };
            let place = table + AVAILABLE + 4 + u64::from(self.given[queue] % ENTRIES) * 2;
            self.memory.write_obj(head, GuestAddress(place)).unwrap();
            self.given[queue] = self.given[queue].wrapping_add(1);
        }
        if self.one_in(50) {
            // More than there is room for, or less than there was.
            self.given[queue] = self.dice.next() as u16;
            fair = false;
        }
        let release = Ordering::Release;
        self.memory.store(self.given[queue], GuestAddress(table + AVAILABLE + 2), release).unwrap();
        Given { answers: fair.then_some(self.given[queue]) }
    }

    fn used(&self, queue: usize) -> u16 {
        self.memory.load(GuestAddress(queue as u64 * 0x1000 + USED + 2), Ordering::Acquire).unwrap()
    }

    /// A table for each queue, and what becomes of it.
    fn round(&mut self) {
        let given: Vec<Given> = (0..QUEUES).map(|queue| self.give(queue)).collect();
        self.kick.write(1).unwrap();
        if self.one_in(20) {
            // It is cut off with all of it under way, or takes its memory back.
            if self.one_in(2) {
                self.file.set_len(0).unwrap();
                self.gone();
                (self.memory, self.file) = memory();
            }
            return self.connect();
        }
        let start = Instant::now();
        let mut stopped = [false; QUEUES];
        let done = |vandal: &Self, stopped: &mut [bool; QUEUES], queue: usize| {
            stopped[queue] = stopped[queue] || vandal.errs[queue].read().is_ok();
            stopped[queue]
                || match given[queue].answers {
                    Some(answers) => vandal.used(queue) == answers,
                    None => start.elapsed() > Duration::from_millis(2),
                }
        };
        while let Some(late) = (0..QUEUES).find(|queue| !done(self, &mut stopped, *queue)) {
            assert!(
                start.elapsed() < PATIENCE,
                "queue {late} of table {} neither answers nor is stopped",
                self.tables
            );
            std::thread::sleep(Duration::from_micros(50));
        }
        for queue in 0..QUEUES {
            self.answered += usize::from(given[queue].answers.map_or(0, |_| self.used(queue)));
            self.stopped += usize::from(stopped[queue]);
            let again = stopped[queue] || given[queue].answers.is_none() || self.used(queue) > 100;
            if again && self.anew(queue).is_err() {
                self.let_go += 1;
                return self.connect();
            }
        }
    }

    /// Sets a queue up once more, as a driver that resets its disk does; now and then with a message that is wrong.
    fn anew(&mut self, queue: usize) -> Result<(), vhost::Error> {
        self.front.as_ref().unwrap().get_vring_base(queue)?;
        if self.one_in(40) {
            let outside = self.host(0) + MEMORY;
            let front = self.front.as_ref().unwrap();
            front.set_vring_addr(queue, &tables(outside))?;
            // Let go of, which the next message that is answered shows.
            front.get_features()?;
        }
        self.set_up(queue)
    }

    /// Waits until the daemon has let go of it.
    fn gone(&mut self) {
        let front = self.front.take().unwrap();
        let tables = tables(self.host(0));
        until("who takes memory back is let go of", PATIENCE, || {
            // So that the daemon looks at what is not there any more, also if all queues are stopped.
            front.set_vring_addr(0, &tables).is_err() || front.get_features().is_err()
        });
        self.let_go += 1;
    }

    /// Tables until there were so many, then it is not connected any more.
    fn until(&mut self, tables: usize) {
        self.connect();
        while self.tables < tables {
            self.round();
        }
        self.front = None;
    }
}

/// The tables of a queue that begin there.
fn tables(at: u64) -> VringConfigData {
    VringConfigData {
        queue_max_size: ENTRIES,
        queue_size: ENTRIES,
        flags: 0,
        desc_table_addr: at,
        used_ring_addr: at + USED,
        avail_ring_addr: at + AVAILABLE,
        log_addr: None,
    }
}

fn memory() -> (GuestMemoryMmap, File) {
    let file = File::from(memfd_create("vandal", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(MEMORY).unwrap();
    let range = (GuestAddress(0), MEMORY as usize, Some(FileOffset::new(file.try_clone().unwrap(), 0)));
    (GuestMemoryMmap::from_ranges_with_files([range]).unwrap(), file)
}

/// Sets it when it goes, so that nobody waits for one that has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What a process has: descriptors, threads, and memory in KiB.
fn holdings(mount: &Mount) -> (usize, usize, u64) {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", mount.daemon.pid())).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{}/status", mount.daemon.pid())).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (fds, mount.daemon.threads(), rss.split_whitespace().next().unwrap().parse().unwrap())
}

/// A machine that does as it should, on a socket of the whole disk: each block has the version that was written last.
/// Returns how many requests that were.
fn good_machine(socket: &Path, over: &AtomicBool, disk: &mut [u8]) -> usize {
    let (mut front, mut dice, mut requests) = (Front::connect(socket, 2), Rng::new(1), 0);
    while !over.load(Ordering::SeqCst) {
        let mut block = || dice.below((GOOD.len() / BLOCK) as u64) as usize * BLOCK;
        let (to, from) = (block(), block());
        dice.fill(&mut disk[to..to + BLOCK]);
        assert_eq!(front.write(0, to as u64, &disk[to..to + BLOCK]), 0);
        let read = front.read(1, from as u64, BLOCK).expect("a read of the good machine fails");
        assert!(read == disk[from..from + BLOCK], "block {from} has other bytes after {requests} requests");
        requests += 2;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(front.flush(0), 0);
    requests
}

/// Reads what nobody writes, on both sides of what may be harmed, through the file.
fn good_reader(file: &File, over: &AtomicBool, disk: &[u8]) -> usize {
    let (mut dice, mut bytes, mut requests) = (Rng::new(2), Aligned::new(BLOCK), 0);
    while !over.load(Ordering::SeqCst) {
        let sides = [GOOD.end..HARM.start, HARM.end..DISK];
        let side = &sides[dice.below(2) as usize];
        let at = side.start + dice.below((side.len() / BLOCK) as u64) as usize * BLOCK;
        file.read_exact_at(bytes.bytes(), at as u64).unwrap();
        assert!(bytes.bytes() == &disk[at..at + BLOCK], "{at} has other bytes after {requests} reads");
        requests += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    requests
}

/// The disk has a partition that may be harmed. Whatever its front end asks for, nothing beside it changes, the others
/// have their bytes, and the daemon has no more than before.
fn integrity_v31_ten_thousand_hostile_tables() {
    let mut bed = Bed::cable(&[], 9000);
    let image = bed.image("disk", DISK);
    bed.aoefs_target("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", SOON);
    let (harm, good) = (bed.dir().join("harm.sock"), bed.dir().join("good.sock"));
    unit.ctl_ok(&format!("part harm {} {}", HARM.start / 512, HARM.end / 512));
    unit.ctl_ok(&format!("vhost {} harm", harm.display()));
    unit.ctl_ok(&format!("vhost {}", good.display()));
    let whole = std::fs::read(&image).unwrap();
    let mut disk = whole.clone();
    let file = unit.open_with("data", libc::O_DIRECT);
    let over = AtomicBool::new(false);
    let alone = format!("vhost {} harm 0", harm.display());
    let is_let_go_of =
        || until("it is let go of", SOON, || unit.read("ctl").lines().any(|line| line == alone));
    let mut vandal = Vandal::new(&harm);
    let (requests, reads, before, after) = std::thread::scope(|scope| {
        let end = Over(&over);
        let machine = scope.spawn(|| good_machine(&good, &over, &mut disk));
        let reader = scope.spawn(|| good_reader(&file, &over, &whole));
        vandal.until(WARM);
        is_let_go_of();
        let before = holdings(&mount);
        vandal.until(TABLES);
        is_let_go_of();
        until(&format!("no descriptors and threads more than {before:?}"), SOON, || {
            let now = holdings(&mount);
            now.0 <= before.0 && now.1 <= before.1
        });
        let after = holdings(&mount);
        drop(end);
        (machine.join().unwrap(), reader.join().unwrap(), before, after)
    });
    assert!(mount.daemon.alive(), "{}", mount.daemon.said());
    let Vandal { tables, answered, stopped, let_go, .. } = vandal;
    let more = after.2.saturating_sub(before.2);
    print!(
        "[{tables} tables: {answered} answers, {stopped} queues stopped, {let_go} times let go of; {requests} requests \
         and {reads} reads beside them; {more} KiB more] "
    );
    assert!(answered > 3000 && stopped > 3000 && let_go > 10, "it tries all of that");
    assert!(requests > 100 && reads > 100, "the others are held up");
    assert!(more < MORE, "{} KiB, then {}", before.2, after.2);
    let log = mount.read("log");
    let why: BTreeSet<&str> =
        log.lines().filter_map(|line| Some(line.split_once(" is stopped: ")?.1)).collect();
    assert!(why.len() >= 3, "{why:?}");
    assert!(log.contains("the front end is let go of: "), "{log}");
    // Its queues serve whoever makes sense.
    let mut front = Front::connect(&harm, 1);
    assert_eq!(front.capacity() * 512, HARM.len() as u64);
    assert_eq!(front.write(0, 4096, &[7; 4096]), 0);
    assert_eq!(front.read(0, 4096, 4096).unwrap(), [7; 4096]);
    assert_eq!(front.flush(0), 0);
    drop((front, file));
    mount.stop();
    let now = std::fs::read(&image).unwrap();
    assert!(now[HARM] != whole[HARM], "it has not written anything");
    for side in [0..HARM.start, HARM.end..DISK] {
        let wrong = side.clone().find(|at| now[*at] != disk[*at]);
        assert!(wrong.is_none(), "byte {wrong:?} is not what was written there");
    }
}
