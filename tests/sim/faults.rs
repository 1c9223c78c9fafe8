//! What goes wrong in a run besides the wires' everyday faults: drawn as time goes on, each ended after a while.

use std::time::Duration;

use super::disk::{DISKS, Disk};
use super::rng::Rng;
use super::swarm::{Plan, pick};
use super::world::World;
use aoefs::engine::{NetId, Time};
use aoefs::target::Image;
use aoefs::wire::{Addr, CONFIG_LEN, Command, Config, Header, MIN_FRAME, Mac, Refusal, Tag, Verb};

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Cut,
    Kill,
    LiveResize,
    Hole,
    Net,
    Remove,
    Mtu,
    Errors,
    Slow,
    Forge,
    Sleep,
}

#[derive(Clone, Copy, Debug)]
enum Remedy {
    Mend(usize),
    Return { target: usize, announce: bool },
    NetUp(usize),
    NetBack(usize),
    Sound(usize),
    Fast(usize),
}

/// See the module.
pub struct Troubles {
    pub next: Time,
    trouble_at: Time,
    rediscover_at: Time,
    remedies: Vec<(Time, Remedy)>,
    kinds: Vec<Trouble>,
    plan: Plan,
    disks: usize,
    nets: u16,
}

impl Troubles {
    pub fn new(plan: &Plan, rng: &mut Rng, now: Time) -> Troubles {
        let kinds = [
            (plan.cuts, Trouble::Cut),
            (plan.kills, Trouble::Kill),
            (plan.resizes, Trouble::LiveResize),
            (plan.holes, Trouble::Hole),
            (plan.netflaps, Trouble::Net),
            (plan.removals, Trouble::Remove),
            (plan.mtus, Trouble::Mtu),
            (plan.errors, Trouble::Errors),
            (plan.slow, Trouble::Slow),
            (plan.forgeries, Trouble::Forge),
            (plan.sleeps, Trouble::Sleep),
        ];
        let kinds = kinds.iter().filter(|k| k.0).map(|k| k.1).collect();
        let first = now + Duration::from_micros(rng.below(2 * plan.trouble_pace));
        let mut troubles = Troubles {
            next: first,
            trouble_at: first,
            rediscover_at: now + Duration::from_micros(plan.rediscover),
            remedies: Vec::new(),
            kinds,
            plan: plan.clone(),
            disks: 1,
            nets: 100,
        };
        troubles.schedule();
        troubles
    }

    fn schedule(&mut self) {
        let remedy = self.remedies.iter().map(|r| r.0).min().unwrap_or(Time::NEVER);
        self.next = self.trouble_at.min(remedy).min(self.rediscover_at);
    }

    pub fn act(&mut self, world: &mut World, rng: &mut Rng) {
        while let Some(due) = self.remedies.iter().position(|r| r.0 <= world.now) {
            let (_, remedy) = self.remedies.swap_remove(due);
            self.remedy(world, remedy);
        }
        if self.rediscover_at <= world.now {
            self.rediscover_at = world.now + Duration::from_micros(self.plan.rediscover);
            for n in 0..world.nets.len() {
                world.query(n);
            }
            for u in 0..world.units.len() {
                world.with_device(u, |d, _, sink| d.rediscovered(sink));
            }
        }
        if self.trouble_at <= world.now {
            self.trouble_at = world.now + Duration::from_micros(1 + rng.below(2 * self.plan.trouble_pace));
            if !self.kinds.is_empty() {
                let kind = pick(rng, &self.kinds);
                let length = pick(rng, &[2_000, 40_000, 400_000, 1_300_000, 3_000_000]);
                let until = world.now + Duration::from_micros(1 + rng.below(length));
                self.trouble(world, rng, kind, until);
            }
        }
        self.schedule();
    }

    fn later(&mut self, until: Time, remedy: Remedy) {
        self.remedies.push((until, remedy));
    }

    fn trouble(&mut self, world: &mut World, rng: &mut Rng, kind: Trouble, until: Time) {
        let wire = rng.below(world.wires.len() as u64) as usize;
        let t = rng.below(world.targets.len() as u64) as usize;
        let n = rng.below(world.nets.len() as u64) as usize;
        world.note(|| format!("TROUBLE {kind:?} wire {wire} target {t} net {n} until {until:?}"));
        match kind {
            Trouble::Cut => {
                let which = rng.below(3);
                world.wires[wire].to.cut = which != 0;
                world.wires[wire].from.cut = which != 1;
                self.later(until, Remedy::Mend(wire));
            }
            Trouble::Hole => {
                let hole = pick(rng, &[1514, 1514, 4200, 8228]);
                world.wires[wire].to.hole = hole;
                world.wires[wire].from.hole = hole;
                self.later(until + Duration::from_secs(1), Remedy::Mend(wire));
            }
            Trouble::Kill if world.targets[t].alive => self.kill(world, rng, t, until),
            Trouble::Kill => {}
            Trouble::LiveResize if !world.targets[t].alive => {}
            Trouble::LiveResize => {
                resize(world, rng, t);
                world.targets[t].resized = true;
            }
            Trouble::Net if world.nets[n].up && !world.nets[n].gone => {
                set_net(world, n, false);
                self.later(until, Remedy::NetUp(n));
            }
            Trouble::Net => {}
            Trouble::Remove if !world.nets[n].gone => {
                world.nets[n].gone = true;
                let id = world.nets[n].id;
                world.discovery.net_removed(id);
                for u in 0..world.units.len() {
                    world.with_device(u, |d, now, sink| d.net_removed(now, id, sink));
                }
                self.later(until, Remedy::NetBack(n));
            }
            Trouble::Remove => {}
            Trouble::Mtu => {
                let mtu = pick(rng, &[1500, 9000, 1000]);
                if rng.chance(0.5) {
                    world.nets[n].mtu = mtu;
                    let up = world.nets[n].up;
                    set_net(world, n, up);
                } else {
                    world.targets[t].set_mtu(mtu);
                }
            }
            Trouble::Errors => {
                let faults = &mut world.targets[t].disk().faults;
                let how = pick(rng, &[0.02, 0.25, 1.0]);
                match rng.below(4) {
                    0 => faults.read = how,
                    1 => faults.write = how,
                    2 => faults.flush = how,
                    _ => world.targets[t].refuses = how,
                }
                self.later(until, Remedy::Sound(t));
            }
            Trouble::Slow => {
                world.targets[t].service.stall = pick(rng, &[(1.0, 1_000), (0.02, 300_000), (1.0, 60_000)]);
                self.later(until, Remedy::Fast(t));
            }
            Trouble::Forge => forge(world, rng, n, t),
            Trouble::Sleep => {
                world.sleep();
                if world.targets[t].alive && rng.chance(0.5) {
                    self.exchange(world, rng, t);
                    world.targets[t].restarted = Some(world.now.0);
                }
            }
        }
    }

    /// Another disk is behind the address from now on.
    fn exchange(&mut self, world: &mut World, rng: &mut Rng, t: usize) {
        let addr = world.targets[t].addr;
        let spare = world.shelf.iter().position(|d| d.id / DISKS == world.targets[t].look().id / DISKS);
        let mut disk = match spare {
            Some(at) if rng.chance(0.6) => world.shelf.swap_remove(at),
            _ => {
                let sectors = pick(rng, &[8, 64, 300, 1000]);
                let id = world.targets[t].look().id / DISKS * DISKS + self.disks;
                self.disks += 1;
                Disk::new(id, sectors, rng.next())
            }
        };
        world.note(|| format!("target {t} {addr} comes back as disk {}", disk.id));
        disk.remembers = world.targets[t].look().remembers;
        let old = world.targets[t].swap(disk);
        world.shelf.push(old);
    }

    fn kill(&mut self, world: &mut World, rng: &mut Rng, t: usize, until: Time) {
        let before = world.targets[t].look().id;
        if self.plan.swaps && self.plan.announces && world.reaches(t) && rng.chance(0.3) {
            // It restarts several times with its disk first, more often than announcements are believed.
            for _ in 0..rng.below(14) {
                world.announce(t);
            }
        }
        world.targets[t].die();
        if self.plan.swaps && rng.chance(0.5) {
            self.exchange(world, rng, t);
        } else if self.plan.resizes && rng.chance(0.3) {
            resize(world, rng, t);
        }
        let mut announce = self.plan.announces && rng.chance(0.8);
        let mut until = until;
        if world.targets[t].look().id != before || self.plan.resizes {
            // Another disk that comes up within a second says so and is heard, or nobody could know.
            announce &= world.reaches(t);
            if !announce {
                // Silence is what the initiator hears: answers that are on their way still come.
                let late = 2 * (self.plan.jitter + self.plan.spike.1);
                until = until.max(world.now + Duration::from_micros(1_100_000 + late));
            }
        }
        self.later(until, Remedy::Return { target: t, announce });
    }

    fn remedy(&mut self, world: &mut World, remedy: Remedy) {
        world.note(|| format!("REMEDY {remedy:?}"));
        match remedy {
            Remedy::Mend(wire) => {
                let wire = &mut world.wires[wire];
                for way in [&mut wire.to, &mut wire.from] {
                    way.cut = false;
                    way.hole = usize::MAX;
                }
            }
            Remedy::Return { target, announce } => {
                let t = &mut world.targets[target];
                t.alive = true;
                t.restarted = Some(world.now.0);
                if announce {
                    world.announce(target);
                }
            }
            Remedy::NetUp(n) => set_net(world, n, true),
            Remedy::NetBack(n) => {
                // It comes back as another netlink, and asks who is there.
                self.nets += 1;
                let net = &mut world.nets[n];
                net.id = NetId(self.nets);
                net.gone = false;
                net.up = true;
                world.query(n);
            }
            Remedy::Sound(t) => {
                world.targets[t].disk().faults = Default::default();
                world.targets[t].refuses = 0.0;
            }
            Remedy::Fast(t) => world.targets[t].service.stall = (0.0, 0),
        }
    }

    /// Every fault ends now.
    pub fn end(&mut self, world: &mut World) {
        world.note(|| "ALL FAULTS END".into());
        let mut remedies = std::mem::take(&mut self.remedies);
        remedies.sort_by_key(|r| r.0);
        for (at, remedy) in remedies {
            // Another disk that comes up within a second would be nobody's to know.
            if let Remedy::Return { .. } = remedy {
                world.run_until(at);
            }
            self.remedy(world, remedy);
        }
        for wire in &mut world.wires {
            wire.heal();
        }
        for n in 0..world.nets.len() {
            world.query(n);
        }
        // What grew waits for the operator.
        for u in 0..world.units.len() {
            world.identify(u);
        }
        // Also of a disk that was put behind another address while it failed.
        for disk in world.shelf.iter_mut().chain(world.targets.iter_mut().map(|target| target.disk())) {
            disk.faults = Default::default();
        }
        // One that failed may have been away when it was mended.
        for target in &mut world.targets {
            target.disk().faults = Default::default();
            target.refuses = 0.0;
            target.flips = 0.0;
        }
    }
}

fn set_net(world: &mut World, n: usize, up: bool) {
    let net = &mut world.nets[n];
    if net.gone {
        return;
    }
    net.up = up;
    let (id, mtu) = (net.id, net.mtu);
    for u in 0..world.units.len() {
        world.with_device(u, |d, now, sink| d.net_changed(now, id, up, mtu, sink));
    }
}

fn resize(world: &mut World, rng: &mut Rng, t: usize) {
    let at = world.now.0;
    let disk = world.targets[t].disk();
    let now = disk.sectors();
    let sectors = if rng.chance(0.5) { now + 1 + rng.below(64) } else { now - rng.below(now / 2) };
    if sectors != now {
        disk.resize(sectors);
        disk.resized_at.get_or_insert(at);
        let id = disk.id;
        world.note(|| format!("disk {id} has {sectors} sectors now, had {now}"));
    }
}

/// A frame that no target sent.
fn forge(world: &mut World, rng: &mut Rng, n: usize, t: usize) {
    let live = world.targets[t].addr;
    let port = pick(rng, &world.targets[t].macs.clone());
    let stranger = Mac([2, 0, 0, 0, 99, rng.below(8) as u8]);
    let guess = Tag(rng.next() as u32 | Tag::OURS);
    let other = Addr::new(100 + rng.below(60) as u16, rng.below(4) as u8);
    let config = |src, addr, tag| (src, addr, tag, Command::Config, None);
    let (src, addr, tag, command, error) = match rng.below(9) {
        // The target's own announcement, which it did not make.
        0 => config(port, live, Tag::UNSOLICITED),
        1 => config(stranger, live, Tag::UNSOLICITED),
        2 => config(stranger, other, Tag::UNSOLICITED),
        3 => config(stranger, live, guess),
        4 => config(port, live, guess),
        5 => (stranger, live, guess, Command::Ata, Some(Refusal::Unavailable)),
        // A stranger that sees our frames.
        6 => (stranger, live, world.last_tag, Command::Ata, Some(Refusal::Unavailable)),
        7 => (stranger, live, world.last_tag, Command::Ata, None),
        _ => (port, live, guess, Command::Ata, None),
    };
    let dst = world.nets[n].mac;
    let header = Header { dst, src, version: 1, response: true, error, addr, command, tag };
    let mut frame = vec![0; MIN_FRAME];
    header.emit(&mut frame);
    if command == Command::Config {
        let lie = Config { buffers: 1, sectors: 1, firmware: 0x4019, ..Config::request(Verb::Read, &[]) };
        lie.emit(&mut frame[24..24 + CONFIG_LEN]);
    }
    world.forge(n, frame);
}
