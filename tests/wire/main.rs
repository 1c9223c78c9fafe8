//! Bytes from anybody: golden frames, round trips, and the fuzz targets on their corpus. Nothing here needs a network
//! or a right.
#![allow(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

mod corpus;
mod golden;
mod roundtrip;
