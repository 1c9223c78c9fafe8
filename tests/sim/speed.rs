//! What random loss costs, in virtual time: a serial target, 4 µs a KiB, 60 µs away; 1 MiB requests, four at a time.

use super::ask::Ask;
use super::stage::Stage;
use super::world::World;

/// The losses of the table, each way.
pub const LOSSES: [f64; 7] = [0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.3];

/// One cell: MB/s, copies sent for each frame needed, and how often a second the sweeper was awake.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub rate: f64,
    pub copies: f64,
    pub sweeps: f64,
}

/// How requests are made.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub stage: Stage,
    pub writes: bool,
    pub len: usize,
    pub depth: usize,
    pub requests: u32,
}

impl Job {
    pub fn run(&self, loss: f64) -> Cell {
        let mut world = self.stage.set();
        world.targets[0].service.base = 3;
        // So that the start does not count: with it, everybody's first loss would.
        self.pump(&mut world, self.requests / 8);
        for wire in &mut world.wires {
            wire.to.loss = loss;
            wire.from.loss = loss;
        }
        let (start, frames, sweeps) = (world.now, world.figures.frames, world.figures.sweeps);
        self.pump(&mut world, self.requests);
        let took = (world.now - start).as_secs_f64();
        assert_eq!(world.violation, None);
        let bytes = self.len as f64 * f64::from(self.requests);
        let size = world.units[0].device.status().maxbcnt as f64;
        let needed = bytes / size;
        let sent = (world.figures.frames - frames) as f64;
        let sweeps = (world.figures.sweeps - sweeps) as f64;
        world.curtain();
        Cell { rate: bytes / took / 1e6, copies: sent / needed, sweeps: sweeps / took }
    }

    fn pump(&self, world: &mut World, requests: u32) {
        let slots = self.stage.sectors * 512 / self.len as u64;
        let mut asked = 0;
        while asked < requests || !world.judge.pending.is_empty() {
            while asked < requests && world.judge.pending.len() < self.depth {
                let offset = u64::from(asked) % slots * self.len as u64;
                let ask = if self.writes {
                    Ask::Write { offset, len: self.len }
                } else {
                    Ask::Read { offset, len: self.len }
                };
                world.ask(0, ask);
                asked += 1;
            }
            if !world.step() || world.violation.is_some() {
                break;
            }
        }
    }
}

/// A target that gets no processor for up to 60 ms answers everything after that: the wire loses nothing, so nothing
/// but what the first pauses cost is sent twice. How long it pauses must be learnt once.
#[test]
fn counters_a_target_that_pauses_is_hardly_asked_twice() {
    let stage = Stage { buffers: 64, ..Stage::default() };
    let mut world = stage.set();
    world.targets[0].service.stall = (0.001, 60_000);
    let job = Job { stage, writes: false, len: 64 << 10, depth: 8, requests: 4000 };
    job.pump(&mut world, job.requests);
    assert_eq!(world.violation, None);
    let paths = world.units[0].device.paths();
    let (sent, resent): (u64, u64) =
        paths.iter().fold((0, 0), |(s, r), p| (s + p.stats.sent, r + p.stats.resent));
    println!("{sent} frames, {resent} sent again");
    assert!(sent > 30_000);
    assert!(resent <= 8, "{resent} of {sent} frames were sent again");
    world.curtain();
}
