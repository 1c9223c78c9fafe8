//! Readers that read in sequence and are read ahead of, in about half of all runs; and another host that writes
//! meanwhile, where nobody here does: what it writes must show within a second.
//!
//! They draw from a generator of their own: which runs have them changes nothing in the others.

use super::ask::Ask;
use super::rng::Rng;
use super::swarm::pick;
use super::world::World;
use aoefs::engine::{Handle, Stream};
use aoefs::wire::SECTOR;

/// Parts the generator of the readers from the run's.
const APART: u64 = 0x5eed_0a4e_ad00;
/// Readers at a time.
const READERS: usize = 4;

struct Reader {
    unit: usize,
    handle: Handle,
    stream: Stream,
    at: u64,
    len: usize,
}

/// See the module.
pub struct Streams {
    rng: Rng,
    readers: Vec<Reader>,
    numbers: u64,
    /// Of all reads, the ones that are theirs.
    share: f64,
    stranger: bool,
}

impl Streams {
    /// The readers of a run, if it has some. `writes`: somebody writes in it.
    pub fn of(seed: u64, writes: bool) -> Option<Streams> {
        let mut rng = Rng::new(seed ^ APART);
        let there = rng.chance(0.5);
        let share = pick(&mut rng, &[0.3, 0.8, 1.0]);
        there.then_some(Streams { rng, readers: Vec::new(), numbers: 0, share, stranger: !writes })
    }

    /// Before the run.
    pub fn prepare(&mut self, world: &mut World) {
        for target in &mut world.targets {
            target.disk().remembers = true;
        }
        let window = pick(&mut self.rng, &[1 << 20, 1 << 20, 1 << 20, 128 << 10, 5000, 0]);
        for unit in &mut world.units {
            unit.device.set_read_ahead(window);
        }
    }

    /// In place of a read of `handle`: one of a reader.
    pub fn read(&mut self, world: &mut World, unit: usize, handle: Handle, nonblock: bool) -> bool {
        if self.stranger && self.rng.chance(0.3) {
            self.strange_write(world);
        }
        if !self.rng.chance(self.share) {
            return false;
        }
        let alive = |r: &Reader| r.handle.generation == world.units[r.unit].device.generation();
        let over = self.readers.iter().position(|r| !alive(r));
        if let Some(over) = over.or_else(|| (self.rng.chance(0.02) && !self.readers.is_empty()).then_some(0))
        {
            let Reader { unit, stream, .. } = self.readers.swap_remove(over);
            world.with_device(unit, |d, now, sink| d.close_stream(stream, now, sink));
        }
        if self.readers.is_empty() || (self.readers.len() < READERS && self.rng.chance(0.05)) {
            self.numbers += 1;
            let mut len = pick(&mut self.rng, &[512, 4096, 4096, 65536, 131_072]);
            if self.rng.chance(0.2) {
                len += 100;
            }
            self.readers.push(Reader { unit, handle, stream: Stream(self.numbers), at: 0, len });
        }
        let one = self.rng.below(self.readers.len() as u64) as usize;
        let r = &mut self.readers[one];
        let device = &world.units[r.unit].device;
        let size = match r.handle.part.map(|id| device.partition(id)) {
            Some(Some(p)) => (p.end - p.start) * SECTOR as u64,
            _ => device.size(),
        };
        if r.at >= size || self.rng.chance(0.02) {
            r.at = self.rng.below(size.max(1)) / 4;
            r.at -= r.at % SECTOR as u64;
        }
        let ask = Ask::Read { offset: r.at, len: r.len };
        r.at += r.len as u64;
        let (unit, handle, stream) = (r.unit, r.handle, r.stream);
        world.submit_for(Some(stream), unit, handle, nonblock, ask);
        true
    }

    fn strange_write(&mut self, world: &mut World) {
        let t = self.rng.below(world.targets.len() as u64) as usize;
        let size = world.targets[t].disk().identity().1;
        let at = match self.readers.first() {
            // What may just have been read ahead.
            Some(r) if self.rng.chance(0.7) => r.at / SECTOR as u64 + self.rng.below(16),
            _ => self.rng.below(size),
        };
        let count = (1 + self.rng.below(8)).min(size.saturating_sub(at));
        if count == 0 {
            return;
        }
        world.tick += 1;
        let (seq, tick) = (world.judge.number(), world.tick);
        world.note(|| format!("another host's write #{seq} to sectors {at}+{count} of target {t}"));
        let disk = world.targets[t].disk();
        disk.tick = tick;
        disk.strange_write(seq, at, count);
    }
}
