//! Where log lines go: to stderr as env_logger writes them, while there is a terminal to read it; to stderr as
//! systemd's journal takes them (sd-daemon(3)), with a level and without a time, if the journal reads it; to syslog
//! once the daemon is in the background. RUST_LOG decides what is logged, in all three. What is also in the file
//! `log` is shown on a terminal only if it is a warning, or asked for with -v: its user has the file.
//!
//! Promises: once [`start`] was called, a log call never waits, whether the log is read or not; lines that repeat are
//! limited in rate, except those that the user has asked for (debug and trace) and those that are limited already.

use std::io::{self, IsTerminal};
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::{Target, WriteStyle};
use log::{Level, Log, Metadata, Record};
use parking_lot::Mutex;

use super::limit::{Limiter, Verdict};
use super::outlet::Outlet;
pub use super::outlet::{PATIENCE, print};
use super::syslog::Syslog;
use crate::allowance::GATHER;
use crate::failure::one_line;

/// Where syslog listens, on every init system.
const SYSLOG: &str = "/dev/log";

/// How soon lines are sent again that syslog did not take.
const AGAIN: Duration = Duration::from_millis(20);

/// The facility "daemon", as the protocol (RFC 3164) shifts it.
const FACILITY: u8 = 3 << 3;

static IN_BACKGROUND: AtomicBool = AtomicBool::new(false);
static OUTLET: Outlet = Outlet::new();
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Installs the logger of aoefs. `verbosity` counts -v, and -q as minus one; RUST_LOG wins over it. fuser logs every
/// request at debug, so that takes -vv. Lines with the target `replies` are left out below -vv;
/// those with the target `events` are in the file `log`, and limited in rate already.
pub fn install(verbosity: i8, replies: &str, events: &'static str) {
    install_with("aoefs", &default_filter(verbosity, replies), events);
}

/// Installs the logger of the program `name`. `filter` decides which lines it logs, unless RUST_LOG says otherwise.
pub fn install_as(name: &'static str, filter: &str) {
    install_with(name, filter, "");
}

fn install_with(name: &'static str, filter: &str, events: &'static str) {
    let terminal = env_logger::Builder::new()
        .target(Target::Pipe(Box::new(Terminal)))
        .write_style(if wants_colours() { WriteStyle::Always } else { WriteStyle::Never })
        .parse_env(env_logger::Env::default().default_filter_or(filter))
        .build();
    let level = terminal.filter();
    let logger = LOGGER.get_or_init(|| Logger {
        name,
        terminal,
        events,
        syslog: Mutex::default(),
        limiter: Mutex::default(),
    });
    // A second logger in one process can only come from a test.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

/// From now on a thread of its own writes the lines. Call it after the last fork and after privileges were dropped.
/// Without it everything works, but a thread that logs may have to wait.
pub fn start() -> io::Result<()> {
    thread::Builder::new().name("log".into()).spawn(|| OUTLET.serve(tick)).map(drop)
}

/// The filter without RUST_LOG.
fn default_filter(verbosity: i8, replies: &str) -> String {
    match verbosity {
        ..0 => format!("error,{replies}=off"),
        // Lines of the demo's own target are of no interest to a user who tries it out.
        0 => format!("warn,aoefs=info,aoefs::export::server=warn,{replies}=off"),
        1 => format!("info,aoefs=debug,{replies}=off"),
        2.. => "debug,aoefs=trace".into(),
    }
}

/// Lines that were logged are written, or given up after [`PATIENCE`]; from now on lines go to syslog.
pub fn to_syslog() {
    IN_BACKGROUND.store(true, Ordering::Relaxed);
    OUTLET.flush(PATIENCE);
}

/// Puts a line on standard error, without the name and time of a log line, in order with the log's lines.
pub fn say(line: &str) {
    OUTLET.say(format!("{line}\n").as_bytes());
}

/// Puts the line on standard error that says why the program `name` ends.
pub fn complain(name: &str, line: &str) {
    match is_journal() {
        true => say(&for_journal(Level::Error, line)),
        false => say(&format!("{name}: {line}")),
    }
}

/// Whether standard error leads to systemd's journal, which says so by device and inode.
fn is_journal() -> bool {
    static IS_JOURNAL: OnceLock<bool> = OnceLock::new();
    *IS_JOURNAL.get_or_init(|| {
        let stderr = || std::fs::metadata("/proc/self/fd/2").ok();
        let said = std::env::var("JOURNAL_STREAM").ok();
        said.zip(stderr()).is_some_and(|(said, file)| said == format!("{}:{}", file.st_dev(), file.st_ino()))
    })
}

/// All lines are written, or given up after [`PATIENCE`]. Call it before the process ends.
pub fn flush() {
    tick_all(true);
    OUTLET.flush(PATIENCE);
    flush_syslog();
}

/// Says why the process ends now, in the log, whatever RUST_LOG says, and waits for it as [`flush`] does.
pub fn last_words(line: &str) {
    let name = LOGGER.get().map_or("aoefs", |logger| logger.name);
    if IN_BACKGROUND.load(Ordering::Relaxed)
        && let Some(logger) = LOGGER.get()
    {
        logger.to_syslog(Level::Error, line);
        flush_syslog();
    } else {
        complain(name, &one_line(line));
    }
    OUTLET.flush(PATIENCE);
}

/// env_logger would find this out by itself if it wrote to stderr; RUST_LOG_STYLE overrides it.
fn wants_colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_some_and(|t| t != "dumb")
}

/// Writes the counts of lines left out that are due; returns when to call it again.
fn tick() -> Option<Duration> {
    tick_all(false)
}

fn tick_all(all: bool) -> Option<Duration> {
    let logger = LOGGER.get()?;
    let (lines, owes) = {
        let mut limiter = logger.limiter.try_lock_for(PATIENCE)?;
        (limiter.sum_up(Instant::now(), all), limiter.owes())
    };
    for line in lines {
        // Not through the filter: the lines themselves have passed it.
        logger.write(
            &Record::builder().level(Level::Warn).target("aoefs").args(format_args!("{line}")).build(),
        );
    }
    let waits = (!logger.send_waiting()).then_some(AGAIN);
    waits.or(owes.then_some(GATHER))
}

/// Waits until syslog has taken what waits for it, for [`PATIENCE`] at most.
fn flush_syslog() {
    let until = Instant::now() + PATIENCE;
    while LOGGER.get().is_some_and(|logger| !logger.send_waiting()) && Instant::now() < until {
        thread::sleep(AGAIN);
    }
}

/// The writer that env_logger writes to.
struct Terminal;

impl io::Write for Terminal {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        OUTLET.say(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Logger {
    name: &'static str,
    terminal: env_logger::Logger,
    events: &'static str,
    syslog: Mutex<Syslog>,
    limiter: Mutex<Limiter>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.terminal.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let event = record.target() == self.events;
        if event && record.level() == Level::Info && !in_system_log() {
            let asked = Metadata::builder().level(Level::Debug).target(record.target()).build();
            if !self.terminal.enabled(&asked) {
                return;
            }
        }
        if self.terminal.matches(record) && (event || record.level() > Level::Info || self.may_say(record)) {
            self.write(record);
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn may_say(&self, record: &Record<'_>) -> bool {
        let place = (record.file_static().unwrap_or_default(), record.line().unwrap_or_default());
        let mut limiter = self.limiter.lock();
        let verdict = limiter.admit(place, Instant::now(), || record.args().to_string());
        drop(limiter);
        if verdict == Verdict::First {
            OUTLET.poke();
        }
        verdict == Verdict::Say
    }

    fn write(&self, record: &Record<'_>) {
        if IN_BACKGROUND.load(Ordering::Relaxed) {
            self.to_syslog(record.level(), &record.args().to_string());
        } else if is_journal() {
            say(&for_journal(record.level(), &record.args().to_string()));
        } else {
            self.terminal.log(record);
        }
    }

    fn to_syslog(&self, level: Level, text: &str) {
        let line = format(self.name, level, text);
        // It is held for moments only. But a panic may come from a thread that holds it.
        let Some(mut syslog) = self.syslog.try_lock_for(PATIENCE) else { return };
        let sent = syslog.say(Path::new(SYSLOG), line, |lines| self.left_out(lines));
        drop(syslog);
        if !sent {
            OUTLET.poke();
        }
    }

    /// Sends what waits for syslog. False: some lines still do.
    fn send_waiting(&self) -> bool {
        let syslog = self.syslog.try_lock_for(PATIENCE);
        syslog.is_none_or(|mut syslog| syslog.send(Path::new(SYSLOG), |lines| self.left_out(lines)))
    }

    /// The line that says how many found no room on their way to syslog.
    fn left_out(&self, lines: u64) -> String {
        format(
            self.name,
            Level::Warn,
            &format!("syslog did not take {lines} lines in time; they are left out"),
        )
    }
}

/// Whether lines go to the system's log, and no person waits for them.
fn in_system_log() -> bool {
    IN_BACKGROUND.load(Ordering::Relaxed) || is_journal()
}

/// A line as syslog takes it; the receiver adds time and host.
fn format(name: &str, level: Level, text: &str) -> String {
    format!("<{}>{name}[{}]: {}", FACILITY | severity(level), std::process::id(), one_line(text))
}

/// A line as systemd's journal takes it from a standard error.
fn for_journal(level: Level, text: &str) -> String {
    format!("<{}>{}", severity(level), one_line(text))
}

/// The numbers of syslog(3).
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLIES: &str = "library::reply";

    #[test]
    fn replies_that_nobody_wants_are_logged_only_if_asked_for() {
        let logs = |filter: &str, target: &str| {
            let logger = env_logger::Builder::new().parse_filters(filter).build();
            logger.enabled(&Metadata::builder().level(Level::Error).target(target).build())
        };
        for verbosity in -1..=2 {
            let filter = default_filter(verbosity, REPLIES);
            assert_eq!(logs(&filter, REPLIES), verbosity == 2, "{filter}");
            assert!(logs(&filter, "fuser::session") && logs(&filter, "aoefs::daemon"), "{filter}");
        }
        assert!(logs("library=error", REPLIES), "RUST_LOG");
    }

    #[test]
    fn a_line_of_syslog() {
        let pid = std::process::id();
        assert_eq!(format("aoefs", Level::Warn, "eth1\ndown"), format!("<28>aoefs[{pid}]: eth1\\ndown"));
        assert_eq!(for_journal(Level::Info, "eth1\ndown"), "<6>eth1\\ndown");
    }
}
