//! A target as the threads that serve it share it: one processor under a lock. The demo and `aoefs-target` use it.

pub mod server;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::server::FrameHandler;
use crate::target::{Image, Processor, Slot, TargetConfig};
use crate::wire::Mac;

/// A target over any image.
pub type Target = Processor<Box<dyn Image>>;

/// A target that several links may serve at the same time.
pub struct Export(Mutex<Target>);

impl Export {
    /// A target with the sectors of `image`.
    pub fn new(config: TargetConfig, image: Box<dyn Image>) -> Arc<Export> {
        Arc::new(Export(Mutex::new(Processor::new(config, image))))
    }

    /// The processor. No frame is answered while the lock is held.
    pub fn lock(&self) -> MutexGuard<'_, Target> {
        self.0.lock()
    }
}

impl FrameHandler for Export {
    fn handle_batch(&self, frames: &[&[u8]], mac: Mac, mtu: usize, replies: &mut [Slot<'_>]) {
        self.lock().handle_batch(frames, mac, mtu, replies);
    }

    fn announcement(&self, nth: usize, mac: Mac, mtu: usize, frame: &mut [u8]) -> Option<usize> {
        self.lock().announcement(nth, mac, mtu, frame)
    }
}
