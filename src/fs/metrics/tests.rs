use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;
use crate::engine::{NetId, PathStats, Stats};
use crate::top;
use crate::wire::{Addr, FlushKind, Text};

/// A target in the middle of its work.
pub(in crate::fs) fn busy() -> Target {
    let mut stats =
        Stats { duplicates: 2, held_back: 1, confirmations: 3, downs: 1, deadlines: 2, ..Stats::default() };
    (stats.ahead_fetched, stats.ahead_served, stats.ahead_wasted) = (1 << 20, 128 << 10, 64 << 10);
    let mut read = Histogram::default();
    for micros in [3, 40, 200, 210, 90_000_000] {
        read.record(Duration::from_micros(micros));
    }
    stats.ops[0] = OpStats { requests: 7, bytes: 20480, errors: 1, latency: read };
    stats.ops[2].requests = 1;
    let mut trips = Histogram::default();
    trips.record(Duration::from_micros(150));
    let path = PathStatus {
        net: NetId(3),
        mac: "52:54:00:65:43:21".parse().unwrap(),
        trust: Trust::Active,
        up: true,
        rtt: Some(Duration::from_micros(210)),
        deviation: Duration::from_micros(30),
        timeout: Duration::from_micros(20_210),
        window: 16,
        inflight: 3,
        sectors: 16,
        advertised: 17,
        probed: None,
        mtu: 9000,
        stats: PathStats {
            sent: 4711,
            answered: 4700,
            resent: 12,
            overtaken: 4,
            expired: 8,
            late: 5,
            bytes: 65536,
            trips: [trips, Histogram::default(), Histogram::default()],
        },
    };
    let silent = PathStatus {
        mac: "52:54:00:65:43:22".parse().unwrap(),
        trust: Trust::Proving,
        rtt: None,
        stats: PathStats::default(),
        ..path.clone()
    };
    let status = Status {
        up: true,
        nopen: 1,
        nout: 3,
        nmaxout: 16,
        nframes: 16,
        maxbcnt: 8192,
        maxmtu: 9000,
        fw: 0x4019,
        model: Text::new("a \"quoted\" back\\slash"),
        serial: Text::new("1.0:host"),
        firmware: Text::new("V25"),
        lba48: true,
        smart: false,
        trim: false,
        flush: FlushKind::FlushExt,
        jumbo: true,
        nofail: false,
        uncached: None,
        deadline: Duration::from_secs(180),
        sectors: 2_097_152,
        size: 1 << 30,
        mtu_cap: None,
        maxbno: None,
        maxout: None,
        requests: 2,
        quarantined: 1,
        confirming: false,
        generation: 1,
        stats,
    };
    Target { addr: Addr::new(1, 0), status, paths: vec![path, silent] }
}

pub(in crate::fs) fn netlink() -> NetlinkStatus {
    NetlinkStatus {
        id: NetId(3),
        name: "eth1".into(),
        mac: "52:54:00:12:34:56".parse().unwrap(),
        up: true,
        port: false,
        mtu: 9000,
        lost_jumbo: 1,
        received: 4800,
        sent: 4900,
        unsent: 2,
        malformed: 3,
        drops: 4,
    }
}

fn snapshot() -> Snapshot {
    let counts = Counts { candidates: 1, handles: 2, log_bytes: 77, ..Counts::default() };
    let counted = crate::vhost::Counts { connections: 3, requests: 40, read: 8192, written: 4096, errors: 1 };
    let path = "/run/a \"b\".sock".to_owned();
    let export =
        ExportStatus { addr: Addr::new(1, 0), disk: "data".into(), path, clients: 1, counts: counted };
    let process = Process {
        cpu: Duration::from_millis(1500),
        resident: Some(8 << 20),
        mapped: Some(1 << 28),
        descriptors: Some(17),
        descriptors_max: None,
        start: Duration::from_millis(1_763_622_000_250),
    };
    Snapshot { counts, process, netlinks: vec![netlink()], targets: vec![busy()], exports: vec![export] }
}

fn page_of(snapshot: &Snapshot) -> String {
    snapshot.render(Format::Prometheus)
}

/// The names, the types and the labels are a contract with dashboards: this page is all of it.
#[test]
fn the_whole_page() {
    let page = page_of(&snapshot()).replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let page = page.replace(std::env::consts::ARCH, "ARCH");
    assert!(page == include_str!("page.txt"), "page.txt has to change, and the manual with it:\n{page}");
}

/// The manual names every family.
#[test]
fn the_manual_knows_them_all() {
    let manual = include_str!("../../../man/aoefs.8");
    let page = page_of(&snapshot());
    for name in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(manual.lines().any(|line| line == name), "{name} is not in aoefs.8");
    }
    let named = |line: &&str| line.starts_with("aoefs_") || line.starts_with("process_");
    for name in manual.lines().filter(named) {
        assert!(page.contains(&format!("# TYPE {name} ")), "aoefs.8 has {name}, which is no more");
    }
}

/// Every family is announced once, before its first line, and its lines stand together.
fn check(page: &str) {
    let mut known = Vec::<(&str, &str)>::new();
    let mut seen = std::collections::HashSet::new();
    let (body, end) = page.split_at(page.len() - "# EOF\n".len());
    assert_eq!(end, "# EOF\n");
    let mut lines = body.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(text.len() > 10 && text.ends_with('.'), "{line}");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(known.iter().all(|(other, _)| *other != name), "{name} twice");
            known.push((name, kind));
            continue;
        }
        let (family, kind) = *known.last().unwrap();
        let name = line.split(['{', ' ']).next().unwrap();
        match kind {
            "histogram" => assert!(
                ["_bucket", "_sum", "_count"].map(|end| format!("{family}{end}")).contains(&name.into())
            ),
            _ => assert_eq!(name, family),
        }
        assert!(family.starts_with("aoefs_") || family.starts_with("process_"));
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(series), "{series} twice");
        assert!(value.parse::<f64>().unwrap() >= 0.0, "{line}");
    }
}

/// Buckets add up and rise, and the last one is the count.
fn check_histograms(page: &str) {
    let mut last = 0.0;
    for line in top::text::lines(page) {
        match line.label("le") {
            "" => {
                if line.name.ends_with("_count") {
                    assert_eq!(last, line.value);
                    last = 0.0;
                }
            }
            bound => {
                assert!(line.value >= last, "{line:?}");
                last = line.value;
                assert!(bound.parse::<f64>().unwrap() > 0.0);
            }
        }
    }
}

#[test]
fn the_page_of_an_empty_mount() {
    let page = page_of(&Snapshot::default());
    check(&page);
    assert!(page.contains("\naoefs_targets{state=\"up\"} 0\naoefs_targets{state=\"down\"} 0\n"), "{page}");
}

#[test]
fn seconds_are_shown_without_loss() {
    for (micros, text) in [
        (0, "0"),
        (1, "0.000001"),
        (16, "0.000016"),
        (1 << 20, "1.048576"),
        (20_210, "0.02021"),
        (180_000_000, "180"),
        (1_500_000, "1.5"),
        (u64::MAX, "18446744073709.551615"),
    ] {
        assert_eq!(Value::Micros(micros).to_string(), text);
    }
}

/// What the pages that parsers get have in common: many targets, and none.
fn two_pages(format: Format) -> [(String, &'static str); 2] {
    let mut many = snapshot();
    many.targets.extend((0..20).map(|slot| Target { addr: Addr::new(2, slot), ..busy() }));
    [(many.render(format), "busy"), (Snapshot::default().render(format), "empty")]
}

#[test]
fn promtool_accepts_it() {
    let Some(promtool) = tool("usr/bin/promtool") else {
        println!("skipped: promtool_accepts_it: promtool is not installed (Debian: prometheus)");
        return;
    };
    for (page, what) in two_pages(Format::Prometheus) {
        let (good, said) = fed(Command::new(&promtool).args(["check", "metrics"]), &page);
        // Not even advice.
        assert!(good && said.is_empty(), "{what}: {said}");
    }
}

/// In the format OpenMetrics the lines are the same, and a family of counters is called without its `_total`.
#[test]
fn open_metrics_differs_above_the_lines_only() {
    let snapshot = snapshot();
    let (classic, open) = (page_of(&snapshot), snapshot.render(Format::OpenMetrics));
    let renamed = |line: &str| match line.split_once("_total ") {
        Some((family, rest)) if line.starts_with("# ") => format!("{family} {rest}\n"),
        _ => format!("{line}\n"),
    };
    assert_eq!(classic.lines().map(renamed).collect::<String>(), open);
    assert!(
        open.contains("\n# TYPE aoefs_path_sent_frames counter\naoefs_path_sent_frames_total{"),
        "{open}"
    );
}

/// The parser of Prometheus' own library for Python, which is strict where the server is not.
#[test]
fn a_parser_of_open_metrics_accepts_it() {
    const READ: &str = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let library = tool("usr/lib/python3/dist-packages/prometheus_client/__init__.py");
    let python = |arg: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", arg]);
        if let Some(packages) = library.as_deref().and_then(|file| file.parent()?.parent()) {
            command.env("PYTHONPATH", packages);
        }
        command
    };
    if !python("import prometheus_client").stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    {
        println!("skipped: a_parser_of_open_metrics_accepts_it: python3-prometheus-client is not installed");
        return;
    }
    for (page, what) in two_pages(Format::OpenMetrics) {
        let (good, said) = fed(&mut python(READ), &page);
        let lines = page.lines().filter(|line| !line.starts_with('#')).count();
        assert!(good && said == lines.to_string(), "{what}: {said}, not {lines} samples");
    }
}

/// Runs a program with that text as its input: whether it succeeded, and what it said.
fn fed(command: &mut Command, input: &str) -> (bool, String) {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said.trim().to_owned())
}

/// A file of a package: where the test command puts it, or, for a program, in the search path.
fn tool(path: &str) -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(path);
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> =
        std::env::split_paths(&dirs).filter_map(|dir| Some(dir.join(Path::new(path).file_name()?))).collect();
    places.push(unpacked);
    places.into_iter().find(|file| file.is_file())
}

/// What aoefs-top reads is what was put in, whatever a disk or an interface is called.
#[test]
fn aoefs_top_understands_it() {
    let sample = top::Sample::parse(&page_of(&snapshot())).unwrap();
    let target = &sample.targets[&Addr::new(1, 0)];
    assert_eq!((target.up, target.size, target.queue), (true, 1_073_741_824.0, 2.0));
    assert_eq!(target.model, "a \"quoted\" back\\slash");
    let read = &target.ops[0];
    assert_eq!((read.requests, read.errors, read.latency.count), (7.0, 1.0, 5.0));
    assert_eq!(read.latency.buckets.first(), Some(&(0.000_016, 1.0)));
    assert_eq!(read.latency.buckets.last(), Some(&(f64::INFINITY, 5.0)));
    let path = &target.paths[&("eth1".to_owned(), "52:54:00:65:43:21".to_owned())];
    assert_eq!((path.rtt, path.retransmitted, path.state.as_str()), (Some(0.00021), 12.0, "active"));
    assert_eq!((target.paths.len(), sample.netlinks["eth1"].dropped), (2, 4.0));
}

fn any_histogram() -> impl Strategy<Value = Histogram> {
    prop::collection::vec(any::<u32>(), 0..40).prop_map(|all| {
        let mut histogram = Histogram::default();
        all.iter().for_each(|micros| histogram.record(Duration::from_micros((*micros).into())));
        histogram
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the counters and the names are, the page is well formed and can be read back.
    #[test]
    fn any_mount_has_a_page(
        interface in "[^/\\s]{1,15}",
        model in ".{0,40}",
        addrs in prop::collection::btree_set((any::<u16>(), any::<u8>()), 0..4),
        counters in prop::array::uniform6(any::<u64>()),
        histograms in prop::array::uniform4(any_histogram()),
    ) {
        let mut target = busy();
        target.status.model = Text::new(&model);
        target.status.stats.held_back = counters[0];
        target.status.stats.ops[0].bytes = counters[1];
        target.paths[0].stats.sent = counters[2];
        target.paths[0].rtt = Some(Duration::from_micros(counters[3]));
        target.status.stats.ops[1].latency = histograms[0];
        target.status.stats.ops[3].latency = histograms[1];
        target.paths[0].stats.trips = [histograms[2], histograms[3], histograms[0]];
        let targets = addrs.iter().map(|(shelf, slot)| Target { addr: Addr::new(*shelf, *slot), ..target.clone() });
        let net = NetlinkStatus { name: interface.clone(), received: counters[4], ..netlink() };
        let snapshot = Snapshot { netlinks: vec![net], targets: targets.collect(), ..Snapshot::default() };
        let page = page_of(&snapshot);
        check(&page);
        check_histograms(&page);
        let sample = top::Sample::parse(&page).unwrap();
        prop_assert_eq!(sample.targets.len(), addrs.len());
        prop_assert_eq!(sample.netlinks.keys().next(), Some(&top::plain(&interface)));
        for target in sample.targets.values() {
            prop_assert_eq!(target.ops[0].bytes, counters[1] as f64);
            prop_assert_eq!(target.ops[1].latency.count, histograms[0].count as f64);
            prop_assert_eq!(target.paths.len(), 2);
        }
    }
}

/// A full house is rendered in a time that a FUSE thread can spare.
#[test]
fn four_thousand_targets() {
    let targets = (0..4096u16).map(|n| Target { addr: Addr::new(n / 200, (n % 200) as u8), ..busy() });
    let snapshot = Snapshot { targets: targets.collect(), netlinks: vec![netlink()], ..Snapshot::default() };
    let start = std::time::Instant::now();
    let page = page_of(&snapshot);
    println!("4096 busy targets: {} MB in {:?}", page.len() / 1_000_000, start.elapsed());
    assert!(page.len() < 64 << 20);
}
