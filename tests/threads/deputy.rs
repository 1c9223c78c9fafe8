//! A thread that takes requests receives their answers, too, and never to anybody's harm.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use aoefs::engine::{Io, Outcome, Output};
use aoefs::runtime::Deputy;

use super::{Initiator, PATIENCE, pattern};

/// Requests for a session: a byte in the pipe for each that is in the queue.
struct Requests {
    from: File,
    to: File,
}

impl Requests {
    fn new() -> Requests {
        let (from, to) = nix::unistd::pipe().unwrap();
        Requests { from: from.into(), to: to.into() }
    }

    fn deputy(&self) -> Deputy {
        Deputy::new(self.from.try_clone().unwrap().into())
    }

    fn announce(&self) {
        (&self.to).write_all(&[0]).unwrap();
    }

    fn take(&self) {
        (&self.from).read_exact(&mut [0]).unwrap();
    }
}

/// Asks for 4 KiB at a multiple of it; the outcome comes with the thread that gave it.
fn ask(initiator: &Initiator, block: u64, to: Sender<(u64, Outcome, ThreadId)>) {
    initiator.submit(Io::Read { offset: block * 4096, len: 4096 }, move |outcome| {
        to.send((block, outcome, std::thread::current().id())).unwrap();
    });
}

/// Eight readers and a session: most answers are given by the session's thread, all are right and none is missing; then
/// one reader alone, whose answers the netlink's thread gives.
#[test]
fn a_deputy_receives_where_requests_queue_and_not_where_they_come_one_by_one() {
    const READS: u64 = 4000;
    let initiator = Initiator::new(9000);
    let disk = pattern(5, 1 << 20);
    initiator.write(0, &disk);
    for (readers, share) in [(8, 0.2..=1.0), (1, 0.0..=0.5)] {
        let requests = Requests::new();
        let deputy = requests.deputy();
        let (tx, rx) = channel();
        let here = std::thread::current().id();
        let by_deputy = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let (requests, disk, counter) = (&requests, &disk, by_deputy.clone());
            scope.spawn(move || {
                (0..readers).for_each(|_| requests.announce());
                for answered in 0..READS {
                    let (block, outcome, thread) = rx.recv_timeout(PATIENCE).expect("never answered");
                    let at = block as usize * 4096;
                    assert!(matches!(&outcome, Ok(Output::Data(data)) if data[..] == disk[at..at + 4096]));
                    counter.fetch_add(usize::from(thread == here), Ordering::Relaxed);
                    if answered + readers < READS {
                        requests.announce();
                    }
                }
            });
            for n in 0..READS {
                requests.take();
                ask(&initiator, n * 7 % 256, tx.clone());
                initiator.runtime.attend(&deputy);
            }
        });
        let by_deputy = by_deputy.load(Ordering::Relaxed) as f64 / READS as f64;
        assert!(share.contains(&by_deputy), "{readers} readers: {by_deputy}");
    }
    initiator.end();
}

/// A deputy that took the duty and went away without a word: the netlink's thread is back within milliseconds.
#[test]
fn a_deputy_that_stays_away_keeps_nobody_waiting() {
    let initiator = Initiator::new(9000);
    let requests = Requests::new();
    let deputy = requests.deputy();
    // There is always a next request, so that the deputy never looks for an answer.
    requests.announce();
    let (tx, rx) = channel();
    for n in 0..100 {
        ask(&initiator, n, tx.clone());
        initiator.runtime.attend(&deputy);
        let start = Instant::now();
        assert!(rx.recv_timeout(PATIENCE).expect("never answered").1.is_ok());
        // Promised are 4 ms; here are as many as a busy machine may take.
        assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());
    }
    initiator.end();
}

/// A deputy that finds the link down says so, and answers come when it is up again; one whose netlink is unbound is
/// free.
#[test]
fn a_deputy_survives_its_netlink() {
    let initiator = Initiator::new(1500);
    let requests = Requests::new();
    let deputy = requests.deputy();
    let (tx, rx) = channel();
    for _ in 0..20 {
        (0..8).for_each(|n| ask(&initiator, n, tx.clone()));
        initiator.near.set_up(false);
        initiator.runtime.attend(&deputy);
        let start = Instant::now();
        while initiator.runtime.netlinks()[0].up {
            assert!(start.elapsed() < PATIENCE, "nobody noticed that the link is down");
            std::thread::sleep(Duration::from_millis(1));
        }
        initiator.near.set_up(true);
        // As the watcher would.
        initiator.runtime.refresh_netlink("near").unwrap();
        for _ in 0..8 {
            assert!(rx.recv_timeout(PATIENCE).expect("never answered").1.is_ok());
        }
    }
    for n in 0..8 {
        ask(&initiator, n, tx.clone());
    }
    requests.announce();
    initiator.runtime.attend(&deputy);
    initiator.runtime.unbind("near").unwrap();
    let start = Instant::now();
    initiator.runtime.attend(&deputy);
    assert!(start.elapsed() < Duration::from_millis(500));
    initiator.runtime.stop();
    // Those that were not answered before failed as the runtime stopped; none twice.
    for _ in 0..8 {
        let _ = rx.recv_timeout(PATIENCE).expect("never answered");
    }
    assert!(rx.try_recv().is_err());
}
