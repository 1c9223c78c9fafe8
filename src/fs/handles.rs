//! The numbers of open files.
//!
//! The kernel carries a number for each open file. Numbers count up and are never used again, so that a late or forged
//! one finds nothing. The table's lock is held for the lookup only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

/// One open file.
struct Handle<F> {
    /// Its inode.
    ino: u64,
    /// The thread that opened it; 0 if that is in another PID namespace.
    pid: u32,
    /// It may be written to.
    write: bool,
    file: F,
}

/// All open files.
pub struct Handles<F> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Handle<F>>>,
}

impl<F> Default for Handles<F> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: RwLock::default() }
    }
}

/// More than one open file may be meant.
#[derive(Debug, Eq, PartialEq)]
pub struct Ambiguous;

impl<F: Clone> Handles<F> {
    /// A number that no file has had.
    pub fn draw(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The file with that number is open from now on. `pid`: the thread that opened it; 0 if that is in another PID
    /// namespace.
    pub fn insert(&self, fh: u64, ino: u64, pid: u32, write: bool, file: F) {
        self.open.write().insert(fh, Handle { ino, pid, write, file });
    }

    /// The file with that number.
    pub fn get(&self, fh: u64) -> Option<F> {
        self.open.read().get(&fh).map(|handle| handle.file.clone())
    }

    /// Closes it. Requests under way hold it until they are answered.
    pub fn close(&self, fh: u64) -> Option<F> {
        self.open.write().remove(&fh).map(|handle| handle.file)
    }

    /// The newest file of the inode `ino` that `pid` can write through. A truncation without a number belongs to it,
    /// since the kernel sends that right after the open. All threads of other PID namespaces show as 0; for these only
    /// an unused file counts, so that the truncation is not taken for another program's, and of several such files
    /// nobody can tell whose truncation it is.
    pub fn newest_writer(
        &self,
        ino: u64,
        pid: u32,
        unused: impl Fn(&F) -> bool,
    ) -> Result<Option<F>, Ambiguous> {
        let open = self.open.read();
        let fits = |handle: &Handle<F>| {
            handle.ino == ino && handle.pid == pid && handle.write && (pid != 0 || unused(&handle.file))
        };
        let fitting = || open.iter().filter(|(_, handle)| fits(handle));
        if pid == 0 && fitting().nth(1).is_some() {
            return Err(Ambiguous);
        }
        Ok(fitting().max_by_key(|(fh, _)| **fh).map(|(_, handle)| handle.file.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_never_reused() {
        let handles = Handles::default();
        let open = || {
            let fh = handles.draw();
            handles.insert(fh, 9, 1, false, fh);
            fh
        };
        let a = open();
        assert_eq!(handles.get(a), Some(a));
        assert_eq!(handles.close(a), Some(a));
        assert_eq!(handles.close(a), None);
        let b = open();
        assert_ne!(a, b);
        assert_eq!((handles.get(a), handles.get(b)), (None, Some(b)));
    }

    #[test]
    fn a_truncation_belongs_to_the_newest_writer_of_its_thread() {
        let handles = Handles::default();
        let open = |pid, write| {
            let fh = handles.draw();
            handles.insert(fh, 9, pid, write, fh);
            fh
        };
        let newest = |pid| handles.newest_writer(9, pid, |_| false);
        assert_eq!(newest(7), Ok(None));
        let _older = open(7, true);
        let newer = open(7, true);
        let _reader = open(7, false);
        let other = open(8, true);
        assert_eq!(newest(7), Ok(Some(newer)));
        assert_eq!(newest(8), Ok(Some(other)));
        assert_eq!(handles.newest_writer(10, 7, |_| true), Ok(None));
        let (unseen, _used) = (open(0, true), open(0, true));
        assert_eq!(newest(0), Ok(None));
        assert_eq!(handles.newest_writer(9, 0, |fh| *fh == unseen), Ok(Some(unseen)));
        assert_eq!(
            handles.newest_writer(9, 0, |_| true),
            Err(Ambiguous),
            "one of two, and nobody knows which"
        );
    }
}
