//! The pages of disks that the kernel holds on a mount that can write, and how they are dropped.
//!
//! On such a mount every open disk goes past the page cache. But sendfile, splice and private mappings read through it;
//! their READs are those without an owner of locks. The bytes of such a READ are noted here before it is submitted, and
//! a change of the same bytes, by any of their names, is answered after the pages are dropped. The pages are clean, so
//! that nothing is ever written back, and no write has to wait for another one.
//!
//! **Why a page that was read before the change is always found.** Its READ was noted before it was submitted, and the
//! engine lets no read and write of the same bytes pass each other. A READ that was submitted after the change brings
//! the bytes that the change wrote.
//!
//! Dropping waits for pages that are being read, and a target that is away owes them until its deadline. So each target
//! has a thread of its own while there is something to drop, and an answer that must not come so late has an alarm.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Kernel;
use super::clean::{Clean, Name, PAGE, PageRange};
use crate::bug;
use crate::runtime::UnitId;

/// Called once the pages are gone: usually it is the reply to a write.
pub type Answer = Box<dyn FnOnce() + Send>;

/// How long a target's thread stays without work.
const IDLE: Duration = Duration::from_secs(5);

/// The stack of such a thread, in bytes. It makes small system calls and gives replies.
const STACK: usize = 128 << 10;

struct Task {
    /// The bytes of the whole disk that the pages may have.
    about: Range<u64>,
    drops: Vec<PageRange>,
    answer: Option<Answer>,
}

#[derive(Default)]
struct Queue {
    clean: Clean,
    tasks: VecDeque<Task>,
    /// The bytes of the task that is being done; the task is no longer in `tasks`.
    doing: Option<Range<u64>>,
    running: bool,
    closed: bool,
}

impl Queue {
    /// Whether pages of these bytes are being dropped, or will be.
    fn is_dropping(&self, bytes: &Range<u64>) -> bool {
        let mut about = self.doing.iter().chain(self.tasks.iter().map(|task| &task.about));
        about.any(|about| about.start < bytes.end && bytes.start < about.end)
    }

    /// True if a thread has to be started for it.
    fn push(&mut self, task: Task) -> bool {
        self.tasks.push_back(task);
        !std::mem::replace(&mut self.running, true)
    }
}

/// The pages of one target.
#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    more: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Lane {
    fn run(&self, kernel: &dyn Kernel) {
        let mut queue = self.queue.lock();
        loop {
            let Some(task) = queue.tasks.pop_front() else {
                let late = !queue.closed && self.more.wait_for(&mut queue, IDLE).timed_out();
                if queue.tasks.is_empty() && (late || queue.closed) {
                    queue.running = false;
                    return;
                }
                continue;
            };
            queue.doing = Some(task.about);
            drop(queue);
            bug::here("pages");
            for PageRange { ino, bytes } in task.drops {
                let len = if bytes.end == u64::MAX { 0 } else { bytes.end - bytes.start };
                kernel.drop_pages(ino, bytes.start, len);
            }
            self.queue.lock().doing = None;
            if let Some(answer) = task.answer {
                answer();
            }
            queue = self.queue.lock();
        }
    }
}

/// The pages of all targets.
pub struct Pages<K> {
    kernel: Arc<K>,
    lanes: Mutex<HashMap<UnitId, Arc<Lane>>>,
    /// How many lanes there are: where no program reads through the page cache, a write pays one load.
    used: AtomicUsize,
}

impl<K: Kernel + 'static> Pages<K> {
    /// The kernel holds none yet.
    pub fn new(kernel: K) -> Self {
        Self { kernel: Arc::new(kernel), lanes: Mutex::default(), used: AtomicUsize::new(0) }
    }

    fn lane(&self, unit: UnitId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(unit).or_default().clone();
        self.used.store(lanes.len(), Ordering::Release);
        lane
    }

    fn known(&self, unit: UnitId) -> Option<Arc<Lane>> {
        if self.used.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.lanes.lock().get(&unit).cloned()
    }

    /// The kernel is about to read pages: these bytes of the inode. Called before the read is submitted.
    pub fn note(&self, unit: UnitId, name: Name, bytes: Range<u64>) {
        self.lane(unit).queue.lock().clean.add(name, bytes);
    }

    /// These bytes of the target's whole disk may be different now. If the kernel holds no pages of them, `at_once` is
    /// called with `what`. Else `later` makes of it what a thread calls once they are dropped.
    pub fn drop_then<T>(
        &self,
        unit: UnitId,
        bytes: Range<u64>,
        what: T,
        at_once: impl FnOnce(T),
        later: impl FnOnce(T) -> Answer,
    ) {
        let Some(lane) = self.known(unit) else { return at_once(what) };
        let mut queue = lane.queue.lock();
        let drops = queue.clean.take(&bytes);
        // What is being dropped was read before: its turn comes first.
        if queue.closed || (drops.is_empty() && !queue.is_dropping(&bytes)) {
            drop(queue);
            return at_once(what);
        }
        // All under one lock: the next change of these bytes must find the pages either noted or among the tasks. Whole
        // pages go, and with them bytes beside these: a change of those waits for it as well.
        let about = bytes.start.saturating_sub(PAGE - 1)..bytes.end.saturating_add(PAGE - 1);
        let start = queue.push(Task { about, drops, answer: Some(later(what)) });
        drop(queue);
        self.go_on(&lane, start);
    }

    /// An inode is stale: drops all its pages, noted or not. No answer waits for it.
    pub fn drop_inode(&self, unit: UnitId, ino: u64) {
        let lane = self.lane(unit);
        let mut queue = lane.queue.lock();
        queue.clean.forget(ino);
        let drops = vec![PageRange { ino, bytes: 0..u64::MAX }];
        // No change of its bytes has to wait: the inode answers ESTALE by now.
        let start = queue.push(Task { about: 0..0, drops, answer: None });
        drop(queue);
        self.go_on(&lane, start);
    }

    fn go_on(&self, lane: &Arc<Lane>, start: bool) {
        lane.more.notify_one();
        if start {
            self.start(lane);
        }
    }

    fn start(&self, lane: &Arc<Lane>) {
        let (kernel, own) = (self.kernel.clone(), lane.clone());
        let named = std::thread::Builder::new().name("aoefs-pages".into()).stack_size(STACK);
        match named.spawn(move || own.run(kernel.as_ref())) {
            Ok(thread) => *lane.thread.lock() = Some(thread),
            Err(error) => {
                // No write may be answered while its old bytes can still be read.
                log::error!("no thread to drop pages with: {error}; what waits for it ends by its deadline");
                lane.queue.lock().running = false;
            }
        }
    }

    /// The kernel has forgotten an inode, and its pages with it.
    pub fn forget_inode(&self, unit: UnitId, ino: u64) {
        if let Some(lane) = self.known(unit) {
            lane.queue.lock().clean.forget(ino);
        }
    }

    /// The target is known no more: its thread ends when it has nothing left to drop.
    pub fn forget_unit(&self, unit: UnitId) {
        let mut lanes = self.lanes.lock();
        let lane = lanes.remove(&unit);
        self.used.store(lanes.len(), Ordering::Release);
        drop(lanes);
        if let Some(lane) = lane {
            lane.queue.lock().closed = true;
            lane.more.notify_one();
        }
    }

    /// Ends all threads, after their work. The kernel must have let go of the mount, or be about to answer.
    pub fn close(&self) {
        let lanes: Vec<Arc<Lane>> = self.lanes.lock().drain().map(|(_, lane)| lane).collect();
        for lane in &lanes {
            lane.queue.lock().closed = true;
            lane.more.notify_one();
        }
        for lane in lanes {
            let thread = lane.thread.lock().take();
            if let Some(thread) = thread {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests;
