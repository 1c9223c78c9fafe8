//! An answer that is given once: by the thread that has done the work, or by an alarm when the work takes too long.
//!
//! Each operation that has several steps, or that waits for more than the target, has one of these. The steps that are
//! still to come ask whether it is over.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Context;
use crate::engine::Time;
use crate::fs::answer::Answer;
use crate::fs::errno::Errno;
use crate::runtime::{Alarm, Runtime, Unit};

/// How much later than the deadline of its target an answer may come: the error of the last step comes at the deadline
/// itself, and the pages that the step may have changed are dropped before it is given. DEADLINE promises 250 ms.
const GRACE: Duration = Duration::from_millis(100);

type Given<T, E> = Box<dyn FnOnce(Result<T, E>) + Send>;

/// An answer that is still to be given.
pub struct Pending<T, E = Errno> {
    /// None: the answer was given.
    waiting: Mutex<Option<Waiting<T, E>>>,
}

/// The answer, and the alarm that gives it when it is late.
type Waiting<T, E> = (Given<T, E>, Option<Alarm>);

impl<T: Send + 'static, E: Send + 'static> Pending<T, E> {
    /// Gives `late` if nothing else was given after that time. Without a time it waits for ever.
    pub fn new(
        runtime: &Arc<Runtime>,
        after: Option<Duration>,
        answer: impl Answer<T, E>,
        late: E,
    ) -> Arc<Self> {
        let pending = Arc::new(Self { waiting: Mutex::new(None) });
        // Locked until both are there: else the alarm could come first and find no answer.
        let mut waiting = pending.waiting.lock();
        let own = pending.clone();
        let alarm = after.map(|after| runtime.alarm(after, move || own.give(Err(late))));
        *waiting = Some((Box::new(answer), alarm));
        drop(waiting);
        pending
    }

    /// Gives the answer, unless one was given.
    pub fn give(&self, result: Result<T, E>) {
        self.give_with(|| result);
    }

    /// Gives what `make` makes. It is not called if an answer was given already.
    pub fn give_with(&self, make: impl FnOnce() -> Result<T, E>) {
        let waiting = self.waiting.lock().take();
        if let Some((answer, _alarm)) = waiting {
            answer(make());
        }
    }

    /// Whether an answer was given.
    pub fn is_over(&self) -> bool {
        self.waiting.lock().is_none()
    }
}

impl Context {
    /// The time that is left until the deadline of an operation that began at `since`. None: it has no deadline, under
    /// `nofail`.
    pub fn time_left(&self, unit: &Unit, since: Time) -> Option<Duration> {
        let allowed = self.runtime.inspect(unit, |device| (!device.nofail()).then(|| device.deadline()))?;
        Some((since + allowed).since(self.runtime.now()))
    }

    /// How long the answer to an operation that began at `since` may wait for more than the target. None: for ever.
    pub fn patience(&self, unit: &Unit, since: Time) -> Option<Duration> {
        self.time_left(unit, since).map(|left| left + GRACE)
    }

    /// An answer that becomes EIO at the deadline of the target.
    pub fn pending<T: Send + 'static>(&self, unit: &Unit, answer: impl Answer<T>) -> Arc<Pending<T>> {
        let after = self.patience(unit, self.runtime.now());
        Pending::new(&self.runtime, after, answer, Errno::EIO)
    }
}
