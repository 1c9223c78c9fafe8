//! The documents say what the programs do: every option, word and file stands in the manual and exists, the manual's
//! examples run, and the README's tour prints what it shows. What is run is taken from the documents as they are, but
//! for the directories, which are the test's own. `repository` holds the documents for those who change the programs
//! to the sources, `monitoring` what is in contrib/monitoring to what the daemon shows; `pages` types
//! what the pages in docs say.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]
#![allow(missing_docs, reason = "the list of tests is made by a macro")]

#[path = "../bed/mod.rs"]
mod bed;
mod monitoring;
mod pages;
mod repository;
mod shipping;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aoefs::cli::{COMMANDS, MOUNT_OPTIONS};
use aoefs::fs::ctl::{parse_mask, parse_reserve, top_usage, unit_usage};
use bed::mount::{AOEFS, AOEFS_TARGET};
use bed::proc::{self, Output};
use bed::room::Room;
use bed::sweep::{self, Mess};
use bed::{Bed, Ns, until};

tests![
    options,
    subcommands,
    mount_options,
    words_of_the_ctl_files,
    words_of_the_lists,
    promises,
    files_modes_and_status_lines,
    examples_without_a_network(120),
    examples_with_a_network(120),
    the_tour_of_the_readme(120),
    the_readme_as_an_ordinary_user(60),
    markup,
];

fn main() -> std::process::ExitCode {
    bed::harness::main(&[TESTS, monitoring::TESTS, pages::TESTS, repository::TESTS, shipping::TESTS])
}

const MANUAL: &str = include_str!("../../man/aoefs.8");
const TARGET_MANUAL: &str = include_str!("../../man/aoefs-target.8");
const TOP_MANUAL: &str = include_str!("../../man/aoefs-top.8");
const README: &str = include_str!("../../README.md");
const TOUR: &str = include_str!("../../docs/tour.md");

const AOEFS_TOP: &str = env!("CARGO_BIN_EXE_aoefs-top");

/// For a program that only prints, and for a daemon to end.
const SOON: Duration = Duration::from_secs(30);
/// For a script of examples, a file system made and checked included, on a machine that compiles meanwhile.
const SCRIPT: Duration = Duration::from_secs(90);

/// What stands below a heading, up to the next one.
fn part<'a>(manual: &'a str, heading: &str) -> &'a str {
    let line = format!("\n{heading}\n");
    let start = manual.find(&line).unwrap_or_else(|| panic!("no {heading}")) + line.len() - 1;
    let rest = &manual[start..];
    let end = ["\n.Sh ", "\n.Ss "].iter().filter_map(|next| rest.find(next)).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The arguments of a macro in a line, as `Fl` in `.It Fl b , -buffers Ar n`.
fn arguments<'a>(line: &'a str, name: &str) -> Vec<&'a str> {
    let is_macro = |word: &str| {
        let mut letters = word.chars();
        word.len() == 2
            && letters.next().is_some_and(|c| c.is_ascii_uppercase())
            && letters.next().is_some_and(|c| c.is_ascii_lowercase())
    };
    let mut found = Vec::new();
    let mut inside = false;
    for word in line.trim_start_matches('.').split(' ') {
        if is_macro(word) {
            inside = word == name;
        } else if inside && word != "," {
            found.push(word);
        }
    }
    found
}

/// Fails with what one side has and the other has not.
#[track_caller]
fn same(what: &str, program: &BTreeSet<String>, manual: &BTreeSet<String>) {
    let missing: Vec<_> = program.difference(manual).collect();
    let surplus: Vec<_> = manual.difference(program).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{what}: not in the manual: {missing:?}; only in the manual: {surplus:?}"
    );
    assert!(!program.is_empty(), "{what}: none found");
}

/// `-o` and `--options` of `  -o, --options <OPT[,OPT...]>  Mount options`, also those of the commands of aoefs.
fn options_of_help(program: &str) -> BTreeSet<String> {
    let commands = if program == AOEFS { &COMMANDS[..] } else { &[] };
    let mut help = proc::ok(SOON, &[program, "--help"]);
    for command in commands {
        help += &proc::ok(SOON, &[program, command, "--help"]);
    }
    let mut found = BTreeSet::new();
    for line in help.lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        for word in line.split(' ').take_while(|word| word.starts_with('-')) {
            let name = word.split([',', '=', '[', '<', '.']).next().unwrap_or_default();
            found.insert(name.to_owned());
        }
    }
    found
}

fn options() {
    for (program, manual) in [(AOEFS, MANUAL), (AOEFS_TARGET, TARGET_MANUAL), (AOEFS_TOP, TOP_MANUAL)] {
        let described = manual.lines().filter(|line| line.starts_with(".It Fl "));
        let described = described.flat_map(|line| arguments(line, "Fl")).map(|name| format!("-{name}"));
        same(program, &options_of_help(program), &described.collect());
    }
}

fn subcommands() {
    let items = part(MANUAL, ".Sh SUBCOMMANDS").lines().filter_map(|line| line.strip_prefix(".It Cm "));
    let described = items.map(|item| item.split(' ').next().unwrap_or_default().to_owned());
    same("subcommands", &COMMANDS.map(str::to_owned).into(), &described.collect());
    let help = proc::ok(SOON, &[AOEFS, "--help"]);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  aoefs {command} ")), "{command} is not in --help");
        let own = proc::ok(SOON, &[AOEFS, command, "--help"]);
        assert!(own.contains(&format!("Usage: aoefs {command} ")), "{own}");
        assert_eq!(own, proc::ok(SOON, &[AOEFS, "help", command]), "aoefs help {command}");
    }
}

fn mount_options() {
    let taken = MOUNT_OPTIONS.iter().map(|option| option.name.to_owned());
    let described = part(MANUAL, ".Ss Mount options").lines().flat_map(|line| arguments(line, "Cm"));
    same("mount options", &taken.collect(), &described.map(str::to_owned).collect());
    let help = proc::ok(SOON, &[AOEFS, "--help"]);
    for option in &MOUNT_OPTIONS {
        assert!(help.contains(&option.usage()), "{} is not in --help", option.usage());
    }
}

/// The items of a list of commands: the lines after `.It Ic `.
fn commands(heading: &str) -> Vec<&'static str> {
    part(MANUAL, heading).lines().filter_map(|line| line.strip_prefix(".It Ic ")).collect()
}

fn words_of_the_ctl_files() {
    let tables = [
        (".Ss Commands for the top ctl", top_usage().collect::<Vec<_>>()),
        (".Ss Commands for a target's ctl", unit_usage().collect()),
    ];
    let first = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    for (heading, usage) in tables {
        let items = commands(heading);
        same(
            heading,
            &usage.iter().map(|line| first(line)).collect(),
            &items.iter().map(|item| first(item)).collect(),
        );
        for line in &usage {
            let (word, args) = line.split_once(' ').unwrap_or((line, ""));
            let forms: Vec<String> = match args.split(' ').next() {
                Some("[on/off]") => vec![format!("{word} Op Cm on | off")],
                Some(verbs) if verbs.contains('/') => {
                    verbs.split('/').map(|verb| format!("{word} {verb} ")).collect()
                }
                _ => Vec::new(),
            };
            for form in forms {
                assert!(items.iter().any(|item| item.starts_with(&form)), "{form} is not in the manual");
            }
        }
    }
}

/// Every line that the manual has for `mask` and `reserve` is one.
fn words_of_the_lists() {
    const MAC: &str = "02:00:00:00:00:01";
    let lines = |heading| -> Vec<String> {
        let items = commands(heading).into_iter().map(|item| item.replace("\\&", ""));
        items.map(|item| item.replace(" Ar mac ...", " Ar mac").replace("Ar mac", MAC)).collect()
    };
    let (mask, reserve) = (lines(".Ss mask"), lines(".Ss reserve"));
    assert!(mask.len() >= 3 && reserve.len() >= 4, "{mask:?} {reserve:?}");
    for line in mask {
        assert!(matches!(parse_mask(line.as_bytes()), Ok(Some(_))), "{line}");
    }
    for line in reserve {
        assert!(matches!(parse_reserve(line.as_bytes()), Ok(Some(_))), "{line}");
    }
}

/// All Rust files below a directory of the repository, with their text.
fn rust_files(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(below)];
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// Every promise has a test of its name: `fn integrity_…`.
fn promises() {
    let source: String = rust_files("tests").into_iter().map(|(_, text)| text).collect();
    let items = part(MANUAL, ".Ss Promises").lines().filter_map(|line| line.strip_prefix(".It Sy "));
    let names: Vec<String> = items.map(str::to_lowercase).collect();
    assert_eq!(names.len(), 11, "{names:?}");
    for name in names {
        assert!(source.contains(&format!("\nfn {name}_")), "no test of the promise {name}");
    }
}

/// Names below a directory, with their modes; directories end in a slash.
fn listed(dir: &Path, before: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            let name = entry.file_name().into_string().unwrap();
            let slash = if meta.is_dir() { "/" } else { "" };
            format!("{before}{name}{slash} {:04o}", meta.permissions().mode() & 0o7777)
        })
        .collect()
}

fn files_modes_and_status_lines() {
    let mut bed = Bed::with_fuse(&[]);
    let ns = bed.ini.clone();
    let mount = bed.mount_in(&ns, &["--demo"]);
    let unit = mount.wait_for("1.0", SOON);
    unit.ctl_ok("part NAME 0 8");

    let rows = part(MANUAL, ".Sh THE TREE").lines().filter_map(|line| line.strip_prefix(".It Pa "));
    let described: BTreeSet<String> = rows
        .map(|row| {
            let mut cells = row.split(" Ta ");
            let (path, mode) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
            format!("{} {mode}", path.replace("S.S", "1.0").replace("devlink/N", "devlink/0"))
        })
        .collect();
    let mut there = listed(mount.path(), "");
    there.extend(listed(unit.path(), "1.0/"));
    there.extend(listed(&unit.file("devlink"), "1.0/devlink/"));
    assert!(there.remove("1.0/devlink/ 0755"), "{there:?}");
    same("files", &there, &described);

    for page in ["ctl", "1.0/ctl", "1.0/devlink/0", "1.0/stats"] {
        for line in mount.read(page).lines() {
            let key = match line.split_once(':') {
                // A target's line of the top ctl, a path's of stats: both begin with what is different everywhere.
                _ if line.starts_with("1.0 ") || line.starts_with("path demo ") => continue,
                Some((key, _)) => format!("{key}:"),
                None => line.split(' ').next().unwrap_or_default().to_owned(),
            };
            // Of the four kinds of request that stats counts, the manual shows the first.
            let key = ["write ", "flush ", "other "].iter().fold(key, |key, op| key.replace(op, "read "));
            let shown = MANUAL.lines().any(|line| line.starts_with(&key));
            assert!(shown, "{page} has {line:?}, and the manual no line {key:?}");
        }
    }
    for flag in unit.line("flag").split(' ') {
        let listed =
            MANUAL.lines().any(|line| line.starts_with(".Sy ") && arguments(line, "Sy").contains(&flag));
        assert!(listed, "the manual does not know the flag {flag}");
    }
    unit.ctl_ok("delpart NAME");
    mount.stop();
}

/// The blocks of a manual page that are marked as examples of a kind, as shell.
fn examples(manual: &str, kind: &str) -> String {
    let mark = format!(".\\\" example: {kind}\n.Bd -literal -offset indent\n");
    let blocks: Vec<String> = manual
        .split(&mark)
        .skip(1)
        .map(|rest| rest.split("\n.Ed").next().unwrap_or_default().replace("\\e", "\\"))
        .collect();
    assert!(!blocks.is_empty(), "no example: {kind}");
    blocks.join("\n")
}

/// Where examples run: a mount namespace of the test's thread, two hosts, a mount point and a directory beside it.
struct Stage {
    point: PathBuf,
    disk: PathBuf,
    // In this order: what holds the mount goes before the mount, and that before its namespace.
    _loops: Loops,
    bed: Bed,
    _room: Room,
}

/// Lets go of the loop devices on files below it.
struct Loops(PathBuf);

impl Drop for Loops {
    fn drop(&mut self) {
        let list = proc::run(SOON, &["losetup", "-n", "-l", "-O", "NAME,BACK-FILE"]).stdout;
        for line in list.lines() {
            if let Some((device, file)) = line.trim().split_once(' ')
                && Path::new(file.trim()).starts_with(&self.0)
            {
                proc::run(SOON, &["umount", device]);
                proc::run(SOON, &["losetup", "-d", device]);
            }
        }
    }
}

impl Stage {
    /// Skips the test where it cannot be had.
    fn new(programs: &[&str]) -> Self {
        let room = Room::new();
        let bed = Bed::with_fuse(programs);
        let [point, disk] = ["aoe", "disk"].map(|name| bed.dir().join(name));
        sweep::register(Mess::Mount(point.clone()));
        sweep::register(Mess::Mount(disk.clone()));
        Self { _loops: Loops(point.clone()), point, disk, bed, _room: room }
    }

    /// As `new`, for examples with loop devices.
    fn with_loops() -> Self {
        let stage = Self::new(&["losetup", "mkfs.ext4", "e2fsck"]);
        if !proc::run(SOON, &["losetup", "--find"]).ok() {
            bed::skip("no loop device can be had here");
        }
        stage
    }

    /// Shell that finds the programs of this build, with what the documents call their directories replaced.
    fn shell(&self, script: &str, names: &[(&str, &Path)]) -> String {
        let mut script = script.to_owned();
        for (name, path) in names {
            script = script.replace(name, path.to_str().unwrap());
        }
        let programs = Path::new(AOEFS).parent().unwrap().display();
        format!("PATH={programs}:$PATH:/usr/sbin:/sbin\n{script}")
    }

    fn run(&self, ns: &Ns, script: &str) -> Output {
        ns.run(SCRIPT, &["bash", "-c", script])
    }

    /// The daemon that went to the background for the mount point, and its unmounter.
    fn daemons(&self) -> Vec<String> {
        let point = self.point.to_str().unwrap();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let line = |dir: PathBuf| std::fs::read(dir.join("cmdline")).unwrap_or_default();
        entries
            .map(|entry| String::from_utf8_lossy(&line(entry.path())).replace('\0', " "))
            .filter(|line| line.contains(AOEFS_NAME) && line.contains(point) && !line.starts_with("bash"))
            .collect()
    }

    /// After the last unmount nothing is left.
    #[track_caller]
    fn is_clear(&self) {
        until("the daemon and its unmounter have ended", SOON, || self.daemons().is_empty());
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains(self.point.to_str().unwrap()), "{mounts}");
    }
}

/// The first word of the daemon's command line, as the examples have it.
const AOEFS_NAME: &str = "aoefs ";

#[track_caller]
fn succeeded(script: &str, output: &Output) {
    let how = if output.timed_out { "did not end" } else { "failed" };
    assert!(output.ok(), "{how}:\n{script}\n--- said:\n{}{}", output.stdout, output.stderr);
}

fn examples_without_a_network() {
    let stage = Stage::with_loops();
    let image = stage.bed.dir().join("image");
    let names = [("/mnt/aoe", &*stage.point), ("/mnt/disk", &*stage.disk), ("/tmp/image", image.as_path())];
    let script = stage.shell(&format!("set -e\n{}", examples(MANUAL, "demo")), &names);
    let output = stage.run(&stage.bed.ini, &script);
    succeeded(&script, &output);
    assert!(output.stdout.contains("state: up"), "{}", output.stdout);
    stage.is_clear();
}

fn examples_with_a_network() {
    let mut stage = Stage::new(&[]);
    std::fs::create_dir(&stage.point).unwrap();
    stage.bed.ini.veth("eth1", &stage.bed.tgt, "eth1", 9000);
    let image = stage.bed.dir().join("disk.img");
    let serve = stage.shell(&examples(TARGET_MANUAL, "target"), &[("/tmp/disk.img", image.as_path())]);
    let server = stage.bed.tgt.clone();
    let target = stage.bed.spawn(&server, &["bash", "-ec", &serve]);
    until("the target serves", SOON, || target.said().contains("READY "));

    let script = format!("set -e\n{}\numount /mnt/aoe", examples(MANUAL, "net"));
    let script = stage.shell(&script, &[("/mnt/aoe", stage.point.as_path())]);
    let output = stage.run(&stage.bed.ini, &script);
    succeeded(&script, &output);
    for words in ["bound eth1; targets 1.0", "1.0 0.067GB eth1 8192 up", "web server, do not touch"] {
        assert!(output.stdout.contains(words), "{words:?} is not in:\n{}", output.stdout);
    }
    stage.is_clear();
}

/// A line as it is on every machine and at every time: any number is 0, any month Mon, any run of blanks one.
fn anywhere(line: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = line.split_whitespace().collect();
    let text = MONTHS.iter().fold(words.join(" "), |text, month| text.replace(month, "Mon"));
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '0'..='9' if out.ends_with('0') => {}
            '0'..='9' => out.push('0'),
            c => out.push(c),
        }
    }
    // A shell with a script says where in it.
    out.replace("bash: line 0: ", "bash: ")
}

/// The commands that a part of a page shows, each with what it prints.
fn tour(
    page: &'static str,
    (from, to): (&str, &str),
    prompt: &str,
) -> Vec<(&'static str, Vec<&'static str>)> {
    let start = page.find(from).expect("the heading of the tour");
    let end = page.find(to).expect("the heading after the tour");
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    // Every other piece between fences is a block.
    for block in page[start..end].split("\n```").skip(1).step_by(2) {
        for line in block.lines().skip(1) {
            match (line.strip_prefix(prompt), commands.last_mut()) {
                (Some(command), _) => commands.push((command, Vec::new())),
                (None, Some((_, shown))) => shown.push(line),
                (None, None) => panic!("{line}: printed by no command"),
            }
        }
    }
    assert!(commands.len() > 1, "{commands:?}");
    commands
}

/// The first command of the README, with the program that this build has.
fn first_command() -> String {
    const CARGO: &str = "cargo run --profile quick --bin aoefs --";
    let first = README.lines().find(|line| line.starts_with("    ") && line.contains(CARGO));
    first.expect("the first of the two commands").replace(CARGO, "aoefs").trim().to_owned()
}

/// What the README shows at once, and the page that goes on from there.
fn the_tour_of_the_readme() {
    let stage = Stage::with_loops();
    let mounted = "bound demo; targets 1.0";
    typed(&stage, (&first_command(), mounted), &tour(README, ("\n## See it\n", "\n## Install it\n"), "$ "));
    stage.is_clear();
    let tour = tour(TOUR, ("\n## Five minutes\n", "\n## A real network\n"), "# ");
    assert!(tour.len() > 10, "{tour:?}");
    let first = TOUR.lines().find_map(|line| line.strip_prefix("    ")).expect("where the tour begins");
    assert_eq!(first, first_command());
    typed(&stage, (first, mounted), &tour);
    stage.is_clear();
}

/// What the README shows at once, by somebody who is not root: fusermount3 mounts then.
fn the_readme_as_an_ordinary_user() {
    // Called nobody: fusermount3 mounts only for users that have a name.
    const USER: u32 = 65534;
    let stage = Stage::new(&["setpriv", "fusermount3", "mknod"]);
    let home = stage.bed.dir().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(USER), Some(USER)).unwrap();
    // Containers often have it for root alone. A node for everybody takes its place in the namespace of this test.
    if std::fs::metadata("/dev/fuse").unwrap().permissions().mode() & 0o006 != 0o006 {
        let node = stage.bed.dir().join("fuse").display().to_string();
        let made = format!("mknod -m 666 {node} c 10 229 && : <>{node} && mount --bind {node} /dev/fuse");
        let output = proc::run(SOON, &["bash", "-c", &made]);
        if !output.ok() {
            bed::skip(&format!("/dev/fuse is for root alone: {}", output.stderr.trim()));
        }
    }
    // The build may be where only root can look.
    std::fs::copy(AOEFS, home.join("aoefs")).unwrap();
    let id = USER.to_string();
    let path = format!("PATH={}:{}", home.display(), std::env::var("PATH").unwrap());
    let user = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "env", &path];
    let point = home.join("aoe");
    sweep::register(Mess::Mount(point.clone()));
    let stage = Stage { point, ..stage };
    let tour = tour(README, ("\n## See it\n", "\n## Install it\n"), "$ ");
    typed_by(&user, &stage, (&first_command(), "bound demo; targets 1.0"), &tour);
    stage.is_clear();
}

/// Types a command that prints such words, then the others, and compares what each prints.
#[track_caller]
fn typed(stage: &Stage, first: (&str, &str), tour: &[(&str, Vec<&str>)]) {
    typed_by(&[], stage, first, tour);
}

/// The same by another user: the words come before those of the shell.
#[track_caller]
fn typed_by(user: &[&str], stage: &Stage, (first, words): (&str, &str), tour: &[(&str, Vec<&str>)]) {
    // What a command prints stands between its number and the next one's.
    let mut script = format!("exec 2>&1\n{first}\n");
    for (n, (command, _)) in tour.iter().enumerate() {
        script.push_str(&format!("echo '@{n}'\n{command}\n"));
    }
    // What a page shows may be a failure, and is judged by what it prints.
    script.push_str(":\n");
    let point = stage.point.as_path();
    let names = [("/tmp/aoe", point), ("/mnt/aoe", point), ("/tmp/disk", stage.disk.as_path())];
    let script = stage.shell(&script, &names);
    let output = stage.bed.ini.run(SCRIPT, &[user, &["bash", "-c", &script]].concat());
    succeeded(&script, &output);
    let (start, rest) = output.stdout.split_once("@0\n").expect("the tour's first command");
    assert!(start.contains(words), "{start}");

    let mut rest = rest;
    for (n, (command, shown)) in tour.iter().enumerate() {
        let (printed, later) = rest.split_once(&format!("@{}\n", n + 1)).unwrap_or((rest, ""));
        rest = later;
        let printed = printed.replace(point.to_str().unwrap(), "/mnt/aoe");
        // What a container may not do is warned of, which a machine has not to say.
        let said = printed.lines().filter(|line| !line.contains(" WARN "));
        let printed: Vec<String> = said.map(anywhere).collect();
        let shown: Vec<String> = shown.iter().map(|line| anywhere(line)).collect();
        assert_eq!(printed, shown, "{command}\n{}", output.stdout);
    }
}

fn markup() {
    if !proc::have("mandoc") {
        bed::skip("the program mandoc is not installed");
    }
    let pages = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("man")).unwrap();
    for file in pages.map(|page| page.unwrap().path()) {
        let output = proc::run(SOON, &["mandoc", "-T", "lint", file.to_str().unwrap()]);
        // Which manuals are installed here is nothing about the page.
        let mut found =
            output.stdout.lines().filter(|line| !line.contains(": referenced manual not found: "));
        assert_eq!(found.next(), None, "{}{}", output.stdout, output.stderr);
    }
}
