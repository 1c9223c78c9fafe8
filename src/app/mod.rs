//! The start of the program: its back end, its configuration file, and the way from a mount that stands to its end.

pub mod backend;
pub mod configfile;
pub mod foresee;
pub mod serve;
