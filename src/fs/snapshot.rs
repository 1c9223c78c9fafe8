//! Copies of a target's numbers, taken under its lock: `ctl`, `devlink`, `stats` and `metrics` are rendered from them
//! without it.

use crate::engine::{NetId, PathStatus, Status, Trust};
use crate::runtime::{NetlinkStatus, Runtime, Unit};
use crate::wire::Addr;

/// A target as it was at one moment.
#[derive(Clone, Debug)]
pub struct Target {
    /// shelf.slot.
    pub addr: Addr,
    /// The target itself.
    pub status: Status,
    /// The paths to it.
    pub paths: Vec<PathStatus>,
}

impl Target {
    /// Copies its numbers, under its lock.
    pub fn take(runtime: &Runtime, unit: &Unit) -> Target {
        let (status, paths) = runtime.inspect(unit, |device| (device.status(), device.paths()));
        Target { addr: unit.addr, status, paths }
    }
}

/// The netlinks that these paths use, by number: those of `devlink/0`, `devlink/1`, …
pub fn nets(paths: &[PathStatus]) -> Vec<NetId> {
    let mut nets: Vec<NetId> = paths.iter().map(|path| path.net).collect();
    nets.sort_unstable();
    nets.dedup();
    nets
}

/// How many files a target's `devlink` has.
pub fn devlinks(runtime: &Runtime, unit: &Unit) -> u8 {
    let paths = runtime.inspect(unit, |device| device.paths());
    u8::try_from(nets(&paths).len()).unwrap_or(u8::MAX)
}

/// The interface of a netlink; its number, if it is used no more.
pub fn net_name(netlinks: &[NetlinkStatus], id: NetId) -> String {
    let net = netlinks.iter().find(|net| net.id == id);
    net.map_or_else(|| format!("if{}", id.0), |net| net.name.clone())
}

/// The word of the pages for a path's trust.
pub fn word(trust: Trust) -> &'static str {
    match trust {
        Trust::Proving => "proving",
        Trust::Active => "active",
        Trust::Tainted => "tainted",
    }
}
