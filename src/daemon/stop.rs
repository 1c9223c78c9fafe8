//! How the daemon stops. The first SIGTERM or SIGINT unmounts. If the mount is busy (a loop device holds data, say),
//! stopping at once would lose data that is not written back: so the daemon says which processes use the mount, keeps
//! serving, and tries again for `stop` seconds; then it detaches the mount and serves until the last close. The second
//! signal ends the process. SIGUSR1 is a first signal however often it comes: service managers repeat theirs.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::logging;
use super::notify;
use super::signals::{Signals, Wish};
use super::unmounter::{Outcome, Unmounter};

/// Between two tries to unmount.
const RETRY: Duration = Duration::from_millis(500);

/// A signal that follows the first this soon is the same wish: timeout(1) sends its signal to the process and, within
/// microseconds, to its group.
const SAME: Duration = Duration::from_millis(20);

/// How long the session has to end after the mount is gone from the tree.
const LAST: Duration = Duration::from_secs(1);

/// How long the unmounter has for its answer after a second signal.
const HURRY: Duration = Duration::from_secs(3);

/// How long users have, after a second signal, to take the errors that they were sent and to close their files. Users
/// that are still there then get ENOTCONN. Loop devices never close by themselves.
const GRACE: Duration = Duration::from_millis(500);

/// The calls of the supervisor to the code that serves.
pub trait Service {
    /// SIGHUP: read the configuration again.
    fn reload(&self);
    /// One line for the log.
    fn say(&self, line: &str);
    /// Answer all outstanding requests with an error, nofail or not, and from now on all that come: the kernel asks
    /// again for pages that it could not read ahead. Return when the answers are sent.
    fn abandon(&self);
}

/// Serves signals, and returns when a second one has asked for the end: then all requests have failed, and the caller
/// ends the process. True if the mount is gone. After a stop that went well the session ends by itself, and the process
/// with it.
pub fn supervise(signals: &Signals, unmounter: &Unmounter, stop: Duration, service: &dyn Service) -> bool {
    let supervisor = Supervisor { signals, unmounter, service, second: Cell::new(None) };
    supervisor.first_signal();
    notify::stopping();
    supervisor.wind_down(stop);
    service.say("stopping: outstanding requests fail");
    let detached = unmounter.detach(&|| supervisor.is_late());
    service.abandon();
    match detached {
        Outcome::Done | Outcome::Gone => true,
        Outcome::Busy(why) | Outcome::Failed(why) => {
            service.say(&format!("the mount stays: {why}; umount -l or fusermount3 -uz takes it away"));
            false
        }
    }
}

/// Supervises in a thread of its own, which ends the process after the second signal.
pub fn spawn(
    signals: Signals,
    unmounter: Arc<Unmounter>,
    stop: Duration,
    service: Arc<dyn Service + Send + Sync>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let gone = supervise(&signals, &unmounter, stop, &*service);
        unmounter.finish();
        // The session ends the process itself if all users let go.
        std::thread::sleep(GRACE);
        logging::flush();
        // If the mount is gone, the code is 0, as after an orderly end.
        std::process::exit(i32::from(!gone));
    })
}

struct Supervisor<'a> {
    signals: &'a Signals,
    unmounter: &'a Unmounter,
    service: &'a dyn Service,
    /// When the second signal came.
    second: Cell<Option<Instant>>,
}

impl Supervisor<'_> {
    /// Returns on the second signal.
    fn wind_down(&self, stop: Duration) {
        let end = Instant::now() + stop;
        let mut told = None;
        loop {
            let obstacle = match self.unmounter.unmount(&|| self.is_late()) {
                Outcome::Done | Outcome::Gone => break,
                Outcome::Busy(why) => why,
                Outcome::Failed(why) => format!("cannot unmount: {why}"),
            };
            let left = end.saturating_duration_since(Instant::now());
            let (words, wait) = if left.is_zero() {
                match self.unmounter.detach(&|| self.is_late()) {
                    Outcome::Done | Outcome::Gone => {
                        self.say(&format!("{obstacle}; detached, serving until the last close"));
                        self.stop_asked(None);
                        return;
                    }
                    // The obstacle may go away: then the mount can be unmounted after all.
                    Outcome::Busy(why) | Outcome::Failed(why) => {
                        (format!("cannot detach the mount: {why}; trying until it can be"), RETRY)
                    }
                }
            } else {
                let seconds = left.as_secs_f32().ceil();
                (format!("{obstacle}; trying for {seconds} s more, then detaching"), RETRY.min(left))
            };
            if told.as_ref() != Some(&(obstacle.clone(), left.is_zero())) {
                self.say(&words);
                told = Some((obstacle, left.is_zero()));
            }
            if self.stop_asked(Some(wait)) {
                return;
            }
        }
        if !self.stop_asked(Some(LAST)) {
            self.say("unmounted; serving until its copies in other mount namespaces are gone");
            self.stop_asked(None);
        }
    }

    /// Returns when the daemon is to stop.
    fn first_signal(&self) {
        while !self.take_signal(None, true) {}
        let end = Instant::now() + SAME;
        while self.take_signal(Some(end.saturating_duration_since(Instant::now())), false)
            && Instant::now() < end
        {}
    }

    /// True as soon as a second stop signal comes, false when the time is over. Without a time it returns for a signal
    /// only.
    fn stop_asked(&self, within: Option<Duration>) -> bool {
        if self.second.get().is_none() && self.take_signal(within, false) {
            self.second.set(Some(Instant::now()));
        }
        self.second.get().is_some()
    }

    /// Serves signals that have come while the unmounter works; whether a second one was there a while ago.
    fn is_late(&self) -> bool {
        self.stop_asked(Some(Duration::ZERO));
        self.second.get().is_some_and(|since| since.elapsed() >= HURRY)
    }

    fn take_signal(&self, within: Option<Duration>, first: bool) -> bool {
        loop {
            match self.signals.next(within) {
                Ok(Some(Wish::Stop)) => return true,
                Ok(Some(Wish::StopWhenUnused)) if first => return true,
                Ok(Some(Wish::StopWhenUnused)) => {}
                Ok(Some(Wish::Reload)) => self.service.reload(),
                Ok(None) if within.is_some() => return false,
                Ok(None) => {}
                Err(error) => {
                    // Ending the process for that would take the disks away. umount(8) still ends it.
                    self.service.say(&format!("cannot receive signals any more: {error}"));
                    loop {
                        std::thread::park();
                    }
                }
            }
        }
    }

    fn say(&self, line: &str) {
        let line = format!("stopping: {line}");
        notify::stopping_status(&line);
        self.service.say(&line);
    }
}
