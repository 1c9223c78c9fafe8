//! Speed and latency as a program sees them: readers on threads of the test itself, so that a measurement starts and
//! ends at once.
//!
//! Figures of a machine that does other things at the same time are only good beside each other: measure in turns,
//! compare medians.

use super::fsx::Aligned;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Reads of `block` bytes over the first `span` of a file, `depth` at a time.
pub struct Meter<'a> {
    pub file: &'a File,
    pub block: usize,
    pub depth: usize,
    pub span: u64,
}

/// What one window showed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes a second.
    pub rate: f64,
    /// The longest read.
    pub worst: Duration,
    /// The mean read.
    pub mean: Duration,
}

impl Meter<'_> {
    /// Reads for so long; the file must be open with O_DIRECT. Every read must succeed.
    pub fn run(&self, window: Duration) -> Pace {
        let (next, done, spent, worst) =
            (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let stop = AtomicBool::new(false);
        let (mut seconds, start) = (0.0, Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..self.depth {
                scope.spawn(|| {
                    let mut block = Aligned::new(self.block);
                    while !stop.load(Relaxed) {
                        let at = next.fetch_add(self.block as u64, Relaxed) % self.span;
                        let began = Instant::now();
                        self.file.read_exact_at(block.bytes(), at).expect("a read that is measured");
                        let took = began.elapsed().as_micros() as u64;
                        // What ends after the window does not count for it.
                        if !stop.load(Relaxed) {
                            done.fetch_add(1, Relaxed);
                            spent.fetch_add(took, Relaxed);
                        }
                        worst.fetch_max(took, Relaxed);
                    }
                });
            }
            std::thread::sleep(window);
            stop.store(true, Relaxed);
            seconds = start.elapsed().as_secs_f64();
        });
        let reads = done.load(Relaxed);
        Pace {
            rate: (reads * self.block as u64) as f64 / seconds,
            worst: Duration::from_micros(worst.load(Relaxed)),
            mean: Duration::from_micros(spent.load(Relaxed).checked_div(reads).unwrap_or(0)),
        }
    }
}

/// The middle one; of an even number the lower of the two.
pub fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty());
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}

/// The share of their speed that windows under a disturbance keep beside windows without it, measured in turns: by
/// the medians or by the best ones, whichever is larger. Other work on the machine spoils either; what is really
/// slower is so in both.
pub fn kept(before: &[f64], during: &[f64]) -> f64 {
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max);
    (median(during.to_vec()) / median(before.to_vec())).max(best(during) / best(before))
}
