//! The namespace bed: the real binaries against Debian's vblade, over veth pairs in namespaces of our own.
//!
//! Its own harness (see `bed::harness`), because a test here can be skipped while it runs (no root, no FUSE, no vblade), must
//! end within its time even when a process hangs in the kernel, and shares one machine-wide resource with its neighbours: two cores.
//! `cargo test --test netns -- NAME…` runs the tests whose name contains one of the words; `--list` prints them.
//! `cargo test --test netns -- --relay IF IF [SEED]` is the relay alone: settings on stdin (see `bed::relay`).
//! `… -- --versions ROLE SEAT BOARD VIEW…` is one process of the bed for the kernel (see `versions`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]

mod bed;
mod tools;
mod versions;

#[path = "netns/atomicity.rs"]
mod atomicity;
#[path = "netns/bed_itself.rs"]
mod bed_itself;
#[path = "netns/bugs.rs"]
mod bugs;
#[path = "netns/claims.rs"]
mod claims;
#[path = "netns/control.rs"]
mod control;
#[path = "netns/crowd.rs"]
mod crowd;
#[path = "netns/database.rs"]
mod database;
#[path = "netns/demo.rs"]
mod demo;
#[path = "netns/faults.rs"]
mod faults;
#[path = "netns/files.rs"]
mod files;
#[path = "netns/hostile.rs"]
mod hostile;
#[path = "netns/hosts.rs"]
mod hosts;
#[path = "netns/interfaces.rs"]
mod interfaces;
#[path = "netns/kernel.rs"]
mod kernel;
#[path = "netns/life.rs"]
mod life;
#[path = "netns/load.rs"]
mod load;
#[path = "netns/loops.rs"]
mod loops;
#[path = "netns/media.rs"]
mod media;
#[path = "netns/pace.rs"]
mod pace;
#[path = "netns/partitions.rs"]
mod partitions;
#[path = "netns/pressure.rs"]
mod pressure;
#[path = "netns/quirk_frames.rs"]
mod quirk_frames;
#[path = "netns/quirk_habits.rs"]
mod quirk_habits;
#[path = "netns/scale.rs"]
mod scale;
#[path = "netns/stops.rs"]
mod stops;
#[path = "netns/tap.rs"]
mod tap;
#[path = "netns/target.rs"]
mod target;
#[path = "netns/target_trouble.rs"]
mod target_trouble;
#[path = "netns/tools_themselves.rs"]
mod tools_themselves;
#[path = "netns/vblade_io.rs"]
mod vblade_io;

fn main() -> std::process::ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--relay") {
        let ended = bed::relay::Relay::program(&words[1..]);
        return ended.map_or_else(
            |why| {
                eprintln!("relay: {why}");
                std::process::ExitCode::from(2)
            },
            |()| std::process::ExitCode::SUCCESS,
        );
    }
    if words.first().is_some_and(|word| word == "--versions") {
        let ended = versions::program(&words[1..]);
        return ended.map_or_else(
            |why| {
                println!("versions: {why}");
                std::process::ExitCode::from(2)
            },
            |()| std::process::ExitCode::SUCCESS,
        );
    }
    bed::harness::main(&[
        bed_itself::TESTS,
        bugs::TESTS,
        tools_themselves::TESTS,
        target::TESTS,
        target_trouble::TESTS,
        vblade_io::TESTS,
        files::TESTS,
        partitions::TESTS,
        control::TESTS,
        claims::TESTS,
        demo::TESTS,
        atomicity::TESTS,
        loops::TESTS,
        interfaces::TESTS,
        kernel::TESTS,
        life::TESTS,
        hosts::TESTS,
        media::TESTS,
        quirk_frames::TESTS,
        quirk_habits::TESTS,
        faults::TESTS,
        hostile::TESTS,
        load::TESTS,
        scale::TESTS,
        database::TESTS,
        pace::TESTS,
        tap::TESTS,
        crowd::TESTS,
        pressure::TESTS,
        stops::TESTS,
    ])
}
