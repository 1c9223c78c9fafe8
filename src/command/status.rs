//! `aoefs status`: the targets of a mount in a table, as aoe-stat(8) shows those of the kernel's driver, with paths,
//! rates and the last error.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::mounts::{self, Mount};
use super::print;
use super::table::{Column, lay_out, numbers, words};
use crate::failure::Failure;
use crate::top::model::Target;
use crate::top::{Sample, units};
use crate::wire::Addr;

/// Shows one mount, or all.
pub fn run(point: Option<&Path>, interval: Duration) -> Result<(), Failure> {
    let several = match point {
        Some(_) => Vec::new(),
        None => mounts::all()?,
    };
    if several.len() < 2 {
        return print(&text(&Mount::one(point)?, interval)?);
    }
    for mount in several {
        let point = mount.point.clone();
        // One that does not answer must not hide the others.
        let text = mount.living().and_then(|mount| text(&mount, interval));
        let text = text.unwrap_or_else(|failure| format!("{failure}\n"));
        print(&format!("{}:\n{text}\n", point.display()))?;
    }
    Ok(())
}

/// The table of a mount.
pub fn text(mount: &Mount, interval: Duration) -> Result<String, Failure> {
    let first = (sample(mount)?, Instant::now());
    let second = match interval.is_zero() {
        true => None,
        false => {
            thread::sleep(interval);
            Some((sample(mount)?, first.1.elapsed()))
        }
    };
    let errors = last_errors(&mount.read("log")?);
    let now = jiff::Timestamp::now();
    let rows = match &second {
        None => rows(&first.0, None, &errors, now),
        Some((newer, time)) => rows(newer, Some((&first.0, *time)), &errors, now),
    };
    if rows.is_empty() {
        let point = mount.point.display();
        return Ok(format!("no target has answered yet; to find out why: aoefs check {point}\n"));
    }
    Ok(lay_out(&COLUMNS, &rows))
}

fn sample(mount: &Mount) -> Result<Sample, Failure> {
    Sample::parse(&mount.read("metrics")?).map_err(|why| {
        Failure::start(format!("{}: {why}; name the mount point of an aoefs", mount.point.display()))
    })
}

/// The first five are those of aoe-stat.
const COLUMNS: [Column; 10] = [
    words("TARGET"),
    numbers("SIZE"),
    words("INTERFACES"),
    numbers("FRAME"),
    words("STATE"),
    words("PATHS"),
    numbers("READ/S"),
    numbers("WRITE/S"),
    numbers("RTT"),
    words("LAST ERROR"),
];

type Errors = BTreeMap<Addr, (Option<jiff::Timestamp>, String)>;

fn rows(
    sample: &Sample,
    before: Option<(&Sample, Duration)>,
    errors: &Errors,
    now: jiff::Timestamp,
) -> Vec<[String; COLUMNS.len()]> {
    sample
        .targets
        .iter()
        .map(|(addr, target)| {
            let before = before.and_then(|(old, time)| Some((old.targets.get(addr)?, time)));
            row(*addr, target, before, errors.get(addr), now)
        })
        .collect()
}

fn row(
    addr: Addr,
    target: &Target,
    before: Option<(&Target, Duration)>,
    error: Option<&(Option<jiff::Timestamp>, String)>,
    now: jiff::Timestamp,
) -> [String; COLUMNS.len()] {
    let names: BTreeSet<&str> = target.paths.keys().map(|(net, _)| net.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let active = || target.paths.values().filter(|path| path.up && path.state == "active");
    let least = |figures: &mut dyn Iterator<Item = f64>| figures.reduce(f64::min);
    let frame = least(&mut active().map(|path| path.payload));
    let rtt = least(&mut active().filter_map(|path| path.rtt));
    let rate = |op: usize| match before {
        // A counter that fell has started again.
        Some((old, time)) if target.up && target.ops[op].bytes >= old.ops[op].bytes => {
            units::bytes((target.ops[op].bytes - old.ops[op].bytes) / time.as_secs_f64())
        }
        _ => "-".into(),
    };
    let shown = |known: Option<String>| known.filter(|_| target.up).unwrap_or_else(|| "-".into());
    [
        addr.to_string(),
        format!("{}.{:03}GB", target.size as u64 / 1_000_000_000, target.size as u64 / 1_000_000 % 1000),
        if names.is_empty() { "-".into() } else { names.join(",") },
        shown(frame.map(|bytes| format!("{bytes}"))),
        if target.up { "up".into() } else { "down".into() },
        format!("{} of {}", if target.up { active().count() } else { 0 }, target.paths.len()),
        rate(0),
        rate(1),
        shown(rtt.map(|rtt| units::seconds(Some(rtt)))),
        error.map_or_else(
            || "-".into(),
            |(at, words)| match at {
                Some(at) => format!("{} ago: {words}", age(now.duration_since(*at).as_secs())),
                None => words.clone(),
            },
        ),
    ]
}

/// `5 s`, `12 min`, `3 h`, `9 days`.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        s @ ..=119 => format!("{s} s"),
        s @ ..=7199 => format!("{} min", s / 60),
        s @ ..=172_799 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// The newest line of the log about each target that says that something failed.
fn last_errors(log: &str) -> Errors {
    let failed = |words: &str| {
        words.starts_with("down: ")
            || words.starts_with("another disk: ")
            || words.starts_with("reserved for ")
            || words.contains(" failed")
            || words.ends_with(" refused: not the same disk")
    };
    let mut errors = Errors::new();
    for line in log.lines() {
        let mut parts = line.splitn(3, ' ');
        let (Some(at), Some(addr), Some(words)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if let Ok(addr) = addr.parse::<Addr>()
            && failed(words)
        {
            errors.insert(addr, (at.parse().ok(), words.to_owned()));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-20T08:00:00.000Z 1.0 read failed at sector 7: deadline passed\n\
        2026-11-20T08:00:01.000Z 1.0 down: a request's deadline passed\n\
        2026-11-20T08:00:02.000Z 1.0 up\n\
        2026-11-20T08:00:03.000Z - bound eth1\n\
        nonsense\n";

    #[test]
    fn the_last_error_is_the_newest_line_that_says_one() {
        let errors = last_errors(LOG);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[&Addr::new(1, 0)].1, "down: a request's deadline passed");
    }

    #[test]
    fn a_row_shows_paths_rates_and_error() {
        let page = |bytes: u64, up: u8| {
            format!(
                "aoefs_info{{version=\"9\"}} 1\n\
                 aoefs_target_up{{target=\"1.0\"}} {up}\n\
                 aoefs_target_size_bytes{{target=\"1.0\"}} 1073741824\n\
                 aoefs_target_bytes_total{{target=\"1.0\",op=\"read\"}} {bytes}\n\
                 aoefs_path_up{{target=\"1.0\",netlink=\"eth1\",path=\"a\"}} 1\n\
                 aoefs_path_state{{target=\"1.0\",netlink=\"eth1\",path=\"a\",state=\"active\"}} 1\n\
                 aoefs_path_frame_payload_bytes{{target=\"1.0\",netlink=\"eth1\",path=\"a\"}} 8192\n\
                 aoefs_path_round_trip_seconds{{target=\"1.0\",netlink=\"eth1\",path=\"a\"}} 0.00025\n\
                 aoefs_path_up{{target=\"1.0\",netlink=\"eth2\",path=\"b\"}} 1\n\
                 aoefs_path_state{{target=\"1.0\",netlink=\"eth2\",path=\"b\",state=\"tainted\"}} 1\n# EOF\n"
            )
        };
        let (old, new) = (Sample::parse(&page(0, 1)).unwrap(), Sample::parse(&page(2_000_000, 1)).unwrap());
        let now = "2026-11-20T08:03:01Z".parse().unwrap();
        let rows = rows(&new, Some((&old, Duration::from_secs(2))), &last_errors(LOG), now);
        let want = [
            "1.0",
            "1.073GB",
            "eth1,eth2",
            "8192",
            "up",
            "1 of 2",
            "1.00MB",
            "0B",
            "250us",
            "3 min ago: down: a request's deadline passed",
        ];
        assert_eq!(rows, [want.map(String::from)]);
        let down = Sample::parse(&page(0, 0)).unwrap();
        let rows = super::rows(&down, Some((&old, Duration::from_secs(2))), &Errors::new(), now);
        let want = ["1.0", "1.073GB", "eth1,eth2", "-", "down", "0 of 2", "-", "-", "-", "-"];
        assert_eq!(rows, [want.map(String::from)]);
    }
}
