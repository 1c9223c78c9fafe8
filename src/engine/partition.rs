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
    /// The file's name. The caller has checked its form.
    pub name: String,
    /// First sector.
    pub start: u64,
    /// One past the last sector.
    pub end: u64,
    /// It was read from the disk's own table, which it follows; else the operator declared it.
    pub scanned: bool,
}

/// What a scan of the disk's table says of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Its name.
    pub name: String,
    /// First sector.
    pub start: u64,
    /// One past the last sector.
    pub end: u64,
}

/// Why a table was not followed: the partition's name, and what is the matter with it.
pub type Refusal = (String, PartError);

/// Partitions that one target may have: as many as are taken from a table (1024), and 256 by hand.
pub const PARTITIONS_MAX: usize = 1280;

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
    /// It is in use.
    Busy,
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
        Ok(self.push(name, start, end, false))
    }

    fn push(&mut self, name: &str, start: u64, end: u64, scanned: bool) -> PartId {
        self.next += 1;
        let id = PartId(self.next);
        self.list.push(Partition { id, name: name.to_owned(), start, end, scanned });
        id
    }

    /// Makes the partitions that came from the disk's table what the table says now: one that is gone goes, one with
    /// another range is another partition, a new one comes. It is done in full or not at all: a partition that is in
    /// use and would go refuses it, and so does a name that the operator has declared for another range.
    pub fn follow(
        &mut self,
        table: &[Scanned],
        sectors: u64,
        in_use: impl Fn(PartId) -> bool,
    ) -> Result<(), Refusal> {
        let is = |p: &Partition, t: &Scanned| (&p.name, p.start, p.end) == (&t.name, t.start, t.end);
        let goes = |p: &Partition| p.scanned && !table.iter().any(|t| is(p, t));
        let no = |t: &Scanned, error| Err((t.name.clone(), error));
        if let Some(busy) = self.list.iter().find(|p| goes(p) && in_use(p.id)) {
            return Err((busy.name.clone(), PartError::Busy));
        }
        let stay: Vec<&Partition> = self.list.iter().filter(|p| !goes(p)).collect();
        let mut new = Vec::new();
        for entry in table {
            match stay.iter().find(|p| p.name == entry.name) {
                Some(old) if is(old, entry) => {}
                Some(_) => return no(entry, PartError::Exists),
                None if entry.start >= entry.end || entry.end > sectors => {
                    return no(entry, PartError::Range);
                }
                None if stay.len() + new.len() >= PARTITIONS_MAX => return no(entry, PartError::TooMany),
                None => new.push(entry),
            }
        }
        self.list.retain(|p| !goes(p));
        for Scanned { name, start, end } in new {
            self.push(name, *start, *end, true);
        }
        Ok(())
    }

    /// Another partition that has sectors of this one, if there is one.
    pub fn overlapping(&self, name: &str) -> Option<&Partition> {
        let own = self.named(name)?;
        self.list.iter().find(|p| p.id != own.id && p.start < own.end && own.start < p.end)
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

    fn entry(name: &str, start: u64, end: u64) -> Scanned {
        Scanned { name: name.into(), start, end }
    }

    fn all(p: &Partitions) -> Vec<(&str, u64, u64)> {
        let mut all: Vec<_> = p.iter().map(|p| (p.name.as_str(), p.start, p.end)).collect();
        all.sort();
        all
    }

    #[test]
    fn a_table_is_followed() {
        let mut p = Partitions::default();
        let own = p.add("mine", 0, 100, 100).unwrap();
        p.follow(&[entry("p1", 8, 16), entry("p2", 16, 24), entry("p3", 24, 32)], 100, |_| false).unwrap();
        let ids = ["p1", "p2", "p3"].map(|name| p.named(name).unwrap().id);
        // p1 stays, p2 is gone, p3 moved, p4 is new.
        let next = [entry("p1", 8, 16), entry("p3", 40, 50), entry("p4", 50, 60)];
        let used = |used: PartId| move |id: PartId| id == used;
        for (id, name) in [(ids[1], "p2"), (ids[2], "p3")] {
            assert_eq!(p.follow(&next, 100, used(id)), Err((name.into(), PartError::Busy)));
        }
        assert_eq!(p.iter().count(), 4, "all or nothing");
        p.follow(&next, 100, used(ids[0])).unwrap();
        assert_eq!(all(&p), [("mine", 0, 100), ("p1", 8, 16), ("p3", 40, 50), ("p4", 50, 60)]);
        assert_eq!((p.named("p1").unwrap().id, p.named("mine").unwrap().id), (ids[0], own));
        assert_ne!(p.named("p3").unwrap().id, ids[2], "another partition");
        p.follow(&[], 100, |_| false).unwrap();
        assert_eq!(all(&p), [("mine", 0, 100)], "what somebody declared is not the table's");
    }

    #[test]
    fn what_somebody_declared_is_not_replaced_by_a_table() {
        let mut p = Partitions::default();
        p.add("p2", 0, 8, 100).unwrap();
        let refused = p.follow(&[entry("p1", 8, 16), entry("p2", 16, 24)], 100, |_| false);
        assert_eq!(refused, Err(("p2".into(), PartError::Exists)));
        assert_eq!(p.follow(&[entry("p1", 8, 101)], 100, |_| false), Err(("p1".into(), PartError::Range)));
        assert_eq!(all(&p), [("p2", 0, 8)]);
        p.follow(&[entry("p2", 0, 8)], 100, |_| false).unwrap();
        assert!(!p.named("p2").unwrap().scanned, "it stays theirs");
    }

    #[test]
    fn overlaps_are_known() {
        let mut p = Partitions::default();
        for (name, start, end) in [("a", 0, 10), ("b", 10, 20), ("c", 9, 11)] {
            p.add(name, start, end, 100).unwrap();
        }
        assert_eq!(p.overlapping("c").unwrap().name, "a");
        assert_eq!(p.overlapping("b").unwrap().name, "c");
        p.delete("c").unwrap();
        assert!(p.overlapping("b").is_none() && p.overlapping("nobody").is_none());
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
