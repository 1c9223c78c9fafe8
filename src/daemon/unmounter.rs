//! The unmounter: a small process, forked before the first thread, that keeps the right to unmount which the daemon
//! gives up, and outlives a daemon that is killed. It does three things: it unmounts when asked; it names the processes
//! that keep the mount busy; and when the daemon has ended, for whatever reason, it detaches the mount if that is still
//! the one that it was told about. Then it ends.
//!
//! **How it learns of the end.** A daemon that ends closes its socket. But a daemon that is killed while one of its
//! threads waits in the kernel, for a reply that only the daemon itself could give, closes nothing: its memory and its
//! descriptors stay, and its users wait for ever. So the kernel is asked to send a signal when the daemon's main thread
//! dies, which does not depend on other threads; the unmounter then ends the FUSE connection, and that frees all of
//! them.
//!
//! The two talk in lines over a socket pair: `mounted ID UNIQUE HELPER`, `unmount`, `detach` one way; `done`,
//! `gone`, `busy WHO`, `failed WHY` the other way.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};
use parking_lot::Mutex;

use crate::daemon::{background, privilege};
use crate::failure::one_line;
use crate::mount::{Connection, Mount, MountId, Place, Unmount, holders};

/// How long the daemon waits for an answer. An unmount takes a millisecond; a scan of a machine with many processes
/// longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the daemon's end waits for that of the unmounter, which takes milliseconds. It may also hang in umount(2)
/// or in a file of /proc, and then whoever stops the daemon must not wait for ever.
const LAST: Duration = Duration::from_secs(3);

/// How often the daemon looks meanwhile whether it has ended.
const LOOK: Duration = Duration::from_millis(1);

/// How often the daemon looks, while it waits for an answer, whether there is still time for it.
const TURN: Duration = Duration::from_millis(100);

/// The signal that the kernel sends when the daemon's main thread dies. Nothing else has a reason to send it.
const DEATH: Signal = Signal::SIGUSR2;

/// The daemon's end. Dropping it finishes the unmounter.
#[derive(Debug)]
pub struct Unmounter {
    process: Pid,
    line: Mutex<Line>,
    mount: OnceLock<Mount>,
    ended: OnceLock<bool>,
}

/// The line to the unmounter.
#[derive(Debug)]
enum Line {
    Open(BufReader<UnixStream>),
    /// An answer has not come in time. If it came later it would be taken for that of the next request.
    Late,
    Closed,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The mount is out of the tree.
    Done,
    /// It was out of the tree before.
    Gone,
    /// It cannot be unmounted yet, since it is in use or something is in the way: why, as the end of a sentence.
    Busy(String),
    /// It did not work, and this is why.
    Failed(String),
}

impl Unmounter {
    /// Forks it. Call it from the main thread before any other starts, and before the mount at `place` is made: if the
    /// daemon dies between mount(2) and [`Unmounter::mounted`], a dead mount of ours there is detached all the same.
    pub fn start(place: &Place) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let daemon = getpid();
        // SAFETY: the caller has no threads yet, so the child may use whatever the parent could; it never returns.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(ours);
                child(theirs, place, daemon);
                // SAFETY: the child ends here, without the parent's destructors and exit handlers.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                ours.set_read_timeout(Some(PATIENCE))?;
                let line = Mutex::new(Line::Open(BufReader::new(ours)));
                Ok(Self { process: child, line, mount: OnceLock::new(), ended: OnceLock::new() })
            }
        }
    }

    /// Tells it which mount is ours, and returns when it knows: it could not end the connection of a mount that it does
    /// not know yet when the daemon is killed, or when the mount is detached by hand.
    pub fn mounted(&self, mount: &Mount) -> io::Result<()> {
        let id = mount.id();
        let words = format!("mounted {} {} {}\n", id.id, id.unique.unwrap_or(0), u8::from(mount.by_helper()));
        let _ = self.mount.set(mount.clone());
        match &mut *self.line.lock() {
            Line::Open(socket) => ask(socket, &words, &|| false).map(drop),
            Line::Late | Line::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Unmounts if nobody uses the mount. It is waited for until `late`, and for 30 s at most.
    pub fn unmount(&self, late: &dyn Fn() -> bool) -> Outcome {
        self.request("unmount\n", late, Mount::unmount)
    }

    /// Takes the mount out of the tree, used or not; waited for likewise.
    pub fn detach(&self, late: &dyn Fn() -> bool) -> Outcome {
        self.request("detach\n", late, Mount::detach)
    }

    /// Lets it do its last work and waits for its end: then nothing of ours is mounted, and it is no zombie. False if
    /// it has not ended within 3 s, which is in the log.
    pub fn finish(&self) -> bool {
        *self.ended.get_or_init(|| {
            let by = Instant::now() + LAST;
            // Another thread may wait for an answer; the line is closed then when the process ends.
            if let Some(mut line) = self.line.try_lock_until(by) {
                *line = Line::Closed;
            }
            while self.runs() {
                if Instant::now() >= by {
                    log::warn!(
                        "aoefs-unmount[{}] has not ended within {} s and is left behind; \
                         if the mount stays, umount -l or fusermount3 -uz takes it away",
                        self.process,
                        LAST.as_secs()
                    );
                    return false;
                }
                thread::sleep(LOOK);
            }
            true
        })
    }

    /// Whether it has not ended yet. One that has is no zombie afterwards.
    fn runs(&self) -> bool {
        // An error says that there is no such child any more.
        waitpid(self.process, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
    }

    /// Its process.
    pub fn process(&self) -> Pid {
        self.process
    }

    /// Asks the child; if it was killed, does the work here, with the privileges that are left.
    fn request(
        &self,
        words: &str,
        late: &dyn Fn() -> bool,
        here: fn(&Mount) -> io::Result<Unmount>,
    ) -> Outcome {
        let mut line = self.line.lock();
        if let Line::Open(socket) = &mut *line {
            match ask(socket, words, late) {
                Ok(outcome) => return outcome,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => *line = Line::Late,
                Err(_) => *line = Line::Closed,
            }
        }
        if matches!(*line, Line::Late) {
            if self.runs() {
                // Whatever it waits for, this process would wait for as well, and without a limit.
                return Outcome::Failed(format!("aoefs-unmount[{}] does not answer", self.process));
            }
            *line = Line::Closed;
        }
        let Some(mount) = self.mount.get() else { return Outcome::Gone };
        match outcome(here(mount)) {
            Outcome::Failed(why) => Outcome::Failed(format!(
                "aoefs-unmount[{}] has ended, and without it the daemon may not: {why}",
                self.process
            )),
            other => other,
        }
    }
}

impl Drop for Unmounter {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Sends a line and takes the answer. An answer that does not come in time is WouldBlock.
fn ask(stream: &mut BufReader<UnixStream>, line: &str, late: &dyn Fn() -> bool) -> io::Result<Outcome> {
    stream.get_mut().write_all(line.as_bytes())?;
    let end = Instant::now() + PATIENCE;
    while !is_readable(stream.get_ref()) {
        if late() || Instant::now() >= end {
            return Err(io::ErrorKind::WouldBlock.into());
        }
    }
    let mut answer = String::new();
    stream.read_line(&mut answer)?;
    let answer = answer.strip_suffix('\n').ok_or(io::ErrorKind::UnexpectedEof)?;
    let (word, rest) = answer.split_once(' ').unwrap_or((answer, ""));
    Ok(match word {
        "done" => Outcome::Done,
        "gone" => Outcome::Gone,
        "busy" => Outcome::Busy(rest.into()),
        _ => Outcome::Failed(rest.into()),
    })
}

/// Whether there is something to read, after waiting for it for a while. An error is told by who reads.
fn is_readable(socket: &UnixStream) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let turn = PollTimeout::try_from(TURN).unwrap_or(PollTimeout::MAX);
    !matches!(poll(&mut fds, turn), Ok(0) | Err(Errno::EINTR))
}

fn outcome(result: io::Result<Unmount>) -> Outcome {
    match result {
        Ok(Unmount::Done) => Outcome::Done,
        Ok(Unmount::Gone) => Outcome::Gone,
        Ok(Unmount::Busy(point)) => {
            Outcome::Busy(one_line(&format!("it is in use by {}", holders::describe(&point))))
        }
        Ok(Unmount::Held(why)) => Outcome::Busy(one_line(&why)),
        Err(error) => Outcome::Failed(one_line(&error.to_string())),
    }
}

/// The child's work, until the daemon has ended.
fn child(socket: UnixStream, place: &Place, daemon: Pid) {
    let Ok((socket, death)) = alone(socket, daemon) else { return };
    let mut lines = BufReader::new(socket);
    let mut mount: Option<Mount> = None;
    let mut line = String::new();
    loop {
        if lines.buffer().is_empty() && died(lines.get_ref(), death.as_ref()) {
            // It fails without the right to do it, and for a connection that has ended; there is nothing else to do
            // then.
            let _ = mount.as_ref().and_then(Mount::connection).map(Connection::abort);
            break;
        }
        if !lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            break;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match (words.as_slice(), &mount) {
            (["mounted", id, unique, helper], _) => {
                let unique = unique.parse().ok().filter(|&unique| unique != 0);
                let id = MountId { id: id.parse().unwrap_or(0), unique };
                mount = Some(Mount::known(place.path().into(), id, *helper == "1"));
                Outcome::Done
            }
            (["unmount"], Some(mount)) => outcome(mount.unmount()),
            (["detach"], Some(mount)) => outcome(mount.detach()),
            _ => Outcome::Gone,
        };
        if lines.get_mut().write_all(words_of(&answer).as_bytes()).is_err() {
            break;
        }
        line.clear();
    }
    let _ = match mount {
        Some(mount) => mount.detach_and_end().map(drop).map_err(|_| ()),
        None => place.clear().map(drop).map_err(|_| ()),
    };
}

/// Waits for a line of the daemon, or for its death: then it returns true.
fn died(socket: &UnixStream, death: Option<&SignalFd>) -> bool {
    let mut fds = vec![PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    fds.extend(death.map(|death| PollFd::new(death.as_fd(), PollFlags::POLLIN)));
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
    fds.get(1).is_some_and(|death| death.any().unwrap_or(true))
}

fn words_of(answer: &Outcome) -> String {
    match answer {
        Outcome::Done => "done\n".into(),
        Outcome::Gone => "gone\n".into(),
        Outcome::Busy(who) => format!("busy {who}\n"),
        Outcome::Failed(why) => format!("failed {why}\n"),
    }
}

/// Lets go of all that the child has inherited: descriptors, terminal, directory, signals. A SIGTERM to the whole
/// group, as a terminal or systemd sends it, is meant for the daemon. Returns a descriptor that becomes readable when
/// the daemon dies, if the kernel offers that; the end of the socket says it too, as a rule.
fn alone(socket: UnixStream, daemon: Pid) -> io::Result<(UnixStream, Option<SignalFd>)> {
    SigSet::all().thread_block()?;
    std::env::set_current_dir("/")?;
    // Where there is no /dev/null, it keeps the descriptors that it has: it prints nothing.
    let _ = background::to_null();
    let keep = socket.as_raw_fd() as libc::c_uint;
    close_range(3, keep - 1);
    close_range(keep + 1, libc::c_uint::MAX);
    // The unmounter of an ordinary user runs fusermount3, whose setuid bit would not work after this.
    if nix::unistd::geteuid().is_root() {
        let _ = privilege::drop_to_unmounting();
    }
    // A name of its own for ps, and for the line that says which processes keep the mount busy.
    let _ = prctl::set_name(c"aoefs-unmount");
    // After privileges were dropped: the kernel forgets the wish for a signal then.
    let mut only = SigSet::empty();
    only.add(DEATH);
    let death = prctl::set_pdeathsig(DEATH)
        .and_then(|()| SignalFd::with_flags(&only, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .ok();
    if getppid() != daemon {
        // The daemon died before the kernel was asked, and its socket has ended.
        return Ok((socket, None));
    }
    Ok((socket, death))
}

fn close_range(first: libc::c_uint, last: libc::c_uint) {
    if first > last {
        return;
    }
    // SAFETY: what is closed belongs to objects of the parent's stack, which the child never runs or drops.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}
