use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::wire::Addr;

/// What a target counted: reads that took 0.1 ms and 3 ms, bytes read, writes that failed, frames sent again.
#[derive(Clone, Copy, Default)]
struct Counted {
    fast: u32,
    slow: u32,
    bytes: u32,
    failed: u32,
    again: u32,
}

fn page(targets: &[(&str, Counted)]) -> String {
    let mut page = "# HELP aoefs_info x\n# TYPE aoefs_info gauge\naoefs_info{version=\"0.1.0\"} 1\n\
        aoefs_candidates 2\naoefs_something_new{target=\"1.0\"} 7\nnode_load1 3\n\
        aoefs_netlink_up{netlink=\"eth1\"} 1\naoefs_netlink_mtu_bytes{netlink=\"eth1\"} 9000\n\
        aoefs_netlink_dropped_frames_total{netlink=\"eth1\"} 5\n"
        .to_owned();
    for (target, Counted { fast, slow, bytes, failed, again }) in targets {
        let all = fast + slow;
        let sum = f64::from(*fast) * 0.0001 + f64::from(*slow) * 0.003;
        let latency = "aoefs_target_request_duration_seconds";
        let path = format!("target=\"{target}\",path=\"02:00:00:00:00:01\",netlink=\"eth1\"");
        let _ = write!(
            page,
            "aoefs_target_up{{target=\"{target}\"}} 1\n\
             aoefs_target_size_bytes{{target=\"{target}\"}} 1073741824\n\
             aoefs_target_queued_requests{{target=\"{target}\"}} 4\n\
             aoefs_target_info{{target=\"{target}\",model=\"a \\\"disk\\\"\",serial=\"s\\u{{1b}}[2J\"}} 1\n\
             aoefs_target_requests_total{{target=\"{target}\",op=\"read\"}} {all}\n\
             aoefs_target_bytes_total{{target=\"{target}\",op=\"read\"}} {bytes}\n\
             aoefs_target_errors_total{{target=\"{target}\",op=\"write\"}} {failed}\n\
             {latency}_bucket{{target=\"{target}\",op=\"read\",le=\"0.000128\"}} {fast}\n\
             {latency}_bucket{{target=\"{target}\",op=\"read\",le=\"0.004096\"}} {all}\n\
             {latency}_bucket{{target=\"{target}\",op=\"read\",le=\"+Inf\"}} {all}\n\
             {latency}_sum{{target=\"{target}\",op=\"read\"}} {sum}\n\
             {latency}_count{{target=\"{target}\",op=\"read\"}} {all}\n\
             aoefs_path_up{{{path}}} 1\n\
             aoefs_path_state{{{path},state=\"active\"}} 1\n\
             aoefs_path_state{{{path},state=\"tainted\"}} 0\n\
             aoefs_path_round_trip_seconds{{{path}}} 0.00021\n\
             aoefs_path_retransmitted_frames_total{{{path}}} {again}\n"
        );
    }
    page + "# EOF\n"
}

fn sample(targets: &[(&str, Counted)]) -> Sample {
    Sample::parse(&page(targets)).unwrap()
}

const EARLY: Counted = Counted { fast: 100, slow: 10, bytes: 1000, failed: 1, again: 5 };
const LATER: Counted = Counted { fast: 298, slow: 12, bytes: 4_001_000, failed: 3, again: 9 };

#[test]
fn two_readings_make_rates() {
    let (before, now) = (sample(&[("1.0", EARLY)]), sample(&[("1.0", LATER)]));
    let report = Report::new(&now, Some((&before, 2.0)));
    let target = &report.targets[0];
    assert_eq!((target.target, target.state, target.model.as_str()), (Addr::new(1, 0), "up", "a \"disk\""));
    let rates = target.rates.unwrap();
    assert_eq!(rates.reads_per_second, 100.0);
    assert_eq!(rates.requests_per_second, 101.0, "failed writes have ended, too");
    assert_eq!((rates.read_bytes_per_second, rates.errors_per_second), (2e6, 1.0));
    assert_eq!(rates.retransmissions_per_second, 2.0);
    // 198 fast ones, 2 slow ones: the mean is between them, and so is the line of 99 in 100.
    assert!((rates.latency_seconds.unwrap() - (198.0 * 0.0001 + 2.0 * 0.003) / 200.0).abs() < 1e-9);
    assert_eq!(rates.latency_p99_seconds, Some(0.000_128));
    let path = &target.paths[0];
    assert_eq!((path.state.as_str(), path.retransmissions), ("active", 9.0));
    assert_eq!(path.retransmissions_per_second, Some(2.0));
    assert_eq!(report.totals.rates.unwrap().requests_per_second, 101.0);
    assert_eq!((report.totals.targets_up, report.totals.candidates), (1, 2.0));
}

#[test]
fn sockets_for_machines_are_shown_with_their_target() {
    let sample = |requests: u32, read: u32, written: u32| {
        let of = "target=\"1.0\",disk=\"boot\",socket=\"/run/boot.sock\"";
        let lines = format!(
            "aoefs_export_clients{{{of}}} 1\naoefs_export_requests_total{{{of}}} {requests}\n\
             aoefs_export_errors_total{{{of}}} 3\naoefs_export_bytes_total{{{of},op=\"read\"}} {read}\n\
             aoefs_export_bytes_total{{{of},op=\"write\"}} {written}\n# EOF\n"
        );
        Sample::parse(&page(&[("1.0", EARLY)]).replace("# EOF\n", &lines)).unwrap()
    };
    let report = Report::new(&sample(700, 6_000_000, 9_000_000), Some((&sample(100, 0, 1_000_000), 2.0)));
    let [export] = &report.targets[0].exports[..] else { panic!("{report}") };
    assert_eq!((&export.disk[..], &export.socket[..]), ("boot", "/run/boot.sock"));
    assert_eq!((export.clients, export.requests, export.errors), (1.0, 700.0, 3.0));
    let rates = [export.requests_per_second, export.read_bytes_per_second, export.write_bytes_per_second];
    assert_eq!(rates, [300.0, 3_000_000.0, 4_000_000.0].map(Some));
    let text = report.to_string();
    let line = text.lines().find(|line| line.contains("/run/boot.sock")).unwrap();
    assert!(line.contains("boot") && line.contains("300 IOPS") && line.contains("3 errors"), "{line}");
}

#[test]
fn one_reading_has_no_rates() {
    let now = sample(&[("1.0", LATER)]);
    for report in [Report::new(&now, None), Report::new(&now, Some((&now, 0.0)))] {
        assert_eq!((report.interval_seconds, report.totals.rates), (None, None));
        assert_eq!(report.targets[0].rates, None);
        assert!(report.to_string().contains("\n1.0       up     1.07GB      -       -       -"), "{report}");
    }
}

#[test]
fn a_counter_that_fell_began_again() {
    let (before, now) = (sample(&[("1.0", LATER)]), sample(&[("1.0", EARLY), ("2.0", EARLY)]));
    let report = Report::new(&now, Some((&before, 1.0)));
    for target in &report.targets {
        let rates = target.rates.unwrap();
        assert_eq!((rates.reads_per_second, rates.read_bytes_per_second), (110.0, 1000.0));
        assert_eq!(rates.latency_p99_seconds, Some(0.004_096));
    }
    assert_eq!(report.totals.rates.unwrap().reads_per_second, 220.0);
}

#[test]
fn idle_targets_have_no_latency() {
    let now = sample(&[("1.0", EARLY)]);
    let rates = Report::new(&now, Some((&now, 1.0))).targets[0].rates.unwrap();
    assert_eq!(
        (rates.requests_per_second, rates.latency_seconds, rates.latency_p99_seconds),
        (0.0, None, None)
    );
}

#[test]
fn pages_that_are_not_ours_or_not_whole() {
    for page in ["", "# EOF\n", "node_load1 1\n# EOF\n", "<html>\n", "aoefs_target_up{target=\"1.0\"} 1\n"] {
        assert_eq!(Sample::parse(page), Err(NotAoefs::Foreign), "{page:?}");
    }
    let whole = page(&[("1.0", EARLY)]);
    assert_eq!(Sample::parse(whole.trim_end()), Err(NotAoefs::Cut));
    assert!(Sample::parse(&whole.replace("target=\"1.0\"", "target=\"x\"")).unwrap().targets.is_empty());
}

#[test]
fn sorting_keys() {
    let busy = Counted { fast: 1000, ..LATER };
    let before = sample(&[("1.0", EARLY), ("2.0", EARLY), ("10.1", EARLY), ("10.0", EARLY)]);
    let now = sample(&[("1.0", EARLY), ("2.0", busy), ("10.1", EARLY), ("10.0", LATER)]);
    let order = |sort: Sort, reverse| {
        let mut report = Report::new(&now, Some((&before, 1.0)));
        sort.apply(&mut report.targets, reverse);
        report.targets.iter().map(|target| target.target.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(order(Sort::Target, false), "1.0 2.0 10.0 10.1");
    assert_eq!(order(Sort::Target, true), "10.1 10.0 2.0 1.0");
    assert_eq!(order(Sort::Iops, false), "2.0 10.0 1.0 10.1");
    assert_eq!(order(Sort::Iops, true), "1.0 10.1 10.0 2.0");
    assert_eq!(order(Sort::Latency, false), "10.0 2.0 1.0 10.1");
    assert_eq!(order(Sort::Queue, false), "1.0 2.0 10.0 10.1");
    for sort in Sort::ALL {
        assert_eq!(Sort::named(sort.name()), Some(sort));
        assert_eq!(sort.step(3).step(-3), sort);
        assert_eq!(sort.step(Sort::ALL.len().cast_signed()), sort);
        assert!(sort.columns().iter().all(|column| Column::ALL.contains(column)));
    }
}

#[test]
fn columns_fit_the_terminal() {
    let all = |width| Column::that_fit(width);
    assert_eq!(all(200), Column::ALL);
    let at_80 = all(80);
    for gone in [Column::Model, Column::Size] {
        assert!(!at_80.contains(&gone));
    }
    assert_eq!(at_80.len(), Column::ALL.len() - 2);
    assert_eq!(all(0), [Column::Target, Column::Iops, Column::Read, Column::Write]);
    for width in 35..200 {
        let used: usize = all(width).iter().map(|column| column.width() + 1).sum();
        assert!(used <= width + 1, "{width}");
    }
    assert!(Column::ALL.iter().all(|column| column.title().len() <= column.width()));
    assert_eq!(Column::Target.padded("65534.254-and-more"), "65534.25…");
    assert_eq!(
        Column::Model.padded("a model with many words in it"),
        format!("{:<24}", "a model with many …")
    );
}

#[test]
fn the_page_of_once() {
    let before = sample(&[("1.0", EARLY), ("65534.254", EARLY)]);
    let mut report = Report::new(&sample(&[("1.0", LATER), ("65534.254", EARLY)]), Some((&before, 2.0)));
    report.mountpoint = "/mnt/aoe".into();
    report.log = last_lines("old\n2026-11-20T07:00:00.000Z 1.0 up\ncut", 1);
    let wanted = "\
aoefs 0.1.0 on /mnt/aoe, over 2.0 s
2 targets, 2 up, 0 down, 2 candidates; 101 IOPS, 2.00 MB/s read, 0.00 MB/s written, 2 retx/s

TARGET    STATE    SIZE   IOPS RD MB/s WR MB/s    LAT    P99 QUEUE RETX/s ERR/s PATHS MODEL
1.0       up     1.07GB    101    2.00    0.00  129us  128us     4      2     1   1/1 a \"disk\"
  eth1 02:00:00:00:00:01 active  rtt 210us  0/0 frames  0.00 MB/s  2 retx/s  9 retx in all  0 B a frame
65534.254 up     1.07GB      0    0.00    0.00      -      -     4      0     0   1/1 a \"disk\"
  eth1 02:00:00:00:00:01 active  rtt 210us  0/0 frames  0.00 MB/s  0 retx/s  5 retx in all  0 B a frame

eth1 up, mtu 9000 B, in 0 out 0 frames/s, 5 frames dropped

2026-11-20T07:00:00.000Z 1.0 up
";
    assert_eq!(report.to_string(), wanted);
}

#[test]
fn the_document_of_json() {
    let now = sample(&[("1.0", LATER)]);
    let json = |report: &Report| serde_json::to_value(report).unwrap();
    let document = json(&Report::new(&now, Some((&sample(&[("1.0", EARLY)]), 2.0))));
    assert_eq!(document["targets"][0]["target"], "1.0");
    assert_eq!(document["targets"][0]["rates"]["reads_per_second"], 100.0);
    assert_eq!(document["targets"][0]["paths"][0]["round_trip_seconds"], 0.00021);
    assert_eq!(document["netlinks"][0]["netlink"], "eth1");
    assert_eq!(document["interval_seconds"], 2.0);
    // Numbers of things are integers.
    let text = serde_json::to_string(&document).unwrap();
    for integer in [
        "\"size_bytes\":1073741824,",
        "\"errors\":3,",
        "\"queued_requests\":4",
        "\"candidates\":2,",
        "\"mtu_bytes\":9000,",
        "\"dropped_frames\":5,",
        "\"retransmissions\":9,",
        "\"frame_payload_bytes\":0,",
    ] {
        assert!(text.contains(integer), "{integer} is not in {text}");
    }
    let alone = json(&Report::new(&now, None));
    assert!(alone["totals"]["rates"].is_null() && alone["targets"][0]["rates"].is_null());
}

/// What is down does no work, and no path to it carries any: in the table, in the lines below it and in the document.
#[test]
fn down_is_down_everywhere() {
    let down = |counted| {
        page(&[("1.0", counted)])
            .replace("aoefs_target_up{target=\"1.0\"} 1", "aoefs_target_up{target=\"1.0\"} 0")
    };
    let [before, now] = [EARLY, LATER].map(|counted| Sample::parse(&down(counted)).unwrap());
    let report = Report::new(&now, Some((&before, 1.0)));
    let text = report.to_string();
    let row = text.lines().find(|line| line.starts_with("1.0 ")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[..2], ["1.0", "down"]);
    assert_eq!(cells[3..8], ["-"; 5], "{row}");
    // What waits, is sent again or fails is work that it does not do.
    assert_eq!(cells[8..12], ["4", "4", "2", "0/1"], "{row}");
    assert!(text.contains("\n  eth1 02:00:00:00:00:01 down  "), "{text}");
    let document = serde_json::to_value(&report).unwrap();
    assert_eq!(document["targets"][0]["paths"][0]["state"], "down");
}

#[test]
fn a_filter_looks_at_what_names_a_target() {
    let now = sample(&[("1.0", EARLY), ("17.3", EARLY)]);
    let report = Report::new(&now, None);
    let found = |word: &str| report.targets.iter().filter(|target| target.has(word)).count();
    for (word, count) in [
        ("", 2),
        ("17.", 1),
        ("1", 2),
        ("DISK", 2),
        ("eth1", 2),
        ("eth2", 0),
        ("02:00", 2),
        ("up", 2),
        ("down", 0),
    ] {
        assert_eq!(found(word), count, "{word}");
    }
}

#[test]
fn netlinks_in_a_narrow_place() {
    let mut net = Report::new(&sample(&[]), None).netlinks.remove(0);
    net.dropped_frames = 0.0;
    let other = super::report::NetlinkReport { netlink: "eth2".into(), state: "down", ..net.clone() };
    let nets = [net, other];
    let words = |width| table::netlinks_that_fit(&nets, width, " | ").join(" | ");
    assert_eq!(
        words(100),
        "eth1 up, mtu 9000 B, in - out - frames/s | eth2 down, mtu 9000 B, in - out - frames/s"
    );
    assert_eq!(words(80), "eth1 up, in - out - frames/s | eth2 down");
    assert_eq!(words(30), "eth1 up | eth2 down");
    assert_eq!(words(3), "eth1 up | eth2 down", "whoever shows them cuts them");
}

/// The manual names every field.
#[test]
fn the_manual_knows_the_fields() {
    fn names(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                found.extend(fields.keys().cloned());
                fields.values().for_each(|value| names(value, found));
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let manual = include_str!("../../man/aoefs-top.8");
    let now = sample(&[("1.0", LATER)]);
    let mut found = Vec::new();
    names(&serde_json::to_value(Report::new(&now, Some((&now, 1.0)))).unwrap(), &mut found);
    assert!(found.len() > 40);
    for name in found {
        assert!(manual.split([' ', '\n']).any(|word| word == name), "{name} is not in aoefs-top.8");
    }
    for words in Column::ALL.iter().map(|column| column.title()).chain(Sort::ALL.map(Sort::name)) {
        assert!(manual.contains(words), "{words} is not in aoefs-top.8");
    }
}

#[test]
fn logs_end_with_whole_lines() {
    assert_eq!(last_lines("", 3), [""; 0]);
    assert_eq!(last_lines("cut", 3), [""; 0]);
    assert_eq!(last_lines("a\nb\nc\nd", 2), ["b", "c"]);
    assert_eq!(last_lines("\x1b[31mred\n", 2), [" [31mred"]);
}

proptest! {
    /// Whatever the numbers are, a page becomes a report, a table and a document.
    #[test]
    fn any_numbers_make_a_report(values in prop::collection::vec(prop::num::f64::ANY, 8), seconds in prop::num::f64::ANY) {
        let mut text = page(&[("1.0", EARLY)]);
        for (name, value) in ["up", "size_bytes", "queued_requests", "bytes_total"].iter().zip(&values) {
            text.insert_str(0, &format!("aoefs_target_{name}{{target=\"1.0\",op=\"read\"}} {value}\n"));
            text.insert_str(0, &format!("aoefs_path_{name}{{target=\"1.0\",path=\"m\",netlink=\"n\"}} {value}\n"));
        }
        let (now, before) = (Sample::parse(&text).unwrap(), sample(&[("1.0", LATER)]));
        let mut report = Report::new(&now, Some((&before, seconds)));
        for sort in Sort::ALL {
            sort.apply(&mut report.targets, true);
        }
        prop_assert!(!report.to_string().contains("NaN"));
        serde_json::to_string(&report).unwrap();
    }

    /// A page of nonsense with our names in it is survived.
    #[test]
    fn any_page_is_survived(lines in prop::collection::vec("aoefs_(target|path|netlink)_(up|state|bytes_total|request_duration_seconds_bucket)(\\{(target|op|le|path)=\"[0-9.a-z+]{0,5}\"(,op=\"read\")?\\})? [0-9eE.+-]{1,6}", 0..20)) {
        let page = format!("aoefs_info{{}} 1\n{}\n# EOF\n", lines.join("\n"));
        let _ = Report::new(&Sample::parse(&page).unwrap(), None).to_string();
    }
}
