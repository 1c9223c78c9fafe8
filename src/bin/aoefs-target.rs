//! The `aoefs-target` command.
fn main() {}
