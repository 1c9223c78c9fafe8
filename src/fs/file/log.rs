//! The file `log`: the last events, and poll(2) for more.

use std::sync::Arc;

use fuser::{PollEvents, PollNotifier};
use parking_lot::Mutex;

use super::{READABLE, Reader, Verbs};
use crate::fs::answer::DataAnswer;
use crate::fs::context::Context;
use crate::runtime::events::Cursor;

/// An open `log`.
pub struct OpenLog {
    context: Arc<Context>,
    fh: u64,
    place: Mutex<Place>,
}

/// How far the program has read.
#[derive(Default)]
struct Place {
    /// The place in the log.
    cursor: Cursor,
    /// The offset after the last read: poll(2) does not say where the program will go on.
    next: u64,
}

impl OpenLog {
    /// Opens it under that number.
    pub fn open(context: &Arc<Context>, fh: u64) -> Arc<Self> {
        Arc::new(Self { context: context.clone(), fh, place: Mutex::default() })
    }
}

impl Verbs for OpenLog {
    fn read(self: &Arc<Self>, offset: u64, len: usize, _: Reader, answer: impl DataAnswer) {
        let mut place = self.place.lock();
        let bytes = self.context.runtime.log().read_at(&mut place.cursor, offset, len);
        place.next = offset + bytes.len() as u64;
        drop(place);
        answer(Ok(&bytes));
    }

    fn poll(&self, notifier: PollNotifier, schedule: bool) -> PollEvents {
        // Before the log is asked: so a line that comes in between wakes the program.
        if schedule {
            self.context.pollers.lock().insert(self.fh, notifier);
        }
        let place = self.place.lock();
        let more = self.context.runtime.log().has_news(&place.cursor, place.next);
        if more { READABLE } else { PollEvents::empty() }
    }

    fn close(self: &Arc<Self>) {
        self.context.pollers.lock().remove(&self.fh);
    }
}
