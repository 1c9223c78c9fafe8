//! Everything that makes a process a daemon and lets it end well: background, log, signals, systemd and the unmounter.

pub mod background;
pub mod errand;
pub mod limit;
pub mod logging;
pub mod notify;
pub mod outlet;
pub mod panics;
pub mod privilege;
pub mod seccomp;
pub mod signals;
pub mod stop;
mod syslog;
pub mod unmounter;
