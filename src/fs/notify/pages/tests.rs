use std::time::Instant;

use super::*;

const U: UnitId = UnitId(0);
const V: UnitId = UnitId(1);

/// A kernel whose pages of an inode can be locked, as pages are that are being read.
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

const DATA: Name = Name { ino: 1, start: 0 };
const PART: Name = Name { ino: 2, start: 8192 };

/// Counts the answers that it gives.
fn count(n: &Arc<AtomicUsize>) -> impl FnOnce() + Send + use<> {
    let n = n.clone();
    move || {
        n.fetch_add(1, Ordering::SeqCst);
    }
}

/// Drops, then answers.
fn change(pages: &Pages<Arc<Fake>>, unit: UnitId, bytes: Range<u64>, answer: impl FnOnce() + Send + 'static) {
    pages.drop_then(unit, bytes, answer, |answer| answer(), |answer| Box::new(answer));
}

fn eventually(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came");
        std::thread::yield_now();
    }
}

#[test]
fn the_answer_comes_after_the_pages_of_every_name_are_gone() {
    let (fake, pages) = pages();
    pages.note(U, DATA, 8192..16384);
    pages.note(U, PART, 0..4096);
    let seen = Arc::new(AtomicUsize::new(usize::MAX));
    let (s, f) = (seen.clone(), fake.clone());
    let answer = move || s.store(f.dropped.lock().len(), Ordering::SeqCst);
    change(&pages, U, 8192..8704, answer);
    eventually(|| seen.load(Ordering::SeqCst) == 2);
    let mut dropped = fake.dropped.lock().clone();
    dropped.sort();
    assert_eq!(dropped, [(1, 8192, 4096), (2, 0, 4096)]);
    pages.close();
}

#[test]
fn what_nobody_holds_is_answered_by_the_caller() {
    let (fake, pages) = pages();
    let here = std::thread::current().id();
    let at_once = move || assert_eq!(std::thread::current().id(), here);
    change(&pages, U, 0..512, at_once);
    pages.note(U, DATA, 0..4096);
    change(&pages, U, 4096..8192, at_once);
    change(&pages, V, 0..512, at_once);
    pages.forget_inode(U, DATA.ino);
    change(&pages, U, 0..512, at_once);
    pages.close();
    assert!(fake.dropped.lock().is_empty());
}

#[test]
fn what_was_dropped_is_not_dropped_again() {
    let (fake, pages) = pages();
    let answered = Arc::new(AtomicUsize::new(0));
    pages.note(U, DATA, 0..1 << 20);
    for _ in 0..3 {
        change(&pages, U, 512..1024, count(&answered));
    }
    eventually(|| answered.load(Ordering::SeqCst) == 3);
    assert_eq!(*fake.dropped.lock(), [(1, 0, 4096)]);
    pages.close();
}

/// A second write of bytes whose pages are still being dropped must not be answered before they are gone.
#[test]
fn a_change_of_what_is_being_dropped_waits_for_it() {
    let (fake, pages) = pages();
    let answered = Arc::new(AtomicUsize::new(0));
    fake.lock(DATA.ino);
    pages.note(U, DATA, 0..4096);
    change(&pages, U, 0..512, count(&answered));
    change(&pages, U, 0..512, count(&answered));
    std::thread::sleep(Duration::from_millis(20));
    // Also once the first of them is being done.
    change(&pages, U, 100..200, count(&answered));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(answered.load(Ordering::SeqCst), 0);
    fake.unlock(DATA.ino);
    eventually(|| answered.load(Ordering::SeqCst) == 3);
    pages.close();
}

/// A page has eight sectors: a write of another one of them finds the page taken out, and it is not gone yet.
#[test]
fn a_change_beside_what_is_being_dropped_waits_for_the_page() {
    for beside in [8192 + 512..8192 + 1024, 8192 + 3584..8192 + 4096, 8192..8192 + 1] {
        let (fake, pages) = pages();
        let answered = Arc::new(AtomicUsize::new(0));
        fake.lock(PART.ino);
        // The page of the partition is bytes 8192 to 12288 of the disk.
        pages.note(U, PART, 0..4096);
        change(&pages, U, 8192 + 2048..8192 + 2560, count(&answered));
        change(&pages, U, beside.clone(), count(&answered));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(answered.load(Ordering::SeqCst), 0, "{beside:?}");
        fake.unlock(PART.ino);
        eventually(|| answered.load(Ordering::SeqCst) == 2);
        pages.close();
    }
}

#[test]
fn pages_that_were_read_while_others_were_dropped_are_known() {
    let (fake, pages) = pages();
    let answered = Arc::new(AtomicUsize::new(0));
    fake.lock(DATA.ino);
    pages.note(U, DATA, 0..4096);
    change(&pages, U, 0..512, count(&answered));
    std::thread::sleep(Duration::from_millis(20));
    pages.note(U, DATA, 0..4096);
    fake.unlock(DATA.ino);
    eventually(|| answered.load(Ordering::SeqCst) == 1);
    change(&pages, U, 0..512, count(&answered));
    eventually(|| answered.load(Ordering::SeqCst) == 2);
    assert_eq!(*fake.dropped.lock(), [(1, 0, 4096), (1, 0, 4096)]);
    pages.close();
}

#[test]
fn one_target_does_not_delay_another() {
    let (fake, pages) = pages();
    fake.lock(DATA.ino);
    pages.note(U, DATA, 0..4096);
    pages.drop_inode(U, DATA.ino);
    let answered = Arc::new(AtomicUsize::new(0));
    pages.note(V, Name { ino: 9, start: 0 }, 0..4096);
    change(&pages, V, 0..512, count(&answered));
    eventually(|| answered.load(Ordering::SeqCst) == 1);
    fake.unlock(DATA.ino);
    pages.forget_unit(U);
    pages.forget_unit(U);
    pages.close();
    // Nobody waits for the thread of a target that was forgotten.
    eventually(|| *fake.dropped.lock() == [(9, 0, 4096), (1, 0, 0)]);
}
