//! The start of the program: what it stands on, its configuration file, and the way from a mount that stands to its end.

pub mod backend;
pub mod configfile;
pub mod serve;
