//! The FUSE face: translation only.

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
