//! A recorder: when which AoE frame arrived at an interface, without the data.

use super::raw::{Batch, Port, wait};
use aoefs::wire::{Ata, Command, DATA_OFFSET, Header, ata};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One frame: its headers and its length.
pub struct Frame {
    pub at: Instant,
    pub header: Header,
    pub ata: Option<Ata>,
    pub len: usize,
}

impl Frame {
    /// What a target says on its own: it has started.
    pub fn is_announcement(&self) -> bool {
        self.header.response && self.header.command == Command::Config && self.header.tag.0 == 0
    }

    /// A write that the target has done.
    pub fn is_write_reply(&self) -> bool {
        let written = self.ata.is_some_and(|ata| ata.aflags & ata::AFLAG_WRITE != 0 && !ata.failed());
        self.header.response && self.header.error.is_none() && written
    }

    /// A request with this ATA command.
    pub fn is_request(&self, command: u8) -> bool {
        !self.header.response && self.ata.is_some_and(|ata| ata.command == command)
    }
}

/// Records until it is stopped.
pub struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Frame>>,
}

impl Recorder {
    pub fn start(port: Port) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut frames, mut batch) = (Vec::new(), Batch::new());
            loop {
                // Read before the frames are: what arrived until then is recorded all the same.
                let last = flag.load(Relaxed);
                wait(&[port.as_fd()], Duration::from_millis(if last { 0 } else { 20 }));
                port.recv_batch(&mut batch);
                let at = Instant::now();
                let before = frames.len();
                frames.extend(batch.frames().filter_map(|frame| {
                    let (header, body) = Header::parse(frame).ok()?;
                    let ata = (header.command == Command::Ata).then(|| Ata::parse(body).ok()).flatten();
                    Some(Frame { at, header, ata: ata.map(|(ata, _)| ata), len: frame.len() })
                }));
                if last && frames.len() == before {
                    break;
                }
            }
            frames
        });
        Self { stop, thread }
    }

    /// Everything that arrived, in order.
    pub fn stop(self) -> Vec<Frame> {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

/// The data in a frame of this length, in sectors.
pub const fn sectors_in(len: usize) -> usize {
    len.saturating_sub(DATA_OFFSET) / aoefs::wire::SECTOR
}
