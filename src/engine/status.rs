//! What a target looks like from outside: plain values for status pages and metrics.

use std::time::Duration;

use super::ids::NetId;
use super::path::{PathStats, Trust};
use super::stats::Stats;
use crate::wire::{FlushKind, Mac, Text};

/// One target.
#[derive(Clone, Debug)]
pub struct Status {
    /// It answers.
    pub up: bool,
    /// Open handles of data and partitions.
    pub nopen: u32,
    /// Frames outstanding.
    pub nout: u32,
    /// Frames that may be outstanding now.
    pub nmaxout: u32,
    /// Frames that may ever be outstanding: the target's buffers, capped.
    pub nframes: u32,
    /// Bytes of data in the largest frame.
    pub maxbcnt: usize,
    /// The MTU that bounds it, in Linux's sense.
    pub maxmtu: usize,
    /// The firmware version that the config reply carries.
    pub fw: u16,
    /// From IDENTIFY.
    pub model: Text<40>,
    /// From IDENTIFY.
    pub serial: Text<20>,
    /// From IDENTIFY.
    pub firmware: Text<8>,
    /// 48-bit addresses.
    pub lba48: bool,
    /// SMART feature set.
    pub smart: bool,
    /// TRIM that promises zeros.
    pub trim: bool,
    /// How fsync is carried out; none: the target has no flush, or refused it.
    pub flush: FlushKind,
    /// Frames above 1 KiB of data are allowed.
    pub jumbo: bool,
    /// I/O never fails for lost contact.
    pub nofail: bool,
    /// Files that are opened are not cached; none if it was never said of this target.
    pub uncached: Option<bool>,
    /// How long a request may take.
    pub deadline: Duration,
    /// Sectors of the disk.
    pub sectors: u64,
    /// Bytes that `data` shows.
    pub size: u64,
    /// Operator's caps: none is automatic.
    pub mtu_cap: Option<usize>,
    /// Operator's cap in sectors.
    pub maxbno: Option<u8>,
    /// Operator's cap in frames.
    pub maxout: Option<u32>,
    /// Requests that are not answered yet.
    pub requests: usize,
    /// Ranges held back because a stale attempt could still reach them.
    pub quarantined: usize,
    /// The disk's identity is being confirmed; writes wait.
    pub confirming: bool,
    /// Rises with every new disk at this address.
    pub generation: u32,
    /// Counters.
    pub stats: Stats,
}

/// One path of a target.
#[derive(Clone, Debug)]
pub struct PathStatus {
    /// The local end.
    pub net: NetId,
    /// The target's end.
    pub mac: Mac,
    /// May it carry work?
    pub trust: Trust,
    /// Is the netlink up?
    pub up: bool,
    /// Smoothed round trip; none before the first answer.
    pub rtt: Option<Duration>,
    /// Its mean deviation.
    pub deviation: Duration,
    /// Retransmission timeout.
    pub timeout: Duration,
    /// Frames that may be outstanding on it.
    pub window: u32,
    /// Frames outstanding on it.
    pub inflight: u32,
    /// Sectors a frame, as used now.
    pub sectors: u8,
    /// Sectors a frame, as the target advertised.
    pub advertised: u8,
    /// Sectors that the `probe` command found to pass both ways.
    pub probed: Option<u8>,
    /// The netlink's MTU.
    pub mtu: usize,
    /// Counters.
    pub stats: PathStats,
}
