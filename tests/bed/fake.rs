//! A target that follows a script: it behaves like the product's own one until the script says otherwise. Or a crowd of
//! them behind one address: a shelf.
//!
//! Promises: every request is logged before it is answered, with what the script did; a request that the script drops
//! is not executed; the script runs on the target's thread, in order of arrival.

use super::net::Ns;
use super::raw::{Batch, Carrier, FRAME_MAX, Port, wait};
use aoefs::target::{Answer, Image, MemoryImage, Processor, TargetConfig};
use aoefs::wire::{Addr, Ata, Command, DATA_OFFSET, HEADER_LEN, Header, MIN_FRAME, Mac, SECTOR, Sector};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long an idle target sleeps before it looks whether it shall end.
const IDLE: Duration = Duration::from_millis(20);

/// Bytes of a request that are kept: every argument, and the start of what is written.
pub const HEAD: usize = 64;

/// A request as it arrived.
#[derive(Clone)]
pub struct Request {
    pub at: Instant,
    /// The target that it reached; `header` may be addressed to all.
    pub to: Addr,
    pub header: Header,
    pub ata: Option<Ata>,
    pub len: usize,
    /// Its first bytes as they came; zeros where it was shorter.
    pub head: [u8; HEAD],
}

impl Request {
    /// Whether it is this ATA command.
    pub fn is(&self, command: u8) -> bool {
        self.ata.is_some_and(|ata| ata.command == command)
    }

    /// A read or a write of sectors.
    pub fn is_io(&self) -> bool {
        [0x20, 0x24, 0x30, 0x34].iter().any(|command| self.is(*command))
    }

    pub fn is_write(&self) -> bool {
        self.is(0x30) || self.is(0x34)
    }

    /// The sectors that a read or a write with a 48-bit command is about.
    pub fn sectors(&self) -> Range<u64> {
        self.ata.map_or(0..0, |ata| {
            let first = ata.sector48().0;
            first..first + u64::from(ata.count)
        })
    }
}

/// Changes an answer before it leaves.
pub type Change = Box<dyn FnOnce(&mut Vec<u8>) + Send>;

/// What to do with one request.
pub enum Act {
    /// What a good target does.
    Reply,
    /// Neither executed nor answered: lost on the way here.
    Drop,
    /// Executed, not answered: the answer is lost.
    DropReply,
    /// Executed once, answered so many times.
    Answers(u32),
    /// Executed now, answered later.
    Delay(Duration),
    /// Executed and answered later: a slow disk, or a copy that was on its way for long.
    Late(Duration),
    /// Executed; the answer is changed before it leaves.
    Edit(Change),
    /// Not executed; answered with the request's own registers, changed.
    Instead(Change),
}

impl Act {
    pub fn edit(change: impl FnOnce(&mut Vec<u8>) + Send + 'static) -> Self {
        Self::Edit(Box::new(change))
    }

    /// So many bytes more or less than it should have.
    pub fn wrong_size(by: isize) -> Self {
        Self::edit(move |frame| frame.resize(frame.len().saturating_add_signed(by).max(14), 0xee))
    }

    /// A tag that no frame has now. One of a frame that is outstanding would be its answer: nothing else in it says
    /// which it is.
    pub fn wrong_tag() -> Self {
        Self::edit(|frame| frame[21] ^= 0x55)
    }

    /// An AoE error of this number.
    pub fn refuse(code: u8) -> Self {
        Self::Edit(refusal(code))
    }

    /// An ATA error: status and error register.
    pub fn ata_error(status: u8, error: u8) -> Self {
        Self::Edit(failure(status, error))
    }

    /// An AoE error, and nothing is done.
    pub fn refuse_undone(code: u8) -> Self {
        Self::Instead(refusal(code))
    }

    /// An ATA error, and nothing is done.
    pub fn fail_undone(status: u8, error: u8) -> Self {
        Self::Instead(failure(status, error))
    }

    /// An IDENTIFY with other words, and without the checksum that would give that away.
    pub fn identity(change: impl FnOnce(&mut [u16; 256]) + Send + 'static) -> Self {
        Self::edit(move |frame| {
            let page = &mut frame[DATA_OFFSET..DATA_OFFSET + 512];
            let mut words = [0; 256];
            for (word, bytes) in words.iter_mut().zip(page.chunks(2)) {
                *word = u16::from_le_bytes([bytes[0], bytes[1]]);
            }
            words[255] = 0;
            change(&mut words);
            for (word, bytes) in words.iter().zip(page.chunks_mut(2)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        })
    }
}

/// The script of a target that behaves as ggaoed 1.1 where that is its own: it promises both flushes and sends the
/// request's registers back, an EXT one and an old one alike; any AoE command above the reservation list is refused
/// as unknown (vendor commands).
pub fn ggaoed() -> impl FnMut(&Request) -> Act + Send + 'static {
    |request| {
        if request.is(0xe7) || request.is(0xea) {
            // Not executed, and nothing of the registers changed: the opcode is the status.
            return Act::Instead(Box::new(|_| ()));
        }
        if matches!(request.header.command, Command::Other(_)) {
            return Act::refuse_undone(1);
        }
        Act::Reply
    }
}

type Script = Box<dyn FnMut(&Request) -> Act + Send>;

fn refusal(code: u8) -> Change {
    Box::new(move |frame| {
        frame[14] |= 4;
        frame[15] = code;
    })
}

fn failure(status: u8, error: u8) -> Change {
    Box::new(move |frame| {
        (frame[25], frame[27]) = (error, status);
        frame.truncate(DATA_OFFSET.max(MIN_FRAME));
    })
}

struct State {
    /// At least one.
    targets: Vec<Processor<MemoryImage>>,
    script: Script,
    alive: bool,
    log: Vec<Request>,
    /// By the time at which they are due, and a number that keeps equal times apart.
    later: BTreeMap<(Instant, u64), Later>,
    order: u64,
}

enum Later {
    Send(Vec<u8>),
    /// By the target of this number.
    Execute(usize, Vec<u8>),
}

/// A scripted target at work; dropping it ends it.
pub struct Fake {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    announce: Arc<dyn Fn() + Send + Sync>,
    thread: Option<JoinHandle<()>>,
}

/// The usual identity of a scripted target.
pub fn config(addr: &str, serial: &str) -> TargetConfig {
    TargetConfig::new(addr.parse::<Addr>().expect("SHELF.SLOT"), serial)
}

impl Fake {
    /// A target on an interface, with this content. It announces itself.
    #[track_caller]
    pub fn start(ns: &Ns, port: &str, config: TargetConfig, content: &[u8]) -> Self {
        Self::start_on(ns, port, config, MemoryImage::from_bytes(content))
    }

    /// The same with an image, which may be larger than memory.
    #[track_caller]
    pub fn start_on(ns: &Ns, port: &str, config: TargetConfig, image: MemoryImage) -> Self {
        Self::on(Arc::new(Port::open(ns, port)), ns.mtu(port), vec![Processor::new(config, image)])
    }

    /// Many targets on an interface, each with this content, one script and one log for all.
    #[track_caller]
    pub fn crowd(ns: &Ns, port: &str, configs: Vec<TargetConfig>, content: &[u8]) -> Self {
        let target = |config| Processor::new(config, MemoryImage::from_bytes(content));
        Self::on(Arc::new(Port::open(ns, port)), ns.mtu(port), configs.into_iter().map(target).collect())
    }

    /// The same on anything that carries frames.
    pub fn on(port: Arc<dyn Carrier>, mtu: usize, targets: Vec<Processor<MemoryImage>>) -> Self {
        let state = Arc::new(Mutex::new(State {
            targets,
            script: Box::new(|_| Act::Reply),
            alive: true,
            log: Vec::new(),
            later: BTreeMap::new(),
            order: 0,
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let announce = {
            let (state, port) = (state.clone(), port.clone());
            Arc::new(move || {
                let mut frame = vec![0; FRAME_MAX];
                let mac = Mac(port.mac());
                for target in &mut lock(&state).targets {
                    if let Some(len) = target.announcement(0, mac, mtu, &mut frame) {
                        let _ = port.send_batch(&[&frame[..len]]);
                    }
                }
            })
        };
        let thread = {
            let (state, stop) = (state.clone(), stop.clone());
            std::thread::spawn(move || serve(&*port, mtu, &state, &stop))
        };
        let fake = Self { state, stop, announce, thread: Some(thread) };
        fake.announce();
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// From now on every request goes through this.
    pub fn script(&self, script: impl FnMut(&Request) -> Act + Send + 'static) {
        self.state().script = Box::new(script);
    }

    /// A good target again.
    pub fn behave(&self) {
        self.script(|_| Act::Reply);
    }

    /// Answers nothing any more, and forgets what it still owed.
    pub fn die(&self) {
        let mut state = self.state();
        state.alive = false;
        state.later.clear();
    }

    /// Back again, with an announcement if it makes one.
    pub fn revive(&self, announce: bool) {
        self.state().alive = true;
        if announce {
            self.announce();
        }
    }

    /// Says "here I am" to everybody, as at a start.
    pub fn announce(&self) {
        (self.announce)();
    }

    /// Another disk behind the (first) address; the one it replaces is returned.
    pub fn swap(&self, config: TargetConfig, content: &[u8]) -> Processor<MemoryImage> {
        std::mem::replace(
            &mut self.state().targets[0],
            Processor::new(config, MemoryImage::from_bytes(content)),
        )
    }

    /// More or fewer sectors, behind the initiator's back.
    pub fn resize(&self, sectors: u64) {
        self.state().targets[0].image_mut().resize(sectors);
    }

    /// Every request so far.
    pub fn log(&self) -> Vec<Request> {
        self.state().log.clone()
    }

    pub fn forget_log(&self) {
        self.state().log.clear();
    }

    /// What one sector of the (first) disk holds now.
    pub fn sector(&self, at: u64) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        self.state().targets[0].image_mut().read_at(Sector(at), &mut bytes).expect("a sector of the disk");
        bytes
    }

    /// What the (first) disk holds now.
    pub fn content(&self) -> Vec<u8> {
        content(&mut self.state().targets[0])
    }
}

/// What the disk of a target holds.
pub fn content(target: &mut Processor<MemoryImage>) -> Vec<u8> {
    let image = target.image_mut();
    let mut bytes = vec![0; image.sectors() as usize * SECTOR];
    image.read_at(Sector(0), &mut bytes).expect("memory can be read");
    bytes
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request as its own answer: the argument without its data.
fn turned(frame: &[u8], port: &dyn Carrier) -> Vec<u8> {
    let mut answer = frame[..frame.len().min(MIN_FRAME)].to_vec();
    answer.copy_within(6..12, 0);
    answer[6..12].copy_from_slice(&port.mac());
    answer[14] |= 8;
    answer.truncate(DATA_OFFSET);
    answer.resize(MIN_FRAME, 0);
    answer
}

/// Where the targets are.
#[derive(Clone, Copy)]
struct Place<'a> {
    port: &'a dyn Carrier,
    mtu: usize,
}

fn serve(port: &dyn Carrier, mtu: usize, state: &Mutex<State>, stop: &AtomicBool) {
    let place = Place { port, mtu };
    let mut batch = Batch::new();
    let mut reply = vec![0; FRAME_MAX];
    let mut out: Vec<Vec<u8>> = Vec::new();
    while !stop.load(Relaxed) {
        let next = lock(state).later.first_key_value().map(|((at, _), _)| *at);
        let limit = next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()).min(IDLE));
        wait(&[port.as_fd()], limit);
        port.recv_batch(&mut batch);
        let mut state = lock(state);
        let now = Instant::now();
        for frame in batch.frames() {
            state.arrived(frame, place, now, &mut reply, &mut out);
        }
        while let Some(entry) = state.later.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Later::Send(frame) => out.push(frame),
                Later::Execute(which, frame) => out.extend(state.execute(which, &frame, place, &mut reply)),
            }
        }
        drop(state);
        for frames in out.chunks(64) {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let _ = port.send_batch(&frames);
        }
        out.clear();
    }
}

impl State {
    fn arrived(
        &mut self,
        frame: &[u8],
        place: Place<'_>,
        now: Instant,
        reply: &mut [u8],
        out: &mut Vec<Vec<u8>>,
    ) {
        let Ok((header, body)) = Header::parse(frame) else { return };
        if !self.alive || header.response {
            return;
        }
        let ata = (header.command == Command::Ata).then(|| Ata::parse(body).ok()).flatten();
        let ata = ata.map(|(ata, _)| ata);
        let mut head = [0; HEAD];
        head.iter_mut().zip(frame).for_each(|(to, from)| *to = *from);
        for which in 0..self.targets.len() {
            let to = self.targets[which].addr();
            if header.addr.matches(to) {
                let request = Request { at: now, to, header, ata, len: frame.len(), head };
                self.take(request, which, frame, place, reply, out);
            }
        }
    }

    fn take(
        &mut self,
        request: Request,
        which: usize,
        frame: &[u8],
        place: Place<'_>,
        reply: &mut [u8],
        out: &mut Vec<Vec<u8>>,
    ) {
        let now = request.at;
        let act = (self.script)(&request);
        self.log.push(request);
        let answers = match act {
            Act::Drop => return,
            Act::Late(delay) => return self.put_off(now + delay, Later::Execute(which, frame.to_vec())),
            Act::Instead(_) => Some(turned(frame, place.port)),
            _ => self.execute(which, frame, place, reply),
        };
        let Some(mut answer) = answers else { return };
        match act {
            Act::Reply => out.push(answer),
            Act::Answers(n) => out.extend((0..n).map(|_| answer.clone())),
            Act::Delay(delay) => self.put_off(now + delay, Later::Send(answer)),
            Act::Edit(change) | Act::Instead(change) => {
                change(&mut answer);
                out.push(answer);
            }
            Act::Drop | Act::DropReply | Act::Late(_) => {}
        }
    }

    fn put_off(&mut self, at: Instant, what: Later) {
        self.order += 1;
        self.later.insert((at, self.order), what);
    }

    fn execute(&mut self, which: usize, frame: &[u8], place: Place<'_>, reply: &mut [u8]) -> Option<Vec<u8>> {
        match self.targets[which].handle(frame, Mac(place.port.mac()), place.mtu, reply) {
            Answer::Reply(len) => Some(reply[..len.max(HEADER_LEN)].to_vec()),
            Answer::Silence(_) => None,
        }
    }
}
