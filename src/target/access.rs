//! Lists of MAC addresses: hosts that a target answers (the mask), and hosts that hold it (the reservation).

use crate::wire::Mac;

/// The most entries either list holds: its length travels in one byte.
pub(super) const LIST_MAX: usize = 255;

/// A short list of addresses, in the order of their arrival, without duplicates. Never allocates after it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacList {
    macs: Vec<Mac>,
}

/// The list takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl MacList {
    /// The empty list.
    pub fn new() -> MacList {
        MacList { macs: Vec::with_capacity(LIST_MAX) }
    }

    /// The addresses.
    pub fn as_slice(&self) -> &[Mac] {
        &self.macs
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.macs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.macs.is_empty()
    }

    /// Whether `mac` is among them.
    pub fn contains(&self, mac: Mac) -> bool {
        self.macs.contains(&mac)
    }

    /// Whether `mac` passes: an empty list lets all pass.
    pub fn admits(&self, mac: Mac) -> bool {
        self.is_empty() || self.contains(mac)
    }

    /// Adds `mac`, unless it is there already; `limit` entries at most.
    pub fn add(&mut self, mac: Mac, limit: usize) -> Result<(), Full> {
        if self.contains(mac) {
            return Ok(());
        }
        if self.len() >= limit.min(LIST_MAX) {
            return Err(Full);
        }
        self.macs.push(mac);
        Ok(())
    }

    /// Takes `mac` out, if it is in.
    pub fn remove(&mut self, mac: Mac) {
        self.macs.retain(|other| *other != mac);
    }

    /// Empties the list.
    pub fn clear(&mut self) {
        self.macs.clear();
    }
}

impl Default for MacList {
    fn default() -> MacList {
        MacList::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_no_duplicates_and_a_limit() {
        let mac = |n| Mac([2, 0, 0, 0, 0, n]);
        let mut list = MacList::new();
        assert!(list.admits(mac(1)));
        for n in [3, 1, 3, 2] {
            list.add(mac(n), 3).unwrap();
        }
        assert_eq!(list.as_slice(), [mac(3), mac(1), mac(2)]);
        assert_eq!(list.add(mac(4), 3), Err(Full));
        assert_eq!(list.add(mac(1), 3), Ok(()));
        list.remove(mac(3));
        list.remove(mac(9));
        assert!(!list.admits(mac(3)) && list.admits(mac(2)));
        for n in 0..=255u8 {
            let _ = list.add(Mac([4, 0, 0, 0, 0, n]), usize::MAX);
        }
        assert_eq!(list.len(), LIST_MAX);
    }
}
