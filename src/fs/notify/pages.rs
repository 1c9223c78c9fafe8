//! Keeping the names of one disk coherent: a write through one is answered after the pages of the others are gone.
//!
//! `data` and the partitions are inodes of their own, each with its own page cache. Each target has a *lane*: a queue
//! and, while there is something to do, a thread that drops pages and then gives the answer.
//!
//! **Why it cannot lock up.** A buffered write keeps pages of its own inode locked until it is answered. Two writes of
//! the same bytes through two names would wait for each other's pages for ever. So a write whose own pages are wanted
//! by something that is in the lane already is answered at once, and its drops follow behind. Whatever is first in a
//! lane then waits only for reads, which end by their deadline, and for writes that are not completed yet: those will
//! find themselves wanted. Between two such writes, which are concurrent, the one that was answered early is seen by
//! readers of the other name as soon as the other is answered, a few microseconds later.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Kernel;
use crate::runtime::UnitId;

/// What is told once the pages are gone: usually the reply to a write.
pub type Answer = Box<dyn FnOnce() + Send>;

/// The largest stretch of pages that the kernel locks as one, in bytes: a huge page. FUSE uses 4 KiB today.
const FOLIO: u64 = 2 << 20;

/// How long a lane's thread stays without work.
const IDLE: Duration = Duration::from_secs(5);

/// The stack of a lane's thread, in bytes. It calls ioctl-sized code and a reply.
const STACK: usize = 128 << 10;

/// Pages to drop: of which inode, which bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageRange {
    /// The inode.
    pub ino: u64,
    /// The bytes; up to `u64::MAX` means to the end.
    pub bytes: Range<u64>,
}

/// The write that causes the drops: which of its own pages the kernel keeps locked until it is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// Its inode.
    pub ino: u64,
    /// Its bytes.
    pub bytes: Range<u64>,
}

struct Task {
    drops: Vec<PageRange>,
    answer: Option<Answer>,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    /// The drops of the task that is being done; they are no longer in `tasks`.
    doing: Vec<PageRange>,
    running: bool,
    closed: bool,
}

impl Queue {
    /// Whether something in the lane waits for pages of this write, or will.
    fn wants(&self, write: &Write) -> bool {
        let around =
            write.bytes.start / FOLIO * FOLIO..write.bytes.end.saturating_add(FOLIO - 1) / FOLIO * FOLIO;
        let hit = |drop: &PageRange| {
            drop.ino == write.ino && drop.bytes.start < around.end && around.start < drop.bytes.end
        };
        self.doing.iter().chain(self.tasks.iter().flat_map(|task| &task.drops)).any(hit)
    }
}

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
            queue.doing = task.drops;
            let drops = queue.doing.clone();
            drop(queue);
            for PageRange { ino, bytes } in &drops {
                let len = if bytes.end == u64::MAX { 0 } else { bytes.end - bytes.start };
                kernel.drop_pages(*ino, bytes.start, len);
            }
            // Only after the answer may a write of the same pages wait for us again.
            if let Some(answer) = task.answer {
                answer();
            }
            queue = self.queue.lock();
            queue.doing.clear();
        }
    }
}

/// The lanes of all targets.
pub struct Pages<K> {
    kernel: Arc<K>,
    lanes: Mutex<HashMap<UnitId, Arc<Lane>>>,
}

impl<K: Kernel + 'static> Pages<K> {
    /// No lanes yet; they come with their first work.
    pub fn new(kernel: K) -> Self {
        Self { kernel: Arc::new(kernel), lanes: Mutex::default() }
    }

    /// Drops pages, then answers. `write`, if the caller has pages locked until then. Returns at once.
    pub fn drop_then(&self, unit: UnitId, drops: Vec<PageRange>, write: Option<Write>, answer: Answer) {
        if drops.is_empty() {
            return answer();
        }
        let lane = self.lanes.lock().entry(unit).or_default().clone();
        let mut queue = lane.queue.lock();
        if queue.closed {
            drop(queue);
            return answer();
        }
        let at_once = write.is_some_and(|write| queue.wants(&write));
        let (now, later) = if at_once { (Some(answer), None) } else { (None, Some(answer)) };
        queue.tasks.push_back(Task { drops, answer: later });
        let start = !queue.running;
        queue.running = true;
        drop(queue);
        lane.more.notify_one();
        if start {
            self.start(&lane);
        }
        if let Some(answer) = now {
            answer();
        }
    }

    /// Drops pages that nobody waits for: those of a disk that was replaced.
    pub fn drop_soon(&self, unit: UnitId, drops: Vec<PageRange>) {
        self.drop_then(unit, drops, None, Box::new(|| ()));
    }

    fn start(&self, lane: &Arc<Lane>) {
        let (kernel, own) = (self.kernel.clone(), lane.clone());
        let named = std::thread::Builder::new().name("aoefs-pages".into()).stack_size(STACK);
        match named.spawn(move || own.run(kernel.as_ref())) {
            Ok(thread) => *lane.thread.lock() = Some(thread),
            Err(error) => {
                // Stale pages under another name are bad; a write that is never answered is worse.
                log::error!("no thread to drop pages with: {error}");
                let mut queue = lane.queue.lock();
                queue.running = false;
                let answers: Vec<Answer> = queue.tasks.drain(..).filter_map(|task| task.answer).collect();
                drop(queue);
                answers.into_iter().for_each(|answer| answer());
            }
        }
    }

    /// The target is known no more: its lane ends when it is empty.
    pub fn forget_unit(&self, unit: UnitId) {
        let lane = self.lanes.lock().remove(&unit);
        if let Some(lane) = lane {
            lane.queue.lock().closed = true;
            lane.more.notify_one();
        }
    }

    /// Ends all lanes, after their work. The kernel must have let go of the mount, or be about to answer.
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
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    const U: UnitId = UnitId(0);

    /// A kernel with one lock a page, as buffered writes hold them.
    #[derive(Default)]
    struct Fake {
        dropped: Mutex<Vec<(u64, u64, u64)>>,
        locked: Mutex<Vec<u64>>,
        unlocked: Condvar,
    }

    impl Fake {
        fn lock(&self, ino: u64) {
            self.locked.lock().push(ino);
        }

        fn unlock(&self, ino: u64) {
            self.locked.lock().retain(|&locked| locked != ino);
            self.unlocked.notify_all();
        }
    }

    impl Kernel for Arc<Fake> {
        fn drop_pages(&self, ino: u64, offset: u64, len: u64) {
            let mut locked = self.locked.lock();
            while locked.contains(&ino) {
                self.unlocked.wait(&mut locked);
            }
            self.dropped.lock().push((ino, offset, len));
        }

        fn drop_attributes(&self, _: u64) {}
    }

    fn pages() -> (Arc<Fake>, Pages<Arc<Fake>>) {
        let fake = Arc::new(Fake::default());
        (fake.clone(), Pages::new(fake))
    }

    fn at(ino: u64, bytes: Range<u64>) -> PageRange {
        PageRange { ino, bytes }
    }

    fn write(ino: u64, bytes: Range<u64>) -> Option<Write> {
        Some(Write { ino, bytes })
    }

    fn eventually(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(10), "it never came");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_answer_comes_after_the_pages_are_gone() {
        let (fake, pages) = pages();
        let seen = Arc::new(AtomicUsize::new(usize::MAX));
        let (s, f) = (seen.clone(), fake.clone());
        let answer = Box::new(move || s.store(f.dropped.lock().len(), Ordering::SeqCst));
        pages.drop_then(U, vec![at(2, 0..512), at(3, 512..u64::MAX)], write(1, 0..512), answer);
        eventually(|| seen.load(Ordering::SeqCst) == 2);
        assert_eq!(*fake.dropped.lock(), [(2, 0, 512), (3, 512, 0)]);
        pages.close();
    }

    #[test]
    fn nothing_to_drop_is_answered_by_the_caller() {
        let (_, pages) = pages();
        let here = std::thread::current().id();
        let answer = Box::new(move || assert_eq!(std::thread::current().id(), here));
        pages.drop_then(U, Vec::new(), None, answer);
        assert!(pages.lanes.lock().is_empty());
    }

    /// Two buffered writes of the same bytes through two names: each holds its own page and wants the other's.
    #[test]
    fn two_names_written_at_once_do_not_wait_for_each_other() {
        for _ in 0..200 {
            let (fake, pages) = pages();
            let pages = Arc::new(pages);
            let done = Arc::new(AtomicUsize::new(0));
            fake.lock(1);
            fake.lock(2);
            let threads: Vec<_> = [(1, 2), (2, 1)]
                .into_iter()
                .map(|(own, other)| {
                    let (fake, pages, done) = (fake.clone(), pages.clone(), done.clone());
                    std::thread::spawn(move || {
                        let answer = Box::new(move || {
                            fake.unlock(own);
                            done.fetch_add(1, Ordering::SeqCst);
                        });
                        pages.drop_then(U, vec![at(other, 0..4096)], write(own, 0..4096), answer);
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            eventually(|| done.load(Ordering::SeqCst) == 2);
            pages.close();
            assert_eq!(fake.dropped.lock().len(), 2, "both drops happen all the same");
        }
    }

    #[test]
    fn writes_elsewhere_keep_their_order_of_drop_and_answer() {
        let (fake, pages) = pages();
        fake.lock(2);
        let early = Arc::new(AtomicUsize::new(0));
        pages.drop_then(U, vec![at(2, 0..4096)], write(1, 0..4096), Box::new(|| ()));
        let e = early.clone();
        // Through the name whose pages are wanted, but far from them: it has to wait for its turn.
        let far = 10 * FOLIO;
        let answer = Box::new(move || {
            e.fetch_add(1, Ordering::SeqCst);
        });
        pages.drop_then(U, vec![at(1, far..far + 512)], write(2, far..far + 512), answer);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(early.load(Ordering::SeqCst), 0);
        fake.unlock(2);
        eventually(|| early.load(Ordering::SeqCst) == 1);
        pages.close();
    }

    #[test]
    fn one_target_does_not_delay_another() {
        let (fake, pages) = pages();
        fake.lock(2);
        pages.drop_soon(U, vec![at(2, 0..4096)]);
        let done = Arc::new(AtomicUsize::new(0));
        let d = done.clone();
        let answer = Box::new(move || d.store(1, Ordering::SeqCst));
        pages.drop_then(UnitId(1), vec![at(9, 0..4096)], None, answer);
        eventually(|| done.load(Ordering::SeqCst) == 1);
        fake.unlock(2);
        pages.forget_unit(U);
        pages.forget_unit(U);
        pages.close();
    }
}
