use proptest::prelude::*;

use super::*;
use crate::fs::metrics::tests::{busy, netlink};

fn page() -> StatsPage {
    StatsPage { target: busy(), netlinks: vec![netlink()] }
}

/// Keys and their order are a contract.
#[test]
fn the_whole_page() {
    let wanted = "\
read requests: 7
read bytes: 20480
read errors: 1
read latency: count 5 mean 18000090 p50 256 p90 >67108864 p99 >67108864 p999 >67108864
write requests: 0
write bytes: 0
write errors: 0
write latency: count 0 mean - p50 - p90 - p99 - p999 -
flush requests: 1
flush bytes: 0
flush errors: 0
flush latency: count 0 mean - p50 - p90 - p99 - p999 -
other requests: 0
other bytes: 0
other errors: 0
other latency: count 0 mean - p50 - p90 - p99 - p999 -
retransmitted: 12
duplicates: 2
late: 5
unexpected: 0
mismatched: 0
held back: 1
quarantined: 1
confirmations: 3
downs: 1
queue: 2
outstanding: 3
window: 16
rtt: 210
read ahead fetched: 1048576
read ahead served: 131072
read ahead wasted: 65536
deadlines passed: 2
path eth1 52:54:00:65:43:21: active rtt 210 rttvar 30 rto 20210 window 16 out 3 sent 4711 answered 4700 resent 12 overtaken 4 expired 8 late 5 bytes 65536
path eth1 52:54:00:65:43:21 read: count 1 mean 150 p50 256 p90 256 p99 256 p999 256
path eth1 52:54:00:65:43:21 write: count 0 mean - p50 - p90 - p99 - p999 -
path eth1 52:54:00:65:43:21 flush: count 0 mean - p50 - p90 - p99 - p999 -
path eth1 52:54:00:65:43:22: proving rtt - rttvar - rto 20210 window 16 out 3 sent 0 answered 0 resent 0 overtaken 0 expired 0 late 0 bytes 0
path eth1 52:54:00:65:43:22 read: count 0 mean - p50 - p90 - p99 - p999 -
path eth1 52:54:00:65:43:22 write: count 0 mean - p50 - p90 - p99 - p999 -
path eth1 52:54:00:65:43:22 flush: count 0 mean - p50 - p90 - p99 - p999 -
";
    assert_eq!(page().to_string(), wanted);
}

/// The manual names every key; those of writes, flushes and others are those of reads.
#[test]
fn the_manual_knows_them_all() {
    let manual = include_str!("../../../man/aoefs.8");
    for line in page().to_string().lines() {
        let (key, _) = line.split_once(": ").unwrap();
        let (first, rest) = key.split_once(' ').unwrap_or((key, ""));
        let like = match first {
            "write" | "flush" | "other" => format!("read {rest}"),
            _ => key.replace(":22", ":21").replace("21 write", "21 read").replace("21 flush", "21 read"),
        };
        assert!(manual.contains(&format!("\n{like}: ")), "{key} is not in aoefs.8");
    }
}

#[test]
fn a_target_without_paths() {
    let mut page = page();
    page.target.paths.clear();
    let text = page.to_string();
    assert!(
        text.contains("\nrtt: -\n")
            && text.ends_with("deadlines passed: 2\n")
            && text.contains("\nretransmitted: 0\n"),
        "{text}"
    );
    page.netlinks.clear();
    page.target.paths = busy().paths;
    page.target.paths[0].up = false;
    assert!(page.to_string().contains("\npath if3 52:54:00:65:43:21: down rtt 210 "));
}

proptest! {
    /// Every line has a key and a value, and quantiles rise.
    #[test]
    fn any_numbers_make_a_page(waits in prop::collection::vec(any::<u64>(), 0..50), counter in any::<u64>()) {
        let mut page = page();
        let mut latency = Histogram::default();
        waits.iter().for_each(|us| latency.record(Duration::from_micros(us >> (us % 64))));
        page.target.status.stats.ops[1].latency = latency;
        page.target.status.stats.held_back = counter;
        page.target.paths[1].rtt = Some(Duration::from_micros(counter));
        let text = page.to_string();
        for line in text.lines() {
            let (key, value) = line.rsplit_once(": ").unwrap();
            prop_assert!(!key.is_empty() && !value.trim().is_empty(), "{}", line);
        }
        let line = text.lines().find(|line| line.starts_with("write latency: ")).unwrap();
        let numbers = line.split(' ').skip(7).step_by(2);
        let quantiles: Vec<u64> =
            numbers.filter_map(|n| n.parse().ok().or_else(|| n.strip_prefix('>')?.parse::<u64>().ok().map(|n| n + 1))).collect();
        prop_assert_eq!(quantiles.len(), if waits.is_empty() { 0 } else { 4 });
        prop_assert!(quantiles.is_sorted(), "{}", line);
    }
}
