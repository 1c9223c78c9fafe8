//! The `aoefs` command.
fn main() {}
