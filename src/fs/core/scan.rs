//! `partscan`: reading a disk's partition table, away from every thread that serves requests.
//!
//! A scan is a chain of reads, each of which depends on the one before; so it runs on a thread of its own, of which
//! there are a few at most, and only while there is something to scan.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Core;
use crate::engine::{Handle, Io, Output, Time};
use crate::fs::ctl::CtlError;
use crate::fs::errno::{self, Errno};
use crate::fs::partscan::{Entry, Refused, scan};
use crate::runtime::Unit;
use crate::wire::SECTOR;

/// What one scan may take, `nofail` or not (design.md §3).
const PATIENCE: Duration = Duration::from_secs(10);

/// Scans at a time: a rack of targets that appears at once must not become a rack of threads, and a dead target must
/// not hold up all others.
const THREADS: usize = 4;

type Answer = Box<dyn FnOnce(Result<(), CtlError>) + Send>;

struct Scan {
    unit: Arc<Unit>,
    answer: Answer,
}

#[derive(Default)]
struct Queue {
    scans: VecDeque<Scan>,
    threads: usize,
}

/// Scans that wait, and how many threads work on them.
#[derive(Default)]
pub(super) struct Scans(Mutex<Queue>);

impl Core {
    /// Declares what the disk's own table says.
    pub(super) fn partscan(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        answer: impl FnOnce(Result<(), CtlError>) + Send + 'static,
    ) {
        let mut queue = self.scans.0.lock();
        queue.scans.push_back(Scan { unit: unit.clone(), answer: Box::new(answer) });
        if queue.threads == THREADS {
            return;
        }
        let core = self.clone();
        match std::thread::Builder::new().name("aoefs-partscan".into()).spawn(move || core.scan_queue()) {
            Ok(_) => queue.threads += 1,
            Err(_) if queue.threads > 0 => {}
            Err(error) => {
                let scans = std::mem::take(&mut queue.scans);
                drop(queue);
                for scan in scans {
                    (scan.answer)(Err(CtlError::new(Errno::EAGAIN, format!("no thread: {error}"))));
                }
            }
        }
    }

    /// A disk that was not there before, with `-o partscan`. That it has no table is nothing to report.
    pub(super) fn scan_unasked(self: &Arc<Self>, unit: &Arc<Unit>) {
        if !self.settings.partscan {
            return;
        }
        let (core, addr) = (self.clone(), unit.addr);
        self.partscan(unit, move |done| match done {
            Err(error) if error.errno != Errno::ENOENT => {
                core.runtime.log().log("partscan", Some(addr), format_args!("partscan: {error}"));
            }
            _ => {}
        });
    }

    fn scan_queue(self: &Arc<Self>) {
        loop {
            let mut queue = self.scans.0.lock();
            let Some(Scan { unit, answer }) = queue.scans.pop_front() else {
                queue.threads -= 1;
                return;
            };
            drop(queue);
            answer(self.scan(&unit));
        }
    }

    fn scan(self: &Arc<Self>, unit: &Arc<Unit>) -> Result<(), CtlError> {
        let (place, size) = self.runtime.look(unit, |device| (device.handle(None), device.size()));
        let until = self.runtime.now() + PATIENCE;
        let entries =
            scan(size / SECTOR as u64, |offset, len| self.read_now(unit, place, offset, len, until))
                .map_err(|refused| {
                    let errno = match refused {
                        Refused::Nothing => Errno::ENOENT,
                        Refused::Bad(_) => Errno::EINVAL,
                        Refused::Read(errno) => errno,
                    };
                    CtlError::new(errno, refused.to_string())
                })?;
        let declared = self.runtime.with_device(unit, |device, _, _| {
            if device.handle(None) != place {
                return Err(CtlError::new(Errno::ESTALE, "another disk by now"));
            }
            let before: Vec<String> = device.partitions().map(|part| part.name.clone()).collect();
            let mut names = Vec::with_capacity(entries.len());
            for Entry { number, start, end } in &entries {
                let name = format!("p{number}");
                if let Err(error) = device.add_partition(&name, *start, *end) {
                    // All of the table or nothing.
                    for new in names.iter().filter(|name| !before.contains(name)) {
                        let _ = device.delete_partition(new);
                    }
                    return Err(CtlError::new(
                        errno::of_part(error),
                        format!("{name} {start} {end}: refused"),
                    ));
                }
                names.push(name);
            }
            Ok(names)
        });
        self.refresh(unit);
        let names = declared?;
        self.runtime.log().log("partscan", Some(unit.addr), format_args!("partscan: {}", names.join(" ")));
        Ok(())
    }

    /// A read that is waited for, which only a thread may do that serves nobody.
    fn read_now(
        &self,
        unit: &Arc<Unit>,
        place: Handle,
        offset: u64,
        len: usize,
        until: Time,
    ) -> Result<Vec<u8>, Errno> {
        let (done, read) = mpsc::sync_channel(1);
        self.submit(unit, place, true, Io::Read { offset, len }, move |outcome| {
            // Nobody listens any more if it took too long.
            let _ = done.send(outcome.map(|output| match output {
                Output::Data(data) => data.to_vec(),
                _ => Vec::new(),
            }));
        });
        match read.recv_timeout(until.since(self.runtime.now())) {
            Ok(outcome) => outcome.map_err(errno::of),
            Err(_) => Err(Errno::ETIMEDOUT),
        }
    }
}
