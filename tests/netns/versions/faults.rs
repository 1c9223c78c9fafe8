//! What happens to targets while a crew works: they are killed and started again, or stopped for a while and let go on.

use crate::bed::{Bed, Daemon, Rng};
use nix::sys::signal::Signal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Two states in turns, each for a random time.
pub struct Turns {
    rng: Rng,
    /// The longest time of either, in milliseconds.
    well: u64,
    ill: u64,
    is_well: bool,
    until: Instant,
    /// How often it was ill.
    pub times: u64,
}

impl Turns {
    pub fn new(seed: u64, well: Duration, ill: Duration) -> Self {
        let (well, ill) = (well.as_millis() as u64, ill.as_millis() as u64);
        let until = Instant::now() + Duration::from_millis(well);
        Self { rng: Rng::new(seed), well, ill, is_well: true, until, times: 0 }
    }

    /// Whether it is time for the other state, which then holds: true is well.
    pub fn turn(&mut self) -> Option<bool> {
        if Instant::now() < self.until {
            return None;
        }
        self.is_well = !self.is_well;
        self.times += u64::from(!self.is_well);
        let most = if self.is_well { self.well } else { self.ill };
        self.until = Instant::now() + Duration::from_millis(1 + self.rng.below(most));
        Some(self.is_well)
    }
}

/// A vblade that is killed and started again.
pub struct Restarts<'a> {
    pub bed: &'a mut Bed,
    pub image: &'a Path,
    pub vblade: Arc<Daemon>,
    pub turns: Turns,
}

impl Restarts<'_> {
    pub fn look(&mut self) {
        match self.turns.turn() {
            Some(false) => self.vblade.kill9(),
            Some(true) => self.vblade = self.bed.vblade("1.0", "v1", self.image),
            None => {}
        }
    }

    /// It is there at the end.
    pub fn end(&mut self) {
        if !self.vblade.alive() {
            self.vblade = self.bed.vblade("1.0", "v1", self.image);
        }
    }
}

/// A process that is stopped and let go on. What arrives meanwhile it does later, whoever has given it up.
pub struct Pauses {
    pub target: Arc<Daemon>,
    pub turns: Turns,
}

impl Pauses {
    pub fn look(&mut self) {
        match self.turns.turn() {
            Some(false) => self.target.signal(Signal::SIGSTOP),
            Some(true) => self.target.signal(Signal::SIGCONT),
            None => {}
        }
    }

    /// It runs at the end.
    pub fn end(&self) {
        self.target.signal(Signal::SIGCONT);
    }
}
