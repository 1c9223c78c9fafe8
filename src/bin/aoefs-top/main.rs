//! The `aoefs-top` command: shows the work of the targets of a mount, live, once, or as JSON. It reads the files
//! `metrics` and `log`.
//!
//! One thread reads the files (`source`), one waits for keys and one for signals; the main thread draws (`live`,
//! `screen`). So keys work also while the mount does not answer. Everything but files and the terminal is in
//! `aoefs::top`.

mod live;
mod screen;
mod source;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aoefs::cli::explain;
use aoefs::command::Mount;
use aoefs::failure::one_line;
use aoefs::top::{Report, Sort};
use clap::Parser;

use source::Source;

/// Shortest and longest time between two readings, in seconds. More frequent readings would be a load themselves.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// Lines of the log that --once and --json show.
const LOG_LINES: usize = 10;

/// Shows what the ATA-over-Ethernet targets below an aoefs mount point do.
#[derive(Parser, Debug)]
#[command(name = "aoefs-top", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Where the aoefs is mounted
    #[arg(value_name = "MOUNTPOINT")]
    point: PathBuf,

    /// Print a table of one interval and exit
    #[arg(long, conflicts_with = "json")]
    once: bool,

    /// Print one JSON document of one interval and exit
    #[arg(long)]
    json: bool,

    /// Seconds between two readings
    #[arg(short = 'd', long, value_name = "SECS", default_value = "1", value_parser = interval)]
    interval: Duration,

    /// Order of the targets: target, iops, throughput, latency, queue, retransmissions or errors
    #[arg(short, long, value_name = "KEY", default_value = "target", value_parser = sort)]
    sort: Sort,

    /// Turn the order around
    #[arg(short, long)]
    reverse: bool,

    /// Only targets with this text in address, state, model, serial number, interface or MAC
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
}

fn interval(text: &str) -> Result<Duration, String> {
    let (least, most) = (INTERVALS.start(), INTERVALS.end());
    let seconds = text.parse::<f64>().ok().filter(|seconds| INTERVALS.contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("not a number of seconds from {least} to {most}"))
}

fn sort(text: &str) -> Result<Sort, String> {
    let names = || Sort::ALL.map(Sort::name).join(", ");
    Sort::named(text).ok_or_else(|| format!("not one of {}", names()))
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match explain(&error, "aoefs-top") {
            Ok(text) => return done(print(&text)),
            Err(failure) => {
                eprintln!("aoefs-top: {failure}");
                return ExitCode::from(failure.code());
            }
        },
    };
    done(run(&cli))
}

fn done(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("aoefs-top: {}", one_line(&why));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), String> {
    // Absolute: the directory that it is relative to may go with the mount.
    let point = std::path::absolute(&cli.point).map_err(|e| format!("{}: {e}", cli.point.display()))?;
    // Started inside of the mount, this process must not keep it from being unmounted.
    let _ = std::env::set_current_dir("/");
    Mount { point: point.clone() }.living().map_err(|failure| failure.to_string())?;
    let mut source = Source::new(point);
    let first = source.read()?;
    if !(cli.once || cli.json) {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err("this is no terminal; print one table with --once, or JSON with --json".into());
        }
        return live::run(source, first, cli.interval, (cli.sort, cli.reverse), cli.filter.clone());
    }
    std::thread::sleep(cli.interval);
    let mut report = source.read()?;
    report.targets.retain(|target| target.has(&cli.filter));
    cli.sort.apply(&mut report.targets, cli.reverse);
    let newest = report.log.len().saturating_sub(LOG_LINES);
    report.log.drain(..newest);
    print(&text(&report, cli.json)?)
}

fn text(report: &Report, json: bool) -> Result<String, String> {
    if !json {
        return Ok(report.to_string());
    }
    let document = serde_json::to_string_pretty(report);
    document.map(|text| text + "\n").map_err(|error| format!("cannot write JSON: {error}"))
}

/// Prints. It is no failure if the reader has closed the pipe (`| head`).
fn print(text: &str) -> Result<(), String> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot print: {error}")),
        _ => Ok(()),
    }
}
