//! Two links joined in memory: the wire of the demo and of tests.
//!
//! Promises: behaves as a veth pair does (bounded, lossy when full, down when either end is down, silent about
//! frames that are too large for the other end) and recycles its buffers. A [`Hook`] decides each frame's fate,
//! so that a test can have any wire it wants, from one seed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Batch, Link, OutFrame, Ready, is_readable, slot_size};
use crate::wire::{BUFFERS_MAX, ETHERNET, Mac};

/// Frames that wait for the receiver of one direction: twice as many as a target queues. More are lost.
pub const QUEUE: usize = 2 * BUFFERS_MAX as usize;

/// How often a receiver that waits for frames and for a descriptor checks the descriptor: frames are announced by a
/// condition here, which cannot be waited for together with a descriptor.
const CHECK_EVERY: Duration = Duration::from_micros(50);

/// Indices of loopback ends start here, far above what the kernel gives interfaces.
static NEXT_INDEX: AtomicU32 = AtomicU32::new(0x4000_0000);

/// The fate of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Pass,
    /// It does not.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives later than its successors.
    Delay(Duration),
}

/// Decides a frame's fate; called once a frame in the order they were sent, with the direction locked.
pub type Hook = Box<dyn FnMut(&OutFrame<'_>) -> Fate + Send>;

/// One end of a pair.
pub struct LoopbackLink {
    name: Arc<str>,
    mac: Mac,
    index: u32,
    here: Arc<End>,
    there: Arc<End>,
}

/// The part of an end that the other end shares: the frames on their way to it.
struct End {
    mtu: AtomicUsize,
    up: AtomicBool,
    drops: AtomicU64,
    inbox: Mutex<Inbox>,
    news: Condvar,
}

/// A frame in a buffer that may be larger.
struct Queued {
    buffer: Box<[u8]>,
    len: usize,
}

#[derive(Default)]
struct Inbox {
    ready: VecDeque<Queued>,
    late: Vec<(Instant, Queued)>,
    spare: Vec<Box<[u8]>>,
    hook: Option<Hook>,
    woken: bool,
    /// The end went down and its receiver has not been told.
    fell: bool,
}

/// Two ends of one wire, up, with locally administered addresses. Both start with `mtu`.
pub fn pair(name_a: &str, name_b: &str, mtu: usize) -> (Arc<LoopbackLink>, Arc<LoopbackLink>) {
    let end = || {
        Arc::new(End {
            mtu: AtomicUsize::new(mtu),
            up: AtomicBool::new(true),
            drops: AtomicU64::new(0),
            inbox: Mutex::new(Inbox::default()),
            news: Condvar::new(),
        })
    };
    let (a, b) = (end(), end());
    let link = |name: &str, here: &Arc<End>, there: &Arc<End>| {
        let index = NEXT_INDEX.fetch_add(1, Ordering::Relaxed);
        let [i, j, k, l] = index.to_be_bytes();
        let mac = Mac([0x02, 0xae, i, j, k, l]);
        Arc::new(LoopbackLink { name: name.into(), mac, index, here: here.clone(), there: there.clone() })
    };
    (link(name_a, &a, &b), link(name_b, &b, &a))
}

impl LoopbackLink {
    /// Sets the hook that decides the fate of frames that this end sends; without one all arrive.
    pub fn set_hook(&self, hook: Option<Hook>) {
        self.there.inbox.lock().hook = hook;
    }

    /// Takes this end up or down. Down: its receiver gets ENETDOWN once, its sends fail, frames to it are lost.
    pub fn set_up(&self, up: bool) {
        if self.here.up.swap(up, Ordering::AcqRel) != up && !up {
            let mut inbox = self.here.inbox.lock();
            inbox.fell = true;
            inbox.discard();
            self.here.news.notify_all();
        }
    }

    /// Changes this end's MTU, for sending at once and for receiving from the next frame on.
    pub fn set_mtu(&self, mtu: usize) {
        self.here.mtu.store(mtu, Ordering::Relaxed);
    }
}

impl Link for LoopbackLink {
    fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    fn mac(&self) -> Mac {
        self.mac
    }

    fn mtu(&self) -> usize {
        self.here.mtu.load(Ordering::Relaxed)
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn is_up(&self) -> bool {
        self.here.up.load(Ordering::Acquire) && self.there.up.load(Ordering::Acquire)
    }

    fn send(&self, frames: &[OutFrame<'_>]) -> (usize, Option<io::Error>) {
        if !self.here.up.load(Ordering::Acquire) {
            return (0, Some(io::Error::from_raw_os_error(libc::ENETDOWN)));
        }
        let largest = self.mtu() + ETHERNET;
        let (mut taken, mut refused) = (0, None);
        let mut inbox = self.there.inbox.lock();
        for frame in frames {
            let error = match frame.len() {
                n if n > largest => libc::EMSGSIZE,
                n if n < ETHERNET => libc::EINVAL,
                _ => {
                    taken += 1;
                    self.there.carry(&mut inbox, frame);
                    continue;
                }
            };
            refused = Some(io::Error::from_raw_os_error(error));
        }
        drop(inbox);
        // A deputy may wait beside the receiver, and may leave the frames to it after it was woken.
        self.there.news.notify_all();
        (taken, refused)
    }

    fn wait(&self) -> io::Result<()> {
        let mut inbox = self.here.inbox.lock();
        loop {
            let next = inbox.ripen(Instant::now());
            if inbox.woken || inbox.has_news() {
                return Ok(());
            }
            match next {
                Some(due) => drop(self.here.news.wait_until(&mut inbox, due)),
                None => self.here.news.wait(&mut inbox),
            }
        }
    }

    fn take_wake(&self) -> bool {
        std::mem::take(&mut self.here.inbox.lock().woken)
    }

    fn recv_now(&self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        batch.fit(self.mtu() + ETHERNET);
        let mut inbox = self.here.inbox.lock();
        inbox.ripen(Instant::now());
        inbox.hand_over(batch)
    }

    fn has_frames(&self) -> bool {
        let mut inbox = self.here.inbox.lock();
        inbox.ripen(Instant::now());
        inbox.has_news()
    }

    fn wait_beside(&self, other: BorrowedFd<'_>, patience: Duration) -> Ready {
        let end = Instant::now() + patience;
        let mut inbox = self.here.inbox.lock();
        loop {
            inbox.ripen(Instant::now());
            let ready = Ready { frames: inbox.has_news(), other: is_readable(other) };
            let next = end.min(Instant::now() + CHECK_EVERY);
            if ready != Ready::default() || Instant::now() >= end {
                return ready;
            }
            self.here.news.wait_until(&mut inbox, next);
        }
    }

    fn wake(&self) {
        self.here.inbox.lock().woken = true;
        self.here.news.notify_all();
    }

    fn refresh(&self) -> io::Result<()> {
        Ok(())
    }

    fn drops(&self) -> u64 {
        self.here.drops.load(Ordering::Relaxed)
    }
}

impl End {
    /// Lets a frame travel to this end, whatever becomes of it.
    fn carry(&self, inbox: &mut Inbox, frame: &OutFrame<'_>) {
        let fate = inbox.hook.as_mut().map_or(Fate::Pass, |hook| hook(frame));
        if !self.up.load(Ordering::Acquire) || frame.len() > self.mtu.load(Ordering::Relaxed) + ETHERNET {
            return;
        }
        let copies = match fate {
            Fate::Drop => 0,
            Fate::Duplicate => 2,
            Fate::Pass | Fate::Delay(_) => 1,
        };
        for _ in 0..copies {
            if inbox.ready.len() + inbox.late.len() >= QUEUE {
                self.drops.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let queued = inbox.fill(frame, slot_size(self.mtu.load(Ordering::Relaxed) + ETHERNET));
            match fate {
                Fate::Delay(time) => inbox.late.push((Instant::now() + time, queued)),
                _ => inbox.ready.push_back(queued),
            }
        }
    }
}

impl Inbox {
    /// Copies a frame into a spare buffer, or a new one of `size` bytes.
    fn fill(&mut self, frame: &OutFrame<'_>, size: usize) -> Queued {
        let len = frame.len();
        // All spare buffers have one size: buffers from before a change of MTU are dropped one by one.
        let mut buffer = match self.spare.pop() {
            Some(buffer) if buffer.len() == size.max(len) => buffer,
            _ => vec![0; size.max(len)].into_boxed_slice(),
        };
        let (head, rest) = buffer.split_at_mut(frame.head.len());
        head.copy_from_slice(frame.head);
        if let Some(body) = rest.get_mut(..frame.body.len()) {
            body.copy_from_slice(frame.body);
        }
        Queued { buffer, len }
    }

    /// Moves late frames that are due to the others; says when the next one is.
    fn ripen(&mut self, now: Instant) -> Option<Instant> {
        while let Some((i, _)) =
            self.late.iter().enumerate().filter(|(_, (due, _))| *due <= now).min_by_key(|(_, (due, _))| *due)
        {
            let (_, queued) = self.late.remove(i);
            self.ready.push_back(queued);
        }
        self.late.iter().map(|(due, _)| *due).min()
    }

    /// Whether a receiver has something to take, an error included.
    fn has_news(&self) -> bool {
        self.fell || !self.ready.is_empty()
    }

    /// Gives the receiver frames in exchange for its slots, or the error that comes first.
    fn hand_over(&mut self, batch: &mut Batch) -> io::Result<()> {
        if std::mem::take(&mut self.fell) {
            return Err(io::Error::from_raw_os_error(libc::ENETDOWN));
        }
        batch.fit(self.ready.iter().map(|queued| queued.len).max().unwrap_or(0));
        while let Some(mut queued) = self.ready.pop_front() {
            if !batch.exchange(&mut queued.buffer, queued.len) {
                self.ready.push_front(queued);
                break;
            }
            self.recycle(queued.buffer);
        }
        Ok(())
    }

    fn recycle(&mut self, buffer: Box<[u8]>) {
        if self.spare.len() < QUEUE {
            self.spare.push(buffer);
        }
    }

    fn discard(&mut self) {
        let late = std::mem::take(&mut self.late);
        let ready = std::mem::take(&mut self.ready);
        for queued in ready.into_iter().chain(late.into_iter().map(|(_, queued)| queued)) {
            self.recycle(queued.buffer);
        }
    }
}

#[cfg(test)]
mod tests;
