//! The columns of the table, their content and order, and the page of `--once`.

use std::cmp::Ordering;
use std::fmt::{self, Write};

use super::fit::fit;
use super::report::{ExportReport, NetlinkReport, PathReport, Rates, Report, TargetReport};
use super::units;

/// A column of the table of targets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    /// Its address.
    Target,
    /// Up or down.
    State,
    /// Of the disk.
    Size,
    /// Requests that ended a second.
    Iops,
    /// Megabytes read a second.
    Read,
    /// Megabytes written a second.
    Write,
    /// Mean latency.
    Latency,
    /// Latency that one in a hundred exceeds.
    P99,
    /// Requests not answered yet.
    Queue,
    /// Copies sent again a second.
    Again,
    /// Failed requests a second.
    Errors,
    /// Paths that carry work, of how many.
    Paths,
    /// The disk's model.
    Model,
}

impl Column {
    /// In the order in which they stand.
    pub const ALL: [Column; 13] = [
        Column::Target,
        Column::State,
        Column::Size,
        Column::Iops,
        Column::Read,
        Column::Write,
        Column::Latency,
        Column::P99,
        Column::Queue,
        Column::Again,
        Column::Errors,
        Column::Paths,
        Column::Model,
    ];

    /// The columns that a narrow terminal does without, in the order in which they are left out.
    const DISPENSABLE: [Column; 9] = [
        Column::Model,
        Column::Size,
        Column::P99,
        Column::Paths,
        Column::Again,
        Column::Queue,
        Column::Latency,
        Column::Errors,
        Column::State,
    ];

    /// Its heading.
    pub fn title(self) -> &'static str {
        match self {
            Column::Target => "TARGET",
            Column::State => "STATE",
            Column::Size => "SIZE",
            Column::Iops => "IOPS",
            Column::Read => "RD MB/s",
            Column::Write => "WR MB/s",
            Column::Latency => "LAT",
            Column::P99 => "P99",
            Column::Queue => "QUEUE",
            Column::Again => "RETX/s",
            Column::Errors => "ERR/s",
            Column::Paths => "PATHS",
            Column::Model => "MODEL",
        }
    }

    /// How many characters it needs.
    pub fn width(self) -> usize {
        match self {
            Column::Target => 9,
            Column::Iops | Column::Latency | Column::P99 | Column::Again => 6,
            Column::Size | Column::Read | Column::Write => 7,
            Column::State | Column::Queue | Column::Errors | Column::Paths => 5,
            Column::Model => 24,
        }
    }

    /// Numbers stand to the right.
    pub fn is_number(self) -> bool {
        !matches!(self, Column::Target | Column::State | Column::Model)
    }

    /// What only a target that is up has.
    fn is_work(self) -> bool {
        matches!(self, Column::Iops | Column::Read | Column::Write | Column::Latency | Column::P99)
    }

    /// Those that fit side by side, with a blank between two.
    pub fn that_fit(width: usize) -> Vec<Column> {
        let mut columns = Column::ALL.to_vec();
        for column in Column::DISPENSABLE {
            if columns.iter().map(|column| column.width() + 1).sum::<usize>() <= width + 1 {
                break;
            }
            columns.retain(|other| *other != column);
        }
        columns
    }

    /// The text in it.
    pub fn cell(self, target: &TargetReport) -> String {
        // The work of a target that is down is none, whatever the time before it went down had.
        let rates = target.rates.as_ref().filter(|_| target.state == "up" || !self.is_work());
        let rate = |field: fn(&Rates) -> f64| rates.map(field);
        match self {
            Column::Target => target.target.to_string(),
            Column::State => target.state.to_owned(),
            Column::Size => units::bytes(target.size_bytes),
            Column::Iops => units::count(rate(|rates| rates.requests_per_second)),
            Column::Read => units::megabytes(rate(|rates| rates.read_bytes_per_second)),
            Column::Write => units::megabytes(rate(|rates| rates.write_bytes_per_second)),
            Column::Latency => units::seconds(rates.and_then(|rates| rates.latency_seconds)),
            Column::P99 => units::seconds(rates.and_then(|rates| rates.latency_p99_seconds)),
            Column::Queue => units::count(target.queued_requests),
            Column::Again => units::count(rate(|rates| rates.retransmissions_per_second)),
            Column::Errors => units::count(rate(|rates| rates.errors_per_second)),
            Column::Paths => {
                let carrying = target.paths.iter().filter(|path| path.state == "active").count();
                format!("{carrying}/{}", target.paths.len())
            }
            Column::Model => target.model.clone(),
        }
    }

    /// The cell as wide as the column.
    pub fn padded(self, cell: &str) -> String {
        let width = self.width();
        let cell = fit(cell, width, &[]);
        if self.is_number() { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
    }
}

/// The value that targets are sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sort {
    /// Addresses, the lowest first. All others: the largest first.
    #[default]
    Target,
    /// Requests a second.
    Iops,
    /// Bytes a second, both ways.
    Throughput,
    /// Mean latency.
    Latency,
    /// Requests not answered yet.
    Queue,
    /// Copies sent again a second.
    Again,
    /// Failed requests a second.
    Errors,
}

impl Sort {
    /// In the order in which a key goes through them.
    pub const ALL: [Sort; 7] =
        [Sort::Target, Sort::Iops, Sort::Throughput, Sort::Latency, Sort::Queue, Sort::Again, Sort::Errors];

    /// Which end of the order stands first.
    pub fn direction(self, reverse: bool) -> &'static str {
        match (self, reverse) {
            (Sort::Target, false) => "lowest first",
            (Sort::Target, true) => "highest first",
            (_, false) => "largest first",
            (_, true) => "smallest first",
        }
    }

    /// Its name on the command line and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Target => "target",
            Sort::Iops => "iops",
            Sort::Throughput => "throughput",
            Sort::Latency => "latency",
            Sort::Queue => "queue",
            Sort::Again => "retransmissions",
            Sort::Errors => "errors",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Sort> {
        Sort::ALL.into_iter().find(|sort| sort.name() == name)
    }

    /// The one `steps` further on, around the end.
    pub fn step(self, steps: isize) -> Sort {
        let at = Sort::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Sort::ALL[(at.cast_signed() + steps).rem_euclid(Sort::ALL.len().cast_signed()).cast_unsigned()]
    }

    /// The columns that it goes by.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Sort::Target => &[Column::Target],
            Sort::Iops => &[Column::Iops],
            Sort::Throughput => &[Column::Read, Column::Write],
            Sort::Latency => &[Column::Latency],
            Sort::Queue => &[Column::Queue],
            Sort::Again => &[Column::Again],
            Sort::Errors => &[Column::Errors],
        }
    }

    /// Sorts. Equals stand by address, in rising order.
    pub fn apply(self, targets: &mut [TargetReport], reverse: bool) {
        // Unknown values are less than all others.
        let rate =
            |target: &TargetReport, field: fn(&Rates) -> f64| target.rates.as_ref().map_or(-1.0, field);
        let key = |target: &TargetReport| match self {
            Sort::Target => 0.0,
            Sort::Iops => rate(target, |rates| rates.requests_per_second),
            Sort::Throughput => {
                rate(target, |rates| rates.read_bytes_per_second + rates.write_bytes_per_second)
            }
            Sort::Latency => rate(target, |rates| rates.latency_seconds.unwrap_or(-1.0)),
            Sort::Queue => target.queued_requests,
            Sort::Again => rate(target, |rates| rates.retransmissions_per_second),
            Sort::Errors => rate(target, |rates| rates.errors_per_second),
        };
        targets.sort_by(|a, b| {
            let by_key = match key(b).total_cmp(&key(a)) {
                order if reverse => order.reverse(),
                order => order,
            };
            let by_address = match a.target.cmp(&b.target) {
                order if reverse && self == Sort::Target => order.reverse(),
                order => order,
            };
            if by_key == Ordering::Equal { by_address } else { by_key }
        });
    }
}

/// What stands between two parts of a line about a path.
const GAP: &str = "  ";

/// The line about a path, below its target, in `width` characters: what matters least stands at its end.
pub fn path_line(path: &PathReport, width: usize) -> String {
    let (out, window) = (units::count(path.outstanding_frames), units::count(path.window_frames));
    let parts = [
        format!("{} {} {}", path.netlink, path.mac, path.state),
        format!("rtt {}", units::seconds(path.round_trip_seconds)),
        format!("{out}/{window} frames"),
        format!("{} MB/s", units::megabytes(path.bytes_per_second)),
        format!("{} retx/s", units::count(path.retransmissions_per_second)),
        format!("{} retx in all", units::count(path.retransmissions)),
        format!("{:.0} B a frame", path.frame_payload_bytes),
    ];
    fit(&parts.join(GAP), width, &[GAP])
}

/// The line about a socket for virtual machines, below its target, as one about a path.
pub fn export_line(export: &ExportReport, width: usize) -> String {
    let clients = export.clients;
    let [read, write] = [export.read_bytes_per_second, export.write_bytes_per_second].map(units::megabytes);
    let parts = [
        format!("vhost {} {}", export.socket, export.disk),
        format!("{} client{}", units::count(clients), if clients == 1.0 { "" } else { "s" }),
        format!("{} IOPS", units::count(export.requests_per_second)),
        format!("{read} MB/s read"),
        format!("{write} MB/s written"),
        format!("{} errors in all", units::count(export.errors)),
    ];
    fit(&parts.join(GAP), width, &[GAP])
}

/// The words about a netlink.
pub fn netlink_words(net: &NetlinkReport) -> String {
    let mut words = format!("{} {}, mtu {:.0} B", net.netlink, net.state, net.mtu_bytes);
    let (received, sent) =
        (units::count(net.received_frames_per_second), units::count(net.sent_frames_per_second));
    let _ = write!(words, ", in {received} out {sent} frames/s");
    for (what, count) in [("dropped", net.dropped_frames), ("unsent", net.unsent_frames)] {
        if count > 0.0 {
            let _ = write!(words, ", {} frames {what}", units::count(count));
        }
    }
    words
}

/// The words about each netlink, in as few words as it needs for all of them to fit between their separators.
pub fn netlinks_that_fit(nets: &[NetlinkReport], width: usize, separator: &str) -> Vec<String> {
    let state = |net: &NetlinkReport| format!("{} {}", net.netlink, net.state);
    let brief = |net: &NetlinkReport| match net.state {
        "up" => {
            let [received, sent] =
                [net.received_frames_per_second, net.sent_frames_per_second].map(units::count);
            format!("{}, in {received} out {sent} frames/s", state(net))
        }
        _ => state(net),
    };
    let fits = |words: &[String]| {
        let used: usize = words.iter().map(|words| words.chars().count() + separator.len()).sum();
        used <= width + separator.len()
    };
    let long: Vec<String> = nets.iter().map(netlink_words).collect();
    let brief: Vec<String> = nets.iter().map(brief).collect();
    [long, brief].into_iter().find(|words| fits(words)).unwrap_or_else(|| nets.iter().map(state).collect())
}

/// The line above the table: the number of targets, and their sums.
pub fn summary(report: &Report) -> String {
    let totals = &report.totals;
    let (up, down) = (totals.targets_up, totals.targets_down);
    let all = up + down;
    let mut line = format!("{all} target{}, {up} up, {down} down", if all == 1 { "" } else { "s" });
    if totals.candidates > 0.0 {
        let _ = write!(line, ", {} candidates", units::count(totals.candidates));
    }
    if let Some(rates) = &totals.rates {
        let iops = units::count(rates.requests_per_second);
        let [read, write] = [rates.read_bytes_per_second, rates.write_bytes_per_second]
            .map(|rate| units::megabytes(Some(rate)));
        let _ = write!(line, "; {iops} IOPS, {read} MB/s read, {write} MB/s written");
        let again = units::count(rates.retransmissions_per_second);
        let _ = write!(line, ", {again} retx/s");
    }
    line
}

/// The page that `--once` prints.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aoefs {} on {}", self.version, self.mountpoint)?;
        if let Some(seconds) = self.interval_seconds {
            write!(f, ", over {seconds:.1} s")?;
        }
        writeln!(f, "\n{}\n", summary(self))?;
        let row = |f: &mut fmt::Formatter<'_>, cell: &dyn Fn(Column) -> String| {
            let cells = Column::ALL.map(|column| column.padded(&cell(column)));
            writeln!(f, "{}", cells.join(" ").trim_end())
        };
        row(f, &|column| column.title().to_owned())?;
        for target in &self.targets {
            row(f, &|column| column.cell(target))?;
            for path in &target.paths {
                writeln!(f, "  {}", path_line(path, usize::MAX))?;
            }
            for export in &target.exports {
                writeln!(f, "  {}", export_line(export, usize::MAX))?;
            }
        }
        if !self.netlinks.is_empty() {
            f.write_char('\n')?;
        }
        for net in &self.netlinks {
            writeln!(f, "{}", netlink_words(net))?;
        }
        if !self.log.is_empty() {
            f.write_char('\n')?;
        }
        self.log.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
