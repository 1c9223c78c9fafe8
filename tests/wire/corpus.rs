//! The fuzz targets without a fuzzer: every corpus file, and mutations of it drawn from a seed, through the same
//! functions.
//!
//! Bounded by a count, not by a clock, so that a failure comes back: `AOEFS_FUZZ_ROUNDS` (mutations a target) and
//! `AOEFS_FUZZ_SEED` change what it does, and a failing input is printed.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::fuzz;

/// Mutations a target. All targets together need about a second for it.
const ROUNDS: u64 = 50_000;

/// The longest input, as `-max_len` would say: the largest argument and something behind it.
const MAX_INPUT: usize = 2600;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = corpus().join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    // In an order of our own: a seed must mean the same on every file system.
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    for (name, _) in fuzz::TARGETS {
        assert!(!inputs(name).is_empty(), "fuzz/corpus/{name} is empty");
    }
    for entry in fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            fuzz::TARGETS.iter().any(|(target, _)| *target == name),
            "fuzz/corpus/{name:?} has no target"
        );
    }
}

#[test]
fn the_corpus_and_its_mutations_break_no_promise() {
    let rounds = setting("AOEFS_FUZZ_ROUNDS", ROUNDS);
    let seed = setting("AOEFS_FUZZ_SEED", 1);
    for (name, entry) in fuzz::TARGETS {
        let inputs = inputs(name);
        for input in &inputs {
            run(name, entry, input);
        }
        let mut random = Random::new(seed);
        for _ in 0..rounds {
            let mut input = inputs[random.below(inputs.len())].clone();
            for _ in 0..=random.below(4) {
                mutate(&mut input, &inputs, &mut random);
            }
            input.truncate(MAX_INPUT);
            run(name, entry, &input);
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}

fn run(name: &str, entry: fuzz::Entry, input: &[u8]) {
    /// Says what the input was, if the entry does not return.
    struct Witness<'a>(&'a str, &'a [u8]);
    impl Drop for Witness<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("fuzz target {} fails with {} bytes: {:02x?}", self.0, self.1.len(), self.1);
            }
        }
    }
    let witness = Witness(name, input);
    entry(input);
    drop(witness);
}

fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
        2 if at < input.len() => input[at] = random.below(256) as u8,
        3 => input.truncate(at),
        4 => input.extend((0..random.below(64)).map(|_| random.below(256) as u8)),
        _ => {
            let other = &others[random.below(others.len())];
            input.truncate(at);
            input.extend_from_slice(&other[at.min(other.len())..]);
        }
    }
}

/// xorshift64*: enough to walk about, and the same walk for a seed everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let draw = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        draw as usize % limit
    }
}
