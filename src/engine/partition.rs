//! Partitions: named sector ranges of one disk, declared by the operator or read from the disk's own table.
//!
//! A partition's id is never reused, so that a handle to a deleted one can never reach the range of another.

/// A partition's identity while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartId(pub u32);

/// Sectors `[start, end)` under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Never reused.
    pub id: PartId,
    /// The file's name; its form is checked by whoever parsed it.
    pub name: String,
    /// First sector.
    pub start: u64,
    /// One past the last sector.
    pub end: u64,
}

/// Partitions that one target may have. GPT has 128 by default; the rest is for those declared by hand.
pub const PARTITIONS_MAX: usize = 256;

/// Why a partition was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartError {
    /// Empty, reversed, or beyond the disk.
    Range,
    /// The name stands for another range.
    Exists,
    /// No such name.
    Missing,
    /// As many are declared as there may be.
    TooMany,
}

/// The partitions of one disk, in order of declaration.
#[derive(Clone, Debug, Default)]
pub struct Partitions {
    list: Vec<Partition>,
    next: u32,
}

impl Partitions {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.list.iter()
    }

    /// The one with this id, if it is still declared.
    pub fn get(&self, id: PartId) -> Option<&Partition> {
        self.list.iter().find(|p| p.id == id)
    }

    /// The one with this name.
    pub fn named(&self, name: &str) -> Option<&Partition> {
        self.list.iter().find(|p| p.name == name)
    }

    /// Declares `[start, end)` of a disk of `sectors`. The same name with the same range again is done already.
    pub fn add(&mut self, name: &str, start: u64, end: u64, sectors: u64) -> Result<PartId, PartError> {
        if start >= end || end > sectors {
            return Err(PartError::Range);
        }
        if let Some(old) = self.named(name) {
            return if (old.start, old.end) == (start, end) { Ok(old.id) } else { Err(PartError::Exists) };
        }
        if self.list.len() >= PARTITIONS_MAX {
            return Err(PartError::TooMany);
        }
        self.next += 1;
        let id = PartId(self.next);
        self.list.push(Partition { id, name: name.to_owned(), start, end });
        Ok(id)
    }

    /// Drops the partition of this name.
    pub fn delete(&mut self, name: &str) -> Result<Partition, PartError> {
        let at = self.list.iter().position(|p| p.name == name).ok_or(PartError::Missing)?;
        Ok(self.list.remove(at))
    }

    /// Another disk: none of them means anything any more.
    pub fn clear(&mut self) {
        self.list.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declare_again_delete_and_redeclare() {
        let mut p = Partitions::default();
        let a = p.add("boot", 8, 16, 100).unwrap();
        assert_eq!(p.add("boot", 8, 16, 100), Ok(a));
        assert_eq!(p.add("boot", 8, 17, 100), Err(PartError::Exists));
        assert_eq!(p.add("x", 5, 5, 100), Err(PartError::Range));
        assert_eq!(p.add("x", 5, 101, 100), Err(PartError::Range));
        p.delete("boot").unwrap();
        assert_eq!(p.delete("boot"), Err(PartError::Missing));
        let b = p.add("boot", 50, 60, 100).unwrap();
        assert_ne!(a, b);
        assert!(p.get(a).is_none());
    }

    #[test]
    fn bounded() {
        let mut p = Partitions::default();
        for i in 0..PARTITIONS_MAX {
            p.add(&format!("p{i}"), 0, 1, 1).unwrap();
        }
        assert_eq!(p.add("more", 0, 1, 1), Err(PartError::TooMany));
    }
}
