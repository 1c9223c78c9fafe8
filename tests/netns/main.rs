//! The namespace bed: the real binaries against Debian's vblade, over veth pairs in namespaces of our own.
//!
//! Its own harness (see `bed::harness`), because a test here can be skipped while it runs (no root, no FUSE, no
//! vblade), must end within its time even when a process hangs in the kernel, and shares one machine-wide resource
//! with its neighbours: two cores.
//!
//! * `cargo test --test netns -- NAME…` runs the tests whose name contains one of the words; `--list` prints them.
//! * `… -- --relay IF IF [SEED]` is the relay alone, with its settings on stdin (see `bed::relay`).
//! * `… -- --versions ROLE SEAT BOARD VIEW…` is one process of the bed for the kernel (see `versions`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]

#[path = "../bed/mod.rs"]
mod bed;

mod atomicity;
mod bed_itself;
mod bugs;
mod claims;
mod commands;
mod control;
mod crowd;
mod database;
mod demo;
mod faults;
mod files;
mod guest;
mod hostile;
mod hosts;
mod interfaces;
mod kernel;
mod life;
mod load;
mod loops;
mod media;
mod pace;
mod partitions;
mod pressure;
mod quirk_frames;
mod quirk_habits;
mod sample;
mod scale;
mod service;
mod stops;
mod tap;
mod target;
mod target_trouble;
mod tools;
mod tools_themselves;
mod vblade_io;
mod versions;
mod vhost;

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
    if std::env::var_os(bed_itself::SAMPLE).is_some() {
        return bed::harness::main(&[sample::TESTS]);
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
        commands::TESTS,
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
        service::TESTS,
        stops::TESTS,
        vhost::TESTS,
        vhost::foreign::TESTS,
        vhost::hostile::TESTS,
        vhost::silent::TESTS,
        guest::TESTS,
        guest::aoe::TESTS,
        guest::libvirt::TESTS,
        guest::night::TESTS,
    ])
}
