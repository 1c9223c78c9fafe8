//! aoefs: ATA-over-Ethernet targets as plain files.

pub mod daemon;
pub mod engine;
pub mod failure;
pub mod fs;
pub mod runtime;
pub mod target;
pub mod wire;
