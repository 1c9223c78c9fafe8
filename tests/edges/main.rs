//! The edges towards the kernel: packet links and the link watcher, tried on veth pairs, and what the process asks
//! for itself.
//!
//! Every test of a link runs in a thread with a network namespace of its own, which ends with the thread: nothing has
//! to be cleaned up, nothing touches the machine's interfaces. Without root each says `skipped:` and why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what failed by panicking")]

mod bed;
mod packet;
mod privilege;
mod watch;
