//! The namespace bed: the real binaries against Debian's vblade, over veth pairs in namespaces of our own.
//!
//! Its own harness (see `bed::harness`), because a test here can be skipped while it runs (no root, no FUSE, no vblade), must
//! end within its time even when a process hangs in the kernel, and shares one machine-wide resource with its neighbours: two cores.
//! `cargo test --test netns -- NAME…` runs the tests whose name contains one of the words; `--list` prints them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]

mod bed;
mod tools;

#[path = "netns/bed_itself.rs"]
mod bed_itself;
#[path = "netns/control.rs"]
mod control;
#[path = "netns/target.rs"]
mod target;
#[path = "netns/tools_themselves.rs"]
mod tools_themselves;

fn main() -> std::process::ExitCode {
    bed::harness::main(&[bed_itself::TESTS, control::TESTS, target::TESTS, tools_themselves::TESTS])
}
