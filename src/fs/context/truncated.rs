//! The `config` files that were truncated, and whose string is not at its target yet.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::runtime::UnitId;

struct Cut {
    /// The file as it is shown now.
    string: Vec<u8>,
    /// The number of the open file that will send it.
    fh: u64,
}

/// At most one of each target.
#[derive(Default)]
pub struct Truncated(Mutex<HashMap<UnitId, Cut>>);

impl Truncated {
    /// The target's `config` is this string now, and the open file with that number is to send it.
    pub fn remember(&self, unit: UnitId, string: Vec<u8>, fh: u64) {
        self.0.lock().insert(unit, Cut { string, fh });
    }

    /// The file as it is shown now, if it was truncated.
    pub fn string(&self, unit: UnitId) -> Option<Vec<u8>> {
        self.0.lock().get(&unit).map(|cut| cut.string.clone())
    }

    /// Its length in bytes.
    pub fn len(&self, unit: UnitId) -> Option<usize> {
        self.0.lock().get(&unit).map(|cut| cut.string.len())
    }

    /// The string that the open file with that number still has to send.
    pub fn unsent(&self, unit: UnitId, fh: u64) -> Option<Vec<u8>> {
        self.0.lock().get(&unit).filter(|cut| cut.fh == fh).map(|cut| cut.string.clone())
    }

    /// The target was removed, or has got the string, or has refused it.
    pub fn forget(&self, unit: UnitId) {
        self.0.lock().remove(&unit);
    }
}
