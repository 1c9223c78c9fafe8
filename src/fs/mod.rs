//! The FUSE face: translation only.

pub mod ctl;
pub mod errno;
pub mod mount;
pub mod text;
