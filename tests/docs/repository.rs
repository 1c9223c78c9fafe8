//! The documents for those who change the programs. The map in src/lib.rs has every room and thread; the design has
//! every section that code cites; the tests that the catalogue names and the beds of the index are there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::rust_files;

crate::tests![sections_that_code_cites, the_map, the_catalogue, the_index_of_beds];

const DESIGN: &str = include_str!("../../docs/design.md");
const CATALOGUE: &str = include_str!("../CATALOGUE.md");
const INDEX: &str = include_str!("../README.md");
const MAP: &str = include_str!("../../src/lib.rs");

/// The name by which a heading is linked to: small letters, with hyphens for blanks.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// A comment that cites the design names a section that it has, and not a number, which would change.
fn sections_that_code_cites() {
    const CITED: &str = "docs/design.md#";
    let sections: BTreeSet<String> =
        DESIGN.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let mut cited = 0;
    for (path, text) in ["src", "tests", "benches"].into_iter().flat_map(rust_files) {
        // This file has the words that it looks for.
        if path.ends_with("tests/docs/repository.rs") {
            continue;
        }
        assert!(!text.contains("design.md §"), "{} cites a section by number", path.display());
        for rest in text.split(CITED).skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            assert!(sections.contains(&rest[..end]), "{}: no section {}", path.display(), &rest[..end]);
            cited += 1;
        }
    }
    assert!(cited > 10, "{cited} citations");
    for rest in DESIGN.split("](#").skip(1) {
        let name = rest.split(')').next().unwrap_or_default();
        assert!(sections.contains(name), "the design links to {name}, which it does not have");
    }
}

/// The head of src/lib.rs has every room and every thread that the sources start, and names no file that is not there.
fn the_map() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map: Vec<&str> = MAP.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let map = map.join("\n");
    for module in MAP.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let room = module.trim_end_matches(';');
        assert!(map.contains(&format!("`{room}`")), "the map has no room {room}");
    }
    let files: Vec<&str> = map.split('`').skip(1).step_by(2).filter(|name| name.ends_with(".rs")).collect();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let there = src.join(file).is_file() || src.join("..").join(file).is_file();
        assert!(there, "the map names {file}, which is not there");
    }
    let mut threads = 0;
    for (path, text) in rust_files("src").into_iter().filter(|(path, _)| !path.starts_with(src.join("bin"))) {
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for start in ["spawn(\"", "Worker::new(\"", "Errand::new(\"", ".name(\""] {
            for rest in product.split(start).skip(1) {
                let name = rest.split('"').next().unwrap_or_default();
                assert!(
                    map.contains(&format!("`{name}`")),
                    "{}: no thread {name} in the map",
                    path.display()
                );
                threads += 1;
            }
        }
    }
    assert!(threads > 5, "{threads} threads found");
}

/// True if the name is as the pattern says, in which a star stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    pieces.iter().all(|piece| name.split_once(piece).map(|(_, later)| name = later).is_some())
        && name.ends_with(end)
}

/// Words that stand behind this one, up to what belongs to no name.
fn behind<'a>(word: &str, text: &'a str) -> Vec<&'a str> {
    let rests = text.split(word).skip(1);
    rests.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()).collect()
}

/// The words in backticks that the rows name as tests, each with its row.
fn named_in_the_catalogue() -> Vec<(&'static str, &'static str)> {
    let (mut column, mut found) = (None, Vec::new());
    for line in CATALOGUE.lines() {
        let cells: Vec<&str> = line.split('|').collect();
        match (line.starts_with('|'), column) {
            (false, _) => column = None,
            (true, None) => column = cells.iter().position(|cell| cell.trim().starts_with("test")),
            (true, Some(column)) => {
                let words = cells[column].split('`').skip(1).step_by(2);
                // Settings, commands and pictures are named there, too.
                let tests = words.filter(|word| !word.starts_with("AOEFS_") && !word.starts_with("cargo "));
                found.extend(tests.filter(|word| !word.contains('/')).map(|word| (word, line)));
            }
        }
    }
    found
}

/// Every test that a row of the catalogue names is there, and so is the module that it stands in.
fn the_catalogue() {
    let sources: Vec<(PathBuf, String)> = ["src", "tests"].into_iter().flat_map(rust_files).collect();
    let functions: BTreeSet<&str> = sources.iter().flat_map(|(_, text)| behind("fn ", text)).collect();
    let mut modules: BTreeSet<&str> = sources.iter().flat_map(|(_, text)| behind("mod ", text)).collect();
    for (path, _) in &sources {
        let names = [path.file_stem(), path.parent().and_then(Path::file_name)];
        modules.extend(names.into_iter().flatten().filter_map(|name| name.to_str()));
    }
    let named = named_in_the_catalogue();
    assert!(named.len() > 200, "{} tests named", named.len());
    let there = |word: &str| {
        let mut names: Vec<&str> = word.split(' ').flat_map(|part| part.split("::")).collect();
        let last = names.pop().unwrap_or_default();
        let is_test = functions.iter().any(|name| fits(last, name));
        names.iter().all(|name| modules.contains(name)) && (is_test || modules.contains(last))
    };
    let missing: Vec<_> = named.iter().filter(|(word, _)| !there(word)).collect();
    assert!(missing.is_empty(), "there is no such test: {missing:#?}");
}

/// Each bed has its row in the index, and each row its bed.
fn the_index_of_beds() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let entries = std::fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path());
    let beds = entries.filter(|path| {
        path.join("main.rs").is_file() || path.extension().is_some_and(|ending| ending == "rs")
    });
    let beds: BTreeSet<String> =
        beds.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let rows = INDEX.lines().filter_map(|line| line.strip_prefix("| [`")?.split('`').next());
    assert_eq!(rows.map(str::to_owned).collect::<BTreeSet<_>>(), beds);
    for link in INDEX.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(tests.join(link).is_file(), "the index links to {link}");
    }
}
