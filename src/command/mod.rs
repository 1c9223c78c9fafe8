//! The commands beside the mounting form: `aoefs ctl`, `status`, `discover`, `check`, `ping` and `config`.
//!
//! A command is a program of its own that happens to have the name of the daemon: with a mount it reads and writes the
//! files of that mount as anybody could, and without one it speaks AoE itself, with `wire` and `link` and nothing of
//! the engine. Each file here is one command, or what several of them need.

mod check;
mod config;
mod ctl;
mod discover;
mod facts;
mod mounts;
mod ping;
mod station;
mod status;
mod table;

pub use mounts::Mount;

use std::io::{self, Write};

use crate::cli::Task;
use crate::failure::Failure;

/// Runs a command. False: it did its work, and the answer is no (exit code 1).
pub fn run(task: &Task) -> Result<bool, Failure> {
    match task {
        Task::Ctl { place, line } => ctl::run(place, line).map(|()| true),
        Task::Status { point, interval } => status::run(point.as_deref(), *interval).map(|()| true),
        Task::Discover(via) => discover::run(via).map(|()| true),
        Task::Check(via) => check::run(via),
        Task::Ping { addr, via, count, interval } => ping::run(*addr, via, *count, *interval),
        Task::Config { addr, via, ask } => config::run(*addr, via, ask),
    }
}

/// Prints. It is no failure if the reader has closed the pipe (`| head`).
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::start(format!("cannot print: {error}; look at where the output goes")))
        }
        _ => Ok(()),
    }
}
