//! Reading, writing, truncating, punching: `data` and partitions as a program sees them.

use std::sync::mpsc;

use aoefs::fs::core::{Reader, Settings};
use aoefs::fs::errno::Errno;

use crate::bed::{Bed, SIZE};

const MIB: u64 = 1 << 20;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

#[test]
fn bytes_come_back_and_the_end_is_the_end() {
    let bed = Bed::new();
    let fh = bed.open("1.0/data");
    assert_eq!(bed.write_at(fh, 1000, b"hello"), Ok(5));
    assert_eq!(bed.read_at(fh, 998, 9), Ok(b"\0\0hello\0\0".to_vec()));
    assert_eq!(bed.write_at(fh, SIZE - 3, b"abcdef"), Ok(3), "cut at the end");
    assert_eq!(bed.read_at(fh, SIZE - 3, 100), Ok(b"abc".to_vec()));
    assert_eq!(bed.read_at(fh, SIZE, 100), Ok(Vec::new()));
    assert_eq!(bed.write_at(fh, SIZE, b"x"), Err(Errno::ENOSPC));
    assert_eq!(bed.write_at(fh, u64::MAX - 1, b"xyz"), Err(Errno::ENOSPC));
    assert_eq!(bed.read_at(fh, u64::MAX - 1, 100), Ok(Vec::new()));
    assert_eq!(bed.sync(fh), Ok(()));
    bed.core.release(fh);
    assert_eq!(bed.read_at(fh, 0, 1), Err(Errno::EBADF));
    bed.end();
}

#[test]
fn truncation_succeeds_and_the_size_stays() {
    let bed = Bed::new();
    let ino = bed.ino("1.0/data").unwrap();
    for size in [0, 1, SIZE] {
        assert_eq!(bed.truncate(ino, None, size), Ok(()));
        assert_eq!(bed.size("1.0/data"), SIZE);
    }
    assert_eq!(bed.truncate(ino, None, SIZE + 1), Err(Errno::ENOSPC));
    bed.end();
}

/// What cp does with a sparse image: open with O_TRUNC, write the data, seek over the holes, set the size.
#[test]
fn cp_of_a_sparse_image_over_a_full_disk_equals_the_image() {
    let bed = Bed::new();
    bed.fill(0xff);
    let ino = bed.ino("1.0/data").unwrap();
    let fh = bed.try_open("1.0/data", libc::O_WRONLY).unwrap();
    assert_eq!(bed.truncate(ino, None, 0), Ok(()));
    let mut image = vec![0; SIZE as usize];
    for (offset, len) in [(0, 4096), (100_000, 5000), (2 * MIB + 7, 300), (3 * MIB, 65536)] {
        let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8 + 1).collect();
        assert_eq!(bed.write_at(fh, offset, &data), Ok(len as u32));
        image[offset as usize..offset as usize + len].copy_from_slice(&data);
    }
    assert_eq!(bed.truncate(ino, Some(fh), SIZE), Ok(()));
    bed.core.release(fh);
    assert!(bed.disk() == image);
    bed.end();
}

#[test]
fn a_handle_that_did_not_truncate_zeroes_nothing() {
    let bed = Bed::new();
    bed.fill(0xff);
    let ino = bed.ino("1.0/data").unwrap();
    let other = bed.open("1.0/data");
    let fh = bed.open("1.0/data");
    assert_eq!(bed.truncate(ino, None, 0), Ok(()), "belongs to the newest");
    assert_eq!(bed.write_at(other, MIB, &[1; 512]), Ok(512));
    assert_eq!(bed.disk()[..MIB as usize], vec![0xff; MIB as usize]);
    assert_eq!(bed.write_at(fh, MIB, &[2; 512]), Ok(512));
    assert_eq!(bed.disk()[..MIB as usize], vec![0; MIB as usize]);
    bed.core.release(other);
    bed.core.release(fh);
    bed.end();
}

/// Writes that come while the zeros before one of them are written must not be zeroed by them.
#[test]
fn writes_during_the_zeros_of_a_truncation_are_kept() {
    let bed = Bed::new();
    bed.fill(0xff);
    let ino = bed.ino("1.0/data").unwrap();
    let fh = bed.try_open("1.0/data", libc::O_WRONLY | libc::O_DIRECT).unwrap();
    assert_eq!(bed.truncate(ino, None, 0), Ok(()));
    let (tx, rx) = mpsc::channel();
    let mut image = vec![0; SIZE as usize];
    for n in (0..16u8).rev() {
        let offset = u64::from(n) * (SIZE / 16);
        let tx = tx.clone();
        bed.core.write(fh, offset, &[n + 1; 1024], false, move |written| tx.send(written).unwrap());
        image[offset as usize..offset as usize + 1024].fill(n + 1);
    }
    for _ in 0..16 {
        assert_eq!(rx.recv_timeout(crate::bed::PATIENCE).unwrap(), Ok(1024));
    }
    assert_eq!(bed.truncate(ino, Some(fh), SIZE), Ok(()));
    bed.core.release(fh);
    assert!(bed.disk() == image);
    bed.end();
}

#[test]
fn fallocate() {
    let bed = Bed::new();
    bed.fill(0xff);
    let fh = bed.open("1.0/data");
    assert_eq!(bed.fallocate(fh, 0, 0, SIZE), Ok(()));
    assert_eq!(bed.fallocate(fh, libc::FALLOC_FL_KEEP_SIZE, 0, 1), Ok(()));
    assert_eq!(bed.fallocate(fh, 0, SIZE - 1, 2), Err(Errno::ENOSPC));
    assert_eq!(bed.fallocate(fh, PUNCH, u64::MAX, 2), Err(Errno::ENOSPC));
    assert_eq!(bed.fallocate(fh, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 512), Err(Errno::EOPNOTSUPP));
    let mut image = bed.disk();
    for (mode, offset, len) in [
        (PUNCH, 4096, 8192),
        (PUNCH, 100_001, 3000),
        (PUNCH, 200_000, 3),
        (ZERO, MIB - 7, MIB + 9),
        (ZERO, 9, 2),
    ] {
        assert_eq!(bed.fallocate(fh, mode, offset, len), Ok(()), "{mode} {offset} {len}");
        image[offset as usize..(offset + len) as usize].fill(0);
    }
    assert!(bed.disk() == image);
    let page = bed.open("1.0/ctl");
    assert_eq!(bed.fallocate(page, 0, 0, 1), Err(Errno::EOPNOTSUPP));
    bed.core.release(page);
    bed.core.release(fh);
    bed.end();
}

/// A partition is its range of the disk, byte for byte, and touches nothing beside it.
#[test]
fn partitions_map_and_never_touch_a_neighbour() {
    let bed = Bed::new();
    bed.fill(0xaa);
    bed.echo("1.0/ctl", "part boot 8 24\n").unwrap();
    assert_eq!(bed.size("1.0/boot"), 16 * 512);
    let fh = bed.open("1.0/boot");
    let data: Vec<u8> = (0..16 * 512).map(|i| (i % 241) as u8).collect();
    assert_eq!(bed.write_at(fh, 0, &data), Ok(data.len() as u32));
    assert_eq!(bed.write_at(fh, 16 * 512 - 1, b"zz"), Ok(1), "cut at the partition's end");
    assert_eq!(bed.write_at(fh, 16 * 512, b"z"), Err(Errno::ENOSPC));
    assert_eq!(bed.read_at(fh, 16 * 512 - 2, 9).map(|end| end.len()), Ok(2));
    assert_eq!(bed.fallocate(fh, ZERO, 0, 16 * 512 + 1), Err(Errno::ENOSPC));
    assert_eq!(bed.truncate(bed.ino("1.0/boot").unwrap(), Some(fh), 16 * 512 + 1), Err(Errno::ENOSPC));
    let disk = bed.disk();
    assert!(disk[..8 * 512].iter().all(|&b| b == 0xaa) && disk[24 * 512..].iter().all(|&b| b == 0xaa));
    assert_eq!(disk[8 * 512..24 * 512 - 1], data[..16 * 512 - 1]);
    bed.core.release(fh);
    bed.end();
}

#[test]
fn a_deleted_partition_is_stale_also_when_its_name_comes_back() {
    let bed = Bed::new();
    bed.echo("1.0/ctl", "part p 0 8").unwrap();
    let old = bed.open("1.0/p");
    let ino = bed.ino("1.0/p").unwrap();
    assert_eq!(bed.write_at(old, 0, &[1; 512]), Ok(512));
    bed.echo("1.0/ctl", "delpart -f p\npart p 100 108").unwrap();
    assert_ne!(bed.ino("1.0/p").unwrap(), ino);
    assert_eq!(bed.read_at(old, 0, 512), Err(Errno::ESTALE));
    assert_eq!(bed.write_at(old, 0, &[9; 512]), Err(Errno::ESTALE));
    assert_eq!(bed.sync(old), Err(Errno::ESTALE));
    assert_eq!(bed.fallocate(old, ZERO, 0, 512), Err(Errno::ESTALE));
    assert_eq!(bed.truncate(ino, Some(old), 0), Err(Errno::ESTALE));
    assert_eq!(bed.core.stat(ino).unwrap().attr.size, 8 * 512, "the old inode keeps its size");
    assert_eq!(bed.core.open(ino, 1, 0).unwrap_err(), Errno::ESTALE);
    let disk = bed.disk();
    assert_eq!((disk[0], disk[100 * 512]), (1, 0));
    bed.core.release(old);
    bed.end();
}

/// A thread of another PID namespace shows as 0, and so do all others of such: a handle that is in use already must not
/// get a stranger's truncation.
#[test]
fn a_truncation_by_somebody_unseen_spares_handles_in_use() {
    let bed = Bed::new();
    bed.fill(0xff);
    let ino = bed.ino("1.0/data").unwrap();
    let open = || bed.core.open(ino, 0, libc::O_RDWR).unwrap().fh;
    let truncate = || Bed::wait(|answer| bed.core.set_size(ino, None, 0, 0, answer));
    let used = open();
    bed.read_at(used, 0, 512).unwrap();
    assert_eq!(truncate(), Ok(()), "truncate(2) by name");
    assert_eq!(bed.write_at(used, MIB, &[1; 512]), Ok(512));
    assert!(bed.disk()[..MIB as usize].iter().all(|&b| b == 0xff));
    let fresh = open();
    assert_eq!(truncate(), Ok(()));
    assert_eq!(bed.write_at(fresh, MIB, &[1; 512]), Ok(512));
    assert!(bed.disk()[..MIB as usize].iter().all(|&b| b == 0));
    bed.core.release(used);
    bed.core.release(fresh);
    bed.end();
}

/// What is read ahead: files that are read in sequence, but for O_DIRECT, `direct_io` and read-only mounts.
#[test]
fn files_that_are_read_in_sequence_are_read_ahead() {
    let served = |bed: &Bed, flags: i32| {
        let (fh, _) = crate::pages::opened(bed, "1.0/data", flags);
        for n in 0..20 {
            assert_eq!(bed.read_at(fh, n * 4096, 4096).map(|data| data.len()), Ok(4096));
        }
        bed.core.release(fh);
        let text = bed.cat("1.0/stats").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("read ahead served: "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let bed = Bed::with(|settings| settings.read_ahead = MIB);
    assert_eq!(served(&bed, libc::O_RDONLY | libc::O_DIRECT), 0);
    bed.echo("1.0/ctl", "direct_io on").unwrap();
    assert_eq!(served(&bed, libc::O_RDONLY), 0);
    bed.echo("1.0/ctl", "direct_io off").unwrap();
    assert!(served(&bed, libc::O_RDONLY) >= 10 * 4096);
    let fh = bed.open("1.0/data");
    bed.read_at(fh, 0, 4096).unwrap();
    bed.read_at(fh, 4096, 4096).unwrap();
    assert_eq!(bed.write_at(fh, 8192, &[9; 4096]), Ok(4096));
    assert_eq!(bed.read_at(fh, 8192, 4096), Ok(vec![9; 4096]));
    bed.core.release(fh);
    bed.end();
    for change in [|s: &mut Settings| s.read_only = true, |s: &mut Settings| s.read_ahead = 0] {
        let bed = Bed::with(|settings| {
            settings.read_ahead = MIB;
            change(settings);
        });
        assert_eq!(served(&bed, libc::O_RDONLY), 0);
        bed.end();
    }
}

/// A flush that failed reaches every handle that was open, on whatever name of the disk, once each, as Linux does it;
/// and nobody who opened later.
#[test]
fn sync_errors_reach_every_handle_once() {
    let bed = Bed::new();
    bed.echo("1.0/ctl", "part p 0 100\n").unwrap();
    let open = |name: &str| bed.try_open(name, libc::O_RDWR).unwrap();
    let (asks, beside, part) = (open("1.0/data"), open("1.0/data"), open("1.0/p"));
    assert_eq!([asks, beside, part].map(|fh| bed.sync(fh)), [Ok(()); 3]);
    let failing = |on| bed.target.unflushed.store(on, std::sync::atomic::Ordering::SeqCst);
    failing(true);
    assert_eq!(bed.sync(asks), Err(Errno::EIO));
    failing(false);
    let later = open("1.0/data");
    assert_eq!(bed.sync(later), Ok(()), "it was opened afterwards");
    assert_eq!(bed.sync(asks), Ok(()), "it has been told");
    assert_eq!([beside, part].map(|fh| bed.sync(fh)), [Err(Errno::EIO); 2]);
    assert_eq!([asks, beside, part, later].map(|fh| bed.sync(fh)), [Ok(()); 4], "once each");
    // A failed `flush` of the ctl file counts as well. What was not tried does not: nobody may wait here, and the
    // target is away.
    failing(true);
    bed.echo("1.0/ctl", "flush\n").unwrap();
    bed.eventually(|| bed.log().contains("flush: "));
    failing(false);
    assert_eq!([asks, later].map(|fh| bed.sync(fh)), [Err(Errno::EIO); 2]);
    let impatient = bed.try_open("1.0/data", libc::O_RDWR | libc::O_NONBLOCK).unwrap();
    bed.silence(true);
    bed.echo("1.0/ctl", "failio\n").unwrap();
    assert_eq!(bed.sync(impatient), Err(Errno::EIO));
    bed.silence(false);
    bed.eventually(|| bed.cat("1.0/ctl").unwrap().contains("state: up"));
    assert_eq!([asks, later].map(|fh| bed.sync(fh)), [Ok(()); 2]);
    [asks, beside, part, later, impatient].into_iter().for_each(|fh| bed.core.release(fh));
    bed.end();
}

/// The bytes of a write that is promised to be durable are flushed before it is answered: the kernel leaves that to us.
#[test]
fn sync_writes_are_flushed_before_they_are_answered() {
    let bed = Bed::new();
    let ino = bed.ino("1.0/data").unwrap();
    let flushes = || {
        let text = bed.cat("1.0/stats").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("flush requests: ").map(str::to_owned));
        line.unwrap().parse::<u64>().unwrap()
    };
    let fh = bed.try_open("1.0/data", libc::O_RDWR).unwrap();
    let durable = |offset, data: &[u8]| Bed::wait(|answer| bed.core.write(fh, offset, data, true, answer));
    assert_eq!(bed.write_at(fh, 0, &[1; 512]), Ok(512));
    assert_eq!(flushes(), 0);
    assert_eq!(durable(0, &[2; 512]), Ok(512));
    assert_eq!(flushes(), 1);
    // Behind a gap that a truncation owes.
    assert_eq!(bed.truncate(ino, Some(fh), 0), Ok(()));
    assert_eq!(durable(8192, &[3; 512]), Ok(512));
    assert_eq!(flushes(), 2);
    let failing = |on| bed.target.unflushed.store(on, std::sync::atomic::Ordering::SeqCst);
    failing(true);
    assert_eq!(durable(0, &[4; 512]), Err(Errno::EIO), "it is not durable");
    failing(false);
    assert_eq!(durable(0, &[4; 512]), Ok(512));
    assert_eq!(flushes(), 4);
    // What else changes bytes goes by how the file was opened.
    let sync = bed.try_open("1.0/data", libc::O_RDWR | libc::O_DSYNC).unwrap();
    assert_eq!(bed.fallocate(sync, ZERO, 0, 4096), Ok(()));
    assert_eq!(flushes(), 5);
    assert_eq!(bed.copy((fh, 0), (sync, MIB), 4096), Ok(4096));
    assert_eq!(flushes(), 6);
    assert_eq!(durable(SIZE, &[5; 512]), Err(Errno::ENOSPC));
    assert_eq!(flushes(), 6);
    bed.core.release(sync);
    bed.core.release(fh);
    bed.end();
}

/// The kernel counts what waits for the whole mount: where all together have many, a target that has many itself is
/// refused.
#[test]
fn bound_of_what_waits_for_all_targets() {
    let bed = Bed::with(|settings| settings.waiting_max = 96);
    let fh = bed.open("1.0/data");
    bed.silence(true);
    let (tx, rx) = mpsc::channel();
    let read = |n: u64| {
        let tx = tx.clone();
        bed.core.read(fh, n * 512, 512, Reader::Program, move |read| tx.send(read.map(<[u8]>::len)).unwrap());
    };
    (0..96).for_each(read);
    assert!(rx.try_recv().is_err());
    read(96);
    assert_eq!(rx.try_recv(), Ok(Err(Errno::EIO)));
    assert!(bed.log().contains("1.0 too many requests wait for all targets"), "{}", bed.log());
    bed.silence(false);
    for _ in 0..96 {
        assert_eq!(rx.recv_timeout(crate::bed::PATIENCE).unwrap(), Ok(512));
    }
    assert_eq!(bed.read_at(fh, 0, 512).map(|data| data.len()), Ok(512));
    bed.core.release(fh);
    bed.end();
}
