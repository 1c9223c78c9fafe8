//! Deliberate bugs, and whether the simulator catches them: the list is `mutants.txt`.
//!
//! With AOEFS_MUTANTS=1 each is built in a copy of the repository and the simulator runs on it; with
//! AOEFS_MUTANTS=NAME only that one, and those whose names begin so. A mutant that survives 10,000 seeds fails the
//! test. This is for the night: `tests/nightly`.
//!
//! An ordinary run only looks whether each mutation still finds its place in the source text. That takes a few
//! milliseconds, and whoever changes such a line knows best what the bug is like in the new one; at night nobody
//! would.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Clone)]
enum By {
    Seed(u64),
    Scene(String),
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            By::Seed(seed) => write!(f, "seed {seed}"),
            By::Scene(scene) => write!(f, "scene {scene}"),
        }
    }
}

struct Mutant {
    name: String,
    file: String,
    /// The first seed that caught it when that was last done, or the scene that does.
    by: By,
    from: String,
    to: String,
}

fn list() -> Vec<Mutant> {
    let text = include_str!("mutants.txt");
    let blocks = text.split("\n== ").skip(1);
    blocks
        .map(|block| {
            let (head, rest) = block.split_once('\n').unwrap();
            let mut words = head.split_whitespace();
            let (name, file) = (words.next().unwrap(), words.next().unwrap());
            let by = match (words.next(), words.next()) {
                (Some("seed"), Some(seed)) => By::Seed(seed.parse().unwrap()),
                (Some("scene"), Some(scene)) => By::Scene(scene.into()),
                other => panic!("{name}: {other:?}"),
            };
            let (_, rest) = rest.split_once("--- from\n").unwrap();
            let (from, to) = rest.split_once("--- to\n").unwrap();
            let to = format!("{}\n", to.trim_end());
            Mutant { name: name.into(), file: file.into(), by, from: from.into(), to }
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_mutation_finds_its_place() {
    let mutants = list();
    assert!(mutants.len() >= 12);
    for m in &mutants {
        let text = std::fs::read_to_string(root().join(&m.file)).unwrap();
        let found = text.matches(&m.from).count();
        assert_eq!(found, 1, "{}: its text occurs {found} times in {}; adapt mutants.txt", m.name, m.file);
        assert_ne!(m.from, m.to, "{}", m.name);
    }
}

/// A copy of what the simulator is built from, and nothing more, with a target directory of its own.
fn copy() -> PathBuf {
    let to = root().join("target/mutants");
    std::fs::create_dir_all(&to).unwrap();
    let script = "for d in src tests benches; do rm -rf \"$1/$d\"; cp -a \"$d\" \"$1/$d\"; done; cp -a Cargo.toml Cargo.lock \"$1/\"";
    let done = Command::new("sh").current_dir(root()).args(["-c", script, "sh"]).arg(&to).status().unwrap();
    assert!(done.success());
    // The layers that the simulator has, and no programs: each mutant is a build.
    std::fs::write(to.join("src/lib.rs"), "//! A mutant.\npub mod engine;\npub mod target;\npub mod wire;\n")
        .unwrap();
    std::fs::remove_file(to.join("src/main.rs")).unwrap();
    std::fs::remove_dir_all(to.join("src/bin")).unwrap();
    let manifest = std::fs::read_to_string(to.join("Cargo.toml")).unwrap();
    let sections: Vec<&str> =
        manifest.split("\n[").filter(|section| !section.starts_with("[bin]]")).collect();
    std::fs::write(to.join("Cargo.toml"), sections.join("\n[")).unwrap();
    to
}

/// The seed or scene that catches the mutant, and what it says.
fn caught(at: &Path, m: &Mutant) -> Option<(By, String)> {
    let file = at.join(&m.file);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&m.from, &m.to)).unwrap();
    let filter = match &m.by {
        By::Seed(_) => "sim_seeds",
        By::Scene(scene) => scene,
    };
    let run = Command::new(env!("CARGO"))
        .current_dir(at)
        .args(["test", "--test", "sim", filter, "--", "--nocapture"])
        .envs([("AOEFS_SIM_STOP", "1"), ("RUST_BACKTRACE", "0"), ("RUSTFLAGS", "-Awarnings")])
        .env("CARGO_TARGET_DIR", at.join("target"))
        .output()
        .unwrap();
    std::fs::write(&file, text).unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    if let By::Scene(scene) = &m.by {
        assert!(said.contains(&format!("{scene} ... ")), "{} did not run:\n{said}", m.name);
        let why = said.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or_default();
        return said.contains(&format!("{scene} ... FAILED")).then(|| (m.by.clone(), why.into()));
    }
    // The summary, or the word of the watchdog if a seed did not end.
    if let Some(line) = said.lines().find(|line| line.starts_with("seed ")) {
        let (seed, what) = line["seed ".len()..].split_once(": ")?;
        return Some((By::Seed(seed.parse().ok()?), what.chars().take(150).collect()));
    }
    assert!(said.contains("seeds in"), "{} did not run:\n{said}", m.name);
    None
}

#[test]
fn every_mutant_is_caught() {
    let Some(which) = std::env::var("AOEFS_MUTANTS").ok().filter(|which| !which.is_empty()) else {
        println!(
            "skipped: every_mutant_is_caught: builds the simulator once a mutant, minutes; AOEFS_MUTANTS=1 runs it"
        );
        return;
    };
    let at = copy();
    let mut survivors = Vec::new();
    for m in list().iter().filter(|m| which == "1" || m.name.starts_with(&which)) {
        match caught(&at, m) {
            Some((by, what)) => println!("{}: caught by {by} (recorded {}): {what}", m.name, m.by),
            None => survivors.push(m.name.clone()),
        }
    }
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}
