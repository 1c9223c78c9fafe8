//! The bytes of a target's disk that the kernel may hold pages of: never fewer than it does.

use std::collections::HashMap;
use std::ops::Range;

/// Pages to drop: of which inode, which bytes of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PageRange {
    /// The inode.
    pub ino: u64,
    /// The bytes; up to `u64::MAX` means to the end.
    pub bytes: Range<u64>,
}

/// An inode, and where on the target's whole disk it begins, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Name {
    /// Its inode number.
    pub ino: u64,
    /// Its first byte on the target.
    pub start: u64,
}

/// A page, in bytes: the least that the kernel reads and drops.
pub(super) const PAGE: u64 = 4096;

/// Ranges that are kept of one inode. Beyond it the nearest two become one: some pages are then dropped without need.
const RANGES_MAX: usize = 256;

struct Inode {
    /// Its first byte on the target's whole disk.
    start: u64,
    /// Bytes of it: whole pages in order, with gaps between them.
    ranges: Vec<Range<u64>>,
}

/// The pages of one target.
#[derive(Default)]
pub(super) struct Clean(HashMap<u64, Inode>);

impl Clean {
    /// The kernel reads these bytes of an inode.
    pub(super) fn add(&mut self, name: Name, bytes: Range<u64>) {
        if bytes.is_empty() {
            return;
        }
        let inode = self.0.entry(name.ino).or_insert(Inode { start: name.start, ranges: Vec::new() });
        inode.add(whole_pages(bytes));
    }

    /// Takes out the pages that overlap these bytes of the whole disk.
    pub(super) fn take(&mut self, bytes: &Range<u64>) -> Vec<PageRange> {
        let mut taken = Vec::new();
        self.0.retain(|&ino, inode| {
            let part = bytes.start.saturating_sub(inode.start)..bytes.end.saturating_sub(inode.start);
            if !part.is_empty() {
                let found = inode.take(&whole_pages(part));
                taken.extend(found.into_iter().map(|bytes| PageRange { ino, bytes }));
            }
            !inode.ranges.is_empty()
        });
        taken
    }

    /// The kernel holds no page of that inode any more.
    pub(super) fn forget(&mut self, ino: u64) {
        self.0.remove(&ino);
    }
}

fn whole_pages(bytes: Range<u64>) -> Range<u64> {
    bytes.start / PAGE * PAGE..bytes.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

impl Inode {
    fn add(&mut self, mut new: Range<u64>) {
        // What touches it becomes part of it.
        let first = self.ranges.partition_point(|range| range.end < new.start);
        let last = self.ranges.partition_point(|range| range.start <= new.end);
        if let (Some(a), Some(b)) = (self.ranges.get(first), self.ranges[..last].last())
            && first < last
        {
            new = a.start.min(new.start)..b.end.max(new.end);
        }
        self.ranges.splice(first..last, [new]);
        self.limit();
    }

    /// Each change makes one range more at most.
    fn limit(&mut self) {
        if self.ranges.len() <= RANGES_MAX {
            return;
        }
        let gap = |n: &usize| self.ranges[n + 1].start - self.ranges[*n].end;
        if let Some(n) = (0..self.ranges.len() - 1).min_by_key(gap) {
            self.ranges[n].end = self.ranges[n + 1].end;
            self.ranges.remove(n + 1);
        }
    }

    fn take(&mut self, bytes: &Range<u64>) -> Vec<Range<u64>> {
        let first = self.ranges.partition_point(|range| range.end <= bytes.start);
        let last = self.ranges.partition_point(|range| range.start < bytes.end);
        if first >= last {
            return Vec::new();
        }
        let (before, after) = (self.ranges[first].start..bytes.start, bytes.end..self.ranges[last - 1].end);
        let kept = [before, after].into_iter().filter(|range| !range.is_empty());
        let found: Vec<_> = self.ranges.splice(first..last, kept).collect();
        self.limit();
        found.into_iter().map(|range| range.start.max(bytes.start)..range.end.min(bytes.end)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Name = Name { ino: 1, start: 0 };
    const PART: Name = Name { ino: 2, start: 3 * 512 };

    fn at(ino: u64, bytes: Range<u64>) -> PageRange {
        PageRange { ino, bytes }
    }

    #[test]
    fn what_was_read_is_found_under_every_name() {
        let mut clean = Clean::default();
        clean.add(DATA, 0..8192);
        clean.add(PART, 4096..8000);
        assert_eq!(clean.take(&(100_000..100_001)), []);
        // The partition's page at 4096 is byte 5632 of the disk.
        let mut taken = clean.take(&(5000..6000));
        taken.sort_by_key(|range| range.ino);
        assert_eq!(taken, [at(1, 4096..8192), at(2, 4096..8192)]);
        assert_eq!(clean.take(&(0..u64::MAX)), [at(1, 0..4096)]);
        assert!(clean.0.is_empty());
    }

    #[test]
    fn a_name_that_begins_behind_the_change_has_nothing_of_it() {
        let mut clean = Clean::default();
        clean.add(PART, 0..4096);
        assert_eq!(clean.take(&(0..3 * 512)), []);
        assert_eq!(clean.take(&(0..3 * 512 + 1)), [at(2, 0..4096)]);
    }

    #[test]
    fn forgotten_inodes_have_nothing() {
        let mut clean = Clean::default();
        clean.add(DATA, 0..1);
        clean.forget(1);
        clean.add(DATA, 5..5);
        assert_eq!(clean.take(&(0..4096)), []);
    }

    /// Against a set of pages: never less than what is held; exactly it while there are few ranges.
    #[test]
    fn ranges_agree_with_a_set_of_pages() {
        let mut seed = 7u64;
        let mut draw = |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        for pages in [100, 5000] {
            let mut clean = Clean::default();
            let mut model = std::collections::BTreeSet::new();
            for _ in 0..4000 {
                let from = draw(pages);
                let to = from + 1 + draw(3);
                if draw(3) > 0 {
                    clean.add(DATA, from * PAGE..to * PAGE);
                    model.extend(from..to);
                } else {
                    let taken = clean.take(&(from * PAGE..to * PAGE));
                    let got: Vec<u64> =
                        taken.iter().flat_map(|r| r.bytes.start / PAGE..r.bytes.end / PAGE).collect();
                    let want: Vec<u64> = (from..to).filter(|page| model.remove(page)).collect();
                    assert!(want.iter().all(|page| got.contains(page)), "{want:?} {got:?}");
                    if pages == 100 {
                        assert_eq!(want, got);
                    }
                }
                let ranges = clean.0.get(&1).map_or(&[][..], |inode| &inode.ranges[..]);
                assert!(ranges.len() <= RANGES_MAX && ranges.iter().all(|range| !range.is_empty()));
                assert!(ranges.windows(2).all(|two| two[0].end < two[1].start), "{ranges:?}");
            }
        }
    }
}
