//! The workloads prove themselves on plain files: what is right passes, and the error that each is for is found.

use crate::bed::{Bed, MIB, Rng};
use crate::tools::{fsx, lost_update, register};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

crate::tests![lost_update_finds_a_lost_update, register_checker_finds_a_stale_write, fsx_finds_a_wrong_byte,];

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Reads a whole sector and writes it back after a moment, again and again: what an unlocked read-modify-write does
/// to others.
fn unlocked(path: &Path, sectors: u64, seed: u64, stop: &AtomicBool) {
    let (file, mut rng) = (open(path), Rng::new(seed));
    let mut sector = [0; 512];
    while !stop.load(Relaxed) {
        let at = rng.below(sectors) * 512;
        file.read_exact_at(&mut sector, at).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        file.write_all_at(&sector, at).unwrap();
    }
}

/// Runs the work beside somebody who writes sectors without a lock.
fn beside_unlocked<T>(path: &Path, sectors: u64, work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| unlocked(path, sectors, 5, &stop));
        let result = work();
        stop.store(true, Relaxed);
        result
    })
}

fn lost_update_finds_a_lost_update() {
    let bed = Bed::new(&[]);
    let path = bed.image_of("disk", 16 * 512, 0);
    let views = || (0..8).map(|_| lost_update::View { file: open(&path), start: 0 }).collect();
    lost_update::run(views(), 16, 2000, 1).unwrap();
    let found = beside_unlocked(&path, 16, || lost_update::run(views(), 16, 20_000, 1));
    assert!(found.unwrap_err().contains("is lost"));
}

fn register_checker_finds_a_stale_write() {
    let bed = Bed::new(&[]);
    let path = bed.image_of("disk", 64 * 512, 0);
    let time = Duration::from_millis(500);
    let (registers, start, stride) = (64, 0, 512);
    // No readers: plain files in memory show torn sectors to a reader while another thread writes.
    let (writers, readers) = (2, 0);
    let plan =
        register::Plan { registers, start, stride, writers, readers, time, seed: 1, errors_allowed: false };
    let done = register::run(&plan, |_| Ok(open(&path))).unwrap();
    assert!(done.writes > 100, "{done:?}");
    // With readers the stale write is seen as long as it stands. What they see torn, as plain files show it, is not
    // what is looked for.
    let plan = register::Plan { readers: 2, ..plan };
    let look = || beside_unlocked(&path, 64, || register::run(&plan, |_| Ok(open(&path))));
    let found = (0..40).filter_map(|_| look().err()).any(|error| error.contains("acknowledged"));
    assert!(found, "a write undone by an older one was never found");
}

fn fsx_finds_a_wrong_byte() {
    let bed = Bed::new(&[]);
    let len = 4 * MIB;
    let path = bed.image("disk", len);
    let mut model = std::fs::read(&path).unwrap();
    let whole = || fsx::View { file: open(&path), start: 0, len: len as u64 };
    let views = [whole(), whole()];
    let also = fsx::Also { mmap: true, zero: false, align: 1 };
    fsx::run(&views, &mut model, 0..len as u64, 500, 3, also).unwrap();
    model[MIB] ^= 1;
    let found = fsx::run(&views, &mut model, 0..len as u64, 0, 3, also);
    assert!(found.unwrap_err().contains("1048576"));
}
