//! What is shipped beside the programs: scripts, units, packages.

use std::path::{Path, PathBuf};

use aoefs::cli::DEFAULT_CONFIG;

use crate::SOON;
use crate::bed::proc;
use crate::bed::skip;

crate::tests![
    shell_scripts(60),
    the_service_is_narrow,
    packages_have_the_version_of_the_programs,
    what_a_package_takes_is_there,
    mount_passes_its_words_on,
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join(below)).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&format!("{below}/{}", entry.file_name().to_string_lossy()))),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn need(program: &str) {
    if !proc::have(program) {
        skip(&format!("no {program} here"));
    }
}

/// All shell scripts of the repository, whether they are shipped or used in it.
fn shell_scripts() {
    need("shellcheck");
    let is_shell = |path: &PathBuf| {
        let text = std::fs::read(path).unwrap();
        ["#!/bin/sh\n", "#!/bin/bash\n", "#!/usr/bin/env bash\n"]
            .iter()
            .any(|first| text.starts_with(first.as_bytes()))
    };
    let single = ["run", "nightly", "packages"].map(|name| root().join("tests").join(name));
    let folders = ["contrib", "tests/bookworm", "benches", ".ci"].map(files).concat();
    let scripts: Vec<PathBuf> = folders.into_iter().chain(single).filter(is_shell).collect();
    assert!(scripts.len() > 18, "{scripts:?}");
    let mut argv = vec!["shellcheck".to_owned(), "--severity=warning".to_owned()];
    argv.extend(scripts.iter().map(|path| path.display().to_string()));
    proc::ok(SOON * 5, &argv);
}

/// What is left would need a mount namespace of its own, in which nobody else would see the mount.
fn the_service_is_narrow() {
    need("systemd-analyze");
    let unit = root().join("contrib/systemd/aoefs.service");
    let argv = ["systemd-analyze", "security", "--offline=true", "--threshold=45", "--no-pager"];
    let output = proc::run(SOON, &[&argv[..], &[unit.to_str().unwrap()]].concat());
    if output.stderr.contains("unrecognized option") {
        skip("this systemd-analyze judges only units that are loaded");
    }
    assert!(output.ok(), "{}{}", output.stdout, output.stderr);
}

fn packages_have_the_version_of_the_programs() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("contrib/debian/changelog", format!("aoefs ({version}-")),
        ("contrib/rpm/aoefs.spec", format!("Version:        {version}\n")),
        ("contrib/arch/PKGBUILD", format!("pkgver={version}\n")),
        ("contrib/alpine/APKBUILD", format!("pkgver={version}\n")),
    ] {
        assert!(read(file).contains(&line), "{file} has no line {line:?}");
    }
    assert!(read("Cargo.toml").contains(&format!("[\"contrib/aoefs.conf\", \"{}\"", &DEFAULT_CONFIG[1..])));
}

/// The files that the Debian package takes, but for what a build makes.
fn what_a_package_takes_is_there() {
    let text = read("Cargo.toml");
    let (_, assets) = text.split_once("\nassets = [").unwrap();
    let mut sources = assets.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
    let mut count = 0;
    for source in sources.by_ref().filter(|source| !source.starts_with("target/")) {
        let (folder, pattern) = source.rsplit_once('/').unwrap_or(("", source));
        let fits = |name: &str| match pattern.split_once('*') {
            Some((start, end)) => name.starts_with(start) && name.ends_with(end),
            None => name == pattern,
        };
        let mut names = std::fs::read_dir(root().join(folder)).unwrap().flatten();
        assert!(names.any(|entry| fits(&entry.file_name().to_string_lossy())), "there is no {source}");
        count += 1;
    }
    assert!(count > 10, "{count} sources");
    // Every manual page and every unit goes along.
    for (folder, ending) in [("man", "*.5"), ("man", "*.8"), ("contrib/systemd", "*.service")] {
        assert!(assets.contains(&format!("\"{folder}/{ending}\"")), "{folder}/{ending}");
    }
}

fn mount_passes_its_words_on() {
    let script = root().join("contrib/mount.aoefs");
    let said = |words: &[&str]| {
        let argv = [&["env", "AOEFS=echo", script.to_str().unwrap()], words].concat();
        proc::run(SOON, &argv)
    };
    let output = said(&["eth1,eth2", "/mnt/a b", "-o", "ro,_netdev", "-n", "-t", "aoefs"]);
    assert_eq!(output.stdout, "eth1,eth2 /mnt/a b -o ro,_netdev\n", "{}", output.stderr);
    assert_eq!(said(&["aoefs", "/mnt", "-v"]).stdout, "aoefs /mnt -o rw -v\n");
    assert_eq!(said(&["aoefs", "/mnt", "-f"]).stdout, "", "a mount that is only played");
    assert_eq!(said(&["aoefs"]).code, Some(1));
}
