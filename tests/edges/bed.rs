//! A namespace, its veth pair, and AoE frames to send through it.

use std::io::Write;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use aoefs::link::{Batch, Link, OutFrame, Received};
use nix::sched::{CloneFlags, unshare};

/// Longest time a test waits for something that should happen at once.
pub const SOON: Duration = Duration::from_secs(5);

/// Longest time a test takes, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `body` in a new network namespace, or says why it cannot.
pub fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        return skipped(test, "needs root, to make a network namespace");
    }
    let name = test.to_owned();
    let (done, finished) = mpsc::channel::<()>();
    let thread = thread::Builder::new().name(test.to_owned()).spawn(move || {
        // Dropped at the end of the thread, however it ends.
        let _done = done;
        // Of the calling thread only; what it starts inherits it.
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => body(),
            Err(error) => skipped(&name, &format!("no network namespace: {error}")),
        }
    });
    let hangs = finished.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
    assert!(!hangs, "{test} hangs");
    if let Err(panic) = thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// Says, past the harness, that a test did not run.
pub fn skipped(test: &str, why: &str) {
    // Past the test harness, which hides what passing tests print.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}

/// Runs `ip` in this thread's namespace.
pub fn ip(arguments: &str) {
    let out = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip (iproute2) runs");
    assert!(out.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&out.stderr));
}

/// The same where it may be that the kernel cannot.
pub fn ip_can(arguments: &str) -> bool {
    Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("ip (iproute2) runs")
        .status
        .success()
}

/// va and vb, joined, up and with carrier.
pub fn veth(mtu: usize) {
    ip(&format!("link add va mtu {mtu} type veth peer name vb mtu {mtu}"));
    ip("link set va up");
    ip("link set vb up");
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// An AoE frame of `len` bytes to `dst`, its body filled from the tag.
pub fn aoe(dst: [u8; 6], flags: u8, tag: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![tag as u8; len.max(24)];
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[0x88, 0xa2]);
    frame[14..20].copy_from_slice(&[0x10 | flags, 0, 0, 1, 0, 0]);
    frame[20..24].copy_from_slice(&tag.to_be_bytes());
    frame.truncate(len);
    frame
}

/// A response with a tag of ours: what an initiator's link lets in.
pub fn response(to: &dyn Link, n: u32, len: usize) -> Vec<u8> {
    aoe(to.mac().0, 0x08, 1 << 31 | n, len)
}

/// The number that [`response`] was given.
pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[20..24].try_into().unwrap()) & !(1 << 31)
}

/// Sends whole frames, all of which must be taken.
pub fn send_all(link: &dyn Link, frames: &[Vec<u8>]) {
    // Split where the header ends, as the engine's frames are.
    let out: Vec<_> = frames
        .iter()
        .map(|f| f.split_at(f.len().min(36)))
        .map(|(head, body)| OutFrame { head, body })
        .collect();
    let (taken, error) = link.send(&out);
    assert!(error.is_none() && taken == frames.len(), "{taken} of {}: {error:?}", frames.len());
}

/// Receives until `count` frames are there.
pub fn take(link: &dyn Link, batch: &mut Batch, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while frames.len() < count {
        assert_eq!(link.recv(batch).unwrap(), Received::Frames);
        frames.extend(batch.frames().map(<[u8]>::to_vec));
    }
    frames
}
