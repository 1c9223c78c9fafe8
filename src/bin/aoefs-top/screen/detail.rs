//! All that is known of one target.

use aoefs::top::report::{Rates, TargetReport};
use aoefs::top::{fit, table, units};

/// Width of the names of figures.
const NAMES: usize = 11;

/// The page of a target, in lines of at most `width` characters; `log` is that of the mount.
pub fn lines(target: &TargetReport, log: &[String], width: usize) -> Vec<String> {
    let mut lines = vec![format!(
        "Target {} is {}: {}, {}",
        target.target,
        target.state,
        if target.model.is_empty() { "model not known" } else { &target.model },
        units::bytes(target.size_bytes)
    )];
    let mut figure = |name: &str, text: String| lines.push(format!("  {name:<NAMES$}{text}"));
    figure("serial", if target.serial.is_empty() { "-".into() } else { target.serial.clone() });
    let (generation, handles) = (units::count(target.generation), units::count(target.open_handles));
    figure("disk", format!("number {generation} at this address; open handles: {handles}"));
    let work = target.rates.as_ref().filter(|_| target.state == "up");
    let rate = |field: fn(&Rates) -> f64| units::count(work.map(field));
    figure(
        "requests",
        match target.state {
            "up" => format!(
                "{} a second: {} reads, {} writes; {} wait for an answer",
                rate(|rates| rates.requests_per_second),
                rate(|rates| rates.reads_per_second),
                rate(|rates| rates.writes_per_second),
                units::count(target.queued_requests)
            ),
            state => format!("{state}; {} wait for an answer", units::count(target.queued_requests)),
        },
    );
    let megabytes = |field: fn(&Rates) -> f64| units::megabytes(work.map(field));
    let seconds = |field: fn(&Rates) -> Option<f64>| units::seconds(work.and_then(field));
    let (read, written) =
        (megabytes(|rates| rates.read_bytes_per_second), megabytes(|rates| rates.write_bytes_per_second));
    figure("data", format!("{read} MB/s read, {written} MB/s written"));
    let (mean, most) = (seconds(|rates| rates.latency_seconds), seconds(|rates| rates.latency_p99_seconds));
    figure("latency", format!("{mean} mean, {most} or less for 99 of 100"));
    let since = "since it was found";
    let always = |field: fn(&Rates) -> f64| units::count(target.rates.as_ref().map(field));
    figure(
        "errors",
        format!("{} a second, {} {since}", always(|r| r.errors_per_second), units::count(target.errors)),
    );
    let (again, all) =
        (always(|rates| rates.retransmissions_per_second), units::count(target.retransmissions));
    figure("sent again", format!("{again} frames a second, {all} {since}"));
    figure("duplicates", format!("{} replies {since}", units::count(target.duplicates)));
    let (out, window) = (units::count(target.outstanding_frames), units::count(target.window_frames));
    figure("window", format!("{out} frames on their way, of {window} that may be"));
    lines.push(String::new());
    lines.push(match target.paths.len() {
        0 => "No path leads to it".to_owned(),
        _ => "Paths".to_owned(),
    });
    lines.extend(target.paths.iter().map(|path| {
        let late = format!("  {} late replies", units::count(path.late_replies));
        format!("  {}{late}", table::path_line(path, usize::MAX))
    }));
    if !target.exports.is_empty() {
        lines.push(String::new());
        lines.push("Sockets for virtual machines".to_owned());
        let exports = target.exports.iter();
        lines.extend(exports.map(|export| format!("  {}", table::export_line(export, usize::MAX))));
    }
    lines.push(String::new());
    let name = target.target.to_string();
    let own: Vec<&String> = log.iter().filter(|line| line.split(' ').nth(1) == Some(&name)).collect();
    lines.push(
        if own.is_empty() { "The log has nothing of it" } else { "Log, the newest line first" }.to_owned(),
    );
    lines.extend(own.into_iter().rev().map(|line| format!("  {line}")));
    // What goes on below is set in, as far as its first line is.
    let wrapped = lines.iter().flat_map(|line| {
        let words = line.trim_start();
        let margin = " ".repeat(line.len() - words.len());
        let pieces = fit::wrap(words, width.saturating_sub(margin.len()));
        let later = if margin.is_empty() { String::new() } else { format!("{margin}  ") };
        let room = width.saturating_sub(later.len());
        match pieces.len() {
            1 => vec![line.clone()],
            // Narrower, so that the margin has room.
            _ => fit::wrap(words, room)
                .into_iter()
                .enumerate()
                .map(|(n, piece)| if n == 0 { format!("{margin}{piece}") } else { format!("{later}{piece}") })
                .collect(),
        }
    });
    wrapped.collect()
}
