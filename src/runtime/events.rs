//! The event log: the lines that the file `log` shows.
//!
//! Promises: logging takes a short lock that no thread holds while it waits, so it never blocks I/O; the ring never
//! grows above its size; one kind of message cannot flood it, and one line says how many lines were left out. Byte
//! positions count from the start of the daemon, so that they work as offsets in a file that only grows.

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Display, Write};
use std::sync::Arc;
use std::time::Instant;

use log::Level;
use parking_lot::Mutex;

use crate::allowance::Allowance;
use crate::wire::Addr;

/// Bytes kept by default: some 800 lines, an hour of a bad network under the rate limit.
pub const DEFAULT_SIZE: usize = 64 << 10;

/// The target of these lines for the crate `log`: they are limited in rate already.
pub const EVENTS: &str = "aoefs::log";

/// Longest line in bytes, its end included; longer ones are cut. Enough for a command with a config string.
const LONGEST: usize = 1536;

/// Something to run when there are new lines. It runs on the thread that logged, with nothing of the log locked,
/// and must not block: hand over to a thread that may.
pub type News = Arc<dyn Fn() + Send + Sync>;

/// The ring.
pub struct EventLog {
    state: Mutex<State>,
    size: usize,
}

/// Where a reader is: one for each open handle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Log position minus file offset, once known.
    shift: Option<u64>,
    /// The file offset after the last read.
    next: u64,
}

struct State {
    ring: VecDeque<u8>,
    /// Bytes ever logged; the ring ends here.
    total: u64,
    pushed_out: u64,
    suppressed: u64,
    kinds: HashMap<&'static str, Allowance>,
    news: Arc<[News]>,
}

impl Default for EventLog {
    fn default() -> EventLog {
        EventLog::new(DEFAULT_SIZE)
    }
}

impl EventLog {
    /// A ring of `size` bytes.
    pub fn new(size: usize) -> EventLog {
        let state = State {
            ring: VecDeque::with_capacity(size),
            total: 0,
            pushed_out: 0,
            suppressed: 0,
            kinds: HashMap::new(),
            news: Arc::new([]),
        };
        EventLog { state: Mutex::new(state), size }
    }

    /// Adds a line about `target`, or about none. `kind` is a word for the sort of message, the same at every call from
    /// one place: each kind has its own allowance.
    pub fn log(&self, kind: &'static str, target: Option<Addr>, words: impl Display) {
        self.log_at(Instant::now(), Level::Info, kind, target, &words);
    }

    /// Adds a line about something that does not work as it should: a warning in the system's log.
    pub fn warn(&self, kind: &'static str, target: Option<Addr>, words: impl Display) {
        self.log_at(Instant::now(), Level::Warn, kind, target, &words);
    }

    /// Calls `news` after lines were added, for as long as the log lives.
    pub fn on_news(&self, news: News) {
        let mut state = self.state.lock();
        state.news = state.news.iter().cloned().chain([news]).collect();
    }

    /// Bytes ever logged: the size the file shows.
    pub fn total(&self) -> u64 {
        self.sum_up(Instant::now());
        self.state.lock().total
    }

    /// Lines pushed out of the ring by newer ones.
    pub fn pushed_out(&self) -> u64 {
        self.state.lock().pushed_out
    }

    /// Lines left out by the rate limit.
    pub fn suppressed(&self) -> u64 {
        self.state.lock().suppressed
    }

    /// Up to `max` bytes for a reader at file `offset`; none at the end. If the first read of a handle lies below the
    /// oldest byte that is kept, it starts at that byte; so does a reader in sequence that was overtaken. Any other
    /// read of bytes that are no longer there finds nothing.
    pub fn read_at(&self, cursor: &mut Cursor, offset: u64, max: usize) -> Vec<u8> {
        self.sum_up(Instant::now());
        let state = self.state.lock();
        let oldest = state.oldest();
        let shift = cursor.shift.unwrap_or(0);
        let mut at = offset.saturating_add(shift);
        if at < oldest {
            if cursor.shift.is_some() && offset != cursor.next {
                return Vec::new();
            }
            at = oldest;
        }
        cursor.shift = Some(at.saturating_sub(offset));
        let skip = usize::try_from(at - oldest).unwrap_or(usize::MAX);
        let read: Vec<u8> = state.ring.iter().skip(skip).take(max).copied().collect();
        cursor.next = offset.saturating_add(read.len() as u64);
        read
    }

    /// Whether a reader at file `offset` would get something, for poll(2).
    pub fn has_news(&self, cursor: &Cursor, offset: u64) -> bool {
        offset.saturating_add(cursor.shift.unwrap_or(0)) < self.total()
    }

    fn log_at(
        &self,
        now: Instant,
        level: Level,
        kind: &'static str,
        target: Option<Addr>,
        words: &dyn Display,
    ) {
        self.sum_up(now);
        if !self.state.lock().admit(now, kind) {
            return;
        }
        // Not under the lock: other threads need not wait while the words are put together.
        let line = line(target, words);
        let mut state = self.state.lock();
        state.push(&line, self.size);
        let news = state.news.clone();
        drop(state);
        announce(level, &line, &news);
    }

    /// Writes how many lines of each kind were left out. Every call that logs or reads does it, so it needs no timer.
    fn sum_up(&self, now: Instant) {
        let mut state = self.state.lock();
        let mut lines = Vec::new();
        for (kind, allowance) in &mut state.kinds {
            if let Some(count) = allowance.take_left_out(now, false) {
                lines.push(line(None, &format_args!("suppressed {count} lines of kind {kind}")));
            }
        }
        for line in &lines {
            state.push(line, self.size);
        }
        let news = state.news.clone();
        drop(state);
        for line in &lines {
            announce(Level::Warn, line, &news);
        }
    }
}

impl State {
    fn oldest(&self) -> u64 {
        self.total - self.ring.len() as u64
    }

    fn admit(&mut self, now: Instant, kind: &'static str) -> bool {
        let admitted = self.kinds.entry(kind).or_insert_with(|| Allowance::new(now)).admit(now);
        self.suppressed += u64::from(!admitted);
        admitted
    }

    fn push(&mut self, line: &str, size: usize) {
        while self.ring.len() + line.len() > size {
            let Some(end) = self.ring.iter().position(|&byte| byte == b'\n') else { return };
            self.ring.drain(..=end);
            self.pushed_out += 1;
        }
        self.ring.extend(line.bytes());
        self.total += line.len() as u64;
    }
}

/// Passes a line on to the system's log, which adds a time of its own.
fn announce(level: Level, line: &str, news: &[News]) {
    let words = line.split_once(' ').map_or(line, |(_, words)| words);
    let words = words.strip_prefix("- ").unwrap_or(words);
    log::log!(target: EVENTS, level, "{}", words.trim_end());
    for call in news {
        call();
    }
}

/// `RFC3339 target words\n`, with nothing in the words that would end the line or move the reader's cursor.
fn line(target: Option<Addr>, words: &dyn Display) -> String {
    let mut line = Line(String::with_capacity(128));
    let now = jiff::Timestamp::now();
    // A Line refuses text beyond its limit; what it has then is the line.
    let _ = match target {
        Some(target) => write!(line, "{now:.3} {target} {words}"),
        None => write!(line, "{now:.3} - {words}"),
    };
    line.0.push('\n');
    line.0
}

/// A string without control characters that stops growing at [`LONGEST`].
struct Line(String);

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let c = match c {
                '\n' | '\t' | '\r' => ' ',
                c if c.is_control() => '\u{fffd}',
                c => c,
            };
            if self.0.len() + c.len_utf8() >= LONGEST {
                return Err(fmt::Error);
            }
            self.0.push(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
