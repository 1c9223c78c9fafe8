//! Snapshots for the status pages, taken under the target's lock and rendered after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::text::{Cap, DevlinkPage, FlushLine, NetLine, PartLine, PathLine, TargetLine, TopPage, UnitPage};
use crate::engine::{FlushState, NetId, PathStatus, Status, Trust};
use crate::runtime::{NetlinkStatus, Runtime, Unit};

/// Frames of more data than this, in bytes, need `jumbo`.
const SMALL: usize = 1024;

fn state(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The netlinks behind which a target is, by number: `devlink/0`, `devlink/1`, …
fn nets(paths: &[PathStatus]) -> Vec<NetId> {
    let mut nets: Vec<NetId> = paths.iter().map(|path| path.net).collect();
    nets.sort_unstable();
    nets.dedup();
    nets
}

fn net_line(net: &NetlinkStatus) -> NetLine {
    NetLine {
        index: net.id.0,
        name: net.name.clone(),
        mac: net.mac,
        up: net.up,
        port: net.port,
        lostjumbo: net.lost_jumbo,
        mtu: net.mtu as u64,
        drops: net.drops,
    }
}

fn path_line(path: &PathStatus) -> PathLine {
    PathLine {
        mac: path.mac,
        state: match path.trust {
            Trust::Proving => "proving",
            Trust::Active => "active",
            Trust::Tainted => "tainted",
        },
        rtt: path.rtt.map(|rtt| (micros(rtt), micros(path.deviation))),
        rto: micros(path.timeout),
        window: path.window.into(),
        out: path.inflight.into(),
        sectors: path.sectors.into(),
        sent: path.stats.sent,
        resent: path.stats.resent,
        late: path.stats.late,
        bytes: path.stats.bytes,
        probed: path.probed.map(u64::from),
    }
}

/// `uncached`: what the mount says where the target's own switch was never set.
fn flags(status: &Status, uncached: bool) -> Vec<&'static str> {
    let set = [
        status.lba48,
        status.smart,
        status.flush != FlushState::None,
        status.trim,
        status.up,
        status.jumbo && status.maxbcnt > SMALL,
        status.nofail,
        status.uncached.unwrap_or(uncached),
    ];
    UnitPage::FLAGS.into_iter().zip(set).filter(|(_, set)| *set).map(|(flag, _)| flag).collect()
}

/// How many files a target's `devlink` has.
pub fn devlinks(runtime: &Runtime, unit: &Unit) -> u8 {
    let paths = runtime.look(unit, |device| device.paths());
    u8::try_from(nets(&paths).len()).unwrap_or(u8::MAX)
}

/// The text of a target's `ctl`. `uncached`: what the mount says where the target's own switch was never set.
pub fn unit(runtime: &Runtime, unit: &Unit, uncached: bool) -> String {
    let (status, parts) = runtime.look(unit, |device| {
        let parts = device.partitions().map(|part| PartLine {
            name: part.name.clone(),
            start: part.start,
            end: part.end,
        });
        (device.status(), parts.collect())
    });
    UnitPage {
        state: state(status.up),
        nopen: status.nopen.into(),
        nout: status.nout.into(),
        nmaxout: status.nmaxout.into(),
        nframes: status.nframes.into(),
        maxbcnt: status.maxbcnt as u64,
        maxmtu: status.maxmtu as u64,
        fw: status.fw,
        model: status.model.to_string(),
        serial: status.serial.to_string(),
        firmware: status.firmware.to_string(),
        flags: flags(&status, uncached),
        sectors: status.sectors,
        shown: status.size / crate::wire::SECTOR as u64,
        parts,
        flush: match status.flush {
            FlushState::None => FlushLine::None,
            FlushState::Flush => FlushLine::Yes,
            FlushState::FlushExt => FlushLine::Ext,
        },
        deadline: status.deadline.as_secs(),
        caps: [
            Cap(status.mtu_cap.map(|cap| cap as u64)),
            Cap(status.maxbno.map(u64::from)),
            Cap(status.maxout.map(u64::from)),
        ],
        requests: status.requests as u64,
    }
    .to_string()
}

/// The text of the top `ctl`.
pub fn top(runtime: &Runtime) -> String {
    let netlinks = runtime.netlinks();
    let name = |id: NetId| {
        netlinks.iter().find(|net| net.id == id).map_or_else(|| format!("if{}", id.0), |net| net.name.clone())
    };
    let target = |unit: &Arc<Unit>| {
        let (status, paths) = runtime.look(unit, |device| (device.status(), device.paths()));
        TargetLine {
            addr: unit.addr,
            bytes: status.size,
            interfaces: nets(&paths).into_iter().map(name).collect(),
            payload: status.maxbcnt as u64,
            state: state(status.up),
        }
    };
    let on = |switch: &AtomicBool| switch.load(Ordering::Relaxed);
    let switches = &runtime.switches;
    TopPage {
        debug: on(&switches.debug),
        autodiscover: on(&switches.autodiscover),
        rediscover: on(&switches.rediscover),
        nets: netlinks.iter().map(net_line).collect(),
        targets: runtime.units().iter().map(target).collect(),
        candidates: runtime.candidates() as u64,
    }
    .to_string()
}

/// The text of `devlink/n`, if the target still has so many.
pub fn devlink(runtime: &Runtime, unit: &Unit, n: u8) -> Option<String> {
    let (up, jumbo, paths) = runtime.look(unit, |device| (device.is_up(), device.jumbo(), device.paths()));
    let id = *nets(&paths).get(usize::from(n))?;
    let netlinks = runtime.netlinks();
    let net = netlinks.iter().find(|net| net.id == id).map(net_line).unwrap_or_default();
    let paths: Vec<&PathStatus> = paths.iter().filter(|path| path.net == id).collect();
    let page = DevlinkPage {
        up: up && paths.iter().any(|path| path.up && path.trust == Trust::Active),
        jumbo: jumbo && paths.iter().any(|path| usize::from(path.sectors) * crate::wire::SECTOR > SMALL),
        net,
        paths: paths.into_iter().map(path_line).collect(),
    };
    Some(page.to_string())
}
