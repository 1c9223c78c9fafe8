//! The commands beside the mounting form over a cable: without a mount, against our own target and vblade, and what
//! `check` finds on a mount when the network is wrong.

use crate::bed::mount::AOEFS;
use crate::bed::proc::Output;
use crate::bed::{Bed, MIB, until};
use std::time::Duration;

crate::tests![
    ping_without_a_mount(beside),
    config_without_a_mount(beside),
    discover_without_a_mount(beside),
    check_without_a_mount(beside),
    check_finds_what_is_wrong(beside),
    check_finds_two_disks_at_one_address(beside),
    commands_beside_a_mount_disturb_nothing(beside),
];

/// A check takes up to four seconds by itself.
const SOON: Duration = Duration::from_secs(30);

#[track_caller]
fn aoefs(bed: &Bed, args: &[&str]) -> Output {
    let output = bed.ini.run(SOON, &[&[AOEFS], args].concat());
    assert!(!output.timed_out, "{args:?}: {}{}", output.stdout, output.stderr);
    output
}

#[track_caller]
fn says(bed: &Bed, args: &[&str], code: i32) -> String {
    let output = aoefs(bed, args);
    assert_eq!((output.code, output.stderr.as_str()), (Some(code), ""), "{args:?}: {}", output.stdout);
    output.stdout
}

#[track_caller]
fn refuses(bed: &Bed, args: &[&str], words: &str) {
    let output = aoefs(bed, args);
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{args:?}: {}", output.stderr);
    assert!(
        output.stderr.contains(words) && output.stderr.lines().count() == 1,
        "{args:?}: {}",
        output.stderr
    );
}

/// A cable with our own target 1.0 and vblade's 1.1 behind it.
fn two(mtu: usize) -> Bed {
    let mut bed = Bed::cable(&["vblade"], mtu);
    let (ours, theirs) = (bed.image("ours", MIB), bed.image("theirs", MIB));
    bed.aoefs_target("1.0", "v1", &ours);
    bed.vblade("1.1", "v1", &theirs);
    until("both answer", SOON, || {
        let table = aoefs(&bed, &["discover", "-i", "v0"]).stdout;
        table.contains("1.0 ") && table.contains("1.1 ")
    });
    bed
}

fn ping_without_a_mount() {
    let bed = two(1500);
    for target in ["1.0", "1.1"] {
        let said = says(&bed, &["ping", target, "-i", "v0", "-n", "3", "-d", "0.01"], 0);
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 4, "{said}");
        let whom = format!("{target} at {} via v0: 1 of 3: ", bed.tgt.mac("v1"));
        assert!(lines[0].starts_with(&whom), "{said}");
        assert!(lines[3].starts_with("3 asked, 3 answered, 0 % lost; round trip min/avg/max "), "{said}");
    }
    refuses(&bed, &["ping", "7.7", "-i", "v0"], "no answer from 7.7 on v0 within 2 s; is it running");
    refuses(&bed, &["ping", "1.0", "-i", "nope0"], "there is no interface nope0; see: ip link");
    bed.ini.ip("link set v0 down");
    refuses(
        &bed,
        &["ping", "1.0", "-i", "v0"],
        "v0 is down or has no carrier; raise it with: ip link set v0 up",
    );
}

fn config_without_a_mount() {
    let bed = two(1500);
    for target in ["1.0", "1.1"] {
        let config = |args: &[&'static str]| [&["config", target, "-i", "v0"], args].concat();
        assert_eq!(says(&bed, &config(&[]), 0), "\n", "{target}");
        assert_eq!(says(&bed, &config(&["--set", "web 1"]), 0), "", "{target}");
        assert_eq!(says(&bed, &config(&["--set", "web 1"]), 0), "", "{target}: the same again");
        assert_eq!(says(&bed, &config(&[]), 0), "web 1\n", "{target}");
        let has = "has the string \"web 1\" already; replace it with --force";
        refuses(&bed, &config(&["--set", "web 2"]), has);
        assert_eq!(says(&bed, &config(&["--test", "web 1"]), 0), "", "{target}");
        assert_eq!(says(&bed, &config(&["--prefix", "web"]), 0), "", "{target}");
        let other = format!("{target} has the string \"web 1\"\n");
        assert_eq!(says(&bed, &config(&["--test", "web"]), 1), other, "{target}");
        assert_eq!(says(&bed, &config(&["--prefix", "eb"]), 1), other, "{target}");
        assert_eq!(says(&bed, &config(&["--force", ""]), 0), "", "{target}");
        assert_eq!(says(&bed, &config(&["--test", ""]), 0), "", "{target}");
    }
}

fn discover_without_a_mount() {
    let bed = two(9000);
    let table = says(&bed, &["discover", "-i", "v0"], 0);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{table}");
    let mac = bed.tgt.mac("v1");
    assert_eq!(rows[1][..3], ["1.0", "v0", mac.as_str()], "{table}");
    assert_eq!(rows[2][..3], ["1.1", "v0", mac.as_str()], "{table}");
}

fn check_without_a_mount() {
    let bed = two(9000);
    let screen = says(&bed, &["check", "-i", "v0"], 0);
    assert!(screen.contains("ok    v0   up, MTU 9000"), "{screen}");
    for target in ["1.0", "1.1"] {
        assert!(
            screen.contains(&format!("ok    {target}  up, 8192 bytes a frame proven via v0")),
            "{screen}"
        );
    }
    assert!(screen.ends_with("nothing is wrong\n"), "{screen}");
}

fn check_finds_what_is_wrong() {
    let mut bed = Bed::cable(&[], 9000);
    let image = bed.image("disk", MIB);
    bed.aoefs_target("1.0", "v1", &image);
    let mount = bed.mount(&["--wait", "1.0"]);
    let point = mount.path().to_str().unwrap().to_owned();
    let screen = says(&bed, &["check", &point], 0);
    assert!(screen.contains("ok    1.0  up, 8192 bytes a frame proven via v0"), "{screen}");
    // From another namespace, in which there is a v0, too, the daemon's one is judged.
    bed.tgt.bridge("v0", &[]);
    let elsewhere = bed.tgt.run(SOON, &[AOEFS, "check", &point]).stdout;
    let line = "ok    v0   up, MTU 9000, 0 frames dropped, flow control unknown (it is in another network namespace)";
    assert!(elsewhere.contains(line) && elsewhere.ends_with("nothing is wrong\n"), "{elsewhere}");
    // As behind a switch that carries less than both ends allow.
    bed.tgt.ip("link set v1 mtu 1500");
    until("the smaller MTU is noticed", SOON, || {
        let screen = aoefs(&bed, &["check", &point]);
        screen.code == Some(1)
            && screen.stdout.contains("1024 bytes of data pass in a frame, and v0 has room for 8192")
    });
    bed.ini.ip("link set v0 down");
    until("the interface is down", SOON, || {
        let screen = aoefs(&bed, &["check", &point]);
        screen.code == Some(1)
            && screen.stdout.contains("WRONG v0   is down")
            && screen.stdout.contains("-> raise it with: ip link set v0 up")
    });
    let screen = aoefs(&bed, &["check", "-i", "v0"]);
    assert!(
        screen.code == Some(1) && screen.stdout.contains("WRONG targets  none answers"),
        "{}",
        screen.stdout
    );
    bed.ini.ip("link set v0 up");
    mount.stop();
}

fn check_finds_two_disks_at_one_address() {
    let mut bed = Bed::with_fuse(&[]);
    bed.ini.veth("v0", &bed.tgt, "v1", 1500);
    bed.ini.veth("w0", &bed.tgt, "w1", 1500);
    let (one, two) = (bed.image("one", MIB), bed.image("two", MIB));
    bed.aoefs_target("1.0", "v1", &one);
    bed.aoefs_target("1.0", "w1", &two);
    until("it is found", SOON, || {
        let screen = aoefs(&bed, &["check", "-i", "v0,w0"]);
        screen.code == Some(1)
            && screen.stdout.contains("WRONG 1.0  different disks answer at this address: ")
            && screen.stdout.contains("give one of them another address")
    });
}

/// Their tags are their own: the daemon on the same interface takes none of their answers for its own.
fn commands_beside_a_mount_disturb_nothing() {
    let mut bed = two(1500);
    let mount = bed.mount(&["--wait", "1.0"]);
    let unit = mount.wait_for("1.0", SOON);
    let said = says(&bed, &["ping", "1.0", "-i", "v0", "-n", "50", "-d", "0"], 0);
    assert!(said.contains("50 asked, 50 answered"), "{said}");
    says(&bed, &["check", "-i", "v0"], 0);
    let stats = unit.read("stats");
    let count = |key: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{key}: {stats}")).parse::<u64>().unwrap()
    };
    assert!(count("unexpected") >= 50, "the daemon heard the answers: {stats}");
    assert_eq!((count("mismatched"), count("downs")), (0, 0), "and took none of them: {stats}");
    mount.stop();
}
