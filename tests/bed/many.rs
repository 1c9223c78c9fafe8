//! Thousands of targets on one interface, answered for by one thread: for tests of scale, where a scripted target
//! each is too much.
//!
//! Promises: every address answers config queries (to all, to its shelf, to itself), IDENTIFY and reads, at once and
//! in batches; a sector that is read says whose it is and where; what is written is taken and forgotten. With a pace,
//! each read and write takes the interface that long, as a slow cable would.

use super::net::Ns;
use super::raw::{Batch, Port, wait};
use aoefs::wire::ata::cmd;
use aoefs::wire::{
    ATA_LEN, Addr, Ata, CONFIG_LEN, Command, Config, DATA_OFFSET, FlushKind, HEADER_LEN, Header,
    IDENTIFY_LEN, Identify, MIN_FRAME, Mac, SECTOR, Tag, Text, Verb, sectors_per_frame,
};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the idle thread sleeps before it looks whether it shall end.
const IDLE: Duration = Duration::from_millis(20);
/// Frames that each of them says it can queue.
const BUFFERS: u16 = 64;
/// Answers sent with one system call.
const BURST: usize = 64;

/// What they are like.
#[derive(Clone)]
pub struct Kind {
    /// Sectors of each disk.
    pub sectors: u64,
    /// What a read or a write takes of the interface's time.
    pub pace: Duration,
}

impl Default for Kind {
    fn default() -> Self {
        Self { sectors: 1 << 21, pace: Duration::ZERO }
    }
}

/// The targets at work; dropping this ends them.
pub struct Many {
    stop: Arc<AtomicBool>,
    /// Every so manyth says nothing; 0: all live.
    dead: Arc<AtomicUsize>,
    requests: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// The `n`th address: 16 slots a shelf, from shelf 1.
pub fn addr(n: usize) -> Addr {
    Addr::new((1 + n / 16) as u16, (n % 16) as u8)
}

/// What the first bytes of a sector say.
pub fn mark(addr: Addr, sector: u64) -> [u8; 12] {
    let mut mark = [0; 12];
    mark[..8].copy_from_slice(&sector.to_le_bytes());
    mark[8..10].copy_from_slice(&addr.shelf.0.to_le_bytes());
    mark[10] = addr.slot.0;
    mark
}

impl Many {
    /// `count` targets on an interface.
    #[track_caller]
    pub fn start(ns: &Ns, port: &str, count: usize, kind: Kind) -> Self {
        let mtu = ns.mtu(port);
        let port = Port::open(ns, port);
        let (stop, dead) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let requests = Arc::new(AtomicU64::new(0));
        let thread = {
            let (stop, dead, requests) = (stop.clone(), dead.clone(), requests.clone());
            std::thread::spawn(move || Server::new(port, mtu, count, kind).run(&stop, &dead, &requests))
        };
        Self { stop, dead, requests, thread: Some(thread) }
    }

    /// From now on every `nth` of them says nothing; 0: all live again.
    pub fn kill_every(&self, nth: usize) {
        self.dead.store(nth, Relaxed);
    }

    /// Reads and writes answered so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Server {
    port: Port,
    mac: Mac,
    count: usize,
    kind: Kind,
    config: Vec<u8>,
    page: [u8; IDENTIFY_LEN],
    /// Room for answers, and how much of each is used.
    answers: Vec<(Vec<u8>, usize)>,
    used: usize,
    /// Until when the interface is busy.
    busy: Instant,
}

impl Server {
    fn new(port: Port, mtu: usize, count: usize, kind: Kind) -> Self {
        let sectors = sectors_per_frame(mtu);
        let mut config = vec![0; CONFIG_LEN];
        Config { buffers: BUFFERS, firmware: 1, sectors, version: 1, verb: Verb::Read, string: b"" }
            .emit(&mut config);
        let identify = Identify {
            serial: Text::new("one of many"),
            model: Text::new("many"),
            firmware: Text::new("1"),
            sectors: kind.sectors,
            lba48: true,
            flush: FlushKind::FlushExt,
            ..Identify::default()
        };
        let mut page = [0; IDENTIFY_LEN];
        identify.emit(&mut page);
        let room = (DATA_OFFSET + usize::from(sectors.max(1)) * SECTOR).max(MIN_FRAME);
        Self {
            mac: Mac(port.mac()),
            port,
            count,
            kind,
            config,
            page,
            answers: vec![(vec![0; room], 0); BURST],
            used: 0,
            busy: Instant::now(),
        }
    }

    fn run(mut self, stop: &AtomicBool, dead: &AtomicUsize, requests: &AtomicU64) {
        let mut batch = Batch::new();
        while !stop.load(Relaxed) {
            wait(&[self.port.as_fd()], IDLE);
            self.port.recv_batch(&mut batch);
            let dead = dead.load(Relaxed);
            let is_dead = |n: usize| dead > 0 && n.is_multiple_of(dead);
            for frame in batch.frames() {
                let Ok((header, body)) = Header::parse(frame) else { continue };
                if header.response {
                    continue;
                }
                if header.command == Command::Config && header.addr.is_wildcard() {
                    for n in 0..self.count {
                        if header.addr.matches(addr(n)) && !is_dead(n) {
                            self.answer(&header, addr(n), body);
                        }
                    }
                } else if number(header.addr) < self.count && !is_dead(number(header.addr)) {
                    let io = self.answer(&header, header.addr, body);
                    requests.fetch_add(u64::from(io), Relaxed);
                }
            }
            self.flush();
        }
    }

    /// Puts the answer to the others; true if it read or wrote.
    fn answer(&mut self, header: &Header, addr: Addr, body: &[u8]) -> bool {
        if self.used == BURST {
            self.flush();
        }
        let (frame, used) = &mut self.answers[self.used];
        let (head, rest) = frame.split_at_mut(HEADER_LEN);
        let (len, io) = match header.command {
            Command::Config => {
                rest[..CONFIG_LEN].copy_from_slice(&self.config);
                (CONFIG_LEN, false)
            }
            Command::Ata => {
                let Ok((mut ata, _)) = Ata::parse(body) else { return false };
                let data = &mut rest[ATA_LEN..];
                let (len, io) = match ata.command {
                    cmd::IDENTIFY => {
                        data[..IDENTIFY_LEN].copy_from_slice(&self.page);
                        (IDENTIFY_LEN, false)
                    }
                    cmd::READ_EXT => {
                        let first = ata.sector48().0;
                        let len = usize::from(ata.count) * SECTOR;
                        for (n, sector) in data[..len].chunks_mut(SECTOR).enumerate() {
                            sector[..12].copy_from_slice(&mark(addr, first + n as u64));
                        }
                        (len, true)
                    }
                    command => (0, command == cmd::WRITE_EXT),
                };
                ata.command = 0x40;
                ata.feature = 0;
                ata.emit(rest);
                (ATA_LEN + len, io)
            }
            _ => return false,
        };
        let back = Header {
            dst: header.src,
            src: self.mac,
            version: 1,
            response: true,
            error: None,
            addr,
            command: header.command,
            tag: Tag(header.tag.0),
        };
        back.emit(head);
        *used = (HEADER_LEN + len).max(MIN_FRAME);
        self.used += 1;
        if io && !self.kind.pace.is_zero() {
            self.busy = self.busy.max(Instant::now()) + self.kind.pace;
            self.flush();
        }
        io
    }

    fn flush(&mut self) {
        let early = self.busy.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            std::thread::sleep(early);
        }
        let frames: Vec<&[u8]> =
            self.answers[..self.used].iter().map(|(frame, used)| &frame[..*used]).collect();
        if !frames.is_empty() {
            let _ = self.port.send_batch(&frames);
        }
        self.used = 0;
    }
}

/// Which one has this address; far beyond all of them if none has.
fn number(addr: Addr) -> usize {
    match (addr.shelf.0, addr.slot.0) {
        (1.., slot @ 0..16) => (usize::from(addr.shelf.0) - 1) * 16 + usize::from(slot),
        _ => usize::MAX,
    }
}
