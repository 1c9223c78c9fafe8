//! Lost updates: threads that write neighbouring pieces of the same sectors, each checking that nobody undid its own.
//!
//! A sub-sector write is a read, a change and a write of the whole sector. Two of them at once on one sector lose one
//! update unless something orders them. Here every thread owns 64 bytes of each sector, so 8 threads share every
//! sector.

use crate::bed::Rng;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes of every sector that belong to one thread: 8 threads a sector.
pub const OWNED: usize = 64;
const SECTOR: u64 = 512;

/// One thread's way to the sectors: a file and where they begin in it. Different names of the same disk are the
/// interesting case.
pub struct View {
    pub file: File,
    pub start: u64,
}

/// Each view's thread writes its own 64 bytes of random sectors (of `sectors`) `writes` times and now and then reads
/// them back. At the end every thread's bytes must be its last ones. Returns the first update found lost.
pub fn run(views: Vec<View>, sectors: u64, writes: u64, seed: u64) -> Result<(), String> {
    assert!(views.len() <= SECTOR as usize / OWNED);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let threads: Vec<_> = views
            .into_iter()
            .enumerate()
            .map(|(who, view)| {
                let stop = &stop;
                scope.spawn(move || {
                    let result = one(&view, who, sectors, writes, seed, stop);
                    stop.fetch_or(result.is_err(), Relaxed);
                    result
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })
}

fn one(
    view: &View,
    who: usize,
    sectors: u64,
    writes: u64,
    seed: u64,
    stop: &AtomicBool,
) -> Result<(), String> {
    let mut rng = Rng::new(seed ^ (who as u64) << 32);
    // The last count written to each sector; u64::MAX = nothing yet.
    let mut last = vec![u64::MAX; sectors as usize];
    let place = |sector: u64| view.start + sector * SECTOR + (who * OWNED) as u64;
    let check = |sector: u64, count: u64, when: &str| {
        let mut got = [0; OWNED];
        view.file
            .read_exact_at(&mut got, place(sector))
            .map_err(|error| format!("thread {who}, reading: {error}"))?;
        if got == piece(who, count) {
            return Ok(());
        }
        let other = (0..8).flat_map(|w| (0..writes).map(move |c| (w, c))).find(|&(w, c)| piece(w, c) == got);
        let found =
            other.map_or("bytes that nobody wrote".into(), |(w, c)| format!("write {c} of thread {w}"));
        Err(format!(
            "thread {who}, sector {sector}, {when}: its write {count} is lost, there is {found} (seed {seed})"
        ))
    };
    for count in 0..writes {
        if stop.load(Relaxed) {
            return Ok(()); // another thread reports
        }
        let sector = rng.below(sectors);
        let data = piece(who, count);
        view.file
            .write_all_at(&data, place(sector))
            .map_err(|error| format!("thread {who}, writing: {error}"))?;
        last[sector as usize] = count;
        if count % 4 == 0 {
            // Not the sector just written: an update is lost while the others go on.
            let sector = rng.below(sectors);
            let written = last[sector as usize];
            if written != u64::MAX {
                check(sector, written, "while others write")?;
            }
        }
    }
    for (sector, count) in last.iter().enumerate().filter(|(_, count)| **count != u64::MAX) {
        check(sector as u64, *count, "at the end")?;
    }
    Ok(())
}

/// What thread `who` writes the `count`th time: no two are equal.
fn piece(who: usize, count: u64) -> [u8; OWNED] {
    let mut bytes = [0; OWNED];
    Rng::new((who as u64) << 56 | count).fill(&mut bytes);
    bytes
}
