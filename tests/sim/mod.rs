//! The simulator: the engine, scripted targets and wires on virtual time, everything drawn from one seed.
//!
//! `disk` keeps the truth, `net` and `target` misbehave, `world` carries frames and time between them and the engine,
//! `judge` holds every answer against the promises, `swarm` draws a run from a seed.

mod ahead;
pub mod ask;
mod catalogue;
pub mod disk;
pub mod fate;
pub mod faults;
mod growth;
pub mod judge;
mod life;
pub mod load;
pub mod net;
#[allow(dead_code, reason = "the test bed uses more of it")]
#[path = "../bed/rng.rs"]
pub mod rng;
mod small;
pub mod speed;
pub mod stage;
pub mod streams;
pub mod swarm;
pub mod target;
pub mod unit;
mod wire;
pub mod world;
