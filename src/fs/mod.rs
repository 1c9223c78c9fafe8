//! The FUSE face: translation only.

pub mod core;
pub mod ctl;
pub mod errno;
pub mod handlers;
pub mod handles;
pub mod lists;
pub mod metrics;
pub mod notify;
pub mod raw;
pub mod session;
pub mod stats;
pub mod text;
pub mod tree;
pub mod worker;
