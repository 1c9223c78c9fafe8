//! The documents for those who change the programs: the map in src/lib.rs and the design have what code has and cites.

use std::collections::BTreeSet;
use std::path::Path;

use crate::rust_files;

crate::tests![sections_that_code_cites, the_map];

const DESIGN: &str = include_str!("../../docs/design.md");
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
