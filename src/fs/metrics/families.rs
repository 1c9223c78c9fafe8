//! The families of the `metrics` page, as tables: a name, a sentence, and where the number is.
//!
//! A name that ends in `_total` is a counter, every other a gauge. Names are a contract: one that is here stays.

use super::*;

/// A number as the page shows it.
#[derive(Clone, Copy)]
pub(super) enum Value {
    /// As it is.
    Count(u64),
    /// Microseconds, shown in seconds without loss.
    Micros(u64),
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::Count(count) => count.fmt(f),
            Value::Micros(micros) => {
                (micros / 1_000_000).fmt(f)?;
                let (mut rest, mut digits) = (micros % 1_000_000, 6);
                if rest == 0 {
                    return Ok(());
                }
                while rest % 10 == 0 {
                    (rest, digits) = (rest / 10, digits - 1);
                }
                write!(f, ".{rest:0digits$}")
            }
        }
    }
}

/// Series with one name.
pub(super) struct Family<T> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// None if there is nothing to show yet.
    pub(super) value: fn(&T) -> Option<Value>,
}

const fn family<T>(name: &'static str, help: &'static str, value: fn(&T) -> Option<Value>) -> Family<T> {
    Family { name, help, value }
}

fn count(count: impl Into<u64>) -> Option<Value> {
    Some(Value::Count(count.into()))
}

/// A time, in microseconds.
fn time(time: Duration) -> Option<Value> {
    Some(Value::Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
}

/// A length or a size in memory, which fits in 64 bits wherever this runs.
fn size(size: usize) -> Option<Value> {
    Some(Value::Count(size as u64))
}

/// Of the mount.
pub(super) static COUNTS: [Family<Counts>; 6] = [
    family(
        "aoefs_candidates",
        "Addresses that announced themselves and are no targets yet.",
        |c: &Counts| count(c.candidates),
    ),
    family("aoefs_refused_total", "Addresses that were not taken for want of room.", |c| count(c.refused)),
    family("aoefs_open_handles", "Open files and directories of the mount.", |c| count(c.handles)),
    family("aoefs_log_bytes_total", "Bytes ever written to the log.", |c| count(c.log_bytes)),
    family("aoefs_log_pushed_out_lines_total", "Lines of the log that newer ones pushed out.", |c| {
        count(c.log_pushed_out)
    }),
    family("aoefs_log_suppressed_lines_total", "Lines that the rate limit kept out of the log.", |c| {
        count(c.log_suppressed)
    }),
];

/// Of the daemon's process. Other programs have these too, under the same names.
pub(super) static PROCESS: [Family<Process>; 6] = [
    family("process_cpu_seconds_total", "Time of processors that the daemon has used.", |p: &Process| {
        time(p.cpu)
    }),
    family("process_resident_memory_bytes", "Memory that the daemon occupies.", |p| {
        p.resident.and_then(count)
    }),
    family("process_virtual_memory_bytes", "Addresses that the daemon has mapped.", |p| {
        p.mapped.and_then(count)
    }),
    family("process_open_fds", "Open file descriptors of the daemon.", |p| p.descriptors.and_then(count)),
    family("process_max_fds", "How many of them it may have.", |p| p.descriptors_max.and_then(count)),
    family("process_start_time_seconds", "When the daemon started, in seconds since 1970.", |p| {
        time(p.start)
    }),
];

/// Of each netlink.
pub(super) static NETLINK: [Family<NetlinkStatus>; 8] = [
    family("aoefs_netlink_up", "Whether frames sent now have a chance.", |n: &NetlinkStatus| count(n.up)),
    family("aoefs_netlink_mtu_bytes", "MTU of the interface, as ip-link shows it.", |n| size(n.mtu)),
    family("aoefs_netlink_received_frames_total", "Frames received.", |n| count(n.received)),
    family("aoefs_netlink_sent_frames_total", "Frames sent.", |n| count(n.sent)),
    family("aoefs_netlink_unsent_frames_total", "Frames that the kernel did not take.", |n| count(n.unsent)),
    family("aoefs_netlink_malformed_frames_total", "Frames received that made no sense.", |n| {
        count(n.malformed)
    }),
    family("aoefs_netlink_dropped_frames_total", "Frames lost for want of receive buffer.", |n| {
        count(n.drops)
    }),
    family("aoefs_netlink_lost_jumbo_frames_total", "Full-size frames of any target that were lost.", |n| {
        count(n.lost_jumbo)
    }),
];

/// Of each target.
pub(super) static TARGET: [Family<Status>; 23] = [
    family("aoefs_target_up", "Whether the target answers.", |s: &Status| count(s.up)),
    family("aoefs_target_size_bytes", "Size of the file data.", |s| count(s.size)),
    family("aoefs_target_generation", "Rises with every new disk at this address.", |s| count(s.generation)),
    family("aoefs_target_open_handles", "Open handles of data and partitions.", |s| count(s.nopen)),
    family("aoefs_target_queued_requests", "Requests that are not answered yet.", |s| size(s.requests)),
    family("aoefs_target_outstanding_frames", "Frames sent and not answered yet.", |s| count(s.nout)),
    family("aoefs_target_window_frames", "Frames that may be outstanding now.", |s| count(s.nmaxout)),
    family(
        "aoefs_target_buffer_frames",
        "Frames that may ever be outstanding: the target's buffers, capped.",
        |s| count(s.nframes),
    ),
    family("aoefs_target_frame_payload_bytes", "Data in the largest frame.", |s| size(s.maxbcnt)),
    family("aoefs_target_deadline_seconds", "How long a request may take.", |s| time(s.deadline)),
    family("aoefs_target_nofail", "Whether lost contact never fails a request.", |s| count(s.nofail)),
    family(
        "aoefs_target_quarantined_ranges",
        "Ranges that a stale copy of a write could still reach.",
        |s| size(s.quarantined),
    ),
    family("aoefs_target_confirming", "Whether writes wait for the disk to show its identity.", |s| {
        count(s.confirming)
    }),
    family(
        "aoefs_target_duplicate_replies_total",
        "Answers to copies of frames that had been answered.",
        |s| count(s.stats.duplicates),
    ),
    family("aoefs_target_unexpected_replies_total", "Answers with a tag that is not known here.", |s| {
        count(s.stats.unexpected)
    }),
    family("aoefs_target_mismatched_replies_total", "Answers that did not fit what was asked.", |s| {
        count(s.stats.mismatched)
    }),
    family(
        "aoefs_target_held_back_writes_total",
        "Writes that waited for stale copies of older ones.",
        |s| count(s.stats.held_back),
    ),
    family("aoefs_target_confirmations_total", "Times that the disk had to show its identity again.", |s| {
        count(s.stats.confirmations)
    }),
    family("aoefs_target_downs_total", "Times that the target went down.", |s| count(s.stats.downs)),
    family(
        "aoefs_target_deadlines_passed_total",
        "Requests that failed because their deadline passed.",
        |s| count(s.stats.deadlines),
    ),
    family("aoefs_target_read_ahead_fetched_bytes_total", "Bytes that came ahead of readers.", |s| {
        count(s.stats.ahead_fetched)
    }),
    family(
        "aoefs_target_read_ahead_served_bytes_total",
        "Bytes of reads that were answered with them.",
        |s| count(s.stats.ahead_served),
    ),
    family("aoefs_target_read_ahead_wasted_bytes_total", "Those that were thrown away.", |s| {
        count(s.stats.ahead_wasted)
    }),
];

/// Of each operation of each target.
pub(super) static OPS: [Family<OpStats>; 3] = [
    family("aoefs_target_requests_total", "Requests accepted.", |o: &OpStats| count(o.requests)),
    family("aoefs_target_bytes_total", "Bytes moved by requests that succeeded.", |o| count(o.bytes)),
    family("aoefs_target_errors_total", "Requests that failed.", |o| count(o.errors)),
];

/// Latency of each operation of each target.
pub(super) static WAITS: (&str, &str) = (
    "aoefs_target_request_duration_seconds",
    "From a request's acceptance to its end, for those that succeeded, by powers of two of a microsecond.",
);

/// Of each path.
pub(super) static PATH: [Family<PathStatus>; 15] = [
    family("aoefs_path_up", "Whether the path's netlink is up.", |p: &PathStatus| count(p.up)),
    family("aoefs_path_mtu_bytes", "MTU that bounds the path's frames.", |p| size(p.mtu)),
    family("aoefs_path_frame_payload_bytes", "Data in a frame, as used now.", |p| {
        size(usize::from(p.sectors) * SECTOR)
    }),
    family("aoefs_path_round_trip_seconds", "Smoothed round-trip time, once measured.", |p| {
        p.rtt.and_then(time)
    }),
    family(
        "aoefs_path_round_trip_deviation_seconds",
        "Mean deviation of the round-trip time, once measured.",
        |p| p.rtt.and_then(|_| time(p.deviation)),
    ),
    family(
        "aoefs_path_retransmission_timeout_seconds",
        "How long an answer may take until the frame is sent again.",
        |p| time(p.timeout),
    ),
    family("aoefs_path_window_frames", "Frames that may be outstanding now.", |p| count(p.window)),
    family("aoefs_path_outstanding_frames", "Frames sent and not answered yet.", |p| count(p.inflight)),
    family("aoefs_path_sent_frames_total", "Frames sent, every copy counted.", |p| count(p.stats.sent)),
    family("aoefs_path_answered_frames_total", "Valid answers.", |p| count(p.stats.answered)),
    family(
        "aoefs_path_retransmitted_frames_total",
        "Copies sent since an earlier one was lost or late.",
        |p| count(p.stats.resent),
    ),
    family("aoefs_path_overtaken_frames_total", "Copies given up since younger ones were answered.", |p| {
        count(p.stats.overtaken)
    }),
    family("aoefs_path_expired_frames_total", "Copies given up since the timer ran out.", |p| {
        count(p.stats.expired)
    }),
    family("aoefs_path_late_replies_total", "Answers to copies that had been given up.", |p| {
        count(p.stats.late)
    }),
    family("aoefs_path_bytes_total", "Bytes of data read and written.", |p| count(p.stats.bytes)),
];

/// Round trips of each operation on each path.
pub(super) static TRIPS: (&str, &str) = (
    "aoefs_path_frame_duration_seconds",
    "From a frame's departure to the answer, by powers of two of a microsecond.",
);

/// Of each socket for virtual machines.
pub(super) static EXPORT: [Family<ExportStatus>; 4] = [
    family(
        "aoefs_export_clients",
        "Front ends of virtual machines that are connected.",
        |e: &ExportStatus| size(e.clients),
    ),
    family("aoefs_export_connections_total", "Front ends that have connected.", |e| {
        count(e.counts.connections)
    }),
    family("aoefs_export_requests_total", "Requests of virtual machines.", |e| count(e.counts.requests)),
    family("aoefs_export_errors_total", "Those that were answered with an error.", |e| {
        count(e.counts.errors)
    }),
];

/// Name and help of a family with an operation, which [`EXPORT`] has not.
pub(super) const EXPORT_BYTES: (&str, &str) =
    ("aoefs_export_bytes_total", "Bytes that virtual machines have read and written.");
