//! Many writers: no lost update, no torn or stale sector, no wrong byte, whichever names and caches the accesses go
//! through.

use crate::bed::MIB;
use crate::bed::mount::try_open;
use crate::bed::stage::One;
use crate::tools::fsx;
use crate::tools::{lost_update, register};
use std::fs::File;
use std::io::Seek;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

crate::tests![
    sector_eight_threads_share_every_sector(180),
    sector_eight_threads_share_every_sector_without_cache(180),
    sector_writers_through_overlapping_partitions(180),
    integrity_registers_under_four_writers(90),
    integrity_fsx_on_data_and_a_partition(180),
    integrity_fsx_without_cache(120),
    integrity_writer_beside_readers_of_the_page_cache(60),
];

const DISK: usize = 32 * MIB;
/// The sectors that everybody fights for: few enough that two threads often meet.
const SECTORS: u64 = 64;
/// Issue 2: each of 8 threads writes this often.
const WRITES: u64 = 10_000;

fn one() -> One {
    One::new(&[], DISK)
}

impl One {
    /// 8 threads through these names, in turn, each with the place where sector 1000 of the disk is in it.
    fn fight(&self, names: &[(&str, u64)], flags: i32, seed: u64) {
        let views = (0..8).map(|who| {
            let (name, sector) = names[who % names.len()];
            lost_update::View { file: self.unit.open_with(name, flags), start: sector * 512 }
        });
        lost_update::run(views.collect(), SECTORS, WRITES, seed).unwrap();
    }
}

fn sector_eight_threads_share_every_sector() {
    let one = one();
    one.fight(&[("data", 1000)], 0, 11);
    one.done();
}

fn sector_eight_threads_share_every_sector_without_cache() {
    let one = one();
    one.fight(&[("data", 1000)], libc::O_DIRECT, 12);
    one.done();
}

fn sector_writers_through_overlapping_partitions() {
    let one = one();
    one.unit.ctl_ok("part low 0 1500");
    one.unit.ctl_ok("part high 900 3000");
    one.unit.ctl_ok("part within 1000 1064");
    one.fight(&[("data", 1000), ("low", 1000), ("high", 100), ("within", 0)], 0, 13);
    one.done();
}

fn integrity_registers_under_four_writers() {
    let one = one();
    let plan = register::Plan {
        registers: 512,
        start: 0,
        stride: 4096,
        writers: 4,
        readers: 4,
        time: Duration::from_secs(10),
        seed: 21,
        errors_allowed: false,
    };
    let done = register::run(&plan, |_| try_open(&one.unit.data(), libc::O_DIRECT)).unwrap();
    print!("[{} writes, {} reads] ", done.writes, done.reads);
    assert!(done.writes + done.reads > 10_000, "{done:?}");
    one.done();
}

fn views(one: &One, flags: i32) -> Vec<fsx::View> {
    let (start, end) = (3001, 40_000);
    one.unit.ctl_ok(&format!("part middle {start} {end}"));
    vec![
        fsx::View { file: one.unit.open_with("data", flags), start: 0, len: DISK as u64 },
        fsx::View { file: one.unit.open_with("middle", flags), start: start * 512, len: (end - start) * 512 },
    ]
}

fn integrity_fsx_on_data_and_a_partition() {
    let one = one();
    let views = views(&one, 0);
    let mut model = std::fs::read(one.unit.data()).unwrap();
    let also = fsx::Also { align: 1, mmap: false, zero: true };
    fsx::run(&views, &mut model, 0..DISK as u64, 3000, 31, also).unwrap();
    drop(views);
    one.done();
}

fn integrity_fsx_without_cache() {
    let one = one();
    let views = views(&one, libc::O_DIRECT);
    let mut model = std::fs::read(one.unit.data()).unwrap();
    let also = fsx::Also { align: 512, mmap: false, zero: true };
    fsx::run(&views, &mut model, 0..DISK as u64, 3000, 32, also).unwrap();
    drop(views);
    one.done();
}

/// sendfile(2) reads through the page cache, on a mount that can write too. What was written is what it gives from
/// then on, though others bring the same page in all the time.
fn integrity_writer_beside_readers_of_the_page_cache() {
    /// Each gives the readers a chance to bring the old page back at the wrong moment.
    const ROUNDS: usize = 3000;
    let one = one();
    let writer = one.unit.open("data");
    let (over, mut stale) = (AtomicBool::new(false), 0);
    let sink = || tempfile::tempfile().unwrap();
    let send = |from: &File, mut to: &File| {
        to.rewind().unwrap();
        let mut offset = 0;
        // SAFETY: both descriptors are open, and the offset is ours.
        let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), &mut offset, 4096) };
        assert_eq!(sent, 4096, "{}", std::io::Error::last_os_error());
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let reader = one.unit.open("data");
            let (over, sink) = (&over, sink());
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    send(&reader, &sink);
                }
            });
        }
        let (reader, sink) = (one.unit.open("data"), sink());
        let mut page = [0; 4096];
        for n in 0..ROUNDS {
            writer.write_all_at(&[n as u8; 4096], 0).unwrap();
            send(&reader, &sink);
            sink.read_exact_at(&mut page, 0).unwrap();
            stale += usize::from(page != [n as u8; 4096]);
        }
        over.store(true, Relaxed);
    });
    print!("[{stale} of {ROUNDS} reads stale] ");
    assert_eq!(stale, 0);
    drop(writer);
    one.done();
}
