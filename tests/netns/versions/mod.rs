//! A bed for the kernel: real processes write versions of what they own through every name and by every way, others
//! read them, and a
//! judge knows what may be seen.
//!
//! `plan` says who owns what, `board` is what all know of each other, `judge` has the rule; `worker`, `reader` and
//! `others` are the
//! processes, each at its `seat`, with the system calls of `ways` and `queues`; `crew` starts and watches them;
//! `faults` are what
//! happens to them meanwhile. A process is this test binary again: `--versions ROLE SEAT BOARD VIEW…`.

pub mod board;
pub mod crew;
pub mod faults;
pub mod judge;
pub mod others;
pub mod plan;
pub mod queues;
pub mod reader;
pub mod seat;
pub mod ways;
pub mod worker;

use others::Wrong;
use seat::{Seat, View};
use std::path::Path;

/// One process of a run, by its command line.
pub fn program(words: &[String]) -> Result<(), String> {
    let [role, number, board, names @ ..] = words else { return Err("ROLE SEAT BOARD VIEW…".into()) };
    let number = number.parse().map_err(|_| format!("{number}: a seat"))?;
    let views: Option<Vec<View>> = names.iter().map(|word| View::parse(word)).collect();
    let views = views.filter(|views| !views.is_empty()).ok_or("no name, or one that cannot be understood")?;
    let seat = Seat::new(Path::new(board), number, views).map_err(|error| format!("{board}: {error}"))?;
    let ended = match role.as_str() {
        "worker" => worker::work(seat),
        "reader" => reader::read(seat),
        "last" => reader::last(seat),
        "bystander" => others::stand_by(seat),
        "partitioner" => others::partition(seat),
        "failer" => others::fail(seat),
        "sleeper" => {
            others::sleep(&seat);
            Ok(())
        }
        _ => {
            let wrongs = [Wrong::Undo, Wrong::Clear, Wrong::Tear, Wrong::Swap, Wrong::Ahead];
            match wrongs.into_iter().find(|wrong| format!("{wrong:?}") == *role) {
                Some(wrong) => others::spoil(seat, wrong),
                None => return Err(format!("{role}: no such role")),
            }
        }
    };
    ended.map_err(|error| format!("{role} {number}: {error}"))
}
