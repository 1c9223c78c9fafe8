//! aoefs: ATA-over-Ethernet targets as plain files.

pub mod app;
pub mod bug;
pub mod cli;
pub mod daemon;
pub mod engine;
pub mod export;
pub mod failure;
pub mod fs;
pub mod link;
pub mod mount;
pub mod parttable;
pub mod runtime;
pub mod target;
pub mod top;
pub mod wire;
