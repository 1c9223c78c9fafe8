//! A thread that does jobs one after the other.

use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};
use parking_lot::Mutex;

/// A job for the thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// Has a thread that starts with the first job: there must be no threads while privileges are still to be dropped.
pub struct Worker {
    name: &'static str,
    thread: Mutex<Option<(Sender<Job>, JoinHandle<()>)>>,
}

impl Worker {
    /// Its thread will have that name.
    pub fn new(name: &'static str) -> Self {
        Self { name, thread: Mutex::default() }
    }

    /// Does a job after those before it. If no thread can be started the job is dropped, and the log says so.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let (jobs, inbox) = unbounded::<Job>();
            let body = move || inbox.into_iter().for_each(|job| job());
            match std::thread::Builder::new().name(self.name.into()).spawn(body) {
                Ok(started) => *thread = Some((jobs, started)),
                Err(error) => return log::error!("no thread {}: {error}", self.name),
            }
        }
        if let Some((jobs, _)) = thread.as_ref() {
            // The thread ends only after the sender is gone.
            let _ = jobs.send(Box::new(job));
        }
    }

    /// Ends the thread, after the jobs before.
    pub fn close(&self) {
        let thread = self.thread.lock().take();
        if let Some((jobs, thread)) = thread {
            drop(jobs);
            let _ = thread.join();
        }
    }
}
