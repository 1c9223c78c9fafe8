//! Workloads that know what must come out: each works on a path, whatever serves it, and ends in a verdict.
//!
//! They stand in for tools that Debian does not have (fsx) or nobody wrote (a register checker for files). They are
//! proven on plain files by `tools_themselves`, where a deliberate error must be found.
#![allow(dead_code, reason = "each test binary uses the workloads that it needs")]

pub mod fsx;
pub mod lost_update;
pub mod meter;
pub mod register;
