//! The file system without FUSE: the real runtime over an in-process link to the built-in target, and the core's calls in
//! place of the kernel's. What is asserted is what a program would see.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

#[path = "fs_core/bed.rs"]
mod bed;

#[path = "bed/rng.rs"]
#[allow(dead_code, reason = "each test binary uses the part of it that it needs")]
mod rng;

#[path = "fs_core/commands.rs"]
mod commands;
#[path = "fs_core/copy.rs"]
mod copy;
#[path = "fs_core/counters.rs"]
mod counters;
#[path = "fs_core/disk.rs"]
mod disk;
#[path = "fs_core/life.rs"]
mod life;
#[path = "fs_core/lists.rs"]
mod lists;
#[path = "fs_core/names.rs"]
mod names;
#[path = "fs_core/pages.rs"]
mod pages;
#[path = "fs_core/partscan.rs"]
mod partscan;
#[path = "fs_core/raw.rs"]
mod raw;
#[path = "fs_core/words.rs"]
mod words;
