//! Telling the kernel what changed: cached pages, attributes, poll.
//!
//! Dropping pages waits for pages that are being read, and their READ may be one that this daemon owes. So it is never
//! done by a thread that serves requests, never with anything locked, and by a thread of its own for each target, so
//! that a dead target delays nobody else. Attributes and poll wake-ups do not wait; one thread does them for all.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};
use fuser::{INodeNo, Notifier, PollNotifier};
use parking_lot::Mutex;

use crate::bug;

mod clean;
mod pages;

pub use pages::{Answer, Name, Pages};

/// What the kernel can be told. The errors of a notification say that the kernel does not know the inode, or that
/// the mount is gone: nothing is left to do either way.
pub trait Kernel: Send + Sync {
    /// Forget cached pages; a length of 0 is to the end. Waits for pages that are being read.
    fn drop_pages(&self, ino: u64, offset: u64, len: u64);
    /// Forget cached attributes.
    fn drop_attributes(&self, ino: u64);
}

impl Kernel for Notifier {
    fn drop_pages(&self, ino: u64, offset: u64, len: u64) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if let Err(error) = self.inval_inode(INodeNo(ino), signed(offset), signed(len)) {
            log::debug!("pages of inode {ino}: {error}");
        }
    }

    fn drop_attributes(&self, ino: u64) {
        // A negative offset means no pages at all.
        if let Err(error) = self.inval_inode(INodeNo(ino), -1, 0) {
            log::debug!("attributes of inode {ino}: {error}");
        }
    }
}

/// The kernel, once it is there: a file system exists before the session that it is given to.
#[derive(Clone, Default)]
pub struct Line(Arc<OnceLock<Box<dyn Kernel>>>);

impl Line {
    /// The session's notifier. The first one counts.
    pub fn connect(&self, kernel: impl Kernel + 'static) {
        let _ = self.0.set(Box::new(kernel));
    }
}

/// Nobody has cached anything before the session is there.
impl Kernel for Line {
    fn drop_pages(&self, ino: u64, offset: u64, len: u64) {
        if let Some(kernel) = self.0.get() {
            kernel.drop_pages(ino, offset, len);
        }
    }

    fn drop_attributes(&self, ino: u64) {
        if let Some(kernel) = self.0.get() {
            kernel.drop_attributes(ino);
        }
    }
}

enum Word {
    Attributes(u64),
    Poll(PollNotifier),
}

/// Attributes and poll: what never waits.
pub struct Waker {
    kernel: Line,
    thread: Mutex<Option<(Sender<Word>, JoinHandle<()>)>>,
}

impl Waker {
    /// Its thread starts with the first word: threads must not be there while privileges are still to be dropped.
    pub fn new(kernel: Line) -> Self {
        Self { kernel, thread: Mutex::default() }
    }

    /// The kernel is to forget the attributes of an inode.
    pub fn attributes(&self, ino: u64) {
        self.say(Word::Attributes(ino));
    }

    /// Who polls is to look again.
    pub fn poll(&self, notifier: PollNotifier) {
        self.say(Word::Poll(notifier));
    }

    fn say(&self, word: Word) {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            match start(self.kernel.clone()) {
                Ok(started) => *thread = Some(started),
                Err(error) => return log::error!("no thread for notifications: {error}"),
            }
        }
        if let Some((words, _)) = thread.as_ref() {
            // The thread ends only after the sender is gone.
            let _ = words.send(word);
        }
    }

    /// Ends the thread, after what was said before.
    pub fn close(&self) {
        let thread = self.thread.lock().take();
        if let Some((words, thread)) = thread {
            drop(words);
            let _ = thread.join();
        }
    }
}

fn start(kernel: Line) -> std::io::Result<(Sender<Word>, JoinHandle<()>)> {
    let (words, inbox) = unbounded();
    let thread = std::thread::Builder::new().name("aoefs-notify".into()).spawn(move || {
        for word in inbox {
            bug::here("notifier");
            match word {
                Word::Attributes(ino) => kernel.drop_attributes(ino),
                Word::Poll(notifier) => {
                    if let Err(error) = notifier.notify() {
                        log::debug!("poll: {error}");
                    }
                }
            }
        }
    })?;
    Ok((words, thread))
}
