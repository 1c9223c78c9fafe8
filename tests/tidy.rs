//! Rules of the house, as a test over the source text: which layer may know which, where sockets and clocks are, how
//! long a file and how wide a comment may be, and what must not be left in them. A rule that is broken names the
//! file, the line and the rule.
#![allow(clippy::unwrap_used, reason = "a file that cannot be read ends the test")]

use std::path::{Path, PathBuf};

/// A source file longer than this has more than one job.
const LINES_MAX: usize = 600;

/// A comment that is wider does not fit beside another file on a screen.
const COLUMNS_MAX: usize = 120;

/// A text of the repository, with the path from its root.
struct Text {
    path: String,
    text: String,
}

impl Text {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn in_any(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Lines of the product with their numbers: no comments, and nothing of `#[cfg(test)] mod …` to the end of the
    /// file.
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        let test_file = self.path.ends_with("tests.rs") || self.path.contains("/tests/");
        let lines: Vec<&str> = if test_file { Vec::new() } else { self.text.lines().collect() };
        let end = (0..lines.len())
            .find(|&n| {
                lines[n].trim() == "#[cfg(test)]" && lines.get(n + 1).is_some_and(|next| is_open_module(next))
            })
            .unwrap_or(lines.len());
        lines.into_iter().take(end).enumerate().map(|(n, line)| (n + 1, code(line)))
    }
}

fn is_open_module(line: &str) -> bool {
    line.trim_start().trim_start_matches("pub ").starts_with("mod ") && line.trim_end().ends_with('{')
}

/// The line without its comment. A `//` inside a string cuts too much, which no rule here minds.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Everything that git would commit: what it tracks, and what it does not know yet.
fn repository() -> Vec<Text> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(root, root, &mut found);
    assert!(found.iter().any(|text| text.path == "src/lib.rs"), "the source text is not where it should be");
    found
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<Text>) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            // Only the folder that Cargo builds into is one: `src/target` is a room.
            let built = path == root.join("target") || path == root.join("fuzz/target");
            let foreign = [".git", "artifacts", "corpus", "node_modules", "__pycache__"];
            if !built && !foreign.contains(&name.as_ref()) {
                walk(root, &path, found);
            }
        } else if name != ".git"
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            found.push(Text { path: path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), text });
        }
    }
}

/// Collects what breaks a rule and fails with all of it at once.
#[derive(Default)]
struct Broken(Vec<String>);

impl Broken {
    fn add(&mut self, text: &Text, line: usize, rule: impl std::fmt::Display) {
        self.0.push(format!("{}:{line}: {rule}", text.path));
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
        }
    }
}

/// The rooms of the house: which others of the crate each may name. The names in the first column are all that there
/// are.
const ROOMS: [(&str, &[&str]); 20] = [
    ("allowance", &[]),
    ("bug", &[]),
    ("failure", &[]),
    ("mount", &[]),
    ("near", &[]),
    ("scrape", &[]),
    ("wire", &[]),
    ("parttable", &["wire"]),
    ("engine", &["wire"]),
    ("target", &["wire"]),
    ("link", &["wire"]),
    ("top", &["wire"]),
    ("runtime", &["allowance", "bug", "engine", "link", "wire"]),
    ("export", &["bug", "link", "target", "wire"]),
    ("vhost", &["bug", "engine", "wire"]),
    ("fs", &["bug", "engine", "near", "parttable", "runtime", "vhost", "wire"]),
    ("command", &["cli", "failure", "link", "mount", "near", "top", "wire"]),
    ("cli", &["engine", "failure", "near", "wire"]),
    ("daemon", &["allowance", "failure", "mount"]),
    (
        "app",
        &[
            "bug", "cli", "daemon", "engine", "export", "failure", "fs", "link", "mount", "runtime",
            "scrape", "target", "wire",
        ],
    ),
];

/// What puts the rooms together: the crate's root and the programs.
const ROOTS: [&str; 3] = ["src/lib.rs", "src/main.rs", "src/bin/"];

/// The modules of the crate that a piece of code names: `crate::engine::…`, `crate::{engine::…, wire}`.
fn modules_named(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        let rest = &code[place + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(first_word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' | ',' if depth == 0 => {
                    found.push(first_word(group[start..at].trim()));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn named_modules_are_found_in_every_form_of_use() {
    let code = "use crate::{engine::{Device, Sink}, wire}; fn f(x: crate::fs::Tree) {}";
    assert_eq!(modules_named(code), ["engine", "wire", "fs"]);
}

#[test]
fn rooms_know_only_the_rooms_that_they_may() {
    let mut broken = Broken::default();
    for text in repository().iter().filter(|text| text.is_rust() && text.in_any(&["src/"])) {
        if text.in_any(&ROOTS) {
            continue;
        }
        let found = ROOMS.iter().find(|(room, _)| {
            text.path.starts_with(&format!("src/{room}/")) || text.path == format!("src/{room}.rs")
        });
        let Some((room, allowed)) = found else {
            broken.add(text, 1, "belongs to no room that is listed here");
            continue;
        };
        // Joined, because a `use` may go over several lines.
        let code: String = text.product().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        for name in modules_named(&code) {
            if name != *room && !allowed.contains(&name.as_str()) {
                broken.add(text, 1, format_args!("{room} may not name {name}; it may name {allowed:?}"));
            }
        }
    }
}

#[test]
fn foreign_crates_and_clocks_stay_where_they_belong() {
    let rules: [(&[&str], &[&str]); 4] = [
        (&["fuser::"], &["src/fs/"]),
        (
            &["socket2::", "libc::socket", "libc::recv", "libc::send", "libc::AF_", "libc::sockaddr"],
            &["src/link/", "src/daemon/privilege.rs"],
        ),
        (
            &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now", "clock_gettime"],
            &[
                "src/runtime/",
                "src/link/",
                "src/vhost/",
                "src/daemon/",
                "src/app/",
                "src/command/",
                "src/scrape.rs",
                "src/bin/",
            ],
        ),
        (
            &["thread::spawn", "thread::Builder", "Mutex<", "RwLock<"],
            &[
                "src/runtime/",
                "src/link/",
                "src/export/",
                "src/fs/",
                "src/vhost/",
                "src/daemon/",
                "src/app/",
                "src/scrape.rs",
                "src/bin/",
            ],
        ),
    ];
    let mut broken = Broken::default();
    for text in repository().iter().filter(|text| text.is_rust() && text.in_any(&["src/"])) {
        for (line, code) in text.product() {
            for (words, places) in &rules {
                if let Some(word) = words.iter().find(|word| code.contains(**word))
                    && !text.in_any(places)
                {
                    broken.add(text, line, format_args!("{word} belongs to {places:?}"));
                }
            }
        }
    }
}

#[test]
fn wire_allocates_nothing() {
    let mut broken = Broken::default();
    for text in repository().iter().filter(|text| text.in_any(&["src/wire/"])) {
        for (line, code) in text.product() {
            for word in [
                "vec!",
                "Vec<",
                "Vec::",
                "Box<",
                "Box::",
                "String",
                "format!",
                ".to_vec(",
                ".to_owned(",
                ".collect(",
            ] {
                if code.contains(word) {
                    broken.add(text, line, format_args!("{word} allocates"));
                }
            }
        }
    }
}

#[test]
fn files_have_one_job_and_say_it() {
    let mut broken = Broken::default();
    for text in repository().iter().filter(|text| text.is_rust()) {
        let lines = text.text.lines().count();
        if lines > LINES_MAX {
            broken.add(text, lines, format_args!("{lines} lines, at most {LINES_MAX}"));
        }
        if text.in_any(&["src/", "tests/", "benches/"])
            && !text.path.ends_with("tests.rs")
            && !text.text.starts_with("//!")
        {
            broken.add(text, 1, "does not begin with what it promises (//!)");
        }
    }
}

#[test]
fn comments_fit_on_a_screen() {
    let mut broken = Broken::default();
    for text in repository().iter().filter(|text| text.is_rust()) {
        for (n, line) in text.text.lines().enumerate() {
            let columns = line.chars().count();
            if line.trim_start().starts_with("//") && columns > COLUMNS_MAX {
                broken.add(
                    text,
                    n + 1,
                    format_args!("a comment of {columns} columns, at most {COLUMNS_MAX}"),
                );
            }
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    // Written in two halves, so that this list does not find itself.
    let marks = [
        ("to", "do!("),
        ("unimple", "mented!("),
        ("FIX", "ME"),
        ("XX", "X"),
        ("#[ig", "nore"),
        ("db", "g!("),
    ];
    let mut broken = Broken::default();
    for text in repository().iter().filter(|text| text.is_rust()) {
        for (n, line) in text.text.lines().enumerate() {
            for (a, b) in marks {
                if line.contains(&format!("{a}{b}")) {
                    broken.add(text, n + 1, format_args!("{a}{b}"));
                }
            }
        }
    }
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    let mut broken = Broken::default();
    for text in repository().iter().filter(|text| text.is_rust() && text.path != "tests/tidy.rs") {
        let lines: Vec<&str> = text.text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let opens = ["unsafe {", "unsafe impl", "unsafe fn"].iter().any(|word| code(line).contains(word));
            let near = &lines[n.saturating_sub(6)..n];
            if opens && !near.iter().any(|line| line.contains("SAFETY") || line.contains("# Safety")) {
                broken.add(text, n + 1, "no SAFETY comment above it");
            }
        }
    }
}

#[test]
fn no_trace_of_one_machine() {
    let places = ["work", "root", "home"].map(|dir| format!("/{dir}/"));
    let mut broken = Broken::default();
    for text in repository() {
        for (n, line) in text.text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(place.as_str())) {
                broken.add(&text, n + 1, format_args!("{place} is a place on somebody's machine"));
            }
            let builds = text.in_any(&["Cargo.lock", ".cargo/", ".ci/", "tests/run", "fuzz/Cargo"]);
            let known = line.contains("github.com/rust-lang/crates.io-index");
            if builds && line.contains("://") && !known {
                broken.add(&text, n + 1, "names a host that it fetches from");
            }
        }
    }
}
