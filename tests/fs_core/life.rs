//! Targets that go away, come back, or come back as another disk.

use std::time::{Duration, Instant};

use aoefs::fs::core::Reader;
use aoefs::fs::errno::Errno;

use crate::host::{Host, SIZE};

#[test]
fn a_target_that_is_away_gives_errors_and_keeps_its_size() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    host.echo("1.0/ctl", "deadline 1").unwrap();
    host.silence(true);
    let start = Instant::now();
    assert_eq!(host.read_at(fh, 0, 4096), Err(Errno::EIO), "never a silent end of file");
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(1000 + 5 * 250), "{took:?}");
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Err(Errno::EIO));
    assert_eq!(host.sync(fh), Err(Errno::EIO));
    assert_eq!(
        (host.size("1.0/data"), host.core.stat(host.ino("1.0/data").unwrap()).unwrap().attr.size),
        (SIZE, SIZE)
    );
    for path in ["1.0/data", "1.0/config", "1.0/ident"] {
        assert_eq!(host.try_open(path, libc::O_RDONLY), Err(Errno::ENXIO), "{path}");
    }
    assert!(host.cat("1.0/ctl").unwrap().starts_with("state: down\nnopen: 1\n"));
    assert!(host.cat("ctl").unwrap().contains(" down\n"));
    host.silence(false);
    host.server.announce();
    host.eventually(|| host.cat("1.0/ctl").unwrap().starts_with("state: up\n"));
    assert_eq!(host.read_at(fh, 0, 4096).map(|bytes| bytes.len()), Ok(4096), "the same handle goes on");
    host.core.release(fh);
    host.end();
}

#[test]
fn names_answer_whatever_the_network_does() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    host.silence(true);
    host.core.read(fh, 0, 4096, Reader::Program, |_| ());
    let start = Instant::now();
    for _ in 0..100 {
        host.names("");
        host.names("1.0");
        host.size("1.0/data");
        host.cat("ctl").unwrap();
        host.cat("1.0/ctl").unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?} for 100 rounds", start.elapsed());
    assert_eq!(host.echo("ctl", "failio 1.0"), Ok(10));
    host.core.release(fh);
    host.silence(false);
    host.eventually(|| host.cat("1.0/ctl").unwrap().starts_with("state: up\n"));
    host.end();
}

#[test]
fn failio_frees_everybody_also_under_nofail() {
    let host = Host::new();
    host.echo("1.0/ctl", "nofail on").unwrap();
    let fh = host.open("1.0/data");
    host.silence(true);
    let (tx, rx) = std::sync::mpsc::channel();
    for n in 0..100 {
        let tx = tx.clone();
        host.core.write(fh, n * 512, &[1; 512], false, move |written| tx.send(written).unwrap());
    }
    std::thread::sleep(Duration::from_millis(50));
    assert!(rx.try_recv().is_err());
    host.echo("1.0/ctl", "failio").unwrap();
    for _ in 0..100 {
        assert_eq!(rx.recv_timeout(Duration::from_secs(1)).unwrap(), Err(Errno::EIO));
    }
    host.silence(false);
    host.eventually(|| host.try_open("1.0/data", 0).map(|fh| host.core.release(fh)).is_ok());
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Ok(512));
    host.core.release(fh);
    host.end();
}

#[test]
fn identity_another_disk_makes_every_handle_stale() {
    let host = Host::new();
    host.echo("1.0/ctl", "part boot 0 8").unwrap();
    let old = [host.open("1.0/data"), host.open("1.0/boot")];
    let inos = ["1.0/data", "1.0/boot"].map(|path| host.ino(path).unwrap());
    host.read_at(old[0], 0, 512).unwrap();
    host.swap("two", 4096);
    host.eventually(|| host.size("1.0/data") == 4096 * 512);
    for (fh, ino) in old.into_iter().zip(inos) {
        assert_eq!(host.read_at(fh, 0, 512), Err(Errno::ESTALE));
        assert_eq!(host.write_at(fh, 0, &[1; 512]), Err(Errno::ESTALE));
        assert_eq!(host.sync(fh), Err(Errno::ESTALE));
        // The kernel's pages of the old disk are gone, lest they be read as if they were of the new one.
        host.eventually(|| host.told.0.lock().contains(&(ino, Some((0, 0)))));
    }
    assert_eq!(host.core.stat(inos[0]).unwrap().attr.size, SIZE);
    assert_eq!(host.disks(), ["data"]);
    let new = host.open("1.0/data");
    assert_eq!(host.read_at(new, 0, 512), Ok(vec![0; 512]));
    for fh in [old[0], old[1], new] {
        host.core.release(fh);
    }
    host.end();
}

#[test]
fn a_grown_disk_is_taken_over_when_the_operator_asks() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    host.target.processor.lock().image_mut().resize(16384);
    host.echo("1.0/ctl", "identify").unwrap();
    host.eventually(|| host.size("1.0/data") == 16384 * 512);
    assert_eq!(host.write_at(fh, SIZE, &[1; 512]), Ok(512), "the same disk: the handle goes on");
    host.core.release(fh);
    host.end();
}

const FILES: [&str; 4] = ["1.0/data", "1.0/config", "1.0/ident", "1.0/raw"];

/// Opening a file of a target that is down waits for an answer of the target, and for a second at most; nobody else
/// waits.
#[test]
fn noblock_an_open_of_a_silent_target_ends_by_itself() {
    let host = Host::new();
    host.silence(true);
    host.echo("1.0/ctl", "failio").unwrap();
    let start = Instant::now();
    let opens = FILES.map(|path| host.open_when_up(path, libc::O_RDONLY));
    for _ in 0..20 {
        host.names("1.0");
        host.size("1.0/data");
        host.cat("1.0/ctl").unwrap();
        host.cat("1.0/stats").unwrap();
    }
    let names = start.elapsed();
    for (path, open) in FILES.iter().zip(opens) {
        assert_eq!(open.recv_timeout(Duration::from_secs(5)).unwrap(), Err(Errno::ENXIO), "{path}");
    }
    let took = start.elapsed();
    assert!(took > Duration::from_millis(500), "nothing was awaited: {took:?}");
    assert!(names < took, "names waited: {names:?} of {took:?}");
    let now = host.open_when_up("1.0/data", libc::O_RDONLY | libc::O_NONBLOCK);
    assert_eq!(now.try_recv(), Ok(Err(Errno::ENXIO)), "O_NONBLOCK waits for nothing");
    host.silence(false);
    host.end();
}

/// The target is back, and has not said so.
#[test]
fn return_an_open_finds_a_target_that_is_back() {
    let host = Host::new();
    host.silence(true);
    host.echo("1.0/ctl", "failio").unwrap();
    for path in FILES {
        // Until nobody asks any more.
        std::thread::sleep(Duration::from_millis(300));
        let early = host.open_when_up(path, libc::O_RDONLY);
        host.silence(false);
        let start = Instant::now();
        let fh = early.recv_timeout(Duration::from_secs(5)).unwrap().unwrap_or_else(|_| {
            loop {
                // A slow machine: the first one had waited for a second before the target was asked again.
                let again =
                    host.open_when_up(path, libc::O_RDONLY).recv_timeout(Duration::from_secs(5)).unwrap();
                match again {
                    Ok(fh) => break fh,
                    Err(errno) => assert!(start.elapsed() < Duration::from_secs(5), "{path}: {errno:?}"),
                }
            }
        });
        assert!(start.elapsed() < Duration::from_secs(5));
        host.core.release(fh);
        host.silence(true);
        host.echo("1.0/ctl", "failio").unwrap();
    }
    host.silence(false);
    host.eventually(|| host.cat("1.0/ctl").unwrap().starts_with("state: up\n"));
    host.end();
}
