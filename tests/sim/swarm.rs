//! One run from one seed: which faults exist in it, how much of them, and what is asked meanwhile.
//!
//! Swarm style: each seed switches every kind of trouble on or off, so that some runs have one kind in plenty and
//! some have all. A run has three phases: trouble; then every fault ends and everything must complete; then the state
//! must be as if nothing had happened (gauges at zero, a fresh request works at once, the whole disk reads as it is).

use std::time::Duration;

use super::ask::Ask;
use super::disk::{DISKS, Disk};
use super::faults::Troubles;
use super::judge::Expect;
use super::load::Load;
use super::rng::Rng;
use super::streams::Streams;
use super::target::{Flushing, Target};
use super::world::{Figures, World};
use aoefs::engine::Time;
use aoefs::target::Image;
use aoefs::wire::{Addr, Mac, SECTOR};

/// After the last fault something must complete this often: the longest timeout, and more.
const DRAIN: Duration = Duration::from_secs(20);
/// The least MTU that Ethernet promises, in bytes, and how much more time targets below it have.
const ETHERNET_MTU: usize = 1500;
const NARROW: u32 = 5;
/// Until every quarantine is over: four times the slowest round trip that a run can have.
const CALM: Duration = Duration::from_secs(70);
/// RETURN: a fresh request works within this time.
const RETURN: Duration = Duration::from_millis(1200);
/// Frames longer than this vanish in a switch without jumbo frames, and how long it may take to find that out.
const HOLE: usize = 1514;
const FALLBACK: Duration = Duration::from_secs(2);

/// Ranges that may be in quarantine in half of all runs: few enough that the table is full.
const FEW_QUARANTINES: usize = 4;
/// Makes a second stream of numbers of a seed: what was added to the runs later leaves everything else as it was.
const EXTRA: u64 = 0x6a09_e667_f3bc_c908;

/// How a run went.
pub struct Report {
    pub virtual_us: u64,
    pub submitted: u64,
    pub succeeded: u64,
    pub figures: Figures,
    /// IDENTIFYs with flipped bits.
    pub flipped: u64,
    pub violation: Option<String>,
    pub trace: Vec<String>,
}

/// One of these, each as likely.
pub fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

/// Runs a seed. With `flips` there is one kind of trouble more, which the seed does not decide: how many
/// of a hundred IDENTIFYs arrive with flipped bits.
pub fn run(seed: u64, trace: bool, flips: u64) -> Report {
    let mut rng = Rng::new(seed);
    let mut world = World::new(rng.next());
    world.trace = trace.then(Vec::new);
    let mut extra = Rng::new(seed ^ EXTRA);
    if extra.chance(0.5) {
        world.quarantines = FEW_QUARANTINES;
    }
    let mut plan = build(&mut world, &mut rng);
    for target in &mut world.targets {
        if extra.chance(0.1) {
            target.flushing = Flushing::Echo;
        }
    }
    plan.sleeps = extra.chance(0.2);
    world.note(|| format!("{plan:?}"));
    discover(&mut world, &plan);
    if flips > 0 {
        // Whose first IDENTIFY lies is found as another disk: nobody could know.
        plan.removals = false;
        world.targets.iter_mut().for_each(|target| target.flips = flips as f64 / 100.0);
    }
    let start = world.now;
    if world.violation.is_none() {
        let mut troubles = Troubles::new(&plan, &mut rng, start);
        let mut streams = Streams::of(seed, plan.writes);
        streams.iter_mut().for_each(|streams| streams.prepare(&mut world));
        let mut load = Load::new(&plan, &mut rng, start, streams);
        let end = start + Duration::from_millis(plan.millis);
        while world.violation.is_none() {
            let next = troubles.next.min(load.next);
            if next > end || load.over() {
                break;
            }
            world.run_until(next);
            if troubles.next <= load.next {
                troubles.act(&mut world, &mut rng);
            } else {
                load.act(&mut world, &mut rng);
            }
            audit(&mut world);
        }
        troubles.end(&mut world);
        finish(&mut world, &plan);
        world.figures.ahead = world.units.iter().map(|u| u.device.status().stats.ahead_served).sum();
    }
    Report {
        virtual_us: world.now.0,
        submitted: world.judge.submitted,
        succeeded: world.judge.succeeded,
        figures: world.figures,
        flipped: world.targets.iter().map(|target| target.flipped).sum(),
        violation: world.violation.take(),
        trace: world.trace.take().unwrap_or_default(),
    }
}

/// What a seed decides once and for all.
#[derive(Clone, Debug)]
pub struct Plan {
    pub millis: u64,
    pub requests: u64,
    /// Mean µs between requests, and between troubles.
    pub pace: u64,
    pub trouble_pace: u64,
    pub writes: bool,
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: bool,
    pub jitter: u64,
    pub spike: (f64, u64),
    pub garble: f64,
    pub cuts: bool,
    pub kills: bool,
    pub announces: bool,
    pub swaps: bool,
    pub resizes: bool,
    pub holes: bool,
    pub netflaps: bool,
    pub removals: bool,
    pub mtus: bool,
    pub errors: bool,
    pub slow: bool,
    pub forgeries: bool,
    pub operator: bool,
    /// The initiator's machine sleeps now and then.
    pub sleeps: bool,
    pub deadline: Option<Duration>,
    pub nofail: bool,
    pub rediscover: u64,
}

fn some(rng: &mut Rng, chance: f64) -> bool {
    rng.chance(chance)
}

fn draw(rng: &mut Rng) -> Plan {
    let writes = !some(rng, 0.1);
    let spike = if some(rng, 0.3) {
        (
            pick(rng, &[0.001, 0.01, 0.1]),
            if writes { pick(rng, &[3_000, 100_000, 400_000]) } else { 5_000_000 },
        )
    } else {
        (0.0, 0)
    };
    Plan {
        millis: pick(rng, &[3_000, 10_000, 30_000]),
        requests: 20 + rng.below(180),
        pace: pick(rng, &[100, 2_000, 20_000, 100_000]),
        trouble_pace: pick(rng, &[20_000, 300_000, 2_000_000]),
        writes,
        loss: if some(rng, 0.5) { pick(rng, &[0.001, 0.01, 0.05, 0.1, 0.3]) } else { 0.0 },
        duplicate: if some(rng, 0.4) { pick(rng, &[0.01, 0.1, 0.5]) } else { 0.0 },
        reorder: some(rng, 0.4),
        jitter: if some(rng, 0.5) { pick(rng, &[50, 500, 5_000, 100_000]) } else { 0 },
        spike,
        garble: if some(rng, 0.15) { pick(rng, &[0.01, 0.1]) } else { 0.0 },
        cuts: some(rng, 0.3),
        kills: some(rng, 0.35),
        announces: some(rng, 0.7),
        swaps: some(rng, 0.3),
        resizes: some(rng, 0.15),
        holes: some(rng, 0.2),
        netflaps: some(rng, 0.2),
        removals: some(rng, 0.1),
        mtus: some(rng, 0.15),
        errors: some(rng, 0.2),
        slow: some(rng, 0.2),
        forgeries: some(rng, 0.2),
        operator: some(rng, 0.4),
        sleeps: false,
        deadline: pick(rng, &[None, None, Some(1), Some(3), Some(10)]).map(Duration::from_secs),
        nofail: some(rng, 0.15),
        rediscover: pick(rng, &[700_000, 5_000_000, 30_000_000]),
    }
}

/// The topology.
fn build(world: &mut World, rng: &mut Rng) -> Plan {
    let plan = draw(rng);
    world.garbled = plan.garble > 0.0;
    let mtus = [1500, 1500, 9000, 9000, 4200, 1000, 65535];
    for _ in 0..pick(rng, &[1, 1, 1, 2, 2, 3]) {
        let mtu = pick(rng, &mtus);
        world.add_net(mtu);
    }
    for t in 0..pick(rng, &[1, 1, 1, 2]) {
        let sectors = pick(rng, &[8, 64, 300, 1000, 4096]);
        let disk = Disk::new(world.targets.len() * DISKS, sectors, rng.next());
        let macs = (0..pick(rng, &[1, 1, 1, 2])).map(|p| Mac([2, 0, 0, 0, 10 + t as u8, p])).collect();
        let buffers = pick(rng, &[0, 1, 2, 16, 16, 128, 65535]);
        let mut target = Target::new(Addr::new(1 + t, t as u8), macs, pick(rng, &mtus), buffers, disk);
        if some(rng, 0.2) {
            target.capacity = target.capacity.min(pick(rng, &[4, 15]));
        }
        target.advertise = if some(rng, 0.2) { Some(pick(rng, &[0, 1, 2, 7, 255])) } else { None };
        target.flushing = pick(
            rng,
            &[Flushing::Both, Flushing::Both, Flushing::Old, Flushing::None, Flushing::Liar, Flushing::Fraud],
        );
        target.service.base = pick(rng, &[1, 20, 200, 2_000]);
        let ports = target.macs.len();
        world.targets.push(target);
        let t = world.targets.len() - 1;
        let first = rng.below(world.nets.len() as u64) as usize;
        for net in 0..world.nets.len() {
            for port in 0..ports {
                if (net == first && port == 0) || some(rng, 0.6) {
                    let us = pick(rng, &[10, 30, 100, 100, 1_000, 20_000]);
                    let wire = world.add_wire(net, t, port, us);
                    roughen(world, wire, &plan);
                }
            }
        }
    }
    plan
}

/// Lets a wire be as bad as the plan says.
pub fn roughen(world: &mut World, wire: usize, plan: &Plan) {
    let wire = &mut world.wires[wire];
    for way in [&mut wire.to, &mut wire.from] {
        way.loss = plan.loss;
        way.duplicate = plan.duplicate;
        way.reorder = plan.reorder;
        way.delay.1 = way.delay.0 + plan.jitter;
        way.spike = plan.spike;
        way.garble = plan.garble;
    }
}

/// Queries until every target is known.
fn discover(world: &mut World, plan: &Plan) {
    for _ in 0..200 {
        for n in 0..world.nets.len() {
            world.query(n);
        }
        world.run_until(world.later(Duration::from_secs(1)));
        if world.units.len() == world.targets.len() || world.violation.is_some() {
            break;
        }
    }
    if world.units.len() < world.targets.len() {
        world.violate(|| "a target was never found".into());
    }
    for u in 0..world.units.len() {
        world.units[u].buffers = u32::from(world.targets.iter().map(|t| t.buffers).max().unwrap_or(1));
        if let Some(deadline) = plan.deadline {
            world.set_deadline(u, Some(deadline));
        }
        if plan.nofail {
            world.set_nofail(u, true);
        }
    }
}

fn audit(world: &mut World) {
    if let Some(problem) =
        world.judge.overdue(world.now).or_else(|| world.units.iter().find_map(|u| u.audit()))
    {
        world.violate(|| problem);
    }
}

/// Everybody is asked who is there, and the operator says that a disk that grew is the same one: his word may have
/// been lost before.
fn look_around(world: &mut World) {
    for n in 0..world.nets.len() {
        world.query(n);
    }
    for u in 0..world.units.len() {
        world.identify(u);
    }
}

/// The faults are over: everything completes, and nothing stays behind.
fn finish(world: &mut World, plan: &Plan) {
    // With one buffer, 20 ms away, a sector a frame.
    let bytes: u64 = world.judge.pending.values().map(|p| p.end - p.start).sum();
    let drain = DRAIN + Duration::from_millis(50) * (bytes / SECTOR as u64) as u32;
    // Two sectors fit any Ethernet. That a target takes but one and does not say so, each piece of a request finds
    // out by itself.
    let narrow = world.targets.iter().any(|t| t.mtu < ETHERNET_MTU && t.advertise.is_some());
    let drain = if narrow { NARROW * drain } else { drain };
    let mut quiet = world.now + drain;
    let mut left = usize::MAX;
    while world.now < quiet && !world.judge.pending.is_empty() && world.violation.is_none() {
        if (quiet - world.now).as_secs().is_multiple_of(5) {
            look_around(world);
        }
        world.run_until(world.later(Duration::from_millis(500)));
        if world.judge.pending.len() < left {
            left = world.judge.pending.len();
            quiet = world.now + drain;
        }
        audit(world);
    }
    if let Some((seq, p)) = world.judge.pending.iter().next() {
        let what = format!(
            "RETURN: #{seq} {:?} of {:?} is not answered {drain:?} after the last fault",
            p.kind, p.submitted
        );
        world.violate(|| what);
    }
    for _ in 0..CALM.as_secs() / 10 {
        look_around(world);
        world.run_until(world.later(Duration::from_secs(10)));
    }
    for u in 0..world.units.len() {
        world.set_deadline(u, None);
    }
    strings(world);
    // A target that lies about its frames has to be found out first.
    let lies = plan.mtus || world.targets.iter().any(|t| t.advertise.is_some());
    // What was slow is expected to be slow for a while.
    let slow = plan.jitter.max(plan.spike.1) >= 100_000;
    let promised = RETURN * if lies { 3 * world.wires.len() as u32 } else { 1 } * if slow { 8 } else { 1 };
    for u in 0..world.units.len() {
        for ask in [Ask::Write { offset: 100, len: 700 }, Ask::Read { offset: 0, len: 4096 }, Ask::Flush] {
            // One that promises a flush and aborts it fails each.
            let addr = world.units[u].device.addr();
            let fraud = world.targets.iter().any(|t| t.addr == addr && t.flushing == Flushing::Fraud);
            if !matches!(ask, Ask::Flush) || !fraud {
                fresh(world, u, &ask, promised);
            }
        }
        if world.violation.is_some() {
            return;
        }
        world.identify(u);
        world.run_until(world.later(Duration::from_secs(1)));
        let size = world.units[u].device.size();
        // The whole disk, as fast as a slow target over a slow wire gives it.
        fresh(world, u, &Ask::Read { offset: 0, len: size as usize }, Duration::from_secs(600));
        let (id, _) = world.units[u].disk;
        let real = world.disk(id).sectors() * SECTOR as u64;
        if world.units[u].device.status().sectors * SECTOR as u64 != real {
            world.violate(|| format!("disk {id} has {real} bytes and IDENTIFY did not tell"));
        }
    }
    if plan.holes && !lies {
        shrink(world);
    }
    world.run_until(world.later(Duration::from_secs(200)));
    for u in 0..world.units.len() {
        // A path that lost its large frames is probed for ever.
        for _ in 0..100 {
            if world.units[u].device.frames() > 0 {
                world.run_until(world.later(Duration::from_millis(100)));
            }
        }
        let device = &world.units[u].device;
        let inflight: u32 = device.paths().iter().map(|p| p.inflight).sum();
        let gauges =
            (device.frames(), device.requests(), device.locked(), inflight, device.status().quarantined);
        if gauges != (0, 0, 0, 0, 0) {
            world
                .violate(|| format!("u{u}: frames, requests, locks, inflight, quarantines left: {gauges:?}"));
        }
    }
    let held = world.pool.ahead();
    if held > 0 {
        world.violate(|| format!("{held} bytes are held ahead of nobody"));
    }
}

/// The string that was acknowledged last is the target's, whatever copies of older ones were late.
fn strings(world: &mut World) {
    for u in 0..world.units.len() {
        let addr = world.units[u].device.addr();
        let kept = |t: &&Target| t.addr == addr && !t.swapped && !world.garbled;
        let target = world.targets.iter().find(kept);
        if let (Some(wanted), Some(target)) = (&world.units[u].string, target)
            && target.processor.string() != wanted
        {
            let what =
                format!("INTEGRITY: u{u}: the config string is not the one that was acknowledged last");
            return world.violate(|| what);
        }
    }
}

/// T7: from now on large frames vanish, for good. What is asked then is answered within two seconds, where timeouts
/// are short.
fn shrink(world: &mut World) {
    for wire in &mut world.wires {
        wire.to.hole = HOLE;
        wire.from.hole = HOLE;
    }
    for u in 0..world.units.len() {
        for ask in [Ask::Write { offset: 0, len: 4096 }, Ask::Read { offset: 0, len: 4096 }] {
            // Four timeouts, each twice as long as the one before, tell that it is the size. They grow where a queue
            // empties.
            let timeout = world.units[u].device.paths().iter().map(|p| p.timeout).max().unwrap_or_default();
            fresh(world, u, &ask, FALLBACK + 30 * timeout);
        }
    }
    for wire in &mut world.wires {
        wire.heal();
    }
}

/// A fresh request succeeds within a second, whatever happened before.
fn fresh(world: &mut World, u: usize, ask: &Ask, within: Duration) {
    let until: Time = world.later(within);
    while world.violation.is_none() {
        world.done.clear();
        let seq = world.ask(u, ask.clone());
        let down = world.judge.pending.get(&seq).is_some_and(|p| p.expect != Expect::Work);
        while world.now < until && world.judge.pending.contains_key(&seq) && world.violation.is_none() {
            world.run_until(world.later(Duration::from_millis(20)));
        }
        let end = world.done.iter().find(|d| d.0 == seq).map(|d| d.1);
        if let Some(Ok(_)) = end {
            return;
        }
        if world.now >= until {
            return world.violate(|| {
                format!("RETURN: u{u} {ask:?} #{seq} {end:?} (refused {down}) {within:?} after the return")
            });
        }
        world.run_until(world.later(Duration::from_millis(20)));
    }
}
