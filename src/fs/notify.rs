//! Telling the kernel what changed: cached pages, attributes, poll.
//!
//! Dropping pages waits for pages that are being read, and this daemon may owe the answer to their READ. So it is never
//! done by a thread that serves requests and never with anything locked, and each target has a thread of its own for
//! it, so that a dead target delays no other. Attributes and poll wake-ups do not wait; one thread does them for all.

use std::sync::{Arc, OnceLock};

use fuser::{INodeNo, Notifier, PollNotifier};

use super::worker::Worker;
use crate::bug;

mod clean;
mod pages;

pub use clean::Name;
pub use pages::{Answer, Pages};

/// Notifications to the kernel. Their errors say that the kernel does not know the inode, or that the mount is gone:
/// there is nothing left to do in either case.
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

/// The way to the kernel. It leads nowhere until there is a session, since the file system is made before.
#[derive(Clone, Default)]
pub struct KernelChannel(Arc<OnceLock<Box<dyn Kernel>>>);

impl KernelChannel {
    /// The session's notifier. The first one counts.
    pub fn connect(&self, kernel: impl Kernel + 'static) {
        let _ = self.0.set(Box::new(kernel));
    }
}

/// Before there is a session the kernel has cached nothing.
impl Kernel for KernelChannel {
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

/// The notifications that never wait: attributes and poll.
pub struct Waker {
    kernel: KernelChannel,
    worker: Worker,
}

impl Waker {
    /// Its thread starts with the first notification.
    pub fn new(kernel: KernelChannel) -> Self {
        Self { kernel, worker: Worker::new("aoefs-notify") }
    }

    /// The kernel is to forget the attributes of an inode.
    pub fn attributes(&self, ino: u64) {
        let kernel = self.kernel.clone();
        self.worker.run(move || {
            bug::here("notifier");
            kernel.drop_attributes(ino);
        });
    }

    /// A program that polls is to look again.
    pub fn poll(&self, notifier: PollNotifier) {
        self.worker.run(move || {
            if let Err(error) = notifier.notify() {
                log::debug!("poll: {error}");
            }
        });
    }

    /// Ends the thread, after the notifications before.
    pub fn close(&self) {
        self.worker.close();
    }
}
