//! The file system without FUSE: the real runtime over an in-process link to the built-in target, and the core's
//! calls in place of the kernel's. What is asserted is what a program would see.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

#[path = "../bed/rng.rs"]
#[allow(dead_code, reason = "each test binary uses the part of it that it needs")]
mod rng;

mod commands;
mod copy;
mod counters;
mod disk;
mod host;
mod life;
mod lists;
mod names;
mod pages;
mod partscan;
mod raw;
mod words;
