//! A host: runtime and core of its own over a link to the target, and calls that wait for their answers.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use aoefs::export::server::{FrameHandler, Server};
use aoefs::fs::core::{At, Core, Found, Opened, Reader, Settings, WAITING_MAX};
use aoefs::fs::errno::Errno;
use aoefs::fs::notify::Kernel;
use aoefs::link::loopback::pair;
use aoefs::runtime::{Runtime, TARGETS_MAX};
use aoefs::target::{MemoryImage, Processor, Slot, TargetConfig};
use aoefs::wire::{Addr, IDENTIFY_LEN, Identify, Mac, cmd};
use parking_lot::Mutex;

/// Requests must not hang: everything here ends within this.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Sectors of the disk: 4 MiB.
pub const SECTORS: u64 = 8192;
pub const SIZE: u64 = SECTORS * 512;
/// The thread that opens everything.
pub const PID: u32 = 77;
pub const ROOT: u64 = 1;

pub struct Target {
    pub processor: Mutex<Processor<MemoryImage>>,
    /// It is unplugged: no frame is answered.
    pub silent: AtomicBool,
    /// Its cache cannot be written.
    pub unflushed: AtomicBool,
    /// What it says of its disk besides what the disk is.
    pub identity: Mutex<fn(&mut Identify)>,
}

impl FrameHandler for Target {
    fn handle_batch(&self, frames: &[&[u8]], mac: Mac, mtu: usize, replies: &mut [Slot<'_>]) {
        if self.silent.load(Ordering::SeqCst) {
            return;
        }
        self.processor.lock().handle_batch(frames, mac, mtu, replies);
        let identity = *self.identity.lock();
        for (frame, (reply, len)) in frames.iter().zip(&mut *replies) {
            if *len >= 36 + IDENTIFY_LEN && (frame[19], frame[27]) == (0, cmd::IDENTIFY) {
                let data = reply[36..].first_chunk_mut().unwrap();
                let mut identify = Identify::parse(data).unwrap();
                identity(&mut identify);
                identify.emit(data);
            }
        }
        if self.unflushed.load(Ordering::SeqCst) {
            for (frame, (reply, len)) in frames.iter().zip(replies) {
                if *len > 0 && matches!(frame.get(27), Some(0xe7 | 0xea)) {
                    (reply[25], reply[27]) = (0x04, 0x51);
                }
            }
        }
    }
    fn announcement(&self, nth: usize, mac: Mac, mtu: usize, frame: &mut [u8]) -> Option<usize> {
        self.processor.lock().announcement(nth, mac, mtu, frame)
    }
}

/// One thing the kernel was told to drop of an inode: pages from an offset on, or none but the attributes.
pub type Dropped = (u64, Option<(u64, u64)>);

/// What the kernel was told.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<Dropped>>, AtomicBool, Mutex<Duration>);

impl Told {
    /// Pages are being read: they cannot be dropped until that is over.
    pub fn lock_pages(&self, locked: bool) {
        self.1.store(locked, Ordering::SeqCst);
    }

    /// How long it takes to drop pages.
    pub fn slow(&self, each: Duration) {
        *self.2.lock() = each;
    }
}

struct Fake(Arc<Told>);

impl Kernel for Fake {
    fn drop_pages(&self, ino: u64, offset: u64, len: u64) {
        while self.0.1.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let each = *self.0.2.lock();
        std::thread::sleep(each);
        self.0.0.lock().push((ino, Some((offset, len))));
    }
    fn drop_attributes(&self, ino: u64) {
        self.0.0.lock().push((ino, None));
    }
}

pub struct Host {
    pub runtime: Arc<Runtime>,
    pub core: Arc<Core>,
    pub target: Arc<Target>,
    pub server: Server,
    pub told: Arc<Told>,
}

pub fn processor(serial: &str, sectors: u64) -> Processor<MemoryImage> {
    Processor::new(TargetConfig::new(Addr::new(1, 0), serial), MemoryImage::new(sectors))
}

pub fn settings() -> Settings {
    Settings {
        uid: 1000,
        gid: 100,
        born: SystemTime::now(),
        read_only: false,
        uncached: false,
        partscan: false,
        waiting_max: WAITING_MAX,
        read_ahead: 0,
    }
}

impl Host {
    pub fn new() -> Host {
        Self::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Host {
        let processor = processor("one", SECTORS).into();
        let no = || AtomicBool::new(false);
        Self::at(
            Arc::new(Target { processor, silent: no(), unflushed: no(), identity: Mutex::new(|_| ()) }),
            change,
        )
    }

    /// Another host with the same target.
    pub fn beside(&self) -> Host {
        Self::at(self.target.clone(), |_| ())
    }

    fn at(target: Arc<Target>, change: impl FnOnce(&mut Settings)) -> Host {
        let (near, far) = pair("near", "far", 9000);
        let server = Server::start(far, target.clone()).unwrap();
        let runtime = Runtime::new(TARGETS_MAX);
        let mut settings = settings();
        change(&mut settings);
        let core = Core::new(runtime.clone(), settings, ());
        let told = Arc::new(Told::default());
        core.connect(Fake(told.clone()));
        runtime.start(false, false).unwrap();
        runtime.attach(near).unwrap();
        let host = Host { runtime, core, target, server, told };
        host.eventually(|| host.look_up(ROOT, "1.0").is_ok());
        host
    }

    pub fn eventually(&self, what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < PATIENCE, "it never came; log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Calls and waits for the answer.
    pub fn wait<T: Send + 'static>(
        call: impl FnOnce(Box<dyn FnOnce(Result<T, Errno>) + Send>),
    ) -> Result<T, Errno> {
        let (tx, rx) = mpsc::channel();
        call(Box::new(move |answer| tx.send(answer).unwrap()));
        rx.recv_timeout(PATIENCE).expect("it was never answered")
    }

    pub fn look_up(&self, parent: u64, name: &str) -> Result<Found, Errno> {
        self.core.look_up(parent, OsStr::new(name))
    }

    /// The inode at a path from the root.
    pub fn ino(&self, path: &str) -> Result<u64, Errno> {
        path.split('/').try_fold(ROOT, |parent, name| Ok(self.look_up(parent, name)?.attr.ino.0))
    }

    pub fn size(&self, path: &str) -> u64 {
        self.core.stat(self.ino(path).unwrap()).unwrap().attr.size
    }

    pub fn names(&self, path: &str) -> Vec<String> {
        let ino = if path.is_empty() { ROOT } else { self.ino(path).unwrap() };
        let fh = self.core.open_dir(ino).unwrap();
        let mut names = Vec::new();
        self.core
            .read_dir(fh, 0, |entry, _| {
                names.push(entry.name.clone());
                false
            })
            .unwrap();
        self.core.release(fh);
        names
    }

    /// `data` and the partitions: they are listed last.
    pub fn disks(&self) -> Vec<String> {
        let names = self.names("1.0");
        let devlink = names.iter().position(|name| name == "devlink").unwrap();
        names[devlink + 1..].to_vec()
    }

    pub fn try_open(&self, path: &str, flags: i32) -> Result<u64, Errno> {
        Ok(self.core.open(self.ino(path)?, PID, flags)?.fh)
    }

    /// As the kernel opens: where the target is down, the answer may come later.
    pub fn open_when_up(&self, path: &str, flags: i32) -> mpsc::Receiver<Result<u64, Errno>> {
        let (tx, rx) = mpsc::channel();
        let answer = move |opened: Result<Opened, Errno>| tx.send(opened.map(|opened| opened.fh)).unwrap();
        self.core.open_when_up(self.ino(path).unwrap(), PID, flags, answer);
        rx
    }

    pub fn open(&self, path: &str) -> u64 {
        self.try_open(path, libc::O_RDWR).unwrap_or_else(|errno| panic!("{path}: {errno:?}"))
    }

    pub fn read_at(&self, fh: u64, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        self.read_as(Reader::Program, fh, offset, len)
    }

    /// As the kernel reads for its page cache.
    pub fn page_in(&self, fh: u64, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        self.read_as(Reader::PageCache, fh, offset, len)
    }

    fn read_as(&self, reader: Reader, fh: u64, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
        Self::wait(|answer| {
            self.core.read(fh, offset, len, reader, move |read| answer(read.map(<[u8]>::to_vec)))
        })
    }

    /// copy_file_range(2) between two handles.
    pub fn copy(&self, from: (u64, u64), to: (u64, u64), len: u64) -> Result<u32, Errno> {
        let at = |(fh, offset)| At { fh, offset };
        Self::wait(|answer| self.core.copy_range(at(from), at(to), len, answer))
    }

    /// What the kernel was told since this was asked last.
    pub fn told(&self) -> Vec<Dropped> {
        let mut told = std::mem::take(&mut *self.told.0.lock());
        told.sort();
        told
    }

    pub fn write_at(&self, fh: u64, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        Self::wait(|answer| self.core.write(fh, offset, data, false, answer))
    }

    pub fn truncate(&self, ino: u64, fh: Option<u64>, size: u64) -> Result<(), Errno> {
        Self::wait(|answer| self.core.set_size(ino, fh, PID, size, answer))
    }

    pub fn sync(&self, fh: u64) -> Result<(), Errno> {
        Self::wait(|answer| self.core.sync(fh, answer))
    }

    pub fn fallocate(&self, fh: u64, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        Self::wait(|answer| self.core.fallocate(fh, offset, len, mode, answer))
    }

    /// `echo TEXT > PATH`.
    pub fn echo(&self, path: &str, text: &str) -> Result<u32, Errno> {
        let fh = self.try_open(path, libc::O_WRONLY)?;
        let written = self.write_at(fh, 0, text.as_bytes());
        self.core.release(fh);
        written
    }

    /// `cat PATH`, in small pieces.
    pub fn cat(&self, path: &str) -> Result<String, Errno> {
        let fh = self.try_open(path, libc::O_RDONLY)?;
        let mut all = Vec::new();
        let read = loop {
            match self.read_at(fh, all.len() as u64, 100) {
                Ok(bytes) if bytes.is_empty() => break Ok(()),
                Ok(bytes) => all.extend(bytes),
                Err(errno) => break Err(errno),
            }
        };
        self.core.release(fh);
        read.map(|()| String::from_utf8(all).unwrap())
    }

    pub fn log(&self) -> String {
        String::from_utf8(self.runtime.log().read_at(&mut Default::default(), 0, 1 << 20)).unwrap()
    }

    /// What is on the disk, seen by a handle that has nothing to do with the others.
    pub fn disk(&self) -> Vec<u8> {
        let fh = self.try_open("1.0/data", libc::O_RDONLY).unwrap();
        let all = (0..SIZE >> 20).flat_map(|n| self.read_at(fh, n << 20, 1 << 20).unwrap()).collect();
        self.core.release(fh);
        all
    }

    /// Makes every byte of the disk the same.
    pub fn fill(&self, byte: u8) {
        let fh = self.open("1.0/data");
        for n in 0..SIZE >> 20 {
            assert_eq!(self.write_at(fh, n << 20, &vec![byte; 1 << 20]), Ok(1 << 20));
        }
        self.core.release(fh);
    }

    pub fn silence(&self, silent: bool) {
        self.target.silent.store(silent, Ordering::SeqCst);
    }

    /// Puts another disk behind the address, as if the target had been restarted with it.
    pub fn swap(&self, serial: &str, sectors: u64) {
        *self.target.processor.lock() = processor(serial, sectors);
        self.server.announce();
    }

    /// Ends the host: gauges at zero, threads gone.
    pub fn end(self) {
        assert_eq!(self.core.open_handles(), 0, "handles left");
        for unit in self.runtime.units() {
            self.runtime.inspect(&unit, |device| {
                assert_eq!(device.requests(), 0, "requests left");
                assert_eq!(device.opened(), 0, "opens left");
            });
        }
        self.core.close();
        self.runtime.stop();
        drop(self.server);
        assert_eq!(Arc::strong_count(&self.core), 1, "somebody holds the file system");
    }
}
