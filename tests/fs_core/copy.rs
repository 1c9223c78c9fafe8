//! copy_file_range(2) between names of the mount.

use std::time::{Duration, Instant};

use aoefs::fs::errno::Errno;

use crate::host::{Host, SIZE};

const MIB: u64 = 1 << 20;

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8 + 1).collect()
}

#[test]
fn copies_between_any_two_names_at_any_offset() {
    let host = Host::new();
    host.echo("1.0/ctl", "part a 8 4096\npart b 5000 8192").unwrap();
    let [data, a, b] = ["data", "a", "b"].map(|name| host.open(&format!("1.0/{name}")));
    let image = pattern(SIZE / 2);
    for n in 0..2 {
        host.write_at(data, n * MIB, &image[(n * MIB) as usize..((n + 1) * MIB) as usize]).unwrap();
    }
    let mut want = host.disk();
    let (a_at, b_at) = (8 * 512, 5000 * 512);
    for (from, from_at, to, to_at, len) in [
        ((data, 0), 0, (data, 3 * MIB), 3 * MIB, 4096),
        ((data, 7), 7, (b, 1001), b_at + 1001, 3000),
        ((a, 512), a_at + 512, (b, 9000), b_at + 9000, 70_001),
        ((b, 9000), b_at + 9000, (a, 3), a_at + 3, 513),
        ((a, 100), a_at + 100, (a, 5000), a_at + 5000, 4900),
    ] {
        assert_eq!(host.copy(from, to, len), Ok(len as u32), "{from:?} {to:?}");
        let (from, to, len) = (from_at as usize, to_at as usize, len as usize);
        want.copy_within(from..from + len, to);
        assert!(host.disk() == want, "{from} {to} {len}");
    }
    for fh in [data, a, b] {
        host.core.release(fh);
    }
    host.end();
}

#[test]
fn ends_overlaps_and_what_is_no_disk() {
    let host = Host::new();
    host.echo("1.0/ctl", "part a 8 16").unwrap();
    let [data, a, ctl] = ["data", "a", "ctl"].map(|name| host.open(&format!("1.0/{name}")));
    assert_eq!(host.copy((data, 0), (data, 2 * MIB), 2 * MIB), Ok(MIB as u32), "one request's worth");
    assert_eq!(host.copy((data, SIZE - 5), (data, 0), 100), Ok(5), "the source ends");
    assert_eq!(host.copy((data, SIZE), (data, 0), 100), Ok(0));
    assert_eq!(host.copy((data, u64::MAX), (data, 0), 100), Ok(0));
    assert_eq!(host.copy((data, 0), (data, SIZE - 7), 100), Ok(7), "the sink ends");
    assert_eq!(host.copy((data, 0), (data, SIZE), 1), Err(Errno::ENOSPC));
    assert_eq!(host.copy((data, 0), (data, 99), 100), Err(Errno::EINVAL));
    assert_eq!(
        host.copy((data, 8 * 512 + 99), (a, 0), 100),
        Err(Errno::EINVAL),
        "the same bytes, another name"
    );
    assert_eq!(host.copy((data, 8 * 512 + 100), (a, 0), 100), Ok(100));
    assert_eq!(host.copy((ctl, 0), (data, 0), 1), Err(Errno::EOPNOTSUPP));
    assert_eq!(host.copy((data, 0), (ctl, 0), 1), Err(Errno::EOPNOTSUPP));
    assert_eq!(host.copy((data, 0), (12345, 0), 1), Err(Errno::EBADF));
    host.echo("1.0/ctl", "delpart -f a").unwrap();
    assert_eq!(host.copy((a, 0), (data, 0), 1), Err(Errno::ESTALE));
    assert_eq!(host.copy((data, 0), (a, 0), 1), Err(Errno::ESTALE));
    for fh in [data, a, ctl] {
        host.core.release(fh);
    }
    host.end();
}

/// The copy is a write of its handle: what a truncation owes is zeroed first.
#[test]
fn a_copy_past_the_mark_zeroes_the_gap() {
    let host = Host::new();
    host.fill(0xff);
    let ino = host.ino("1.0/data").unwrap();
    let (source, sink) = (host.open("1.0/data"), host.open("1.0/data"));
    assert_eq!(host.truncate(ino, Some(sink), 512), Ok(()));
    assert_eq!(host.copy((source, 3 * MIB), (sink, MIB), 4096), Ok(4096));
    let disk = host.disk();
    assert!(disk[..512].iter().all(|&byte| byte == 0xff));
    assert!(disk[512..MIB as usize].iter().all(|&byte| byte == 0));
    assert!(disk[MIB as usize..].iter().all(|&byte| byte == 0xff));
    host.core.release(source);
    host.core.release(sink);
    host.end();
}

/// A read and a write: one deadline for both.
#[test]
fn deadline_of_a_copy() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    host.echo("1.0/ctl", "deadline 1").unwrap();
    host.page_in(fh, MIB, 4096).unwrap();
    host.told.lock_pages(true);
    let began = Instant::now();
    assert_eq!(host.copy((fh, 0), (fh, MIB), 4096), Err(Errno::EIO));
    assert!(began.elapsed() < Duration::from_millis(2250), "{:?}", began.elapsed());
    host.told.lock_pages(false);
    host.silence(true);
    let began = Instant::now();
    assert_eq!(host.copy((fh, 0), (fh, MIB), 4096), Err(Errno::EIO));
    assert!(began.elapsed() < Duration::from_millis(2250), "{:?}", began.elapsed());
    host.silence(false);
    host.core.release(fh);
    host.end();
}

#[test]
fn read_only_mounts_copy_nothing() {
    let host = Host::with(|settings| settings.read_only = true);
    let fh = host.try_open("1.0/data", libc::O_RDONLY).unwrap();
    assert_eq!(host.copy((fh, 0), (fh, MIB), 512), Err(Errno::EROFS));
    host.core.release(fh);
    host.end();
}
