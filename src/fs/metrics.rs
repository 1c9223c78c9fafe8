//! The `metrics` file: every counter of the mount, as Prometheus text. Over HTTP (`--metrics-listen`) the same page can
//! be had in the format OpenMetrics, which names a counter's family without its `_total`.
//!
//! Promises: each target's lock is held for one copy of its numbers and for nothing else, so that reading the file
//! never keeps I/O waiting; the lines of a family stand together below its HELP and TYPE; a series keeps its name and
//! its labels; characters that a label cannot have are escaped; the last line is `# EOF`, so that a reader knows the
//! page is whole.
//! A histogram appears with its first observation: most of 4096 idle targets have none.

use std::fmt::{self, Display, Write};
use std::time::{Duration, SystemTime};

use super::context::ExportStatus;
use super::snapshot::{Target, word};
use crate::engine::{BUCKETS, Histogram, Op, OpStats, PathStatus, Status, Trust};
use crate::runtime::{NetlinkStatus, Runtime};
use crate::wire::SECTOR;

mod families;
mod process;

use families::{
    COUNTS, EXPORT, EXPORT_BYTES, Family, NETLINK, OPS, PATH, PROCESS, TARGET, TRIPS, Value, WAITS,
};
pub use process::Process;

/// The first bound of a histogram is 2^4 µs: no answer of another machine comes sooner.
const FIRST_BOUND: usize = 4;

/// How the page is written. The lines are the same in both; what is said above them differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Prometheus' text format 0.0.4, in which a family of counters is called `…_total`.
    Prometheus,
    /// OpenMetrics 1.0, in which only its lines are called so.
    OpenMetrics,
}

/// Numbers that belong to no target and no netlink.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Addresses that announced themselves and are no targets yet.
    pub candidates: u64,
    /// Addresses that were not taken for want of room.
    pub refused: u64,
    /// Open files of the mount.
    pub handles: u64,
    /// Bytes ever logged.
    pub log_bytes: u64,
    /// Lines of the log that newer ones pushed out.
    pub log_pushed_out: u64,
    /// Lines that the log's rate limit left out.
    pub log_suppressed: u64,
}

/// The whole mount as it was, target after target.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Numbers of the mount.
    pub counts: Counts,
    /// Numbers of the daemon.
    pub process: Process,
    /// The interfaces in use.
    pub netlinks: Vec<NetlinkStatus>,
    /// The targets in order of addresses.
    pub targets: Vec<Target>,
    /// The sockets for virtual machines.
    pub exports: Vec<ExportStatus>,
}

impl Snapshot {
    /// Copies all numbers; `handles` are the open files, which only the file system knows, as it knows the sockets;
    /// `start` is when the mount was made.
    pub fn take(
        runtime: &Runtime,
        handles: usize,
        exports: Vec<ExportStatus>,
        start: SystemTime,
    ) -> Snapshot {
        let log = runtime.log();
        let counts = Counts {
            candidates: runtime.candidates() as u64,
            refused: runtime.refused(),
            handles: handles as u64,
            log_bytes: log.total(),
            log_pushed_out: log.pushed_out(),
            log_suppressed: log.suppressed(),
        };
        let targets = runtime.units().iter().map(|unit| Target::take(runtime, unit)).collect();
        let process = Process::take(start);
        Snapshot { counts, process, netlinks: runtime.netlinks(), targets, exports }
    }

    /// The page.
    pub fn render(&self, format: Format) -> String {
        let mut page = Page(String::new(), format);
        self.mount(&mut page);
        self.netlinks(&mut page);
        self.targets(&mut page);
        self.paths(&mut page);
        self.exports(&mut page);
        page.0.push_str("# EOF\n");
        page.0
    }

    fn mount(&self, page: &mut Page) {
        page.head("aoefs_info", "Always 1; its label is the version of aoefs.");
        page.line("aoefs_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), Value::Count(1));
        page.head("aoefs_build_info", "Always 1; its labels are what the program was built as.");
        let build = format!(
            concat!("version=\"", env!("CARGO_PKG_VERSION"), "\",arch=\"{}\""),
            std::env::consts::ARCH
        );
        page.line("aoefs_build_info", &build, Value::Count(1));
        let up = self.targets.iter().filter(|target| target.status.up).count() as u64;
        page.head("aoefs_targets", "Known targets by state.");
        page.line("aoefs_targets", "state=\"up\"", Value::Count(up));
        page.line("aoefs_targets", "state=\"down\"", Value::Count(self.targets.len() as u64 - up));
        for family in &COUNTS {
            page.family(family, [("", &self.counts)]);
        }
        for family in &PROCESS {
            page.family(family, [("", &self.process)]);
        }
    }

    fn netlinks(&self, page: &mut Page) {
        let labels: Vec<String> =
            self.netlinks.iter().map(|net| format!("netlink=\"{}\"", Label(&net.name))).collect();
        let each = || labels.iter().map(String::as_str).zip(&self.netlinks);
        page.head("aoefs_netlink_info", "Always 1; its labels are the interface and its MAC.");
        for (labels, net) in each() {
            page.line("aoefs_netlink_info", &format!("{labels},mac=\"{}\"", net.mac), Value::Count(1));
        }
        for family in &NETLINK {
            page.family(family, each());
        }
    }

    fn targets(&self, page: &mut Page) {
        let labels: Vec<String> = self.targets.iter().map(|t| format!("target=\"{}\"", t.addr)).collect();
        let each = || labels.iter().map(String::as_str).zip(self.targets.iter().map(|target| &target.status));
        page.head("aoefs_target_info", "Always 1; its labels are what IDENTIFY DEVICE says of the disk.");
        for (labels, status) in each() {
            let [model, serial, firmware] =
                [&status.model.to_string(), &status.serial.to_string(), &status.firmware.to_string()]
                    .map(|text| Label(text).to_string());
            let more = format!("{labels},model=\"{model}\",serial=\"{serial}\",firmware=\"{firmware}\"");
            page.line("aoefs_target_info", &more, Value::Count(1));
        }
        for family in &TARGET {
            page.family(family, each());
        }
        let by_op: Vec<(String, &OpStats)> =
            each().flat_map(|(labels, status)| with_op(labels, &status.stats.ops)).collect();
        for family in &OPS {
            page.family(family, by_op.iter().map(|(labels, stats)| (labels.as_str(), *stats)));
        }
        page.histograms(&WAITS, by_op.iter().map(|(labels, stats)| (labels.as_str(), &stats.latency)));
    }

    fn exports(&self, page: &mut Page) {
        let labels = |export: &ExportStatus| {
            let (disk, path) = (Label(&export.disk), Label(&export.path));
            format!("target=\"{}\",disk=\"{disk}\",socket=\"{path}\"", export.addr)
        };
        let each: Vec<(String, &ExportStatus)> =
            self.exports.iter().map(|export| (labels(export), export)).collect();
        for family in &EXPORT {
            page.family(family, each.iter().map(|(labels, export)| (labels.as_str(), *export)));
        }
        let (name, help) = EXPORT_BYTES;
        page.head(name, help);
        for (labels, export) in &each {
            page.line(name, &for_op(labels, "read"), Value::Count(export.counts.read));
            page.line(name, &for_op(labels, "write"), Value::Count(export.counts.written));
        }
    }

    fn paths(&self, page: &mut Page) {
        let mut each = Vec::new();
        for target in &self.targets {
            for path in &target.paths {
                // The netlink was unbound since: the path is about to go.
                let Some(net) = self.netlinks.iter().find(|net| net.id == path.net) else { continue };
                let (addr, mac, name) = (target.addr, path.mac, Label(&net.name));
                each.push((format!("target=\"{addr}\",path=\"{mac}\",netlink=\"{name}\""), path));
            }
        }
        let each = || each.iter().map(|(labels, path)| (labels.as_str(), *path));
        page.head("aoefs_path_state", "1 for the state that the path is in, 0 for the others.");
        for (labels, path) in each() {
            for trust in [Trust::Proving, Trust::Active, Trust::Tainted] {
                let state = format!("{labels},state=\"{}\"", word(trust));
                page.line("aoefs_path_state", &state, Value::Count((path.trust == trust).into()));
            }
        }
        for family in &PATH {
            page.family(family, each());
        }
        let by_op: Vec<(String, &Histogram)> =
            each().flat_map(|(labels, path)| with_op(labels, &path.stats.trips)).collect();
        page.histograms(&TRIPS, by_op.iter().map(|(labels, trips)| (labels.as_str(), *trips)));
    }
}

/// The label of an operation more.
fn for_op(labels: &str, op: &str) -> String {
    format!("{labels},op=\"{op}\"")
}

/// Labels with an `op` more, for each of the first operations that there are values for.
fn with_op<'a, T>(labels: &str, values: &'a [T]) -> Vec<(String, &'a T)> {
    let each = Op::ALL.iter().zip(values);
    each.map(|((_, op), value)| (for_op(labels, op), value)).collect()
}

/// The text under construction. Writing into a String cannot fail; its `Result`s are dropped.
struct Page(String, Format);

impl Page {
    fn head(&mut self, name: &str, help: &str) {
        match (name.strip_suffix("_total"), self.1) {
            (None, _) => self.typed(name, help, "gauge"),
            (Some(_), Format::Prometheus) => self.typed(name, help, "counter"),
            (Some(family), Format::OpenMetrics) => self.typed(family, help, "counter"),
        }
    }

    fn typed(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &str, value: Value) {
        self.put(&[name, "{", labels, "} "], value);
    }

    /// A page of 4096 targets has half a million lines: appending strings is cheaper than formatting.
    fn put(&mut self, pieces: &[&str], value: Value) {
        pieces.iter().for_each(|piece| self.0.push_str(piece));
        let _ = writeln!(self.0, "{value}");
    }

    fn family<'a, T: 'a>(&mut self, family: &Family<T>, each: impl IntoIterator<Item = (&'a str, &'a T)>) {
        self.head(family.name, family.help);
        for (labels, source) in each {
            match (family.value)(source) {
                Some(value) if labels.is_empty() => self.put(&[family.name, " "], value),
                Some(value) => self.line(family.name, labels, value),
                None => {}
            }
        }
    }

    fn histograms<'a>(
        &mut self,
        (name, help): &(&str, &str),
        each: impl Iterator<Item = (&'a str, &'a Histogram)>,
    ) {
        self.typed(name, help, "histogram");
        // The last bucket has no bound of its own: it is in +Inf.
        let bounds: Vec<String> =
            (FIRST_BOUND..BUCKETS - 1).map(|power| Value::Micros(1 << power).to_string()).collect();
        for (labels, histogram) in each.filter(|(_, histogram)| histogram.count > 0) {
            let (first, rest) = histogram.buckets.split_at(FIRST_BOUND);
            let mut below: u64 = first.iter().sum();
            for (bound, count) in bounds.iter().zip(rest) {
                below += count;
                self.put(&[name, "_bucket{", labels, ",le=\"", bound, "\"} "], Value::Count(below));
            }
            let count = Value::Count(histogram.count);
            self.put(&[name, "_bucket{", labels, ",le=\"+Inf\"} "], count);
            self.put(&[name, "_sum{", labels, "} "], Value::Micros(histogram.sum));
            self.put(&[name, "_count{", labels, "} "], count);
        }
    }
}

/// A label's value: escaped as the format wants it.
struct Label<'a>(&'a str);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
pub(in crate::fs) mod tests;
