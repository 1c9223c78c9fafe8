//! Going to the background, and saying that it worked. The process that the shell waits for stays until the daemon
//! sends one line, that it is ready or why it is not. It prints that line and ends with the exit code that fits. If it
//! is interrupted meanwhile, it interrupts the daemon.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid};

use super::logging;
use super::notify;
use super::signals::Signals;
use crate::failure::{Failure, one_line};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The process that goes on to serve.
    Daemon(Ready),
    /// The process that the shell waits for. It has nothing left to do but to end with this code.
    Parent(ExitCode),
}

/// The daemon's way to say, once, that it serves or why it does not.
#[derive(Debug)]
pub struct Ready {
    pipe: Option<File>,
    told: bool,
}

impl Ready {
    /// For the foreground: the line goes to the terminal.
    pub fn foreground() -> Self {
        Self { pipe: None, told: false }
    }

    /// Says that the mount answers: the process that has the terminal prints `line`, systemd hears of it, and a daemon
    /// in the background lets go of its standard input, output and error.
    pub fn ready(&mut self, line: &str) {
        self.told = true;
        let line = one_line(line);
        notify::ready(&line);
        match self.pipe.take() {
            None => logging::print(format!("{line}\n").as_bytes()),
            Some(mut pipe) => {
                // First: lines that were logged before belong to the terminal.
                logging::to_syslog();
                if let Err(error) = to_null() {
                    log::warn!("/dev/null: {error}");
                }
                let _ = writeln!(pipe, "0 {line}");
            }
        }
    }

    /// Says why the daemon ends, and returns its exit code. After `ready` the line goes to the log.
    pub fn failed(mut self, failure: &Failure) -> ExitCode {
        match self.pipe.take() {
            Some(mut pipe) => {
                let _ = writeln!(pipe, "{} {failure}", failure.code());
            }
            None if self.told => {
                log::error!("{failure}");
                logging::flush();
            }
            None => return report(failure),
        }
        ExitCode::from(failure.code())
    }
}

/// The one line on stderr.
pub fn report(failure: &Failure) -> ExitCode {
    logging::complain("aoefs", &failure.to_string());
    logging::flush();
    ExitCode::from(failure.code())
}

/// Forks. Call it before any thread starts.
pub fn detach(signals: &Signals) -> Result<Side, Failure> {
    let failed = |what: &str, errno: Errno| {
        Failure::start(format!("cannot go to the background: {what}: {}; try -f", errno.desc()))
    };
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed("pipe", errno))?;
    // SAFETY: no thread has been started yet, so the child may use all of the parent's state.
    match unsafe { fork() }.map_err(|errno| failed("fork", errno))? {
        ForkResult::Child => {
            drop(reader);
            // It fails only for a process that leads a group already, and a new child does not.
            let _ = setsid();
            Ok(Side::Daemon(Ready { pipe: Some(File::from(writer)), told: false }))
        }
        ForkResult::Parent { child } => {
            drop(writer);
            Ok(Side::Parent(await_word(signals, child, reader)))
        }
    }
}

fn await_word(signals: &Signals, child: Pid, reader: OwnedFd) -> ExitCode {
    let mut pipe = File::from(reader);
    wait_readable(signals, child, &pipe);
    // Up to the line feed only: the daemon may keep its end for as long as it lives.
    let mut byte = [0];
    let mut bytes = Vec::new();
    while pipe.read_exact(&mut byte).is_ok() && byte[0] != b'\n' {
        bytes.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&bytes);
    match text.split_once(' ').and_then(|(code, line)| Some((code.parse::<u8>().ok()?, line))) {
        Some((0, line)) => {
            let _ = writeln!(io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Some((code, line)) => {
            // The daemon has cleaned up already. In a container nothing else may reap its process.
            let _ = waitpid(child, None);
            report(&Failure::with_code(code, line))
        }
        None => {
            let how = match waitpid(child, None) {
                Ok(WaitStatus::Signaled(_, signal, _)) => format!("was ended by {signal}"),
                Ok(WaitStatus::Exited(_, code)) => format!("exited with code {code}"),
                _ => "ended".into(),
            };
            report(&Failure::start(format!(
                "the daemon {how} while it started; run it with -f -v to see why"
            )))
        }
    }
}

/// Waits until the daemon has written something; a signal to us goes on to the daemon, which then ends.
fn wait_readable(signals: &Signals, child: Pid, pipe: &File) {
    loop {
        let mut fds =
            [PollFd::new(pipe.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let any = |fd: &PollFd| fd.any().unwrap_or(true);
        if any(&fds[0]) {
            return;
        }
        if any(&fds[1]) {
            let _ = signals.next(Some(std::time::Duration::ZERO));
            let _ = kill(child, Signal::SIGTERM);
        }
    }
}

/// Lets standard input, output and error lead nowhere.
pub(super) fn to_null() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(null.as_fd())?;
    dup2_stdout(null.as_fd())?;
    dup2_stderr(null.as_fd())?;
    Ok(())
}
