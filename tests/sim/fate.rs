//! Every sequence of decisions up to some length, one after the other: no randomness, no sequence twice.

use super::net::Passage;

/// µs that a frame takes, and one that is delayed: longer than a timeout, shorter than a quarantine.
const WAY: u64 = 30;
const LATE: u64 = 150_000;

/// A sequence of decisions; what comes after its end is the first alternative.
#[derive(Clone, Default, Debug)]
pub struct Fate {
    /// Chosen, and how many there were to choose from.
    taken: Vec<(u32, u32)>,
    at: usize,
    depth: usize,
}

impl Fate {
    /// The first sequence of `depth` decisions.
    pub fn new(depth: usize) -> Fate {
        Fate { depth, ..Fate::default() }
    }

    /// One of `of` alternatives.
    pub fn choose(&mut self, of: u32) -> Option<u32> {
        if self.at == self.depth {
            return None;
        }
        if self.at == self.taken.len() {
            self.taken.push((0, of));
        }
        let (choice, among) = self.taken[self.at];
        assert_eq!(among, of, "the same decisions lead to the same question");
        self.at += 1;
        Some(choice)
    }

    /// What becomes of a frame that leaves now: it arrives, is lost, arrives twice, is late.
    pub fn passage(&mut self, now: u64) -> Option<Passage> {
        let at = Some(now + WAY);
        Some(match self.choose(4)? {
            0 => Passage { first: at, second: None },
            1 => Passage { first: None, second: None },
            2 => Passage { first: at, second: at },
            _ => Passage { first: Some(now + LATE), second: None },
        })
    }

    /// The sequence after this one, if there is one.
    pub fn next(mut self) -> Option<Fate> {
        while let Some((choice, of)) = self.taken.pop() {
            if choice + 1 < of {
                self.taken.push((choice + 1, of));
                self.at = 0;
                return Some(self);
            }
        }
        None
    }
}
