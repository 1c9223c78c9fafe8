//! The exports of a mount: each path once, with what it is of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Counts, Export};

/// The place of an export that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

struct Entry<K> {
    ticket: Ticket,
    key: K,
    path: PathBuf,
    /// None while the socket is being made.
    export: Option<Arc<Export>>,
}

/// An export as it is at one moment.
#[derive(Clone, Debug)]
pub struct Seen<K> {
    /// What it is of.
    pub key: K,
    /// Its socket.
    pub path: PathBuf,
    /// Front ends that are connected.
    pub clients: usize,
    /// What its front ends have asked for.
    pub counts: Counts,
}

struct List<K> {
    entries: Vec<Entry<K>>,
    given: u64,
    closed: bool,
}

/// See the module. Keys say what is exported; one may have several paths.
pub struct Exports<K>(Mutex<List<K>>);

impl<K> Default for Exports<K> {
    fn default() -> Self {
        Self(Mutex::new(List { entries: Vec::new(), given: 0, closed: false }))
    }
}

impl<K: Clone + PartialEq> Exports<K> {
    /// Takes a path for an export that is to be made. None if the path is taken.
    pub fn reserve(&self, key: K, path: &Path) -> Option<Ticket> {
        let mut list = self.0.lock();
        if list.closed || list.entries.iter().any(|entry| entry.path == path) {
            return None;
        }
        list.given += 1;
        let ticket = Ticket(list.given);
        list.entries.push(Entry { ticket, key, path: path.to_owned(), export: None });
        Some(ticket)
    }

    /// It was made. False if nobody wants it any more.
    pub fn fill(&self, ticket: Ticket, export: Arc<Export>) -> bool {
        let mut list = self.0.lock();
        let place = list.entries.iter_mut().find(|entry| entry.ticket == ticket);
        place.map(|entry| entry.export = Some(export)).is_some()
    }

    /// It will not be made.
    pub fn cancel(&self, ticket: Ticket) {
        self.0.lock().entries.retain(|entry| entry.ticket != ticket);
    }

    /// How many there are, those that are being made included.
    pub fn count(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Whether exactly this is exported there.
    pub fn has(&self, key: &K, path: &Path) -> bool {
        self.0.lock().entries.iter().any(|entry| entry.key == *key && entry.path == path)
    }

    /// Those that `which` says, in order of their making.
    pub fn look(&self, which: impl Fn(&K) -> bool) -> Vec<Seen<K>> {
        let list = self.0.lock();
        let made = list.entries.iter().filter(|entry| which(&entry.key));
        made.filter_map(|Entry { key, path, export, .. }| {
            let export = export.as_ref()?;
            let (clients, counts) = (export.clients(), export.counts());
            Some(Seen { key: key.clone(), path: path.clone(), clients, counts })
        })
        .collect()
    }

    /// Takes out those that `which` says, to be ended.
    pub fn take(&self, which: impl Fn(&K, &Path) -> bool) -> Vec<Arc<Export>> {
        let mut taken = Vec::new();
        self.0.lock().entries.retain_mut(|entry| {
            let export = entry.export.take_if(|_| which(&entry.key, &entry.path));
            let stays = export.is_none();
            taken.extend(export);
            stays
        });
        taken
    }

    /// Takes out all, and takes none any more.
    pub fn close(&self) -> Vec<Arc<Export>> {
        let mut list = self.0.lock();
        list.closed = true;
        list.entries.drain(..).filter_map(|entry| entry.export).collect()
    }

    /// The front ends of those that `which` says are to look at the disk's size again.
    pub fn resized(&self, which: impl Fn(&K) -> bool) {
        let list = self.0.lock();
        let of = list.entries.iter().filter(|entry| which(&entry.key));
        of.filter_map(|entry| entry.export.as_ref()).for_each(|export| export.resized());
    }
}
