//! Signals as values: blocked in the whole process, read from a descriptor by one thread. None of these runs code of
//! ours inside of a signal handler; the one that does is SIGBUS, for a machine's memory that is gone (`vhost/lost.rs`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// A signal, by what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM, SIGINT.
    Stop,
    /// SIGUSR1.
    StopWhenUnused,
    /// SIGHUP.
    Reload,
}

/// The descriptor that signals arrive on.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals in the calling thread, and so in all threads that it starts. Call it before any thread
    /// starts.
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
            set.add(signal);
        }
        set.thread_block()?;
        Ok(Self { fd: SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)? })
    }

    /// The next signal; None when `within` has passed without one. Without a limit it waits for ever.
    pub fn next(&self, within: Option<Duration>) -> io::Result<Option<Wish>> {
        loop {
            if let Some(wish) = self.take()? {
                return Ok(Some(wish));
            }
            let timeout = match within {
                None => PollTimeout::NONE,
                Some(time) => PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX),
            };
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn take(&self) -> io::Result<Option<Wish>> {
        Ok(self.fd.read_signal()?.map(|info| match Signal::try_from(info.ssi_signo as i32) {
            Ok(Signal::SIGHUP) => Wish::Reload,
            Ok(Signal::SIGUSR1) => Wish::StopWhenUnused,
            _ => Wish::Stop,
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_this_thread_come_in_order_of_their_number() {
        let signals = Signals::block().unwrap();
        assert_eq!(signals.next(Some(Duration::ZERO)).unwrap(), None);
        // To this thread alone: the others of the test process do not block them.
        for signal in [libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: pthread_self is this thread, which lives.
            assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), signal) }, 0);
        }
        assert_eq!(signals.next(None).unwrap(), Some(Wish::Reload));
        assert_eq!(signals.next(None).unwrap(), Some(Wish::Stop));
        assert_eq!(signals.next(Some(Duration::from_millis(1))).unwrap(), None);
    }
}
