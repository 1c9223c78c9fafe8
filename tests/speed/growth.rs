//! The bookkeeping of many targets: an event costs the same among 100,000 as among a hundred.
//!
//! The figures are of one thread on a machine that others use, so they are medians, and the limits have room: they
//! are there to find what grows with the number, as a search through all of them does.

use crate::bookkeeping::{self, COLUMNS};

crate::tests![an_event_costs_the_same_however_many_targets_there_are(300, night)];

/// What an event's cost may grow by while the number of targets grows a thousandfold.
fn allowed(column: &str) -> f64 {
    match column {
        // A hundred are found in memory that is there, 100,000 in fresh pages, 4096 at a time.
        "found" => 10.0,
        // Memory is slow, not the engine: nothing of a target that is drawn from all of them is in a cache.
        _ if column.ends_with("any") => 40.0,
        _ => 3.0,
    }
}

fn an_event_costs_the_same_however_many_targets_there_are() {
    let costs = bookkeeping::costs(&[100, 1000, 10_000, 100_000], 21, 300);
    print!("{} ", COLUMNS.join("; "));
    for (n, row) in &costs {
        print!("[{n} targets: {row:.0?} ns] ");
    }
    let (first, last) = (costs.first().expect("measured").1, costs.last().expect("measured").1);
    for (name, (few, many)) in COLUMNS.iter().zip(first.iter().zip(last)) {
        assert!(many <= few * allowed(name), "{name}: {few:.0} ns among 100, {many:.0} ns among 100,000");
    }
}
