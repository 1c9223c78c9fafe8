//! The FUSE face: translation only.

pub mod ctl;
pub mod errno;
pub mod handles;
pub mod mount;
pub mod notify;
pub mod text;
pub mod tree;
