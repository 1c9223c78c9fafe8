//! Frames on their way to a netlink, in the order in which the engine made them.
//!
//! A target answers in the order in which it is asked, and the engine takes a frame for lost when younger ones are
//! answered. So a thread that loses its processor between a device's lock and the socket must not be overtaken by
//! another one. Frames are put here while the device is locked, and whichever thread comes next sends all that wait.
//! One thread sends at a time. The others leave their frames to it instead of waiting for it.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Runtime;
use super::deputy;
use super::netlink::Netlink;
use super::sweeper::Due;
use crate::engine::{HEAD_MAX, Transmit};
use crate::link::{BATCH, FEW, OutFrame};

/// How often in a row a thread sends what others have put here meanwhile. It has its own work to do, which might be
/// the sweeper's: after that the sweeper is asked to see to the rest among the things that are due.
const ROUNDS: u32 = 8;

thread_local! {
    /// This thread has put frames into an outbox and has not sent since.
    static POSTED: Cell<bool> = const { Cell::new(false) };
    /// This thread sends later: see [`Runtime::together`].
    static LATER: Cell<bool> = const { Cell::new(false) };
}

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Held by the thread that sends; what it sends, kept for its capacity.
    sending: Mutex<Vec<Transmit>>,
    /// Frames that the link has not been given yet.
    waiting: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    frames: Vec<Transmit>,
    /// How long the machine had slept when they were made.
    slept: u64,
}

impl Outbox {
    /// Whether frames wait, or are being sent.
    pub(super) fn has_frames(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Frames that were made before the machine slept must not leave before IDENTIFY: they count as lost on the wire.
    fn put(&self, frames: impl Iterator<Item = Transmit>, slept: u64) {
        let mut queue = self.queue.lock();
        if slept < queue.slept {
            return;
        }
        if slept > queue.slept {
            self.waiting.fetch_sub(queue.frames.len(), Ordering::Relaxed);
            queue.frames.clear();
            queue.slept = slept;
        }
        let before = queue.frames.len();
        queue.frames.extend(frames);
        self.waiting.fetch_add(queue.frames.len() - before, Ordering::Relaxed);
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().frames.is_empty()
    }
}

/// Sends at most N frames over one netlink.
fn send_run<const N: usize>(net: &Netlink, batch: &[Transmit]) {
    let mac = net.link.mac();
    let mut heads = [[0; HEAD_MAX]; N];
    let mut lens = [0; N];
    for ((frame, head), len) in batch.iter().zip(&mut heads).zip(&mut lens) {
        *len = frame.head(mac, head);
    }
    let mut out = [OutFrame { head: &[], body: &[] }; N];
    for ((out, frame), (head, len)) in out.iter_mut().zip(batch).zip(heads.iter().zip(&lens)) {
        *out = OutFrame { head: &head[..*len], body: frame.payload() };
    }
    net.send(&out[..batch.len()]);
}

impl Runtime {
    /// Puts frames into the outboxes of their netlinks. Called with their device locked, so that they are in the
    /// device's order; they leave with [`Runtime::send_posted`]. `slept`: how long the machine had slept when the
    /// device was locked.
    pub(super) fn post(&self, frames: &mut Vec<Transmit>, slept: u64) {
        while let Some(id) = frames.first().map(|frame| frame.net) {
            let run = frames.iter().take_while(|frame| frame.net == id).count();
            let run = frames.drain(..run);
            // Frames for a netlink that is gone are lost; the engine finds out.
            let Some(net) = self.nets.get(id) else { continue };
            net.outbox.put(run, slept);
            deputy::note_sent(id);
            POSTED.set(true);
        }
    }

    /// If this thread has posted frames: sends all that wait, whoever has posted them, with nothing locked.
    pub(super) fn send_posted(&self) {
        if !LATER.get() && POSTED.take() {
            self.send_waiting();
        }
    }

    /// Sends all frames that wait, with nothing locked.
    pub(super) fn send_waiting(&self) {
        // From the last to the first: if one is unbound meanwhile, none is passed over.
        for index in (0..self.nets.count()).rev() {
            if let Some(net) = self.nets.nth(index)
                && net.outbox.has_frames()
            {
                self.empty(&net);
            }
        }
    }

    fn empty(&self, net: &Netlink) {
        for _ in 0..ROUNDS {
            // The thread that holds it finds our frames: it looks into the queue after it has let go.
            let Some(mut sending) = net.outbox.sending.try_lock() else { return };
            let slept = {
                let mut queue = net.outbox.queue.lock();
                std::mem::swap(&mut queue.frames, &mut sending);
                queue.slept
            };
            if slept == self.clock.reading().1 {
                for batch in sending.chunks(BATCH) {
                    match batch.len() {
                        ..=FEW => send_run::<FEW>(net, batch),
                        _ => send_run::<BATCH>(net, batch),
                    }
                }
            }
            net.outbox.waiting.fetch_sub(sending.len(), Ordering::Relaxed);
            sending.clear();
            drop(sending);
            if net.outbox.is_empty() {
                return;
            }
        }
        self.timers.arm(self.clock.now(), Due::Outbox);
    }

    /// Calls `work`, and sends what it gave to targets afterwards: one system call for a batch of frames, where a
    /// thread has several requests to make. It must not wait for anything.
    pub fn together<T>(&self, work: impl FnOnce() -> T) -> T {
        let outer = LATER.replace(true);
        let result = work();
        LATER.set(outer);
        self.send_posted();
        result
    }
}

#[cfg(test)]
mod tests;
