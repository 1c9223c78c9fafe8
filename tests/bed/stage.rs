//! The stages that most tests play on: one vblade, mounted, at the end of a cable or behind the relay.

use super::mount::{Mount, Unit};
use super::relay::Relay;
use super::{Bed, Daemon, Ns};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a target that is there may take to appear.
const APPEARS: Duration = Duration::from_secs(3);

/// A vblade at the end of a jumbo cable, mounted.
pub struct One {
    pub bed: Bed,
    pub mount: Mount,
    pub unit: Unit,
    pub image: PathBuf,
    pub vblade: Arc<Daemon>,
}

impl One {
    /// With a disk of so many random bytes. Skips the test if vblade or one of the other programs is missing.
    pub fn new(programs: &[&str], len: usize) -> Self {
        let mut bed = Bed::cable(&[&["vblade"], programs].concat(), 9000);
        let image = bed.image("disk", len);
        let vblade = bed.vblade("1.0", "v1", &image);
        let mount = bed.mount(&[]);
        let unit = mount.wait_for("1.0", APPEARS);
        One { bed, mount, unit, image, vblade }
    }

    /// The end must be clean.
    pub fn done(self) {
        self.mount.stop();
        drop(self.bed);
    }

    /// What is on the target.
    pub fn disk(&self) -> Vec<u8> {
        std::fs::read(&self.image).unwrap()
    }

    /// The target starts again.
    pub fn revive(&mut self) {
        self.vblade = self.bed.vblade("1.0", "v1", &self.image);
    }
}

/// An initiator, the relay, and a vblade behind it.
pub struct Spoiled {
    pub bed: Bed,
    pub relay: Relay,
    pub mount: Mount,
    pub unit: Unit,
    pub image: PathBuf,
    pub wire: Ns,
}

impl Spoiled {
    /// With a disk of so many random bytes; `seed` decides what the relay does to which frame. Skips the test if
    /// vblade or one of the other programs is missing.
    pub fn new(programs: &[&str], mtu: usize, seed: u64, len: usize) -> Self {
        let mut bed = Bed::with_fuse(&[&["vblade"], programs].concat());
        let wire = Ns::new();
        bed.ini.veth("v0", &wire, "m0", mtu);
        wire.veth("m1", &bed.tgt, "v1", mtu);
        let relay = Relay::between(&wire, "m0", "m1", seed);
        let image = bed.image("disk", len);
        bed.vblade("1.0", "v1", &image);
        let mount = bed.mount(&[]);
        let unit = mount.wait_for("1.0", APPEARS);
        Spoiled { bed, relay, mount, unit, image, wire }
    }

    /// The wire is good again, and the end must be clean.
    pub fn done(self) {
        self.relay.heal();
        self.mount.stop();
        drop((self.relay, self.bed));
    }
}
