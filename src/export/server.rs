//! Serves a target on a link: one thread that carries frames to a [`FrameHandler`] and its replies back.
//!
//! Promises: frames are taken and replies sent in batches, without an allocation a frame; nothing that happens to the
//! link ends the service. While the interface is down or gone the thread waits for it; when it is there (again), or
//! has another MAC or MTU, the target announces itself on it. The thread ends when the [`Server`] is dropped.
//!
//! The thread knows a target only by the trait, so that tests can serve others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::link::{BATCH, Batch, Link, OutFrame, Received, is_congested, is_gone, is_link_down};
use crate::target::{RUN_MAX, Slot};
use crate::wire::{ETHERNET, MIN_FRAME, Mac};

/// How long a link that is down is left alone before it is tried again, unless a change is reported.
const TRY_AGAIN: Duration = Duration::from_secs(1);

// A batch of the link goes to the image in one call, if its frames allow it.
const _: () = assert!(BATCH <= RUN_MAX);

/// A target, as the thread that serves it sees it. Several threads may call it at the same time.
pub trait FrameHandler: Send + Sync {
    /// Answers the frames of a batch, which came in on an interface with this MAC and MTU, each into the slot of its
    /// number. A frame that gets no reply leaves the length of its slot at 0.
    fn handle_batch(&self, frames: &[&[u8]], mac: Mac, mtu: usize, replies: &mut [Slot<'_>]);

    /// Puts the `nth` frame that announces the target into `frame`; `None` when there are no more.
    fn announcement(&self, nth: usize, mac: Mac, mtu: usize, frame: &mut [u8]) -> Option<usize>;
}

/// A handler being served on a link.
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    link: Arc<dyn Link>,
    handler: Arc<dyn FrameHandler>,
    stop: AtomicBool,
    /// The link may have changed: it is to be refreshed.
    refresh: AtomicBool,
    /// The target is to be announced.
    announce: AtomicBool,
    /// Replies that the link did not take.
    lost: AtomicU64,
    pause: Mutex<()>,
    poke: Condvar,
}

/// The properties of a link that an announcement depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    index: u32,
    mac: Mac,
    mtu: usize,
    up: bool,
}

/// Room for the replies to one batch.
struct Replies {
    bytes: Vec<u8>,
    slot: usize,
}

impl Server {
    /// Starts to serve `handler` on `link`, and announces it.
    pub fn start(link: Arc<dyn Link>, handler: Arc<dyn FrameHandler>) -> io::Result<Server> {
        let name = format!("target {}", link.name());
        let shared = Arc::new(Shared {
            link,
            handler,
            stop: AtomicBool::new(false),
            refresh: AtomicBool::new(false),
            announce: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            pause: Mutex::new(()),
            poke: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name).spawn(move || own.run())?;
        Ok(Server { shared, thread: Some(thread) })
    }

    /// The link that is served.
    pub fn link(&self) -> &dyn Link {
        &*self.shared.link
    }

    /// Replies that the link did not take, for want of room or because it was down.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// The link may have changed: refreshes it, and announces the target if it has.
    pub fn link_changed(&self) {
        self.shared.refresh.store(true, Ordering::Release);
        self.shared.rouse();
    }

    /// Announces the target, because it has changed.
    pub fn announce(&self) {
        self.shared.announce.store(true, Ordering::Release);
        self.shared.rouse();
    }
}

impl Drop for Server {
    /// Ends the service. The batch in hand is still answered.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.rouse();
        if let Some(thread) = self.thread.take() {
            // An error means that the handler panicked, and the panic is in the log already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut batch = Batch::new(self.link.mtu() + ETHERNET);
        let mut replies = Replies::new();
        // The state of the link when the target was last announced on it.
        let mut told: Option<Seen> = None;
        while !self.stopped() {
            if self.refresh.swap(false, Ordering::Acquire)
                && let Err(e) = self.link.refresh()
            {
                log::debug!("{}: {e}", self.link.name());
            }
            let now = Seen::now(&*self.link);
            let asked = self.announce.swap(false, Ordering::Acquire);
            told = match told {
                Some(before) if !asked && !now.is_news_after(before) => Some(now),
                _ if self.send_announcement(now, &mut replies) => Some(now),
                _ => self.wait_for_link(&mut replies),
            };
            let Some(now) = told else { continue };
            match self.link.recv(&mut batch) {
                Ok(Received::Frames) => {
                    crate::bug::here("serve");
                    self.answer(&batch, now, &mut replies);
                }
                Ok(Received::Woken) => {}
                Err(e) => {
                    log::warn!("{}: {e}", self.link.name());
                    told = self.wait_for_link(&mut replies);
                }
            }
        }
    }

    fn answer(&self, batch: &Batch, now: Seen, replies: &mut Replies) {
        let mut frames = [&[][..]; BATCH];
        let mut slots = std::array::from_fn::<Slot<'_>, BATCH, _>(|_| (&mut [][..], 0));
        let mut count = 0;
        for ((frame, reply), (from, slot)) in
            batch.frames().zip(replies.slots()).zip(frames.iter_mut().zip(&mut slots))
        {
            *from = frame;
            slot.0 = reply;
            count += 1;
        }
        self.handler.handle_batch(&frames[..count], now.mac, now.mtu, &mut slots[..count]);
        let mut out = [OutFrame { head: &[], body: &[] }; BATCH];
        let mut count = 0;
        for (reply, len) in slots.iter().filter(|(_, len)| *len > 0) {
            out[count].head = &reply[..*len];
            count += 1;
        }
        self.send(&out[..count]);
    }

    /// Announces the target; false if the link takes nothing, because it is down or gone.
    fn send_announcement(&self, now: Seen, replies: &mut Replies) -> bool {
        replies.fit(now.mtu);
        for nth in 0.. {
            let Some(frame) = replies.slots().next() else { break };
            let Some(len) = self.handler.announcement(nth, now.mac, now.mtu, frame) else { break };
            match self.link.send(&[OutFrame { head: &frame[..len], body: &[] }]) {
                (_, Some(e)) if !is_congested(&e) => return false,
                _ => {}
            }
        }
        log::info!("{}: announced (MAC {}, MTU {})", self.link.name(), now.mac, now.mtu);
        true
    }

    fn send(&self, frames: &[OutFrame<'_>]) {
        if frames.is_empty() {
            return;
        }
        let (taken, error) = self.link.send(frames);
        self.lost.fetch_add((frames.len() - taken) as u64, Ordering::Relaxed);
        match error {
            None => {}
            // The next receive says the same, and waits.
            Some(e) if is_congested(&e) || is_link_down(&e) || is_gone(&e) => {}
            // Most likely EMSGSIZE: the MTU shrank, and no change was reported yet.
            Some(e) => {
                log::info!("{}: {} replies were not taken: {e}", self.link.name(), frames.len() - taken);
                self.refresh.store(true, Ordering::Release);
            }
        }
    }

    /// Returns when the link takes announcements (again), or, with `None`, when the service ends. An announcement is
    /// sent to find out: the kernel calls an interface down until up to a second after it carries frames.
    fn wait_for_link(&self, replies: &mut Replies) -> Option<Seen> {
        let mut said = false;
        while !self.stopped() {
            if let Err(e) = self.link.refresh() {
                log::debug!("{}: {e}", self.link.name());
            }
            let now = Seen::now(&*self.link);
            if self.send_announcement(now, replies) {
                return Some(now);
            }
            if !said {
                log::warn!("{}: is down or gone; waiting for it", self.link.name());
                said = true;
            }
            let mut pause = self.pause.lock();
            // Asked under the lock, so that a call of `rouse` between here and the wait is not missed.
            if !self.refresh.swap(false, Ordering::Acquire) && !self.stopped() {
                self.poke.wait_for(&mut pause, TRY_AGAIN);
            }
        }
        None
    }

    /// Wakes the thread, wherever it waits.
    fn rouse(&self) {
        self.link.wake();
        drop(self.pause.lock());
        self.poke.notify_all();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl Seen {
    /// Whether the network should hear of the target again.
    fn is_news_after(self, before: Seen) -> bool {
        let came_up = self.up && !before.up;
        came_up || self != Seen { up: self.up, ..before }
    }

    fn now(link: &dyn Link) -> Seen {
        Seen { index: link.index(), mac: link.mac(), mtu: link.mtu(), up: link.is_up() }
    }
}

impl Replies {
    fn new() -> Replies {
        Replies { bytes: Vec::new(), slot: 0 }
    }

    /// Makes each slot large enough for a frame of this MTU.
    fn fit(&mut self, mtu: usize) {
        self.slot = (mtu + ETHERNET).max(MIN_FRAME);
        let needed = self.slot * BATCH;
        if needed > self.bytes.len() {
            // Fresh zeroed memory costs nothing until a reply is written there.
            self.bytes = vec![0; needed];
        }
    }

    fn slots(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(self.slot.max(1)).take(BATCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::loopback::pair;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    /// Sends back what it gets, upside down, unless it begins with 0; announces itself with one frame of its MTU.
    struct Mirror;

    impl FrameHandler for Mirror {
        fn handle_batch(&self, frames: &[&[u8]], _: Mac, _: usize, replies: &mut [Slot<'_>]) {
            for (frame, (reply, len)) in frames.iter().zip(replies).filter(|(frame, _)| frame[0] != 0) {
                *len = frame.len();
                reply[..*len].copy_from_slice(frame);
                reply[..*len].reverse();
            }
        }

        fn announcement(&self, nth: usize, _: Mac, mtu: usize, frame: &mut [u8]) -> Option<usize> {
            frame[..MIN_FRAME].fill(0xee);
            frame[..8].copy_from_slice(&(mtu as u64).to_be_bytes());
            (nth == 0).then_some(MIN_FRAME)
        }
    }

    /// Every frame that arrives at `link`, until it is asked for a wake-up.
    fn listen(link: Arc<dyn Link>) -> (Receiver<Vec<u8>>, JoinHandle<()>) {
        let (to, from) = channel();
        let thread = thread::spawn(move || {
            let mut batch = Batch::new(link.mtu() + ETHERNET);
            while let Ok(Received::Frames) = link.recv(&mut batch) {
                batch.frames().for_each(|frame| drop(to.send(frame.to_vec())));
            }
        });
        (from, thread)
    }

    const SOON: Duration = Duration::from_secs(5);

    fn announced(from: &Receiver<Vec<u8>>) -> u64 {
        let frame = from.recv_timeout(SOON).unwrap();
        assert_eq!(frame[8..MIN_FRAME], [0xee; MIN_FRAME - 8]);
        u64::from_be_bytes(frame[..8].try_into().unwrap())
    }

    #[test]
    fn answers_in_order_and_outlives_a_link_that_goes_down() {
        let (ours, theirs) = pair("a", "b", 1500);
        let (from, listener) = listen(ours.clone());
        let server = Server::start(theirs.clone(), Arc::new(Mirror)).unwrap();
        assert_eq!(announced(&from), 1500);
        let frames: Vec<Vec<u8>> = (0..200u8).map(|n| [[n].as_slice(), &[7; 99]].concat()).collect();
        for chunk in frames.chunks(BATCH) {
            let out: Vec<_> = chunk.iter().map(|frame| OutFrame { head: frame, body: &[] }).collect();
            assert_eq!(ours.send(&out).0, chunk.len());
        }
        for n in 1..200u8 {
            let got = from.recv_timeout(SOON).unwrap();
            assert_eq!((got[99], got.len()), (n, 100));
        }

        theirs.set_up(false);
        thread::sleep(Duration::from_millis(50));
        theirs.set_up(true);
        server.link_changed();
        assert_eq!(announced(&from), 1500);
        theirs.set_mtu(9000);
        server.link_changed();
        assert_eq!(announced(&from), 9000);
        server.announce();
        assert_eq!(announced(&from), 9000);
        assert_eq!(server.lost(), 0);

        theirs.set_up(false);
        thread::sleep(Duration::from_millis(50));
        let before = Instant::now();
        drop(server);
        assert!(before.elapsed() < TRY_AGAIN / 2, "a stop does not wait for the link");
        ours.wake();
        listener.join().unwrap();
    }
}
