//! Where log lines go: to stderr as env_logger writes them, while there is a terminal or a service manager to read
//! it; to syslog once the daemon is in the background. RUST_LOG decides what is logged, in both.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use log::{Level, Log, Metadata, Record};
use parking_lot::Mutex;

use crate::failure::one_line;
use crate::fs::session::REPLIES;

/// Where syslog listens, on every init system.
const SYSLOG: &str = "/dev/log";

/// The facility "daemon", as the protocol (RFC 3164) shifts it.
const FACILITY: u8 = 3 << 3;

static IN_BACKGROUND: AtomicBool = AtomicBool::new(false);

/// Installs the logger. `verbosity` counts -v, and -q as minus one; RUST_LOG wins over it. What fuser logs at debug is
/// every request, so that takes -vv.
pub fn install(verbosity: i8) {
    let filter = default_filter(verbosity);
    let terminal =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(filter)).build();
    let level = terminal.filter();
    let logger = Logger { terminal, syslog: Mutex::new(None) };
    // A second logger in one process can only come from a test.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// What is logged without RUST_LOG. Failed replies to the kernel only if all is wanted; see [`REPLIES`].
fn default_filter(verbosity: i8) -> String {
    match verbosity {
        ..0 => format!("error,{REPLIES}=off"),
        // What the demo's own target says is of no interest to who tries it out.
        0 => format!("warn,aoefs=info,aoefs::runtime::serve=warn,{REPLIES}=off"),
        1 => format!("info,aoefs=debug,{REPLIES}=off"),
        2.. => "debug,aoefs=trace".into(),
    }
}

/// From now on to syslog.
pub fn to_syslog() {
    IN_BACKGROUND.store(true, Ordering::Relaxed);
}

struct Logger {
    terminal: env_logger::Logger,
    syslog: Mutex<Option<UnixDatagram>>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.terminal.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !IN_BACKGROUND.load(Ordering::Relaxed) {
            self.terminal.log(record);
        } else if self.terminal.matches(record) {
            let line = format(record.level(), &record.args().to_string());
            let mut socket = self.syslog.lock();
            // Once more after a restart of syslog; then the line is lost. It never waits: what syslog writes may lie
            // on a disk that waits for us.
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

    fn flush(&self) {}
}

fn connect() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(SYSLOG)?;
    Ok(socket)
}

/// The receiver adds time and host.
fn format(level: Level, text: &str) -> String {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    format!("<{}>aoefs[{}]: {}", FACILITY | severity, std::process::id(), one_line(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_nobody_wants_are_logged_only_if_asked_for() {
        let logs = |filter: &str, target: &str| {
            let logger = env_logger::Builder::new().parse_filters(filter).build();
            logger.enabled(&Metadata::builder().level(Level::Error).target(target).build())
        };
        for verbosity in -1..=2 {
            let filter = default_filter(verbosity);
            assert_eq!(logs(&filter, REPLIES), verbosity == 2, "{filter}");
            assert!(logs(&filter, "fuser::session") && logs(&filter, "aoefs::daemon"), "{filter}");
        }
        assert!(logs("fuser=error", REPLIES), "RUST_LOG");
    }

    #[test]
    fn a_line_of_syslog() {
        let pid = std::process::id();
        assert_eq!(format(Level::Warn, "eth1\ndown"), format!("<28>aoefs[{pid}]: eth1\\ndown"));
    }
}
