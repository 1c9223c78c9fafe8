//! Speeds: beside the wire's own and what people would use instead, and of one event by the number of targets.
//!
//! All of it is for the night, since a figure in nanoseconds or beside a peer needs a machine that does nothing else:
//! `cargo test --test speed -- --night`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]
#![allow(missing_docs, reason = "the list of tests is made by a macro")]

#[path = "../bed/mod.rs"]
mod bed;
#[path = "../../benches/scale/bookkeeping.rs"]
mod bookkeeping;

mod growth;
mod peers;

fn main() -> std::process::ExitCode {
    bed::harness::main(&[growth::TESTS, peers::TESTS])
}
