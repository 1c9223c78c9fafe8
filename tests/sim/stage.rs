//! A small fixed world for scripted scenarios: so many netlinks, one target, clean wires.

use std::time::Duration;

use super::disk::Disk;
use super::target::Target;
use super::world::World;
use aoefs::wire::{Addr, Mac};

/// What a scenario begins with.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    pub seed: u64,
    pub mtu: usize,
    pub nets: usize,
    pub buffers: u16,
    pub sectors: u64,
    /// µs each way.
    pub way: u64,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage { seed: 1, mtu: 9000, nets: 1, buffers: 16, sectors: 4096, way: 30 }
    }
}

impl Stage {
    /// One device, known by every netlink, idle.
    pub fn set(self) -> World {
        let mut world = World::new(self.seed);
        world.trace = std::env::var_os("AOEFS_SIM_TRACE").map(|_| Vec::new());
        let mac = Mac([2, 0, 0, 0, 10, 0]);
        let disk = Disk::new(0, self.sectors, self.seed);
        world.targets.push(Target::new(Addr::new(1, 0), vec![mac], self.mtu, self.buffers, disk));
        for _ in 0..self.nets {
            let net = world.add_net(self.mtu);
            world.add_wire(net, 0, 0, self.way);
        }
        for net in 0..self.nets {
            world.query(net);
        }
        world.run_until(world.later(Duration::from_millis(100)));
        world.units[0].buffers = u32::from(self.buffers);
        assert_eq!(world.units[0].device.paths().len(), self.nets, "every netlink leads to the target");
        world
    }
}

/// A scene that fails shows what happened in it, if it was asked to trace.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.trace.iter().flatten() {
                println!("{line}");
            }
        }
    }
}

impl World {
    /// Lets time pass.
    pub fn pass(&mut self, millis: u64) {
        self.run_until(self.later(Duration::from_millis(millis)));
    }

    /// Lets time pass until nothing is pending, for so long at most. True if nothing is.
    pub fn settle(&mut self, millis: u64) -> bool {
        let until = self.later(Duration::from_millis(millis));
        while self.now < until && !self.judge.pending.is_empty() && self.violation.is_none() {
            self.run_until((self.now + Duration::from_millis(1)).min(until));
        }
        self.judge.pending.is_empty()
    }

    /// Ends a scenario: no promise was broken, and nothing stays behind.
    pub fn curtain(mut self) {
        self.settle(20_000);
        self.pass(60_000);
        if let Some(what) = &self.violation {
            panic!("{what}");
        }
        assert!(self.judge.pending.is_empty(), "requests are not answered: {:?}", self.judge.pending);
        for unit in &self.units {
            let d = &unit.device;
            assert_eq!((d.frames(), d.requests(), d.locked()), (0, 0, 0), "frames, requests, locks left");
        }
        assert_eq!(self.pool.ahead(), 0, "bytes are held ahead of nobody");
    }
}
