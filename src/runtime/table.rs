//! The known targets: addresses, ids, and a lock for each device.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::Done;
use crate::engine::Device;
use crate::wire::Addr;

/// A target's identity while the process lives. Never reused: a handle to 7.3 must never come to mean 9.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnitId(pub u32);

/// A known target.
pub struct Unit {
    /// Never reused.
    pub id: UnitId,
    /// shelf.slot.
    pub addr: Addr,
    /// Flushes that failed so far. Each handle that was open by then is told once, with its next flush.
    pub failed_flushes: AtomicU64,
    pub(super) device: Mutex<Device<Done>>,
    /// The earliest time for which the sweeper has an entry, in engine time; `u64::MAX` for none.
    pub(super) armed: AtomicU64,
    /// The sweep is put off until then, in engine time, however early something is due.
    pub(super) held: AtomicU64,
}

impl std::fmt::Debug for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unit({}, {})", self.id.0, self.addr)
    }
}

#[derive(Debug, Default)]
struct Tables {
    by_addr: BTreeMap<Addr, Arc<Unit>>,
    by_id: HashMap<UnitId, Arc<Unit>>,
}

/// All known targets. The lock is held for a look-up or an insertion, never for the work that follows.
#[derive(Debug, Default)]
pub(super) struct Units {
    tables: RwLock<Tables>,
    next: AtomicU32,
}

impl Units {
    pub(super) fn len(&self) -> usize {
        self.tables.read().by_addr.len()
    }

    pub(super) fn all(&self) -> Vec<Arc<Unit>> {
        self.tables.read().by_addr.values().cloned().collect()
    }

    pub(super) fn at(&self, addr: Addr) -> Option<Arc<Unit>> {
        self.tables.read().by_addr.get(&addr).cloned()
    }

    pub(super) fn get(&self, id: UnitId) -> Option<Arc<Unit>> {
        self.tables.read().by_id.get(&id).cloned()
    }

    /// None if the address is taken: two netlinks may find the same target at the same time.
    pub(super) fn add(&self, addr: Addr, device: Device<Done>) -> Option<Arc<Unit>> {
        let mut tables = self.tables.write();
        if tables.by_addr.contains_key(&addr) {
            return None;
        }
        let id = UnitId(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        let unit = Arc::new(Unit {
            id,
            addr,
            failed_flushes: AtomicU64::new(0),
            device: Mutex::new(device),
            armed: AtomicU64::new(u64::MAX),
            held: AtomicU64::new(0),
        });
        tables.by_addr.insert(addr, unit.clone());
        tables.by_id.insert(id, unit.clone());
        Some(unit)
    }

    pub(super) fn remove(&self, unit: &Unit) {
        let mut tables = self.tables.write();
        if tables.by_id.remove(&unit.id).is_some() {
            tables.by_addr.remove(&unit.addr);
        }
    }
}
