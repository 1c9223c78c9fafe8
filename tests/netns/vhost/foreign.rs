//! A front end that was not written here, over a bad wire. Each sector has the version that was written last, as fio
//! verifies it, whatever dies, grows or goes meanwhile.

use super::front::Front;
use crate::bed::relay::{Counts, Faults, Relay, Way};
use crate::bed::{Bed, Daemon, MIB, Ns, Rng, until};
use crate::tools::fsx::Aligned;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

crate::tests![integrity_v29_a_foreign_front_end_over_a_bad_wire(180, beside)];

const SOON: Duration = Duration::from_secs(5);
/// What may be lost is sent again, also when the target was away; nothing takes longer than this.
const PATIENCE: Duration = Duration::from_secs(30);

const SECTOR: usize = 512;
const BEFORE: usize = 2 * MIB / SECTOR;
const AFTER: usize = 3 * MIB / SECTOR;

const QUEUES: usize = 2;
/// Requests in a queue at a time, each with a place of its own in the shared memory.
const SLOTS: usize = 24;
/// Sectors of a request, at most.
const MOST: usize = 128;

/// What a sector of that version has: the version and the sector's number, over and over. Version 0 is all zeros.
fn stamp(sector: usize, version: u64) -> Vec<u8> {
    if version == 0 {
        return vec![0; SECTOR];
    }
    [version.to_le_bytes(), (sector as u64).to_le_bytes()].concat().repeat(SECTOR / 16)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Read,
    Write,
    Flush,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Ask {
    kind: Kind,
    sector: usize,
    count: usize,
    version: u64,
}

/// What the disk should have, and what is under way. No write is under way beside another request for one of its
/// sectors.
struct Model {
    /// By sector: the version that it has.
    has: Vec<u64>,
    /// By sector: later versions that it may get, or have, whose answers went to a front end that is gone.
    may_have: BTreeMap<usize, Vec<u64>>,
    /// By queue and slot.
    under_way: BTreeMap<(usize, usize), Ask>,
    version: u64,
    dice: Rng,
    ended: usize,
    /// Sectors of writes that nobody heard of any more, and how many of them were seen with the new version.
    unheard: usize,
    came: usize,
}

impl Model {
    fn new(sectors: usize, seed: u64) -> Self {
        let (may_have, under_way, dice) = (BTreeMap::new(), BTreeMap::new(), Rng::new(seed));
        let has = vec![0; sectors];
        Self { has, may_have, under_way, version: 0, dice, ended: 0, unheard: 0, came: 0 }
    }

    /// The versions that a sector may have while nothing is under way for it.
    fn versions(&self, sector: usize) -> impl Iterator<Item = u64> {
        let later = self.may_have.get(&sector).into_iter().flatten().copied();
        std::iter::once(self.has[sector]).chain(later)
    }

    /// These bytes were read there. Which of several versions a sector has is known from then on, if it is the last.
    #[track_caller]
    fn was_read(&mut self, first: usize, bytes: &[u8]) {
        for (sector, got) in (first..).zip(bytes.chunks(SECTOR)) {
            let seen = self.versions(sector).find(|version| got == stamp(sector, *version));
            let Some(seen) = seen else {
                let may: Vec<u64> = self.versions(sector).collect();
                panic!("sector {sector} is none of {may:?}: {:x?}", &got[..32]);
            };
            if seen != self.has[sector] {
                // It does not go back, and what was written before it comes no more.
                self.has[sector] = seen;
                self.came += 1;
                let later = self.may_have.get_mut(&sector).unwrap();
                later.retain(|version| *version > seen);
                if later.is_empty() {
                    self.may_have.remove(&sector);
                }
            }
        }
    }

    /// What the target's image may have while requests are under way.
    #[track_caller]
    fn is_on(&self, image: &Path) {
        let bytes = std::fs::read(image).unwrap();
        assert_eq!(bytes.len(), self.has.len() * SECTOR);
        let writes = |ask: &&Ask| ask.kind == Kind::Write;
        for (sector, got) in bytes.chunks(SECTOR).enumerate() {
            let over = |ask: &&Ask| (ask.sector..ask.sector + ask.count).contains(&sector);
            let new = self.under_way.values().filter(writes).filter(over).map(|ask| ask.version);
            let right = self.versions(sector).chain(new).any(|version| got == stamp(sector, version));
            assert!(right, "sector {sector} of the target is not {}: {:x?}", self.has[sector], &got[..32]);
        }
    }

    /// Begins a request of that kind, or of any, where nothing is in its way. False if all slots are used.
    fn begin(&mut self, front: &mut Front, kind: Option<Kind>) -> bool {
        let mut places = (0..SLOTS).flat_map(|slot| (0..QUEUES).map(move |queue| (queue, slot)));
        let Some(free) = places.find(|place| !self.under_way.contains_key(place)) else { return false };
        let any = [Kind::Write, Kind::Write, Kind::Read, Kind::Read, Kind::Read];
        let flush = self.dice.chance(0.05).then_some(Kind::Flush);
        let kind = kind.or(flush).unwrap_or_else(|| any[self.dice.below(any.len() as u64) as usize]);
        let (sector, count) = loop {
            let most = 1 << self.dice.below(MOST.ilog2().into());
            let count = 1 + self.dice.below(2 * most) as usize;
            let sector = self.dice.below((self.has.len() - count + 1) as u64) as usize;
            let in_the_way = |ask: &Ask| {
                let both_read = kind == Kind::Read && ask.kind == Kind::Read;
                !both_read && sector < ask.sector + ask.count && ask.sector < sector + count
            };
            if kind == Kind::Flush || !self.under_way.values().any(in_the_way) {
                break (sector, count);
            }
        };
        self.put(front, free, Ask { kind, sector, count, version: 0 });
        true
    }

    /// Begins requests until no slot is free.
    fn fill(&mut self, front: &mut Front, kind: Option<Kind>) {
        while self.begin(front, kind) {}
    }

    fn put(&mut self, front: &mut Front, (queue, slot): (usize, usize), mut ask: Ask) {
        let (place, len) = ((slot * QUEUES + queue) * MOST * SECTOR, ask.count * SECTOR);
        let offset = (ask.sector * SECTOR) as u64;
        match ask.kind {
            Kind::Read => {
                front.data()[place..place + len].fill(0xdd);
                front.put_read(queue, offset, place, len, slot);
            }
            Kind::Write => {
                self.version += 1;
                ask.version = self.version;
                let sectors = ask.sector..ask.sector + ask.count;
                let bytes: Vec<u8> = sectors.flat_map(|sector| stamp(sector, ask.version)).collect();
                front.data()[place..place + len].copy_from_slice(&bytes);
                front.put_write(queue, offset, place, len, slot);
            }
            Kind::Flush => {
                (ask.sector, ask.count) = (0, 0);
                front.put_flush(queue, slot);
            }
        }
        front.kick(queue);
        self.under_way.insert((queue, slot), ask);
    }

    /// Takes what has come back, each of it well.
    #[track_caller]
    fn take(&mut self, front: &mut Front) -> usize {
        let mut count = 0;
        for queue in 0..QUEUES {
            for (slot, result) in front.ended(queue) {
                let ask = self.under_way.remove(&(queue, slot)).expect("an answer to nothing");
                assert_eq!(result, 0, "{ask:?}");
                count += 1;
                match ask.kind {
                    Kind::Read => {
                        let place = (slot * QUEUES + queue) * MOST * SECTOR;
                        let bytes = front.data()[place..place + ask.count * SECTOR].to_vec();
                        self.was_read(ask.sector, &bytes);
                    }
                    Kind::Write => {
                        for sector in ask.sector..ask.sector + ask.count {
                            self.has[sector] = ask.version;
                            self.may_have.remove(&sector);
                        }
                    }
                    Kind::Flush => {}
                }
            }
        }
        self.ended += count;
        count
    }

    /// So many requests more are answered, with as many as there is room for under way all the time.
    #[track_caller]
    fn work(&mut self, front: &mut Front, count: usize) {
        let (start, goal) = (Instant::now(), self.ended + count);
        while self.ended < goal {
            self.fill(front, None);
            if self.take(front) == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
            assert!(start.elapsed() < PATIENCE, "nothing comes back: {:?}", self.under_way);
        }
    }

    #[track_caller]
    fn all_ended(&mut self, front: &mut Front) {
        until("all requests are answered", PATIENCE, || {
            self.take(front);
            self.under_way.is_empty()
        });
    }

    /// Reads the whole disk.
    #[track_caller]
    fn read_all(&mut self, front: &mut Front) {
        self.all_ended(front);
        for (n, sector) in (0..self.has.len()).step_by(MOST).enumerate() {
            let slot = n / QUEUES % SLOTS;
            if self.under_way.contains_key(&(n % QUEUES, slot)) {
                self.all_ended(front);
            }
            let ask = Ask { kind: Kind::Read, sector, count: MOST, version: 0 };
            self.put(front, (n % QUEUES, slot), ask);
        }
        self.all_ended(front);
    }

    /// The front end has gone: of its writes under way each sector has the old version or the new one.
    fn front_has_gone(&mut self) {
        for ask in std::mem::take(&mut self.under_way).into_values().filter(|ask| ask.kind == Kind::Write) {
            self.unheard += ask.count;
            for sector in ask.sector..ask.sector + ask.count {
                self.may_have.entry(sector).or_default().push(ask.version);
            }
        }
    }
}

/// Starts a target on an image.
type Serve = fn(&mut Bed, &Path) -> Arc<Daemon>;

fn a_bad_wire(serve: Serve, seed: u64) -> (Model, u64) {
    let mut bed = Bed::with_fuse(&["vblade"]);
    let wire = Ns::new();
    bed.ini.veth("v0", &wire, "m0", 9000);
    wire.veth("m1", &bed.tgt, "v1", 9000);
    let relay = Relay::between(&wire, "m0", "m1", seed);
    let image: PathBuf = bed.image_of("disk", BEFORE * SECTOR, 0);
    let mut target = serve(&mut bed, &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", SOON);
    let socket = bed.dir().join("disk.sock");
    unit.ctl_ok(&format!("vhost {}", socket.display()));
    let mut front = Front::connect(&socket, QUEUES);
    assert_eq!(front.capacity() as usize, BEFORE);
    let mut model = Model::new(BEFORE, seed);
    let faults = Faults { drop: 0.04, duplicate: 0.03, reorder: 0.05, depth: 4, ..Faults::default() };
    relay.set_both(&faults);
    model.work(&mut front, 300);
    // The target is killed with requests under way, twice.
    for _ in 0..2 {
        model.fill(&mut front, None);
        target.kill9();
        model.take(&mut front);
        model.fill(&mut front, None);
        model.is_on(&image);
        std::thread::sleep(Duration::from_millis(300));
        target = serve(&mut bed, &image);
        model.work(&mut front, 200);
    }
    // It comes back with a larger disk: what is under way waits for the operator's word.
    target.kill9();
    std::fs::File::options().write(true).open(&image).unwrap().set_len((AFTER * SECTOR) as u64).unwrap();
    serve(&mut bed, &image);
    until("the log says what to do", PATIENCE, || mount.read("log").contains("waits for `identify`"));
    model.take(&mut front);
    model.fill(&mut front, None);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((model.take(&mut front), front.capacity() as usize), (0, BEFORE), "nobody has given the word");
    unit.ctl_ok("identify");
    until("the front end sees the new size", PATIENCE, || front.capacity() as usize == AFTER);
    model.all_ended(&mut front);
    model.has.resize(AFTER, 0);
    model.work(&mut front, 200);
    model.read_all(&mut front);
    // The front end goes with as many writes under way as there is room for, and another one comes.
    for n in 0..6 {
        model.fill(&mut front, Some(Kind::Write));
        std::thread::sleep(Duration::from_micros(300 * n));
        model.take(&mut front);
        model.front_has_gone();
        drop(front);
        front = Front::connect(&socket, QUEUES);
        assert_eq!(front.capacity() as usize, AFTER);
        match n % 2 {
            0 => model.read_all(&mut front),
            _ => model.work(&mut front, 100),
        }
    }
    // What nobody heard of must not come back over what was written since.
    model.work(&mut front, 100);
    model.read_all(&mut front);
    let total = |count: fn(&Counts) -> u64| count(&relay.counts(Way::Out)) + count(&relay.counts(Way::Back));
    let lost = total(|counts| counts.dropped);
    assert!(lost > 60 && total(|counts| counts.duplicated) > 30 && total(|counts| counts.reordered) > 30);
    relay.heal();
    let of = format!("{{target=\"1.0\",disk=\"data\",socket=\"{}\"}}", socket.display());
    let metrics = mount.read("metrics");
    assert!(metrics.contains(&format!("\naoefs_export_errors_total{of} 0\n")), "{metrics}");
    let log = mount.read("log");
    assert!(!log.contains("is stopped") && !log.contains("let go of"), "{log}");
    // The same through the file, and then on the target.
    let mut bytes = Aligned::new(AFTER * SECTOR);
    unit.open_with("data", libc::O_DIRECT).read_exact_at(bytes.bytes(), 0).unwrap();
    model.was_read(0, bytes.bytes());
    drop(front);
    mount.stop();
    assert!(std::fs::read(&image).unwrap() == bytes.bytes(), "the file has other bytes than the target");
    drop(relay);
    (model, lost)
}

/// Frames are lost, doubled and overtake each other; the target is killed and started again, the disk grows, the front
/// end goes in the middle of its writes. What was answered is there, what was under way is there or not, and nothing
/// else is.
fn integrity_v29_a_foreign_front_end_over_a_bad_wire() {
    let targets: [(&str, Serve); 2] = [
        ("aoefs-target", |bed, image| bed.aoefs_target("1.0", "v1", image)),
        ("vblade", |bed, image| bed.vblade("1.0", "v1", image)),
    ];
    for (seed, (name, serve)) in (291..).zip(targets) {
        let (model, lost) = a_bad_wire(serve, seed);
        assert!(model.unheard > 300, "no front end has gone amid its writes");
        print!(
            "[{name}: {} requests, {lost} frames lost, {} sectors written unheard, {} of these seen new] ",
            model.ended, model.unheard, model.came
        );
    }
}
