//! The workload of a run: what users ask, and what operators do, drawn as time goes on.

use std::time::Duration;

use super::ask::Ask;
use super::rng::Rng;
use super::streams::Streams;
use super::swarm::{Plan, pick};
use super::world::World;
use aoefs::engine::{Handle, Time};
use aoefs::wire::{SECTOR, Verb};

/// Handles that users keep open besides a fresh one for each request.
const HANDLES: usize = 6;

/// Draws requests.
pub struct Load {
    pub next: Time,
    left: u64,
    pace: u64,
    writes: bool,
    operator: bool,
    depth: u64,
    /// Only the first sectors are used: overlaps.
    hot: u64,
    longest: u64,
    unaligned: f64,
    raw: bool,
    words: bool,
    trims: bool,
    /// Now and then nobody asks for anything, long enough to be silence.
    pauses: bool,
    handles: Vec<(usize, Handle)>,
    names: u32,
    streams: Option<Streams>,
}

impl Load {
    pub fn new(plan: &Plan, rng: &mut Rng, now: Time, streams: Option<Streams>) -> Load {
        Load {
            next: now,
            left: plan.requests,
            pace: plan.pace,
            writes: plan.writes,
            operator: plan.operator,
            depth: pick(rng, &[1, 4, 16, 64]),
            hot: pick(rng, &[2, 8, 64, u64::MAX]),
            longest: pick(rng, &[1, 8, 32, 256]) * SECTOR as u64,
            unaligned: pick(rng, &[0.0, 0.1, 0.5]),
            raw: rng.chance(0.15),
            words: rng.chance(0.3),
            trims: rng.chance(0.4),
            pauses: rng.chance(0.3),
            handles: Vec::new(),
            names: 0,
            streams,
        }
    }

    pub fn over(&self) -> bool {
        self.left == 0
    }

    pub fn act(&mut self, world: &mut World, rng: &mut Rng) {
        self.next = world.now + Duration::from_micros(1 + rng.below(2 * self.pace));
        if self.pauses && rng.chance(0.05) {
            self.next = self.next + Duration::from_micros(1_000_000 + rng.below(2_000_000));
        }
        let u = rng.below(world.units.len() as u64) as usize;
        if self.operator && rng.chance(0.1) {
            self.operate(world, rng, u);
            return;
        }
        if world.judge.pending.len() as u64 >= self.depth {
            return;
        }
        self.left -= 1;
        let handle = self.handle(world, rng, u);
        let ask = self.draw(world, rng, u, handle);
        let nonblock = rng.chance(0.1);
        if let (Ask::Read { .. }, Some(streams)) = (&ask, &mut self.streams)
            && streams.read(world, u, handle, nonblock)
        {
            return;
        }
        world.submit(u, handle, nonblock, ask);
    }

    /// A fresh handle, or one of those that are kept.
    fn handle(&mut self, world: &World, rng: &mut Rng, u: usize) -> Handle {
        if rng.chance(0.3)
            && let Some((_, handle)) = self.handles.iter().filter(|h| h.0 == u).nth(rng.below(3) as usize)
        {
            return *handle;
        }
        let parts: Vec<_> = world.units[u].device.partitions().map(|p| p.id).collect();
        let part = if !parts.is_empty() && rng.chance(0.5) { Some(pick(rng, &parts)) } else { None };
        let handle = world.units[u].device.handle(part);
        if rng.chance(0.2) {
            self.handles.push((u, handle));
            if self.handles.len() > HANDLES {
                self.handles.remove(0);
            }
        }
        handle
    }

    fn draw(&self, world: &World, rng: &mut Rng, u: usize, handle: Handle) -> Ask {
        let device = &world.units[u].device;
        let sector = SECTOR as u64;
        let size = match handle.part.map(|id| device.partition(id)) {
            Some(Some(p)) => (p.end - p.start) * sector,
            _ => device.size(),
        };
        let hot = size.min(self.hot.saturating_mul(sector)).max(1);
        let (mut offset, mut len) = (rng.below(hot), 1 + rng.below(self.longest));
        if rng.chance(0.02) {
            // Around and beyond the end.
            offset = (size + rng.below(2048)).saturating_sub(1024);
        }
        if !rng.chance(self.unaligned) {
            offset -= offset % sector;
            len = len.next_multiple_of(sector);
        }
        let count = len.div_ceil(sector).clamp(1, 2) as u8;
        let at = (offset / sector).min((device.size() / sector).saturating_sub(u64::from(count)));
        if self.words && rng.chance(0.05) {
            return match rng.below(5) {
                0 => Ask::Config { verb: Verb::Read, string: Vec::new() },
                1 => Ask::Config { verb: Verb::Force, string: vec![b'x'; rng.below(40) as usize] },
                2 => Ask::Config { verb: Verb::Set, string: vec![b'y'; 3] },
                3 => Ask::Mask,
                _ => Ask::Reserve,
            };
        }
        let raw = self.raw && rng.chance(0.1) && u64::from(count) * sector <= device.size();
        if !self.writes {
            return if raw { Ask::RawRead { at, count: 1 } } else { Ask::Read { offset, len: len as usize } };
        }
        match rng.below(100) {
            0..40 => Ask::Read { offset, len: len as usize },
            40..80 => Ask::Write { offset, len: len as usize },
            80..85 => Ask::Zero { offset, len: len as usize },
            85..90 if self.trims => {
                Ask::Trim { offset: offset - offset % sector, len: len.next_multiple_of(sector) }
            }
            90..93 if raw => Ask::RawRead { at, count: 1 },
            93..96 if raw => Ask::RawWrite { at, count: 1 },
            96 if raw => Ask::Smart,
            _ => Ask::Flush,
        }
    }

    /// Something that an operator may type at any time.
    fn operate(&mut self, world: &mut World, rng: &mut Rng, u: usize) {
        let sectors = world.units[u].device.status().sectors;
        let what = rng.below(15);
        world.note(|| format!("u{u} operator {what}"));
        match what {
            0 => {
                world.tick += 1;
                world.units[u].failio = world.tick;
                world.with_device(u, |d, now, sink| d.fail_all(now, sink));
            }
            1 => world.set_nofail(u, rng.chance(0.3)),
            2 => {
                let deadline =
                    pick(rng, &[None, Some(500), Some(2_000), Some(20_000)]).map(Duration::from_millis);
                world.set_deadline(u, deadline);
            }
            3 | 4 => world.identify(u),
            5 => {
                let mtu = pick(rng, &[None, None, Some(558), Some(1500), Some(9000)]);
                world.with_device(u, |d, _, _| d.set_mtu(mtu));
            }
            6 => {
                let most = pick(rng, &[None, None, Some(1), Some(8), Some(255)]);
                world.with_device(u, |d, _, _| d.set_maxbno(most));
            }
            7 => {
                let on = rng.chance(0.7);
                world.with_device(u, |d, _, _| d.set_jumbo(on));
            }
            8 => {
                let most = pick(rng, &[None, None, Some(1), Some(4)]);
                // A smaller limit holds for what leaves from now on.
                world.units[u].maxout = None;
                world.with_device(u, |d, _, _| d.set_maxout(most));
            }
            9 | 10 => {
                let (a, b) = (rng.below(sectors + 1), rng.below(sectors + 1));
                let name = format!("p{}", self.names % 4);
                self.names += 1;
                // Refusals are the table's business, not the simulator's.
                let _ = world.with_device(u, |d, _, _| d.add_partition(&name, a.min(b), a.max(b)));
            }
            11 => {
                let name = format!("p{}", rng.below(4));
                let _ = world.with_device(u, |d, _, _| d.delete_partition(&name));
            }
            12 => world.sleep(),
            13 => {
                // An open file keeps a target that is down being asked.
                let _ = world.with_device(u, |d, _, _| d.open());
            }
            _ => world.with_device(u, |d, now, sink| d.probe(now, sink)),
        }
    }
}

impl World {
    pub fn set_deadline(&mut self, u: usize, deadline: Option<Duration>) {
        self.with_device(u, |d, _, _| d.set_deadline(deadline));
        let deadline = self.units[u].device.status().deadline;
        self.units[u].deadline = deadline;
        self.units[u].shortest = self.units[u].shortest.min(deadline);
        self.deadline_changed(u);
    }

    pub fn set_nofail(&mut self, u: usize, on: bool) {
        self.with_device(u, |d, _, _| d.set_nofail(on));
        self.units[u].nofail = on;
        self.deadline_changed(u);
    }

    fn deadline_changed(&mut self, u: usize) {
        let (now, deadline, nofail) = (self.now, self.units[u].deadline, self.units[u].nofail);
        self.judge.deadline_changed(u, now, deadline, nofail);
    }
}
