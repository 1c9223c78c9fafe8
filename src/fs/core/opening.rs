//! Opening and closing. Where the target is down it is asked, and the open waits for a moment, for the target may be
//! back already.
//!
//! The open travels with the question. Its answer is given by the thread that sees the target come up, or by an alarm.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fuser::FopenFlags;
use parking_lot::Mutex;

use super::Core;
use crate::fs::answer::Answer;
use crate::fs::context::Pending;
use crate::fs::errno::Errno;
use crate::fs::file::{Mode, OpenFile, Verbs, verb};
use crate::runtime::{Unit, UnitId};

/// How long an open waits for a target that is down. The promise is a second, and a target is asked twice within this.
const PATIENCE: Duration = Duration::from_millis(900);

/// An open that waits, and its file.
struct Waiter {
    pending: Arc<Pending<Opened>>,
    ino: u64,
    pid: u32,
    flags: i32,
}

/// The opens that wait, by target.
#[derive(Default)]
pub(super) struct Openings(Mutex<HashMap<UnitId, Vec<Waiter>>>);

impl Openings {
    /// Drops all of them: the session has ended.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }

    /// Forgets the opens of a target that are answered.
    fn tidy(&self, id: UnitId) {
        let mut all = self.0.lock();
        if let Some(waiters) = all.get_mut(&id) {
            waiters.retain(|waiter| !waiter.pending.is_over());
            if waiters.is_empty() {
                all.remove(&id);
            }
        }
    }
}

/// The answer to open(2).
#[derive(Debug)]
pub struct Opened {
    /// The number of the open file.
    pub fh: u64,
    /// How the kernel is to treat it.
    pub flags: FopenFlags,
}

impl Core {
    /// Opens a file now: ENXIO if that needs a target that is up.
    pub fn open(&self, ino: u64, pid: u32, flags: i32) -> Result<Opened, Errno> {
        let (fh, mode) = (self.handles.draw(), Mode::new(flags));
        let file = OpenFile::open(&self.context, &self.node(ino)?, fh, mode)?;
        let flags = verb!(file.flags());
        self.add(fh, ino, pid, mode.write, file);
        Ok(Opened { fh, flags })
    }

    /// The file is open from now on.
    pub(super) fn add(&self, fh: u64, ino: u64, pid: u32, write: bool, file: OpenFile) {
        self.handles.insert(fh, ino, pid, write, file);
        self.context.open_files.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes a file or a directory. The kernel has waited for its requests.
    pub fn release(&self, fh: u64) {
        if let Some(file) = self.handles.close(fh) {
            self.context.open_files.fetch_sub(1, Ordering::Relaxed);
            verb!(file.close());
        }
    }

    /// Opens a file. If its target is down, the answer is given once the target is up, or is ENXIO after a second. With
    /// O_NONBLOCK it is given at once.
    pub fn open_when_up(self: &Arc<Self>, ino: u64, pid: u32, flags: i32, answer: impl Answer<Opened>) {
        let opened = self.open(ino, pid, flags);
        let unit = match &opened {
            Err(errno) if *errno == Errno::ENXIO => {
                self.node(ino).and_then(|node| self.context.unit_of(&node))
            }
            _ => return answer(opened),
        };
        let Ok(unit) = unit else { return answer(opened) };
        if Mode::new(flags).nonblock {
            self.context.runtime.with_device(&unit, |device, now, sink| device.revive(now, sink));
            return answer(opened);
        }
        if !self.context.runtime.with_device(&unit, |device, now, sink| device.await_return(now, sink)) {
            // The target is up again already, or the mount ends.
            return answer(self.open(ino, pid, flags));
        }
        let (core, own) = (self.clone(), unit.clone());
        let answer = move |opened| {
            core.context.runtime.with_device(&own, |device, _, _| device.opening_over());
            core.openings.tidy(own.id);
            answer(opened);
        };
        let pending = Pending::new(&self.context.runtime, Some(PATIENCE), answer, Errno::ENXIO);
        self.openings.0.lock().entry(unit.id).or_default().push(Waiter { pending, ino, pid, flags });
        // The target may have answered before the open was in the table.
        self.open_waiting(&unit);
    }

    /// The target is up: the opens that wait for it are done.
    pub(super) fn open_waiting(&self, unit: &Unit) {
        if !self.context.runtime.inspect(unit, |device| device.is_up()) {
            return;
        }
        let waiters = self.openings.0.lock().remove(&unit.id).unwrap_or_default();
        for Waiter { pending, ino, pid, flags } in waiters {
            pending.give_with(|| self.open(ino, pid, flags));
        }
    }
}
