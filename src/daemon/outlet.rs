//! Standard error, behind a thread of its own. A pipe that is not read, a terminal that is held (Ctrl-S) or a file on a
//! dead disk then stops that thread and nothing else.
//!
//! Promises: [`Outlet::say`] never waits once [`Outlet::serve`] runs; lines leave in the order in which they came; the
//! queue is bounded, and lines that found no room are counted and the count is written later. Before `serve` runs,
//! while there is only one thread, the calling thread writes its lines itself; it waits for room once, and for
//! [`PATIENCE`] at most. The few lines for standard output are always written by the calling thread, with the same
//! patience.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;
use parking_lot::{Condvar, Mutex};

/// How long the end of the process, or its start, waits until a line is taken.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that may wait: some two thousand lines.
const ROOM: usize = 256 << 10;

/// A pipe that can be written to takes so many bytes without blocking: PIPE_BUF.
const PIECE: usize = 4096;

/// Standard error.
pub struct Outlet {
    state: Mutex<State>,
    /// There is a line, or the thread should call its `tick`.
    news: Condvar,
    /// The queue is empty and nothing is being written.
    idle: Condvar,
    /// In tests: the descriptor to write to instead.
    instead: Option<OwnedFd>,
}

struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    left_out: u64,
    served: bool,
    writing: bool,
    poked: bool,
    /// A line was not taken in time, before there was a thread: the next ones are not waited for.
    stalled: bool,
}

impl Outlet {
    /// The outlet of this process.
    pub const fn new() -> Outlet {
        Outlet::with(None)
    }

    const fn with(instead: Option<OwnedFd>) -> Outlet {
        let state = State {
            lines: VecDeque::new(),
            bytes: 0,
            left_out: 0,
            served: false,
            writing: false,
            poked: false,
            stalled: false,
        };
        Outlet { state: Mutex::new(state), news: Condvar::new(), idle: Condvar::new(), instead }
    }

    /// Hands over whole lines, each with its line feed.
    pub fn say(&self, text: &[u8]) {
        // The lock is held for moments only. But a panic may come from a thread that holds it.
        let Some(mut state) = self.state.try_lock_for(PATIENCE) else { return };
        if !state.served {
            let patience = if state.stalled { Duration::ZERO } else { PATIENCE };
            state.stalled = write_soon(self.fd().as_fd(), text, patience).is_err();
            state.left_out += u64::from(state.stalled);
            return;
        }
        let note = state.note_of_left_out();
        let needed = text.len() + note.as_ref().map_or(0, Vec::len);
        if state.bytes + needed > ROOM {
            state.left_out += 1;
            return;
        }
        state.bytes += needed;
        if let Some(note) = note {
            state.left_out = 0;
            state.lines.push_back(note);
        }
        state.lines.push_back(text.to_vec());
        drop(state);
        self.news.notify_one();
    }

    /// Makes the thread call its `tick` soon.
    pub fn poke(&self) {
        if let Some(mut state) = self.state.try_lock_for(PATIENCE) {
            state.poked = true;
            self.news.notify_one();
        }
    }

    /// Whether everything that was said has been written, after waiting for it for `patience` at most.
    pub fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let Some(mut state) = self.state.try_lock_for(patience) else { return false };
        while state.served && (state.writing || !state.lines.is_empty()) {
            if self.idle.wait_until(&mut state, until).timed_out() {
                return false;
            }
        }
        true
    }

    /// The thread's work, which never ends: writes the lines. Before it waits it calls `tick`, which says how long it
    /// may wait at most.
    pub fn serve(&self, mut tick: impl FnMut() -> Option<Duration>) -> ! {
        self.state.lock().served = true;
        loop {
            let wait = tick();
            let mut state = self.state.lock();
            if state.lines.is_empty() && !state.poked {
                match wait {
                    Some(wait) => drop(self.news.wait_for(&mut state, wait)),
                    None => self.news.wait(&mut state),
                }
            }
            state.poked = false;
            while let Some(line) = state.next() {
                state.writing = true;
                drop(state);
                self.write(&line);
                state = self.state.lock();
                state.writing = false;
            }
            self.idle.notify_all();
        }
    }

    /// Writes all of it, for however long that takes.
    fn write(&self, text: &[u8]) {
        let fd = self.fd();
        let mut rest = text;
        while !rest.is_empty() {
            match write(fd.as_fd(), rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                // Another process that shares the terminal has made it non-blocking.
                Err(Errno::EAGAIN) => drop(writable(fd.as_fd(), None)),
                // It will never be read, or the file system is full: the line is lost.
                Err(_) => return,
            }
        }
    }

    /// Past the locks and buffers of the standard library, which a writer that is stopped would hold.
    fn fd(&self) -> Box<dyn AsFd + '_> {
        match &self.instead {
            Some(fd) => Box::new(fd.as_fd()),
            None => Box::new(io::stderr()),
        }
    }
}

/// Puts whole lines on standard output.
pub fn print(text: &[u8]) {
    // If nobody reads it, that is no reason to stop.
    let _ = write_soon(io::stdout().as_fd(), text, PATIENCE);
}

/// Writes it as far as it can be written without waiting longer than `patience`.
fn write_soon(fd: BorrowedFd<'_>, text: &[u8], patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    let mut rest = text;
    while !rest.is_empty() {
        if !writable(fd, Some(until.saturating_duration_since(Instant::now()))) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match write(fd, &rest[..rest.len().min(PIECE)]) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // As in `Outlet::write`. Later lines may still be waited for.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}

/// Whether it can be written to, or is broken; waits for it, with a limit or without.
fn writable(fd: BorrowedFd<'_>, limit: Option<Duration>) -> bool {
    let timeout = match limit {
        None => PollTimeout::NONE,
        Some(limit) => PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX),
    };
    !matches!(poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout), Ok(0))
}

impl State {
    /// The next line to write; if there is none, the count of the lines left out.
    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(line) = self.lines.pop_front() {
            self.bytes -= line.len();
            return Some(line);
        }
        let note = self.note_of_left_out()?;
        self.left_out = 0;
        Some(note)
    }

    fn note_of_left_out(&self) -> Option<Vec<u8>> {
        let note = || format!("[{} lines were left out here: nobody took them]\n", self.left_out);
        (self.left_out > 0).then(|| note().into_bytes())
    }
}

impl Default for Outlet {
    fn default() -> Outlet {
        Outlet::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::sync::Arc;
    use std::thread;

    /// An outlet into a pipe, and the end that nobody reads yet.
    fn piped() -> (Arc<Outlet>, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (Arc::new(Outlet::with(Some(writer))), File::from(reader))
    }

    fn serve(outlet: &Arc<Outlet>) {
        let own = Arc::clone(outlet);
        thread::spawn(move || own.serve(|| None));
        while !outlet.state.lock().served {
            thread::yield_now();
        }
    }

    fn line(n: usize) -> Vec<u8> {
        format!("{n:99}\n").into_bytes()
    }

    /// What has been said, without the notes.
    fn read(reader: &mut File, lines: usize) -> Vec<usize> {
        let mut text = Vec::new();
        let mut some = [0; 4096];
        let numbers = |text: &[u8]| -> Vec<usize> {
            let text = String::from_utf8_lossy(text).into_owned();
            text.split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n')?.trim().parse().ok())
                .collect()
        };
        while numbers(&text).len() < lines {
            let got = reader.read(&mut some).unwrap();
            text.extend_from_slice(&some[..got]);
        }
        numbers(&text)
    }

    #[test]
    fn lines_leave_in_order_and_are_flushed() {
        let (outlet, mut reader) = piped();
        outlet.say(&line(0));
        serve(&outlet);
        (1..300).for_each(|n| outlet.say(&line(n)));
        assert!(outlet.flush(Duration::from_secs(10)));
        assert_eq!(read(&mut reader, 300), (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_reads_nothing_stops_nobody_and_learns_later_what_it_missed() {
        let (outlet, mut reader) = piped();
        serve(&outlet);
        let start = Instant::now();
        let count = 50_000;
        (0..count).for_each(|n| outlet.say(&line(n)));
        assert!(!outlet.flush(Duration::from_millis(10)));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        let mut text = String::new();
        let mut some = [0; 4096];
        let sum = |text: &str| -> (usize, usize) {
            let whole = || text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            let count = |line: &str| line.strip_prefix('[')?.split(' ').next()?.parse::<usize>().ok();
            (whole().filter(|line| line.len() == 99).count(), whole().filter_map(count).sum())
        };
        // Every line is there, or counted: what does not fit into the pipe and the queue.
        while sum(&text).0 + sum(&text).1 < count {
            let got = reader.read(&mut some).unwrap();
            text.push_str(&String::from_utf8_lossy(&some[..got]));
        }
        let (taken, left_out) = sum(&text);
        assert_eq!(taken + left_out, count);
        assert!((2000..4000).contains(&taken), "{taken}");
    }

    #[test]
    fn before_there_is_a_thread_a_reader_is_waited_for_once() {
        let (outlet, reader) = piped();
        // More than any pipe holds: the last line is cut, which is what waiting no longer means.
        let start = Instant::now();
        (0..20_000).for_each(|n| outlet.say(&line(n)));
        let took = start.elapsed();
        assert!(took >= PATIENCE && took < PATIENCE * 5, "{took:?}");
        assert!(outlet.state.lock().left_out > 10_000);
        drop(reader);
        // A process that another test has just forked may have the reader's end for a moment longer.
        let start = Instant::now();
        while outlet.state.lock().stalled {
            assert!(start.elapsed() < Duration::from_secs(5), "a line into a broken pipe is not waited for");
            outlet.say(b"into a broken pipe\n");
        }
    }
}
