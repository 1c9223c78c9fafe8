//! A database on a file system on a loop device on a target: what it was told is on disk is there after any crash.

use super::loops;
use crate::bed::{Bed, MIB, Rng, proc, setting};
use aoefs::target::{Record, read_record};
use aoefs::wire::SECTOR;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

crate::tests![integrity_w6_crash_cuts(300), integrity_sqlite_through_target_kills(300, beside)];

const STEP: Duration = Duration::from_secs(30);
const DISK: usize = 24 * MIB;
const PROGRAMS: [&str; 4] = ["losetup", "mkfs.ext4", "sqlite3", "e2fsck"];

/// One row, committed: sqlite returns when the file system says that it is on disk. `extra`, since else the name of
/// the rollback journal may be back after a crash, and with it the row gone.
fn commit(dir: &Path, n: u64) {
    let insert = format!("pragma synchronous=extra; insert into t values({n}, hex(randomblob(700)))");
    let line = format!("sqlite3 {}/db '{insert}'", dir.display());
    proc::sh(STEP, &line);
}

/// What `PRAGMA integrity_check` says, and how many rows there are.
fn look(db: &Path) -> (String, u64) {
    let said =
        proc::sh(STEP, &format!("sqlite3 {} 'pragma integrity_check; select count(*) from t'", db.display()));
    let mut lines = said.lines();
    (lines.next().unwrap_or_default().to_string(), lines.next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn integrity_w6_crash_cuts() {
    let mut bed = Bed::cable(&PROGRAMS, 9000);
    let image = bed.image_of("disk", DISK, 0);
    let log = bed.image_of("log", 0, 0);
    let ns = bed.tgt.clone();
    let target = crate::bed::mount::AOEFS_TARGET;
    let [log_name, image_name] = [&log, &image].map(|path| path.to_str().unwrap());
    bed.spawn(&ns, &[target, "--write-log", log_name, "1.0", "v1", image_name]);
    let mount = bed.mount(&[]);
    let data = mount.wait_for("1.0", Duration::from_secs(3)).data();
    let at = bed.dir().join("fs");
    let dev = loops::fresh("ext4", &data, true, &at);
    proc::sh(STEP, &format!("sqlite3 {}/db 'create table t(n, x)'; sync", at.display()));
    let written = || std::fs::metadata(&log).unwrap().len();
    // Before this there is no database; after the nth commit the log is so long.
    let ready = written();
    let mut committed = Vec::new();
    for n in 0..80 {
        commit(&at, n);
        committed.push(written());
        if n % 8 == 0 {
            let name = at.join(format!("file{n}"));
            std::fs::write(&name, vec![n as u8; 100_000]).unwrap();
            if n % 16 == 0 {
                std::fs::rename(&name, at.join(format!("renamed{n}"))).unwrap();
            }
        }
    }
    loops::unmount(&at);
    loops::detach(&dev);
    mount.stop();
    // The log cut anywhere is what the disk was at some moment.
    let (cuts, mut rng) = (setting("AOEFS_TEST_CUTS", 60), Rng::new(606));
    let mut cuts: Vec<u64> = (0..cuts).map(|_| ready + rng.below(written() - ready)).collect();
    cuts.sort_unstable();
    let mut from = BufReader::new(File::open(&log).unwrap());
    let (before, after) = (bed.image_of("replayed", DISK, 0), bed.dir().join("cut"));
    let replayed = File::options().write(true).open(&before).unwrap();
    let mut place = 0;
    for (n, cut) in cuts.iter().enumerate() {
        while place < *cut {
            let Some(record) = read_record(&mut from).unwrap() else { break };
            place = from.stream_position().unwrap();
            match record {
                Record::Write(at, data) => replayed.write_all_at(&data, at.0 * SECTOR as u64).unwrap(),
                Record::Trim(at, count) => {
                    replayed.write_all_at(&vec![0; count as usize * SECTOR], at.0 * SECTOR as u64).unwrap();
                }
                Record::Flush => {}
            }
        }
        let (cut_file, point) = (after.display(), at.display());
        proc::sh(STEP, &format!("cp --sparse=always {} {cut_file}", before.display()));
        // 0 = clean, 1 = put right: a journal to play back, which a crash leaves. Anything worse is 4 and more.
        let fsck = proc::run(STEP, &["e2fsck", "-p", after.to_str().unwrap()]);
        assert!(
            fsck.code.is_some_and(|code| code <= 1),
            "cut {n} at {place}: {}{}",
            fsck.stdout,
            fsck.stderr
        );
        proc::sh(STEP, &format!("e2fsck -fn {cut_file}"));
        crate::bed::sweep::register(crate::bed::sweep::Mess::Mount(at.clone()));
        proc::sh(STEP, &format!("mount -o loop {cut_file} {point}"));
        let (sound, rows) = look(&at.join("db"));
        loops::unmount(&at);
        assert_eq!(sound, "ok", "cut {n} at {place}");
        let promised = committed.iter().filter(|end| **end <= place).count() as u64;
        assert!(rows >= promised, "cut {n} at {place}: {rows} rows, {promised} were committed");
    }
    print!("[{} cuts of a log of {} KiB, 80 commits] ", cuts.len(), written() >> 10);
}

fn integrity_sqlite_through_target_kills() {
    let mut bed = Bed::cable(&[&PROGRAMS[..], &["vblade"]].concat(), 9000);
    let image = bed.image_of("disk", DISK, 0);
    let mut vblade = bed.vblade("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let data = mount.wait_for("1.0", Duration::from_secs(3)).data();
    let at = bed.dir().join("fs");
    let dev = loops::fresh("ext4", &data, true, &at);
    proc::sh(STEP, &format!("sqlite3 {}/db 'create table t(n, x)'", at.display()));
    let kills = setting("AOEFS_TEST_KILLS", 15);
    let (rows, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !stop.load(SeqCst) {
                commit(&at, rows.load(SeqCst));
                rows.fetch_add(1, SeqCst);
            }
        });
        let mut rng = Rng::new(50);
        for _ in 0..kills {
            std::thread::sleep(Duration::from_millis(100 + rng.below(700)));
            vblade.kill9();
            std::thread::sleep(Duration::from_millis(rng.below(1000)));
            vblade = bed.vblade("1.0", "v1", &image);
            assert!(!writer.is_finished(), "the database got an error");
        }
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, SeqCst);
        writer.join().unwrap();
    });
    let acknowledged = rows.load(SeqCst);
    print!("[{kills} kills in {:.0?}, {acknowledged} commits] ", start.elapsed());
    assert_eq!(look(&at.join("db")), ("ok".into(), acknowledged));
    loops::unmount(&at);
    loops::fsck("ext4", &dev);
    loops::detach(&dev);
    mount.stop();
}
