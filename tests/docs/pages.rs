//! The pages in docs for those who come from other programs, and what they name: commands run, links lead somewhere,
//! units and rules are what systemd and udev take.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bed::{self, proc, until};
use crate::{MANUAL, README, SOON, Stage, TOUR, succeeded, tour, typed};
use aoefs::fs::ctl::{top_usage, unit_usage};

crate::tests![
    pages_are_typed(120),
    networks_are_typed(120),
    words_in_pages_exist,
    links_lead_somewhere,
    units_in_pages,
    network_of_networkd,
    lines_of_fstab,
    rules_of_udev,
    pictures_are_whole,
    pictures_made_again(120, night),
];

const PAGES: [(&str, &str); 4] = [
    ("docs/from-aoetools.md", include_str!("../../docs/from-aoetools.md")),
    ("docs/from-plan9.md", include_str!("../../docs/from-plan9.md")),
    ("docs/from-vblade.md", include_str!("../../docs/from-vblade.md")),
    ("docs/system.md", include_str!("../../docs/system.md")),
];

const MONITORING: &str = include_str!("../../contrib/monitoring/README.md");

/// The blocks of a page that are fenced as code of that kind.
fn blocks<'a>(page: &'a str, kind: &str) -> Vec<&'a str> {
    let fence = format!("\n```{kind}\n");
    let found = page.split(&fence).skip(1);
    found.map(|rest| rest.split("\n```").next().unwrap_or_default()).collect()
}

/// What is fenced as `sh` runs, line by line, with a target 1.0 behind eth1.
fn pages_are_typed() {
    let mut stage = Stage::new(&[]);
    std::fs::create_dir(&stage.point).unwrap();
    stage.bed.ini.veth("eth1", &stage.bed.tgt, "eth1", 9000);
    let image = stage.bed.dir().join("disk.img");
    let serve = stage.shell("exec aoefs-target --size 64M 1.0 eth1 IMAGE", &[("IMAGE", image.as_path())]);
    let server = stage.bed.tgt.clone();
    let target = stage.bed.spawn(&server, &["bash", "-ec", &serve]);
    until("the target serves", SOON, || target.said().contains("READY "));
    let mut script = "set -ex\naoefs -i eth1 --wait 1.0 /mnt/aoe\n".to_owned();
    let mut lines = 0;
    for (_, page) in PAGES {
        for block in blocks(page, "sh") {
            lines += block.lines().count();
            script.push_str(block);
            script.push('\n');
        }
    }
    assert!(lines > 20, "{lines} lines");
    script.push_str("umount /mnt/aoe\n");
    let script = stage.shell(&script, &[("/mnt/aoe", stage.point.as_path())]);
    let output = stage.run(&stage.bed.ini, &script);
    succeeded(&script, &output);
    for words in ["1.0 0.067GB eth1 8192 up", "state: up", "probed: ", "/plan9\n"] {
        assert!(output.stdout.contains(words), "{words:?} is not in:\n{}", output.stdout);
    }
    stage.is_clear();
}

/// The README's network, and that of the tour. The test's own namespaces stand for the two machines, and its own
/// targets for vblade.
fn networks_are_typed() {
    let mut stage = Stage::new(&[]);
    std::fs::create_dir(&stage.point).unwrap();
    stage.bed.ini.veth("eth1", &stage.bed.tgt, "eth1", 9000);
    let server = stage.bed.tgt.clone();
    let serve = |stage: &mut Stage, size: &str, addr: &str| {
        let image = stage.bed.dir().join(addr);
        let image = image.to_str().unwrap();
        let target =
            stage.bed.spawn(&server, &[bed::mount::AOEFS_TARGET, "--size", size, addr, "eth1", image]);
        until("the target serves", SOON, || target.said().contains("READY "));
        target
    };
    let _first = serve(&mut stage, "1G", "1.0");
    let second = serve(&mut stage, "256M", "2.7");
    // On a busy machine both may take longer than somebody waits who does not say for what.
    let waiting = |command: &'static str| command.replace("-i eth1 /mnt", "-i eth1 --wait 1.0,2.7 /mnt");
    let shown = tour(README, ("\n## Use it on a network\n", "\n## On a server\n"), "# ");
    let commands: Vec<String> = shown.iter().map(|(command, _)| waiting(command)).collect();
    let shown: Vec<(&str, Vec<&str>)> =
        commands.iter().map(String::as_str).zip(shown.iter().map(|(_, lines)| lines.clone())).collect();
    typed(&stage, ("true", ""), &shown);
    proc::ok(SOON, &["umount", stage.point.to_str().unwrap()]);
    stage.is_clear();

    let shown = tour(TOUR, ("\n## A real network\n", "\n## The end\n"), "# ");
    let own = |(command, lines): &(&'static str, Vec<&'static str>)| {
        let command = command.strip_prefix("nsenter --net=/run/netns/client ").unwrap_or(command);
        let others = ["ip ", "nsenter ", "truncate "].iter().any(|start| command.starts_with(start));
        (!others).then(|| (command, lines.clone()))
    };
    let shown: Vec<(&str, Vec<&str>)> = shown.iter().filter_map(own).collect();
    let place = |start: &str| shown.iter().position(|(command, _)| command.starts_with(start)).unwrap();
    let (dd, tail) = (place("dd "), place("tail "));
    typed(&stage, ("true", ""), &shown[..dd]);
    // It stays away for as long as the read may take, and comes back.
    second.kill9();
    second.ended(SOON);
    typed(&stage, ("true", ""), &shown[dd..tail]);
    let _second = serve(&mut stage, "256M", "2.7");
    let log = stage.point.join("log");
    until("it is up again", SOON, || std::fs::read_to_string(&log).unwrap().ends_with(" 2.7 up\n"));
    typed(&stage, ("true", ""), &shown[tail..]);
    proc::ok(SOON, &["umount", stage.point.to_str().unwrap()]);
    stage.is_clear();
}

/// `echo WORD … >…/ctl`, wherever a page has it: the word is one of that file.
fn words_in_pages_exist() {
    let first = |line: String| line.split(' ').next().unwrap_or_default().to_owned();
    let [top, unit]: [Vec<String>; 2] = [top_usage().map(first).collect(), unit_usage().map(first).collect()];
    let mut found = 0;
    for (name, page) in PAGES.into_iter().chain([("README.md", README)]) {
        for rest in page.split("echo ").skip(1) {
            let Some((words, to)) = rest.lines().next().and_then(|line| line.split_once(" >")) else {
                continue;
            };
            let to = to.split(['`', ' ', ';', ')']).next().unwrap_or_default();
            let list = match to {
                "/mnt/aoe/ctl" => &top,
                _ if to.ends_with("ctl") && !to.starts_with("/dev/") => &unit,
                _ => continue,
            };
            let word = first(words.to_owned());
            assert!(list.contains(&word), "{name}: {word} is no word of {to}");
            found += 1;
        }
    }
    assert!(found > 25, "{found} words");
}

fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for (name, page) in
        PAGES.into_iter().chain([("README.md", README), ("contrib/monitoring/README.md", MONITORING)])
    {
        let dir = Path::new(name).parent().unwrap();
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") {
                assert!(root.join(dir).join(path).exists(), "{name} links to {link}");
                found += 1;
            }
        }
    }
    assert!(found > 20, "{found} links");
}

/// The unit that a page shows.
fn units_in_pages() {
    if !proc::have("systemd-analyze") {
        bed::skip("the program systemd-analyze is not installed");
    }
    let program = env!("CARGO_BIN_EXE_aoefs-target");
    let [unit] = blocks(PAGES[2].1, "ini")[..] else { panic!("one unit") };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aoe-target@.service");
    std::fs::write(&file, unit.replace("/usr/bin/aoefs-target", program)).unwrap();
    let output = proc::run(SOON, &["systemd-analyze", "verify", "--man=no", file.to_str().unwrap()]);
    assert!(output.ok() && output.stderr.is_empty(), "{}{}", output.stdout, output.stderr);
}

/// Every setting of the file for systemd-networkd is one that the program has in its table, `Section.Key`.
fn network_of_networkd() {
    let program = Path::new("/lib/systemd/systemd-networkd");
    let Ok(program) = std::fs::read(program) else { bed::skip("systemd-networkd is not installed") };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/examples/10-aoe.network");
    let text = std::fs::read_to_string(file).unwrap();
    let (mut section, mut found) = ("", 0);
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            continue;
        }
        let (key, value) = line.split_once('=').unwrap();
        let setting = format!("{section}.{key}\0");
        let known = program.windows(setting.len()).any(|bytes| bytes == setting.as_bytes());
        assert!(known && !value.is_empty(), "systemd-networkd does not know {line} in [{section}]");
        found += 1;
    }
    assert!(found > 5, "{found} settings");
}

/// Lines for /etc/fstab, wherever a document has one, are what systemd makes units of without a word.
fn lines_of_fstab() {
    let generator = Path::new("/lib/systemd/system-generators/systemd-fstab-generator");
    if !generator.exists() {
        bed::skip("systemd-fstab-generator is not installed");
    }
    const EXAMPLE: &str = include_str!("../../contrib/examples/fstab");
    const MOUNT_MANUAL: &str = include_str!("../../man/mount.aoefs.8");
    let others =
        [("README.md", README), ("aoefs.8", MANUAL), ("mount.aoefs.8", MOUNT_MANUAL), ("fstab", EXAMPLE)];
    let mut found = 0;
    for (name, page) in PAGES.into_iter().chain(others) {
        // In a text, it stands between backticks.
        let pieces = page.lines().flat_map(|line| line.split('`'));
        let is_entry = |line: &&str| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            matches!(columns[..], [_, at, _, options, "0" | "1" | "2", _] if at.starts_with('/') && options.contains("_netdev"))
        };
        let entries: Vec<&str> = pieces.filter(is_entry).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(dir.path().join("fstab"), entries.join("\n") + "\n").unwrap();
        let to = ["normal", "early", "late"].map(path);
        to.iter().for_each(|to| std::fs::create_dir(to).unwrap());
        let table = format!("SYSTEMD_FSTAB={}", path("fstab"));
        let env = ["env", "SYSTEMD_LOG_TARGET=console", "SYSTEMD_LOG_LEVEL=info", &table];
        let argv = [&env[..], &[generator.to_str().unwrap()], &to.each_ref().map(String::as_str)].concat();
        let output = proc::run(SOON, &argv);
        assert!(output.ok() && output.stderr.is_empty(), "{name}: {}", output.stderr);
        let units = std::fs::read_dir(&to[0]).unwrap().flatten();
        let mounts = units.filter(|unit| unit.file_name().to_string_lossy().ends_with(".mount")).count();
        // A systemd without that setting reads the machine's own table.
        if mounts == 0 && found == 0 && !entries.is_empty() {
            bed::skip("this systemd-fstab-generator reads no other table than /etc/fstab");
        }
        assert_eq!(mounts, entries.len(), "{name}: {entries:?}");
        found += mounts;
    }
    assert!(found >= 7, "{found} lines");
}

/// udevadm has the word `verify` from systemd 254 on.
fn rules_of_udev() {
    let rules: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/udev/60-aoefs-loop.rules");
    let text = std::fs::read_to_string(&rules).unwrap();
    for label in text.split("GOTO=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(text.contains(&format!("LABEL=\"{label}\"")), "no label {label}");
    }
    if !proc::have("udevadm") || !proc::run(SOON, &["udevadm", "verify", "--help"]).ok() {
        bed::skip("udevadm, with the word verify of systemd 254, is not installed");
    }
    let output = proc::run(SOON, &["udevadm", "verify", rules.to_str().unwrap()]);
    assert!(output.ok(), "{}{}", output.stdout, output.stderr);
}

const PICTURES: [(&str, &str, &str); 2] = [
    ("session", include_str!("../../docs/session.svg"), "/tmp/aoe: bound demo; targets 1.0"),
    ("aoefs-top", include_str!("../../docs/aoefs-top.svg"), "5 targets, 4 up, 1 down"),
];

/// The pictures of the README are whole, and show what they are to show.
fn pictures_are_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let check = "import sys, xml.dom.minidom as m; [m.parse(name) for name in sys.argv[1:]]";
    if !proc::have("python3") {
        bed::skip("the program python3 is not installed");
    }
    for (name, picture, words) in PICTURES {
        assert!(picture.contains(words), "{name} does not show {words:?}");
        let file = root.join(name).with_extension("svg");
        let output = proc::run(SOON, &["python3", "-c", check, file.to_str().unwrap()]);
        assert!(output.ok(), "{}", output.stderr);
    }
}

/// Long words of a picture; numbers differ from session to session.
fn words_shown(picture: &str) -> BTreeSet<String> {
    let texts = picture.split("<text ").skip(1).filter_map(|rest| rest.split_once('>'));
    let texts = texts.filter_map(|(_, rest)| rest.split('<').next());
    let words = texts.flat_map(|text| text.split(|c: char| !c.is_ascii_alphabetic()));
    words.filter(|word| word.len() > 5).map(str::to_owned).collect()
}

/// The pictures can be made again, and show what a session of today shows.
fn pictures_made_again() {
    for program in ["tmux", "python3", "unshare", "mkfs.ext4"] {
        if !proc::have(program) {
            bed::skip(&format!("the program {program} is not installed"));
        }
    }
    let _stage = Stage::new(&[]);
    let dir = tempfile::tempdir().unwrap();
    let programs = Path::new(bed::mount::AOEFS).parent().unwrap();
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/recording/record");
    let output = proc::run(Duration::from_secs(90), &[record.as_path(), dir.path(), programs]);
    assert!(output.ok(), "{}{}", output.stdout, output.stderr);
    for (name, kept, words) in PICTURES {
        let made = std::fs::read_to_string(dir.path().join(name).with_extension("svg")).unwrap();
        assert!(made.contains(words), "{name} does not show {words:?}");
        let gone: Vec<String> = words_shown(kept).difference(&words_shown(&made)).cloned().collect();
        assert!(gone.is_empty(), "{name}.svg shows what is no more, make it again: {gone:?}");
    }
}
