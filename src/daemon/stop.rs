//! How the daemon stops. The first SIGTERM or SIGINT unmounts. If the mount is busy (a loop device holds data, say),
//! stopping at once would lose what has not been written back: so it says who, keeps serving, and tries again for
//! `stop` seconds; then it detaches the mount and serves until the last close. The second signal ends it all.

use std::time::{Duration, Instant};

use super::notify;
use super::signals::{Signals, Wish};
use super::unmounter::{Outcome, Unmounter};

/// Between two tries to unmount.
const RETRY: Duration = Duration::from_millis(500);

/// What the supervisor needs from whoever serves.
pub trait Service {
    /// SIGHUP: read the configuration again.
    fn reload(&self);
    /// One line for the log.
    fn say(&self, line: &str);
    /// Answer all that is outstanding with an error, nofail or not; return when that is done.
    fn abandon(&self);
}

/// Serves signals, until a second one asks for the end: then all is abandoned and the mount is detached, and the caller
/// ends the process. After a stop that went well the session ends by itself, and the process with it.
pub fn supervise(signals: &Signals, unmounter: &Unmounter, stop: Duration, service: &dyn Service) {
    loop {
        match signals.next(None) {
            Ok(Some(Wish::Reload)) => service.reload(),
            Ok(Some(Wish::Stop)) => break,
            Ok(None) => {}
            Err(error) => {
                service.say(&format!("cannot receive signals: {error}; stop aoefs with umount"));
                return;
            }
        }
    }
    notify::stopping();
    if wind_down(signals, unmounter, stop, service) {
        service.say("stopping: outstanding requests fail");
        unmounter.detach();
        service.abandon();
    }
}

/// True if a second signal came.
fn wind_down(signals: &Signals, unmounter: &Unmounter, stop: Duration, service: &dyn Service) -> bool {
    let end = Instant::now() + stop;
    let mut told = None;
    loop {
        let outcome = unmounter.unmount();
        let obstacle = match outcome {
            Outcome::Done | Outcome::Gone => break,
            Outcome::Busy(who) => format!("{who} keeps it busy"),
            Outcome::Failed(why) => why,
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            match unmounter.detach() {
                Outcome::Failed(why) => service.say(&format!("stopping: cannot detach the mount: {why}")),
                _ => service.say(&format!("stopping: {obstacle}; detached, serving until the last close")),
            }
            break;
        }
        if told.as_ref() != Some(&obstacle) {
            let seconds = left.as_secs_f32().ceil();
            service.say(&format!("stopping: {obstacle}; trying for {seconds} s, then detaching"));
            told = Some(obstacle);
        }
        if next_stop(signals, Some(RETRY.min(left)), service) {
            return true;
        }
    }
    next_stop(signals, None, service)
}

/// True if a stop signal came within the time, or, without a limit, as soon as one comes.
fn next_stop(signals: &Signals, within: Option<Duration>, service: &dyn Service) -> bool {
    loop {
        match signals.next(within) {
            Ok(Some(Wish::Stop)) => return true,
            Ok(Some(Wish::Reload)) => service.reload(),
            Ok(None) if within.is_some() => return false,
            Ok(None) => {}
            Err(_) => return false,
        }
    }
}
