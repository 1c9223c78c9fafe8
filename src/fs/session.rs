//! The session with the kernel: from the descriptor of a mount that stands to its end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{Config, Session, SessionACL};
use nix::errno::Errno;

use super::core::Core;
use super::handlers::AoeFs;
use crate::runtime::Deputy;

/// Threads that take requests from the kernel; each reserves 16 MiB of address space. Where there are two processors, a
/// second thread would have to share them with the netlink's (benches/compare/README.md).
fn threads() -> usize {
    match std::thread::available_parallelism() {
        Ok(cores) if cores.get() > 2 => 2,
        _ => 1,
    }
}

/// The target under which fuser logs, always as an error, that the kernel did not take a reply. It is of no interest:
/// every request that an unmount aborted ends with a reply that is not wanted any more (ENOENT), in an orderly stop
/// too; and where the device takes no reply at all the mount is gone, and the end of the session says so.
pub const REPLIES: &str = "fuser::reply";

/// A session whose INIT is done.
pub struct FuseSession(Session<AoeFs>);

impl FuseSession {
    /// Shakes hands with the kernel over the descriptor of a mount. The mount's options and the modes of the files
    /// decide on rights, not the session.
    pub fn open(core: &Arc<Core>, device: OwnedFd) -> io::Result<Self> {
        let mut config = Config::default();
        let threads = threads();
        config.n_threads = Some(threads);
        // Where there is one, it receives as well; benches/compare/README.md has what that gains.
        let deputy = if threads == 1 { Some(Deputy::new(device.try_clone()?)) } else { None };
        let session = Session::from_fd(AoeFs::new(core.clone(), deputy), device, SessionACL::All, config)?;
        core.connect(session.notifier());
        Ok(Self(session))
    }

    /// Serves until the mount is gone.
    pub fn run(self) -> io::Result<()> {
        match self.0.run() {
            // The mount ended while a read of the device carried a request to us, such as the last close's RELEASE. All
            // other reads return ENODEV then. Both are the end that was asked for.
            Err(error) if error.raw_os_error() == Some(Errno::ECONNABORTED as i32) => Ok(()),
            result => result,
        }
    }
}
