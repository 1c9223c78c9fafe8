//! aoefs: ATA-over-Ethernet targets as plain files.

pub mod bug;
pub mod cli;
pub mod configfile;
pub mod daemon;
pub mod engine;
pub mod failure;
pub mod fs;
pub mod ground;
pub mod parttable;
pub mod runtime;
pub mod serve;
pub mod target;
pub mod top;
pub mod wire;
