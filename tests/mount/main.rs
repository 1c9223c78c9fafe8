//! Mounting, the unmounter and the signals, for real: a small file system in a process of its own, mounted in a mount
//! namespace that ends with the test. Root only; a test that cannot run says so.
//!
//! With `--daemon DIR …` or `--background HOW` this program is that process; else it runs the tests.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]

#[path = "../bed/mod.rs"]
mod bed;

mod background;
mod commands;
mod daemon;
mod place;
mod signals;
mod unmounter;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first() {
        Some((first, rest)) if first == "--daemon" => daemon::main(rest),
        Some((first, rest)) if first == "--background" => background::main(rest),
        _ => bed::harness::main(&[
            background::TESTS,
            place::TESTS,
            unmounter::TESTS,
            signals::TESTS,
            commands::TESTS,
        ]),
    }
}
