//! Work that a signal asks for and that may wait for ever: reading a file on a dead file system, or a FIFO. It is done
//! on a thread of its own, so that signals are served meanwhile.
//!
//! Promises: [`Errand::run`] never waits; the work is never done twice at the same time; if it is asked for while it is
//! being done, it is done once more afterwards, since the file may have been read before it was changed.

use std::io;
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

/// Work to be done now and then.
pub struct Errand {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    state: Mutex<State>,
    work: Box<dyn Fn() + Send + Sync>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Running,
    /// Running, and asked for again.
    Again,
}

/// When the work is done that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It has begun.
    Begun,
    /// It is done once more when the present run has ended.
    Later,
}

impl Errand {
    /// An errand with its work, and the name of its thread.
    pub fn new(name: &'static str, work: impl Fn() + Send + Sync + 'static) -> Errand {
        Errand { shared: Arc::new(Shared { name, state: Mutex::new(State::Idle), work: Box::new(work) }) }
    }

    /// Asks for the work. An error means that no thread could be started.
    pub fn run(&self) -> io::Result<Asked> {
        let mut state = self.shared.state.lock();
        if *state != State::Idle {
            *state = State::Again;
            return Ok(Asked::Later);
        }
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name(shared.name.into()).spawn(move || shared.work())?;
        *state = State::Running;
        Ok(Asked::Begun)
    }
}

impl Shared {
    fn work(&self) {
        loop {
            (self.work)();
            let mut state = self.state.lock();
            if *state != State::Again {
                *state = State::Idle;
                return;
            }
            *state = State::Running;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn work_that_hangs_keeps_nobody_and_is_done_once_more_when_it_was_asked_for_again() {
        let (begun, has_begun) = channel();
        let (go, may_go) = channel::<()>();
        let may_go = Mutex::new(may_go);
        let errand = Errand::new("test", move || {
            begun.send(()).unwrap();
            may_go.lock().recv().unwrap();
        });
        assert_eq!(errand.run().unwrap(), Asked::Begun);
        has_begun.recv_timeout(SOON).unwrap();
        for _ in 0..3 {
            assert_eq!(errand.run().unwrap(), Asked::Later);
        }
        assert!(has_begun.try_recv().is_err(), "two at the same time");
        go.send(()).unwrap();
        has_begun.recv_timeout(SOON).unwrap();
        go.send(()).unwrap();
        // Three wishes came while it was at work; once more is enough for all of them.
        while *errand.shared.state.lock() != State::Idle {
            thread::yield_now();
        }
        assert!(has_begun.try_recv().is_err());
        assert_eq!(errand.run().unwrap(), Asked::Begun);
        has_begun.recv_timeout(SOON).unwrap();
        go.send(()).unwrap();
    }
}
