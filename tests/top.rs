//! `aoefs-top` as somebody uses it: in a real terminal (tmux) over files that the test rewrites and over a real
//! mount, and as a command that prints once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends the test")]
#![allow(missing_docs, reason = "the list of tests is made by a macro")]

mod bed;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bed::proc::{self, Daemon, Output, until};
use bed::room::Room;
use bed::skip;
use nix::sys::signal::Signal;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

tests![
    a_live_view(beside),
    every_way_to_end_it,
    colours_and_none,
    a_mount_that_goes_and_comes(beside),
    once_and_json(beside),
    what_cannot_work_is_one_line,
    over_a_real_mount,
];

fn main() -> std::process::ExitCode {
    bed::harness::main(&[TESTS])
}

const TOP: &str = env!("CARGO_BIN_EXE_aoefs-top");
const AOEFS: &str = env!("CARGO_BIN_EXE_aoefs");

/// A directory with the files of a mount, without a mount.
struct Sample {
    dir: tempfile::TempDir,
}

impl Sample {
    fn new() -> Sample {
        let sample = Sample { dir: tempfile::tempdir().unwrap() };
        sample.count(0);
        std::fs::write(sample.path().join("log"), "2026-11-20T07:00:00.000Z 1.0 up\n").unwrap();
        sample
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Target 1.1 has done so many requests of 1 MB, 1.0 none.
    fn count(&self, requests: u64) {
        let mut page = "aoefs_info{version=\"9.8.7\"} 1\naoefs_netlink_up{netlink=\"eth1\"} 1\n".to_owned();
        for (target, requests) in [("1.0", 0), ("1.1", requests)] {
            let bytes = requests * 1_000_000;
            let latency =
                format!("aoefs_target_request_duration_seconds_count{{target=\"{target}\",op=\"read\"}}");
            let _ = write!(
                page,
                "aoefs_target_up{{target=\"{target}\"}} 1\naoefs_target_bytes_total{{target=\"{target}\",op=\"read\"}} {bytes}\n\
                 {latency} {requests}\naoefs_target_info{{target=\"{target}\",model=\"The Model\"}} 1\n\
                 aoefs_path_state{{target=\"{target}\",path=\"02:00:00:00:00:01\",netlink=\"eth1\",state=\"tainted\"}} 1\n"
            );
        }
        // As a mount does it: a page is whole or not there.
        std::fs::write(self.path().join("next"), page + "# EOF\n").unwrap();
        std::fs::rename(self.path().join("next"), self.path().join("metrics")).unwrap();
    }
}

/// A terminal of 80×24 with a shell command in it.
struct Terminal {
    socket: PathBuf,
    _server: Arc<Daemon>,
    _dir: tempfile::TempDir,
}

impl Terminal {
    /// Runs aoefs-top in it; what it ended with stays on the screen.
    fn new(environment: &str, args: &str) -> Terminal {
        Self::with(&format!("env -u NO_COLOR {environment} {TOP} {args}; echo \"ended with $?\"; sleep 1000"))
    }

    fn with(command: &str) -> Terminal {
        if !proc::have("tmux") {
            skip("the program tmux is not installed");
        }
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("tmux");
        // In the foreground, so that it ends with the test, however that ends.
        let server = Daemon::spawn(
            dir.path(),
            "tmux",
            &["tmux", "-D", "-f", "/dev/null", "-S", socket.to_str().unwrap()],
        );
        let terminal = Terminal { socket, _server: server, _dir: dir };
        until("tmux answers", LIMIT, || terminal.socket.exists());
        terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", command]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        proc::ok(LIMIT, &[&["tmux", "-S", self.socket.to_str().unwrap()], args].concat())
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn seen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the words are on the screen.
    #[track_caller]
    fn shows(&self, words: &str) -> String {
        let mut seen = String::new();
        let mut there = || {
            seen = self.seen();
            seen.contains(words)
        };
        let start = std::time::Instant::now();
        while !there() {
            assert!(start.elapsed() < LIMIT, "{words:?} never came:\n{}", self.seen());
            std::thread::sleep(Duration::from_millis(20));
        }
        seen
    }

    /// The process that draws.
    fn pid(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let all = proc::ok(LIMIT, &["pgrep", "-P", shell.trim()]);
        all.trim().parse().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The server ends the session's processes; killing it would leave them.
        proc::run(LIMIT, &["tmux", "-S", self.socket.to_str().unwrap_or_default(), "kill-server"]);
    }
}

fn a_live_view() {
    let sample = Sample::new();
    let terminal = Terminal::new("", &format!("-d 0.2 {}", sample.path().display()));
    let seen = terminal.shows("2 targets, 2 up, 0 down");
    assert!(
        seen.contains("aoefs 9.8.7 on ") && seen.contains("1.0 up\n") && seen.contains("q quit"),
        "{seen}"
    );
    assert!(
        seen.lines().any(|line| line.starts_with("TARGET    STATE") && line.ends_with("ERR/s PATHS")),
        "{seen}"
    );
    // Something is done, and seen as a rate.
    let mut requests = 0;
    let start = std::time::Instant::now();
    let busy = loop {
        requests += 50;
        sample.count(requests);
        let seen = terminal.seen();
        let line = seen.lines().find(|line| line.starts_with("1.1 ")).unwrap_or_default();
        let mut words = line.split_ascii_whitespace().skip(2);
        if let (Some(iops), Some(read)) = (words.next(), words.next())
            && iops.parse::<f64>().is_ok_and(|iops| iops > 0.0)
        {
            break read.parse::<f64>().unwrap() > 0.0;
        }
        assert!(start.elapsed() < LIMIT, "{seen}");
    };
    assert!(busy);
    let first =
        |seen: &str| seen.lines().nth(4).unwrap_or_default().split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(first(&terminal.shows("sort: target, lowest first")), "1.0");
    terminal.keys(&["r"]);
    assert_eq!(first(&terminal.shows("sort: target, highest first")), "1.1");
    terminal.keys(&["r", "s"]);
    terminal.shows("sort: iops, largest first");
    terminal.keys(&["p"]);
    terminal.shows("  eth1 02:00:00:00:00:01 down");
    terminal.keys(&["?"]);
    assert!(terminal.shows("Ctrl-C    quit").starts_with("Keys of the table\n"));
    terminal.keys(&["End"]);
    terminal.shows("bytes of data in a frame");
    terminal.keys(&["x"]);
    terminal.shows("2 targets");
    // One target, and back; a filter, in which a q is a letter, and back.
    terminal.keys(&["r", "s", "S", "Down", "Enter"]);
    assert!(terminal.shows("Target 1.1 is up: The Model").contains("a second: "));
    terminal.keys(&["Escape"]);
    terminal.shows("TARGET    STATE");
    terminal.keys(&["/", "q"]);
    terminal.shows("filter: q_");
    terminal.keys(&["BSpace", "1", ".", "0", "Enter"]);
    let seen = terminal.shows("filter \"1.0\": 1 of 2 targets");
    assert!(seen.contains("\n1.0 ") && !seen.contains("\n1.1 "), "{seen}");
    terminal.keys(&["Escape"]);
    terminal.shows("\n1.1 ");
    // Another size: more columns, more lines.
    terminal.tmux(&["resize-window", "-x", "120", "-y", "40"]);
    let seen = terminal.shows("MODEL");
    assert!(seen.contains("The Model") && seen.lines().nth(39).unwrap().starts_with("q quit"), "{seen}");
    for (width, height) in [("30", "8"), ("80", "24")] {
        terminal.tmux(&["resize-window", "-x", width, "-y", height]);
        let last: usize = height.parse().unwrap();
        until("it fits", LIMIT, || {
            terminal.seen().lines().nth(last - 1).is_some_and(|line| line.starts_with("q quit"))
        });
    }
    // What is logged is shown, and what would move the cursor is not obeyed.
    let mut log = File::options().append(true).open(sample.path().join("log")).unwrap();
    log.write_all(b"2026-11-20T07:00:01.000Z 1.1 \x1b[2Jdown: no answer\n").unwrap();
    terminal.shows("1.1  [2Jdown: no answer");
    // A pause keeps the picture while the world goes on.
    terminal.keys(&["Space"]);
    let before = terminal.shows("PAUSED");
    sample.count(1 << 40);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(terminal.seen(), before);
    terminal.keys(&["Space"]);
    until("it goes on", LIMIT, || !terminal.seen().contains("PAUSED"));
    terminal.keys(&["q"]);
    let end = terminal.shows("ended with 0");
    assert!(!end.contains("TARGET"), "the screen is as it was: {end}");
}

fn every_way_to_end_it() {
    let sample = Sample::new();
    let start = || {
        let terminal = Terminal::new("", &format!("-d 0.2 {}", sample.path().display()));
        terminal.shows("2 targets");
        terminal
    };
    let restored = |terminal: &Terminal| {
        terminal.shows("ended with 0");
        // Echo and line ends work again.
        let modes = terminal.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(modes.trim(), "0 1");
    };
    let terminal = start();
    terminal.keys(&["C-c"]);
    restored(&terminal);
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let terminal = start();
        proc::signal(terminal.pid(), signal);
        restored(&terminal);
    }
    // Stopped and continued by a shell with job control.
    let terminal = Terminal::with("bash --norc --noprofile -i");
    terminal.keys(&[&format!("{TOP} -d 0.2 {}", sample.path().display()), "Enter"]);
    terminal.shows("2 targets");
    terminal.keys(&["C-z"]);
    let stopped = terminal.shows("Stopped");
    assert!(!stopped.contains("TARGET"), "{stopped}");
    terminal.keys(&["fg", "Enter"]);
    terminal.shows("2 targets");
    terminal.keys(&["q"]);
    terminal.shows("Stopped");
    terminal.keys(&["echo ended with $?", "Enter"]);
    restored(&terminal);
}

fn colours_and_none() {
    let sample = Sample::new();
    std::fs::write(
        sample.path().join("metrics"),
        "aoefs_info{version=\"1\"} 1\naoefs_target_up{target=\"1.0\"} 0\n# EOF\n",
    )
    .unwrap();
    let with = |environment: &str| {
        let terminal = Terminal::new(environment, &sample.path().display().to_string());
        let seen = terminal.shows("1 target, 0 up, 1 down");
        assert!(seen.lines().nth(4).unwrap().starts_with("1.0       down"), "{seen}");
        terminal.tmux(&["capture-pane", "-p", "-e"])
    };
    // 39 and 49 are the terminal's own.
    let coloured = |text: &str| {
        let codes = text.split("\x1b[").skip(1).map(|rest| rest.split('m').next().unwrap_or_default());
        codes
            .flat_map(|codes| codes.split(';'))
            .any(|code| matches!(code.parse(), Ok(30..=38 | 40..=48 | 90..=107)))
    };
    let seen = with("");
    assert!(coloured(&seen), "{seen:?}");
    for environment in ["NO_COLOR=1", "TERM=dumb"] {
        let seen = with(environment);
        assert!(!coloured(&seen), "{environment}: {seen:?}");
    }
    assert!(coloured(&with("NO_COLOR=")), "empty is as good as not set");
}

fn a_mount_that_goes_and_comes() {
    let sample = Sample::new();
    let terminal = Terminal::new("", &format!("-d 0.2 {}", sample.path().display()));
    terminal.shows("2 targets");
    let (metrics, away) = (sample.path().join("metrics"), sample.path().join("away"));
    std::fs::rename(&metrics, &away).unwrap();
    let seen = terminal.shows("trying again every 0.2 s");
    assert!(seen.contains("no aoefs is mounted here") && seen.contains("\n1.1 "), "{seen}");
    std::fs::rename(&away, &metrics).unwrap();
    terminal.shows("2 targets");
    std::fs::write(&metrics, "aoefs_info{version=\"1\"} 1\n").unwrap();
    terminal.shows("end in the middle");
    sample.count(5);
    terminal.shows("2 targets");
    // One that does not answer at all does not keep keys from being heard.
    std::fs::remove_file(&metrics).unwrap();
    nix::unistd::mkfifo(&metrics, nix::sys::stat::Mode::S_IRWXU).unwrap();
    terminal.shows("no answer from ");
    terminal.keys(&["s"]);
    terminal.shows("sort: iops");
    terminal.keys(&["q"]);
    terminal.shows("ended with 0");
}

fn run(args: &[&str]) -> Output {
    proc::run(LIMIT, &[&[TOP], args].concat())
}

fn once_and_json() {
    let sample = Sample::new();
    let point = sample.path().to_str().unwrap();
    let during = |args: &[&str]| {
        std::thread::scope(|scope| {
            let run = scope.spawn(|| run(args));
            std::thread::sleep(Duration::from_millis(1000));
            sample.count(100);
            let output = run.join().unwrap();
            assert!(output.ok() && output.stderr.is_empty(), "{}{}", output.stdout, output.stderr);
            sample.count(0);
            output.stdout
        })
    };
    let text = during(&["--once", "-d", "2", point]);
    let line = text.lines().find(|line| line.starts_with("1.1 ")).unwrap();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let iops: f64 = words[3].parse().unwrap();
    assert!((40.0..=50.0).contains(&iops), "100 requests in 2 s: {text}");
    assert!(
        text.starts_with(&format!("aoefs 9.8.7 on {point}, over 2.0 s\n2 targets, 2 up, 0 down; ")),
        "{text}"
    );
    assert!(text.ends_with("\n2026-11-20T07:00:00.000Z 1.0 up\n") && !text.contains('\x1b'), "{text}");
    let document: serde_json::Value =
        serde_json::from_str(&during(&["--json", "-d", "2", "--sort", "iops", point])).unwrap();
    let busy = &document["targets"][0];
    assert_eq!((busy["target"].as_str(), busy["state"].as_str()), (Some("1.1"), Some("up")));
    assert!(busy["rates"]["read_bytes_per_second"].as_f64().unwrap() > 4e7, "{document}");
    assert_eq!(document["mountpoint"], point);
    let one = run(&["--json", "-d", "0.1", "--filter", "1.1", point]).stdout;
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!(
        (one["targets"].as_array().unwrap().len(), one["targets"][0]["target"].as_str()),
        (1, Some("1.1"))
    );
    assert_eq!(document["log"][0], "2026-11-20T07:00:00.000Z 1.0 up");
    assert_eq!(
        proc::sh(LIMIT, &format!("{TOP} --once -d 0.1 {point} | head -c 5; exit ${{PIPESTATUS[0]}}")),
        "aoefs"
    );
}

fn what_cannot_work_is_one_line() {
    let sample = Sample::new();
    let point = sample.path().to_str().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let foreign = tempfile::tempdir().unwrap();
    std::fs::write(foreign.path().join("metrics"), "node_load1 0.5\n# EOF\n").unwrap();
    let (empty, foreign) = (empty.path().to_str().unwrap(), foreign.path().to_str().unwrap());
    let cases: [(&[&str], i32, &str); 12] = [
        (&[empty], 1, "no aoefs is mounted here"),
        (&["--once", empty], 1, "no aoefs is mounted here"),
        (&["--json", foreign], 1, "not those of an aoefs"),
        (&["/no/where\n/at all"], 1, "/no/where\\n/at all: no such directory"),
        (&["/dev/null"], 1, "not a directory"),
        (&[point], 1, "no terminal; print one table with --once"),
        (&[], 2, "see: aoefs-top --help"),
        (&["--once", "--json", point], 2, "exclude each other"),
        (&["--frobnicate", point], 2, "--frobnicate"),
        (&["-d", "0", point], 2, "from 0.1 to 3600"),
        (&["-d", "nan", point], 2, "from 0.1 to 3600"),
        (&["--sort", "size", point], 2, "target, iops, throughput"),
    ];
    for (args, code, words) in cases {
        let output = run(args);
        let said = format!("{args:?}: {}{}", output.stdout, output.stderr);
        assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{said}");
        assert_eq!(output.stderr.lines().count(), 1, "{said}");
        assert!(output.stderr.starts_with("aoefs-top: ") && output.stderr.contains(words), "{said}");
    }
    for (arg, words) in [("--help", "--interval"), ("-h", "--json"), ("--version", env!("CARGO_PKG_VERSION"))]
    {
        let output = run(&[arg]);
        assert!(
            output.ok() && output.stdout.contains(words) && output.stderr.is_empty(),
            "{}",
            output.stdout
        );
    }
}

/// The same over the built-in target, mounted for real; and its metrics before promtool.
fn over_a_real_mount() {
    let room = Room::new();
    let point = room.point();
    let start = || {
        let daemon = Daemon::spawn(
            room.dir(),
            "aoefs",
            &[AOEFS, "-f", "--demo=8M", "--metrics-listen", "0", point.to_str().unwrap()],
        );
        until("the mount answers", LIMIT, || {
            assert!(daemon.alive(), "{}", daemon.said());
            point.join("1.0/stats").exists()
        });
        daemon
    };
    let daemon = start();
    let terminal = Terminal::new("", &format!("-d 0.2 {}", point.display()));
    let seen = terminal.shows("1 target, 1 up");
    assert!(
        seen.contains(" 1.0 found: ") && seen.lines().nth(4).unwrap().starts_with("1.0       up  "),
        "{seen}"
    );
    let mut data = File::options().read(true).write(true).open(point.join("1.0/data")).unwrap();
    let mut block = vec![7; 1 << 20];
    let start_of_work = std::time::Instant::now();
    loop {
        data.seek(SeekFrom::Start(0)).unwrap();
        data.write_all(&block).unwrap();
        data.sync_all().unwrap();
        let seen = terminal.seen();
        let line = seen.lines().find(|line| line.starts_with("1.0 ")).unwrap_or_default();
        let written = line.split_ascii_whitespace().nth(4).and_then(|word| word.parse::<f64>().ok());
        if written.is_some_and(|written| written > 0.1) {
            break;
        }
        assert!(start_of_work.elapsed() < LIMIT, "{seen}");
    }
    data.seek(SeekFrom::Start(0)).unwrap();
    data.read_exact(&mut block).unwrap();
    drop(data);
    let output = run(&["--json", "-d", "0.1", point.to_str().unwrap()]);
    let document: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(document["targets"][0]["size_bytes"].as_u64(), Some(8_388_608), "{document}");
    assert_eq!(document["targets"][0]["paths"][0]["state"], "active");
    assert_eq!(document["netlinks"][0]["netlink"], "demo");
    let stats = std::fs::read_to_string(point.join("1.0/stats")).unwrap();
    assert!(stats.contains("\nflush errors: 0\n") && stats.contains("\npath demo "), "{stats}");
    // promtool refuses what Prometheus would.
    let metrics = point.join("metrics");
    assert_eq!(std::fs::metadata(&metrics).unwrap().len(), 0);
    let promtool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/usr/bin");
    let check = format!("PATH=$PATH:{promtool}; promtool check metrics <{} 2>&1", metrics.display());
    if proc::sh(LIMIT, &format!("PATH=$PATH:{promtool} command -v promtool || true")).is_empty() {
        println!("not checked by promtool, which is not installed");
    } else {
        assert_eq!(proc::sh(LIMIT, &check), "");
    }
    // The same over HTTP, in the format that was asked for.
    let said = daemon.said();
    let url = said.split("metrics: http://").nth(1).and_then(|rest| rest.split("/metrics").next());
    let address = url.unwrap_or_else(|| panic!("{said}"));
    let ask = |accept: &str| {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let (classic, open) = (ask("*/*"), ask("application/openmetrics-text; version=1.0.0"));
    for (page, family) in [(&classic, "aoefs_refused_total"), (&open, "aoefs_refused")] {
        assert!(
            page.contains(&format!("\n# TYPE {family} counter\n")) && page.ends_with("# EOF\n"),
            "{page}"
        );
        assert!(page.contains("\naoefs_target_up{target=\"1.0\"} 1\n"), "{page}");
    }
    let families = |page: &str| page.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(families(&classic), families(&std::fs::read_to_string(&metrics).unwrap()));
    // It goes, and another one comes.
    daemon.signal(Signal::SIGTERM);
    daemon.ended(LIMIT);
    let seen = terminal.shows("trying again");
    assert!(seen.contains("no aoefs is mounted here"), "{seen}");
    let daemon = start();
    terminal.shows("1 target, 1 up");
    terminal.keys(&["q"]);
    terminal.shows("ended with 0");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(LIMIT), 0);
}
