//! The `aoefs` command as somebody types it: every way to get it wrong is one line on stderr that says what and what to
//! do, the exit code of docs/design.md#the-command, and nothing left mounted. In namespaces of the test's own, so
//! that no frame leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]
#![allow(missing_docs, reason = "the list of tests is made by a macro")]

mod bed;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bed::proc::{self, Output};
use bed::room::Room;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Longer than any refusal takes, the proof of life of a mount included.
const LIMIT: Duration = Duration::from_secs(10);

/// As an ordinary user.
const NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

tests![
    usage_errors,
    help_and_version,
    check_config,
    bad_mount_points,
    bad_interfaces,
    bad_addresses,
    bad_images,
    bad_configurations,
    without_fuse,
    without_privilege,
    names_cannot_break_the_line,
    mistakes(120),
];

fn main() -> std::process::ExitCode {
    bed::harness::main(&[TESTS])
}

const AOEFS: &str = env!("CARGO_BIN_EXE_aoefs");

fn run(args: &[&str]) -> Output {
    proc::run(LIMIT, &[&[AOEFS], args].concat())
}

/// One line on stderr, with these words in it; nothing on stdout.
#[track_caller]
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    complains(args, &output, code, words);
}

#[track_caller]
fn complains(args: &[&str], output: &Output, code: i32, words: &[&str]) {
    let said = format!("{args:?}\n{}{}", output.stdout, output.stderr);
    assert_eq!(output.code, Some(code), "{said}");
    assert_eq!(output.stdout, "", "{said}");
    assert_eq!(output.stderr.lines().count(), 1, "{said}");
    assert!(output.stderr.starts_with("aoefs: ") && output.stderr.ends_with('\n'), "{said}");
    for word in words {
        assert!(output.stderr.contains(word), "{word} is not in it: {said}");
    }
}

/// A room without a network: what binds every interface finds none.
fn room() -> Room {
    let room = Room::new();
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        bed::skip(&format!("network namespaces cannot be made here: {error}"));
    }
    room
}

/// In the foreground and in the background, and each time the mount point is as it was.
#[track_caller]
fn refused_to_start(room: &Room, args: &[&str], words: &[&str]) {
    let before = room.mounts();
    for foreground in [&["-f"][..], &[]] {
        refused(&[foreground, args].concat(), 1, words);
        assert_eq!(room.mounts(), before, "{args:?}");
    }
}

fn usage_errors() {
    let cases: [(&[&str], &[&str]); 27] = [
        (&[""], &["MOUNTPOINT needs a value"]),
        (&[], &["no mount point", "aoefs [OPTIONS] MOUNTPOINT"]),
        (&["/a", "/b"], &["/a and /b", "-i"]),
        (&["/a", "/b", "/c"], &["/c is one word too many"]),
        (&["eth1", "/b", "/c", "-o", "rw"], &["/c is one word too many"]),
        (&["eth1", "/b", "-i", "eth2", "-o", "rw"], &["-i", "leave one of them out"]),
        (&["--frobnicate", "/m"], &["--frobnicate", "--help"]),
        (&["--foregrount", "/m"], &["did you mean --foreground?"]),
        (&["-Z", "/m"], &["-Z"]),
        (&["-v", "-q", "/m"], &["exclude each other"]),
        (&["/m", "-c"], &["--config needs a value"]),
        (&["/m", "-o"], &["--options needs a value"]),
        (&["/m", "-o", "frobnicate"], &["unknown mount option \"frobnicate\"", "--help"]),
        (&["/m", "-o", "rw,deadline"], &["deadline=SECS"]),
        (&["/m", "-o", "deadline=never"], &["\"never\"", "deadline=SECS"]),
        (&["/m", "-o", "ro=yes"], &["-o ro takes no value"]),
        (&["/m", "-o", "uid=no-such-user"], &["no-such-user"]),
        (&["/m", "-i", "eth1,"], &["\"\" is not the name of an interface", "ip link"]),
        (&["/m", "-i", "none,eth1"], &["none"]),
        (&["/m", "-i", "../eth1"], &["../eth1"]),
        (&["/m", "--demo=64Q"], &["64Q", "--demo=64M"]),
        (&["/m", "--demo=1000"], &["multiple of 512"]),
        (&["/m", "--demo", "-i", "eth1"], &["--demo", "exclude each other"]),
        (&["/m", "--demo", "--demo-image", "x"], &["exclude each other"]),
        (&["/m", "--wait", "1"], &["\"1\" is not a target", "--wait 1.0"]),
        (&["/m", "--wait", "65535.255"], &["65535.255"]),
        (&["/m", "--wait-timeout", "soon"], &["--wait-timeout", "soon"]),
    ];
    for (args, words) in cases {
        refused(args, 2, words);
    }
}

fn help_and_version() {
    for (arg, word) in [("--help", "MOUNTPOINT"), ("-h", "--demo"), ("--version", env!("CARGO_PKG_VERSION"))]
    {
        let output = run(&[arg]);
        assert!(output.ok() && output.stderr.is_empty(), "{arg}: {}", output.stderr);
        assert!(output.stdout.contains(word), "{}", output.stdout);
    }
}

fn check_config() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aoefs.conf");
    let name = file.to_str().unwrap();
    std::fs::write(&file, "# two lines\nbind eth1\n1.0 part boot 2048 1050624\n").unwrap();
    for args in [&["--check-config", name][..], &["-c", name, "--check-config"]] {
        let output = run(args);
        assert!(output.ok() && output.stderr.is_empty(), "{}", output.stderr);
        assert_eq!(
            output.stdout,
            format!("{name}: no errors (commands: 1 for the top ctl, 1 for targets)\n")
        );
    }
    std::fs::write(&file, "bind\n1.0 nofail on\n1.0 frobnicate\n").unwrap();
    let output = run(&["--check-config", name]);
    assert_eq!(output.code, Some(1));
    let lines: Vec<&str> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", output.stderr);
    assert!(lines[0].starts_with(&format!("aoefs: {name}:1: ")), "{}", lines[0]);
    assert!(lines[1].starts_with(&format!("aoefs: {name}:3: ")), "{}", lines[1]);
    // What each line says is right, and will fail when it is run.
    let socket = dir.path().join("socket");
    let at = socket.display();
    for (lines, number, words) in [
        (format!("1.0 vhost {at} boot"), 1, "no line makes the partition boot"),
        (
            format!("1.0 part boot 8 16\n1.0 vhost {at}\n1.0 vhost {at} boot"),
            3,
            "an earlier line makes that socket for data",
        ),
        (format!("1.0 unvhost {at}"), 1, "no line before it makes that socket"),
        (format!("1.0 vhost {at}/none"), 1, "there is no directory"),
    ] {
        std::fs::write(&file, format!("{lines}\n")).unwrap();
        let output = run(&["--check-config", name]);
        let said = output.stderr.trim_end();
        assert_eq!((output.code, said.lines().count()), (Some(1), 1), "{lines}: {said}");
        assert!(
            said.starts_with(&format!("aoefs: {name}:{number}: ")) && said.contains(words),
            "{lines}: {said}"
        );
    }
    let lines = [
        "part boot 8 16",
        &format!("vhost {at} boot"),
        &format!("vhost {at} boot"),
        &format!("unvhost {at}"),
    ];
    std::fs::write(&file, lines.map(|line| format!("1.0 {line}\n")).concat()).unwrap();
    let output = run(&["--check-config", name]);
    assert!(output.ok(), "{}", output.stderr);
    let gone = dir.path().join("gone");
    refused(&["--check-config", gone.to_str().unwrap()], 1, &["gone", "No such file", "-c"]);
}

fn bad_mount_points() {
    let room = room();
    let missing = room.dir().join("missing");
    refused_to_start(&room, &["--demo", text(&missing)], &["does not exist", "mkdir -p"]);
    let file = room.dir().join("file");
    std::fs::write(&file, "").unwrap();
    refused_to_start(&room, &["--demo", text(&file)], &["is not a directory"]);
    refused_to_start(&room, &["--demo", text(&file.join("below"))], &["is not a directory"]);
    let point = room.point();
    mount(Some("none"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    refused_to_start(&room, &["--demo", text(&point)], &["type tmpfs", "not touching it", "umount"]);
    assert_eq!(room.mounts(), ["tmpfs"]);
}

fn bad_interfaces() {
    let room = room();
    let point = room.point();
    // One that is not there may come; who waits for a target behind it is told.
    let wait = ["-q", "--wait", "1.0", "--wait-timeout", "1"];
    let words = ["1.0 did not answer within 1 s", "no interface nope0 yet"];
    refused_to_start(&room, &[&["-i", "nope0", text(&point)], &wait[..]].concat(), &words);
    refused_to_start(&room, &["-i", "lo", text(&point)], &["lo is no Ethernet interface", "ip link"]);
    refused_to_start(&room, &[&["nope0", text(&point), "-o", "rw,_netdev"], &wait[..]].concat(), &words);
}

fn bad_addresses() {
    let room = room();
    let point = room.point();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["--demo", "--metrics-listen", &address, text(&point)];
    refused_to_start(&room, &args, &["another program has it", "choose another port"]);
}

fn bad_images() {
    let room = room();
    let point = room.point();
    let missing = room.dir().join("missing");
    refused_to_start(
        &room,
        &["--demo-image", text(&missing), text(&point)],
        &["no such file", "truncate -s"],
    );
    refused_to_start(
        &room,
        &["--demo-image", text(room.dir()), text(&point)],
        &["neither a regular file", "name one"],
    );
    let empty = room.dir().join("empty");
    std::fs::write(&empty, "").unwrap();
    refused_to_start(&room, &["--demo-image", text(&empty), text(&point)], &["empty", "512"]);
}

fn bad_configurations() {
    let room = room();
    let point = room.point();
    let missing = room.dir().join("missing");
    refused_to_start(&room, &["--demo", "-c", text(&missing), text(&point)], &["missing", "-c"]);
    refused_to_start(&room, &["--demo", "-c", text(room.dir()), text(&point)], &["directory", "-c"]);
}

fn without_fuse() {
    let room = room();
    let point = room.point();
    // A device that no driver serves: a kernel without the module.
    dev_fuse(&room, "666", "999");
    refused_to_start(&room, &["--demo", text(&point)], &["/dev/fuse", "modprobe fuse"]);
}

fn without_privilege() {
    let room = room();
    for program in ["setpriv", "fusermount3"] {
        if !proc::have(program) {
            bed::skip(&format!("the program {program} is not installed"));
        }
    }
    // The program and the way to the mount point have to be within the reach of nobody.
    let program = room.dir().join("aoefs");
    std::fs::copy(AOEFS, &program).unwrap();
    proc::ok(LIMIT, &["chmod", "755", text(room.dir()), text(&program)]);
    let point = room.point();
    let as_nobody = |env: &[&str], args: &[&str], words: &[&str]| {
        for foreground in [&["-f"][..], &[]] {
            let argv =
                [&["env"], env, &NOBODY, &[text(&program)], foreground, args, &[text(&point)]].concat();
            complains(&argv, &proc::run(LIMIT, &argv), 1, words);
            assert!(room.mounts().is_empty(), "{args:?}");
        }
    };
    for interfaces in [&["-i", "eth1"][..], &[]] {
        as_nobody(&[], interfaces, &["CAP_NET_RAW", "root", "setcap", "--demo"]);
    }
    dev_fuse(&room, "600", "229");
    as_nobody(&[], &["--demo"], &["/dev/fuse: no permission"]);
    dev_fuse(&room, "666", "229");
    as_nobody(&[], &["--demo"], &["fusermount3 refused", "directory of your own"]);
    nix::unistd::chown(&point, Some(64242.into()), None).unwrap();
    let nameless = ["setpriv", "--reuid", "64242", "--clear-groups", text(&program), "--demo", text(&point)];
    complains(&nameless, &proc::run(LIMIT, &nameless), 1, &["no line in /etc/passwd", "run as root"]);
    as_nobody(&["FUSERMOUNT_PATH=/nonexistent"], &["--demo"], &["/nonexistent", "FUSERMOUNT_PATH"]);
    nix::unistd::chown(&point, Some(65534.into()), Some(65534.into())).unwrap();
    if Path::new("/etc/fuse.conf").exists() {
        mount(Some("/dev/null"), "/etc/fuse.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }
    as_nobody(&[], &["--demo", "-o", "allow_other"], &["user_allow_other", "/etc/fuse.conf"]);
}

/// Puts a node of the mode and minor number over /dev/fuse.
fn dev_fuse(room: &Room, mode: &str, minor: &str) {
    let node: PathBuf = room.dir().join(format!("fuse-{mode}-{minor}"));
    proc::ok(LIMIT, &["mknod", "-m", mode, text(&node), "c", "10", minor]);
    mount(Some(&node), "/dev/fuse", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

fn names_cannot_break_the_line() {
    refused(&["--demo", "/nowhere/a\nb\x1b[31m"], 1, &["/nowhere/a\\nb\\u{1b}[31m", "does not exist"]);
    refused(&["-o", "a\nb", "/m"], 2, &["\"a\\nb\""]);
    refused(&["--a\nb", "/m"], 2, &["--a\\nb"]);
}

/// One block of tests/mistakes.txt.
#[derive(Default)]
struct Mistake {
    typed: String,
    status: i32,
    /// What is wrong, why, and what to do.
    words: Vec<(String, String)>,
}

/// Reads the table, and holds it to its own rules. `D` becomes the directory of the test.
fn table_of_mistakes(dir: &str) -> Vec<Mistake> {
    let table = include_str!("mistakes.txt").replace("D/", &format!("{dir}/"));
    let mut found: Vec<Mistake> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(typed) = line.strip_prefix("$ ") {
            found.push(Mistake { typed: typed.into(), ..Mistake::default() });
            continue;
        }
        let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("no `key: value`: {line}"));
        let mistake = found.last_mut().unwrap();
        match key {
            "status" => mistake.status = value.parse().unwrap(),
            "what" | "why" | "do" => mistake.words.push((key.into(), value.into())),
            _ => panic!("{key} is no key: {line}"),
        }
    }
    for mistake in &found {
        let keys: Vec<&str> = mistake.words.iter().map(|(key, _)| key.as_str()).collect();
        assert!(matches!(keys[..], ["what", "do"] | ["what", "why", "do"]), "{}: {keys:?}", mistake.typed);
    }
    found
}

/// The table of mistakes: each is one line that says what is wrong, why, and what to do.
fn mistakes() {
    let room = room();
    let (dir, point) = (text(room.dir()).to_owned(), room.point());
    proc::ok(LIMIT, &["ip", "link", "add", "d0", "type", "veth", "peer", "name", "d1"]);
    std::fs::create_dir(room.dir().join("empty")).unwrap();
    std::fs::write(room.dir().join("file"), "").unwrap();
    let demo = bed::Daemon::spawn(room.dir(), "demo", &[AOEFS, "-f", "--demo=16M", text(&point)]);
    bed::until("it serves", LIMIT, || demo.said().contains("targets 1.0"));
    for line in ["part boot 2048 4096", "config set mine"] {
        std::fs::write(point.join("1.0/ctl"), line).unwrap();
    }
    let open = std::fs::File::open(point.join("1.0/boot")).unwrap();
    let programs = Path::new(AOEFS).parent().unwrap();
    let path = format!("PATH={}:{}", text(programs), std::env::var("PATH").unwrap_or_default());
    let table = table_of_mistakes(&dir);
    assert!(table.len() >= 45, "{} mistakes", table.len());
    let mut wrong = Vec::new();
    for Mistake { typed, status, words } in &table {
        let output = proc::run(LIMIT, &["env", &path, "bash", "-c", typed]);
        let said = output.stderr.trim_end();
        let one_line = said.lines().count() == 1 && output.stdout.is_empty() && said.starts_with("aoefs");
        let missing: Vec<_> = words.iter().filter(|(_, words)| !said.contains(words)).collect();
        if output.code != Some(*status) || !one_line || !missing.is_empty() {
            let code = output.code;
            wrong.push(format!(
                "$ {typed}\n{said}\nstatus {code:?}, not in it: {missing:?}\n{}",
                output.stdout
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    assert_eq!(room.mounts(), ["fuse.aoefs"], "nothing else was mounted");
    println!("[{} mistakes]", table.len());
    drop(open);
    demo.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(demo.ended(LIMIT), 0, "{}", demo.said());
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
