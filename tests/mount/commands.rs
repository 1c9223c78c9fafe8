//! The commands beside the mounting form, on a mount of the built-in target: what they print, their reasons and their
//! exit codes.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::bed::proc::{self, Output};
use crate::bed::room::{Room, SOON};
use crate::bed::{Daemon, until};

crate::tests![
    ctl_says_why_not,
    status_is_a_table,
    discover_asks_and_shows,
    check_proves_the_payload,
    ping_counts_and_measures,
    config_reads_sets_and_tests,
    what_is_no_mount_is_said,
    a_daemon_that_is_stopped_is_said(beside),
    a_mount_point_that_is_not_empty_is_said,
];

const AOEFS: &str = env!("CARGO_BIN_EXE_aoefs");

/// For a command that answers, on a machine that compiles meanwhile.
const LIMIT: Duration = Duration::from_secs(20);

/// The demo in a room of its own.
struct Demo {
    room: Room,
    daemon: std::sync::Arc<Daemon>,
}

impl Demo {
    #[track_caller]
    fn new() -> Demo {
        let room = Room::new();
        let daemon =
            Daemon::spawn(room.dir(), "aoefs", &[AOEFS, "-f", "--demo=16M", room.point().to_str().unwrap()]);
        until("it serves", SOON, || daemon.said().contains("targets 1.0"));
        Demo { room, daemon }
    }

    fn at(&self, name: &str) -> String {
        self.room.point().join(name).to_str().unwrap().trim_end_matches('/').to_owned()
    }

    #[track_caller]
    fn end(self) {
        self.daemon.signal(Signal::SIGTERM);
        assert_eq!(self.daemon.ended(SOON), 0, "{}", self.daemon.said());
    }
}

fn aoefs(args: &[&str]) -> Output {
    proc::run(LIMIT, &[&[AOEFS], args].concat())
}

/// What it printed, and nothing on stderr.
#[track_caller]
fn says(args: &[&str], code: i32) -> String {
    let output = aoefs(args);
    assert_eq!((output.code, output.stderr.as_str()), (Some(code), ""), "{args:?}: {}", output.stdout);
    output.stdout
}

/// One line on stderr.
#[track_caller]
fn refuses(args: &[&str], code: i32) -> String {
    let output = aoefs(args);
    assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{args:?}: {}", output.stderr);
    assert!(output.stderr.starts_with("aoefs: ") && output.stderr.lines().count() == 1, "{}", output.stderr);
    output.stderr["aoefs: ".len()..].trim_end().to_owned()
}

fn ctl_says_why_not() {
    let demo = Demo::new();
    let (top, unit) = (demo.at(""), demo.at("1.0"));
    assert_eq!(says(&["ctl", &unit, "part", "boot", "2048", "4096"], 0), "");
    assert_eq!(says(&["ctl", &demo.at("1.0/ctl"), "part boot 2048 4096"], 0), "", "a file, and one word");
    assert_eq!(says(&["ctl", &top, "rediscover", "off"], 0), "");
    let why = refuses(&["ctl", &unit, "part", "boot", "2048", "9999"], 1);
    assert_eq!(why, "part boot 2048 9999: boot is 2048 4096; delpart boot first, or choose another name");
    let why = refuses(&["ctl", &unit, "part", "x", "0", "32769"], 1);
    assert_eq!(why, "part x 0 32769: past the end: the disk has 32768 sectors");
    assert!(refuses(&["ctl", &unit, "idnetify"], 1).contains("did you mean identify?"));
    assert!(refuses(&["ctl", &top, "part", "x", "0", "8"], 1).starts_with("part is for a target's ctl"));
    let data = File::open(demo.at("1.0/data")).unwrap();
    let why = refuses(&["ctl", &top, "remove", "1.0"], 1);
    assert_eq!(why, "remove 1.0: 1 file open; close it, or remove -f 1.0");
    drop(data);
    let why = refuses(&["ctl", &demo.at("1.7"), "identify"], 1);
    assert!(why.starts_with("no target 1.7 is known; known: 1.0"), "{why}");
    demo.end();
}

fn status_is_a_table() {
    let demo = Demo::new();
    let top = demo.at("");
    let table = says(&["status", "-d", "0", &top], 0);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let titles = "TARGET SIZE INTERFACES FRAME STATE PATHS READ/S WRITE/S RTT LAST ERROR";
    assert_eq!(lines[0].join(" "), titles);
    assert_eq!(lines[1][..8], ["1.0", "0.016GB", "demo", "8192", "up", "1", "of", "1"], "{table}");
    assert_eq!(lines[1][8..10], ["-", "-"], "no rate of no time: {table}");
    // A line that fails is the last error until another one comes.
    let data = File::options().write(true).open(demo.at("1.0/data")).unwrap();
    says(&["ctl", &demo.at("1.0"), "failio"], 0);
    drop(data);
    until("it is said", SOON, || says(&["status", "-d", "0", &top], 0).contains("ago: down: failio"));
    let rates = says(&["status", "-d", "0.05", &top], 0);
    assert!(rates.lines().nth(1).unwrap().contains(" 0B "), "{rates}");
    demo.end();
}

fn discover_asks_and_shows() {
    let demo = Demo::new();
    let table = says(&["discover", &demo.at("")], 0);
    assert!(table.lines().nth(1).unwrap().starts_with("1.0 "), "{table}");
    assert!(!table.contains("new:"), "{table}");
    demo.end();
}

fn check_proves_the_payload() {
    let demo = Demo::new();
    let screen = says(&["check", &demo.at("")], 0);
    assert!(screen.contains("ok    demo  built in, no network; MTU 9000"), "{screen}");
    assert!(screen.contains("ok    1.0   up, 8192 bytes a frame proven via demo"), "{screen}");
    assert!(screen.ends_with("nothing is wrong\n"), "{screen}");
    demo.end();
}

fn ping_counts_and_measures() {
    let demo = Demo::new();
    let said = says(&["ping", "1.0", "-n", "3", "-d", "0.01", &demo.at("")], 0);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(lines[2].starts_with("1.0 via ") && lines[2].contains(": 3 of 3: "), "{said}");
    assert!(lines[3].starts_with("3 asked, 3 answered, 0 % lost; round trip min/avg/max "), "{said}");
    assert!(refuses(&["ping", "1.7", &demo.at("")], 1).contains("no target 1.7 is known; known: 1.0"));
    demo.end();
}

fn config_reads_sets_and_tests() {
    let demo = Demo::new();
    let top = demo.at("");
    let config = |args: &[&'static str]| [&["config", "1.0", top.as_str()], args].concat();
    assert_eq!(says(&config(&[]), 0), "\n");
    assert_eq!(says(&config(&["--set", "web 1"]), 0), "");
    assert_eq!(says(&config(&[]), 0), "web 1\n");
    let why = refuses(&config(&["--set", "web 2"]), 1);
    assert!(why.contains("the target has another string already; config force replaces it"), "{why}");
    assert_eq!(says(&config(&["--test", "web 1"]), 0), "");
    assert_eq!(says(&config(&["--test", "web"]), 1), "1.0 has the string \"web 1\"\n");
    assert_eq!(says(&config(&["--prefix", "web"]), 0), "");
    assert_eq!(says(&config(&["--force", "web 2"]), 0), "");
    assert_eq!(says(&config(&["--prefix", "web 1"]), 1), "1.0 has the string \"web 2\"\n");
    demo.end();
}

fn what_is_no_mount_is_said() {
    let room = Room::new();
    let point = room.point();
    let point = point.to_str().unwrap();
    for command in ["status", "discover", "check"] {
        let why = refuses(&[command, point], 1);
        assert_eq!(why, format!("no aoefs is mounted on {point}; mount one with: aoefs {point}"));
    }
    let missing: PathBuf = room.dir().join("missing");
    let why = refuses(&["ctl", missing.to_str().unwrap(), "discover"], 1);
    assert_eq!(why, format!("{} does not exist; name the mount point of an aoefs", missing.display()));
}

fn a_daemon_that_is_stopped_is_said() {
    let demo = Demo::new();
    let (point, target) = (demo.at(""), demo.at("1.0"));
    demo.daemon.signal(Signal::SIGSTOP);
    let all: [&[&str]; 7] = [
        &["status", &point],
        &["discover", &point],
        &["check", &point],
        &["ping", "1.0", &point],
        &["config", "1.0", &point],
        &["ctl", &point, "discover"],
        &["ctl", &target, "identify"],
    ];
    // At the same time: each waits for the proof of life.
    std::thread::scope(|scope| {
        for args in all {
            scope.spawn(move || {
                let why = refuses(args, 1);
                assert!(why.contains("does not answer"), "{args:?}: {why}");
            });
        }
    });
    let top = proc::run(SOON, &[env!("CARGO_BIN_EXE_aoefs-top"), "--once", &point]);
    assert!(top.code == Some(1) && top.stderr.contains("does not answer"), "{}", top.stderr);
    demo.daemon.signal(Signal::SIGCONT);
    says(&["status", &point], 0);
    demo.end();
}

fn a_mount_point_that_is_not_empty_is_said() {
    let room = Room::new();
    std::fs::write(room.point().join("precious"), "x").unwrap();
    let point = room.point();
    let point = point.to_str().unwrap();
    let daemon = Daemon::spawn(room.dir(), "aoefs", &[AOEFS, "-f", "--demo=1M", point]);
    until("it serves", SOON, || daemon.said().contains("targets 1.0"));
    let said = daemon.said();
    assert!(
        said.contains(&format!("{point}: is not empty; what is in it is hidden while aoefs is mounted")),
        "{said}"
    );
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(SOON), 0, "{}", daemon.said());
}
