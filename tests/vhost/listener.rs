//! A front end that has no queues and listens: the messages are the crate vhost's.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::poll::{PollFd, PollFlags, poll};
use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, VhostUserFrontend, VhostUserFrontendReqHandler, VhostUserProtocolFeatures,
};

/// Milliseconds in which a change must be told.
const PATIENCE: u16 = 30_000;

#[derive(Default)]
struct Changes(AtomicUsize);

impl VhostUserFrontendReqHandler for Changes {
    fn handle_config_change(&self) -> std::io::Result<u64> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(0)
    }
}

pub struct Listener {
    front: Frontend,
    changes: Arc<Changes>,
    messages: FrontendReqHandler<Changes>,
}

impl Listener {
    pub fn connect(path: &Path) -> Self {
        let mut front = Frontend::connect(path, 1).unwrap();
        front.set_owner().unwrap();
        let features = front.get_features().unwrap();
        let protocol = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::BACKEND_REQ;
        assert!(front.get_protocol_features().unwrap().contains(protocol));
        front.set_features(features).unwrap();
        front.set_protocol_features(protocol).unwrap();
        let changes = Arc::new(Changes::default());
        let messages = FrontendReqHandler::new(changes.clone()).unwrap();
        // SAFETY: the handler has the descriptor for as long as it lives, which is longer than this call.
        let end = unsafe { BorrowedFd::borrow_raw(messages.get_tx_raw_fd()) };
        front.set_backend_request_fd(&end).unwrap();
        Self { front, changes, messages }
    }

    /// Sectors, asked anew.
    pub fn capacity(&mut self) -> u64 {
        let (_, space) = self.front.get_config(0, 8, VhostUserConfigFlags::empty(), &[0; 8]).unwrap();
        u64::from_le_bytes(space.try_into().unwrap())
    }

    /// Waits until it is told that the configuration space is another one.
    pub fn wait_for_change(&mut self) {
        // SAFETY: the handler has the descriptor for as long as it lives, which is longer than this call.
        let there = unsafe { BorrowedFd::borrow_raw(self.messages.as_raw_fd()) };
        let mut waits = [PollFd::new(there, PollFlags::POLLIN)];
        assert_eq!(poll(&mut waits, PATIENCE), Ok(1), "it is not told");
        self.messages.handle_request().unwrap();
        assert_eq!(self.changes.0.load(Ordering::SeqCst), 1);
    }
}
