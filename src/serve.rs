//! From a mount that stands to its end.

use std::sync::Arc;

use crate::cli::Options;
use crate::configfile::ConfigFile;
use crate::daemon::background::Ready;
use crate::daemon::signals::Signals;
use crate::daemon::unmounter::Unmounter;
use crate::failure::Failure;
use crate::fs::mount::Mounted;
use crate::ground::Ground;

/// All that the start has made. No thread runs yet; privileges are still whole.
#[derive(Debug)]
pub struct Stage {
    /// The command line; `mount.deadline` is short enough for this kernel.
    pub options: Options,
    /// What the configuration file says; its wrong lines have been reported.
    pub config: ConfigFile,
    /// Opened interfaces, or the demo's disk.
    pub ground: Ground,
    /// The mount, and the descriptor for `Session::from_fd`.
    pub mounted: Mounted,
    /// Knows the mount already.
    pub unmounter: Arc<Unmounter>,
    /// Blocked; for `daemon::stop::spawn`.
    pub signals: Signals,
}

/// Serves until the mount is gone. The one who connects it does, in this order, since privileges belong to threads:
/// `Session::from_fd` with `mounted.device`; `mounted.mount.set_read_ahead` (after INIT, which can only lower it);
/// `privilege::drop_privileges`, or `drop_all_privileges` for the demo; then threads: engine and runtime on the ground,
/// `daemon::stop::spawn`; the wait for --wait; `ready.ready(line)`; the session's loop. An error before `ready` becomes
/// the one line on stderr, and whatever is mounted is unmounted by the caller.
pub fn serve(stage: Stage, ready: &mut Ready) -> Result<(), Failure> {
    let _ = ready;
    Err(Failure::start(format!(
        "this build cannot serve {} yet; take a later one",
        stage.mounted.mount.point().display()
    )))
}
