//! Tests that go as their names say, for the test of the runner. No other run has them.

use crate::bed::skip;

crate::tests![passes(beside), fails(beside), skips(beside), dies(beside), alone, later(90, night)];

fn passes() {
    print!("[a figure] ");
}

fn fails() {
    panic!("as it should");
}

fn skips() {
    skip("no reason");
}

fn dies() {
    std::process::abort();
}

fn alone() {}

fn later() {}
