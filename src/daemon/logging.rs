//! Where log lines go: to stderr as env_logger writes them, while there is a terminal or a service manager to read
//! it; to syslog once the daemon is in the background. RUST_LOG decides what is logged, in both.
//!
//! Promises: once [`start`] was called, a log call never waits, whether the log is read or not; lines that repeat are
//! limited in rate, except those that the user has asked for (debug and trace).

use std::io::{self, IsTerminal};
use std::os::unix::net::UnixDatagram;
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
use crate::allowance::GATHER;
use crate::failure::one_line;

/// Where syslog listens, on every init system.
const SYSLOG: &str = "/dev/log";

/// The facility "daemon", as the protocol (RFC 3164) shifts it.
const FACILITY: u8 = 3 << 3;

static IN_BACKGROUND: AtomicBool = AtomicBool::new(false);
static OUTLET: Outlet = Outlet::new();
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Installs the logger of aoefs. `verbosity` counts -v, and -q as minus one; RUST_LOG wins over it. fuser logs every
/// request at debug, so that takes -vv. Lines with the target `replies` are left out below -vv.
pub fn install(verbosity: i8, replies: &str) {
    install_as("aoefs", &default_filter(verbosity, replies));
}

/// Installs the logger of the program `name`. `filter` decides which lines it logs, unless RUST_LOG says otherwise.
pub fn install_as(name: &'static str, filter: &str) {
    let terminal = env_logger::Builder::new()
        .target(Target::Pipe(Box::new(Terminal)))
        .write_style(if wants_colours() { WriteStyle::Always } else { WriteStyle::Never })
        .parse_env(env_logger::Env::default().default_filter_or(filter))
        .build();
    let level = terminal.filter();
    let logger =
        LOGGER.get_or_init(|| Logger { name, terminal, syslog: Mutex::new(None), limiter: Mutex::default() });
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

/// All lines are written, or given up after [`PATIENCE`]. Call it before the process ends.
pub fn flush() {
    tick_all(true);
    OUTLET.flush(PATIENCE);
}

/// Says why the process ends now, in the log, whatever RUST_LOG says, and waits for it as [`flush`] does.
pub fn last_words(line: &str) {
    let name = LOGGER.get().map_or("aoefs", |logger| logger.name);
    if IN_BACKGROUND.load(Ordering::Relaxed)
        && let Some(logger) = LOGGER.get()
    {
        logger.to_syslog(Level::Error, line);
    } else {
        say(&format!("{name}: {}", one_line(line)));
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
        let words = format_args!("{line}");
        // Not through the filter: the lines themselves have passed it.
        logger.write(&Record::builder().level(Level::Warn).target("aoefs").args(words).build());
    }
    owes.then_some(GATHER)
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
    syslog: Mutex<Option<UnixDatagram>>,
    limiter: Mutex<Limiter>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.terminal.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.terminal.matches(record) && (record.level() > Level::Info || self.may_say(record)) {
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
        } else {
            self.terminal.log(record);
        }
    }

    fn to_syslog(&self, level: Level, text: &str) {
        let line = format(self.name, level, text);
        // It is held for moments only. But a panic may come from a thread that holds it.
        let Some(mut socket) = self.syslog.try_lock_for(PATIENCE) else { return };
        // After a restart of syslog the second try finds it; then the line is lost. It never waits: syslog may write to
        // a disk that waits for us.
        for _ in 0..2 {
            let sent = match &*socket {
                Some(connected) => connected.send(line.as_bytes()).map(drop),
                None => connect().map(|connected| {
                    let _ = connected.send(line.as_bytes());
                    *socket = Some(connected);
                }),
            };
            match sent {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => *socket = None,
                _ => break,
            }
        }
    }
}

fn connect() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(SYSLOG)?;
    Ok(socket)
}

/// A line as syslog takes it; the receiver adds time and host.
fn format(name: &str, level: Level, text: &str) -> String {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    format!("<{}>{name}[{}]: {}", FACILITY | severity, std::process::id(), one_line(text))
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
    }
}
