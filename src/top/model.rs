//! One reading of `metrics`: the figures that a person wants to see, by name instead of by line.

use std::collections::BTreeMap;
use std::fmt;

use super::{plain, text};
use crate::wire::Addr;

/// Why a text is not the whole page of an aoefs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotAoefs {
    /// It is the page of another program.
    Foreign,
    /// The end is missing.
    Cut,
}

impl fmt::Display for NotAoefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotAoefs::Foreign => "its metrics are not those of an aoefs",
            NotAoefs::Cut => "its metrics end in the middle",
        })
    }
}

/// Latencies as they were counted: how many took at most so many seconds, by rising bounds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Histogram {
    /// Bound and how many stayed within it; the last bound is infinite.
    pub buckets: Vec<(f64, f64)>,
    /// Sum of all, in seconds.
    pub sum: f64,
    /// How many.
    pub count: f64,
}

/// One operation of a target.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Op {
    /// Requests accepted.
    pub requests: f64,
    /// Bytes moved.
    pub bytes: f64,
    /// Requests that failed.
    pub errors: f64,
    /// How long those took that succeeded.
    pub latency: Histogram,
}

impl Op {
    /// Requests that have ended.
    pub fn ended(&self) -> f64 {
        self.latency.count + self.errors
    }
}

/// One way to a target.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Path {
    /// Its netlink is up.
    pub up: bool,
    /// `active`, `proving` or `tainted`; empty if the page did not say.
    pub state: String,
    /// Smoothed round trip in seconds.
    pub rtt: Option<f64>,
    /// Frames that may be outstanding.
    pub window: f64,
    /// Frames outstanding.
    pub outstanding: f64,
    /// Bytes of data in a frame.
    pub payload: f64,
    /// Frames sent.
    pub sent: f64,
    /// Copies sent again.
    pub retransmitted: f64,
    /// Answers that came after their copy was given up.
    pub late: f64,
    /// Bytes of data moved.
    pub bytes: f64,
}

/// A socket for virtual machines.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Export {
    /// Front ends that are connected.
    pub clients: f64,
    /// Requests taken.
    pub requests: f64,
    /// Those that were answered with an error.
    pub errors: f64,
    /// Bytes that its machines have read.
    pub read: f64,
    /// Bytes that they have written.
    pub written: f64,
}

/// What names an export: the disk and the socket.
pub type Outlet = (String, String);

/// A path's ends: netlink and MAC.
pub type Ends = (String, String);

/// One target.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Target {
    /// It answers.
    pub up: bool,
    /// Bytes.
    pub size: f64,
    /// From IDENTIFY.
    pub model: String,
    /// From IDENTIFY.
    pub serial: String,
    /// Rises with every new disk.
    pub generation: f64,
    /// Open handles.
    pub handles: f64,
    /// Requests that are not answered yet.
    pub queue: f64,
    /// Frames outstanding.
    pub outstanding: f64,
    /// Frames that may be.
    pub window: f64,
    /// Answers counted twice.
    pub duplicates: f64,
    /// Reads, writes and flushes.
    pub ops: [Op; 3],
    /// The ways to it.
    pub paths: BTreeMap<Ends, Path>,
    /// Its sockets for virtual machines.
    pub exports: BTreeMap<Outlet, Export>,
}

/// The operations of [`Target::ops`].
pub const OPS: [&str; 3] = ["read", "write", "flush"];

/// One netlink.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Netlink {
    /// It is up.
    pub up: bool,
    /// Its MTU.
    pub mtu: f64,
    /// Frames received.
    pub received: f64,
    /// Frames sent.
    pub sent: f64,
    /// Frames that the kernel did not take.
    pub unsent: f64,
    /// Frames lost for want of receive buffer.
    pub dropped: f64,
    /// Frames that made no sense.
    pub malformed: f64,
}

/// One reading.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Sample {
    /// Of the aoefs that was read.
    pub version: String,
    /// Addresses that are no targets yet.
    pub candidates: f64,
    /// By name.
    pub netlinks: BTreeMap<String, Netlink>,
    /// By address.
    pub targets: BTreeMap<Addr, Target>,
}

impl Sample {
    /// Reads a page.
    pub fn parse(page: &str) -> Result<Sample, NotAoefs> {
        let mut sample = Sample::default();
        let mut ours = false;
        for line in text::lines(page) {
            let Some(name) = line.name.strip_prefix("aoefs_") else { continue };
            if let Some(name) = name.strip_prefix("target_") {
                if let Ok(addr) = line.label("target").parse() {
                    sample.targets.entry(addr).or_default().take(name, &line);
                }
            } else if let Some(name) = name.strip_prefix("path_") {
                if let Ok(addr) = line.label("target").parse() {
                    let ends = (plain(line.label("netlink")), plain(line.label("path")));
                    let paths = &mut sample.targets.entry(addr).or_default().paths;
                    // Histograms of paths are many lines, and nothing here uses them.
                    if !name.starts_with("frame_duration_") {
                        paths.entry(ends).or_default().take(name, &line);
                    }
                }
            } else if let Some(name) = name.strip_prefix("export_") {
                if let Ok(addr) = line.label("target").parse() {
                    let outlet = (plain(line.label("disk")), plain(line.label("socket")));
                    let exports = &mut sample.targets.entry(addr).or_default().exports;
                    exports.entry(outlet).or_default().take(name, &line);
                }
            } else if let Some(name) = name.strip_prefix("netlink_") {
                sample.netlinks.entry(plain(line.label("netlink"))).or_default().take(name, line.value);
            } else if name == "info" {
                ours = true;
                sample.version = plain(line.label("version"));
            } else if name == "candidates" {
                sample.candidates = line.value;
            }
        }
        match (ours, text::is_whole(page)) {
            (true, true) => Ok(sample),
            (true, false) => Err(NotAoefs::Cut),
            (false, _) => Err(NotAoefs::Foreign),
        }
    }
}

impl Netlink {
    fn take(&mut self, name: &str, value: f64) {
        match name {
            "up" => self.up = value > 0.0,
            "mtu_bytes" => self.mtu = value,
            "received_frames_total" => self.received = value,
            "sent_frames_total" => self.sent = value,
            "unsent_frames_total" => self.unsent = value,
            "dropped_frames_total" => self.dropped = value,
            "malformed_frames_total" => self.malformed = value,
            _ => {}
        }
    }
}

impl Target {
    fn take(&mut self, name: &str, line: &text::Line<'_>) {
        let value = line.value;
        match name {
            "up" => self.up = value > 0.0,
            "size_bytes" => self.size = value,
            "info" => {
                self.model = plain(line.label("model"));
                self.serial = plain(line.label("serial"));
            }
            "generation" => self.generation = value,
            "open_handles" => self.handles = value,
            "queued_requests" => self.queue = value,
            "outstanding_frames" => self.outstanding = value,
            "window_frames" => self.window = value,
            "duplicate_replies_total" => self.duplicates = value,
            _ => {
                let op = line.label("op");
                if let Some(index) = OPS.iter().position(|known| *known == op) {
                    self.ops[index].take(name, line);
                }
            }
        }
    }
}

impl Op {
    fn take(&mut self, name: &str, line: &text::Line<'_>) {
        match name {
            "requests_total" => self.requests = line.value,
            "bytes_total" => self.bytes = line.value,
            "errors_total" => self.errors = line.value,
            "request_duration_seconds_sum" => self.latency.sum = line.value,
            "request_duration_seconds_count" => self.latency.count = line.value,
            "request_duration_seconds_bucket" => {
                if let Ok(bound) = line.label("le").parse::<f64>() {
                    self.latency.buckets.push((bound, line.value));
                }
            }
            _ => {}
        }
    }
}

impl Export {
    fn take(&mut self, name: &str, line: &text::Line<'_>) {
        match (name, line.label("op")) {
            ("clients", _) => self.clients = line.value,
            ("requests_total", _) => self.requests = line.value,
            ("errors_total", _) => self.errors = line.value,
            ("bytes_total", "read") => self.read = line.value,
            ("bytes_total", "write") => self.written = line.value,
            _ => {}
        }
    }
}

impl Path {
    fn take(&mut self, name: &str, line: &text::Line<'_>) {
        let value = line.value;
        match name {
            "up" => self.up = value > 0.0,
            "state" if value > 0.0 => self.state = plain(line.label("state")),
            "round_trip_seconds" => self.rtt = Some(value),
            "window_frames" => self.window = value,
            "outstanding_frames" => self.outstanding = value,
            "frame_payload_bytes" => self.payload = value,
            "sent_frames_total" => self.sent = value,
            "retransmitted_frames_total" => self.retransmitted = value,
            "late_replies_total" => self.late = value,
            "bytes_total" => self.bytes = value,
            _ => {}
        }
    }
}
