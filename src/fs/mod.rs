//! The files: FUSE requests become requests to the engine, and outcomes become answers.
//!
//! From above; nothing here names what stands above it:
//!
//! * `session`, `handlers`: FUSE.
//! * `core`: names, opening, and news of targets from the runtime; `handles` are the numbers of open files.
//! * `file`: the kinds of files, each with its verbs.
//! * `context`: what all open files share. `ctl`: the command language. `status`, `stats`, `metrics`: the texts, made
//!   of a `snapshot`.
//! * `tree`: names, inodes, modes. `notify`: notifications to the kernel. `kept`: texts between two reads.
//! * `errno`, `answer`, `limits`, `worker`.

mod answer;
mod context;
pub mod core;
pub mod ctl;
pub mod errno;
mod file;
pub mod handlers;
mod handles;
mod kept;
mod limits;
pub mod metrics;
pub mod notify;
pub mod session;
pub mod snapshot;
pub mod stats;
mod status;
pub mod tree;
pub mod worker;
