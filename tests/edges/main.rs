//! The edges towards the kernel, tried on veth pairs: packet links and the link watcher.
//!
//! Every test runs in a thread with a network namespace of its own, which ends with the thread: nothing has to be
//! cleaned up, nothing touches the machine's interfaces. Without root each says `skipped:` and why.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what failed by panicking")]

mod bed;
mod packet;
mod watch;
