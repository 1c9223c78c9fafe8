//! An answer that is given once: by whoever has done the work, or by an alarm when it takes too long.
//!
//! What consists of several steps, or has to wait for more than the target, is bounded by one of these; the steps that
//! are still to come ask whether it is over.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Context;
use crate::engine::Time;
use crate::fs::answer::Answer;
use crate::fs::errno::Errno;
use crate::runtime::{Alarm, Runtime, Unit};

/// What an answer may come later than the deadline of its target: the error of the last step comes at the deadline itself,
/// and the pages that it may have changed are dropped before it is given. DEADLINE promises 250 ms.
const GRACE: Duration = Duration::from_millis(100);

type Given<T, E> = Box<dyn FnOnce(Result<T, E>) + Send>;

/// See the module.
pub struct Pending<T, E = Errno> {
    /// Gone once it is given.
    waiting: Mutex<Option<Waiting<T, E>>>,
}

/// Who waits, and the alarm that goes with them.
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
        // Held until both are there, lest the alarm finds nobody waiting.
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
    /// What is left at this moment of the deadline of something that began at `since`. None under `nofail`: never.
    pub fn time_left(&self, unit: &Unit, since: Time) -> Option<Duration> {
        let allowed = self.runtime.look(unit, |device| (!device.nofail()).then(|| device.deadline()))?;
        Some((since + allowed).since(self.runtime.now()))
    }

    /// How long an answer to something that began at `since` may wait for more than the target.
    pub fn patience(&self, unit: &Unit, since: Time) -> Option<Duration> {
        self.time_left(unit, since).map(|left| left + GRACE)
    }

    /// An answer about a target's disk that is EIO by the target's deadline.
    pub fn pending<T: Send + 'static>(&self, unit: &Unit, answer: impl Answer<T>) -> Arc<Pending<T>> {
        let after = self.patience(unit, self.runtime.now());
        Pending::new(&self.runtime, after, answer, Errno::EIO)
    }
}
