//! Reading, writing, truncating, punching: `data` and partitions as a program sees them.

use std::sync::mpsc;

use aoefs::fs::core::{Reader, Settings};
use aoefs::fs::errno::Errno;

use crate::host::{Host, SIZE};

const MIB: u64 = 1 << 20;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

#[test]
fn bytes_come_back_and_the_end_is_the_end() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    assert_eq!(host.write_at(fh, 1000, b"hello"), Ok(5));
    assert_eq!(host.read_at(fh, 998, 9), Ok(b"\0\0hello\0\0".to_vec()));
    assert_eq!(host.write_at(fh, SIZE - 3, b"abcdef"), Ok(3), "cut at the end");
    assert_eq!(host.read_at(fh, SIZE - 3, 100), Ok(b"abc".to_vec()));
    assert_eq!(host.read_at(fh, SIZE, 100), Ok(Vec::new()));
    assert_eq!(host.write_at(fh, SIZE, b"x"), Err(Errno::ENOSPC));
    assert_eq!(host.write_at(fh, u64::MAX - 1, b"xyz"), Err(Errno::ENOSPC));
    assert_eq!(host.read_at(fh, u64::MAX - 1, 100), Ok(Vec::new()));
    assert_eq!(host.sync(fh), Ok(()));
    host.core.release(fh);
    assert_eq!(host.read_at(fh, 0, 1), Err(Errno::EBADF));
    host.end();
}

#[test]
fn truncation_succeeds_and_the_size_stays() {
    let host = Host::new();
    let ino = host.ino("1.0/data").unwrap();
    for size in [0, 1, SIZE] {
        assert_eq!(host.truncate(ino, None, size), Ok(()));
        assert_eq!(host.size("1.0/data"), SIZE);
    }
    assert_eq!(host.truncate(ino, None, SIZE + 1), Err(Errno::ENOSPC));
    host.end();
}

/// What cp does with a sparse image: open with O_TRUNC, write the data, seek over the holes, set the size.
#[test]
fn cp_of_a_sparse_image_over_a_full_disk_equals_the_image() {
    let host = Host::new();
    host.fill(0xff);
    let ino = host.ino("1.0/data").unwrap();
    let fh = host.try_open("1.0/data", libc::O_WRONLY).unwrap();
    assert_eq!(host.truncate(ino, None, 0), Ok(()));
    let mut image = vec![0; SIZE as usize];
    for (offset, len) in [(0, 4096), (100_000, 5000), (2 * MIB + 7, 300), (3 * MIB, 65536)] {
        let data: Vec<u8> = (0..len).map(|i| (i % 251) as u8 + 1).collect();
        assert_eq!(host.write_at(fh, offset, &data), Ok(len as u32));
        image[offset as usize..offset as usize + len].copy_from_slice(&data);
    }
    assert_eq!(host.truncate(ino, Some(fh), SIZE), Ok(()));
    host.core.release(fh);
    assert!(host.disk() == image);
    host.end();
}

/// Numbers of threads are used again: whoever truncates by name may have the number of a thread that has ended, and an
/// open file of that one's process must not be taken for its own.
#[test]
fn a_truncation_by_name_marks_no_open_file_that_was_used() {
    let host = Host::new();
    host.fill(0xff);
    let ino = host.ino("1.0/data").unwrap();
    for read in [false, true] {
        let fh = host.open("1.0/data");
        match read {
            true => drop(host.read_at(fh, 0, 512).unwrap()),
            false => drop(host.write_at(fh, 0, &[0xff; 512]).unwrap()),
        }
        assert_eq!(host.truncate(ino, None, 0), Ok(()));
        assert_eq!(host.write_at(fh, MIB, &[1; 512]), Ok(512));
        assert!(host.disk()[..MIB as usize].iter().all(|&byte| byte == 0xff), "read {read}: zeros");
        host.core.release(fh);
    }
    host.end();
}

#[test]
fn a_handle_that_did_not_truncate_zeroes_nothing() {
    let host = Host::new();
    host.fill(0xff);
    let ino = host.ino("1.0/data").unwrap();
    let other = host.open("1.0/data");
    let fh = host.open("1.0/data");
    assert_eq!(host.truncate(ino, None, 0), Ok(()), "belongs to the newest");
    assert_eq!(host.write_at(other, MIB, &[1; 512]), Ok(512));
    assert_eq!(host.disk()[..MIB as usize], vec![0xff; MIB as usize]);
    assert_eq!(host.write_at(fh, MIB, &[2; 512]), Ok(512));
    assert_eq!(host.disk()[..MIB as usize], vec![0; MIB as usize]);
    host.core.release(other);
    host.core.release(fh);
    host.end();
}

/// Writes that come while the zeros before one of them are written must not be zeroed by them.
#[test]
fn writes_during_the_zeros_of_a_truncation_are_kept() {
    let host = Host::new();
    host.fill(0xff);
    let ino = host.ino("1.0/data").unwrap();
    let fh = host.try_open("1.0/data", libc::O_WRONLY | libc::O_DIRECT).unwrap();
    assert_eq!(host.truncate(ino, None, 0), Ok(()));
    let (tx, rx) = mpsc::channel();
    let mut image = vec![0; SIZE as usize];
    for n in (0..16u8).rev() {
        let offset = u64::from(n) * (SIZE / 16);
        let tx = tx.clone();
        host.core.write(fh, offset, &[n + 1; 1024], false, move |written| tx.send(written).unwrap());
        image[offset as usize..offset as usize + 1024].fill(n + 1);
    }
    for _ in 0..16 {
        assert_eq!(rx.recv_timeout(crate::host::PATIENCE).unwrap(), Ok(1024));
    }
    assert_eq!(host.truncate(ino, Some(fh), SIZE), Ok(()));
    host.core.release(fh);
    assert!(host.disk() == image);
    host.end();
}

#[test]
fn fallocate() {
    let host = Host::new();
    host.fill(0xff);
    let fh = host.open("1.0/data");
    assert_eq!(host.fallocate(fh, 0, 0, SIZE), Ok(()));
    assert_eq!(host.fallocate(fh, libc::FALLOC_FL_KEEP_SIZE, 0, 1), Ok(()));
    assert_eq!(host.fallocate(fh, 0, SIZE - 1, 2), Err(Errno::ENOSPC));
    assert_eq!(host.fallocate(fh, PUNCH, u64::MAX, 2), Err(Errno::ENOSPC));
    assert_eq!(host.fallocate(fh, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 512), Err(Errno::EOPNOTSUPP));
    let mut image = host.disk();
    for (mode, offset, len) in [
        (PUNCH, 4096, 8192),
        (PUNCH, 100_001, 3000),
        (PUNCH, 200_000, 3),
        (ZERO, MIB - 7, MIB + 9),
        (ZERO, 9, 2),
    ] {
        assert_eq!(host.fallocate(fh, mode, offset, len), Ok(()), "{mode} {offset} {len}");
        image[offset as usize..(offset + len) as usize].fill(0);
    }
    assert!(host.disk() == image);
    let page = host.open("1.0/ctl");
    assert_eq!(host.fallocate(page, 0, 0, 1), Err(Errno::EOPNOTSUPP));
    host.core.release(page);
    host.core.release(fh);
    host.end();
}

/// A partition is its range of the disk, byte for byte, and touches nothing beside it.
#[test]
fn partitions_map_and_never_touch_a_neighbour() {
    let host = Host::new();
    host.fill(0xaa);
    host.echo("1.0/ctl", "part boot 8 24\n").unwrap();
    assert_eq!(host.size("1.0/boot"), 16 * 512);
    let fh = host.open("1.0/boot");
    let data: Vec<u8> = (0..16 * 512).map(|i| (i % 241) as u8).collect();
    assert_eq!(host.write_at(fh, 0, &data), Ok(data.len() as u32));
    assert_eq!(host.write_at(fh, 16 * 512 - 1, b"zz"), Ok(1), "cut at the partition's end");
    assert_eq!(host.write_at(fh, 16 * 512, b"z"), Err(Errno::ENOSPC));
    assert_eq!(host.read_at(fh, 16 * 512 - 2, 9).map(|end| end.len()), Ok(2));
    assert_eq!(host.fallocate(fh, ZERO, 0, 16 * 512 + 1), Err(Errno::ENOSPC));
    assert_eq!(host.truncate(host.ino("1.0/boot").unwrap(), Some(fh), 16 * 512 + 1), Err(Errno::ENOSPC));
    let disk = host.disk();
    assert!(disk[..8 * 512].iter().all(|&b| b == 0xaa) && disk[24 * 512..].iter().all(|&b| b == 0xaa));
    assert_eq!(disk[8 * 512..24 * 512 - 1], data[..16 * 512 - 1]);
    host.core.release(fh);
    host.end();
}

#[test]
fn a_deleted_partition_is_stale_also_when_its_name_comes_back() {
    let host = Host::new();
    host.echo("1.0/ctl", "part p 0 8").unwrap();
    let old = host.open("1.0/p");
    let ino = host.ino("1.0/p").unwrap();
    assert_eq!(host.write_at(old, 0, &[1; 512]), Ok(512));
    host.echo("1.0/ctl", "delpart -f p\npart p 100 108").unwrap();
    assert_ne!(host.ino("1.0/p").unwrap(), ino);
    assert_eq!(host.read_at(old, 0, 512), Err(Errno::ESTALE));
    assert_eq!(host.write_at(old, 0, &[9; 512]), Err(Errno::ESTALE));
    assert_eq!(host.sync(old), Err(Errno::ESTALE));
    assert_eq!(host.fallocate(old, ZERO, 0, 512), Err(Errno::ESTALE));
    assert_eq!(host.truncate(ino, Some(old), 0), Err(Errno::ESTALE));
    assert_eq!(host.core.stat(ino).unwrap().attr.size, 8 * 512, "the old inode keeps its size");
    assert_eq!(host.core.open(ino, 1, 0).unwrap_err(), Errno::ESTALE);
    let disk = host.disk();
    assert_eq!((disk[0], disk[100 * 512]), (1, 0));
    host.core.release(old);
    host.end();
}

/// A thread of another PID namespace shows as 0, and so do all others of such: a handle that is in use already must not
/// get a stranger's truncation.
#[test]
fn a_truncation_by_somebody_unseen_spares_handles_in_use() {
    let host = Host::new();
    host.fill(0xff);
    let ino = host.ino("1.0/data").unwrap();
    let open = || host.core.open(ino, 0, libc::O_RDWR).unwrap().fh;
    let truncate = || Host::wait(|answer| host.core.set_size(ino, None, 0, 0, answer));
    let used = open();
    host.read_at(used, 0, 512).unwrap();
    assert_eq!(truncate(), Ok(()), "truncate(2) by name");
    assert_eq!(host.write_at(used, MIB, &[1; 512]), Ok(512));
    assert!(host.disk()[..MIB as usize].iter().all(|&b| b == 0xff));
    let fresh = open();
    assert_eq!(truncate(), Ok(()));
    assert_eq!(host.write_at(fresh, MIB, &[1; 512]), Ok(512));
    assert!(host.disk()[..MIB as usize].iter().all(|&b| b == 0));
    host.core.release(used);
    host.core.release(fresh);
    host.end();
}

/// One of two programs of another PID namespace has opened with O_TRUNC, and nobody can tell which: the wrong one's
/// later write would fill the disk up to there with zeros.
#[test]
fn a_truncation_by_one_of_two_unseen_is_refused() {
    let host = Host::new();
    host.fill(0xff);
    let ino = host.ino("1.0/data").unwrap();
    let open = || host.core.open(ino, 0, libc::O_RDWR).unwrap().fh;
    let truncate = || Host::wait(|answer| host.core.set_size(ino, None, 0, 0, answer));
    let files = [open(), open()];
    assert_eq!(truncate(), Err(Errno::EBUSY));
    assert_eq!(host.write_at(files[1], MIB, &[1; 512]), Ok(512));
    assert_eq!(truncate(), Ok(()), "only the first can be meant");
    let third = open();
    assert_eq!(truncate(), Ok(()), "the first had its truncation");
    assert!(host.disk()[..MIB as usize].iter().all(|&b| b == 0xff));
    for (fh, zeros) in [(files[0], MIB), (third, 2 * MIB)] {
        assert_eq!(host.write_at(fh, zeros, &[1; 512]), Ok(512));
        assert!(host.disk()[..zeros as usize].iter().all(|&b| b == 0), "up to {zeros}");
    }
    for fh in files.into_iter().chain([third]) {
        host.core.release(fh);
    }
    host.end();
}

/// What is read ahead: files that are read in sequence, but for O_DIRECT, `direct_io` and read-only mounts.
#[test]
fn files_that_are_read_in_sequence_are_read_ahead() {
    let served = |host: &Host, flags: i32| {
        let (fh, _) = crate::pages::opened(host, "1.0/data", flags);
        for n in 0..20 {
            assert_eq!(host.read_at(fh, n * 4096, 4096).map(|data| data.len()), Ok(4096));
        }
        host.core.release(fh);
        let text = host.cat("1.0/stats").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("read ahead served: "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let host = Host::with(|settings| settings.read_ahead = MIB);
    assert_eq!(served(&host, libc::O_RDONLY | libc::O_DIRECT), 0);
    host.echo("1.0/ctl", "direct_io on").unwrap();
    assert_eq!(served(&host, libc::O_RDONLY), 0);
    host.echo("1.0/ctl", "direct_io off").unwrap();
    assert!(served(&host, libc::O_RDONLY) >= 10 * 4096);
    let fh = host.open("1.0/data");
    host.read_at(fh, 0, 4096).unwrap();
    host.read_at(fh, 4096, 4096).unwrap();
    assert_eq!(host.write_at(fh, 8192, &[9; 4096]), Ok(4096));
    assert_eq!(host.read_at(fh, 8192, 4096), Ok(vec![9; 4096]));
    host.core.release(fh);
    host.end();
    for change in [|s: &mut Settings| s.read_only = true, |s: &mut Settings| s.read_ahead = 0] {
        let host = Host::with(|settings| {
            settings.read_ahead = MIB;
            change(settings);
        });
        assert_eq!(served(&host, libc::O_RDONLY), 0);
        host.end();
    }
}

/// A flush that failed reaches every handle that was open, on whatever name of the disk, once each, as Linux does it;
/// and nobody who opened later.
#[test]
fn sync_errors_reach_every_handle_once() {
    let host = Host::new();
    host.echo("1.0/ctl", "part p 0 100\n").unwrap();
    let open = |name: &str| host.try_open(name, libc::O_RDWR).unwrap();
    let (asks, beside, part) = (open("1.0/data"), open("1.0/data"), open("1.0/p"));
    assert_eq!([asks, beside, part].map(|fh| host.sync(fh)), [Ok(()); 3]);
    let failing = |on| host.target.unflushed.store(on, std::sync::atomic::Ordering::SeqCst);
    failing(true);
    assert_eq!(host.sync(asks), Err(Errno::EIO));
    failing(false);
    let later = open("1.0/data");
    assert_eq!(host.sync(later), Ok(()), "it was opened afterwards");
    assert_eq!(host.sync(asks), Ok(()), "it has been told");
    assert_eq!([beside, part].map(|fh| host.sync(fh)), [Err(Errno::EIO); 2]);
    assert_eq!([asks, beside, part, later].map(|fh| host.sync(fh)), [Ok(()); 4], "once each");
    // A failed `flush` of the ctl file counts as well. What was not tried does not: nobody may wait here, and the
    // target is away.
    failing(true);
    host.echo("1.0/ctl", "flush\n").unwrap();
    host.eventually(|| host.log().contains("flush: "));
    failing(false);
    assert_eq!([asks, later].map(|fh| host.sync(fh)), [Err(Errno::EIO); 2]);
    let impatient = host.try_open("1.0/data", libc::O_RDWR | libc::O_NONBLOCK).unwrap();
    host.silence(true);
    host.echo("1.0/ctl", "failio\n").unwrap();
    assert_eq!(host.sync(impatient), Err(Errno::EIO));
    host.silence(false);
    host.eventually(|| host.cat("1.0/ctl").unwrap().contains("state: up"));
    assert_eq!([asks, later].map(|fh| host.sync(fh)), [Ok(()); 2]);
    [asks, beside, part, later, impatient].into_iter().for_each(|fh| host.core.release(fh));
    host.end();
}

/// The bytes of a write that is promised to be durable are flushed before it is answered: the kernel leaves that to us.
#[test]
fn sync_writes_are_flushed_before_they_are_answered() {
    let host = Host::new();
    let ino = host.ino("1.0/data").unwrap();
    let flushes = || {
        let text = host.cat("1.0/stats").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("flush requests: ").map(str::to_owned));
        line.unwrap().parse::<u64>().unwrap()
    };
    let fh = host.try_open("1.0/data", libc::O_RDWR).unwrap();
    let durable = |offset, data: &[u8]| Host::wait(|answer| host.core.write(fh, offset, data, true, answer));
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Ok(512));
    assert_eq!(flushes(), 0);
    assert_eq!(durable(0, &[2; 512]), Ok(512));
    assert_eq!(flushes(), 1);
    // Behind a gap that a truncation owes.
    assert_eq!(host.truncate(ino, Some(fh), 0), Ok(()));
    assert_eq!(durable(8192, &[3; 512]), Ok(512));
    assert_eq!(flushes(), 2);
    let failing = |on| host.target.unflushed.store(on, std::sync::atomic::Ordering::SeqCst);
    failing(true);
    assert_eq!(durable(0, &[4; 512]), Err(Errno::EIO), "it is not durable");
    failing(false);
    assert_eq!(durable(0, &[4; 512]), Ok(512));
    assert_eq!(flushes(), 4);
    // What else changes bytes goes by how the file was opened.
    let sync = host.try_open("1.0/data", libc::O_RDWR | libc::O_DSYNC).unwrap();
    assert_eq!(host.fallocate(sync, ZERO, 0, 4096), Ok(()));
    assert_eq!(flushes(), 5);
    assert_eq!(host.copy((fh, 0), (sync, MIB), 4096), Ok(4096));
    assert_eq!(flushes(), 6);
    assert_eq!(durable(SIZE, &[5; 512]), Err(Errno::ENOSPC));
    assert_eq!(flushes(), 6);
    host.core.release(sync);
    host.core.release(fh);
    host.end();
}

/// The kernel counts what waits for the whole mount: where all together have many, a target that has many itself is
/// refused.
#[test]
fn bound_of_what_waits_for_all_targets() {
    let host = Host::with(|settings| settings.waiting_max = 96);
    let fh = host.open("1.0/data");
    host.silence(true);
    let (tx, rx) = mpsc::channel();
    let read = |n: u64| {
        let tx = tx.clone();
        host.core
            .read(fh, n * 512, 512, Reader::Program, move |read| tx.send(read.map(<[u8]>::len)).unwrap());
    };
    (0..96).for_each(read);
    assert!(rx.try_recv().is_err());
    read(96);
    assert_eq!(rx.try_recv(), Ok(Err(Errno::EIO)));
    assert!(host.log().contains("1.0 too many requests wait for all targets"), "{}", host.log());
    host.silence(false);
    for _ in 0..96 {
        assert_eq!(rx.recv_timeout(crate::host::PATIENCE).unwrap(), Ok(512));
    }
    assert_eq!(host.read_at(fh, 0, 512).map(|data| data.len()), Ok(512));
    host.core.release(fh);
    host.end();
}
