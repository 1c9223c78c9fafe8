//! `partscan`: declares the partitions that the disk's own table names.
//!
//! Each read is submitted where the one before it is answered, so that no thread waits for a scan and any number of
//! them may be under way: a rack of targets that appears at once costs one read each. A scan has 10 s
//! (docs/design.md#deadlines), also under `nofail`; its end or the alarm answers, whichever comes first. The table is
//! declared as a whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Handle, Io, Output, PartError, Scanned};
use crate::fs::answer::Answer;
use crate::fs::context::{Context, Pending};
use crate::fs::ctl::CtlError;
use crate::fs::errno::{self, Errno};
use crate::parttable::{Entry, Scan, Verdict, Want};
use crate::runtime::Unit;
use crate::wire::SECTOR;

/// The time that one scan may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is said of a disk without partitions.
const NO_TABLE: &str =
    "no partition table, or an empty one; write one with sfdisk, or declare partitions with part";

/// A scan under way.
struct Run {
    context: Arc<Context>,
    unit: Arc<Unit>,
    /// The disk that it is about.
    place: Handle,
    waiting: Arc<Pending<(), CtlError>>,
}

/// Reads the table of the disk and declares its partitions.
pub fn scan(context: &Arc<Context>, unit: &Arc<Unit>, answer: impl Answer<(), CtlError>) {
    let (place, size) = context.runtime.inspect(unit, |device| (device.handle(None), device.size()));
    let late = CtlError::new(Errno::ETIMEDOUT, "no answer within 10 s");
    let waiting = Pending::new(&context.runtime, Some(PATIENCE), answer, late);
    let run = Arc::new(Run { context: context.clone(), unit: unit.clone(), place, waiting });
    run.step(Scan::new(size / SECTOR as u64));
}

/// With `-o partscan`, scans a disk that is new here. It is no error if the disk has no table.
pub fn scan_unasked(context: &Arc<Context>, unit: &Arc<Unit>) {
    if !context.settings.partscan {
        return;
    }
    let (own, addr) = (context.clone(), unit.addr);
    scan(context, unit, move |done| match done {
        Err(error) if error.errno != Errno::ENOENT => {
            own.runtime.log().warn("partscan", Some(addr), format_args!("partscan: {error}"));
        }
        _ => {}
    });
}

impl Run {
    /// Asks for what the scan wants next, or ends with what it found.
    fn step(self: Arc<Self>, mut scan: Scan) {
        let (at, count) = match scan.want() {
            Want::Read { at, count } => (at, count),
            Want::End(verdict) => return self.end(|run| run.judge(verdict)),
        };
        if self.waiting.is_over() {
            return;
        }
        // The offset of every sector that AoE can address fits in 64 bits.
        let io = Io::Read { offset: at.bytes().unwrap_or(u64::MAX), len: count as usize * SECTOR };
        let (context, unit, place) = (self.context.clone(), self.unit.clone(), self.place);
        // The scan does not wait for a target that is away by now.
        context.submit(&unit, place, true, io, move |outcome| match outcome {
            Ok(Output::Data(data)) => {
                scan.feed(&data);
                self.step(scan);
            }
            other => self.end(|_| {
                let errno = other.map_or_else(Errno::from, |_| Errno::EIO);
                Err(CtlError::new(errno, format!("sector {at}: {}", errno::words(errno))))
            }),
        });
    }

    /// Answers. A scan that took too long declares no partition.
    fn end(&self, result: impl FnOnce(&Run) -> Result<(), CtlError>) {
        self.waiting.give_with(|| result(self));
    }

    fn judge(&self, verdict: &Verdict) -> Result<(), CtlError> {
        match verdict {
            Verdict::Found(entries) => self.declare(entries),
            // Partitions of an earlier table must not stay: their sectors may be another partition's soon.
            Verdict::Nothing => self.declare(&[]).and_then(|()| Err(CtlError::new(Errno::ENOENT, NO_TABLE))),
            Verdict::Refused(reason) => Err(CtlError::new(Errno::EINVAL, reason.clone())),
        }
    }

    fn declare(&self, entries: &[Entry]) -> Result<(), CtlError> {
        let context = &self.context;
        let declared = context.runtime.with_device(&self.unit, |device, _, _| {
            if device.handle(None) != self.place {
                return Err(CtlError::new(Errno::ESTALE, "another disk by now"));
            }
            let table: Vec<Scanned> = entries.iter().map(scanned).collect();
            let place = |id| Handle { part: Some(id), ..self.place };
            let in_use = |id| context.tree.is_open(self.unit.id, place(id));
            device.follow_table(&table, in_use).map_err(|(name, error)| {
                let why = match error {
                    PartError::Exists => format!("part has given it another range; delpart {name} first"),
                    PartError::Busy => "it would go, and it is open; close it first".into(),
                    error => errno::words(error.into()),
                };
                CtlError::new(error.into(), format!("{name}: {why}"))
            })
        });
        context.refresh(&self.unit);
        declared?;
        if entries.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = entries.iter().map(Entry::name).collect();
        context.runtime.log().log(
            "partscan",
            Some(self.unit.addr),
            format_args!("partscan: {}", names.join(" ")),
        );
        Ok(())
    }
}

fn scanned(entry: &Entry) -> Scanned {
    Scanned { name: entry.name(), start: entry.start.0, end: entry.end.0 }
}
