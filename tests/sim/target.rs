//! The scripted target: the real command processor over a [`Disk`], one request at a time, with the manners of real
//! ones.
//!
//! Requests wait in a queue as long as its buffers (what comes on top is lost), are served in order, and are
//! forgotten when the target dies. What it advertises, how it flushes, how often it errs and how slow it is are the
//! script's.

use std::collections::VecDeque;

use super::disk::Disk;
use super::rng::Rng;
use aoefs::target::{Answer, Processor, TargetConfig};
use aoefs::wire::{Addr, Command, FlushKind, HEADER_LEN, Header, IDENTIFY_LEN, Identify, Mac, cmd};

/// An opcode that no processor knows: it aborts.
const UNKNOWN: u8 = 0xfe;
const ATA_COMMAND: usize = HEADER_LEN + 3;
const ATA_ERROR: usize = HEADER_LEN + 1;
/// UNC of the error register: data that cannot be had, or saved.
const UNCORRECTABLE: u8 = 0x40;
const DATA: usize = 36;
/// Where IDENTIFY has its model (40 bytes) and its checksum (2).
const MODEL: usize = 54;
const CHECKSUM: usize = 510;
/// µs that a request takes that does not touch the disk.
const QUICK: u64 = 20;

/// What flushing means to this target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flushing {
    /// Says that it has none, and has none.
    None,
    /// E7 only, and says so (vblade).
    Old,
    /// EA and E7.
    Both,
    /// Says both, aborts EA.
    Liar,
    /// Says both, aborts both.
    Fraud,
    /// Says both, and answers with the request itself (ggaoed 1.1).
    Echo,
}

/// A request on its way, with what the world knows about its departure.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub frame: Vec<u8>,
    pub wire: usize,
    pub copies: u8,
    pub origin: Origin,
    /// Frames that had left by then.
    pub number: u64,
}

/// What was known when a copy left the initiator. Forgeries and queries to all have no unit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    pub unit: Option<usize>,
    /// The disk (id, sectors) that the initiator meant.
    pub disk: (usize, u64),
    pub sent: u64,
    /// When it last heard from the target before this copy left.
    pub heard: u64,
    /// An earlier copy left, and nothing was heard since.
    pub blind_repeat: bool,
    pub tick: u64,
    /// There was silence before, and the disk has not shown its identity since.
    pub unconfirmed: bool,
}

/// How long a request takes.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub base: u64,
    /// ns per KiB of data either way.
    pub per_kib: u64,
    /// Now and then much longer: chance and most µs.
    pub stall: (f64, u64),
}

/// See the module.
pub struct Target {
    pub addr: Addr,
    pub macs: Vec<Mac>,
    pub mtu: usize,
    pub buffers: u16,
    pub capacity: usize,
    pub advertise: Option<u8>,
    pub flushing: Flushing,
    pub service: Service,
    /// IDENTIFY says nonsense.
    pub garbage: bool,
    /// How often IDENTIFY, which has no checksum then, arrives with flipped bits, and how often it did.
    pub flips: f64,
    pub flipped: u64,
    /// Says who it is, and nothing about its sectors.
    pub mute: bool,
    /// How often the AoE layer refuses without reason.
    pub refuses: f64,
    pub alive: bool,
    /// Rises with each death: what was scheduled before means nothing.
    pub life: u32,
    /// When it last came up after a death.
    pub restarted: Option<u64>,
    /// Its disk changed its size while it served, since then: nobody can tell before asking.
    pub resized: bool,
    /// Another disk was put in, and what the target keeps besides was new.
    pub swapped: bool,
    pub queue: VecDeque<Arrived>,
    pub busy: bool,
    pub refused: Vec<(u64, u64, u64)>,
    pub processor: Processor<Disk>,
    reply: Vec<u8>,
}

impl Target {
    pub fn new(addr: Addr, macs: Vec<Mac>, mtu: usize, buffers: u16, disk: Disk) -> Target {
        Target {
            addr,
            macs,
            mtu,
            buffers,
            capacity: usize::from(buffers.clamp(1, 128)),
            advertise: None,
            flushing: Flushing::Both,
            service: Service { base: 20, per_kib: 4000, stall: (0.0, 0) },
            garbage: false,
            flips: 0.0,
            flipped: 0,
            mute: false,
            refuses: 0.0,
            alive: true,
            life: 0,
            restarted: None,
            resized: false,
            swapped: false,
            queue: VecDeque::new(),
            busy: false,
            refused: Vec::new(),
            processor: processor(addr, buffers, disk),
            reply: vec![0; mtu + 14],
        }
    }

    pub fn disk(&mut self) -> &mut Disk {
        self.processor.image_mut()
    }

    pub fn look(&self) -> &Disk {
        self.processor.image()
    }

    /// Puts another disk in; returns the old one.
    pub fn swap(&mut self, disk: Disk) -> Disk {
        let new = processor(self.addr, self.buffers, disk);
        self.swapped = true;
        std::mem::replace(&mut self.processor, new).into_image()
    }

    /// What it knows by heart is lost; its disk is not.
    pub fn die(&mut self) {
        self.alive = false;
        self.resized = false;
        self.life += 1;
        self.queue.clear();
        self.busy = false;
    }

    pub fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
        self.reply.resize(mtu + 14, 0);
    }

    pub fn service_time(&self, rng: &mut Rng, frame: &[u8]) -> u64 {
        // What does not touch the disk is quick, once it is its turn.
        if frame.len() < DATA || frame[19] != 0 || frame[ATA_COMMAND] == cmd::IDENTIFY {
            return self.service.base.min(QUICK);
        }
        let count = if frame.len() >= DATA { usize::from(frame[HEADER_LEN + 2]) } else { 0 };
        let bytes = frame.len().max(count * 512) as u64;
        let stall = if rng.chance(self.service.stall.0) { rng.below(self.service.stall.1 + 1) } else { 0 };
        self.service.base + bytes * self.service.per_kib / 1024 / 1000 + stall
    }

    /// Executes one request; the answer, if there is one.
    pub fn execute(&mut self, tick: u64, rng: &mut Rng, frame: &mut [u8], mac: Mac) -> Option<Vec<u8>> {
        self.disk().tick = tick;
        let ata = frame.len() >= DATA && frame[19] == 0;
        let aborts_ext = matches!(self.flushing, Flushing::Old | Flushing::Liar);
        let command = if ata { frame[ATA_COMMAND] } else { 0 };
        if (aborts_ext && command == cmd::FLUSH_EXT)
            || (matches!(self.flushing, Flushing::None | Flushing::Fraud)
                && matches!(command, cmd::FLUSH | cmd::FLUSH_EXT))
        {
            frame[ATA_COMMAND] = UNKNOWN;
        }
        if self.flushing == Flushing::Echo && matches!(command, cmd::FLUSH | cmd::FLUSH_EXT) {
            return echo(frame, mac);
        }
        let mut unsaved = false;
        if matches!(frame_command(frame, ata), cmd::FLUSH | cmd::FLUSH_EXT) && self.disk().fails_to_flush() {
            unsaved = true;
            frame[ATA_COMMAND] = UNKNOWN;
        }
        if ata && matches!(command, cmd::READ | cmd::READ_EXT | cmd::WRITE | cmd::WRITE_EXT) {
            if self.mute {
                return None;
            }
            if rng.chance(self.refuses) {
                return self.refuse(tick, frame, mac);
            }
        }
        let Answer::Reply(len) = self.processor.handle(frame, mac, self.mtu, &mut self.reply) else {
            return None;
        };
        let mut answer = self.reply[..len].to_vec();
        if unsaved {
            answer[ATA_ERROR] = UNCORRECTABLE;
        }
        if command == cmd::IDENTIFY && ata {
            self.describe(&mut answer);
            if self.flips > 0.0 && rng.chance(self.flips) {
                self.flipped += 1;
                answer[DATA + CHECKSUM..][..2].fill(0);
                // In the model, and several: the same damage twice in a row, or another disk's serial number, is not
                // what is meant.
                answer[DATA + MODEL..][..8].iter_mut().for_each(|byte| *byte ^= 1 << rng.below(5));
            }
        }
        self.patch_config(&mut answer);
        Some(answer)
    }

    /// Refused by the AoE layer, not executed.
    fn refuse(&mut self, tick: u64, frame: &[u8], mac: Mac) -> Option<Vec<u8>> {
        let (header, body) = Header::parse(frame).ok()?;
        let ata = aoefs::wire::Ata::parse(body).ok()?.0;
        let at = ata.sector48().0;
        self.refused.push((tick, at, at + u64::from(ata.count)));
        let mut answer = frame[..DATA.max(frame.len().min(60))].to_vec();
        let reply = Header {
            dst: header.src,
            src: mac,
            response: true,
            error: Some(aoefs::wire::Refusal::Unavailable),
            ..header
        };
        reply.emit(&mut answer);
        Some(answer)
    }

    /// IDENTIFY says what the script wants about flushing.
    fn describe(&self, answer: &mut [u8]) {
        if self.garbage {
            answer[DATA..].fill(0xa5);
            return;
        }
        let kind = match self.flushing {
            Flushing::None => FlushKind::None,
            Flushing::Old => FlushKind::Flush,
            Flushing::Both | Flushing::Liar | Flushing::Fraud | Flushing::Echo => return,
        };
        if let Some(data) = answer.get_mut(DATA..).and_then(|d| d.first_chunk_mut::<IDENTIFY_LEN>())
            && let Ok(mut identify) = Identify::parse(data)
        {
            identify.flush = kind;
            identify.emit(data);
        }
    }

    /// A config reply says what the script wants about the frame size.
    fn patch_config(&self, answer: &mut [u8]) {
        if let (Some(sectors), Ok((header, _))) = (self.advertise, Header::parse(answer))
            && header.command == Command::Config
        {
            answer[HEADER_LEN + 4] = sectors;
        }
    }

    /// Executes one request on a disk that was in this target before, and answers as if it were there still.
    pub fn execute_on(
        &mut self,
        other: &mut Disk,
        tick: u64,
        rng: &mut Rng,
        frame: &mut [u8],
        mac: Mac,
    ) -> Option<Vec<u8>> {
        std::mem::swap(self.disk(), other);
        let answer = self.execute(tick, rng, frame, mac);
        std::mem::swap(self.disk(), other);
        answer
    }

    /// The frame that tells the network that it is there.
    pub fn announcement(&mut self, mac: Mac) -> Option<Vec<u8>> {
        let len = self.processor.announcement(0, mac, self.mtu, &mut self.reply)?;
        let mut frame = self.reply[..len].to_vec();
        self.patch_config(&mut frame);
        Some(frame)
    }

    /// Can a flush succeed by being executed?
    pub fn flushes(&self) -> bool {
        !matches!(self.flushing, Flushing::None | Flushing::Fraud | Flushing::Echo)
    }
}

fn frame_command(frame: &[u8], ata: bool) -> u8 {
    if ata { frame[ATA_COMMAND] } else { 0 }
}

/// The request with its registers, as an answer.
fn echo(frame: &[u8], mac: Mac) -> Option<Vec<u8>> {
    let (header, _) = Header::parse(frame).ok()?;
    let mut answer = frame.to_vec();
    Header { dst: header.src, src: mac, response: true, ..header }.emit(&mut answer);
    Some(answer)
}

fn processor(addr: Addr, buffers: u16, disk: Disk) -> Processor<Disk> {
    let config = TargetConfig { buffers, ..TargetConfig::new(addr, &disk.serial()) };
    Processor::new(config, disk)
}
