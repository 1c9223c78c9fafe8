//! What the kernel may hold of a disk, and when it is told to let go.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use aoefs::fs::core::Reader;
use aoefs::fs::errno::Errno;
use fuser::FopenFlags;

use crate::host::{Host, PATIENCE, PID, SIZE};

const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

/// Past the page cache, and writers side by side.
const PAST: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// The kernel's flags of a file that is opened now, and its handle.
pub fn opened(host: &Host, path: &str, flags: i32) -> (u64, FopenFlags) {
    let opened = host.core.open(host.ino(path).unwrap(), PID, flags).unwrap();
    (opened.fh, opened.flags)
}

/// `direct_io` of a target holds for what is opened from then on, over silence and over `-o direct_io`.
#[test]
fn direct_io_is_a_targets_own_switch() {
    for of_the_mount in [false, true] {
        // Where nothing can be written, the kernel may cache what the switch does not forbid.
        let host = Host::with(|settings| {
            settings.uncached = of_the_mount;
            settings.read_only = true;
        });
        host.echo("1.0/ctl", "part a 8 16").unwrap();
        let check = |on: bool, after: &str| {
            for path in ["1.0/data", "1.0/a"] {
                for mode in [libc::O_RDONLY, libc::O_RDONLY | libc::O_DIRECT] {
                    let (fh, flags) = opened(&host, path, mode);
                    assert_eq!(flags, if on { PAST } else { FopenFlags::empty() }, "{path} {mode} {after}");
                    host.core.release(fh);
                }
            }
            let text = host.cat("1.0/ctl").unwrap();
            let flags = text.lines().find(|line| line.starts_with("flag:")).unwrap();
            assert_eq!(flags.ends_with(" jumbo direct_io"), on, "{flags} {after}");
            assert_eq!(text.matches("direct_io").count(), usize::from(on), "{text} {after}");
        };
        check(of_the_mount, "at the start");
        for (line, on) in [
            ("direct_io", !of_the_mount),
            ("direct_io", of_the_mount),
            ("direct_io on", true),
            ("direct_io on", true),
            ("direct_io off", false),
            ("direct_io off", false),
        ] {
            host.echo("1.0/ctl", line).unwrap();
            check(on, line);
        }
        host.echo("1.0/ctl", "direct_io").unwrap();
        assert_eq!(host.echo("1.0/ctl", "direct_io maybe"), Err(Errno::EINVAL));
        host.silence(true);
        host.echo("1.0/ctl", "failio").unwrap();
        host.eventually(|| host.cat("1.0/ctl").unwrap().starts_with("state: down\n"));
        host.silence(false);
        host.server.announce();
        host.eventually(|| host.cat("1.0/ctl").unwrap().starts_with("state: up\n"));
        check(true, "after silence");
        host.end();
    }
}

/// No page of a disk that can be written is ever dirty: whatever the name and the flags of open(2).
#[test]
fn every_handle_of_a_mount_that_can_write_goes_past_the_cache() {
    let host = Host::new();
    host.echo("1.0/ctl", "part a 8 16").unwrap();
    for path in ["1.0/data", "1.0/a"] {
        for access in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
            for more in [0, libc::O_DIRECT, libc::O_APPEND, libc::O_SYNC, libc::O_NONBLOCK, libc::O_TRUNC] {
                let (fh, flags) = opened(&host, path, access | more);
                assert_eq!(flags, PAST, "{path} {access} {more}");
                host.core.release(fh);
            }
        }
    }
    host.end();
}

/// What programs read is kept nowhere; what the kernel reads for its page cache is dropped under every name before a
/// change of it is answered.
#[test]
fn pages_of_every_name_are_dropped_before_a_change_is_answered() {
    let host = Host::new();
    host.echo("1.0/ctl", "part a 8 16\npart b 100 108\npart c 12 20").unwrap();
    let [data, a, b, c] = ["data", "a", "b", "c"].map(|name| host.open(&format!("1.0/{name}")));
    let [d_ino, a_ino, c_ino] = ["data", "a", "c"].map(|name| host.ino(&format!("1.0/{name}")).unwrap());
    for fh in [data, a, b, c] {
        host.read_at(fh, 0, 4096).unwrap();
    }
    assert_eq!(host.write_at(data, 8 * 512, &[1; 4096]), Ok(4096));
    assert_eq!(host.told(), [], "programs have read, and nobody else");
    for fh in [a, b] {
        host.page_in(fh, 0, 4096).unwrap();
    }
    assert_eq!(host.write_at(data, 10 * 512, &[2; 4096]), Ok(4096));
    assert_eq!(host.told(), [(a_ino, Some((0, 4096)))]);
    assert_eq!(host.write_at(data, 10 * 512, &[2; 4096]), Ok(4096));
    assert_eq!(host.told(), [], "they are gone");
    host.page_in(data, 0, 65536).unwrap();
    host.page_in(c, 0, 4096).unwrap();
    host.page_in(a, 0, 4096).unwrap();
    // Sectors 12 to 13 of the disk: in three names, the writer's own among them.
    assert_eq!(host.write_at(a, 2048, &[3; 512]), Ok(512));
    let mut want = [(d_ino, Some((4096, 4096))), (a_ino, Some((0, 4096))), (c_ino, Some((0, 4096)))];
    want.sort();
    assert_eq!(host.told(), want);
    for fh in [data, a, b, c] {
        host.core.release(fh);
    }
    host.end();
}

#[test]
fn zeroing_trimming_gaps_and_copies_are_changes_too() {
    let host = Host::new();
    host.echo("1.0/ctl", "part a 0 4096").unwrap();
    let (data, a) = (host.open("1.0/data"), host.open("1.0/a"));
    let (ino, a_ino) = (host.ino("1.0/data").unwrap(), host.ino("1.0/a").unwrap());
    let at = |offset: u64, len: u64| vec![(a_ino, Some((offset, len)))];
    let page_in = || host.page_in(a, 0, 1 << 20).map(|_| ()).unwrap();
    page_in();
    assert_eq!(host.fallocate(data, ZERO, 4096, 512), Ok(()));
    assert_eq!(host.told(), at(4096, 4096));
    page_in();
    assert_eq!(host.fallocate(data, PUNCH, 8192, 8192), Ok(()));
    assert_eq!(host.told(), at(8192, 8192));
    page_in();
    assert_eq!(host.copy((data, 2 << 20), (data, 40_960), 4096), Ok(4096));
    assert_eq!(host.told(), at(40_960, 4096));
    // A handle that truncated and writes past its mark: the gap, then the write.
    page_in();
    let cut = host.try_open("1.0/data", libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(host.truncate(ino, Some(cut), 4096), Ok(()));
    assert_eq!(host.write_at(cut, 12_288, &[5; 4096]), Ok(4096));
    assert_eq!(host.told(), [(a_ino, Some((4096, 8192))), (a_ino, Some((12_288, 4096)))]);
    page_in();
    assert_eq!(host.truncate(ino, Some(cut), 20_480), Ok(()));
    assert_eq!(host.told(), at(16_384, 4096));
    for fh in [data, a, cut] {
        host.core.release(fh);
    }
    host.end();
}

/// A write that failed may have been done: nobody must go on seeing what was there before.
#[test]
fn pages_are_dropped_also_when_the_change_failed() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    let ino = host.ino("1.0/data").unwrap();
    host.page_in(fh, 0, 8192).unwrap();
    host.silence(true);
    host.echo("1.0/ctl", "deadline 1").unwrap();
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Err(Errno::EIO));
    assert_eq!(host.told(), [(ino, Some((0, 4096)))]);
    assert_eq!(host.fallocate(fh, ZERO, 4096, 512), Err(Errno::EIO));
    assert_eq!(host.told(), [(ino, Some((4096, 4096)))]);
    host.silence(false);
    host.core.release(fh);
    host.end();
}

/// Pages that cannot be dropped, since a target owes them, hold up what waits for them only until the deadline; what
/// touches other pages, and other names, is not held up at all.
#[test]
fn deadline_of_a_write_that_waits_for_pages() {
    let host = Host::new();
    host.echo("1.0/ctl", "deadline 1").unwrap();
    let fh = host.open("1.0/data");
    host.page_in(fh, 0, 4096).unwrap();
    host.told.lock_pages(true);
    let began = Instant::now();
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Err(Errno::EIO));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_millis(2250), "{took:?}");
    assert_eq!(host.write_at(fh, 8192, &[1; 512]), Ok(512));
    assert_eq!(host.read_at(fh, 0, 1).unwrap(), [1], "it was done");
    host.told.lock_pages(false);
    host.core.release(fh);
    host.end();
}

/// Under nofail nothing ends but by the operator or the target.
#[test]
fn nofail_waits_for_pages() {
    let host = Host::new();
    host.echo("1.0/ctl", "deadline 1\nnofail on").unwrap();
    let fh = host.open("1.0/data");
    host.page_in(fh, 0, 4096).unwrap();
    host.told.lock_pages(true);
    let (tx, rx) = mpsc::channel();
    host.core.write(fh, 0, &[1; 512], false, move |written| tx.send(written).unwrap());
    assert!(rx.recv_timeout(Duration::from_millis(1500)).is_err());
    host.told.lock_pages(false);
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), Ok(512));
    host.core.release(fh);
    host.end();
}

/// At the end the kernel's reads fail first, and then the threads that drop pages are waited for: these wait for the
/// pages that are being read, and a target that is silent under nofail would owe them for ever.
#[test]
fn the_end_does_not_wait_for_pages_that_a_silent_target_owes() {
    let host = Host::new();
    host.echo("1.0/ctl", "nofail on").unwrap();
    let fh = host.open("1.0/data");
    host.page_in(fh, 0, 4096).unwrap();
    host.told.lock_pages(true);
    host.core.write(fh, 0, &[1; 512], false, |_| ());
    let unit = host.runtime.units().remove(0);
    host.eventually(|| host.runtime.inspect(&unit, |device| device.requests() == 0));
    host.silence(true);
    let told = host.told.clone();
    host.core.read(fh, 8192, 4096, Reader::PageCache, move |_| told.lock_pages(false));
    let (tx, rx) = mpsc::channel();
    let core = host.core.clone();
    std::thread::spawn(move || {
        core.close();
        tx.send(()).unwrap();
    });
    rx.recv_timeout(PATIENCE).unwrap();
    host.runtime.stop();
}

/// The gap of a write, and what waits for it on the same handle, end by the deadline, though each piece of the zeros
/// has a deadline of its own; the mark stays where the zeros have come to.
#[test]
fn deadline_of_zeros_is_one_for_all_pieces() {
    let host = Host::new();
    host.fill(0xff);
    host.echo("1.0/ctl", "deadline 1").unwrap();
    let ino = host.ino("1.0/data").unwrap();
    for call in ["write", "truncate", "fallocate"] {
        let fh = host.open("1.0/data");
        assert_eq!(host.truncate(ino, Some(fh), 0), Ok(()));
        // Every piece is written at once, and its pages are dropped 400 ms later: 4 pieces take 1.6 s.
        for n in 0..4 {
            host.page_in(fh, n << 20, 4096).unwrap();
        }
        host.told.slow(Duration::from_millis(400));
        let began = Instant::now();
        let (tx, rx) = mpsc::channel();
        let late = tx.clone();
        let answer = move |done: Result<(), Errno>| tx.send((done, began.elapsed())).unwrap();
        let end = SIZE - 512;
        match call {
            "write" => host.core.write(fh, end, &[7; 512], false, move |done| answer(done.map(|_| ()))),
            "truncate" => host.core.set_size(ino, Some(fh), PID, end, answer),
            _ => host.core.fallocate(fh, 0, SIZE, ZERO, answer),
        }
        // Behind the zeros on the same handle.
        if call != "fallocate" {
            let answer =
                move |done: Result<u32, Errno>| late.send((done.map(|_| ()), began.elapsed())).unwrap();
            host.core.write(fh, 0, &[8; 512], false, answer);
        } else {
            late.send((Err(Errno::EIO), Duration::from_secs(1))).unwrap();
        }
        for _ in 0..2 {
            let (done, took) = rx.recv_timeout(PATIENCE).unwrap();
            assert_eq!(done, Err(Errno::EIO), "{call}");
            let wanted = Duration::from_millis(900)..Duration::from_millis(2250);
            assert!(wanted.contains(&took), "{call}: {took:?}");
        }
        host.told.slow(Duration::ZERO);
        // The run ends with the piece that it was at.
        host.eventually(|| host.sync(fh) == Ok(()));
        if call != "fallocate" {
            assert_eq!(host.disk()[SIZE as usize - 1], 0xff, "{call}: it was answered before it was begun");
            // What the zeros owe is still owed.
            assert_eq!(host.write_at(fh, SIZE - 512, &[7; 512]), Ok(512));
            assert!(host.disk()[..SIZE as usize - 512].iter().all(|&byte| byte == 0), "{call}");
        }
        host.core.release(fh);
        host.fill(0xff);
    }
    host.end();
}

/// A read of a program that is in flight leaves nothing behind.
#[test]
fn inodes_that_the_kernel_forgot_have_no_pages() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    let ino = host.ino("1.0/data").unwrap();
    host.page_in(fh, 0, 4096).unwrap();
    host.core.forget(ino, 100);
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Ok(512));
    assert_eq!(host.told(), []);
    host.core.release(fh);
    host.end();
}

/// A mount that cannot write notes no pages, and drops those of a disk that went.
#[test]
fn read_only_mounts_drop_what_is_stale() {
    let host = Host::with(|settings| settings.read_only = true);
    host.echo("1.0/ctl", "part a 8 16").unwrap();
    let a = host.try_open("1.0/a", libc::O_RDONLY).unwrap();
    let ino = host.ino("1.0/a").unwrap();
    host.page_in(a, 0, 4096).unwrap();
    host.echo("1.0/ctl", "delpart -f a").unwrap();
    host.eventually(|| host.told.0.lock().contains(&(ino, Some((0, 0)))));
    host.core.read(a, 0, 512, Reader::PageCache, |read| assert_eq!(read, Err(Errno::ESTALE)));
    host.core.release(a);
    host.end();
}
