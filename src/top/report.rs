//! The report of two readings and the time between them: events a second.
//!
//! The field names are those of the JSON document, with their units; they are a contract. Unknown values are `null`:
//! every rate of a single reading, a latency if no request ended, a round trip that was never measured. A counter that
//! fell has started again from zero, as it does when a target was removed or aoefs was started anew.

use serde::Serialize;

use super::model::{Export, Histogram, Netlink, Op, Outlet, Path, Sample, Target};
use crate::wire::Addr;

/// The share of requests that stay below `latency_p99_seconds`.
const P99: f64 = 0.99;

/// The document that `--json` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Where the aoefs is mounted.
    pub mountpoint: String,
    /// Its version.
    pub version: String,
    /// Time between the two readings.
    pub interval_seconds: Option<f64>,
    /// Sums over all targets.
    pub totals: Totals,
    /// By address.
    pub targets: Vec<TargetReport>,
    /// By name.
    pub netlinks: Vec<NetlinkReport>,
    /// The last lines of the log.
    pub log: Vec<String>,
}

/// Sums over all targets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Targets that answer.
    pub targets_up: usize,
    /// Targets that do not.
    pub targets_down: usize,
    /// Addresses that are no targets yet.
    #[serde(serialize_with = "whole")]
    pub candidates: f64,
    /// Events a second; no latencies.
    pub rates: Option<Rates>,
}

/// Events a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Reads, writes and flushes that ended, well or not.
    pub requests_per_second: f64,
    /// Of these, reads.
    pub reads_per_second: f64,
    /// Of these, writes.
    pub writes_per_second: f64,
    /// Bytes read.
    pub read_bytes_per_second: f64,
    /// Bytes written.
    pub write_bytes_per_second: f64,
    /// Requests that failed.
    pub errors_per_second: f64,
    /// Copies of frames that were sent again.
    pub retransmissions_per_second: f64,
    /// Mean over the reads and writes that ended well.
    pub latency_seconds: Option<f64>,
    /// The bound that 99 % of these stayed below: a power of two of a microsecond.
    pub latency_p99_seconds: Option<f64>,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetReport {
    /// shelf.slot.
    #[serde(serialize_with = "as_text")]
    pub target: Addr,
    /// `up` or `down`.
    pub state: &'static str,
    /// Of the disk.
    #[serde(serialize_with = "whole")]
    pub size_bytes: f64,
    /// From IDENTIFY.
    pub model: String,
    /// From IDENTIFY.
    pub serial: String,
    /// Rises with every new disk.
    #[serde(serialize_with = "whole")]
    pub generation: f64,
    /// Open handles.
    #[serde(serialize_with = "whole")]
    pub open_handles: f64,
    /// Requests that are not answered yet.
    #[serde(serialize_with = "whole")]
    pub queued_requests: f64,
    /// Frames outstanding.
    #[serde(serialize_with = "whole")]
    pub outstanding_frames: f64,
    /// Frames that may be.
    #[serde(serialize_with = "whole")]
    pub window_frames: f64,
    /// Requests that failed since the start.
    #[serde(serialize_with = "whole")]
    pub errors: f64,
    /// Copies sent again since the start.
    #[serde(serialize_with = "whole")]
    pub retransmissions: f64,
    /// Answers to copies that had been answered, since the start.
    #[serde(serialize_with = "whole")]
    pub duplicates: f64,
    /// Events a second.
    pub rates: Option<Rates>,
    /// The ways to it.
    pub paths: Vec<PathReport>,
    /// Its sockets for virtual machines.
    pub exports: Vec<ExportReport>,
}

/// One way to a target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PathReport {
    /// The local end.
    pub netlink: String,
    /// The target's end.
    pub mac: String,
    /// `active`, `proving`, `tainted`, or `down` if its netlink or the target is.
    pub state: String,
    /// Smoothed round trip.
    pub round_trip_seconds: Option<f64>,
    /// Frames outstanding.
    #[serde(serialize_with = "whole")]
    pub outstanding_frames: f64,
    /// Frames that may be.
    #[serde(serialize_with = "whole")]
    pub window_frames: f64,
    /// Bytes of data in a frame.
    #[serde(serialize_with = "whole")]
    pub frame_payload_bytes: f64,
    /// Copies sent again since the start.
    #[serde(serialize_with = "whole")]
    pub retransmissions: f64,
    /// Late answers since the start.
    #[serde(serialize_with = "whole")]
    pub late_replies: f64,
    /// Frames sent.
    pub frames_per_second: Option<f64>,
    /// Bytes of data, both ways.
    pub bytes_per_second: Option<f64>,
    /// Copies sent again.
    pub retransmissions_per_second: Option<f64>,
}

/// One socket for virtual machines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExportReport {
    /// `data` or a partition.
    pub disk: String,
    /// The path of the socket.
    pub socket: String,
    /// Front ends that are connected.
    pub clients: f64,
    /// Requests since the start.
    pub requests: f64,
    /// Those that were answered with an error, since the start.
    pub errors: f64,
    /// Requests taken.
    pub requests_per_second: Option<f64>,
    /// Bytes that its machines read.
    pub read_bytes_per_second: Option<f64>,
    /// Bytes that they write.
    pub write_bytes_per_second: Option<f64>,
}

/// One netlink.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetlinkReport {
    /// The interface.
    pub netlink: String,
    /// `up` or `down`.
    pub state: &'static str,
    /// Its MTU.
    #[serde(serialize_with = "whole")]
    pub mtu_bytes: f64,
    /// Frames lost for want of receive buffer since the start.
    #[serde(serialize_with = "whole")]
    pub dropped_frames: f64,
    /// Frames that the kernel did not take since the start.
    #[serde(serialize_with = "whole")]
    pub unsent_frames: f64,
    /// Frames received.
    pub received_frames_per_second: Option<f64>,
    /// Frames sent.
    pub sent_frames_per_second: Option<f64>,
}

fn as_text<S: serde::Serializer>(addr: &Addr, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(addr)
}

/// A number of things is an integer, also where it was read as a float. What is not whole, which no page of ours has,
/// stays as it is.
fn whole<S: serde::Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    const TOO_LARGE: f64 = u64::MAX as f64;
    match *number {
        n if n >= 0.0 && n.fract() == 0.0 && n < TOO_LARGE => to.serialize_u64(n as u64),
        n => to.serialize_f64(n),
    }
}

fn word(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

/// The growth of a counter between two readings.
fn grown(now: f64, before: f64) -> f64 {
    if now >= before { now - before } else { now }
}

/// The reading before, and how many seconds ago it was.
#[derive(Clone, Copy)]
struct Since<'a> {
    before: &'a Sample,
    seconds: f64,
}

impl Report {
    /// The report of a reading. `before`: the reading before and the seconds between the two, if there was one.
    pub fn new(now: &Sample, before: Option<(&Sample, f64)>) -> Report {
        // Readings at one moment are as good as one reading.
        let since =
            before.filter(|(_, seconds)| *seconds > 0.0).map(|(before, seconds)| Since { before, seconds });
        let targets: Vec<TargetReport> =
            now.targets.iter().map(|(addr, target)| target_report(*addr, target, since)).collect();
        let up = now.targets.values().filter(|target| target.up).count();
        Report {
            mountpoint: String::new(),
            version: now.version.clone(),
            interval_seconds: since.map(|since| since.seconds),
            totals: Totals {
                targets_up: up,
                targets_down: now.targets.len() - up,
                candidates: now.candidates,
                rates: since.map(|_| sum(targets.iter().filter_map(|target| target.rates.as_ref()))),
            },
            targets,
            netlinks: now.netlinks.iter().map(|(name, net)| netlink_report(name, net, since)).collect(),
            log: Vec::new(),
        }
    }
}

impl TargetReport {
    /// Whether the word is in what names the target: address, state, model, serial number, or the ends of a path.
    pub fn has(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let own = [self.target.to_string(), self.state.to_owned(), self.model.clone(), self.serial.clone()];
        let paths =
            self.paths.iter().flat_map(|path| [path.netlink.clone(), path.mac.clone(), path.state.clone()]);
        own.into_iter().chain(paths).any(|text| text.to_lowercase().contains(&word))
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a Rates>) -> Rates {
    all.fold(Rates::default(), |sum, each| Rates {
        requests_per_second: sum.requests_per_second + each.requests_per_second,
        reads_per_second: sum.reads_per_second + each.reads_per_second,
        writes_per_second: sum.writes_per_second + each.writes_per_second,
        read_bytes_per_second: sum.read_bytes_per_second + each.read_bytes_per_second,
        write_bytes_per_second: sum.write_bytes_per_second + each.write_bytes_per_second,
        errors_per_second: sum.errors_per_second + each.errors_per_second,
        retransmissions_per_second: sum.retransmissions_per_second + each.retransmissions_per_second,
        ..sum
    })
}

fn target_report(addr: Addr, target: &Target, since: Option<Since<'_>>) -> TargetReport {
    let fresh = Target::default();
    TargetReport {
        target: addr,
        state: word(target.up),
        size_bytes: target.size,
        model: target.model.clone(),
        serial: target.serial.clone(),
        generation: target.generation,
        open_handles: target.handles,
        queued_requests: target.queue,
        outstanding_frames: target.outstanding,
        window_frames: target.window,
        errors: target.ops.iter().map(|op| op.errors).sum(),
        retransmissions: target.paths.values().map(|path| path.retransmitted).sum(),
        duplicates: target.duplicates,
        // The counters of a new target began at zero.
        rates: since
            .map(|since| rates(target, since.before.targets.get(&addr).unwrap_or(&fresh), since.seconds)),
        paths: target
            .paths
            .iter()
            .map(|((netlink, mac), path)| {
                let before = since.map(|since| {
                    let before = since.before.targets.get(&addr);
                    let path = before.and_then(|target| target.paths.get(&(netlink.clone(), mac.clone())));
                    (path.cloned().unwrap_or_default(), since.seconds)
                });
                path_report(netlink, mac, path, target.up, before)
            })
            .collect(),
        exports: target
            .exports
            .iter()
            .map(|(outlet, export)| {
                let before = since.map(|since| {
                    let before = since.before.targets.get(&addr);
                    let export = before.and_then(|target| target.exports.get(outlet));
                    (export.cloned().unwrap_or_default(), since.seconds)
                });
                export_report(outlet, export, before)
            })
            .collect(),
    }
}

fn rates(now: &Target, before: &Target, seconds: f64) -> Rates {
    let [read, write, flush] = &now.ops;
    let [read0, write0, flush0] = &before.ops;
    let ended = |now: &Op, before: &Op| grown(now.ended(), before.ended()) / seconds;
    let (reads, writes) = (ended(read, read0), ended(write, write0));
    let errors = now.ops.iter().zip(&before.ops).map(|(now, before)| grown(now.errors, before.errors));
    let again = now.paths.iter().map(|(ends, path)| {
        grown(path.retransmitted, before.paths.get(ends).map_or(0.0, |path| path.retransmitted))
    });
    let waits = read.latency.since(&read0.latency).and(write.latency.since(&write0.latency));
    Rates {
        requests_per_second: reads + writes + ended(flush, flush0),
        reads_per_second: reads,
        writes_per_second: writes,
        read_bytes_per_second: grown(read.bytes, read0.bytes) / seconds,
        write_bytes_per_second: grown(write.bytes, write0.bytes) / seconds,
        errors_per_second: errors.sum::<f64>() / seconds,
        retransmissions_per_second: again.sum::<f64>() / seconds,
        latency_seconds: (waits.count > 0.0).then(|| waits.sum / waits.count),
        latency_p99_seconds: waits.quantile(P99),
    }
}

impl Histogram {
    /// The values that were added since then.
    fn since(&self, before: &Histogram) -> Histogram {
        if self.count < before.count || self.buckets.len() < before.buckets.len() {
            return self.clone();
        }
        let old = |bound: f64| before.buckets.iter().find(|(at, _)| *at == bound).map_or(0.0, |(_, n)| *n);
        Histogram {
            buckets: self.buckets.iter().map(|&(bound, n)| (bound, grown(n, old(bound)))).collect(),
            sum: grown(self.sum, before.sum),
            count: self.count - before.count,
        }
    }

    /// Both together. Those of one aoefs have the same bounds.
    fn and(self, other: Histogram) -> Histogram {
        if other.buckets.is_empty() {
            return self;
        }
        if self.buckets.is_empty() {
            return other;
        }
        let buckets = self.buckets.iter().zip(&other.buckets).map(|(&(bound, a), &(_, b))| (bound, a + b));
        Histogram { buckets: buckets.collect(), sum: self.sum + other.sum, count: self.count + other.count }
    }

    /// The bound that the share `q` stayed below; the largest finite one if it was more.
    fn quantile(&self, q: f64) -> Option<f64> {
        if self.count <= 0.0 {
            return None;
        }
        let mut bounds = self.buckets.iter().filter(|(bound, _)| bound.is_finite());
        let enough = |(_, n): &&(f64, f64)| *n >= self.count * q;
        bounds.clone().find(enough).or_else(|| bounds.next_back()).map(|(bound, _)| *bound)
    }
}

fn export_report((disk, socket): &Outlet, export: &Export, before: Option<(Export, f64)>) -> ExportReport {
    let rate = |field: fn(&Export) -> f64| {
        before.as_ref().map(|(before, seconds)| grown(field(export), field(before)) / seconds)
    };
    ExportReport {
        disk: disk.clone(),
        socket: socket.clone(),
        clients: export.clients,
        requests: export.requests,
        errors: export.errors,
        requests_per_second: rate(|export| export.requests),
        read_bytes_per_second: rate(|export| export.read),
        write_bytes_per_second: rate(|export| export.written),
    }
}

fn path_report(netlink: &str, mac: &str, path: &Path, up: bool, before: Option<(Path, f64)>) -> PathReport {
    let rate = |field: fn(&Path) -> f64| {
        before.as_ref().map(|(before, seconds)| grown(field(path), field(before)) / seconds)
    };
    PathReport {
        netlink: netlink.to_owned(),
        mac: mac.to_owned(),
        // What leads to a target that is down carries no work, whatever was known of it before.
        state: if up && path.up { path.state.clone() } else { "down".to_owned() },
        round_trip_seconds: path.rtt,
        outstanding_frames: path.outstanding,
        window_frames: path.window,
        frame_payload_bytes: path.payload,
        retransmissions: path.retransmitted,
        late_replies: path.late,
        frames_per_second: rate(|path| path.sent),
        bytes_per_second: rate(|path| path.bytes),
        retransmissions_per_second: rate(|path| path.retransmitted),
    }
}

fn netlink_report(name: &str, net: &Netlink, since: Option<Since<'_>>) -> NetlinkReport {
    let rate = |field: fn(&Netlink) -> f64| {
        since.map(|since| {
            let before = since.before.netlinks.get(name).map_or(0.0, field);
            grown(field(net), before) / since.seconds
        })
    };
    NetlinkReport {
        netlink: name.to_owned(),
        state: word(net.up),
        mtu_bytes: net.mtu,
        dropped_frames: net.dropped,
        unsent_frames: net.unsent,
        received_frames_per_second: rate(|net| net.received),
        sent_frames_per_second: rate(|net| net.sent),
    }
}
