//! Commands and daemons: every command has a time limit and a process group of its own, every daemon a file with all
//! it said.

use super::sweep::{self, Mess};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(3);

/// The process groups of the commands that run now, for `kill_commands`.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a command said and how it ended.
pub struct Output {
    /// The exit code; None when a signal or the time limit ended it.
    pub code: Option<i32>,
    pub timed_out: bool,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Output {
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs a command to its end or to the limit; its process group is killed then.
pub fn run<S: AsRef<OsStr>>(limit: Duration, argv: &[S]) -> Output {
    let start = Instant::now();
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let stderr = format!("{}: {error}", argv[0].as_ref().display());
            return Output {
                code: Some(127),
                timed_out: false,
                stdout: String::new(),
                stderr,
                took: start.elapsed(),
            };
        }
    };
    let group = pid_of(&child);
    running().push(group);
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let status = wait(&mut child, start + limit);
    if status.is_none() {
        let _ = killpg(group, Signal::SIGKILL);
        // A process in the kernel's hands may not die now; then it is left behind rather than waited for.
        wait(&mut child, Instant::now() + Duration::from_secs(2));
    }
    running().retain(|other| *other != group);
    Output {
        code: status.and_then(|status| status.code()),
        timed_out: status.is_none(),
        stdout: stdout.recv_timeout(Duration::from_secs(2)).unwrap_or_default(),
        stderr: stderr.recv_timeout(Duration::from_secs(2)).unwrap_or_default(),
        took: start.elapsed(),
    }
}

/// Like `run`, but anything but success within the limit fails the test. Returns what it printed.
#[track_caller]
pub fn ok<S: AsRef<OsStr>>(limit: Duration, argv: &[S]) -> String {
    let output = run(limit, argv);
    let words: Vec<_> = argv.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    assert!(
        output.ok(),
        "`{}`: {}\n{}{}",
        words.join(" "),
        if output.timed_out {
            format!("no end within {limit:?}")
        } else {
            format!("exit code {:?}", output.code)
        },
        output.stdout,
        output.stderr
    );
    output.stdout
}

/// A line of shell, which must succeed within the limit.
#[track_caller]
pub fn sh(limit: Duration, line: &str) -> String {
    ok(limit, &["bash", "-ec", line])
}

/// Kills every command that runs now, for a test that passed its limit.
pub fn kill_commands() {
    for group in running().iter() {
        let _ = killpg(*group, Signal::SIGKILL);
    }
}

pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// Whether the program is there to be run.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|dir| dir.join(program).is_file())
}

/// Polls until the condition holds and says how long that took; fails the test after the limit.
#[track_caller]
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
    start.elapsed()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn wait(child: &mut Child, until: Instant) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<String> {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = send.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receive
}

/// A process in the background: vblade, aoefs, aoefs-target. Killed by its own id when the bed goes.
pub struct Daemon {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with both outputs in `dir/NAME.log`, where NAME is the program's (a number is added to a second one).
    #[track_caller]
    pub fn spawn<S: AsRef<OsStr>>(dir: &Path, name: &str, argv: &[S]) -> Arc<Self> {
        let free = |n: &u32| !dir.join(format!("{name}.{n}.log")).exists();
        let log = dir.join(format!("{name}.{}.log", (0..).find(free).unwrap()));
        let file = File::create(&log).unwrap();
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let daemon = Arc::new(Self { name: name.into(), pid: child.id(), child: Mutex::new(child), log });
        sweep::register(Mess::Process(daemon.clone()));
        daemon
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal, unless it has ended already (its id may be another's then).
    pub fn signal(&self, which: Signal) {
        let mut child = self.child();
        if matches!(child.try_wait(), Ok(None)) {
            signal(self.pid, which);
        }
    }

    pub fn alive(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// kill -9, and waits (a little) until it is gone.
    pub fn kill9(&self) {
        self.signal(Signal::SIGKILL);
        wait(&mut self.child(), Instant::now() + Duration::from_secs(5));
    }

    /// Waits for its end: the exit code, or minus the signal that ended it.
    #[track_caller]
    pub fn ended(&self, limit: Duration) -> i32 {
        let status = wait(&mut self.child(), Instant::now() + limit);
        let status =
            status.unwrap_or_else(|| panic!("{} did not end within {limit:?}\n{}", self.name, self.said()));
        status.code().unwrap_or_else(|| -status.signal().unwrap_or(0))
    }

    /// Everything it wrote so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Threads it has now, by the kernel's count.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(0, Iterator::count)
    }

    /// Every thread of it has the two filters of system calls, beside those that this test has itself.
    #[track_caller]
    pub fn assert_confined(&self) {
        let filters = |status: &str| -> Option<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"))?;
            line.trim().parse().ok()
        };
        // Kernels before 5.9 do not say how many there are.
        let Some(own) = filters(&std::fs::read_to_string("/proc/self/status").unwrap()) else { return };
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        // A thread may end meanwhile.
        for status in
            tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        {
            assert_eq!(filters(&status), Some(own + 2), "{} {status}", self.name);
        }
    }
}
